"""Every command of the README does what the README says."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
import trio

from tests.conftest import ROOT
from tests.harness import Daemon, running_daemon

README: Final = (ROOT / "README.md").read_text(encoding="utf-8")
SHOWN_URL: Final = "http://127.0.0.1:3800"


def _commands() -> list[tuple[str, str]]:
    """Give each command with the output that is shown under it."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append((re.sub(r"\s{2,}#.*$", "", command).strip(), output.strip()))
    return found


def test_the_readme_names_its_two_commands_first() -> None:
    assert [command for command, _ in _commands() if command.startswith("make")] == ["make run", "make test"]
    targets = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^run:.*", targets, re.MULTILINE)
    assert re.search(r"^test:.*", targets, re.MULTILINE)


async def test_what_it_shows_can_be_typed(tmp_path: Path) -> None:
    """In the order of the page: an event, then the looks at it."""
    for tool in ("curl", "jq"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    async with running_daemon(tmp_path / "data") as daemon:
        shown = [(command, output) for command, output in _commands() if command.split()[0] in ("curl", "tail")]
        assert len(shown) == 5
        for command, output in shown:
            result = await _typed(command, daemon, tmp_path)
            assert result, command
            if output:
                assert result == output


async def test_it_names_every_parameter_of_what_it_lists(tmp_path: Path) -> None:
    async with running_daemon(tmp_path) as daemon:
        paths = (await daemon.json("/openapi.json"))["paths"]
    for path in ("/ops", "/failures", "/playbook"):
        (row,) = re.findall(rf"^\| `GET {path}`.*$", README, re.MULTILINE)
        named = re.findall(r"`(\w+)`", row.rpartition(": ")[2])
        assert named == [one["name"] for one in paths[path]["get"]["parameters"] if one["in"] == "query"]


async def test_the_daemon_and_verify_take_the_flags_shown(tmp_path: Path) -> None:
    (tmp_path / "observer.toml").write_text("")
    commands = [shlex.split(command) for command, _ in _commands() if command.startswith("observer-actors")]
    assert [command[1] for command in commands] == ["serve", "verify", "config"]
    serve, verify, _ = commands
    assert [flag for flag in serve if flag.startswith("--")] == ["--host", "--port", "--data-dir", "--config"]
    config = serve[serve.index("--config") + 1]
    async with running_daemon(tmp_path / "data", "--config", str(tmp_path / config)) as daemon:
        await daemon.event(endpoint="a")
        result = await trio.run_process(
            [sys.executable, "-m", "observer_actors", *verify[1:]], capture_stdout=True, cwd=tmp_path
        )
    assert b"no damage; 1 ops" in result.stdout


async def _typed(command: str, daemon: Daemon, folder: Path) -> str:
    command = command.replace(SHOWN_URL, daemon.url).replace("tail -F", "tail -n +1")
    result = await trio.run_process(
        ["bash", "-o", "pipefail", "-c", command], capture_stdout=True, stdin=subprocess.DEVNULL, cwd=folder
    )
    return result.stdout.decode().strip()
