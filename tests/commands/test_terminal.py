"""What a person sees on a terminal: colours, and `top` on the whole screen."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.commands.typed import COMMAND, environment, typed
from tests.daemon.served import Served


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, process: subprocess.Popen[bytes], ours: int) -> None:
        self.process = process
        self.shown = ""
        self._ours = ours

    def until(self, *parts: str) -> str:
        """Read until all of these have been shown."""
        while not all(part in self.plain for part in parts):
            self._read()
        return self.shown

    def until_raw(self, sequence: str) -> None:
        """Read until a control sequence has come."""
        while sequence not in self.shown:
            self._read()

    def _read(self) -> None:
        self.shown += os.read(self._ours, 65_536).decode(errors="replace")

    @property
    def plain(self) -> str:
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.shown)


@contextmanager
def on_terminal(*arguments: str, size: tuple[int, int] = (140, 50), term: str = "xterm-256color") -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    variables = environment(TERM=term, COLUMNS=str(size[0]), LINES=str(size[1]))
    variables.pop("NO_COLOR", None)
    process = subprocess.Popen([*COMMAND, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=variables)
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_tail_is_coloured(daemon: Served) -> None:
    daemon.event(endpoint="shown", success=False, error="\x1b]0;forged\x07")
    with on_terminal("tail", "--lines", "1", "--url", daemon.url) as terminal:
        shown = terminal.until("shown", "forged")
        assert "\x1b[1;31mFAIL" in shown
        assert "\x1b]0;" not in shown
        daemon.event(endpoint="then", success=True)
        assert "\x1b[32mok" in terminal.until("then")


def test_top_that_nobody_watches_prints_one_look_and_ends(daemon: Served) -> None:
    ended = typed("top", "--url", daemon.url)
    assert (ended.returncode, ended.stderr, "failing patterns" in ended.stdout) == (0, "", True)


def test_top_on_a_terminal_that_is_none_prints_one_look_and_ends(daemon: Served) -> None:
    with on_terminal("top", "--url", daemon.url, term="dumb") as terminal:
        assert "\x1b[?1049h" not in terminal.until("failing patterns")
        assert terminal.process.wait(20) == 0


def test_top_shows_the_whole_tree_on_a_small_screen(daemon: Served) -> None:
    with on_terminal("top", "--url", daemon.url, size=(80, 24)) as terminal:
        terminal.until("ring_keeper", "upkeep", "learning", "courier", "edge", "ingest", "failing patterns")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_top_gives_the_screen_back_when_it_is_ended(daemon: Served, number: int) -> None:
    with on_terminal("top", "--url", daemon.url) as terminal:
        terminal.until("taking events")
        terminal.process.send_signal(number)
        terminal.until_raw("\x1b[?1049l")
        terminal.until_raw("\x1b[?25h")
        assert terminal.process.wait(20) == 128 + number


def test_top_fills_the_screen_follows_and_gives_the_screen_back(daemon: Served) -> None:
    with on_terminal("top", "--interval", "0.2", "--url", daemon.url) as terminal:
        assert "\x1b[?1049h" in terminal.until("taking events", "sources", "ring_keeper", "failing patterns")
        daemon.event(endpoint="seen-by-top", success=False, error="x")
        terminal.until("seen-by-top")
        terminal.process.send_signal(signal.SIGINT)
        terminal.until_raw("\x1b[?1049l")
        terminal.process.wait(20)
        assert terminal.process.returncode == 130
