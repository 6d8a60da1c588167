"""Room for request bodies: how much of all of them may be in memory at once, whichever way they come in."""

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
    """The room.

    :param bytes_max: of all bodies together.
    :param wait_s: how long a request may wait for room.
    """

    def __init__(self, bytes_max: int, *, wait_s: float) -> None:
        self._room = Room(REQUESTS_MAX, bytes_max)
        self._wait_s = wait_s

    @property
    def requests(self) -> int:
        """Requests that are inside."""
        return self._room.count

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        """Hold room for a body of ``size`` bytes.

        :raises Overloaded: none came free in time.
        """
        with trio.move_on_after(self._wait_s) as waited:
            await self._room.enter(1, size)
        if waited.cancelled_caught:
            raise Overloaded(f"no room for the body within {self._wait_s:g} s")
        try:
            yield
        finally:
            self._room.leave(1, size)
