"""Failure patterns: what fails in the same way, and when that is worth a model's time. Pure."""

from __future__ import annotations

from observer_actors.patterns.catalogue import Catalogue, Group, Scope, pattern_id, stable_id
from observer_actors.patterns.contrast import Contrast, contrasts, features
from observer_actors.patterns.diagnosis import (
    Case,
    Diagnosis,
    Inquiry,
    Reason,
    conclude,
    due,
    inquire,
    inquiry_message,
)
from observer_actors.patterns.grouping import (
    Changes,
    Example,
    Pattern,
    apply,
    bounded_endpoint,
    catalogue_of,
    error_text,
)
from observer_actors.patterns.history import History, series
from observer_actors.patterns.masking import ALGORITHM_VERSION, template_of
from observer_actors.patterns.outgoing import LogEntry, Outgoing, log_message, webhook_message
from observer_actors.patterns.states import Action, Note, Standing, State, StateChanged, acted, judged, merged
from observer_actors.patterns.taxonomy import Cause, Ruling, rule

__all__ = [
    "ALGORITHM_VERSION",
    "Action",
    "Case",
    "Catalogue",
    "Cause",
    "Changes",
    "Contrast",
    "Diagnosis",
    "Example",
    "Group",
    "History",
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
    "acted",
    "apply",
    "bounded_endpoint",
    "catalogue_of",
    "conclude",
    "contrasts",
    "due",
    "error_text",
    "features",
    "inquire",
    "inquiry_message",
    "judged",
    "log_message",
    "merged",
    "pattern_id",
    "rule",
    "series",
    "stable_id",
    "template_of",
    "webhook_message",
]
