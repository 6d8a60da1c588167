"""A batch as bytes: lines of NDJSON, or the elements of a JSON array, and how many there are. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Final

import msgspec

from observer_actors.errors import EventInvalid, EventTooComplex

BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"

_array_decoder: Final = msgspec.json.Decoder(list[msgspec.Raw])


def newlines(data: bytes, most: int = -1) -> int:
    """Count the newlines, up to ``most`` unless that is negative.

    `bytes.count` looks at each byte; what replaces them searches for the next one, and copies: a fifth of the time for
    lines of 250 bytes, but many times as much where there is hardly anything else.
    """
    return len(data) - len(data.replace(b"\n", b"", most))


def events_at_most(body: bytes, most: int) -> int:
    """Give how many events a batch may hold, up to ``most``, without taking it apart: of an array usually too many."""
    return min(most, 1 + (body.count(b",") if _ARRAY_BEGINS.match(body) else newlines(body, most)))


def split(body: bytes, lines_max: int) -> Iterator[tuple[int, bytes]]:
    """Give each event of a batch with its number; an array when the first character is a bracket."""
    is_array = _ARRAY_BEGINS.match(body) is not None
    body = body.removeprefix(BYTE_ORDER_MARK)
    if not is_array and _has_more_lines(body, lines_max):
        raise _too_many(lines_max)
    numbered = _elements(body, lines_max) if is_array else _lines(body)
    for position, (number, line) in enumerate(numbered):
        if position == lines_max:
            raise _too_many(lines_max)
        yield number, line


def _lines(body: bytes) -> Iterator[tuple[int, bytes]]:
    number, counted = 1, 0
    for line in _LINE.finditer(body):
        number += body.count(b"\n", counted, line.start())
        counted = line.start()
        yield number, line[0]


def _has_more_lines(body: bytes, most: int) -> bool:
    """Tell whether there are more than ``most`` lines that are not blank, before any of them is judged."""
    return newlines(body, most) >= most and any(islice(_LINE.finditer(body), most, None))


def _elements(body: bytes, lines_max: int) -> Iterator[tuple[int, bytes]]:
    if body.count(b",") > _COMMAS_MAX and _has_more_elements(body, lines_max):
        raise _too_many(lines_max)
    try:
        elements = _array_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise EventInvalid(f"not a JSON array: {error}") from error
    except RecursionError as error:
        raise EventTooComplex("is nested too deeply", limit="listen.depth_max") from error
    return ((number, bytes(element)) for number, element in enumerate(elements, 1))


def _has_more_elements(body: bytes, most: int) -> bool:
    """Tell whether an array has more than ``most`` elements, without making an object of each."""
    depth = commas = 0
    for token in _STRUCTURE.finditer(body):
        match token[0]:
            case b"[" | b"{":
                depth += 1
            case b"]" | b"}":
                depth -= 1
            case b"," if depth == 1:
                commas += 1
                if commas == most:
                    return True
    return False


def _too_many(lines_max: int) -> EventInvalid:
    return EventInvalid(
        f"a batch holds at most {lines_max:,} events",
        hint="send it in several requests",
        limit="listen.batch_events_max",
    )


_ARRAY_BEGINS: Final = re.compile(b"(?:" + BYTE_ORDER_MARK + rb")?[ \t\r\n]*\[")
_LINE: Final = re.compile(rb"[^ \t\r\n][^\n]*")
_STRUCTURE: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[\]{},]', re.DOTALL)
_COMMAS_MAX: Final = 1_000_000
"""An array with more commas may have so many elements that splitting it alone takes gigabytes: they are counted."""
