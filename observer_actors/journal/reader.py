"""Reading the journal by seq, by time and by filter, while it is written, sealed, compacted and retained.

A reader walks blocks, oldest or newest first, and decodes only those that can hold what is asked for. It keeps its
place as a seq: when a file vanishes under it, it takes a new snapshot and goes on from there. It never sees an op that
is not durable, for a snapshot ends at the last durable byte.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Final

from msgspec import Struct

from observer_actors.journal.blocks import BlockStale, BlockStore, Patience, Span, unreadable
from observer_actors.journal.catalog import Catalog, Segment, Snapshot
from observer_actors.journal.files import Disk, translated
from observer_actors.journal.format import event_us
from observer_actors.journal.times import overlap
from observer_actors.labels import LABEL_CHARS_MAX, bounded_endpoint
from observer_actors.op import Op, Seq, text_bytes

SCANNED_OPS_MAX: Final = 200_000
"""Ops that one query looks at: about 0.2 s. A filter that matches nothing must not hold a thread for minutes."""
PAGE_TEXT_BYTES_MAX: Final = 2 * 1024 * 1024
"""What the texts of one page take in memory, together: ops of more than 2,000 characters make the page shorter than
asked for."""
_RETRIES_MAX: Final = 16
"""New snapshots taken for one walk without getting on. Files change a few times a minute at most."""
_DAMAGED_PLACES_MAX: Final = 10_000
_SEQ: Final = attrgetter("seq")


class Query(Struct, frozen=True, kw_only=True):
    """What is asked for: ops that fit every filter given. Bounds exclude, but for `since_us`."""

    source: str | None = None
    endpoint: str | None = None
    """As it was reported; of a long one also as what is learned names it (`labels.bounded_endpoint`)."""
    success: bool | None = None
    since_us: int | None = None
    """Earliest event time, microseconds since 1970. An op whose own time cannot be read counts by `recorded_at`."""
    until_us: int | None = None
    """Before this: what is asked for from here on is the rest."""
    after_seq: int | None = None
    before_seq: int | None = None
    limit: int = 100
    newest_first: bool = True
    scanned_ops_max: int = SCANNED_OPS_MAX

    def fits(self, op: Op) -> bool:
        """Tell whether an op passes the filters; its seq is not looked at."""
        return (
            (self.success is None or op.success == self.success)
            and (self.source is None or op.source == self.source)
            and (self.endpoint is None or op.endpoint == self.endpoint or self._names_long(op.endpoint))
            and ((self.since_us is None and self.until_us is None) or self._fits_time(op))
        )

    def _names_long(self, endpoint: str) -> bool:
        return len(endpoint) > LABEL_CHARS_MAX and bounded_endpoint(endpoint) == self.endpoint

    def _fits_time(self, op: Op) -> bool:
        time = event_us(op.timestamp, op.recorded_at)
        return (self.since_us is None or time >= self.since_us) and (self.until_us is None or time < self.until_us)


class Page(Struct, frozen=True, kw_only=True):
    """A part of the answer to a query."""

    ops: list[Op]
    """In the order asked for."""
    cursor: Seq | None
    """Where to go on, as `before_seq` or `after_seq`; None when nothing more can follow."""
    complete: bool
    """False when the scan was cut short: fewer ops than `limit`, although more may follow."""


class Stretch(Struct, frozen=True):
    """The ops that follow a seq, as far as one read has come."""

    ops: Sequence[Op]
    through: Seq
    """Known up to here: what is not among the ops was deleted, or is damaged. Never before the seq that was asked from;
    and that one itself where the journal ends there, or before."""


class JournalReader:
    """Reads; safe to use from several threads at once.

    :param catalog: the writer's, or one made by `look`.
    :param patience: of those who read before, with places that cannot be read.
    """

    def __init__(self, disk: Disk, data_dir: Path, catalog: Catalog, patience: Patience | None = None) -> None:
        self._catalog = catalog
        self._store = BlockStore(disk, data_dir, patience)
        self._damaged: dict[int, int] = {}
        """First good seq of a block -> bad lines in it. By its end it is not known: the newest block grows."""

    @property
    def first_seq(self) -> Seq:
        """Oldest op that is kept; ``last_seq + 1`` when there is none."""
        return Seq(self._catalog.snapshot().first_seq)

    @property
    def last_seq(self) -> Seq:
        """Newest durable op; 0 for none."""
        return Seq(self._catalog.snapshot().last_seq)

    def get(self, seq: int) -> Op | None:
        """Give one op; None when it is not (or no longer) there.

        :raises DiskFailed: the disk cannot be read.
        """
        found = self.read(seq - 1, 1)
        return found[0] if found and found[0].seq == seq else None

    def read(self, after_seq: int, limit: int) -> list[Op]:
        """Give up to `limit` ops that follow a seq, in order; fewer when texts are long, none at the end.

        :raises DiskFailed: the disk cannot be read.
        """
        return self.query(Query(after_seq=after_seq, limit=limit, newest_first=False, scanned_ops_max=limit)).ops

    def read_block(self, after_seq: int) -> Stretch:
        """Give the next ops that follow a seq, in order: those of the block that holds the first; none at the end.

        Who reads on and on in this way has each block decoded once.

        :raises DiskFailed: the disk cannot be read.
        """
        last_seq = self.last_seq
        with translated("reading the journal"):
            parts = self._walk(after_seq + 1, last_seq, Query(newest_first=False))
            ops = next((part.ops for part in parts if part.ops), [])
        return Stretch(ops, Seq(ops[-1].seq if ops else max(after_seq, last_seq)))

    def query(self, query: Query) -> Page:
        """Give a page of the ops that a query asks for.

        :raises DiskFailed: the disk cannot be read.
        """
        low = 1 if query.after_seq is None else query.after_seq + 1
        last_seq = self.last_seq
        high = last_seq if query.before_seq is None else min(last_seq, query.before_seq - 1)
        with translated("reading the journal"):
            return _collect(query, self._walk(low, high, query))

    @property
    def damaged_lines(self) -> int:
        """How many bad lines were met, each place counted once; an op lost with its block counts as one."""
        return sum(self._damaged.copy().values())

    def _walk(self, low: int, high: int, query: Query) -> Iterator[_Part]:
        """Give the ops from `low` to `high` in the query's order, block by block, without those ruled out by time."""
        retries = 0
        trusted = -1  # a generation: its files are as they are, so what does not fit is damage
        while low <= high:
            snapshot = self._catalog.snapshot()
            try:
                trusting = trusted == snapshot.generation
                for span in self._spans(snapshot, low, high, query, trusting=trusting):
                    ops = _within(self._read(snapshot, span, trusting=trusting), low, high)
                    low, high = (low, span.first_seq - 1) if query.newest_first else (span.last_seq + 1, high)
                    yield _Part(ops if not query.newest_first else ops[::-1], low, high)
                    retries = 0
            except (BlockStale, FileNotFoundError):
                # Changed files: look again from where we are. The same files: damage, so take what can be read.
                retries += 1
                if not self._catalog.newer(snapshot) or retries > _RETRIES_MAX:
                    trusted = self._catalog.snapshot().generation
            else:
                return

    def _spans(self, snapshot: Snapshot, low: int, high: int, query: Query, *, trusting: bool) -> Iterator[Span]:
        for spans in self._groups(snapshot, low, high, query, trusting=trusting):
            for span in reversed(spans) if query.newest_first else spans:
                if span.last_seq < low or span.first_seq > high:
                    continue
                if span.may_hold(query.since_us, query.until_us):
                    yield span

    def _groups(
        self, snapshot: Snapshot, low: int, high: int, query: Query, *, trusting: bool
    ) -> Iterator[Sequence[Span]]:
        """Give the spans of one file after the other, of those that can hold what is asked for."""
        active = snapshot.active
        has_active = active.last_seq >= max(low, active.first_seq) and active.first_seq <= high
        if query.newest_first and has_active:
            yield self._store.active_spans(active)
        segments = _overlapping(snapshot, low, high)
        for segment in reversed(segments) if query.newest_first else segments:
            entry = segment.entry
            if entry is None or overlap(entry.times, query.since_us, query.until_us):
                yield self._segment_spans(snapshot, segment, trusting=trusting)
        if not query.newest_first and has_active:
            yield self._store.active_spans(active)

    def _segment_spans(self, snapshot: Snapshot, segment: Segment, *, trusting: bool) -> Sequence[Span]:
        try:
            return self._store.spans(segment)
        except (BlockStale, FileNotFoundError):
            if not trusting or self._catalog.newer(snapshot):  # it was compacted, or removed, just now
                raise
            return [unreadable(segment, 0, segment.first_seq)]

    def _read(self, snapshot: Snapshot, span: Span, *, trusting: bool) -> list[Op]:
        try:
            ops, bad = self._store.read_ops(span, trusting=trusting)
            if trusting and self._catalog.snapshot().generation != snapshot.generation:
                raise BlockStale(f"{span.path.name} may have been another file")
        except BlockStale:
            if not trusting or self._catalog.newer(snapshot):
                raise
            ops, bad = [], span.last_seq - span.first_seq + 1
        if bad and len(self._damaged) < _DAMAGED_PLACES_MAX:
            self._damaged[ops[0].seq if ops else span.first_seq] = bad
        return ops


class _Part(Struct, frozen=True):
    """One block's ops in the query's order, and the range that remains behind it."""

    ops: list[Op]
    low: int
    high: int


def _overlapping(snapshot: Snapshot, low: int, high: int) -> tuple[Segment, ...]:
    segments = snapshot.segments
    begin = bisect_left(segments, low, key=lambda segment: segment.last_seq)
    end = bisect_right(segments, high, key=lambda segment: segment.first_seq)
    return segments[begin:end]


def _within(ops: list[Op], low: int, high: int) -> list[Op]:
    if not ops or (ops[0].seq >= low and ops[-1].seq <= high):
        return ops
    return ops[bisect_left(ops, low, key=_SEQ) : bisect_right(ops, high, key=_SEQ)]


def _collect(query: Query, parts: Iterator[_Part]) -> Page:
    """Filter until the limit or the budget is reached, or the page is full of text."""
    found: list[Op] = []
    scanned = texts = 0
    if query.limit <= 0:
        return Page(ops=found, cursor=None, complete=True)
    for part in parts:
        for op in part.ops:
            if not query.fits(op):
                continue
            found.append(op)
            texts += text_bytes((op,))
            if len(found) == query.limit or texts >= PAGE_TEXT_BYTES_MAX:
                return Page(ops=found, cursor=Seq(op.seq), complete=True)
        scanned += len(part.ops)
        if scanned >= query.scanned_ops_max and part.low <= part.high:
            cursor = Seq(part.high + 1 if query.newest_first else part.low - 1)
            return Page(ops=found, cursor=cursor, complete=False)
    return Page(ops=found, cursor=None, complete=True)
