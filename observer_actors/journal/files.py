"""The disk as the journal sees it: a small protocol, and the real one.

The protocol speaks `OSError`, as the system does; the journal turns it into `DiskFull` or `DiskFailed` once, with
`disk_error` or `translated`. A fake with failures and crashes stands in ``tests/fakes/disk.py``.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from itertools import count
from pathlib import Path
from time import sleep
from typing import Final, Protocol

from observer_actors.errors import DISK_FULL, DiskFailed, DiskFull, disk_hint
from observer_actors.journal.appending import is_as_left
from observer_actors.journal.format import BLOCK_BYTES
from observer_actors.journal.places import lost_place
from observer_actors.visible import visible

FILE_MODE: Final = 0o600
DIRECTORY_MODE: Final = 0o700
PAGE_BYTES: Final = 4_096
"""What a medium mostly loses at once."""
LOST_PAGES_MAX: Final = 64
"""So many are looked for one by one; then a whole block is given up where a part of it is lost. Each may take the disk
seconds."""
PIECE_BYTES: Final = 1024 * 1024
PIECE_S: Final = 0.005
"""How a large file is given back. 64 MiB at once kept the disk from syncing for 12 to 15 ms, such pieces for less than
one (ext4 that discards)."""
_ROTTEN: Final = frozenset({errno.EIO, errno.EBADMSG, errno.EUCLEAN})


class Writable(Protocol):
    """What takes bytes."""

    def write(self, data: bytes | memoryview, /) -> int:
        """Append, and give the number of bytes taken: possibly fewer than given.

        :raises OSError: the disk refuses.
        """


class AppendFile(Writable, Protocol):
    """A file open for appending. Every method may raise `OSError`."""

    def datasync(self) -> None:
        """Return once what was written is on disk."""

    def truncate(self, size: int) -> None:
        """Cut the file to this many bytes."""

    def size(self) -> int:
        """Bytes in the file."""

    def close(self) -> None:
        """Let go of it."""


class Readable(Protocol):
    """What gives bytes of files."""

    def read(self, path: Path, offset: int, length: int) -> bytes:
        """Give up to `length` bytes from `offset` on: fewer only at the end of the file.

        :raises OSError: the disk refuses.
        """


class Disk(Readable, Protocol):
    """What the journal needs of a file system. Every method may raise `OSError`."""

    def open_append(self, path: Path, *, create: bool) -> AppendFile:
        """Open for appending; a missing file is made with `create`, else it is `FileNotFoundError`."""

    def size(self, path: Path) -> int:
        """Bytes in the file."""

    def modified_us(self, path: Path) -> int:
        """When the file was last written, in microseconds since 1970."""

    def list(self, path: Path) -> list[str]:
        """Names in a directory, sorted; none when there is no such directory."""

    def rename(self, source: Path, target: Path) -> None:
        """Rename, replacing the target; durable once both directories are synced."""

    def remove(self, path: Path, *, later: bool = False) -> None:
        """Remove a file; durable once its directory is synced. With ``later``, what it took is given back by `free`."""

    def free(self, *, slowly: bool) -> None:
        """Give back what the files took that were removed so; ``slowly`` in pieces, so call it with no lock held."""

    def sync_directory(self, path: Path) -> None:
        """Return once what was made, renamed and removed in this directory is on disk."""

    def make_directories(self, path: Path) -> None:
        """Make a directory and its missing parents, durably, closed to others."""


class PosixFile:
    """A file descriptor opened for appending; a symbolic link is refused (ELOOP)."""

    def __init__(self, path: Path, *, create: bool, shared: bool = False) -> None:
        self._shared = shared
        self.path: Final = path
        flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
        self._fd = os.open(path, flags, FILE_MODE)
        self._size = os.fstat(self._fd).st_size

    def write(self, data: bytes | memoryview) -> int:
        """Append; see `AppendFile`.

        :raises OSError: ESTALE: the file was removed or renamed, or has another size than we gave it.
        """
        if not self._shared and not is_as_left(self._fd, self.path, self._size):
            raise lost()
        written = os.write(self._fd, data)
        self._size += written
        return written

    def fileno(self) -> int:
        """Give the descriptor."""
        return self._fd

    def grown(self, size: int) -> None:
        """Take note of bytes that another process has appended in our place."""
        self._size += size

    def datasync(self) -> None:
        """Sync data and size, not the times."""
        os.fdatasync(self._fd)

    def truncate(self, size: int) -> None:
        """Cut; never lengthen, which would make a hole."""
        if os.fstat(self._fd).st_size < size:
            raise OSError(errno.ESTALE, "the file was cut by somebody else")
        os.ftruncate(self._fd, size)
        self._size = size

    def size(self) -> int:
        """Ask the system."""
        return os.fstat(self._fd).st_size

    def close(self) -> None:
        """Close, once."""
        fd, self._fd = self._fd, -1
        _close(fd)


def is_rotten(error: OSError) -> bool:
    """Say whether it is a place of the medium that cannot be read. Other errors are the whole disk's, or pass."""
    return error.errno in _ROTTEN


def is_full(error: OSError) -> bool:
    """Say whether there is no room, on the disk or within a quota."""
    return error.errno in DISK_FULL


def lost() -> OSError:
    """Say that a file is not what we left."""
    return OSError(errno.ESTALE, "the file was removed, renamed or changed by somebody else")


def taken_away() -> OSError:
    """Say that what has the data directory's name is not what was locked."""
    return OSError(errno.ESTALE, "the data directory was removed, renamed or replaced by somebody else")


class PosixDisk:
    """The real file system.

    :param shared: other processes append to the same files, so that nothing is to be said of their size.
    :param is_ours: asked before a name is followed: whether what stands in the data directory's place is still what
        was locked. Nothing is written to what another daemon may hold by now, and nothing is read from it.
    """

    def __init__(self, *, shared: bool = False, is_ours: Callable[[], bool] = lambda: True) -> None:
        self._shared = shared
        self._is_ours = is_ours
        self._unfreed: deque[int] = deque()
        """Descriptors of files that were removed, and are to be given back. No two threads take the same."""

    def _refuse_another(self) -> None:
        if not self._is_ours():
            raise taken_away()

    @contextmanager
    def _of_ours(self) -> Iterator[None]:
        """Tell a file that is not there from a directory that is away: that one may come back with all its files."""
        self._refuse_another()
        try:
            yield
        except FileNotFoundError:
            self._refuse_another()  # it may have gone just now
            raise

    def open_append(self, path: Path, *, create: bool) -> AppendFile:
        """Open; see `Disk`."""
        self._refuse_another()
        return PosixFile(path, create=create, shared=self._shared)

    def read(self, path: Path, offset: int, length: int) -> bytes:
        """Read; see `Disk`."""
        with self._of_ours():
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return _pread(fd, offset, length)
        except OSError as error:
            error.filename = str(path)  # the system knows a descriptor alone
            raise
        finally:
            os.close(fd)

    def size(self, path: Path) -> int:
        """Ask the system."""
        with self._of_ours():
            return path.stat().st_size

    def modified_us(self, path: Path) -> int:
        """Ask the system."""
        with self._of_ours():
            return path.stat().st_mtime_ns // 1_000

    def list(self, path: Path) -> list[str]:
        """List; see `Disk`."""
        try:
            names = sorted(os.listdir(path))  # noqa: PTH208 - a Path for each would cost ten times as much
        except FileNotFoundError:
            names = []
        self._refuse_another()  # asked afterwards: no directory that is away just then is taken for an empty one
        return names

    def rename(self, source: Path, target: Path) -> None:
        """Rename, replacing."""
        self._refuse_another()
        source.rename(target)

    def remove(self, path: Path, *, later: bool = False) -> None:
        """Remove; see `Disk`. A file that cannot be opened is given back at once."""
        self._refuse_another()
        fd = -1
        with suppress(OSError):
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK) if later else -1
        try:
            path.unlink()
        except OSError:
            _close(fd)
            raise
        if fd >= 0:
            self._unfreed.append(fd)

    def free(self, *, slowly: bool) -> None:
        """Close what was removed, and cut it before, piece by piece; see `Disk`. In pieces about 6 ms a MiB."""
        with suppress(IndexError):  # no more of them
            while True:
                fd = self._unfreed.popleft()
                try:
                    if slowly:
                        _give_back(fd)
                finally:
                    _close(fd)

    def sync_directory(self, path: Path) -> None:
        """Sync a directory."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def make_directories(self, path: Path) -> None:
        """Make each missing directory and sync the one it stands in."""
        self._refuse_another()
        if path.is_dir():
            return
        self.make_directories(path.parent)
        with suppress(FileExistsError):
            path.mkdir(mode=DIRECTORY_MODE)
        self.sync_directory(path.parent)


class Around:
    """Reads around the places that the medium does not give.

    In their stead stand lines that are no records. No crash leaves such, so that they are taken for damage.
    """

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._lost: set[tuple[Path, int]] = set()
        """Pages that it did not give once: they are not asked for again."""

    def read(self, path: Path, offset: int, length: int) -> bytes:
        """Read; see `Readable`."""
        try:
            return self._disk.read(path, offset, length)
        except OSError as error:
            if not is_rotten(error):
                raise
        end = min(offset + length, self._disk.size(path))
        starts = [offset, *range(offset - offset % PAGE_BYTES + PAGE_BYTES, end, PAGE_BYTES)]
        is_new = not any((path, start // PAGE_BYTES) in self._lost for start in starts)
        if is_new and len(self._lost) >= LOST_PAGES_MAX:
            return lost_place(end - offset)
        ends = [*starts[1:], end]
        return b"".join(self._page(path, start, stop - start) for start, stop in zip(starts, ends, strict=True))

    def _page(self, path: Path, offset: int, length: int) -> bytes:
        page = (path, offset // PAGE_BYTES)
        if page not in self._lost:
            try:
                return self._disk.read(path, offset, length)
            except OSError as error:
                if not is_rotten(error):
                    raise
            self._lost.add(page)
        return lost_place(length)


def _give_back(fd: int) -> None:
    """Cut a file that has been removed, piece by piece from its end, and let the disk do something else in between.

    It is left as it is where somebody has it still, under another name (a backup of hard links) or open (a reader): the
    system frees it with the last of them. What the system does not know of, such as a reader beneath an overlay, would
    find it cut.
    """
    with suppress(OSError):
        status = os.fstat(fd)
        if status.st_nlink or status.st_size <= PIECE_BYTES:
            return
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)  # who opens it just now has it sent, and SIGIO would end us
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)  # refused where others have it open
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        for size in reversed(range(PIECE_BYTES, status.st_size, PIECE_BYTES)):
            os.ftruncate(fd, size)
            sleep(PIECE_S)


def _close(fd: int) -> None:
    if fd >= 0:
        os.close(fd)


def _pread(fd: int, offset: int, length: int) -> bytes:
    data = os.pread(fd, length, offset)
    while data and len(data) < length:
        more = os.pread(fd, length - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


def chunks(disk: Readable, path: Path, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Cut a file into pieces of whole lines, about `BLOCK_BYTES` each, with their offsets.

    Only the last piece may lack its newline, and a piece is longer when a single line is.
    """
    length = BLOCK_BYTES
    while start < end:
        wanted = min(length, end - start)
        piece = disk.read(path, start, wanted)
        whole = piece.rfind(b"\n") + 1
        at_end = start + wanted >= end or len(piece) < wanted
        if whole == 0 and not at_end:
            length *= 2
            continue
        if whole:
            yield start, piece[:whole]
        if at_end:
            if whole < len(piece):
                yield start + whole, piece[whole:]
            return
        start += whole
        length = BLOCK_BYTES


def write_all(file: Writable, data: bytes) -> None:
    """Append all of it, however many short writes that takes."""
    written = file.write(data)
    if written == len(data):
        return
    rest = memoryview(data)[written:]
    while rest:
        written = file.write(rest)
        if written <= 0:
            raise OSError(errno.EIO, "the disk takes no byte and gives no reason")
        rest = rest[written:]


@contextmanager
def replacing(disk: Disk, target: Path, temporary: Path | None = None) -> Iterator[AppendFile]:
    """Give an empty file, which has the target's name once the block has written it and it is synced.

    Where the disk refuses, nothing is left of it: on a full one, it is room that the rest of the journal needs.

    :param temporary: what it is called meanwhile; the target's name and ``.tmp`` unless given.
    """
    temporary = temporary or target.with_name(target.name + ".tmp")
    try:
        with closing(disk.open_append(temporary, create=True)) as file:
            file.truncate(0)
            yield file
            file.datasync()
        disk.rename(temporary, target)
    except OSError:
        with suppress(OSError):
            disk.remove(temporary)
        raise


def replace_file(disk: Disk, path: Path, data: bytes) -> None:
    """Give a file new contents at once: a crash leaves the old or the new, and a return means that the new stays."""
    with replacing(disk, path) as file:
        write_all(file, data)
    disk.sync_directory(path.parent)


def aside(disk: Disk, path: Path, why: str) -> Path:
    """Name what is set aside of a file: ``<its name>.<why>-<n>``, with the first number that is free."""
    taken = set(disk.list(path.parent))
    names = (f"{path.name}.{why}-{number}" for number in count(1))
    return path.with_name(next(name for name in names if name not in taken))


def disk_error(error: OSError, doing: str, then: str = "") -> DiskFailed:
    """Say in our words what the system said.

    :param doing: what failed, to follow "while": ``writing the journal``.
    :param then: what that may lead to, with the punctuation before it.
    """
    name = errno.errorcode.get(error.errno or 0, "error")
    path = error.filename2 or error.filename
    where = f" ({visible(Path(os.fsdecode(path)).name)})" if path else ""  # callers hear it too: nothing of the folders
    detail = f"{name} while {doing}: {error.strerror or error}{where}{then}"
    return (DiskFull if error.errno in DISK_FULL else DiskFailed)(detail, hint=disk_hint(error))


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn an `OSError` from within into `DiskFull` or `DiskFailed`."""
    try:
        yield
    except OSError as error:
        raise disk_error(error, doing) from error
