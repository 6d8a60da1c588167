"""What has been learned, and what must leave this machine: ``<data>/_observer/learned.sqlite3``.

Rules:

* Whatever belongs together is saved in one transaction: the patterns and the cursor that says how far they
  go, a diagnosis and the message that announces it. After a crash either all of it is there or nothing.
* Saved means on disk: WAL with ``synchronous=FULL``.
* Synchronous. The actors call it from one worker thread at a time (a ``CapacityLimiter(1)``), never from the trio
  thread.
* The journal remains the source of truth. Patterns and entries can be made again from it, and a damaged file
  must not take the witness down: `Store.open` sets it aside as ``learned.sqlite3.corrupt-<n>`` and begins an
  empty one, which takes over what can still be read of the outbox, since that stands in no journal.
  `Store.set_aside` says that it happened. Damage that shows itself later raises `StoreDamaged`; close the
  store then, and open it again. So do where `Store.is_in_place` says that the file was taken away.
* Foreign errors are translated in one place (`files.translated`).

The outbox is a queue in strict order, one for each receiver (`Lane`): only its head is due, a refused message is set
aside, and a key that was ever queued is not queued again while it is remembered. A message is spoken of by its key: a
file that was mended numbers them anew.
"""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Self, TypeVar

import msgspec

from observer_actors.patterns import Diagnosis, Outgoing, Pattern
from observer_actors.playbook import Copy, Playbook, Row
from observer_actors.problems import UNREADABLE
from observer_actors.store.files import StoreDamaged, opened, transaction, translated
from observer_actors.store.reading import CONSOLIDATOR, PLAYBOOK, playbook_rows, restored

T = TypeVar("T")
Record = TypeVar("Record", Pattern, Diagnosis)
_patterns: Final = msgspec.json.Decoder(Pattern)
_diagnoses: Final = msgspec.json.Decoder(Diagnosis)

ANALYZER: Final = "analyzer"
"""The consumer that makes the patterns."""
LEARNED_PATH: Final = Path("_observer/learned.sqlite3")
"""Where the file lies under the data directory."""
REMEMBERED_MAX: Final = 10_000
"""Keys of delivered and dropped messages that are remembered: the newest ones, about 1 MB."""
REFUSED_MAX: Final = 1_000
"""Refused messages that are kept with their body, for a person to look at (`docs/logs.md`): the newest ones."""
DIAGNOSES_MAX: Final = 10_000
"""Diagnoses that are kept: the newest ones, about 20 MB."""
ERROR_CHARS_MAX: Final = 500
"""Characters of a reason that are kept with a message."""


class Lane(StrEnum):
    """One queue for each receiver, whose messages wait for no other's. The value is the receiver, as people know it."""

    GATEWAY = "gateway"
    WEBHOOK = "webhook"

    @classmethod
    def of(cls, path: str) -> Self:
        """Tell the lane of a message: a path of the gateway's begins with a slash."""
        return cls.WEBHOOK if path.startswith("http") else cls.GATEWAY


class Saved(msgspec.Struct, frozen=True):
    """What a save did to the outbox."""

    queued: int = 0
    """Messages that were new."""
    dropped: dict[Lane, int] = msgspec.field(default_factory=dict)
    """Older ones that had to make room, by receiver: lost to it, and on purpose."""


class Queued(msgspec.Struct, frozen=True):
    """The head of the outbox."""

    key: str
    path: str
    body: bytes
    attempts: int
    """Tries that failed so far."""
    tried_at: float
    next_at: float
    """Seconds since 1970; not to be tried before."""

    def wait_seconds(self, now: float) -> float:
        """Say how long it must wait still: 0 when it is due, or the clock was set back since the try."""
        return 0.0 if now < self.tried_at else max(0.0, self.next_at - now)


class LaneStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """A lane of the outbox in numbers. Totals are over the file's life, not the process's."""

    pending: int = 0
    """Messages that wait."""
    delivered: int = 0
    """Total."""
    refused: int = 0
    """Total: their receiver will never take them."""
    dropped: int = 0
    """Total: they had to make room for newer ones."""


class Store:
    """One open file. See the head of this module for who may call it, and from where.

    Any method may raise `DiskFailed`, `DiskFull`, `StoreBusy` (all worth retrying), `StoreDamaged` or
    `StoreFailed`; nothing of what it was to save is saved then.
    """

    def __init__(
        self, connection: sqlite3.Connection, path: Path, *, outbox_max: int, set_aside: Path | None = None
    ) -> None:
        self._connection = connection
        self._path, self._file = path, path.stat()
        self._outbox_max = outbox_max
        self.set_aside: Final = set_aside
        """Where the damaged file went that this one replaces; None when there was none."""

    @classmethod
    def open(cls, path: Path, *, outbox_max: int, seq_max: int | None = None) -> Self:
        """Open the file, made if it is absent, and bring it to this version's tables.

        :param outbox_max: messages that may wait in each lane; beyond it the oldest are dropped and counted.
        :param seq_max: the end of the journal. A cursor beyond it says that the file was learned from another one,
            which makes it as useless as damage does: its consumers would pass over all that comes.
        :raises FormatUnknown: a newer version wrote it.
        """

        def check(connection: sqlite3.Connection) -> None:
            _read_all(connection)
            furthest = connection.execute("SELECT max(seq) FROM cursors").fetchone()[0] or 0
            if seq_max is not None and furthest > seq_max:
                raise StoreDamaged(f"{path} knows ops up to {furthest}, and the journal ends at {seq_max}")

        connection, set_aside = opened(path, check)
        return cls(connection, path, outbox_max=outbox_max, set_aside=set_aside)

    def is_in_place(self) -> bool:
        """Tell whether the file still has its name: SQLite saves to one that has none, too, and it is gone with us.

        :raises OSError: the system does not say.
        """
        try:
            return os.path.samestat(self._file, self._path.stat())
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Close the file; its write-ahead log is folded in. A second call does nothing."""
        with translated():
            self._connection.close()

    # ---------------------------------------------------------------------------- cursors and snapshots

    def cursor(self, consumer: str) -> int:
        """Give the last ``seq`` that the consumer has taken in; 0 at the beginning."""
        rows = self._rows("SELECT seq FROM cursors WHERE consumer = ?", consumer)
        return int(rows[0][0]) if rows else 0

    def state(self, name: str, decoder: msgspec.json.Decoder[T]) -> T | None:
        """Give the newest state that was saved under the name; None before.

        :raises StoreDamaged: it is none.
        """
        rows = self._rows("SELECT body FROM snapshots WHERE name = ?", name)
        try:
            return decoder.decode(rows[0][0]) if rows else None
        except UNREADABLE as error:
            raise StoreDamaged(f"the snapshot {name} cannot be read: {error}") from error

    def save_state(self, name: str, body: bytes, messages: Sequence[Outgoing] = ()) -> Saved:
        """Save a state, as JSON, that goes with no op, and the messages that announce what has changed, or neither."""
        with self._saving() as sql:
            sql.execute(_SAVE_SNAPSHOT, (name, 0, body.decode()))
            return self._enqueue(sql, messages)

    # ---------------------------------------------------------------------------- learned things

    def patterns(self) -> dict[str, Pattern]:
        """Load all patterns by id."""
        rows = self._rows("SELECT record FROM patterns ORDER BY id")
        return {pattern.id: pattern for pattern in _decoded(rows, _patterns)}

    def save_patterns(
        self,
        changes: Mapping[str, Pattern | None],
        seq: int,
        *,
        snapshots: Mapping[str, bytes] = MappingProxyType({}),
        said: Mapping[Diagnosis, Sequence[Outgoing]] = MappingProxyType({}),
    ) -> Saved:
        """Save new and changed patterns, and that all ops up to ``seq`` are in them.

        :param changes: None for one that is no more.
        :param snapshots: name -> what else the analyzer has made of those ops.
        :param said: what a model said of some, and the messages that announce it: once for the same evidence.
        """
        with self._saving() as sql:
            sql.executemany(_SAVE_SNAPSHOT, [(name, seq, body.decode()) for name, body in snapshots.items()])
            sql.executemany(
                "DELETE FROM patterns WHERE id = ?", [(key,) for key, now in changes.items() if now is None]
            )
            sql.executemany(_SAVE_PATTERN, (_row(now) for now in changes.values() if now is not None))
            sql.execute(_SAVE_CURSOR, (ANALYZER, seq))
            news = [found for found in said if sql.execute(_SAVE_DIAGNOSIS, (found.key, _json(found))).rowcount]
            if news:
                sql.execute(_FORGET_DIAGNOSES, (DIAGNOSES_MAX,))
            return self._enqueue(sql, [message for found in news for message in said[found]])

    def diagnoses(self, owners: Mapping[str, Pattern]) -> dict[str, Diagnosis]:
        """Load what was said last of each pattern, by its id; one record after the other, for they may be 20 MB.

        :param owners: `by_any_id` of the patterns.
        """
        said: dict[str, Diagnosis] = {}
        with translated():
            for diagnosis in _decoded(self._connection.execute("SELECT record FROM diagnoses ORDER BY id"), _diagnoses):
                found = (owners.get(case.pattern_id) for case in diagnosis.cases)
                said |= {pattern.id: diagnosis for pattern in found if pattern is not None}
        return said

    def playbook(self) -> Playbook:
        """Load the playbook, as far as the consolidator had come."""
        return restored(playbook_rows(self._rows(PLAYBOOK)), self.cursor(CONSOLIDATOR))

    def save_playbook(self, rows: Sequence[Row], seq: int, *, whole: bool = False) -> None:
        """Save what has changed of the playbook, and that all ops up to ``seq`` are in it.

        :param whole: the rows are all there is; what stood there before goes.
        """
        with self._saving() as sql:
            if whole:
                sql.execute("DELETE FROM playbook")
            sql.executemany(_FORGET_PART, [(row.section.value, row.key) for row in rows if not row.record])
            kept = ((row.section.value, row.key, row.seq, row.record.decode()) for row in rows if row.record)
            sql.executemany(_SAVE_PART, kept)  # one after the other: a whole playbook would be in memory once more
            sql.execute(_SAVE_CURSOR, (CONSOLIDATOR, seq))

    def told(self) -> dict[str, int]:
        """Load what the gateway has been told: endpoint -> successes."""
        return dict(self._rows("SELECT endpoint, successes FROM told"))

    def save_told(self, copies: Sequence[Copy]) -> Saved:
        """Save what the gateway is told, and queue it, both or neither."""
        with self._saving() as sql:
            sql.executemany(_SAVE_TOLD, [(copy.endpoint, copy.successes) for copy in copies])
            return self._enqueue(sql, [copy.message for copy in copies])

    # ---------------------------------------------------------------------------- the outbox

    def head(self, lane: Lane) -> Queued | None:
        """Give the oldest message of a lane that waits, due or not; None when none waits."""
        rows = self._rows(_HEAD, lane is Lane.WEBHOOK)
        return Queued(*rows[0]) if rows else None

    def delivered(self, key: str) -> bool:
        """Note that its receiver has it. False: it was not waiting any more, but dropped in the meantime."""
        return self._settle(key, "delivered", "")

    def failed(self, key: str, error: str, *, now: float, next_at: float) -> None:
        """Note a try that failed; the message stays the head, and is not due before ``next_at``."""
        with self._saving() as sql:
            sql.execute(_NOTE_FAILURE, (error[:ERROR_CHARS_MAX], now, next_at, key))

    def refused(self, key: str, error: str) -> bool:
        """Set a message aside that its receiver will never take, so that the next one of its lane has its turn."""
        return self._settle(key, "refused", error)

    def statistics(self) -> dict[Lane, LaneStatistics]:
        """Count what is there, for each lane."""
        waiting: Counter[Lane] = Counter()
        for path, n in self._rows(_WAITING):
            waiting[Lane.of(path)] += n
        totals = dict(self._rows("SELECT name, n FROM counters"))
        return {
            lane: LaneStatistics(
                pending=waiting[lane],
                delivered=totals.get(_total(lane, "delivered"), 0),
                refused=totals.get(_total(lane, "refused"), 0),
                dropped=totals.get(_total(lane, "dropped"), 0),
            )
            for lane in Lane
        }

    # ---------------------------------------------------------------------------- how

    def _rows(self, statement: str, *values: object) -> list[Any]:
        with translated():
            return self._connection.execute(statement, values).fetchall()

    @contextmanager
    def _saving(self) -> Iterator[sqlite3.Connection]:
        """Save all that is done inside, or, when anything raises, nothing."""
        with translated(), transaction(self._connection) as sql:
            yield sql

    def _enqueue(self, sql: sqlite3.Connection, messages: Sequence[Outgoing]) -> Saved:
        """Queue messages; a key that is remembered is passed over."""
        queued = sum(sql.execute(_ENQUEUE, (m.key, m.path, m.body)).rowcount for m in messages)
        rows = sql.execute(_DROP_OLDEST, (self._outbox_max,)).fetchall() if queued else []
        dropped = Counter(Lane.of(path) for (path,) in rows)
        if dropped:
            sql.executemany(_COUNT, [(_total(lane, "dropped"), n) for lane, n in dropped.items()])
            sql.execute(_FORGET_SETTLED, (REMEMBERED_MAX,))
        return Saved(queued=queued, dropped=dict(dropped))

    def _settle(self, key: str, state: str, error: str) -> bool:
        with self._saving() as sql:
            rows = sql.execute(_SETTLE, (state, error[:ERROR_CHARS_MAX], state, key)).fetchall()
            if not rows:
                return False
            sql.executemany(_COUNT, [(_total(Lane.of(path), state), 1) for (path,) in rows])
            sql.execute(_FORGET_SETTLED, (REMEMBERED_MAX,))
            sql.execute(_FORGET_REFUSED, (REFUSED_MAX,))
            return True


_READ_REST: Final = (
    "SELECT consumer, seq FROM cursors",
    "SELECT name, seq, body FROM snapshots",
    "SELECT name, n FROM counters",
    "SELECT endpoint, successes FROM told",
    "SELECT id, key, path, body, state, attempts, tried_at, next_at, error FROM outbox",
)
_SAVE_CURSOR: Final = (
    "INSERT INTO cursors (consumer, seq) VALUES (?, ?) ON CONFLICT (consumer) DO UPDATE SET seq = excluded.seq"
)
_SAVE_SNAPSHOT: Final = (
    "INSERT INTO snapshots (name, seq, body) VALUES (?, ?, ?)"
    " ON CONFLICT (name) DO UPDATE SET seq = excluded.seq, body = excluded.body"
)
_SAVE_PATTERN: Final = (
    "INSERT INTO patterns (id, endpoint, last_seq, record) VALUES (?, ?, ?, ?)"
    " ON CONFLICT (id) DO UPDATE SET last_seq = excluded.last_seq, record = excluded.record"
)
_SAVE_PART: Final = (
    "INSERT INTO playbook (section, key, seq, record) VALUES (?, ?, ?, ?)"
    " ON CONFLICT (section, key) DO UPDATE SET seq = excluded.seq, record = excluded.record"
)
_FORGET_PART: Final = "DELETE FROM playbook WHERE section = ? AND key = ?"
_SAVE_TOLD: Final = (
    "INSERT INTO told (endpoint, successes) VALUES (?, ?)"
    " ON CONFLICT (endpoint) DO UPDATE SET successes = excluded.successes"
)
_SAVE_DIAGNOSIS: Final = "INSERT INTO diagnoses (evidence, record) VALUES (?, ?) ON CONFLICT (evidence) DO NOTHING"
_FORGET_DIAGNOSES: Final = (
    "DELETE FROM diagnoses WHERE id IN (SELECT id FROM diagnoses ORDER BY id DESC LIMIT -1 OFFSET ?)"
)
_ENQUEUE: Final = "INSERT INTO outbox (key, path, body) VALUES (?, ?, ?) ON CONFLICT (key) DO NOTHING"
_HEAD: Final = (
    "SELECT key, path, body, attempts, tried_at, next_at FROM outbox"
    " WHERE state = 'pending' AND (path GLOB 'http*') = ? ORDER BY id LIMIT 1"
)
_WAITING: Final = "SELECT path, count(*) FROM outbox WHERE state = 'pending' GROUP BY path"
_NOTE_FAILURE: Final = (
    "UPDATE outbox SET attempts = attempts + 1, error = ?, tried_at = ?, next_at = ?"
    " WHERE key = ? AND state = 'pending'"
)
_SETTLE: Final = (
    "UPDATE outbox SET state = ?, error = ?, body = CASE ? WHEN 'refused' THEN body ELSE x'' END"
    " WHERE key = ? AND state = 'pending' RETURNING path"
)
_DROP_OLDEST: Final = (
    "UPDATE outbox SET state = 'dropped', body = x'' WHERE id IN"
    " (SELECT id FROM (SELECT id, row_number() OVER (PARTITION BY path GLOB 'http*' ORDER BY id DESC) AS newest"
    " FROM outbox WHERE state = 'pending') WHERE newest > ?) RETURNING path"
)
_FORGET_SETTLED: Final = (
    "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox"
    " WHERE state IN ('delivered', 'dropped') ORDER BY id DESC LIMIT -1 OFFSET ?)"
)
_FORGET_REFUSED: Final = (
    "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox WHERE state = 'refused' ORDER BY id DESC LIMIT -1 OFFSET ?)"
)
_COUNT: Final = "INSERT INTO counters (name, n) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET n = n + excluded.n"


def _total(lane: Lane, of: str) -> str:
    """Name a counter. Those without a receiver are older, and of both: no longer read."""
    return f"{lane.value} {of}"


def _json(record: msgspec.Struct) -> str:
    return msgspec.json.encode(record).decode()


def _row(item: Pattern) -> tuple[str, str, int, str]:
    return item.id, item.endpoint, item.last_seq, _json(item)


def _read_all(connection: sqlite3.Connection) -> None:
    """Read every table as it will be read.

    :raises StoreDamaged: a record does not say what it should.
    """
    restored(playbook_rows(connection.execute(PLAYBOOK)))
    patterns = _decoded(connection.execute("SELECT record FROM patterns"), _patterns)
    diagnoses = _decoded(connection.execute("SELECT record FROM diagnoses"), _diagnoses)
    for _read in chain(patterns, diagnoses, *map(connection.execute, _READ_REST)):
        pass


def _decoded(rows: Iterable[tuple[str]], decoder: msgspec.json.Decoder[Record]) -> Iterator[Record]:
    try:
        for (record,) in rows:
            yield decoder.decode(record)
    except UNREADABLE as error:
        raise StoreDamaged(f"a record is not a {decoder.type.__name__}: {error}") from error
