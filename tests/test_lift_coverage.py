"""The promise of the interval, by simulation: looked at after every run, it misses the truth as seldom as it says.

`python -m tests.lift` measures more streams, and longer ones; the gate's form is bounded.
"""

from __future__ import annotations

import pytest

from observer_actors.playbook.lift import Trial
from tests.lift import misses

pytestmark = pytest.mark.no_cover

STREAMS = 300
RUNS = 120


@pytest.mark.parametrize(("with_it", "without_it", "share"), [(0.5, 0.5, 0.5), (0.9, 0.6, 0.5), (0.7, 0.7, 0.1)])
def test_under_continuous_peeking_the_interval_misses_no_more_often_than_it_says(
    with_it: float, without_it: float, share: float
) -> None:
    assert misses(with_it, without_it, share, alpha=0.2, streams=STREAMS, runs=RUNS) <= 0.2


def test_the_usual_interval_would_not_hold_it() -> None:
    """What is measured here can fail: Wald's 80 % interval, looked at after every run, misses far more often."""
    assert misses(0.5, 0.5, 0.5, alpha=0.2, streams=STREAMS, runs=RUNS, interval=wald) > 0.4


def wald(trial: Trial, _alpha: float) -> tuple[float, float]:
    one, other = trial.exposed, trial.control
    if one.rate is None or other.rate is None or min(one.total, other.total) < 5:
        return -1.0, 1.0
    spread = 1.2816 * (one.rate * (1 - one.rate) / one.total + other.rate * (1 - other.rate) / other.total) ** 0.5
    return one.rate - other.rate - spread, one.rate - other.rate + spread
