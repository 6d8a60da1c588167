"""`AsyncObserver`, on trio and on asyncio."""

from __future__ import annotations

import asyncio
import math
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.lowlevel
import anyio.to_thread
import msgspec
import pytest
import trio

from observer_actors.client import AsyncObserver, ObserverStatistics, Verdict, _ledger
from observer_actors.client._outbox import Outbox, OutgoingEvent
from observer_actors.client._sender import REQUEST_SECONDS
from tests.daemon.served import served
from tests.fakes.event_loops import Runtime
from tests.fakes.http_peer import (
    Bytes,
    Close,
    Garbage,
    Hang,
    HttpPeer,
    Json,
    Reply,
    Request,
    Slow,
    Status,
    closed_url,
    http_peer,
)
from tests.harness import journal_ops

LONG_S: Final = 30.0


def accepted(request: Request) -> Reply:
    return Json({"accepted": request.body.count(b"\n"), "rejected": 0})


def events(peer: HttpPeer) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for request in peer.received("/events") for line in request.body.splitlines()]


@pytest.fixture
async def peer() -> AsyncIterator[HttpPeer]:
    async with http_peer() as made:
        made.on("/events", accepted)
        yield made


async def test_operations_are_reported_in_the_background_with_their_run_and_its_advice(
    runtime: Runtime, peer: HttpPeer
) -> None:
    peer.on("/advice", Json({"advice_id": "adv", "entries": [{"id": "e", "text": "look first"}]}))

    async def agent() -> AsyncObserver:
        async with AsyncObserver(peer.url, advice_seconds=LONG_S) as observer:
            with observer.run("r"):
                assert "`look first`" in str(await observer.advice("sql:run", input="q"))
                with observer.operation("sql:run", input_summary="q") as op:
                    await anyio.sleep(0.02)
                    op.output_summary = "3 rows"

            @observer.observed_as("later")
            async def later() -> None:
                await anyio.lowlevel.checkpoint()
                raise LookupError("nobody")

            with pytest.raises(LookupError):
                await later()
            assert await observer.flush(LONG_S)
            await anyio.to_thread.run_sync(from_a_thread, observer)
        return observer

    def from_a_thread(observer: AsyncObserver) -> None:
        with observer.operation("thread"):
            pass

    observer = await runtime(agent)
    assert (observer.statistics().events, observer.statistics().accepted) == (3, 3)
    first, second, third = events(peer)
    assert (first["success"], first["output_summary"]) == (True, "3 rows")
    assert first["attrs"] == {"run": "r", "advice_id": "adv"}
    assert first["duration_ms"] >= 20
    assert (second["error"], third["endpoint"]) == ("LookupError: nobody", "thread")


async def test_what_follows_outside_of_a_run_carries_the_advice_too(runtime: Runtime, peer: HttpPeer) -> None:
    peer.on("/advice", Json({"advice_id": "adv", "entries": []}))

    async def agent() -> None:
        async with AsyncObserver(peer.url, advice_seconds=LONG_S) as observer:
            await observer.advice("sql:run")
            for endpoint in ("log:write", "sql:run"):
                with observer.operation(endpoint):
                    await anyio.lowlevel.checkpoint()

    await runtime(agent)
    assert [event.get("attrs") for event in events(peer)] == [None, {"advice_id": "adv"}]


async def test_what_is_raised_in_the_block_comes_out_as_it_is(runtime: Runtime, peer: HttpPeer) -> None:
    async def agent() -> None:
        async with AsyncObserver(peer.url) as observer:
            with observer.operation("a"):
                raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await runtime(agent)
    assert [event["error"] for event in events(peer)] == ["ValueError: mine"]


async def test_a_host_that_is_cancelled_still_sends_what_is_left_and_is_cancelled(
    runtime: Runtime, peer: HttpPeer
) -> None:
    async def agent() -> bool:
        with anyio.move_on_after(0.1) as scope:
            async with AsyncObserver(peer.url, linger_seconds=60) as observer:
                with observer.operation("before"):
                    pass
                with observer.operation("cancelled"):
                    await anyio.sleep_forever()
        assert (observer.statistics().accepted, observer.statistics().cancelled) == (1, 1)
        return scope.cancelled_caught

    assert await runtime(agent)
    assert [event["endpoint"] for event in events(peer)] == ["before"]


async def test_what_is_on_its_way_when_the_host_is_cancelled_goes_on(runtime: Runtime, peer: HttpPeer) -> None:
    peer.on("/events", Slow(0.5, Json({"accepted": 1, "rejected": 0})))

    async def agent() -> AsyncObserver:
        with anyio.move_on_after(0.2):
            async with AsyncObserver(peer.url, linger_seconds=0, close_seconds=LONG_S) as observer:
                with observer.operation("a"):
                    pass
                await anyio.sleep_forever()
        return observer

    observer = await runtime(agent)
    assert observer.statistics().accepted == len(peer.received("/events")) == 1


async def test_an_asyncio_task_that_is_cancelled_ends_cancelled(peer: HttpPeer) -> None:
    async def agent() -> None:
        async with AsyncObserver(peer.url, linger_seconds=60) as observer:
            with observer.operation("before"):
                pass
            await asyncio.sleep(60)

    async def host() -> bool:
        task = asyncio.create_task(agent())
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    assert await trio.to_thread.run_sync(lambda: asyncio.run(host()))
    assert [event["endpoint"] for event in events(peer)] == ["before"]


async def test_an_asyncio_task_that_is_cancelled_while_it_closes_still_sends_what_is_left_and_leaves_no_task(
    peer: HttpPeer,
) -> None:
    peer.on("/events", Slow(0.5, Json({"accepted": 3, "rejected": 0})))
    made: list[AsyncObserver] = []

    async def agent() -> None:
        async with AsyncObserver(peer.url, close_seconds=LONG_S) as observer:
            made.append(observer)
            for _ in range(3):
                with observer.operation("a"):
                    pass

    async def host() -> tuple[bool, int]:
        task = asyncio.create_task(agent())
        for _ in range(3):
            await asyncio.sleep(0.1)
            task.cancel()
        await asyncio.wait([task])
        return task.cancelled(), len(asyncio.all_tasks())

    assert await trio.to_thread.run_sync(lambda: asyncio.run(host())) == (True, 1)
    assert (made[0].statistics().accepted, made[0].statistics().waiting) == (3, 0)
    assert len(peer.received("/events")) == 1


async def test_an_asyncio_task_that_is_cancelled_while_a_daemon_hangs_gives_up_in_time_and_counts_it(
    peer: HttpPeer,
) -> None:
    peer.on("/events", Hang())
    made: list[AsyncObserver] = []

    async def agent() -> None:
        async with AsyncObserver(peer.url, close_seconds=0.5) as observer:
            made.append(observer)
            with observer.operation("a"):
                pass

    async def host() -> int:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await agent()
        return len(asyncio.all_tasks())

    assert await trio.to_thread.run_sync(lambda: asyncio.run(host())) == 1
    assert (made[0].statistics().abandoned, made[0].statistics().waiting) == (1, 0)


async def test_the_end_of_an_asyncio_loop_that_cancels_all_tasks_sends_what_is_left(peer: HttpPeer) -> None:
    async def agent() -> None:
        async with AsyncObserver(peer.url, linger_seconds=60, close_seconds=LONG_S) as observer:
            with observer.operation("a"):
                pass
            await asyncio.sleep(60)

    async def host() -> asyncio.Task[None]:
        task = asyncio.create_task(agent())
        await asyncio.sleep(0.1)
        return task

    task = await trio.to_thread.run_sync(lambda: asyncio.run(host()))
    assert task.cancelled()
    assert [event["endpoint"] for event in events(peer)] == ["a"]


@pytest.mark.parametrize("begun_again_by", ["flush", "event"])
async def test_a_host_that_cancels_all_tasks_once_still_has_what_comes_then_sent(
    peer: HttpPeer, begun_again_by: str
) -> None:
    async def agent() -> ObserverStatistics:
        async with AsyncObserver(peer.url, linger_seconds=0) as observer:
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            if begun_again_by == "event":
                await asyncio.sleep(0.01)
            with observer.operation("a"):
                pass
            await asyncio.sleep(0.01)
            if begun_again_by == "flush":
                assert await observer.flush(5)
            else:
                await anyio.to_thread.run_sync(peer_has_it.wait, 5)
            return observer.statistics()

    peer_has_it = threading.Event()

    def answer(request: Request) -> Reply:
        peer_has_it.set()
        return accepted(request)

    peer.on("/events", answer)
    await trio.to_thread.run_sync(lambda: asyncio.run(agent()))
    assert peer_has_it.is_set()


async def test_large_events_do_not_wait_for_others(runtime: Runtime, peer: HttpPeer) -> None:
    async def agent() -> ObserverStatistics:
        async with AsyncObserver(peer.url, linger_seconds=60) as observer:
            await anyio.sleep(0.1)
            for _ in range(120):
                with observer.operation("a", input_summary="x" * 10_000):
                    pass
            with anyio.fail_after(LONG_S):
                while not observer.statistics().accepted:  # noqa: ASYNC110 - another task counts
                    await anyio.sleep(0.01)
            return observer.statistics()

    assert (await runtime(agent)).accepted > 0


async def test_one_that_lets_no_event_linger_rests_while_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    looks, take = [], Outbox.take

    def counted(outbox: Outbox) -> list[OutgoingEvent]:
        looks.append(outbox)
        return take(outbox)

    monkeypatch.setattr(Outbox, "take", counted)
    async with AsyncObserver(closed_url(), linger_seconds=0):
        await anyio.sleep(0.3)
    assert 1 < len(looks) < 60


async def test_a_flush_in_another_event_loop_ends_nothing(peer: HttpPeer) -> None:
    async with AsyncObserver(peer.url, linger_seconds=0.1) as observer:
        for number in range(2):
            with observer.operation(str(number)):
                pass
            assert await anyio.to_thread.run_sync(asyncio.run, observer.flush(LONG_S))
        with observer.operation("2"):
            pass
    assert [event["endpoint"] for event in events(peer)] == ["0", "1", "2"]


async def test_several_tasks_may_be_within_at_once_and_it_ends_with_the_last(runtime: Runtime, peer: HttpPeer) -> None:
    async def agent() -> AsyncObserver:
        observer = AsyncObserver(peer.url, linger_seconds=0.01, close_seconds=LONG_S)

        async def handle(seconds: float) -> None:
            async with observer:
                with observer.operation("a"):
                    await anyio.sleep(seconds)
                async with observer:
                    pass

        for _ in range(2):
            async with anyio.create_task_group() as group:
                for seconds in (0.2, 0.0, 0.1, 0.3):
                    group.start_soon(handle, seconds)
            assert (observer.statistics().accepted, observer.statistics().waiting) == (observer.statistics().events, 0)
        return observer

    observer = await runtime(agent)
    assert observer.statistics().accepted == len(events(peer)) == 8


async def test_who_enters_again_sends_what_comes_then_and_nothing_that_was_given_up(
    runtime: Runtime, peer: HttpPeer
) -> None:
    peer.on("/events", Hang(), accepted)

    async def agent() -> AsyncObserver:
        observer = AsyncObserver(peer.url, linger_seconds=0, close_seconds=0.3)
        for endpoint in ("given up", "sent"):
            async with observer:
                with observer.operation(endpoint):
                    pass
        return observer

    counts = (await runtime(agent)).statistics()
    assert (counts.events, counts.abandoned, counts.accepted, counts.waiting) == (2, 1, 1, 0)
    assert events(peer)[-1]["endpoint"] == "sent"


async def test_a_flush_tells_what_was_dropped_from_what_was_taken(runtime: Runtime) -> None:
    async def agent() -> None:
        async with AsyncObserver(closed_url(), linger_seconds=0, close_seconds=0.1, queue_events_max=1) as observer:
            with observer.operation("a"):
                pass
            taken: list[bool] = []

            async def flush() -> None:
                taken.append(await observer.flush(LONG_S))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(flush)
                while observer.statistics().retries < 2:  # noqa: ASYNC110 - the first by itself, the next by the flush
                    await anyio.sleep(0.001)
                for _ in range(3):
                    with observer.operation("b"):
                        pass
            assert taken == [False]

    await runtime(agent)


async def test_what_another_thread_reports_while_the_rest_is_given_up_is_given_up_too_or_waits(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    count = Outbox.count

    def counted(self: Outbox, *, trouble: str = "", **counts: int) -> None:
        count(self, trouble=trouble, **counts)
        if "abandoned" in counts:
            self.put(OutgoingEvent("id", "2026-11-22T10:00:00.000Z", "bot", "late", "", success=True, duration_ms=1.0))

    monkeypatch.setattr(Outbox, "count", counted)

    async def agent() -> AsyncObserver:
        async with AsyncObserver(closed_url(), close_seconds=0) as observer:
            with observer.operation("a"):
                pass
        return observer

    observer = await runtime(agent)
    counts = observer.statistics()
    assert (counts.events, counts.abandoned, counts.waiting) == (2, 1, 1)
    assert "events_not_taken" in caplog.text
    assert [event.endpoint for event in observer._outbox.take()] == ["late"]  # noqa: SLF001 - what goes out next


@pytest.mark.parametrize(
    "trouble",
    [Hang(), Close(), Garbage(), Status(503), Json([]), Bytes(b'{"x":' * 20_000)],
    ids=lambda one: type(one).__name__,
)
async def test_a_daemon_in_trouble_costs_the_end_its_limit_and_nothing_else(
    runtime: Runtime, peer: HttpPeer, trouble: Reply
) -> None:
    peer.on("/events", trouble)
    peer.on("/advice", trouble)

    async def agent() -> AsyncObserver:
        async with AsyncObserver(peer.url, linger_seconds=0, close_seconds=0.3, advice_seconds=0.2) as observer:
            with observer.operation("a"):
                pass
            began = time.monotonic()
            assert not await observer.advice("a")
            assert time.monotonic() - began < REQUEST_SECONDS, "which is how long a request may take by itself"
        return observer

    with trio.fail_after(LONG_S):
        began = time.monotonic()
        observer = await runtime(agent)
        assert time.monotonic() - began < REQUEST_SECONDS
    counts = observer.statistics()
    assert (counts.events, counts.abandoned, counts.waiting) == (1, 1, 0)


async def test_an_event_is_sent_again_with_its_id_when_the_daemon_is_back(runtime: Runtime, peer: HttpPeer) -> None:
    peer.on("/events", Close(), Json({"detail": "no room", "retryable": True}, 503, {"Retry-After": "30"}), accepted)

    async def agent() -> AsyncObserver:
        async with AsyncObserver(peer.url, linger_seconds=0) as observer:
            with observer.operation("a"):
                pass
            assert await observer.flush(LONG_S)
        return observer

    observer = await runtime(agent)
    assert len({event["id"] for event in events(peer)}) == 1
    assert (observer.statistics().accepted, observer.statistics().retries) == (1, 2)


async def test_nobody_there_and_no_address_hurt_nobody(runtime: Runtime) -> None:
    async def agent(url: Any) -> None:
        async with AsyncObserver(url, linger_seconds=0, close_seconds=0.2) as observer:
            with observer.operation("a"):
                pass
            assert not await observer.advice("a")
        assert observer.statistics().abandoned == 1

    for url in (closed_url(), "nonsense", "http://[::1", "unix:///nowhere", Path("/run/x.sock"), 7):
        await runtime(lambda url=url: agent(url))  # type: ignore[misc]


@pytest.mark.parametrize("given", [math.inf, 10**400, -1])
async def test_a_limit_beyond_all_bounds_is_the_nearest_one(runtime: Runtime, peer: HttpPeer, given: Any) -> None:
    async def agent() -> AsyncObserver:
        async with AsyncObserver(
            peer.url, linger_seconds=given, close_seconds=given, advice_seconds=given, queue_events_max=given
        ) as observer:
            with observer.operation("a"):
                pass
            await observer.advice("a")
            while not await observer.flush(given):
                await anyio.lowlevel.checkpoint()
            await observer.flush("no number")  # type: ignore[arg-type]
        return observer

    observer = await runtime(agent)
    assert observer.statistics().accepted == 1


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_a_daemon_that_is_killed_and_started_again_gets_each_event_once(backend: str, tmp_path: Path) -> None:
    data, stop = tmp_path / "data", threading.Event()
    found: list[ObserverStatistics] = []

    async def agent(url: str) -> None:
        async with AsyncObserver(url, linger_seconds=0.02, close_seconds=LONG_S) as observer:
            while not stop.is_set():
                with observer.operation("load"):
                    await anyio.sleep(0.005)  # so that a start that takes long finds no more than the queue holds
        found.append(observer.statistics())

    with served(data) as first:
        host = threading.Thread(target=lambda: anyio.run(agent, first.url, backend=backend))
        host.start()
        time.sleep(0.4)
        first.process.send_signal(signal.SIGKILL)
        first.process.wait()
    with served(data, port=first.port):
        time.sleep(0.4)
        stop.set()
        host.join(LONG_S)
    (counts,) = found
    ids = [op.id for op in journal_ops(data)]
    assert len(ids) == len(set(ids)) == counts.events == counts.accepted > 50
    assert counts.retries > 0


async def test_the_gateway_and_the_auditors_wire(runtime: Runtime, peer: HttpPeer, tmp_path: Path) -> None:
    peer.on("/sql", Json({"rows": [1]}))
    peer.on("/event", Json({"accepted": True, "ring_size": 1, "seq": 4}))

    async def agent() -> Any:
        async with AsyncObserver(peer.url) as observer:
            data, op = await observer.observed("/sql", {}, "count", gateway_url=peer.url, run="r")
            assert (data, op.success, op.seq) == ({"rows": [1]}, True, 0)
            return await observer.report_verdict(
                Verdict(signature="s", overall="approve", one_liner="fine"), data_dir=tmp_path
            )

    report = await runtime(agent)
    assert report.receipt.seq == 4
    assert [event["attrs"] for event in events(peer)] == [{"run": "r"}]


def test_what_is_reported_outside_of_the_block_is_warned_of(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_ledger, "_SAID", set())  # once in a process, and others may have said it in ours
    observer = AsyncObserver(closed_url())
    for _ in range(2):
        with observer.operation("a"):
            pass
    assert [record.getMessage() for record in caplog.records if "observer_not_entered" in record.getMessage()] == [
        "event='observer_not_entered' actor='client' about='AsyncObserver' hint='it sends within `async with` alone'"
    ]


async def test_an_event_loop_that_ended_while_somebody_was_within_keeps_no_other_from_sending(peer: HttpPeer) -> None:
    observer = AsyncObserver(peer.url, close_seconds=LONG_S)

    async def enter() -> None:
        await observer.__aenter__()

    async def report() -> None:
        async with observer:
            with observer.operation("later"):
                pass

    await trio.to_thread.run_sync(asyncio.run, enter())
    assert await observer.flush(0.1)
    await trio.to_thread.run_sync(asyncio.run, report())
    assert [event["endpoint"] for event in events(peer)] == ["later"]
    assert observer.statistics().waiting == 0


async def test_to_enter_in_two_event_loops_at_once_is_warned_of(
    peer: HttpPeer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_ledger, "_SAID", set())  # as above
    observer = AsyncObserver(peer.url)

    async def enter() -> None:
        async with observer:
            pass

    for _ in range(2):
        await trio.to_thread.run_sync(asyncio.run, enter())
    assert not caplog.records, "one after the other they may be"
    async with observer:
        await trio.to_thread.run_sync(asyncio.run, enter())
    (record,) = caplog.records
    assert "observer_in_two_event_loops" in record.getMessage()


async def test_a_child_process_sends_by_a_task_of_its_own(peer: HttpPeer) -> None:
    program = """
import asyncio, os, sys
from observer_actors import AsyncObserver
observer = AsyncObserver(sys.argv[1])
async def report(name):
    async with observer:
        with observer.operation(name):
            pass
async def fork():
    async with observer:
        child = os.fork()
        if child == 0:
            asyncio.run(report("child"))
            os._exit(0)
        os.waitpid(child, 0)
        await report("parent")
asyncio.run(fork())
"""
    await trio.run_process([sys.executable, "-c", program, peer.url])
    assert [event["endpoint"] for event in events(peer)] == ["child", "parent"]
