"""The consolidator: every few cycles, what worked among the recent ops becomes entries of the playbook."""

from __future__ import annotations

from collections.abc import Mapping

from structlog.typing import FilteringBoundLogger

from observer_actors.actors.cycle import Cycle
from observer_actors.actors.learned import Learned
from observer_actors.actors.ring_keeper import RingKeeper
from observer_actors.playbook import Created, Entry, consolidate, endpoints_left_out
from observer_actors.supervision import Life

__all__ = ["Consolidator"]


class Consolidator:
    """The actor, and the entries as others may read them.

    :param every: cycles from one consolidation to the next.
    """

    def __init__(
        self, ring: RingKeeper, learned: Learned, cycle: Cycle, *, every: int, log: FilteringBoundLogger
    ) -> None:
        self._ring = ring
        self._learned = learned
        self._cycle = cycle
        self._every = every
        self._log = log
        self._entries: dict[str, Entry] = {}

    @property
    def entries(self) -> Mapping[str, Entry]:
        """Id -> entry, as of now."""
        return self._entries

    async def run(self, life: Life) -> None:
        """Serve as an actor."""
        life.at("loading")
        self._entries = await self._learned.load_entries()
        life.ready()
        life.at("waiting")
        async for _ in self._cycle.each(self._every):
            life.at("consolidating")
            await self._consolidate()
            life.progress()
            life.at("waiting")

    async def _consolidate(self) -> None:
        ops = list(self._ring.ring)
        deltas = consolidate(ops, self._entries)
        left_out = endpoints_left_out(ops, self._entries)
        if left_out:
            self._log.warning("entries_full", endpoints_left_out=left_out)
        if not deltas:
            return
        await self._learned.save_deltas(deltas)
        self._entries.update((delta.entry.id, delta.entry) for delta in deltas)
        created = sum(isinstance(delta, Created) for delta in deltas)
        self._log.info("consolidated", created=created, updated=len(deltas) - created)
