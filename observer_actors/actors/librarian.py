"""The librarian: each verdict that is committed becomes a row of the knowledge base, once.

Auditors append rows to the same file: of two rows with the same id, one counts. Its cursor is saved now and then; what
is read again after a crash is found in the file by its id. Where the file was there and is no more, all verdicts that
the journal has get their rows again. A disk that refuses is no fault of the verdict in hand: it is tried again, and
nothing waits for it but this actor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import trio
from structlog.typing import FilteringBoundLogger

from observer_actors.actors.commits import Feed
from observer_actors.actors.saving import Snapshots, saved
from observer_actors.actors.surroundings import InThread
from observer_actors.backoff import backoff_s
from observer_actors.errors import DiskFailed
from observer_actors.event import AUDITOR
from observer_actors.journal.files import Disk, replace_file
from observer_actors.kb import AuditHistory, AuditRow, OutcomeFilter, OutcomePage, OutcomesIndex, verdict_row
from observer_actors.problems import UNREADABLE
from observer_actors.supervision import Life

T = TypeVar("T")

SAVE_S: Final = 10.0
SAVE_BUDGET_S: Final = 1.0
RETRY_S_FIRST: Final = 1.0
RETRY_S_MAX: Final = 30.0


class _Cursor(msgspec.Struct, frozen=True):
    """The file that keeps the cursor: every verdict up to ``seq`` has its row, if there was a file for them."""

    seq: int
    has_rows: bool = True
    """Whether there was one; where no verdict has ever come, there is none."""


_cursors: Final = msgspec.json.Decoder(_Cursor)


class Librarian:
    """The actor, and the knowledge base as others may ask it.

    :param path: where the cursor is kept.
    :param disk: for the cursor; the index has its own.
    """

    def __init__(
        self,
        feed: Feed,
        index: OutcomesIndex,
        *,
        path: Path,
        disk: Disk,
        in_thread: InThread,
        log: FilteringBoundLogger,
    ) -> None:
        self._feed = feed
        self._index = index
        self._path = path
        self._disk = disk
        self._in_thread = in_thread
        self._log = log
        self._one_at_a_time = trio.CapacityLimiter(1)
        """For the index."""
        self._cursors = Snapshots("the librarian's cursor", in_thread, log)
        self._saved_seq = 0
        self._had_rows = False
        self.rows_written = 0

    async def run(self, life: Life) -> None:
        """Serve as an actor."""
        life.at("loading")
        self._saved_seq = await self._in_thread(self._load)
        life.ready()
        await self._feed.opened()  # a disk that refuses may put that off, and until then nobody knows the end
        if self._saved_seq > self._feed.end:
            self._saved_seq = 0  # of another journal; what is read again is in the file already
            await self._cursors.written(partial(self._write, 0))  # the next start may find this one longer
        await self._feed.open(self._saved_seq)
        async with saved(self._save, life, every_s=SAVE_S, budget_s=SAVE_BUDGET_S, log=self._log) as nursery:
            nursery.start_soon(self._follow, life)

    async def find(self, wanted: OutcomeFilter) -> OutcomePage:
        """Find rows.

        :raises DiskFailed: there is a file and it cannot be read.
        """
        return await self._ask(partial(self._index.find, wanted))

    async def history(self, signature: str, *, newest: int) -> AuditHistory:
        """Sum up what audits of this signature, and of similar ones, came to. Raises as `find` does."""
        return await self._ask(partial(self._index.history, signature, newest=newest))

    async def _follow(self, life: Life) -> None:
        while True:
            life.at("waiting")
            async with self._feed.take() as ops:
                life.at("filing")
                # The source first: under load it is all that is looked at.
                rows = [row for op in ops if op.source == AUDITOR and (row := verdict_row(op)) is not None]
                if rows:
                    await self._file(rows)

    async def _file(self, rows: Sequence[AuditRow]) -> None:
        said = ""
        for failures in count(1):
            try:
                written = await self._ask(partial(self._index.add, rows))
            except DiskFailed as error:
                wait_s = backoff_s(failures, RETRY_S_FIRST, RETRY_S_MAX)
                if str(error) != said:
                    self._log.warning("knowledge_base_refused", error=str(error), rows=len(rows), retry_s=wait_s)
                said = str(error)
                await trio.sleep(wait_s)
            else:
                self.rows_written += written
                return

    async def _ask(self, call: Callable[[], T]) -> T:
        """Have the index do something, in a thread; where the disk hangs it is left there."""
        return await self._in_thread(call, limiter=self._one_at_a_time, abandon_on_cancel=True)

    async def _save(self) -> None:
        seq = self._feed.cursor
        if seq != self._saved_seq and await self._cursors.written(partial(self._write, seq)):
            self._saved_seq = seq

    def _write(self, seq: int) -> None:
        self._had_rows = self._had_rows or self._index.is_there()  # what is removed now is made again at the next start
        content = msgspec.json.encode(_Cursor(seq, has_rows=self._had_rows))
        replace_file(self._disk, self._path, content)

    def _load(self) -> int:
        """Read the cursor; of one that cannot be read, or whose rows are gone, 0: all verdicts are looked at again."""
        try:
            kept = _cursors.decode(self._disk.read(self._path, 0, self._disk.size(self._path)))
            self._had_rows = self._index.is_there()
            if kept.has_rows and not self._had_rows:
                self._write(0)  # before the first row: with that there, the next start would not know
                return 0
        except (OSError, *UNREADABLE):
            return 0
        else:
            return kept.seq
