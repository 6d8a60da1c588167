"""Which run is at work, and which advice each run was given: so that outcomes name the advice without being told to."""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextvars import ContextVar
from typing import Final

from observer_actors.client._forks import renewed_after_fork

__all__ = ["CURRENT_RUN", "RUNS_MAX", "Advised"]

RUNS_MAX: Final = 1_000
"""Runs whose advice is remembered; beyond, the one that was advised longest ago is forgotten."""
RUN_ENDPOINTS_MAX: Final = 50

CURRENT_RUN: Final[ContextVar[str]] = ContextVar("observer_run", default="")
"""The run of this task or thread, as `Observer.run` says it; "" for none."""


class Advised:
    """The advice that runs were given. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._runs: OrderedDict[str, OrderedDict[str, str]] = OrderedDict()
        self.renew()
        renewed_after_fork(self)

    def renew(self) -> None:
        """Begin with a lock of our own, in a child process; what is known stays."""
        self._lock = threading.RLock()  # as in `Outbox`

    def note(self, run: str, endpoint: str, advice_id: str) -> None:
        """Remember that a run was advised on an endpoint."""
        with self._lock:
            given = self._runs.setdefault(run, OrderedDict())
            given[endpoint] = advice_id
            given.move_to_end(endpoint)
            self._runs.move_to_end(run)
            if len(given) > RUN_ENDPOINTS_MAX:
                given.popitem(last=False)
            if len(self._runs) > RUNS_MAX:
                self._runs.popitem(last=False)

    def advice_id(self, run: str, endpoint: str) -> str:
        """Give the advice on this endpoint that the run was given, else the last that it was given; "" for none."""
        if not self._runs:
            return ""
        with self._lock:
            given = self._runs.get(run)
            return "" if given is None else given.get(endpoint) or next(reversed(given.values()))
