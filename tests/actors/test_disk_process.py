"""The disk's process: what it is sent is in the file when it answers; what it cannot do, and its death, are told."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from observer_actors.actors.disk_process import DiskProcess, DiskProcessEnded
from observer_actors.errors import DataDirectoryLocked
from observer_actors.journal import DirectoryLock, Handed
from observer_actors.journal.files import PosixFile
from tests.processes import children


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ops.jsonl"


@asynccontextmanager
async def started() -> AsyncIterator[tuple[DiskProcess, int]]:
    """Start one; give its pid too."""
    before = children(os.getpid())
    async with DiskProcess.started() as process:
        [pid] = children(os.getpid()) - before
        yield process, pid


def handed(file: PosixFile, data: bytes) -> Handed:
    return Handed(file, file.size(), data)


def content(path: Path) -> bytes:
    return path.read_bytes()


def opened_here() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def opened(pid: int) -> list[str]:
    return [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]


def changed(path: Path, change: str) -> None:
    if change == "removed":
        path.unlink()
    else:
        path.write_bytes(b"theirs" if change == "grown" else b"")


async def test_what_it_is_sent_is_in_the_file_when_it_answers(path: Path) -> None:
    file = PosixFile(path, create=True)
    async with DiskProcess.started() as process:
        for number in range(3):
            batch = handed(file, b"line %d\n" % number)
            assert await process.append(batch) is None
            assert (batch.is_written, content(path).count(b"\n")) == (True, number + 1)


async def test_a_batch_of_megabytes_goes_through_whole(path: Path) -> None:
    data = os.urandom(5_000_000)
    file = PosixFile(path, create=True)
    async with DiskProcess.started() as process:
        assert await process.append(handed(file, data)) is None
        assert await process.append(handed(file, b"and more")) is None
    assert content(path) == data + b"and more"


async def test_it_goes_on_in_another_file(tmp_path: Path) -> None:
    async with DiskProcess.started() as process:
        for number in range(5):
            file = PosixFile(tmp_path / str(number), create=True)
            assert await process.append(handed(file, b"%d" % number)) is None
            file.close()  # its number may be the next one's
    assert [content(tmp_path / str(number)) for number in range(5)] == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("change", ["grown", "cut", "removed"])
async def test_a_file_that_is_somebody_elses_by_now_is_left_alone(path: Path, change: str) -> None:
    file = PosixFile(path, create=True)
    async with DiskProcess.started() as process:
        await process.append(handed(file, b"ours"))
        batch = handed(file, b"more")
        changed(path, change)
        error = await process.append(batch)
    assert error is not None
    assert (error.errno, batch.is_written) == (errno.ESTALE, False)


async def test_what_the_disk_refuses_is_said(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR)
    async with DiskProcess.started() as process:
        full, unsynced = (handed(PosixFile(one, create=False), b"x") for one in (Path("/dev/full"), pipe))
        errors = [await process.append(one) for one in (full, unsynced)]
    os.close(reader)
    assert [error and error.errno for error in errors] == [errno.ENOSPC, errno.EINVAL]
    assert (full.is_written, unsynced.is_written) == (False, True)


async def test_its_death_is_heard(path: Path) -> None:
    file = PosixFile(path, create=True)
    async with started() as (process, pid):
        await process.append(handed(file, b"before\n"))
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(DiskProcessEnded):
            await process.append(handed(file, b"after\n"))
    assert content(path) in (b"before\n", b"before\nafter\n")


async def test_its_death_with_a_batch_in_its_hand_is_heard(path: Path) -> None:
    file = PosixFile(path, create=True)
    async with started() as (process, pid), trio.open_nursery() as nursery:
        os.kill(pid, signal.SIGSTOP)
        nursery.start_soon(_killed_soon, pid)
        with pytest.raises(DiskProcessEnded):
            await process.append(handed(file, b"x" * 3_000_000))
    assert content(path) == b""


async def _killed_soon(pid: int) -> None:
    await trio.sleep(0.1)
    os.kill(pid, signal.SIGKILL)


async def test_signals_meant_for_the_daemon_do_not_end_it(path: Path) -> None:
    file = PosixFile(path, create=True)
    async with started() as (process, pid):
        await process.append(handed(file, b"one"))
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(pid, number)
        assert await process.append(handed(file, b"two")) is None
    assert not children(os.getpid()) & {pid}


async def test_its_death_is_heard_also_when_nothing_is_asked_of_it() -> None:
    async with started() as (process, pid):
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(DiskProcessEnded, match="status -9"):
            await process.ended()
        assert pid not in children(os.getpid()), "it was waited for"


async def test_it_closes_a_file_that_is_sealed(path: Path) -> None:
    async with started() as (process, pid):
        assert await process.append(handed(PosixFile(path, create=True), b"x")) is None
        assert str(path) in opened(pid)
        await process.let_go()
        assert str(path) not in opened(pid)
        assert await process.append(handed(PosixFile(path, create=False), b"y")) is None
    assert content(path) == b"xy"


@pytest.mark.parametrize("executable", ["/bin/true", "/nonexistent", "", None])
async def test_what_is_no_python_is_not_asked(monkeypatch: pytest.MonkeyPatch, executable: str | None) -> None:
    monkeypatch.setattr("sys.executable", executable)
    before, others = opened_here(), children(os.getpid())
    with pytest.raises(OSError):  # noqa: PT011 - of the kinds that there are, any
        async with DiskProcess.started():
            pass
    assert opened_here() == before
    assert children(os.getpid()) <= others


async def test_one_that_was_stopped_does_not_outlive_us() -> None:
    async with started() as (_, pid):
        os.kill(pid, signal.SIGSTOP)
    assert pid not in children(os.getpid())


async def test_a_cancelled_caller_waits_for_the_answer(path: Path) -> None:
    file = PosixFile(path, create=True)
    async with DiskProcess.started() as process:
        batch = handed(file, b"x")
        with trio.CancelScope() as scope:
            scope.cancel()
            await process.append(batch)
            await trio.lowlevel.checkpoint()
        assert (scope.cancelled_caught, batch.is_written) == (True, True)


async def test_the_directory_stays_locked_while_it_may_still_write(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path)
    async with DiskProcess.started(lock.descriptors):
        lock.close()
        with pytest.raises(DataDirectoryLocked):
            DirectoryLock(tmp_path)
    DirectoryLock(tmp_path).close()
