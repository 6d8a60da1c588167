"""The consultant beside its model: what else a question takes may fail, and costs no other its answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from observer_actors.actors.consultant import PAUSE_S_MAX, Consultant
from observer_actors.actors.learned import Learned
from observer_actors.errors import DiskFailed, ObserverError, Overloaded
from observer_actors.models import ChatModel, ChatReply, ModelFailed
from observer_actors.models.model import ModelRefused
from observer_actors.patterns import Contrast, Inquiry, Pattern, Standing, State, Statement, apply
from observer_actors.settings import DiagnosisSettings, GatewaySettings
from tests.actors.test_analyzer import failure


class SoundModel:
    """Claims something of whatever it is shown."""

    name = "sound"

    async def chat(self, system: str, prompt: str, schema: Mapping[str, Any]) -> ChatReply:
        await trio.lowlevel.checkpoint()
        assert system
        assert prompt
        ops = schema["properties"]["claims"]["items"]["properties"]["ops"]["items"]["enum"]
        return ChatReply(json.dumps({"cause": "bug", "claims": [{"text": "x", "ops": ops}], "advice": "y"}), 1)


async def no_contrast(_pattern: Pattern) -> list[Contrast]:
    await trio.lowlevel.checkpoint()
    return []


async def test_what_a_person_mutes_while_it_waits_is_not_asked_about(tmp_path: Path) -> None:
    one, other = apply({}, [failure(1, "disk gone"), failure(2, "out of memory")]).patterns.values()
    standings: dict[str, Standing] = {}
    said: list[str] = []

    async def conclude(inquiry: Inquiry, _statement: Statement) -> None:
        await trio.lowlevel.checkpoint()
        said.append(inquiry.cases[0].pattern_id)
        standings[other.id if said == [one.id] else one.id] = Standing(state=State.MUTED, muted=True)

    learned, log = Learned(tmp_path, GatewaySettings(), log=structlog.get_logger()), structlog.get_logger()
    settings = DiagnosisSettings(concurrency_max=1)
    consultant = Consultant(SoundModel(), settings, learned, no_contrast, log=log, clock=lambda: 1.0)
    await consultant.consult([one, other], standings.get, conclude)
    assert (len(said), consultant.statistics.asked) == (1, 1)
    await learned.close()


class FailingModel(SoundModel):
    """Fails, for so many questions."""

    def __init__(self, failure: ModelFailed, *, times: int = 1_000) -> None:
        self._failure = failure
        self._times = times

    async def chat(self, system: str, prompt: str, schema: Mapping[str, Any]) -> ChatReply:
        self._times -= 1
        if self._times >= 0:
            raise self._failure
        return await super().chat(system, prompt, schema)


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        (FailingModel(ModelFailed("away")), DiagnosisSettings(concurrency_max=1, retries_max=2)),
        (SoundModel(), DiagnosisSettings(concurrency_max=1, calls_per_hour_max=1)),
    ],
    ids=["the model is away", "the budget is spent"],
)
async def test_while_nothing_may_be_asked_no_evidence_is_looked_for(
    tmp_path: Path, model: ChatModel, settings: DiagnosisSettings, autojump_clock: MockClock
) -> None:
    one, other = apply({}, [failure(1, "disk gone"), failure(2, "out of memory")]).patterns.values()
    looked: list[str] = []

    async def contrast(pattern: Pattern) -> list[Contrast]:
        await trio.lowlevel.checkpoint()
        looked.append(pattern.id)
        return []

    async def conclude(_inquiry: Inquiry, _statement: Statement) -> None:
        await trio.lowlevel.checkpoint()

    learned, log = Learned(tmp_path, GatewaySettings(), log=structlog.get_logger()), structlog.get_logger()
    consultant = Consultant(model, settings, learned, contrast, log=log, clock=autojump_clock.current_time)
    await consultant.consult([one, other], lambda _pattern: None, conclude)
    await consultant.consult([one, other], lambda _pattern: None, conclude)
    assert (len(looked), consultant.statistics.refused) == (1, 3)
    await learned.close()


@pytest.mark.parametrize(
    ("status", "is_of_the_question"),
    [*((status, True) for status in (400, 413, 422)), *((status, False) for status in (402, 407, 410, 429, 503))],
)
async def test_a_refusal_of_a_question_stops_no_other_and_one_of_the_server_all(
    tmp_path: Path,
    autojump_clock: MockClock,
    status: int,
    is_of_the_question: bool,  # noqa: FBT001 - a table's column
) -> None:
    patterns = apply({}, [failure(1, "disk gone"), failure(2, "out of memory")]).patterns.values()
    model = FailingModel(ModelRefused("no", status, 0.0), times=3)
    settings = DiagnosisSettings(concurrency_max=1, retries_max=0)
    said: list[str] = []

    async def conclude(inquiry: Inquiry, _statement: Statement) -> None:
        await trio.lowlevel.checkpoint()
        said.append(inquiry.cases[0].pattern_id)

    learned, log = Learned(tmp_path, GatewaySettings(), log=structlog.get_logger()), structlog.get_logger()
    consultant = Consultant(model, settings, learned, no_contrast, log=log, clock=autojump_clock.current_time)
    for _ in range(3):
        await consultant.consult(patterns, lambda _pattern: None, conclude)
        await trio.sleep(PAUSE_S_MAX if is_of_the_question else 1)
    assert (consultant.statistics.refused == 0, bool(said)) == (is_of_the_question, is_of_the_question)
    await learned.close()


@pytest.mark.parametrize("error", [DiskFailed("away"), Overloaded("too much else is read")])
async def test_a_journal_that_cannot_be_read_costs_one_question_and_no_more(
    tmp_path: Path, error: ObserverError
) -> None:
    one, other = apply({}, [failure(1, "disk gone"), failure(2, "out of memory")]).patterns.values()
    said: list[str] = []
    fails = [one.id]

    async def contrast(pattern: Pattern) -> list[Contrast]:
        await trio.lowlevel.checkpoint()
        if pattern.id in fails:
            raise error
        return []

    async def conclude(inquiry: Inquiry, _statement: Statement) -> None:
        await trio.lowlevel.checkpoint()
        said.append(inquiry.cases[0].pattern_id)

    learned, log = Learned(tmp_path, GatewaySettings(), log=structlog.get_logger()), structlog.get_logger()
    consultant = Consultant(SoundModel(), DiagnosisSettings(), learned, contrast, log=log, clock=lambda: 1.0)
    with capture_logs() as logs:
        await consultant.consult([one, other], lambda _pattern: None, conclude)
    assert [
        (line["event"], line.get("error"), line["patterns"]) for line in logs if line["log_level"] == "warning"
    ] == [("consultation_failed", str(error), [one.id])]
    assert said == [other.id]
    fails.clear()
    await consultant.consult([one], lambda _pattern: None, conclude)
    assert said == [other.id, one.id]
    await learned.close()
