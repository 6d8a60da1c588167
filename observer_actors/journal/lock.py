"""One daemon for each data directory, by flock: the system lets go of it however we die.

On ``_observer/lock``, which says who holds it, and on ``_observer`` itself: where somebody removes the file as a stale
lock, the next daemon makes another one, which is free. Where the folder itself is moved away, the next daemon makes a
folder of that name, which is free as well: so whoever follows a name asks first whether it leads where it did.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Final, Self

from observer_actors.errors import DataDirectoryHeld, DataDirectoryLocked
from observer_actors.journal.files import FILE_MODE, PosixDisk, taken_away, translated
from observer_actors.journal.format import Paths

_TRIES: Final = 5
_PAUSE_SECONDS: Final = 0.01
"""`directory_in_use` holds a shared lock for microseconds; a daemon that starts just then tries again."""


class DirectoryLock:
    """The lock, held from construction to `close`, or as a context manager.

    :raises DataDirectoryLocked: another process holds it; names it. DataDirectoryHeld: what is left of one.
    :raises DiskFailed: the lock file cannot be made.
    """

    def __init__(self, data_dir: Path) -> None:
        paths = Paths(data_dir)
        self._closing = Lock()
        with translated("opening the lock file"):
            PosixDisk().make_directories(paths.observer)
            file = os.open(paths.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
            self.descriptors: tuple[int, ...] = (file,)
            """Whoever is given them holds the lock too."""
            try:
                self.descriptors = (file, os.open(paths.observer, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            except OSError:
                self.close()
                raise
        if not all(map(_taken, self.descriptors)):
            holder = os.pread(file, 20, 0).decode("ascii", "replace").strip()
            self.close()
            if not holder:
                raise DataDirectoryLocked(
                    f"{data_dir} is in use by a process that {paths.lock} does not name",
                    hint="was the lock file removed? Stop that daemon, or choose another data directory",
                )
            if _is_gone(holder):
                raise DataDirectoryHeld(
                    f"{data_dir} is in use by what is left of process {holder}",
                    hint="its child, which runs appending.py, still waits for the disk, or was stopped; or the daemon "
                    "runs in another container",
                )
            raise DataDirectoryLocked(
                f"{data_dir} is in use by process {holder}",
                hint="stop that daemon, or choose another data directory; in another container it has that number",
            )
        with translated("writing the lock file"):
            name = f"{os.getpid()}\n".encode()
            # Over the old one: emptied first, on a full disk its room may be another's by then.
            os.pwrite(file, name, 0)
            os.ftruncate(file, len(name))
        self._path, self._locked = paths.observer, os.fstat(self.descriptors[-1])

    def is_in_place(self) -> bool:
        """Tell whether what has the directory's name is still what was locked.

        Of the lock file that does not matter: the directory is locked too.

        :raises OSError: the system does not say.
        """
        try:
            return os.path.samestat(self._locked, self._path.stat())
        except FileNotFoundError:
            return False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep it until the block is left, whoever closes it meanwhile: for a thread that nobody waits for at the end.

        :raises DiskFailed: it is not held any more; or no file can be opened.
        """
        with translated("keeping the lock"), self._closing:
            if not self.descriptors:
                raise taken_away()
            with ExitStack() as copies:
                for descriptor in self.descriptors:
                    copies.callback(os.close, os.dup(descriptor))
                kept = copies.pop_all()
        with kept:
            yield

    def close(self) -> None:
        """Let go of it; again is harmless."""
        with self._closing:
            descriptors, self.descriptors = self.descriptors, ()
        for descriptor in descriptors:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _is_gone(holder: str) -> bool:
    return holder.isdigit() and not Path(f"/proc/{holder}").exists()


def _taken(descriptor: int) -> bool:
    for attempt in range(_TRIES):
        if _is_free(descriptor, fcntl.LOCK_EX):
            return True
        if attempt + 1 < _TRIES:
            time.sleep(_PAUSE_SECONDS)
    return False


def _is_free(descriptor: int, kind: int) -> bool:
    """Lock it, unless somebody else has. NFS locks files alone: there a directory is always free."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise
    return True


def directory_in_use(data_dir: Path) -> bool:
    """Tell whether a daemon runs on this directory just now.

    :raises DiskFailed: the lock file cannot be looked at.
    """
    paths = Paths(data_dir)
    with translated("looking at the lock file"):
        return not all(map(_is_free_at, (paths.lock, paths.observer)))


def _is_free_at(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO would hang us
    except FileNotFoundError:
        return True
    try:
        return _is_free(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)
