"""A connection costs something only as long as somebody is at the other end."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import pytest
import trio

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


def _descriptors(daemon: Daemon) -> int:
    return len(list(Path(f"/proc/{daemon.process.pid}/fd").iterdir()))
