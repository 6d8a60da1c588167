"""The adviser: which entries an agent gets, and which it gets not, so that it can be known whether they help.

Not an actor: it has no task of its own. An answer is sent once the journal holds what was handed out and held back.
What was taken back meanwhile is left out of it all the same: then a run counts as exposed that was not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

import msgspec

from observer_actors.actors.recorder import Recorder
from observer_actors.actors.surroundings import Surroundings
from observer_actors.errors import ObserverError
from observer_actors.labels import bounded_endpoint, stable_id
from observer_actors.playbook.entries import Entry
from observer_actors.playbook.ranking import Match, ranked
from observer_actors.playbook.states import is_trusted, share_of
from observer_actors.playbook.trial import ADVICE_ENDPOINT, Exposure, exposure_attrs, in_control
from observer_actors.settings import AdviceSettings
from observer_actors.store import Shelf

ANSWERS: Final = ("given", "held back", "nothing", "refused")
"""What can come of a request."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent asks advice for."""

    endpoint: str = ""
    """Empty: any of which the words match."""
    input: str = ""
    given: Mapping[str, str] = {}
    """Attributes of what it is about to do, by name."""
    run: str = ""
    task: str = ""
    source: str = ""
    limit: int = 1


class Advice(msgspec.Struct, frozen=True):
    """An answer. It does not say what was held back: whoever reads it acts as if there had been nothing else."""

    advice_id: str
    entries: tuple[Entry, ...] = ()


class AdviserStatistics(msgspec.Struct):
    """Requests since the start."""

    requests: Counter[str] = msgspec.field(default_factory=Counter)
    """By what came of them: one of `ANSWERS`."""
    exposed: int = 0
    """Entries handed out."""
    control: int = 0
    """Entries held back."""


class Adviser:
    """See the module.

    :param entry: gives an entry as it is now; what is on the shelf may be a moment old.
    :param drawn: says whether a run is exposed to an entry, by their names; None when it has not been drawn.
    """

    def __init__(
        self,
        shelf: Shelf,
        recorder: Recorder,
        entry: Callable[[str], Entry | None],
        drawn: Callable[[str, str], bool | None],
        *,
        settings: Callable[[], AdviceSettings],
        around: Surroundings,
    ) -> None:
        self.shelf = shelf
        self.statistics = AdviserStatistics()
        self._recorder = recorder
        self._entry = entry
        self._drawn = drawn
        self._settings = settings
        self.secret = f"{around.time_ns()} {around.chance()} {around.chance()}"
        self._asked = 0

    async def advise(self, wanted: Wanted) -> Advice:
        """Answer one request.

        :raises Overloaded: it could not be journalled in time; then nothing was handed out.
        :raises DiskFailed: the disk refused; the same.
        """
        self._asked += 1
        advice_id = stable_id("advice", self.secret, str(self._asked))
        endpoint = bounded_endpoint(wanted.endpoint)
        found = self.shelf.find(endpoint, wanted.input)
        best = ranked(self._available(found), wanted.given, wanted.limit)
        if not best:
            self.statistics.requests["nothing"] += 1
            return Advice(advice_id)
        run = wanted.run or advice_id
        exposed = tuple(entry for entry in best if self._is_exposed(entry, run))
        exposure = Exposure(
            advice_id=advice_id,
            run=wanted.run,
            task=wanted.task,
            asked_by=wanted.source,
            endpoint=endpoint,
            exposed=tuple(entry.id for entry in exposed),
            control=tuple(entry.id for entry in best if entry not in exposed),
            trusted=tuple(entry.id for entry in best if is_trusted(entry)),
        )
        try:
            await self._recorder.record(ADVICE_ENDPOINT, exposure_attrs(exposure), summary=best[0].endpoint)
        except ObserverError:
            self.statistics.requests["refused"] += 1
            raise
        given = tuple(entry for entry in exposed if self._now(entry.id) is not None)
        self.statistics.requests["given" if given else "held back"] += 1
        self.statistics.exposed += len(given)
        self.statistics.control += len(exposure.control)
        return Advice(advice_id, given)

    def _available(self, found: Iterable[Match]) -> Iterator[Match]:
        """Give what was found as it is now, if it may be handed out now."""
        for match in found:
            entry = self._now(match.entry.id)
            if entry is not None:
                yield Match(entry, match.text, match.worth)

    def _now(self, key: str) -> Entry | None:
        entry = self._entry(key)
        return entry if entry is not None and entry.available else None

    def _is_exposed(self, entry: Entry, run: str) -> bool:
        known = self._drawn(run, entry.id)
        if known is not None:
            return known
        return not in_control(entry.id, run, share_of(entry, self._settings().control_share), self.secret)
