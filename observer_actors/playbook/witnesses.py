"""Who speaks for a piece of evidence: how many ops, of which runs, by the word of which sources. Pure.

A run is known by the seq of its first op (`runs`), and all ops of a source that name no run are one run, whose number
is negative: a source that floods the journal with ops that belong nowhere is one witness.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

__all__ = ["WITNESSES_MAX", "Corroboration", "Witnesses"]

WITNESSES_MAX: Final = 8
"""Runs, and sources, that are remembered of one piece of evidence: the first ones. More corroborate no further."""


class Corroboration(msgspec.Struct, frozen=True):
    """What it takes until evidence may reach an agent."""

    runs_min: int = 2
    sources_min: int = 2


class Witnesses(msgspec.Struct, array_like=True, gc=False):
    """What speaks for one thing. There are many: the garbage collector need not look at them."""

    count: int = 0
    """Ops."""
    doubtful: int = 0
    """Successes in runs that were judged failed: they count for nothing, and are in no other number."""
    runs: tuple[int, ...] = ()
    sources: tuple[str, ...] = ()
    first_seq: int = 0
    """An op before it is not in these counts."""

    def add(self, seq: int, run: int, sources: Iterable[str], *, is_doubtful: bool = False) -> None:
        """Take an op in.

        :param sources: whose word it is: that of who reported it, and of who has judged its run.
        """
        if not self.first_seq:
            self.first_seq = seq
        if is_doubtful:
            self.doubtful += 1
            return
        self.count += 1
        if run not in self.runs and len(self.runs) < WITNESSES_MAX:
            self.runs = (*self.runs, run)
        self.vouch(sources)

    def vouch(self, sources: Iterable[str]) -> None:
        """Note whose word it is, too."""
        for source in sources:
            if source not in self.sources and len(self.sources) < WITNESSES_MAX:
                self.sources = (*self.sources, source)

    def doubt(self, seq: int) -> None:
        """Take a success back whose run was judged failed, if it is in these counts."""
        if self.first_seq and seq >= self.first_seq and self.count:
            self.count -= 1
            self.doubtful += 1

    def suffice(self, corroboration: Corroboration) -> bool:
        """Say whether they are enough."""
        return (
            self.count > 0
            and len(self.runs) >= corroboration.runs_min
            and len(self.sources) >= corroboration.sources_min
        )

    def joined(self, other: Witnesses) -> Witnesses:
        """Give both together."""
        return Witnesses(
            self.count + other.count,
            self.doubtful + other.doubtful,
            tuple(dict.fromkeys((*self.runs, *other.runs)))[:WITNESSES_MAX],
            tuple(dict.fromkeys((*self.sources, *other.sources)))[:WITNESSES_MAX],
            min(filter(None, (self.first_seq, other.first_seq)), default=0),
        )
