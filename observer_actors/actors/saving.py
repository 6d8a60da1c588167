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

from observer_actors.supervision import Life
from observer_actors.supervision.mailbox import only_cancelled

Save = Callable[[], Awaitable[None]]


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
        hint = "the disk hangs, or another program holds the store; the journal holds all that matters"
        log.warning("save_abandoned", budget_s=budget_s, hint=hint)
