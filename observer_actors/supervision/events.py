"""What happens to actors, as typed values: logged, counted, kept for `/actors`.

Events are named noun-past-verb. They are facts, never commands: nothing in the daemon reacts to one.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Final

import msgspec


class LifecycleEvent(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Root of the lifecycle events; ``actor`` is the name in the tree."""

    actor: str


class ActorStarted(LifecycleEvent, frozen=True, kw_only=True):
    """The actor is ready. ``incarnation`` counts from 1."""

    incarnation: int


class ActorStopped(LifecycleEvent, frozen=True, kw_only=True):
    """The actor was told to stop, or had finished, and is gone. ``error``: what went wrong while it stopped."""

    error: str = ""


class ActorFailed(LifecycleEvent, frozen=True, kw_only=True):
    """The actor crashed, or returned although it should serve until told to stop."""

    error: str
    step: str = ""


class RestartScheduled(LifecycleEvent, frozen=True, kw_only=True):
    """The actor will be started again. ``because_of`` names the actor that failed, which may be another."""

    delay_s: float
    because_of: str


class RestartsExhausted(LifecycleEvent, frozen=True, kw_only=True):
    """The supervisor named by ``actor`` gives up, and its own supervisor decides."""

    failed: str


class ActorParked(LifecycleEvent, frozen=True, kw_only=True):
    """Restarts are exhausted, but the actor is not vital: it is tried again now and then."""

    retry_s: float


class MessageRedelivered(LifecycleEvent, frozen=True, kw_only=True):
    """What the actor had in hand when it crashed is handed to its next incarnation."""

    messages: int


class MessageQuarantined(LifecycleEvent, frozen=True, kw_only=True):
    """A message that made its actor crash again and again was set aside."""

    crashes: int
    message: str


class ShutdownForced(LifecycleEvent, frozen=True, kw_only=True):
    """The actor did not stop within its budget and was cancelled."""

    budget_s: float
    step: str = ""


Sink = Callable[[LifecycleEvent, Exception | None], None]
"""Is given an event, and the error that it is about, where there is one."""
KEPT: Final = 200


class Events:
    """Where lifecycle events go: a counter by type, the newest ones, and the sinks given."""

    def __init__(self, *sinks: Sink) -> None:
        self._sinks = sinks
        self._counts: Counter[str] = Counter()
        self._recent: deque[LifecycleEvent] = deque(maxlen=KEPT)

    def emit(self, event: LifecycleEvent, error: Exception | None = None) -> None:
        """Take one event in; sinks must not raise.

        :param error: what it is about, for the sinks alone: it is not kept.
        """
        self._counts[type(event).__name__] += 1
        self._recent.append(event)
        for sink in self._sinks:
            sink(event, error)

    def counts(self) -> Mapping[str, int]:
        """Give how often each type has happened since the start."""
        return dict(self._counts)

    def recent(self) -> tuple[LifecycleEvent, ...]:
        """Give the newest events, oldest first, `KEPT` at most."""
        return tuple(self._recent)
