"""The one writer: stamps ops, appends them to the active file, and takes back what did not become durable.

Rules:

* Nothing counts before fdatasync has returned; a failure leaves the journal as it was before the commit.
* A failed fdatasync is never retried on the same file: the system may have thrown the pages away and would now
  report success. The file is cut to its last durable byte and sealed, and the batch goes to a new one, once.
* What cannot be mended at once is remembered as a `_Fault`, and mended before the next commit writes.

Plain synchronous code for one thread at a time; `catalog` and `statistics` may be used from any.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Final, Self

from msgspec import UNSET, Struct

from observer_actors.errors import DiskFailed
from observer_actors.journal.blocks import Patience
from observer_actors.journal.catalog import Active, Catalog, Segment
from observer_actors.journal.deduplication import IdWindow, Sifted
from observer_actors.journal.files import AppendFile, Disk, PosixFile, disk_error, lost, translated, write_all
from observer_actors.journal.format import BLOCK_BYTES, Paths, recorded_text, recorded_us
from observer_actors.journal.lines import event_times
from observer_actors.journal.opening import Opened, RecoveryReport, open_directory
from observer_actors.journal.recovery import Mark
from observer_actors.journal.times import union
from observer_actors.op import Op, Seq, encode_ops
from observer_actors.settings import JournalSettings


class JournalStatistics(Struct, frozen=True, kw_only=True):
    """Counters since the writer was opened, and the state it is in."""

    active_bytes: int
    """Durable bytes of the active file."""
    segments: int
    """Sealed files, compacted or not."""
    is_broken: bool
    """A failure has not been mended yet; the next commit tries to."""
    commits: int
    bytes_written: int
    last_sync_us: int
    """Duration of the last fdatasync for a commit, failed or not, in microseconds."""
    seals: int
    repairs: int
    """Times that a failure was mended."""
    missing_ops: int
    """Acknowledged, and in no file any more."""
    removed_through: int
    """Ops up to this seq were removed by retention."""


class Handed(Struct):
    """What another process is to append and sync, and how far it came."""

    file: PosixFile
    held: int
    """Bytes in the file before."""
    data: bytes
    is_written: bool = False
    sync_us: int = 0


class _Fault(Enum):
    """What must be done before the active file can be written again; each implies what stands below it."""

    TAINTED = "its fdatasync failed: cut it and put a new file in its place"
    UNCUT = "bytes of a failed commit may follow the last durable one: cut it"
    UNFILED = "it was renamed or removed: sync the directories and make a new one"


class JournalWriter:
    """See the module. Made by `open`."""

    def __init__(
        self, disk: Disk, paths: Paths, settings: JournalSettings, now_us: Callable[[], int], opened: Opened
    ) -> None:
        self.catalog: Catalog = opened.catalog
        """For `JournalReader`, `compact` and `retain`."""
        self.recovery: RecoveryReport = opened.report
        """What was found when the journal was opened."""
        self._disk = disk
        self._paths = paths
        self._settings = settings
        self._now_us = now_us
        self._ids = IdWindow(settings.dedup_window_ops)
        self._active = opened.catalog.snapshot().active
        self._ids.add(opened.ids, self._active.last_seq)
        self._last_recorded_us = recorded_us(self._active.last_recorded_at) if self._active.last_seq else 0
        self._fault: _Fault | None = None
        self._may_return = False
        """Bytes of a failed batch may still be in a file, whose cut is not synced: a recovery may find them."""
        self._is_left_behind = False
        """That holds of the file that was moved away before this one was tried: to cut this one changes nothing."""
        self._file: AppendFile | None = disk.open_append(paths.active, create=False)
        self._commits = self._bytes_written = self._last_sync_us = self._seals = self._repairs = 0

    @classmethod
    def open(
        cls,
        disk: Disk,
        data_dir: Path,
        settings: JournalSettings,
        *,
        now_us: Callable[[], int],
        unacknowledged_from: Seq | None = None,
        patience: Patience | None = None,
    ) -> Self:
        """Recover the journal and get ready to append. The caller holds the directory's lock.

        :param now_us: microseconds since 1970.
        :param unacknowledged_from: first seq of a batch that an earlier writer of this process had in hand when it
            failed. What the disk holds of it is cut: it will be committed anew. All before it was acknowledged.
        :param patience: as of `open_directory`.
        :raises FormatUnknown: a newer version wrote this directory.
        :raises DiskFailed: the disk fails; or DiskFull.
        """
        with translated("opening the journal"):
            opened = open_directory(disk, data_dir, unacknowledged_from, settings.dedup_window_ops, patience)
            return cls(disk, Paths(data_dir), settings, now_us, opened)

    @property
    def last_seq(self) -> Seq:
        """Newest durable op; 0 for none."""
        return Seq(self._active.last_seq)

    @property
    def last_recorded_us(self) -> int:
        """When the newest op was recorded, in microseconds since 1970; 0 for none."""
        return self._last_recorded_us

    @property
    def clock_behind_s(self) -> float:
        """How far the machine's clock is behind the newest op, in seconds; 0 where it is not."""
        return max(0.0, (self._last_recorded_us - self._now_us()) / 1e6)

    def sift(self, ops: Sequence[Op]) -> Sifted:
        """Separate the ops of a batch that are new from those known already and those that come twice in it."""
        return self._ids.sift(ops)

    def stamp(self, ops: Sequence[Op]) -> None:
        """Set `seq` and `recorded_at` for the next commit. After a failed commit, the same batch is stamped anew."""
        recorded_at = recorded_text(max(self._now_us(), self._last_recorded_us + 1))
        for seq, op in enumerate(ops, self._active.last_seq + 1):
            op.seq = seq
            op.recorded_at = recorded_at

    def commit(self, ops: Sequence[Op]) -> None:
        """Return once these stamped ops are on disk; raise when none of them is.

        :raises DiskFull: there is no room.
        :raises DiskFailed: the disk refuses; what was written of the batch has been taken back, or will be before
            the next commit writes. Where that is not on disk yet, the process may end before it is, and the batch may
            be found after all: the error says so.
        """
        if ops:
            self._commit(ops, self._encoded(ops), None)

    def begin(self, ops: Sequence[Op]) -> Handed | None:
        """Begin a commit that another process is to write, and `conclude` ends.

        None where it is ours to do, by `commit`: something has to be mended first, or the file is not just one of the
        system's (a subclass may do more than the system does).
        """
        if not ops or self._fault is not None or type(self._file) is not PosixFile:
            return None
        handed = Handed(self._file, self._active.durable_bytes, self._encoded(ops))
        self._fault, self._may_return, self._is_left_behind = _Fault.TAINTED, True, False
        return handed

    def conclude(self, ops: Sequence[Op], handed: Handed, error: OSError | None) -> None:
        """End a commit that another process has written: at once where that went well.

        Where it did not, this blocks, and raises, as `commit` does.
        """
        if handed.is_written:
            self._last_sync_us = handed.sync_us
        if error is not None:
            self._fault = _Fault.TAINTED if handed.is_written else _Fault.UNCUT
            self._commit(ops, handed.data, error)
            return
        self._fault = None
        handed.file.grown(len(handed.data))
        self._advance(ops, handed.data)

    def _encoded(self, ops: Sequence[Op]) -> bytes:
        assert ops[0].seq == self._active.last_seq + 1, "stamp the batch before its commit"
        assert ops[-1].seq == self._active.last_seq + len(ops), "a batch is committed whole"
        return encode_ops(ops)

    def _commit(self, ops: Sequence[Op], data: bytes, failed: OSError | None) -> None:
        """Write a batch; ``failed`` is what the first attempt at it has met already, elsewhere."""
        try:
            if failed is None:
                self._may_return = self._is_left_behind = False
                self._mend()
            self._write(data, failed)
        except OSError as error:
            # Cut now if that works; if not, the fault stays and the next commit begins with it.
            with suppress(OSError):
                self._mend()
            then = "; the write may still succeed" if self._may_return else ""
            raise disk_error(error, "writing the journal", then) from error
        self._advance(ops, data)

    def _write(self, data: bytes, failed: OSError | None) -> None:
        """Append and sync, in a second file if the first one's fdatasync fails."""
        try:
            if failed is not None:
                raise failed
            self._append(data)
        except OSError:
            if self._fault is not _Fault.TAINTED:
                raise
            self._mend()
            self._append(data)

    def _append(self, data: bytes) -> None:
        assert self._file is not None
        assert self._fault is None
        self._fault = _Fault.UNCUT
        self._is_left_behind, self._may_return = self._may_return, True
        write_all(self._file, data)
        self._fault = _Fault.TAINTED
        started = time.perf_counter_ns()
        try:
            self._file.datasync()
        finally:
            self._last_sync_us = (time.perf_counter_ns() - started) // 1_000
        self._fault = None

    def _advance(self, ops: Sequence[Op], data: bytes) -> None:
        """Count a batch as durable, and let readers see it."""
        held, last = self._active, ops[-1]
        _mark(held, ops, data)
        self._active = Active(
            path=held.path,
            first_seq=held.first_seq,
            last_seq=last.seq,
            durable_bytes=held.durable_bytes + len(data),
            first_recorded_at=held.first_recorded_at or last.recorded_at,
            last_recorded_at=last.recorded_at,
            marks=held.marks,
        )
        self._last_recorded_us = recorded_us(last.recorded_at)
        self._ids.add({op.id: op.seq for op in ops if op.id is not UNSET}, last.seq)
        self._commits += 1
        self._bytes_written += len(data)
        self.catalog.commit(self._active)

    def mend(self) -> None:
        """Mend what a failure has left, rather than leave it to the next commit.

        :raises DiskFailed: the disk does not let us.
        """
        with translated("mending the journal"):
            self._mend()

    def _mend(self) -> None:
        """Do what the fault asks for, as far as the disk lets us.

        :raises OSError: it does not; what remains to be done is remembered.
        """
        if self._fault is None:
            return
        if self._fault is not _Fault.UNFILED:
            self._cut()
        if self._fault is _Fault.TAINTED:
            self._move_away()
        if self._fault is _Fault.UNFILED:
            self._file_anew()
        self._fault = None
        self._repairs += 1

    def _cut(self) -> None:
        """Cut the file to its last durable byte, through a fresh descriptor: the old one may be what is broken."""
        self._close_file()
        self._file = self._disk.open_append(self._paths.active, create=False)
        if self._fault is _Fault.UNCUT and self._ends_within_a_line():
            raise lost()  # somebody has edited it: what is written behind half a line is lost with that
        self._file.truncate(self._active.durable_bytes)
        if self._fault is _Fault.UNCUT:
            # Synced, so that no later crash can mix what is cut here with what is written in its place.
            self._fault = _Fault.TAINTED
            self._file.datasync()
            self._fault = _Fault.UNCUT
            self._may_return = self._is_left_behind
            return
        with suppress(OSError):
            # For the cut alone: no bytes are asked of a file whose fdatasync failed.
            self._file.datasync()
            self._may_return = self._is_left_behind

    def _ends_within_a_line(self) -> bool:
        """Tell whether the last durable byte is another than was written there. A shorter file has none."""
        end = self._active.durable_bytes
        return end > 0 and self._disk.read(self._paths.active, end - 1, 1) not in {b"\n", b""}

    def _move_away(self) -> None:
        """Seal the active file; one that holds nothing durable is removed."""
        if self._active.durable_bytes:
            self._rename_away()
        else:
            self._disk.remove(self._paths.active)
            self._fault = _Fault.UNFILED

    def _rename_away(self) -> None:
        held = self._active
        target = self._paths.raw(held.first_seq)
        self._disk.make_directories(self._paths.segments)  # somebody may have removed the folder
        segment = Segment(
            path=target,
            first_seq=held.first_seq,
            last_seq=held.last_seq,
            bytes=held.durable_bytes,
            marks=tuple(held.marks),
        )
        fresh = Active(
            path=held.path,
            first_seq=held.last_seq + 1,
            last_seq=held.last_seq,
            last_recorded_at=held.last_recorded_at,
        )
        self.catalog.seal(lambda: self._disk.rename(self._paths.active, target), segment, fresh)
        self._active = fresh
        self._fault = _Fault.UNFILED
        self._seals += 1

    def _file_anew(self) -> None:
        """Make the rename durable first: a new file of the old name must never stand while the old one has no other."""
        self._close_file()
        self._disk.sync_directory(self._paths.segments)
        self._disk.sync_directory(self._paths.observer)
        self._file = self._disk.open_append(self._paths.active, create=True)
        self._disk.sync_directory(self._paths.observer)

    def _close_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):  # all that counts in it is durable
                file.close()

    def seal_due(self) -> bool:
        """Tell whether the active file has reached its size or its age. An empty one never has."""
        held = self._active
        if not held.durable_bytes:
            return False
        age_us = self._now_us() - recorded_us(held.first_recorded_at)
        return (
            held.durable_bytes >= self._settings.segment_bytes_max
            or age_us >= self._settings.segment_seconds_max * 1_000_000
        )

    def seal(self) -> bool:
        """Make the active file a sealed segment and begin a new one; False when it is empty.

        :raises DiskFailed: the disk refuses. Nothing is lost, and the next commit mends what is half done.
        """
        with translated("sealing the active file"):
            self._mend()
            if not self._active.durable_bytes:
                return False
            self._rename_away()
            self._file_anew()
            self._fault = None
        return True

    def statistics(self) -> JournalStatistics:
        """Give the counters; from any thread, and at once, whatever the disk does."""
        snapshot = self.catalog.figures
        return JournalStatistics(
            active_bytes=self._active.durable_bytes,
            segments=len(snapshot.segments),
            is_broken=self._fault is not None,
            commits=self._commits,
            bytes_written=self._bytes_written,
            last_sync_us=self._last_sync_us,
            seals=self._seals,
            repairs=self._repairs,
            missing_ops=snapshot.missing_ops,
            removed_through=snapshot.manifest.removed_through,
        )

    def close(self) -> None:
        """Cut what a failed commit left, if the disk lets us, and close the file. Nothing durable depends on it."""
        with suppress(OSError, DiskFailed):
            self._mend()
        self._close_file()


def _mark(held: Active, ops: Sequence[Op], data: bytes) -> None:
    """Index a batch sparsely: one mark for about each `BLOCK_BYTES` of the file, at the beginning of a line."""
    base, first_seq = held.durable_bytes, ops[0].seq
    last = held.marks[-1].offset if held.marks else -BLOCK_BYTES
    begins = []
    if base - last >= BLOCK_BYTES:
        begins.append((base, first_seq))
        last = base
    while last + BLOCK_BYTES < base + len(data):
        at = data.find(b"\n", last + BLOCK_BYTES - base) + 1
        if not 0 < at < len(data):
            break
        last = base + at
        begins.append((last, _seq_in(data, at)))
    ends = [seq - first_seq for _, seq in begins] + [len(ops)]
    if ends[0]:  # the block before goes on
        before = held.marks[-1]
        times = before.times and union(before.times, event_times(ops[: ends[0]]))
        held.marks[-1] = Mark(before.offset, before.first_seq, times)
    for (offset, seq), begin, end in zip(begins, ends, ends[1:], strict=False):
        held.marks.append(Mark(offset, seq, event_times(ops[begin:end])))


def _seq_in(data: bytes, at: int) -> int:
    """Read the seq of the line that begins there, which we have encoded: within a text each quote has a backslash."""
    begin = data.index(_SEQ_KEY, at) + len(_SEQ_KEY)
    return int(data[begin : data.index(b",", begin)])


_SEQ_KEY: Final = b'"seq":'
