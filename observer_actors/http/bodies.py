"""Room for request bodies, and for long heads: how much of all of them may be in memory at once.

A request takes room for all that it announces, before its body is read: whoever got room can then finish, and no two
wait for each other half-read. One that announces no length takes a little, and more as it comes (`Held.grow`): many
small ones fit in at once; two large ones may wait for each other, but not for long, and then hear 503. Each way in has
a room of its own, so that Quart, which reads a body by itself and in its own time, takes none from the front door.
Both ways a body must arrive at a minimum rate (`Arrival`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import trio

from observer_actors.actors.admission import Room, in_time
from observer_actors.errors import Overloaded, RequestInvalid, RequestTimedOut

REQUESTS_MAX: Final = 10_000
UNANNOUNCED_BYTES: Final = 131_072
"""What a body without a length takes at first: half of what the largest event holds."""
STALL_S: Final = 2.0
BYTES_A_SECOND_MIN: Final = 65_536
"""A body holds room while it arrives. It may stand still for `STALL_S` in all, and must come at this rate besides: who
only announces one, or trickles it, does not keep others out."""


class HeadTooLarge(RequestInvalid):
    """The line and the headers of a request above their limit."""

    status = 431
    title = "head too large"


def head_too_large(bytes_max: int) -> HeadTooLarge:
    """Give the error of a head beyond its limit."""
    return HeadTooLarge(f"the head of a request holds at most {bytes_max:,} bytes", limit="listen.head_bytes_max")


def head_late() -> RequestTimedOut:
    """Give the error of a head that did not come in time."""
    return RequestTimedOut("the head did not arrive in time", limit="listen.head_seconds_max")


def no_request() -> RequestInvalid:
    """Give the error of what is no request, or not a whole one."""
    return RequestInvalid("what was sent is no HTTP/1.1 request", hint="RFC 9112 says what one is")


class Arrival:
    """When the next bytes of a body must be there: by ``by`` (trio's clock), which bytes that come put off.

    :param seconds_max: for the whole body.
    """

    def __init__(self, seconds_max: float) -> None:
        now = trio.current_time()
        self._end = now + seconds_max
        self.by = min(now + STALL_S, self._end)

    def came(self, count: int) -> None:
        """Note that so many bytes have come."""
        self.by = min(self.by + count / BYTES_A_SECOND_MIN, self._end)

    def late(self) -> RequestTimedOut:
        """Give the error of a body that was not there by then: the setting is to blame only when its time is over."""
        said = "the body did not arrive in time"
        if self.by >= self._end:
            return RequestTimedOut(said, limit="listen.request_seconds_max")
        rate = f"{BYTES_A_SECOND_MIN // 1024} KiB a second"
        return RequestTimedOut(said, hint=f"it may stand still for {STALL_S:g} s in all, and comes at {rate} besides")

    def waited(self, seconds: float) -> None:
        """Note that nobody looked for so long: that is not the sender's fault."""
        self.by = min(self.by + seconds, self._end)


class Held:
    """The room that one request holds: none at first.

    :param on_no_room: called when there is none, or no more of it.
    """

    def __init__(self, room: BodyRoom, on_no_room: Callable[[], None] = lambda: None) -> None:
        self.size = 0
        """Bytes."""
        self._room = room
        self._on_no_room = on_no_room

    async def grow(self, size: int) -> None:
        """Wait for room, or for more of it, and take it, until it is room for ``size`` bytes in all.

        :raises Overloaded: none came free in time, or too many wait already.
        """
        try:
            await self._room.enter(0 if self.size else 1, size - self.size, first=self.size > 0)
        except Overloaded:
            self._on_no_room()
            raise
        self.size = size

    def leave(self) -> None:
        """Give it back."""
        self._room.leave(1 if self.size else 0, self.size)


class BodyRoom:
    """The room of one way in.

    :param bytes_max: of all bodies together.
    :param wait_s: how long a request may wait for room.
    :param waiting_max: requests that may wait for it.
    :param what: there is room for, and ``limit`` the setting that says how much; for errors.
    """

    def __init__(
        self,
        bytes_max: int,
        *,
        wait_s: float,
        waiting_max: int = REQUESTS_MAX,
        what: str = "body",
        limit: str = "listen.bodies_bytes_max",
    ) -> None:
        self.requests = 0
        """Requests that are inside."""
        self._room = Room(REQUESTS_MAX, bytes_max)
        self._wait_s = wait_s
        self._waiting_max = waiting_max
        self._what = what
        self._limit = limit

    @asynccontextmanager
    async def hold(self, size: int, on_no_room: Callable[[], None] = lambda: None) -> AsyncIterator[Held]:
        """Hold room for ``size`` bytes; a request without a body never waits.

        :param on_no_room: as of `Held`.
        :raises Overloaded: as of `Held.grow`.
        """
        held = Held(self, on_no_room)
        if size:
            await held.grow(size)
        self.requests += 1
        try:
            yield held
        finally:
            self.requests -= 1
            held.leave()

    async def enter(self, count: int, size: int, *, first: bool) -> None:
        """Wait for room, as `Room.enter`.

        :raises Overloaded: as of `Held.grow`.
        """
        if not first and self._room.waiting >= self._waiting_max:
            raise Overloaded(f"{self._waiting_max:,} requests wait for room already", limit=self._limit)
        entered = self._room.enter(count, size, first=first)
        await in_time(entered, self._wait_s, f"no room for the {self._what}", limit=self._limit)

    def leave(self, count: int, size: int) -> None:
        """Give room back."""
        self._room.leave(count, size)
