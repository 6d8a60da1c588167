"""The numbers that a host gives as limits: checked once, where it gives them, and never where they are used. Pure."""

from __future__ import annotations

from numbers import Real
from typing import Any, Final

from observer_actors.client._texts import text
from observer_actors.errors import ConfigInvalid

SECONDS_MAX: Final = 86_400.0
"""A day is for ever to whoever waits; clocks, locks and sockets take no infinity."""
EVENTS_MAX: Final = 1_000_000
"""More than fit into `QUEUE_CHARS_MAX`."""


def bounded_seconds(name: str, given: object) -> float:
    """Give a time from 0 to `SECONDS_MAX`: what is beyond is clamped.

    :param name: of the argument, for the message.
    :raises ConfigInvalid: it is no number.
    """
    return float(_bounded(name, given, 0.0, SECONDS_MAX))


def bounded_events(name: str, given: object) -> int:
    """Give a count from 1 to `EVENTS_MAX`, as `bounded_seconds` does."""
    return int(_bounded(name, given, 1, EVENTS_MAX))


def _bounded(name: str, given: object, least: float, most: float) -> Any:  # noqa: ANN401 - numpy's are numbers, too
    number: Any = given
    if isinstance(number, bool) or not isinstance(number, Real) or number != number:  # noqa: PLR0124 - NaN
        raise ConfigInvalid(f"{name}: wants a number, got {text(given)[:60]!a}", hint=f"{least:g} to {most:,.0f}")
    return min(max(least, number), most)
