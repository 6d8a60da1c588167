"""Lift and its interval: exact where it can be said by hand, and never narrower than what it stands for."""

from __future__ import annotations

import itertools
from math import lgamma, log

import pytest

from observer_actors.playbook.lift import Arm, Lift, Trial, lift

COUNTS = (0, 1, 2, 10, 100, 5_000)
ALPHAS = (0.3, 0.05, 0.001)


def log_martingale(arm: Arm, chance: float) -> float:
    s, f = arm.succeeded + 0.5, arm.failed + 0.5
    mixture = lgamma(s) + lgamma(f) - lgamma(s + f) - 2 * lgamma(0.5)
    return mixture - arm.succeeded * log(chance) - arm.failed * log(1 - chance)


def of_one_arm(arm: Arm, alpha: float) -> tuple[float, float]:
    """Give the interval of one arm's chance: beside an empty arm, whose chance may be anything."""
    found = lift(Trial(exposed=arm), alpha)
    return found.low + 1, found.high


def test_nothing_is_known_before_both_arms_have_an_outcome() -> None:
    assert lift(Trial(), 0.05) == Lift(None, -1.0, 1.0)
    assert lift(Trial(exposed=Arm(5, 0)), 0.05).estimate is None


def test_the_ends_of_one_arm_are_where_the_martingale_reaches_one_over_alpha() -> None:
    for arm in (Arm(80, 20), Arm(3, 9), Arm(1, 400)):
        low, high = of_one_arm(arm, 0.05)
        assert low < high
        for end in (low, high):
            assert log_martingale(arm, end) == pytest.approx(log(20), abs=1e-5)


@pytest.mark.parametrize("trial", [Trial(Arm(16, 4), Arm(6, 14)), Trial(Arm(0, 6), Arm(9, 1))])
def test_the_ends_of_the_difference_are_the_furthest_pair_that_is_not_excluded(trial: Trial) -> None:
    steps = [i / 500 for i in range(1, 500)]
    left = [
        (p - q)
        for p, q in itertools.product(steps, steps)
        if log_martingale(trial.exposed, p) + log_martingale(trial.control, q) < log(20)
    ]
    found = lift(trial, 0.05)
    assert found.low == pytest.approx(min(left), abs=0.004)
    assert found.high == pytest.approx(max(left), abs=0.004)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_every_interval_holds_its_estimate(alpha: float) -> None:
    for counts in itertools.product(COUNTS, repeat=4):
        found = lift(Trial(Arm(*counts[:2]), Arm(*counts[2:])), alpha)
        assert -1 <= found.low <= found.high <= 1
        if found.estimate is not None:
            assert found.low <= found.estimate <= found.high


def test_between_even_arms_it_is_narrower_than_the_difference_of_two_intervals() -> None:
    for exposed, control in itertools.product((Arm(35, 15), Arm(25, 25), Arm(15, 35)), repeat=2):
        found = lift(Trial(exposed, control), 0.05)
        one, other = of_one_arm(exposed, 0.025), of_one_arm(control, 0.025)
        assert found.high - found.low < 0.9 * (one[1] - other[0] - (one[0] - other[1]))


def test_swapping_the_arms_turns_the_interval_round() -> None:
    one, other = lift(Trial(Arm(30, 10), Arm(5, 9)), 0.05), lift(Trial(Arm(5, 9), Arm(30, 10)), 0.05)
    assert other.estimate is not None
    assert one == Lift(-other.estimate, -other.high, -other.low)
