"""The persister: group commit into the journal. Nobody else writes it.

One round: take all that waits (up to a bound), leave out what callers have withdrawn and what is stored already under
the same id, give each op its seq, write and sync once, publish, answer. The steps, and what a crash at each leaves:

=============  ====================================================================================================
taken          nothing on disk; the submissions are in hand and are taken again
stamped        the same; stamping anew gives the same seqs
committing     part or all of the lines may be in the file: the next incarnation's writer cuts back to the first seq
               that was not acknowledged, and the ops are written anew
committed      on disk, and marked so before anything else can happen: only publishing and answering are done again,
               and consumers pass over what they know
=============  ====================================================================================================

While the disk refuses, each round is refused with its error, and the disk is tried again every second, so that the
daemon comes back by itself also when nobody sends anything. A disk that refuses already while the journal is opened is
waited for in the same way, but not for long: until the persister has been tried, whoever could say why does not start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

import msgspec
import trio
from structlog.typing import FilteringBoundLogger

from observer_actors.actors.admission import Receipts, Submission
from observer_actors.actors.commits import Commits
from observer_actors.actors.disk_process import DiskProcess
from observer_actors.actors.surroundings import OneByOne, Surroundings
from observer_actors.errors import DiskFailed
from observer_actors.journal import Handed, JournalStatistics, JournalWriter, Sifted
from observer_actors.op import Op, Seq
from observer_actors.settings import JournalSettings
from observer_actors.supervision import Drained, Life, Mailbox

OpenWriter = Callable[[Seq | None], JournalWriter]
"""Opens the journal, recovers it, and cuts it back to the first unacknowledged seq if there is one. Blocking."""

DISK_RETRY_S: Final = 1.0
OPENING_S: Final = 10.0
"""How long an incarnation tries to open the journal. Long enough that a disk that stays full never exhausts five
restarts in thirty seconds: the daemon stays up, says so, and goes on when there is room."""
AGE_CHECK_S: Final = 5.0
CLOCK_BEHIND_S: Final = 60.0
"""By so much the machine's clock may be behind the newest op without a word."""
SEAL_RETRY_S: Final = 30.0
"""When a file that could not be sealed is tried again. It is written on meanwhile."""
ELSEWHERE_OPS_MAX: Final = 1_000
ELSEWHERE_BYTES_MAX: Final = 512 * 1024
"""A larger commit is written by the thread: to encode it, and to count it, takes milliseconds, in which the event loop
would serve nobody, and there are few of them."""
TURNS_BETWEEN: Final = 2
"""Turns of the event loop between two rounds. Callers who have just been answered send again at once: within two turns
their events are there, and share the next sync, rather than wait for it to end. Nobody waits longer for it: what comes
to an idle persister is written at once."""


class PersisterStatus(msgspec.Struct):
    """What others may ask of the persister, also while it is being restarted."""

    open: bool = False
    refusing: str = ""
    """Why the disk refuses; "" when it does not."""
    rounds: int = 0
    """Rounds concluded, also by a disk that refused."""
    withdrawn: int = 0
    disk_errors: int = 0
    writer: JournalWriter | None = None

    @property
    def journal(self) -> JournalStatistics | None:
        """The writer's figures as of now; None before the journal was opened."""
        return self.writer.statistics() if self.writer else None


class Persister:
    """The actor, as an object because its status outlives each incarnation.

    :param on_seal: called after the active file was sealed; must not block.
    :param probe: tries whether the disk takes a write again; blocking.
    :param around: gives the thread of each incarnation, and the process that writes the usual commit.
    """

    def __init__(
        self,
        mailbox: Mailbox[Submission],
        commits: Commits,
        open_writer: OpenWriter,
        settings: JournalSettings,
        *,
        log: FilteringBoundLogger,
        on_seal: Callable[[], None],
        probe: Callable[[], None],
        around: Surroundings,
    ) -> None:
        self.status = PersisterStatus()
        self._mailbox = mailbox
        self._commits = commits
        self._open_writer = open_writer
        self._settings = settings
        self._log = log
        self._on_seal = on_seal
        self._probe = probe
        self._around = around
        self._writing = trio.Lock()
        """Whoever has the process or the thread write has it."""
        self._refused = trio.Event()
        self._seal_fails = ""
        """Why the active file cannot be sealed; "" when it can."""
        self._seal_again_at = 0.0
        self._is_clock_behind = False
        # Each incarnation has its own:
        self._disk: OneByOne
        self._elsewhere: DiskProcess | None = None

    async def run(self, life: Life) -> None:
        """Serve as an actor; drains."""
        async with self._around.disk_thread() as self._disk, AsyncExitStack() as stack:
            self._elsewhere = await self._process(stack)
            await self._run(life)

    async def _process(self, stack: AsyncExitStack) -> DiskProcess | None:
        """Start the disk's process; None where there is to be none, or it cannot be started."""
        start = self._around.disk_process
        if start is None:
            return None
        try:
            return await stack.enter_async_context(start())
        except OSError as error:
            self._log.warning("disk_process_missing", error=str(error), hint="a thread writes the journal, more slowly")
            return None

    async def _run(self, life: Life) -> None:
        life.at("opening")
        writer = await self._open(_first_unacknowledged(self._mailbox.in_hand), life)
        for submission in self._mailbox.in_hand:
            submission.unstamp()
        try:
            # Before anything of it is set aside: who watches live is told by nobody else.
            self._publish(self._mailbox.in_hand)
            await self._mailbox.open()
            self._commits.resume(writer.last_seq, writer.last_recorded_us)
            self.status.open = True
            self.status.writer = writer
            life.ready()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._drain_when_told, life)
                nursery.start_soon(self._watch_disk, writer)
                if self._elsewhere is not None:
                    nursery.start_soon(self._elsewhere.ended)  # also when nothing is asked of it
                await self._serve(writer, life)
                nursery.cancel_scope.cancel()
        finally:
            self.status.open = False
            with trio.CancelScope(shield=True):
                await self._disk(writer.close)

    async def _open(self, unacknowledged: Seq | None, life: Life) -> JournalWriter:
        """Open the journal, and wait a while for a disk that refuses, but not when we are to stop.

        :raises DiskFailed: it still does.
        """
        give_up_at = trio.current_time() + OPENING_S
        while True:
            try:
                writer = await self._disk(partial(self._open_writer, unacknowledged))
            except DiskFailed as error:
                self._refuse((), error)
                with trio.move_on_after(DISK_RETRY_S):
                    await life.stopping.wait()
                if life.stopping.is_set() or trio.current_time() >= give_up_at:
                    raise
            else:
                self._recovered()
                return writer

    async def _serve(self, writer: JournalWriter, life: Life) -> None:
        most, bytes_max = self._settings.batch_ops_max, self._settings.batch_bytes_max
        while True:
            life.at("waiting")
            try:
                async with self._mailbox.take(most, weight_max=bytes_max) as submissions:
                    await self._round(writer, life, submissions)
                    self.status.rounds += 1
            except Drained:
                return
            if self._is_seal_due(writer):
                await self._seal(writer, life)
            for _ in range(TURNS_BETWEEN):
                await trio.lowlevel.checkpoint()

    async def _round(self, writer: JournalWriter, life: Life, submissions: Sequence[Submission]) -> None:
        life.at("taken")
        fresh = self._take_up(submissions)
        ops = _stamp(writer, fresh)
        life.at("stamped")
        if ops:
            try:
                await self._write(writer, ops, fresh)
            except DiskFailed as error:
                self._refuse(fresh, error)
                return
        life.at("committed")
        if ops:
            self._recovered()
        self._publish_and_answer(submissions)
        life.progress()

    async def _write(self, writer: JournalWriter, ops: Sequence[Op], submissions: Sequence[Submission]) -> None:
        """Write and sync, in the disk's process or in its thread. Raises as `JournalWriter.commit` does."""
        try:
            self._writing.acquire_nowait()  # rather than `acquire`, behind which all others would have their turn first
        except trio.WouldBlock:
            await self._writing.acquire()
        try:
            await self._commit(writer, ops, submissions)
        finally:
            self._writing.release()

    async def _commit(self, writer: JournalWriter, ops: Sequence[Op], submissions: Sequence[Submission]) -> None:
        is_small = len(ops) <= ELSEWHERE_OPS_MAX and sum(one.weight for one in submissions) <= ELSEWHERE_BYTES_MAX
        handed = writer.begin(ops) if self._elsewhere is not None and is_small else None
        self._commits.lull()
        if self._elsewhere is None or handed is None:
            await self._disk(partial(_commit, writer, ops, submissions))
            return
        error = await self._elsewhere.append(handed)
        if error is None:
            _conclude(writer, ops, handed, None, submissions)
        else:
            await self._disk(partial(_conclude, writer, ops, handed, error, submissions))

    def _take_up(self, submissions: Sequence[Submission]) -> list[Submission]:
        """Give what has to be written: not what is on disk already, and not what its caller has given up."""
        fresh = []
        for submission in submissions:
            if submission.committed:
                continue
            if submission.withdrawn:
                self.status.withdrawn += 1
                submission.drop()
                continue
            submission.taken = True
            fresh.append(submission)
        return fresh

    def _publish_and_answer(self, submissions: Sequence[Submission]) -> None:
        self._publish(submissions)
        for submission in submissions:
            if submission.taken and not submission.finished:
                submission.accept()

    def _publish(self, submissions: Sequence[Submission]) -> None:
        committed = [submission for submission in submissions if submission.committed]
        ops = [op for submission in committed for op in submission.stamped]
        self._commits.publish(ops, sum(submission.weight for submission in committed))

    def _refuse(self, submissions: Sequence[Submission], error: DiskFailed) -> None:
        self.status.disk_errors += 1
        if not self.status.refusing:
            self._log.error("disk_refused", error=str(error), hint=error.hint)
        self.status.refusing = str(error)
        self._refused.set()
        for submission in submissions:
            submission.refuse(error)

    def _recovered(self) -> None:
        if self.status.refusing:
            self._log.info("disk_recovered")
        self.status.refusing = ""

    def _is_seal_due(self, writer: JournalWriter) -> bool:
        return writer.seal_due() and trio.current_time() >= self._seal_again_at

    async def _seal(self, writer: JournalWriter, life: Life) -> None:
        """Seal the active file. One that cannot be is written on: whoever sends events need not know."""
        life.at("sealing")
        try:
            await self._disk(writer.seal)
        except DiskFailed as error:
            self._seal_again_at = trio.current_time() + SEAL_RETRY_S
            self.status.disk_errors += 1
            if str(error) != self._seal_fails:
                self._log.error("seal_failed", error=str(error), hint=error.hint)
            self._seal_fails = str(error)
            if writer.statistics().is_broken:  # renamed, and no new one made: nothing can be written until it is
                self._refuse((), error)
            return
        self._seal_fails = ""
        if self._elsewhere is not None:
            await self._elsewhere.let_go()
        self._log.info("segment_sealed", last_seq=writer.last_seq)
        self._on_seal()

    async def _drain_when_told(self, life: Life) -> None:
        await life.stopping.wait()
        self._mailbox.drain()

    async def _watch_disk(self, writer: JournalWriter) -> None:
        """Try a disk that refuses again, and wake the loop when the active file is old enough to be sealed."""
        self._look_at_clock(writer)
        while True:
            if self.status.refusing:
                await trio.sleep(DISK_RETRY_S)
                await self._try_again(writer)
                continue
            self._refused = trio.Event()
            with trio.move_on_after(AGE_CHECK_S):
                await self._refused.wait()
            self._look_at_clock(writer)
            if self._is_seal_due(writer):
                await self._mailbox.put(Submission((), 0))

    def _look_at_clock(self, writer: JournalWriter) -> None:
        """Say, once, that the clock is behind the newest op: it was ahead for a while, or has been set back."""
        behind_s = writer.clock_behind_s
        if behind_s <= CLOCK_BEHIND_S:
            self._is_clock_behind = False
        elif not self._is_clock_behind:
            self._is_clock_behind = True
            hint = "ops are recorded a moment after the newest until it has caught up; nothing is sealed by age"
            self._log.warning("clock_behind", seconds=round(behind_s), hint=hint)

    async def _try_again(self, writer: JournalWriter) -> None:
        try:
            async with self._writing:
                await self._disk(writer.mend)
            await self._disk(self._probe)
        except DiskFailed as error:
            self.status.refusing = str(error)
            return
        self._recovered()


def _first_unacknowledged(in_hand: Sequence[Submission]) -> Seq | None:
    """Give the first seq that an incarnation before us may have written without anybody having been told."""
    return next(
        (Seq(submission.stamped[0].seq) for submission in in_hand if submission.stamped and not submission.committed),
        None,
    )


def _stamp(writer: JournalWriter, submissions: Sequence[Submission]) -> Sequence[Op]:
    """Give each op a seq, but an op whose id is known that of the first one; give the ops to write."""
    sifted = writer.sift([op for submission in submissions for op in submission.ops])
    writer.stamp(sifted.fresh)
    if sifted.known or sifted.twins:
        _sort_out(sifted, submissions)
        return sifted.fresh
    at = sifted.fresh[0].seq if sifted.fresh else 0
    for submission in submissions:
        end = at + len(submission.ops)
        submission.stamped, submission.receipts = submission.ops, Receipts(range(at, end))
        at = end
    return sifted.fresh


def _sort_out(sifted: Sifted, submissions: Sequence[Submission]) -> None:
    """Give the submissions of a batch with duplicates what is theirs."""
    position = 0
    for submission in submissions:
        seqs, stamped, duplicates = [], [], set()
        for own, op in enumerate(submission.ops):
            seq = sifted.known.get(position)
            twin = sifted.twins.get(position)
            position += 1
            if seq is None and twin is None:
                stamped.append(op)
            else:
                duplicates.add(own)
            seqs.append(seq if seq is not None else twin.seq if twin is not None else op.seq)
        submission.stamped, submission.receipts = stamped, Receipts(seqs, frozenset(duplicates))


def _commit(writer: JournalWriter, ops: Sequence[Op], submissions: Sequence[Submission]) -> None:
    """Write, sync and mark, in the disk's thread: the marks tell the truth whatever interrupts the actor afterwards."""
    writer.commit(ops)
    _mark(submissions)


def _conclude(
    writer: JournalWriter, ops: Sequence[Op], handed: Handed, error: OSError | None, submissions: Sequence[Submission]
) -> None:
    """Take in what the disk's process has done, and mark likewise."""
    writer.conclude(ops, handed, error)
    _mark(submissions)


def _mark(submissions: Sequence[Submission]) -> None:
    for submission in submissions:
        submission.committed = True
