"""strace as a way to make system calls fail, linger or kill: from the start of a process, or for a while.

Everything else in the process is untouched; what fails is what the kernel would have been asked.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from shutil import which
from typing import Final

import trio

from tests.faults.scenario import Unavailable
from tests.processes import children

ATTACHED: Final = b"attached"
ATTACH_S: Final = 30.0
TAMPERED: Final = ("(INJECTED)", "(DELAYED)")


class Injection:
    """What happens to system calls.

    :param calls: their names, separated by commas.
    :param what: as strace's ``inject`` has it: ``error=EIO``, ``signal=SIGKILL``, ``delay_enter=5000`` (microseconds).
    :param when: the n-th call, ``n+`` from then on, ``n..m``; all of them unless given.
    :param only: calls on this file and no other; an absolute path.
    """

    def __init__(self, calls: str, what: str, *, when: str = "", only: Path | None = None) -> None:
        self._calls = calls
        self._what = f"{what}:when={when}" if when else what
        self._only = [] if only is None else ["-P", str(only)]

    def arguments(self, log: Path) -> list[str]:
        """Give strace's arguments, without what it is to trace."""
        program = which("strace")
        if program is None:
            raise Unavailable("strace is not installed")
        traced = ["-e", f"trace={self._calls}", "-e", f"inject={self._calls}:{self._what}", "-e", "signal=none"]
        return [program, "-f", "-o", str(log), *self._only, *traced]


def started_under(injection: Injection, log: Path) -> list[str]:
    """Give a prefix for the daemon's command: strace steps aside, and the process is the daemon's own.

    Without `--seccomp-bpf`: with it, strace 6.1 sends no signal at a second call or a later one.
    """
    return [*injection.arguments(log), "-D", "-qq", "--"]


def has_killed(log: Path) -> bool:
    """Tell whether a call of a process that was started so, or of a child, was its last: it has no result."""
    return " = ?\n" in log.read_text(errors="replace")


@asynccontextmanager
async def injections(pid: int, injection: Injection, log: Path) -> AsyncIterator[None]:
    """Inject into a process that runs, and into its children, while the block lasts."""
    command = [*injection.arguments(log), *(part for one in (pid, *children(pid)) for part in ("-p", str(one)))]
    process = await trio.lowlevel.open_process(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        await _attached(process)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        with trio.CancelScope(shield=True):
            await process.wait()
            assert process.stderr is not None
            await process.stderr.aclose()


async def _attached(process: trio.Process) -> None:
    assert process.stderr is not None
    said = b""
    with trio.move_on_after(ATTACH_S):
        async for chunk in process.stderr:
            said += chunk
            if ATTACHED in said:
                return
    raise Unavailable(f"strace cannot attach: {said.decode(errors='replace').strip()}")


def tampered(log: Path) -> int:
    """Count the system calls that were tampered with so far."""
    text = log.read_text(errors="replace") if log.exists() else ""
    return sum(text.count(mark) for mark in TAMPERED)
