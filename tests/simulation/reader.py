"""Somebody who follows the journal: over the live tail, or out of its files while they are written and sealed."""

from __future__ import annotations

from contextlib import aclosing
from random import Random

import trio

from observer_actors.daemon import Daemon
from observer_actors.errors import DiskFailed, Overloaded
from observer_actors.op import Op
from tests.simulation.callers import Reach
from tests.simulation.disk import Defect

PAGE_OPS = 10
SILENCE_S = 1.0


class Reader:
    """Reads on from the last op that it has seen; asserts that it misses none, also across deaths.

    What is shown to a reader is on disk: no death takes it back.
    """

    def __init__(self, chance: Random, reach: Reach) -> None:
        self.seen = 0
        self._chance = chance
        self._reach = reach

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            await trio.sleep(self._chance.expovariate(2))
            process = await self._reach.reached()
            way = self._follow if self._chance.random() < 0.5 else self._page
            try:
                with trio.move_on_after(self._chance.expovariate(0.5)):
                    async with process.connected():
                        await way(process.daemon)
            except (DiskFailed, Overloaded, Defect) as error:
                self._reach.told(f"reader {type(error).__name__}", seconds=0)

    async def _follow(self, daemon: Daemon) -> None:
        last = None
        async with aclosing(daemon.tail.follow(self.seen, silence_s=SILENCE_S)) as pages:
            async for page in pages:
                for op in (each for each in page if isinstance(each, Op)):
                    # The journal may have shown us what was on disk, and not told yet: only that may come again.
                    assert op.seq == last + 1 if last is not None else op.seq <= self.seen + 1, f"{last}, then {op.seq}"
                    last = op.seq
                    self.seen = max(self.seen, last)

    async def _page(self, daemon: Daemon) -> None:
        for op in await daemon.journal.read(self.seen, PAGE_OPS):
            assert op.seq == self.seen + 1, f"a reader has seen {self.seen}, and then {op.seq}"
            self.seen = op.seq
