"""How an agent reads advice: its text as it stands in the prompt, and nothing else. Pure.

A language model would read it whole. This reader is simple on purpose: it looks for the few things that anybody would
take from the sentences, and takes of its own ways the one that fits them best.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tests.loop.world import Input

_KINDS: Final = {
    "a date (YYYY-MM-DD)": r"\d{4}-\d\d-\d\d",
    "digits": r"[+\-]?\d+(\.\d+)?",
    "an e-mail address": r"[^@\s]+@[^@\s]+",
    "digits and signs": r"[\d\s./:\-+()]+",
}
_CALL: Final = re.compile(r"(?:Call `(?P<one>[^`]+)` with|[Ii]t works with|Input that works:)(?P<rest>[^.;]*)")
_INPUT: Final = re.compile(r"(?:the input )?`\{(?P<names>[^}`]*)\}`")
_VALUE: Final = re.compile(
    r"`(?P<name>[\w.]+)` being (?P<value>\"[^\"]*\"|a date \(YYYY-MM-DD\)|[\w\- ]+?)(?= \(|:|,|$)"
)
_STEPS: Final = re.compile(
    r"(?:Before `(?P<main>[^`]+)`, call `(?P<first>[^`]+)`)|(?:call `(?P<step>[^`]+)`(?:,| then|$))"
)


@dataclass(frozen=True)
class Understood:
    """What was taken from advice."""

    names: tuple[frozenset[str], ...] = ()
    """Inputs that work, by the names in them."""
    values: tuple[tuple[str, str], ...] = ()
    """Name, and value (in quotation marks) or kind, that works."""
    before: tuple[str, ...] = ()
    """Tools to call before."""


def read(markdown: str, tool: str) -> Understood:
    """Read advice about a tool."""
    names: list[frozenset[str]] = []
    values: list[tuple[str, str]] = []
    before: list[str] = []
    for found in _CALL.finditer(markdown):
        works = found["rest"].partition(", with ")[0].partition(", not with ")[0]
        names += [frozenset(re.split(r",\s*", one["names"])) for one in _INPUT.finditer(works)]
        values += [(one["name"], one["value"].strip()) for one in _VALUE.finditer(works)]
    for found in _STEPS.finditer(markdown):
        step = found["first"] or found["step"]
        if step and step != tool:
            before.append(step)
    return Understood(tuple(names), tuple(values), tuple(dict.fromkeys(before)))


def chosen(ways: Sequence[Input], understood: Understood) -> Input | None:
    """Take the way that fits what was understood best; None when none fits better than another."""
    fits = [_fit(way, understood) for way in ways]
    best = max(fits)
    return ways[fits.index(best)] if best > min(fits) else None


def _fit(way: Input, understood: Understood) -> int:
    by_names = any(names == frozenset(way) for names in understood.names)
    return by_names + sum(_agrees(way, name, value) for name, value in understood.values)


def _agrees(way: Input, name: str, value: str) -> bool:
    if name not in way:
        return False
    if value.startswith('"'):
        return str(way[name]) == value.strip('"')
    return re.fullmatch(_KINDS.get(value, r"(?!)"), str(way[name])) is not None
