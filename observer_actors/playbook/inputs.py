"""What may set one call of an endpoint apart from another: its input's shape, and its attributes. Pure.

A *feature* is a name and a value:

* ``("{}", "{date, origin}")``: the names in an input that is a JSON object, or else its masked words;
* ``("date is", "a date (YYYY-MM-DD)")``: the kind of one of its values;
* ``("date", '"2024-05-20"')``: the value itself, where it is short;
* ``("@role", "welder")``: an attribute of the op. A field of an input may be called ``role``, too; no field that is
  looked at has a name with ``@``, a brace or a blank.

An input that was cut off gives what stood before the cut. A shape that has not all names of its input ends in ``…``:
nothing is known of the others, and not that they are absent. Names and values are a caller's words: they are kept short
and plain, since they may come to stand in advice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from itertools import islice
from operator import attrgetter
from typing import Any, Final

import msgspec

from observer_actors.event import says_no_input
from observer_actors.op import OUTCOME_ATTRS, Op
from observer_actors.patterns import template_of
from observer_actors.problems import UNREADABLE

Feature = tuple[str, str]

SHAPE: Final = "{}"
KIND: Final = " is"
"""Ends the name of a feature that gives a value's kind."""
ABSENT: Final = "absent"
"""The kind of a value that is not there; never given by `features`, but counted from the rest."""
FIELDS_MAX: Final = 8
"""Fields of an input that are looked at, and as many attributes: the first ones."""
INPUT_CHARS_MAX: Final = 4_000
SHAPE_CHARS_MAX: Final = 200
VALUE_CHARS_MAX: Final = 40
KIND_CHARS_MAX: Final = 10 * VALUE_CHARS_MAX

_ATTRIBUTE: Final = "@"
"""Begins the name of a feature that is an attribute of the op."""
_ATTRIBUTES: Final = ("role", "city", "state", "event_kind")
_labels: Final = attrgetter(*_ATTRIBUTES)
_NO_FEATURES: Final = OUTCOME_ATTRS | {"run", "run_id", "trace_id", "traceId", "span_id", "spanId", "advice_id"}
"""Attributes that name the op's place, or say how it ended, and nothing of its kind: none of those looked at."""
_NAME: Final = re.compile(r"[A-Za-z_][\w.\-]{0,39}", re.ASCII)
_WHOLE_SHAPE: Final = re.compile(rf"\{{(?:{_NAME.pattern}(?:, {_NAME.pattern})*)?\}}", re.ASCII)
"""As `_shape` writes it, and not the masked words of an input, which may begin with a brace, too."""
_VALUE: Final = re.compile(r"[\w.\-+:/@#%, ]{1,40}")
_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*+"|["{}\[\]:,]|[^\s{}\[\]:,"]+')
_SIGNS: Final = '"{}[]:,'
_KINDS: Final = tuple(
    (kind, re.compile(pattern, re.ASCII))
    for kind, pattern in (
        ("a date (YYYY-MM-DD)", r"\d{4}-\d\d-\d\d"),
        ("a time (ISO 8601)", r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d.*"),
        ("digits", r"[+\-]?\d+(?:\.\d+)?"),
        ("digits and signs", r"[\d\s./:\-+()]+"),
        ("an e-mail address", r"[^@\s]+@[^@\s]+\.[^@\s]+"),
        ("a URL", r"[a-z][a-z0-9+.\-]*://\S+"),
        ("a path", r"[~.]{0,2}/\S*"),
        ("CAPITALS", r"[A-Z][A-Z_]+"),
        ("an id", r"(?=\S*\d)[\w.\-]+"),
        ("a word", r"[\w.\-]+"),
    )
)


def features(op: Op) -> tuple[Feature, ...]:
    """Give the features of an op, each name once, in a fixed order."""
    found = {} if says_no_input(op) else _input_features(op.input_summary)
    if op.attrs or any(_labels(op)):
        found.update(_attributes(op))
    return tuple(found.items())


def is_attribute(name: str) -> bool:
    """Say whether a feature is an attribute of the op: what it is about, and nothing that a caller chooses."""
    return name.startswith(_ATTRIBUTE)


def shown_name(name: str) -> str:
    """Give the name of a field or of an attribute as callers know it."""
    return name.removesuffix(KIND).removeprefix(_ATTRIBUTE)


def kind_of(value: Any) -> str:  # noqa: ANN401 - whatever JSON holds
    """Name the kind of a JSON value in words that fit behind "is"."""
    if isinstance(value, str):
        if len(value) > KIND_CHARS_MAX:
            return "text"
        return _kind_of_text(value) if value else "empty"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool):
        return "true or false"
    return "null" if value is None else _PLAIN.get(type(value), "an object")


_PLAIN: Final = {int: "a whole number", float: "a number"}


@lru_cache(maxsize=4_096)
def _kind_of_text(text: str) -> str:
    return next((kind for kind, pattern in _KINDS if pattern.fullmatch(text)), "text")


def _attributes(op: Op) -> Iterator[Feature]:
    for name, value in zip(_ATTRIBUTES, _labels(op), strict=True):
        if isinstance(value, str) and _VALUE.fullmatch(value):
            yield _ATTRIBUTE + name, value
    if isinstance(op.attrs, dict):
        named = (
            (name, value) for name, value in op.attrs.items() if name not in _NO_FEATURES and _NAME.fullmatch(name)
        )
        for name, attribute in islice(named, FIELDS_MAX):
            shown = _shown(attribute)
            if shown is not None:
                yield f"{_ATTRIBUTE}attrs.{name}", shown.strip('"')


@lru_cache(maxsize=1_024)
def names_of_shape(shape: str) -> frozenset[str] | None:
    """Give the names of the fields in inputs of a shape; None where there may be others, or the input is no object."""
    return frozenset(_NAME.findall(shape)) if _WHOLE_SHAPE.fullmatch(shape) else None


def _input_features(text: str) -> dict[str, str]:
    text = text.strip()
    if not text.startswith("{"):
        return {SHAPE: template_of(text[:SHAPE_CHARS_MAX])}
    given, is_whole = _object(text)
    fields = [(name, value) for name, value in given.items() if _NAME.fullmatch(name)][:FIELDS_MAX]
    found = {SHAPE: _shape([name for name, _ in fields], is_whole=is_whole and len(fields) == len(given))}
    for name, value in fields:
        found[name + KIND] = kind_of(value)
        shown = _shown(value)
        if shown is not None:
            found[name] = shown
    return found


def _shape(names: list[str], *, is_whole: bool) -> str:
    """Give the names in braces, as far as there is room, and ``…`` behind them where there are others."""
    names = sorted(names)
    while sum(map(len, names)) + 2 * len(names) > SHAPE_CHARS_MAX:
        names.pop()
        is_whole = False
    return f"{{{', '.join(names if is_whole else [*names, '…'])}}}"


def _shown(value: object) -> str | None:
    """Give a short scalar as JSON writes it; None for anything else."""
    if isinstance(value, str):
        return f'"{value}"' if _VALUE.fullmatch(value) else None
    if isinstance(value, bool | int | float):
        shown = msgspec.json.encode(value).decode()
        return shown if len(shown) <= VALUE_CHARS_MAX else None
    return None


def _object(text: str) -> tuple[dict[str, Any], bool]:
    """Read a JSON object, or of one that was cut off what stands before the cut; say whether it was whole."""
    if text.endswith("}") and len(text) <= INPUT_CHARS_MAX:
        try:
            return msgspec.json.decode(text, type=dict[str, Any]), True
        except UNREADABLE:
            pass
    return _before_the_cut(text[:INPUT_CHARS_MAX]), False


def _before_the_cut(text: str) -> dict[str, Any]:
    """Give the fields of the outermost object, those that are no scalars as an empty list or object.

    What is no value is left out, and a number, or a word, that nothing follows: it may have gone on.
    """
    found: dict[str, Any] = {}
    depth, name, wants_value = 0, "", False
    parts = _TOKEN.findall(text)
    if parts and parts[-1][0] not in _SIGNS:
        parts.pop()
    for part in parts:
        if part == '"':  # a text that was cut
            break
        if depth == 1 and wants_value and part != ":":
            with suppress(*UNREADABLE):
                found[name] = _scalar(part)
            wants_value = False
        elif depth == 1 and part.startswith('"'):
            name, wants_value = part[1:-1], True
        depth += (part in "{[") - (part in "}]") if len(part) == 1 else 0
        if depth == 0:
            break
    return found


def _scalar(part: str) -> Any:  # noqa: ANN401 - whatever JSON holds
    if part in {"{", "["}:
        return {} if part == "{" else []
    return msgspec.json.decode(part)
