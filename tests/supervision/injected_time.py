"""Time that tests inject: nothing ever sleeps for real."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import ParamSpec

import trio
from trio.testing import MockClock

P = ParamSpec("P")


def injected_time(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Run an async test on a clock that jumps to the next deadline when all tasks wait."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def main() -> None:
            await test(*args, **kwargs)

        trio.run(main, clock=MockClock(autojump_threshold=0))

    vars(run)["__signature__"] = inspect.signature(test)
    del vars(run)["__wrapped__"]  # pytest would take it for async
    return run
