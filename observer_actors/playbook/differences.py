"""What sets the calls that fail apart from those that succeed, by the counts that an endpoint keeps. Pure.

The same question as `patterns.contrast` asks of ops, asked of counts: is there a value of a feature that the failing
calls have more often? Fisher's test, one-sided, with the mid-P value; of all values the one with the lowest P counts,
if that is small enough after Bonferroni's correction for how many were tested, and the shares differ by `SHARE_MIN`.
A value that is absent from an input counts as a value. What is then said of a value counts all of its calls: an agent
that takes it meets its other errors, too.

Evidence is looked at again each time it has grown. So the k-th look may err in `P_MAX` / (k (k + 1)), and all of them
together in `P_MAX` at most (alpha spending: DeMets & Lan 1994). A look at so few calls that no difference among them
could be significant is none (Tarone 1990).

Only counts for which `Corroboration` holds are compared, value by value: what one source alone reports can neither come
to stand in advice nor hide what others have seen. Among the differences that are significant one that can be told
in full goes before one that says only what fails.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Final, NamedTuple

from observer_actors.patterns.contrast import mid_p
from observer_actors.playbook.evidence import Endpoint, Value, feature_key
from observer_actors.playbook.inputs import ABSENT, KIND, SHAPE, names_of_shape
from observer_actors.playbook.witnesses import Balance, Corroboration

P_MAX: Final = 0.05
"""Of what fails by chance alone, so much is ever said to depend on something; and what is said is tried, too."""
SHARE_MIN: Final = 0.4
FAILING_MIN: Final = 3
SUCCEEDING_MIN: Final = 3
EXACT_MAX: Final = 100
"""Terms of the exact test; beyond it the normal approximation is as good, and as fast with a million ops."""


class Side(NamedTuple):
    """The calls that have one value."""

    value: str
    succeeded: int
    failed: int
    """Whatever their error was."""
    compared: int
    """The failures among them that are asked about."""

    @property
    def calls(self) -> int:
        """All of them."""
        return self.succeeded + self.failed


class Difference(NamedTuple):
    """A feature of which one value fails, and what is known to work instead."""

    feature: str
    fails: Side
    works: Side | None
    """None where no other value has been seen to work by enough witnesses."""
    ways: int
    """How many other values are known to work."""
    others: Side
    """The calls that have not the failing value."""
    tells_fails: bool
    """Enough witnesses have used the failing value: it may be named."""

    @property
    def is_one_of_many(self) -> bool:
        """The value that works is but one of several: it is an example, and not what to send (another customer)."""
        return self.ways > 1 and self.feature != SHAPE and not self.feature.endswith(KIND)


class Found(NamedTuple):
    """What a look at differences has come to."""

    difference: Difference | None
    is_look: bool
    """There were calls enough to find anything."""


class Feature(NamedTuple):
    """One feature of an endpoint's calls, as far as there are enough witnesses for either outcome of a value."""

    name: str
    values: tuple[tuple[str, str, int, int], ...]
    """Value, its key among the failures, successes that count, failures of any kind that do."""
    absent: tuple[tuple[str, int, int], ...]
    """Shapes of inputs without it: key, successes that count, failures that do."""

    def sides(self, failing: Mapping[str, int]) -> list[Side]:
        """Give its values as they succeed and fail. Calls of which it is not known are no part of that."""
        sides = [Side(text, ok, bad, min(failing.get(key, 0), bad)) for text, key, ok, bad in self.values]
        if self.name.endswith(KIND):
            ok, bad = sum(ok for _, ok, _ in self.absent), sum(bad for _, _, bad in self.absent)
            compared = sum(min(failing.get(key, 0), bad) for key, _, bad in self.absent)
            sides.append(Side(ABSENT, ok, bad, compared))
        return sides


class Counts:
    """The counts of an endpoint that may be compared; made once for all that is drawn at one op."""

    def __init__(self, endpoint: Endpoint, corroboration: Corroboration) -> None:
        self.endpoint = endpoint
        self.corroboration = corroboration

    @cached_property
    def features(self) -> list[Feature]:
        """Give those of which anything counts."""
        endpoint, corroboration = self.endpoint, self.corroboration
        shapes = [
            (names_of_shape(text), feature_key((SHAPE, text)), *_counted(value, corroboration))
            for text, value in (endpoint.features.get(SHAPE) or {}).items()
        ]
        return [
            Feature(
                name,
                tuple(
                    (text, feature_key((name, text)), *_counted(value, corroboration)) for text, value in values.items()
                ),
                tuple(
                    (key, ok, bad)
                    for names, key, ok, bad in shapes
                    if names is not None and name.removesuffix(KIND) not in names
                ),
            )
            for name, values in endpoint.features.items()
            if values
        ]


def against_successes(counts: Counts, failing: Mapping[str, int], count: int, look: int) -> Found:
    """Find what sets some failures apart from the successes.

    :param failing: feature and value -> how many of the failures have it.
    :param count: all of these failures.
    :param look: which look this is, from 1.
    """
    found = []
    tests, least = 0, 1.0
    for feature in counts.features:
        sides = feature.sides(failing)
        failed, succeeded = min(count, sum(side.compared for side in sides)), sum(side.succeeded for side in sides)
        if failed < FAILING_MIN or succeeded < SUCCEEDING_MIN:
            continue
        tests += len(sides)
        least = min(least, chance_p(failed, failed, 0, succeeded))
        for side in sides:
            if side.compared / failed - side.succeeded / succeeded >= SHARE_MIN:
                p = chance_p(min(side.compared, failed), failed, side.succeeded, succeeded)
                found.append((p, not feature.name.endswith(KIND), feature.name, side, sides))
    p_max = P_MAX / (look * (look + 1))
    if not tests or least * tests > p_max:
        return Found(None, is_look=False)
    told = [
        difference
        for p, _, name, side, sides in sorted(found, key=lambda item: (*item[:3], item[3].value))
        if p * tests <= p_max
        and (difference := _told(counts.endpoint, name, side, sides, counts.corroboration)) is not None
    ]
    return Found(next((one for one in told if one.works is not None), told[0] if told else None), is_look=True)


def of_all_failures(counts: Counts) -> Found:
    """Find what sets all failures of an endpoint apart from its successes."""
    failing = {
        feature_key((name, text)): value.bad.count
        for name, values in counts.endpoint.features.items()
        for text, value in (values or {}).items()
        if value.bad.count
    }
    endpoint = counts.endpoint
    return against_successes(counts, failing, endpoint.bad.shared(counts.corroboration), endpoint.looks + 1)


def chance_p(with_one: int, one: int, with_other: int, other: int) -> float:
    """Give the one-sided P of so many of the first group having a value, if that had nothing to do with the group."""
    with_, total = with_one + with_other, one + other
    if min(one, with_) - with_one <= EXACT_MAX:
        return mid_p(with_one, one, with_, total)
    variance = one * other * with_ * (total - with_) / (total * total * (total - 1))
    return math.erfc((with_one - one * with_ / total) / math.sqrt(2 * variance)) / 2 if variance else 1.0


def _counted(value: Value, corroboration: Corroboration) -> tuple[int, int]:
    """Give the successes and the failures with a value, as far as they count."""
    balance = Balance.of(value.ok, value.bad)
    return (
        balance.weight(value.ok, corroboration) if value.ok.suffice(corroboration) else 0,
        balance.weight(value.bad, corroboration) if value.bad.suffice(corroboration) else 0,
    )


def _told(
    endpoint: Endpoint, feature: str, fails: Side, sides: list[Side], corroboration: Corroboration
) -> Difference | None:
    """Give the difference as far as it may be told; None where nothing of it may."""
    values = endpoint.features[feature] or {}
    working = [
        side
        for side in sides
        if side.value != fails.value
        and side.succeeded * fails.calls > fails.succeeded * side.calls
        and _is_witnessed(values, side.value, corroboration, feature)
    ]
    works = max(working, key=lambda side: (side.succeeded, side.value), default=None)
    tells = fails.value == ABSENT or (
        (value := values.get(fails.value)) is not None
        and (value.bad.suffice(corroboration) or value.ok.suffice(corroboration))
    )
    if works is None and not tells:
        return None
    if feature != SHAPE and not any(
        v.ok.suffice(corroboration) or v.bad.suffice(corroboration) for v in values.values()
    ):
        return None  # the feature's name is a caller's word, too
    rest = [side for side in sides if side is not fails]
    others = Side("", sum(s.succeeded for s in rest), sum(s.failed for s in rest), sum(s.compared for s in rest))
    return Difference(feature, fails, works, len(working), others, tells)


def _is_witnessed(values: Mapping[str, Value], text: str, corroboration: Corroboration, feature: str) -> bool:
    value = values.get(text)
    if value is None:
        return text == ABSENT and feature.endswith(KIND)
    return value.ok.suffice(corroboration)
