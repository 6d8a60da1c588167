"""Exponential backoff: how long to wait before the next try. Pure."""

from __future__ import annotations

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
