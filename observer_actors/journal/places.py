"""Which seq a line of a file must have, and what to think of one that has another: pure.

Nothing but rot makes the seqs of a file jump: what a crash leaves is shorter, or has holes. So bad lines say how many
ops they held, and a line behind them has the next seq. One that is further on is *doubted*: only if the line after
it follows it, the ops between are gone, and it is good. Else its seq has rotted, and it alone is bad.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from typing import Final, TypeVar

from msgspec import Struct

from observer_actors.journal.lines import Head, split_lines
from observer_actors.op import Op, encode_op

_BEGIN: Final = b'{"timestamp":'
_SEQ: Final = re.compile(rb'"rescue_succeeded":(?:true|false),"seq":([0-9]{1,18}),"recorded_at":"')
"""Both stand once in each op: within a text a quote has a backslash."""
_SHORTEST: Final = Op(
    timestamp="", endpoint="", input_summary="", success=True, duration_ms=0, output_summary="", source="", seq=1
)
_LINE_BYTES_MIN: Final = len(encode_op(_SHORTEST)) + 1


def lost_place(size: int) -> bytes:
    """Give lines that stand for bytes that nobody can read, as many; no line of them is a record.

    Each is as short as an op may be, and begins as one does, also where it goes on a line that is begun: too many ops
    are taken for lost rather than too few, so that no seq is given out again.
    """
    lines = max(1, size // _LINE_BYTES_MIN)
    last = size - (lines - 1) * _LINE_BYTES_MIN
    return _unreadable_line(_LINE_BYTES_MIN) * (lines - 1) + _unreadable_line(last)


def _unreadable_line(size: int) -> bytes:
    return _BEGIN.ljust(size - 1, b"?")[: size - 1] + b"\n"


class Place(Enum):
    """What the seq of a line says."""

    GOOD = "in its place"
    UNREADABLE = "no record"
    EARLY = "comes again or too late"
    DOUBTED = "further on than anything accounts for"
    CONFIRMING = "follows the doubted line before it: both are good"


class _Lost(Struct):
    """The bad lines since the last good one."""

    size: int = 0
    """In bytes."""
    count: int = 0
    highest: int = 0
    """Of the seqs that can be read in them."""
    is_begun: bool = False
    """The last of them begins as an op does, so that the next may be the rest of it."""
    is_unsaid: bool = False
    """An op has begun, and its seq has not been seen yet: the next line may be the rest of it, and have it."""

    @property
    def ops(self) -> int:
        """How many ops they held, by the larger count: one rotten byte spoils the beginning of an op, or its seq."""
        return max(1, self.count) if self.size else 0

    def add(self, line: bytes, *, is_record: bool, expected: int | None) -> None:
        """Count a line."""
        begins = 1 if is_record else line.count(_BEGIN)
        seqs = [0] if is_record else [int(seq) for seq in _SEQ.findall(line)]
        self.size += len(line)
        if begins or seqs:
            self.count += max(begins, len(seqs) - (self.is_unsaid and not is_record))
        elif not self.is_begun:
            self.count += len(line) >= _LINE_BYTES_MIN  # else a newline has come up within the first bytes of a line
        self.is_begun = begins > 0 and not is_record
        self.is_unsaid = begins > len(seqs)
        if expected is not None:
            self.highest = max([self.highest, *(seq for seq in seqs if expected <= seq < expected + self.room)])

    @property
    def room(self) -> int:
        """How many ops can have stood there, at most."""
        return max(self.ops, self.size // _LINE_BYTES_MIN)


class Places:
    """Takes the lines of a file in order.

    :param expected: seq of the first; None when it is not known.
    """

    def __init__(self, expected: int | None) -> None:
        self.expected = expected
        """The seq behind the last good line."""
        self.doubted = 0
        """Seq of the line before, if that is doubted."""
        self._lost = _Lost()

    @property
    def due(self) -> int | None:
        """The seq to expect now, given how many ops the bad lines since the last good one seem to have held."""
        return None if self.expected is None else max(self.expected + self._lost.ops, self._lost.highest + 1)

    @property
    def is_behind_bad(self) -> bool:
        """The line before is none that counts."""
        return self._lost.size > 0

    def advance(self, last_seq: int) -> None:
        """Go on behind good lines."""
        self.expected = last_seq + 1
        self.doubted = 0
        if self.is_behind_bad:
            self._lost = _Lost()

    def take(self, line: bytes, record: Head | Op | str) -> Place:
        """Say what a line is.

        :param record: what it decodes to; where it is bad, why.
        """
        seq = _seq_of(record)
        doubted, self.doubted = self.doubted, 0
        if seq is None:
            place = Place.UNREADABLE
        elif self.expected is not None and seq < self.expected:
            place = Place.EARLY
        elif doubted and seq == doubted + 1:
            place = Place.CONFIRMING
        elif self.due is None or self.expected is None or seq <= max(self.due, self.expected + self._lost.room):
            place = Place.GOOD
        else:
            place = Place.DOUBTED
            self.doubted = seq
        if seq is not None and place in {Place.GOOD, Place.CONFIRMING}:
            self.advance(seq)
        else:
            self._lost.add(line, is_record=seq is not None, expected=self.expected)
        return place


def first_seq_of(decode: Callable[[bytes], Head | Op | str], chunk: bytes, expected: int | None) -> int | None:
    """Tell with which seq a file begins, lest that of a first line that has rotted counts.

    It is the expected one if a line has its place so; else what the first line says that can be read, unless the next
    one contradicts it: then what two lines say that follow one another.

    :param expected: by what lies before the file; None when nothing tells. What lies there may be lost: then it begins
        further on, and never before.
    """
    lost, places, first = _Lost(), Places(None), expected
    before = 0
    is_contradicted = False
    for _, line in split_lines(chunk):
        record = decode(line)
        seq = _seq_of(record)
        if expected is not None and seq == expected + lost.ops:
            return expected
        lost.add(line, is_record=seq is not None, expected=None)
        place = places.take(line, record)
        if seq is None:
            continue
        begin = seq - lost.ops + 1
        if before == 0:
            first = max(begin, expected or 1)
        elif place is Place.GOOD and not is_contradicted:
            break
        elif seq == before + 1 and begin >= (expected or 1):
            return begin
        else:
            is_contradicted = True
        before = seq
    return first


_Record = TypeVar("_Record", Head, Op)


def in_place(decode: Callable[[bytes], _Record | str], chunk: bytes, expected: int) -> tuple[list[_Record], int]:
    """Decode the lines of a block that are in their place; give them and the number of the others.

    :param expected: seq of the first, as of `first_seq_of`.
    """
    read = [(line, decode(line)) for _, line in split_lines(chunk)]
    places = Places(first_seq_of(decode, chunk, expected))
    records: list[_Record] = []
    before: _Record | str = ""
    for line, record in read:
        place = places.take(line, record)
        if place is Place.CONFIRMING and not isinstance(before, str):
            records.append(before)
        if place in {Place.GOOD, Place.CONFIRMING} and not isinstance(record, str):
            records.append(record)
        before = record
    return records, len(read) - len(records)


def _seq_of(record: Head | Op | str) -> int | None:
    return None if isinstance(record, str) else record.seq
