"""The playbook: what works, what fails and how to go on, with the ops that show it, and whether it has helped. Pure."""

from __future__ import annotations

from observer_actors.playbook.copies import Copy, copies
from observer_actors.playbook.decisions import Action, Decision, Of, Revocation, decision_attrs, decision_in
from observer_actors.playbook.deltas import (
    Created,
    Delta,
    Forgotten,
    Marked,
    Merged,
    Moved,
    Noted,
    Suspended,
    Tried,
    Updated,
    apply,
)
from observer_actors.playbook.entries import Change, Entry, EntryNote, Kind, Mark, State, entry_id
from observer_actors.playbook.fold import Left, Playbook
from observer_actors.playbook.keeping import Row, Section
from observer_actors.playbook.witnesses import Corroboration

__all__ = [
    "Action",
    "Change",
    "Copy",
    "Corroboration",
    "Created",
    "Decision",
    "Delta",
    "Entry",
    "EntryNote",
    "Forgotten",
    "Kind",
    "Left",
    "Mark",
    "Marked",
    "Merged",
    "Moved",
    "Noted",
    "Of",
    "Playbook",
    "Revocation",
    "Row",
    "Section",
    "State",
    "Suspended",
    "Tried",
    "Updated",
    "apply",
    "copies",
    "decision_attrs",
    "decision_in",
    "entry_id",
]
