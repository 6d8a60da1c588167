"""Where the client catches whatever comes: it is a guest in somebody else's program. And its clock.

The end of an operation alone does so by itself: the stack may have no room for a call more.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

monotonic_s: Final[Callable[[], float]] = partial(time.clock_gettime, time.CLOCK_MONOTONIC)
"""Seconds, never going back. What a host's tests put in the place of `time.monotonic` (freezegun) may stand still, and
who waited by that would wait for ever."""


_NAME_OF: Final[Callable[[type[Any]], str]] = type.__dict__["__name__"].__get__


def kind_of(value: object) -> str:
    """Give the name of a value's class, also where a metaclass of the host's hides it."""
    return _NAME_OF(type(value))


def attempt(otherwise: T, call: Callable[P, T], /, *arguments: P.args, **named: P.kwargs) -> T:
    """Give what a call gives, or something else instead of any error: a fault of ours, or what `__str__` raised.

    Cancellation and the like are no `Exception`, and pass through.
    """
    try:
        return call(*arguments, **named)
    except Exception:  # noqa: BLE001 - a report is never worth its host's own work
        return otherwise


def attempt_of_host(otherwise: T, call: Callable[P, T], /, *arguments: P.args, **named: P.kwargs) -> T:
    """As `attempt`, around code of the host's (a ``__str__``, say), which may raise what is no `Exception` as well.

    A `KeyboardInterrupt` or `SystemExit` may also come from a handler of a signal, and has to be obeyed. The two are
    told apart by a second try: that of a signal comes once, and what the host's code raises it raises again.
    """
    try:
        return call(*arguments, **named)
    except Exception:  # noqa: BLE001 - as above
        return otherwise
    except BaseException:
        try:
            attempt(otherwise, call, *arguments, **named)
        except BaseException:  # noqa: BLE001 - as above
            return otherwise
        raise


def tried(call: Callable[P, T], /, *arguments: P.args, **named: P.kwargs) -> T | Exception:
    """Give what a call gives, or the error that it raised: a thread of ours must not end with a batch in hand."""
    try:
        return call(*arguments, **named)
    except Exception as error:  # noqa: BLE001 - as above
        return error


async def attempted(call: Awaitable[T]) -> T | Exception:
    """As `tried`, for what is awaited: a task of ours must not end its host's loop."""
    try:
        return await call
    except Exception as error:  # noqa: BLE001 - as above
        return error
