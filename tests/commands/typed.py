"""Commands as a person types them: their two outputs and their exit status.

`typed` runs one within the test's process, which takes milliseconds; `typed_for_real` starts the real program, for what
only a process has: signals, descriptors, what is imported.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import msgspec
import pytest

from observer_actors.cli import main
from tests.harness import own_environment

COMMAND: Final = (sys.executable, "-m", "observer_actors")
COMMAND_S: Final = 60.0
environment = own_environment


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def typed(*arguments: str, stdin: str = "", cwd: Path | None = None, **variables: str) -> Ended:
    """Run `observer-actors` with these arguments."""
    out, err = _stream(), _stream()
    given = io.TextIOWrapper(io.BufferedReader(io.BytesIO(stdin.encode())), encoding="utf-8")
    with (
        _surroundings(["observer-actors", *arguments], environment(**variables), cwd or Path.cwd()),
        patch.object(sys, "stdin", given),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        status = _status()
    return Ended(status, _text(out), _text(err))


def typed_for_real(
    *arguments: str, stdin: str = "", cwd: Path | None = None, before: Sequence[str] = (), **variables: str
) -> Ended:
    """Run it as a process of its own; ``before`` is a command that becomes it."""
    ended = subprocess.run(
        [*before, *COMMAND, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
        cwd=cwd,
        env=environment(**variables),
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def as_ordinary_user() -> tuple[str, ...]:
    """Give what stands before a command so that modes of files hold for it, or skip: for root they do not."""
    if os.geteuid() != 0:
        return ()
    if shutil.which("setpriv") is None:
        pytest.skip("as root this needs setpriv")
    return "setpriv", "--inh-caps=-all", "--bounding-set=-all"


def answered(*arguments: str, stdin: str = "", cwd: Path | None = None, **variables: str) -> Any:
    """Run it with `--json`, and give what it says."""
    ended = typed(*arguments, "--json", stdin=stdin, cwd=cwd, **variables)
    assert ended.returncode == 0, ended.stderr
    return msgspec.json.decode(ended.stdout)


def _status() -> int:
    with pytest.raises(SystemExit) as end:
        main()
    assert isinstance(end.value.code, int)
    return end.value.code


@contextlib.contextmanager
def _surroundings(argv: list[str], variables: Mapping[str, str], cwd: Path) -> Iterator[None]:
    with patch.object(sys, "argv", argv), patch.dict(os.environ, variables, clear=True), contextlib.chdir(cwd):
        yield


def _stream() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    buffer = stream.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode()
