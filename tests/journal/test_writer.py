"""The writer over a disk that fails."""

from __future__ import annotations

import errno
from contextlib import nullcontext

import msgspec
import pytest

from observer_actors.errors import DiskFailed, DiskFull
from observer_actors.journal import compact, verify
from observer_actors.op import decode_op, encode_ops
from observer_actors.settings import JournalSettings
from tests.fakes.disk import FakeDisk
from tests.journal.support import (
    DATA,
    PATHS,
    SMALL,
    START_US,
    Clock,
    commit,
    everything,
    make_op,
    make_ops,
    open_writer,
    reader_of,
    seq_known,
)


def test_ops_of_one_commit_share_recorded_at_and_count_on() -> None:
    disk = FakeDisk()
    writer = open_writer(disk)
    commit(writer, make_ops(3))
    commit(writer, make_ops(2))
    ops = [decode_op(line) for line in disk.contents(PATHS.active).splitlines()]
    assert [op.seq for op in ops] == [1, 2, 3, 4, 5]
    assert [op.recorded_at for op in ops] == ["2027-01-15T08:00:00.000000Z"] * 3 + ["2027-01-15T08:00:00.000001Z"] * 2


def test_recorded_at_goes_on_when_the_clock_is_set_back_and_across_a_restart() -> None:
    disk, clock = FakeDisk(), Clock()
    commit(open_writer(disk, clock=clock), make_ops(1))
    clock.now_us -= 10**9
    writer = open_writer(disk, clock=clock)
    [op] = commit(writer, make_ops(1))
    assert op.recorded_at == "2027-01-15T08:00:00.000001Z"
    writer.seal()
    [op] = commit(open_writer(disk, clock=clock), make_ops(1))
    assert op.recorded_at == "2027-01-15T08:00:00.000002Z"


def test_an_empty_commit_touches_nothing() -> None:
    disk = FakeDisk()
    writer = open_writer(disk)
    before = disk.calls.copy()
    writer.commit([])
    assert disk.calls == before


def test_one_commit_is_one_write_and_one_sync() -> None:
    disk = FakeDisk()
    writer = open_writer(disk)
    before = disk.calls.copy()
    commit(writer, make_ops(500))
    assert disk.calls - before == {"write": 1, "datasync": 1}


def test_short_writes_are_continued() -> None:
    disk = FakeDisk(3, short_writes=True)
    writer = open_writer(disk)
    ops = commit(writer, make_ops(20))
    assert everything(writer, disk) == ops


def test_a_full_disk_takes_nothing_of_the_batch_and_recovers_by_itself() -> None:
    disk = FakeDisk()
    writer = open_writer(disk)
    kept = commit(writer, make_ops(2))
    held = disk.contents(PATHS.active)
    disk.quota_bytes = disk.used_bytes() + 100
    batch = make_ops(5, first=2)
    writer.stamp(batch)
    with pytest.raises(DiskFull, match="ENOSPC while writing the journal"):
        writer.commit(batch)
    assert disk.contents(PATHS.active) == held
    assert everything(writer, disk) == kept
    disk.quota_bytes = None
    commit(writer, batch)
    assert [op.seq for op in everything(writer, disk)] == [1, 2, 3, 4, 5, 6, 7]


def test_a_refused_batch_whose_cut_is_not_on_disk_may_come_back_and_the_error_says_so() -> None:
    disk = FakeDisk()
    writer = open_writer(disk)
    disk.fail("datasync", times=9)
    disk.fail("truncate", times=9)
    batch = make_ops(2)
    writer.stamp(batch)
    with pytest.raises(DiskFailed, match=r"; the write may still succeed$"):
        writer.commit(batch)
    disk.heal()
    assert open_writer(disk).last_seq == 2, "the process was killed before it could cut"


def test_a_refused_batch_may_come_back_out_of_the_first_file_also_where_the_second_one_is_cut_for_good() -> None:
    disk = FakeDisk()
    writer = open_writer(disk)
    commit(writer, make_ops(1))
    disk.fail("datasync", times=2)  # the batch's, and that of the first file's cut
    disk.fail("write", after=1, code=errno.ENOSPC)
    batch = make_ops(2, first=1)
    writer.stamp(batch)
    with pytest.raises(DiskFull, match=r"; the write may still succeed$"):
        writer.commit(batch)
    assert 3 in {open_writer(disk.crash(seed)).last_seq for seed in range(50)}
    disk.fail("write", code=errno.ENOSPC)
    with pytest.raises(DiskFull) as refused:
        commit(writer, make_ops(1, first=9))
    assert "may still succeed" not in str(refused.value), "of the next batch nothing is in any file"


@pytest.mark.parametrize("seed", range(20))
def test_a_refused_batch_of_which_the_error_does_not_say_so_does_not_come_back(seed: int) -> None:
    disk = FakeDisk()
    writer = open_writer(disk)
    commit(writer, make_ops(1))
    disk.fail("datasync")
    disk.fail("open_append", after=1)  # the first file can be cut, and a second one cannot be made
    batch = make_ops(2, first=1)
    writer.stamp(batch)
    with pytest.raises(DiskFailed) as refused:
        writer.commit(batch)
    assert "may still succeed" not in str(refused.value)
    assert open_writer(disk.crash(seed)).last_seq == 1


def test_what_is_cut_off_a_batch_that_a_full_disk_took_a_part_of_does_not_come_back_either() -> None:
    disk = FakeDisk()
    writer = open_writer(disk)
    commit(writer, make_ops(1))
    batch = make_ops(4, first=1)
    writer.stamp(batch)
    disk.quota_bytes = disk.used_bytes() + len(encode_ops(batch[:3]))
    with pytest.raises(DiskFull) as refused:
        writer.commit(batch)
    assert "may still succeed" not in str(refused.value)
    disk.quota_bytes = None
    assert {open_writer(disk.crash(seed)).last_seq for seed in range(50)} == {1}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_errors_are_told_apart(code: int) -> None:
    disk = FakeDisk()
    writer = open_writer(disk)
    disk.fail("write", code=code)
    with pytest.raises(DiskFailed) as caught:
        commit(writer, make_ops(1))
    assert isinstance(caught.value, DiskFull) == (code != errno.EIO)


def test_a_failed_fdatasync_moves_on_to_a_new_file() -> None:
    disk = FakeDisk()
    writer = open_writer(disk)
    first = commit(writer, make_ops(2))
    disk.fail("datasync")
    second = commit(writer, make_ops(2, first=2))
    assert disk.list(PATHS.segments) == ["manifest.json", "ops-00000000000000000001.jsonl"]
    assert disk.contents(PATHS.raw(1)).count(b"\n") == 2
    assert everything(writer, disk) == first + second
    # Nothing of it depends on the poisoned file's later syncs.
    assert everything(open_writer(disk.durable()), disk) == first + second
    statistics = writer.statistics()
    assert (statistics.seals, statistics.repairs, statistics.is_broken) == (1, 1, False)


def test_a_failed_fdatasync_of_an_empty_file_replaces_it() -> None:
    disk = FakeDisk()
    writer = open_writer(disk)
    disk.fail("datasync")
    ops = commit(writer, make_ops(2))
    assert disk.list(PATHS.segments) == ["manifest.json"]
    assert everything(open_writer(disk.durable()), disk.durable()) == ops


def test_a_second_failed_fdatasync_refuses_the_batch_and_the_next_commit_recovers() -> None:
    disk = FakeDisk()
    writer = open_writer(disk)
    first = commit(writer, make_ops(2))
    disk.fail("datasync", times=3)  # of the batch, of its cut, and of the batch in a second file
    with pytest.raises(DiskFailed):
        commit(writer, make_ops(2, first=2))
    assert everything(writer, disk) == first
    assert [op.seq for op in commit(writer, make_ops(1, first=4))] == [3]
    disk = disk.durable()
    assert [op.seq for op in everything(open_writer(disk), disk)] == [1, 2, 3]


def test_while_cutting_back_fails_the_writer_is_broken_and_then_recovers_by_itself() -> None:
    disk = FakeDisk()
    writer = open_writer(disk)
    first = commit(writer, make_ops(2))
    disk.fail("write", after=0, times=1)
    disk.fail("truncate", times=3)
    with pytest.raises(DiskFailed):
        commit(writer, make_ops(1))
    assert writer.statistics().is_broken
    with pytest.raises(DiskFailed, match="injected into truncate"):
        commit(writer, make_ops(1))
    assert everything(writer, disk) == first
    second = commit(writer, make_ops(1, first=2))
    assert everything(writer, disk) == first + second
    assert not writer.statistics().is_broken


@pytest.mark.parametrize("kind", ["write", "datasync", "truncate", "rename", "sync_directory", "open_append", "remove"])
@pytest.mark.parametrize("after", range(4))
def test_whatever_fails_a_commit_is_whole_or_not_there(kind: str, after: int) -> None:
    disk = FakeDisk(after)
    writer = open_writer(disk)
    acknowledged = commit(writer, make_ops(2))
    disk.fail("datasync")
    disk.fail(kind, after=after, times=2)  # type: ignore[arg-type]
    for number in range(6):
        try:
            acknowledged += commit(writer, make_ops(2, first=2 + 2 * number))
            writer.seal()
        except DiskFailed:
            assert everything(writer, disk) == acknowledged
        assert len(disk.open) <= 1
    assert everything(writer, disk) == acknowledged
    assert len(acknowledged) >= 4
    assert not verify(DATA, disk=disk, in_use=False).findings
    for seed in range(5):
        after_crash = disk.crash(seed)
        assert everything(open_writer(after_crash), after_crash) == acknowledged


def test_a_file_of_which_the_sync_of_a_cut_failed_is_not_written_any_more() -> None:
    disk = FakeDisk()
    writer = open_writer(disk)
    ops = commit(writer, make_ops(1))
    disk.fail("write", code=errno.ENOSPC)
    disk.fail("datasync")
    with pytest.raises(DiskFull):
        commit(writer, make_ops(1))
    ops += commit(writer, make_ops(2, first=1))
    assert disk.contents(PATHS.raw(1)).count(b"\n") == 1
    assert everything(open_writer(disk.durable()), disk.durable()) == ops


def test_the_age_of_a_file_is_that_of_its_first_op() -> None:
    clock = Clock()
    writer = open_writer(FakeDisk(), JournalSettings(segment_seconds_max=60), clock)
    commit(writer, make_ops(1))
    clock.now_us += 59_000_000
    commit(writer, make_ops(1))
    assert not writer.seal_due()
    clock.now_us += 1_000_000
    assert writer.seal_due()


def test_sealing_is_due_by_size_or_age_and_never_for_an_empty_file() -> None:
    disk, clock = FakeDisk(), Clock()
    settings = JournalSettings(segment_bytes_max=1_000, segment_seconds_max=60)
    writer = open_writer(disk, settings, clock)
    clock.now_us += 10**12
    assert not writer.seal_due()
    assert not writer.seal()
    commit(writer, make_ops(1))
    assert not writer.seal_due()
    clock.now_us += 60_000_000
    assert writer.seal_due()
    assert writer.seal()
    commit(writer, make_ops(10))
    assert writer.seal_due()


def test_a_seal_that_fails_half_way_is_mended_by_the_next_commit() -> None:
    disk = FakeDisk()
    writer = open_writer(disk)
    first = commit(writer, make_ops(2))
    disk.fail("sync_directory")
    with pytest.raises(DiskFailed, match="sealing"):
        writer.seal()
    assert everything(writer, disk) == first
    second = commit(writer, make_ops(2, first=2))
    assert everything(writer, disk) == first + second
    assert everything(open_writer(disk.durable()), disk.durable()) == first + second


def test_what_a_failed_commit_has_left_is_cut_before_a_seal() -> None:
    """In a segment that is the newest when the power is lost, it would be taken for acknowledged."""
    disk = FakeDisk()
    writer = open_writer(disk)
    kept = commit(writer, make_ops(2))
    held = disk.contents(PATHS.active)
    disk.fail("write", after=1)
    disk.short_writes = True
    disk.fail("truncate")
    with pytest.raises(DiskFailed):
        commit(writer, make_ops(2, first=2))
    assert disk.contents(PATHS.active) != held
    assert writer.seal()
    assert disk.contents(PATHS.raw(1)) == held
    assert everything(writer, disk) == kept


def test_a_seal_whose_rename_fails_changes_nothing() -> None:
    disk = FakeDisk()
    writer = open_writer(disk)
    commit(writer, make_ops(2))
    disk.fail("rename")
    with pytest.raises(DiskFailed):
        writer.seal()
    assert writer.statistics().segments == 0
    commit(writer, make_ops(2))
    assert [op.seq for op in everything(writer, disk)] == [1, 2, 3, 4]


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("compacted", [False, True])
def test_the_window_survives_a_restart(*, sealed: bool, compacted: bool) -> None:
    disk = FakeDisk()
    writer = open_writer(disk)
    for number in range(100):
        commit(writer, [make_op(number, id_=f"id-{number}")])
        if sealed and number % 10 == 9:
            writer.seal()
    if compacted:
        compact(disk, DATA, writer.catalog, SMALL)
    again = open_writer(disk)
    known = {number for number in range(100) if seq_known(again, f"id-{number}") == number + 1}
    assert known == set(range(50, 100))


def test_a_failed_commit_makes_no_id_known() -> None:
    disk = FakeDisk()
    writer = open_writer(disk)
    disk.fail("write")
    with pytest.raises(DiskFailed):
        commit(writer, [make_op(id_="a")])
    assert seq_known(writer, "a") is None


def test_a_batch_is_sifted_into_new_known_and_twins() -> None:
    writer = open_writer(FakeDisk())
    commit(writer, [make_op(0, id_="old")])
    batch = [make_op(1, id_="new"), make_op(2, id_="old"), make_op(3), make_op(4, id_="new"), make_op(5)]
    sifted = writer.sift(batch)
    assert sifted.fresh == [batch[0], batch[2], batch[4]]
    assert sifted.known == {1: 1}
    assert sifted.twins == {3: batch[0]}
    commit(writer, sifted.fresh)
    assert sifted.twins[3].seq == 2


def test_statistics_tell_what_was_done() -> None:
    disk = FakeDisk()
    writer = open_writer(disk)
    commit(writer, make_ops(3))
    written = len(disk.contents(PATHS.active))
    statistics = writer.statistics()
    assert msgspec.structs.replace(statistics, last_sync_us=0) == type(statistics)(
        active_bytes=written,
        segments=0,
        is_broken=False,
        commits=1,
        bytes_written=written,
        last_sync_us=0,
        seals=0,
        repairs=0,
        missing_ops=0,
        removed_through=0,
    )


@pytest.mark.parametrize("fails", [False, True])
def test_it_tells_how_long_the_last_sync_took(monkeypatch: pytest.MonkeyPatch, *, fails: bool) -> None:
    disk = FakeDisk()
    writer = open_writer(disk)
    if fails:
        disk.fail("datasync", times=9)
    clock = iter([5_000_000, 5_017_999, 9_000_000, 9_042_000])
    monkeypatch.setattr("time.perf_counter_ns", lambda: next(clock))
    with pytest.raises(DiskFailed) if fails else nullcontext():
        commit(writer, make_ops(2))
    assert writer.statistics().last_sync_us == (42 if fails else 17)


def test_closing_takes_back_a_failed_commit_if_it_can() -> None:
    disk = FakeDisk()
    writer = open_writer(disk)
    disk.fail("write", after=1)
    disk.short_writes = True
    disk.fail("truncate")
    with pytest.raises(DiskFailed):
        commit(writer, make_ops(2))
    assert disk.contents(PATHS.active) != b""
    writer.close()
    writer.close()
    assert disk.contents(PATHS.active) == b""
    assert not disk.open


def test_a_batch_stamped_again_after_a_failure_has_the_same_seqs() -> None:
    disk, clock = FakeDisk(), Clock()
    writer = open_writer(disk, clock=clock)
    batch = make_ops(2)
    writer.stamp(batch)
    first = [(op.seq, op.recorded_at) for op in batch]
    writer.stamp(batch)
    assert [(op.seq, op.recorded_at) for op in batch] == first
    clock.now_us = START_US + 5
    commit(writer, batch)
    assert reader_of(writer, disk).get(2) == batch[1]


def test_a_large_batch_is_indexed_by_the_seq_of_its_lines_whatever_their_texts_say() -> None:
    disk = FakeDisk()
    writer = open_writer(disk)
    ops = make_ops(4_000, pad=200)
    for op in ops:
        op.input_summary += '"seq":7,"recorded_at":"2026",\\"seq\\":8,'
    commit(writer, ops)
    marks = writer.catalog.snapshot().active.marks
    data = disk.contents(PATHS.active)
    assert len(marks) > 4
    for mark in marks:
        assert decode_op(data[mark.offset : data.index(b"\n", mark.offset)]).seq == mark.first_seq
    reader = reader_of(writer, disk)
    assert [reader.read(seq - 1, 1)[0].seq for seq in range(1, 4_001, 97)] == [*range(1, 4_001, 97)]
