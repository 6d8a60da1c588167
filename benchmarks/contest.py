"""A contest: contestants that are measured in turn, and the figures that are shown of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

Run = Callable[[], Awaitable[Mapping[str, float]]]
"""Starts a contestant afresh, warms it up where a load is sent, measures it once, stops it; gives figure -> value."""


class Unmeasured(Exception):
    """This measurement is not possible here; the text says why."""


@dataclass(frozen=True)
class Figure:
    """A column of a contest's table; ``form`` is how a value is written."""

    name: str
    label: str
    form: str = "{:,.0f}"
    ranged: bool = False
    """Shown with lowest and highest."""


@dataclass(frozen=True)
class Contest:
    """What is measured. ``text`` says how, for the report."""

    name: str
    title: str
    text: str
    figures: tuple[Figure, ...]
    against: str = ""
    """The contestant whose main figure is divided by each other's, round by round; "" for no such column."""
    once: bool = False
    """One round is enough: it takes a minute by itself, or times thousands of calls."""
    without_wrk: bool = False
    """It needs no wrk."""

    @property
    def main(self) -> Figure:
        """The figure that decides."""
        return self.figures[0]
