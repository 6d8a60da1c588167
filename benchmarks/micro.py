"""The hot functions by themselves: nanoseconds an event. They guard against a slip; nothing is judged by them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.bench import ROOT, Bench
from benchmarks.contest import Contest, Figure, Run
from benchmarks.hot import COMMITS, HOSTS, PASSES
from benchmarks.load import run_to_its_end
from benchmarks.payload import BATCH_EVENTS
from benchmarks.rivals import fresh_folder

MICRO: Final = Contest(
    "micro",
    "The hot functions by themselves",
    f"By pytest-benchmark: each is called over and over on {BATCH_EVENTS} events of the usual kind, `Observer` on as"
    " many operations; best, median and worst pass, in nanoseconds an event. Once.",
    (
        Figure("median_ns", "ns an event, median"),
        Figure("best_ns", "best"),
        Figure("worst_ns", "worst"),
    ),
    once=True,
    without_wrk=True,
)
SECONDS_MAX: Final = 120.0
_TESTS: Final = Path(__file__).with_name("test_hot.py")


def runs(bench: Bench) -> dict[str, Run]:
    """Give the functions; the first one that is asked for times them all."""
    timed: dict[str, Mapping[str, float]] = {}

    async def one(name: str) -> Mapping[str, float]:
        if not timed:
            timed.update(await _time(bench))
        return timed[name]

    return {name: partial(one, name) for name in (*PASSES, *COMMITS, *HOSTS)}


async def _time(bench: Bench) -> dict[str, Mapping[str, float]]:
    async with fresh_folder(bench, "micro") as folder:
        report = folder / "report.json"
        seconds = min(0.5, bench.seconds)
        options = ["--benchmark-enable", f"--benchmark-json={report}", f"--benchmark-max-time={seconds}", "-q"]
        command = [sys.executable, "-m", "pytest", str(_TESTS), *options, "-p", "no:cacheprovider", "--no-cov"]
        bench.note_command("pytest-benchmark", ["python", *command[1:3], "benchmarks/test_hot.py", *options])
        await run_to_its_end(command, folder, SECONDS_MAX, cwd=ROOT)
        found: Any = msgspec.json.decode(report.read_bytes())
    return {test["param"]: _figures(test["stats"]) for test in found["benchmarks"]}


def _figures(stats: Mapping[str, float]) -> Mapping[str, float]:
    each = 1e9 / BATCH_EVENTS
    return {"median_ns": stats["median"] * each, "best_ns": stats["min"] * each, "worst_ns": stats["max"] * each}
