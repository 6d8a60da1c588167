"""Judging the lines of a journal against its specification: pure. Lines go in, findings come out."""

from __future__ import annotations

from operator import le
from typing import Final, Literal

import msgspec
from msgspec import Struct

from observer_actors.journal.deduplication import IdWindow
from observer_actors.journal.lines import decode_ops, decode_record, split_lines
from observer_actors.journal.places import Place, Places, first_seq_of
from observer_actors.op import Op

FINDINGS_MAX: Final = 1_000
"""Findings that are named; a file of rubbish must not make a report of its size. The rest is counted."""

Severity = Literal["damage", "notice"]


class Finding(Struct, frozen=True, kw_only=True):
    """One thing that is not as it should be, and where."""

    severity: Severity
    """``damage``: acknowledged data, or what protects it, is wrong. ``notice``: worth knowing, nothing is lost."""
    file: str
    """Relative to ``_observer/``."""
    what: str
    line: int | None = None
    """From 1, within the file as zcat shows it."""
    offset: int | None = None
    """Byte where that line begins, counted as zcat shows the file."""


class Findings:
    """What was found so far."""

    def __init__(self) -> None:
        self.named: list[Finding] = []
        self.counts: dict[Severity, int] = {"damage": 0, "notice": 0}

    def add(self, finding: Finding) -> None:
        """Count a finding, and keep it while there is room."""
        self.counts[finding.severity] += 1
        if len(self.named) < FINDINGS_MAX:
            self.named.append(finding)

    def take(self, others: Findings) -> None:
        """Add what was found elsewhere."""
        self.named += others.named[: FINDINGS_MAX - len(self.named)]
        for severity, count in others.counts.items():
            self.counts[severity] += count


class Position(Struct):
    """How far the journal has been judged: what one file hands on to the next."""

    expected: int
    """The next seq."""
    ids: IdWindow
    recorded_at: str = ""
    ops: int = 0
    first_seq: int = 0
    """Of the first op met; 0 before it."""

    def copy(self) -> Position:
        """Give a position that goes its own way from here on."""
        return msgspec.structs.replace(self, ids=self.ids.copy())


class _Doubt(Struct, frozen=True):
    """A line whose seq is too far on: the next one tells whether it is right."""

    op: Op
    line: int
    offset: int


class LineJudge:
    """Takes the lines of one file in order.

    :param last_seq: where the file ends; lines beyond are residue.
    """

    def __init__(self, file: str, position: Position, findings: Findings, last_seq: int) -> None:
        self.residue_at: int | None = None
        """Byte where the part begins that does not count."""
        self._file = file
        self._position = position
        self._findings = findings
        self._last_seq = last_seq
        self._places = Places(position.expected)
        self._doubt: _Doubt | None = None
        self._offset = 0
        self._line = 0

    def take(self, chunk: bytes) -> None:
        """Judge a chunk of whole lines: at once if all is well, else line by line."""
        ops, bad = decode_ops(chunk)
        if bad or self._places.is_behind_bad or not self._fits(ops):
            if not self._line:
                self._begin(chunk)
            for _, line in split_lines(chunk):
                if self.residue_at is None:
                    self._take_line(line)
            return
        if ops:
            self._places.advance(ops[-1].seq)
        self._accept(ops, self._line)
        self._offset += len(chunk)
        self._line += len(ops)

    def _fits(self, ops: list[Op]) -> bool:
        recorded = [self._position.recorded_at, *(op.recorded_at for op in ops)]
        expected = self._position.expected
        return (
            [op.seq for op in ops] == list(range(expected, expected + len(ops)))
            and all(map(le, recorded, recorded[1:]))
            and not self._is_beyond(expected + len(ops) - 1)
        )

    def _begin(self, chunk: bytes) -> None:
        """Find out whether what should stand before the file's first line is missing."""
        position = self._position
        first = first_seq_of(decode_record, chunk, position.expected) or position.expected
        if first > position.expected and not self._is_beyond(first):
            self._add("damage", f"gap: seq {position.expected} to {first - 1} are missing")
            position.expected = first
            self._places = Places(first)

    def _is_beyond(self, seq: int) -> bool:
        return seq > self._last_seq

    def _take_line(self, line: bytes) -> None:
        expected = self._position.expected
        if self._is_beyond(expected):
            self.residue_at = self._offset
            return
        record = decode_record(line)
        place = self._places.take(line, record)
        if self._doubt is not None:
            self._settle(self._doubt, is_right=place is Place.CONFIRMING)
        if isinstance(record, str):
            self._add("damage", f"bad line: {record}")
        elif place is Place.EARLY:
            self._add("damage", f"seq {record.seq} comes again or too late, expected {expected}")
        elif place is Place.DOUBTED:
            self._doubt = _Doubt(record, self._line, self._offset)
        elif self.residue_at is None:
            self._take_op(record, self._line, self._offset)
        self._offset += len(line)
        self._line += 1

    def _settle(self, doubt: _Doubt, *, is_right: bool) -> None:
        self._doubt = None
        seq, expected = doubt.op.seq, self._position.expected
        if not is_right:
            what = f"seq {seq} is too far on, expected {expected}"
            self._add("damage", what, doubt.line, doubt.offset)
            return
        if not self._is_beyond(seq):
            self._add("damage", f"gap: seq {expected} to {seq - 1} are missing", doubt.line, doubt.offset)
        self._take_op(doubt.op, doubt.line, doubt.offset)

    def _take_op(self, op: Op, line: int, offset: int) -> None:
        position = self._position
        if self._is_beyond(op.seq):
            self.residue_at = offset
            return
        if op.recorded_at < position.recorded_at:
            what = f"recorded_at of seq {op.seq} is earlier than that of the op before"
            self._add("damage", what, line, offset)
        self._accept([op], line)

    def _accept(self, ops: list[Op], line: int) -> None:
        position = self._position
        if not ops:
            return
        ids = [(op.seq, op.id) for op in ops if isinstance(op.id, str)]
        for seq, id_ in ids:
            position.ids.add({}, seq - 1)  # the window is counted from the op before
            first = position.ids.known(id_)
            if first is not None:
                what = f"the id of seq {seq} was given to seq {first} already"
                self._findings.add(
                    Finding(severity="notice", file=self._file, what=what, line=line + 1 + seq - ops[0].seq)
                )
            position.ids.add({id_: seq}, seq)
        position.expected = ops[-1].seq + 1
        position.recorded_at = ops[-1].recorded_at  # also an earlier one: who rotted to a later time is told once
        position.first_seq = position.first_seq or ops[0].seq
        position.ops += len(ops)

    def finish(self) -> None:
        """Say what is missing at the end."""
        if self._doubt is not None:
            self._settle(self._doubt, is_right=False)
        position = self._position
        if position.expected > self._last_seq:
            return
        if not self._places.is_behind_bad:
            self._add("damage", f"gap: seq {position.expected} to {self._last_seq} are missing")
        position.expected = self._last_seq + 1

    def _add(self, severity: Severity, what: str, line: int | None = None, offset: int | None = None) -> None:
        self._findings.add(
            Finding(
                severity=severity,
                file=self._file,
                what=what,
                line=(self._line if line is None else line) + 1,
                offset=self._offset if offset is None else offset,
            )
        )
