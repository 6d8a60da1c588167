"""Problems (RFC 9457) as whoever asks an observer reads them, and what reading anything raises. Pure.

An answer may be anybody's: a proxy's, another program's. So nothing here raises, and what is not there is empty.
"""

from __future__ import annotations

from typing import Final

import msgspec

UNREADABLE: Final = (msgspec.MsgspecError, UnicodeError, RecursionError)
"""What decoding raises: no JSON or no such struct, no UTF-8, nested without end."""
TEXT_CHARS_MAX: Final = 500
TOO_LARGE: Final = 413
ABOUT_THE_EVENTS: Final = frozenset({400, TOO_LARGE, 422})
"""Statuses that say that it is because of what was sent."""
RETRY_AFTER_S_MAX: Final = 300.0
"""A daemon asks for seconds; whoever asks for more than this is not a daemon."""


class ReceivedProblem(msgspec.Struct, frozen=True):
    """What an answer says of why it is no good one; each text "" where it does not say."""

    title: str = ""
    detail: str = ""
    error: str = ""
    """Where the seed says what the detail is."""
    field: str = ""
    hint: str = ""
    limit: str = ""
    retryable: bool = False
    rejected: int = 0
    """Events of a batch that were judged, each by itself, and of which none was good; 0: it was refused as a whole."""


_TEXTS: Final = ("title", "detail", "error", "field", "hint", "limit")


def read_problem(body: bytes) -> ReceivedProblem:
    """Read the body of an answer; texts are cut to `TEXT_CHARS_MAX`."""
    try:
        said = msgspec.json.decode(body)
    except UNREADABLE:
        return ReceivedProblem()
    if not isinstance(said, dict):
        return ReceivedProblem()
    texts = {name: value[:TEXT_CHARS_MAX] for name in _TEXTS if isinstance(value := said.get(name), str)}
    rejected = said.get("rejected")
    return ReceivedProblem(
        **texts, retryable=said.get("retryable") is True, rejected=rejected if type(rejected) is int else 0
    )


def is_about_the_batch(status: int, problem: ReceivedProblem) -> bool:
    """Tell what may be true of none of a batch's events by itself: they are too many, or too large together."""
    is_refused = status in ABOUT_THE_EVENTS and problem.detail != "" and not problem.rejected
    return status == TOO_LARGE or is_refused


def retry_after_s(header: str | None) -> float | None:
    """Give the seconds of a `Retry-After`, `RETRY_AFTER_S_MAX` at most; None where it names none."""
    return min(float(header), RETRY_AFTER_S_MAX) if header and header.isdecimal() else None
