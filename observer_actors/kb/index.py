"""The knowledge base as it is asked: the newest rows in memory, and only what has been appended since is read.

Bounds: the newest `ROWS_MAX` rows are held, of `HELD_BYTES_MAX` bytes together; of a file that is there already, the
last `READ_BYTES_MAX` are read. Older rows stay in the file, and an answer says that it may lack them. `IDS_MAX` ids
are known.

One outcome told twice is one row. Mostly the ``id`` says so. A verdict without an id, whose auditor appends its row
by itself as the seed's do, is recognised by its signature and time (`TWINS_S`): the auditor's own row says more, and
counts.

The file is shared, and what other programs append nobody has searched: a row is held without its secrets.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from observer_actors.errors import EventTooComplex
from observer_actors.journal.files import Disk, PosixDisk, translated
from observer_actors.kb.files import append_rows, outcomes_path
from observer_actors.kb.history import AuditHistory, history_of
from observer_actors.kb.rows import MADE_ID, AuditRow, OutcomeRow, decode_row
from observer_actors.op import time_us
from observer_actors.secrets import Secrets, compiled_secrets

ROWS_MAX: Final = 10_000
HELD_BYTES_MAX: Final = 16 * 1024 * 1024
READ_BYTES_MAX: Final = 16 * 1024 * 1024
CHUNK_BYTES: Final = 1024 * 1024
"""Read at once; a longer line is damage."""
IDS_MAX: Final = 100_000
TWINS_S: Final = 60.0
TWINS_MAX: Final = 1_000
TWINS_OF_ONE_MAX: Final = 20
"""Of one signature; more verdicts without ids in a minute are counted as they come."""
_SEAM_BYTES: Final = 64
"""What stood before the place up to which the file was read: when it is another, so is the file."""


class OutcomeFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows, and how many: newest first."""

    signature: str | None = None
    kind: str | None = None
    overall: str | None = None
    since_us: int | None = None
    """Microseconds since 1970, by the row's own time; a row that has none is not among them."""
    before: int | None = None
    """Only what stands before this place of the file."""
    limit: int = 100

    def fits(self, row: OutcomeRow, at_us: int | None) -> bool:
        """Say whether a row of this time is wanted."""
        return (
            self.signature in (None, row.signature)
            and self.kind in (None, row.kind)
            and self.overall in (None, row.overall)
            and (self.since_us is None or (at_us is not None and at_us >= self.since_us))
        )


class OutcomePage(msgspec.Struct, frozen=True):
    """Rows, newest first; ``before`` goes on behind them, None at the end."""

    rows: Sequence[OutcomeRow]
    before: int | None
    complete: bool
    """Whether nothing older was left out because it is no longer held."""
    damaged: int


class _Held(msgspec.Struct):
    place: int
    """Offset in the file of the line's first byte."""
    row: OutcomeRow
    at_us: int | None
    bytes: int


class OutcomesIndex:
    """See the module. Every method but the constructor blocks; not for two threads at once.

    :param disk: allows for other programs that append to the same file, as `PosixDisk(shared=True)` does.
    :param secrets: gives the rules for what is held, by default those that are built in; when they are others, the file
        is read anew.
    """

    def __init__(
        self, data_dir: Path, disk: Disk | None = None, *, secrets: Callable[[], Secrets] = compiled_secrets
    ) -> None:
        self._data_dir = data_dir
        self._path = outcomes_path(data_dir)
        self._disk = disk or PosixDisk(shared=True)
        self._rules = secrets
        self._secrets = secrets()
        self._unsynced: set[str] = set()
        """Ids of rows whose append has failed. Of those that stand in the file the sync may have: the system may have
        thrown them away, and would report success of the next one. Only to append them anew brings them to the disk."""
        self._forget()

    def is_there(self) -> bool:
        """Say whether there is a file. Also while another thread calls another method.

        :raises OSError: nobody can tell.
        """
        try:
            self._disk.size(self._path)
        except FileNotFoundError:
            return False
        return True

    def add(self, rows: Iterable[AuditRow]) -> int:
        """Append those that the file does not hold yet; give how many that were. Each has an id.

        :raises DiskFailed: some may be on disk; the same call again adds what is missing.
        """
        self._refresh()
        new = {row.id: row for row in rows if row.id in self._unsynced or self._is_missing(row)}
        if new:
            is_end_lost = bool(self._unsynced)
            self._unsynced.update(new)
            append_rows(self._data_dir, tuple(new.values()), disk=self._disk, is_end_lost=is_end_lost)
            self._unsynced.difference_update(new)
        return len(new)

    def _is_missing(self, row: AuditRow) -> bool:
        return row.id not in self._ids and self._twin(row) is None

    def find(self, wanted: OutcomeFilter) -> OutcomePage:
        """Find rows.

        :raises DiskFailed: there is a file and it cannot be read.
        """
        self._refresh()
        found: list[_Held] = []
        more = False
        for held in self._backwards(wanted.before):
            if wanted.fits(held.row, held.at_us):
                if len(found) == wanted.limit:
                    more = True
                    break
                found.append(held)
        return OutcomePage(
            [held.row for held in found], found[-1].place if more else None, self._is_whole, self._damaged
        )

    def history(self, signature: str, *, newest: int) -> AuditHistory:
        """Sum up what audits of this signature, and of similar ones, came to. Raises as `find` does."""
        self._refresh()
        rows = (held.row for held in self._held if isinstance(held.row, AuditRow))
        return history_of(rows, signature, newest=newest, complete=self._is_whole)

    def _backwards(self, before: int | None) -> Iterator[_Held]:
        return (held for held in reversed(self._held) if before is None or held.place < before)

    def _forget(self) -> None:
        self._held: deque[_Held] = deque()
        self._held_bytes = 0
        self._ids: dict[str, None] = {}
        self._twins: dict[str, list[_Held]] = {}
        """Signature -> rows that another teller may tell a second time, without an id to say so."""
        self._offset = 0
        self._seam = b""
        self._in_long_line = False
        self._is_whole = True
        self._damaged = 0

    def _refresh(self) -> None:
        """Read what has been appended; anew when the file, or a rule, is another one."""
        with translated("reading the knowledge base"):
            try:
                size = self._disk.size(self._path)
            except FileNotFoundError:
                size = 0
            rules = self._rules()
            if rules is not self._secrets or not self._joins_on(size):
                self._secrets = rules
                self._forget()
            if not self._offset and size > READ_BYTES_MAX:
                self._offset, self._in_long_line, self._is_whole = size - READ_BYTES_MAX, True, False
            while self._offset < size and self._take(self._disk.read(self._path, self._offset, CHUNK_BYTES)):
                pass

    def _joins_on(self, size: int) -> bool:
        if size < self._offset:
            return False
        seam = len(self._seam)
        return not seam or self._disk.read(self._path, self._offset - seam, seam) == self._seam

    def _take(self, chunk: bytes) -> bool:
        """Take the whole lines of a chunk in; say whether there were any, or a part of one too long to be held."""
        end = chunk.rfind(b"\n") + 1
        if not end and len(chunk) == CHUNK_BYTES:
            self._damaged += not self._in_long_line
            self._in_long_line = True
            end = len(chunk)
        elif end:
            place = self._offset
            for line in chunk[: end - 1].split(b"\n"):
                if not self._in_long_line:
                    self._note(place, line)
                self._in_long_line = False
                place += len(line) + 1
        self._offset += end
        self._seam = (self._seam + chunk[:end])[-_SEAM_BYTES:]
        return bool(end)

    def _note(self, place: int, line: bytes) -> None:
        row = decode_row(line)
        if isinstance(row, OutcomeRow) and self._secrets.may_be_in(line):
            row = _without_secrets(row, self._secrets)
        if row is None or row == "damaged":
            self._damaged += row is not None
            return
        held = _Held(place, row, time_us(row.timestamp) if row.timestamp else None, len(line))
        if isinstance(row, AuditRow) and self._is_told_already(row, held):
            return
        self._held.append(held)
        self._held_bytes += held.bytes
        while len(self._held) > ROWS_MAX or self._held_bytes > HELD_BYTES_MAX:
            self._held_bytes -= self._held.popleft().bytes
            self._is_whole = False

    def _is_told_already(self, row: AuditRow, held: _Held) -> bool:
        if row.id in self._ids:
            return True
        if row.id:
            self._ids[row.id] = None
            _bound(self._ids, IDS_MAX)
        if row.id and not row.id.startswith(MADE_ID):
            return False
        twin = self._twin(row)
        if twin is None:
            waiting = self._twins.setdefault(row.signature, [])
            waiting.append(held)
            del waiting[:-TWINS_OF_ONE_MAX]
            _bound(self._twins, TWINS_MAX)
            return False
        self._twins[row.signature].remove(twin)
        twin.row = twin.row if row.id else row  # what the auditor wrote says more than what it told the daemon
        return True

    def _twin(self, row: AuditRow) -> _Held | None:
        """Find the row that tells the same outcome as one whose id does not say so."""
        if row.id and not row.id.startswith(MADE_ID):
            return None
        at_us = time_us(row.timestamp) if row.timestamp else None
        return next((held for held in self._twins.get(row.signature, ()) if _are_twins(held, row, at_us)), None)


def _without_secrets(row: OutcomeRow, secrets: Secrets) -> OutcomeRow | Literal["damaged"]:
    """Take them out of all texts; an id that holds one is none, for a marker would make others its duplicates."""
    texts = {name: value for name in row.__struct_fields__ if isinstance(value := getattr(row, name), str)}
    try:
        clean = {name: secrets.text(text, Counter()) for name, text in texts.items()}
    except EventTooComplex:
        return "damaged"
    if clean.get("id") != texts.get("id"):
        clean["id"] = ""
    return msgspec.structs.replace(row, **clean)


def _are_twins(held: _Held, row: AuditRow, at_us: int | None) -> bool:
    assert isinstance(held.row, AuditRow)
    if bool(held.row.id) == bool(row.id) or held.row.ok != row.ok:
        return False
    return held.at_us is None or at_us is None or abs(held.at_us - at_us) <= TWINS_S * 1e6


def _bound(kept: dict[str, Any], most: int) -> None:
    """Let go of the oldest."""
    while len(kept) > most:
        del kept[next(iter(kept))]
