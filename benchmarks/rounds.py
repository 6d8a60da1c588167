"""Contestants in turn, round after round: A B C, A B C, … so that what changes on the machine meets all of them."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from typing import Final

import httpx
import msgspec
import trio

from benchmarks.bench import Bench
from benchmarks.contest import Contest, Run, Unmeasured
from tests.parity.bun import Unavailable
from tests.parity.program import ProgramFailed

RUN_SECONDS_MAX: Final = 1_800.0
"""One run of one contestant, the making of ten million ops included."""
FAILURES: Final = (
    ProgramFailed,
    Unavailable,
    OSError,
    trio.TooSlowError,
    httpx.HTTPError,
    subprocess.SubprocessError,
    msgspec.MsgspecError,
    ArithmeticError,
    LookupError,
    ValueError,
)
"""What a program that goes wrong, or says what nobody expects, leads to: one round less, and not a run that is lost."""


async def hold(bench: Bench, contest: Contest, runs: Mapping[str, Run]) -> None:
    """Measure every contestant once a round. One that fails is noted, and the others go on."""
    rounds = 1 if contest.once else bench.rounds
    for number in range(1, rounds + 1):
        for contestant, run in runs.items():
            figures = await _one(bench, contest, contestant, run)
            bench.results.add(contest.name, contestant, figures)
            main = contest.main
            shown = f"{main.form.format(figures[main.name])} {main.label}" if main.name in figures else "no figure"
            bench.say(f"{contest.name}, round {number} of {rounds}, {contestant}: {shown}")


async def _one(bench: Bench, contest: Contest, contestant: str, run: Run) -> Mapping[str, float]:
    where = f"{contest.name}, {contestant}"
    try:
        with trio.fail_after(RUN_SECONDS_MAX):
            return await run()
    except* Unmeasured as absent:
        bench.results.remark(f"{where}: not measured: {_told(absent.exceptions)}")
    except* FAILURES as failed:
        bench.results.remark(f"{where}: a round failed: {_told(failed.exceptions)}")
    return {}


def _told(errors: Sequence[BaseException]) -> str:
    error: BaseException = errors[0]
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__
