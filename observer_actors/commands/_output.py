"""The file that a command writes what it was asked for into."""

from __future__ import annotations

import errno
import os
import signal
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO, ClassVar, Final, NoReturn
from uuid import uuid4

from observer_actors.commands._signals import ENDING, EXIT_SIGNALLED, taken
from observer_actors.errors import ObserverError
from observer_actors.journal import PosixDisk

STDOUT: Final = 1
FILE_MODE: Final = 0o600
"""Of a file that was not there before: what agents reported is nobody else's to read, as in the data directory."""


class FileRefused(ObserverError):
    """The file cannot be written, or it is not sure to stay."""

    exit_code: ClassVar[int] = 74


@contextmanager
def written(path: Path) -> Iterator[IO[bytes]]:
    """Give what is written to. A plain file is replaced as a whole once all is on disk, and else stays as it was.

    What is none, such as a FIFO, is written as it is, and so is what standard output goes to (``/dev/stdout``).

    :raises FileRefused: it cannot be written.
    """
    with _told(path):
        old = _status(path)
    if old is not None and os.path.samestat(old, os.fstat(STDOUT)):
        yield sys.stdout.buffer
    elif old is None or stat.S_ISREG(old.st_mode):
        with _replacing(path.resolve(), old) as stream:
            yield stream
    else:
        with _told(path):
            stream = path.open("wb")
        with stream:
            yield stream


@contextmanager
def _replacing(path: Path, old: os.stat_result | None) -> Iterator[IO[bytes]]:
    """Give a new file beside this one, with its owner and mode, that takes its place at the end, or is removed."""
    made = path.with_name(f".export-{uuid4().hex}.part")

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        made.unlink(missing_ok=True)  # here: on the way out another signal may come, and end that
        raise SystemExit(EXIT_SIGNALLED + number)

    with taken(signal.SIGINT, *ENDING, by=end):
        try:
            with _told(path):
                descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
                stream = os.fdopen(descriptor, "wb")
            with stream:
                if old is not None:
                    _liken(stream.fileno(), old)
                yield stream
                with _told(path):
                    stream.flush()
                    os.fsync(stream.fileno())
            with _told(path):
                made.replace(path)
            _sync_folder(path)
        finally:
            made.unlink(missing_ok=True)


def _liken(descriptor: int, old: os.stat_result) -> None:
    with suppress(PermissionError):  # a file of somebody else's: then it is ours
        os.fchown(descriptor, old.st_uid, old.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(old.st_mode))


def _sync_folder(path: Path) -> None:
    """See that the name is on disk, too. Some folders may be written and not read, some file systems sync none."""
    try:
        PosixDisk().sync_directory(path.parent)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EINVAL):
            said = f"{path} is written, but its folder cannot be synced: {error.strerror}"
            raise FileRefused(said, hint="after a power failure it may be as it was before") from error


def _status(path: Path) -> os.stat_result | None:
    with suppress(FileNotFoundError):
        return path.stat()
    return None


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = "a new file is made in its folder, and takes its place" if isinstance(error, PermissionError) else ""
        raise FileRefused(f"cannot write {path}: {error.strerror}", hint=hint) from error
