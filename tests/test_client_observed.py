"""`observed`: the call, the op, the report, on trio and on asyncio, against real servers."""

import asyncio
import gzip
import json
import re
import ssl
import time
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, tzinfo
from functools import cache
from itertools import count
from typing import Any

import anyio
import certifi
import msgspec
import pytest
import trio

from observer_actors import client
from observer_actors.client import Observed, observed, statistics
from observer_actors.client import _wire as wire
from observer_actors.client._daemon import async_client, blocking_client
from observer_actors.client._places import observer_base
from observer_actors.event import EventDecoder
from observer_actors.op import Op
from tests.fakes.event_loops import Runtime, on_asyncio, on_trio
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
    closed_url,
    http_peer,
)


@pytest.fixture
async def observer(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[HttpPeer]:
    async with http_peer() as peer:
        peer.on("POST /event", Json({"accepted": True, "ring_size": 1, "seq": 17}))
        monkeypatch.setenv("OBSERVER_URL", peer.url)
        yield peer


@pytest.fixture
async def gateway(observer: HttpPeer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[HttpPeer]:
    """Each test with a gateway has an observer too: none may reach a daemon of this machine."""
    assert observer.url
    async with http_peer() as peer:
        monkeypatch.setenv("GATEWAY_URL", peer.url)
        yield peer


def as_stored(event: Request) -> Op:
    return EventDecoder().one(event.body, now="").op


async def test_a_call_is_made_timed_reported_and_handed_back(
    runtime: Runtime, gateway: HttpPeer, observer: HttpPeer
) -> None:
    gateway.on("POST /sql", Json({"rows": [1, 2], "row_count": 40}))
    answer: Observed = await runtime(lambda: observed("/sql", {"q": "größer 😀"}, "count the workers"))
    data, op = answer
    assert data == {"rows": [1, 2], "row_count": 40}
    assert (answer.data, answer.op) == (data, op)
    (call,) = gateway.requests
    assert (call.method, call.target, call.json()) == ("POST", "/sql", {"q": "größer 😀"})
    assert call.headers["content-type"] == "application/json"
    (report,) = observer.requests
    assert report.json() == {
        "timestamp": op.timestamp,
        "endpoint": "/sql",
        "input_summary": "count the workers",
        "success": True,
        "duration_ms": op.duration_ms,
        "output_summary": "40 rows",
        "source": "mcp",
        "rescue_attempted": False,
        "rescue_succeeded": False,
        "id": op.id,
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", op.timestamp)
    assert isinstance(op.duration_ms, int)
    assert op.seq == 17
    assert msgspec.structs.replace(as_stored(report), seq=17) == op


FAILED_ANSWERS = [
    (Json({"error": "no such table"}), "no such table"),
    (Json({"error": "no such table"}, 500), "no such table"),
    (Json({"error": {"code": 7}, "rows": [1]}), '{"code":7}'),
    (Json({"error": []}), "[]"),
    (Json({"error": True}), "true"),
    (Json({"error": 3.0}), "3"),
]


@pytest.mark.parametrize(("reply", "error"), FAILED_ANSWERS)
async def test_a_truthy_error_in_the_answer_is_a_failure_and_the_answer_comes_back(
    gateway: HttpPeer, observer: HttpPeer, reply: Bytes, error: str
) -> None:
    gateway.on("/sql", reply)
    data, op = await observed("/sql", {}, "d")
    assert data == json.loads(reply.body)
    assert (op.success, op.error, op.output_summary) == (False, error, f"ERROR: {error}")
    stored = as_stored(observer.requests[0])
    assert (stored.success, stored.error, stored.output_summary) == (False, error, f"ERROR: {error}")


@pytest.mark.parametrize("error", [None, False, 0, ""])
async def test_a_falsy_error_is_a_success(gateway: HttpPeer, error: object) -> None:
    gateway.on("/sql", Json({"error": error, "rows": [1]}))
    _, op = await observed("/sql", {}, "d")
    assert (op.success, op.error, op.output_summary) == (True, msgspec.UNSET, "1 rows")


@pytest.mark.parametrize("data", [None, [], [{"error": "inside"}], "error", 0, False, 2.5])
async def test_an_answer_that_is_no_object_is_a_success(gateway: HttpPeer, data: object) -> None:
    gateway.on("/sql", Json(data))
    answer = await observed("/sql", {}, "d")
    assert (answer.data, answer.op.success) == (data, True)
    assert answer.op.output_summary == json.dumps(data, separators=(",", ":"))


async def test_json_without_error_is_a_success_whatever_the_status_which_is_kept(
    gateway: HttpPeer, observer: HttpPeer
) -> None:
    gateway.on("/sql", Json({"detail": "oops"}, 500))
    data, op = await observed("/sql", {}, "d")
    assert (data, op.success, op.attrs) == ({"detail": "oops"}, True, {"http_status": 500})
    assert as_stored(observer.requests[0]).attrs == {"http_status": 500}


NO_ANSWERS: list[tuple[Reply, str]] = [
    (Bytes(b"<html>Bad Gateway</html>", 502), "HTTP 502, and the answer is no JSON: <html>Bad Gateway</html>"),
    (Bytes(b""), "HTTP 200, and the answer is no JSON: "),
    (Bytes(b'{"a": NaN}'), 'HTTP 200, and the answer is no JSON: {"a": NaN}'),
    (Bytes(b"\xff\xfe\x00"), "HTTP 200, and the answer is no JSON: \ufffd\ufffd\x00"),
    (Bytes(b"x" * 1000), "HTTP 200, and the answer is no JSON: " + "x" * 199 + "…"),
    (Bytes(b"[" * 200_000), "HTTP 200, and the answer is nested too deeply: " + "[" * 199 + "…"),
    (Close(), "{url}/sql: Server disconnected without sending a response."),
    (Partial(Json({"rows": [1]}), 3), "{url}/sql: peer closed connection without sending complete message body"),
    (Garbage(), "{url}/sql: illegal status line"),
    (Bytes(b"no gzip at all", headers={"Content-Encoding": "gzip"}), "{url}/sql: Error -3 while decompressing data"),
]


@pytest.mark.parametrize(("reply", "message"), NO_ANSWERS)
async def test_no_usable_answer_is_a_failed_call(
    gateway: HttpPeer, observer: HttpPeer, runtime: Runtime, reply: Reply, message: str
) -> None:
    gateway.on("/sql", reply)
    data, op = await runtime(lambda: observed("/sql", {}, "d"))
    assert isinstance(op.error, str)
    assert op.error.startswith(message.replace("{url}", gateway.url))
    assert (data, op.success, op.output_summary) == ({"error": op.error}, False, f"ERROR: {op.error}")
    assert len(gateway.requests) == 1, "a call is not repeated: it may have been carried out"
    assert as_stored(observer.requests[0]).error == op.error


@pytest.mark.parametrize("reply", [Hang(), Partial(Json({"rows": [1]}), 3, then_hang=True)])
async def test_the_time_limit_holds_for_the_whole_answer(gateway: HttpPeer, runtime: Runtime, reply: Reply) -> None:
    gateway.on("/sql", reply)
    data, op = await runtime(lambda: observed("/sql", {}, "d", timeout_seconds=0.05))
    assert data == {"error": f"{gateway.url}/sql: no answer within 0.05 s"}
    assert op.success is False
    assert op.duration_ms >= 50
    assert op.seq == 17


@pytest.mark.parametrize(
    "base",
    [
        "nowhere",
        "ftp://localhost",
        "http://localhost:port",
        "http://localhost:65536",
        "http://" + "a" * 70,
        "http://[::1",
        "http://user:secret@127.0.0.1:1",
        "http://user:secret/secret@127.0.0.1:1",
        "http://user:22/secret@127.0.0.1:1",
        "http://\ud800/",
    ],
)
async def test_a_gateway_that_cannot_be_addressed_is_a_failed_call(
    observer: HttpPeer, runtime: Runtime, base: str
) -> None:
    _, op = await runtime(lambda: observed("/sql", {}, "d", gateway_url=base))
    assert op.success is False
    assert "secret" not in str(op.error)
    assert as_stored(observer.requests[0]).error == op.error


async def test_nobody_at_the_gateway_is_a_failed_call(observer: HttpPeer, runtime: Runtime) -> None:
    base = closed_url()
    data, op = await runtime(lambda: observed("/sql", {}, "d", gateway_url=base))
    assert data == {"error": f"{base}/sql: cannot connect"}
    assert as_stored(observer.requests[0]).success is False
    assert op.success is False


def circle() -> list[object]:
    ring: list[object] = []
    ring.append(ring)
    return ring


@pytest.mark.parametrize("body", [object(), "\ud800", circle()])
async def test_a_body_that_is_no_json_is_a_failed_call(gateway: HttpPeer, observer: HttpPeer, body: object) -> None:
    data, op = await observed("/sql", body, "d")
    assert data["error"].startswith("the body is no JSON: ")
    assert op.success is False
    assert (len(gateway.requests), len(observer.requests)) == (0, 1)


class Unreadable:
    def __str__(self) -> str:
        raise RuntimeError("no")


class NoZone(tzinfo):
    def utcoffset(self, _when: datetime | None) -> timedelta:
        raise RuntimeError("no")

    dst = utcoffset

    def tzname(self, _when: datetime | None) -> str:
        return "none"


@pytest.mark.parametrize("given", [7, None, b"/sql", ["a"], Unreadable()])
@pytest.mark.parametrize("name", ["endpoint", "description", "gateway_url", "observer_url"])
async def test_what_is_no_text_is_taken_as_one(gateway: HttpPeer, observer: HttpPeer, name: str, given: Any) -> None:
    gateway.on("/sql", Json({}))
    op = (await observed(**{"endpoint": "/sql", "body": {}, "description": "d", name: given})).op
    assert (type(op.endpoint), type(op.input_summary)) == (str, str)
    if name in ("endpoint", "description"):
        assert as_stored(observer.requests[0]).endpoint == op.endpoint


async def test_a_body_that_raises_what_it_likes_is_a_failed_call(gateway: HttpPeer) -> None:
    op = (await observed("/sql", datetime(2026, 1, 1, tzinfo=NoZone()), "d")).op
    assert (op.error, gateway.requests) == ("the body is no JSON: no", [])


async def test_redirects_are_followed_as_fetch_does(gateway: HttpPeer) -> None:
    gateway.on("/old", Bytes(status=307, headers={"Location": "/new"}))
    gateway.on("POST /new", lambda request: Json({"answer": request.json()["q"]}))
    assert (await observed("/old", {"q": "hi"}, "d")).op.output_summary == "answer: hi..."
    gateway.on("/loop", Bytes(status=307, headers={"Location": "/loop"}))
    assert (await observed("/loop", {}, "d")).op.success is False


async def test_compressed_and_marked_answers_are_read(gateway: HttpPeer) -> None:
    body = gzip.compress(b'\xef\xbb\xbf{"answer":"\xe2\x82\xac"}')
    gateway.on("/sql", Bytes(body, headers={"Content-Encoding": "gzip"}))
    assert (await observed("/sql", {}, "d")).data == {"answer": "€"}


async def test_an_answer_with_lone_surrogates_comes_back_and_its_op_can_be_stored(
    gateway: HttpPeer, observer: HttpPeer
) -> None:
    gateway.on("/sql", Bytes(rb'{"answer":"\ud83d\ude00\ud83d"}'))
    data, op = await observed("/sql", {}, "d \ud800")
    assert data == {"answer": "😀\ud83d"}
    stored = as_stored(observer.requests[0])
    assert stored.output_summary == op.output_summary == "answer: 😀\ufffd..."
    assert stored.input_summary == "d \ufffd"


async def test_long_texts_are_cut_so_that_the_op_is_never_too_large(gateway: HttpPeer, observer: HttpPeer) -> None:
    gateway.on("/sql", Json({"error": "\x01" * 300_000}))
    _, op = await observed("/sql", {}, "\x02" * 300_000)
    assert len(str(op.error)) == len(op.input_summary) == len(op.output_summary) == 10_000
    assert as_stored(observer.requests[0]).error == op.error


async def test_a_large_answer_comes_back_whole_and_one_beyond_the_bound_is_a_failed_call(
    gateway: HttpPeer, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.on("/sql", Json({"rows": ["x" * 1000] * 3000}))
    data, op = await runtime(lambda: observed("/sql", {}, "d"))
    assert (len(data["rows"]), op.output_summary) == (3000, "3000 rows")
    monkeypatch.setattr(wire, "ANSWER_BYTES_MAX", 100_000)
    bomb = Bytes(gzip.compress(b" " * 1_000_000), headers={"Content-Encoding": "gzip"})
    gateway.on("/sql", Json("x" * 1_000_000), bomb)
    for _ in range(2):
        data, op = await runtime(lambda: observed("/sql", {}, "d"))
        assert data == {"error": f"{gateway.url}/sql: an answer of more than 100,000 bytes"}
        assert op.success is False


async def lose(observer: HttpPeer, reply: Reply) -> client.ClientStatistics:
    """Make a call whose report meets this reply, and give what was counted meanwhile."""
    observer.on("/event", reply)
    before = statistics()
    data, op = await observed("/sql", {}, "d", report_seconds=0.05 if isinstance(reply, Hang) else 10)
    assert (data, op.success, op.seq) == ({"rows": []}, True, 0)
    after = statistics()
    counts = (getattr(after, name) - getattr(before, name) for name in after.__struct_fields__[:-1])
    return client.ClientStatistics(**dict(zip(after.__struct_fields__, counts, strict=False)))


@pytest.mark.parametrize("reply", [Hang(), Close(), Garbage(), Json({"ok": 1}), Json([]), Json({}, 500)])
async def test_an_observer_that_does_not_answer_costs_the_report_and_nothing_else(
    gateway: HttpPeer, observer: HttpPeer, reply: Reply
) -> None:
    gateway.on("/sql", Json({"rows": []}))
    counted = await lose(observer, reply)
    assert counted == client.ClientStatistics(calls=1, reports_unanswered=1)
    assert statistics().last_trouble.startswith(observer.url)


@pytest.mark.parametrize("status", [400, 413, 503, 507, 404])
async def test_an_observer_that_refuses_costs_the_report_and_nothing_else(
    gateway: HttpPeer, observer: HttpPeer, status: int
) -> None:
    gateway.on("/sql", Json({"rows": []}))
    counted = await lose(observer, Json({"error": "no"}, status))
    assert counted == client.ClientStatistics(calls=1, reports_refused=1)
    assert statistics().last_trouble == "no"


async def test_calls_and_their_failures_are_counted(gateway: HttpPeer) -> None:
    gateway.on("/sql", Json({"error": "no"}), Json({}))
    before = statistics()
    for _ in range(3):
        await observed("/sql", {}, "d")
    after = statistics()
    assert (after.calls - before.calls, after.calls_failed - before.calls_failed) == (3, 1)
    assert after.reports_accepted - before.reports_accepted == 3


async def test_cancelling_on_trio_ends_the_call_at_once_and_reports_nothing(
    gateway: HttpPeer, observer: HttpPeer
) -> None:
    gateway.on("/sql", Hang())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(observed, "/sql", {}, "d")
        await gateway.wait_requests(1)
        nursery.cancel_scope.cancel()
    assert observer.requests == []


@pytest.mark.parametrize("hanging", ["gateway", "observer"])
async def test_cancelling_on_asyncio_propagates(gateway: HttpPeer, observer: HttpPeer, hanging: str) -> None:
    gateway.on("/sql", Hang() if hanging == "gateway" else Json({}))
    observer.on("/event", Hang())
    arrived = gateway if hanging == "gateway" else observer
    token = trio.lowlevel.current_trio_token()

    def wait_for_the_request() -> None:
        trio.from_thread.run(arrived.wait_requests, 1, trio_token=token)

    async def main() -> bool:
        task = asyncio.create_task(observed("/sql", {}, "d", report_seconds=60))
        await asyncio.to_thread(wait_for_the_request)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    assert await on_asyncio(main)


async def test_many_calls_at_once_each_get_their_own_answer(
    gateway: HttpPeer, observer: HttpPeer, runtime: Runtime
) -> None:
    gateway.on("/echo", lambda request: Json({"answer": request.json()}))

    async def on_asyncio_loop() -> list[Observed]:
        return await asyncio.gather(*(observed("/echo", f"{n}", "d") for n in range(50)))

    async def on_trio_loop() -> list[Observed]:
        answers: list[Observed] = []

        async def one(n: int) -> None:
            answers.append(await observed("/echo", f"{n}", "d"))

        async with trio.open_nursery() as nursery:
            for n in range(50):
                nursery.start_soon(one, n)
        return answers

    answers = await runtime(on_trio_loop if runtime is on_trio else on_asyncio_loop)
    assert {answer.data["answer"] for answer in answers} == {str(n) for n in range(50)}
    assert {json.loads(request.body)["id"] for request in observer.requests} == {answer.op.id for answer in answers}


async def test_base_and_endpoint_are_joined_by_one_slash(gateway: HttpPeer) -> None:
    gateway.on("/v1/sql", Json({"rows": []}))
    for base, endpoint in (("/v1", "sql"), ("/v1/", "/sql"), ("/v1/", "sql"), ("/v1", "/sql")):
        _, op = await observed(endpoint, {}, "d", gateway_url=gateway.url + base)
        assert (op.success, op.endpoint) == (True, endpoint)
    assert [request.path for request in gateway.requests] == ["/v1/sql"] * 4


async def test_places_come_from_arguments_then_the_environment(
    gateway: HttpPeer, observer: HttpPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_URL", closed_url())
    monkeypatch.setenv("OBSERVER_URL", "")
    monkeypatch.setenv("OBSERVER_PORT", str(observer.port))
    assert (await observed("/sql", {}, "d")).op.seq == 17
    gateway.on("/sql", Json({}))
    assert (await observed("/sql", {}, "d", gateway_url=gateway.url)).op.success is True


def test_what_kubernetes_sets_for_a_service_of_our_name_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OBSERVER_URL", raising=False)
    found = []
    for port in ("", "3801", "tcp://10.0.0.1:3800", "wrong"):
        monkeypatch.setenv("OBSERVER_PORT", port)
        found.append(observer_base(None))
    assert found == [f"http://127.0.0.1:{port}" for port in ("3800", "3801", "3800", "wrong")]


async def test_no_proxy_of_the_environment_stands_before_loopback(
    gateway: HttpPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.on("/sql", Json({}))
    monkeypatch.setenv("HTTP_PROXY", closed_url())
    monkeypatch.setenv("ALL_PROXY", closed_url())
    _, op = await observed("/sql", {}, "d")
    assert (op.success, op.seq) == (True, 17)


@pytest.mark.parametrize("proxy", ["nothing://here", "socks5://127.0.0.1:1", "http://127.0.0.1:65536", "http://["])
async def test_a_proxy_that_cannot_be_used_is_a_failed_call(
    observer: HttpPeer, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    _, op = await runtime(lambda: observed("/sql", {}, "d", gateway_url="http://gateway.invalid"))
    assert op.success is False
    assert as_stored(observer.requests[0]).error == op.error


async def test_a_password_in_an_address_is_not_told(gateway: HttpPeer, observer: HttpPeer) -> None:
    gateway.on("/sql", Json({}))
    observer.on("/event", Bytes(status=401))
    await observed("/sql", {}, "d", observer_url=observer.url.replace("//", "//user:secret@"))
    assert statistics().last_trouble == f"{observer.url.replace('//', '//•••@')}/event answered 401"


def test_what_the_machine_trusts_is_trusted_unless_a_variable_says_what(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[ssl.SSLContext] = []
    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", lambda context: loaded.extend([context]))
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    assert wire.certificates() in loaded
    monkeypatch.setenv("SSL_CERT_FILE", certifi.where())
    assert wire.certificates() not in loaded


async def test_calls_at_the_same_time_load_the_certificates_once(
    runtime: Runtime, gateway: HttpPeer, observer: HttpPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.on("/sql", Json({}))
    loads = count()

    def load() -> ssl.SSLContext:
        next(loads)
        time.sleep(0.2)
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    async def several() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(observed, "/sql", {}, "d")

    monkeypatch.setattr(wire, "_loaded", cache(load))
    await runtime(several)
    assert (next(loads), len(observer.requests)) == (1, 10)


async def test_for_a_daemon_to_whom_no_tls_is_spoken_no_certificates_are_loaded(
    runtime: Runtime, observer: HttpPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_given: object, **_named: object) -> ssl.SSLContext:
        raise AssertionError("these are for TLS")

    monkeypatch.setattr(wire, "_loaded", cache(load))
    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", load)
    receipt = await runtime(lambda: client.record_external_op({"endpoint": "a"}))
    assert receipt.seq == 17
    for address in (observer.url, "unix:///run/x.sock"):
        blocking_client(address, 1).close()
        await async_client(address, 1).aclose()


async def test_certificates_that_cannot_be_loaded_are_a_failed_call(
    gateway: HttpPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gateway.url
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere.pem")
    wire._loaded.cache_clear()  # noqa: SLF001 - a process loads them once
    data, op = await observed("/sql", {}, "d")
    assert data == {"error": "no certificates: [Errno 2] No such file or directory"}
    assert op.success is False
