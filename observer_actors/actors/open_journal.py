"""The journal as the actors share it: opened by each incarnation of the persister, read and kept by others.

Opening and maintenance (compression, retention) exclude each other: both look at the directory as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from errno import ESTALE
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Final, TypeVar

import msgspec
import trio
from structlog.typing import FilteringBoundLogger

from observer_actors.actors.admission import Turns
from observer_actors.actors.surroundings import Surroundings
from observer_actors.backoff import backoff_s
from observer_actors.errors import DiskFailed, Overloaded
from observer_actors.journal import (
    ClockWatch,
    Disk,
    JournalReader,
    JournalWriter,
    Page,
    Query,
    Stretch,
    compact,
    forget_lost,
    retain,
)
from observer_actors.journal.blocks import Patience
from observer_actors.journal.catalog import Catalog, Segment
from observer_actors.journal.files import replace_file, translated
from observer_actors.journal.format import Paths
from observer_actors.journal.sealing import Compacted
from observer_actors.journal.surveying import counted_seq
from observer_actors.op import Op, Seq
from observer_actors.settings import JournalSettings

T = TypeVar("T")

PROBE_BYTES: Final = 4_096
QUERIES_MAX: Final = 2
READS_MAX: Final = 2
"""Queries, and reads of a few ops, that are carried out at the same time, each in a thread. More would only take turns,
with the event loop among them. A consumer that fell behind waits for neither, nor does one op for queries."""
NOT_READ: Final = "too much else is read; not read"
RETRY_S_FIRST: Final = 0.1
RETRY_S_MAX: Final = 1.0
"""How long a consumer waits before it reads again what the disk has not given. A ring keeper that begins has a minute,
and a place counts as damaged after five seconds."""


class OpenJournal:
    """One data directory.

    :param settings: gives the settings in force; retention may change while the daemon runs.
    """

    def __init__(
        self,
        disk: Disk,
        data_dir: Path,
        settings: Callable[[], JournalSettings],
        *,
        log: FilteringBoundLogger,
        around: Surroundings,
    ) -> None:
        self._around = around
        self._disk = disk
        self._data_dir = data_dir
        self._settings = settings
        self._log = log
        self._whole = Lock()
        self._catalog: Catalog | None = None
        self._reader: JournalReader | None = None
        self._damaged_told = 0
        self._clocks = ClockWatch()
        self._patience = Patience()
        self._following = trio.CapacityLimiter(1)
        self._reads = Turns(READS_MAX, NOT_READ)
        self._queries = Turns(QUERIES_MAX, NOT_READ)
        self._sealed = trio.Event()

    def open_writer(self, unacknowledged_from: Seq | None) -> JournalWriter:
        """Open and recover the journal for writing. Blocking; called by each incarnation of the persister."""
        with self._whole:
            writer = JournalWriter.open(
                self._disk,
                self._data_dir,
                self._settings(),
                now_us=self._now_us,
                unacknowledged_from=unacknowledged_from,
                patience=self._patience,
            )
            self._catalog = writer.catalog
            self._reader = JournalReader(self._disk, self._data_dir, writer.catalog, self._patience)
            self._damaged_told = 0
        self._report(writer)
        return writer

    async def read(self, after_seq: int, most: int) -> Sequence[Op]:
        """Give up to ``most`` ops that follow ``after_seq``, in order.

        :raises DiskFailed: the disk cannot be read; of the others, likewise.
        :raises Overloaded: others are read for, and its turn does not come; of the others, likewise.
        """
        return await self._read(lambda reader: reader.read(after_seq, most), self._reads)

    async def following(self, after_seq: int) -> Stretch:
        """Give the ops that follow ``after_seq``, as far as one block has them, in order.

        For consumers, who have nobody to answer: a disk that refuses is waited for. While it hangs, the others wait,
        too.
        """
        failures = 0
        while True:
            try:
                return await self._read(lambda reader: reader.read_block(after_seq), self._following)
            except DiskFailed as error:
                failures += 1
                if failures == 1:
                    self._log.warning("journal_unreadable", error=str(error), hint=error.hint, after_seq=after_seq)
                await trio.sleep(backoff_s(failures, RETRY_S_FIRST, RETRY_S_MAX))

    async def query(self, query: Query) -> Page:
        """Find ops."""
        return await self._read(lambda reader: reader.query(query), self._queries)

    async def get(self, seq: int) -> Op | None:
        """Give one op, or None when there is none."""
        return await self._read(lambda reader: reader.get(seq), self._reads)

    @property
    def reader(self) -> JournalReader:
        """The reader of the journal as it is open now."""
        if self._reader is None:
            raise Overloaded("the journal is not open yet")
        return self._reader

    def maintain(self) -> bool:
        """Compact one segment, and delete what retention gives up; say whether there is more to do. Blocking.

        What somebody else has deleted is told of.

        One at a time: a persister that starts anew in the meantime waits for the directory.

        :raises DiskFailed: the disk refuses; the next call tries the same again.
        """
        is_last = False
        try:
            with self._whole, self._around.holding():
                if self._catalog is None:
                    return False
                compacted = self._tended(self._catalog)
                is_last = all(segment.entry is not None for segment in self._catalog.snapshot().segments)
            for done in compacted:
                self._log.info("segment_compacted", **msgspec.to_builtins(done))
        finally:
            self._disk.free(slowly=is_last)  # at once where the pass fails: it may be for want of that room
        return bool(compacted)

    def _tended(self, catalog: Catalog) -> list[Compacted]:
        try:
            if forget_lost(self._disk, self._data_dir, catalog):
                self._tell_gap(catalog.snapshot().missing_ops)
            return compact(
                self._disk,
                self._data_dir,
                catalog,
                self._settings(),
                most=1,
                patience=self._patience,
                unreadable=self._tell_unreadable,
            )
        finally:
            # On a full disk compaction fails, and retention is what makes room.
            self._retain(catalog)

    def probe(self) -> None:
        """Try whether the disk takes a write, and the active file is still what it was. Blocking.

        :raises DiskFailed: it does not, or is not.
        """
        path = self._data_dir / "_observer" / "probe"
        with translated("trying the disk"):
            active = self._catalog.snapshot().active if self._catalog else None
            if active and self._disk.size(active.path) < active.durable_bytes:
                raise OSError(ESTALE, "the active file was cut by somebody else")
            replace_file(self._disk, path, b"\n" * PROBE_BYTES)
            self._disk.remove(path)

    def sealed(self) -> None:
        """Say that there is a new segment to be compacted."""
        self._sealed.set()

    async def wait_sealed(self, most_s: float) -> None:
        """Wait until a segment has been sealed since the last call, but no longer than ``most_s``."""
        with trio.move_on_after(most_s):
            await self._sealed.wait()
        self._sealed = trio.Event()

    async def close(self) -> None:
        """Wait until nobody works on the directory any more, for another daemon may take it next.

        Stopping the archivist leaves the segment that it is at to its thread. Who gives up waiting leaves the directory
        locked until that has ended.
        """
        await self._around.in_thread(self._end_maintenance, abandon_on_cancel=True)

    def _end_maintenance(self) -> None:
        with self._whole:
            self._catalog = None

    def damaged_lines(self) -> int:
        """Give how many lines, or blocks of them, could not be read since the journal was opened."""
        return self._reader.damaged_lines if self._reader else 0

    async def _read(self, call: Callable[[JournalReader], T], turns: trio.CapacityLimiter | Turns) -> T:
        """Have a reader asked, in a thread. Who is cancelled leaves it there, as the disk may hang.

        Once more where another has taken its place meanwhile: what the old one took for damaged, as its file was gone,
        may just have been compacted.
        """
        while True:
            reader = self.reader
            result = await self._around.in_thread(
                partial(call, reader),
                limiter=turns,  # type: ignore[arg-type]  # trio takes whatever has these two methods of one
                abandon_on_cancel=True,
            )
            if reader is self.reader:
                break
        damaged = self.damaged_lines()
        if damaged > self._damaged_told:
            self._damaged_told = damaged
            self._log.error("journal_damaged", lines=damaged, hint="observer-actors verify says what and where")
        return result

    def _tell_unreadable(self, segment: Segment, error: OSError) -> None:
        hint = "look for errors of the disk in the kernel log; what can be read of it is"
        self._log.error("segment_unreadable", file=segment.path.name, error=str(error), hint=hint)

    def _retain(self, catalog: Catalog) -> None:
        is_steady = self._clocks.is_steady(self._around.seconds(), self._around.monotonic())
        now_us = self._now_us() if is_steady else None
        for gone in retain(self._disk, self._data_dir, catalog, self._settings(), now_us=now_us):
            self._log.info("segment_removed", **msgspec.to_builtins(gone))

    def _report(self, writer: JournalWriter) -> None:
        report = writer.recovery
        if report.is_clean:
            self._log.info("journal_opened", **msgspec.to_builtins(report))
        else:
            self._log.warning("journal_opened", **msgspec.to_builtins(report))
        if report.missing_ops:
            self._tell_gap(report.missing_ops)
        counted = counted_seq(self._disk, Paths(self._data_dir))
        if counted > report.last_seq:
            hint = "stop the daemon and put back what was cut or removed: seqs behind the end are given out again"
            self._log.error("journal_cut", last_seq=report.last_seq, counted=counted, hint=hint)

    def _tell_gap(self, ops: int) -> None:
        hint = "observer-actors verify says where; restore the lost segments from a backup"
        self._log.error("journal_gap", ops=ops, hint=hint)

    def _now_us(self) -> int:
        return self._around.time_ns() // 1_000
