"""A connection costs something only as long as somebody is at the other end."""

from __future__ import annotations

import socket
import struct
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import pytest
import trio

from observer_actors.http.front_door import TOLD_AT_ONCE_MAX
from observer_actors.http.listeners import ACCEPTED_AT_ONCE
from tests.harness import Daemon, running_daemon

CONNECTIONS: Final = 20
GONE_S_MAX: Final = 5.0


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(b"POST /event HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}", id="front door"),
        pytest.param(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", id="web"),
    ],
)
async def test_a_connection_that_its_client_has_closed_is_let_go_of_at_once(tmp_path: Path, ask: bytes) -> None:
    async with running_daemon(tmp_path) as daemon:
        before = _descriptors(daemon)
        async with AsyncExitStack() as stack:
            for _ in range(CONNECTIONS):
                stream = await trio.open_tcp_stream("127.0.0.1", int(daemon.url.rpartition(":")[2]))
                await stack.enter_async_context(stream)
                await stream.send_all(ask)
                assert b" 200 " in await stream.receive_some()
            assert _descriptors(daemon) >= before + CONNECTIONS
        with trio.fail_after(GONE_S_MAX):
            while _descriptors(daemon) > before:  # noqa: ASYNC110 - another process gives no signal of ours
                await trio.sleep(0.02)


async def test_connections_that_are_turned_away_take_a_bounded_number_of_descriptors(tmp_path: Path) -> None:
    async with running_daemon(tmp_path, "--set", "listen.connections_max=2") as daemon, AsyncExitStack() as stack:
        most = _descriptors(daemon) + 2 + TOLD_AT_ONCE_MAX + ACCEPTED_AT_ONCE  # the last ones are just being looked at
        for _ in range(300):
            stream = await trio.open_tcp_stream("127.0.0.1", int(daemon.url.rpartition(":")[2]))
            await stack.enter_async_context(stream)
            assert _descriptors(daemon) <= most


PLAIN: Final = b"POST /event HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"
ASKS_FIRST: Final = PLAIN.replace(b"Content-", b"Expect: 100-continue\r\nContent-")
READS: Final = b"GET /ops HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(ASKS_FIRST + PLAIN, id="one that asks first, and another"),
        pytest.param(READS * 3, id="three"),
        pytest.param(READS + READS[:9], id="one and a half"),
    ],
)
async def test_a_client_that_goes_while_requests_wait_behind_its_first_leaves_nothing(
    tmp_path: Path, ask: bytes
) -> None:
    async with running_daemon(tmp_path) as daemon:
        for _ in range(100):  # what lies open otherwise has an answer that could not be sent, now and then
            await daemon.event()
        before = _descriptors(daemon)
        for _ in range(100):
            stream = await trio.open_tcp_stream("127.0.0.1", int(daemon.url.rpartition(":")[2]))
            await stream.send_all(ask)
            reset = struct.pack("ii", 1, 0)
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            await stream.aclose()
        with trio.fail_after(GONE_S_MAX):
            while _descriptors(daemon) > before:  # noqa: ASYNC110 - another process gives no signal of ours
                await trio.sleep(0.02)


@pytest.mark.parametrize("last", ["asked for", "of so many"])
async def test_answers_before_the_last_one_are_not_lost_to_what_is_sent_behind_it(tmp_path: Path, last: str) -> None:
    """Closed with bytes unread, the kernel resets the connection, and the client may read nothing more of it."""
    most = ("--set", "listen.requests_per_connection_max=51") if last == "of so many" else ()
    closing = PLAIN.replace(b"Content-", b"Connection: close\r\nContent-") if last == "asked for" else PLAIN
    async with running_daemon(tmp_path, *most) as daemon:
        with trio.socket.socket() as plain:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
            await plain.connect(("127.0.0.1", int(daemon.url.rpartition(":")[2])))
            stream = trio.SocketStream(plain)
            with trio.move_on_after(0.5):
                await stream.send_all(PLAIN * 50 + closing + PLAIN * 400)
            read = b""
            with trio.fail_after(5):
                async for part in stream:
                    read += bytes(part)
        assert read.count(b" 200 OK") == 51
        assert len(daemon.ops()) == 51


def _descriptors(daemon: Daemon) -> int:
    return len(list(Path(f"/proc/{daemon.process.pid}/fd").iterdir()))
