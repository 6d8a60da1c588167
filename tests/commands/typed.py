"""Commands as a person types them: the real program, its two outputs and its exit status."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import msgspec

from tests.harness import SEEDS_VARIABLES

COMMAND: Final = (sys.executable, "-m", "observer_actors")
COMMAND_S: Final = 60.0
Ended = subprocess.CompletedProcess[str]


def environment(**more: str) -> dict[str, str]:
    """Give the environment without anything that says how a daemon is configured or where it is."""
    ours = (*SEEDS_VARIABLES, "OBSERVER_URL")
    return {name: value for name, value in os.environ.items() if name not in ours} | more


def typed(*arguments: str, stdin: str = "", cwd: Path | None = None, **variables: str) -> Ended:
    """Run `observer-actors` with these arguments."""
    return subprocess.run(
        [*COMMAND, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
        cwd=cwd,
        env=environment(**variables),
    )


def answered(*arguments: str, stdin: str = "", cwd: Path | None = None, **variables: str) -> Any:
    """Run it with `--json`, and give what it says."""
    ended = typed(*arguments, "--json", stdin=stdin, cwd=cwd, **variables)
    assert ended.returncode == 0, ended.stderr
    return msgspec.json.decode(ended.stdout)
