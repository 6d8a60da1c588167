"""The command line as a whole: help, mistakes, exit statuses, completion."""

from __future__ import annotations

import shlex
import subprocess
from importlib import import_module
from typing import Any

import cyclopts
import pytest

from observer_actors.cli import COMMANDS, app
from tests.commands.typed import COMMAND, environment, typed, typed_for_real


def functions() -> list[tuple[str, Any]]:
    """Give every command, also those below `config`, with its function."""
    found: list[tuple[str, Any]] = []
    for name, (path, _) in COMMANDS.items():
        module, _, attribute = path.partition(":")
        what = getattr(import_module(f"observer_actors.commands.{module}"), attribute)
        if isinstance(what, cyclopts.App):
            found += [(f"{name} {sub}", what[sub].default_command) for sub in what if not sub.startswith("-")]
        else:
            found.append((name, what))
    return found


@pytest.mark.parametrize(("name", "function"), functions())
def test_each_command_says_what_it_does_and_shows_an_example(name: str, function: Any) -> None:
    text = function.__doc__
    assert f"Example: observer-actors {name}" in text
    if name in COMMANDS:
        assert text.splitlines()[0] == COMMANDS[name][1], "what the list of commands says"


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help(name: str) -> None:
    ended = typed(name, "--help")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert COMMANDS[name][1].split(".")[0].split()[0] in ended.stdout
    assert ("Example: observer-actors" in ended.stdout) == (name not in {"config", "patterns"})


def test_a_shell_can_complete_commands_and_their_flags() -> None:
    script = app.generate_completion(shell="bash")  # noqa: S604 - starts none
    for name in (*COMMANDS, "--endpoint", "--data-dir"):
        assert name in script


def test_help_lists_all_commands_without_loading_the_daemon() -> None:
    ended = typed_for_real("--help")
    assert ended.returncode == 0
    for name in COMMANDS:
        assert f" {name} " in ended.stdout
    command = [*COMMAND[:1], "-X", "importtime", *COMMAND[1:], "--help"]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True, env=environment()).stderr
    modules = {line.rpartition("|")[2].strip() for line in loaded.splitlines()}
    assert "observer_actors.cli" in modules
    assert not modules & {"observer_actors.daemon", "quart", "httpx"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serv"], 'Did you mean "serve"?'),
        (["serve", "--prot", "3"], "Did you mean --port?"),
        (["serve", "--port", "x"], 'unable to convert "x" into int'),
        (["config", "chek"], 'Did you mean "check"?'),
        (["playbook", "note", "../failures/8d7b13ab5acc1357", "x"], '"../failures/8d7b13ab5acc1357"'),
        (["playbook", "show", ".."], "an id is of letters and digits"),
        (["playbook", "pin", "8d7b?x"], "an id is of letters and digits"),
        (["playbook", "show", ""], "an id is of letters and digits"),
        (["top", "--interval", "inf"], "--interval inf: "),
        (["top", "--interval", "nan"], "--interval nan: "),
        (["top", "--interval", "0"], "--interval 0.0: "),
        (["serve", "--data-dir", ""], "an empty path"),
        (["verify", ""], "an empty path"),
        (["playbook", "check", "--data-dir="], "an empty path"),
        (["serve", "--data-dir=~/x"], "a path that begins with ~"),
        (["audit", "--data-dir=~/x"], "a path that begins with ~"),
    ],
)
def test_a_command_line_that_cannot_be_understood_is_told_in_two_lines_and_exits_64(
    arguments: list[str], said: str
) -> None:
    ended = typed(*arguments)
    assert ended.returncode == 64
    assert ended.stdout == ""
    lines = ended.stderr.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("observer-actors: ")
    assert said in lines[0]


@pytest.mark.parametrize(
    "arguments",
    [
        ("failures", "--endpoint", "-h:1"),
        ("failures", "note", "8d7b", "- known"),
        ("playbook", "--endpoint", "-h:1"),
        ("playbook", "note", "8d7b", "- known"),
    ],
)
def test_what_is_asked_for_or_noted_may_begin_with_a_hyphen(arguments: tuple[str, ...]) -> None:
    ended = typed(*arguments, "--url", "http://127.0.0.1:1")
    assert (ended.returncode, "refused" in ended.stderr) == (69, True), ended.stderr


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    script = f"{shlex.join(COMMAND)} config default | head -1; echo ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, env=environment())
    assert ended.stderr == ""
    assert ended.stdout.splitlines()[-1] in ("0", "141"), "it may have been done before head was"
