"""A batch as bytes: lines of NDJSON, or the elements of a JSON array, and how many there are. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

import msgspec

from observer_actors.errors import EventInvalid

BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
EVENT_BYTES_MAX: Final = 262_144
"""One event, after decompression. A quarter MiB holds a long stack trace; whole documents belong elsewhere."""
PIECE_BYTES: Final = 2 * EVENT_BYTES_MAX + 2
"""Of an array that is cut: while an element in it is read, for up to some 40 ms, nobody else has the interpreter."""

_array_decoder: Final = msgspec.json.Decoder(list[msgspec.Raw])
_near_decoder: Final = json.JSONDecoder(strict=False, parse_int=len, parse_float=len)  # no number is too long for `len`


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
    if body.count(b",") > _COMMAS_MAX and any(islice(_cut(body), lines_max, None)):  # without an object of each
        raise _too_many(lines_max)
    try:
        elements: Iterable[bytes] = map(bytes, _array_decoder.decode(body))
    except (msgspec.DecodeError, UnicodeError, RecursionError):  # it does not say of which element
        elements = _cut(body)
    return enumerate(elements, 1)


def _cut(body: bytes) -> Iterator[bytes]:
    """Give the elements of an array, also those that are nearly JSON: who judges each by itself says why.

    Nearly JSON is what Python's own decoder takes, which reads to the end of a value and says where that is: with NaN,
    halves of characters, and texts that are no UTF-8. Behind anything else an element may seem to end far too late.

    :raises EventInvalid: where an element ends is not sure, or it is longer than an event may be.
    """
    number, at, is_last = 0, _end(_ARRAY_BEGINS, body, 0), False
    piece, piece_begins = "", 0
    while not is_last:
        number += 1
        begin = _end(_BLANKS, body, at)
        if piece_begins + len(piece) < min(len(body), begin + EVENT_BYTES_MAX + 1):
            piece, piece_begins = body[begin : begin + PIECE_BYTES].decode("latin-1"), begin  # each byte a character
        end = begin + _length_of_value(piece, begin - piece_begins, f"element {number}")
        behind = _BEHIND.match(body, end)
        if behind is None:
            has_end = _end(_BLANKS, body, end) < len(body)
            raise _broken(f"element {number} is not one value" if has_end else "it has no end")
        yield body[begin:end]
        at, is_last = behind.end(), behind[1] == b"]"
    if _end(_BLANKS, body, at) < len(body):
        raise _broken("something stands behind its end")


def _length_of_value(piece: str, begin: int, name: str) -> int:
    """Give the length of the value that begins there; ``name`` says which it is where that is not sure."""
    too_long = f"longer than {EVENT_BYTES_MAX:,} bytes"
    try:
        _, end = _near_decoder.raw_decode(piece, begin)
    except json.JSONDecodeError as error:
        or_long = f", or {too_long}" if len(piece) - begin > EVENT_BYTES_MAX else ""
        raise _broken(f"{name} is not JSON at its byte {error.pos - begin + 1:,}{or_long}") from error
    except RecursionError as error:
        raise _broken(f"{name} is nested too deeply to say where it ends") from error
    if end - begin > EVENT_BYTES_MAX:
        raise _broken(f"{name} is {too_long}")
    return end - begin


def _end(pattern: re.Pattern[bytes], body: bytes, begin: int) -> int:
    found = pattern.match(body, begin)
    assert found is not None, "these match nothing at all, too"
    return found.end()


def _broken(why: str) -> EventInvalid:
    return EventInvalid(f"not a JSON array: {why}", hint="send one JSON object a line: then each is judged by itself")


def _too_many(lines_max: int) -> EventInvalid:
    return EventInvalid(
        f"a batch holds at most {lines_max:,} events",
        hint="send it in several requests",
        limit="listen.batch_events_max",
    )


_ARRAY_BEGINS: Final = re.compile(b"(?:" + BYTE_ORDER_MARK + rb")?[ \t\r\n]*\[")
_LINE: Final = re.compile(rb"[^ \t\r\n][^\n]*")
_BLANKS: Final = re.compile(rb"[ \t\r\n]*")
_BEHIND: Final = re.compile(rb"[ \t\r\n]*([,\]])")
_COMMAS_MAX: Final = 1_000_000
"""An array with more commas may have so many elements that splitting it alone takes gigabytes: they are counted."""
