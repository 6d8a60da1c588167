"""How an answer becomes the words of an op: the seed's ``summarize``, with JavaScript's idea of text and truth.

Pure. What must stay: lengths and slices count UTF-16 units, numbers read as JavaScript prints them (``2.0`` is
``2``), an absent key reads ``undefined``. Where we differ, on purpose: a slice never ends in half a character, lone
surrogates become U+FFFD (an op is UTF-8), lists and objects inside a sentence read as compact JSON instead of
``[object Object]``, whole numbers keep all their digits, and nothing raises.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from observer_actors.client._texts import TEXT_CHARS_MAX, text
from observer_actors.ecmascript import number_text, truthy

_SUMMARY_UNITS: Final = 100
_ANSWER_UNITS: Final = 80
_ABSENT: Final = object()


def summarize(data: object) -> str:
    """Say in a line what a successful call answered.

    :param data: decoded JSON of any kind; what is no object is shown as its JSON.
    :returns: at most `TEXT_CHARS_MAX` characters, encodable as UTF-8.
    """
    return text(_summary(data) if isinstance(data, dict) else compact(data, _SUMMARY_UNITS))


def _summary(data: dict[str, Any]) -> str:
    if "sql_matches" in data:
        reranked = data.get("vector_reranked", _ABSENT)
        return f"hybrid: {text_of(data['sql_matches'])} sql → {text_of(reranked)} results"
    if truthy(rows := data.get("rows")):
        count = data.get("row_count")
        return f"{text_of(count) if truthy(count) else _length(rows)} rows"
    if truthy(answer := data.get("answer")):
        return f"answer: {_first_units(text_of(answer), _ANSWER_UNITS)}..."
    if truthy(sources := data.get("sources")):
        return f"{_length(sources)} sources"
    return compact(data, _SUMMARY_UNITS)


def text_of(value: object) -> str:
    """Give a JSON value as a JavaScript template would, lists and objects as compact JSON."""
    match value:
        case str():
            return value
        case _ if value is _ABSENT:
            return "undefined"
        case _:
            return compact(value, TEXT_CHARS_MAX)


def compact(value: object, units_max: int) -> str:
    """Give the first UTF-16 units of a value's JSON without blanks, and encode no more of it than that takes."""
    head = ""
    for token in _tokens(value, units_max):
        head += token
        if len(head) >= units_max:
            break
    return _first_units(head, units_max)


def _length(value: object) -> str:
    """Give JavaScript's ``.length``."""
    match value:
        case str():
            return str(_units(value))
        case list():
            return str(len(value))
        case dict() if "length" in value:
            return text_of(value["length"])
        case _:
            return "undefined"


def _units(text: str) -> int:
    return len(text) + sum(character > "\uffff" for character in text)


def _first_units(text: str, units_max: int) -> str:
    """Cut to at most so many UTF-16 units, between two characters."""
    head = text[:units_max]
    units = _units(head)
    while units > units_max:
        units -= 2 if head[-1] > "\uffff" else 1
        head = head[:-1]
    return head


def _tokens(value: object, units_max: int) -> Iterator[str]:
    """Give a value's JSON piece by piece, without recursion: what a server nests may be deeper than our stack."""
    open_ones = [_pieces(value, units_max)]
    while open_ones:
        match next(open_ones[-1], None):
            case None:
                open_ones.pop()
            case str() as token:
                yield token
            case (item,):
                open_ones.append(_pieces(item, units_max))


def _pieces(value: object, units_max: int) -> Iterator[str | tuple[object]]:
    """Give the tokens of one level, and each value within it wrapped in a tuple."""
    match value:
        case str():
            yield _quoted(value, units_max)
        case bool() | None:
            yield json.dumps(value)
        case int() | float():
            yield number_text(value)
        case list():
            yield "["
            for position, item in enumerate(value):
                yield "," if position else ""
                yield (item,)
            yield "]"
        case dict():
            yield "{"
            for position, (name, item) in enumerate(value.items()):
                yield ("," if position else "") + _quoted(name, units_max) + ":"
                yield (item,)
            yield "}"


def _quoted(text: str, units_max: int) -> str:
    return json.dumps(text[:units_max], ensure_ascii=False)
