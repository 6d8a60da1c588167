"""Looking at a data directory: what is there, and what a recovery would do about it. Reads, and changes nothing.

`opening` does what a `Survey` says before a writer starts; `look` is enough for a reader of a directory that is
stopped, or that another process writes.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec
from msgspec import UNSET, Struct

from observer_actors.journal.blocks import BlockFacts, Patience, describe_block, members, stored_index
from observer_actors.journal.catalog import Active, Catalog, Segment, Snapshot
from observer_actors.journal.files import Around, Disk, Readable, chunks, is_rotten, translated
from observer_actors.journal.format import (
    BLOCK_BYTES,
    SEGMENT_NAME,
    UNREADABLE,
    Manifest,
    Paths,
    SegmentEntry,
    SegmentIndex,
    decode_manifest,
)
from observer_actors.journal.lines import decode_head
from observer_actors.journal.recovery import Plan, Scan, last_kept, plan, scanned
from observer_actors.journal.times import union_of
from observer_actors.stats import decode_snapshot

_LOOKS_MAX: Final = 8
"""A writer seals and compacts far more seldom than a look takes; more means that something else is wrong."""


class Tail(Struct, frozen=True):
    """A file that may be the journal's end, and what to do about it."""

    path: Path
    size: int
    scan: Scan
    """Of what is kept; its last seq counts the bad lines that stay at the end."""
    plan: Plan
    is_scarred: bool = False
    """The medium does not give every place of it."""

    @property
    def is_empty(self) -> bool:
        """Nothing is kept of it."""
        return not self.plan.keep_bytes


class Survey(Struct, frozen=True):
    """What lies in a directory."""

    snapshot: Snapshot
    """As it is once the tails have been seen to."""
    tails: tuple[Tail, ...]
    """The active file, if there is one; then each raw segment that is the journal's end in its place."""
    manifest_problem: str = ""
    """Why the manifest was rebuilt; "" when it is good, or when there is none and none is missed."""
    manifest_found: bool = False
    problems: tuple[str, ...] = ()
    """What else is damaged, one sentence each."""


def look(disk: Disk, data_dir: Path) -> Catalog:
    """Build the view of a directory without a writer; it follows what a writer in another process does.

    :raises FormatUnknown: a newer version wrote it.
    :raises DiskFailed: it cannot be read.
    """

    def reload() -> Snapshot:
        with translated("reading the journal"):
            return undisturbed_survey(disk, data_dir).snapshot

    return Catalog(reload(), reload)


def undisturbed_survey(disk: Disk, data_dir: Path) -> Survey:
    """Look until nothing was sealed, compacted or removed meanwhile."""
    directory = Paths(data_dir).segments
    for _ in range(_LOOKS_MAX):
        before = disk.list(directory)
        with suppress(FileNotFoundError):
            found = survey(disk, data_dir)
            if disk.list(directory) == before:
                return found
    return survey(disk, data_dir)


def survey(
    disk: Disk,
    data_dir: Path,
    unacknowledged_from: int | None = None,
    ids_max: int = 0,
    patience: Patience | None = None,
) -> Survey:
    """Look at a directory.

    :param unacknowledged_from: ops of this seq and later will be written anew.
    :param ids_max: how many ids of the tails' newest ops are wanted.
    :param patience: with places that cannot be read; without it, they count as damaged at once.
    :raises FormatUnknown: a newer version wrote it.
    :raises OSError: it cannot be read.
    """
    paths, limits = Paths(data_dir), _Limits(unacknowledged_from, ids_max, patience)
    manifest, found, problem = _read_manifest(disk, paths, limits)
    problems: list[str] = []
    segments, entries = _segments(disk, paths, manifest, problems, limits)
    expected = _expected(segments, manifest, trusted=found and not problem)
    tails, sealed = _tails(disk, paths, expected, segments, limits)
    active = _active(paths, tails, sealed, manifest)
    if tails and tails[-1].path != paths.active and not tails[-1].is_empty:
        sealed.append(_raw(tails[-1]))
    segments = _bounded(disk, sealed, active.first_seq)
    # Without a manifest nothing tells what retention removed from what was lost: believe in retention.
    first = segments[0].first_seq if segments else active.first_seq
    manifest = Manifest(removed_through=first - 1 if problem else manifest.removed_through, segments=entries)
    snapshot = Snapshot(generation=0, segments=tuple(segments), active=active, manifest=manifest)
    return Survey(snapshot, tuple(tails), problem, found, tuple(problems))


class _Limits(Struct, frozen=True):
    """What a scan is for; see `survey`."""

    unacknowledged_from: int | None
    ids_max: int
    patience: Patience | None

    def is_damage(self, path: Path, error: OSError) -> bool:
        """Tell whether what the medium does not give of a file counts as damaged by now."""
        return is_rotten(error) and (self.patience is None or self.patience.is_over(path))

    def was_read(self, path: Path) -> None:
        """Note that a file can be read after all."""
        if self.patience is not None:
            self.patience.was_read(path)


def counted_seq(disk: Disk, paths: Paths) -> int:
    """Give the newest op that was counted: it was acknowledged, wherever the journal ends. 0 where none is known."""
    try:
        data = disk.read(paths.counters, 0, disk.size(paths.counters))
        return decode_snapshot(data).last_seq
    except (OSError, *UNREADABLE):
        return 0


def _tails(
    disk: Disk, paths: Paths, expected: int | None, segments: list[Segment], limits: _Limits
) -> tuple[list[Tail], list[Segment]]:
    """Look at the files that may be the journal's end, newest first, until one holds something; give the others too."""
    tails: list[Tail] = []
    if paths.active.name in disk.list(paths.active.parent):
        tails.append(_active_tail(disk, paths.active, expected, segments, limits))
    sealed = list(segments)
    while (not tails or tails[-1].is_empty) and sealed and sealed[-1].entry is None:
        last = sealed.pop()
        tails.append(_tail(disk, last.path, last.first_seq, limits))
    return tails, sealed


def _read_manifest(disk: Disk, paths: Paths, limits: _Limits) -> tuple[Manifest, bool, str]:
    """Give the manifest, whether there is a file of that name, and what is wrong with it."""
    try:
        data = disk.read(paths.manifest, 0, disk.size(paths.manifest))
    except FileNotFoundError:
        compacted = [name for name in disk.list(paths.segments) if name.endswith((".gz", ".index.json"))]
        return Manifest(), False, "the manifest is missing" if compacted else ""
    except OSError as error:
        if not limits.is_damage(paths.manifest, error):
            raise
        return Manifest(), True, f"the manifest cannot be read: {error.strerror}"
    limits.was_read(paths.manifest)
    try:
        return decode_manifest(data), True, ""
    except UNREADABLE as error:
        return Manifest(), True, f"the manifest is damaged: {error}"


def _segments(
    disk: Disk, paths: Paths, manifest: Manifest, problems: list[str], limits: _Limits
) -> tuple[list[Segment], tuple[SegmentEntry, ...]]:
    """Match the manifest with the files. The last seq of a raw segment is 0: not known yet.

    What the manifest says of a file that is lost stays in it: each start tells of it, its seqs are not given out again,
    and the file may come back from a backup.
    """
    names = set(disk.list(paths.segments))
    folder = paths.segments
    found = {entry.first_seq: _compacted(folder, entry) for entry in manifest.segments if entry.file in names}
    for first_seq, kind in _parsed(names.difference(entry.file for entry in manifest.segments)):
        if first_seq in found or first_seq <= manifest.removed_through:
            continue
        if kind == ".jsonl":
            path = paths.raw(first_seq)
            found[first_seq] = Segment(path=path, first_seq=first_seq, last_seq=0, bytes=disk.size(path))
        elif kind == ".jsonl.gz" and paths.raw(first_seq).name not in names:
            entry_or_problem = _orphan(disk, paths, first_seq, limits)
            if isinstance(entry_or_problem, str):
                problems.append(entry_or_problem)
            else:
                found[first_seq] = _compacted(folder, entry_or_problem)
    segments = [found[first_seq] for first_seq in sorted(found)]
    lost = [entry for entry in manifest.segments if entry.first_seq not in found]
    problems += [f"{entry.file}, which the manifest names, is missing" for entry in lost]
    entries = lost + [segment.entry for segment in segments if segment.entry is not None]
    return segments, tuple(sorted(entries, key=lambda entry: entry.first_seq))


def _parsed(names: Iterable[str]) -> list[tuple[int, str]]:
    matches = (SEGMENT_NAME.fullmatch(name) for name in names)
    return [(int(match["first_seq"]), match["kind"]) for match in matches if match is not None]


def _compacted(folder: Path, entry: SegmentEntry) -> Segment:
    path = folder / entry.file
    return Segment(path=path, first_seq=entry.first_seq, last_seq=entry.last_seq, bytes=entry.bytes, entry=entry)


def _orphan(disk: Disk, paths: Paths, first_seq: int, limits: _Limits) -> SegmentEntry | str:
    """Find out what a compressed segment holds that no manifest names, or say what is wrong with it."""
    path = paths.compressed(first_seq)
    size = disk.size(path)
    index = stored_index(disk, paths, first_seq)
    if index is not None and (index.entry.file, index.entry.stored_bytes) == (path.name, size):
        return index.entry
    try:  # the segment itself says the same, in more time
        entry = index_segment(disk, path, first_seq).entry
    except (zlib.error, ValueError) as error:
        return f"{path.name} is damaged and not in the manifest: {error}"
    except OSError as error:
        if not limits.is_damage(path, error):
            raise
        return f"{path.name} cannot be read, and is not in the manifest: {error.strerror}"
    limits.was_read(path)
    return entry


def index_segment(disk: Disk, path: Path, first_seq: int, last_seq: int | None = None) -> SegmentIndex:
    """Describe a stored segment by reading it, a block at a time.

    :param last_seq: where it ends, if that is known; else it ends with its last op.
    :raises zlib.error: it cannot be decompressed.
    :raises ValueError: where it ends is not known, and it holds no op.
    """
    blocks, digest, due = [], sha256(), first_seq
    for offset, stored, plain in members(disk, path):
        blocks.append(describe_block(offset, len(stored), plain, due))
        due = max(due, blocks[-1].block.last_seq + 1)
        digest.update(stored)
    if last_seq is None:
        last_seq = max(facts.block.last_seq for facts in blocks)
        if not last_seq:
            raise ValueError("it holds no op")
    return describe_segment(path.name, first_seq, last_seq, blocks, digest.hexdigest())


def describe_segment(
    name: str, first_seq: int, last_seq: int, blocks: Sequence[BlockFacts], digest: str
) -> SegmentIndex:
    """Sum up the blocks of a segment."""
    with_ops = [facts for facts in blocks if facts.block.ops]
    times = union_of(facts.times for facts in blocks)
    apart = {number: facts.times for number, facts in enumerate(blocks) if facts.times[2:]}
    entry = SegmentEntry(
        file=name,
        first_seq=first_seq,
        last_seq=last_seq,
        ops=sum(facts.block.ops for facts in blocks),
        damaged=sum(facts.bad for facts in blocks),
        bytes=sum(facts.block.plain_bytes for facts in blocks),
        stored_bytes=sum(facts.block.stored_bytes for facts in blocks),
        sha256=digest,
        min_time_us=times[0] if times else 0,
        max_time_us=times[-1] if times else 0,
        first_recorded_at=with_ops[0].first_recorded_at if with_ops else "",
        last_recorded_at=with_ops[-1].last_recorded_at if with_ops else "",
        time_ranges=times if times[2:] else UNSET,
    )
    return SegmentIndex(entry=entry, blocks=tuple(facts.block for facts in blocks), time_ranges=apart or UNSET)


def _expected(segments: list[Segment], manifest: Manifest, *, trusted: bool) -> int | None:
    """Give the seq that the active file should begin with; None after a raw segment, which would have to be read.

    :param trusted: the manifest is the one that was written.
    """
    if not segments:
        return manifest.removed_through + 1 if trusted else None
    last = segments[-1]
    return last.last_seq + 1 if last.entry is not None else None


def _active_tail(disk: Disk, path: Path, expected: int | None, segments: list[Segment], limits: _Limits) -> Tail:
    """Look at the active file, which begins where the file before it ends: by `expected`, or else by its own lines."""
    tail = _tail(disk, path, expected, limits)
    if not segments:
        return tail if tail.scan.good else _tail(disk, path, expected or 1, limits)
    last = segments[-1]
    if last.entry is not None:
        return _dated(tail, last.entry.last_recorded_at)
    is_before_the_last = tail.scan.first_seq <= last.first_seq
    if not tail.size or not (is_before_the_last or any(flaw.is_whole for flaw in tail.scan.flaws)):
        return tail
    # Its lines may not say where it begins. The raw segment does, but for residue of a failed commit at its end.
    before = _tail(disk, last.path, last.first_seq, limits).scan
    behind = _tail(disk, path, before.last_seq + 1, limits)
    is_better = is_before_the_last or behind.scan.good >= tail.scan.good
    return _dated(behind, before.last_recorded_at) if is_better else tail


def _dated(tail: Tail, before: str) -> Tail:
    """Let a tail without a good line have been recorded when the file before it was."""
    tail.scan.last_recorded_at = tail.scan.last_recorded_at or before
    return tail


def _tail(disk: Disk, path: Path, expected: int | None, limits: _Limits) -> Tail:
    size = disk.size(path)
    try:
        tail = _tail_of(disk, path, size, expected, limits)
    except OSError as error:
        if not limits.is_damage(path, error):
            raise
    else:
        limits.was_read(path)
        return tail
    tail = _tail_of(Around(disk), path, size, expected, limits)
    return msgspec.structs.replace(tail, is_scarred=True)


def _tail_of(disk: Readable, path: Path, size: int, expected: int | None, limits: _Limits) -> Tail:
    bound, ids_max = limits.unacknowledged_from, limits.ids_max
    found = scanned(chunks(disk, path, 0, size), expected, bound, ids_max)
    decided = plan(found, size)
    if decided.torn is not None:
        found = scanned(chunks(disk, path, 0, decided.keep_bytes), expected, bound, ids_max)
    found.last_seq = last_kept(found)
    if bound is not None:
        found.last_seq = min(found.last_seq, bound - 1)
    return Tail(path, size, found, decided)


def _active(paths: Paths, tails: list[Tail], segments: list[Segment], manifest: Manifest) -> Active:
    if tails and tails[0].path == paths.active and not tails[0].is_empty:
        scan = tails[0].scan
        return Active(
            path=paths.active,
            first_seq=scan.first_seq,
            last_seq=scan.last_seq,
            durable_bytes=tails[0].plan.keep_bytes,
            first_recorded_at=scan.first_recorded_at,
            last_recorded_at=scan.last_recorded_at,
            marks=scan.marks,
        )
    last_seq, recorded_at = manifest.removed_through, ""
    if tails and not tails[-1].is_empty:
        last_seq, recorded_at = tails[-1].scan.last_seq, tails[-1].scan.last_recorded_at
    elif segments and segments[-1].entry is not None:
        last_seq, recorded_at = segments[-1].last_seq, segments[-1].entry.last_recorded_at
    if manifest.segments and manifest.segments[-1].last_seq > last_seq:
        # The newest segment is lost. Its seqs were acknowledged: they leave a gap, and are never given out again.
        last_seq, recorded_at = manifest.segments[-1].last_seq, manifest.segments[-1].last_recorded_at
    return Active(path=paths.active, first_seq=last_seq + 1, last_seq=last_seq, last_recorded_at=recorded_at)


def _raw(tail: Tail) -> Segment:
    return Segment(
        path=tail.path,
        first_seq=tail.scan.first_seq,
        last_seq=tail.scan.last_seq,
        bytes=tail.plan.keep_bytes,
        marks=tuple(tail.scan.marks),
    )


def _bounded(disk: Disk, segments: list[Segment], end_seq: int) -> list[Segment]:
    """Give each raw segment its last seq: it ends before the next file begins."""
    bounded: list[Segment] = []
    for segment in reversed(segments):
        last_seq = segment.last_seq or _raw_end(disk, segment, end_seq - 1)
        if last_seq >= segment.first_seq:
            bounded.append(msgspec.structs.replace(segment, last_seq=last_seq))
            end_seq = segment.first_seq
    return bounded[::-1]


def _raw_end(disk: Disk, segment: Segment, most: int) -> int:
    """Tell where a raw segment ends: at `most`, unless its last lines end before, as the file behind it is lost."""
    try:
        data = disk.read(segment.path, max(0, segment.bytes - BLOCK_BYTES), BLOCK_BYTES)
    except OSError as error:
        if is_rotten(error):
            return most
        raise
    found = scanned([(0, data)], segment.first_seq if segment.bytes <= BLOCK_BYTES else None)
    if not found.good or isinstance(decode_head(data[data.rfind(b"\n", 0, -1) + 1 :]), str):
        return most  # residue, or damage: what is missing shows when it is compacted
    return min(most, last_kept(found))
