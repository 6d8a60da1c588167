"""The courier against a real gateway and a real file; time is the test's."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Final, TypeVar

import pytest
import structlog
import trio
import trio.testing
from structlog.testing import capture_logs
from trio.testing import MockClock, wait_all_tasks_blocked

from observer_actors.actors.courier import DECLINED_MAX, Courier
from observer_actors.actors.learned import Learned
from observer_actors.actors.surroundings import InThread, Surroundings, trusted_certificates
from observer_actors.backoff import backoff_s
from observer_actors.errors import DiskFailed
from observer_actors.patterns import Outgoing
from observer_actors.patterns.outgoing import WEBHOOK_PATH
from observer_actors.playbook import Copy
from observer_actors.settings import GatewaySettings
from observer_actors.store import LEARNED_PATH, Lane, LaneStatistics
from observer_actors.supervision import ChildSpec, Events, Life, Supervisor
from observer_actors.threads import in_thread
from tests.daemon.test_doors import certificate
from tests.fakes.http_peer import (
    Bytes,
    Close,
    Garbage,
    Hang,
    HttpPeer,
    Json,
    Partial,
    Reply,
    Request,
    Status,
    closed_url,
    http_peer,
    speaking_tls,
)

T = TypeVar("T")
EPOCH: Final = 1_800_000_000.0
WAIT_S: Final = 10.0
TIMEOUT_S: Final = 10.0


@pytest.mark.parametrize(
    ("attempts", "full_s"), [(0, 1), (1, 1), (2, 2), (3, 4), (8, 128), (9, 256), (10, 300), (10_000, 300)]
)
def test_the_delay_doubles_up_to_its_cap_and_the_jitter_stays_inside(attempts: int, full_s: float) -> None:
    assert backoff_s(attempts, 1, 300, 1.0) == full_s
    assert backoff_s(attempts, 1, 300, 0.0) == full_s / 2
    assert full_s / 2 < backoff_s(attempts, 1, 300, 0.5) < full_s


def test_a_cap_below_a_second_holds() -> None:
    assert backoff_s(5, 1, 0.2, 1.0) == 0.2


@dataclass
class Bench:
    """A courier at work."""

    learned: Learned
    data_dir: Path
    cancel: Callable[[], None]

    async def queue(self, *keys: str, path: str = "/log") -> None:
        await self.learned.save_told([Copy("sql:run", 5, message(key, path)) for key in keys])

    def rows(self) -> list[tuple[Any, ...]]:
        """Give key, state, tries that failed, and the delay after the last of them."""
        with closing(sqlite3.connect(self.data_dir / LEARNED_PATH)) as file:
            return file.execute("SELECT key, state, attempts, next_at - tried_at FROM outbox ORDER BY id").fetchall()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait, while trio's own time stands still, for what threads and sockets do."""
        deadline = monotonic() + WAIT_S
        while not condition():
            assert monotonic() < deadline, self.rows()
            await trio.testing.wait_all_tasks_blocked(0.001)  # a loop that never rests may keep the threads from theirs

    async def settled(self, delivered: int, refused: int = 0) -> None:
        def told() -> bool:
            lanes = (self.learned.statistics() or {}).values()
            return (sum(lane.delivered for lane in lanes), sum(lane.refused for lane in lanes)) == (delivered, refused)

        await self.until(told)

    async def failed(self, attempts: int) -> None:
        await self.until(lambda: [tries for _, state, tries, _ in self.rows() if state == "pending"][:1] == [attempts])


def message(key: str, path: str) -> Outgoing:
    return Outgoing(key=key, path=path, body=b'{"of":"' + key.encode() + b'"}')


def keys(gateway: HttpPeer) -> list[str]:
    assert [request.json() for request in gateway.received("/log")] == [
        {"of": request.headers["idempotency-key"]} for request in gateway.received("/log")
    ]
    return [request.headers["idempotency-key"] for request in gateway.received("/log")]


@asynccontextmanager
async def at_work(
    data_dir: Path,
    url: str,
    *,
    webhook_url: str = "",
    outbox_max: int = 100,
    on_step: Callable[[str, str], None] = lambda _name, _step: None,
    in_thread: InThread = in_thread,
) -> AsyncIterator[Bench]:
    log = structlog.get_logger()
    around = Surroundings(
        in_thread=in_thread, time_ns=lambda: int((EPOCH + trio.current_time()) * 1e9), chance=lambda: 1.0
    )
    settings = GatewaySettings(url=url, timeout_seconds=TIMEOUT_S, outbox_max=outbox_max)
    learned = Learned(data_dir, settings, log=log, around=around)
    await learned.load_playbook()
    courier = Courier(learned, settings, log=log, webhook_url=webhook_url, around=around)
    spec = ChildSpec("courier", courier.run)
    supervisor = Supervisor("learning", [spec], events=Events(), jitter=lambda: 1.0)
    life = Life("learning", 1, on_progress=lambda: None, on_step=on_step)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.run, life)
        try:
            yield Bench(learned, data_dir, nursery.cancel_scope.cancel)
        finally:
            nursery.cancel_scope.cancel()
    with trio.CancelScope(shield=True):
        await learned.close()


async def test_what_waits_for_a_receiver_that_is_no_longer_configured_is_told_and_kept(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with at_work(tmp_path, closed_url()) as bench:
        await bench.queue("a", "b")
        await bench.failed(1)
    with capture_logs() as logs:
        async with at_work(tmp_path, "", webhook_url=closed_url()) as bench:
            await bench.until(lambda: logs)
    assert [(line["event"], line["receiver"], line["pending"]) for line in logs] == [
        ("messages_stranded", "gateway", 2)
    ]
    async with http_peer(Status(204)) as gateway, at_work(tmp_path, gateway.url) as bench:
        mock_clock.jump(2)
        await bench.settled(2)
        assert keys(gateway) == ["a", "b"]


async def test_messages_arrive_once_and_in_order(tmp_path: Path, mock_clock: MockClock) -> None:  # noqa: ARG001
    async with http_peer(Status(204)) as gateway, at_work(tmp_path, gateway.url) as bench:
        await bench.queue("a", "b")
        await bench.queue("c", "a")
        await bench.settled(3)
        assert keys(gateway) == ["a", "b", "c"]
        assert {request.headers["content-type"] for request in gateway.requests} == {"application/json"}


async def test_no_receiver_gets_a_cookie_back_or_that_of_the_other(
    tmp_path: Path,
    mock_clock: MockClock,  # noqa: ARG001 - no time passes
) -> None:
    async with http_peer(Status(200, {"Set-Cookie": "session=hunter2"})) as hook, http_peer(Status(200)) as gateway:
        async with at_work(tmp_path, gateway.url, webhook_url=hook.url) as bench:
            await bench.queue("a", "b", path=WEBHOOK_PATH)
            await bench.settled(2)
            await bench.queue("c")
            await bench.settled(3)
        requests = [*hook.requests, *gateway.requests]
        assert [request.headers.get("cookie") for request in requests] == [None, None, None]


@pytest.mark.parametrize(
    "trouble",
    [*map(Status, (500, 503, 429, 408, 401, 403, 404, 409, 307)), Garbage(), Garbage(b""), Close()],
    ids=["500", "503", "429", "408", "401", "403", "404", "409", "307", "garbage", "nothing", "closed"],
)
async def test_what_may_pass_is_tried_again_with_growing_delays_and_in_order(
    tmp_path: Path, mock_clock: MockClock, trouble: Reply
) -> None:
    with capture_logs() as logs:
        async with http_peer() as gateway, at_work(tmp_path, gateway.url) as bench:
            gateway.on("/log", *[trouble] * 4, Json({"ok": True}))
            await bench.queue("a", "b")
            for attempt, delay_s in enumerate([1, 2, 4, 8], start=1):
                await bench.failed(attempt)
                assert bench.rows() == [("a", "pending", attempt, delay_s), ("b", "pending", 0, 0)]
                mock_clock.jump(delay_s)
            await bench.settled(2)
            assert keys(gateway) == ["a"] * 5 + ["b"]
    assert [line["event"] for line in logs] == ["delivery_failed"]


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("headers", "delay_s"),
    [
        ({"Retry-After": "30"}, 30),
        ({"Retry-After": "0"}, 1),
        ({"Retry-After": "86400"}, 300),
        ({"Retry-After": "Fri, 15 Jan 2027 08:01:00 GMT"}, 60),
        ({"Retry-After": "Fri, 15 Jan 2027 09:00:20 GMT", "Date": "Fri, 15 Jan 2027 09:00:00 GMT"}, 20),
        ({"Retry-After": "in a minute"}, 1),
    ],
    ids=["seconds", "at once", "a day", "a date by our clock", "a date by its clock", "junk"],
)
async def test_a_receiver_that_asks_to_be_left_alone_is_within_the_bound(
    tmp_path: Path, mock_clock: MockClock, status: int, headers: dict[str, str], delay_s: float
) -> None:
    async with http_peer() as gateway, at_work(tmp_path, gateway.url) as bench:
        gateway.on("/log", Status(status, headers), Status(200))
        await bench.queue("a")
        await bench.failed(1)
        assert bench.rows() == [("a", "pending", 1, delay_s)]
        mock_clock.jump(delay_s)
        await bench.settled(1)


async def test_a_gateway_that_does_not_answer_is_left_after_the_time_limit(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with http_peer() as gateway, at_work(tmp_path, gateway.url) as bench:
        gateway.on("/log", Hang(), Status(200))
        await bench.queue("a")
        await gateway.wait_requests(1)
        mock_clock.jump(TIMEOUT_S)
        await bench.failed(1)
        mock_clock.jump(1)
        await bench.settled(1)
        assert keys(gateway) == ["a", "a"]


@pytest.fixture
def forget_certificates() -> Iterator[None]:
    trusted_certificates.cache_clear()
    yield
    trusted_certificates.cache_clear()


@pytest.mark.usefixtures("forget_certificates")
async def test_a_receiver_of_a_private_authority_gets_its_messages_once_that_is_trusted_and_the_log_says_why_not_before(
    tmp_path: Path, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    cert, key = certificate(tmp_path)
    async with http_peer(Status(200), tls=speaking_tls(cert, key)) as gateway:
        with capture_logs() as logs:
            async with at_work(tmp_path, gateway.url) as bench:
                await bench.queue("a")
                await bench.failed(1)
        assert "CERTIFICATE_VERIFY_FAILED" in logs[0]["error"]
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
        trusted_certificates.cache_clear()
        mock_clock.jump(1)
        async with at_work(tmp_path, gateway.url) as bench:
            await bench.settled(1)


async def test_of_a_receiver_that_speaks_no_tls_the_log_says_so(
    tmp_path: Path,
    mock_clock: MockClock,  # noqa: ARG001 - no time passes
) -> None:
    with capture_logs() as logs:
        async with (
            http_peer(Status(200)) as gateway,
            at_work(tmp_path, gateway.url.replace("http:", "https:")) as bench,
        ):
            await bench.queue("a")
            await bench.failed(1)
    assert "SSL" in logs[0]["error"]


NO_HOSTS: Final = pytest.mark.parametrize(
    "host", ["hooks..example.com", "h" * 64 + ".example.com", "hö..example.com", "h" * 64 + "ö.example.com"]
)


@NO_HOSTS
@pytest.mark.parametrize("other", ["gateway", "webhook"])
async def test_a_url_whose_host_can_be_none_fails_by_itself_and_the_other_receiver_gets_its_messages(
    tmp_path: Path, mock_clock: MockClock, host: str, other: str
) -> None:
    with capture_logs() as logs:
        async with http_peer(Status(200)) as peer:
            url, webhook_url = (f"http://{host}", peer.url) if other == "gateway" else (peer.url, f"http://{host}/a/b")
            async with at_work(tmp_path, url, webhook_url=webhook_url) as bench:
                await bench.queue("a", path="/log" if other == "gateway" else WEBHOOK_PATH)
                await bench.queue("b", "c", path=WEBHOOK_PATH if other == "gateway" else "/log")
                await bench.settled(2)
                await bench.failed(1)
                mock_clock.jump(1)
                await bench.failed(2)
                assert [row[:2] for row in bench.rows()] == [("a", "pending"), ("b", "delivered"), ("c", "delivered")]
    assert [(line["event"], line["receiver"], line["key"]) for line in logs] == [("delivery_failed", other, "a")]


async def test_a_gateway_that_comes_up_later_gets_it_all(tmp_path: Path, mock_clock: MockClock) -> None:
    url = closed_url()
    async with at_work(tmp_path, url) as bench:
        await bench.queue("a", "b")
        await bench.failed(1)
        async with http_peer(Status(200), port=int(url.rpartition(":")[2])) as gateway:
            mock_clock.jump(1)
            await bench.settled(2)
            assert keys(gateway) == ["a", "b"]


async def test_what_stops_the_outbox_is_said_once_and_again_after_a_restart(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with http_peer() as gateway:
        gateway.on("/log", Status(503), Status(500), Status(503), Status(503), Status(503), Status(200))
        for begun, attempts, errors in (0, 3, ["status 503", "status 500"]), (3, 5, ["status 503"]):
            with capture_logs() as logs:
                async with at_work(tmp_path, gateway.url) as bench:
                    if not begun:
                        await bench.queue("a")
                    for attempt in range(begun + 1, attempts + 1):
                        await bench.failed(attempt)
                        mock_clock.jump(backoff_s(attempt, 1, 300))
            assert [(line["event"], line["error"]) for line in logs] == [("delivery_failed", error) for error in errors]


@pytest.mark.parametrize("status", [304, 400, 405, 410, 411, 413, 414, 415, 422, 431, 451])
async def test_a_refused_message_is_set_aside_and_the_next_has_its_turn(
    tmp_path: Path,
    mock_clock: MockClock,  # noqa: ARG001 - no time passes
    status: int,
) -> None:
    with capture_logs() as logs:
        async with http_peer() as gateway, at_work(tmp_path, gateway.url) as bench:
            gateway.on("/log", Status(status), Status(200))
            await bench.queue("a", "b")
            await bench.settled(1, refused=1)
            assert keys(gateway) == ["a", "b"]
            assert bench.rows() == [("a", "refused", 0, 0), ("b", "delivered", 0, 0)]
    hint = {"hint": "it redirects, but nowhere"} if status == 304 else {}
    said = {"receiver": "gateway", "key": "a", "error": f"status {status}", **hint}
    assert logs == [{"event": "message_refused", "log_level": "error", **said}]


async def test_a_message_that_is_declined_again_and_again_stops_its_lane_for_some_hours_only(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    with capture_logs() as logs:
        async with http_peer() as gateway, at_work(tmp_path, gateway.url) as bench:
            gateway.on("/log", *[Status(503)] * 2, *[Status(403)] * DECLINED_MAX, Status(200))
            await bench.queue("a", "b")
            for attempt in range(1, DECLINED_MAX + 2):
                await bench.failed(attempt)
                mock_clock.jump(backoff_s(attempt, 1, 300))
            await bench.settled(1, refused=1)
            assert keys(gateway) == ["a"] * (DECLINED_MAX + 2) + ["b"]
            assert 4 < trio.current_time() / 3600 < 9
    assert [(line["event"], line["key"], line["error"]) for line in logs] == [
        ("delivery_failed", "a", "status 503"),
        ("delivery_failed", "a", "status 403"),
        ("message_refused", "a", f"status 403, {DECLINED_MAX} times"),
    ]


async def test_an_outage_does_not_count_against_what_is_declined_after_it(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with http_peer() as gateway, at_work(tmp_path, gateway.url) as bench:
        gateway.on("/log", *[Status(503)] * DECLINED_MAX, Status(404), Status(200))
        await bench.queue("a")
        for attempt in range(1, DECLINED_MAX + 2):
            await bench.failed(attempt)
            mock_clock.jump(backoff_s(attempt, 1, 300))
        await bench.settled(1)


REDIRECTS: Final = pytest.mark.parametrize(
    ("location", "hint"),
    [
        ("https://me:hunter2@new.example:8443/hunter2", "https://new.example:8443"),
        ("/elsewhere?token=hunter2", "http://127.0.0.1:"),
        ("", "nowhere"),
        ("http://new.example:hunter2/", "nowhere"),
        ("mailto:hunter2", "nowhere"),
        ("http://me:hunter2@xn--a/hunter2", "http://xn--a"),
    ],
    ids=["elsewhere", "here", "nowhere", "unreadable", "without a host", "a host that is no name"],
)


@REDIRECTS
@pytest.mark.parametrize("status", [301, 308])
async def test_a_redirect_that_stays_is_not_followed_and_the_log_says_where_it_leads(
    tmp_path: Path,
    mock_clock: MockClock,  # noqa: ARG001 - no time passes
    status: int,
    location: str,
    hint: str,
) -> None:
    with capture_logs() as logs:
        async with http_peer() as gateway, at_work(tmp_path, gateway.url) as bench:
            gateway.on("/log", redirect(status, location), Status(200))
            await bench.queue("a", "b")
            await bench.settled(1, refused=1)
            assert keys(gateway) == ["a", "b"]
    [refused] = logs
    assert refused["event"] == "message_refused"
    assert hint in refused["hint"]
    assert "hunter2" not in str(refused)


@REDIRECTS
@pytest.mark.parametrize("status", [302, 303, 307])
async def test_a_redirect_that_passes_costs_no_message_and_the_log_says_where_it_leads(
    tmp_path: Path, mock_clock: MockClock, status: int, location: str, hint: str
) -> None:
    with capture_logs() as logs:
        async with http_peer() as gateway, at_work(tmp_path, gateway.url) as bench:
            gateway.on("/log", redirect(status, location), Status(200))
            await bench.queue("a", "b")
            await bench.failed(1)
            mock_clock.jump(1)
            await bench.settled(2)
            assert keys(gateway) == ["a", "a", "b"]
    [failed] = logs
    assert failed["event"] == "delivery_failed"
    assert hint in failed["hint"]
    assert "hunter2" not in str(failed)


@pytest.mark.parametrize(
    "reply",
    [Garbage(b"\xff" * 90_000 + b"\r\n\r\n"), Status(302, {"Location": f"http://{'a' * 60_000}/"})],
    ids=["no HTTP", "a redirect"],
)
async def test_however_much_a_receiver_sends_the_log_has_a_line_of_it(
    tmp_path: Path,
    mock_clock: MockClock,  # noqa: ARG001 - no time passes
    reply: Reply,
) -> None:
    with capture_logs() as logs:
        async with http_peer(reply) as gateway, at_work(tmp_path, gateway.url) as bench:
            await bench.queue("a")
            await bench.failed(1)
    assert len(str(logs[0])) < 1_000


def redirect(status: int, location: str) -> Reply:
    return Status(status, {"Location": location} if location else {})


@pytest.mark.parametrize(
    "reply",
    [
        Partial(Bytes(b"x" * 100), 10),
        Partial(Bytes(b"x" * 100), 10, then_hang=True),
        Bytes(b"\x1f\x8b no gzip", headers={"Content-Encoding": "gzip"}),
        Bytes(b"x" * 10_000_000),
    ],
    ids=["cut short", "hangs", "not gzip", "10 MB"],
)
async def test_the_status_counts_and_not_the_body(
    tmp_path: Path,
    mock_clock: MockClock,  # noqa: ARG001 - no time passes
    reply: Reply,
) -> None:
    async with http_peer(reply) as gateway, at_work(tmp_path, gateway.url) as bench:
        await bench.queue("a", "b")
        await bench.settled(2)
        assert keys(gateway) == ["a", "b"]


async def test_what_the_gateway_took_is_noted_although_the_courier_is_stopped(
    tmp_path: Path,
    mock_clock: MockClock,  # noqa: ARG001 - no time passes
) -> None:
    stops: list[Callable[[], None]] = []

    def stop_before_it_is_noted(_name: str, step: str) -> None:
        if step == "settling":
            stops.pop()()

    async with http_peer(Status(200)) as gateway:
        async with at_work(tmp_path, gateway.url, on_step=stop_before_it_is_noted) as bench:
            stops.append(bench.cancel)
            await bench.queue("a")
            await trio.Event().wait()
        assert bench.rows() == [("a", "delivered", 0, 0)]
        async with at_work(tmp_path, gateway.url) as bench:
            await bench.queue("b")
            await bench.settled(2)
        assert keys(gateway) == ["a", "b"]


@dataclass
class SlowThreads:
    """Threads that wait for a turn, as behind others who save, while ``turn`` is not set; or fail."""

    turn: trio.Event
    failures: int = 0

    async def __call__(
        self, call: Callable[[], T], /, *, abandon_on_cancel: bool = False, limiter: trio.CapacityLimiter | None = None
    ) -> T:
        await self.turn.wait()
        if self.failures:
            self.failures -= 1
            raise DiskFailed("input/output error")
        return await in_thread(call, abandon_on_cancel=abandon_on_cancel, limiter=limiter)


async def test_a_store_that_is_busy_for_long_costs_the_receiver_no_second_copy(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    settling = trio.Event()
    threads = SlowThreads(trio.Event())
    threads.turn.set()

    def busy_from_here(_name: str, step: str) -> None:
        if step == "settling" and not settling.is_set():
            threads.turn = trio.Event()
            settling.set()

    async with (
        http_peer(Status(200)) as gateway,
        at_work(tmp_path, gateway.url, on_step=busy_from_here, in_thread=threads) as bench,
    ):
        await bench.queue("a", "b")
        await settling.wait()
        for _ in range(5):
            mock_clock.jump(60)
            await wait_all_tasks_blocked()
        threads.turn.set()
        await bench.settled(2)
        assert keys(gateway) == ["a", "b"]


@pytest.mark.parametrize("status", [200, 503, 410])
async def test_a_store_that_refuses_to_note_an_answer_costs_the_receiver_no_second_copy(
    tmp_path: Path, mock_clock: MockClock, status: int
) -> None:
    threads = SlowThreads(trio.Event())
    threads.turn.set()

    def refuse_from_here(_name: str, step: str) -> None:
        if step == "settling" and not crashed:
            threads.failures = 2
            crashed.append(step)

    crashed: list[str] = []
    with capture_logs() as logs:
        async with (
            http_peer() as gateway,
            at_work(tmp_path, gateway.url, on_step=refuse_from_here, in_thread=threads) as bench,
        ):
            gateway.on("/log", Status(status), Status(200))
            await bench.queue("a")
            await bench.until(lambda: threads.failures == 1)
            await wait_all_tasks_blocked()
            mock_clock.jump(10)
            await bench.until(lambda: threads.failures == 0)
            await wait_all_tasks_blocked()
            mock_clock.jump(10)
            await bench.until(lambda: bench.rows()[0][1:3] != ("pending", 0))
            assert keys(gateway) == ["a"]
    assert [line["event"] for line in logs] == {200: [], 503: ["delivery_failed"], 410: ["message_refused"]}[status]


async def test_a_request_that_is_cut_off_by_the_stop_is_sent_again_with_the_same_key(
    tmp_path: Path,
    mock_clock: MockClock,  # noqa: ARG001 - no time passes
) -> None:
    async with http_peer() as gateway:
        stops: list[Callable[[], None]] = []

        def stop(_request: Request) -> Reply:
            stops.pop()()
            return Hang()

        gateway.on("/log", stop, Status(200))
        async with at_work(tmp_path, gateway.url) as bench:
            stops.append(bench.cancel)
            await bench.queue("a", "b")
            await trio.Event().wait()
        async with at_work(tmp_path, gateway.url) as bench:
            await bench.settled(2)
        assert keys(gateway) == ["a", "a", "b"]


async def test_beyond_the_bound_the_oldest_are_dropped_counted_and_said(tmp_path: Path, mock_clock: MockClock) -> None:
    url = closed_url()
    with capture_logs() as logs:
        async with at_work(tmp_path, url, outbox_max=3) as bench:
            await bench.queue("a")
            await bench.failed(1)
            await bench.queue("b", "c", "d", "e")
            statistics = bench.learned.statistics()
            assert statistics is not None
            assert statistics[Lane.GATEWAY] == LaneStatistics(pending=3, dropped=2)
            async with http_peer(Status(200), port=int(url.rpartition(":")[2])) as gateway:
                mock_clock.jump(1)
                await bench.settled(3)
                assert keys(gateway) == ["c", "d", "e"]
    full = next(line for line in logs if line["event"] == "outbox_full")
    assert (full["log_level"], full["receiver"], full["dropped"]) == ("error", "gateway", 2)
