"""In which state a pattern is: new, ongoing, escalating, resolved, regressed, or muted by a person. Pure.

The definitions, with their numbers, are in docs/failures.md; the first that holds counts:

=============  =====================================================================================================
muted          a person said so, and has not taken it back
resolved       a person said so, or it has not failed for an hour and for 4 times its mean distance between failures,
               without the time in which there was no witness; it has not failed since
escalating     in the last 5 minutes at least 10 failures, and at least 4 times as many as are usual in 5 minutes:
               the higher of the mean of the hour and of the day before. It is 15 minutes old or older. It stays so for
               an hour, unless the last 5 minutes hold less than half of that
regressed      it failed again after it was resolved, less than a day ago
new            it was first seen less than a day ago, and has not been resolved since
ongoing        anything else
=============  =====================================================================================================

A pattern that keeps failing at its new rate for an hour is usual again. After Sentry's states; those look at days,
these see a spike within minutes, since an agent repeats a failing call in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import msgspec

from observer_actors.op import time_us
from observer_actors.patterns.grouping import QUIET_TIMES_MEAN, QUIET_US_MIN, Pattern
from observer_actors.patterns.history import DAY_US, HOUR_US, MINUTE_US

NEW_US: Final = DAY_US
REGRESSED_US: Final = DAY_US
SPIKE_MINUTES: Final = 5
SPIKE_FAILURES_MIN: Final = 10
SPIKE_TIMES: Final = 4
SPIKE_AGE_MINUTES_MIN: Final = 15
"""Before that nobody can say what is usual: the pattern is new."""
NOTES_MAX: Final = 20
NOTE_CHARS_MAX: Final = 1_000


class State(StrEnum):
    """See the head of this module."""

    NEW = "new"
    ONGOING = "ongoing"
    ESCALATING = "escalating"
    RESOLVED = "resolved"
    REGRESSED = "regressed"
    MUTED = "muted"


class Action(StrEnum):
    """What a person can do with a pattern."""

    RESOLVE = "resolve"
    MUTE = "mute"
    UNMUTE = "unmute"
    NOTE = "note"


class Note(msgspec.Struct, frozen=True):
    """What a person wrote."""

    at_us: int
    text: str


class Standing(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of a pattern beside its failures.

    It depends on the clock and on persons, so no journal gives it.
    """

    state: State = State.NEW
    since_us: int = 0
    """When it came into this state."""
    since_seq: int = 0
    """The pattern's ``last_seq`` then."""
    usual: float = 0.0
    """Failures in 5 minutes that were usual when it last began to escalate."""
    muted: bool = False
    resolved_seq: int = 0
    """The newest op there was when it was last resolved, its own or another; 0: never."""
    regressed_us: int = 0
    """When it first failed again after that, muted or not; 0: it has not."""
    notes: tuple[Note, ...] = ()


class Absence(msgspec.Struct, frozen=True):
    """A time in which there was no witness that could have been told of a failure."""

    from_us: int
    until_us: int


NO_ABSENCE: Final = Absence(0, 0)


class StateChanged(msgspec.Struct, frozen=True, kw_only=True):
    """A pattern has come into another state; ``was`` is null for one that has just been founded."""

    pattern: str
    endpoint: str
    template: str
    was: State | None
    state: State
    at: str
    """ISO 8601."""
    count: int
    last_seq: int


def judged(pattern: Pattern, standing: Standing | None, now_us: int, absence: Absence = NO_ABSENCE) -> Standing:
    """Give the standing of a pattern as of now; the same object when nothing has changed.

    :param standing: the last one; None for a pattern that has none yet.
    :param absence: the last one.
    """
    known = standing or Standing(since_us=now_us)
    has_failed_since = pattern.last_seq > known.resolved_seq
    if known.resolved_seq and has_failed_since and not known.regressed_us:
        known = msgspec.structs.replace(known, regressed_us=now_us)
    state = _state(pattern, known, now_us, absence)
    if state is State.RESOLVED and has_failed_since:  # also where nobody looked until that was over
        known = _resolved(known, pattern.last_seq)
    if state is known.state:
        return known
    return msgspec.structs.replace(
        known,
        state=state,
        since_us=now_us,
        since_seq=pattern.last_seq,
        usual=_usual(pattern, now_us) if state is State.ESCALATING else known.usual,
    )


def acted(
    pattern: Pattern,
    standing: Standing,
    action: Action,
    text: str,
    now_us: int,
    *,
    acknowledged_seq: int = 0,
    absence: Absence = NO_ABSENCE,
) -> Standing:
    """Give the standing after a person has done something.

    :param absence: as of `judged`.
    :param acknowledged_seq: the newest op when they asked: what was acknowledged by then is resolved too.
    """
    if text:
        notes = (*standing.notes, Note(now_us, text[:NOTE_CHARS_MAX]))[-NOTES_MAX:]
        standing = msgspec.structs.replace(standing, notes=notes)
    if action is Action.RESOLVE:
        standing = _resolved(standing, max(pattern.last_seq, acknowledged_seq))
    elif action is not Action.NOTE:
        standing = msgspec.structs.replace(standing, muted=action is Action.MUTE)
    return judged(pattern, standing, now_us, absence)


def _resolved(standing: Standing, seq: int) -> Standing:
    return msgspec.structs.replace(standing, resolved_seq=seq, regressed_us=0)


def merged(one: Standing, other: Standing) -> Standing:
    """Give the standing of two patterns that turned out to be one: the older's; both's notes; muted if both were."""
    notes = tuple(sorted((*one.notes, *other.notes), key=lambda note: note.at_us))[-NOTES_MAX:]
    return msgspec.structs.replace(one, notes=notes, muted=one.muted and other.muted)


def _state(pattern: Pattern, known: Standing, now_us: int, absence: Absence) -> State:
    if known.muted:
        return State.MUTED
    is_same = pattern.last_seq <= known.resolved_seq
    if is_same or _is_quiet(pattern, now_us, absence):
        return State.RESOLVED
    if _is_escalating(pattern, known, now_us):
        return State.ESCALATING
    if known.regressed_us and now_us - known.regressed_us < REGRESSED_US:
        return State.REGRESSED
    first = time_us(pattern.first_seen)
    if first is not None and now_us - first < NEW_US:
        return State.NEW
    return State.ONGOING


def _is_quiet(pattern: Pattern, now_us: int, absence: Absence) -> bool:
    first, last = time_us(pattern.first_seen), time_us(pattern.last_seen)
    if first is None or last is None:
        return False
    mean_us = (last - first) / max(1, pattern.count - 1)
    unheard_us = max(0, absence.until_us - max(absence.from_us, last))
    return now_us - last - unheard_us >= max(QUIET_US_MIN, QUIET_TIMES_MEAN * mean_us)


def _is_escalating(pattern: Pattern, known: Standing, now_us: int) -> bool:
    minute = now_us // MINUTE_US
    recent = _sum(pattern.history.minutes, minute - SPIKE_MINUTES + 1, minute)
    if known.state is State.ESCALATING and now_us - known.since_us < HOUR_US:
        return 2 * recent >= max(SPIKE_FAILURES_MIN, SPIKE_TIMES * known.usual)
    if recent < SPIKE_FAILURES_MIN or _age_minutes(pattern, minute) < SPIKE_AGE_MINUTES_MIN:
        return False
    return recent >= SPIKE_TIMES * _usual(pattern, now_us)


def _usual(pattern: Pattern, now_us: int) -> float:
    """Give how many failures are usual in `SPIKE_MINUTES`, of a pattern of `SPIKE_AGE_MINUTES_MIN`."""
    minute, hour = now_us // MINUTE_US, now_us // HOUR_US
    minutes, hours = pattern.history.minutes, pattern.history.hours
    age_minutes = _age_minutes(pattern, minute)
    spike_from = minute - SPIKE_MINUTES + 1
    hour_before = _sum(minutes, spike_from - 60, spike_from - 1) / min(60, age_minutes - SPIKE_MINUTES + 1)
    age_hours = hour - (minute - age_minutes) * MINUTE_US // HOUR_US
    day_before = _sum(hours, hour - 24, hour - 1) / (min(24, age_hours) * 60) if age_hours else 0.0
    return SPIKE_MINUTES * max(hour_before, day_before)


def _age_minutes(pattern: Pattern, minute: int) -> int:
    """Give the age in whole minutes of the clock; 0 where it is not known."""
    first = time_us(pattern.first_seen)
    return 0 if first is None else minute - first // MINUTE_US


def _sum(windows: Mapping[int, int], first: int, last: int) -> int:
    return sum(count for window, count in windows.items() if first <= window <= last)
