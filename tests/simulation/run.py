"""What was seen of one seed."""

from __future__ import annotations

import hashlib
from typing import Final

import trio.testing

NEVER: Final = frozenset({"journal_cut", "journal_damaged", "snapshot_foreign", "store_damaged"})
"""Events of the log: no fault here rots a byte, or takes a file away."""


class Broken(AssertionError):
    """Something that was promised did not hold.

    :param run: as far as it went.
    """

    def __init__(self, message: str, run: Run) -> None:
        super().__init__(message)
        self.run = run


class Run:
    """What was seen of one seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.clock = trio.testing.MockClock(autojump_threshold=0)
        self.trace: list[str] = []
        self.never_seen: list[str] = []
        """Events of the log that no fault here accounts for."""
        self.left_out: set[str] = set()
        """Consumers that have left out an op that made them crash again and again."""
        self.forced: list[str] = []
        """Actors that did not stop within their budget."""
        self.counts: dict[str, int] = {}
        self.seconds = 0.0
        """Virtual: from the end of the trouble until all had recovered."""

    def note(self, what: str) -> None:
        """Add a line to the trace."""
        self.trace.append(f"{self.clock.current_time():.9f} {what}")

    def take_log(self, event: str, actor: str) -> None:
        """Take in a line of the daemon's log."""
        match event:
            case "message_quarantined" if actor != "persister":
                self.left_out.add(actor)
            case "shutdown_forced":
                self.forced.append(actor)
            case _ if event in NEVER:
                self.never_seen.append(event)

    def count(self, what: str) -> None:
        """Count something for the summary."""
        self.counts[what] = self.counts.get(what, 0) + 1

    @property
    def digest(self) -> str:
        """The trace in 16 hex digits."""
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()[:16]
