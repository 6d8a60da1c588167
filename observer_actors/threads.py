"""Blocking calls in a thread, and nothing of them afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import outcome
import trio

T = TypeVar("T")


async def in_thread(
    call: Callable[[], T], *, abandon_on_cancel: bool = False, limiter: trio.CapacityLimiter | None = None
) -> T:
    """Run a blocking call as `trio.to_thread.run_sync` does, but forget one that fails.

    Trio's own way leaves a cycle: the error, its traceback, the frames, the outcome of the call, the error. Only the
    search for garbage would free it, with all that the frames hold, and it comes seldom: bodies that were refused would
    have become gigabytes by then. So the outcome is captured here, and trio is handed none.

    Raises what the call raises.
    """
    captured: list[outcome.Maybe[T]] = []
    await trio.to_thread.run_sync(
        lambda: captured.append(outcome.capture(call)), abandon_on_cancel=abandon_on_cancel, limiter=limiter
    )
    return captured.pop().unwrap()
