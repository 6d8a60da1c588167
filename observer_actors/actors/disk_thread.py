"""The disk's thread: blocking calls one at a time, in order, each to its end.

Trio's own `to_thread` looks for a thread, copies a context and wakes the event loop through a socket, at each call; at
thousands of commits a second that costs as much as the disk. Here one thread waits for calls, and an eventfd says
that one is done.
"""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from queue import SimpleQueue
from typing import Final, TypeVar

import outcome
import trio

T = TypeVar("T")
_Call = Callable[[], object]
THREAD_NAME: Final = "disk"


class DiskThread:
    """Made by `started`. Calls of several tasks wait for each other."""

    def __init__(self, done: int) -> None:
        self._done = done
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._outcomes: SimpleQueue[outcome.Maybe[object]] = SimpleQueue()
        self._busy = False
        self._turns = trio.lowlevel.ParkingLot()

    @classmethod
    @asynccontextmanager
    async def started(cls) -> AsyncIterator[DiskThread]:
        """Start the thread, and end it after the block; no call may be under way then."""
        done = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        disk = cls(done)
        thread = threading.Thread(target=disk._serve, name=THREAD_NAME, daemon=True)
        thread.start()
        try:
            yield disk
        finally:
            disk._calls.put(None)
            thread.join()
            os.close(done)

    async def __call__(self, call: Callable[[], T]) -> T:
        """Run a blocking call to its end, whatever happens meanwhile; a cancellation waits for the next checkpoint.

        Raises what the call raises.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while self._busy:
            await self._turns.park()
        # No other task has its turn before the disk has the call: the disk is what everybody waits for.
        self._busy = True
        self._calls.put(call)
        with trio.CancelScope(shield=True):
            await trio.lowlevel.wait_readable(self._done)
        os.eventfd_read(self._done)
        self._busy = False
        self._turns.unpark()
        return self._outcomes.get_nowait().unwrap()  # type: ignore[return-value]  # it is this call's

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            self._outcomes.put(outcome.capture(call))
            os.eventfd_write(self._done, 1)
