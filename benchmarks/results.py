"""What was measured, and the little arithmetic that is done with it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import zip_longest
from statistics import median

from msgspec import Struct, field


class Spread(Struct, frozen=True):
    """The middle of some values, and how far they lie apart."""

    median: float
    low: float
    high: float
    count: int


def spread(values: Iterable[float | None]) -> Spread | None:
    """Sum the values up; None when there is none."""
    there = [value for value in values if value is not None]
    return Spread(median(there), min(there), max(there), len(there)) if there else None


class Results(Struct, kw_only=True):
    """All of one run, as it goes into the JSON file."""

    date: str = ""
    command: str = ""
    """That made it; paths are shown as DIR and FILE."""
    rounds: int = 0
    seconds: float = 0.0
    is_quick: bool = False
    ops: int = 0
    """In the full journal."""
    memory_seconds: float = 0.0
    """Of full load in which memory was sampled."""
    machine: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    commands: dict[str, str] = field(default_factory=dict)
    """Name -> command line."""
    absent: dict[str, str] = field(default_factory=dict)
    """Rival or tool -> why it took no part."""
    remarks: list[str] = field(default_factory=list)
    """What went wrong, or must be known to read the figures."""
    measured: dict[str, dict[str, list[dict[str, float]]]] = field(default_factory=dict)
    """Contest -> contestant -> one entry a round: figure -> value. A round that failed has an empty entry."""

    def add(self, contest: str, contestant: str, figures: Mapping[str, float]) -> None:
        """Note one round of a contestant; no figures when it failed."""
        self.measured.setdefault(contest, {}).setdefault(contestant, []).append(dict(figures))

    def remark(self, text: str) -> None:
        """Note something once."""
        if text not in self.remarks:
            self.remarks.append(text)

    def values(self, contest: str, contestant: str, figure: str) -> list[float | None]:
        """Give one figure, round by round; None where it is missing."""
        return [entry.get(figure) for entry in self.measured.get(contest, {}).get(contestant, [])]

    def spread(self, contest: str, contestant: str, figure: str) -> Spread | None:
        """Sum up one figure over the rounds."""
        return spread(self.values(contest, contestant, figure))

    def median(self, contest: str, contestant: str, figure: str) -> float | None:
        """Give the median of one figure over the rounds."""
        found = self.spread(contest, contestant, figure)
        return found.median if found else None

    def has_all(self, contests: Iterable[str]) -> bool:
        """Tell whether each of these contests has a figure."""
        return all(any(map(any, self.measured.get(contest, {}).values())) for contest in contests)

    def failed(self) -> list[str]:
        """Give the contestants that lack a round, or all, each with its contest."""
        return [
            f"{contest}, {contestant}"
            for contest, contestants in self.measured.items()
            for contestant, entries in contestants.items()
            if not all(entries)
        ]

    def ratio(self, contest: str, contestant: str, others: Iterable[str], figure: str) -> Spread | None:
        """Divide one contestant's figure by the largest of others' in the same round, and sum the quotients up."""
        rounds = zip_longest(*(self.values(contest, other, figure) for other in others))
        largest = (max((value for value in values if value is not None), default=None) for values in rounds)
        pairs = zip(self.values(contest, contestant, figure), largest, strict=False)
        return spread(ours / theirs for ours, theirs in pairs if ours is not None and theirs)
