from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from observer_actors.labels import LABEL_CHARS_MAX, OTHER
from observer_actors.op import Op
from observer_actors.stats import (
    ENDPOINTS_MAX,
    LARGEST_MS,
    RATE_SECONDS,
    RELATIVE_ERROR,
    SMALLEST_MS,
    SOURCES_MAX,
    LatencySketch,
    RateWindow,
    Stats,
)

ROUNDING = 1e-9
durations = st.one_of(st.floats(SMALLEST_MS, LARGEST_MS), st.integers(1, 10_000), st.just(0.0))


def sketch_of(values: list[float]) -> LatencySketch:
    sketch = LatencySketch()
    for value in values:
        sketch.add([value])
    return sketch


@given(st.lists(durations, min_size=1, max_size=200), st.floats(0, 1))
def test_a_quantile_is_within_one_percent_of_a_true_one(values: list[float], share: float) -> None:
    shares = (0.0, share, 1.0)
    for one, found in zip(shares, sketch_of(values).quantiles(*shares), strict=True):
        true = sorted(values)[int(one * (len(values) - 1))]
        if true <= SMALLEST_MS:
            assert found == 0.0
        else:
            assert abs(found - true) <= (RELATIVE_ERROR + ROUNDING) * true


@pytest.mark.parametrize(
    "drawn",
    [
        lambda _: 57,
        lambda chance: chance.choice((1, 10_000)),
        lambda chance: chance.paretovariate(0.3),
        lambda chance: chance.uniform(-5, 5),
        lambda chance: 10 ** chance.randint(-9, 308),
    ],
    ids=["constant", "bimodal", "heavy tail", "around zero", "tiny to huge"],
)
def test_quantiles_and_sum_hold_for_any_distribution(drawn: Callable[[Random], float]) -> None:
    chance, sketch = Random(1), LatencySketch()
    values = [drawn(chance) for _ in range(20_000)]
    for at in range(0, len(values), 500):
        sketch.add(values[at : at + 500])
    true = sorted(min(value, LARGEST_MS) if value > SMALLEST_MS else 0.0 for value in values)
    shares = (0.0, 0.01, 0.5, 0.9, 0.99, 0.999, 1.0)
    expected = [pytest.approx(true[int(share * (len(true) - 1))], rel=RELATIVE_ERROR + ROUNDING) for share in shares]
    assert sketch.quantiles(*shares) == expected
    assert sketch.sum_ms == pytest.approx(math.fsum(true))


def test_what_was_sorted_once_stays_in_order_and_in_its_snapshot_too() -> None:
    sketch = sketch_of([100.0, 1.0, 10.0])
    asked = sketch.quantiles(0.0, 1.0)
    again = msgspec.json.decode(msgspec.json.encode(sketch), type=LatencySketch)
    assert list(again.buckets) == sorted(again.buckets)
    again.add([0.1, 1_000.0, 1.0])
    assert again.quantiles(0.0, 0.4, 1.0) == sketch_of([0.1, 1.0, 1.0, 10.0, 100.0, 1_000.0]).quantiles(0.0, 0.4, 1.0)
    assert asked == sketch.quantiles(0.0, 1.0)


def test_an_empty_sketch_gives_zero() -> None:
    assert LatencySketch().quantiles(0.5, 1.0) == [0.0, 0.0]


@pytest.mark.parametrize("value", [0, -5.0, math.nan, -math.inf, SMALLEST_MS])
def test_what_is_no_duration_counts_as_zero(value: float) -> None:
    sketch = sketch_of([value])
    assert (sketch.count, sketch.zeros, sketch.sum_ms, sketch.quantiles(0.5, 1)) == (1, 1, 0.0, [0.0, 0.0])


@pytest.mark.parametrize("value", [math.inf, 1e300, 10**400])
def test_what_is_too_long_counts_as_the_longest(value: float) -> None:
    sketch = sketch_of([value])
    assert sketch.sum_ms == LARGEST_MS
    assert sketch.quantiles(0.5) == [pytest.approx(LARGEST_MS, rel=RELATIVE_ERROR)]


def test_a_sketch_has_a_bounded_number_of_buckets() -> None:
    sketch = sketch_of([SMALLEST_MS * 1.001**n for n in range(40_000)])
    assert len(sketch.buckets) <= 1_500


def op(seq: int, *, endpoint: str = "/x", source: str = "mcp", success: bool = True) -> Op:
    return Op(
        timestamp="",
        endpoint=endpoint,
        input_summary="",
        success=success,
        duration_ms=seq,
        output_summary="",
        source=source,
        seq=seq,
    )


def test_counters_come_back_from_their_snapshot() -> None:
    stats = Stats()
    stats.add([op(1), op(2, success=False, source="bot"), op(3, endpoint="/y")])
    assert (stats.last_seq, stats.all.successes, stats.all.failures) == (3, 2, 1)
    assert stats.endpoints["/x"].latency.count == 2
    assert msgspec.json.decode(msgspec.json.encode(stats), type=Stats) == stats


def test_labels_are_bounded_and_nothing_goes_uncounted() -> None:
    stats = Stats()
    stats.add([op(n, endpoint=f"/{n}", source=f"s{n}") for n in range(1, 1_001)])
    assert len(stats.endpoints) == ENDPOINTS_MAX + 1
    assert len(stats.sources) == SOURCES_MAX + 1
    assert stats.endpoints[OTHER].successes == 1_000 - ENDPOINTS_MAX
    assert sum(tally.successes for tally in stats.sources.values()) == 1_000


@pytest.mark.parametrize("is_saved", [False, True])
def test_an_endpoint_called_other_is_told_from_the_overflow(*, is_saved: bool) -> None:
    stats = Stats()
    stats.add([op(5, endpoint=OTHER, source=OTHER)])
    for n in range(10, 310):
        stats.add([op(n, endpoint=f"/{n}", source=f"s{n}")])
        if is_saved:
            stats = msgspec.json.decode(msgspec.json.encode(stats), type=Stats)
    stats.add([op(400, endpoint=OTHER, source=OTHER), op(401, endpoint=f"{OTHER}…", source=f"{OTHER}…")])
    assert (stats.endpoints[OTHER].successes, stats.endpoints[OTHER].latency.sum_ms) == (2, 405)
    assert (len(stats.endpoints), stats.endpoints[f"{OTHER}…"].successes) == (
        ENDPOINTS_MAX + 1,
        303 - ENDPOINTS_MAX - 1,
    )
    assert (len(stats.sources), stats.sources[OTHER].successes) == (SOURCES_MAX + 1, 2)


def test_a_label_is_of_a_bounded_length_and_two_long_ones_are_told_apart() -> None:
    stats = Stats()
    stats.add([op(1, endpoint="a" * 250_000), op(2, endpoint="a" * 249_999 + "b"), op(3, endpoint="a" * 250_000)])
    assert sorted(tally.successes for tally in stats.endpoints.values()) == [1, 2]
    assert {len(label) for label in stats.endpoints} == {LABEL_CHARS_MAX}


@given(st.lists(st.tuples(st.floats(0, 120), st.integers(0, 100)), max_size=50), st.floats(0, 600))
def test_a_rate_is_the_mean_over_the_window_to_the_second(steps: list[tuple[float, int]], later: float) -> None:
    window, now, noted = RateWindow(), 0.0, list[tuple[float, int]]()
    for pause, count in steps:
        now += pause
        window.add(now, count)
        noted.append((now, count))
    now += later
    total = window.per_second(now) * RATE_SECONDS
    least = sum(count for time, count in noted if now - time < RATE_SECONDS - 1)
    most = sum(count for time, count in noted if now - time < RATE_SECONDS)
    assert least - ROUNDING <= total <= most + ROUNDING


def test_what_the_daemon_notes_itself_is_counted_under_its_source_alone() -> None:
    stats = Stats()
    stats.add([op(1), op(2, source="observer", endpoint="observer:advice")])
    assert (stats.last_seq, stats.all.successes, list(stats.endpoints)) == (2, 1, ["/x"])
    assert {source: tally.successes for source, tally in stats.sources.items()} == {"mcp": 1, "observer": 1}
