"""Running rounds, each in a process of its own: what hangs is ended, and what fails says how to run it again."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from random import Random
from typing import Final

import msgspec
from msgspec import Struct

from tests.conftest import ROOT
from tests.faults.scenario import ROUND_SECONDS_MAX, Scenario, Seen

EXIT_UNAVAILABLE: Final = 69
SEED_MAX: Final = 2**31
END_SECONDS_MAX: Final = 120.0
"""A round ends itself, and what it has started; one that does not is ended."""
SHOWN_CHARS_MAX: Final = 6_000


class Round(Struct, frozen=True):
    """One to be run."""

    scenario: str
    seed: int
    repeats: int


class Result(Struct, frozen=True):
    """All rounds of one scenario."""

    scenario: str
    kept: list[Seen] = []
    broken: list[Round] = []
    """Those in which the promise was not kept."""
    unavailable: str = ""
    """Why it was not run."""
    seconds: float = 0.0


def replay_command(round_: Round) -> str:
    """Give what runs a round again: the same choices, though not the same timing."""
    return f"python -m tests.faults --only {round_.scenario} --seed {round_.seed} --repeats {round_.repeats}"


def run_rounds(
    scenario: Scenario, *, seed: int, share: float, jobs: int, folder: Path, say: Callable[[str], None]
) -> Result:
    """Run a scenario's rounds.

    :param seed: of the campaign; each round has its own, which it decides.
    :param share: of the rounds of a whole campaign; one is run at least.
    :param jobs: rounds that run at the same time.
    :param folder: on the disk where the data directories are to lie.
    """
    started = time.monotonic()
    result = Result(scenario.name)
    rounds = list(_rounds(scenario, seed, max(1, round(scenario.rounds * share))))
    with ThreadPoolExecutor(jobs) as pool:
        ended = list(pool.map(partial(_run, folder=folder), rounds))
    for round_, done in zip(rounds, ended, strict=True):
        if done.returncode == EXIT_UNAVAILABLE:
            return Result(scenario.name, unavailable=done.stdout.strip())
        if done.returncode == 0:
            result.kept.append(msgspec.json.decode(done.stdout.splitlines()[-1], type=Seen))
            continue
        result.broken.append(round_)
        said = (done.stdout + done.stderr)[-SHOWN_CHARS_MAX:]
        say(f"{scenario.name}: not kept. Again: {replay_command(round_)}\n{said}")
    return msgspec.structs.replace(result, seconds=time.monotonic() - started)


def _rounds(scenario: Scenario, seed: int, count: int) -> Iterator[Round]:
    chance = Random(f"{seed} {scenario.name}")
    for _ in range(count):
        yield Round(scenario.name, chance.randrange(SEED_MAX), scenario.repeats)


def _run(round_: Round, *, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.faults", "--only", round_.scenario]
    command += ["--seed", str(round_.seed), "--repeats", str(round_.repeats), "--folder", str(folder)]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=ROUND_SECONDS_MAX + END_SECONDS_MAX, check=False, cwd=ROOT
        )
    except subprocess.TimeoutExpired as late:
        return subprocess.CompletedProcess(command, 1, "", f"no end within {late.timeout:.0f} s")
