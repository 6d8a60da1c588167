"""States of entries: the rules as a table, and what they do to entries that help, do nothing, or do harm."""

from __future__ import annotations

import random

import pytest

from observer_actors.playbook.lift import Arm, Trial, lift
from observer_actors.playbook.states import (
    ALPHA,
    RUNS_WITHOUT_USE_MAX,
    SLACK,
    TRIES_MAX,
    EntryState,
    Ruling,
    Standing,
    judged,
    ruled,
    share_of,
)

HELPS = Trial(Arm(95, 5), Arm(50, 50))
HARMS = Trial(Arm(50, 50), Arm(95, 5))
NOTHING = Trial(Arm(30, 20), Arm(30, 20))
USELESS = Trial(Arm(300, 200), Arm(301, 199))
CANDIDATE, ACTIVE, WITHHELD, RETIRED = (Standing(state=state) for state in EntryState)


@pytest.mark.parametrize(
    ("standing", "trial", "state"),
    [
        (CANDIDATE, Trial(), EntryState.CANDIDATE),
        (CANDIDATE, NOTHING, EntryState.CANDIDATE),
        (CANDIDATE, HELPS, EntryState.ACTIVE),
        (CANDIDATE, HARMS, EntryState.WITHHELD),
        (CANDIDATE, USELESS, EntryState.WITHHELD),
        (ACTIVE, HELPS, EntryState.ACTIVE),
        (ACTIVE, NOTHING, EntryState.CANDIDATE),
        (ACTIVE, HARMS, EntryState.WITHHELD),
        (WITHHELD, HELPS, EntryState.WITHHELD),
        (RETIRED, HELPS, EntryState.RETIRED),
    ],
)
def test_where_a_trial_leads(standing: Standing, trial: Trial, state: EntryState) -> None:
    standing = Standing(state=standing.state, evidence_then=10)
    assert judged(standing, trial, evidence=10, seq=5).state is state


def test_nothing_moves_between_the_two_bars() -> None:
    shown = Trial(Arm(60, 40), Arm(50, 50))
    assert lift(shown, ALPHA).low < SLACK
    weak = Trial(Arm(2_000, 1_000), Arm(1_950, 1_050))
    assert SLACK < lift(weak, ALPHA).low < 0
    assert judged(ACTIVE, weak, evidence=1, seq=2) is ACTIVE
    small = Trial(Arm(10, 10), Arm(12, 8))
    assert judged(CANDIDATE, small, evidence=1, seq=2) is CANDIDATE


def test_a_change_names_its_op_and_its_reason() -> None:
    moved = judged(CANDIDATE, HARMS, evidence=12, seq=77)
    assert moved == Standing(state=EntryState.WITHHELD, reason="it does harm", since_seq=77, evidence_then=12)
    assert judged(CANDIDATE, USELESS, evidence=12, seq=77).reason == f"no use shown in {RUNS_WITHOUT_USE_MAX:,} runs"


def test_a_withheld_entry_is_tried_again_when_its_evidence_has_grown_by_half_and_retired_at_the_last_try() -> None:
    standing, evidence = CANDIDATE, 8
    for number in range(1, TRIES_MAX + 1):
        assert standing.tries == number
        standing = judged(standing, HARMS, evidence=evidence, seq=number)
        if number < TRIES_MAX:
            assert standing.state is EntryState.WITHHELD
            assert judged(standing, Trial(), evidence=evidence * 3 // 2 - 1, seq=9) is standing
            evidence = evidence * 3 // 2
            standing = judged(standing, HARMS, evidence=evidence, seq=number)
            assert standing.state is EntryState.CANDIDATE
    assert standing.state is EntryState.RETIRED
    assert judged(standing, Trial(), evidence=10**6, seq=99) is standing


def test_a_persons_word_stands_above_the_interval_and_can_be_taken_back() -> None:
    pinned = ruled(judged(CANDIDATE, HARMS, evidence=1, seq=1), Ruling.PINNED, seq=2)
    assert pinned.effective is EntryState.ACTIVE
    assert judged(pinned, HARMS, evidence=1, seq=3).effective is EntryState.ACTIVE
    assert ruled(pinned, None, seq=4).effective is EntryState.WITHHELD
    assert ruled(ACTIVE, Ruling.WITHHELD, seq=5).effective is EntryState.WITHHELD


def test_half_of_a_candidates_runs_are_control_and_of_an_active_ones_as_many_as_is_set() -> None:
    assert share_of(CANDIDATE, 0.1) == 0.5
    assert share_of(CANDIDATE, 0.7) == 0.7
    assert share_of(ACTIVE, 0.1) == 0.1
    assert share_of(ruled(RETIRED, Ruling.PINNED, seq=1), 0.1) == 0.1


def life(with_it: float, without_it: float, seed: int, runs: int) -> tuple[Standing, int]:
    """Use one entry until it is out of use: its last standing, and the runs that were drawn until then."""
    chance = random.Random(seed)
    counts = {(exposed, outcome): 0 for exposed in (True, False) for outcome in (True, False)}
    standing = CANDIDATE
    for number in range(1, runs + 1):
        exposed = chance.random() >= share_of(standing, 0.1)
        counts[exposed, chance.random() < (with_it if exposed else without_it)] += 1
        trial = Trial(Arm(counts[True, True], counts[True, False]), Arm(counts[False, True], counts[False, False]))
        standing = judged(standing, trial, evidence=1, seq=number)
        if standing.state is EntryState.WITHHELD:
            return standing, number
    return standing, runs


@pytest.mark.parametrize(("cost", "runs_max"), [(0.3, 300), (0.2, 900)])
def test_a_harmful_entry_is_withheld_within_so_many_runs(cost: float, runs_max: int) -> None:
    ends = [life(0.8 - cost, 0.8, seed, 2 * runs_max) for seed in range(20)]
    assert all(standing.reason == "it does harm" for standing, _ in ends)
    assert sum(runs <= runs_max for _, runs in ends) >= 19


def test_a_useless_entry_is_not_kept_as_helpful() -> None:
    ends = [life(0.7, 0.7, seed, RUNS_WITHOUT_USE_MAX) for seed in range(20)]
    assert all(standing.state is EntryState.WITHHELD for standing, _ in ends)


def test_an_entry_that_cures_is_active_soon_and_stays_so() -> None:
    ends = [life(0.95, 0.5, seed, 400) for seed in range(20)]
    assert all(standing.state is EntryState.ACTIVE and standing.since_seq <= 200 for standing, _ in ends)
