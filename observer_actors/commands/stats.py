"""`observer-actors stats`."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from observer_actors.commands._answers import StatsAnswer
from observer_actors.commands._options import ApiOptions, JsonFlag
from observer_actors.commands._screen import console, print_json, table


def stats(api: ApiOptions = ApiOptions(), *, json: JsonFlag = False) -> None:
    """Count the recent operations, and everything ever committed.

    Example: observer-actors stats
    """
    body, answer = api.get(StatsAnswer, "/stats")
    if json:
        print_json(body)
    else:
        _print(console(), answer)


def _print(screen: Console, answer: StatsAnswer) -> None:
    ever = answer.lifetime
    rows = [
        (name, f"{total:,}", f"{successes:,}", f"{failures:,}", _share(failures, total))
        for name, total, successes, failures in (
            ("in the ring", answer.total, answer.successes, answer.failures),
            ("ever", ever.total, ever.successes, ever.failures),
        )
    ]
    numbers = ("ops", "good", "failed", "share", "p50 ms", "p90 ms", "p99 ms")
    screen.print(table(("", "ops", "good", "failed", "share"), rows, numbers=numbers))
    screen.print(f"\n{ever.per_second_1m:,.1f} a second in the last minute\n")
    sources = sorted(ever.by_source.items(), key=lambda item: -item[1])
    screen.print(table(("source", "ops"), [(name, f"{count:,}") for name, count in sources], numbers=numbers))
    endpoints = sorted(ever.endpoints.items(), key=lambda item: -item[1].total)
    screen.print()
    screen.print(
        table(
            ("endpoint", "ops", "failed", "share", "p50 ms", "p90 ms", "p99 ms"),
            [
                (
                    name,
                    f"{one.total:,}",
                    Text(f"{one.failures:,}", "red" if one.failures else ""),
                    _share(one.failures, one.total),
                    f"{one.p50_ms:,.1f}",
                    f"{one.p90_ms:,.1f}",
                    f"{one.p99_ms:,.1f}",
                )
                for name, one in endpoints
            ],
            numbers=numbers,
        )
    )


def _share(part: int, total: int) -> str:
    return f"{part / total:.1%}" if total else ""
