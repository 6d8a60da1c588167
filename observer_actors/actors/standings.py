"""How the patterns stand: judged as failures and time go on, changed by persons, and told to whoever wants to know.

A part of the analyzer. What changes is logged, counted, shown on `/tail`, and queued for the webhook in the same
transaction in which the standing is saved, so that it is told once. What a person does is saved before it is answered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec
import trio
from structlog.typing import FilteringBoundLogger

from observer_actors.actors.learned import Learned
from observer_actors.op import iso_at
from observer_actors.patterns import (
    NO_ABSENCE,
    Absence,
    Action,
    Outgoing,
    Pattern,
    Standing,
    State,
    StateChanged,
    acted,
    judged,
    merged,
    webhook_message,
)
from observer_actors.patterns.history import MINUTE_US
from observer_actors.settings import FailuresSettings
from observer_actors.store import StoreBusy

ACT_S: Final = 5.0
"""A person waits so long at most until what they did is on disk."""
_SLOW: Final = "it stands, and is saved as soon as the disk takes it: look at the pattern before trying again"
LOGGED_A_MINUTE_MAX: Final = 30
"""Changes that get a line of the log; the others of a minute are counted in one."""
UNSENT_MAX: Final = 1_000
"""Messages that wait to be saved; more than that means that the disk is away, and the oldest are let go and counted."""


class Standings:
    """The standing of each pattern.

    :param clock: gives seconds since 1970.
    :param announce: is shown each change.
    """

    def __init__(
        self,
        learned: Learned,
        settings: FailuresSettings,
        *,
        log: FilteringBoundLogger,
        clock: Callable[[], float],
        announce: Callable[[StateChanged], None],
    ) -> None:
        self._learned = learned
        self._settings = settings
        self._log = log
        self._clock = clock
        self._announce = announce
        self._began_us = self._now_us()
        self._absence = NO_ABSENCE
        self._standings: dict[str, Standing] = {}
        self._unsent: list[Outgoing] = []
        self._is_saved = True
        self._saving = trio.Lock()
        self._loading: trio.Event | None = None
        """Set when the load under way has ended."""
        self._minute = self._logged = self._omitted = 0
        self.changes: Counter[State] = Counter()
        """Changes since the start, by the state that was come into."""
        self.dropped = 0
        """Messages for the webhook that were let go before they were saved."""

    def get(self, pattern: str) -> Standing | None:
        """Give the standing of a pattern; None before it was judged."""
        return self._standings.get(pattern)

    def counts(self) -> Mapping[State, int]:
        """Count the patterns by state."""
        return Counter(standing.state for standing in self._standings.values())

    async def load(self) -> None:
        """Go on from what was saved. What persons have done before is saved first; what they do meanwhile waits."""
        loading = self._loading = trio.Event()
        try:
            async with self._saving:
                self._standings = await self._learned.load_standings()
                self._unsent, self._is_saved = [], True
        finally:
            self._loading = None
            loading.set()

    def note_absence(self, from_us: int) -> None:
        """Take note that there was no witness from then (0: since ever) until this process began."""
        self._absence = Absence(from_us, self._began_us) if from_us else NO_ABSENCE

    def absorb(self, absorbed: Mapping[str, str]) -> None:
        """Let go of patterns that have become part of others; what a person wrote is kept."""
        for one, other in absorbed.items():
            standing = self._standings.pop(one, None)
            if standing is not None:
                known = self._standings.get(other)
                self._standings[other] = standing if known is None else merged(known, standing)
                self._is_saved = False

    def is_kept(self, pattern: str) -> bool:
        """Tell whether a person has muted a pattern, or noted something of it: it is not forgotten then."""
        standing = self._standings.get(pattern)
        return standing is not None and (standing.muted or bool(standing.notes))

    def forget(self, pattern: str) -> None:
        """Let go of a pattern that is no more."""
        if self._standings.pop(pattern, None) is not None:
            self._is_saved = False

    def review(self, patterns: Iterable[Pattern]) -> None:
        """Judge patterns as of now."""
        now_us = self._now_us()
        self._begin_minute(now_us)
        for pattern in patterns:
            known = self._standings.get(pattern.id)
            self._take(pattern, known, judged(pattern, known, now_us, self._absence), now_us)

    async def act(self, pattern: Pattern, action: Action, text: str, *, acknowledged_seq: int) -> Standing:
        """Do what a person asks for; it is on disk when this returns.

        :param acknowledged_seq: the newest op when they asked.
        """
        if self._loading is not None:  # else no turn is given away, in which the pattern could become part of another
            await self._loading.wait()
        now_us = self._now_us()
        known = self._standings.get(pattern.id) or judged(pattern, None, now_us, self._absence)
        absence = self._absence
        now = acted(pattern, known, action, text, now_us, acknowledged_seq=acknowledged_seq, absence=absence)
        self._take(pattern, known, now, now_us)
        with trio.move_on_after(ACT_S):
            await self.save()
            return now
        raise self._learned.refusal or StoreBusy(f"not saved within {ACT_S:g} s", hint=_SLOW)

    async def save(self) -> None:
        """Save what has changed, and queue what is to be told of it."""
        async with self._saving:
            if self._is_saved:
                return
            self._is_saved = True
            unsent, self._unsent = self._unsent, []
            done = False
            try:
                await self._learned.save_standings(self._standings, unsent)
                done = True
            finally:
                if not done:
                    self._is_saved = False
                    self._unsent = [*unsent, *self._unsent]

    def _take(self, pattern: Pattern, known: Standing | None, now: Standing, now_us: int) -> None:
        if now is known:
            return
        self._standings[pattern.id] = now
        self._is_saved = False
        if known is None or now.state is not known.state:
            self._tell(pattern, None if known is None else known.state, now.state, now_us)

    def _tell(self, pattern: Pattern, was: State | None, state: State, now_us: int) -> None:
        change = StateChanged(
            pattern=pattern.id,
            endpoint=pattern.endpoint,
            template=pattern.template,
            was=was,
            state=state,
            at=iso_at(now_us / 1e6),
            count=pattern.count,
            last_seq=pattern.last_seq,
        )
        self.changes[state] += 1
        self._begin_minute(now_us)
        if self._logged < LOGGED_A_MINUTE_MAX:
            self._logged += 1
            self._log.info("pattern_state", **msgspec.to_builtins(change))
        else:
            self._omitted += 1
        self._announce(change)
        is_news = was is not State.MUTED  # what a person has just unmuted they know
        if self._settings.webhook_url and state in self._settings.webhook_states and is_news:
            key = f"pattern_state:{pattern.id}:{state}:{now_us}"
            self._unsent.append(webhook_message(key, change))
            self.dropped += max(0, len(self._unsent) - UNSENT_MAX)
            del self._unsent[:-UNSENT_MAX]

    def _begin_minute(self, now_us: int) -> None:
        if now_us // MINUTE_US == self._minute:
            return
        if self._omitted:
            self._log.info("pattern_states_omitted", changes=self._omitted, hint="observer-actors failures shows all")
        self._minute, self._logged, self._omitted = now_us // MINUTE_US, 0, 0

    def _now_us(self) -> int:
        return int(self._clock() * 1e6)
