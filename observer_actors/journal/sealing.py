"""What happens to sealed segments beside the writing: compaction, retention, and what others do to them.

Run off the commit path, in any thread, but one at a time. Readers and the writer never wait for more than the swap of a
snapshot. Each run first clears up what a crash has left of an earlier one.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from contextlib import closing
from math import inf
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from observer_actors.journal.blocks import Patience, contents
from observer_actors.journal.catalog import Catalog, Segment
from observer_actors.journal.compressing import compress
from observer_actors.journal.files import Disk, chunks, is_full, is_rotten, lost, replace_file, replacing, translated
from observer_actors.journal.format import (
    SEGMENT_NAME,
    Manifest,
    Paths,
    SegmentEntry,
    SegmentIndex,
    encode_index,
    encode_manifest,
    index_name,
    recorded_us,
)
from observer_actors.journal.opening import set_aside
from observer_actors.journal.surveying import describe_segment, index_segment
from observer_actors.settings import JournalSettings

STEADY_S: Final = 600.0
"""So long must the time of day have gone with the monotonic clock before anything is removed by age. One that is wrong
at a start, or is set wrong, is mostly put right by NTP, or noticed, within minutes."""
SLACK_S: Final = 60.0
"""By so much the two may have come apart meanwhile: NTP slews, and has leap seconds."""


class ClockWatch:
    """Tells whether the time of day may be believed: when it is set forward, all that is kept looks old at once."""

    def __init__(self) -> None:
        self._ahead_s, self._since_s = -inf, inf

    def is_steady(self, time_s: float, monotonic_s: float) -> bool:
        """Look at both clocks, once a pass; say whether they have gone together for `STEADY_S`."""
        ahead_s = time_s - monotonic_s
        if abs(ahead_s - self._ahead_s) > SLACK_S:
            self._ahead_s, self._since_s = ahead_s, monotonic_s
        return monotonic_s - self._since_s >= STEADY_S


class Compacted(Struct, frozen=True):
    """A segment that is in the manifest now."""

    entry: SegmentEntry
    residue_bytes: int
    """Left behind its last op by a failed commit; set aside."""
    elsewhere: bool
    """It was compressed by a process of its own, and not by the thread."""


class Removed(Struct, frozen=True):
    """A segment that retention has removed."""

    entry: SegmentEntry
    reason: str


def compact(
    disk: Disk,
    data_dir: Path,
    catalog: Catalog,
    settings: JournalSettings,
    *,
    most: int | None = None,
    patience: Patience | None = None,
    unreadable: Callable[[Segment, OSError], None] = lambda _segment, _error: None,
) -> list[Compacted]:
    """Compress, index and checksum raw segments, oldest first, and clear up leftovers.

    A segment of which the medium stays unable to give every place is left as it is, for readers to take what they can,
    and tried again after an hour (`GIVEN_UP_S`).

    :param most: do so many at most; None does all.
    :param patience: of the readers, with places that cannot be read.
    :param unreadable: told, once, of each that is left, and why.

    What raw files took is given back by `Disk.free`. Memory: a few blocks. Time: about 1 s for 64 MiB, most of
    it another process's.

    :raises DiskFailed: the disk refuses (or DiskFull). Nothing is lost; the next run begins with the same segment.
    """
    paths, patience = Paths(data_dir), patience or Patience()
    with translated("compacting a segment"):
        names = set(disk.list(paths.segments))
        _clear_leftovers(disk, paths, catalog, names)
        _restore_indexes(disk, paths, catalog, names, patience)
        done: list[Compacted] = []
        for segment in catalog.snapshot().segments:
            if segment.entry is not None or len(done) == most or patience.is_given_up(segment.path):
                continue
            try:
                done.append(_compact_one(disk, paths, catalog, segment, compressed=settings.compress))
            except OSError as error:
                if not is_rotten(error) or not patience.is_over(segment.path):
                    raise
                if _can_be_read(disk, segment.path):
                    patience.was_read(segment.path)
                    raise
                if patience.give_up(segment.path):
                    unreadable(segment, error)
            else:
                patience.was_read(segment.path)
        return done


def _can_be_read(disk: Disk, path: Path) -> bool:
    """Read all of a file, to tell a place of its medium that is lost from a disk that refuses."""
    try:
        for _ in chunks(disk, path, 0, disk.size(path)):
            pass
    except OSError as error:
        if is_rotten(error):
            return False
        raise
    return True


def forget_lost(disk: Disk, data_dir: Path, catalog: Catalog) -> int:
    """Let go of segments whose files somebody has removed, as a start would; give their number. Their ops are missing.

    The manifest still names them, so that no start gives their seqs out again. It is written anew, for who has removed
    the folder has removed it too.

    :raises DiskFailed: the disk refuses; the next run lets go of the same.
    """
    paths = Paths(data_dir)
    with translated("looking for the segments"):
        held = catalog.snapshot()  # before the listing: a segment that is sealed meanwhile is not looked for
        names = set(disk.list(paths.segments))
        lost = [segment for segment in held.segments if segment.path.name not in names]
        if lost:
            disk.make_directories(paths.segments)
            replace_file(disk, paths.manifest, encode_manifest(held.manifest))
        for segment in lost:
            catalog.replace((segment,), (), held.manifest)
    return len(lost)


def retain(
    disk: Disk, data_dir: Path, catalog: Catalog, settings: JournalSettings, *, now_us: int | None
) -> list[Removed]:
    """Remove the oldest segments that size or age no longer allow.

    Raw ones wait for their compaction. One that this has left, and that stands before others, has the age of the next;
    one that was recorded in the future, for the clock was ahead, or at no time that can be read, that of its file. On a
    full disk room is made from what can be made anew.

    :param now_us: microseconds since 1970; None where that is not known for sure, and none is removed by its age.
    :raises DiskFailed: the disk refuses; what is half done is finished by the next run.
    """
    paths = Paths(data_dir)
    with translated("removing old segments"):
        removed = _beyond_retention(disk, catalog, settings, now_us)
        if not removed:
            return removed
        held = catalog.snapshot()
        through = removed[-1].entry.last_seq
        kept = tuple(entry for entry in held.manifest.segments if entry.last_seq > through)
        manifest = Manifest(removed_through=through, segments=kept)
        try:
            replace_file(disk, paths.manifest, encode_manifest(manifest))
        except OSError as error:
            if not is_full(error):
                raise
            _make_room(disk, paths, removed)
            replace_file(disk, paths.manifest, encode_manifest(manifest))
        catalog.replace(held.segments[: len(removed)], (), manifest)
        _clear_leftovers(disk, paths, catalog, set(disk.list(paths.segments)))
    return removed


def _make_room(disk: Disk, paths: Paths, going: list[Removed]) -> None:
    """Remove what nobody needs, or can be made anew, so that a full disk takes the manifest that says what goes.

    The segments themselves stay until it is there: a crash before it would leave a gap.
    """
    doomed = {index_name(gone.entry.first_seq) for gone in going}
    for name in disk.list(paths.segments):
        if name in doomed or name.endswith(".tmp"):
            disk.remove(paths.segments / name)
    disk.sync_directory(paths.segments)


def _beyond_retention(disk: Disk, catalog: Catalog, settings: JournalSettings, now_us: int | None) -> list[Removed]:
    snapshot = catalog.snapshot()
    is_active_empty = not snapshot.active.durable_bytes
    candidates = snapshot.segments[:-1] if is_active_empty else snapshot.segments
    stored = sum(segment.stored_bytes for segment in snapshot.segments)
    removed: list[Removed] = []
    for at, segment in enumerate(candidates):
        judged = next((one for one in candidates[at:] if one.entry is not None), None)
        reason = judged and (_too_much(settings, stored) or _too_old(disk, judged, settings, now_us))
        if not reason:
            break
        entry = segment.entry or _raw_entry(segment)
        removed.append(Removed(entry, reason))
        stored -= entry.stored_bytes
    return removed


def _raw_entry(segment: Segment) -> SegmentEntry:
    """Say of a segment that nobody can read what is known."""
    entry = describe_segment(segment.path.name, segment.first_seq, segment.last_seq, (), "").entry
    return msgspec.structs.replace(entry, bytes=segment.bytes, stored_bytes=segment.bytes)


def _too_much(settings: JournalSettings, stored: int) -> str:
    if settings.retained_bytes_max and stored > settings.retained_bytes_max:
        return f"sealed segments take {stored} bytes, {settings.retained_bytes_max} are allowed"
    return ""


def _too_old(disk: Disk, segment: Segment, settings: JournalSettings, now_us: int | None) -> str:
    if not settings.retained_seconds_max or now_us is None or segment.entry is None:
        return ""
    last_us = recorded_us(segment.entry.last_recorded_at)
    if not 0 < last_us <= now_us:
        last_us = disk.modified_us(segment.path)
    age_us = now_us - last_us
    if age_us > settings.retained_seconds_max * 1_000_000:
        return f"its last op is {age_us // 1_000_000} s old, {settings.retained_seconds_max:.0f} are allowed"
    return ""


def _compact_one(disk: Disk, paths: Paths, catalog: Catalog, segment: Segment, *, compressed: bool) -> Compacted:
    raw = segment.path
    _, end = contents(disk, segment)
    residue = max(0, disk.size(raw) - end)  # none where somebody has cut it
    if residue:
        set_aside(disk, paths, raw, end, end + residue)
    elsewhere = False
    if compressed:
        index, elsewhere = _store_compressed(disk, paths, segment, end)
    else:
        index = _leave_plain(disk, paths, segment, end)
    held = catalog.snapshot().manifest
    entries = sorted((*held.segments, index.entry), key=lambda entry: entry.first_seq)
    manifest = Manifest(removed_through=held.removed_through, segments=tuple(entries))
    replace_file(disk, paths.manifest, encode_manifest(manifest))
    stored = Segment(
        path=paths.segments / index.entry.file,
        first_seq=segment.first_seq,
        last_seq=segment.last_seq,
        bytes=end,
        entry=index.entry,
    )
    catalog.replace((segment,), (stored,), manifest)
    if compressed:
        disk.remove(raw, later=True)
        disk.sync_directory(paths.segments)
    return Compacted(index.entry, residue, elsewhere)


def _store_compressed(disk: Disk, paths: Paths, segment: Segment, end: int) -> tuple[SegmentIndex, bool]:
    target = paths.compressed(segment.first_seq)
    with replacing(disk, target) as file:
        done = compress(disk, segment.path, end, file, segment.first_seq)
        index = describe_segment(target.name, segment.first_seq, segment.last_seq, done.blocks, done.sha256)
        replace_file(disk, paths.index(segment.first_seq), encode_index(index))
    disk.sync_directory(paths.segments)
    if disk.size(target) != index.entry.stored_bytes:  # asked before the raw file goes
        raise lost()
    return index, done.elsewhere


def _leave_plain(disk: Disk, paths: Paths, segment: Segment, end: int) -> SegmentIndex:
    """Index a segment that stays as it is, but for its residue.

    Synced also when there is none: a writer whose fdatasync failed has cut the file, and left it at that. A loss of
    power would bring back what was cut.
    """
    with closing(disk.open_append(segment.path, create=False)) as file:
        if file.size() > end:
            file.truncate(end)
        file.datasync()
    index = index_segment(disk, segment.path, segment.first_seq, segment.last_seq)
    replace_file(disk, paths.index(segment.first_seq), encode_index(index))
    return index


def _clear_leftovers(disk: Disk, paths: Paths, catalog: Catalog, names: set[str]) -> None:
    """Remove half-written files, raw files whose compressed form is there, and what retention left over.

    Where the compressed one is lost, somebody has put the raw one back: the next start takes it.
    """
    manifest = catalog.snapshot().manifest
    compacted = {entry.first_seq for entry in manifest.segments if entry.file in names}
    others = names.difference((entry.file for entry in manifest.segments), map(index_name, compacted))
    leftovers = sorted(name for name in others if _is_leftover(name, compacted, manifest.removed_through))
    for name in leftovers:
        disk.remove(paths.segments / name)
    if leftovers:
        disk.sync_directory(paths.segments)


def _is_leftover(name: str, compacted: set[int], removed_through: int) -> bool:
    """Tell whether a file that the manifest does not call for has been replaced, or goes with what was removed."""
    match = SEGMENT_NAME.fullmatch(name)
    first_seq = int(match["first_seq"]) if match else 0
    return name.endswith(".tmp") or first_seq in compacted or 0 < first_seq <= removed_through


def _restore_indexes(disk: Disk, paths: Paths, catalog: Catalog, names: set[str], patience: Patience) -> None:
    """Write block indexes that are missing. One that is wrong is rebuilt by readers in memory, and told by `verify`.

    So is that of a segment that somebody has edited; without it, each run would read the segment anew.
    """
    for segment in catalog.snapshot().segments:
        entry = segment.entry
        if entry is None or index_name(entry.first_seq) in names or entry.file not in names:
            continue
        if patience.is_given_up(segment.path):
            continue
        try:
            index = index_segment(disk, segment.path, segment.first_seq, segment.last_seq)
        except (zlib.error, OSError) as error:
            if isinstance(error, OSError) and not is_rotten(error):
                raise
            patience.give_up(segment.path)  # damaged: that is for `verify` to say
        else:
            replace_file(disk, paths.index(entry.first_seq), encode_index(index))
