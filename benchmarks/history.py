"""What a long history costs: throughput, start and queries with many ops on disk."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
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
from benchmarks.rivals import Server, fresh_folder, running_ours
from observer_actors.op import iso_milliseconds
from tests.parity.program import ProgramFailed
from tests.processes import resident_bytes

EMPTY: Final = "empty journal"
FULL: Final = "full journal"
FULL_COLD: Final = "full journal, not in memory"
PAGE: Final = 100
POSITIONS: Final = tuple(share / 100 for share in (1, 12, 25, 37, 50, 62, 75, 87, 99))
CONNECTIONS: Final = 32
HOUR_OPS: Final = 3_600_000_000 // STEP_US

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
    " just started, over one connection, without a warm-up; every answer is checked to hold the ops that it"
    " must." + _DATA,
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
        EMPTY: partial(_start, bench, full=False),
        FULL: partial(_start, bench, full=True),
        FULL_COLD: partial(_start, bench, full=True, cold=True),
    }


def query_runs(bench: Bench) -> dict[str, Run]:
    """Give the contestants: kinds of query."""
    return {name: partial(_query, bench, query) for name, query in ASKED.items()}


@asynccontextmanager
async def _running(bench: Bench, *, full: bool, cold: bool = False) -> AsyncIterator[Server]:
    """Run our daemon over an empty journal, or over a copy of the full one, which may be in memory or not."""
    async with fresh_folder(bench, "history") as folder:
        data = folder / "data"
        if full:
            await trio.to_thread.run_sync(clone, await full_journal(bench), data)
        if cold:
            await trio.to_thread.run_sync(forget_pages, data)
        async with running_ours(bench, data) as server:
            yield server


async def _throughput(bench: Bench, *, full: bool) -> Mapping[str, float]:
    async with _running(bench, full=full) as server:
        await check_stored(server, bench.ops if full else 0)
        before = await warmed(bench, server, SINGLES, CONNECTIONS)
        figures = await press(bench, server, SINGLES, CONNECTIONS, warm=False)
        await check_stored(server, figures["acknowledged"], since=before)
        return figures


async def _start(bench: Bench, *, full: bool, cold: bool = False) -> Mapping[str, float]:
    async with _running(bench, full=full, cold=cold) as server:
        resident_mb = resident_bytes(server.pid) / 1e6
        await check_stored(server, bench.ops if full else 0)
        return {"seconds": server.start_seconds, "resident_mb": resident_mb}


@dataclass(frozen=True)
class Position:
    """Where in the journal is asked: a seq of so many ops, its time, and an hour later."""

    seq: int
    ops: int
    time: str
    later: str

    @property
    def older(self) -> range:
        """The seqs from there on back, newest first."""
        return range(self.seq, 0, -1)

    @property
    def newer(self) -> range:
        """The seqs from there on, oldest first."""
        return range(self.seq, self.ops + 1)

    @property
    def hour(self) -> range:
        """The seqs of the hour from there on, newest first: the op at its end is in the next one."""
        return self.newer[:HOUR_OPS][::-1]


Query = Callable[[Position], tuple[dict[str, object], range]]
"""Gives the parameters, and the seqs of all that they find, in the order of the answer."""

ASKED: Final[Mapping[str, Query]] = {
    "after_seq": lambda at: ({"after_seq": at.seq - 1}, at.newer),
    "before_seq": lambda at: ({"before_seq": at.seq + 1}, at.older),
    "since, oldest first": lambda at: ({"since": at.time, "order": "oldest"}, at.newer),
    "until, newest first": lambda at: ({"until": at.time}, at.older[1:]),  # before that time
    "an hour, newest first": lambda at: ({"since": at.time, "until": at.later}, at.hour),
}
QUERY_NAMES: Final = tuple(ASKED)


async def _query(bench: Bench, query: Query) -> Mapping[str, float]:
    began = first_time(await full_journal(bench))
    async with _running(bench, full=True) as server, httpx.AsyncClient(trust_env=False, timeout=60) as client:
        await client.get(server.url + "/health")  # the connection, and the web framework's first request
        took: list[float] = []
        for position in POSITIONS:
            seq = max(1, int(bench.ops * position))
            time_ = began + timedelta(microseconds=(seq - 1) * STEP_US)
            later = time_ + timedelta(hours=1)
            at = Position(seq, bench.ops, iso_milliseconds(time_), iso_milliseconds(later))
            took.append(await ask(client, server.url, *query(at)))
    return {"worst_ms": max(took), "median_ms": median(took)}


async def ask(client: httpx.AsyncClient, url: str, wanted: Mapping[str, object], found: range) -> float:
    """Ask for the first page; give the milliseconds it took.

    :param found: the seqs of all that is wanted, in the order of the answer.
    :raises ProgramFailed: it is not the page that was asked for.
    """
    address = f"{url}/ops?{urlencode({**wanted, 'limit': PAGE})}"
    began = time.perf_counter()
    response = await client.get(address)
    took_ms = (time.perf_counter() - began) * 1e3
    answer: Any = msgspec.json.decode(response.raise_for_status().content)
    page = found[:PAGE]
    if [op["seq"] for op in answer["ops"]] != list(page):
        raise ProgramFailed(f"GET /ops?{urlencode(wanted)} does not give the ops {page[0]} to {page[-1]}")
    return took_ms
