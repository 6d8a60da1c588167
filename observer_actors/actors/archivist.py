"""The archivist: compresses and checksums sealed segments, and deletes those that retention gives up.

Off the path of events, and not vital: without it segments lie there uncompressed, and are read all the same.
"""

from __future__ import annotations

from typing import Final

from observer_actors.actors.open_journal import OpenJournal
from observer_actors.actors.surroundings import InThread
from observer_actors.supervision import Life

LOOK_S: Final = 60.0
"""How often retention by age is looked at when nothing is sealed."""


class Archivist:
    """The actor."""

    def __init__(self, journal: OpenJournal, in_thread: InThread) -> None:
        self._journal = journal
        self._in_thread = in_thread

    async def run(self, life: Life) -> None:
        """Serve as an actor. What is half done when it is stopped or crashes is finished by the next pass."""
        life.ready()
        while True:
            life.at("maintaining")
            # Abandoned when we are stopped: a pass may take seconds, and one that is cut short by the end of the
            # process is finished by the next.
            more = await self._in_thread(self._journal.maintain, abandon_on_cancel=True)
            life.progress()
            if not more:
                life.at("waiting")
                await self._journal.wait_sealed(LOOK_S)
