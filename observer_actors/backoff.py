"""How long to wait before the next try: exponential backoff, and what a server asks for. Pure."""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

_DOUBLINGS_MAX: Final = 32
"""Any bound is reached by then; and a float has no room for two to the power of all the failures of a year."""


def backoff_s(failures: int, first_s: float, most_s: float, jitter: float = 1.0) -> float:
    """Give the delay after so many failures in a row: doubling from ``first_s``, ``most_s`` at most.

    :param failures: from 1.
    :param jitter: 0 to 1: between half of the delay and all of it, so that those who failed together do not all come
        back together ("equal jitter": Brooker, *Exponential Backoff And Jitter*, 2015).
    """
    full = min(most_s, first_s * 2.0 ** min(max(0, failures - 1), _DOUBLINGS_MAX))
    return full * (0.5 + jitter / 2)


def asked_wait_s(retry_after: str, date: str, *, now: float, most_s: float) -> float:
    """Give the seconds that an answer asks us to wait (RFC 9110, 10.2.3), ``most_s`` at most; 0 where it does not say.

    :param retry_after: its header of this name: seconds, or a date; anything else asks for nothing.
    :param date: its header of this name, "" where there is none: the server's clock, by which it names dates.
    :param now: seconds since 1970, for where it does not say what time it has.
    """
    if retry_after.isascii() and retry_after.isdigit():
        return min(float(retry_after), most_s)
    until, said = _seconds(retry_after), _seconds(date)
    if until is None:
        return 0.0
    return min(max(0.0, until - (now if said is None else said)), most_s)


def _seconds(date: str) -> float | None:
    """Give a date of HTTP's as seconds since 1970; None where it is none."""
    try:
        found = parsedate_to_datetime(date)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
