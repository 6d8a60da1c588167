"""`Observer` with real daemons, and with peers that hang, refuse, lie and go away."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
import gc
import inspect
import logging
import math
import pickle
import signal
import socket
import ssl
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from fractions import Fraction
from functools import cache, partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest
import trio

from observer_actors.addresses import parse_address
from observer_actors.client import AsyncObserver, Finding, Observer, ObserverStatistics, Verdict, _ledger, _plain
from observer_actors.client._delivery import Answer, Delivery
from observer_actors.client._ledger import NowAndThen
from observer_actors.client._outbox import BATCH_EVENTS_MAX
from observer_actors.client._plain import _certificates, _headers, _loaded, _opened
from observer_actors.client._sender import REQUEST_SECONDS, Sender
from observer_actors.errors import ConfigInvalid, Unreachable
from tests.daemon.served import Served, served
from tests.daemon.test_doors import certificate
from tests.fakes.http_peer import Bytes, Close, Garbage, Hang, Json, Partial, Reply, Status, closed_url, http_peer
from tests.harness import journal_ops
from tests.test_client_outbox import SafeString

LONG_S: Final = 30.0


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("observer") / "data") as running:
        yield running


@pytest.fixture
def observer(daemon: Served) -> Iterator[Observer]:
    with Observer(daemon.url, linger_seconds=0.01) as made:
        yield made


def reported(daemon: Served, observer: Observer, count: int) -> list[dict[str, Any]]:
    """Give the ops that an observer has just reported, oldest first."""
    assert observer.flush(LONG_S)
    assert observer.statistics().accepted == count
    return list(reversed(daemon.json("/ops", limit=count)["ops"]))


# --------------------------------------------------------------------------------------------------- events


def test_time_outcome_and_error_are_taken_by_themselves(daemon: Served, observer: Observer) -> None:
    with observer.operation("sql:run", input_summary={"q": "select 1"}, role="clerk", attrs={"table": "w"}) as op:
        time.sleep(0.02)
        op.output_summary = "3 rows"
        op.attrs["rows"] = 3
    with observer.operation("sql:run") as op:
        op.fail("no rows")
    with pytest.raises(ZeroDivisionError), observer.operation("sql:run", run="r7", source="mcp"):
        _ = 1 / 0
    good, said, raised = reported(daemon, observer, 3)
    assert (good["success"], good["output_summary"], good["input_summary"]) == (True, "3 rows", '{"q":"select 1"}')
    assert (good["role"], good["attrs"], good["source"]) == ("clerk", {"table": "w", "rows": 3}, "bot")
    assert 20 <= good["duration_ms"] < 1_000
    assert (said["success"], said["error"]) == (False, "no rows")
    assert (raised["success"], raised["error"]) == (False, "ZeroDivisionError: division by zero")
    assert (raised["source"], raised["attrs"]) == ("mcp", {"run": "r7"})


@pytest.mark.parametrize("kind", [Observer, AsyncObserver])
async def test_a_prompt_of_djangos_templates_is_reported_as_any_text(daemon: Served, kind: Any) -> None:
    made = kind(daemon.url, linger_seconds=0.01)
    entered = made if kind is AsyncObserver else contextlib.nullcontext()
    async with entered:
        with made.operation(SafeString("llm"), input_summary=SafeString("a prompt"), run=SafeString("r")) as op:
            op.output_summary = SafeString("an answer")
        flushed = await made.flush(2) if kind is AsyncObserver else await trio.to_thread.run_sync(made.flush, 2)
    (op,) = daemon.json("/ops", limit=1)["ops"]
    said = (op["endpoint"], op["input_summary"], op["output_summary"], op["attrs"])
    assert (flushed, *said) == (True, "llm", "a prompt", "an answer", {"run": "r"})


def test_what_goes_in_is_what_it_was_when_the_operation_began(daemon: Served, observer: Observer) -> None:
    @observer.observed_as("llm:chat", input_summary=lambda messages: messages)
    def chat(messages: list[str]) -> None:
        messages.append("answer")

    @observer.observed_as("llm:stream", input_summary=lambda messages: messages)
    def stream(messages: list[str]) -> Iterator[int]:
        messages.append("answer")
        yield 1

    chat(["question"])
    list(stream(["question"]))
    messages = ["question"]
    with observer.operation("llm:chat", input_summary=messages) as op:
        messages.append("answer")
    with observer.operation("llm:chat", input_summary=messages) as op:
        op.input_summary = {"set": "within"}
    assert [op["input_summary"] for op in reported(daemon, observer, 4)] == 3 * ['["question"]'] + ['{"set":"within"}']


def test_an_error_in_hand_is_said_as_if_it_were_raised(daemon: Served, observer: Observer) -> None:
    for error in (KeyError("city"), TimeoutError()):
        with observer.operation("sql:run") as op:
            op.fail(error)
    assert [op["error"] for op in reported(daemon, observer, 2)] == ["KeyError: 'city'", "TimeoutError"]


def test_the_outcome_may_be_set_by_its_names_in_an_event(daemon: Served, observer: Observer) -> None:
    outcomes: list[dict[str, Any]] = [
        {"success": False},
        {"success": False, "error": "no rows"},
        {"error": KeyError("city"), "success": False},
        {"success": Unjudged()},
        {"error": "no rows", "success": True},
        {"success": True, "error": None},
        {"ok": False},
        {"error": "no rows", "ok": True},
        {"error": ""},
        {"success": False, "error": ""},
    ]
    for outcome in outcomes:
        with observer.operation("sql:run") as op:
            for name, value in outcome.items():
                setattr(op, name, value)
    assert [(op["success"], op.get("error")) for op in reported(daemon, observer, 10)] == [
        (False, "failed"),
        (False, "no rows"),
        (False, "KeyError: 'city'"),
        (False, "failed"),
        (True, None),
        (True, None),
        (False, "failed"),
        (True, None),
        (True, None),
        (False, "failed"),
    ]


class Unjudged:
    """As an array that is neither true nor false."""

    def __bool__(self) -> bool:
        raise ValueError("ambiguous")


def test_what_an_operation_does_not_know_is_kept_as_an_attribute(daemon: Served, observer: Observer) -> None:
    with observer.operation("sql:run", attrs={"table": "w"}) as op:
        for name, value in {"rows": 3, "run": "r8", "found": [1]}.items():
            setattr(op, name, value)
    (kept,) = reported(daemon, observer, 1)
    assert kept["attrs"] == {"run": "r8", "table": "w", "rows": 3, "found": "[1]"}


def test_a_run_that_is_left_in_another_context_raises_nothing(observer: Observer) -> None:
    def steps() -> Generator[str, None, None]:
        with observer.run("episode") as name:
            yield name

    one = steps()
    assert contextvars.copy_context().run(next, one) == "episode"
    with pytest.raises(LookupError):
        one.throw(LookupError("the host's own"))


@pytest.mark.parametrize("ending", [(0, 1), (1, 0)])
def test_generators_that_take_turns_leave_no_run_behind(observer: Observer, ending: tuple[int, int]) -> None:
    def steps(name: str) -> Iterator[str]:
        with observer.run(name):
            yield name

    with observer.run("around"):
        both = [steps("a"), steps("b")]
        assert list(map(next, both)) == ["a", "b"]
        for one in ending:
            assert next(both[one], "") == ""
        with observer.operation("x") as op:
            assert op.run == "around"
    with observer.operation("x") as op:
        assert op.run == ""


async def test_what_outlives_a_run_stays_in_it(observer: Observer) -> None:
    ended, runs = trio.Event(), []

    async def later() -> None:
        await ended.wait()
        with observer.run("within"):
            pass
        with observer.operation("x") as op:
            runs.append(op.run)

    async with trio.open_nursery() as nursery:
        with observer.run("around"):
            nursery.start_soon(later)
        ended.set()
    assert runs == ["around"]


def test_an_observer_that_nobody_has_sends_what_is_left_and_ends_its_thread(daemon: Served) -> None:
    def forget(number: int) -> None:
        with Observer(daemon.url).operation(f"forgotten-{number}"):
            pass

    others = {*threading.enumerate()}
    for number in range(20):
        forget(number)
    gc.collect()
    until = time.monotonic() + LONG_S
    while any(thread.name == "observer-actors" for thread in {*threading.enumerate()} - others):
        assert time.monotonic() < until
        time.sleep(0.01)
    assert {op["endpoint"] for op in daemon.json("/ops", limit=20)["ops"]} == {f"forgotten-{n}" for n in range(20)}


def test_an_observer_that_was_closed_begins_anew_with_what_is_reported_then(daemon: Served) -> None:
    observer = Observer(daemon.url, linger_seconds=0.01)
    for number in range(1, 4):
        with observer, observer.operation(f"within-{number}"):
            pass
        assert (observer.statistics().accepted, observer.statistics().waiting) == (2 * number - 1, 0)
        with observer.operation(f"behind-{number}"):
            pass
        assert observer.flush(LONG_S)
    observer.close()


def test_what_was_given_up_at_a_close_does_not_shorten_the_time_for_what_comes_then() -> None:
    observer = Observer(closed_url(), linger_seconds=0.01, close_seconds=0.2)
    for number in range(1, 3):
        with observer.operation("a"):
            pass
        began = time.monotonic()
        observer.close()
        assert 0.1 < time.monotonic() - began < 2
        assert (observer.statistics().abandoned, observer.statistics().waiting) == (number, 0)


def test_an_observer_that_is_closed_twice_while_a_request_hangs_goes_on_with_one_thread() -> None:
    hanging, answered = threading.Semaphore(0), threading.Event()

    def exchange(content: bytes, _seconds: float) -> Answer:
        hanging.release()
        answered.wait(LONG_S)
        return Answer(200, msgspec.json.encode({"accepted": content.count(b"\n"), "rejected": 0}))

    observer = Observer(close_seconds=0)
    observer._sender = sender = Sender(observer._outbox, exchange, linger_s=0, close_s=0)  # noqa: SLF001 - an exchange that the test holds
    with observer.operation("first"):
        pass
    assert hanging.acquire(timeout=LONG_S)
    closing = [threading.Thread(target=observer.close) for _ in range(3)]
    for thread in closing:
        thread.start()
    for thread in closing:
        thread.join(LONG_S)
    observer.close()
    with observer.operation("second"):
        pass
    assert not hanging.acquire(timeout=0.2), "one request at a time"
    answered.set()
    sender.flush(LONG_S)
    while sender._runs:  # noqa: SLF001 - its time was over: what came until it ended is given up
        time.sleep(0.001)
    with observer.operation("third"):
        pass
    assert sender.flush(LONG_S)
    assert (observer.statistics().accepted, observer.statistics().abandoned) == (2, 1)
    observer.close()


@pytest.mark.parametrize("lose", ["close", "drop"])
def test_a_flush_tells_what_was_given_up_from_what_was_taken(lose: str) -> None:
    observer = Observer(closed_url(), linger_seconds=0, close_seconds=0.1, queue_events_max=1)
    with observer.operation("a"):
        pass
    taken: list[bool] = []
    flushing = threading.Thread(target=lambda: taken.append(observer.flush(LONG_S)))
    flushing.start()
    while observer.statistics().retries < 2:  # the first comes by itself, the next by the flush
        time.sleep(0.001)
    for _ in range(3 if lose == "drop" else 0):
        with observer.operation("b"):
            pass
    if lose == "close":
        observer.close()
    flushing.join(LONG_S)
    assert taken == [False]
    observer.close()
    assert observer.flush(LONG_S), "nothing is there"


def test_threads_close_an_observer_while_others_report_and_each_event_arrives(daemon: Served) -> None:
    observer = Observer(daemon.url, linger_seconds=0.01, close_seconds=LONG_S)

    def work(number: int) -> None:
        for step in range(30):
            with observer.operation(f"closing-{number}"):
                pass
            if step % 10 == number:
                observer.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG_S)
    assert observer.flush(LONG_S)
    assert observer.statistics().accepted == 240
    observer.close()


def test_that_a_source_is_not_known_is_said_once(daemon: Served, caplog: pytest.LogCaptureFixture) -> None:
    for source in ("team-a", "team-a", "team-b"):
        with Observer(daemon.url, source=source) as observer, observer.operation("a"):
            pass
    said = [record.getMessage() for record in caplog.records if "source_unknown" in record.getMessage()]
    assert [("team-a" in line, "team-b" in line, "sources.extra" in line) for line in said] == [
        (True, False, True),
        (False, True, True),
    ]


def test_what_is_cancelled_or_interrupted_is_not_judged(observer: Observer) -> None:
    for leaving in (KeyboardInterrupt, asyncio.CancelledError, GeneratorExit):
        with pytest.raises(leaving), observer.operation("a"):
            raise leaving
    assert observer.statistics() == ObserverStatistics(cancelled=3)


def test_a_run_is_that_of_the_block_around_it(daemon: Served, observer: Observer) -> None:
    with observer.run("outer"):
        with observer.operation("a"):
            pass
        with observer.run() as made, observer.operation("a"):
            pass
        with observer.operation("a", run="given"):
            pass
    with observer.operation("a"):
        pass
    ops = reported(daemon, observer, 4)
    assert [op.get("attrs", {}).get("run") for op in ops] == ["outer", made, "given", None]
    assert len(made) == 32


def test_a_run_that_is_given_by_name_counts_and_else_that_among_the_attributes(
    daemon: Served, observer: Observer
) -> None:
    attrs = {"run": "B", "advice_id": "b"}
    with observer.run("around"):
        with observer.operation("a", run="A", advice_id="a", attrs=attrs):
            pass
        with observer.operation("a", attrs=attrs) as op:
            assert (op.run, op.advice_id) == ("B", "b")
    assert [op["attrs"] for op in reported(daemon, observer, 2)] == [{"run": "A", "advice_id": "a"}, attrs]


def test_what_a_block_sets_among_the_attributes_counts_before_what_was_inferred(
    daemon: Served, observer: Observer
) -> None:
    given = [observer.advice("inferred", run="r1").advice_id, observer.advice("inferred", run="r2").advice_id]
    for about in ({"run": "r1"}, {}, {"run": "r1", "advice_id": "named"}, {"attrs": {"run": "r2"}}, {"run": "r1"}):
        with observer.run("r2"), observer.operation("inferred", **about) as op:
            op.attrs["more"] = 1
            if len(about) < 2 and "attrs" not in about:
                op.attrs["advice_id"] = "later"
            op.attrs["run"] = "r3"
    with observer.operation("inferred", run="r1") as op:
        op.attrs["advice_id"] = ""
    with observer.run("r2"), observer.operation("inferred") as op:
        op.run, op.attrs["run"] = "set", "attribute"
    ops = reported(daemon, observer, 7)
    assert [(op["attrs"]["run"], op["attrs"]["advice_id"]) for op in ops] == [
        ("r1", "later"),
        ("r3", "later"),
        ("r1", "named"),
        ("r3", given[1]),
        ("r1", "later"),
        ("r1", given[0]),
        ("set", given[1]),
    ]


def test_functions_and_coroutine_functions_are_decorated(daemon: Served, observer: Observer) -> None:
    @observer.observed_as("double", input_summary=lambda number: f"double {number}", output_summary=str)
    def double(number: int) -> int:
        """Doubles."""
        return number * 2

    @observer.observed_as("later", input_summary=lambda: 1 / 0, output_summary="fine")
    async def later(error: Exception | None = None) -> str:
        await asyncio.sleep(0)
        if error:
            raise error
        return "done"

    assert (double(4), double.__doc__) == (8, "Doubles.")
    assert asyncio.run(later()) == "done"
    with pytest.raises(OSError, match="gone"):
        asyncio.run(later(OSError("gone")))
    ops = reported(daemon, observer, 3)
    assert [(op["endpoint"], op["input_summary"], op["output_summary"]) for op in ops] == [
        ("double", "double 4", "8"),
        ("later", "", "fine"),
        ("later", "", "OSError: gone"),
    ]


class Hostile:
    def __str__(self) -> str:
        raise RuntimeError("no")

    def __bool__(self) -> bool:
        raise RuntimeError("no")


def test_nothing_that_a_host_hands_over_makes_it_raise(observer: Observer) -> None:
    with observer.operation(Hostile(), input_summary=Hostile(), attrs={"a": Hostile(), "b": "\ud800"}) as op:  # type: ignore[arg-type]
        op.output_summary = [Hostile()]
    with observer.operation("a", attrs=7) as op:  # type: ignore[arg-type]
        op.attrs = 3  # type: ignore[assignment]
    with pytest.raises(ValueError, match="mine"), observer.operation("a", run=Hostile()):  # type: ignore[arg-type]
        raise ValueError("mine")
    with observer.operation("a") as op:
        op.fail(Hostile())
    observer.advice(Hostile(), input=Hostile(), run=Hostile(), limit=Hostile())  # type: ignore[arg-type]
    counts = observer.statistics()
    assert counts.events + counts.unusable == 4
    assert observer.flush(LONG_S)
    assert observer.statistics().refused == 0


def test_what_cannot_be_read_costs_its_field_and_not_the_event_and_is_said_once(
    daemon: Served, observer: Observer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_ledger, "_SAID", set())
    bad: Any = Hostile()
    for _ in range(2):
        with observer.operation("a", run="r1", role=bad) as op:
            op.attrs = None  # type: ignore[assignment]
            op.rows = 3  # type: ignore[attr-defined]
    with observer.operation("b", run=bad, advice_id=bad, attrs={"table": "w"}):
        pass
    told = reported(daemon, observer, 3)
    assert [op["role"] for op in told[:2]] == ["<Hostile>"] * 2
    assert [op["attrs"] for op in told] == [
        *[{"run": "r1", "rows": 3}] * 2,
        {"run": "<Hostile>", "advice_id": "<Hostile>", "table": "w"},
    ]
    assert observer.statistics().unusable == 0
    assert caplog.text.count("attributes_unusable") == 1
    unread: dict[str, Any]
    for unread in ({"attrs": [("table", "w")]}, {"limit": "3"}):
        assert not observer.advice("a", **unread)
    assert caplog.text.count("question_unusable") == 1


class Worse:
    """Raises whatever it is told to, whatever it is asked."""

    def __init__(self, leaving: type[BaseException]) -> None:
        self._leaving = leaving

    def __str__(self) -> str:
        raise self._leaving

    def __bool__(self) -> bool:
        raise self._leaving


class Lazy:
    """Is not there yet, as a `SimpleLazyObject` of Django's whose database is away: `isinstance` alone looks it up."""

    def __init__(self, leaving: type[BaseException]) -> None:
        vars(self)["leaving"] = leaving

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise vars(self)["leaving"]


@pytest.mark.parametrize("leaving", [RuntimeError, SystemExit])
def test_what_is_not_there_yet_is_not_looked_up_and_costs_no_event(
    daemon: Served, observer: Observer, leaving: type[BaseException]
) -> None:
    lazy: Any = Lazy(leaving)
    assert observer.observed_as("lazy:result")(lambda: lazy)() is lazy
    with observer.operation("lazy:failure") as op:
        op.fail(lazy)
    with observer.operation("lazy:attributes", run="r1") as op:
        op.attrs = lazy
    assert observer.flush(lazy) in (True, False)
    assert observer.observed_as("lazy:decorated")(lazy) is lazy
    told = reported(daemon, observer, 3)
    assert [(op["endpoint"], op["success"], op.get("error"), op.get("attrs")) for op in told] == [
        ("lazy:result", True, None, None),
        ("lazy:failure", False, "<Lazy>", None),
        ("lazy:attributes", True, None, {"run": "r1"}),
    ]


class LazyError(Lazy, Exception):
    pass


def test_an_error_that_cannot_be_looked_at_is_reported_and_goes_on_its_way(daemon: Served, observer: Observer) -> None:
    @observer.observed_as("odd:generated")
    def generated() -> Iterator[int]:
        yield 1
        raise LazyError(RuntimeError)

    with pytest.raises(LazyError), observer.operation("odd:raised"):
        raise LazyError(RuntimeError)
    with pytest.raises(LazyError):
        list(generated())
    with observer.operation("odd:group") as op:
        op.fail(ExceptionGroup("both", [LazyError(RuntimeError), ValueError("no")]))
    told = reported(daemon, observer, 3)
    assert [op["error"].partition(":")[0] for op in told] == ["LazyError"] * 3


class Unreadable(Mapping[str, object]):
    def __getitem__(self, name: str) -> object:
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("no")

    def __len__(self) -> int:
        return 1


def test_attributes_that_cannot_be_read_cost_no_event(daemon: Served, observer: Observer) -> None:
    with observer.operation("unreadable", run="r1") as op:
        op.attrs = Unreadable()  # type: ignore[assignment]
    assert reported(daemon, observer, 1)[0]["attrs"] == {"run": "r1"}


class WorseError(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)

    __repr__ = __str__


@pytest.mark.parametrize(
    "leaving", [SystemExit, KeyboardInterrupt, asyncio.CancelledError, GeneratorExit, RecursionError]
)
def test_nothing_that_is_handed_over_takes_the_place_of_the_hosts_own_error(
    observer: Observer, leaving: type[BaseException]
) -> None:
    worse: Any = Worse(leaving)

    def summary(*_: object) -> object:
        raise leaving

    @observer.observed_as("a", input_summary=summary, output_summary=summary)
    def called() -> int:
        return 7

    assert called() == 7
    for given in (
        {"input_summary": worse},
        {"run": worse},
        {"role": worse},
        {"attrs": {"a": worse}},
        {"endpoint": worse},
    ):
        with pytest.raises(WorseError), observer.operation(**{"endpoint": "a", **given}):
            raise WorseError
    with observer.operation("a") as operation:
        operation.output_summary = [worse, Finding("info", "x")]
        operation.fail(worse)
    observer.advice("a", input=worse)
    observer.advice(worse, role=worse)
    counts = observer.statistics()
    assert (counts.events + counts.unusable, counts.cancelled) == (7, 0)


@pytest.mark.parametrize("given", [math.nan, "1", None, True, [1], Hostile()], ids=lambda given: type(given).__name__)
@pytest.mark.parametrize("name", ["queue_events_max", "linger_seconds", "close_seconds", "advice_seconds"])
@pytest.mark.parametrize("kind", [Observer, AsyncObserver])
def test_a_limit_that_is_no_number_is_refused_where_it_is_given(kind: Any, name: str, given: object) -> None:
    with pytest.raises(ConfigInvalid, match=f"{name}: wants a number, got ") as refused:
        kind(**{name: given})
    assert refused.value.hint


@pytest.mark.parametrize("given", [math.inf, 10**400, -math.inf, -(10**400), -1, Fraction(99_999)])
def test_a_limit_beyond_all_bounds_is_the_nearest_one(daemon: Served, given: Any) -> None:
    observer = Observer(
        daemon.url, queue_events_max=given, linger_seconds=given, close_seconds=given, advice_seconds=given
    )
    with observer.operation("a"):
        pass
    assert bool(observer.advice("a").advice_id) == (given > 0)
    while not observer.flush(given):
        pass
    observer.flush("no number")  # type: ignore[arg-type]
    with observer.operation("a"):
        pass
    observer.close()
    counts = observer.statistics()
    assert (counts.events, counts.accepted + counts.abandoned, counts.waiting) == (2, 2, 0)
    assert counts.accepted == 2 or given < 0


def test_a_full_stack_is_the_hosts_own_trouble(observer: Observer) -> None:
    def at(depth: int) -> None:
        if depth:
            at(depth - 1)
        else:
            with observer.operation("a", input_summary=[1]):
                entered.append(True)
                raise ValueError("mine")

    depth = sys.getrecursionlimit() - len(inspect.stack())
    raised: list[type[Exception]] = []
    for left in range(60):
        entered: list[bool] = []
        try:
            at(depth - left)
        except (ValueError, RecursionError) as error:
            raised.append(type(error))
            names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
            assert not entered or "ended" not in names
    assert {RecursionError, ValueError} == set(raised), "there was too little room at first, and then enough"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_of_a_report_is_obeyed(observer: Observer, number: signal.Signals) -> None:
    class Signalled:
        asked = 0

        def __str__(self) -> str:
            self.asked += 1
            if self.asked == 1:
                signal.raise_signal(number)
            return "said"

    def stop(*_: object) -> None:
        raise SystemExit(3)

    before = signal.signal(number, signal.default_int_handler if number == signal.SIGINT else stop)
    try:
        with pytest.raises((KeyboardInterrupt, SystemExit)), observer.operation("a", input_summary=Signalled()):
            pass
    finally:
        signal.signal(number, before)


def test_threads_hammer_and_each_event_arrives_once(daemon: Served, observer: Observer) -> None:
    def work(thread: int) -> None:
        for number in range(400):
            with observer.operation("hammer", attrs={"n": f"{thread}-{number}"}):
                pass

    threads = [threading.Thread(target=work, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert observer.flush(LONG_S)
    counts = observer.statistics()
    assert (counts.events, counts.accepted, counts.dropped, counts.duplicates) == (3_200, 3_200, 0, 0)
    ops = [op for op in journal_ops(daemon.data_dir) if op.endpoint == "hammer"]
    assert len({op.attrs["n"] for op in ops if isinstance(op.attrs, dict)}) == len(ops) == 3_200


def test_that_a_token_may_not_ask_for_advice_is_told_once_with_the_scope_that_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_ledger, "_SAID", set())  # once in a process, and others may have said it in ours
    token = "oa_" + "x" * 40
    (tmp_path / "tokens").write_text(f"agent ingest {token}\n")
    monkeypatch.setenv("OBSERVER_TOKEN", token)
    with served(tmp_path / "data", f'[auth]\ntokens_file = "{tmp_path}/tokens"\n') as daemon:
        with Observer(daemon.url, advice_seconds=LONG_S) as observer:
            assert [bool(observer.advice("a")) for _ in range(2)] == [False, False]
        assert observer.statistics().advice_failed == 2
    (said,) = [record.message for record in caplog.records if "advice_refused" in record.message]
    assert "it takes the scope read" in said


def test_over_a_unix_socket_and_with_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = "oa_" + "x" * 40
    (tmp_path / "tokens").write_text(f"agent ingest,read {token}\n")
    config = f'[listen]\nunix = "{tmp_path}/http.sock"\n[auth]\ntokens_file = "{tmp_path}/tokens"\n'
    with served(tmp_path / "data", config) as daemon:
        monkeypatch.delenv("OBSERVER_TOKEN", raising=False)
        with Observer(f"unix://{tmp_path}/http.sock") as by_socket, by_socket.operation("socket"):
            pass
        assert by_socket.statistics().accepted == 1
        by_token = Observer(daemon.url)
        with by_token.operation("token"):
            pass
        while "token" not in by_token.statistics().last_trouble:
            assert not by_token.flush(0.3)
        monkeypatch.setenv("OBSERVER_TOKEN", token)  # it can be put right: nothing was lost
        assert by_token.flush(LONG_S)
        by_token.close()
        assert by_token.statistics().accepted == 1


def test_a_host_whose_tests_have_stopped_the_clock_is_not_held_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 1e9)
    observer = Observer(closed_url(), close_seconds=0.3)
    with observer.operation("a"):
        pass
    assert not observer.flush(0.3)
    observer.close()
    assert observer.statistics().abandoned == 1


def test_a_newline_at_the_end_of_a_variable_is_none_of_it(daemon: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OBSERVER_URL", f"{daemon.url}\n")
    monkeypatch.setenv("OBSERVER_TOKEN", "oa_token\n")

    async def asynchronous() -> bool:
        async with AsyncObserver(advice_seconds=LONG_S) as observer:
            return bool((await observer.advice("a")).advice_id)

    with Observer(advice_seconds=LONG_S) as observer:
        assert observer.advice("a").advice_id
    assert trio.run(asynchronous)


@pytest.mark.parametrize("token", ["ü", "s3cret with a blank", "s3cret\nx"])
def test_a_token_that_is_none_is_told_by_its_variable_and_costs_no_event(
    daemon: Served, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OBSERVER_TOKEN", token)
    observer = Observer(daemon.url, linger_seconds=0)
    with observer.operation("a"):
        pass
    while not (trouble := observer.statistics().last_trouble):
        assert not observer.flush(0.1)
    assert trouble.startswith("OBSERVER_TOKEN holds what no token has; a token is ASCII")
    assert not observer.advice("a")
    monkeypatch.delenv("OBSERVER_TOKEN")
    assert observer.flush(LONG_S)
    observer.close()


def test_over_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cert, key = certificate(tmp_path)
    with served(tmp_path / "data", f'[listen]\ntls_cert = "{cert}"\ntls_key = "{key}"\n') as daemon:
        unknown = Observer(daemon.url, linger_seconds=0)
        with unknown.operation("tls"):
            pass
        while "certificate" not in unknown.statistics().last_trouble:
            assert not unknown.flush(0.3)
        _loaded.cache_clear()
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
        assert unknown.flush(LONG_S)
        unknown.close()
    _loaded.cache_clear()


def test_threads_that_ask_at_the_same_time_load_the_certificates_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loads = count()

    def load() -> ssl.SSLContext:
        next(loads)
        time.sleep(0.2)
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    monkeypatch.setattr(_plain, "_loaded", cache(load))
    with ThreadPoolExecutor(10) as pool:
        given = [one.result() for one in [pool.submit(_certificates) for _ in range(10)]]
    assert (next(loads), len(set(given))) == (1, 1)


def test_a_daemon_that_is_killed_and_started_again_under_load_gets_each_event_once(tmp_path: Path) -> None:
    data = tmp_path / "data"
    stop = threading.Event()
    with served(data) as first:
        observer = Observer(first.url, linger_seconds=0.02, queue_events_max=1_000_000)

        def work() -> None:
            while not stop.is_set():
                is_full = observer.statistics().waiting > 10_000  # a start may take long, and memory has its bound
                with observer.operation("load"):
                    time.sleep(0.05 if is_full else 0.0005)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        first.process.send_signal(signal.SIGKILL)
        first.process.wait()
    for _ in range(2):
        with served(data, port=first.port) as again:
            time.sleep(0.7)
            again.process.send_signal(signal.SIGKILL)
            again.process.wait()
    stop.set()
    for thread in threads:
        thread.join()
    with served(data, port=first.port):
        assert observer.flush(LONG_S)
        observer.close()
    counts = observer.statistics()
    assert (counts.waiting, counts.dropped, counts.refused, counts.abandoned) == (0, 0, 0, 0)
    ids = [op.id for op in journal_ops(data)]
    assert len(ids) == len(set(ids)) == counts.events == counts.accepted > 500
    assert counts.retries > 0


def test_a_batch_of_more_than_the_daemon_takes_at_once_costs_no_event(tmp_path: Path) -> None:
    with served(tmp_path / "data", "[listen]\nbatch_events_max = 100\n") as daemon:
        with Observer(daemon.url, linger_seconds=LONG_S) as observer:
            for number in range(350):
                with observer.operation(str(number)):
                    pass
            assert [op["endpoint"] for op in reported(daemon, observer, 350)] == [*map(str, range(350))]
        with Observer(daemon.url, linger_seconds=LONG_S) as observer:  # more secrets than a batch may hold
            for number in range(90):
                secrets = " ".join(f"sk-{number:08}{place:08}abcdefghijklmnopqrstuvwx" for place in range(150))
                with observer.operation("secrets", input_summary=secrets):
                    pass
            reported(daemon, observer, 90)


class HangsUpEarly(BaseHTTPRequestHandler):
    """A proxy with a bound for bodies: of a larger one it reads nothing."""

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.send_response(200 if length <= 100_000 else 413)
        taken = self.rfile.read(length).count(b"\n") if length <= 100_000 else 0
        said = msgspec.json.encode({"accepted": taken, "rejected": 0})
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, format: str, *_: object) -> None:  # noqa: A002 - its name there
        pass


def test_a_proxy_that_hangs_up_before_it_has_read_a_large_batch_costs_no_event() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), HangsUpEarly) as proxy:
        proxy.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        with Observer(f"http://127.0.0.1:{proxy.server_port}", linger_seconds=LONG_S) as observer:
            for _ in range(100):
                with observer.operation("a", input_summary="x" * 9_000):
                    pass
            assert observer.flush(LONG_S)
            assert observer.statistics().accepted == 100
        proxy.shutdown()


# -------------------------------------------------------------------------------------------------- trouble

ACCEPTED: Final = {"accepted": 1, "rejected": 0, "errors": [], "ring_size": 1}
BUSY: Final = Json({"title": "overloaded", "detail": "no room", "retryable": True}, 503, {"Retry-After": "1"})


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("observer_actors.client._sender.REQUEST_SECONDS", 0.3)
    monkeypatch.setattr("observer_actors.client._delivery.BACKOFF_S_MIN", 0.05)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "trouble",
    [
        BUSY,
        Hang(),
        Close(),
        Garbage(),
        Status(500),
        Bytes(b"<html>hello</html>"),
        Json({"accepted": 5, "rejected": 0}),
        Partial(Json(ACCEPTED), 5),
        Partial(Json(ACCEPTED), 5, then_hang=True),
        Bytes(b"x" * 3_000_000),
        Bytes(b'{"x":' * 20_000),
        Bytes(b'{"x":' * 20_000, 503),
    ],
    ids=lambda reply: type(reply).__name__,
)
async def test_an_event_is_sent_again_with_its_id_until_it_is_taken(trouble: Reply) -> None:
    async with http_peer() as peer:
        peer.on("/events", trouble, trouble, Json(ACCEPTED))
        observer = Observer(peer.url, linger_seconds=0)
        with observer.operation("a"):
            pass
        with trio.fail_after(LONG_S):
            requests = await peer.wait_requests(3, "/events")
            assert await trio.to_thread.run_sync(observer.flush, LONG_S)
        await trio.to_thread.run_sync(observer.close)
        assert len({request.body for request in requests}) == 1
        assert observer.statistics().accepted == 1
        assert observer.statistics().retries == 2


async def test_of_a_daemon_that_hangs_up_without_an_answer_that_is_said() -> None:
    async with http_peer() as peer:
        peer.on("/events", Close())
        with pytest.raises(Unreachable) as caught:
            await trio.to_thread.run_sync(partial(_plain.exchange, peer.url, "POST", "/events", seconds=LONG_S))
        assert str(caught.value) == f"{peer.url}: the connection was closed before an answer came"


def test_a_flush_has_a_limit_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []
    with Observer(closed_url(), close_seconds=0) as observer:
        monkeypatch.setattr(observer._sender, "flush", given.append)  # noqa: SLF001 - who waits
        observer.flush()
        for seconds in ("x", 7, -1):
            observer.flush(seconds)  # type: ignore[arg-type]
    assert given == [2, 2, 7, 0]


@pytest.mark.parametrize("copied", [copy.deepcopy, pickle.dumps])
def test_an_observer_is_no_value(copied: Callable[[object], object]) -> None:
    with Observer(closed_url(), close_seconds=0) as observer, pytest.raises(TypeError):
        copied([observer])


async def test_retry_after_is_honoured_and_flush_tries_sooner() -> None:
    async with http_peer() as peer:
        peer.on("/events", Json({"detail": "no room", "retryable": True}, 503, {"Retry-After": "60"}), Json(ACCEPTED))
        observer = Observer(peer.url, linger_seconds=0)
        with observer.operation("a"):
            pass
        await peer.wait_requests(1)
        await trio.sleep(0.3)
        assert len(peer.requests) == 1
        assert await trio.to_thread.run_sync(observer.flush, LONG_S)
        await trio.to_thread.run_sync(observer.close)


def test_a_full_queue_drops_the_oldest_and_counts_them() -> None:
    observer = Observer(closed_url(), queue_events_max=10, close_seconds=0)
    for number in range(1_000):
        with observer.operation(str(number)):
            pass
    counts = observer.statistics()
    assert counts.events == 1_000
    assert counts.dropped + counts.waiting == 1_000
    assert counts.waiting <= 10 + BATCH_EVENTS_MAX
    observer.close()
    assert "refused" in counts.last_trouble or not counts.last_trouble


def test_a_daemon_that_is_away_costs_one_line_of_the_log_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    observer = Observer(closed_url(), linger_seconds=0)
    with caplog.at_level(logging.DEBUG, "observer_actors.client"):
        for _ in range(5):
            with observer.operation("a"):
                pass
            observer.flush(0.3)
    observer.close()
    (line,) = [record.getMessage() for record in caplog.records if record.name == "observer_actors.client"]
    assert line.startswith("event='events_not_taken' actor='client' error='http://127.0.0.1:")
    assert observer.statistics().retries > 2
    now = 0.0
    seldom = NowAndThen(lambda: now)
    assert seldom.is_due()
    now = 59.0
    assert not seldom.is_due()
    now = 60.0
    assert seldom.is_due()


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "ftp://x",
        "http://",
        "http://[::1",
        "http://h:99999",
        "unix:///nowhere",
        "",
        Path("/run/x.sock"),
        7,
        Hostile(),
    ],
)
def test_an_address_that_is_none_hurts_nobody(url: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OBSERVER_URL", closed_url())
    observer = Observer(url, linger_seconds=0, close_seconds=0.2)
    with observer.operation("a"):
        pass
    assert not observer.advice("a")
    assert not observer.flush(0.2)
    observer.close()
    counts = observer.statistics()
    assert counts.abandoned + counts.waiting == 1
    assert counts.advice_failed == 1
    assert counts.last_trouble


@pytest.mark.parametrize(
    "address", ["me:secret@HERE", "me:secret/secret@HERE", "me:22/secret@HERE", "secret@@HERE", "HERE?token=secret"]
)
def test_a_password_in_an_address_is_told_to_nobody(address: str) -> None:
    observer = Observer(f"http://{address.replace('HERE', '127.0.0.1:1')}", linger_seconds=0, close_seconds=0.2)
    with observer.operation("a"):
        pass
    observer.close()
    assert observer.statistics().last_trouble
    assert "secret" not in observer.statistics().last_trouble


def test_a_fault_of_ours_costs_no_event(daemon: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = iter([LookupError("ours")] * 2)

    def exchange(*arguments: Any, **named: Any) -> Answer:
        for fault in faults:
            raise fault
        return _plain.exchange(*arguments, **named)

    monkeypatch.setattr("observer_actors.client._observer.exchange", exchange)
    with Observer(daemon.url, linger_seconds=0) as observer:
        with observer.operation("a"):
            pass
        while observer.statistics().retries < 1:
            time.sleep(0.01)
        assert observer.statistics().last_trouble == "LookupError: ours"
        assert observer.flush(LONG_S)
    assert (observer.statistics().accepted, observer.statistics().retries) == (1, 2)


@pytest.mark.parametrize("kind", [Observer, AsyncObserver])
async def test_no_room_for_a_batch_costs_no_event(daemon: Served, monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    faults, content = iter([MemoryError()]), Delivery.content

    def short_of_memory(delivery: Delivery) -> bytes:
        for fault in faults:
            raise fault
        return content(delivery)

    monkeypatch.setattr(Delivery, "content", short_of_memory)
    made = kind(daemon.url, linger_seconds=0)
    async with made if kind is AsyncObserver else contextlib.nullcontext():
        with made.operation("a"):
            pass
        with trio.fail_after(LONG_S):
            while made.statistics().accepted < 1:  # noqa: ASYNC110 - a thread counts
                await trio.sleep(0.01)
    assert (made.statistics().accepted, made.statistics().retries) == (1, 1)


@pytest.mark.parametrize("leaving", [RuntimeError, SystemExit])
def test_a_log_of_the_hosts_that_raises_costs_no_event(leaving: type[BaseException]) -> None:
    asked = threading.Event()

    def refuse(_: logging.LogRecord) -> bool:
        asked.set()
        raise leaving

    log = logging.getLogger("observer_actors.client")
    log.addFilter(refuse)
    try:
        observer = Observer(closed_url(), linger_seconds=0, close_seconds=0.1)
        with observer.operation("a"):
            pass
        assert asked.wait(LONG_S)
        observer.close()
    finally:
        log.removeFilter(refuse)
    assert (observer.statistics().abandoned, observer.statistics().waiting) == (1, 0)


# --------------------------------------------------------------------------------------------------- advice


async def test_what_follows_in_the_run_carries_the_advice_it_was_given() -> None:
    entry = {"id": "e1", "kind": "do", "text": "add LIMIT", "endpoint": "sql:run"}
    async with http_peer() as peer:
        peer.on("/advice", Json({"advice_id": "adv1", "entries": [entry]}), Json({"advice_id": "adv2", "entries": []}))
        peer.on("/events", lambda request: Json({"accepted": request.body.count(b"\n"), "rejected": 0}))

        def agent() -> None:
            with Observer(peer.url, advice_seconds=LONG_S) as observer, observer.run("r1"):
                with observer.operation("before"):
                    pass
                advice = observer.advice("sql:run", input={"q": 1}, role="clerk")
                assert str(advice).endswith("- **Do** at `sql:run`: `add LIMIT`")
                assert advice.advice_id == "adv1"
                with observer.operation("sql:run"):
                    pass
                assert not observer.advice("http:get")
                for endpoint in ("http:get", "sql:run", "other"):
                    with observer.operation(endpoint):
                        pass
                with observer.operation("sql:run", run="another"):
                    pass
                with observer.operation("sql:run", run="another", advice_id="by hand"):
                    pass

        await trio.to_thread.run_sync(agent)
        asked = peer.received("/advice")[0].query
        assert asked == {
            "endpoint": ["sql:run"],
            "input": ['{"q":1}'],
            "role": ["clerk"],
            "run": ["r1"],
            "source": ["bot"],
            "limit": ["1"],
        }
        lines = b"".join(request.body for request in peer.received("/events")).splitlines()
        advised = [_attrs(line).get("advice_id") for line in lines]
        assert advised == [None, "adv1", "adv2", "adv1", None, None, "by hand"]


async def test_what_follows_outside_of_a_run_carries_the_advice_too() -> None:
    async with http_peer() as peer:
        peer.on("/advice", *(Json({"advice_id": f"adv{number}", "entries": []}) for number in (1, 2)), Status(503))
        peer.on("/events", lambda request: Json({"accepted": request.body.count(b"\n"), "rejected": 0}))

        def agent() -> None:
            with Observer(peer.url, advice_seconds=LONG_S) as observer:

                def report(*endpoints: str) -> None:
                    for endpoint in endpoints:
                        with observer.operation(endpoint):
                            pass

                observer.advice("sql:run")
                report("sql:run", "log:write", "sql:run")
                with observer.run(), observer.operation("sql:run"):  # which has a draw of its own
                    pass
                observer.advice(input="select 1")
                report("log:write", "log:write")
                elsewhere = threading.Thread(target=report, args=["sql:run"])
                elsewhere.start()
                elsewhere.join()
                observer.advice("sql:run")  # which is not answered
                report("sql:run")

        await trio.to_thread.run_sync(agent)
        lines = b"".join(request.body for request in peer.received("/events")).splitlines()
        advised = [_attrs(line).get("advice_id") for line in lines]
        assert advised == ["adv1", None, "adv1", None, "adv2", None, None, None]


def _attrs(line: bytes) -> dict[str, Any]:
    attrs: dict[str, Any] = msgspec.json.decode(line).get("attrs", {})
    return attrs


def test_a_real_daemon_is_asked_about_any_text(daemon: Served) -> None:
    with Observer(daemon.url, advice_seconds=LONG_S) as observer:
        for endpoint, given in (("sql:run", "客" * 2_000), ("客" * 1_000, "😀" * 2_000), ("", {"客": ["é"] * 9_000})):
            assert observer.advice(endpoint, input=given, run="客" * 128).advice_id


async def test_advice_is_asked_for_with_the_attributes_that_the_operation_will_have() -> None:
    async with http_peer() as peer:
        peer.on("/advice", Json({"advice_id": "a", "entries": []}))
        async with AsyncObserver(peer.url, advice_seconds=LONG_S) as observer:
            await observer.advice("net:call", input="q", attrs={"region": "eu", "tries": 2})
            await observer.advice("net:call", input="q", attrs={f"long-{number}": "x" * 9_000 for number in range(5)})
        await trio.to_thread.run_sync(lambda: Observer(peer.url, advice_seconds=LONG_S).advice("a", attrs={"b": None}))
        asked = [dict(parse_qsl(urlsplit(request.target).query)) for request in peer.received("/advice")]
    assert [query.get("attrs") for query in asked] == ['{"region":"eu","tries":2}', None, '{"b":null}']
    assert [query.get("input") for query in asked] == ["q", "q", None]


class Source(Enum):
    BOT = "bot"


async def test_advice_is_asked_for_in_the_name_of_the_source_that_will_report() -> None:
    async with http_peer() as peer:
        peer.on("/advice", Json({"advice_id": "a", "entries": []}))
        async with AsyncObserver(peer.url, advice_seconds=LONG_S, source="team-a") as observer:
            await observer.advice("net:call")
            await observer.advice("net:call", source="team-b")
            await observer.advice("net:call", source=Source.BOT)  # type: ignore[arg-type]
            await observer.advice("net:call", source=Hostile())  # type: ignore[arg-type]
        asked = [dict(parse_qsl(urlsplit(request.target).query)) for request in peer.received("/advice")]
    assert [query["source"] for query in asked] == ["team-a", "team-b", "bot", "<Hostile>"]


def test_a_real_daemon_is_told_what_its_advice_came_to(daemon: Served) -> None:
    for source in ("mcp", "bot"):
        with Observer(daemon.url, source=source) as taught:
            for number in range(10):
                with taught.run(f"{source}-{number}"), taught.operation("teach:this", input_summary="select 1") as op:
                    if number % 2:
                        op.fail("timeout after 30 s")
    while not daemon.json("/playbook", endpoint="teach:this")["entries"]:
        time.sleep(0.05)
    advised = {}
    with Observer(daemon.url, advice_seconds=LONG_S) as observer:
        for number in range(40):  # half of the runs get a candidate, half are its control
            with observer.run(f"asking-{number}") as run:
                advice = observer.advice("teach:this", input="select 1")
                advised[run] = advice.advice_id
                with observer.operation("teach:this", input_summary="select 1", attrs={"told": bool(advice)}):
                    pass
    assert observer.statistics().advice_failed == 0
    ops = [op for op in journal_ops(daemon.data_dir) if isinstance(op.attrs, dict) and "told" in op.attrs]
    assert {op.attrs["run"]: op.attrs["advice_id"] for op in ops if isinstance(op.attrs, dict)} == advised
    assert all(advised.values())
    assert {op.attrs["told"] for op in ops if isinstance(op.attrs, dict)} == {True, False}


def test_who_asks_in_a_context_of_its_own_names_a_run_or_the_advice(daemon: Served) -> None:
    async def agent(observer: Observer) -> None:
        outside = (await asyncio.to_thread(observer.advice, "child:ask")).advice_id
        with observer.operation("child:ask") as lost, observer.operation("child:ask", advice_id=outside) as named:
            pass
        with observer.run("child"):
            within = (await asyncio.to_thread(observer.advice, "child:ask")).advice_id
            with observer.operation("child:ask") as kept:
                pass
        assert "" not in (outside, within)
        assert [lost.advice_id, named.advice_id, kept.advice_id] == ["", outside, within]

    with Observer(daemon.url, advice_seconds=LONG_S) as observer:
        asyncio.run(agent(observer))


def test_a_run_of_any_length_gets_advice_under_the_name_that_its_operations_report(daemon: Served) -> None:
    names = ["r" * 256, "r" * 300, "r" * 301, "a " * 118 + "pass:" + "w" * 100]
    with Observer(daemon.url, advice_seconds=LONG_S) as observer:
        for name in names:
            with observer.run(name):
                asked = observer.advice("long:run")
                assert asked.advice_id
                with observer.operation("long:run") as op:
                    assert op.advice_id == asked.advice_id
    told = [op.attrs for op in journal_ops(daemon.data_dir) if op.endpoint == "long:run"]
    runs = [attrs["run"] for attrs in told if isinstance(attrs, dict)]
    assert [len(set(runs)), runs[0], *map(len, map(str, runs))] == [4, names[0], 256, 256, 256, 252]
    assert "pass" not in str(runs), "no part of a word, which may be a password"


async def test_advice_comes_within_its_limit_or_not_at_all_and_who_hangs_is_not_asked_each_time() -> None:
    """Without a limit of its own the first would take as long as a request may; the others ask nobody."""
    async with http_peer() as peer:
        peer.on("/advice", Hang())
        observer = Observer(peer.url, advice_seconds=0.2)

        def ask() -> float:
            began = time.monotonic()
            assert not observer.advice("a", run="r")
            return time.monotonic() - began

        assert 0.2 <= await trio.to_thread.run_sync(ask) < REQUEST_SECONDS
        took = [await trio.to_thread.run_sync(ask) for _ in range(5)]
        assert min(took) < 0.2
        assert observer.statistics().advice_asked == 1


@pytest.mark.parametrize("reply", [Status(404), Status(503), Json([]), Garbage(), Close()])
async def test_an_answer_that_is_no_advice_is_none(reply: Reply) -> None:
    async with http_peer() as peer:
        peer.on("/advice", reply)
        observer = Observer(peer.url)
        assert not await trio.to_thread.run_sync(observer.advice, "a")
        assert observer.statistics().advice_failed == 1


# ---------------------------------------------------------------------------------------- gateway and verdicts


@contextlib.contextmanager
def address_that_lets_nobody_in() -> Iterator[tuple[Any, ...]]:
    """Give an address, as a look-up gives it, at which a connection is neither taken nor refused."""
    with contextlib.ExitStack() as held:
        full = held.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):  # no more of them fit: the next is not let in
            waiting = held.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        yield socket.AF_INET, socket.SOCK_STREAM, 6, "", full.getsockname()


def test_all_addresses_of_a_name_have_one_limit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    with address_that_lets_nobody_in() as entry:
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_given, **_named: [entry] * 6)
        observer = Observer("http://witness.test:1", advice_seconds=1)
        began = time.monotonic()
        assert not observer.advice("a")
        assert 0.9 < time.monotonic() - began < 5, "seconds, of 6"


def test_an_address_that_lets_nobody_in_leaves_time_for_the_next(
    daemon: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    with address_that_lets_nobody_in() as entry:
        found = [entry, (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", daemon.port))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_given, **_named: found)
        observer = Observer(f"http://localhost:{daemon.port}", advice_seconds=2)
        observer.advice("a")
        assert (observer.statistics().advice_asked, observer.statistics().advice_failed) == (1, 0)


def test_to_connect_and_to_agree_on_tls_have_one_limit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(host: str, port: int, deadline: float) -> socket.socket:
        connection = _opened(host, port, deadline)
        time.sleep(0.4)
        return connection

    monkeypatch.setattr(_plain, "_opened", slowly)
    _certificates()
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        began = time.monotonic()
        with pytest.raises(Unreachable, match="timed out"):
            _plain.exchange(f"https://127.0.0.1:{deaf.getsockname()[1]}", "GET", "/advice", seconds=0.5)
        assert 0.5 <= time.monotonic() - began < 0.9


def test_who_is_refused_leaves_no_garbage() -> None:
    """A thread that tries again and again would gather it, with the frames of whoever waits."""
    known = set(map(id, gc.get_objects()))
    gc.disable()
    try:
        with pytest.raises(ConnectionRefusedError):
            _opened("127.0.0.1", 9, time.monotonic() + 1)
        left = [one for one in gc.get_objects() if isinstance(one, ConnectionRefusedError) and id(one) not in known]
    finally:
        gc.enable()
    assert not left


def test_the_next_address_of_a_name_is_tried(daemon: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def entry(port: int) -> tuple[Any, ...]:
        return socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)

    observer = Observer("http://witness.test:1", close_seconds=0.1)
    found = [entry(9), entry(daemon.port)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_given, **_named: found)
    with observer.operation("a"):
        pass
    while "is not a name of this daemon" not in observer.statistics().last_trouble:
        assert not observer.flush(0.1)
    observer.close()


def test_a_family_of_addresses_for_which_there_is_no_socket_is_passed_over(
    daemon: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    none = (12_345, socket.SOCK_STREAM, 6, "", ("::1", daemon.port))  # as where IPv6 is turned off
    found = [none, (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", daemon.port))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_given, **_named: found)
    observer = Observer(f"http://localhost:{daemon.port}", linger_seconds=0, close_seconds=LONG_S)
    with observer, observer.operation("a"):
        pass
    observer.close()
    assert observer.statistics().accepted == 1


async def test_a_call_to_the_gateway_is_observed_in_any_thread_also_within_a_loop() -> None:
    async with http_peer() as peer:
        peer.on("/sql", Json({"rows": [1, 2]}))
        peer.on("/events", lambda request: Json({"accepted": request.body.count(b"\n"), "rejected": 0}))

        async def within_a_loop(observer: Observer) -> Any:
            return observer.observed("/sql", {"q": 1}, "count", gateway_url=peer.url, run="r")

        with Observer(peer.url, linger_seconds=0) as observer:
            data, op = await trio.to_thread.run_sync(lambda: asyncio.run(within_a_loop(observer)))
            assert (data, op.success) == ({"rows": [1, 2]}, True)
            data, other = await trio.to_thread.run_sync(
                lambda: observer.observed("/sql", {"q": 1}, "count", gateway_url=closed_url())
            )
            assert "error" in data
            assert await trio.to_thread.run_sync(observer.flush, LONG_S)
        lines = b"".join(request.body for request in peer.received("/events")).splitlines()
        assert [_attrs(line) for line in lines] == [{"run": "r"}, {}]
        said = [msgspec.json.decode(line) for line in lines]
        assert [(one["id"], one["timestamp"]) for one in said] == [(one.id, one.timestamp) for one in (op, other)]


def test_a_verdict_is_reported_before_it_returns(daemon: Served, observer: Observer, tmp_path: Path) -> None:
    verdict = Verdict(signature="pr1", overall="approve", one_liner="fine", findings=(Finding("info", "x"),))
    report = observer.report_verdict(verdict, data_dir=tmp_path)
    assert report.recorded
    assert report.receipt is not None
    assert daemon.json(f"/ops/{report.receipt.seq}")["sig_hash"] == "pr1"


def test_the_zone_of_an_address_is_for_the_sender_alone() -> None:
    headers = dict(_headers(parse_address("http://[fe80::1%eth0]:3800"), b""))
    assert headers["Host"] == "[fe80::1]:3800"
