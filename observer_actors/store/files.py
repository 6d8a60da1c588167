"""The file: opened, migrated, mended when it is damaged; and SQLite's errors turned into ours.

Damage is what SQLite's own check finds, and what a reader of all tables stumbles over: a file that opens and then fails
each reader would otherwise stay in its place for ever. The rules of mending: nothing is deleted, and a crash at any
step leaves a state from which the next start goes on.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Final
from urllib.parse import quote

from observer_actors.errors import DISK_FULL, DiskFailed, DiskFull, FormatUnknown, ObserverError, disk_hint
from observer_actors.store.schema import MIGRATIONS

Check = Callable[[sqlite3.Connection], None]
BUSY_SECONDS: Final = 2.0
"""Wait for a person's sqlite3 shell; the daemon itself has one connection."""
FILES_AT_ONCE: Final = 4
"""The file, its log, the log's index, and the folder when one of them is made."""
_PRAGMAS: Final = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA journal_size_limit = 16777216",  # a log that grew once does not keep its size
)


class StoreFailed(ObserverError):
    """SQLite refused what was asked of it, for a reason that trying again does not mend."""

    title = "store failed"


class StoreBusy(StoreFailed):
    """Another process holds the file."""

    status = 503
    title = "store busy"
    retryable = True


class StoreDamaged(StoreFailed):
    """The file's content is no longer a database. Opening it anew sets it aside and begins an empty one."""

    title = "store damaged"


def opened(path: Path, check: Check) -> tuple[sqlite3.Connection, Path | None]:
    """Open or make the file; put a new one in its place when it is damaged.

    :param check: reads all that will ever be read; `StoreDamaged`, or an error of SQLite's, says that it cannot be.
    :returns: the connection, and where the damaged file went, if there was one.
    """
    with translated():
        _finish_rebuilding(path)
        try:
            return _connected(path, check), None
        except StoreDamaged:
            set_aside = _rebuilt(path, check)
            return _connected(path, check), set_aside


def refuse_newer(path: Path) -> None:
    """Look at the version of a file that nobody has open; nothing is changed, but for SQLite's index of its log.

    No file is fine, and so is one that cannot be read: what to do about that is for `opened`.

    :raises FormatUnknown: a newer version wrote it.
    """
    with suppress(sqlite3.Error, StoreDamaged), closing(for_reading(path)) as connection:
        _known_version(connection, path)


def for_reading(path: Path) -> sqlite3.Connection:
    """Open the file for who only looks: nothing is made beside it that stays there."""
    # Without a log nobody has it open, and it is all there is: else SQLite would make a log and an index to read it.
    alone = "" if _named(path, "-wal").exists() else "&immutable=1"
    name = f"file:{quote(str(path.absolute()))}?mode=ro{alone}"
    return sqlite3.connect(name, uri=True, timeout=BUSY_SECONDS)


def _connected(path: Path, check: Check) -> sqlite3.Connection:
    """Open or make the file, look it over, and bring it to this version's tables."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    os.close(descriptor)  # SQLite gives its other files the mode of this one
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        with translated():
            _prepare(connection, path)
            with _reading(path):
                check(connection)
    except ObserverError:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    with _reading(path):
        for pragma in _PRAGMAS:
            connection.execute(pragma)
        # Not the quick one, which leaves out the indexes: one that names a settled message as waiting has it sent for
        # ever.
        verdict = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if verdict != "ok":
        raise StoreDamaged(f"{path}: {verdict}")
    version = _known_version(connection, path)
    for number, statements in enumerate(MIGRATIONS[version:], start=version + 1):
        with _reading(path), transaction(connection) as sql:
            for statement in statements:
                sql.execute(statement)
            sql.execute(f"PRAGMA user_version = {number}")


def _known_version(connection: sqlite3.Connection, path: Path) -> int:
    """Give the file's version.

    :raises FormatUnknown: it is a newer one.
    :raises StoreDamaged: it is none, or one that the tables belie. Of an older one, its migration shows that.
    """
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version < 0 or (version > len(MIGRATIONS) and _has_our_tables(connection)):
        raise StoreDamaged(f"{path} has version {version}, and not its tables")
    if version > len(MIGRATIONS):
        raise FormatUnknown(
            f"{path} has version {version}, this program knows up to {len(MIGRATIONS)}",
            hint="run the newer program again, or move the file away: it is learned anew from the journal",
        )
    return version


def _has_our_tables(connection: sqlite3.Connection) -> bool:
    with closing(sqlite3.connect(":memory:")) as ours:
        for statement in chain(*MIGRATIONS):
            ours.execute(statement)
        return _tables(connection) == _tables(ours)


def _tables(connection: sqlite3.Connection) -> list[tuple[str, str, str]]:
    return sorted(connection.execute("SELECT type, name, coalesce(sql, '') FROM sqlite_schema"))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Take it for damage when a statement that is right by itself is an error all the same, or text is not UTF-8."""
    try:
        yield
    except sqlite3.OperationalError as error:
        # 0: raised by the module itself, which could not decode what it read.
        if getattr(error, "sqlite_errorcode", 0) in {0, sqlite3.SQLITE_ERROR}:
            raise StoreDamaged(f"{path}: {error}") from error
        raise


def _rebuilt(path: Path, check: Check) -> Path:
    """Put a new file in the place of a damaged one, and say where that went.

    A crash at any step leaves either the damaged file in its place, and all begins again, or the finished new
    one under its other name, which `_finish_rebuilding` then puts in place.
    """
    fresh = _named(path, ".rebuilt")
    for leftover in (fresh, _named(fresh, "-wal"), _named(fresh, "-shm")):
        leftover.unlink(missing_ok=True)
    with closing(_connected(fresh, check)) as connection:
        _salvage(path, connection)
    set_aside = _set_aside(path)
    _finish_rebuilding(path)
    return set_aside


def _finish_rebuilding(path: Path) -> None:
    fresh = _named(path, ".rebuilt")
    if fresh.exists() and not path.exists():
        fresh.rename(path)
        _sync_directory(path.parent)


def _salvage(damaged: Path, fresh: sqlite3.Connection) -> None:
    """Take over what can be read of the outbox: what is settled too, so that no key is queued again."""
    with (
        closing(sqlite3.connect(damaged)) as old,
        transaction(fresh) as sql,
        suppress(sqlite3.DatabaseError, UnicodeDecodeError),
    ):
        old.text_factory = partial(str, encoding="utf-8", errors="replace")
        for row in old.execute("SELECT key, path, body, state, attempts, error FROM outbox ORDER BY id"):
            with suppress(sqlite3.IntegrityError):  # one row that makes no sense does not cost the rest
                sql.execute(_SALVAGE, row)


def _set_aside(path: Path) -> Path:
    """Rename the file and what belongs to it; nothing is deleted.

    The file itself goes last: a log that stayed behind would be played into the new file.
    """
    number = 1
    while _named(path, f".corrupt-{number}").exists():
        number += 1
    target = _named(path, f".corrupt-{number}")
    for suffix in ("-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            _named(path, suffix).rename(_named(target, suffix))
    _sync_directory(path.parent)
    return target


def _named(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_SALVAGE: Final = (
    "INSERT INTO outbox (key, path, body, state, attempts, error) VALUES (?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (key) DO NOTHING"
)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Save all that is done inside, or, when anything raises, nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:  # it raised; some errors have rolled back already
            connection.execute("ROLLBACK")


@contextmanager
def translated() -> Iterator[None]:
    """Turn what SQLite and the file system raise into errors of this package."""
    try:
        yield
    except UnicodeDecodeError as error:  # SQLite's own message quotes what is no text
        raise StoreDamaged(f"learned.sqlite3: {error}") from error
    except sqlite3.Error as error:
        # The primary result code is the low byte (sqlite.org/rescode.html); 0: raised by the module itself.
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        leaf, hint = _LEAVES.get(code, (StoreFailed, ""))
        if code == sqlite3.SQLITE_CANTOPEN and (lacking := _lack_of_files()) is not None:
            hint = disk_hint(lacking)
        raise leaf(f"learned.sqlite3: {error}", hint=hint) from error
    except OSError as error:
        leaf = DiskFull if error.errno in DISK_FULL else DiskFailed
        raise leaf(f"learned.sqlite3: {error}", hint=disk_hint(error)) from error


def _lack_of_files() -> OSError | None:
    """Give what the system says to opening as many files as SQLite does, which does not tell why it could not."""
    with ExitStack() as held:
        try:
            for _ in range(FILES_AT_ONCE):
                held.callback(os.close, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            return error
    return None


_OTHER: Final = "does another program, as an sqlite3 shell, have the file open? Close it there, and try again"
_OWNER: Final = "the data directory, and all in it, must belong to the user that the daemon runs as, and be writable"
_LEAVES: Final[Mapping[int, tuple[type[ObserverError], str]]] = {
    sqlite3.SQLITE_BUSY: (StoreBusy, _OTHER),
    sqlite3.SQLITE_LOCKED: (StoreBusy, _OTHER),
    sqlite3.SQLITE_FULL: (DiskFull, disk_hint(OSError(errno.ENOSPC, ""))),
    sqlite3.SQLITE_IOERR: (DiskFailed, disk_hint(OSError(errno.EIO, ""))),
    sqlite3.SQLITE_READONLY: (DiskFailed, _OWNER),
    sqlite3.SQLITE_CANTOPEN: (DiskFailed, _OWNER),
    sqlite3.SQLITE_CORRUPT: (StoreDamaged, ""),
    sqlite3.SQLITE_NOTADB: (StoreDamaged, ""),
}
