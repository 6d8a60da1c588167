"""What agents import.

`Observer` (threads) and `AsyncObserver` (trio, asyncio) report operations in the background, and never hurt their host.
`observed`, `record_external_op` and the auditor's `report_verdict` report before they return, on trio and on asyncio:
no background task and no queue, so that nothing is lost when the program ends.

Names are loaded when they are first used: who only reports does not pay for an HTTP client.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from observer_actors.client._forks import IMPORTING

if TYPE_CHECKING:
    from observer_actors.client._advice import Advice, AdviceEntry
    from observer_actors.client._async_observer import AsyncObserver
    from observer_actors.client._events import Receipt, record_external_op
    from observer_actors.client._ledger import ClientStatistics, statistics
    from observer_actors.client._observed import Observed, observed
    from observer_actors.client._observer import Observer
    from observer_actors.client._operation import Operation
    from observer_actors.client._outbox import ObserverStatistics
    from observer_actors.client._verdict import Verdict, VerdictReport, audit_history, report_verdict
    from observer_actors.errors import Unreachable
    from observer_actors.kb.rows import AuditRow, Finding, FindingCounts, Severity

__all__ = [
    "Advice",
    "AdviceEntry",
    "AsyncObserver",
    "AuditRow",
    "ClientStatistics",
    "Finding",
    "FindingCounts",
    "Observed",
    "Observer",
    "ObserverStatistics",
    "Operation",
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

_HERE: Final = "observer_actors.client."
_HOMES: Final = {
    "Advice": _HERE + "_advice",
    "AdviceEntry": _HERE + "_advice",
    "AsyncObserver": _HERE + "_async_observer",
    "AuditRow": "observer_actors.kb.rows",
    "ClientStatistics": _HERE + "_ledger",
    "Finding": "observer_actors.kb.rows",
    "FindingCounts": "observer_actors.kb.rows",
    "Observed": _HERE + "_observed",
    "Observer": _HERE + "_observer",
    "ObserverStatistics": _HERE + "_outbox",
    "Operation": _HERE + "_operation",
    "Receipt": _HERE + "_events",
    "Severity": "observer_actors.kb.rows",
    "Unreachable": "observer_actors.errors",
    "Verdict": _HERE + "_verdict",
    "VerdictReport": _HERE + "_verdict",
    "audit_history": _HERE + "_verdict",
    "observed": _HERE + "_observed",
    "record_external_op": _HERE + "_events",
    "report_verdict": _HERE + "_verdict",
    "statistics": _HERE + "_ledger",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - functions and classes of several types
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with IMPORTING:
        value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
