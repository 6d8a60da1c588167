"""Resident memory at full load, and when the daemon is offered far more than it can take."""

from __future__ import annotations

import resource
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from statistics import mean
from typing import Final

import msgspec
import trio

from benchmarks.advice import teach
from benchmarks.bench import Bench
from benchmarks.contest import Contest, Figure, Run, Unmeasured
from benchmarks.events import check_stored, last_seq
from benchmarks.load import BATCHES, REPORTED_BATCHES, SINGLES, Load, press
from benchmarks.payload import VARIATIONS, event
from benchmarks.rivals import Server, running_ours
from tests.machine import free_bytes
from tests.processes import sample_memory

_WIDE: Final = [
    {**event(number), "error": f"timeout of unit {number} \U0001f600 {'lorem ipsum dolor ' * 400}", "success": False}
    for number in range(VARIATIONS)
]
"""Failures of 7 KB, each of whose characters takes four bytes in memory, since one of them does."""

BATCHED: Final = "batches, c=16"
MEMORY_RATE: Final = "per_second"
LOADS: Final[Mapping[str, tuple[Load, int]]] = {
    "events, c=256": (SINGLES, 256),
    "failures of 7 KB with an emoji, c=256": (Load("/event", tuple(map(msgspec.json.encode, _WIDE)), 1), 256),
    BATCHED: (BATCHES, 16),
    "too many batches, c=2,000": (BATCHES, 2_000),
    "batches as `Observer` sends them, c=16": (REPORTED_BATCHES, 16),
    "too many batches as `Observer` sends them, c=2,000": (REPORTED_BATCHES, 2_000),
}
"""Sixteen connections saturate the daemon with batches: 2,000 offer more than 100 times that at once."""
HOARDERS: Final = 9_500
"""Connections that hold what they have; the daemon takes 10,000."""


def _request(line: str, header: str = "", body: bytes = b"") -> bytes:
    return f"{line} HTTP/1.1\r\nHost: localhost\r\n{header}".encode() + body


def _unread(path: str) -> bytes:
    return _request(f"GET {path}", "Connection: close\r\n\r\n")


async def _nothing(_bench: Bench, _server: Server) -> None:
    pass


async def _some_ops(bench: Bench, server: Server) -> None:
    await press(bench, server, SINGLES, 16, seconds=1, warm=False)


async def _a_full_playbook(_bench: Bench, server: Server) -> None:
    await teach(server)


@dataclass(frozen=True)
class Hoard:
    """What each of the connections sends, and what the daemon holds before. Whoever is let go of comes back."""

    sent: bytes
    held: Callable[[Bench, Server], Awaitable[None]] = _nothing


HOARDS: Final[Mapping[str, Hoard]] = {
    f"{HOARDERS:,} connections that have asked for /health": Hoard(_request("GET /health", "\r\n")),
    f"{HOARDERS:,} requests for 1,000 ops, of which nothing is read": Hoard(_unread("/ops?limit=1000"), _some_ops),
    f"{HOARDERS:,} requests for 1,000 failures, likewise": Hoard(_unread("/failures?limit=1000"), _a_full_playbook),
    f"{HOARDERS:,} requests for 1,000 entries, likewise": Hoard(_unread("/playbook?limit=1000"), _a_full_playbook),
    f"{HOARDERS:,} heads of 16 KB, unfinished": Hoard(_request("GET /health", "X: ", b"x" * 16_000)),
    f"{HOARDERS:,} events of 8 KB, unfinished": Hoard(
        _request("POST /event", "Content-Length: 8000\r\n\r\n", b"x" * 7_900)
    ),
    f"{HOARDERS:,} chunked events, unfinished": Hoard(
        _request("POST /event", "Transfer-Encoding: chunked\r\n\r\n2000\r\n", b"x" * 8_000)
    ),
}
CONTESTANTS: Final = (*LOADS, *HOARDS)
DISK_BYTES: Final = 25_000_000_000
"""Half a million events a second, for a minute, before compression."""
WARM_SECONDS: Final = 10
FLAT: Final = 1.1
READ_LATE_SECONDS: Final = 8.0
"""Long enough to hold what is held, and shorter than the daemon waits for a client that does not read."""

MEMORY: Final = Contest(
    "memory",
    "Resident memory at full load",
    "Sampled every second from /proc, after ten seconds of the same load (three with `--quick`). Flat: the mean of the"
    f" last third of the samples is below {FLAT} × that of the first third. Once. Below the loads: connections that"
    " take up what they can, and give nothing; whoever is let go of comes back.",
    (
        Figure("max_mb", "most, MB", "{:.0f}"),
        Figure("first_third_mb", "first third, MB", "{:.0f}"),
        Figure("last_third_mb", "last third, MB", "{:.0f}"),
        Figure("growth", "last / first", "{:.2f}"),
        Figure("seconds", "s"),
        Figure(MEMORY_RATE, "events/s"),
        Figure("not_2xx", "not 2xx"),
        Figure("broken", "broken"),
    ),
    once=True,
)


def runs(bench: Bench) -> dict[str, Run]:
    """Give the loads, and the hoards."""
    loads = {name: partial(_loaded, bench, *load) for name, load in LOADS.items()}
    return {**loads, **{name: partial(_hoarded, bench, hoard) for name, hoard in HOARDS.items()}}


async def _loaded(bench: Bench, load: Load, connections: int) -> Mapping[str, float]:
    if load.events > 1 and free_bytes(bench.folder) < DISK_BYTES:
        raise Unmeasured(f"a minute of batches may write {DISK_BYTES / 1e9:.0f} GB, and there is less room")
    samples: list[int] = []
    async with running_ours(bench) as server, trio.open_nursery() as nursery:
        await press(bench, server, load, connections, seconds=_warm_seconds(bench), warm=False)
        before = await last_seq(server)
        nursery.start_soon(sample_memory, server.pid, samples)
        figures = await press(bench, server, load, connections, seconds=bench.memory_seconds, warm=False)
        nursery.cancel_scope.cancel()
        await check_stored(server, figures["acknowledged"], since=before)
    return {**figures, **_figures(bench, samples)}


async def _hoarded(bench: Bench, hoard: Hoard) -> Mapping[str, float]:
    files = HOARDERS + 500  # so many each: the daemon inherits the limit
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < files:
        raise Unmeasured(f"a process may open {most:,} files here, and {files:,} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    samples: list[int] = []
    async with running_ours(bench) as server:
        await hoard.held(bench, server)
        async with trio.open_nursery() as nursery:
            for _ in range(HOARDERS):
                nursery.start_soon(_keep_sending, server.port, hoard.sent)
            await trio.sleep(_warm_seconds(bench))
            nursery.start_soon(sample_memory, server.pid, samples)
            await trio.sleep(bench.memory_seconds)
            nursery.cancel_scope.cancel()
    return _figures(bench, samples)


async def _keep_sending(port: int, sent: bytes) -> None:
    """Connect, send, and wait until the connection is closed, again and again."""
    while True:
        with suppress(OSError, trio.BrokenResourceError):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(sent)
                await trio.sleep(READ_LATE_SECONDS)
                async for _ in stream:
                    pass


def _warm_seconds(bench: Bench) -> int:
    return min(WARM_SECONDS, bench.memory_seconds)


def _figures(bench: Bench, samples: list[int]) -> Mapping[str, float]:
    third = max(1, len(samples) // 3)
    first, last = mean(samples[:third]), mean(samples[-third:])
    return {
        "max_mb": max(samples) / 1e6,
        "first_third_mb": first / 1e6,
        "last_third_mb": last / 1e6,
        "growth": last / first,
        "seconds": bench.memory_seconds,
    }
