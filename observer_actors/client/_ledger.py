"""What became of the calls and reports of this process: counters, and a warning once in a while.

A program that makes a thousand calls a second while the daemon is away gets one line a minute, not a thousand.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from typing import Any, Final

import msgspec

from observer_actors.client._forks import renewed_after_fork
from observer_actors.client._guest import attempt_of_host, monotonic_s
from observer_actors.errors import ObserverError, Unreachable

WARNING_SECONDS: Final = 60.0
SAID_MAX: Final = 100
LOGGER: Final = "observer_actors.client"
_SAID: Final[set[tuple[str, str]]] = set()
"""What `warn_once` has said."""


class ClientStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Counts since the process started, over all its threads and event loops."""

    calls: int = 0
    """`observed` calls that came to an end; cancelled ones are not counted."""
    calls_failed: int = 0
    reports_accepted: int = 0
    """Events that the daemon acknowledged, whichever function sent them."""
    reports_refused: int = 0
    """Events that the daemon answered with an error."""
    reports_unanswered: int = 0
    """Events without a usable answer: lost, or stored without our knowing."""
    rows_lost: int = 0
    """Verdicts that did not get their row in the knowledge base."""
    last_trouble: str = ""


class NowAndThen:
    """Says yes once in `WARNING_SECONDS`.

    :param clock: seconds, never going back.
    """

    def __init__(self, clock: Callable[[], float] = monotonic_s) -> None:
        self._clock = clock
        self._said_at: float | None = None

    def is_due(self) -> bool:
        """Say whether it is time."""
        now = self._clock()
        if self._said_at is not None and now - self._said_at < WARNING_SECONDS:
            return False
        self._said_at = now
        return True


class Ledger:
    """Counts for one process; every method may be called from any thread.

    :param clock: seconds, never going back.
    """

    def __init__(self, *, clock: Callable[[], float] = monotonic_s) -> None:
        self._warnings = NowAndThen(clock)
        self._statistics = ClientStatistics()
        self._unmentioned = 0
        self.renew()
        renewed_after_fork(self)

    def renew(self) -> None:
        """Begin with a lock of our own, in a child process; the counts go on."""
        self._lock = threading.Lock()

    def statistics(self) -> ClientStatistics:
        """Give the counts as they are now."""
        return self._statistics

    def call_ended(self, *, success: bool) -> None:
        """Count a call to the gateway."""
        self._add(calls=1, calls_failed=int(not success))

    def report_accepted(self) -> None:
        """Count an event that is stored."""
        self._add(reports_accepted=1)

    def report_lost(self, trouble: ObserverError) -> None:
        """Count an event that is not known to be stored."""
        unanswered = isinstance(trouble, Unreachable)
        self._add(reports_unanswered=int(unanswered), reports_refused=int(not unanswered), trouble=str(trouble))

    def row_lost(self, trouble: ObserverError) -> None:
        """Count a row that is not in the knowledge base."""
        self._add(rows_lost=1, trouble=str(trouble))

    def warn_now_and_then(self, trouble: ObserverError) -> None:
        """Log a lost report, unless one was logged less than a minute ago; the next line says how many were not."""
        with self._lock:
            self._unmentioned += 1
            if not self._warnings.is_due():
                return
            lost, self._unmentioned = self._unmentioned, 0
        warn("report_lost", lost=lost, error=str(trouble), hint=trouble.hint)

    def _add(self, *, trouble: str = "", **counts: int) -> None:
        with self._lock:
            old = self._statistics
            sums = {name: getattr(old, name) + count for name, count in counts.items()}
            self._statistics = msgspec.structs.replace(old, last_trouble=trouble or old.last_trouble, **sums)


LEDGER: Final = Ledger()


def statistics() -> ClientStatistics:
    """Give this process's counts: what the client kept from raising."""
    return LEDGER.statistics()


def warn(event: str, **fields: object) -> None:
    """Log to the host's structlog, or to standard logging when the host has not set structlog up.

    Structlog as it comes prints to standard output, which in a program that we are a guest of may be a protocol. What
    the host's filters and processors raise is nobody's: what is told here is counted, too.
    """
    attempt_of_host(None, _log, event, fields)


def warn_once(event: str, about: str, hint: str) -> None:
    """Log what concerns all events of a kind, once in this process."""
    if (event, about) not in _SAID and len(_SAID) < SAID_MAX:
        _SAID.add((event, about))
        warn(event, about=about, hint=hint)


def _log(event: str, fields: dict[str, object]) -> None:
    structlog: Any = sys.modules.get("structlog")  # whoever has set it up has imported it
    if structlog is not None and structlog.is_configured():
        kind = structlog.get_config()["wrapper_class"]
        if isinstance(kind, type) and issubclass(kind, structlog.stdlib.AsyncBoundLogger):
            kind = structlog.stdlib.BoundLogger  # a thread of ours has no loop, and awaits nothing
        about = {"wrapper_class": kind, "logger_factory_args": (LOGGER,), "actor": "client"}
        structlog.wrap_logger(None, **about).warning(event, **fields)
        return
    said = {"event": event, "actor": "client", **fields}
    logging.getLogger(LOGGER).warning(" ".join(f"{name}={value!r}" for name, value in said.items()))
