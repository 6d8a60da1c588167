"""What sets failing operations apart: planted causes are found, and chance is not taken for one."""

import math
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from fractions import Fraction
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from observer_actors.actors.evidence import SAMPLE_OPS, comparable, contrast_of
from observer_actors.event import EventDecoder
from observer_actors.journal import Page, Query
from observer_actors.op import OUTCOME_ATTRS, Op, Scalar, Seq
from observer_actors.patterns import apply
from observer_actors.patterns.contrast import ABSENT, ALSO_MAX, SHOWN_MAX, contrasts, features, mid_p

SEEDS = 2_000
RATE = 0.05
"""The false discovery rate that the module promises."""


@given(st.integers(0, 30), st.integers(0, 30), st.data())
def test_the_p_value_is_exact(failing: int, succeeding: int, data: st.DataObject) -> None:
    """Against whole numbers, without a logarithm."""
    total = failing + succeeding
    with_ = data.draw(st.integers(0, total))
    observed = data.draw(st.integers(max(0, failing + with_ - total), min(failing, with_)))
    ways = {
        count: math.comb(with_, count) * math.comb(total - with_, failing - count)
        for count in range(max(0, failing + with_ - total), min(failing, with_) + 1)
    }
    expected = Fraction(ways[observed], 2) + sum(ways[count] for count in ways if count > observed)
    assert mid_p(observed, failing, with_, total) == pytest.approx(float(expected / sum(ways.values())), abs=1e-9)


def noise(random: Random, count: int) -> list[dict[str, str]]:
    """Give ops whose features have nothing to do with anything; some have few values, one has many."""
    return [
        {
            "source": random.choice(("mcp", "bot")),
            "role": random.choice(("welder", "nurse", "cook", "clerk")),
            "city": random.choice([f"city {n}" for n in range(12)]),
            "hour": f"{random.randrange(24):02}",
            "attrs.region": random.choice(("eu", "us", "us", "us")),
            "attrs.run": f"run {random.randrange(40)}",
        }
        for _ in range(count)
    ]


@pytest.mark.no_cover
def test_in_pure_noise_less_is_found_than_is_promised() -> None:
    """Whatever is found there is false, so the share of seeds with a finding is the false discovery rate."""
    false = 0
    for seed in range(SEEDS):
        random = Random(seed)
        false += bool(contrasts(noise(random, random.randint(5, 60)), noise(random, random.randint(5, 200))))
    # Three standard errors above the promise would be .0646: a rate at its bound stays below it.
    assert false / SEEDS <= RATE + 3 * math.sqrt(RATE * (1 - RATE) / SEEDS)
    assert false > 0, "so cautious that it never says anything"


@pytest.mark.parametrize(("failing", "succeeding", "share"), [(50, 50, 0.5), (20, 20, 0.2), (20, 60, 0.3)])
def test_a_single_feature_of_two_values_is_found_by_chance_as_rarely_as_promised(
    failing: int, succeeding: int, share: float
) -> None:
    """By exact enumeration: of two values the mid-P has its largest error."""

    def chance(count: int, of: int) -> float:
        return math.comb(of, count) * share**count * (1 - share) ** (of - count)

    found = 0.0
    for with_ in range(failing + 1):
        for also in range(succeeding + 1):
            weight = chance(with_, failing) * chance(also, succeeding)
            if weight > 1e-9 and contrasts(two_valued(with_, failing), two_valued(also, succeeding)):
                found += weight
    assert found <= RATE


def two_valued(with_: int, of: int) -> list[dict[str, str]]:
    return [{"city": "a" if number < with_ else "b"} for number in range(of)]


def test_the_absence_of_an_attribute_may_be_what_sets_apart() -> None:
    succeeding = [{"city": "a", "attrs.tenant": str(number)} for number in range(50)]
    [found] = contrasts([{"city": "a"}] * 20, succeeding)
    assert (found.feature, found.value, found.failing_with, found.succeeding_with) == ("attrs.tenant", ABSENT, 20, 0)


@pytest.mark.no_cover
def test_beside_a_true_cause_the_rate_holds_too() -> None:
    shares = []
    found = 0
    for seed in range(500):
        random = Random(seed)
        failing, succeeding = noise(random, 40), noise(random, 160)
        for op in failing[:30]:
            op["attrs.region"] = "moon"
        results = contrasts(failing, succeeding)
        true = [item for item in results if (item.feature, item.value) == ("attrs.region", "moon")]
        found += bool(true)
        shares.append((len(results) - len(true)) / max(1, len(results)))
    assert found == 500
    assert sum(shares) / len(shares) <= RATE


def test_a_planted_cause_is_found_with_its_effect() -> None:
    random = Random(1)
    failing, succeeding = noise(random, 50), noise(random, 300)
    for number, op in enumerate(failing):
        op["attrs.region"] = "eu" if number < 45 else "us"
    [first, *_] = contrasts(failing, succeeding)
    assert (first.feature, first.value, first.failing_with, first.failing, first.succeeding) == (
        "attrs.region",
        "eu",
        45,
        50,
        300,
    )
    assert first.low < first.odds_ratio < first.high
    assert first.low > 5
    assert first.p <= first.q <= RATE


def test_two_causes_are_both_found() -> None:
    random = Random(2)
    failing, succeeding = noise(random, 80), noise(random, 300)
    for op in failing[:40]:
        op["role"] = "pilot"
    for op in failing[40:]:
        op["city"] = "Atlantis"
    assert {(item.feature, item.value) for item in contrasts(failing, succeeding)[:2]} == {
        ("role", "pilot"),
        ("city", "Atlantis"),
    }


def test_what_stands_for_the_same_ops_is_one_finding() -> None:
    random = Random(3)
    failing, succeeding = noise(random, 60), noise(random, 200)
    for op in failing[:50]:
        op |= {"attrs.version": "2.1", "attrs.build": "77", "city": "Atlantis"}
    [found] = [item for item in contrasts(failing, succeeding) if item.p < 1e-6]
    named = {found.value, *(value.value for value in found.also)}
    assert named == {"2.1", "77", "Atlantis"}


@pytest.mark.no_cover
def test_what_is_nothing_once_the_cause_is_held_fixed_is_no_finding_of_its_own() -> None:
    """A version fails, and is used in two cities: the cities are frequent because the version is."""
    of_their_own = 0
    for seed in range(200):
        random = Random(seed)
        failing, succeeding = noise(random, 100), noise(random, 400)
        for op in [*failing[:90], *succeeding[:40]]:
            op["attrs.version"] = "2.1"
            op["city"] = random.choice(("Atlantis", "Lemuria"))
        for op in [*failing[90:], *succeeding[40:]]:
            op["attrs.version"] = "2.0"
        first, *others = contrasts(failing, succeeding)
        assert (first.feature, first.value) == ("attrs.version", "2.1")
        of_their_own += any(item.feature == "city" for item in others)
    assert of_their_own <= 200 * RATE


@pytest.mark.parametrize(("failing", "succeeding"), [(4, 100), (100, 4), (0, 0)])
def test_nothing_is_said_below_the_stated_evidence(failing: int, succeeding: int) -> None:
    assert contrasts([{"role": "pilot"}] * failing, [{"role": "cook"}] * succeeding) == []


def test_a_value_of_two_failing_ops_is_no_finding_however_rare_it_is() -> None:
    failing = [{"role": "pilot"}] * 2 + [{"role": "cook"}] * 5
    assert contrasts(failing, [{"role": "cook"}] * 2_000) == []


def test_what_all_have_sets_nobody_apart() -> None:
    assert contrasts([{"endpoint": "a"}] * 50, [{"endpoint": "a"}] * 50) == []


def test_the_features_of_an_op() -> None:
    op = Op(
        timestamp="2026-11-22T17:05:00Z",
        endpoint="sql:run",
        input_summary="",
        success=False,
        duration_ms=2_500,
        output_summary="",
        source="mcp",
        role="welder",
        city=None,
        attrs={"retry": True, "model": "m" * 500, "none": None, "n": 1.5},
    )
    assert features(op) == {
        "source": "mcp",
        "role": "welder",
        "hour": "17",
        "duration": "1 to 10 s",
        "attrs.retry": "true",
        "attrs.model": "m" * 200,
        "attrs.n": "1.5",
    }
    bands = [features(msgspec.structs.replace(op, duration_ms=ms))["duration"] for ms in (-1, 9.9, 10, 59_999, 60_000)]
    assert Counter(bands) == {"below 10 ms": 2, "10 to 100 ms": 1, "10 to 60 s": 1, "60 s and longer": 1}


def test_how_an_op_ended_sets_nothing_apart() -> None:
    found = features(op_of(1, "gone", region="eu", **dict.fromkeys(OUTCOME_ATTRS, 2)))
    assert [name for name in found if name.startswith("attrs.")] == ["attrs.region"]


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:00:00-05:00"])
def test_a_time_that_no_calendar_has_is_one_all_the_same(time: str) -> None:
    op = EventDecoder().one(msgspec.json.encode({"timestamp": time}), now="2026-11-22T10:00:00.000Z").op
    assert len(features(op)["hour"]) == 2


def op_of(seq: int, error: str = "", **attrs: Scalar) -> Op:
    return Op(
        timestamp="",
        endpoint="a",
        input_summary="",
        success=not error,
        duration_ms=1,
        output_summary="",
        error=error or UNSET,
        source="mcp",
        seq=seq,
        recorded_at="2026-11-22T10:00:00.000000Z",
        attrs=attrs or UNSET,
    )


[PATTERN] = apply({}, [op_of(1, "gone")]).patterns.values()


def search_in(ops: Sequence[Op], room: int = SAMPLE_OPS) -> Callable[[Query], Awaitable[Page]]:
    """Give what searches a journal whose pages have so much room."""

    async def search(query: Query) -> Page:
        found = [op for op in reversed(ops) if query.fits(op)]
        page = found[: min(query.limit, room)]
        cursor = Seq(page[-1].seq) if len(page) < len(found) else None
        return Page(ops=page, cursor=cursor, complete=True)

    return search


def test_samples_are_compared_over_the_time_that_both_cover() -> None:
    failing, succeeding = ([op_of(seq, error) for seq in range(10, 0, -1)] for error in ("gone", ""))
    assert comparable(failing, succeeding, 0) == (failing, succeeding, True)
    assert comparable(failing, succeeding, 6) == (failing[:5], succeeding[:5], True)
    assert comparable(failing, succeeding, 7) == (failing, succeeding, False), "too few are left"


@pytest.mark.parametrize("room", [SAMPLE_OPS, 400])
async def test_a_flood_of_other_failures_makes_the_newest_release_no_cause(room: int) -> None:
    """Then the newest failures are all of that release, and the successes of all four; so also where texts are long.

    :param room: ops in a page.
    """
    ops = []
    for seq in range(5_000):
        release = seq // 1_250
        if seq % 50 == 0:
            ops.append(op_of(seq, "upstream timed out", release=release))
        elif seq % 10 == 0:
            ops.append(op_of(seq, release=release))
        elif release == 3:
            ops.append(op_of(seq, "no space on node", release=release))

    search = search_in(ops, room)
    assert not await contrast_of(search, lambda op: PATTERN.id if op.error == "upstream timed out" else "", PATTERN)


@pytest.mark.parametrize("calls", [1, 5])
async def test_what_agents_repeat_is_found_by_chance_no_oftener_than_promised(calls: int) -> None:
    """A run has a setting, and fails whatever that is: each of its calls that fails has the setting, too.

    :param calls: of a run that fails.
    """
    found = 0
    for seed in range(200):
        random, ops = Random(seed), list[Op]()
        for run in range(100):
            has_failed = random.random() < 0.2
            setting = {name: random.choice("pqrs") for name in ("model", "region", "tenant")}
            for attempt in range(calls if has_failed else 1):
                ops.append(op_of(len(ops), "gone" * has_failed, run=run, attempt=attempt, span_id=len(ops), **setting))
        found += bool(await contrast_of(search_in(ops), lambda _: PATTERN.id, PATTERN))
    assert 0 < found <= 200 * (RATE + 3 * math.sqrt(RATE * (1 - RATE) / 200))


async def test_of_a_run_its_first_op_counts_alone_and_of_ops_without_a_run_all() -> None:
    ops = [op_of(seq, "gone" if seq % 2 else "", **({"run": seq // 20} if seq < 100 else {})) for seq in range(120)]
    failing, succeeding, _ = comparable(ops[::-2], ops[-2::-2], 0)
    seqs = [sorted(op.seq for op in sample) for sample in (failing, succeeding)]
    assert seqs == [[1, 21, 41, 61, 81, *range(101, 120, 2)], [0, 20, 40, 60, 80, *range(100, 120, 2)]]


def test_so_many_findings_are_shown_the_strongest_first_and_so_many_beside_each() -> None:
    random = Random(7)

    def ops(count: int, share: float) -> list[dict[str, str]]:
        return [{f"f{n}": "x" if random.random() < share else "y" for n in range(SHOWN_MAX + 5)} for _ in range(count)]

    found = contrasts(ops(200, 0.6), ops(200, 0.1))
    assert (len(found), {one.value for one in found}) == (SHOWN_MAX, {"x"})
    assert [one.p for one in found] == sorted(one.p for one in found)
    alike = [[{f"f{n:02}": value for n in range(ALSO_MAX + 5)}] * 20 for value in "xy"]
    [one] = contrasts(*alike)
    assert [other.feature for other in one.also] == [f"f{n:02}" for n in range(1, ALSO_MAX + 1)]
