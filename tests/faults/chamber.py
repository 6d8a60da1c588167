"""A file system of its own for one daemon: small, and mounted where nobody else sees it.

A process in new user and mount namespaces holds it; no privilege is needed where the system allows such namespaces, and
nothing stays mounted once that process is gone.
"""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from tests.faults.scenario import Unavailable

MOUNTED: Final = b"mounted\n"
HOLD: Final = 'mount -t tmpfs -o "size=$2" none "$1" && echo mounted && exec cat'


@dataclass(frozen=True)
class Chamber:
    """The file system."""

    holder: int
    """Process id."""
    inside: Path
    """Where it is mounted, as the daemon sees it."""

    @property
    def outside(self) -> Path:
        """The same, as we see it."""
        return Path(f"/proc/{self.holder}/root{self.inside}")

    @property
    def prefix(self) -> list[str]:
        """What makes a command run inside."""
        entered = ["--target", str(self.holder), "--user", "--mount", "--preserve-credentials"]
        return ["nsenter", *entered, f"--wd={Path.cwd()}", "--"]

    async def remount(self, option: str) -> None:
        """Change it: ``ro``, ``rw``, ``size=9m``."""
        await trio.run_process([*self.prefix, "mount", "-o", f"remount,{option}", str(self.inside)])


@asynccontextmanager
async def chamber(folder: Path, size: str) -> AsyncIterator[Chamber]:
    """Mount a file system in memory.

    :param folder: where; an existing one.
    :param size: as tmpfs has it: ``8m``.
    :raises Unavailable: the system does not allow it.
    """
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", HOLD, "sh", str(folder), size]
    try:
        process = await trio.lowlevel.open_process(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
    except FileNotFoundError as error:
        raise Unavailable("unshare is not installed") from error
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        said = await process.stdout.receive_some()
        if said != MOUNTED:
            raise Unavailable(f"no file system of one's own: {said.decode(errors='replace').strip()}")
        yield Chamber(process.pid, folder)
    finally:
        with trio.CancelScope(shield=True):
            await process.stdin.aclose()  # it ends by that
            await process.wait()
            await process.stdout.aclose()
