"""What agents import: `observed` calls with a witness, `record_external_op`, and the auditor's `report_verdict`.

All of it works on trio and on asyncio. What a client reports it reports before it returns: there are no background
tasks and no queue, so nothing is lost when the program ends.
"""

from __future__ import annotations

from observer_actors.client._events import Receipt, record_external_op
from observer_actors.client._ledger import ClientStatistics, statistics
from observer_actors.client._observed import Observed, observed
from observer_actors.client._verdict import Verdict, VerdictReport, audit_history, report_verdict
from observer_actors.client._wire import Unreachable
from observer_actors.kb.rows import AuditRow, Finding, FindingCounts, Severity

__all__ = [
    "AuditRow",
    "ClientStatistics",
    "Finding",
    "FindingCounts",
    "Observed",
    "Receipt",
    "Severity",
    "Unreachable",
    "Verdict",
    "VerdictReport",
    "audit_history",
    "observed",
    "record_external_op",
    "report_verdict",
    "statistics",
]
