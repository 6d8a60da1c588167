"""What the web application sees of the daemon: what it reads, and whom it hands events and persons' decisions to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import trio

from observer_actors.actors.admission import Admission
from observer_actors.actors.adviser import Adviser
from observer_actors.actors.analyzer import Analyzer
from observer_actors.actors.commits import Commits, Feed
from observer_actors.actors.consolidator import Consolidator
from observer_actors.actors.librarian import Librarian
from observer_actors.actors.persister import Persister
from observer_actors.actors.recorder import Recorder
from observer_actors.actors.ring_keeper import RingKeeper
from observer_actors.actors.stats import StatsKeeper
from observer_actors.actors.tail import Tail
from observer_actors.http.intake import Intake
from observer_actors.journal import Page, Query
from observer_actors.op import Op
from observer_actors.store import Lane, LaneStatistics
from observer_actors.supervision import ActorStatistics, Events

READ_OWN_WRITES_S: Final = 1.0
BEHIND_OPS_MAX: Final = 20_000
"""A consumer that is further behind takes longer than that: it is not waited for."""


class Readiness(msgspec.Struct, frozen=True):
    """Whether the daemon takes events now, and if not, why."""

    ready: bool
    reasons: list[str]


@dataclass(frozen=True, slots=True)
class Views:
    """Everything that routes read and hand to."""

    intake: Intake
    admission: Admission
    recorder: Recorder
    adviser: Adviser
    persister: Persister
    commits: Commits
    ring: RingKeeper
    stats: StatsKeeper
    tail: Tail
    events: Events
    feeds: Mapping[str, Feed]
    tree: Callable[[], Sequence[ActorStatistics]]
    query: Callable[[Query], Awaitable[Page]]
    get: Callable[[int], Awaitable[Op | None]]
    damaged_lines: Callable[[], int]
    reloads_failed: Callable[[], int]
    """Since the last that did not."""
    analyzer: Analyzer
    consolidator: Consolidator
    librarian: Librarian
    outbox: Callable[[], Mapping[Lane, LaneStatistics] | None]
    lanes: Sequence[Lane]
    """Those of the outbox that have a receiver."""
    now_us: Callable[[], int]

    async def own_writes(self, consumer: str) -> None:
        """Wait a moment until a consumer has taken in what was acknowledged before this request came."""
        last_seq, feed = self.commits.last_seq, self.feeds[consumer]
        if last_seq - feed.cursor <= BEHIND_OPS_MAX:
            with trio.move_on_after(READ_OWN_WRITES_S):
                await feed.reached(last_seq)

    def readiness(self) -> Readiness:
        """Say whether the daemon takes events now."""
        status = self.persister.status
        reasons = []
        if not status.open:
            reasons.append("the journal is not open")
        if status.refusing:
            reasons.append(f"the disk refuses: {status.refusing}")
        if self.admission.full:
            reasons.append("callers are waiting for room")
        elif self.admission.overdue:
            reasons.append("callers have waited for the disk in vain")
        return Readiness(not reasons, reasons)
