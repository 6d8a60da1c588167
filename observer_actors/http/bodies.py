"""Room for request bodies, and for long heads: how much of all of them may be in memory at once.

A request takes room for all that it announces, before its body is read: whoever got room can then finish, and no two
wait for each other half-read. One that announces no length takes a little, and more as it comes (`Held.grow`): many
small ones fit in at once, and large ones come to an end one after the other (`Growth`). Each way in has a room of its
own, so that Quart, which reads a body by itself and in its own time, takes none from the front door.
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
WAITING_MAX: Final = 2_500
"""Requests that wait for room: each takes some 8 KB beside what has come of it."""
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


class Growth:
    """How large bodies without a length may become: together so many bytes, and one of them whatever it wants besides.

    As room for a whole one is left besides, that one comes to its end whatever the others do, and then another is that
    one: so none waits for ever for what the others hold. Pure.

    :param bytes_max: of all but that one.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        """Of all but the one."""
        self._one: Held | None = None
        self._sizes: dict[Held, int] = {}
        self._wanted: dict[Held, int] = {}
        """Of those that wait, in the order in which they asked."""

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._wanted)

    def ask(self, body: Held, size: int) -> bool:
        """Have a body be of so many bytes in all; False when it has to wait, until `leave` gives it."""
        self._wanted[body] = size
        return body in self._grant()

    def leave(self, body: Held) -> list[Held]:
        """Take note that a body is over, also one that waits; give those that need not wait any more."""
        self._wanted.pop(body, None)
        held = self._sizes.pop(body, 0)
        if body is self._one:
            self._one = None
        else:
            self._bytes -= held
        return self._grant()

    def _grant(self) -> list[Held]:
        """Let in who may be let in: first those that hold something already."""
        return [body for body in sorted(self._wanted, key=lambda body: body not in self._sizes) if self._granted(body)]

    def _granted(self, body: Held) -> bool:
        held, wanted = self._sizes.get(body, 0), self._wanted[body]
        if body is not self._one:
            if self._bytes - held + wanted <= self._bytes_max:
                self._bytes += wanted - held
            elif self._one is None:
                self._one = body
                self._bytes -= held
            else:
                return False
        self._sizes[body] = wanted
        del self._wanted[body]
        return True


class Held:
    """The room that one request holds: none at first.

    :param on_no_room: called when there is none, or no more of it.
    :param grows: what it takes at first may not be all that it needs: it has announced no length.
    """

    def __init__(self, room: BodyRoom, on_no_room: Callable[[], None] = lambda: None, *, grows: bool = False) -> None:
        self.size = 0
        """Bytes."""
        self.grows = grows
        self.may_grow = trio.Event()
        """As it is told when it has to wait for `Growth`."""
        self._room = room
        self._on_no_room = on_no_room

    async def grow(self, size: int) -> None:
        """Wait for room, or for more of it, and take it, until it is room for ``size`` bytes in all.

        :raises Overloaded: none came free in time, or too many wait already.
        """
        try:
            await self._room.enter(self, size)
        except Overloaded:
            self._on_no_room()
            raise
        self.size = size


class BodyRoom:
    """The room of one way in.

    :param bytes_max: of all bodies together.
    :param wait_s: how long a request may wait for room.
    :param whole_bytes: the most that a body without a length becomes; so much is kept free of all others of them.
    :param waiting_max: requests that may wait for it.
    :param what: there is room for, and ``limit`` the setting that says how much; for errors.
    """

    def __init__(
        self,
        bytes_max: int,
        *,
        wait_s: float,
        whole_bytes: int = 0,
        waiting_max: int = WAITING_MAX,
        what: str = "body",
        limit: str = "listen.bodies_bytes_max",
    ) -> None:
        self._room = Room(REQUESTS_MAX, bytes_max)
        self._growth = Growth(bytes_max - whole_bytes)
        self._wait_s = wait_s
        self._waiting_max = waiting_max
        self._what = what
        self._limit = limit

    @asynccontextmanager
    async def hold(
        self, size: int, on_no_room: Callable[[], None] = lambda: None, *, grows: bool = False
    ) -> AsyncIterator[Held]:
        """Hold room for ``size`` bytes; a request without a body never waits.

        :param on_no_room: as of `Held`, and ``grows`` too.
        :raises Overloaded: as of `Held.grow`.
        """
        held = Held(self, on_no_room, grows=grows)
        try:
            if size:
                await held.grow(size)
            yield held
        finally:
            self.leave(held)

    async def enter(self, held: Held, size: int) -> None:
        """Wait for room for ``size`` bytes in all: who is inside already before all others.

        :raises Overloaded: as of `Held.grow`.
        """
        if not held.size and self._room.waiting + self._growth.waiting >= self._waiting_max:
            raise Overloaded(f"{self._waiting_max:,} requests wait for room already", limit=self._limit)
        entered = self._entered(held, size)
        await in_time(entered, self._wait_s, f"no room for the {self._what}", limit=self._limit)

    async def _entered(self, held: Held, size: int) -> None:
        if held.grows and not self._growth.ask(held, size):
            held.may_grow = trio.Event()
            await held.may_grow.wait()
        await self._room.enter(0 if held.size else 1, size - held.size, first=held.size > 0)

    def leave(self, held: Held) -> None:
        """Give room back."""
        self._room.leave(1 if held.size else 0, held.size)
        for other in self._growth.leave(held):
            other.may_grow.set()
