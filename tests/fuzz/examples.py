"""How many examples, and how bytes become other bytes."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

T = TypeVar("T", bound=Callable[..., object])

EXAMPLES: Final = int(os.environ.get("OBSERVER_FUZZ_EXAMPLES", "0"))
"""Of each test; 0 leaves each test its own number, and takes the same examples each time."""
TOKENS: Final = (
    b"\n",
    b"\0",
    b'"',
    b"\\",
    b"{",
    b"}",
    b"[" * 5_000,
    b'{"a":' * 5_000,
    b",",
    b"\xff",
    b"\xed\xa0\x80",
    b"\\ud800",
    b"null",
    b"-0",
    b"1e999",
    b"9" * 400,
    b"\r\n",
    b"\xef\xbb\xbf",
    b"\x1f\x8b\x08\x00",
    bytes(4_096),
)
"""What upsets a parser: ends, escapes, depth, bytes that are no text, numbers out of range, holes."""

Change = tuple[str, float, int]
"""What to do; where, as a part of the length; and with what."""


def fuzzed(examples: int) -> Callable[[T], T]:
    """Run a test on so many examples, or on as many as a campaign asks for, which are new ones each time."""
    return settings(
        max_examples=EXAMPLES or examples,
        derandomize=not EXAMPLES,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )


changes: Final = st.lists(
    st.tuples(
        st.sampled_from(["flip", "insert", "cut", "end", "repeat", "hole"]),
        st.floats(0, 1),
        st.integers(0, 2**16),
    ),
    min_size=1,
    max_size=3,
)


def changed(data: bytes, todo: list[Change]) -> bytes:
    """Change bytes at some places."""
    for what, where, number in todo:
        at = min(int(where * len(data)), max(len(data) - 1, 0))
        data = _changed_once(data, what, at, number)
    return data


def _changed_once(data: bytes, what: str, at: int, number: int) -> bytes:
    length = number % 300 + 1
    match what:
        case "flip" if data:
            return data[:at] + bytes([data[at] ^ (number % 255 + 1)]) + data[at + 1 :]
        case "insert":
            return data[:at] + TOKENS[number % len(TOKENS)] + data[at:]
        case "cut":
            return data[:at] + data[at + length :]
        case "end":
            return data[:at]
        case "repeat":
            return data[:at] + data[max(at - length, 0) :]
        case "hole":
            return data[:at] + bytes(min(length, len(data) - at)) + data[at + length :]
    return data
