"""The operation as we keep it: the record, to bytes and back. How it comes about from what a caller sent: `event`.

Pure: no clock, no file, no network. The record is one JSON object with the keys in the order of `Op`'s fields.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain
from operator import attrgetter
from sys import getsizeof
from typing import Final, NewType

import msgspec
from msgspec import UNSET, UnsetType

from observer_actors.visible import visible_json

Seq = NewType("Seq", int)
"""Position of an op in the journal: from 1, without a gap."""

ATTRS_MAX: Final = 32
"""Attributes an op keeps. Enough for every label set seen in real traces; more would let one caller own the disk."""
ATTR_CHARS_MAX: Final = 1_024
ATTR_NAME_CHARS_MAX: Final = 64
NAME_CHARS_MAX: Final = 256
"""Of a run, a task, a source, where one is asked about: what their attribute can hold, with room to spare."""

EXIT_STATUS: Final = "exit_status"
HTTP_STATUS: Final = "http_status"
OUTCOME_ATTRS: Final = frozenset({EXIT_STATUS, HTTP_STATUS})
"""Attributes by which `exec` and the client say how an op ended: nobody can know it beforehand."""

Scalar = str | int | float | bool | None

MaybeText = str | None | UnsetType
"""A field without a fallback: kept as given, also when given as null; left out when absent."""


class Op(msgspec.Struct, gc=False):
    """One operation as the journal keeps it. The order of the fields is the order of the keys on disk.

    ``seq`` and ``recorded_at`` are given by the journal's writer alone, as it writes the op; who sets aside an op that
    could not be written takes them away. The garbage collector need not look at ops: nothing in them can lead back to
    them.
    """

    timestamp: str
    """When it happened, as the caller said it; else when it arrived (ISO 8601, milliseconds, Z)."""
    endpoint: str
    input_summary: str
    success: bool
    duration_ms: int | float
    output_summary: str
    error: MaybeText = UNSET
    source: str = "mcp"
    """A record without one, as the seed wrote some, counts as `mcp`."""
    staffer_id: MaybeText = UNSET
    sig_hash: MaybeText = UNSET
    event_kind: MaybeText = UNSET
    role: MaybeText = UNSET
    city: MaybeText = UNSET
    state: MaybeText = UNSET
    count: int | float | str | UnsetType | None = UNSET
    rescue_attempted: bool = False
    rescue_succeeded: bool = False
    # What the seed did not have follows what it had.
    seq: int = 0
    recorded_at: str = ""
    """When the witness committed it (ISO 8601, microseconds, Z): the same for all ops of one commit, and strictly
    later than that of the commit before, also when the machine's clock is set back."""
    id: str | UnsetType = UNSET
    """The caller's idempotency key."""
    attrs: dict[str, Scalar] | UnsetType = UNSET


_op_decoder: Final = msgspec.json.Decoder(Op)
_encoder: Final = msgspec.json.Encoder()


def encode_op(op: Op) -> bytes:
    """Give the op as one JSON object, without a newline."""
    return visible_json(_encoder.encode(op))


def encode_ops(ops: Iterable[Op]) -> bytes:
    """Give the ops as the journal holds them: one JSON object a line, each ended by a newline."""
    return visible_json(_encoder.encode_lines(ops))


def decode_op(line: bytes | memoryview) -> Op:
    """Read one line of the journal.

    :raises msgspec.DecodeError: the line is not a record (the journal's reader counts it as damage).
    """
    return _op_decoder.decode(line)


_TEXTS: Final = attrgetter(
    "timestamp", "endpoint", "input_summary", "output_summary", "error",
    "staffer_id", "sig_hash", "event_kind", "role", "city", "state",
)  # fmt: skip
_SHORT_BYTES: Final = 1_000
"""Ops that are no longer than this on average are not looked at closely: they are too small to matter."""


def text_bytes(ops: Sequence[Op]) -> int:
    """Give what the texts of the ops take in memory, together, in bytes; of short ones, what the ops take as JSON.

    That is quickly said, and not less than their characters are. But Python keeps a text at the width of its widest
    character: one emoji makes each of the others take four bytes. And one that is not ASCII keeps its UTF-8 beside it
    once it was encoded, as here, and before it came to the journal.
    """
    total = len(_encoder.encode(ops))
    if total <= _SHORT_BYTES * len(ops):
        return total
    return sum(map(getsizeof, chain(chain.from_iterable(map(_TEXTS, ops)), _values(ops))))


def _values(ops: Iterable[Op]) -> Iterator[object]:
    """Give what may be a text, and may be something else."""
    for op in ops:
        if op.count is not UNSET:
            yield op.count
        if op.attrs:
            yield from op.attrs.values()


def iso_milliseconds(time: datetime) -> str:
    """Give a time as the seed writes it: ``2026-11-22T10:00:00.123Z``."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def iso_at(seconds: float) -> str:
    """Give a time in seconds since 1970 likewise."""
    return iso_milliseconds(datetime.fromtimestamp(seconds, UTC))


def time_us(text: str) -> int | None:
    """Microseconds since 1970 of an ISO 8601 time (without a zone: UTC), or None when it is not one."""
    try:
        return microseconds(datetime.fromisoformat(text))
    except ValueError:
        return None


def microseconds(time: datetime) -> int:
    """Give a time (without a zone: UTC) as microseconds since 1970."""
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    delta = time - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
