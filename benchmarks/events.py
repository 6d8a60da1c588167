"""POST of events, one by one and in batches: ours, the seed, Redis, and HTTP with nothing behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Final

import msgspec

from benchmarks.bench import Bench
from benchmarks.contest import Contest, Figure, Run
from benchmarks.load import BATCHES, REPORTED, REPORTED_BATCHES, SINGLES, Load, press, press_redis, warm_up
from benchmarks.payload import BATCH_EVENTS, EVENT_BYTES, RUN_EVENTS, VARIATIONS
from benchmarks.rivals import Server, running_bare, running_ours, running_redis, running_the_seed
from tests.parity.program import ProgramFailed

OURS: Final = "ours"
REPORTED_TO_OURS: Final = "ours, events as `Observer` sends them"
SEED: Final = "the seed"
REDIS: Final = "Redis"
REDIS_TWO: Final = "Redis, two threads of redis-benchmark"
REDIS_ROWS: Final = (REDIS, REDIS_TWO)
"""The faster of them in a round is what Redis can do: of either the load generator may be the limit."""
BARE: Final = "bare HTTP"

_FIGURES: Final = (
    Figure("per_second", "events/s", ranged=True),
    Figure("p50_ms", "p50 ms", "{:.2f}"),
    Figure("p99_ms", "p99 ms", "{:.2f}"),
    Figure("cpu_us", "server, µs an event", "{:.1f}"),
    Figure("server_cpu", "server, cores", "{:.2f}"),
    Figure("generator_cpu", "load generator, cores", "{:.2f}"),
    Figure("generator_max", "it could send"),
    Figure("behind_ops", "ops left to catch up"),
    Figure("not_2xx", "not 2xx"),
    Figure("broken", "broken"),
)
_HOW: Final = (
    f"Events of {EVENT_BYTES} bytes. An answer of ours means that fdatasync has returned; of the seed, that the event"
    " is in memory; of Redis, that the append-only file was synced; of bare HTTP, nothing: it is the usual server on"
    " trio and httptools, a task a connection, that answers at once. A load generator has one thread; what it could"
    " send with a processor of its own is what it sent, divided by the share of one that it took. Where that is little"
    " more than what it sent, the generator was measured rather than the server: so Redis has a second row, with two"
    " threads of redis-benchmark, and the targets compare with the faster of both, round by round. That sends one event"
    f" of {EVENT_BYTES} bytes again and again, where the others get {VARIATIONS} variations in turn. The latencies here"
    " are those of a saturated server. Ops left to catch up are what the slowest consumer of ours, mostly the playbook,"
    " has yet to take in as the load ends: it does so afterwards, from the journal, and the rate does not pay for that."
    " As `Observer` sends them, events have what the seed and its callers did not know, and what nobody compares: an id"
    " that none has had, by which one that comes again would be recognised, a time, and the name of a run, of"
    f" {RUN_EVENTS} events each; they are {len(REPORTED.bodies[1])} bytes long."
)
EVENT_C32: Final = Contest("event-c32", "POST /event, 32 connections", _HOW, _FIGURES, against=OURS)
EVENT_C256: Final = Contest("event-c256", "POST /event, 256 connections", _HOW, _FIGURES, against=OURS)
BATCH: Final = Contest(
    "batch",
    f"{BATCH_EVENTS} events a request, NDJSON, 16 connections",
    f"POST /events with {BATCH_EVENTS} events of {EVENT_BYTES} bytes; Redis: XADD in a pipeline of {BATCH_EVENTS},"
    f" always of one event, where ours gets {BATCH_EVENTS * len(BATCHES.bodies):,} different ones in turn. The second"
    " row is as above.",
    _FIGURES,
    against=OURS,
)
BATCH_CONNECTIONS: Final = 16


def runs(bench: Bench, connections: int) -> dict[str, Run]:
    """Give the contestants of single events."""
    return {
        OURS: partial(_ours, bench, SINGLES, connections),
        REPORTED_TO_OURS: partial(_ours, bench, REPORTED, connections),
        SEED: partial(_pressed, bench, running_the_seed, connections),
        REDIS: partial(_redis, bench, connections, 1),
        REDIS_TWO: partial(_redis, bench, connections, 1, threads=2),
        BARE: partial(_pressed, bench, running_bare, connections),
    }


def batch_runs(bench: Bench) -> dict[str, Run]:
    """Give the contestants of batches."""
    return {
        OURS: partial(_ours, bench, BATCHES, BATCH_CONNECTIONS),
        REPORTED_TO_OURS: partial(_ours, bench, REPORTED_BATCHES, BATCH_CONNECTIONS),
        REDIS: partial(_redis, bench, BATCH_CONNECTIONS, BATCH_EVENTS),
    }


async def check_stored(server: Server, acknowledged: float, *, since: int = 0) -> None:
    """Compare what wrk was told with what our daemon says it holds.

    It may hold more: what was under way at either end was answered to nobody who counts.

    :param since: the daemon's `last_seq` before what was acknowledged.
    :raises ProgramFailed: it has taken in fewer events than it acknowledged.
    """
    held = await last_seq(server) - since
    if held < acknowledged:
        raise ProgramFailed(f"{acknowledged:,.0f} events were acknowledged, and the journal has {held:,} more")


async def warmed(bench: Bench, server: Server, load: Load, connections: int) -> int:
    """Warm our daemon up, and give its `last_seq` then."""
    await warm_up(bench, server, load, connections)
    return await last_seq(server)


async def last_seq(server: Server) -> int:
    """Give how many ops our daemon says it holds."""
    return int(msgspec.json.decode(await server.get("/health"))["last_seq"])


async def _ours(bench: Bench, load: Load, connections: int) -> Mapping[str, float]:
    async with running_ours(bench) as server:
        before = await warmed(bench, server, load, connections)
        figures = await press(bench, server, load, connections, warm=False)
        behind = await behind_ops(server)
        await check_stored(server, figures["acknowledged"], since=before)
        return {**figures, "behind_ops": behind}


async def _pressed(
    bench: Bench, running: Callable[[Bench], AbstractAsyncContextManager[Server]], connections: int
) -> Mapping[str, float]:
    async with running(bench) as server:
        return await press(bench, server, SINGLES, connections)


async def _redis(bench: Bench, connections: int, pipeline: int, threads: int = 1) -> Mapping[str, float]:
    bench.tool("redis-benchmark")
    async with running_redis(bench) as server:
        return await press_redis(bench, server, connections=connections, pipeline=pipeline, threads=threads)


async def behind_ops(server: Server) -> float:
    """Give how far the slowest consumer of ours is behind: work that the rate just measured has put off."""
    return await metric(server, "observer_consumer_behind_ops")


async def metric(server: Server, name: str) -> float:
    """Give a metric of ours, with labels the largest; 0 when there is none."""
    metrics = (await server.get("/metrics")).splitlines()
    return max((float(line.split()[-1]) for line in metrics if line.startswith((f"{name} ", f"{name}{{"))), default=0)
