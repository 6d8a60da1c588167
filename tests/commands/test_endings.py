"""How commands end when what they are given, or what they write to, is no good: in words, never in a traceback."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.commands.typed import COMMAND, environment, typed
from tests.conftest import ROOT
from tests.daemon.served import served

USAGE, OUTPUT, CONFIG = 64, 74, 78


def ended(*arguments: str | bytes, shell: str = "", **variables: str) -> tuple[int, str]:
    """Give the status and what was said of a command, with a redirection of the shell's."""
    given = [os.fsencode(argument) for argument in (*COMMAND, *arguments)]
    command = [b"sh", b"-c", f'"$@" {shell}'.encode(), b"sh", *given]
    done = subprocess.run(command, cwd=ROOT, env=environment(**variables), capture_output=True, check=False, timeout=60)
    return done.returncode, done.stderr.decode(errors="replace")


@pytest.mark.parametrize(
    ("arguments", "shell", "status"),
    [
        (("config", "default"), ">/dev/full", OUTPUT),
        (("--help",), ">/dev/full", OUTPUT),
        (("config", "default"), ">&-", 0),
        (("stats", "--url", "http://[::1"), "", USAGE),
        (("stats", "--url", "nowhere"), "", USAGE),
        (("mcp", "--url", "nowhere"), "", USAGE),
        (("send", "--endpoint", b"\x9b"), "", USAGE),
    ],
)
def test_it_ends_in_words(arguments: tuple[str | bytes, ...], shell: str, status: int) -> None:
    code, said = ended(*arguments, shell=shell)
    assert (code, "Traceback" in said) == (status, False), said


@pytest.mark.parametrize("token", ["ü", "s3cret with a blank", "s3cret\n"])
@pytest.mark.parametrize("command", ["stats", "mcp"])
def test_a_token_that_is_none_is_refused_by_its_variable_and_not_told(command: str, token: str) -> None:
    code, said = ended(command, "--url", "http://127.0.0.1:9", OBSERVER_TOKEN=token)
    assert (code, "OBSERVER_TOKEN" in said, "ASCII" in said, "s3cret" in said) == (USAGE, True, True, False), said


def test_exec_passes_on_the_status_of_a_command_with_other_characters_and_reports_it(tmp_path: Path) -> None:
    with served(tmp_path) as daemon:
        code, said = ended("exec", "--endpoint", "a", "--url", daemon.url, "--", "sh", "-c", b"exit 3 # \xff")
        assert (code, "Traceback" in said) == (3, False), said
        (op,) = daemon.json("/ops")["ops"]
        assert op["attrs"]["exit_status"] == 3


@pytest.mark.parametrize("name", ["listen.tls_cert", "auth.tokens_file", "diagnosis.api_key_file"])
def test_a_file_that_cannot_be_used_ends_serve_and_fails_the_check(tmp_path: Path, name: str) -> None:
    setting = f"{name}={tmp_path / 'none'}"
    checked = typed("config", "check", "--set", setting)
    assert (checked.returncode, name in checked.stderr) == (CONFIG, True)
    code, said = ended("serve", "--port", "0", "--data-dir", str(tmp_path / "data"), "--set", setting)
    assert (code, name in said, "Traceback" in said) == (CONFIG, True, False), said


@pytest.mark.parametrize("name", ["a b", "", "a#b", "#", "a\n"])
def test_a_name_for_a_token_that_is_none_is_refused(name: str) -> None:
    refused = typed("token", name)
    assert (refused.returncode, refused.stdout, "NAME" in refused.stderr) == (64, "", True), refused.stderr
    assert "Traceback" not in refused.stderr
