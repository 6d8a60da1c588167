"""How often a pattern failed, and when: counts by minute, hour and day of event time, in constant memory. Pure.

Event time is what the caller said; where that is no time, or lies more than `AHEAD_US_MAX` ahead of the witness's, it
is when the witness recorded it. Windows are whole minutes, hours and days of UTC; the newest `MINUTES_KEPT`,
`HOURS_KEPT` and `DAYS_KEPT` are kept, counted from the newest failure. What comes later than that is counted in the
pattern alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from observer_actors.op import Op, time_us

MINUTE_US: Final = 60 * 1_000_000
HOUR_US: Final = 60 * MINUTE_US
DAY_US: Final = 24 * HOUR_US
MINUTES_KEPT: Final = 70
"""An hour, and what is compared with it."""
HOURS_KEPT: Final = 48
DAYS_KEPT: Final = 30
AHEAD_US_MAX: Final = 5 * MINUTE_US
"""A clock that is so much ahead is wrong: it would push all that is kept out."""


class History(msgspec.Struct, frozen=True, omit_defaults=True):
    """Number of a window since 1970 -> failures in it. Never changed in place."""

    minutes: dict[int, int] = {}
    hours: dict[int, int] = {}
    days: dict[int, int] = {}


def event_time_us(op: Op) -> int | None:
    """Give when an op happened; None when neither the caller nor the witness says."""
    recorded, said = time_us(op.recorded_at), time_us(op.timestamp)
    if said is None or (recorded is not None and said > recorded + AHEAD_US_MAX):
        return recorded
    return said


def added(history: History, ops: Iterable[Op]) -> History:
    """Count failures."""
    minutes = Counter(time // MINUTE_US for time in map(event_time_us, ops) if time is not None)
    hours, days = _summed(minutes, HOUR_US // MINUTE_US), _summed(minutes, DAY_US // MINUTE_US)
    return History(
        _counted(history.minutes, minutes, MINUTES_KEPT),
        _counted(history.hours, hours, HOURS_KEPT),
        _counted(history.days, days, DAYS_KEPT),
    )


def _summed(windows: Mapping[int, int], length: int) -> dict[int, int]:
    """Give counts by windows that are so many times as long."""
    sums: dict[int, int] = {}
    for window, count in windows.items():
        sums[window // length] = sums.get(window // length, 0) + count
    return sums


def joined(one: History, other: History) -> History:
    """Give the history of two patterns that turned out to be one."""
    return History(
        _counted(one.minutes, other.minutes, MINUTES_KEPT),
        _counted(one.hours, other.hours, HOURS_KEPT),
        _counted(one.days, other.days, DAYS_KEPT),
    )


def series(windows: Mapping[int, int], last: int, length: int) -> list[int]:
    """Give the counts of the ``length`` windows that end with ``last``, oldest first: what a sparkline shows."""
    return [windows.get(window, 0) for window in range(last - length + 1, last + 1)]


def _counted(windows: Mapping[int, int], more: Mapping[int, int], kept: int) -> dict[int, int]:
    counts = dict(windows)
    for window, count in more.items():
        counts[window] = counts.get(window, 0) + count
    if len(counts) == len(windows):  # nothing that is newer, or older: under load, nearly always
        return counts
    oldest = max(counts) - kept
    return {window: counts[window] for window in sorted(counts) if window > oldest}
