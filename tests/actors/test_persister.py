"""The persister over a disk that fails, crashing where it hurts: what it answers is what the journal holds."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar, cast

import structlog
import trio
import trio.testing

from observer_actors.actors.admission import Submission
from observer_actors.actors.commits import Commits
from observer_actors.actors.disk_process import DiskProcess
from observer_actors.actors.persister import DISK_RETRY_S, SEAL_RETRY_S, Persister
from observer_actors.actors.surroundings import OneByOne, Surroundings
from observer_actors.errors import DiskFailed
from observer_actors.journal import Disk, Handed, JournalWriter, PosixDisk, Stretch
from observer_actors.op import Op, Seq
from observer_actors.settings import JournalSettings
from observer_actors.supervision import Events, Life, Mailbox
from tests.fakes.disk import FakeDisk, Kind
from tests.journal.support import DATA, PATHS, everything, make_ops, open_writer, reader_of
from tests.supervision.injected_time import injected_time

T = TypeVar("T")
SETTINGS = JournalSettings(segment_bytes_max=10**6, dedup_window_ops=50)


class Crash(Exception):
    """Raised on purpose."""


class DefectiveDisk(FakeDisk):
    """Raises what is no `OSError`, at one call of a kind."""

    defect: Kind | None = None

    def step(self, kind: Kind) -> None:
        if kind == self.defect:
            self.defect = None
            raise Crash(kind)
        super().step(kind)


class Elsewhere:
    """In the place of the disk's process: writes, syncs, and takes its time to say so."""

    def __init__(self) -> None:
        self.refuses = 0
        self.takes_s = 0.0
        self.let_go_of = 0
        self.died = trio.Event()

    async def append(self, handed: Handed) -> OSError | None:
        if self.refuses:
            self.refuses -= 1
            await trio.lowlevel.checkpoint()
            return OSError(errno.ENOSPC, "no space left on device")
        os.write(handed.file.fileno(), handed.data)
        handed.is_written = True
        await trio.sleep(self.takes_s)
        return None

    async def let_go(self) -> None:
        self.let_go_of += 1
        await trio.lowlevel.checkpoint()

    async def ended(self) -> None:
        await self.died.wait()
        raise Crash("the disk's process has ended")

    @asynccontextmanager
    async def started(self) -> AsyncIterator[DiskProcess]:
        await trio.lowlevel.checkpoint()
        self.died = trio.Event()
        yield cast("DiskProcess", self)


class Inline:
    """In the place of the disk's thread: each call at once."""

    async def __call__(self, call: Callable[[], T]) -> T:
        await trio.lowlevel.checkpoint()
        return call()

    @classmethod
    @asynccontextmanager
    async def started(cls) -> AsyncIterator[OneByOne]:
        await trio.lowlevel.checkpoint()
        yield cls()


class World:
    """A persister that is started again whenever it crashes."""

    def __init__(
        self, disk: Disk, data: Path = DATA, *, elsewhere: Elsewhere | None = None, settings: JournalSettings = SETTINGS
    ) -> None:
        self.crash_at: list[str] = []
        """Steps at which it crashes, each once."""
        self.crashes = 0
        self.answers: list[tuple[str, tuple[int, ...]]] = []
        """Of each submission that was answered: why it was refused, "" for not; and its seqs."""
        self.published: list[int] = []
        self.probe_fails = False
        self.mailbox: Mailbox[Submission] = Mailbox(
            "persister", 100, events=Events(), crashes_max=3, set_aside=self._set_aside, split=Submission.split
        )
        commits = Commits(self._read, crashes_max=3, set_aside=self._set_op_aside)
        commits.tap(lambda ops, _size: self.published.extend(op.seq for op in ops))
        self.persister = Persister(
            self.mailbox,
            commits,
            lambda unacknowledged: self._open(disk, data, settings, unacknowledged),
            settings,
            log=structlog.get_logger(),
            on_seal=lambda: None,
            probe=self._probe,
            around=Surroundings(
                disk_thread=Inline.started, disk_process=None if elsewhere is None else elsewhere.started
            ),
        )
        self.life = self._life()

    def _probe(self) -> None:
        if self.probe_fails:
            raise DiskFailed("the probe is refused")

    def _open(self, disk: Disk, data: Path, settings: JournalSettings, unacknowledged: Seq | None) -> JournalWriter:
        return open_writer(disk, settings, data=data, unacknowledged_from=unacknowledged)

    async def _read(self, _after_seq: int) -> Stretch:
        raise AssertionError("nobody follows here")

    async def _set_aside(self, _message: Submission, _crashes: int) -> None:
        raise AssertionError("nothing crashes so often here")

    async def _set_op_aside(self, _consumer: str, _op: Op, _crashes: int) -> None:
        raise AssertionError("nobody follows here")

    def _life(self) -> Life:
        return Life("persister", 1, on_progress=lambda: None, on_step=self._on_step)

    def _on_step(self, _name: str, step: str) -> None:
        if step in self.crash_at:
            self.crash_at.remove(step)
            raise Crash(step)

    async def serve(self) -> None:
        """Run until it was stopped, again after each crash."""
        while True:
            self.life = self._life()
            try:
                await self.persister.run(self.life)
            except* Crash:
                self.crashes += 1
            else:
                return

    def put(self, ops: Sequence[Op], *, is_shared: bool = False) -> Submission:
        """Hand ops in; the answer goes into `answers`."""

        def answered() -> None:
            self.answers.append((str(submission.error or ""), tuple(submission.receipts.seqs)))

        submission = Submission(ops, 10, answered, is_shared=is_shared)
        self.mailbox.put_nowait(submission)
        return submission


@asynccontextmanager
async def served(world: World) -> AsyncIterator[None]:
    """Have it serve, and drain it at the end."""
    with trio.fail_after(100):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.serve)
            await trio.testing.wait_all_tasks_blocked()
            yield
            await trio.testing.wait_all_tasks_blocked()
            world.life.stopping.set()


def stored(disk: FakeDisk) -> list[str]:
    return [op.input_summary for op in everything(open_writer(disk), disk)]


@injected_time
async def test_what_a_crash_left_in_the_file_unacknowledged_is_stored_once_also_where_it_could_not_be_cut() -> None:
    disk = DefectiveDisk()
    world = World(disk)
    async with served(world):
        world.put(make_ops(2))
        await trio.testing.wait_all_tasks_blocked()
        disk.defect = "datasync"
        disk.fail("truncate")  # what the incarnation would cut on its way out
        world.put(make_ops(3, first=2))
        await trio.sleep(1)
    assert (world.crashes, world.answers) == (1, [("", (1, 2)), ("", (3, 4, 5))])
    assert stored(disk) == [f"op {number}" for number in range(5)]
    assert world.published == [1, 2, 3, 4, 5]


@injected_time
async def test_what_is_on_disk_at_a_crash_is_not_written_again_also_where_its_ops_had_a_caller_each() -> None:
    disk = FakeDisk()
    world = World(disk)
    async with served(world):
        world.crash_at = ["committed"]
        world.put(make_ops(3), is_shared=True)
    assert (world.crashes, world.answers) == (1, [("", (1, 2, 3))])
    assert stored(disk) == ["op 0", "op 1", "op 2"]
    assert {*world.published} == {1, 2, 3}, "who follows live is told of it"


@injected_time
async def test_what_its_callers_have_given_up_is_not_stored_either_once_a_crash_has_split_it() -> None:
    disk = FakeDisk()
    world = World(disk)
    world.crash_at = ["taken"]
    given_up = world.put(make_ops(2), is_shared=True)
    given_up.withdraw()
    world.put(make_ops(1, first=2))
    async with served(world):
        pass
    assert (world.crashes, world.answers[-1]) == (1, ("", (1,)))
    assert [part.finished for part in given_up.parts] == [False, False]
    assert stored(disk) == ["op 2"]


@injected_time
async def test_a_disk_that_refused_is_not_mended_while_a_batch_is_being_written(tmp_path: Path) -> None:
    elsewhere = Elsewhere()
    world = World(PosixDisk(), tmp_path, elsewhere=elsewhere)
    async with served(world):
        elsewhere.refuses = 1
        world.put(make_ops(1))
        await trio.testing.wait_all_tasks_blocked()
        elsewhere.takes_s = 3 * DISK_RETRY_S  # it is tried again meanwhile
        world.put(make_ops(2, first=1))
        await trio.sleep(4 * DISK_RETRY_S)
        world.put(make_ops(1, first=3))
        await trio.sleep(4 * DISK_RETRY_S)
    assert [seqs for _, seqs in world.answers] == [(1,), (1, 2), (3,)]
    assert [bool(error) for error, _ in world.answers] == [True, False, False]
    again = open_writer(PosixDisk(), data=tmp_path)
    found = reader_of(again, PosixDisk(), tmp_path).read(0, 100)
    assert [op.input_summary for op in found] == ["op 1", "op 2", "op 3"]


@injected_time
async def test_a_file_that_is_sealed_is_let_go_of_by_the_disks_process(tmp_path: Path) -> None:
    elsewhere = Elsewhere()
    small = JournalSettings(segment_bytes_max=500)
    world = World(PosixDisk(), tmp_path, elsewhere=elsewhere, settings=small)
    async with served(world):
        for number in range(3):
            world.put(make_ops(3, first=number))
            await trio.testing.wait_all_tasks_blocked()
    assert world.persister.status.journal is not None
    assert elsewhere.let_go_of == world.persister.status.journal.seals == 3


@injected_time
async def test_the_death_of_the_disks_process_is_noticed_also_when_nothing_is_written(tmp_path: Path) -> None:
    elsewhere = Elsewhere()
    world = World(PosixDisk(), tmp_path, elsewhere=elsewhere)
    async with served(world):
        elsewhere.died.set()
        await trio.testing.wait_all_tasks_blocked()
        assert world.crashes == 1
        world.put(make_ops(1))
    assert world.answers == [("", (1,))]


@injected_time
async def test_a_seal_that_leaves_no_file_to_write_to_refuses_until_there_is_one() -> None:
    disk = FakeDisk()
    world = World(disk, settings=JournalSettings(segment_bytes_max=500))
    status = world.persister.status
    async with served(world):
        disk.fail("open_append", times=3)
        world.put(make_ops(3))
        await trio.testing.wait_all_tasks_blocked()
        assert (world.answers, "EIO while sealing" in status.refusing) == ([("", (1, 2, 3))], True)
        await trio.sleep(5 * DISK_RETRY_S)
        assert status.refusing == ""
        world.put(make_ops(1, first=3))
    assert stored(disk) == [f"op {number}" for number in range(4)]


@injected_time
async def test_what_could_not_be_cut_when_it_was_refused_is_cut_at_the_end() -> None:
    disk = FakeDisk()
    world = World(disk)
    async with served(world):
        disk.fail("datasync", times=9)
        disk.fail("truncate", times=9)
        world.put(make_ops(2))
        await trio.testing.wait_all_tasks_blocked()
        assert disk.contents(PATHS.active)
        disk.heal()
    assert "the write may still succeed" in world.answers[0][0]
    assert disk.contents(PATHS.active) == b""


@injected_time
async def test_a_file_that_cannot_be_sealed_is_written_on_and_sealed_a_while_later() -> None:
    disk = FakeDisk()
    world = World(disk, settings=JournalSettings(segment_bytes_max=500))
    async with served(world):
        before = disk.calls["rename"]
        disk.fail("rename")
        for number in range(3):
            world.put(make_ops(3, first=3 * number))
            await trio.testing.wait_all_tasks_blocked()
        assert world.answers == [("", (1, 2, 3)), ("", (4, 5, 6)), ("", (7, 8, 9))]
        assert disk.calls["rename"] == before + 1
        await trio.sleep(2 * SEAL_RETRY_S)
        assert world.persister.status.writer is not None
        assert world.persister.status.writer.statistics().seals == 1


@injected_time
async def test_a_disk_refuses_until_it_takes_a_probe_or_a_batch() -> None:
    disk = FakeDisk()
    world = World(disk)
    status = world.persister.status
    async with served(world):
        for fails, batch, refusing in ((True, 0, "the probe is refused"), (True, 1, ""), (False, 0, "")):
            world.probe_fails = fails
            disk.fail("write")
            world.put(make_ops(1))
            await trio.testing.wait_all_tasks_blocked()
            assert "EIO while writing" in status.refusing
            if batch:
                world.put(make_ops(batch))
                await trio.testing.wait_all_tasks_blocked()
            else:
                await trio.sleep(2 * DISK_RETRY_S)
            assert status.refusing == refusing
    assert (status.open, status.rounds) == (False, 4)
