"""Blocks: the smallest parts of the journal that are read by themselves, wherever they are stored.

A `Span` says where a block lies and what it can hold; `BlockStore` finds the spans of a segment (from its side file,
or by reading the segment when that is missing or wrong) and reads them. Safe to use from several threads.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import monotonic
from typing import Final

from msgspec import Struct

from observer_actors.journal.catalog import Active, Segment
from observer_actors.journal.files import Around, Disk, Readable, chunks, is_rotten
from observer_actors.journal.format import (
    BLOCK_BYTES,
    UNREADABLE,
    Block,
    Paths,
    SegmentIndex,
    decode_index,
)
from observer_actors.journal.lines import (
    Head,
    decode_good_heads,
    decode_head,
    decode_ops,
    decode_record,
    event_times,
)
from observer_actors.journal.places import in_place
from observer_actors.journal.recovery import Mark, scanned
from observer_actors.journal.times import Times, overlap
from observer_actors.op import Op

ROTTEN_S: Final = 5.0
"""After so long a place of a sealed segment that cannot be read is damaged. Before, the disk may be out of reach for a
moment: readers try again, and the actors' backoff is longer than this. Consumers pass over damage, and for good."""
GIVEN_UP_S: Final = 3_600.0
"""So long no compaction asks for a segment again that could not be read: each try costs the disk seconds."""
WHOLE: Final = -3
"""In the stead of a place: all of a file. Who reads that is not content with what a reader was given."""
_INDEXES_MAX: Final = 64
"""Segments whose block index is held in memory: about 50 KB each."""


class BlockStale(Exception):
    """What was read is not the block that was looked for: the file was sealed, compressed or removed, or is damaged."""


class Span(Struct, frozen=True):
    """Where a block is, and which ops it may hold."""

    path: Path
    offset: int
    stored_bytes: int
    first_seq: int
    """Behind the last good op of the block before: what its own first line says may have rotted."""
    last_seq: int
    times: Times = ()
    """When its ops happened, where known."""
    crc32: int | None = None
    """Of the plain bytes, where known; known means that the block is compacted."""
    is_compressed: bool = False

    def may_hold(self, since_us: int | None, until_us: int | None) -> bool:
        """Tell whether an op from that time on, and before the other, can be in it."""
        return overlap(self.times, since_us, until_us)


class Patience:
    """Remembers since when each file could not be read. It is handed on from one store to the next."""

    def __init__(self) -> None:
        self._since: dict[Path, tuple[int, float]] = {}
        """File -> the first place that could not be read, and when."""
        self._given_up: dict[Path, float] = {}
        """Segment -> when its compaction was given up."""

    def is_over(self, path: Path, place: int = WHOLE) -> bool:
        """Note that a place of a file cannot be read; say whether that counts as damage by now.

        The first such place begins the wait of `ROTTEN_S`; when it is over, each further one is damage at once.
        """
        now = monotonic()
        _, since = self._since.setdefault(path, (place, now))
        return now - since >= ROTTEN_S

    def was_read(self, path: Path, place: int = WHOLE) -> None:
        """Note that a place can be read: if it is the one that could not be, patience begins anew."""
        if self._since and self._since.get(path, (-2, 0.0))[0] == place:
            del self._since[path]

    def moved(self, source: Path, target: Path) -> None:
        """Note that a file has another name: it has been waited for already, and the next of the old name has not."""
        if source in self._since:
            self._since[target] = self._since.pop(source)

    def give_up(self, path: Path) -> bool:
        """Note that a segment cannot be compacted; say whether that is news."""
        is_news = path not in self._given_up
        self._given_up[path] = monotonic()
        return is_news

    def is_given_up(self, path: Path) -> bool:
        """Say whether that was within `GIVEN_UP_S`."""
        return path in self._given_up and monotonic() - self._given_up[path] < GIVEN_UP_S


class BlockStore:
    """Finds and reads blocks."""

    def __init__(self, disk: Disk, data_dir: Path, patience: Patience | None = None) -> None:
        self._disk = disk
        self._around = Around(disk)
        self._patience = patience or Patience()
        self._paths = Paths(data_dir)
        self._spans: OrderedDict[tuple[Path, int, int], tuple[Span, ...]] = OrderedDict()
        """Path, last seq and size -> blocks: a segment that somebody edits has others."""

    def spans(self, segment: Segment) -> Sequence[Span]:
        """Give the blocks of a sealed segment in order: of a raw one, also where the medium does not give all of it.

        :raises FileNotFoundError: it has been replaced or removed meanwhile.
        :raises BlockStale: the medium has not given it for `ROTTEN_S`; before, it is an `OSError`, as of `read_plain`.
        """
        key = (segment.path, segment.last_seq, self._disk.size(segment.path))
        found = self._spans.get(key)
        if found is None:
            try:
                found = self._find(segment, self._disk)
            except OSError as error:
                if not self._is_damage(segment.path, -1, error):
                    raise
                if segment.entry is not None:
                    raise BlockStale(f"{segment.path.name} cannot be read: {error}") from error
                found = self._find(segment, self._around)
            else:
                self._patience.was_read(segment.path, -1)
            self._spans[key] = found
            while len(self._spans) > _INDEXES_MAX:
                self._spans.popitem(last=False)
        return found

    def active_spans(self, active: Active) -> list[Span]:
        """Give the durable blocks of the active file in order."""
        marks = [mark for mark in active.marks if mark.offset < active.durable_bytes]
        return list(_spans_between(active.path, marks, active.durable_bytes, active.last_seq))

    def read_plain(self, span: Span) -> bytes:
        """Give the lines of a block, as they are stored: nothing has been compared with its checksum.

        Of plain ones, those around a place that the medium does not give for `ROTTEN_S`.

        :raises BlockStale: they are not there, or cannot be decompressed.
        """
        try:
            stored = self._disk.read(span.path, span.offset, span.stored_bytes)
            self._patience.was_read(span.path, span.offset)
            if len(stored) < span.stored_bytes:
                raise BlockStale(f"{span.path.name} ends before byte {span.offset + span.stored_bytes}")
            return zlib.decompress(stored, wbits=31) if span.is_compressed else stored
        except FileNotFoundError as error:
            raise BlockStale(f"{span.path.name} is gone") from error
        except OSError as error:
            if not self._is_damage(span.path, span.offset, error):
                raise
            if span.is_compressed:
                raise BlockStale(f"{span.path.name} cannot be read: {error}") from error
            return self._around.read(span.path, span.offset, span.stored_bytes)
        except zlib.error as error:
            raise BlockStale(f"{span.path.name} at byte {span.offset}: {error}") from error

    def read_ops(self, span: Span, *, trusting: bool = False) -> tuple[list[Op], int]:
        """Give the ops of a block in order, and the number of bad lines passed over.

        :param trusting: take what can be read although it is not as the index says: it is damaged.
        :raises BlockStale: as `read_plain`; and, unless trusting, when the block is not the one of the index.
        """
        plain = self.read_plain(span)
        ops, bad = decode_ops(plain)
        begins = bool(ops) and ops[0].seq == span.first_seq
        is_wanted = begins if span.crc32 is None else zlib.crc32(plain) == span.crc32
        if not is_wanted and not trusting:
            raise BlockStale(f"{span.path.name} at byte {span.offset}: not what the index says")
        if not _follow(ops, span.first_seq) or len(ops) > span.last_seq - span.first_seq + 1:
            ops, bad = in_place(decode_record, plain, span.first_seq)
            ops = [op for op in ops if span.first_seq <= op.seq <= span.last_seq]
        return ops, bad

    def _is_damage(self, path: Path, offset: int, error: OSError) -> bool:
        """Tell whether a place of a sealed segment has been unreadable for so long that it is as good as rotten."""
        return path != self._paths.active and is_rotten(error) and self._patience.is_over(path, offset)

    def _find(self, segment: Segment, disk: Readable) -> tuple[Span, ...]:
        if segment.entry is None:
            marks, end = contents(disk, segment)
            return tuple(_spans_between(segment.path, marks, end, segment.last_seq))
        index = stored_index(self._disk, self._paths, segment.first_seq)
        is_as_written = self._disk.size(segment.path) == segment.entry.stored_bytes
        if index is None or index.entry != segment.entry or not is_as_written:
            return tuple(self._rebuilt(segment))
        spans: list[Span] = []
        due = segment.first_seq
        for block, times in zip(index.blocks, index.times, strict=True):
            spans.append(_span(segment, block, times, due))
            due = max(due, spans[-1].last_seq + 1)
        return tuple(spans)

    def _rebuilt(self, segment: Segment) -> Iterator[Span]:
        """Find the blocks of a segment by reading it; what stands behind damage is given as one unreadable span."""
        end, due = 0, segment.first_seq
        try:
            for offset, stored, plain in members(self._disk, segment.path):
                facts = describe_block(offset, len(stored), plain, due)
                span = _span(segment, facts.block, facts.times, due)
                end, due = offset + len(stored), max(due, span.last_seq + 1)
                yield span
        except zlib.error:
            yield unreadable(segment, end, due)
        else:
            if segment.entry is not None and end < segment.entry.stored_bytes and due <= segment.last_seq:
                yield unreadable(segment, end, due)  # cut between two blocks


def stored_index(disk: Disk, paths: Paths, first_seq: int) -> SegmentIndex | None:
    """Read the side file of a segment, which may be about another file; None when it cannot be read, or is damaged."""
    path = paths.index(first_seq)
    try:
        return decode_index(disk.read(path, 0, disk.size(path)))
    except (OSError, *UNREADABLE):
        return None


def contents(disk: Readable, segment: Segment) -> tuple[Sequence[Mark], int]:
    """Give the sparse index of a raw segment, and where its lines end: by reading it, unless that is known already."""
    if segment.marks is not None:
        return segment.marks, segment.bytes
    found = scanned(chunks(disk, segment.path, 0, segment.bytes), segment.first_seq, segment.last_seq + 1)
    return found.marks, found.size


def _follow(records: Sequence[Op | Head], first_seq: int) -> bool:
    """Tell whether the seqs count from the first on without a gap."""
    return [record.seq for record in records] == list(range(first_seq, first_seq + len(records)))


def _spans_between(path: Path, marks: Sequence[Mark], end: int, last_seq: int) -> Iterator[Span]:
    for at, mark in enumerate(marks):
        following = marks[at + 1] if at + 1 < len(marks) else Mark(end, last_seq + 1)
        bytes_ = following.offset - mark.offset
        yield Span(path, mark.offset, bytes_, mark.first_seq, following.first_seq - 1, mark.times)


def unreadable(segment: Segment, offset: int, first_seq: int) -> Span:
    """Stand for the rest of a segment that cannot be read: no bytes have this checksum and this length."""
    return Span(segment.path, offset, 1, first_seq, segment.last_seq, crc32=-1, is_compressed=True)


def _span(segment: Segment, block: Block, times: Times, due: int) -> Span:
    return Span(
        segment.path,
        block.offset,
        block.stored_bytes,
        due,
        min(block.last_seq, segment.last_seq),  # one that has rotted must not hide the segments that follow
        times,
        block.crc32,
        segment.path.suffix == ".gz",
    )


def members(disk: Disk, path: Path, offset: int = 0) -> Iterator[tuple[int, bytes, bytes]]:
    """Cut a stored segment into its blocks by reading it: offset, stored bytes, plain bytes of each.

    :param offset: where one begins.
    :raises zlib.error: a compressed segment is damaged, behind the last that was given.
    """
    size = disk.size(path)
    if path.suffix != ".gz":
        yield from ((begin, chunk, chunk) for begin, chunk in chunks(disk, path, offset, size))
        return
    while offset < size:
        stored, plain = _member(disk, path, offset)
        yield offset, stored, plain
        offset += len(stored)


def _member(disk: Disk, path: Path, offset: int) -> tuple[bytes, bytes]:
    inflate = zlib.decompressobj(wbits=31)
    stored = plain = b""
    while not inflate.eof:
        piece = disk.read(path, offset + len(stored), BLOCK_BYTES)
        if not piece:
            raise zlib.error("it ends too early")
        plain += inflate.decompress(piece)
        stored += piece[: len(piece) - len(inflate.unused_data)]
    return stored, plain


class BlockFacts(Struct, frozen=True):
    """A block, and what the segment's entry sums up besides."""

    block: Block
    bad: int
    first_recorded_at: str
    last_recorded_at: str
    times: Times
    """When its ops happened."""


def describe_block(offset: int, stored_bytes: int, plain: bytes, due: int) -> BlockFacts:
    """Say what a block holds. One without any record says seq 0.

    :param due: the seq that its first line must have, by what lies before it.
    """
    ops, bad = decode_good_heads(plain)
    if ops and not _follow(ops, ops[0].seq):
        ops, bad = in_place(decode_head, plain, due)
    times = event_times(ops)
    block = Block(
        offset=offset,
        stored_bytes=stored_bytes,
        plain_bytes=len(plain),
        first_seq=ops[0].seq if ops else 0,
        last_seq=ops[-1].seq if ops else 0,
        ops=len(ops),
        min_time_us=times[0] if times else 0,
        max_time_us=times[-1] if times else 0,
        crc32=zlib.crc32(plain),
    )
    return BlockFacts(block, bad, ops[0].recorded_at if ops else "", ops[-1].recorded_at if ops else "", times)
