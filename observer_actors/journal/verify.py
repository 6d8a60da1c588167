"""Checking a data directory: every line, checksum and file against the specification in `format`.

Reads, and changes nothing. Works block by block on a stopped directory, and on one that a daemon writes: each file is
judged by itself, and when files were sealed, compacted or removed meanwhile, the one in hand is judged again.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Final

from msgspec import Struct

from observer_actors.journal.blocks import members, stored_index
from observer_actors.journal.catalog import Active, Segment
from observer_actors.journal.deduplication import IdWindow
from observer_actors.journal.files import Disk, PosixDisk, chunks, is_rotten, translated
from observer_actors.journal.format import BLOCK_BYTES, Paths, SegmentEntry
from observer_actors.journal.judging import Finding, Findings, LineJudge, Position, Severity
from observer_actors.journal.lock import directory_in_use
from observer_actors.journal.surveying import Survey, counted_seq, undisturbed_survey
from observer_actors.visible import visible


class VerifyReport(Struct, frozen=True, kw_only=True):
    """What was found."""

    findings: tuple[Finding, ...]
    """The first 1,000."""
    damage: int
    """All findings of that severity."""
    notices: int
    ops: int
    segments: int
    stored_bytes: int
    first_seq: int
    """Oldest op kept; 0 for none."""
    last_seq: int
    in_use: bool
    """A daemon was writing meanwhile."""

    @property
    def is_damaged(self) -> bool:
        """Something acknowledged is lost, doubled or unprotected."""
        return self.damage > 0


def verify(
    data_dir: Path,
    *,
    disk: Disk | None = None,
    in_use: bool | None = None,
    dedup_window_ops: int = 100_000,
    progress: Callable[[int, int], None] | None = None,
) -> VerifyReport:
    """Check a data directory.

    :param disk: the real one unless given.
    :param in_use: whether a daemon writes there; found out by its lock unless given.
    :param dedup_window_ops: an id that comes twice within so many ops is worth a notice (the window is a setting, so
        that it may have been smaller when they were written).
    :param progress: called with bytes done and bytes in all, about once for each 256 KiB of lines.
    :raises FormatUnknown: a newer version wrote it.
    :raises DiskFailed: it cannot be read.
    """
    ask = partial(directory_in_use, data_dir) if in_use is None else lambda: in_use
    with translated("verifying the journal"):
        run = _Verification(disk or PosixDisk(), data_dir, progress, ask)
        return run.run(dedup_window_ops)


class _Verification:
    """One run."""

    def __init__(
        self,
        disk: Disk,
        data_dir: Path,
        progress: Callable[[int, int], None] | None,
        is_in_use: Callable[[], bool],
    ) -> None:
        self._disk = disk
        self._data_dir = data_dir
        self._paths = Paths(data_dir)
        self._progress = progress
        self._is_in_use = is_in_use
        self._was_in_use = is_in_use()
        self._findings = Findings()
        self._bytes_done = 0
        self._bytes_total = 0

    def run(self, window_ops: int) -> VerifyReport:
        found = self._look()
        held = found.snapshot
        self._bytes_total = held.active.durable_bytes + sum(segment.stored_bytes for segment in held.segments)
        self._judge_manifest(found)
        position = Position(held.manifest.removed_through + 1, IdWindow(window_ops))
        segments = 0
        file: Segment | Active | None = None
        while not isinstance(file, Active):
            following = _following(found, 0 if file is None else file.first_seq)
            judged = self._judge(following, position)
            if judged is None or (isinstance(following, Active) and self._is_replaced(following)):
                found = self._look()
                position.expected = max(position.expected, found.snapshot.manifest.removed_through + 1)
                continue
            position, findings = judged
            self._findings.take(findings)
            segments += isinstance(following, Segment)
            file = following
        self._judge_surroundings(found)
        self._judge_end(position.expected - 1)
        return self._report(position, segments)

    @property
    def _in_use(self) -> bool:
        """A daemon writes there, or was seen to: asked each time, for one may start in the midst of a run."""
        self._was_in_use = self._was_in_use or self._is_in_use()
        return self._was_in_use

    def _look(self) -> Survey:
        return undisturbed_survey(self._disk, self._data_dir)

    def _is_replaced(self, active: Active) -> bool:
        """Tell whether the active file was sealed: what was read under its name may be its successor."""
        return self._in_use and self._look().snapshot.active.first_seq != active.first_seq

    def _judge(self, file: Segment | Active, position: Position) -> tuple[Position, Findings] | None:
        """Judge one file; None when it is gone, because a daemon has replaced or removed it."""
        position, findings = position.copy(), Findings()
        try:
            if isinstance(file, Active):
                self._judge_plain(file.path, file.durable_bytes, file.last_seq, position, findings)
            elif file.entry is None:
                self._judge_plain(file.path, file.bytes, file.last_seq, position, findings)
            else:
                self._judge_compacted(file, file.entry, position, findings)
        except FileNotFoundError:
            if not self._in_use:
                raise
            return None
        except OSError as error:
            if not is_rotten(error):
                raise
            findings.add(_finding("damage", self._name(file.path), f"cannot be read to its end: {error.strerror}"))
            position.expected = max(position.expected, file.last_seq + 1)
        return position, findings

    def _judge_plain(self, path: Path, end: int, last_seq: int, position: Position, findings: Findings) -> None:
        lines = LineJudge(self._name(path), position, findings, last_seq)
        for _, chunk in chunks(self._disk, path, 0, end):
            lines.take(chunk)
            self._advance(len(chunk))
        if lines.residue_at is not None:
            what = "residue of a failed commit follows, which is no part of the journal"
            findings.add(_finding("notice", self._name(path), what, lines.residue_at))
        lines.finish()

    def _judge_compacted(self, segment: Segment, entry: SegmentEntry, position: Position, findings: Findings) -> None:
        name = self._name(segment.path)
        lines = LineJudge(name, position, findings, segment.last_seq)
        digest = sha256()
        size, ops_before = 0, position.ops
        for stored, plain, problem in _blocks(self._disk, segment.path):
            digest.update(stored)
            if problem:
                findings.add(_finding("damage", name, f"a block cannot be decompressed: {problem}", size))
            lines.take(plain)
            size += len(stored)
            self._advance(len(stored))
        lines.finish()
        if digest.hexdigest() != entry.sha256:
            what = f"its bytes ({size}) are not those of the manifest ({entry.stored_bytes}): the SHA-256 differs"
            findings.add(_finding("damage", name, what))
        elif position.ops - ops_before != entry.ops:
            what = f"holds {position.ops - ops_before} ops, and {entry.ops} by the manifest"
            findings.add(_finding("damage", name, what))
        index = stored_index(self._disk, self._paths, entry.first_seq)
        if index is None or index.entry != entry:
            if self._in_use and entry not in self._look().snapshot.manifest.segments:
                raise FileNotFoundError(f"{name} was removed")
            what = "the block index is missing or wrong: reading is slower, nothing is lost"
            findings.add(_finding("notice", self._name(self._paths.index(entry.first_seq)), what))

    def _judge_manifest(self, found: Survey) -> None:
        if found.manifest_problem:
            self._findings.add(_finding("damage", self._name(self._paths.manifest), found.manifest_problem))
        for problem in found.problems:
            self._findings.add(_finding("damage", "segments", problem))

    def _judge_surroundings(self, found: Survey) -> None:
        """Say what stands behind the last op and beside the files. A daemon at work has such things for a moment."""
        if not self._in_use:
            for tail in found.tails:
                if tail.plan.torn is not None:
                    what = f"torn tail of {tail.plan.torn_bytes} bytes, never acknowledged: {tail.plan.torn.reason}"
                    self._findings.add(_finding("notice", self._name(tail.path), what, tail.plan.keep_bytes))
        for name in map(visible, self._disk.list(self._paths.observer)):
            if ".torn-" in name:
                self._findings.add(_finding("notice", name, "bytes of a torn commit, set aside by a recovery"))
            if name.startswith(f"{self._paths.counters.name}.foreign-"):
                what = f"the journal once went up to {name.rpartition('-')[2]}, as these counters say, and began anew"
                self._findings.add(_finding("notice", name, what))
        for name in map(visible, self._disk.list(self._paths.segments)):
            if ".damaged-" in name:
                what = "a damaged manifest, set aside and rebuilt"
                self._findings.add(_finding("notice", f"segments/{name}", what))

    def _judge_end(self, last_seq: int) -> None:
        """Say that the journal ends too early, where the saved counters have counted what was behind its end."""
        counted = counted_seq(self._disk, self._paths)
        if counted > last_seq and not self._in_use:
            what = f"ends at {last_seq}, and ops up to {counted} were counted: what was acknowledged between is lost"
            self._findings.add(_finding("damage", self._name(self._paths.active), what))

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self._paths.observer))

    def _advance(self, stored_bytes: int) -> None:
        self._bytes_done += stored_bytes
        if self._progress is not None:
            self._progress(min(self._bytes_done, self._bytes_total), self._bytes_total)

    def _report(self, position: Position, segments: int) -> VerifyReport:
        return VerifyReport(
            findings=tuple(self._findings.named),
            damage=self._findings.counts["damage"],
            notices=self._findings.counts["notice"],
            ops=position.ops,
            segments=segments,
            stored_bytes=self._bytes_done,
            first_seq=position.first_seq,
            last_seq=position.expected - 1,
            in_use=self._in_use,
        )


def _finding(severity: Severity, file: str, what: str, offset: int | None = None) -> Finding:
    return Finding(severity=severity, file=file, what=what, offset=offset)


def _following(found: Survey, first_seq: int) -> Segment | Active:
    """Give the file behind the one that begins with this seq."""
    later = (segment for segment in found.snapshot.segments if segment.first_seq > first_seq)
    return next(later, found.snapshot.active)


_GZIP_HEADER: Final = b"\x1f\x8b\x08\x00"


def _blocks(disk: Disk, path: Path) -> Iterator[tuple[bytes, bytes, str]]:
    """Give stored bytes and lines of each block, and why it cannot be read, if it cannot.

    Behind a damaged block, reading goes on with what looks like the header of the next.
    """
    offset, size = 0, disk.size(path)
    while offset < size:
        try:
            for begin, stored, plain in members(disk, path, offset):
                offset = begin + len(stored)
                yield stored, plain, ""
        except zlib.error as error:
            begin, offset = offset, _next_header(disk, path, offset + 1, size)
            yield disk.read(path, begin, offset - begin), b"", str(error)
        else:
            return  # also where it was cut since


def _next_header(disk: Disk, path: Path, start: int, size: int) -> int:
    """Find what looks like the header of a gzip member; the end of the file where nothing does."""
    for offset in range(start, size, BLOCK_BYTES):
        found = disk.read(path, offset, BLOCK_BYTES + len(_GZIP_HEADER) - 1).find(_GZIP_HEADER)
        if found >= 0:
            return offset + found
    return size
