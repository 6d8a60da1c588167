"""The express lane: all connections that wait for their next event, in one task.

A task of its own for each request costs more than the request: it is woken to read, woken to answer, and registered
with the event loop in between. So connections between two requests wait here together, on one epoll that the event
loop watches as a whole. What can be answered without waiting for anything but the disk (one whole plain event, with
room for it) is read, submitted and answered here. Everything else is *let off*: the connection gets a task of its own,
which goes on with the bytes that were read, and comes back for the next request. So an idle connection has no task,
which would be most of what it takes.

Here, too, a connection *lingers* after its last answer: we say that no more is sent, and pass over what comes, until
the client closes too. Closed at once, with bytes unread, the kernel resets the connection, and the client may never see
the answer that says why (RFC 9112, 9.6).

The rules:

* The events of one look at the epoll are judged, submitted and answered together.
* A rider has one request under way at most; what it sends meanwhile stays unread, and is looked at after the answer.
* The epoll is edge-triggered: a rider is looked at when something has come, or when its last read may have left
  something behind (``more``).
* A rider that has left is never read from or written to: its descriptor may be somebody else's by then.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from math import inf
from typing import Final

import msgspec
import trio

from observer_actors.actors.admission import Submission
from observer_actors.event import JudgedEvent
from observer_actors.http.guard import Guard, Peer
from observer_actors.http.intake import Intake
from observer_actors.http.wire import REMEMBERED_BYTES_MAX, Head, all_rendered, read_head
from observer_actors.settings import ListenSettings

RECEIVE_BYTES: Final = 8_192
"""What is read at once of a connection whose last request was an event: the whole next one usually."""
HEAD_BYTES: Final = 1_024
"""What is read at once of a connection whose last request was no event: a head usually. The rest of a batch has to wait
for room; thousands of them would hold the beginnings of their bodies in memory meanwhile."""
AT_ONCE: Final = 128
"""Riders looked at before others have their turn, which takes a millisecond or two: with fewer, each round's own cost,
in the event loop and in the disk's process, would weigh more."""
FEW: Final = 8
GATHER_S: Final = 0.002
"""While the disk has so many events or more, fewer riders wait for others until the next answer, or this long: what
they bring could not be written yet, and to look at a few costs nearly as much as to look at many. With fewer callers
the event loop has the time."""
LINGER_S: Final = 1.0
LINGERING_BYTES: Final = 65_536
"""What is passed over at once of a connection that lingers."""
_EVENTS: Final = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET


class _Known(msgspec.Struct, frozen=True, gc=False):
    """A head that let its event into the lane, as bytes and as it was read, and who let it in."""

    begins: bytes
    head: Head
    guard: Guard


class Ending(Enum):
    """How a connection ends on which nothing more is to be said."""

    CLOSED = "closed"
    LINGERING = "lingering"
    """With an answer of ours: the client may still be sending, and has to be heard out (`Express.linger`)."""


@dataclass(eq=False, repr=False, slots=True)
class Rider:
    """One connection. ``unread`` is what has been received and belongs to no answered request.

    :param accepted: the connection; it never blocks.
    """

    accepted: socket.socket
    peer: Peer
    descriptor: int = field(init=False)
    requests: int = 0
    """Taken on this connection."""
    piece: int = HEAD_BYTES
    """Bytes that are read at once."""
    unread: bytes = b""
    unsent: bytes = b""
    """What did not fit into the socket of an answer given in the lane."""
    ending: Ending | None = None
    """None while there may be more to say on this connection."""
    busy: bool = False
    """It has a request under way."""
    until: float = inf
    """When it is let go unless something happens."""
    group: Group | None = None
    """With whose events its own is under way."""
    closing: bool = False
    taken: int = 0
    """Bytes of ``unread`` that are under way."""
    more: bool = False
    is_half_closed: bool = False
    """The client sends no more: behind what it has sent comes the end, of which nothing will tell us again."""
    known: _Known | None = None
    """The head of its last event: callers send the same one again and again."""
    is_off: bool = True
    """It does not ride, or no more."""

    def __post_init__(self) -> None:
        self.descriptor = self.accepted.fileno()


class Group:
    """Events that are submitted together, and whose they are."""

    __slots__ = ("bodies", "events", "riders", "submission", "traces")

    def __init__(self) -> None:
        self.riders: list[Rider] = []
        self.bodies: list[bytes] = []
        self.traces: list[str] = []
        """Of each that was taken, its caller's."""
        self.events: Sequence[JudgedEvent] = ()
        self.submission: Submission | None = None


class Express:
    """The lane of one incarnation of ingest; `run` serves it.

    :param guard: gives the guard in force; it changes when the settings are reloaded.
    :param let_off: takes over a connection that leaves the lane. ``unsent`` is to be sent first, ``ending`` says
        whether that is all, and ``unread`` begins a request.
    """

    def __init__(
        self, intake: Intake, guard: Callable[[], Guard], settings: ListenSettings, let_off: Callable[[Rider], None]
    ) -> None:
        self.draining = False
        """Close each connection after its next answer."""
        self._intake = intake
        self._guard = guard
        self._settings = settings
        self._on_let_off = let_off
        self._riders: dict[int, Rider] = {}
        self._under_way: set[Submission] = set()
        """Of groups that are not answered yet."""
        self._answered: list[Group] = []
        self._wake = trio.lowlevel.ParkingLot()
        self._next_answer = trio.lowlevel.ParkingLot()
        self._epoll = select.epoll()
        self._now = 0.0

    async def run(self) -> None:
        """Serve the riders, for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read)
            nursery.start_soon(self._answer)

    def close(self) -> None:
        """Let go of the epoll, once nobody can board any more."""
        self._epoll.close()

    def board(self, rider: Rider) -> None:
        """Answer what can be answered here, until the rider is let off.

        :raises OSError: the kernel has no room to watch it.
        """
        self._enter(rider, _EVENTS, self._settings.idle_seconds_max)

    def linger(self, rider: Rider) -> None:
        """Say that no more is sent, pass over what comes, and let off with the end of that, or after a moment.

        :raises OSError: as of `board`.
        """
        with suppress(OSError):
            rider.accepted.shutdown(socket.SHUT_WR)
        rider.piece = LINGERING_BYTES
        self._enter(rider, select.EPOLLIN, LINGER_S)

    def drop(self, rider: Rider) -> None:
        """Let off at once, to be closed."""
        rider.ending = Ending.CLOSED
        self._let_off(rider)

    def _enter(self, rider: Rider, events: int, seconds: float) -> None:
        rider.busy = rider.is_off = False
        rider.until = trio.current_time() + seconds
        self._epoll.register(rider.descriptor, events)
        self._riders[rider.descriptor] = rider

    def _let_off(self, rider: Rider) -> None:
        rider.group, rider.is_off, rider.until = None, True, inf
        del self._riders[rider.descriptor]
        self._epoll.unregister(rider.descriptor)
        self._on_let_off(rider)

    def let_go(self) -> None:
        """Take what has come, and let go of those that are silent."""
        group = Group()
        for rider in list(self._riders.values()):
            self._look(rider, group)
            if rider.group is None and not rider.is_off:
                self.drop(rider)
        self._submit(group)

    async def _read(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            ready = self._ready()
            if len(ready) < FEW <= sum(len(submission.ops) for submission in self._under_way if submission.taken):
                with trio.move_on_after(GATHER_S):
                    await self._next_answer.park()
                ready += self._ready()
            group = Group()
            for rider, events in ready:
                rider.more = True
                rider.is_half_closed |= bool(events & (select.EPOLLRDHUP | select.EPOLLHUP))
                self._look(rider, group)
            self._submit(group)

    def _ready(self) -> list[tuple[Rider, int]]:
        """Give the riders for whom something has come, and what: whoever has the descriptor later is another."""
        return [(self._riders[descriptor], events) for descriptor, events in self._epoll.poll(0, AT_ONCE)]

    def _look(self, rider: Rider, group: Group) -> None:
        """Read what has come, unless the last request is still under way."""
        if rider.group is not None or rider.is_off:
            return
        try:
            data = os.read(rider.descriptor, rider.piece)
        except BlockingIOError:
            rider.more = False
            return
        except OSError:
            data = b""
        rider.more = len(data) == rider.piece or rider.is_half_closed
        if not data:
            self.drop(rider)
        elif rider.ending is None:
            rider.unread += data
            self._take(rider, group)

    def _take(self, rider: Rider, group: Group) -> None:
        """Add the event that is there to the group, or let the rider off."""
        data, known = rider.unread, rider.known
        if known is None or not data.startswith(known.begins) or known.guard is not self._guard():
            known = self._looked_up(rider)
        if known is None or known.head.end > len(data):
            self._let_off(rider)
            return
        head = known.head
        group.riders.append(rider)
        group.bodies.append(data[head.body_at : head.end])
        group.traces.append(head.trace)
        rider.requests += 1
        rider.closing = head.close or rider.requests >= self._settings.requests_per_connection_max
        rider.group, rider.busy, rider.until = group, True, inf
        rider.taken, rider.piece = head.end, RECEIVE_BYTES

    def _looked_up(self, rider: Rider) -> _Known | None:
        """Read the head that is there, and ask the guard; None when it is not for the lane."""
        data, settings, guard = rider.unread, self._settings, self._guard()
        head = read_head(data, body_bytes_max=settings.body_bytes_max, head_bytes_max=settings.head_bytes_max)
        if not isinstance(head, Head) or head.path != "/event" or head.encoding:
            return None
        if guard.refusal(rider.peer, "POST", head.path, head.host, head.authorization) is not None:
            return None
        known = _Known(data[: head.body_at], head, guard)
        rider.known = known if head.body_at <= REMEMBERED_BYTES_MAX else None
        return known

    def _submit(self, group: Group) -> None:
        """Judge and submit a group. Whose event is not good is let off, and told why there; without room, all are."""
        if not group.riders:
            return
        judged = self._intake.judged(group.bodies, group.traces)
        if None in judged:
            self._give_back(group, [event is not None for event in judged])
        group.events = [event for event in judged if event is not None]
        if not group.riders:
            return
        size = sum(map(len, group.bodies))
        group.submission = self._intake.offer(group.events, size, lambda: self._note_answer(group))
        if group.submission is None:
            self._give_back(group, [False] * len(group.riders))
        else:
            self._under_way.add(group.submission)
        for rider in group.riders:
            rider.unread = rider.unread[rider.taken :]

    def _give_back(self, group: Group, is_kept: Sequence[bool]) -> None:
        """Let riders off, before their events are submitted: who takes them in now counts them."""
        for rider, stays in zip(group.riders, is_kept, strict=True):
            if not stays:
                rider.requests -= 1
                self._let_off(rider)
        kept = [(rider, body) for rider, body in zip(group.riders, group.bodies, strict=True) if rider.group is group]
        group.riders, group.bodies = [rider for rider, _ in kept], [body for _, body in kept]

    def _note_answer(self, group: Group) -> None:
        assert group.submission is not None
        self._under_way.discard(group.submission)
        self._answered.append(group)
        self._wake.unpark()
        self._next_answer.unpark()

    async def _answer(self) -> None:
        while True:
            if not self._answered:
                await self._wake.park()
            answered, self._answered = self._answered, []
            self._now = trio.current_time()
            following = Group()
            for group in answered:
                self._send(group, following)
            self._submit(following)
            await trio.lowlevel.checkpoint()

    def _send(self, group: Group, following: Group) -> None:
        """Answer a group: first all answers are made, then all are sent, for waking a client that sleeps is dear."""
        assert group.submission is not None
        replies = self._intake.replies(group.events, group.submission)
        leaving = [rider.closing or self.draining for rider in group.riders]
        for rider, answer, close in zip(group.riders, all_rendered(replies, leaving), leaving, strict=True):
            if rider.group is group:
                self._send_one(rider, answer, close=close)
        for rider in group.riders:
            if rider.group is group:
                self._go_on(rider, following)

    def _send_one(self, rider: Rider, answer: bytes, *, close: bool) -> None:
        try:
            sent = os.write(rider.descriptor, answer)
        except BlockingIOError:
            sent = 0
        except OSError:
            sent, close = len(answer), True
        rider.unsent = answer[sent:]
        rider.ending = Ending.LINGERING if close else None

    def _go_on(self, rider: Rider, following: Group) -> None:
        """Begin with what a rider has sent meanwhile."""
        rider.group = None
        rider.busy = bool(rider.unread)
        rider.until = self._now + self._settings.idle_seconds_max
        if rider.ending is not None or rider.unsent:
            self._let_off(rider)
        elif rider.unread:
            self._take(rider, following)
        elif rider.more:
            self._look(rider, following)
