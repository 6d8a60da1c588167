"""Saving what an actor knows: now and then while it serves, and once more at its end, within a budget.

Not after a crash: it may have come in the midst of an op, and what is half taken in must not be gone on from. What was
saved last has its cursor with it, and the journal has the rest. So a save is what such an actor has finished.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio
from structlog.typing import FilteringBoundLogger

from observer_actors.actors.surroundings import InThread
from observer_actors.errors import DiskFailed
from observer_actors.journal.files import translated
from observer_actors.supervision import Life
from observer_actors.supervision.mailbox import only_cancelled

Save = Callable[[], Awaitable[None]]


class Snapshots:
    """Writes a file that can be made again from the journal: a disk that refuses costs only time at the next start.

    :param what: what is saved, to follow "saving": ``the counters``.
    """

    def __init__(self, what: str, in_thread: InThread, log: FilteringBoundLogger) -> None:
        self._what = what
        self._in_thread = in_thread
        self._log = log
        self._one_at_a_time = trio.CapacityLimiter(1)
        self._fails = ""
        """Why the last one could not be written; "" when it could."""

    async def written(self, write: Callable[[], None]) -> bool:
        """Write, in a thread, and say whether that went well. Where the disk hangs, it is left there."""
        try:
            with translated(f"saving {self._what}"):
                await self._in_thread(write, limiter=self._one_at_a_time, abandon_on_cancel=True)
        except DiskFailed as error:
            if str(error) != self._fails:
                self._log.warning("snapshot_failed", error=str(error), hint=error.hint)
            self._fails = str(error)
            return False
        self._fails = ""
        return True


@asynccontextmanager
async def saved(
    save: Save, life: Life, *, every_s: float, budget_s: float, log: FilteringBoundLogger
) -> AsyncIterator[trio.Nursery]:
    """Give a nursery for what the actor does; save every so often beside it, and when it ends or is cancelled."""
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_save_now_and_then, save, life, every_s)
            yield nursery
    finally:
        error = sys.exception()
        if error is None or only_cancelled(error):
            await _save_at_the_end(save, budget_s, log)


async def _save_now_and_then(save: Save, life: Life, every_s: float) -> None:
    while True:
        await trio.sleep(every_s)
        await save()
        life.progress()


async def _save_at_the_end(save: Save, budget_s: float, log: FilteringBoundLogger) -> None:
    """Save while we are being cancelled, and leave a disk that hangs alone.

    No thread can be ended: ``save`` must let go of the one that it waits for (``abandon_on_cancel``), and so must all
    that the actor has under way in threads, or it never comes to this.
    """
    with trio.move_on_after(budget_s, shield=True) as budget:
        await save()
    if budget.cancelled_caught:
        hint = "the disk hangs or is full, or another program holds the store; the journal holds all that matters"
        log.warning("save_abandoned", budget_s=budget_s, hint=hint)
