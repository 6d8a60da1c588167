"""The knowledge base, ``<data>/_kb/outcomes.jsonl``: what earlier audits found. The file's rules stand in `files`."""

from __future__ import annotations

from observer_actors.kb.files import append_row, append_rows, outcomes_path, read_audit_rows
from observer_actors.kb.history import AuditHistory, history_of, stem_of, told
from observer_actors.kb.index import OutcomeFilter, OutcomePage, OutcomesIndex
from observer_actors.kb.rows import AuditRow, Finding, FindingCounts, OutcomeRow, verdict_row

__all__ = [
    "AuditHistory",
    "AuditRow",
    "Finding",
    "FindingCounts",
    "OutcomeFilter",
    "OutcomePage",
    "OutcomeRow",
    "OutcomesIndex",
    "append_row",
    "append_rows",
    "history_of",
    "outcomes_path",
    "read_audit_rows",
    "stem_of",
    "told",
    "verdict_row",
]
