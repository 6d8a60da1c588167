"""The two event loops that a client may run on, for tests that run on trio themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

import trio

Result = TypeVar("Result")
Runtime = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Awaitable[Any]]


async def on_trio(call: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    """Run it here."""
    return await call()


async def on_asyncio(call: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    """Run it in a thread, on an asyncio loop of its own, while trio serves the test's servers."""
    return await trio.to_thread.run_sync(lambda: asyncio.run(call()))


RUNTIMES: Final = (on_trio, on_asyncio)
