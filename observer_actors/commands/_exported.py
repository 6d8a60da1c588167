"""Lines that `export` wrote, when they are imported: each bears the seq of its op, and when that was committed.

What is left out becomes a blank line of the same length, so that the places of all others stay. Lines alone are looked
at: of a JSON array nothing is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from observer_actors.event import OWN_SOURCE
from observer_actors.problems import UNREADABLE


@dataclass(frozen=True, slots=True)
class Sifted:
    """Lines that are to be sent, and how many were left out."""

    lines: list[bytes]
    own: int
    """What the daemon itself had put into its journal: revocations, decisions, draws of advice. Sent as events, they
    would be operations of some agent, that succeeded."""


def sift(lines: Sequence[bytes]) -> Sifted:
    """Leave out what is no event."""
    left_out = [number for number, op in _exported(lines).items() if op.source == OWN_SOURCE]
    return Sifted(_without(lines, left_out), len(left_out))


class _Exported(msgspec.Struct, frozen=True):
    seq: Annotated[int, msgspec.Meta(ge=1)]
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
