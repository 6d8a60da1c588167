"""How often the intervals of lift ever miss the truth, and how soon a harmful entry is found: `python -m tests.lift`.

Every stream is looked at after each of its runs. The seeds are 0, 1, 2 and so on.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from observer_actors.playbook.entries import Entry, Kind, Mark, State
from observer_actors.playbook.lift import Arm, Sides, Trial, lift
from observer_actors.playbook.states import ALPHA, RUNS_WITHOUT_USE_MAX, Standing, is_trusted, judged, share_of
from observer_actors.playbook.trial import WINDOW_RUNS

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


class Life:
    """One entry, used run by run, with the states and the share of the control that it comes to."""

    def __init__(self, seed: int) -> None:
        self.standing = Standing()
        self.entry = Entry(id="e", kind=Kind.DO, endpoint="", about="", text="")
        self._chance = random.Random(seed)
        self._sides = self._recent = Sides()

    @property
    def is_over(self) -> bool:
        """Whether its trial has ended its use."""
        return self.standing.state in {State.WITHHELD, State.RETIRED}

    def use(self, with_it: float, without_it: float) -> None:
        """Draw a run, have it end by chance, and judge."""
        exposed = self._chance.random() >= share_of(self.entry, 0.1)
        succeeded = self._chance.random() < (with_it if exposed else without_it)
        arm = Arm(int(succeeded), int(not succeeded))
        one = Sides(arm) if exposed else Sides(control=arm)
        self._sides += one
        self._recent = one if self._recent.total >= WINDOW_RUNS else self._recent + one
        trial = Trial(self._sides.exposed, self._sides.control, recent={"": self._recent})
        self.standing = judged(self.standing, trial, 1)
        self._change(state=self.standing.state)

    def pin(self) -> None:
        """As a person does."""
        self._change(mark=Mark.PINNED)

    def _change(self, **fields: object) -> None:
        before, self.entry = self.entry, msgspec.structs.replace(self.entry, **fields)
        if is_trusted(before) is not is_trusted(self.entry):
            self._sides = self._recent = Sides()


def runs_until(state: State, with_it: float, without_it: float, *, streams: int, runs: int) -> list[int]:
    """Give, of those streams that come to a state, after how many runs a candidate was there first; ascending."""
    found = []
    for seed in range(streams):
        life = Life(seed)
        for number in range(1, runs + 1):
            life.use(with_it, without_it)
            if life.standing.state is state:
                found.append(number)
                break
            if life.is_over:
                break
    return sorted(found)


Phase = tuple[int, float, float]
"""So many runs, the chance to succeed with it, and without it."""


def withheld(phases: Sequence[Phase], *, streams: int, is_pinned: bool = False) -> Counter[str]:
    """Give why streams end in which chances change from phase to phase: reason -> how many were withheld for it.

    :param is_pinned: a person pins the entry as the second phase begins.
    """
    reasons: Counter[str] = Counter()
    for seed in range(streams):
        life = Life(seed)
        for number, (runs, with_it, without_it) in enumerate(phases):
            if number == 1 and is_pinned:
                life.pin()
            for _ in range(runs):
                if not life.is_over:
                    life.use(with_it, without_it)
        reasons[life.standing.reason if life.is_over else ""] += 1
    return reasons


DRIFTS: Final[tuple[tuple[tuple[Phase, Phase], bool], ...]] = (
    (((500, 0.9, 0.7), (1_000, 0.4, 0.2)), False),
    (((500, 0.9, 0.7), (1_000, 0.3, 0.2)), False),
    (((300, 0.9, 0.9), (900, 0.5, 0.5)), True),
)
"""Tools that become harder, while an entry helps as before, or helps by less; and one that never helps, pinned then."""


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
    streams = max(1, given.streams // 10)
    print(f"\n{streams:,} streams a row\n")
    print("| runs: with it, without it | then | pinned then | withheld as harmful | as of no use |")
    print("|---|---|---|---|---|")
    for phases, is_pinned in DRIFTS:
        reasons = withheld(phases, streams=streams, is_pinned=is_pinned)
        harm = sum(count for reason, count in reasons.items() if reason.startswith("it does harm"))
        useless = sum(count for reason, count in reasons.items() if reason.startswith("no use"))
        cells = (f"{runs:,}: {with_it}, {without_it}" for runs, with_it, without_it in phases)
        shares = f"{harm / streams:.0%} | {useless / streams:.0%}"
        print(f"| {' | '.join(cells)} | {'yes' if is_pinned else 'no'} | {shares} |")


if __name__ == "__main__":
    main()
