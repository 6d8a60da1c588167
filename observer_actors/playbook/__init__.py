"""The playbook: what works, what fails and how to go on, with the ops that show it, and whether it has helped. Pure."""

from __future__ import annotations

from observer_actors.playbook.copies import Copy, copies
from observer_actors.playbook.decisions import Action, Decision, Of, Revocation, decision_attrs
from observer_actors.playbook.entries import Entry, Kind, State
from observer_actors.playbook.fold import Playbook
from observer_actors.playbook.keeping import Row, Section
from observer_actors.playbook.meta import Left
from observer_actors.playbook.witnesses import Corroboration

__all__ = [
    "Action",
    "Copy",
    "Corroboration",
    "Decision",
    "Entry",
    "Kind",
    "Left",
    "Of",
    "Playbook",
    "Revocation",
    "Row",
    "Section",
    "State",
    "copies",
    "decision_attrs",
]
