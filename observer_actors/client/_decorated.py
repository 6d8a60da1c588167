"""A host's function, decorated: each call is an operation, which lasts for as long as what it gave goes on. No I/O."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from types import AsyncGeneratorType, CoroutineType, GeneratorType, TracebackType
from typing import Any, Final

from observer_actors.client._guest import attempt
from observer_actors.client._operation import Operation

Function = Callable[..., Any]
Begin = Callable[..., Operation]
"""Makes the operation of a call, of the call's arguments."""
End = Callable[[Operation, object], None]
"""Takes in what the call gave, when it went well."""
_LASTING: Final = (CoroutineType, GeneratorType, AsyncGeneratorType)


def decorated(function: Function, begin: Begin, end: End) -> Function:
    """Give a function of the same kind that does the same."""
    if isinstance(function, staticmethod | classmethod):
        return type(function)(decorated(function.__func__, begin, end))
    wrap = attempt(_called, _wrapper, function)
    return functools.wraps(function)(wrap(function, begin, end))


def _wrapper(function: Function) -> Callable[[Function, Begin, End], Function]:
    while isinstance(function, functools.partial):
        function = function.func
    for one in (function, type(function).__call__):
        if inspect.iscoroutinefunction(one) or _is_old_coroutine(getattr(one, "__code__", None)):
            return _awaited
        if inspect.isgeneratorfunction(one):
            return _generated
        if inspect.isasyncgenfunction(one):
            return _streamed
    return _called


def _called(function: Function, begin: Begin, end: End) -> Function:
    def called(*arguments: object, **named: object) -> Any:  # noqa: ANN401 - whatever the function gives
        operation = begin(*arguments, **named)
        operation.__enter__()
        try:
            result = function(*arguments, **named)
        except BaseException as error:
            operation.__exit__(type(error), error, error.__traceback__)
            raise
        if isinstance(result, _LASTING):  # nothing has been done yet
            return _going_on(result)(lambda: result, lambda: operation, end)()
        end(operation, result)
        operation.__exit__(None, None, None)
        return result

    return called


def _going_on(result: object) -> Callable[[Function, Begin, End], Function]:
    if isinstance(result, AsyncGeneratorType):
        return _streamed
    return _awaited if inspect.isawaitable(result) else _generated


def _awaited(function: Function, begin: Begin, end: End) -> Function:
    async def awaited(*arguments: object, **named: object) -> Any:  # noqa: ANN401 - as above
        with begin(*arguments, **named) as operation:
            result = await function(*arguments, **named)
            end(operation, result)
            return result

    return awaited


def _generated(function: Function, begin: Begin, end: End) -> Function:
    def generated(*arguments: object, **named: object) -> Generator[Any, Any, Any]:
        with _Stream(begin(*arguments, **named)) as operation:
            result = yield from function(*arguments, **named)
            end(operation, result)
            return result

    return generated


def _streamed(function: Function, begin: Begin, end: End) -> Function:
    async def streamed(*arguments: object, **named: object) -> AsyncGenerator[Any, Any]:
        with _Stream(begin(*arguments, **named)) as operation:
            inner = function(*arguments, **named)
            step = _begun(inner)
            while True:  # as `yield from` would, if there were one here
                try:
                    item = await step
                except StopAsyncIteration:
                    break
                try:
                    step = inner.asend((yield item))
                except GeneratorExit:
                    await inner.aclose()
                    raise
                except BaseException as error:  # noqa: BLE001 - what is thrown in is the function's
                    step = inner.athrow(error)
            end(operation, None)

    return streamed


def _begun(inner: AsyncGenerator[Any, Any]) -> Awaitable[Any]:
    """Give the first step of a generator that is ours to close: a loop that ends would close it as well, meanwhile."""
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        return inner.asend(None)
    finally:
        sys.set_asyncgen_hooks(*hooks)


class _Stream:
    """The operation of a generator: who closes it has had enough, which is no failure, and no cancellation."""

    def __init__(self, operation: Operation) -> None:
        self._operation = operation

    def __enter__(self) -> Operation:
        return self._operation.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._operation.__exit__(kind, None if isinstance(error, GeneratorExit) else error, traceback)


def _is_old_coroutine(code: object) -> bool:
    """Tell what `types.coroutine` has made of a generator function."""
    return bool(getattr(code, "co_flags", 0) & inspect.CO_ITERABLE_COROUTINE)
