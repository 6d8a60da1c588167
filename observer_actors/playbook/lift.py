"""Lift: how much better the runs do that got an entry than those that did not, with an interval. Pure.

The interval is *always valid*: with probability ``1 - alpha`` it holds the true difference at every look, from the
first outcome on, so that an entry may be judged after each use, and at no number of uses fixed beforehand.

Each arm is a stream of outcomes with an unknown chance of success, ``p``. For every ``p`` the Beta-binomial mixture

    M(p) = integral of q^s (1-q)^f  dBeta(1/2, 1/2)(q)  /  p^s (1-p)^f          (s successes, f failures)

is a martingale that starts at 1 when ``p`` is the truth (Robbins 1970, "Statistical methods related to the law of the
iterated logarithm"; Howard, Ramdas, McAuliffe & Sekhon 2021, "Time-uniform, nonparametric, nonasymptotic confidence
sequences"), and by Ville's inequality it ever reaches ``1/alpha`` with probability ``alpha`` at most. So does the
product of the two arms' martingales, whatever share of the runs each arm gets, as long as it stays the same: chances
may drift, and arms that were filled at different times would differ by that alone. The interval of the difference is
the range of ``p_exposed - p_control`` over all pairs for which the product is below ``1/alpha``: on each difference the
likelihood of the best pair against the mixture (Wasserman, Ramdas & Balakrishnan 2020, "Universal inference").
Between even arms it is 10 to 20 percent narrower than the difference of two intervals at ``alpha/2``; with a control of
a tenth they are about as wide as each other.

The ends lie on the edge of that set, where the two gradients are equal and opposite. For a given gradient the pair is
the root of two quadratics, and Newton's method in the gradient's logarithm does the rest, from outside inwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp, inf, lgamma, log, sqrt
from typing import Final

import msgspec

UNKNOWN: Final = "unknown"
"""Stands for the source of runs of which it is not known."""
LOG_BETA_HALVES: Final = 2 * lgamma(0.5)
"""The logarithm of the Beta function at (1/2, 1/2), Jeffreys' prior: it costs least where chances are near 0 or 1."""
SEEN_MIN: Final = 20
"""Exposed runs from which on sources can say what an entry does: of 20 points of help or harm two arms of so many show
the sign six times of seven."""
SEEN_CONTROL_MIN: Final = 2
"""Control runs that it takes for that: of an active entry a tenth of them is."""
ALONE_MIN: Final = 15 * SEEN_MIN
"""Runs of a source from which on it need not wait until others have seen as much (`SEEN_MIN`) to say what an entry
does. With fewer, one that lies and has most of the runs would have any entry withheld before others can object. It is
less than `trial.WINDOW_RUNS`, or of late no source would ever have so many."""
TOLERANCE: Final = 1e-6
"""In units of log-likelihood; an end that is off by this is off outwards."""
STEP_MAX: Final = 2.0
"""The longest step outwards, in the logarithm of the gradient; inwards, Newton's method cannot go too far."""
STEPS_MAX: Final = 60
"""Newton's steps; a dozen do. Were they not enough, the answer would be the widest interval there is."""


class Arm(msgspec.Struct, frozen=True):
    """How the runs of one arm ended."""

    succeeded: int = 0
    failed: int = 0

    @property
    def total(self) -> int:
        """The runs that have an outcome."""
        return self.succeeded + self.failed

    @property
    def rate(self) -> float | None:
        """The share that succeeded; None when there is none."""
        return self.succeeded / self.total if self.total else None

    def __add__(self, other: Arm) -> Arm:
        return Arm(self.succeeded + other.succeeded, self.failed + other.failed)


class Sides(msgspec.Struct, frozen=True):
    """Both arms."""

    exposed: Arm = Arm()
    control: Arm = Arm()

    @property
    def total(self) -> int:
        """The runs that have an outcome."""
        return self.exposed.total + self.control.total

    def __add__(self, other: Sides) -> Sides:
        return Sides(self.exposed + other.exposed, self.control + other.control)


class Trial(msgspec.Struct, frozen=True):
    """What the uses of one entry have come to."""

    exposed: Arm = Arm()
    control: Arm = Arm()
    fixed: int = 0
    """Tasks that failed without the entry and succeed with it: see `trial`."""
    broken: int = 0
    """Tasks that succeeded without it and fail with it."""
    by_source: dict[str, Sides] = {}
    recent: dict[str, Sides] = {}
    """The newest of these runs, `trial.WINDOW_RUNS` at most, by source: what was long true may be so no more."""
    lost: tuple[int, int] = (0, 0)
    """Of the failed ones those that count so because no outcome has come: exposed, control."""


def in_all(by_source: Mapping[str, Sides]) -> Sides:
    """Give the runs of all sources together."""
    return sum(by_source.values(), Sides())


def none_alone(by_source: Mapping[str, Sides], sign: int, beside: float = 0.0) -> bool:
    """Say whether the difference of the rates lies on this side also without the runs of any one source.

    Where there is only one it is its word that counts: nobody else has seen anything. Runs of which nobody knows whose
    they are (`UNKNOWN`) are nobody's word. Those have seen nothing, either, that have fewer than `SEEN_MIN` runs with
    the entry, or than `SEEN_CONTROL_MIN` without, once the one that is left out has `ALONE_MIN`: or one run would keep
    what does harm to all others handed out for good, and what helps from half of them.

    :param sign: 1: above ``beside``, the exposed do better; -1: below, they do worse.
    """
    sources = by_source.keys() - {UNKNOWN}
    if len(sources) < 2:  # noqa: PLR2004 - one
        return True
    for left_out in sources:
        rest = _without(left_out, by_source)
        if not _has_seen(rest) and by_source[left_out].total >= ALONE_MIN:
            continue
        with_it, without_it = rest.exposed.rate, rest.control.rate
        if with_it is None or without_it is None or sign * (with_it - without_it - beside) <= 0:
            return False
    return True


def runs_beside_any(by_source: Mapping[str, Sides]) -> float:
    """Give how many runs are left without the source that has most of them.

    No end where there is only one source, or where too few are left to have seen anything (`SEEN_MIN`).
    """
    sources = [source for source in by_source if source != UNKNOWN]
    if len(sources) < 2:  # noqa: PLR2004 - one
        return inf
    most = max(sources, key=lambda source: by_source[source].total)
    rest = _without(most, by_source)
    return rest.total if _has_seen(rest) else inf


def _without(left_out: str, by_source: Mapping[str, Sides]) -> Sides:
    return in_all({source: sides for source, sides in by_source.items() if source != left_out})


def _has_seen(sides: Sides) -> bool:
    return sides.exposed.total >= SEEN_MIN and sides.control.total >= SEEN_CONTROL_MIN


class Lift(msgspec.Struct, frozen=True):
    """The success rate of the exposed runs less that of the control, from -1 to 1."""

    estimate: float | None
    """The difference of the two rates; None until both arms have an outcome."""
    low: float
    high: float


def lift(trial: Trial | Sides, alpha: float) -> Lift:
    """Estimate what an entry does: some 30 microseconds.

    :param alpha: the chance, over all looks together, that the interval ever misses the truth; above 0, below 1.
    """
    exposed, control = trial.exposed, trial.control
    with_it, without_it = exposed.rate, control.rate
    low, high = _lowest(exposed, control, alpha), _lowest(control, exposed, alpha)
    return Lift(
        estimate=None if with_it is None or without_it is None else with_it - without_it,
        low=low[0] - low[1],
        high=high[1] - high[0],
    )


def _lowest(down: Arm, up: Arm, alpha: float) -> tuple[float, float]:
    """Give the pair of chances, not yet excluded, at which ``down`` is furthest below ``up``."""
    if down.succeeded == 0 and up.failed == 0:  # nothing that was seen speaks against the extreme
        return 0.0, 1.0
    loss_min = _loss_min(down) + _loss_min(up)
    allowed = -log(alpha) - _log_mixture(down) - _log_mixture(up) - loss_min
    gradient = sqrt(2 * allowed * max(1.0, 4 * down.total * up.total / (down.total + up.total + 1)))
    for _ in range(STEPS_MAX):
        low, high = _pushed(down.succeeded, down.failed, gradient), _pushed(up.failed, up.succeeded, gradient)
        over = low[1] + high[1] - loss_min - allowed
        if 0 <= over < TOLERANCE:
            return low[0], 1.0 - high[0]
        slope = gradient * gradient * (low[2] + high[2])
        gradient *= exp(min(STEP_MAX, (TOLERANCE / 2 - over) / slope) if slope else STEP_MAX)
    return 0.0, 1.0


def _pushed(kept: int, lost: int, gradient: float) -> tuple[float, float, float]:
    """Push an arm's chance down until its log-likelihood climbs with ``gradient``: chance, loss, and 1 / curvature."""
    total = kept + lost
    if kept == 0:
        return 0.0, 0.0, 0.0
    if lost == 0 and gradient <= total:
        return 1.0, 0.0, 0.0
    root = sqrt((total - gradient) ** 2 + 4 * gradient * lost)
    chance = 2 * kept / (total + gradient + root)
    rest = 1.0 - chance
    loss = -kept * log(chance) - (lost * log(rest) if lost else 0.0)
    return chance, loss, 1 / (kept / (chance * chance) + (lost / (rest * rest) if lost else 0.0))


def _loss_min(arm: Arm) -> float:
    """The negative log-likelihood at the arm's own rate."""
    total = arm.total
    return -sum(count * log(count / total) for count in (arm.succeeded, arm.failed) if count)


def _log_mixture(arm: Arm) -> float:
    """The logarithm of the arm's likelihood, averaged over the prior."""
    s, f = arm.succeeded + 0.5, arm.failed + 0.5
    return lgamma(s) + lgamma(f) - lgamma(s + f) - LOG_BETA_HALVES
