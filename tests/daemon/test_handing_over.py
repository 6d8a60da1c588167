"""A request that is not plain is Hypercorn's; what comes behind it is not, and the connection comes back."""

from __future__ import annotations

import os
import random
import signal
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import h11
import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st

from observer_actors.daemon import Daemon as DaemonInside
from observer_actors.http import front_door, web
from observer_actors.http.wire import INCOMPLETE, read_head
from observer_actors.settings import AdmissionSettings, ListenSettings, Settings
from tests.daemon.inside import daemon_inside
from tests.daemon.test_doors import certificate
from tests.daemon.test_front_door import WAYS, Client, Way, connected_to, get, not_plain, post
from tests.harness import running_daemon
from tests.processes import children

GOOD: Final = b'{"endpoint":"a","success":true}'
CHUNKED: Final = b"POST /event HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
HEAD_MAX: Final = 200


@given(st.lists(st.sampled_from([b"\n", b"\r", b"\r\n", b"\r\n\r\n", b"a", b" ", b":", b"GET / HTTP/1.1", b"\x00"])))
@example([b"GET / HTTP/1.1", b"\n", b"\r\n"])
@example([b"a" * HEAD_MAX])
@example([b"a" * (HEAD_MAX + 1)])
def test_hypercorn_never_has_to_wait_for_a_head(parts: list[bytes]) -> None:
    """Nobody would end that: the time for a head is the front door's to keep."""
    data = b"".join(parts)
    if data and read_head(data, body_bytes_max=10, head_bytes_max=HEAD_MAX) is not INCOMPLETE:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_MAX)
        connection.receive_data(data)
        with suppress(h11.RemoteProtocolError):  # the client is told so
            assert connection.next_event() is not h11.NEED_DATA


async def test_requests_of_all_kinds_in_pieces_of_all_sizes_are_answered_in_order(tmp_path: Path) -> None:
    kinds = {
        "plain": post("/event", GOOD),
        "not plain": not_plain(post("/event", GOOD)),
        "chunked": CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(GOOD), GOOD),
        "a batch": post("/events", GOOD + b"\n" + GOOD),
        "a page": get("/health"),
        "none": get("/nothing"),
    }
    async with running_daemon(tmp_path) as daemon:
        for seed in range(20):
            chance = random.Random(seed)
            async with trio.open_nursery() as nursery:
                for _ in range(8):
                    names = chance.choices(list(kinds), k=30)
                    nursery.start_soon(_talk, daemon.url, names, b"".join(kinds[name] for name in names), chance)
    seqs = [op.seq for op in daemon.ops()]
    assert seqs == list(range(1, len(seqs) + 1))


async def _talk(url: str, names: list[str], data: bytes, chance: random.Random) -> None:
    async with connected_to(url, "front") as client, trio.open_nursery() as nursery:
        nursery.start_soon(_send_in_pieces, client, data, chance)
        last = 0
        for name in names:
            answer = await client.answer()
            assert answer.status == (404 if name == "none" else 200)
            seq = answer.json.get("last_seq" if name == "a batch" else "seq", last + 1)
            assert seq > last
            last = seq if "seq" in answer.json or name == "a batch" else last


async def _send_in_pieces(client: Client, data: bytes, chance: random.Random) -> None:
    while data:
        size = chance.choice((1, 20, 100, 1_000))
        await client.send(data[:size])
        data = data[size:]
        await trio.sleep(chance.choice((0, 0, 0.001)))


async def test_more_connections_may_be_idle_than_requests_may_be_under_way(tmp_path: Path) -> None:
    async with inside(tmp_path, requests=2) as daemon, AsyncExitStack() as stack:
        for _ in range(10):
            client = await stack.enter_async_context(connected_to(daemon.addresses[0], "front"))
            await client.send(get("/health"))
            assert (await client.answer()).status == 200


async def test_one_request_more_than_may_be_under_way_waits_for_a_while_and_is_refused(tmp_path: Path) -> None:
    async with inside(tmp_path, requests=2) as daemon, AsyncExitStack() as stack:
        slow = [await stack.enter_async_context(connected_to(daemon.addresses[0], "front")) for _ in range(2)]
        for client in slow:
            await client.send(CHUNKED + b"1\r\n")
        async with connected_to(daemon.addresses[0], "front") as client:
            await client.send(post("/event", GOOD))
            assert (await client.answer()).status == 200, "Hypercorn has nothing to do with it"
            await client.send(get("/health") * 2)
            answer = await client.answer()
            assert (answer.status, answer.json["error"]) == (503, "2 requests are being served already")
            assert await client.ended()


SLOW: Final = "listen.answer_seconds_max=0.3"
PAGE_AND_EVENT: Final = get("/ops?limit=20") + post("/event", GOOD)


async def test_who_is_cut_off_is_served_no_further(tmp_path: Path) -> None:
    """The descriptor is somebody else's by then: what came behind was answered to whoever that was."""
    async with running_daemon(tmp_path, "--set", SLOW) as daemon, AsyncExitStack() as stack:
        await daemon.post("/events", b"\n".join([b'{"endpoint":"a","error":"%b"}' % (b"e" * 4_000)] * 40))
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(_ask_and_read_nothing, await stack.enter_async_context(_deaf(daemon.url)))
        silent = []
        for _ in range(400):
            silent.append(await stack.enter_async_context(connected_to(daemon.url, "front")))
            await trio.sleep(0.01)
        for client in silent:
            with trio.move_on_after(0.001) as waited:
                await client.ended()
            assert waited.cancelled_caught, "nobody has said anything to it"


async def test_over_tls_who_is_cut_off_harms_nobody(tmp_path: Path) -> None:
    async with encrypted(tmp_path, SLOW) as (connect, daemon):
        asking = await connect()
        await asking.send(post("/events", b"\n".join([b'{"endpoint":"a","error":"%b"}' % (b"e" * 4_000)] * 40)))
        assert (await asking.answer()).status == 200
        await _ask_and_read_nothing(await connect())
        await trio.sleep(3)
        await asking.send(get("/health"))
        assert (await asking.answer()).status == 200
        assert not [line for line in daemon.log if line["event"] == "actor_failed"]


@asynccontextmanager
async def _deaf(url: str) -> AsyncIterator[Client]:
    with trio.socket.socket() as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        await plain.connect(("127.0.0.1", int(url.rpartition(":")[2])))
        yield Client(trio.SocketStream(plain), "front")


async def _ask_and_read_nothing(client: Client) -> None:
    with trio.move_on_after(0.2):
        await client.send(PAGE_AND_EVENT * 500)


async def test_a_body_that_breaks_off_gives_its_room_back_at_once(tmp_path: Path) -> None:
    bytes_max = ("--set", "listen.bodies_bytes_max=400000", "--set", "listen.body_bytes_max=400000")
    room = (*bytes_max, "--set", "admission.wait_seconds_max=0.5")
    async with running_daemon(tmp_path, *room) as daemon:
        for is_bad in (True, True, True, False, False, False):
            async with connected_to(daemon.url, "front") as client:
                await client.send(CHUNKED + b"30000\r\n" + b" " * 0x30000 + b"\r\n" + (b"ZZZ\r\n" if is_bad else b""))
                await (client.send(b"\r\n") if is_bad else client.end())
                assert (await client.answer()).status == 400
        async with connected_to(daemon.url, "front") as client:
            await client.send(CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(GOOD), GOOD))
            assert (await client.answer()).status == 200


async def test_a_refusal_is_sent_whole_also_when_what_follows_is_no_body(tmp_path: Path) -> None:
    refused = CHUNKED.replace(b"localhost", b"evil.example") + b"5\r\nhello\r\nZZZ\r\n"
    async with running_daemon(tmp_path) as daemon:
        for number in range(60):
            async with connected_to(daemon.url, "front") as client:
                await client.send(refused)
                if number % 2:
                    await client.end()
                answer = await client.answer()
                assert answer.status in {400, 421}
                assert answer.json["error"]


async def test_who_has_ended_its_side_is_waited_for_as_long_as_anybody(tmp_path: Path) -> None:
    async with running_daemon(tmp_path, "--set", "admission.wait_seconds_max=5.5") as daemon:
        [disk] = children(daemon.process.pid)
        os.kill(disk, signal.SIGSTOP)
        async with connected_to(daemon.url, "web") as client:
            await client.send(post("/event", GOOD))
            await client.end()
            assert (await client.answer()).status == 503
        os.kill(disk, signal.SIGCONT)


@pytest.mark.parametrize("way", WAYS)
async def test_an_empty_line_between_two_requests_is_passed_over(tmp_path: Path, way: Way) -> None:
    async with inside(tmp_path) as daemon, connected_to(daemon.addresses[0], way) as client:
        await client.send((post("/event", GOOD) + b"\r\n") * 3)
        assert [(await client.answer()).status for _ in range(3)] == [200] * 3


@pytest.mark.parametrize("way", WAYS)
async def test_the_halves_of_such_a_line_may_come_one_by_one(tmp_path: Path, way: Way) -> None:
    async with inside(tmp_path) as daemon, connected_to(daemon.addresses[0], way) as client:
        for _ in range(2):
            await client.send(post("/event", GOOD) + b"\r")
            assert (await client.answer()).status == 200
            await trio.sleep(0.05)
            await client.send(b"\n")
            await trio.sleep(0.05)
        await client.send(b"\r")
        await client.end()
        assert await client.ended()


async def test_who_is_answered_before_the_end_of_a_request_leaves_nothing_behind(tmp_path: Path) -> None:
    """The end and another request may come in one piece, while the answer goes out: nobody waits for either."""
    early = post("/nope", b"x" * 5_000)
    async with inside(tmp_path) as daemon:
        for _ in range(60):
            async with connected_to(daemon.addresses[0], "front") as client:
                await client.send(early + post("/event", GOOD))
                answer = await client.answer()
                assert answer.status == 404
                if answer.headers.get("connection") != "close":
                    assert (await client.answer()).status == 200
        with trio.fail_after(10):
            while daemon.intake.statistics.connections:  # noqa: ASYNC110 - a counter
                await trio.sleep(0.01)


@pytest.mark.parametrize("size", [10, 2_000, 5_000, 20_000])
async def test_an_answer_before_the_end_of_a_request_says_whether_it_is_the_last(tmp_path: Path, size: int) -> None:
    async with inside(tmp_path) as daemon:
        for _ in range(10):
            async with connected_to(daemon.addresses[0], "front") as client:
                await client.send(post("/nope", b"x" * size))
                if (await client.answer()).headers.get("connection") == "close":
                    assert await client.ended()
                else:
                    await client.send(post("/event", GOOD))
                    assert (await client.answer()).status == 200


async def test_what_is_sent_behind_an_answer_that_began_before_the_end_is_answered(tmp_path: Path) -> None:
    async with running_daemon(tmp_path) as daemon:
        lines = [b'{"endpoint":"a","error":"%b"}' % (b"e" * 1_500)] * 500
        await daemon.post("/events", b"\n".join(lines))
        async with _deaf(daemon.url) as client:
            await client.send(get("/ops?limit=500"))
            await trio.sleep(0.3)  # its head has gone out, and most of the rest waits
            await client.send(post("/event", GOOD))
            daemon.process.send_signal(signal.SIGTERM)
            await trio.sleep(0.1)
            assert (await client.answer()).status == 200
            answer = await client.answer()
            assert (answer.status, answer.headers["connection"]) == (200, "close")


async def test_half_a_head_holds_up_no_end(tmp_path: Path) -> None:
    async with running_daemon(tmp_path) as daemon, connected_to(daemon.url, "front") as client:
        await client.send(b"POST /ev")
        await trio.sleep(0.05)
        daemon.process.send_signal(signal.SIGTERM)
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (408, "close")


@pytest.mark.parametrize("line", [b"POST /event", b"GET /health"])
async def test_long_heads_wait_for_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: bytes) -> None:
    monkeypatch.setattr(front_door, "BEGINNINGS_BYTES_MAX", 40_000)
    begun = line + b" HTTP/1.1\r\nHost: localhost\r\nX: "
    async with inside(tmp_path) as daemon, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected_to(daemon.addresses[0], "front")) for _ in range(3)]
        for client in clients:
            await client.send(begun + b"x" * 3_000)
            await trio.sleep(0.05)
        answer = await clients[2].answer()
        assert (answer.status, answer.json["error"]) == (503, "no room for the request within 0.3 s")
        async with connected_to(daemon.addresses[0], "front") as client:
            await client.send(begun + b"x\r\nContent-Length: 0\r\n\r\n")
            assert (await client.answer()).status in {200, 400}, "a short one needs none"
        await clients[0].send(b"\r\nContent-Length: 0\r\n\r\n")
        assert (await clients[0].answer()).status in {200, 400}
        async with connected_to(daemon.addresses[0], "front") as client:
            await client.send(begun + b"x" * 3_000)
            await trio.sleep(0.05)
            await client.send(b"\r\nContent-Length: 0\r\n\r\n")
            assert (await client.answer()).status in {200, 400}, "there is room again"


async def test_unfinished_events_wait_for_room_unless_they_are_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front_door, "BEGINNINGS_BYTES_MAX", 10_000)
    async with inside(tmp_path) as daemon, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected_to(daemon.addresses[0], "front")) for _ in range(3)]
        for client, size in zip(clients, (6_000, 6_000, 1_000), strict=True):
            await client.send(post("/event", b"{}" + b" " * size)[:-900])
            await trio.sleep(0.05)
        await clients[2].send(b" " * 900)
        assert (await clients[2].answer()).status == 200
        answer = await clients[1].answer()
        assert (answer.status, answer.json["error"]) == (503, "no room for the request within 0.3 s")
        await clients[0].send(b" " * 900)
        assert (await clients[0].answer()).status == 200


@pytest.mark.parametrize("more", [0, 1])
@pytest.mark.parametrize("way", WAYS)
async def test_a_head_is_as_long_as_it_was_sent(tmp_path: Path, way: Way, more: int) -> None:
    begun = b"POST /event HTTP/1.1\r\nHost:localhost\r\n" + b"X:\r\n" * 90
    begun += b"Content-Length:%d\r\n" % len(GOOD)
    async with inside(tmp_path) as daemon, connected_to(daemon.addresses[0], way) as client:
        left = 16_384 + more - len(client.form(begun)) - len(b"Y:\r\n\r\n")
        await client.send(begun + b"Y:" + b"y" * left + b"\r\n\r\n" + GOOD)
        answer = await client.answer()
        assert (answer.status, answer.json.get("limit")) == ((431, "listen.head_bytes_max") if more else (200, None))


@asynccontextmanager
async def inside(folder: Path, requests: int = 500) -> AsyncIterator[DaemonInside]:
    """Run a daemon whose callers wait for little, and of which Hypercorn serves so many requests at once."""
    settings = Settings(
        data_dir=folder,
        listen=ListenSettings(port=0, request_seconds_max=2.0),
        admission=AdmissionSettings(wait_seconds_max=0.3),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(web, "REQUESTS_MAX", requests)
        async with daemon_inside(settings) as daemon:
            yield daemon


@asynccontextmanager
async def encrypted(folder: Path, *settings: str) -> AsyncIterator[Any]:
    """Run a daemon that speaks TLS; give a function that connects to it, and the daemon."""
    cert, key = certificate(folder)
    trust = ssl.create_default_context(cafile=str(cert))
    tls = (f"listen.tls_cert={cert}", f"listen.tls_key={key}", *settings)
    arguments = [part for one in tls for part in ("--set", one)]
    async with running_daemon(folder / "data", *arguments, wait_ready=False) as daemon, AsyncExitStack() as stack:
        port = int((await daemon.logged("listening"))["url"].rpartition(":")[2])
        await daemon.logged("ready")

        async def connect(*, is_strict: bool = False) -> Client:
            stream = await trio.open_ssl_over_tcp_stream(
                "127.0.0.1", port, ssl_context=trust, https_compatible=not is_strict
            )
            return Client(await stack.enter_async_context(stream), "front")

        yield connect, daemon


async def test_over_tls_all_kinds_of_requests_are_answered_in_order(tmp_path: Path) -> None:
    async with encrypted(tmp_path) as (connect, daemon):
        client = await connect()
        await client.send((post("/event", GOOD) + get("/health") + CHUNKED + b"0\r\n\r\n") * 3)
        statuses = [(await client.answer()).status for _ in range(9)]
        assert statuses == [200, 200, 400] * 3
        large = b"\n".join([GOOD] * 20_000)
        await client.send(post("/events", large))
        assert (await client.answer()).json["accepted"] == 20_000
        await client.send(post("/event", GOOD, "Connection: close") + b"more")
        assert (await client.answer()).json["seq"] == 20_004
        assert await client.ended()
        assert len(daemon.ops()) == 20_004


async def test_over_tls_the_end_is_said_in_its_own_words(tmp_path: Path) -> None:
    async with encrypted(tmp_path) as (connect, _):
        client = await connect(is_strict=True)
        await client.send(post("/event", GOOD, "Connection: close"))
        assert (await client.answer()).status == 200
        assert await client.ended()


async def test_over_tls_one_connection_too_many_is_closed_without_a_word(tmp_path: Path) -> None:
    async with encrypted(tmp_path, "listen.connections_max=1") as (connect, _):
        first = await connect()
        await first.send(get("/health"))
        assert (await first.answer()).status == 200
        second = await connect()
        with pytest.raises(trio.BrokenResourceError):
            await second.send(get("/health"))


async def test_over_tls_time_is_kept_too(tmp_path: Path) -> None:
    seconds = ("listen.head_seconds_max=0.5", "listen.idle_seconds_max=1.5", "listen.request_seconds_max=0.5")
    async with encrypted(tmp_path, *seconds) as (connect, _):
        asked = {b"GET /hea": 408, post("/event", GOOD)[:-1]: 408, CHUNKED: 408, get("/health"): 200}
        waiting = []
        for request, status in asked.items():
            waiting.append((client := await connect(), status))
            await client.send(request)
        for client, status in waiting:
            assert (await client.answer()).status == status
            assert await client.ended()


async def test_over_tls_who_is_idle_is_let_go_of_at_the_end_and_who_is_not_is_answered(tmp_path: Path) -> None:
    async with encrypted(tmp_path) as (connect, daemon):
        idle, asking = await connect(), await connect()
        for client in (idle, asking):
            await client.send(get("/health"))
            assert (await client.answer()).status == 200
        await asking.send(CHUNKED + b"1\r\n")
        await trio.sleep(0.2)
        daemon.process.terminate()
        assert await idle.ended()
        await asking.send(b" \r\n0\r\n\r\n")
        answer = await asking.answer()
        assert (answer.status, answer.headers["connection"]) == (400, "close")
        with trio.fail_after(4):  # less than who is under way is waited for
            assert await daemon.process.wait() == 0
