"""What sets the failing operations of a pattern apart from those that succeed at the same endpoint. Pure.

For each value of each feature (`features`) it is asked whether the failing ops have it more often than their share.
The rules:

* Ops are taken as independent: whoever gathers them takes one of each run (`actors.evidence`).
* The test is Fisher's, one-sided, with the mid-P value (Lancaster 1961): half of the observed table's probability
  counts. Fisher's own is far too cautious with small counts; the mid-P is right on average, and
  `tests/test_contrast.py` measures it.
* What cannot come out significant, whatever its split, is not tested (Tarone 1990): it only would dilute the rest.
  That is decided by the margins alone, so it cannot favour a result.
* The false discovery rate is held at .05 by the procedure of Benjamini and Hochberg (1995), over all tests of a
  pattern. It is given `LEVEL`, a little less: given .05 it would find a single feature of two values in 5.7 % of
  samples of 50 and 50, by exact enumeration, as the mid-P is right on average only.
* An attribute that some of the ops lack has the value `ABSENT` there.
* Nothing is said of fewer than `FAILING_MIN` failing or `SUCCEEDING_MIN` succeeding ops, nor of a value that fewer than
  `WITH_MIN` failing ones have.
* Of findings that stand for the same ops, or that disappear once a stronger one is held fixed, only the strongest is a
  finding; the others stand beside it (`Contrast.also`).

The effect is the odds ratio with 0.5 added to each count (Haldane, Anscombe 1956), and Woolf's 95 % interval (1955).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Final

import msgspec

from observer_actors.op import OUTCOME_ATTRS, Op
from observer_actors.patterns.history import DAY_US, HOUR_US, event_time_us

LEVEL: Final = 0.042
FAILING_MIN: Final = 5
SUCCEEDING_MIN: Final = 5
WITH_MIN: Final = 3
OPS_MAX: Final = 2_000
"""Ops that are compared: the newest ones."""
SHOWN_MAX: Final = 10
ALSO_MAX: Final = 10
ABSENT: Final = "(absent)"
OPTIONAL_MAX: Final = 100
"""Attributes, the most frequent ones, whose absence is looked at."""
SAME_OPS: Final = 0.9
"""Jaccard index from which two values stand for the same ops."""
HELD_FIXED_P: Final = 0.01
"""What a finding has to reach still when a stronger one is held fixed."""
VALUE_CHARS_MAX: Final = 200
Z_95: Final = 1.959964
"""Of the standard normal distribution, for 95 %."""
_BANDS_MS: Final = (
    (10, "below 10 ms"),
    (100, "10 to 100 ms"),
    (1_000, "0.1 to 1 s"),
    (10_000, "1 to 10 s"),
    (60_000, "10 to 60 s"),
)
_LONGEST: Final = "60 s and longer"
_NAMED: Final = ("source", "role", "city", "state", "event_kind")

ATTRIBUTE: Final = "attrs."

Features = Mapping[str, str]


class Value(msgspec.Struct, frozen=True):
    """A value of a feature."""

    feature: str
    value: str


class Contrast(msgspec.Struct, frozen=True, kw_only=True):
    """A value that the failing ops have more often."""

    feature: str
    value: str
    failing_with: int
    failing: int
    succeeding_with: int
    succeeding: int
    odds_ratio: float
    low: float
    """Of the 95 % interval."""
    high: float
    p: float
    """Mid-P, one-sided."""
    q: float
    """The lowest false discovery rate at which it is a finding."""
    also: tuple[Value, ...] = ()
    """Values that say the same."""


def features(op: Op, *, with_hour: bool = True) -> dict[str, str]:
    """Give what may set an op apart: feature -> value."""
    found: dict[str, str] = {}
    for name in _NAMED:
        value = getattr(op, name)
        if isinstance(value, str) and value:
            found[name] = value[:VALUE_CHARS_MAX]
    time_us = event_time_us(op) if with_hour else None
    if time_us is not None:
        found["hour"] = f"{time_us % DAY_US // HOUR_US:02}"
    found["duration"] = next((name for bound, name in _BANDS_MS if op.duration_ms < bound), _LONGEST)
    if isinstance(op.attrs, dict):
        found |= {
            f"{ATTRIBUTE}{name}": _text(value)
            for name, value in op.attrs.items()
            if value is not None and name not in OUTCOME_ATTRS
        }
    return found


def contrasts(failing: Sequence[Features], succeeding: Sequence[Features]) -> list[Contrast]:
    """Find what sets the failing ops apart, strongest first, `SHOWN_MAX` at most."""
    if len(failing) < FAILING_MIN or len(succeeding) < SUCCEEDING_MIN:
        return []
    optional = _optional(failing, succeeding)
    failing, succeeding = ([{**optional, **op} for op in ops] for ops in (failing, succeeding))
    tested = sorted(_tested(failing, succeeding), key=lambda item: item.p)
    found = _folded(_discovered(tested, len(tested)), failing, succeeding)
    # Once more: what says the same as another is no finding beside which a weaker one may pass.
    return _discovered(found, len(tested))[:SHOWN_MAX]


def mid_p(failing_with: int, failing: int, with_: int, total: int) -> float:
    """Give the mid-P value of at least so many of the failing ops having a value, if that had nothing to do with it.

    :param failing_with: failing ops that have the value, of ``failing``.
    :param with_: ops that have it, of ``total``.
    """
    observed = _probability(failing_with, failing, with_, total)
    more = math.fsum(
        _probability(count, failing, with_, total) for count in range(failing_with + 1, min(failing, with_) + 1)
    )
    return min(1.0, observed / 2 + more)


def _optional(failing: Sequence[Features], succeeding: Sequence[Features]) -> Features:
    """Give each attribute that only some of the ops have, with `ABSENT`: its value in those without it."""
    held = Counter(name for ops in (failing, succeeding) for op in ops for name in op if name.startswith(ATTRIBUTE))
    total = len(failing) + len(succeeding)
    return {name: ABSENT for name, count in held.most_common(OPTIONAL_MAX) if WITH_MIN <= count < total}


def _tested(failing: Sequence[Features], succeeding: Sequence[Features]) -> Iterator[Contrast]:
    in_failing = Counter(item for op in failing for item in op.items())
    in_succeeding = Counter(item for op in succeeding for item in op.items())
    total = len(failing) + len(succeeding)
    for (feature, value), count in in_failing.items():
        with_ = count + in_succeeding[feature, value]
        if with_ == total or mid_p(min(len(failing), with_), len(failing), with_, total) > LEVEL:
            continue
        yield _contrast(feature, value, count, len(failing), with_ - count, len(succeeding))


def _contrast(feature: str, value: str, a: int, failing: int, c: int, succeeding: int) -> Contrast:  # noqa: PLR0917
    cells = [a + 0.5, failing - a + 0.5, c + 0.5, succeeding - c + 0.5]
    log_ratio = math.log(cells[0] * cells[3] / (cells[1] * cells[2]))
    spread = Z_95 * math.sqrt(sum(1 / cell for cell in cells))
    return Contrast(
        feature=feature,
        value=value,
        failing_with=a,
        failing=failing,
        succeeding_with=c,
        succeeding=succeeding,
        odds_ratio=math.exp(log_ratio),
        low=math.exp(log_ratio - spread),
        high=math.exp(log_ratio + spread),
        p=mid_p(a, failing, a + c, failing + succeeding),
        q=1.0,
    )


def _discovered(items: Sequence[Contrast], tests: int) -> list[Contrast]:
    """Give what is found at `LEVEL` in so many tests, in the order given: by ascending p."""
    q = 1.0
    found = []
    for rank in range(len(items), 0, -1):
        item = items[rank - 1]
        q = min(q, item.p * tests / rank)
        if q <= LEVEL and item.failing_with >= WITH_MIN:
            found.append(msgspec.structs.replace(item, q=q))
    return found[::-1]


def _folded(found: Sequence[Contrast], failing: Sequence[Features], succeeding: Sequence[Features]) -> list[Contrast]:
    """Put what says the same as a stronger finding beside it."""
    heads: list[Contrast] = []
    beside: dict[int, list[Value]] = {}
    bad, good = (_holders(found, ops) for ops in (failing, succeeding))
    for item in found:
        same = next((n for n, head in enumerate(heads) if _says_the_same(head, item, bad, good)), None)
        if same is None:
            heads.append(item)
        else:
            beside.setdefault(same, []).append(Value(item.feature, item.value))
    return [
        msgspec.structs.replace(head, also=tuple(beside.get(number, ())[:ALSO_MAX]))
        for number, head in enumerate(heads)
    ]


class _Holders(msgspec.Struct, frozen=True):
    """Which of so many ops have a value: a bit for each, by feature and value."""

    count: int
    of: dict[tuple[str, str], int]


def _holders(found: Sequence[Contrast], ops: Sequence[Features]) -> _Holders:
    holders = {(item.feature, item.value): 0 for item in found}
    for place, op in enumerate(ops):
        for held in op.items():
            if held in holders:
                holders[held] |= 1 << place
    return _Holders(len(ops), holders)


def _says_the_same(head: Contrast, item: Contrast, failing: _Holders, succeeding: _Holders) -> bool:
    """Tell whether a finding stands for the same ops as a stronger one, or is nothing once that is held fixed."""
    bad, good = _cross(head, item, failing), _cross(head, item, succeeding)
    both = bad[True, True] + good[True, True]
    either = both + bad[True, False] + good[True, False] + bad[False, True] + good[False, True]
    if both >= SAME_OPS * either:
        return True
    return _held_fixed(bad, good) > HELD_FIXED_P


_Cross = Mapping[tuple[bool, bool], int]
"""(has the one, has the other) -> ops."""


def _cross(head: Contrast, item: Contrast, holders: _Holders) -> _Cross:
    of_head, of_item = holders.of[head.feature, head.value], holders.of[item.feature, item.value]
    both, one, other = (of_head & of_item).bit_count(), of_head.bit_count(), of_item.bit_count()
    return {
        (True, True): both,
        (True, False): one - both,
        (False, True): other - both,
        (False, False): holders.count - one - other + both,
    }


def _held_fixed(bad: _Cross, good: _Cross) -> float:
    """Test the item within the ops that have the head, and within those that have not (Mantel, Haenszel 1959)."""
    excess = variance = 0.0
    for has_head in (True, False):
        failing = bad[has_head, True] + bad[has_head, False]
        succeeding = good[has_head, True] + good[has_head, False]
        with_ = bad[has_head, True] + good[has_head, True]
        total = failing + succeeding
        if total > 1:
            excess += bad[has_head, True] - failing * with_ / total
            variance += failing * succeeding * with_ * (total - with_) / (total**2 * (total - 1))
    return math.erfc(excess / math.sqrt(2 * variance)) / 2 if variance else 1.0


def _probability(count: int, failing: int, with_: int, total: int) -> float:
    """Give the hypergeometric probability that so many of the failing ops have a value."""
    if count < max(0, failing + with_ - total):
        return 0.0
    ways = _log_ways(with_, count) + _log_ways(total - with_, failing - count) - _log_ways(total, failing)
    return math.exp(ways)


@lru_cache(maxsize=100_000)
def _log_ways(of: int, chosen: int) -> float:
    """Give the logarithm of the binomial coefficient."""
    return math.lgamma(of + 1) - math.lgamma(chosen + 1) - math.lgamma(of - chosen + 1)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)[:VALUE_CHARS_MAX]
