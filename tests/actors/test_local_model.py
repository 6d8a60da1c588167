"""The local model as those see it who ask it, with a child of the test's."""

from __future__ import annotations

import sys
from pathlib import Path

import httpx
import pytest
import structlog
import trio

from observer_actors.actors.local_model import LocalModel
from observer_actors.settings import DiagnosisSettings
from observer_actors.supervision import ChildSpec, Events, Life, RestartPolicy, Supervisor
from tests.fakes.http_peer import Json, http_peer

ANSWER = {"choices": [{"message": {"role": "assistant", "content": "{}"}}], "usage": {"total_tokens": 1}}
CHILD = """#!/bin/sh
if mkdir {tried}; then exit 1; fi
echo {url}
cat
"""


async def test_who_asks_while_a_child_dies_that_loads_is_answered_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with http_peer(Json(ANSWER)) as peer, httpx.AsyncClient(trust_env=False) as client:
        child = tmp_path / "python"
        child.write_text(CHILD.format(tried=tmp_path / "tried", url=peer.url))
        child.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(child))
        settings = DiagnosisSettings(backend="llama.cpp", model="m.gguf", timeout_seconds=60.0)
        model = LocalModel(client, settings, log=structlog.get_logger())
        policy = RestartPolicy(backoff_first_s=0.05)
        supervisor = Supervisor("learning", [ChildSpec("model", model.run)], events=Events(), policy=policy)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.run, Life("learning", 1, on_progress=lambda: None, on_step=lambda *_: None))
            with trio.fail_after(20):
                assert (await model.chat("", "", {})).text == "{}"
            nursery.cancel_scope.cancel()
