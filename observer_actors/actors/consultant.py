"""The consultant: asks a model about the patterns that are due, one at a time, and keeps what it has evidence for.

A part of the analyzer. What it may cost is bounded: patterns a cycle, questions at a time, retries, calls and tokens
an hour, also across restarts; a model that fails is left alone for longer and longer (`models.guard`). A question that
gets no answer leaves its pattern due: its turn comes again after all others', and, where the answer was of no use
or the question was refused, after a pause that grows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import msgspec
import trio
from structlog.typing import FilteringBoundLogger

from observer_actors.actors.learned import Learned
from observer_actors.backoff import backoff_s
from observer_actors.errors import DiskFailed, Overloaded
from observer_actors.models import Breaker, Budget, ChatModel, ChatReply, FormRefused, ModelFailed, ModelRefused
from observer_actors.patterns import (
    SYSTEM,
    AnswerUnusable,
    Contrast,
    Inquiry,
    Pattern,
    Reason,
    Standing,
    Statement,
    due,
    inquire_about,
    read_statement,
    rule,
    schema_for,
    turn,
)
from observer_actors.settings import DiagnosisSettings

PATTERNS_A_CYCLE: Final = 5
RETRY_S: Final = 1.0
PAUSE_S_FIRST: Final = 60.0
PAUSE_S_MAX: Final = 1_800.0
"""Before a pattern whose answer was of no use is asked about again; doubled each time."""
_FINAL: Final = frozenset(range(400, 500)) - {408, 429}
"""Statuses after which the same question gets the same answer."""
_ABOUT_THE_QUESTION: Final = frozenset({400, 413, 414, 422})
"""Those that another question may not get; the others say something of the server, the account or the way there."""

_SPENT: Final = "what is due waits; diagnosis.calls_per_hour_max and tokens_per_hour_max say how much an hour may cost"

ContrastOf = Callable[[Pattern], Awaitable[list[Contrast]]]


class ConsultantStatistics(msgspec.Struct):
    """Counts since the start."""

    asked: int = 0
    failed: int = 0
    """Questions without an answer."""
    unusable: int = 0
    """Answers that were no object after the schema, or of which no claim was left."""
    refused: int = 0
    """Questions that were not put: the budget is spent, or the model is left alone."""
    tokens: int = 0
    claims_kept: int = 0
    claims_thrown_out: int = 0
    """Made up: they named no op, or one that was not shown."""


class _Unanswered(msgspec.Struct, frozen=True):
    """How often a pattern was asked about without an answer, and until when it is left alone (trio's clock)."""

    times: int = 0
    until: float = 0.0


_NONE: Final = _Unanswered()


class Consultant:
    """Asks, within the bounds of its settings.

    :param learned: keeps what was spent.
    :param contrast: says what sets a pattern's failures apart.
    :param clock: gives seconds since 1970.
    """

    def __init__(
        self,
        model: ChatModel,
        settings: DiagnosisSettings,
        learned: Learned,
        contrast: ContrastOf,
        *,
        log: FilteringBoundLogger,
        clock: Callable[[], float],
    ) -> None:
        self.name: Final = model.name
        self.statistics: Final = ConsultantStatistics()
        self._model = model
        self._settings = settings
        self._learned = learned
        self._clock = clock
        self._contrast = contrast
        self._log = log
        self._budget = Budget(settings.calls_per_hour_max, settings.tokens_per_hour_max)
        self._had_room = True
        self._breaker = Breaker()
        self._limiter = trio.CapacityLimiter(settings.concurrency_max)
        self._unanswered: dict[str, _Unanswered] = {}
        """By pattern."""

    async def load(self) -> None:
        """Go on from what was spent before."""
        settings, spent = self._settings, await self._learned.load_model_calls()
        self._budget = Budget(settings.calls_per_hour_max, settings.tokens_per_hour_max, spent)

    async def consult(
        self,
        patterns: Iterable[Pattern],
        standing: Callable[[str], Standing | None],
        conclude: Callable[[Inquiry, Statement], Awaitable[None]],
    ) -> None:
        """Ask about those that are due: those that were asked about least often in vain first, then as `turn` says.

        :param conclude: is given each answer as it comes: a slow question or a stop costs no other its answer.
        """
        now, unanswered = trio.current_time(), self._unanswered
        waiting = [(found, reason) for found in patterns if (reason := due(found, standing(found.id))) is not None]
        self._unanswered = {pattern.id: unanswered[pattern.id] for pattern, _ in waiting if pattern.id in unanswered}
        waiting = [item for item in waiting if unanswered.get(item[0].id, _NONE).until <= now]
        waiting.sort(key=lambda item: (unanswered.get(item[0].id, _NONE).times, turn(item[0], standing(item[0].id))))

        async def one(pattern: Pattern, reason: Reason) -> None:
            async with self._limiter:
                if due(pattern, standing(pattern.id)) is None:
                    return  # a person has muted or resolved it while it waited
                if self._breaker.is_open(trio.current_time()) or not self._has_room():
                    self.statistics.refused += 1
                    return
                try:
                    contrasts = await self._contrast(pattern)
                except (DiskFailed, Overloaded) as error:  # nothing of the model, and its turn comes again
                    self._log.warning("consultation_failed", error=str(error), patterns=[pattern.id])
                    return
                inquiry = inquire_about(pattern, reason, rule(pattern), contrasts)
                statement = await self._ask(inquiry)
                if statement is not None:
                    self._unanswered.pop(pattern.id, None)
                    await conclude(inquiry, statement)

        async with trio.open_nursery() as nursery:
            for pattern, reason in waiting[:PATTERNS_A_CYCLE]:
                nursery.start_soon(one, pattern, reason)

    async def _ask(self, inquiry: Inquiry) -> Statement | None:
        """Put one question; None when there is no usable answer."""
        attempts = 0
        failure: ModelFailed | None = None
        while attempts <= self._settings.retries_max:
            if not (self._breaker.admits(trio.current_time()) and self._budget.take(self._clock())):
                self.statistics.refused += 1
                break
            await self._learned.save_model_calls(self._budget.spent)  # before: what ends the process was spent too
            self.statistics.asked += 1
            try:
                reply = await self._model.chat(SYSTEM, inquiry.prompt, schema_for(inquiry.cases[0].seqs))
            except FormRefused:
                continue
            except ModelFailed as error:
                failure, attempts = error, attempts + 1
                await self._spend(error.tokens)
                if not self._goes_on_after(error):
                    break
                if attempts <= self._settings.retries_max:
                    await trio.sleep(RETRY_S * 2 ** (attempts - 1))
            else:
                await self._spend(reply.tokens)
                return self._read(inquiry, reply)
        if failure is not None:
            self._note_unanswered(inquiry, pause=_is_about_the_question(failure))
            self._log.warning("consultation_failed", error=str(failure), patterns=[inquiry.cases[0].pattern_id])
        return None

    def _has_room(self) -> bool:
        """Tell whether the budget has room for a question; where it has none, the log has it once."""
        had_room, self._had_room = self._had_room, self._budget.has_room(self._clock())
        if had_room and not self._had_room:
            calls, tokens = len(self._budget.spent), sum(call.tokens for call in self._budget.spent)
            self._log.info("consultation_budget_spent", calls=calls, tokens=tokens, hint=_SPENT)
        return self._had_room

    async def _spend(self, tokens: int) -> None:
        self.statistics.tokens += tokens
        self._budget.spend(tokens)
        await self._learned.save_model_calls(self._budget.spent)

    def _note_unanswered(self, inquiry: Inquiry, *, pause: bool) -> None:
        """Let others have their turn before this one.

        :param pause: it will get no better answer soon.
        """
        pattern = inquiry.cases[0].pattern_id
        times = self._unanswered.get(pattern, _NONE).times + 1
        pause_s = backoff_s(times, PAUSE_S_FIRST, PAUSE_S_MAX) if pause else 0.0
        self._unanswered[pattern] = _Unanswered(times, trio.current_time() + pause_s)

    def _goes_on_after(self, error: ModelFailed) -> bool:
        self.statistics.failed += 1
        if not _is_about_the_question(error):
            self._breaker.failed(trio.current_time(), error.wait_s if isinstance(error, ModelRefused) else 0.0)
        return not isinstance(error, ModelRefused) or error.http_status not in _FINAL

    def _read(self, inquiry: Inquiry, reply: ChatReply) -> Statement | None:
        statistics, pattern = self.statistics, inquiry.cases[0].pattern_id
        try:
            statement = read_statement(reply.text, inquiry.cases[0].seqs, inquiry.failures)
            statistics.claims_kept += len(statement.claims)
            statistics.claims_thrown_out += statement.thrown_out
            if not statement.claims:
                raise AnswerUnusable("no claim in it rests on ops that were shown")
        except AnswerUnusable as error:
            statistics.unusable += 1
            self._breaker.failed(trio.current_time())
            self._note_unanswered(inquiry, pause=True)
            self._log.warning("consultation_unusable", error=str(error), patterns=[pattern])
            return None
        self._breaker.succeeded()
        self._log.info("consultation", patterns=[pattern], cause=statement.cause, thrown_out=statement.thrown_out)
        return statement


def _is_about_the_question(error: ModelFailed) -> bool:
    return isinstance(error, ModelRefused) and error.http_status in _ABOUT_THE_QUESTION
