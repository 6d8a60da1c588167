"""A host's function, decorated: each call is an operation, which lasts for as long as what it gave goes on. No I/O."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from types import AsyncGeneratorType, CoroutineType, GeneratorType, TracebackType
from typing import Any, Final

from observer_actors.client._guest import attempt_of_host, kind_of
from observer_actors.client._ledger import warn_once
from observer_actors.client._operation import Operation

Function = Callable[..., Any]
Begin = Callable[..., Operation]
"""Makes the operation of a call, of the call's arguments."""
End = Callable[[Operation, object], None]
"""Takes in what the call gave, when it went well."""
_OF_A_CACHE: Final = ("cache_info", "cache_clear")
"""What `functools.lru_cache` gives to its own, and `functools.wraps` does not know."""
_LASTING: Final = (CoroutineType, GeneratorType, AsyncGeneratorType)


def decorated(function: Any, begin: Begin, end: End) -> Any:  # noqa: ANN401 - whatever the host decorates
    """Give a function of the same kind that does the same; what cannot be called as it is, as it is, with a warning."""
    if issubclass(type(function), staticmethod | classmethod):
        return type(function)(decorated(function.__func__, begin, end))
    if not callable(function):
        warn_once("not_observed", kind_of(function), "it cannot be called: decorate the function that it is made of")
        return function
    wrap = attempt_of_host(_called, _wrapper, function)
    made = wrap(function, begin, end)
    attempt_of_host(made, functools.update_wrapper, made, function)  # a lazy object looks itself up, and may fail
    for name in _OF_A_CACHE:
        if (method := attempt_of_host(None, getattr, function, name, None)) is not None:
            setattr(made, name, method)
    return made


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
        if type(result) in _LASTING:  # nothing has been done yet; `isinstance` would have a lazy object look itself up
            return _going_on(result, operation, end)
        end(operation, result)
        operation.__exit__(None, None, None)
        return result

    return called


def _going_on(result: Any, operation: Operation, end: End) -> object:  # noqa: ANN401 - as above
    if isinstance(result, AsyncGeneratorType):
        return _FollowedLater(result, operation, end)
    if inspect.isawaitable(result):
        return _awaited(lambda: result, lambda: operation, end)()
    return _Followed(result, operation, end)


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


class _Followed(Generator[Any, Any, Any]):
    """A generator that a function gave: the host may hold it, too, and go on with it when this one is forgotten."""

    def __init__(self, inner: Generator[Any, Any, Any], operation: Operation, end: End) -> None:
        self._inner = inner
        self._steps = _Steps(operation, end)

    def send(self, value: object, /) -> Any:  # noqa: ANN401 - as above
        self._steps.begin()
        with self._steps:
            return self._inner.send(value)

    def throw(self, *error: Any) -> Any:  # noqa: ANN401 - as above
        self._steps.begin()
        with self._steps:
            return self._inner.throw(*error)

    def close(self) -> None:
        with self._steps:
            self._inner.close()
        self._steps.over()

    def __del__(self) -> None:
        self._steps.over()


class _FollowedLater(AsyncGenerator[Any, Any]):
    """As `_Followed`; its loop closes the generator, as it would without us."""

    def __init__(self, inner: AsyncGenerator[Any, Any], operation: Operation, end: End) -> None:
        self._inner = inner
        self._steps = _Steps(operation, end)

    async def asend(self, value: object, /) -> Any:  # noqa: ANN401 - as above
        self._steps.begin()
        with self._steps:
            return await self._inner.asend(value)

    async def athrow(self, *error: Any) -> Any:  # noqa: ANN401 - as above
        self._steps.begin()
        with self._steps:
            return await self._inner.athrow(*error)

    async def aclose(self) -> None:
        with self._steps:
            await self._inner.aclose()
        self._steps.over()

    def __del__(self) -> None:
        self._steps.over()


class _Steps:
    """The operation of such a generator: from its first step to the one that raises, or until nobody follows it."""

    def __init__(self, operation: Operation, end: End) -> None:
        self._operation = operation
        self._end = end
        self._is_begun = self._is_over = False

    def begin(self) -> None:
        """Begin with the first step."""
        if not self._is_begun:
            self._is_begun = True
            self._operation.__enter__()

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if issubclass(type(error), StopIteration | StopAsyncIteration):  # as in `_Stream`
            self._end(self._operation, getattr(error, "value", None))
            self.over()
        elif error is not None:
            self.over(error)

    def over(self, error: BaseException | None = None) -> None:
        """End the operation, once; one that has not begun has done nothing."""
        if self._is_begun and not self._is_over:
            self._is_over = True
            _Stream(self._operation).__exit__(None, error, None)


class _Stream:
    """The operation of a generator: who closes it has had enough, which is no failure, and no cancellation."""

    def __init__(self, operation: Operation) -> None:
        self._operation = operation

    def __enter__(self) -> Operation:
        return self._operation.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        had_enough = issubclass(type(error), GeneratorExit)  # `isinstance` would ask the host's own `__class__`
        self._operation.__exit__(kind, None if had_enough else error, traceback)


def _is_old_coroutine(code: object) -> bool:
    """Tell what `types.coroutine` has made of a generator function."""
    return bool(getattr(code, "co_flags", 0) & inspect.CO_ITERABLE_COROUTINE)
