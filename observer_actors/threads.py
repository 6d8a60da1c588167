"""Blocking calls in a thread, and nothing of them afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import outcome
import trio

__all__ = ["in_thread"]

T = TypeVar("T")


async def in_thread(
    call: Callable[[], T], *, abandon_on_cancel: bool = False, limiter: trio.CapacityLimiter | None = None
) -> T:
    """Run a blocking call as `trio.to_thread.run_sync` does, but forget one that fails.

    There the error leads to the frames that it came through, those of trio's thread too, and they lead to what the call
    came to: to the error. Only a search for garbage would find them, with all that they hold, and it comes seldom: of
    bodies that were refused, gigabytes would be there by then. So trio hands nothing on, and we take it away.

    Raises what the call raises.
    """
    captured: list[outcome.Maybe[T]] = []
    await trio.to_thread.run_sync(
        lambda: captured.append(outcome.capture(call)), abandon_on_cancel=abandon_on_cancel, limiter=limiter
    )
    return captured.pop().unwrap()
