"""When the ops of a block happened, as a few ranges of time. Pure.

Mostly one, from the earliest op to the latest. But one caller whose clock stands in 1970 would make each block look as
if it could hold any time at all, and who asks for a day of last week would have all that came since decoded for it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from heapq import nlargest
from itertools import chain
from typing import Final

Times = tuple[int, ...]
"""Begin and end of each range in turn, ascending, both included, in microseconds since 1970; () where none is known."""

APART_US: Final = 3_600_000_000
"""Times within an hour of each other are one range: a block seldom holds as much, and clocks that are set right are not
as far apart."""
RANGES_MAX: Final = 8
"""So many are told apart, those with the widest gaps between them."""


def ranges(times: Iterable[int]) -> Times:
    """Give the ranges of single times, in any order."""
    return _joined([(time, time) for time in times])


def union(one: Times, other: Times) -> Times:
    """Give the ranges of what two say together."""
    if one and other:
        hull = min(one[0], other[0]), max(one[-1], other[-1])
        if hull[1] - hull[0] <= APART_US:
            return hull
    return union_of((one, other))


def union_of(several: Iterable[Times]) -> Times:
    """Give the ranges of what several say together."""
    return _joined([pair for times in several for pair in zip(times[::2], times[1::2], strict=True)])


def overlap(times: Times, since_us: int | None, until_us: int | None) -> bool:
    """Tell whether a time from one bound on and before the other (None for none) may lie in one of the ranges."""
    at = 0 if since_us is None else bisect_left(times, since_us)
    is_within = at % 2 == 1  # between a begin and its end
    return not times or (at < len(times) and (until_us is None or is_within or times[at] < until_us))


def _joined(pairs: list[tuple[int, int]]) -> Times:
    if not pairs:
        return ()
    pairs.sort()
    gaps: list[tuple[int, int]] = []
    first, end = pairs[0]
    for begin, its_end in pairs:
        if begin - end > APART_US:
            gaps.append((end, begin))
        end = max(end, its_end)
    widest = sorted(nlargest(RANGES_MAX - 1, gaps, key=lambda gap: gap[1] - gap[0]))
    return (first, *chain.from_iterable(widest), end)
