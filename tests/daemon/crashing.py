"""The command line as it is, over a daemon that crashes, hangs, or has a slow disk.

The plan is ``ACTOR:STEP:crash``, ``ACTOR:STEP:hang`` or ``disk:sync:SECONDS``. Run it with ``python -m``.
What ends a process, and what it takes of memory, can be seen from outside only.
"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Final

from observer_actors import cli, daemon
from observer_actors.actors.surroundings import Surroundings
from observer_actors.journal import PosixDisk
from observer_actors.journal.files import AppendFile, PosixFile
from observer_actors.settings import Settings
from tests.daemon.inside import Crash

PLAN_VARIABLE: Final = "OBSERVER_TEST_CRASH"
HANG_S: Final = 60.0


class SlowFile(PosixFile):
    """Takes its time."""

    def datasync(self) -> None:
        time.sleep(float(_plan()[2]))
        super().datasync()


class SlowDisk(PosixDisk):
    """A disk of such files."""

    def open_append(self, path: Path, *, create: bool) -> AppendFile:
        return SlowFile(path, create=create)


def _plan() -> tuple[str, str, str]:
    actor, step, what = os.environ[PLAN_VARIABLE].split(":")
    return actor, step, what


def _on_step(name: str, step: str) -> None:
    actor, at, what = _plan()
    if (name, step) != (actor, at):
        return
    if what == "crash":
        raise Crash(f"{name} at {step}")
    time.sleep(HANG_S)  # the whole event loop hangs with it


class CrashingDaemon(daemon.Daemon):
    """Follows the plan."""

    def __init__(self, settings: Settings, listeners: list[socket.socket], *, around: Surroundings) -> None:
        disk = SlowDisk() if _plan()[0] == "disk" else None
        super().__init__(settings, listeners, disk=disk, around=around, on_step=_on_step)

    @property
    def stop_seconds_max(self) -> float:
        """No test waits for the real budgets."""
        return 0.0


if __name__ == "__main__":
    daemon.HARD_EXIT_S = 0.5  # type: ignore[misc]  # final, but for this
    daemon.Daemon = CrashingDaemon  # type: ignore[misc, assignment]
    cli.main()
