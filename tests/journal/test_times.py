"""Ranges of time: what is in them is never denied, and what lies between them mostly is."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from observer_actors.journal.times import APART_US, RANGES_MAX, Times, overlap, ranges, union, union_of

HOUR = APART_US
times_of = st.lists(st.integers(-20 * HOUR, 20 * HOUR), max_size=30)
bound = st.none() | st.integers(-21 * HOUR, 21 * HOUR)


def in_order(times: Times) -> bool:
    pairs = list(zip(times[::2], times[1::2], strict=True))
    return all(begin <= end for begin, end in pairs) and all(
        begin - before > APART_US for (_, before), (begin, _) in pairwise(pairs)
    )


@given(times_of, bound, bound)
def test_what_happened_is_never_denied(times: list[int], since: int | None, until: int | None) -> None:
    found = ranges(times)
    assert in_order(found)
    assert len(found) <= 2 * RANGES_MAX
    assert found == () or (found[0], found[-1]) == (min(times), max(times))
    if any((since is None or time >= since) and (until is None or time < until) for time in times):
        assert overlap(found, since, until)


@given(times_of.filter(bool), st.integers(-21 * HOUR, 21 * HOUR), st.integers(1, 3 * HOUR))
def test_what_lies_between_the_ranges_is_denied(times: list[int], since: int, length: int) -> None:
    found = ranges(times)
    pairs = zip(found[::2], found[1::2], strict=True)
    assert overlap(found, since, since + length) == any(a < since + length and b >= since for a, b in pairs)
    assert overlap((), since, since + length)


@given(times_of, times_of, times_of)
def test_several_together_hold_what_each_holds(one: list[int], other: list[int], third: list[int]) -> None:
    for together in (union(ranges(one), ranges(other)), union_of(map(ranges, (one, other, third)))):
        assert in_order(together)
        assert len(together) <= 2 * RANGES_MAX
        assert all(overlap(together, time, time + 1) for time in one + other)


def test_a_few_clocks_that_are_off_leave_the_rest_as_it_is() -> None:
    now = 1_795_000_000_000_000
    assert ranges([now, 0, now + HOUR, 5]) == (0, 5, now, now + HOUR)
    assert ranges([now + HOUR + 1, now]) == (now, now, now + HOUR + 1, now + HOUR + 1)


def test_of_too_many_the_widest_gaps_are_kept() -> None:
    times = [step * step * 2 * HOUR for step in range(20)]
    found = ranges(times)
    assert len(found) == 2 * RANGES_MAX
    assert found[-2 * RANGES_MAX + 2 :: 2] == tuple(times[-RANGES_MAX + 1 :])
    assert (found[0], found[1]) == (0, times[20 - RANGES_MAX])
