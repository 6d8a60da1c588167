"""The analyzer: failures into patterns, as they come; patterns that are due to a model, once a cycle.

Patterns live in memory and are saved, with the cursor that belongs to them, a moment later: SQLite's syncs must not
compete with the journal's for every failing op. A crash loses nothing, for the cursor was not saved either.

What is taken in anew from the journal is judged, and asked about, when all of it is there: not against today's clock as
it comes.

A model that fails is asked again after 1 cycle, then 2, 4 … `SKIPS_MAX`; what is due stays due meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

import trio
from structlog.typing import FilteringBoundLogger

from observer_actors.actors.commits import Feed
from observer_actors.actors.consultant import Consultant
from observer_actors.actors.cycle import Cycle
from observer_actors.actors.learned import Learned
from observer_actors.actors.saving import saved
from observer_actors.actors.standings import Standings
from observer_actors.backoff import backoff_s
from observer_actors.doubt import Doubts
from observer_actors.labels import bounded_endpoint
from observer_actors.models import Model, ModelFailed
from observer_actors.op import Op, iso_at
from observer_actors.patterns import (
    Catalogue,
    Diagnosis,
    Inquiry,
    Outgoing,
    Pattern,
    Scope,
    StateChanged,
    Statement,
    apply,
    by_any_id,
    catalogue_of,
    conclude,
    diagnosed_by,
    error_text,
    inquire,
    inquiry_message,
)
from observer_actors.settings import FailuresSettings
from observer_actors.supervision import Life

GROUPING_S: Final = 0.001
"""Failures are looked at for so long before they are folded, and others have their turn: some hundred that are like
others, or one that is like none."""
SAVE_S: Final = 2.0
REVIEW_S: Final = 10.0
SAVE_BUDGET_S: Final = 1.0
LOGGED_CHARS_MAX: Final = 4_000
"""Characters of an answer in the log: twice what 400 tokens take."""
SKIPS_MAX: Final = 16
"""Cycles between two questions to a model that is away: with the seed's 30 s, eight minutes."""


class Analyzer:
    """The actor, and the patterns as others may read them.

    :param model: None where there is none: patterns are kept all the same.
    :param clock: gives seconds since 1970.
    :param announce: is shown each change of a pattern's state.
    :param consultant: asks about each pattern by itself; where there is one, ``model`` is not asked.
    """

    def __init__(  # noqa: PLR0913 - an actor gets everything it needs as arguments
        self,
        feed: Feed,
        learned: Learned,
        cycle: Cycle,
        model: Model | None,
        *,
        log: FilteringBoundLogger,
        settings: FailuresSettings,
        clock: Callable[[], float],
        announce: Callable[[StateChanged], None],
        consultant: Consultant | None,
    ) -> None:
        self._feed = feed
        self._learned = learned
        self._cycle = cycle
        self._model = model
        self._log = log
        self._clock = clock
        self._patterns: dict[str, Pattern] = {}
        self._catalogue = Catalogue()
        self.doubts = Doubts()
        self._unsaved: dict[str, Pattern | None] = {}
        """None: the pattern is no more, and still in the store."""
        self._saved_seq = 0
        self._saving = trio.Lock()
        self._model_failures = 0
        self._asks_from = 0
        self.consultant: Final = consultant
        self._diagnoses: dict[str, Diagnosis] = {}
        """Pattern -> what was said of it last."""
        self._said: dict[Diagnosis, Sequence[Outgoing]] = {}
        """What is not saved yet, and what the gateway is told of it."""
        self._kept: dict[Diagnosis, Sequence[Outgoing]] = {}
        """The same, of incarnations before: it was paid for."""
        self.standings: Final = Standings(learned, settings, log=log, clock=clock, announce=announce)

    @property
    def patterns(self) -> Mapping[str, Pattern]:
        """Id -> pattern, as of now."""
        return self._patterns

    @property
    def ungrouped(self) -> int:
        """Failures that found no room for a pattern of their own, ever."""
        return sum(pattern.count for pattern in self._patterns.values() if pattern.scope is not Scope.TEMPLATE)

    def diagnosis_of(self, pattern: str) -> Diagnosis | None:
        """Give what a model said last of a pattern; None when none has."""
        return self._diagnoses.get(pattern)

    def pattern_of(self, op: Op) -> str:
        """Give the id of the pattern that a failed op belongs to; "" for one that would found a pattern."""
        group = self._catalogue.find(bounded_endpoint(op.endpoint), error_text(op))
        return "" if group is None else group.id

    async def run(self, life: Life) -> None:
        """Serve as an actor."""
        life.at("loading")
        await self.standings.load()  # first: who finds a pattern may act on it, and what was known would be overwritten
        patterns, saved_seq = await self._learned.load_patterns()
        doubts = await self._learned.load_doubts()
        owners = by_any_id(patterns.values())
        diagnoses = await self._learned.load_diagnoses(owners)
        if self.consultant is not None:
            await self.consultant.load()
        # All at once: of what is older now than it was, `has_caught_up` must not say that it is complete.
        self._patterns, self._saved_seq, self.doubts, self._diagnoses = patterns, saved_seq, doubts, diagnoses
        # Saved after the patterns: those of some that became one may not have been.
        self.standings.absorb({key: owner.id for key, owner in owners.items() if key not in patterns})
        self._catalogue = catalogue_of(patterns.values(), self.standings.is_kept)
        self._unsaved, self._model_failures, self._asks_from = {}, 0, 0
        self._kept, self._said = self._kept | self._said, {}
        await self._feed.open(saved_seq)
        life.ready()
        async with saved(self._save, life, every_s=SAVE_S, budget_s=SAVE_BUDGET_S, log=self._log) as nursery:
            nursery.start_soon(self._follow, life)
            await self._feed.caught_up()  # till then a pattern that goes on looks quiet
            self.standings.note_absence(self._feed.resumed_us)
            self._take_what_was_kept({diagnosis.key for diagnosis in diagnoses.values()})
            await self._review_all()
            nursery.start_soon(self._review_now_and_then)
            nursery.start_soon(self._inquire_each_cycle, life)

    async def _follow(self, life: Life) -> None:
        while True:
            life.at("waiting")
            async with self._feed.take() as ops:
                life.at("grouping")
                failures: Sequence[Op] = [op for op in ops if not op.success]
                while failures:
                    failures = self._group(failures)
                    await trio.lowlevel.checkpoint()
                self.doubts.add(ops)  # last: a pattern knows which ops it holds, what is counted here does not

    def _group(self, failures: Sequence[Op]) -> Sequence[Op]:
        """Take failures into their patterns for a moment; give those that are left."""
        until = trio.current_time() + GROUPING_S
        changes = apply(self._patterns, failures, self._catalogue, lambda: trio.current_time() >= until)
        self._note(changes.patterns)
        self._absorb(changes.absorbed)
        if changes.forgotten:
            self._forget(changes.forgotten)
        if self._feed.has_caught_up:
            self.standings.review(changes.patterns.values())
        return changes.left

    def _note(self, changes: Mapping[str, Pattern]) -> None:
        for pattern in changes.values():
            if pattern.scope is not Scope.TEMPLATE and pattern.id not in self._patterns:
                self._log.warning("patterns_full", endpoint=pattern.endpoint, scope=pattern.scope)
        self._patterns.update(changes)
        self._unsaved.update(changes)

    def _absorb(self, absorbed: Mapping[str, str]) -> None:
        """Let go of patterns that have become part of others; what was said of one last is said of the other."""
        for pattern, other in absorbed.items():
            self._patterns.pop(pattern, None)
            self._unsaved[pattern] = None
            said = [found for key in (other, pattern) if (found := self._diagnoses.pop(key, None)) is not None]
            if said:
                self._diagnoses[other] = max(said, key=lambda found: found.created)
        self.standings.absorb(absorbed)

    def _forget(self, pattern: str) -> None:
        """Let go of a pattern that has made room."""
        forgotten = self._patterns.pop(pattern, None)
        if forgotten is None:  # founded by the failures that were taken in with it, long before the last of them
            return
        self._unsaved[pattern] = None
        self._diagnoses.pop(pattern, None)
        self.standings.forget(pattern)
        self._log.info("pattern_forgotten", pattern=pattern, endpoint=forgotten.endpoint, count=forgotten.count)

    async def _save(self) -> None:
        """Save what has changed since the last time, with the cursor; what could not be saved stays unsaved."""
        async with self._saving:
            await self._save_patterns()
        await self.standings.save()

    async def _save_patterns(self) -> None:
        if self._saved_seq == self._feed.cursor and not self._unsaved and not self._said:
            return
        changes, said, seq = dict(self._unsaved), dict(self._said), self._feed.cursor
        await self._learned.save_patterns(changes, seq, self.doubts, said)
        self._saved_seq = seq
        self._said = {found: told for found, told in self._said.items() if found not in said}
        self._unsaved = {
            key: now for key, now in self._unsaved.items() if key not in changes or changes[key] is not now
        }

    async def _review_now_and_then(self) -> None:
        """Notice what time alone changes: quiet, and a spike that is over."""
        while True:
            await trio.sleep(REVIEW_S)
            await self._review_all()

    async def _review_all(self) -> None:
        for pattern in tuple(self._patterns):
            if (current := self._patterns.get(pattern)) is not None:  # it may have been absorbed meanwhile
                self.standings.review((current,))
            await trio.lowlevel.checkpoint()  # two thousand in one go would keep the sockets waiting
        await self.standings.save()

    async def _inquire_each_cycle(self, life: Life) -> None:
        async for number in self._cycle.each():
            if self.consultant is not None:
                life.at("consulting")
                await self._consult(self.consultant)
                continue
            is_time = self._model and number >= self._asks_from
            inquiry = inquire(self._patterns.values(), self.standings.get) if is_time else None
            if inquiry is not None:
                life.at("asking")
                await self._ask(inquiry)

    async def _ask(self, inquiry: Inquiry) -> None:
        """Show the patterns that are due to the model. When it fails, they stay due."""
        assert self._model is not None
        try:
            text = await self._model.generate(inquiry.prompt)
        except ModelFailed as error:
            self._model_failures += 1
            skipped = int(backoff_s(self._model_failures, 1, SKIPS_MAX))
            self._asks_from = self._cycle.number + 1 + skipped
            self._log.warning("analysis_failed", error=str(error), patterns=len(inquiry.cases), cycles_skipped=skipped)
            return
        self._model_failures = 0
        self._log.info(
            "error_analysis", text=text[:LOGGED_CHARS_MAX], patterns=[case.pattern_id for case in inquiry.cases]
        )
        await self._conclude(inquiry, text, self._model.name)

    async def _consult(self, consultant: Consultant) -> None:
        """Ask about the patterns that are due, each by itself."""

        async def take(inquiry: Inquiry, statement: Statement) -> None:
            await self._conclude(inquiry, statement.text, consultant.name, statement)

        await consultant.consult(tuple(self._patterns.values()), self.standings.get, take)

    async def _conclude(self, inquiry: Inquiry, text: str, model: str, statement: Statement | None = None) -> None:
        diagnosis = conclude(inquiry, text, model=model, created=iso_at(self._clock()), statement=statement)
        self._take(diagnosis, (inquiry_message(inquiry, text),) if self._learned.has_gateway else ())
        await self._save()

    def _take_what_was_kept(self, saved: Collection[str]) -> None:
        """Take in what was said before a crash.

        :param saved: keys of what the store has: the save may have come to its end all the same.
        """
        kept, self._kept = self._kept, {}
        for diagnosis, messages in kept.items():
            if diagnosis.key not in saved:
                self._take(diagnosis, messages)

    def _take(self, diagnosis: Diagnosis, messages: Sequence[Outgoing]) -> None:
        self._said[diagnosis] = messages
        diagnosed = diagnosed_by(diagnosis, self._patterns)
        self._note(diagnosed)
        self._diagnoses |= dict.fromkeys(diagnosed, diagnosis)
