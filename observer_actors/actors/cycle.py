"""The learning cycle: numbered ticks, the same for every actor, that survive the actors' restarts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import trio


class Cycle:
    """Ticks from the daemon's start on.

    :param seconds: gives the period now in force; a changed one takes effect with the next tick, or by `reconsider`.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self.number = 0
        self._seconds = seconds
        self._ticked = trio.lowlevel.ParkingLot()
        self._reconsidered = trio.lowlevel.ParkingLot()

    async def run(self) -> None:
        """Tick for ever; the daemon runs this once."""
        while True:
            last, is_due = trio.current_time(), False
            while not is_due:
                with trio.move_on_at(last + self._seconds()) as wait:
                    await self._reconsidered.park()
                is_due = wait.cancelled_caught
            self.number += 1
            self._ticked.unpark_all()

    def reconsider(self) -> None:
        """Count the period anew from the last tick: it may be another one now."""
        self._reconsidered.unpark_all()

    def each(self, every: int = 1) -> AsyncIterator[int]:
        """Give the number of each ``every``-th cycle from now on. A reader that is late skips what it missed."""
        return _Ticks(self, every)

    async def after(self, seen: int, every: int) -> int:
        """Wait for the first ``every``-th cycle after number ``seen``."""
        while self.number // every == seen // every:
            await self._ticked.park()
        return self.number


class _Ticks(AsyncIterator[int]):
    """An object and no async generator: one that a crash leaves in the middle would have to be closed."""

    def __init__(self, cycle: Cycle, every: int) -> None:
        self._cycle = cycle
        self._every = every
        self._seen = cycle.number

    async def __anext__(self) -> int:
        self._seen = await self._cycle.after(self._seen, self._every)
        return self._seen
