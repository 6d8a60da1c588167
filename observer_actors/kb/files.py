"""The knowledge base's file, ``<data>/_kb/outcomes.jsonl``: what later audits read as history.

Rules of the file, which several programs append to at once and nobody rewrites:

* One row is one JSON object on one line, in UTF-8; ``kind`` says what it is about. Rows of other kinds than
  ``audit`` belong to others, and are passed over here.
* A row is appended by one ``write`` to a file opened with O_APPEND, then synced. When the file's last byte is no
  newline (a crash or a full disk tore the last row), the write begins with one; so blank lines are legal, and a
  torn row costs no other.
* An ``id`` that comes again is the same outcome told twice: the first row counts.
* It grows by some 400 bytes an audit, and nothing cuts it. Who has enough of it moves it away, and leaves an empty
  one: where it is gone, the next row makes a new one, and a start of the daemon all that the journal has.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

import msgspec

from observer_actors.journal.files import AppendFile, Disk, PosixDisk, translated
from observer_actors.kb.rows import AuditRow, AuditRows, decode_row
from observer_actors.visible import visible_json

_DISK: Final = PosixDisk(shared=True)
TAIL_BYTES: Final = 256 * 1024
"""How far back a row is looked for that the daemon may have written a moment ago: some hundred rows."""


def outcomes_path(data_dir: Path) -> Path:
    """Say where the file lies."""
    return data_dir / "_kb" / "outcomes.jsonl"


def append_row(data_dir: Path, row: AuditRow) -> None:
    """Append one row; on return it is on disk. Blocks: call it in a thread.

    :raises DiskFailed: it is not known to be on disk (`DiskFull` when there is no room).
    """
    append_rows(data_dir, [row])


def append_rows(data_dir: Path, rows: Sequence[AuditRow], *, disk: Disk = _DISK, is_end_lost: bool = False) -> None:
    """Append rows, each by a write of its own; on return all are on disk. Blocks: call it in a thread.

    :param is_end_lost: the last sync may have failed, so what is the end now may be a hole by the next start.
    :raises DiskFailed: as of `append_row`; the first of them may be on disk.
    """
    path = outcomes_path(data_dir)
    with translated("appending to the knowledge base"):
        disk.make_directories(path.parent)
        with closing(disk.open_append(path, create=True)) as file:
            size = file.size()
            if not size:
                disk.sync_directory(path.parent)
            torn = bool(size) and (is_end_lost or disk.read(path, size - 1, 1) != b"\n")
            for row in rows:
                _append(file, b"\n" * torn + visible_json(msgspec.json.encode(row)) + b"\n")
                torn = False
            file.datasync()


def _append(file: AppendFile, line: bytes) -> None:
    assert b"\n" not in line[1:-1]
    if file.write(line) != len(line):
        # The rest in a second write could land behind another program's row.
        raise OSError(errno.ENOSPC, "the row was taken in part")


def recently_told(data_dir: Path, id_: str) -> bool:
    """Say whether a row of this id stands among the file's last `TAIL_BYTES`. Blocks.

    :raises DiskFailed: there is a file and it cannot be read.
    """
    path = outcomes_path(data_dir)
    with translated("appending to the knowledge base"):  # whose first step this is
        try:
            tail = _DISK.read(path, max(0, _DISK.size(path) - TAIL_BYTES), TAIL_BYTES)
        except FileNotFoundError:
            return False
    rows = map(decode_row, tail.split(b"\n"))
    return any(isinstance(row, AuditRow) and row.id == id_ for row in rows)


def read_audit_rows(data_dir: Path, signature: str | None = None) -> AuditRows:
    """Read the audits back, whatever else stands in the file. Blocks; holds the rows that it gives, and no more.

    :param signature: only the rows of this signature; None for all.
    :raises DiskFailed: there is a file and it cannot be read. No file is no rows.
    """
    found = AuditRows([], 0)
    path = outcomes_path(data_dir)
    with translated("reading the knowledge base"):
        if not path.exists():
            return found
        with path.open("rb") as lines:
            rows: list[AuditRow] = []
            ids: set[str] = set()
            damaged = 0
            for line in lines:
                row = decode_row(line)
                if row == "damaged":
                    damaged += 1
                elif isinstance(row, AuditRow) and row.id not in ids and signature in (None, row.signature):
                    rows.append(row)
                    ids.update([row.id] if row.id else [])
    return AuditRows(rows, damaged)
