"""What a person sees: lines and tables, coloured on a terminal, plain elsewhere; no text from outside forges them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Self

from msgspec import UNSET
from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from observer_actors.commands._aside import PROGRESS_S, told
from observer_actors.op import Op
from observer_actors.visible import cut, visible, visible_json

PLAIN_WIDTH: Final = 4_096
"""Where output goes to a file or a pipe, no line is folded."""
LISTED_MAX: Final = 1_000
"""What the daemon gives of a list at once, whatever the limit; there is no next page."""
ENDPOINT_CHARS: Final = 60
SUMMARY_CHARS: Final = 160
"""What a line of a list shows of a text; JSON has all of it."""
ONE_LINE_CHARS: Final = 120
"""A narrower screen would leave less than half of it to the two texts of a row of a `Listing`."""
_THOUSANDS: Final = ((1e9, "G"), (1e6, "M"), (1e4, "k"))


def console(*, stderr: bool = False) -> Console:
    """Give the screen; what is printed on it is taken as it is, never as markup."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PLAIN_WIDTH
    return Console(file=stream, width=width, markup=False, highlight=False, emoji=False)


def print_json(body: bytes) -> None:
    """Print JSON, with nothing in it that a terminal would obey; in UTF-8, whatever the locale (RFC 8259, 8.1)."""
    print_bytes(visible_json(body) + b"\n")


def print_bytes(body: bytes) -> None:
    """Print bytes as they are, behind what was printed before."""
    sys.stdout.flush()
    sys.stdout.buffer.write(body)


def say_more(total: int, shown: int, narrower: str) -> None:
    """Say of a list how many are not shown, and the way to them.

    :param narrower: what makes the list shorter, where even the longest answer does not hold it.
    """
    if total > LISTED_MAX:
        print(f"{total - shown:,} more; --limit shows {LISTED_MAX:,} at most: narrow with {narrower}")
    elif total > shown:
        print(f"{total - shown:,} more; --limit shows them")


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str | Text]],
    *,
    numbers: Sequence[str],
    whole: Sequence[str] = ("id",),
) -> Table:
    """Lay out rows; the columns named in ``numbers`` go to the right. Texts are shown as they are.

    What stands in the columns ``whole`` is not folded, however narrow the screen: an id is there to be copied.
    """
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        grid.add_column(
            column, justify="right" if column in numbers else "left", overflow="fold", no_wrap=column in whole
        )
    for row in rows:
        grid.add_row(*(cell if isinstance(cell, Text) else Text(visible(cell)) for cell in row))
    return grid


@dataclass(frozen=True, slots=True)
class Listing:
    """Rows of texts, one a line; on a screen that is too narrow for that, cells stand below each other.

    ``below`` names for each column of a narrow screen the columns that it holds: the last may be folded, no other.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: tuple[str, ...]
    below: tuple[tuple[str, ...], ...]

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        """Give the table that fits."""
        if options.max_width >= ONE_LINE_CHARS:
            yield table(self.columns, self.rows, numbers=self.numbers)
            return
        heads = self._stacked(self.columns)
        numbers = [head.plain for head, names in zip(heads, self.below, strict=True) if names[0] in self.numbers]
        *whole, _folded = columns = [head.plain for head in heads]
        yield table(columns, map(self._stacked, self.rows), numbers=numbers, whole=whole)

    def _stacked(self, cells: tuple[str, ...]) -> tuple[Text, ...]:
        named = dict(zip(self.columns, map(visible, cells), strict=True))
        return tuple(Text("\n".join(named[name] for name in names)) for names in self.below)


def compact(number: float) -> str:
    """Write a number in at most five characters or so: ``950``, ``12.3k``, ``4.5M``."""
    for size, letter in _THOUSANDS:
        if number >= size:
            return f"{number / (1e3 if letter == 'k' else size):.1f}{letter}"
    return f"{number:,.0f}" if number >= 100 or number == int(number) else f"{number:.1f}"  # noqa: PLR2004


def op_line(op: Op) -> Text:
    """Give an op as one line: when, seq, outcome, source, endpoint, how long, and what came out."""
    outcome = ("ok  ", "green") if op.success else ("FAIL", "bold red")
    error = op.error if isinstance(op.error, str) else ""
    said = error if error and not op.success else op.output_summary
    summary = op.input_summary if op.error is UNSET and said == "ok" else f"{op.input_summary} → {said}"
    return Text.assemble(
        (shown_time(op.timestamp), "dim"),
        f"  {op.seq:>8}  ",
        outcome,
        "  ",
        (cut(op.source, 12), "cyan"),
        "  ",
        (cut(op.endpoint, ENDPOINT_CHARS), "bold"),
        f"  {op.duration_ms:g} ms  ",
        cut(summary, SUMMARY_CHARS),
    )


def shown_time(text: str) -> str:
    """Give a time as it is in UTC, to the second: who reported it has a zone of its own. What is none, as it stands."""
    with suppress(ValueError, OverflowError):
        read = datetime.fromisoformat(text)
        return (read.astimezone(UTC) if read.tzinfo else read).isoformat(" ", "seconds")[:19]
    return cut(text[:19].replace("T", " "), 19)


class LongWork:
    """Says how far something is, once it takes longer than a moment: a bar on a terminal, elsewhere a line at times.

    On standard error, so that output stays parsable.

    :param doing: what is being done, e.g. ``importing``.
    """

    def __init__(self, doing: str, unit: str) -> None:
        self._doing = doing
        self._unit = unit
        self._next = time.monotonic() + PROGRESS_S
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done: float, total: float) -> None:
        """Take in how much is done, of how much (0: nobody knows)."""
        now = time.monotonic()
        if now < self._next:
            return
        if sys.stderr.isatty():
            self._show(done, total)
        else:
            self._next = now + PROGRESS_S
            share = f"{done / total:4.0%} of {compact(total)}" if total else compact(done)
            told(f"{self._doing}: {share} {self._unit}")

    def _show(self, done: float, total: float) -> None:
        if self._bar is None:
            columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=console(stderr=True), transient=True)
            self._bar.add_task(self._doing)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=done, total=total or None)
