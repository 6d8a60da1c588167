"""Some seeds, and that a seed is a run: the same each time, and one that can fail. ``make faults`` runs thousands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.conftest import ROOT
from tests.simulation import world
from tests.simulation.disk import SimulatedDisk
from tests.simulation.network import Network
from tests.simulation.run import Broken
from tests.simulation.seeds import FAILED
from tests.simulation.simulate import simulate

pytestmark = pytest.mark.no_cover

SEEDS: Final = 12
FIRST: Final = int(os.environ.get("OBSERVER_SIMULATION_FIRST", "1"))
"""Another one runs other seeds."""
UNPLUGGED: Final = range(1, 30)
"""Among so many seeds power is lost again and again."""


@pytest.mark.parametrize("seed", [*FAILED, *range(FIRST, FIRST + SEEDS)])
def test_what_was_promised_holds(seed: int) -> None:
    run = simulate(seed)
    assert run.counts["ops"] > 0
    assert run.counts["starts"] > 0


def test_a_seed_is_the_same_run_to_the_byte_in_any_process(tmp_path: Path) -> None:
    traces = []
    for hash_seed in ("1", "2"):
        trace = tmp_path / hash_seed
        command = [sys.executable, "-m", "tests.simulation", "--seed", "3", "--trace", str(trace)]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        subprocess.run(command, env=environment, cwd=ROOT, check=True, capture_output=True, timeout=60)
        traces.append(trace.read_bytes())
    assert len(traces[0]) > 10_000
    assert traces[0] == traces[1]


def test_two_seeds_are_two_runs() -> None:
    assert simulate(1).digest != simulate(2).digest


class LyingDisk(SimulatedDisk):
    """Says that it has synced, and has not."""

    def unplugged(self, seed: int) -> SimulatedDisk:
        """Lose half of every file, synced or not."""
        for inode in self._names.values():
            inode.disk = inode.disk[: len(inode.disk) // 2]
            inode.states.clear()
            inode.memory[:] = inode.disk
        return super().unplugged(seed)


def complaint(seed: int, disk_kind: type[SimulatedDisk]) -> str:
    try:
        simulate(seed, disk_kind)
    except Broken as broken:
        return str(broken)
    return ""


def test_a_disk_that_lies_is_found_out_and_the_complaint_says_how_to_see_it_again() -> None:
    complaints = (complaint(seed, LyingDisk) for seed in UNPLUGGED)
    assert "\nagain: python -m tests.simulation --seed " in next(filter(None, complaints), "nobody has noticed")


@pytest.mark.parametrize(
    ("kept", "said"), [(0, "the gateway has received nothing"), (1, "messages were delivered, and the gateway has 1")]
)
def test_messages_that_get_lost_are_found_out(monkeypatch: pytest.MonkeyPatch, kept: int, said: str) -> None:
    class ForgetfulGateway(Network):
        """Says that it takes each message, and keeps the first ones."""

        async def exchange(self, request: httpx.Request) -> httpx.Response:
            response = await super().exchange(request)
            del self.received[kept:]
            return response

    monkeypatch.setattr(world, "Network", ForgetfulGateway)
    assert said in complaint(FIRST, SimulatedDisk)
