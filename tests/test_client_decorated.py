"""`Observer.observed_as` on all that can be called: it stays what it is, and is reported when it is over."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import types
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator
from typing import Any, Final
from unittest.mock import Mock

import pytest
import trio

from observer_actors.client import Observer, _ledger
from observer_actors.client._outbox import OutgoingEvent
from tests.fakes.event_loops import Runtime
from tests.fakes.http_peer import closed_url
from tests.test_client_outbox import Unnamed

SOON_S: Final = 0.02


class Seen:
    """An observer whose events are looked at before they are sent."""

    def __init__(self) -> None:
        self.observer = Observer(closed_url(), linger_seconds=60, close_seconds=0)
        self.observed = self.observer.observed_as("a", input_summary="in", output_summary=str)
        self.events: list[OutgoingEvent] = []
        put = self.observer._outbox.put  # noqa: SLF001 - the queue that the thread empties

        def noted(event: OutgoingEvent) -> None:
            self.events.append(event)
            put(event)

        self.observer._outbox.put = noted  # type: ignore[method-assign]  # noqa: SLF001

    def outcomes(self) -> list[tuple[bool, object]]:
        return [(event.success, event.error or event.output_summary) for event in self.events]


@pytest.fixture
def seen() -> Iterator[Seen]:
    made = Seen()
    yield made
    made.observer.close()


def numbers(last: int) -> Generator[int, str, str]:
    """Counts."""
    got = []
    for number in range(last):
        try:
            got.append((yield number))
        except KeyError:
            got.append("thrown")
    if last > 5:
        raise ValueError("too many")
    return f"{got}"


async def numbers_later(last: int) -> AsyncGenerator[object, str]:
    """Counts."""
    got: object = None
    for number in range(last):
        try:
            got = yield number, got
        except KeyError:
            got = "thrown"
    if last > 5:
        raise ValueError("too many")


async def driven(counted: Callable[[int], AsyncGenerator[object, str]]) -> list[object]:
    """Do with an asynchronous generator what can be done."""
    generator = counted(4)
    found = [await anext(generator), await generator.asend("sent"), await generator.athrow(KeyError())]
    found += [number async for number in generator]
    with pytest.raises(ValueError, match="too many"):
        found += [number async for number in counted(6)]
    closed = counted(3)
    await anext(closed)
    await closed.aclose()
    with pytest.raises(LookupError):
        await counted(3).athrow(LookupError())
    return found


def test_a_generator_is_an_operation_until_it_is_exhausted_closed_or_raises(seen: Seen) -> None:
    counted = seen.observed(numbers)
    assert inspect.isgeneratorfunction(counted)
    assert counted.__doc__ == "Counts."
    generator = counted(3)
    assert next(generator) == 0
    assert seen.events == []
    assert generator.send("sent") == 1
    assert generator.throw(KeyError()) == 2
    with pytest.raises(StopIteration) as ended:
        next(generator)
    assert ended.value.value == "['sent', 'thrown', None]"
    with pytest.raises(ValueError, match="too many"):
        list(counted(6))
    closed = counted(3)
    next(closed)
    closed.close()
    assert seen.outcomes() == [(True, "['sent', 'thrown', None]"), (False, "ValueError: too many"), (True, None)]
    counted(3).close()  # which has not begun
    assert len(seen.events) == 3


async def test_an_asynchronous_generator_is_one_too(seen: Seen, runtime: Runtime) -> None:
    counted = seen.observed(numbers_later)
    assert inspect.isasyncgenfunction(counted)

    assert await runtime(lambda: driven(counted)) == await driven(numbers_later)
    assert seen.outcomes() == [(True, "None"), (False, "ValueError: too many"), (True, None)]


async def test_an_asynchronous_generator_cleans_up_before_it_is_over(seen: Seen, runtime: Runtime) -> None:
    steps: list[str] = []

    @contextlib.asynccontextmanager
    @seen.observed
    async def opened() -> AsyncIterator[str]:
        try:
            yield "open"
        except KeyError:
            steps.append("caught")
        finally:
            await slept()
            steps.append("cleaned")

    async def agent() -> None:
        async with opened() as one:
            assert one == "open"
            assert seen.events == []
            raise KeyError
        with pytest.raises(OSError, match="mine"):  # type: ignore[unreachable]
            async with opened():
                raise OSError("mine")

    await runtime(agent)
    assert steps == ["caught", "cleaned", "cleaned"]
    assert seen.outcomes() == [(True, "None"), (False, "OSError: mine")]


async def test_an_asynchronous_generator_that_is_left_is_closed_with_its_loop(
    seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    held: list[object] = []

    @seen.observed
    async def left() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await slept()
            held.append("cleaned")

    async def agent() -> None:
        held.append(generator := left())
        await anext(generator)

    await trio.to_thread.run_sync(lambda: asyncio.run(agent()))
    assert held[1:] == ["cleaned"]
    assert caplog.records == []
    assert seen.outcomes() == [(True, None)]


async def slept() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        await trio.sleep(SOON_S)
    else:
        await asyncio.sleep(SOON_S)


async def failing(number: int = 7) -> int:
    await slept()
    raise ValueError(f"no {number}")


class Caller:
    """Has no code of its own that `inspect` would find."""

    async def __call__(self, number: int = 7) -> int:
        return await failing(number)

    async def method(self) -> int:
        return await failing()


@types.coroutine
def old() -> Generator[Any, Any, int]:
    return (yield from failing().__await__())


def by_itself(call: Callable[[], Coroutine[Any, Any, int]]) -> Callable[[], Coroutine[Any, Any, int]]:
    @functools.wraps(call)
    def wrapped() -> Coroutine[Any, Any, int]:
        return call()

    return wrapped


KINDS: Final[dict[str, Callable[[], Awaitable[int]]]] = {
    "function": failing,
    "partial": functools.partial(failing, 7),
    "object": Caller(),
    "partial of an object": functools.partial(Caller(), 7),
    "method": Caller().method,
    "old coroutine": old,
    "lambda": lambda: failing(7),
    "wrapped by somebody else": by_itself(failing),
    "twice": Observer(closed_url(), linger_seconds=60, close_seconds=0).observed_as("b")(failing),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_awaited_is_over_when_it_has_been(seen: Seen, runtime: Runtime, kind: str) -> None:
    called = seen.observed(KINDS[kind])

    async def agent() -> None:
        waiting = called()
        assert seen.events == []
        with pytest.raises(ValueError, match="no 7"):
            await waiting

    await runtime(agent)
    assert seen.outcomes() == [(False, "ValueError: no 7")]
    assert seen.events[0].duration_ms >= SOON_S * 1e3
    assert inspect.iscoroutinefunction(called) == (kind not in ("lambda", "wrapped by somebody else"))


def test_a_generator_that_somebody_else_gives_is_followed_too(seen: Seen) -> None:
    called = seen.observed(lambda: (1 // number for number in (1, 0)))
    with pytest.raises(ZeroDivisionError):
        list(called())
    assert seen.outcomes() == [(False, "ZeroDivisionError: integer division or modulo by zero")]


def test_a_generator_that_the_host_holds_too_is_closed_by_who_closes_it_alone(seen: Seen) -> None:
    held = numbers(5)
    called = seen.observed(lambda: held)
    for number in called():
        assert number == 0
        break
    assert seen.outcomes() == [(True, None)], "who has had enough has not failed"
    again = called()
    assert (next(again), again.send("sent"), again.throw(KeyError()), next(held)) == (1, 2, 3, 4)
    again.close()
    assert list(held) == []
    called().close()
    assert list(called()) == []
    assert seen.outcomes() == [(True, None), (True, None), (True, "None")]


async def test_an_asynchronous_generator_that_the_host_holds_too_is_closed_by_who_closes_it_alone(
    seen: Seen, runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    steps: list[str] = []

    async def cleaned() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            await slept()
            steps.append("cleaned")

    async def agent() -> None:
        held = numbers_later(5)
        called = seen.observed(lambda: held)
        async for one in called():
            assert one == (0, None)
            break
        await slept()
        assert seen.outcomes() == [(True, None)]
        again = called()
        found = [await anext(again), await again.asend("sent"), await again.athrow(KeyError())]
        assert found == [(1, None), (2, "sent"), (3, "thrown")]
        await again.aclose()
        assert [one async for one in held] == []
        alone = seen.observed(lambda: cleaned())()  # noqa: PLW0108 - it is no generator function
        assert await anext(alone) == 1
        await alone.aclose()
        assert steps == ["cleaned"]

    await runtime(agent)
    assert caplog.records == []
    assert seen.outcomes() == [(True, None)] * 3


async def test_what_is_cancelled_is_not_reported_and_what_is_out_of_time_within_it_is(
    seen: Seen, runtime: Runtime
) -> None:
    @seen.observed
    async def hanging(*, limited: bool) -> AsyncIterator[int]:
        yield 1
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            with trio.fail_after(SOON_S if limited else 60):
                await trio.sleep_forever()
        else:
            async with asyncio.timeout(SOON_S if limited else 60):
                await asyncio.sleep(60)

    async def agent() -> None:
        with pytest.raises((TimeoutError, trio.TooSlowError)):
            assert [one async for one in hanging(limited=True)] == [1]

        async def all_of_it() -> None:
            async for _ in hanging(limited=False):
                pass

        try:
            asyncio.get_running_loop()
        except RuntimeError:
            with trio.move_on_after(SOON_S):
                await all_of_it()
        else:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(all_of_it(), SOON_S)

    await runtime(agent)
    assert [(event.success, bool(event.error)) for event in seen.events] == [(False, True)]
    assert seen.observer.statistics().cancelled == 1


def test_a_function_that_is_called_wrongly_raises_what_it_would(seen: Seen) -> None:
    def summary(**named: object) -> object:
        return named

    for function in (lambda: 1, numbers, failing):
        called = seen.observer.observed_as("a", input_summary=summary)(function)
        with pytest.raises(TypeError, match="call"):
            run_to_its_end(called(call=1, otherwise=2))
    assert len(seen.events) == 3


def run_to_its_end(given: Any) -> None:
    if inspect.iscoroutine(given):
        asyncio.run(given)
    else:
        list(given)


def test_without_parentheses_a_function_does_what_it_does_and_is_reported_by_its_own_name(seen: Seen) -> None:
    observed: Any = seen.observer.observed_as

    def double(number: int) -> int:
        return 2 * number

    class Tool:
        named = observed(classmethod(lambda cls: cls.__name__))

    assert (observed(double)(2), Tool().named(), observed(Mock())(double)(3)) == (4, "Tool", 6)
    assert [event.endpoint.rpartition(".")[2] for event in seen.events[:2]] == ["double", "<lambda>"]


def test_static_and_class_methods_stay_what_they_are(seen: Seen) -> None:
    class Tool:
        @seen.observed
        @staticmethod
        def static(number: int) -> int:
            return number

        @seen.observed
        @classmethod
        def of_class(cls) -> str:
            return cls.__name__

    assert (Tool.static(1), Tool().static(2), Tool.of_class(), Tool().of_class()) == (1, 2, "Tool", "Tool")
    assert seen.outcomes() == [(True, "1"), (True, "2"), (True, "Tool"), (True, "Tool")]


def test_what_cannot_be_called_is_left_as_it_is_and_told_once(
    seen: Seen, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_ledger, "_SAID", set())
    observed: Callable[[Any], Any] = seen.observed

    class Tool:
        shown = observed(property(lambda _: 1))
        made = observed(functools.cached_property(lambda _: 2))

        @observed
        @functools.singledispatchmethod
        def told(self, what: object) -> str:
            return f"{what}"

        def _times(self, first: int, second: int) -> int:
            return first * second

        twice = observed(functools.partialmethod(_times, 2))

    tool = Tool()
    assert (tool.shown, tool.made, vars(tool)["made"], tool.told(7), tool.twice(4)) == (1, 2, 2, "7", 8)
    assert (observed(None), observed("text")) == (None, "text")
    assert seen.events == []
    kinds = ["property", "cached_property", "singledispatchmethod", "partialmethod", "NoneType", "str"]
    assert [record.message.split("about=")[1].split()[0] for record in caplog.records] == [
        f"'{kind}'" for kind in kinds
    ]


def test_what_does_not_let_itself_be_looked_at_is_decorated_and_raises_nothing(seen: Seen) -> None:
    class Lazy:
        def __getattr__(self, name: str) -> object:
            raise RuntimeError(name)

    class Tool(Lazy):
        def __call__(self) -> int:
            return 7

    observed: Any = seen.observer.observed_as
    assert observed("a")(Tool())() == 7
    assert observed(Tool()) is not None
    for unnamed in (Lazy(), Unnamed()):
        assert observed("a")(unnamed) is unnamed
    assert len(seen.events) == 1


def test_a_name_that_is_empty_or_is_no_truth_is_one_too(seen: Seen) -> None:
    class Undecided:
        def __bool__(self) -> bool:
            raise TypeError

    observed: Any = seen.observer.observed_as
    for name in ("", Undecided()):
        made: Any = type("Tool", (), {"__call__": lambda _: 7})()
        made.__qualname__ = name
        assert observed(made)() == 7
    assert len(seen.events) == 2


def test_a_cache_is_still_one(seen: Seen) -> None:
    cached: Any = seen.observed(functools.lru_cache(lambda number: number))
    assert [cached(1), cached(1), cached.cache_info().hits, cached.cache_parameters()["maxsize"]] == [1, 1, 1, 128]
    cached.cache_clear()
    assert cached.cache_info().currsize == 0
    assert len(seen.events) == 2
