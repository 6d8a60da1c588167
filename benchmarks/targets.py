"""The targets as a table: what, how much, and which figure says so. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from benchmarks.advice import ADVICE, FULL_PLAYBOOK
from benchmarks.company import ALONE, COMPANY, IN_COMPANY
from benchmarks.contest import Contest
from benchmarks.events import BATCH, EVENT_C32, EVENT_C256, OURS, REDIS_ROWS, SEED
from benchmarks.grouping import AIRLINE, ALL, GROUPING, SETS
from benchmarks.grouping import OURS as OUR_GROUPING
from benchmarks.half_load import HALF_LOAD
from benchmarks.history import EMPTY, FULL, FULL_COLD, QUERIES, QUERY_NAMES, START, THROUGHPUT
from benchmarks.memory import BATCHED, CONTESTANTS, FLAT, MEMORY, MEMORY_RATE
from benchmarks.results import Results

OPS: Final = 10_000_000
MEMORY_SECONDS: Final = 60


class Verdict(StrEnum):
    """How a target came out."""

    MET = "met"
    MISSED = "**missed**"
    NOT_JUDGED = "not judged"


@dataclass(frozen=True)
class Check:
    """One condition: a figure out of the results, and what it must be. ``form`` is how the figure is written."""

    form: str
    value: Callable[[Results], float | None]
    holds: Callable[[float], bool]


@dataclass(frozen=True)
class Target:
    """A row: all of its checks must hold, or any of them."""

    what: str
    wanted: str
    checks: tuple[Check, ...]
    any_will_do: bool = False
    short_of: Callable[[Results], str] = lambda _results: ""
    """What the run lacks to judge this; "" for nothing."""
    beside: Callable[[Results], str] = lambda _results: ""
    """What else was measured that bears on it, and does not decide; "" for nothing."""


@dataclass(frozen=True)
class Judged:
    """A target with what was measured."""

    target: Target
    measured: str
    verdict: Verdict


def judge(target: Target, results: Results) -> Judged:
    """Compare a target with the results. What was not measured, or only on a smaller scale, is never met."""
    values = [(check, check.value(results)) for check in target.checks]
    held = [None if value is None else check.holds(value) for check, value in values]
    shown = [check.form.format("—" if value is None else _plain(value)) for check, value in values]
    short_of = target.short_of(results)
    if short_of and any(value is not None for _, value in values):
        return Judged(target, f"{'; '.join(shown)} ({short_of})", Verdict.NOT_JUDGED)
    measured = "; ".join(filter(None, [*shown, target.beside(results)]))
    return Judged(target, measured, _verdict(held, any_will_do=target.any_will_do))


def _verdict(held: Sequence[bool | None], *, any_will_do: bool) -> Verdict:
    decided = any_will_do  # one that holds decides, or one that does not
    if decided in held:
        return Verdict.MET if decided else Verdict.MISSED
    if None in held:
        return Verdict.NOT_JUDGED
    return Verdict.MISSED if decided else Verdict.MET


def _plain(value: float) -> str:
    """Write a figure so that what just misses a target is not shown as if it met it."""
    return f"{value:,.0f}" if value >= 1_000 else f"{value:.4g}"  # noqa: PLR2004 - from there on, a unit is exact enough


def _ratio(contest: Contest, ours: str, theirs: Sequence[str], least: float, named: str) -> Check:
    """Compare with another contestant, or the best of its rows, by the median of the quotients, round by round."""

    def value(results: Results) -> float | None:
        found = results.ratio(contest.name, ours, theirs, contest.main.name)
        return found.median if found else None

    return Check(f"{{}} × {named}", value, lambda ratio: ratio >= least)


def _median(contest: Contest, contestant: str, figure: str, form: str, holds: Callable[[float], bool]) -> Check:
    return Check(form, lambda results: results.median(contest.name, contestant, figure), holds)


def _worst(contest: Contest, contestants: Sequence[str], figure: str, form: str, most: float) -> Check:
    """Take the worst value of any round of any of them; nothing unless all were measured."""

    def value(results: Results) -> float | None:
        found = [results.spread(contest.name, contestant, figure) for contestant in contestants]
        highs = [spread.high for spread in found if spread]
        return max(highs) if len(highs) == len(contestants) else None

    return Check(form, value, lambda worst: worst < most)


def _least(figure: str, form: str, contestants: Sequence[str], least: float) -> Check:
    """Take the lowest of our groupings' figures; nothing unless all were measured."""

    def value(results: Results) -> float | None:
        found = [results.median(GROUPING.name, f"{OUR_GROUPING}, {name}", figure) for name in contestants]
        there = [figure for figure in found if figure is not None]
        return min(there) if len(there) == len(contestants) else None

    return Check(form, value, lambda lowest: lowest >= least)


def _short_of_ops(results: Results) -> str:
    return "" if results.ops >= OPS else f"with {results.ops:,} ops only"


def _short_of_time(results: Results) -> str:
    return "" if results.memory_seconds >= MEMORY_SECONDS else f"over {results.memory_seconds:g} s only"


def _over_a_minute(results: Results) -> str:
    rate = results.median(MEMORY.name, BATCHED, MEMORY_RATE)
    return "" if rate is None else f"{_plain(rate)} events/s over {results.memory_seconds:g} s (memory)"


TARGETS: Final = (
    Target(
        "POST /event, on disk before the answer, c=32",
        "≥ 1.0 × the seed (which answers from memory), ≥ 0.9 × Redis",
        (_ratio(EVENT_C32, OURS, (SEED,), 1.0, "the seed"), _ratio(EVENT_C32, OURS, REDIS_ROWS, 0.9, "Redis")),
    ),
    Target(
        "the same, c=256",
        "≥ 1.4 × the seed, ≥ 0.8 × Redis",
        (_ratio(EVENT_C256, OURS, (SEED,), 1.4, "the seed"), _ratio(EVENT_C256, OURS, REDIS_ROWS, 0.8, "Redis")),
    ),
    Target(
        "500 events a request, NDJSON, c=16",
        "≥ 300,000 events/s or ≥ 1.1 × Redis with a pipeline of 500",
        (
            _median(BATCH, OURS, BATCH.main.name, "{} events/s", lambda rate: rate >= 300_000),  # noqa: PLR2004
            _ratio(BATCH, OURS, REDIS_ROWS, 1.1, "Redis"),
        ),
        any_will_do=True,
        beside=_over_a_minute,
    ),
    Target(
        "p99 of a single POST at half load",
        "< 5 ms",
        (_median(HALF_LOAD, OURS, "p99_ms", "{} ms", lambda ms: ms < 5),),  # noqa: PLR2004
    ),
    Target(
        "throughput with 10 million ops on disk against an empty journal",
        "≥ 0.9",
        (_ratio(THROUGHPUT, FULL, (EMPTY,), 0.9, "the empty journal"),),
        short_of=_short_of_ops,
    ),
    Target(
        "start with 10 million ops on disk",
        "< 1.5 s",
        (_worst(START, (FULL, FULL_COLD), "seconds", "{} s (worst, also with nothing in memory)", 1.5),),
        short_of=_short_of_ops,
    ),
    Target(
        "`/ops` by time or seq over 10 million ops, first page",
        "< 100 ms",
        (_worst(QUERIES, QUERY_NAMES, "worst_ms", "{} ms (worst of all)", 100),),
        short_of=_short_of_ops,
    ),
    Target(
        "p99 of `GET /advice` with 10,000 entries, in the journal before the answer",
        "< 5 ms",
        (_median(ADVICE, FULL_PLAYBOOK, "p99_ms", "{} ms", lambda ms: ms < 5),),  # noqa: PLR2004
    ),
    Target(
        "resident memory at full load for 60 s, and when offered 10 times what it can take",
        "< 250 MB, flat",
        (
            _worst(MEMORY, CONTESTANTS, "max_mb", "{} MB at most", 250),
            _worst(MEMORY, CONTESTANTS, "growth", "last third {} × the first", FLAT),
        ),
        short_of=_short_of_time,
    ),
    Target(
        "ingest while a reader drains `/tail` slowly, `/stats` is polled, a cycle runs",
        "≥ 0.85 of the undisturbed rate",
        (_ratio(COMPANY, IN_COMPANY, (ALONE,), 0.85, "undisturbed"),),
    ),
    Target(
        "failures into patterns: each of the five Loghub sets",
        "GA ≥ 0.95, FGA ≥ 0.92",
        (_least("ga", "GA {} at least", SETS, 0.95), _least("fga", "FGA {} at least", SETS, 0.92)),
    ),
    Target("the same, airline errors", "GA = 1", (_least("ga", "GA {}", (AIRLINE,), 1.0),)),
    Target(
        "the same in another order",
        "adjusted Rand index ≥ 0.98",
        (_least("order", "{} at least", (*SETS, AIRLINE), 0.98),),
    ),
    Target(
        "the same, speed on one core",
        "≥ 100,000 messages/s",
        (_least("per_second", "{} messages/s", (ALL,), 100_000),),
    ),
)
