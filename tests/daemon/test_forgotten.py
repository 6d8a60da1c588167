"""What was refused, cut off or answered leaves nothing behind: memory does not wait for a search for garbage."""

from __future__ import annotations

import gc
import gzip
import socket
import struct
import types
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

import h11
import pytest
import trio
import trio.testing
from quart.wrappers.request import Body

from observer_actors.errors import Overloaded
from observer_actors.http.bodies import BodyRoom
from observer_actors.http.gate import Sends
from observer_actors.http.web import PIECE_BYTES, SMALL_PIECE_BYTES, SMALL_PIECES, _Rest
from observer_actors.settings import ListenSettings, Settings
from tests.daemon.inside import daemon_inside
from tests.daemon.served import Served, served

HOST: Final = b" HTTP/1.1\r\nHost: localhost\r\n"
EVENT: Final = b'{"endpoint":"a","success":true}'


def post(body: bytes, headers: bytes = b"", path: bytes = b"/events") -> bytes:
    return b"POST " + path + HOST + headers + b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunked(body: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    return b"POST /events" + HOST + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body) + body + b"\r\n" + end


def zipped(body: bytes) -> bytes:
    return post(gzip.compress(body), b"Content-Encoding: gzip\r\n")


REQUESTS: Final = {
    "a gzip bomb": zipped(b" " * 3_000_000),
    "a batch of too many": zipped(b"\n".join([EVENT] * 101)),
    "a large batch of too many": post(b"\n".join([EVENT] * 10_000)),
    "a batch that is none": post(b"[" + b"1," * 200_000),
    "an event that is none": post(b"x" * 300_000, path=b"/event"),
    "answered by the web": b"GET /health" + HOST + b"\r\n",
    "no such path": b"GET /nothing" + HOST + b"\r\n",
    "a bad parameter": b"GET /ops?limit=x" + HOST + b"\r\n",
    "another host": b"GET /health HTTP/1.1\r\nHost: elsewhere\r\n\r\n",
    "too large, in chunks": chunked(b"x" * 1_100_000),
    "bad, in chunks": chunked(b"x" * 30_000),
    "cut off, in chunks": chunked(b"x" * 60_000, end=b"7"),
    "cut off": post(EVENT)[:-3],
    "asked first": post(EVENT, b"Expect: 100-continue\r\n"),
    "asked first, too large": post(b"x" * 1_100_000, b"Expect: 100-continue\r\n"),
    "no HTTP": b"\x00\x01\r\n\r\n",
}


@pytest.mark.parametrize("kind", REQUESTS)
async def test_a_request_leaves_no_garbage(kind: str, tmp_path: Path) -> None:
    listen = ListenSettings(
        port=0, body_bytes_max=1_000_000, bodies_bytes_max=4_000_000, decompressed_bytes_max=2_000_000,
        batch_events_max=100, request_seconds_max=1.0,
    )  # fmt: skip
    async with daemon_inside(Settings(data_dir=tmp_path, listen=listen)) as daemon:
        port = int(daemon.addresses[0].rpartition(":")[2])
        await asked(port, REQUESTS[kind])  # what is made once stays
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                await asked(port, REQUESTS[kind])
            await trio.sleep(0.1)
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            garbage = [str(type(one)) for one in gc.garbage if isinstance(one, HOLDERS)]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
        assert not garbage


HOLDERS: Final = (types.FrameType, types.TracebackType, BaseException, Body, h11.Connection)
"""What leads to bytes of a request."""


async def asked(port: int, data: bytes) -> None:
    """Send, say that no more comes, and read until the daemon closes the connection."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        with trio.fail_after(10), suppress(trio.BrokenResourceError):
            await stream.send_all(data)
            await stream.send_eof()
            while await stream.receive_some():
                pass


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as one:
        yield one


def test_bodies_that_were_refused_take_no_memory(daemon: Served) -> None:
    """Forty times 32 MiB were unpacked, and 32,000 lines judged forty times."""
    for body in (b" " * 64_000_000, b"\n".join([b"{}"] * 60_000)):
        request = post(gzip.compress(body), b"Content-Encoding: gzip\r\nConnection: close\r\n")
        for _ in range(40):
            assert daemon.exchange(request).startswith(b"HTTP/1.1 4")
    assert daemon.resident_mb_max() < 250


def test_connections_whose_bodies_wait_for_room_take_little_memory(daemon: Served) -> None:
    """Of each a whole MiB would be taken in, if it were read as fast as it comes."""
    with ExitStack() as stack:
        for _ in range(400):
            connection = stack.enter_context(daemon.connect())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1_000_000)
            connection.setblocking(False)
            with suppress(BlockingIOError):
                connection.send(chunked(b"x" * 1_000_000)[:1_000_000])
        assert daemon.client.get("/health").status_code == 200
        assert daemon.client.post("/events", content=iter([EVENT]), timeout=30).status_code in {200, 503}
        assert daemon.resident_mb_max() < 200


async def test_of_a_request_little_is_taken_in_until_somebody_reads_it() -> None:
    ours, theirs = trio.socket.socketpair()
    with theirs:
        async with trio.SocketStream(ours) as stream:
            rest = _Rest(stream, b"x" * 200_000, Sends(), ListenSettings())
            pieces = [len(await rest.receive_some(PIECE_BYTES)) for _ in range(SMALL_PIECES + 1)]
            assert pieces == [SMALL_PIECE_BYTES] * SMALL_PIECES + [PIECE_BYTES]


def test_who_resets_the_connection_at_once_harms_nobody(daemon: Served) -> None:
    for _ in range(200):
        with daemon.connect() as connection:
            connection.sendall(b"GET /health" + HOST + b"\r\n")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert daemon.client.get("/health").status_code == 200
    assert not [line for line in daemon.log.lines if line["event"] == "actor_failed"]


def test_batches_of_tiny_events_wait_before_they_are_judged(daemon: Served) -> None:
    """An event of three bytes is an op of a thousand: each of them is 50 MB."""
    with ThreadPoolExecutor(16) as pool:
        under_way = [pool.submit(daemon.client.post, "/events", content=b"{}\n" * 49_999) for _ in range(16)]
        statuses = {one.result().status_code for one in under_way}
    assert 200 in statuses <= {200, 503}
    assert daemon.resident_mb_max() < 250


async def test_only_so_many_requests_wait_for_room() -> None:
    room = BodyRoom(10, wait_s=5, waiting_max=1)
    async with room.hold(10), trio.open_nursery() as nursery:
        nursery.start_soon(held, room)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(Overloaded, match="1 requests wait for room already"):
            async with room.hold(1):
                pass
        async with room.hold(0):
            nursery.cancel_scope.cancel()


async def held(room: BodyRoom) -> None:
    async with room.hold(1):
        await trio.sleep_forever()
