"""The third-party witness for AI agents.

What programs import: `Observer`, `AsyncObserver`, `observed` and `record_external_op` to report operations,
`report_verdict` for auditors, and `start_observer` to run the daemon inside a trio program. Names are loaded when they
are first used, so that an agent which only reports does not pay for the daemon.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from observer_actors.client import AsyncObserver, Observer, observed, record_external_op, report_verdict
    from observer_actors.daemon import start_observer

__all__ = [
    "AsyncObserver",
    "Observer",
    "__version__",
    "observed",
    "record_external_op",
    "report_verdict",
    "start_observer",
]

__version__ = "0.1.0"

_HOMES: Final = {
    "AsyncObserver": "observer_actors.client",
    "Observer": "observer_actors.client",
    "observed": "observer_actors.client",
    "record_external_op": "observer_actors.client",
    "report_verdict": "observer_actors.client",
    "start_observer": "observer_actors.daemon",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - functions of several types
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
