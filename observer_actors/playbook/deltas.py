"""What happens to entries, one small thing at a time, each caused by one op. Pure.

`apply` makes the next state of the playbook of the one before and a delta; nothing else changes an entry.
"""

from __future__ import annotations

from collections.abc import MutableMapping

import msgspec

from observer_actors.playbook.entries import EVIDENCE, NOTES_KEPT, Change, Entry, EntryNote, Mark, State
from observer_actors.playbook.lift import Sides, Trial


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What an entry is drawn from, as `Entry` has it."""

    about: str
    text: str
    scope: dict[str, str] = {}
    succeeded: int
    failed: int
    doubtful: int = 0
    runs: int
    sources: tuple[str, ...]
    corroborated: bool
    supported: bool = True
    example_seqs: tuple[int, ...]
    contrary_seqs: tuple[int, ...]
    first_seq: int
    last_seq: int


class Created(msgspec.Struct, frozen=True):
    """A new entry."""

    entry: Entry
    seq: int


class Updated(msgspec.Struct, frozen=True):
    """Its evidence has changed."""

    id: str
    seq: int
    evidence: Evidence


class Tried(msgspec.Struct, frozen=True):
    """The outcome of a use has come, or another one."""

    id: str
    trial: Trial


class Moved(msgspec.Struct, frozen=True):
    """Its trial has come to something."""

    id: str
    seq: int
    state: State
    reason: str
    decided_by: Sides


class Marked(msgspec.Struct, frozen=True):
    """A person has decided."""

    id: str
    seq: int
    mark: Mark


class Noted(msgspec.Struct, frozen=True):
    """A person has noted something."""

    id: str
    note: EntryNote


class Merged(msgspec.Struct, frozen=True):
    """Another entry said the same, and has become part of this one, with its notes."""

    id: str
    seq: int
    other: str


class Parted(msgspec.Struct, frozen=True):
    """An entry that had become part of this one is there by itself again: what had shown that is forgotten."""

    id: str
    seq: int
    other: str


class Forgotten(msgspec.Struct, frozen=True):
    """Its evidence is gone, or shows it no longer."""

    id: str
    seq: int


Delta = Created | Updated | Tried | Moved | Marked | Noted | Merged | Parted | Forgotten


def touched(delta: Delta) -> tuple[str, ...]:
    """Give the ids of the entries that a delta has made, changed or removed."""
    match delta:
        case Created(entry):
            return (entry.id,)
        case Merged(key, _, other):
            return key, other
    return (delta.id,)


def apply(entries: MutableMapping[str, Entry], delta: Delta) -> None:
    """Make, change or remove the entry that the delta is about, and the one that has become part of it; no other."""
    match delta:
        case Created(entry, seq):
            created = Change(entry.version, seq, "created", entry.text, entry.mark)
            entries[entry.id] = msgspec.structs.replace(entry, history=(created,))
        case Forgotten(key):
            del entries[key]
        case Updated(key, seq, evidence):
            entries[key] = _updated(entries[key], seq, evidence)
        case Tried(key, trial):
            entries[key] = msgspec.structs.replace(entries[key], trial=trial)
        case Moved(key, seq, state, reason, decided_by):
            entries[key] = entries[key].changed(seq, "state", state=state, reason=reason, decided_by=decided_by)
        case Marked(key, seq, mark):
            entries[key] = entries[key].changed(seq, "mark", mark=mark)
        case Noted(key, note):
            notes = (*entries[key].notes, note)[-NOTES_KEPT:]
            entries[key] = msgspec.structs.replace(entries[key], notes=notes)
        case Merged(key, seq, other):
            entry, gone = entries[key], entries.pop(other)
            notes = tuple(sorted((*entry.notes, *gone.notes), key=lambda note: note.seq))[-NOTES_KEPT:]
            also = tuple(dict.fromkeys((*entry.also, other, *gone.also)))
            entries[key] = entry.changed(seq, "merged", also=also, notes=notes)
        case Parted(key, seq, other):
            also = tuple(one for one in entries[key].also if one != other)
            entries[key] = entries[key].changed(seq, "parted", also=also)


def _updated(entry: Entry, seq: int, evidence: Evidence) -> Entry:
    what = [
        name
        for name, one, other in (
            ("corroboration", entry.corroborated, evidence.corroborated),
            ("support", entry.supported, evidence.supported),
        )
        if one != other
    ]
    return entry.changed(seq, "+".join([EVIDENCE, *what]), **msgspec.structs.asdict(evidence))
