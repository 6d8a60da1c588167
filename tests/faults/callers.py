"""Clients that ask for much and read nothing."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Final

import trio

from tests.faults.trial import Trial
from tests.harness import Daemon

ASKS: Final = (
    b"GET /ops?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /tail?after_seq=0 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
)
REQUESTS: Final = 2_000
"""Pipelined on one connection: far more answers than sockets hold."""
CONNECTIONS: Final = 8
"""Of each kind."""
GROWTH_BYTES_MAX: Final = 150 * 1024 * 1024
STOP_S_MAX: Final = 32.0
"""The sum of the stop budgets, and what is given before the hard exit."""


async def read_nothing(trial: Trial) -> None:
    """Others are served meanwhile, memory stays bounded, and the daemon ends in time with 0."""
    for _ in range(trial.repeats):
        async with trial.daemon() as daemon, AsyncExitStack() as stack:
            async with trial.callers(daemon):
                await trial.more(300)
                before = daemon.resident_bytes()
                async with trio.open_nursery() as nursery:
                    for ask in ASKS * CONNECTIONS:
                        stream = await stack.enter_async_context(await _deaf(daemon))
                        nursery.start_soon(_ask, stream, ask)
                    await trial.more(2_000)
                    grown = daemon.resident_bytes() - before
                    nursery.cancel_scope.cancel()
                trial.injected(len(ASKS) * CONNECTIONS)
            assert grown < GROWTH_BYTES_MAX, f"grown by {grown:,} bytes"
            started = trio.current_time()
            await trial.finish_with(daemon)
            stopped_s = trio.current_time() - started
            assert stopped_s < STOP_S_MAX
            trial.remarks[f"stopped within {10 * (int(stopped_s) // 10 + 1)} s"] += 1


async def _deaf(daemon: Daemon) -> trio.SocketStream:
    """Connect with the smallest buffer for what comes in."""
    sock = trio.socket.socket()
    sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 1)
    await sock.connect(("127.0.0.1", int(daemon.url.rpartition(":")[2])))
    return trio.SocketStream(sock)


async def _ask(stream: trio.SocketStream, ask: bytes) -> None:
    try:
        await stream.send_all(ask * REQUESTS)
    except trio.BrokenResourceError:
        return  # the daemon has had enough
