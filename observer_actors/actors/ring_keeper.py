"""The ring keeper: holds the newest ops for those who read."""

from __future__ import annotations

from typing import Final

import trio

from observer_actors.actors.commits import Commits, Feed
from observer_actors.ring import Ring
from observer_actors.supervision import Life

LOADED_SHARE: Final = 2
"""Times the capacity: so many ops are read at the start, for up to half of them may be none that the ring holds."""

HELD_MAX: Final = 100_000
"""No ring holds more, however large it is to be: of the shortest ops so many take the 16 MiB that all may take. To read
two million at the start would last longer than an actor may take to become ready."""


class RingKeeper:
    """The actor, and the ring as others may read it, also while the actor is being restarted."""

    def __init__(self, feed: Feed, commits: Commits, capacity: int) -> None:
        self.ring = Ring(capacity)
        self._feed = feed
        self._commits = commits
        self._newest = LOADED_SHARE * min(capacity, HELD_MAX)
        """Ops at the end of the journal: what is older is not read."""

    async def run(self, life: Life) -> None:
        """Serve as an actor: a fresh ring from the journal, then whatever is committed."""
        ring = Ring(self.ring.capacity)
        upto = self._commits.last_seq
        await self._feed.open(max(0, upto - self._newest))
        life.at("loading")
        async with trio.open_nursery() as loading:
            loading.start_soon(self._take_all, ring, life)
            await self._feed.reached(upto)  # by what is taken, or because there is nothing that can be read up to here
            loading.cancel_scope.cancel()
        ring.last_seq = max(ring.last_seq, upto)  # what is missing at the end cannot be read, and is not to come
        self.ring = ring
        life.ready()
        while True:
            life.at("waiting")
            await self._take(ring, life)
            life.progress()
            # What is older would be pushed out before anybody saw it.
            self._feed.skip(self._commits.last_seq - self._newest)

    async def _take_all(self, ring: Ring, life: Life) -> None:
        while True:
            await self._take(ring, life)

    def size(self) -> int:
        """Give the number of ops in the ring once it has taken in all that is committed: a moment from now."""
        pending = max(0, self._commits.last_seq - self.ring.last_seq)
        return min(self.ring.capacity, len(self.ring) + pending)

    async def _take(self, ring: Ring, life: Life) -> None:
        async with self._feed.take() as ops:
            life.at("taking")
            ring.push(ops)
