"""How often the intervals of lift ever miss the truth, and how soon a harmful entry is found: `python -m tests.lift`.

Every stream is looked at after each of its runs. The seeds are 0, 1, 2 and so on.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable

from observer_actors.playbook.entries import State
from observer_actors.playbook.lift import Arm, Trial, lift
from observer_actors.playbook.states import ALPHA, RUNS_WITHOUT_USE_MAX, Standing, judged

Interval = Callable[[Trial, float], tuple[float, float]]


def _lift(trial: Trial, alpha: float) -> tuple[float, float]:
    found = lift(trial, alpha)
    return found.low, found.high


def misses(
    with_it: float,
    without_it: float,
    share: float,
    *,
    alpha: float,
    streams: int,
    runs: int,
    interval: Interval = _lift,
) -> float:
    """Give the share of streams whose interval misses the true difference at any look.

    :param share: of the control.
    """
    truth = with_it - without_it
    missed = 0
    for seed in range(streams):
        chance = random.Random(seed)
        counts = {(exposed, outcome): 0 for exposed in (True, False) for outcome in (True, False)}
        for _ in range(runs):
            exposed = chance.random() >= share
            counts[exposed, chance.random() < (with_it if exposed else without_it)] += 1
            low, high = interval(_trial(counts), alpha)
            if not low <= truth <= high:
                missed += 1
                break
    return missed / streams


def runs_until(state: State, with_it: float, without_it: float, *, streams: int, runs: int) -> list[int]:
    """Give, of those streams that come to a state, after how many runs a candidate was there first; ascending."""
    found = []
    for seed in range(streams):
        chance, standing = random.Random(seed), Standing()
        counts = {(exposed, outcome): 0 for exposed in (True, False) for outcome in (True, False)}
        for number in range(1, runs + 1):
            exposed = chance.random() >= (0.1 if standing.state is State.ACTIVE else 0.5)
            counts[exposed, chance.random() < (with_it if exposed else without_it)] += 1
            standing = judged(standing, _trial(counts), 1)
            if standing.state is state:
                found.append(number)
                break
            if standing.state is State.WITHHELD:
                break
    return sorted(found)


def _trial(counts: dict[tuple[bool, bool], int]) -> Trial:
    return Trial(Arm(counts[True, True], counts[True, False]), Arm(counts[False, True], counts[False, False]))


def main() -> None:
    """Measure, and print tables for `docs/playbook.md`."""
    parser = argparse.ArgumentParser(prog="python -m tests.lift", description=__doc__)
    parser.add_argument("--streams", type=int, default=1_000, help="seeds a row")
    parser.add_argument("--runs", type=int, default=500, help="runs of a stream, each looked at")
    given = parser.parse_args()
    print(f"{given.streams:,} streams of {given.runs:,} runs, looked at after each\n")
    print("| with it | without it | control | alpha | ever missed |\n|---|---|---|---|---|")
    for with_it, without_it, share in ((0.5, 0.5, 0.5), (0.9, 0.9, 0.1), (0.9, 0.6, 0.5), (0.5, 0.7, 0.1)):
        for alpha in (0.2, ALPHA):
            missed = misses(with_it, without_it, share, alpha=alpha, streams=given.streams, runs=given.runs)
            print(f"| {with_it} | {without_it} | {share} | {alpha} | {missed:.2%} |")
    print("\n| with it | without it | comes to | streams that do | runs: half | 95 % |\n|---|---|---|---|---|---|")
    for with_it, without_it, state in (
        (0.5, 0.8, State.WITHHELD),
        (0.6, 0.8, State.WITHHELD),
        (0.7, 0.7, State.ACTIVE),
        (0.7, 0.7, State.WITHHELD),
        (0.7, 0.5, State.ACTIVE),
        (0.95, 0.5, State.ACTIVE),
    ):
        found = runs_until(state, with_it, without_it, streams=given.streams, runs=RUNS_WITHOUT_USE_MAX)
        half, most = (found[int(len(found) * part)] if found else "" for part in (0.5, 0.95))
        print(f"| {with_it} | {without_it} | {state} | {len(found) / given.streams:.1%} | {half} | {most} |")


if __name__ == "__main__":
    main()
