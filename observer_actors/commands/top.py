"""`observer-actors top`."""

from __future__ import annotations

import time
from datetime import datetime
from types import FrameType
from typing import Annotated, Final, NoReturn

import msgspec
from cyclopts import Parameter
from rich.console import Group, RenderableType
from rich.layout import Layout
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from observer_actors.commands._answers import ActorsAnswer, FailuresAnswer, HealthAnswer, ReadyAnswer, StatsAnswer
from observer_actors.commands._api import Api, Refused
from observer_actors.commands._options import ApiOptions
from observer_actors.commands._screen import ONE_LINE_CHARS, compact, console, table
from observer_actors.commands._signals import ENDING, EXIT_SIGNALLED, taken
from observer_actors.commands.actors import lines_of, tree_of
from observer_actors.commands.failures import table_of
from observer_actors.errors import Unreachable, UsageInvalid
from observer_actors.visible import visible

SHOWN_ROWS: Final = 12
FRAME_COLUMNS: Final = 4
PLAIN_WIDTH: Final = ONE_LINE_CHARS + FRAME_COLUMNS
INTERVAL_S_MIN: Final = 0.1
INTERVAL_S_MAX: Final = 86_400.0
FRAME_LINES: Final = 2


class Look(msgspec.Struct, frozen=True):
    """What the daemon said at one moment (``at``: seconds on a clock that never goes back)."""

    at: float
    health: HealthAnswer
    ready: ReadyAnswer
    stats: StatsAnswer
    actors: ActorsAnswer
    failures: FailuresAnswer


def top(
    api: ApiOptions = ApiOptions(),
    *,
    interval: float = 1.0,
    once: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Show rates, sources, failing patterns, the tree and its queues, live on the whole screen.

    Ends with Ctrl-C. A daemon that goes away is waited for.

    Example: observer-actors top --interval 2

    Parameters
    ----------
    interval
        Seconds from one look to the next: 0.1, up to a day.
    once
        Print one look, and end; so it does where the output is no terminal, or one that cannot be written anywhere on.
    """
    if not INTERVAL_S_MIN <= interval <= INTERVAL_S_MAX:
        raise UsageInvalid(
            f"--interval {interval}: from {INTERVAL_S_MIN} to {INTERVAL_S_MAX:,.0f} seconds", hint="e.g. 2"
        )
    screen = console()
    with api.open() as daemon:
        look = _look(daemon)
        if once or not screen.is_terminal or screen.is_dumb_terminal:
            screen.print(Group(*_parts(look, None)), width=None if screen.is_terminal else PLAIN_WIDTH)
            return
        live = Live(_whole(look, None), console=screen, screen=True, auto_refresh=False)
        with taken(*ENDING, by=_end):
            try:
                live.start(refresh=True)
                _follow(daemon, live, look, interval)
            finally:  # also when a signal comes while it starts
                live.stop()


def _follow(daemon: Api, live: Live, look: Look, interval: float) -> NoReturn:
    while True:
        time.sleep(interval)
        try:
            before, look = look, _look(daemon)
            live.update(_whole(look, before), refresh=True)
        except (Unreachable, Refused) as trouble:
            live.update(Panel(Text(f"{visible(str(trouble))}\ntrying again", "bold red")), refresh=True)


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(EXIT_SIGNALLED + number)  # through what gives the screen back


def _look(daemon: Api) -> Look:
    return Look(
        time.monotonic(),
        daemon.read(HealthAnswer, "/health"),
        daemon.readiness(),
        daemon.read(StatsAnswer, "/stats"),
        daemon.read(ActorsAnswer, "/actors"),
        daemon.read(FailuresAnswer, "/failures", {"sort": "last_seen"}),
    )


def _whole(look: Look, before: Look | None) -> Layout:
    head, sources, endpoints, tree, patterns = _parts(look, before, is_cut=True)
    layout = Layout()
    tree_lines = lines_of(look.actors.actors) + FRAME_LINES
    middle = Layout(name="middle", minimum_size=tree_lines)
    layout.split_column(Layout(head, size=2), middle, Layout(patterns, name="patterns"))
    layout["middle"].split_row(Layout(Group(sources, endpoints)), Layout(tree))
    return layout


def _parts(look: Look, before: Look | None, *, is_cut: bool = False) -> tuple[RenderableType, ...]:
    patterns = table_of([one for one in look.failures.failures if one.state != "muted"][:SHOWN_ROWS])
    return (
        _head(look, before),
        Panel(_sources(look, before), title="sources"),
        Panel(_endpoints(look), title="endpoints"),
        Panel(tree_of(look.actors.actors, is_cut=is_cut), title="actors and their queues"),
        Panel(patterns, title="failing patterns, the newest failure first"),
    )


def _head(look: Look, before: Look | None) -> Text:
    ever = look.stats.lifetime
    rate = ever.per_second_1m if before is None else _rate(ever.last_seq - before.stats.lifetime.last_seq, look, before)
    state = ("taking events", "green") if look.ready.ready else (visible("; ".join(look.ready.reasons)), "bold red")
    share = f"{ever.failures / ever.total:.1%}" if ever.total else "0 %"
    return Text.assemble(
        (f"{datetime.now():%H:%M:%S}  ", "dim"),  # noqa: DTZ005 - the viewer's own clock
        f"observer {visible(look.health.version)}  ",
        state,
        f"  {compact(rate)}/s now, {compact(ever.per_second_1m)}/s in a minute",
        f"  {compact(ever.total)} ops, {share} failed, last seq {look.health.last_seq:,}",
    )


def _sources(look: Look, before: Look | None) -> Table:
    counts = look.stats.lifetime.by_source
    known = before.stats.lifetime.by_source if before is not None else counts
    rows = [
        (name, f"{count:,}", "" if before is None else compact(_rate(count - known.get(name, 0), look, before)))
        for name, count in sorted(counts.items(), key=lambda item: -item[1])[:SHOWN_ROWS]
    ]
    return table(("source", "ops", "a second"), rows, numbers=("ops", "a second"))


def _endpoints(look: Look) -> Table:
    ordered = sorted(look.stats.lifetime.endpoints.items(), key=lambda item: (-item[1].failures, -item[1].total))
    rows = [
        (name, f"{one.total:,}", Text(f"{one.failures:,}", "red" if one.failures else ""), f"{one.p99_ms:,.0f}")
        for name, one in ordered[:SHOWN_ROWS]
    ]
    return table(("endpoint", "ops", "failed", "p99 ms"), rows, numbers=("ops", "failed", "p99 ms"))


def _rate(count: int, look: Look, before: Look) -> float:
    return max(0, count) / max(look.at - before.at, 1e-3)
