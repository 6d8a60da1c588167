"""What a caller of single events, and who asks whether the daemon lives, notice of those who send much."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from functools import partial
from math import ceil
from typing import Any, Final

import httpx
import msgspec
import trio

from benchmarks.bench import Bench
from benchmarks.contest import Contest, Figure, Run
from benchmarks.events import last_seq
from benchmarks.half_load import paced
from benchmarks.load import BATCHES, LATE_SECONDS_MAX, Load, press
from benchmarks.payload import batches
from benchmarks.rivals import Server, running_ours
from tests.parity.program import ProgramFailed

CONNECTIONS: Final = 16
RATE: Final = 100.0
POLL_SECONDS: Final = 0.1
UNUSUAL_SOURCE: Final = "elsewhere"
UNUSUAL_TIMES: Final = 3
NEIGHBOURS: Final = Contest(
    "neighbours",
    "A caller beside others who send much",
    f"{RATE:g} single events a second at a constant rate, as at half load, and GET /health every {POLL_SECONDS:g} s:"
    f" alone; beside {CONNECTIONS} callers who send batches of {BATCHES.events} as fast as they are answered; and"
    f" beside as many whose batches of {BATCHES.events * UNUSUAL_TIMES:,} name a source that is not known, so that each"
    " event is judged by itself. The batches begin before the events do, and go on until those are answered; their rate"
    " is of what the daemon has taken in meanwhile.",
    (
        Figure("p50_ms", "POST /event, p50 ms", "{:.2f}"),
        Figure("p99_ms", "p99 ms", "{:.2f}", ranged=True),
        Figure("max_ms", "max ms", "{:.2f}"),
        Figure("health_p50_ms", "GET /health, p50 ms", "{:.2f}"),
        Figure("health_max_ms", "max ms", "{:.2f}"),
        Figure("batched_per_second", "events/s in batches"),
    ),
)


def runs(bench: Bench) -> dict[str, Run]:
    """Give what is measured."""
    return {
        "alone": partial(_beside, bench, None),
        "beside batches": partial(_beside, bench, BATCHES),
        "beside unusual batches": partial(_beside, bench, _unusual()),
    }


def _unusual() -> Load:
    """Make batches of events that need a second look, each the events of several usual ones."""
    bodies = tuple(b"\n".join(map(_renamed, body.split(b"\n") * UNUSUAL_TIMES)) for body in batches())
    return Load("/events", bodies, BATCHES.events * UNUSUAL_TIMES)


def _renamed(line: bytes) -> bytes:
    event: dict[str, Any] = msgspec.json.decode(line)
    return msgspec.json.encode({**event, "source": UNUSUAL_SOURCE})


async def _beside(bench: Bench, load: Load | None) -> Mapping[str, float]:
    asked: list[float] = []
    async with running_ours(bench) as server, trio.open_nursery() as nursery:
        if load is not None:
            nursery.start_soon(_press_on, bench, server, load)
            await trio.sleep(bench.warm_seconds)
        nursery.start_soon(_poll, server, asked)
        before, began = await last_seq(server), time.perf_counter()
        figures = await paced(bench, server, RATE)
        taken_in, took = await last_seq(server) - before, time.perf_counter() - began
        nursery.cancel_scope.cancel()
    return {
        **figures,
        "health_p50_ms": statistics.median(asked),
        "health_max_ms": max(asked),
        "batched_per_second": taken_in / took - RATE if load is not None else 0.0,
    }


async def _press_on(bench: Bench, server: Server, load: Load) -> None:
    """Send batches until cancelled, in one run of the load generator: between two of them nothing would be sent.

    :raises ProgramFailed: it has ended before.
    """
    longest = ceil(2 * bench.warm_seconds + bench.seconds + 2 * LATE_SECONDS_MAX)
    await press(bench, server, load, CONNECTIONS, seconds=longest, warm=False)
    raise ProgramFailed("the batches ended before the events beside them")


async def _poll(server: Server, asked: list[float]) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        while True:
            began = time.perf_counter()
            (await client.get(f"{server.url}/health")).raise_for_status()
            asked.append((time.perf_counter() - began) * 1e3)
            await trio.sleep(POLL_SECONDS)
