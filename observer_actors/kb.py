"""The knowledge base's file, ``<data>/_kb/outcomes.jsonl``: what later audits read as history.

Rules of the file, which several programs append to at once and nobody rewrites:

* One row is one JSON object on one line, in UTF-8; ``kind`` says what it is about. Rows of other kinds than
  ``audit`` belong to others, and are passed over here.
* A row is appended by one ``write`` to a file opened with O_APPEND, then synced. When the file's last byte is no
  newline (a crash or a full disk tore the last row), the write begins with one; so blank lines are legal, and a
  torn row costs no other.
* An ``id`` that comes again is the same outcome told twice: the first row counts.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec

from observer_actors.journal.files import Disk, PosixDisk, translated

__all__ = ["AuditRow", "AuditRows", "FindingCounts", "append_row", "outcomes_path", "read_audit_rows"]

_DISK: Final = PosixDisk(shared=True)


class FindingCounts(msgspec.Struct, frozen=True):
    """Findings by severity."""

    info: int = 0
    warn: int = 0
    block: int = 0


class AuditRow(msgspec.Struct, frozen=True, kw_only=True):
    """One audit's outcome. The first three fields are always there; a foreign auditor may lack the others."""

    kind: Literal["audit"]
    signature: str
    """What was audited: ``pr6-7fe47bab``."""
    overall: str
    """``approve``, ``request_changes`` …"""
    ok: bool = False
    findings: FindingCounts = FindingCounts()
    one_liner: str = ""
    duration_ms: int | float = 0
    timestamp: str = ""
    id: str = ""
    """The same as of the event that tells the daemon; "" is never compared."""


class AuditRows(NamedTuple):
    """What a reading found."""

    rows: list[AuditRow]
    """In the order of the file, each ``id`` once."""
    damaged: int
    """Lines that are torn, or that claim to be audits and cannot be read as such."""


def outcomes_path(data_dir: Path) -> Path:
    """Say where the file lies."""
    return data_dir / "_kb" / "outcomes.jsonl"


def append_row(data_dir: Path, row: AuditRow, *, disk: Disk = _DISK) -> None:
    """Append one row; on return it is on disk. Blocks: call it in a thread.

    :raises DiskFailed: it is not known to be on disk (`DiskFull` when there is no room).
    """
    path = outcomes_path(data_dir)
    line = msgspec.json.encode(row) + b"\n"
    assert line.count(b"\n") == 1
    with translated("appending to the knowledge base"):
        disk.make_directories(path.parent)
        file = disk.open_append(path, create=True)
        try:
            size = file.size()
            if size and disk.read(path, size - 1, 1) != b"\n":
                line = b"\n" + line
            if file.write(line) != len(line):
                # The rest in a second write could land behind another program's row.
                raise OSError(errno.ENOSPC, "the row was taken in part")
            file.datasync()
        finally:
            file.close()
        if not size:
            disk.sync_directory(path.parent)


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
                row = _read(line)
                if row is None or row == "damaged":
                    damaged += row is not None
                elif row.id not in ids and signature in (None, row.signature):
                    rows.append(row)
                    ids.update([row.id] if row.id else [])
    return AuditRows(rows, damaged)


_row_decoder: Final = msgspec.json.Decoder(AuditRow)
_any_decoder: Final = msgspec.json.Decoder()


def _read(line: bytes) -> AuditRow | Literal["damaged"] | None:
    """Give the line's row, None when it is blank or of another kind."""
    if not line.strip():
        return None
    try:
        return _row_decoder.decode(line)
    except msgspec.ValidationError:
        return "damaged" if _claims_to_be_an_audit(line) else None
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return "damaged"


def _claims_to_be_an_audit(line: bytes) -> bool:
    """Tell a broken audit from another program's row; what is no JSON after all is broken too."""
    try:
        value = _any_decoder.decode(line)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return True
    return isinstance(value, dict) and value.get("kind") == "audit"
