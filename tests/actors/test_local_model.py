"""The local model as those see it who ask it, with a child of the test's."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import structlog
import trio
import trio.testing

from observer_actors.actors.local_model import LocalModel
from observer_actors.settings import DiagnosisSettings
from observer_actors.supervision import ChildSpec, Events, Life, RestartPolicy, Supervisor
from tests.fakes.http_peer import Held, HttpPeer, Json, http_peer

CHAT = "/v1/chat/completions"
ANSWER = {"choices": [{"message": {"role": "assistant", "content": "{}"}}], "usage": {"total_tokens": 1}}
CHILD = """#!/bin/sh
if mkdir {tried}; then exit 1; fi
echo {url}
cat
"""


@asynccontextmanager
async def child_of(peer: HttpPeer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LocalModel]:
    """Give the model of a child that ends at its first try, and at the next tells the peer's address."""
    child = tmp_path / "python"
    child.write_text(CHILD.format(tried=tmp_path / "tried", url=peer.url))
    child.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(child))
    settings = DiagnosisSettings(backend="llama.cpp", model="m.gguf", timeout_seconds=60.0)
    async with httpx.AsyncClient(trust_env=False) as client, trio.open_nursery() as nursery:
        model = LocalModel(client, settings, log=structlog.get_logger())
        policy = RestartPolicy(backoff_first_s=0.05)
        supervisor = Supervisor("learning", [ChildSpec("model", model.run)], events=Events(), policy=policy)
        nursery.start_soon(supervisor.run, Life("learning", 1, on_progress=lambda: None, on_step=lambda *_: None))
        with trio.fail_after(20):
            yield model
        nursery.cancel_scope.cancel()


async def test_who_asks_while_a_child_dies_that_loads_is_answered_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with http_peer(Json(ANSWER)) as peer, child_of(peer, tmp_path, monkeypatch) as model:
        assert (await model.chat("", "", {})).text == "{}"


async def test_one_question_at_a_time_is_put_and_its_limit_begins_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on, answers = trio.Event(), []
    async with http_peer(Held(goes_on, Json(ANSWER))) as peer, child_of(peer, tmp_path, monkeypatch) as model:

        async def ask() -> None:
            answers.append(await model.chat("", "", {}))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(ask)
            while not peer.received(CHAT):
                await trio.testing.wait_all_tasks_blocked(0.001)
            for _ in range(100):
                await trio.lowlevel.checkpoint()
            assert len(peer.received(CHAT)) == 1
            goes_on.set()
        assert (len(answers), len(peer.received(CHAT))) == (2, 2)
