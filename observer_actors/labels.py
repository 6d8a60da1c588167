"""Labels, ids and texts of a bounded length, made of what callers say. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

_T = TypeVar("_T")
OTHER: Final = "other"
LABEL_CHARS_MAX: Final = 200
WORD_CHARS_MAX: Final = 1_000
"""A longer one is cut: no password is that long, and of a text without blanks something has to be left."""
_LAST_WORD: Final = re.compile(r"[\s\"][^\s\"]*\Z")
"""In compact JSON a quote is the only end that a word has."""


def stable_id(*parts: str) -> str:
    """Hash the parts into 16 hex digits (BLAKE2b, 64 bits): of 1,000 ids two are the same once in 10^13."""
    return hashlib.blake2b(msgspec.json.encode(parts), digest_size=8).hexdigest()


def bounded_endpoint(endpoint: str) -> str:
    """Give the endpoint in at most `LABEL_CHARS_MAX` characters; a hash keeps two long ones apart."""
    return bounded_label(endpoint, "endpoint")


def bounded_label(text: str, kind: str) -> str:
    """Give the name of something of a kind in at most `LABEL_CHARS_MAX` characters, likewise."""
    if len(text) <= LABEL_CHARS_MAX:
        return text
    mark = "…" + stable_id(kind, text)
    return text[: LABEL_CHARS_MAX - len(mark)] + mark


def counted_under(tallies: dict[str, _T], label: str, most: int, make: Callable[[], _T]) -> _T:
    """Give the tally of a label: its own, or, when there are so many, the common one.

    That is the last of them, `OTHER`. Where something counted here is itself called so, it is `OTHER` and ``…``.
    """
    if label in tallies:
        return tallies[label]
    if len(tallies) > most:
        return next(reversed(tallies.values()))
    if len(tallies) == most:
        label = OTHER
        while label in tallies:
            label += "…"
    return tallies.setdefault(label, make())


def cut_between_words(text: str, chars_max: int) -> str:
    """Give a text in at most so many characters; of a longer one as much as `last_word_end` has it, and ``…``."""
    return text if len(text) <= chars_max else text[: last_word_end(text, chars_max - 1)] + "…"


def last_word_end(text: str, end: int) -> int:
    """Say where to cut a text that is longer than this: before the word that stands there.

    Nothing is left of that: of a password, or a key, no rule of `secrets` knows the beginning.
    """
    before = max(0, end - WORD_CHARS_MAX)
    last = _LAST_WORD.search(text[before : end + 1])
    return end if last is None else before + last.start()
