"""How good a grouping is: against the truth, and against another grouping of the same messages. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from math import comb


def grouping_scores(truth: Sequence[Hashable], found: Sequence[Hashable]) -> tuple[float, float]:
    """Give grouping accuracy (GA) and the F1 of groups (FGA), both from 0 to 1.

    GA is the share of messages whose group holds exactly the messages of their true group; FGA the F1 over groups,
    where one counts as right when it equals a true one (Zhu et al. 2019; Jiang et al. 2024).
    """
    true_groups = set(_groups(truth))
    groups = _groups(found)
    right = [group for group in groups if group in true_groups]
    accuracy = sum(map(len, right)) / len(truth)
    if not right:
        return accuracy, 0.0
    precision, recall = len(right) / len(groups), len(right) / len(true_groups)
    return accuracy, 2 * precision * recall / (precision + recall)


def adjusted_rand(one: Sequence[Hashable], other: Sequence[Hashable]) -> float:
    """Give how far two groupings agree beyond chance: 1 when they are the same (Hubert and Arabie 1985)."""
    both = sum(comb(count, 2) for count in Counter(zip(one, other, strict=True)).values())
    in_one = sum(comb(count, 2) for count in Counter(one).values())
    in_other = sum(comb(count, 2) for count in Counter(other).values())
    expected = in_one * in_other / comb(len(one), 2)
    most = (in_one + in_other) / 2
    return (both - expected) / (most - expected) if most != expected else 1.0


def _groups(labels: Sequence[Hashable]) -> list[frozenset[int]]:
    members: dict[Hashable, list[int]] = defaultdict(list)
    for place, label in enumerate(labels):
        members[label].append(place)
    return [frozenset(places) for places in members.values()]
