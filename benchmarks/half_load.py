"""Latency of a single POST at half of what the daemon takes, at a constant rate (see `pacing`)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import trio

from benchmarks.bench import ROOT, Bench
from benchmarks.contest import Contest, Figure, Run
from benchmarks.events import BARE, EVENT_C32, OURS
from benchmarks.load import LATE_SECONDS_MAX, SINGLES, press
from benchmarks.pacing import CONNECTIONS, Paced
from benchmarks.rivals import Server, fresh_folder, running_bare, running_ours
from tests.parity.program import ProgramFailed, end_of, own_environment, started

__all__ = ["HALF_LOAD", "runs"]

HALF_LOAD: Final = Contest(
    "half-load",
    "A single POST at half load",
    "A constant rate of half the median measured at 32 connections in this run, sent by a client of our own in another"
    f" process over {CONNECTIONS} connections; latency counts from the time at which a request was due, so that what"
    " the client itself was late is in it (and shown). Bare HTTP at the same rate is what client and loop cost alone.",
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
    ),
)


def runs(bench: Bench) -> dict[str, Run]:
    """Give what is measured: ours, and the client's own limit at the same rate."""
    return {OURS: partial(_paced, bench, running_ours), BARE: partial(_paced, bench, running_bare)}


async def _paced(bench: Bench, running: Callable[[Bench], AbstractAsyncContextManager[Server]]) -> Mapping[str, float]:
    rate = await _full_rate(bench) / 2
    async with running(bench) as server, fresh_folder(bench, "paced") as folder:
        await _run(bench, server, rate, folder / "said")
        said = msgspec.json.decode((folder / "said").read_bytes(), type=Paced)
    if said.failed or said.unanswered:
        raise ProgramFailed(f"{said.failed:,} requests failed and {said.unanswered:,} had no answer")
    return {name: float(value) for name, value in msgspec.structs.asdict(said).items()}


async def _run(bench: Bench, server: Server, rate: float, log: Path) -> None:
    """Run the client in a process of its own."""
    paced = [str(server.port), f"{rate:.0f}", f"{bench.seconds:g}", f"{bench.warm_seconds:g}"]
    command = [sys.executable, "-m", "benchmarks.pacing", *paced]
    bench.note_command("constant rate", ["python", *command[1:]])
    async with started(command, folder=ROOT, env=own_environment(), log=log) as process:
        with trio.fail_after(bench.seconds + bench.warm_seconds + LATE_SECONDS_MAX):
            code = await process.wait()
    if code:
        raise ProgramFailed(f"the constant-rate client exited with {code}: {end_of(log)}")


async def _full_rate(bench: Bench) -> float:
    """Give the rate that is halved: the median of this run, or one measurement now when there is none."""
    known = bench.results.median(EVENT_C32.name, OURS, "per_second")
    if known is not None:
        return known
    async with running_ours(bench) as server:
        figures = await press(bench, server, SINGLES, 32)
    bench.results.add(EVENT_C32.name, OURS, figures)
    return figures["per_second"]
