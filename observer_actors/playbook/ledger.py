"""The entries, and all that happens to them: drawn from evidence, tried, decided about. Pure.

Every change is a delta (`deltas`), and is caused by the op in hand.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable
from typing import Final

import msgspec

from observer_actors.op import Op
from observer_actors.playbook.decisions import Action, Decision, marked, stricter
from observer_actors.playbook.deltas import (
    Created,
    Delta,
    Evidence,
    Forgotten,
    Marked,
    Merged,
    Moved,
    Noted,
    Parted,
    Tried,
    Updated,
    apply,
    touched,
)
from observer_actors.playbook.entries import Entry, EntryNote, Kind, Mark, State, entry_id
from observer_actors.playbook.keeping import Kept, Section
from observer_actors.playbook.lift import Trial
from observer_actors.playbook.meta import Meta
from observer_actors.playbook.states import Standing, is_trusted, joined, judged
from observer_actors.playbook.trial import Trials

ENTRIES_MAX: Final = 10_000
MARKS_MAX: Final = 1_000
"""Decisions about entries that are not there, or not yet: the oldest is forgotten."""


class Ledger:
    """All entries.

    :param kept: is told what has changed.
    :param reporter: see `Trials`.
    """

    def __init__(self, kept: Kept, meta: Meta, reporter: Callable[[str], str]) -> None:
        self.entries: dict[str, Entry] = {}
        self.trials = Trials(kept, reporter)
        self.standings: dict[str, Standing] = {}
        self._kept = kept
        self._meta = meta
        self._alone: dict[str, list[tuple[int, str]]] = {}
        """Source -> the entries that it alone speaks for, by the op that made them, and by id."""
        self._of_one: dict[str, tuple[str, tuple[int, str]]] = {}
        """Entry -> where it stands there."""
        self._lost: dict[str, None] = {}
        """Entries whose evidence is gone, and that no person has decided about."""
        self._by_endpoint: dict[str, dict[str, None]] = {}
        self._merged: dict[str, str] = {}
        self._deltas: list[Delta] = []

    def begin(self, seq: int) -> list[Delta]:
        """Begin with an op; give the list that its deltas go to."""
        self._kept.seq, self._deltas = seq, []
        return self._deltas

    def restore(self, entry: Entry) -> None:
        """Take an entry in as it was."""
        self.entries[entry.id] = entry
        self._by_endpoint.setdefault(entry.endpoint, {})[entry.id] = None
        self._merged.update(dict.fromkeys(entry.also, entry.id))
        self._note_alone(entry.id)

    def find(self, key: str) -> Entry | None:
        """Give an entry by its id, or by that of one that has become part of it."""
        return self.entries.get(self._merged.get(key, key))

    def at(self, endpoint: str) -> list[Entry]:
        """Give the entries of an endpoint, in the order in which they were made."""
        return [self.entries[key] for key in self._by_endpoint.get(endpoint, ())]

    # ------------------------------------------------------------------------------------------------ evidence

    def write(self, kind: Kind, endpoint: str, about: str, evidence: Evidence | None) -> None:
        """Make or change an entry; where there is nothing to say any more, forget it.

        :param about: what makes its id.
        """
        key = entry_id(kind, endpoint, about)
        known = self.entries.get(key)
        if evidence is None:
            self.lose(key)
        elif known is None:
            self._create(key, kind, endpoint, evidence)
        elif any(getattr(known, name) != getattr(evidence, name) for name in evidence.__struct_fields__):
            self._do(Updated(known.id, self._kept.seq, evidence))
            self._judge(known.id)

    def merge(self, key: str, other: str) -> None:
        """Make an entry part of another that says the same: what holds back either holds back both.

        Where there is no other, its evidence is that one's all the same, and it has none any more.
        """
        entry, gone = self.entries.get(key), self.entries.get(other)
        if gone is None:
            return
        if entry is None:
            self._rename(gone, key)
            self.lose(other)
            return
        others = self.standings.get(other, Standing())
        self._leave(gone)
        self._do(Merged(key, self._kept.seq, other))
        self._merged.update(dict.fromkeys(self.entries[key].also, key))
        self._mark(key, stricter(entry.mark, gone.mark))
        self._hold_back_like(key, others, _evidence_of(entry) + _evidence_of(gone))

    def _hold_back_like(self, key: str, other: Standing, evidence: int) -> None:
        """Hold an entry back where one that says the same is."""
        before = self.standings.get(key, Standing())
        after = joined(before, other, evidence)
        if after is not before:
            self._stand(key, before, after)

    def _rename(self, gone: Entry, key: str) -> None:
        """Have what was decided of an entry hold for the one that its evidence may make later, under another id."""
        standing = self.standings.get(gone.id)
        if not (gone.mark or gone.notes or standing):
            return
        also = tuple(one for one in (*gone.also, gone.id) if one != key)
        mark = stricter(gone.mark, self._meta.marks.pop(key, Mark.NONE))
        self.forget(gone.id)
        self._add(msgspec.structs.replace(gone, id=key, also=also, mark=mark, supported=False, trial=Trial()))
        self._merged.update(dict.fromkeys(also, key))
        if standing is not None:
            self.standings[key] = standing
            self._kept.touch(Section.STANDING, key)

    def forget(self, key: str) -> None:
        """Forget an entry with its evidence."""
        entry = self.entries.get(key)
        if entry is None:
            return
        self._leave(entry)
        for other in entry.also:
            self._merged.pop(other, None)
        self._do(Forgotten(key, self._kept.seq))

    def lose(self, key: str) -> None:
        """Note that the evidence of an entry is gone: forget it, unless it was used or decided about.

        What is known of such a one shall not be lost.
        """
        entry = self.entries.get(key)
        if entry is None:
            return
        if not _is_used(entry) and not entry.mark and not entry.notes:
            self.forget(key)
        elif entry.supported:
            fields = {name: getattr(entry, name) for name in Evidence.__struct_fields__}
            self._do(Updated(key, self._kept.seq, Evidence(**{**fields, "supported": False})))

    def inherit(self, old: Ledger, seq: int) -> int:
        """Take over what was decided before an op, by persons or by trials, of entries that have no evidence here yet.

        :returns: how many entries, and decisions about entries that are not there.
        """
        marks = self._meta.marks = dict(old._meta.marks)
        for entry in old.entries.values():
            notes = tuple(note for note in entry.notes if note.seq < seq)
            moved = max((change.seq for change in entry.history if change.what == "state"), default=0)
            is_kept_back = entry.state in {State.WITHHELD, State.RETIRED} and moved < seq
            if not (entry.mark or notes or is_kept_back):
                continue
            standing = old.standings[entry.id] if is_kept_back else Standing()
            self.restore(
                msgspec.structs.replace(
                    entry,
                    state=standing.state,
                    reason=standing.reason,
                    decided_by=standing.decided_by,
                    supported=False,
                    trial=Trial(),
                    notes=notes,
                )
            )
            self._kept.touch(Section.ENTRY, entry.id)
            if is_trusted(self.entries[entry.id]):
                self._try_anew(entry.id)
            if is_kept_back:
                self.standings[entry.id] = standing
                self._kept.touch(Section.STANDING, entry.id)
        return len(self.entries) + len(marks)

    def _create(self, key: str, kind: Kind, endpoint: str, evidence: Evidence) -> None:
        if len(self.entries) >= ENTRIES_MAX and not self._make_room():
            self._meta.left.entries += 1
            return
        fields = {name: getattr(evidence, name) for name in evidence.__struct_fields__}
        whole = self.find(key)  # what it is part of, and the evidence that the two are one was forgotten
        mark = self._meta.marks.pop(key, Mark.NONE)
        entry = Entry(
            id=key,
            kind=kind,
            endpoint=endpoint,
            mark=mark if whole is None else stricter(mark, whole.mark),
            trial=self.trials.trial(key),
            **fields,
        )
        self._add(entry)
        if whole is not None:
            del self._merged[key]
            self._do(Parted(whole.id, self._kept.seq, key))
            standing = self.standings.get(whole.id, Standing())
            self._hold_back_like(entry.id, standing, standing.evidence_then)
        self._judge(entry.id)  # without what was revoked it may come later than its uses

    def _add(self, entry: Entry) -> None:
        self._by_endpoint.setdefault(entry.endpoint, {})[entry.id] = None
        self._do(Created(entry, self._kept.seq))
        if is_trusted(entry):
            self._try_anew(entry.id)

    def _make_room(self) -> bool:
        """Forget an entry that one source alone speaks for: of the source that has most of them, the oldest.

        Else one whose evidence is gone, where nobody has decided about it: the one that has been so for longest.
        """
        if self._alone:
            source = max(self._alone, key=lambda one: (len(self._alone[one]), one))
            key = self._alone[source][0][1]
        else:
            key = min(self._lost, key=lambda one: (self.entries[one].last_seq, one), default="")
        if not key:
            return False
        self.forget(key)
        self._meta.left.entries += 1
        return True

    def _note_alone(self, key: str) -> None:
        """Keep account of the entries that one source alone speaks for, and of those that nothing does any more."""
        self._note_lost(key)
        before, entry = self._of_one.pop(key, None), self.entries.get(key)
        if before is not None:
            source, place = before
            del self._alone[source][bisect_left(self._alone[source], place)]
            if not self._alone[source]:
                del self._alone[source]
        if entry is not None and _is_alone(entry):
            place = (entry.history[0].seq if entry.history else 0, key)
            insort(self._alone.setdefault(entry.sources[0], []), place)
            self._of_one[key] = entry.sources[0], place

    def _note_lost(self, key: str) -> None:
        entry = self.entries.get(key)
        if entry is not None and not entry.supported and not entry.mark and not entry.notes:
            self._lost[key] = None
        else:
            self._lost.pop(key, None)

    def _leave(self, entry: Entry) -> None:
        self._by_endpoint[entry.endpoint].pop(entry.id, None)
        if not self._by_endpoint[entry.endpoint]:
            del self._by_endpoint[entry.endpoint]
        if self.standings.pop(entry.id, None) is not None:
            self._kept.gone(Section.STANDING, entry.id)
        self.trials.forget(entry.id)

    # -------------------------------------------------------------------------------------------------- trials

    def take(self, op: Op) -> None:
        """Take in what an op says of who got an entry, and of how it went."""
        for key in self.trials.add(op):
            if key in self.entries:
                self._do(Tried(key, self.trials.trial(key)))
                self._judge(key)

    def _judge(self, key: str) -> None:
        """See where an entry stands now."""
        entry = self.entries[key]
        before = self.standings.get(key, Standing())
        after = judged(before, entry.trial, _evidence_of(entry))
        if after is not before:
            self._stand(key, before, after)

    def _stand(self, key: str, before: Standing, after: Standing) -> None:
        was_trusted = is_trusted(self.entries[key])
        self.standings[key] = after
        self._kept.touch(Section.STANDING, key)
        if (after.state, after.reason) != (before.state, before.reason):
            self._do(Moved(key, self._kept.seq, after.state, after.reason, after.decided_by))
        is_over = after.state in {State.WITHHELD, State.RETIRED}  # what has decided is to be seen until the next try
        if after.tries != before.tries or (is_trusted(self.entries[key]) is not was_trusted and not is_over):
            self._try_anew(key)

    def try_otherwise(self, key: str) -> None:
        """Begin a new trial of an entry that advises something else now, also of one that is withheld."""
        before = self.standings.get(key, Standing())
        if before.state is State.WITHHELD:
            self._stand(key, before, Standing(State.CANDIDATE, "it advises something else", before.tries + 1))
        elif key in self.entries:
            self._try_anew(key)

    def _mark(self, key: str, mark: Mark) -> None:
        entry = self.entries[key]
        if mark is entry.mark:
            return
        self._do(Marked(key, self._kept.seq, mark))
        if is_trusted(self.entries[key]) is not is_trusted(entry):
            self._try_anew(key)

    def _try_anew(self, key: str) -> None:
        """Begin a new trial: the next runs are drawn with another share, or their outcomes are not to be mixed."""
        self.trials.restart(key, self._kept.seq, trusted=is_trusted(self.entries[key]))
        self._do(Tried(key, self.trials.trial(key)))

    # ----------------------------------------------------------------------------------------------- decisions

    def decide(self, decision: Decision, op: Op) -> None:
        """Take in what a person has decided of an entry."""
        entry = self.find(decision.entry)
        if entry is None:
            self._remember(decision)
            return
        if decision.note:
            self._do(Noted(entry.id, EntryNote(op.seq, op.recorded_at, decision.note)))
        self._mark(entry.id, marked(entry.mark, decision.action))
        before = self.standings.get(entry.id, Standing())
        if decision.action is Action.RELEASE and before.state in {State.WITHHELD, State.RETIRED}:
            self._stand(entry.id, before, Standing(State.CANDIDATE, "a person has released it", before.tries + 1))

    def _remember(self, decision: Decision) -> None:
        mark = marked(self._meta.marks.pop(decision.entry, Mark.NONE), decision.action)
        if mark is not Mark.NONE:
            self._meta.marks[decision.entry] = mark
        if len(self._meta.marks) > MARKS_MAX:
            del self._meta.marks[next(iter(self._meta.marks))]

    # ----------------------------------------------------------------------------------------------------- how

    def _do(self, delta: Delta) -> None:
        apply(self.entries, delta)
        self._deltas.append(delta)
        for key in touched(delta):
            self._note_alone(key)
        if isinstance(delta, Forgotten):
            self._kept.gone(Section.ENTRY, delta.id)
            return
        self._kept.touch(Section.ENTRY, delta.entry.id if isinstance(delta, Created) else delta.id)
        if isinstance(delta, Merged):
            self._kept.gone(Section.ENTRY, delta.other)


def _is_alone(entry: Entry) -> bool:
    is_decided = _is_used(entry) or entry.mark or entry.notes
    return len(entry.sources) == 1 and not entry.corroborated and not is_decided


def _is_used(entry: Entry) -> bool:
    """Say whether a trial has shown anything of an entry, be it an earlier one than the present."""
    return bool(entry.trial.exposed.total or entry.trial.control.total or entry.reason)


def _evidence_of(entry: Entry) -> int:
    """Give how many ops, tries or runs speak for an entry, either way."""
    return entry.succeeded + entry.failed
