"""One daemon for each data directory, by flock on ``_observer/lock``: the system lets go of it however we die."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from observer_actors.errors import DataDirectoryLocked
from observer_actors.journal.files import FILE_MODE, PosixDisk, translated
from observer_actors.journal.format import Paths

__all__ = ["DirectoryLock", "directory_in_use"]

_TRIES: Final = 5
_PAUSE_SECONDS: Final = 0.01
"""`directory_in_use` holds a shared lock for microseconds; a daemon that starts just then tries again."""


class DirectoryLock:
    """The lock, held from construction to `close`, or as a context manager.

    :raises DataDirectoryLocked: another process holds it; names it.
    :raises DiskFailed: the lock file cannot be made.
    """

    def __init__(self, data_dir: Path) -> None:
        paths = Paths(data_dir)
        with translated("opening the lock file"):
            PosixDisk().make_directories(paths.observer)
            self._fd = os.open(paths.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
        if not _taken(self._fd):
            holder = os.pread(self._fd, 20, 0).decode("ascii", "replace").strip() or "unknown"
            self.close()
            if _is_gone(holder):
                raise DataDirectoryLocked(
                    f"{data_dir} is in use by what is left of process {holder}",
                    hint="its child, which runs appending.py, still waits for the disk, or was stopped",
                )
            raise DataDirectoryLocked(
                f"{data_dir} is in use by process {holder}",
                hint="stop that daemon, or choose another data directory",
            )
        with translated("writing the lock file"):
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def fileno(self) -> int:
        """Give the descriptor: whoever is given it holds the lock too."""
        return self._fd

    def close(self) -> None:
        """Let go of it; again is harmless."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _is_gone(holder: str) -> bool:
    return holder.isdigit() and not Path(f"/proc/{holder}").exists()


def _taken(fd: int) -> bool:
    for attempt in range(_TRIES):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if attempt + 1 < _TRIES:
                time.sleep(_PAUSE_SECONDS)
        else:
            return True
    return False


def directory_in_use(data_dir: Path) -> bool:
    """Tell whether a daemon runs on this directory just now.

    :raises DiskFailed: the lock file cannot be looked at.
    """
    with translated("looking at the lock file"):
        try:
            fd = os.open(Paths(data_dir).lock, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO would hang us
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False
