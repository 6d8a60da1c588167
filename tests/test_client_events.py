"""`record_external_op`: for callers who want to know; and what the client logs for those who do not."""

import logging
import math
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
import trio

from observer_actors.addresses import TokenInvalid
from observer_actors.client import (
    ClientStatistics,
    Receipt,
    Unreachable,
    Verdict,
    observed,
    record_external_op,
    report_verdict,
    statistics,
)
from observer_actors.client._daemon import async_client
from observer_actors.client._ledger import WARNING_SECONDS, Ledger
from observer_actors.client._plain import exchange
from observer_actors.errors import (
    ConfigInvalid,
    DiskFailed,
    DiskFull,
    EventInvalid,
    EventTooComplex,
    ObserverError,
    Overloaded,
    Quarantined,
    RequestInvalid,
    RequestTooLarge,
)
from observer_actors.event import EventDecoder
from observer_actors.problems import RETRY_AFTER_S_MAX
from tests.fakes.event_loops import Runtime
from tests.fakes.http_peer import (
    Bytes,
    Close,
    Garbage,
    Hang,
    HttpPeer,
    Json,
    Partial,
    Reply,
    closed_url,
    http_peer,
)

ACCEPTED = {"accepted": True, "ring_size": 3, "seq": 9}


@pytest.fixture
async def observer() -> AsyncIterator[HttpPeer]:
    async with http_peer() as peer:
        peer.on("/event", Json(ACCEPTED))
        yield peer


async def test_an_event_is_posted_and_the_daemons_answer_comes_back(runtime: Runtime, observer: HttpPeer) -> None:
    observer.on("/event", Json({**ACCEPTED, "duplicate": True, "notes": ["source: …"], "later": 1}))
    event = {"source": "bot", "ok": True, "id": "mine", "city": "Köln"}
    receipt = await runtime(lambda: record_external_op(event, observer_url=observer.url))
    assert receipt == Receipt(accepted=True, ring_size=3, seq=9, duplicate=True, notes=("source: …",))
    (request,) = observer.requests
    assert (request.method, request.target, request.json()) == ("POST", "/event", event)


async def test_the_seeds_answer_is_enough(observer: HttpPeer) -> None:
    observer.on("/event", Json({"accepted": True, "ring_size": 3}))
    receipt = await record_external_op({}, observer_url=observer.url)
    assert receipt == Receipt(accepted=True, ring_size=3)


async def test_an_event_without_an_id_gets_one_and_the_callers_mapping_stays_as_it_is(
    observer: HttpPeer,
) -> None:
    event: Mapping[str, object] = {"ok": True, "id": None}
    await record_external_op(event, observer_url=observer.url)
    await record_external_op(event, observer_url=observer.url)
    first, second = (request.json()["id"] for request in observer.requests)
    assert len(first) == len(second) == 32
    assert first != second
    assert event == {"ok": True, "id": None}


async def test_an_op_is_posted_without_what_the_witness_assigns(observer: HttpPeer) -> None:
    body = b'{"ok":false,"error":"e","source":"auditor","id":"i","count":2,"tool":"x"}'
    op = EventDecoder().one(body, now="2026-11-22T10:00:00.000Z").op
    await record_external_op(
        msgspec.structs.replace(op, seq=4, recorded_at="2026-11-22T10:00:00.000001Z"),
        observer_url=observer.url,
    )
    judged = EventDecoder().one(observer.requests[0].body, now="")
    assert (judged.op, judged.notes) == (op, ())


@pytest.mark.parametrize("broken", [Close(), Garbage(), Partial(Json(ACCEPTED), 4)])
async def test_a_broken_connection_is_tried_once_more_with_the_same_id(
    runtime: Runtime, observer: HttpPeer, broken: Reply
) -> None:
    observer.on("/event", broken, Json(ACCEPTED))
    receipt = await runtime(lambda: record_external_op({"ok": True}, observer_url=observer.url))
    assert receipt.seq == 9
    first, second = observer.requests
    assert first.body == second.body


async def test_no_proxy_of_the_environment_is_handed_the_token(
    observer: HttpPeer, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", observer.url)
    monkeypatch.setenv("ALL_PROXY", observer.url)
    monkeypatch.setenv("OBSERVER_TOKEN", "tok_secret")
    with pytest.raises(Unreachable):
        await runtime(lambda: record_external_op({"endpoint": "a"}, observer_url="http://witness.invalid"))
    assert observer.requests == []


async def test_a_connection_that_breaks_again_is_an_error(observer: HttpPeer) -> None:
    observer.on("/event", Close())
    with pytest.raises(Unreachable, match="Server disconnected"):
        await record_external_op({"ok": True}, observer_url=observer.url)
    assert len(observer.requests) == 2


async def test_no_answer_in_time_is_unreachable(runtime: Runtime, observer: HttpPeer) -> None:
    observer.on("/event", Hang())
    with pytest.raises(Unreachable, match=r"/event: no answer within 0\.05 s"):
        await runtime(lambda: record_external_op({}, observer_url=observer.url, timeout_seconds=0.05))


async def test_of_an_address_that_speaks_no_tls_it_is_said_so(runtime: Runtime, observer: HttpPeer) -> None:
    url = observer.url.replace("http:", "https:")
    with pytest.raises(Unreachable, match=r"\[SSL: "):
        await runtime(lambda: record_external_op({}, observer_url=url))


async def test_nobody_there_is_unreachable_and_worth_a_retry(runtime: Runtime) -> None:
    with pytest.raises(Unreachable) as caught:
        await runtime(lambda: record_external_op({}, observer_url=closed_url()))
    assert caught.value.retryable


@pytest.mark.parametrize(
    "reply", [Bytes(b"hello"), Bytes(), Json(["accepted"]), Json({"accepted": "yes"}), Json({"accepted": False})]
)
async def test_something_else_at_the_address_is_not_an_acknowledgement(observer: HttpPeer, reply: Reply) -> None:
    observer.on("/event", reply)
    with pytest.raises(Unreachable):
        await record_external_op({}, observer_url=observer.url)


def problem(error: ObserverError, field: str = "") -> dict[str, object]:
    """What the daemon answers."""
    return {
        "type": "about:blank",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "error": error.detail,
        "field": field,
        "hint": error.hint,
        "retryable": error.retryable,
        "limit": error.limit,
    }


@pytest.mark.parametrize(
    "error",
    [
        EventInvalid("expected `str`, got `int`", field="city", hint="send text"),
        EventInvalid("not JSON", hint="send one object"),
        EventTooComplex("more than 16 levels", field="a", hint="send less", limit="listen.depth_max"),
        RequestInvalid("the gzip body ends too early"),
        RequestTooLarge("more than 5 bytes", hint="send less", limit="listen.body_bytes_max"),
        Overloaded("no room", retry_after_s=7, limit="admission.ops_max"),
        DiskFailed("EIO while writing", hint="look at the disk"),
        DiskFull("ENOSPC while writing"),
        Quarantined("set aside"),
    ],
    ids=lambda error: error.title,
)
async def test_a_refusal_is_raised_as_the_error_that_the_daemon_had(observer: HttpPeer, error: ObserverError) -> None:
    field = error.field if isinstance(error, EventInvalid) else ""
    retry_after = {"Retry-After": str(error.retry_after_s)} if isinstance(error, Overloaded) else {}
    observer.on("/event", Json(problem(error, field), error.status, retry_after))
    with pytest.raises(type(error)) as caught:
        await record_external_op({}, observer_url=observer.url)
    assert type(caught.value) is type(error)
    assert vars(caught.value) == vars(error)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, b'{"error":"JSON Parse error"}', EventInvalid("JSON Parse error")),
        (401, b"", RequestInvalid("{url}/event answered 401")),
        (404, b"not found", RequestInvalid("{url}/event answered 404")),
        (307, b"", RequestInvalid("{url}/event answered 307")),
        (500, b"<html>", Unreachable("{url}/event answered 500")),
        (502, b'["x"]', Unreachable("{url}/event answered 502")),
        (503, b'{"error":7}', Overloaded("{url}/event answered 503")),
    ],
)
async def test_other_servers_refusals_go_by_their_status(
    observer: HttpPeer, status: int, body: bytes, expected: ObserverError
) -> None:
    observer.on("/event", Bytes(body, status, {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}))
    with pytest.raises(ObserverError) as caught:
        await record_external_op({}, observer_url=observer.url)
    assert type(caught.value) is type(expected)
    assert str(caught.value) == str(expected).replace("{url}", observer.url)


@pytest.mark.parametrize("given", [math.nan, "1", None])
async def test_a_time_limit_that_is_no_number_is_refused_before_anything_is_done(
    observer: HttpPeer, tmp_path: Path, given: Any
) -> None:
    verdict = Verdict(signature="s", overall="approve", one_liner="fine")
    before = statistics()
    for call in (
        record_external_op({}, observer_url=observer.url, timeout_seconds=given),
        observed("/sql", {}, "", gateway_url=observer.url, timeout_seconds=given),
        observed("/sql", {}, "", gateway_url=observer.url, report_seconds=given),
        report_verdict(verdict, data_dir=tmp_path, timeout_seconds=given),
    ):
        with pytest.raises(ConfigInvalid, match="_seconds: wants a number, got "):
            await call
    assert (observer.requests, statistics()) == ([], before)
    assert not await trio.Path(tmp_path, "_auditor").exists()


@pytest.mark.parametrize("given", [math.inf, 10**400])
async def test_a_time_limit_beyond_all_bounds_is_the_nearest_one(
    runtime: Runtime, observer: HttpPeer, tmp_path: Path, given: Any
) -> None:
    observer.on("/sql", Json({"rows": []}))
    verdict = Verdict(signature="s", overall="approve", one_liner="fine")

    async def host() -> None:
        await record_external_op({}, observer_url=observer.url, timeout_seconds=given)
        places: Any = {"gateway_url": observer.url, "observer_url": observer.url}
        _, op = await observed("/sql", {}, "", timeout_seconds=given, report_seconds=given, **places)
        assert op.success
        told = await report_verdict(verdict, data_dir=tmp_path, observer_url=observer.url, timeout_seconds=given)
        assert told.receipt is not None

    await runtime(host)


async def test_retry_after_is_bounded(observer: HttpPeer) -> None:
    observer.on("/event", Json({}, 503, {"Retry-After": "9" * 5_000}))
    with pytest.raises(Overloaded) as caught:
        await record_external_op({}, observer_url=observer.url)
    assert caught.value.retry_after_s == RETRY_AFTER_S_MAX


class Unreadable(Mapping[str, object]):
    """A mapping of the host's whose keys cannot be read."""

    def __getitem__(self, key: str) -> object:
        raise LookupError(key)

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("no")

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize("value", [object(), "\ud800", {1: {2, object()}}])
async def test_an_event_that_is_no_json_never_leaves(observer: HttpPeer, value: object) -> None:
    with pytest.raises(EventInvalid, match="not JSON"):
        await record_external_op({"city": value}, observer_url=observer.url)
    assert observer.requests == []


@pytest.mark.parametrize("event", [7, None, "text", ["a"], Unreadable()])
async def test_what_is_no_event_at_all_is_refused_in_words(observer: HttpPeer, event: Any) -> None:
    with pytest.raises(EventInvalid, match="not JSON"):
        await record_external_op(event, observer_url=observer.url)
    assert observer.requests == []


@pytest.mark.parametrize("token", ["ü", "s3cret with a blank", "s3cret\nx", "\udcff"])
async def test_a_token_that_is_none_is_refused_and_not_told(
    observer: HttpPeer, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OBSERVER_TOKEN", token)
    with pytest.raises(TokenInvalid, match="OBSERVER_TOKEN holds what no token has"):
        await record_external_op({"endpoint": "a"}, observer_url=observer.url)
    assert observer.requests == []


@pytest.mark.parametrize(
    ("token", "said"), [("a-token", "Bearer a-token"), ("", f"Basic {b64encode(b'me:s@cret').decode()}")]
)
async def test_a_user_in_the_address_is_told_to_whoever_stands_there_and_does_not_take_the_tokens_place(
    observer: HttpPeer, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, token: str, said: str
) -> None:
    monkeypatch.setenv("OBSERVER_TOKEN", token)
    address = observer.url.replace("http://", "http://me:s%40cret@")
    await runtime(lambda: record_external_op({"endpoint": "a"}, observer_url=address))
    async with async_client(address, 5) as client:
        await client.post("/event", json={"endpoint": "a"})
    await trio.to_thread.run_sync(partial(exchange, address, "POST", "/event", seconds=5, content=b"{}"))
    assert [request.headers["authorization"] for request in observer.received("/event")] == [said] * 3


async def test_a_daemon_behind_a_socket_is_told_by_its_socket(runtime: Runtime) -> None:
    with pytest.raises(Unreachable, match=r"^unix:///nowhere: "):
        await runtime(lambda: record_external_op({"endpoint": "a"}, observer_url="unix:///nowhere"))


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_lost_reports_are_logged_once_in_a_while_with_the_number_of_those_that_were_not() -> None:
    clock = Clock()
    ledger = Ledger(clock=clock)
    with structlog.testing.capture_logs() as lines:
        for _ in range(5):
            ledger.warn_now_and_then(Unreachable("gone", hint="start it"))
        clock.now += WARNING_SECONDS
        ledger.warn_now_and_then(Overloaded("busy"))
    common = {"event": "report_lost", "actor": "client", "log_level": "warning"}
    assert lines == [
        {**common, "lost": 1, "error": "gone", "hint": "start it"},
        {**common, "lost": 5, "error": "busy", "hint": "send it again after 1 s; an event, with the same id"},
    ]


def test_a_host_without_structlog_gets_the_warning_by_standard_logging_and_nothing_on_standard_output(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    Ledger().warn_now_and_then(Unreachable("gone"))
    message = "event='report_lost' actor='client' lost=1 error='gone' hint=''"
    assert caplog.record_tuples == [("observer_actors.client", logging.WARNING, message)]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("kind", [structlog.stdlib.AsyncBoundLogger, partial(structlog.stdlib.BoundLogger)])
def test_a_host_whose_structlog_is_to_be_awaited_or_made_by_a_function_gets_the_warning_too(kind: Any) -> None:
    lines: list[Any] = []

    def kept(_logger: object, _method: str, line: Any) -> Any:
        lines.append(line)
        raise structlog.DropEvent

    structlog.configure(processors=[kept], wrapper_class=kind)
    try:
        Ledger().warn_now_and_then(Unreachable("gone"))
    finally:
        structlog.reset_defaults()
    assert lines == [{"event": "report_lost", "actor": "client", "lost": 1, "error": "gone", "hint": ""}]


def test_the_ledger_counts_by_kind() -> None:
    ledger = Ledger()
    ledger.call_ended(success=True)
    ledger.call_ended(success=False)
    ledger.report_accepted()
    ledger.report_lost(Unreachable("gone"))
    ledger.report_lost(Overloaded("busy"))
    ledger.row_lost(DiskFull("no room"))
    assert ledger.statistics() == ClientStatistics(
        calls=2,
        calls_failed=1,
        reports_accepted=1,
        reports_refused=1,
        reports_unanswered=1,
        rows_lost=1,
        last_trouble="no room",
    )
