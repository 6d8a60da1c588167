"""The data directory before anything in it is opened: what must not stand there, and who may look into it.

Looked at by name, once, at the start: whoever can write the directory while the daemon runs is trusted with it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Final

from msgspec import Struct

from observer_actors.errors import ConfigInvalid
from observer_actors.journal.files import translated
from observer_actors.journal.format import SEGMENT_NAME, Paths

OTHERS: Final = 0o077
"""What group and others may do."""
_KINDS: Final = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
)
_INDEX: Final = ".index.json"
_HINT: Final = (
    "the daemon keeps plain files and folders there, and follows no link but to the directory itself: move it away"
)


def refuse_foreign(data_dir: Path, *shared: Path, socket: str = "") -> None:
    """Refuse a directory in which a name leads elsewhere, or would hang who opens it.

    The directory itself may be reached through links.

    :param shared: files outside `_observer` that are written too; each is looked at, and the folder that it stands in.
    :param socket: may stand there too: the daemon's own, left by one that was killed. "" for none.
    :raises ConfigInvalid: there is such a name; says which.
    :raises DiskFailed: it cannot be looked at.
    """
    paths = Paths(data_dir)
    folders = (paths.observer, paths.segments, *(path.parent for path in shared))
    with translated("looking over the data directory"):
        for path in chain(folders, _other_than_files(paths), shared):  # a folder before what stands in it
            for found in _found(path):
                mode = found.st_mode
                if stat.S_ISREG(mode) and path in folders:
                    raise ConfigInvalid(f"data_dir: {path} is a file, and must be a folder", hint=_HINT)
                if stat.S_ISDIR(mode) and _is_file_of_ours(paths, path):
                    raise ConfigInvalid(f"data_dir: {path} is a folder, and must be a file", hint=_HINT)
                if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or _is_socket(path, mode, socket)):
                    raise ConfigInvalid(f"data_dir: {path} is {_kind(mode)}", hint=_HINT)


def linked_elsewhere(data_dir: Path) -> list[str]:
    """Give the files directly in `_observer` that have another name (a hard link): some are written in place.

    None of them is refused, for backups are made so; segments, which are not written again, do no harm.

    :raises DiskFailed: they cannot be looked at.
    """
    paths = Paths(data_dir)
    with translated("looking over the data directory"):
        return [
            str(path)
            for path in _entries(paths.observer)
            for found in _found(path)
            if stat.S_ISREG(found.st_mode) and found.st_nlink > 1
        ]


class Closed(Struct, frozen=True):
    """What other users could look into."""

    closed: tuple[str, ...]
    """Paths that they no longer can."""
    open: tuple[str, ...]
    """Paths that they still can: these belong to somebody else, or the file system refuses."""
    is_directory_open: bool
    """So is the data directory itself, which may be on purpose: it is left as it is."""


def close_to_others(data_dir: Path) -> Closed:
    """Take from group and others what they may do with the files and folders under `_observer`.

    What stands in `segments` is out of their reach as long as the folder is closed, and is looked at only when it is
    not: there may be tens of thousands of files.

    :raises DiskFailed: they cannot be looked at.
    """
    paths = Paths(data_dir)
    closed: list[str] = []
    left: list[str] = []
    with translated("looking over the data directory"):
        is_reachable = any(found.st_mode & OTHERS for found in _found(paths.segments))
        segments = _entries(paths.segments) if is_reachable else ()
        for path in (paths.observer, *_entries(paths.observer), *segments):
            for found in _found(path):
                mode = found.st_mode
                if mode & OTHERS and (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                    is_closed = found.st_uid == os.geteuid() and _is_set(path, stat.S_IMODE(mode) & ~OTHERS)
                    (closed if is_closed else left).append(str(path))
        is_open = bool(data_dir.stat().st_mode & OTHERS)
    return Closed(tuple(closed), tuple(left), is_open)


def _is_set(path: Path, mode: int) -> bool:
    try:
        path.chmod(mode)
    except OSError:
        return False
    return True


def _entries(folder: Path) -> Iterator[Path]:
    """Give what stands directly in a folder."""
    with suppress(FileNotFoundError):
        yield from sorted(folder.iterdir())


def _other_than_files(paths: Paths) -> Iterator[Path]:
    """Give what stands directly in the two folders and is no plain file, as their listings tell: segments are many."""
    for folder in (paths.observer, paths.segments):
        with suppress(FileNotFoundError), os.scandir(folder) as entries:
            yield from sorted(Path(entry.path) for entry in entries if not entry.is_file(follow_symlinks=False))


def _found(path: Path) -> Iterator[os.stat_result]:
    """Say what stands there, if anything does: a daemon that runs renames and removes."""
    with suppress(FileNotFoundError):
        yield path.lstat()


def _is_file_of_ours(paths: Paths, path: Path) -> bool:
    """Tell whether a start needs a file of this name: it does without a block index, which is made again."""
    segment = SEGMENT_NAME.fullmatch(path.name) if path.parent == paths.segments else None
    return path in (paths.active, paths.manifest, paths.lock) or (segment is not None and segment["kind"] != _INDEX)


def _is_socket(path: Path, mode: int, socket: str) -> bool:
    return bool(socket) and stat.S_ISSOCK(mode) and os.path.realpath(path) == os.path.realpath(socket)


def _kind(mode: int) -> str:
    return next((kind for is_kind, kind in _KINDS if is_kind(mode)), "a device")
