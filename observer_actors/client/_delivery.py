"""One batch on its way: what to send, and what the answer means. The sync and the async observer share it.

| the daemon | what happens |
|---|---|
| 200 | counted as it says; lines that it rejects are refused for good |
| 413, or 400 or 422 to a batch as a whole; more than one event | sent again in halves |
| 413, whoever says so: whatever is between takes no event of that size | refused for good |
| 400 or 422, or 5xx that is not retryable, each with a problem as an observer makes it | refused for good |
| anything else; no answer; none of an observer's | sent again, with the same ids: after `Retry-After`, or backoff |

A token that is not known is none of the events' faults: it can be put right while they wait.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

import msgspec

from observer_actors.backoff import backoff_s
from observer_actors.client._ledger import NowAndThen, warn, warn_once
from observer_actors.client._outbox import Outbox, OutgoingEvent
from observer_actors.client._texts import error_text
from observer_actors.errors import ObserverError
from observer_actors.problems import (
    ABOUT_THE_EVENTS,
    TOO_LARGE,
    UNREADABLE,
    ReceivedProblem,
    is_about_the_batch,
    read_problem,
    retry_after_s,
)

BACKOFF_S_MIN: Final = 0.5
BACKOFF_S_MAX: Final = 30.0
OVER: Final = "the time for closing was over"
"""What is said of events that are given up before they were tried, or while they are on their way."""
_TROUBLE_CHARS_MAX: Final = 500
_OK: Final = 200
_SERVER_ERROR: Final = 500
_SOURCE_NOTE: Final = "source: "
"""As `event.SOURCE_NOTE`; to import that would cost an agent RE2."""
_encoder: Final = msgspec.json.Encoder()


class Answer(msgspec.Struct, frozen=True):
    """Status, headers that matter, and the body after decompression."""

    status: int
    body: bytes
    retry_after: str = ""


class _BatchAnswer(msgspec.Struct, frozen=True):
    """What we read of the answer to `POST /events`."""

    accepted: int
    rejected: int
    duplicates: int = 0
    errors: tuple[_LineError, ...] = ()
    notes: dict[str, int] = {}


class _LineError(msgspec.Struct, frozen=True):
    error: str = ""


_batch_answers: Final = msgspec.json.Decoder(_BatchAnswer)  # here, as in `journal.format`: each observer has a thread


_CHANCE: Final = random.SystemRandom()
"""Not the host's own series: a seeded host draws what it would without a client, and hosts with the same seed come back
at different moments."""


class Backoff:
    """How long to wait after each failure in a row: doubling, with jitter, from `BACKOFF_S_MIN` to `BACKOFF_S_MAX`.

    :param chance: gives a number from 0 to 1.
    """

    def __init__(self, chance: Callable[[], float] = _CHANCE.random) -> None:
        self._chance = chance
        self._failures = 0

    def succeeded(self) -> None:
        """Begin again with the shortest."""
        self._failures = 0

    def seconds(self) -> float:
        """Count a failure, and say how long to wait: between half of the step and all of it."""
        self._failures += 1
        return backoff_s(self._failures, BACKOFF_S_MIN, BACKOFF_S_MAX, self._chance())


class Delivery:
    """A batch, until each of its events is accepted or refused."""

    def __init__(self, batch: list[OutgoingEvent], backoff: Backoff) -> None:
        self._parts = [batch]
        self._backoff = backoff
        self.trouble = ""
        """What the last answer was, if it was not a good one."""
        self.foreign_source = ""
        """What the last answer said of a source that the daemon does not know."""

    @property
    def left(self) -> int:
        """Events that are not settled."""
        return sum(map(len, self._parts))

    def content(self) -> bytes:
        """Give the body of the next request."""
        return _encoder.encode_lines(self._parts[0])

    def answered(self, answer: Answer | Exception) -> tuple[dict[str, int], float]:
        """Take an answer in: give what is to be counted, and how many seconds to wait before the next request.

        An exception is no answer; one that is no `ObserverError` is a fault of ours, and costs no event either.
        """
        if isinstance(answer, ObserverError):
            return self.unanswered(_told(str(answer), answer.hint))
        if isinstance(answer, Exception):
            return self.unanswered(error_text(answer))
        if answer.status == _OK:
            return self._taken(answer)
        part, problem = self._parts[0], read_problem(answer.body)
        if len(part) > 1 and is_about_the_batch(answer.status, problem):
            self._parts[:1] = [part[: len(part) // 2], part[len(part) // 2 :]]
            return {}, 0.0
        trouble = _told(problem.detail or f"answered {answer.status}", problem.hint)
        if _is_final(answer.status, problem):
            self.trouble = trouble
            return {"refused": len(self._parts.pop(0))}, 0.0
        return self.unanswered(trouble, retry_after_s(answer.retry_after) or 0.0)

    def unanswered(self, trouble: str, asked_s: float = 0.0) -> tuple[dict[str, int], float]:
        """Take in that no answer came, or none that settles anything."""
        self.trouble = trouble
        return {"retries": 1}, max(asked_s, self._backoff.seconds())

    def _taken(self, answer: Answer) -> tuple[dict[str, int], float]:
        try:
            said = _batch_answers.decode(answer.body)
        except UNREADABLE:
            return self.unanswered("not an observer's answer")
        sent = len(self._parts[0])
        if said.accepted + said.rejected != sent:
            return self.unanswered("an answer about other events than were sent")
        self._parts.pop(0)
        self._backoff.succeeded()
        self.trouble = said.errors[0].error[:_TROUBLE_CHARS_MAX] if said.errors else ""
        about = next((note for note in said.notes if note.startswith(_SOURCE_NOTE)), "")
        self.foreign_source = about[:_TROUBLE_CHARS_MAX]
        return {"accepted": said.accepted, "duplicates": said.duplicates, "refused": said.rejected}, 0.0


class Deliveries:
    """What came of an outbox's batches: counted there, and what has to be put right is logged, now and then."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._backoff = Backoff()
        self._warnings = NowAndThen()

    def begin(self, batch: list[OutgoingEvent]) -> Delivery:
        """Take a batch in hand."""
        return Delivery(batch, self._backoff)

    def answered(self, delivery: Delivery, answer: Answer | Exception) -> float:
        """Take an answer in; say how many seconds to wait before the next request."""
        counts, pause_s = delivery.answered(answer)
        self._outbox.count(trouble=delivery.trouble, **counts)
        if delivery.trouble:
            self.warn(delivery.trouble)
        if delivery.foreign_source:
            hint = "add it to the daemon's sources.extra: sources that are not told apart count as one"
            warn_once("source_unknown", delivery.foreign_source, hint)
        return pause_s

    def given_up(self, events: int, trouble: str) -> None:
        """Take in that the time is over."""
        self._outbox.count(abandoned=events)
        self.warn(trouble or OVER)

    def warn(self, trouble: str) -> None:
        """Log that events are not taken, or are given up."""
        if self._warnings.is_due():
            counts = self._outbox.statistics()
            numbers = {name: getattr(counts, name) for name in ("waiting", "refused", "dropped", "abandoned")}
            warn("events_not_taken", error=trouble, **numbers)


def _told(what: str, hint: str) -> str:
    return f"{what}; {hint}" if hint else what


def _is_final(status: int, problem: ReceivedProblem) -> bool:
    is_known = status in ABOUT_THE_EVENTS or (status >= _SERVER_ERROR and not problem.retryable)
    return status == TOO_LARGE or (is_known and problem.detail != "")
