"""Room for request bodies: how much of all of them may be in memory at once.

A request takes room for all that it announces, before its body is read: whoever got room can then finish, and no two
wait for each other half-read. Each way in has a room of its own, so that Quart, which reads a body by itself and in
its own time, takes none from the front door, where a body must arrive at a minimum rate.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio

from observer_actors.actors.admission import Room
from observer_actors.errors import Overloaded

__all__ = ["BodyRoom"]

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
    async def hold(self, size: int) -> AsyncIterator[None]:
        """Hold room for a body of ``size`` bytes; a request without one never waits.

        :raises Overloaded: none came free in time.
        """
        count = 1 if size else 0
        if size:
            with trio.move_on_after(self._wait_s) as waited:
                await self._room.enter(count, size)
            if waited.cancelled_caught:
                raise Overloaded(f"no room for the body within {self._wait_s:g} s")
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1
            self._room.leave(count, size)
