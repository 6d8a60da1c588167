"""What waits to be sent: a queue with a bound, and the counts of what became of everything that was put into it.

Putting never waits for more than another thread's put. When there is no room the oldest event goes, and is counted:
the newest says more about what is wrong now. At all times

    events = accepted + refused + dropped + abandoned + waiting
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from functools import lru_cache
from itertools import count
from typing import Final
from uuid import uuid4

import msgspec
from msgspec import UNSET, UnsetType

from observer_actors.client._forks import renewed_after_fork
from observer_actors.op import Scalar

BATCH_EVENTS_MAX: Final = 500
"""A batch of 500 costs the daemon a hundredth of 500 requests; more would gain nothing."""
BATCH_CHARS_MAX: Final = 1024 * 1024
"""Even with each character escaped as six, below the 8 MiB that a daemon takes by default."""
QUEUE_CHARS_MAX: Final = 16 * 1024 * 1024
"""Of the texts in the queue, together."""
_MINUTE_S: Final = 60
_OVERHEAD_CHARS: Final = 256
"""What an event costs beside its texts, about."""


class OutgoingEvent(msgspec.Struct, gc=False):
    """An event as the daemon takes it in one pass (`observer_actors.event`): exactly its fields, of its types."""

    id: str
    timestamp: str
    source: str
    endpoint: str
    input_summary: str
    success: bool
    duration_ms: float
    output_summary: str | None = None
    error: str | UnsetType = UNSET
    role: str | UnsetType = UNSET
    attrs: dict[str, Scalar] | UnsetType = UNSET


class ObserverStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What became of everything that one observer was told."""

    events: int = 0
    """Made, and put into the queue."""
    accepted: int = 0
    """On the daemon's disk."""
    duplicates: int = 0
    """Of those: sent again, as the first answer did not arrive, and known by their id."""
    refused: int = 0
    """The daemon will not take them, however often they are sent: `last_trouble` says why."""
    dropped: int = 0
    """The oldest, when the queue was full."""
    abandoned: int = 0
    """Not sent when the observer was closed, and its time for that was over."""
    waiting: int = 0
    """In the queue, or on their way."""
    unusable: int = 0
    """No event could be made of what the host gave; not in `events`."""
    cancelled: int = 0
    """Operations that were cancelled or interrupted, which says nothing about them; not in `events`."""
    retries: int = 0
    """Requests that had to be sent again."""
    advice_asked: int = 0
    advice_failed: int = 0
    """Times that no answer came within the limit, or none that can be used."""
    last_trouble: str = ""


class Outbox:
    """The queue. Every method may be called from any thread.

    :param events_max: in the queue, 1 at least; a batch on its way is beside it.
    """

    def __init__(self, events_max: int) -> None:
        self._events_max = events_max
        self.renew()
        renewed_after_fork(self)

    def renew(self) -> None:
        """Begin anew, in a child process: what waits is its parent's to send."""
        self._changed = threading.Condition(threading.RLock())  # a signal handler or a finalizer may report too
        self._queue: deque[tuple[OutgoingEvent, int]] = deque()
        self._chars = 0
        self._counts: dict[str, int] = dict.fromkeys(ObserverStatistics.__struct_fields__[:-1], 0)
        self._trouble = ""
        self._hurried = False
        self._closed = False

    def put(self, event: OutgoingEvent) -> None:
        """Queue an event; drops the oldest ones when there is no room."""
        chars = _chars(event)
        queue, counts = self._queue, self._counts
        with self._changed:
            queue.append((event, chars))
            self._chars += chars
            counts["events"] += 1
            counts["waiting"] += 1
            while len(queue) > self._events_max or (self._chars > QUEUE_CHARS_MAX and len(queue) > 1):
                self._chars -= queue.popleft()[1]
                counts["dropped"] += 1
                counts["waiting"] -= 1
            if (
                len(queue) == 1
                or len(queue) == BATCH_EVENTS_MAX
                or self._chars - chars < BATCH_CHARS_MAX <= self._chars
            ):
                self._changed.notify_all()

    def take(self) -> list[OutgoingEvent]:
        """Give the next batch, in the order of arrival; nothing when nothing is there. They count as waiting."""
        with self._changed:
            return self._take()

    def wait(self, linger_s: float) -> list[OutgoingEvent]:
        """Wait for an event, then a little longer for more; give the next batch. Nothing: closed, and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            self._changed.wait_for(self._is_due, linger_s)
            self._hurried = self._closed
            return self._take()

    def hurry(self, *, close: bool = False) -> None:
        """Let whoever waits go on at once; `close`: until it is opened again."""
        with self._changed:
            self._hurried = True
            self._closed = self._closed or close
            self._changed.notify_all()

    def reopen(self) -> None:
        """Take back that it is closed."""
        with self._changed:
            self._hurried = self._closed = False

    def pause(self, seconds: float) -> None:
        """Wait before a batch is sent again; `hurry` ends it."""
        with self._changed:
            self._changed.wait_for(lambda: self._hurried, seconds)
            self._hurried = self._closed

    def count(self, *, trouble: str = "", **counts: int) -> None:
        """Add to the counts; what is no longer waiting is taken off there."""
        settled = sum(counts.get(name, 0) for name in ("accepted", "refused", "abandoned"))
        with self._changed:
            for name, number in counts.items():
                self._counts[name] += number
            self._counts["waiting"] -= settled
            self._trouble = trouble or self._trouble
            self._changed.notify_all()

    def wait_settled(self, then: ObserverStatistics, seconds: float) -> bool:
        """Wait until all that was told until then is settled, or this long; say whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: self.is_settled(then), seconds)

    def is_settled(self, then: ObserverStatistics) -> bool:
        """Say whether as much is settled as was told until then: accepted, refused, or given up."""
        return self._counts["events"] - self._counts["waiting"] >= then.events

    def is_taken(self, then: ObserverStatistics) -> bool:
        """Say whether all that was told until then is settled, and nothing has been given up since."""
        now = self.statistics()
        given_up = now.dropped + now.abandoned - then.dropped - then.abandoned
        return now.events - now.waiting >= then.events and not given_up

    def has_batch(self) -> bool:
        """Say whether there is as much as goes out at once."""
        return len(self._queue) >= BATCH_EVENTS_MAX or self._chars >= BATCH_CHARS_MAX

    def statistics(self) -> ObserverStatistics:
        """Give the counts as they are now."""
        with self._changed:
            return ObserverStatistics(**self._counts, last_trouble=self._trouble)

    def _is_due(self) -> bool:
        return self._hurried or self._closed or self.has_batch()

    def _take(self) -> list[OutgoingEvent]:
        batch: list[OutgoingEvent] = []
        chars = 0
        while self._queue and len(batch) < BATCH_EVENTS_MAX:
            event, size = self._queue[0]
            chars += size
            if batch and chars > BATCH_CHARS_MAX:
                break
            self._queue.popleft()
            self._chars -= size
            batch.append(event)
        return batch


def _chars(event: OutgoingEvent) -> int:
    chars = _OVERHEAD_CHARS + len(event.source) + len(event.endpoint)
    chars += len(event.input_summary) + len(event.output_summary or "")
    if event.error is not UNSET:
        chars += len(event.error)
    if event.role is not UNSET:
        chars += len(event.role)
    if event.attrs is not UNSET:
        chars += sum(map(len, event.attrs)) + sum([len(value) for value in event.attrs.values() if type(value) is str])
    return chars


_numbers: Final = count(1)


def new_id() -> str:
    """Make an id that no other event has, in no other process: a tenth of the price of a UUID each."""
    return f"{_beginning(int(time.time() // _MINUTE_S))}-{next(_numbers)}"


@lru_cache(maxsize=1)
def _beginning(_minute: int) -> str:
    """Draw what the ids of a process begin with for a minute: a copy of a frozen one draws its own after that."""
    return uuid4().hex[:20]


os.register_at_fork(after_in_child=_beginning.cache_clear)
