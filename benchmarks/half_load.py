"""Latency of a single POST at half of what the daemon takes, at a constant rate (see `pacing`)."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Mapping
from functools import partial
from math import ceil
from pathlib import Path
from typing import Final

import httpx
import msgspec
import trio

from benchmarks.bench import ROOT, Bench
from benchmarks.contest import Contest, Figure, Run
from benchmarks.events import BARE, EVENT_C32, OURS, behind_ops, last_seq, metric
from benchmarks.load import BATCHES, LATE_SECONDS_MAX, SINGLES, press
from benchmarks.pacing import CONNECTIONS, Paced
from benchmarks.payload import events
from benchmarks.rivals import Server, fresh_folder, running_bare, running_ours
from observer_actors.settings import JournalSettings
from tests.harness import own_environment
from tests.parity.program import ProgramFailed, end_of, started

DISK: Final = "the disk alone"
LONGER_MAX: Final = 4
"""Times the run's usual time: of a quick run no more is asked."""
HALF_LOAD: Final = Contest(
    "half-load",
    "A single POST at half load",
    "A constant rate of half the median measured at 32 connections in this run, sent by a client of our own in another"
    f" process over {CONNECTIONS} connections; latency counts from the time at which a request was due, so that what"
    " the client itself was late is in it (and shown). Bare HTTP at the same rate is what client and loop cost alone."
    " The disk alone is the same rate with no client, no HTTP and no program around it: a loop that appends all that is"
    " due and syncs it, again and again. What it shows is the disk's, and the machine's own where that was elsewhere."
    " Ours is measured for as long as a segment takes to fill at that rate, so that about one is sealed and compressed"
    " meanwhile.",
    (
        Figure("p99_ms", "p99 ms", "{:.2f}", ranged=True),
        Figure("p50_ms", "p50 ms", "{:.2f}"),
        Figure("p90_ms", "p90 ms", "{:.2f}"),
        Figure("p999_ms", "p99.9 ms", "{:.2f}"),
        Figure("max_ms", "max ms", "{:.2f}"),
        Figure("wanted_per_second", "wanted/s"),
        Figure("per_second", "answered/s"),
        Figure("late_p99_ms", "client late, p99 ms", "{:.2f}"),
        Figure("waited", "waited for a connection"),
        Figure("behind_ops", "ops left to catch up"),
        Figure("seconds", "s"),
        Figure("seals", "segments sealed"),
    ),
)


def runs(bench: Bench) -> dict[str, Run]:
    """Give what is measured: ours, the client's own limit at the same rate, and the disk's."""
    return {
        OURS: partial(_ours, bench),
        BARE: partial(_bare, bench),
        DISK: partial(_synced, bench),
    }


async def _ours(bench: Bench) -> Mapping[str, float]:
    rate = await full_rate(bench) / 2
    async with running_ours(bench) as server:
        seconds = await _seconds_of_a_segment(bench, server, rate)
        before = await metric(server, "observer_journal_seals_total")
        figures = await paced(bench, server, rate, seconds)
        seals = await metric(server, "observer_journal_seals_total") - before
        return {**figures, "behind_ops": await behind_ops(server), "seconds": seconds, "seals": seals}


async def _seconds_of_a_segment(bench: Bench, server: Server, rate: float) -> float:
    """Give how long events take at this rate to fill the active file: in so long one is sealed, and compressed."""
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        (await client.post(server.url + BATCHES.path, content=BATCHES.bodies[0])).raise_for_status()
    line = await metric(server, "observer_journal_active_bytes") / await last_seq(server)
    whole = ceil(JournalSettings().segment_bytes_max / line / rate)
    return float(min(max(whole, bench.seconds), LONGER_MAX * bench.seconds))


async def _bare(bench: Bench) -> Mapping[str, float]:
    rate = await full_rate(bench) / 2
    async with running_bare(bench) as server:
        return await paced(bench, server, rate)


async def paced(bench: Bench, server: Server, rate: float, seconds: float | None = None) -> Mapping[str, float]:
    """Send events at a constant rate, after a warm-up at the same; give the figures.

    :param seconds: how long; the run's usual time unless given.
    :raises ProgramFailed: not all were answered with 200, after the warm-up.
    """
    async with fresh_folder(bench, "paced") as folder:
        await _run(bench, server, rate, seconds or bench.seconds, folder / "said")
        said = msgspec.json.decode((folder / "said").read_bytes(), type=Paced)
    if said.failed or said.unanswered:
        raise ProgramFailed(f"{said.failed:,} requests failed and {said.unanswered:,} had no answer")
    return {name: float(value) for name, value in msgspec.structs.asdict(said).items()}


async def _synced(bench: Bench) -> Mapping[str, float]:
    rate = await full_rate(bench) / 2
    async with fresh_folder(bench, "synced") as folder:
        file = folder / "file"
        await trio.to_thread.run_sync(_append_when_due, file, rate, bench.warm_seconds)
        waited = await trio.to_thread.run_sync(_append_when_due, file, rate, bench.seconds)
    shares = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99, "p999_ms": 0.999}
    times = {name: waited[int(share * len(waited))] * 1e3 for name, share in shares.items()}
    return {**times, "max_ms": waited[-1] * 1e3, "wanted_per_second": rate}


def _append_when_due(path: Path, rate: float, seconds: float) -> list[float]:
    """Append events that are due at a constant rate, all that are at once; give what each waited, ascending."""
    lines = [body + b"\n" for body in events()]
    waited: list[float] = []
    total = max(1, int(rate * seconds))
    gc.collect()
    gc.disable()
    try:
        with path.open("ab", buffering=0) as file:
            began = time.perf_counter()
            while (done := len(waited)) < total:
                due = min(total, int((time.perf_counter() - began) * rate) + 1)
                if due > done:  # and else it looks again at once: to sleep takes longer than it should
                    file.write(b"".join(lines[number % len(lines)] for number in range(done, due)))
                    os.fdatasync(file.fileno())
                    end = time.perf_counter() - began
                    waited += [end - number / rate for number in range(done, due)]
    finally:
        gc.enable()
    return sorted(waited)


async def _run(bench: Bench, server: Server, rate: float, seconds: float, log: Path) -> None:
    """Run the client in a process of its own."""
    paced = [str(server.port), f"{rate:.0f}", f"{seconds:g}", f"{bench.warm_seconds:g}"]
    command = [sys.executable, "-m", "benchmarks.pacing", *paced]
    bench.note_command("constant rate", ["python", *command[1:]])
    async with started(command, folder=ROOT, env=own_environment(), log=log) as process:
        with trio.fail_after(seconds + bench.warm_seconds + LATE_SECONDS_MAX):
            code = await process.wait()
    if code:
        raise ProgramFailed(f"the constant-rate client exited with {code}: {end_of(log)}")


async def full_rate(bench: Bench) -> float:
    """Give the rate of which half is sent: the median of this run, or one measurement now when there is none."""
    known = bench.results.median(EVENT_C32.name, OURS, "per_second")
    if known is not None:
        return known
    async with running_ours(bench) as server:
        figures = await press(bench, server, SINGLES, 32)
    bench.results.add(EVENT_C32.name, OURS, figures)
    return figures["per_second"]
