"""What a long history costs: throughput, start and queries with many ops on disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from statistics import median
from typing import Any, Final
from urllib.parse import urlencode

import httpx
import msgspec
import trio

from benchmarks.bench import Bench
from benchmarks.contest import Contest, Figure, Run
from benchmarks.events import check_stored, warmed
from benchmarks.journal_data import STEP_US, clone, first_time, forget_pages, full_journal
from benchmarks.load import SINGLES, press
from benchmarks.processes import resident_bytes
from benchmarks.rivals import fresh_folder, running_ours
from observer_actors.op import iso_milliseconds
from tests.parity.program import ProgramFailed

EMPTY: Final = "empty journal"
FULL: Final = "full journal"
FULL_COLD: Final = "full journal, not in memory"
PAGE: Final = 100
POSITIONS: Final = tuple(share / 100 for share in (1, 12, 25, 37, 50, 62, 75, 87, 99))
CONNECTIONS: Final = 32

_DATA: Final = (
    " The full journal holds as many ops as said under Machine; it was made by the journal's writer, compressed, and"
    " taken in once by the daemon. Each run gets a copy."
)
THROUGHPUT: Final = Contest(
    "history-throughput",
    "Throughput with a full journal",
    "POST /event, 32 connections, wrk." + _DATA,
    (
        Figure("per_second", "events/s", ranged=True),
        Figure("p99_ms", "p99 ms", "{:.2f}"),
        Figure("server_cpu", "server, cores", "{:.2f}"),
    ),
    against=EMPTY,
)
START: Final = Contest(
    "history-start",
    "Start with a full journal",
    "From spawning the process to the first 200 of `GET /ready`, with its modules compiled, as they are where it is"
    " installed; without a warm-up. Not in memory: the kernel was asked to drop every page of the data directory"
    " beforehand (Python's own files stay)." + _DATA,
    (
        Figure("seconds", "s", "{:.3f}", ranged=True),
        Figure("resident_mb", "resident MB when ready", "{:.0f}"),
    ),
    without_wrk=True,
)
QUERIES: Final = Contest(
    "history-queries",
    "First page of /ops over a full journal",
    f"{PAGE} ops a page, at {len(POSITIONS)} positions from the oldest to the newest ops, each asked once of a daemon"
    " just started, over one connection, without a warm-up; every answer is checked to begin where it must." + _DATA,
    (
        Figure("worst_ms", "worst ms", "{:.1f}", ranged=True),
        Figure("median_ms", "median ms", "{:.1f}"),
    ),
    without_wrk=True,
)


def throughput_runs(bench: Bench) -> dict[str, Run]:
    """Give the contestants."""
    return {EMPTY: partial(_throughput, bench, full=False), FULL: partial(_throughput, bench, full=True)}


def start_runs(bench: Bench) -> dict[str, Run]:
    """Give the contestants."""
    return {
        EMPTY: partial(_start_empty, bench),
        FULL: partial(_start, bench, cold=False),
        FULL_COLD: partial(_start, bench, cold=True),
    }


def query_runs(bench: Bench) -> dict[str, Run]:
    """Give the contestants: kinds of query."""
    return {name: partial(_query, bench, make) for name, make in _QUERIES.items()}


async def _throughput(bench: Bench, *, full: bool) -> Mapping[str, float]:
    async with fresh_folder(bench, "history") as folder:
        data = folder / "data"
        if full:
            await trio.to_thread.run_sync(clone, await full_journal(bench), data)
        async with running_ours(bench, data) as server:
            await check_stored(server, bench.ops if full else 0)
            before = await warmed(bench, server, SINGLES, CONNECTIONS)
            figures = await press(bench, server, SINGLES, CONNECTIONS, warm=False)
            await check_stored(server, figures["acknowledged"], since=before)
            return figures


async def _start_empty(bench: Bench) -> Mapping[str, float]:
    async with running_ours(bench) as server:
        return {"seconds": server.start_seconds, "resident_mb": resident_bytes(server.pid) / 1e6}


async def _start(bench: Bench, *, cold: bool) -> Mapping[str, float]:
    source = await full_journal(bench)
    async with fresh_folder(bench, "history") as folder:
        data = folder / "data"
        await trio.to_thread.run_sync(clone, source, data)
        if cold:
            await trio.to_thread.run_sync(forget_pages, data)
        async with running_ours(bench, data) as server:
            resident_mb = resident_bytes(server.pid) / 1e6
            await check_stored(server, bench.ops)
            return {"seconds": server.start_seconds, "resident_mb": resident_mb}


_Ask = Callable[[int, str, str], tuple[dict[str, object], int]]
"""(seq, its time, an hour later) -> parameters, and the seq of the first op of the answer; 0 when that is not known."""

_QUERIES: Final[Mapping[str, _Ask]] = {
    "after_seq": lambda seq, _time, _later: ({"after_seq": seq - 1}, seq),
    "before_seq": lambda seq, _time, _later: ({"before_seq": seq + 1}, seq),
    "since, oldest first": lambda seq, time, _later: ({"since": time, "order": "oldest"}, seq),
    "until, newest first": lambda seq, time, _later: ({"until": time}, seq),
    "an hour, newest first": lambda _seq, time, later: ({"since": time, "until": later}, 0),
}
QUERY_NAMES: Final = tuple(_QUERIES)


async def _query(bench: Bench, make: _Ask) -> Mapping[str, float]:
    source = await full_journal(bench)
    began = first_time(source)
    async with fresh_folder(bench, "history") as folder:
        data = folder / "data"
        await trio.to_thread.run_sync(clone, source, data)
        async with running_ours(bench, data) as server, httpx.AsyncClient(trust_env=False, timeout=60) as client:
            await client.get(server.url + "/health")  # the connection, and the web framework's first request
            took: list[float] = []
            for position in POSITIONS:
                seq = max(1, int(bench.ops * position))
                time_ = began + timedelta(microseconds=(seq - 1) * STEP_US)
                wanted, first = make(seq, iso_milliseconds(time_), iso_milliseconds(time_ + timedelta(hours=1)))
                took.append(await _ask(client, server.url, {**wanted, "limit": PAGE}, first))
    return {"worst_ms": max(took), "median_ms": median(took)}


async def _ask(client: httpx.AsyncClient, url: str, wanted: Mapping[str, object], first: int) -> float:
    """Ask for one page; give the milliseconds it took.

    :raises ProgramFailed: it is not the page that was asked for.
    """
    address = f"{url}/ops?{urlencode(wanted)}"
    began = time.perf_counter()
    response = await client.get(address)
    took_ms = (time.perf_counter() - began) * 1e3
    answer: Any = msgspec.json.decode(response.raise_for_status().content)
    if not answer["ops"] or (first and answer["ops"][0]["seq"] != first):
        raise ProgramFailed(f"GET /ops?{urlencode(wanted)} does not begin with op {first}")
    return took_ms
