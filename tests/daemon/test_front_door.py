"""Both ways in are one: the same requests, through our own loop and through Hypercorn, have the same answers."""

from __future__ import annotations

import gc
import gzip
import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final, Literal

import h11
import httpx
import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from observer_actors.actors.admission import LOOK_S
from observer_actors.http.express import FEW, Group
from observer_actors.http.wire import Head, read_head
from observer_actors.settings import ListenSettings, Settings
from tests.daemon.inside import daemon_inside
from tests.daemon.load import Answer
from tests.daemon.served import Served, served
from tests.daemon.test_listeners import has_ipv6
from tests.harness import journal_ops, running_daemon
from tests.processes import children

Way = Literal["front", "web"]
WAYS: Final[tuple[Way, Way]] = ("front", "web")
START: Final = b"POST /event HTTP/1.1\r\nHost: localhost\r\n"
PLAIN_LINE: Final = re.compile(rb"(POST /events?|GET /advice\?\S*) HTTP/1\.[01]\r\n")
CONFIG: Final = "[listen]\nbody_bytes_max = 20000\nrequest_seconds_max = 1.0\nbatch_events_max = 100\n"

BEHIND: Final = "observer_consumer_behind_ops"
NOT_COMPARED: Final = {"observer_journal_bytes_written", "observer_pattern_changes"}


def not_plain(data: bytes) -> bytes:
    """Give each request a header that says nothing, and that the front door leaves to Hypercorn."""
    return PLAIN_LINE.sub(rb"\g<0>TE: trailers\r\n", data)


class Client:
    """One connection, spoken to in raw bytes; answers are read by h11, which is strict."""

    def __init__(self, stream: trio.SocketStream | trio.SSLStream[trio.SocketStream], way: Way) -> None:
        self._stream = stream
        self._way = way
        self._reader = h11.Connection(h11.CLIENT)

    def form(self, data: bytes) -> bytes:
        """Give what is sent of it, for who sends it in pieces: those are sent as they are."""
        return data if self._way == "front" else not_plain(data)

    async def send(self, data: bytes) -> None:
        await self._stream.send_all(self.form(data))

    async def end(self) -> None:
        assert isinstance(self._stream, trio.SocketStream)
        await self._stream.send_eof()

    async def answer(self) -> Answer:
        """Read one answer; a later one on the same connection needs a reader of its own."""
        rest = self._reader.trailing_data[0]
        self._reader = h11.Connection(h11.CLIENT)
        self._reader.send(h11.Request(method="POST", target="/", headers=[("host", "x")]))
        self._reader.send(h11.EndOfMessage())
        self._reader.receive_data(rest) if rest else None
        head: h11.Response | None = None
        body = b""
        with trio.fail_after(10):
            while True:
                event = self._reader.next_event()
                if event is h11.NEED_DATA:
                    self._reader.receive_data(bytes(await self._stream.receive_some()))
                elif isinstance(event, h11.Response):
                    head = event
                elif isinstance(event, h11.Data):
                    body += bytes(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    break
        assert head is not None
        headers = {name.decode(): value.decode() for name, value in head.headers}
        return Answer(head.status_code, headers, body)

    async def ended(self) -> bool:
        with trio.fail_after(10):
            return await self._stream.receive_some() == b""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One daemon for the tables of requests: to start one and to stop it takes longer than to ask it."""
    with served(tmp_path_factory.mktemp("shared"), CONFIG) as running:
        yield running


@asynccontextmanager
async def every_kind_of_socket(folder: Path) -> AsyncIterator[dict[str, str]]:
    """Run a daemon on IPv4 and a Unix socket, and one on IPv6; give the address of each kind."""
    unix = folder / "socket"
    (folder / "observer.toml").write_text(CONFIG)
    config = ("--config", str(folder / "observer.toml"))
    async with (
        running_daemon(folder / "4", *config, "--set", f"listen.unix={unix}") as over_ipv4,
        running_daemon(folder / "6", *config, "--host", "::1") as over_ipv6,
    ):
        yield {"IPv4": over_ipv4.url, "Unix": f"unix://{unix}", "IPv6": over_ipv6.url}


@asynccontextmanager
async def connected_to(address: str, way: Way) -> AsyncIterator[Client]:
    """Connect; what is sent goes to Hypercorn if that is the way, whatever it is."""
    if address.startswith("unix://"):
        stream = await trio.open_unix_socket(address.removeprefix("unix://"))
    else:
        url = httpx.URL(address)
        stream = await trio.open_tcp_stream(url.host, url.port or 0)
    async with stream:
        yield Client(stream, way)


def get(target: str, *more: str) -> bytes:
    return "\r\n".join([f"GET {target} HTTP/1.1", "Host: localhost", *more]).encode() + b"\r\n\r\n"


def post(path: str, body: bytes, *more: str) -> bytes:
    head = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *more]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


async def test_a_bad_event_beside_good_ones_while_there_is_no_room_harms_nobody(tmp_path: Path) -> None:
    good, bad = post("/event", b'{"endpoint":"a","success":true}'), post("/event", b"{bad")
    settings = ("--set", "admission.waiting_ops_max=1", "--set", "admission.wait_seconds_max=20")
    async with running_daemon(tmp_path, *settings) as daemon, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected_to(daemon.url, "front")) for _ in range(4)]
        [disk] = children(daemon.process.pid)
        os.kill(disk, signal.SIGSTOP)
        await clients[0].send(good)
        await daemon.json("/health")  # by now it is on its way to the disk
        daemon.process.send_signal(signal.SIGSTOP)
        for client, request in zip(clients[1:], (good, bad, good), strict=True):
            await client.send(request)
        daemon.process.send_signal(signal.SIGCONT)
        assert (await clients[2].answer()).status == 400
        os.kill(disk, signal.SIGCONT)
        assert [(await clients[number].answer()).status for number in (0, 1, 3)] == [200] * 3
        assert not [line for line in daemon.log if line["event"] == "actor_failed"]


async def test_who_comes_while_the_disk_hangs_is_looked_at_and_who_needs_no_disk_is_answered(tmp_path: Path) -> None:
    good, bad = post("/event", b'{"endpoint":"a","success":true}'), post("/event", b"{bad")
    settings = ("--set", "admission.wait_seconds_max=60")
    async with running_daemon(tmp_path, *settings) as daemon, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected_to(daemon.url, "front")) for _ in range(FEW + 5)]
        for client in clients:  # by now all ride
            await client.send(good)
            assert (await client.answer()).status == 200
        asks, errs, leaves, *rest = clients[FEW:]
        [disk] = children(daemon.process.pid)
        os.kill(disk, signal.SIGSTOP)
        daemon.process.send_signal(signal.SIGSTOP)
        for client in clients[:FEW]:
            await client.send(good)
        daemon.process.send_signal(signal.SIGCONT)  # it finds all at once: enough that a few wait for more
        await leaves.send(post("/event", b"{}", "Connection: close"))
        await leaves.end()
        await asks.send(get("/health"))
        assert (await asks.answer()).status == 200
        await errs.send(bad)
        assert (await errs.answer()).status == 400
        for client in rest:
            await client.send(good)
        waiting = [*clients[:FEW], leaves, *rest]
        with trio.fail_after(10):
            while f"observer_waiting_ops {len(waiting)}.0" not in (await daemon.get("/metrics")).text:
                pass
        os.kill(disk, signal.SIGCONT)
        assert [(await client.answer()).status for client in waiting] == [200] * len(waiting)


OF_JAVA: Final = (
    *("Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAAAAUAAEAAAAYABgAA"),
    *("Upgrade: h2c", "User-Agent: Java-http-client/17.0.15"),
)
REQUESTS: Final = {
    "an event": post("/event", b'{"endpoint":"a","success":true}'),
    "an event with a note": post("/event", b'{"source":"nobody"}'),
    "an event with a secret": post("/event", b'{"error":"Authorization: Bearer abcdefghijklmnop0123456789"}'),
    "a body that is no JSON": post("/event", b"{"),
    "an empty body": post("/event", b""),
    "a field of a wrong type": post("/event", b'{"city":1}'),
    "any content type": post("/event", b"{}", "Content-Type: text/plain"),
    "an event of a trace": post("/event", b"{}", f"traceparent: 00-{'1' * 32}-{'2' * 16}-01"),
    "as fetch of Node sends it": post("/event", b"{}", "Accept: */*", "Accept-Language: *", "Sec-Fetch-Mode: cors"),
    "as HttpClient of Java sends it": post("/event", b"{}", *OF_JAVA),
    "as HttpClient of Apache sends it": post("/event", b"{}", "Connection: Upgrade", "Upgrade: TLS/1.2"),
    "as nginx passes it on": post("/event", b"{}", "Connection: close").replace(b"HTTP/1.1", b"HTTP/1.0"),
    "a batch of lines": post("/events", b'{"endpoint":"a"}\n{"city":1}\n\n{}'),
    "a batch in an array": post("/events", b'[{"endpoint":"a"},3]'),
    "a batch of bad lines": post("/events", b"1\n2"),
    "an empty batch": post("/events", b"\n"),
    "too many lines": post("/events", b"{}\n" * 101),
    "gzip": post("/event", gzip.compress(b'{"endpoint":"z"}'), "Content-Encoding: gzip"),
    "what is said to be gzip": post("/event", b"{}", "Content-Encoding: gzip"),
    "an unknown encoding": post("/event", b"{}", "Content-Encoding: br"),
    "a query in the target": post("/event?x=1", b"{}"),
    "a chunked body": START + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "a slash too many": post("/event/", b"{}"),
    "another method": b"GET /event HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "odd case in header names": b"POST /event HTTP/1.1\r\nhOST: localhost\r\ncONTENT-lENGTH: 2\r\n\r\n{}",
    "blanks behind values": b"POST /event HTTP/1.1\r\nHost: localhost \t\r\nContent-Length: 2\r\n\r\n{}",
    "two encodings in two lines": post("/event", b"{}", "Content-Encoding: identity", "Content-Encoding: gzip"),
    "a body above the limit": post("/events", b" " * 20_001),
    "advice": get("/advice?endpoint=a&input=b%20c&role=d&run=e&limit=3"),
    "advice for HttpClient of Java": get("/advice?endpoint=a", "Content-Length: 0", *OF_JAVA),
    "advice as Markdown": get("/advice?endpoint=a&format=markdown"),
    "advice as the header has it": get("/advice?endpoint=a", "Accept: text/html;q=0.1, text/markdown"),
    "advice as no header can have it": get("/advice?endpoint=a", "Accept: ;;q=x,image/*"),
    "advice about nothing": get("/advice?endpoint="),
    "advice without a query": get("/advice"),
    "advice by an unknown name": get("/advice?enpoint=a"),
    "advice twice about": get("/advice?endpoint=a&endpoint=b"),
    "advice with odd percent signs": get("/advice?endpoint=%41%zz%ff+%00&input=%ED%A0%80"),
    "advice with a semicolon": get("/advice?endpoint=a;input=b&&&=&"),
    "advice in other bytes than ASCII": "GET /advice?endpoint=ä HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(),
    "advice with a fragment": get("/advice?endpoint=a#input=b"),
    "advice with a blank": get("/advice?endpoint=a b"),
    "advice and a body": get("/advice?endpoint=a", "Content-Length: 2") + b"{}",
    "advice and an empty body": get("/advice?endpoint=a", "Content-Length: 0"),
    "advice and a chunked body": get("/advice?endpoint=a", "Transfer-Encoding: chunked") + b"2\r\n{}\r\n0\r\n\r\n",
    "advice from elsewhere": get("/advice?endpoint=a", "Origin: http://evil.example"),
    "advice from far below": get("/advice/?endpoint=a"),
    "attributes that are none": get("/advice?endpoint=a&attrs=%5B1%5D"),
}
"""Valid HTTP, each; what the daemon says of them is below, by comparing the ways."""


def test_what_is_sent_on_the_other_way_is_never_plain() -> None:
    plain = (
        "an event",
        "a batch of lines",
        "advice",
        "advice and an empty body",
        "as fetch of Node sends it",
        "as nginx passes it on",
    )
    of_java = ("as HttpClient of Java sends it", "as HttpClient of Apache sends it", "advice for HttpClient of Java")
    for name in (*plain, *of_java):
        assert isinstance(head_of(REQUESTS[name]), Head)
    assert not any(isinstance(head_of(not_plain(request)), Head) for request in REQUESTS.values())


def head_of(request: bytes) -> object:
    return read_head(request, body_bytes_max=20_000, head_bytes_max=16_384)


@pytest.mark.parametrize("name", REQUESTS)
async def test_both_ways_give_the_same_answer(shared: Served, name: str) -> None:
    answers = []
    for way in WAYS:
        async with connected_to(shared.url, way) as client:
            await client.send(REQUESTS[name])
            answers.append(await client.answer())
    front, web = answers
    assert (front.status, _comparable(front)) == (web.status, _comparable(web))
    for header in ("content-type", "retry-after"):
        assert front.headers.get(header) == web.headers.get(header)
    assert {"date", "content-length"} <= front.headers.keys() & web.headers.keys()


KNOWN: Final = {"a known event": post("/event", b'{"id":"1"}'), "a batch of one": post("/events", b'{"id":"2"}\n{}')}


@pytest.mark.parametrize("name", [*REQUESTS, *KNOWN])
async def test_both_ways_count_the_same(shared: Served, name: str) -> None:
    """Also what comes as the second request of its connection: at the front door that is in the express lane."""
    request = (REQUESTS | KNOWN)[name]
    await counted_of(shared, request, "front")  # what comes for the first time counts as that
    in_its_task = await counted_of(shared, request, "front")
    in_the_lane = await counted_of(shared, request, "front", REQUESTS["an event"])
    assert in_its_task == in_the_lane == await counted_of(shared, request, "web")


async def test_both_ways_count_the_same_while_the_disk_hangs(tmp_path: Path) -> None:
    with served(tmp_path, f"{CONFIG}[admission]\nwait_seconds_max = 0.2\n") as daemon:
        [disk] = children(daemon.process.pid)
        os.kill(disk, signal.SIGSTOP)
        try:
            for name, kind in {"an event": "event", "gzip": "event", "a batch of lines": "batch"}.items():
                for way in WAYS:  # the second of two is in the express lane
                    assert await counted_of(daemon, REQUESTS[name], way, REQUESTS["an event"]) == {
                        f"observer_requests_{kind}_total{{}}": 1,
                        "observer_ingest_refused_total{}": 1,
                        "observer_admission_refusals_total{}": 1,
                    }
        finally:
            os.kill(disk, signal.SIGCONT)


async def counted_of(daemon: Served, request: bytes, way: Way, *others: bytes) -> dict[str, float]:
    """Give by how much each counter of `/metrics` rises with a request that comes after others of its connection."""
    async with connected_to(daemon.url, way) as client:
        for other in others:
            await client.send(other)
            await client.answer()
        before = counters(daemon)
        await client.send(request)
        await client.answer()
        after = counters(daemon)
    return {name: value - before.get(name, 0.0) for name, value in after.items() if value != before.get(name)}


def counters(daemon: Served) -> dict[str, float]:
    """Read the counters, once all consumers have taken in what was committed.

    Left out is what depends on the time, or on how often the same failed before.
    """
    while True:
        families = list(text_string_to_metric_families(daemon.client.get("/metrics").text))
        if not any(sample.value for family in families if family.name == BEHIND for sample in family.samples):
            return {
                f"{sample.name}{sample.labels}": sample.value
                for family in families
                if family.type in ("counter", "summary") and family.name not in NOT_COMPARED
                for sample in family.samples
            }


SMUGGLED: Final = {
    "both lengths": START + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0",
    "both lengths, and both right": START
    + b"Content-Length: 12\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "two lengths that differ": START + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a signed length": START + b"Content-Length: +2\r\n\r\n{}",
    "a length in a list": START + b"Content-Length: 2, 3\r\n\r\n{}",
    "a folded header": START + b"Content-Length:\r\n 2\r\nX: a\r\n b\r\n\r\n{}",
    "a blank before the colon": START + b"Content-Length : 2\r\n\r\n{}",
    "no host": b"POST /event HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
    "two hosts": START + b"Host: localhost\r\nContent-Length: 2\r\n\r\n{}",
    "a NUL in a header": START + b"X: \0\r\nContent-Length: 2\r\n\r\n{}",
    "an unknown transfer coding": START + b"Transfer-Encoding: x\r\n\r\n0\r\n\r\n",
    "the same length twice": START + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "a length in hex": START + b"Content-Length: 0x2\r\n\r\n{}",
    "a length of nothing": START + b"Content-Length:\r\n\r\n{}",
    "a length of many digits": START + b"Content-Length: 00000000000000000002\r\n\r\n{}",
    "a chunk with an extension": START + b"Transfer-Encoding: chunked\r\n\r\n2;a=b\r\n{}\r\n0\r\n\r\n",
    "a signed chunk size": START + b"Transfer-Encoding: chunked\r\n\r\n+2\r\n{}\r\n0\r\n\r\n",
    "chunked, and then something": START + b"Transfer-Encoding: chunked, identity\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunked in odd case": START + b"Transfer-Encoding: ChUnKeD\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "a vertical tab before chunked": START + b"Transfer-Encoding: \x0bchunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "a line feed in a header": START + b"X: a\nContent-Length: 2\r\n\r\n{}",
    "a method in small letters": b"post /event HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}",
    "bare line feeds": b"POST /event HTTP/1.1\nHost: localhost\nContent-Length: 2\n\n{}",
}


@pytest.mark.parametrize("name", SMUGGLED)
async def test_both_ways_agree_on_what_a_request_is(shared: Served, name: str) -> None:
    """Refused by both, or read the same by both."""
    before = shared.json("/health")["last_seq"]
    statuses = []
    for way in WAYS:
        async with connected_to(shared.url, way) as client:
            await client.send(SMUGGLED[name])
            statuses.append((await client.answer()).status)
    assert statuses[0] == statuses[1]
    assert statuses[0] in (200, 400, 408, 501)
    assert shared.json("/health")["last_seq"] - before == (2 if statuses[0] == 200 else 0)


@pytest.mark.parametrize("request_", [SMUGGLED["a method in small letters"], REQUESTS["two encodings in two lines"]])
async def test_what_two_may_read_in_two_ways_is_refused(shared: Served, request_: bytes) -> None:
    async with connected_to(shared.url, "front") as client:
        await client.send(request_)
        assert (await client.answer()).status == 400


async def test_a_request_with_both_lengths_is_refused_and_closes_the_connection(shared: Served) -> None:
    """RFC 9112, 6.1: whoever stands between may have read it in the other way."""
    for way in WAYS:
        async with connected_to(shared.url, way) as client:
            await client.send(SMUGGLED["both lengths, and both right"] + get("/health"))
            assert (await client.answer()).status == 400
            assert await client.ended()


async def test_every_kind_of_socket_gives_the_same_answers_both_ways(tmp_path: Path) -> None:
    if not has_ipv6():
        pytest.skip("this machine has no IPv6")
    async with every_kind_of_socket(tmp_path) as addresses:
        for name, request in {**REQUESTS, **SMUGGLED}.items():
            answers = {}
            for kind, address in addresses.items():
                for way in WAYS:
                    async with connected_to(address, way) as client:
                        await client.send(request)
                        answer = await client.answer()
                        answers[kind, way] = (answer.status, _comparable(answer) if name in REQUESTS else None)
            assert set(map(str, answers.values())) == {str(answers["IPv4", "front"])}, name


async def test_every_kind_of_socket_takes_a_pipeline_of_both_kinds_of_request(tmp_path: Path) -> None:
    if not has_ipv6():
        pytest.skip("this machine has no IPv6")
    async with every_kind_of_socket(tmp_path) as addresses:
        for address in addresses.values():
            async with connected_to(address, "front") as client:
                await client.send(post("/event", b"{}") * 3 + b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n")
                seqs = [(await client.answer()).json["seq"] for _ in range(3)]
                assert seqs == list(range(seqs[0], seqs[0] + 3))
                assert (await client.answer()).status == 200


@pytest.mark.parametrize("way", WAYS)
async def test_requests_in_a_pipeline_are_answered_in_order(shared: Served, way: Way) -> None:
    async with connected_to(shared.url, way) as client:
        requests = [post("/event", b'{"endpoint":"%d"}' % number) for number in range(20)]
        await client.send(b"".join(requests))
        seqs = [(await client.answer()).json["seq"] for _ in requests]
    assert seqs == list(range(seqs[0], seqs[0] + 20))
    assert [op.endpoint for op in journal_ops(shared.data_dir)[-20:]] == [str(number) for number in range(20)]


@pytest.mark.parametrize("way", WAYS)
async def test_halves_of_requests_that_come_together_are_put_together(shared: Served, way: Way) -> None:
    async with connected_to(shared.url, way) as client:
        stream = client.form(b"".join(post("/event", b'{"endpoint":"%d"}' % number) for number in range(6)))
        for at in range(0, len(stream), 50):  # no piece ends where a request does
            await client.send(stream[at : at + 50])
            await trio.lowlevel.checkpoint()
        seqs = [(await client.answer()).json["seq"] for _ in range(6)]
    assert seqs == list(range(seqs[0], seqs[0] + 6))
    assert [op.endpoint for op in journal_ops(shared.data_dir)[-6:]] == [str(number) for number in range(6)]


async def test_any_mixture_of_requests_goes_through_one_connection(shared: Served) -> None:
    async with connected_to(shared.url, "front") as client:
        await client.send(post("/event", b"{}"))
        first = (await client.answer()).json["seq"]
        await client.send(
            post("/events", b"{}\n{}") + b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" + post("/event", b"{}")
        )
        assert (await client.answer()).json["last_seq"] == first + 2
        assert (await client.answer()).json["last_seq"] == first + 2
        assert (await client.answer()).json["seq"] == first + 3


@pytest.mark.parametrize("way", WAYS)
async def test_a_request_may_come_byte_by_byte(shared: Served, way: Way) -> None:
    async with connected_to(shared.url, way) as client:
        for byte in client.form(post("/event", b'{"endpoint":"slow"}')):
            await client.send(bytes([byte]))
            await trio.lowlevel.checkpoint()
        assert (await client.answer()).json["accepted"]


@pytest.mark.parametrize("way", WAYS)
async def test_a_body_that_does_not_come_is_not_waited_for(shared: Served, way: Way) -> None:
    before = shared.json("/health")["last_seq"]
    async with connected_to(shared.url, way) as client:
        await client.send(post("/event", b"{}")[:-1])
        answer = await client.answer()
    assert answer.status == 408
    assert answer.json["error"]
    assert shared.json("/health")["last_seq"] == before


@pytest.mark.parametrize("way", WAYS)
async def test_the_trace_that_a_caller_names_is_kept_with_each_op_that_names_none(shared: Served, way: Way) -> None:
    header = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    mine = {"trace_id": "0af7651916cd43dd8448eb211c80319c", "span_id": "b7ad6b7169203331"}
    many = b'{"endpoint":"a","attrs":{"x":1}}\n{"endpoint":"a","trace_id":"own"}'
    many += b'\n{"endpoint":"a","attrs":{"span_id":"own"}}'
    before = shared.json("/health")["last_seq"]
    async with connected_to(shared.url, way) as client:
        for request in (
            post("/event", b"{}", header),
            post("/events", many, header),
            post("/event", b"{}", header[:-9]),
        ):
            await client.send(request)
            assert (await client.answer()).status == 200
    kept = [op.get("attrs") for op in shared.json("/ops", after_seq=before)["ops"]]
    assert kept == [mine, {"x": 1, **mine}, {"trace_id": "own"}, {"span_id": "own"}, None]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("path", ["/event", "/events"])
async def test_what_comes_behind_the_last_request_changes_nothing(shared: Served, way: Way, path: str) -> None:
    async with connected_to(shared.url, way) as client:
        await client.send(post(path, b"{}", "Connection: close") + b"\r\nmore")
        assert (await client.answer()).status == 200
        assert await client.ended()


@pytest.mark.parametrize("way", WAYS)
async def test_who_expects_100_continue_is_told_to(shared: Served, way: Way) -> None:
    async with connected_to(shared.url, way) as client:
        head, _, body = post("/event", b"{}", "Expect: 100-continue").partition(b"\r\n\r\n")
        await client.send(head + b"\r\n\r\n")
        await client.send(body)
        assert (await client.answer()).json["accepted"]


@pytest.mark.parametrize("way", WAYS)
async def test_who_is_refused_while_still_sending_is_not_cut_off(shared: Served, way: Way) -> None:
    """Closed with bytes unread, the connection would be reset, and the answer might never be seen."""
    refused = post("/event", b"x" * 15_000).replace(b"Host: localhost", b"Host: elsewhere.example")
    async with connected_to(shared.url, way) as client:
        await client.send(refused)
        assert (await client.answer()).status == 421
        assert await client.ended()


@pytest.mark.parametrize("way", WAYS)
async def test_connection_close_is_obeyed(shared: Served, way: Way) -> None:
    async with connected_to(shared.url, way) as client:
        await client.send(post("/event", b"{}", "Connection: close"))
        answer = await client.answer()
        assert answer.headers["connection"] == "close"
        assert await client.ended()


async def test_who_ends_with_a_request_is_answered_and_let_go_of(shared: Served) -> None:
    """The request and the end in one segment: the end is told once, with the request."""
    async with await trio.open_tcp_stream("127.0.0.1", shared.port) as stream:
        client = Client(stream, "front")
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        await client.send(post("/event", b"{}"))
        stream.socket.shutdown(socket.SHUT_WR)
        assert (await client.answer()).status == 200
        assert await client.ended()


@pytest.mark.parametrize("asked", ["an event", "a page"])
async def test_who_ends_with_a_request_of_the_web_framework_is_answered_too(shared: Served, asked: str) -> None:
    chunked = START + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    request = chunked if asked == "an event" else b"GET /stats HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for _ in range(20):
        async with connected_to(shared.url, "front") as client:
            await client.send(request)
            await client.end()
            assert (await client.answer()).status == 200
            assert await client.ended()


@pytest.mark.parametrize("way", WAYS)
async def test_who_ends_in_the_middle_of_a_request_is_told_that_it_is_none(shared: Served, way: Way) -> None:
    async with connected_to(shared.url, way) as client:
        await client.send(post("/event", b"{}")[:-1])
        await client.end()
        answer = await client.answer()
        assert (answer.status, answer.json["error"]) == (400, "what was sent is no HTTP/1.1 request")
        assert await client.ended()


@pytest.mark.parametrize("headers", [b"", b"Host: localhost\r\n", b"Host: localhost\r\nConnection: keep-alive\r\n"])
async def test_http_1_0_is_answered_and_closed(shared: Served, headers: bytes) -> None:
    async with connected_to(shared.url, "front") as client:
        await client.send(b"POST /event HTTP/1.0\r\n" + headers + b"Content-Length: 2\r\n\r\n{}")
        assert (await client.answer()).json["accepted"]
        assert await client.ended()


def _comparable(answer: Answer) -> object:
    """Leave out what counts up from one request to the next."""
    if not answer.headers["content-type"].endswith("json"):
        return answer.body
    content = answer.json
    return {
        name: value
        for name, value in content.items()
        if name not in ("seq", "ring_size", "first_seq", "last_seq", "advice_id")
    }


async def test_what_was_answered_is_forgotten_without_a_search_for_garbage(tmp_path: Path) -> None:
    """Which comes seldom, and would find a hundred megabytes every few seconds."""
    settings = Settings(data_dir=tmp_path, listen=ListenSettings(port=0))
    async with daemon_inside(settings) as daemon, connected_to(daemon.addresses[0], "front") as client:
        gc.collect()
        gc.disable()
        try:
            for _ in range(20):
                await client.send(post("/event", b'{"endpoint":"a","success":true}'))
                assert (await client.answer()).status == 200
            await trio.sleep(3 * LOOK_S)  # so long admission remembers for whom it keeps the time
            assert sum(isinstance(one, Group) for one in gc.get_objects()) <= 2
        finally:
            gc.enable()
