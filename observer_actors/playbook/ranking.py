"""Which entries to hand out, and in which order. Pure.

The rules:

* An entry is for one endpoint. Asked about an endpoint, no entry of another is given: what works there shows nothing
  here. Asked about none, one is given only where its words match.
* An entry may be for ops with certain attributes. Where the request says otherwise it is not given. The more of them
  the request agrees with, the earlier it goes; one whose attributes the request leaves unsaid goes behind the others.
* What says no more than that an endpoint works goes behind all that tells an agent what it could do otherwise.
* Then the `worth` of an entry (its evidence, and what it was measured to do) and how well its words match the input's,
  the best match being 1, count in one sum. Where all is equal the older entry goes first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from observer_actors.playbook.entries import Entry, Kind, Mark, State
from observer_actors.playbook.lift import Sides, lift
from observer_actors.playbook.states import ALPHA

LIMIT_MAX: Final = 3
"""Most entries in an answer: more of them dilute a prompt, and each other's measurement."""
EVIDENCE_HALF: Final = 10
"""Ops at which evidence counts half of what it can."""
EVIDENCE_WEIGHT: Final = 0.5
TRUSTED_WEIGHT: Final = 0.5
"""What it counts that the interval, or a person, speaks for an entry."""
HOPE: Final = 0.75
"""Where in the interval of its lift an entry is taken to stand: 0.5 would be its middle, 1 its upper end."""
AGREES: Final = 1.0
UNSAID: Final = -0.5


class Match(msgspec.Struct, frozen=True):
    """An entry and how well its words match the input's."""

    entry: Entry
    text: float
    """Higher is better, from 0: no word in common."""
    worth: float
    """`worth` of the entry."""


def ranked(matches: Iterable[Match], given: Mapping[str, str], limit: int) -> list[Entry]:
    """Give the best entries, best first.

    :param given: the attributes that the request says, by name (role, city, state, ``attrs.*``).
    """
    fitting = [(match, share) for match in matches if (share := fit(match.entry, given)) is not None]
    best = max((match.text for match, _ in fitting), default=0.0) or 1.0

    def key(item: tuple[Match, float]) -> tuple[bool, float, float, int, str]:
        match, share = item
        entry = match.entry
        is_general = entry.kind is Kind.DO and not entry.about
        return is_general, -share, -(match.worth + match.text / best), entry.first_seq, entry.id

    return [match.entry for match, _ in sorted(fitting, key=key)[:limit]]


def fit(entry: Entry, given: Mapping[str, str]) -> float | None:
    """Say how well the request fits what an entry is for: 0 for any request; None when it says otherwise."""
    total = 0.0
    for name, value in entry.scope.items():
        if name in given and given[name] != value:
            return None
        total += AGREES if name in given else UNSAID
    return total


def worth(entry: Entry) -> float:
    """Say what an entry is worth without knowing the request: from -1 to 2.

    Its evidence, what speaks for it, and its lift: of the interval what lies three quarters of the way up. While little
    is known that is more than what a long trial without any effect leaves: of entries that are else worth the same the
    one goes first that has been tried less, and none waits until the trial of another is over ("optimism in the face of
    uncertainty": Auer, Cesa-Bianchi & Fischer 2002).
    """
    seen = entry.succeeded + entry.failed
    evidence = EVIDENCE_WEIGHT * seen / (seen + EVIDENCE_HALF)
    trusted = TRUSTED_WEIGHT * (entry.state is State.ACTIVE or entry.mark is Mark.PINNED)
    present = Sides(entry.trial.exposed, entry.trial.control)
    shown = lift(max(present, entry.decided_by, key=lambda one: one.total), ALPHA)
    return evidence + trusted + shown.low + HOPE * (shown.high - shown.low)
