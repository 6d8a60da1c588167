"""Entries of the playbook: one piece of advice each, with its evidence, its trial, and what became of it.

An entry is never written as a whole by anybody: `deltas` make and change it, each caused by one op.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from observer_actors.labels import stable_id
from observer_actors.playbook.lift import Sides, Trial

EVIDENCE: Final = "evidence"
"""What has changed where nothing but the evidence has: of such that follow each other an entry remembers the newest."""
CHANGES_KEPT: Final = 20
"""Changes that an entry remembers: the first one, and the newest others."""
NOTES_KEPT: Final = 20
"""Notes of persons that an entry keeps: the newest."""


class Kind(StrEnum):
    """What an entry advises."""

    DO = "do"
    """This works."""
    AVOID = "avoid"
    """This fails, and why."""
    RECIPE = "recipe"
    """These steps succeed together."""


class EntryState(StrEnum):
    """What the trial has come to (`states`)."""

    CANDIDATE = "candidate"
    """Handed out, half of the runs being control."""
    ACTIVE = "active"
    """Handed out, a small share being control."""
    WITHHELD = "withheld"
    """Not handed out for now."""
    RETIRED = "retired"
    """Not handed out any more."""


State = EntryState
"""Under its whole name it does not stand for a pattern's state in `/openapi.json`."""


class Mark(StrEnum):
    """What a person has decided of an entry: it goes before the state. The strictest stands last."""

    NONE = ""
    PINNED = "pinned"
    """Handed out whatever its trial says."""
    WITHHELD = "withheld"
    """Not handed out until a person releases it."""
    RETIRED = "retired"
    """Not handed out any more."""


class Change(msgspec.Struct, frozen=True):
    """One version of an entry: the op that caused it, and what it changed."""

    version: int
    seq: int
    what: str
    """"created", "evidence", "merged", "parted", "state", "mark"; "corroboration" and "support" stand behind "evidence"
    where they have changed with it, joined by "+"."""
    text: str = ""
    """The new text; "" where it is as before."""
    state: str = ""
    """The new state or mark; "" where both are as before."""


class EntryNote(msgspec.Struct, frozen=True):
    """What a person has noted."""

    seq: int
    time: str
    text: str


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of advice, with its evidence as of the newest version."""

    id: str
    kind: Kind
    endpoint: str
    about: str
    """What it is about at the endpoint: a way to call it, a failure's masked text, the steps of a recipe."""
    scope: dict[str, str] = {}
    """Attributes of the ops that it is for: name -> value. Empty: any."""
    text: str
    """What an agent is told, in one or two sentences. Every word of it is corroborated, as the entry is."""
    state: State = State.CANDIDATE
    reason: str = ""
    """Why it is in this state; "" for one that was never in another."""
    decided_by: Sides = Sides()
    """The runs that its trial had when it came into this state; none where no trial has decided."""
    mark: Mark = Mark.NONE
    version: int = 1
    """From 1; each change adds one."""
    succeeded: int = 0
    """What speaks of success: ops, tries to go on after a failure, or runs that were judged good."""
    failed: int = 0
    doubtful: int = 0
    """Successes in runs that were judged failed, or whose output says otherwise: they count for nothing."""
    runs: int = 0
    """Different runs that its evidence comes from, as far as they are counted (`witnesses.WITNESSES_MAX`)."""
    sources: tuple[str, ...] = ()
    """Sources that speak for it, as far as they are counted; an auditor's verdict speaks for none."""
    corroborated: bool = False
    """Enough runs and sources speak for it: otherwise it is never handed out, whatever its state or mark."""
    supported: bool = True
    """The evidence still shows what the entry says."""
    suspended: bool = False
    """Some of its evidence may have been revoked; not handed out until the playbook has been made anew. Said where an
    entry is shown; in the playbook itself it follows from what was revoked (`Playbook.suspends`)."""
    example_seqs: tuple[int, ...] = ()
    """The newest ops that show it, oldest first."""
    contrary_seqs: tuple[int, ...] = ()
    """The newest ops that ended the other way: for an `avoid` what worked at the endpoint."""
    first_seq: int = 0
    last_seq: int = 0
    """Of its evidence."""
    also: tuple[str, ...] = ()
    """Ids of entries that said the same and have become part of this one."""
    trial: Trial = Trial()
    """The present one: a new one begins where the control's share changes, and when the entry is tried again."""
    history: tuple[Change, ...] = ()
    notes: tuple[EntryNote, ...] = ()

    @property
    def available(self) -> bool:
        """Whether it may be handed out at all: by its evidence, by persons, by its trial, in this order."""
        if not self.corroborated or not self.supported:
            return False
        if self.mark is not Mark.NONE:
            return self.mark is Mark.PINNED
        return self.state in {State.CANDIDATE, State.ACTIVE}

    def changed(self, seq: int, what: str, **fields: object) -> Entry:
        """Give the next version.

        :param seq: the op that caused it.
        """
        version = self.version + 1
        text = str(fields["text"]) if fields.get("text", self.text) != self.text else ""
        state = next((str(fields[name]) for name in ("mark", "state") if name in fields), "")
        before = self.history
        if what == EVIDENCE and before and before[-1].what == EVIDENCE:  # most versions are such, for years
            text, before = text or before[-1].text, before[:-1]
        history = (*before, Change(version, seq, what, text, state))
        if len(history) > CHANGES_KEPT:
            history = (history[0], *history[-CHANGES_KEPT + 1 :])
        return msgspec.structs.replace(self, version=version, history=history, **fields)


def entry_id(kind: Kind, endpoint: str, about: str = "") -> str:
    """Give the id of an entry: 16 hex digits, the same for ever."""
    return stable_id("entry", kind.value, endpoint, about) if about else stable_id("entry", kind.value, endpoint)
