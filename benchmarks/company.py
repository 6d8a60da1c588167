"""Ingest while others use the daemon: a slow reader of /tail, someone who polls /stats, and a cycle."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Final

import httpx
import trio

from benchmarks.bench import Bench
from benchmarks.contest import Contest, Figure, Run
from benchmarks.events import check_stored, warmed
from benchmarks.load import SINGLES, press
from benchmarks.rivals import Server, running_ours

ALONE: Final = "alone"
IN_COMPANY: Final = "in company"
CONNECTIONS: Final = 32
TAIL_BYTES: Final = 16_384
TAIL_PAUSE_SECONDS: Final = 0.1
"""About 450 ops a second: far slower than they come."""
RECEIVE_BUFFER_BYTES: Final = 65_536
"""Or the kernel would take megabytes off the daemon's hands, and the reader were not slow for seconds."""
POLL_SECONDS: Final = 1.0
_TAIL: Final = b"GET /tail HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"

COMPANY: Final = Contest(
    "company",
    "Ingest in company",
    f"POST /event, 32 connections, wrk. In company: a reader of /tail takes {TAIL_BYTES:,} bytes every"
    f" {TAIL_PAUSE_SECONDS:g} s (and comes back when it is dropped), /stats is polled every second, and a cycle runs"
    " every second (OBSERVER_CYCLE=1). The clients' own processor time is taken from the same cores.",
    (
        Figure("per_second", "events/s", ranged=True),
        Figure("p99_ms", "p99 ms", "{:.2f}"),
        Figure("polls", "polls of /stats"),
        Figure("tail_bytes", "bytes read from /tail"),
        Figure("tails", "times connected to /tail"),
    ),
    against=ALONE,
)


def runs(bench: Bench) -> dict[str, Run]:
    """Give the contestants."""
    return {ALONE: partial(_alone, bench), IN_COMPANY: partial(_in_company, bench)}


async def _alone(bench: Bench) -> Mapping[str, float]:
    async with running_ours(bench) as server:
        return await press(bench, server, SINGLES, CONNECTIONS)


async def _in_company(bench: Bench) -> Mapping[str, float]:
    counts = {"polls": 0.0, "tail_bytes": 0.0, "tails": 0.0}
    async with running_ours(bench, environment={"OBSERVER_CYCLE": "1"}) as server, trio.open_nursery() as nursery:
        nursery.start_soon(_poll, server, counts)
        nursery.start_soon(read_slowly, server, counts)
        before = await warmed(bench, server, SINGLES, CONNECTIONS)
        figures = await press(bench, server, SINGLES, CONNECTIONS, warm=False)
        nursery.cancel_scope.cancel()
        await check_stored(server, figures["acknowledged"], since=before)
    return {**figures, **counts}


async def _poll(server: Server, counts: dict[str, float]) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        while True:
            (await client.get(f"{server.url}/stats")).raise_for_status()
            counts["polls"] += 1
            await trio.sleep(POLL_SECONDS)


async def read_slowly(server: Server, counts: dict[str, float]) -> None:
    """Read /tail slowly, and come back when dropped: asked to, the daemon closes after the last chunk."""
    while True:
        reader = trio.socket.socket()
        reader.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        with reader, suppress(ConnectionResetError):  # dropped less kindly
            await reader.connect(("127.0.0.1", server.port))
            counts["tails"] += 1
            await reader.send(_TAIL)  # so few bytes go at once
            while data := await reader.recv(TAIL_BYTES):
                counts["tail_bytes"] += len(data)
                await trio.sleep(TAIL_PAUSE_SECONDS)
