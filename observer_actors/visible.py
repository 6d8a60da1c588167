"""Texts as they are shown. One from outside moves no cursor, forges no line and turns no direction. Pure."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Final

FEW_LETTERS: Final = 16
_HIDDEN: Final = tuple(
    map(
        re.compile,
        (
            rb"\x7f",
            rb"\xc2[\x80-\x9f\xad]",
            rb"\xcd\x8f",
            rb"\xd8\x9c",
            rb"\xe1(?:\x85[\x9f\xa0]|\x9e[\xb4\xb5]|\xa0[\x8b-\x8f])",
            rb"\xe2(?:\x80[\x8b-\x8f\xa8-\xae]|\x81[\xa0-\xaf])",
            rb"\xe3\x85\xa4",
            rb"\xef(?:\xb8[\x80-\x8e]|\xbb\xbf|\xbe\xa0|\xbf[\xb0-\xbb])",
            rb"\xf0(?:\x93(?:\x90[\xb0-\xbf]|\x91[\x80-\x9f])|\x9b\xb2[\xa0-\xa3]|\x9d\x85[\xb3-\xba])",
            rb"\xf3\xa0[\x80-\x87][\x80-\xbf]",
        ),
    )
)
"""DEL, C1 controls, marks and overrides of direction, line and paragraph separators, characters without width, tags and
selectors of variants (but U+FE0F, which makes an emoji of a sign), in UTF-8. Each begins with a byte of its own:
searches for one byte are faster than one for any of ten."""
_BLANK: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0e\uffa0\U00013430-\U0001345f\U000e0100-\U000e01ef]"
)
"""Of those, what counts as printable for Python."""

_ESCAPES: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()][0-9AB])")
"""ECMA-48: control sequences (colours), operating system commands (links, titles); and choices of a character set."""


def without_escapes(text: str) -> str:
    """Give a text as a terminal would show it: without colours, links and titles."""
    return _ESCAPES.sub("", text) if "\x1b" in text else text


def visible(text: str) -> str:
    """Write what cannot be printed (C0 and C1 controls, line separators, marks of direction), or seen, as an escape."""
    if text.isprintable() and (text.isascii() or not _BLANK.search(text)):
        return text
    return "".join(
        letter if letter.isprintable() and not _BLANK.match(letter) else ascii(letter)[1:-1] for letter in text
    )


def visible_json(data: bytes) -> bytes:
    """Write as an escape what a terminal or an editor would obey, or nobody would see: the same JSON for who parses it.

    C0 controls are escaped in any JSON.
    """
    if data.isascii() and b"\x7f" not in data:
        return data
    for expression in _HIDDEN:
        letters = set(expression.findall(data))
        if len(letters) > FEW_LETTERS:
            data = expression.sub(lambda found: _escaped(found[0]), data)
            continue
        for letter in letters:  # one again and again, mostly
            data = data.replace(letter, _escaped(letter))
    return data


@cache
def _escaped(letter: bytes) -> bytes:
    """Write a letter as an escape. There are some 4,000 of them, and an event may hold one a hundred thousand times."""
    return json.dumps(letter.decode()).encode()[1:-1]


def cut(text: str, characters: int) -> str:
    """Give the visible text, ended by ``…`` when it is longer than so many characters."""
    shown = visible(text[: characters + 1])
    return shown if len(shown) <= characters else shown[: characters - 1] + "…"


def snake(name: str) -> str:
    """Write the name of a type as logs and metrics do: ``ActorFailed`` is ``actor_failed``."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
