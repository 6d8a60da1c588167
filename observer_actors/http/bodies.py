"""Room for request bodies: how much of all of them may be in memory at once.

The front door takes room as bytes arrive, so that a body which is only announced holds nothing. Quart reads a body by
itself, so the gate before it takes room for all that is announced, out of a room of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio

from observer_actors.actors.admission import Room
from observer_actors.errors import Overloaded

__all__ = ["BodyHold", "BodyRoom"]

REQUESTS_MAX: Final = 10_000


class BodyRoom:
    """The room of one way in.

    :param bytes_max: of all bodies together.
    :param wait_s: how long a request may wait for room.
    """

    def __init__(self, bytes_max: int, *, wait_s: float) -> None:
        self.requests = 0
        """Requests that are inside."""
        self._room = Room(REQUESTS_MAX, bytes_max)
        self._wait_s = wait_s

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[BodyHold]:
        """Hold room for a body of ``size`` bytes; one of none never waits.

        :raises Overloaded: none came free in time.
        """
        held = BodyHold(self._room, self._wait_s)
        self.requests += 1
        try:
            if size:
                await held.grow(size)
            yield held
        finally:
            self.requests -= 1
            held.leave()


class BodyHold:
    """What one request holds."""

    def __init__(self, room: Room, wait_s: float) -> None:
        self._room = room
        self._wait_s = wait_s
        self._count = 0
        self._size = 0

    async def grow(self, size: int) -> None:
        """Hold ``size`` bytes more.

        :raises Overloaded: none came free in time.
        """
        count = 0 if self._count else 1
        with trio.move_on_after(self._wait_s) as waited:
            await self._room.enter(count, size)
        if waited.cancelled_caught:
            raise Overloaded(f"no room for the body within {self._wait_s:g} s")
        self._count += count
        self._size += size

    def leave(self) -> None:
        """Give everything back."""
        if self._count:
            self._room.leave(self._count, self._size)
