"""The last save of an actor that keeps what it knows: within a budget, and said when it is not done by then."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio
from structlog.typing import FilteringBoundLogger


async def save_at_the_end(save: Callable[[], Awaitable[None]], *, budget_s: float, log: FilteringBoundLogger) -> None:
    """Save while we are being cancelled, and leave a disk that hangs alone.

    No thread can be ended: ``save`` must let go of the one that it waits for (``abandon_on_cancel``), and so must all
    that the actor has under way in threads, or it never comes to this.
    """
    with trio.move_on_after(budget_s, shield=True) as budget:
        await save()
    if budget.cancelled_caught:
        log.warning("save_abandoned", budget_s=budget_s, hint="the disk hangs; the journal holds all that matters")
