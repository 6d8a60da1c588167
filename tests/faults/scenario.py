"""What a scenario is, and what is seen of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from msgspec import Struct

if TYPE_CHECKING:
    from tests.faults.trial import Trial

ROUND_SECONDS_MAX: Final = 240.0
"""A round that takes longer hangs."""


class Unavailable(Exception):
    """A tool that the scenario needs is not here, or the system does not allow it."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One kind of fault."""

    name: str
    fault: str
    injected_by: str
    promised: str
    run: Callable[[Trial], Awaitable[None]]
    """Injects, and raises when the promise was not kept."""
    rounds: int
    """Of a whole campaign."""
    repeats: int = 1
    """Faults in a round, one after the other."""
    repeats_bounded: int = 1
    """The same in the test suite."""


class Seen(Struct, frozen=True, kw_only=True):
    """What a round has shown that kept its promise, or several of them together."""

    faults: int = 0
    starts: int = 0
    """Of the daemon."""
    acknowledged: int = 0
    """Ops."""
    unanswered: int = 0
    """Ops of which no caller knows whether they are stored."""
    answers: dict[int, int] = {}
    """Status -> how many."""
    ready_s_max: float = 0.0
    """Longest time from the start of the process until it took events."""
    recovered_s_max: float = 0.0
    """Longest time from the end of the fault until events were acknowledged again."""
    remarks: dict[str, int] = {}
    """What else was seen -> how often."""


def summed(seen: list[Seen]) -> Seen:
    """Give what several rounds have shown together."""
    answers: Counter[int] = Counter()
    remarks: Counter[str] = Counter()
    for one in seen:
        answers.update(one.answers)
        remarks.update(one.remarks)
    return Seen(
        faults=sum(one.faults for one in seen),
        starts=sum(one.starts for one in seen),
        acknowledged=sum(one.acknowledged for one in seen),
        unanswered=sum(one.unanswered for one in seen),
        answers=dict(answers),
        ready_s_max=max((one.ready_s_max for one in seen), default=0.0),
        recovered_s_max=max((one.recovered_s_max for one in seen), default=0.0),
        remarks=dict(remarks),
    )
