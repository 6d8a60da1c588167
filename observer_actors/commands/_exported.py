"""Lines that `export` wrote, when they are imported: each bears the seq of its op, and when that was committed.

What is left out becomes a blank line of the same length, so that the places of all others stay. Lines alone are looked
at: of a JSON array nothing is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from observer_actors.commands._api import NOT_LET_IN, Api, Refused
from observer_actors.commands._filters import PAGE_OPS, pages
from observer_actors.event import OWN_SOURCE
from observer_actors.problems import UNREADABLE

SEQ_DIGITS_MAX: Final = 17
"""`/ops` takes 18, and what it is asked for here is one more."""


@dataclass(frozen=True, slots=True)
class Sifted:
    """Lines that are to be sent, and how many were left out."""

    lines: list[bytes]
    known: int = 0
    """What is in the daemon's journal already, however old: the same seq, committed at the same time."""
    known_seq: int = 0
    """The newest of these; 0 for none."""
    own: int = 0
    """What the daemon itself had put into its journal: revocations, decisions, draws of advice. Sent as events, they
    would be operations of some agent, that succeeded."""


def sift(daemon: Api, lines: Sequence[bytes]) -> Sifted:
    """Leave out what the daemon has, as far as our token may see it, and what is no event."""
    exported = _exported(lines)
    if not exported:
        return Sifted([*lines])
    there = _there(daemon, [op.seq for op in exported.values()])
    known = {number: op.seq for number, op in exported.items() if there.get(op.seq) == op.recorded_at}
    own = [number for number, op in exported.items() if op.source == OWN_SOURCE and number not in known]
    return Sifted(_without(lines, [*known, *own]), len(known), max(known.values(), default=0), len(own))


def _there(daemon: Api, seqs: Sequence[int]) -> dict[int, str]:
    """Give when each of these ops was committed, of those that the daemon has."""
    found: dict[int, str] = {}
    try:
        for first, last in _stretches(seqs):
            wanted: dict[str, object] = {"order": "oldest", "after_seq": first - 1, "before_seq": last + 1}
            for _, page in pages(daemon, wanted, limit=None):
                found |= {op.seq: op.recorded_at for op in page.ops}
    except Refused as refusal:
        if refusal.answered not in NOT_LET_IN:
            raise
        return {}
    return found


def _stretches(seqs: Sequence[int]) -> list[tuple[int, int]]:
    """Give where seqs begin and end that lie close together: of what lies between others nothing is asked for."""
    stretches: list[tuple[int, int]] = []
    for seq in sorted(seqs):
        if stretches and seq - stretches[-1][1] <= PAGE_OPS:
            stretches[-1] = (stretches[-1][0], seq)
        else:
            stretches.append((seq, seq))
    return stretches


class _Exported(msgspec.Struct, frozen=True):
    seq: Annotated[int, msgspec.Meta(ge=1, lt=10**SEQ_DIGITS_MAX)]
    recorded_at: Annotated[str, msgspec.Meta(min_length=1)]
    source: str = ""


_decoder: Final = msgspec.json.Decoder(_Exported)


def _exported(lines: Sequence[bytes]) -> dict[int, _Exported]:
    """Give the lines that `export` wrote, by their numbers from 0."""
    if b"".join(lines).lstrip().startswith(b"["):
        return {}
    found = {}
    for number, line in enumerate(lines):
        if b'"recorded_at"' in line and (op := _read(line)) is not None:
            found[number] = op
    return found


def _read(line: bytes) -> _Exported | None:
    try:
        return _decoder.decode(line)
    except UNREADABLE:
        return None


def _without(lines: Sequence[bytes], left_out: Sequence[int]) -> list[bytes]:
    kept = list(lines)
    for number in left_out:
        kept[number] = b"\n".rjust(len(kept[number]))
    return kept
