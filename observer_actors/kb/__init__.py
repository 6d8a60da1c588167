"""The knowledge base, ``<data>/_kb/outcomes.jsonl``: what earlier audits found. The file's rules stand in `files`."""

from __future__ import annotations

from observer_actors.kb.files import outcomes_path
from observer_actors.kb.history import AuditHistory
from observer_actors.kb.index import OutcomeFilter, OutcomePage, OutcomesIndex
from observer_actors.kb.rows import AuditRow, FindingCounts, OutcomeRow, verdict_row

__all__ = [
    "AuditHistory",
    "AuditRow",
    "FindingCounts",
    "OutcomeFilter",
    "OutcomePage",
    "OutcomeRow",
    "OutcomesIndex",
    "outcomes_path",
    "verdict_row",
]
