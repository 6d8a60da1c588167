"""Commits that another process writes: `begin` and `conclude`. However that went, the journal is as after `commit`."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from observer_actors.errors import DiskFailed, DiskFull
from observer_actors.journal import Handed, JournalWriter, PosixDisk, verify
from observer_actors.op import Op
from tests.fakes.disk import FakeDisk
from tests.journal.support import commit, everything, make_ops, open_writer, reader_of


@pytest.fixture
def writer(tmp_path: Path) -> JournalWriter:
    return open_writer(PosixDisk(), data=tmp_path)


def begun(writer: JournalWriter, ops: list[Op]) -> Handed:
    writer.stamp(ops)
    handed = writer.begin(ops)
    assert handed is not None
    return handed


def written(handed: Handed, share: float = 1.0) -> Handed:
    """Write it, or a part of it, as another process would: through a descriptor of its own."""
    with Path(f"/proc/self/fd/{handed.file.fileno()}").open("ab") as file:
        file.write(handed.data[: int(len(handed.data) * share)])
    handed.is_written = share == 1
    return handed


def test_one_commit_after_the_other(writer: JournalWriter, tmp_path: Path) -> None:
    ops = commit(writer, make_ops(3))
    for first in (3, 5):
        more = make_ops(2, first=first)
        handed = written(begun(writer, more))
        handed.sync_us = 17
        writer.conclude(more, handed, None)
        assert writer.statistics().last_sync_us == 17
        ops += more
    ops += commit(writer, make_ops(2, first=7))
    assert everything_in(writer, tmp_path) == ops
    assert (writer.statistics().commits, writer.statistics().is_broken) == (4, False)


def everything_in(writer: JournalWriter, data: Path) -> list[Op]:
    assert not verify(data).is_damaged
    return reader_of(writer, PosixDisk(), data).read(0, 1_000)


@pytest.mark.parametrize("share", [0, 0.5])
def test_a_write_that_was_refused_is_taken_back(writer: JournalWriter, tmp_path: Path, share: float) -> None:
    ops, lost = commit(writer, make_ops(3)), make_ops(2, first=3)
    handed = written(begun(writer, lost), share)
    with pytest.raises(DiskFull):
        writer.conclude(lost, handed, OSError(errno.ENOSPC, "no space"))
    assert not writer.statistics().is_broken
    ops += commit(writer, make_ops(2, first=5))
    assert everything_in(writer, tmp_path) == ops
    assert [op.seq for op in ops] == [1, 2, 3, 4, 5]


def test_after_a_failed_fdatasync_the_batch_goes_to_a_new_file(writer: JournalWriter, tmp_path: Path) -> None:
    ops, more = commit(writer, make_ops(3)), make_ops(2, first=3)
    writer.conclude(more, written(begun(writer, more)), OSError(errno.EIO, "input/output error"))
    assert everything_in(writer, tmp_path) == ops + more
    assert (writer.statistics().segments, writer.statistics().repairs) == (1, 1)


def test_nothing_is_given_away_while_there_is_something_to_mend(writer: JournalWriter, tmp_path: Path) -> None:
    lost = make_ops(2)
    handed = begun(writer, lost)
    assert writer.begin(lost) is None, "a batch is under way already"
    (tmp_path / "_observer").rename(tmp_path / "away")
    with pytest.raises(DiskFailed, match=r"; the write may still succeed$"):
        writer.conclude(lost, handed, OSError(errno.EIO, "input/output error"))
    assert writer.begin(lost) is None
    (tmp_path / "away").rename(tmp_path / "_observer")
    ops = commit(writer, make_ops(2))
    assert everything_in(writer, tmp_path) == ops
    assert writer.begin([]) is None


def test_a_batch_that_was_never_concluded_is_cut_when_the_journal_is_opened_anew(
    writer: JournalWriter, tmp_path: Path
) -> None:
    ops = commit(writer, make_ops(3))
    written(begun(writer, make_ops(2, first=3)))
    again = open_writer(PosixDisk(), data=tmp_path, unacknowledged_from=4)
    assert everything_in(again, tmp_path) == ops


def test_a_file_that_is_none_of_the_systems_is_not_given_away() -> None:
    disk = FakeDisk()
    writer = open_writer(disk)
    ops = make_ops(2)
    writer.stamp(ops)
    assert writer.begin(ops) is None
    writer.commit(ops)
    assert everything(writer, disk) == ops
