"""A coroutine, run to its end for a caller that blocks: in a thread of its own, as a loop may run in the caller's.

No pool of threads: one waits for its work on Ctrl-C, and there is none while the interpreter ends.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import anyio._backends._asyncio  # noqa: F401 - anyio would import it, in the thread
from outcome import Outcome, capture

with suppress(RuntimeError):  # the interpreter ends, and no name is looked up any more
    import concurrent.futures.thread  # noqa: F401 - asyncio would import it, in the thread

T = TypeVar("T")


def to_end(call: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end; what interrupts the caller cancels it."""
    work = _Work(call)
    try:
        threading.Thread(target=work.run, daemon=True).start()
    except RuntimeError:  # the interpreter ends, and with it every event loop of the host's
        work.run()
    try:
        ended = work.ended.get()
    finally:
        work.stop()
    return ended.unwrap()


class _Work(Generic[T]):
    def __init__(self, call: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._call = call
        self._cancel: Callable[[], object] | None = None
        self._stopped = False
        self.ended: SimpleQueue[Outcome[T]] = SimpleQueue()

    def run(self) -> None:
        self.ended.put(capture(asyncio.run, self._run()))

    async def _run(self) -> T:
        task = asyncio.current_task()
        assert task is not None, "asyncio runs us"
        loop = asyncio.get_running_loop()
        self._cancel = lambda: loop.call_soon_threadsafe(task.cancel)
        if self._stopped:
            task.cancel()
        return await self._call()

    def stop(self) -> None:
        """Cancel it, unless it has ended."""
        self._stopped = True
        if self._cancel is not None:
            with suppress(RuntimeError):  # its loop is closed
                self._cancel()
