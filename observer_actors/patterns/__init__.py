"""Failure patterns: what fails in the same way, and when that is worth a model's time. Pure."""

from __future__ import annotations

from observer_actors.patterns.catalogue import Catalogue, Group, Scope
from observer_actors.patterns.consultation import SYSTEM, AnswerUnusable, inquire_about, read_statement, schema_for
from observer_actors.patterns.contrast import Contrast, contrasts, features
from observer_actors.patterns.diagnosis import (
    Diagnosis,
    Inquiry,
    Reason,
    Statement,
    conclude,
    diagnosed_by,
    due,
    inquire,
    inquiry_message,
    turn,
)
from observer_actors.patterns.grouping import Example, Pattern, apply, by_any_id, catalogue_of, error_text
from observer_actors.patterns.history import series
from observer_actors.patterns.masking import template_of
from observer_actors.patterns.outgoing import LogEntry, Outgoing, log_message, webhook_message
from observer_actors.patterns.states import (
    NO_ABSENCE,
    Absence,
    Action,
    Note,
    Standing,
    State,
    StateChanged,
    acted,
    judged,
    merged,
)
from observer_actors.patterns.taxonomy import Cause, Ruling, rule

__all__ = [
    "NO_ABSENCE",
    "SYSTEM",
    "Absence",
    "Action",
    "AnswerUnusable",
    "Catalogue",
    "Cause",
    "Contrast",
    "Diagnosis",
    "Example",
    "Group",
    "Inquiry",
    "LogEntry",
    "Note",
    "Outgoing",
    "Pattern",
    "Reason",
    "Ruling",
    "Scope",
    "Standing",
    "State",
    "StateChanged",
    "Statement",
    "acted",
    "apply",
    "by_any_id",
    "catalogue_of",
    "conclude",
    "contrasts",
    "diagnosed_by",
    "due",
    "error_text",
    "features",
    "inquire",
    "inquire_about",
    "inquiry_message",
    "judged",
    "log_message",
    "merged",
    "read_statement",
    "rule",
    "schema_for",
    "series",
    "template_of",
    "turn",
    "webhook_message",
]
