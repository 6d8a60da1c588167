"""From an error's text to its template: what varies from case to case gives way to a mask.

Pure and deterministic: the same text gives the same template, today and after a restart. One pass of one
regular expression, in which each alternative either fails within a bounded number of characters or takes what
it has read, so that the time grows with the text and not with its square.

The masks: ``<url> <email> <uuid> <time> <ip> <path> <hex> <num> <str>``. An identifier keeps its stem,
because the stem says what kind of thing it names: ``gift_card_5094406`` becomes ``gift_card_<num>``.

What is *not* masked although it is quoted: a key (``"code": 5`` keeps ``"code"``), and the value of a key
that holds prose (``"error": "no such table"``), of which the inside is masked like any other text. Otherwise
all JSON errors of an endpoint would be the same.

Whoever changes what comes out of here gives it a new `ALGORITHM_VERSION`.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["ALGORITHM_VERSION", "TEMPLATE_CHARS_MAX", "TEXT_CHARS_MAX", "template_of"]

ALGORITHM_VERSION: Final = 1
"""Kept in the record of each pattern, so that a later grouping can tell its own from the older ones."""
TEXT_CHARS_MAX: Final = 2_000
"""Characters of an error that are looked at: a message and the head of its stack trace, not a dump."""
TEMPLATE_CHARS_MAX: Final = 1_000
"""A template is cut here: 1,000 patterns then hold a megabyte of templates, not an unknown amount."""

_VARYING: Final = re.compile(
    r"""
    # The first alternative that fits at a place wins. The groups in capitals are parts of an alternative.
      (?P<said>(?P<Q>["'])
        (?P<KEY>error|err|message|msg|details?|reason|description|exception|title|code|type|status)(?P=Q)
        (?P<COLON>\s?:\s?)(?P<R>["'])(?P<PROSE>(?:(?!(?P=R))[^\\])*)(?P=R))
    | (?P<key>"[^"\\:]{1,64}"(?=\s?:) | (?<!\w)'[^'\\:]{1,64}'(?=\s?:))
    | (?P<url>(?<!\w)[a-z][a-z0-9+.\-]{1,15}://[^\s"'<>]+)
    | (?P<email>(?<![\w.+\-])[\w.+\-]{1,64}@\w[\w\-]*(?:\.[\w\-]+)+)
    | (?P<str>\\?"(?:[^"\\]|\\[^"])*\\?" | (?<!\w)'(?:[^'\\]|\\.)*'(?!\w) | `[^`]+`)
    | (?P<uuid>(?<![0-9a-z])[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}(?![0-9a-z]))
    | (?P<time>
          (?<![0-9a-z])\d{4}[-/]\d\d[-/]\d\d
            (?:[t ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:z|[ ]?[+\-]\d\d:?\d\d)?)?(?![0-9])
        | (?<![0-9a-z:])\d\d?:\d\d:\d\d(?:[.,]\d+)?(?![0-9:]))
    | (?P<ip>
          (?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5}|/\d{1,2})?(?![\w.]\d)
        | (?<![\w:])(?:[0-9a-f]{1,4}:){7}[0-9a-f]{1,4}(?![\w:])
        | (?<![\w:])(?=[a-f:]{0,39}\d)(?:::|(?:[0-9a-f]{1,4}:){1,6}:)
            (?:[0-9a-f]{1,4}:){0,6}[0-9a-f]{1,4}(?![\w:]))
    | (?P<path>(?<![\w/<>.~])(?:~|\.{1,2})?(?:/[\w.@%+=~\-]+)+(?::\d+)*/? | (?<!\w)[a-z]:\\[^\s"'<>|]+)
    | (?P<hex>(?<![0-9a-z])(?:0x[0-9a-f]+|(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{8,})(?![0-9a-z]))
    # A number with what clings to it: sign, decimals, groups of digits, per cent, a unit (30s, 4.5GB), or the
    # rest of a mixed identifier (3f9x2).
    | (?P<num>(?:(?<![\w.)\]])[+\-])?\d+(?:[.,:]\d+)*(?:%|[a-z0-9]+)?)
    """,
    re.VERBOSE | re.IGNORECASE,
)


def template_of(text: str) -> str:
    """Give the template of an error text, in at most `TEMPLATE_CHARS_MAX` characters.

    Only the first `TEXT_CHARS_MAX` characters are looked at; runs of white space become one blank.
    """
    return _masked(" ".join(text[:TEXT_CHARS_MAX].split()))[:TEMPLATE_CHARS_MAX]


def _masked(text: str) -> str:
    return _VARYING.sub(_mask, text)


def _mask(found: re.Match[str]) -> str:
    """Give what stands in the template for one find.

    The depth is bounded: inside a quoted text there is one kind of quote less.
    """
    if found["said"] is not None:
        return f'"{found["KEY"]}"{found["COLON"]}"{_masked(found["PROSE"])}"'
    if found["key"] is not None:
        return f'"{_masked(found["key"][1:-1])}"'
    # `lastgroup` is the alternative itself: it closes last, and only "said" has named groups inside.
    return f"<{found.lastgroup}>"
