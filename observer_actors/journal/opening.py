"""Putting a data directory in order before a writer starts: the shell around `surveying` and `recovery`.

Every step can be repeated: a crash between two of them leaves what the next start sees to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from itertools import chain
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from observer_actors.errors import FormatUnknown
from observer_actors.journal.blocks import BlockStale, BlockStore, Patience, Span
from observer_actors.journal.catalog import Catalog, Snapshot
from observer_actors.journal.files import Around, Disk, Readable, aside, chunks, replace_file, replacing, write_all
from observer_actors.journal.format import BLOCK_BYTES, Paths, encode_manifest
from observer_actors.journal.lines import split_lines
from observer_actors.journal.surveying import Survey, Tail, survey
from observer_actors.op import decode_op
from observer_actors.problems import UNREADABLE

REPORTED_MAX: Final = 100
"""Damaged lines that a report names one by one; the rest is counted."""


class TornTail(Struct, frozen=True):
    """The end of a file that a crash left unfinished: never acknowledged, set aside."""

    file: str
    offset: int
    bytes: int
    reason: str
    set_aside_as: str


class DamagedLine(Struct, frozen=True):
    """A bad line among acknowledged ones: left where it is."""

    file: str
    offset: int
    reason: str


class RecoveryReport(Struct, frozen=True, kw_only=True):
    """Facts about one start, for the log."""

    last_seq: int
    segments: int
    active_bytes: int
    torn: tuple[TornTail, ...] = ()
    unacknowledged_bytes: int = 0
    """Cut because the caller will write those ops anew."""
    damaged_lines: int = 0
    damage: tuple[DamagedLine, ...] = ()
    """The first 100 of them."""
    missing_ops: int = 0
    """Acknowledged, and in no file any more."""
    manifest_problem: str = ""
    problems: tuple[str, ...] = ()

    @property
    def is_clean(self) -> bool:
        """Nothing is torn, damaged or missing."""
        return not (self.torn or self.damaged_lines or self.missing_ops or self.manifest_problem or self.problems)


class Opened(Struct, frozen=True):
    """A directory in order."""

    catalog: Catalog
    report: RecoveryReport
    ids: dict[str, int]
    """Id -> seq of the newest ops, oldest first: at least the window asked for."""


def open_directory(
    disk: Disk, data_dir: Path, unacknowledged_from: int | None, window_ops: int, patience: Patience | None = None
) -> Opened:
    """Recover.

    :param unacknowledged_from: ops of this seq and later were never acknowledged and will be written anew.
    :param window_ops: how many newest ops to give the ids of.
    :param patience: of those who opened it before, with places that cannot be read.
    :raises FormatUnknown: a newer version wrote this directory.
    :raises OSError: the disk fails.
    """
    paths = Paths(data_dir)
    disk.make_directories(paths.segments)
    patience = patience or Patience()
    found = survey(disk, data_dir, unacknowledged_from, window_ops, patience)
    _store_manifest(disk, paths, found)
    # The newest file last: until it is cut, a new look at a crash in between finds the same tails again.
    torn = [done for tail in reversed(found.tails) for done in _mend_tail(disk, paths, tail)]
    scarred = next((tail for tail in found.tails if tail.is_scarred and tail.path == paths.active), None)
    if scarred is not None and not scarred.is_empty:
        target = _seal(disk, paths, scarred)
        patience.moved(paths.active, target)
        again = open_directory(disk, data_dir, unacknowledged_from, window_ops, patience)
        return msgspec.structs.replace(again, report=_sealed_first(_report(found, torn), again.report, target))
    _ready_active(disk, paths)
    catalog = Catalog(found.snapshot)
    store = BlockStore(disk, data_dir, patience)
    return Opened(catalog, _report(found, torn), _ids(store, found, window_ops))


def _sealed_first(before: RecoveryReport, again: RecoveryReport, target: Path) -> RecoveryReport:
    """Tell of a start that had to seal the active file and to look once more, what it did before included."""
    return msgspec.structs.replace(
        again,
        torn=before.torn + again.torn,
        unacknowledged_bytes=before.unacknowledged_bytes + again.unacknowledged_bytes,
        problems=(f"a place of the active file cannot be read: it is sealed as {target.name}", *again.problems),
    )


def refuse_seeds_file(disk: Disk, data_dir: Path) -> None:
    """Refuse a directory whose active file is the one of observer.ts, the program that this one replaces.

    It has the same name, and lines without a seq: a recovery would take all of them for damage. A journal is read no
    further than to its first good line.

    :raises FormatUnknown: it is.
    """
    active = Paths(data_dir).active
    with suppress(OSError):  # no file, or a disk that refuses: for those who open it
        if _is_seeds(disk, active):
            raise FormatUnknown(
                f"{active} was written by observer.ts, and is no journal of this program",
                hint="move it out of the data directory, start, and bring it in with `observer-actors import`",
            )


def _is_seeds(disk: Disk, path: Path) -> bool:
    found = False
    for _, chunk in chunks(disk, path, 0, disk.size(path)):
        for _, line in split_lines(chunk):
            with suppress(*UNREADABLE):
                op = decode_op(line)
                if op.seq or op.recorded_at:
                    return False
                found = True
    return found


def set_aside(disk: Disk, paths: Paths, source: Path, start: int, end: int) -> str:
    """Copy bytes of a file to the next free ``ops.jsonl.torn-<n>``, durably, and give that name.

    Again is harmless: what could not be cut afterwards has its copy already.
    """
    copies = [paths.observer / name for name in disk.list(paths.observer) if name.startswith("ops.jsonl.torn-")]
    done = next((copy for copy in copies if _is_copy(disk, copy, source, start, end)), None)
    if done is not None:
        return done.name
    target = aside(disk, paths.active, "torn")
    with replacing(disk, target, paths.observer / "ops.jsonl.torn.tmp") as file:
        for _, piece in _pieces(Around(disk), source, start, end):
            write_all(file, piece)
    disk.sync_directory(paths.observer)
    return target.name


def _is_copy(disk: Disk, copy: Path, source: Path, start: int, end: int) -> bool:
    """Tell whether a file holds just these bytes of another. One that cannot be read is as good as none."""
    pieces = _pieces(Around(disk), source, start, end)
    try:
        return disk.size(copy) == end - start and all(
            piece == disk.read(copy, offset - start, len(piece)) for offset, piece in pieces
        )
    except OSError:
        return False


def _pieces(disk: Readable, source: Path, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Give bytes of a file, a block at a time, with their offsets."""
    for offset in range(start, end, BLOCK_BYTES):
        yield offset, disk.read(source, offset, min(BLOCK_BYTES, end - offset))


def _store_manifest(disk: Disk, paths: Paths, found: Survey) -> None:
    """Write a manifest where there is none, and in the place of a damaged one, which is kept beside it."""
    if found.manifest_problem and found.manifest_found:
        disk.rename(paths.manifest, aside(disk, paths.manifest, "damaged"))
    if found.manifest_problem or not found.manifest_found:
        replace_file(disk, paths.manifest, encode_manifest(found.snapshot.manifest))


def _mend_tail(disk: Disk, paths: Paths, tail: Tail) -> Iterator[TornTail]:
    """Cut a file to what is kept; an empty segment is removed, for the next file takes its first seq."""
    keep = tail.plan.keep_bytes
    if tail.plan.torn is not None:
        name = set_aside(disk, paths, tail.path, keep, tail.size)
        yield TornTail(tail.path.name, keep, tail.plan.torn_bytes, tail.plan.torn.reason, name)
    if tail.path != paths.active and not keep:
        disk.remove(tail.path)
        disk.sync_directory(tail.path.parent)
    elif keep < tail.size or tail.path != paths.active:  # the active file is synced in any case
        with closing(disk.open_append(tail.path, create=False)) as file:
            file.truncate(keep)
            file.datasync()


def _seal(disk: Disk, paths: Paths, tail: Tail) -> Path:
    """Make a segment of an active file with a place that cannot be read: of a segment, readers pass over that."""
    target = paths.raw(tail.scan.first_seq)
    disk.rename(tail.path, target)
    disk.sync_directory(paths.segments)
    disk.sync_directory(paths.observer)
    return target


def _ready_active(disk: Disk, paths: Paths) -> None:
    """Make the active file if it is missing, and see that what a killed process wrote is on disk before it counts."""
    with closing(disk.open_append(paths.active, create=True)) as file:
        file.datasync()
    disk.sync_directory(paths.observer)


def _report(found: Survey, torn: list[TornTail]) -> RecoveryReport:
    damage = [
        DamagedLine(tail.path.name, flaw.offset, flaw.reason) for tail in found.tails for flaw in tail.plan.damage
    ]
    return RecoveryReport(
        last_seq=found.snapshot.last_seq,
        segments=len(found.snapshot.segments),
        active_bytes=found.snapshot.active.durable_bytes,
        torn=tuple(torn),
        unacknowledged_bytes=sum(tail.plan.unacknowledged_bytes for tail in found.tails),
        damaged_lines=len(damage),
        damage=tuple(damage[:REPORTED_MAX]),
        missing_ops=found.snapshot.missing_ops,
        manifest_problem=found.manifest_problem,
        problems=found.problems,
    )


def _ids(store: BlockStore, found: Survey, window_ops: int) -> dict[str, int]:
    """Give the ids of the newest ops, and the seq of each, in the order of the seqs.

    What lies before the tails, which have been scanned, is read as far as the window reaches.
    """
    last_seq = found.snapshot.last_seq
    scanned_from = min((tail.scan.first_seq for tail in found.tails if tail.scan.good), default=last_seq + 1)
    older = list(_older_ids(store, found.snapshot, scanned_from, last_seq - window_ops))
    newest = (tail.scan.ids for tail in reversed(found.tails))
    ids: dict[str, int] = {}
    for seq, id_ in chain.from_iterable([*reversed(older), *newest]):
        ids.pop(id_, None)  # one that came again, outside the window of its time, has its place by the newer op
        ids[id_] = seq
    return ids


def _older_ids(store: BlockStore, snapshot: Snapshot, before: int, after: int) -> Iterator[list[tuple[int, str]]]:
    """Give the ids of each block below `before` and above `after`, newest block first."""
    for segment in reversed(snapshot.segments):
        if segment.last_seq <= after:
            return
        spans: Sequence[Span] = ()
        with suppress(BlockStale):  # damaged: whatever ids it held are lost with it, and the reader counts it
            spans = store.spans(segment)
        for span in reversed(spans):
            if after < span.last_seq and span.first_seq < before:
                with suppress(BlockStale):  # the same
                    ops, _ = store.read_ops(span, trusting=True)
                    yield [(op.seq, op.id) for op in ops if isinstance(op.id, str)]
