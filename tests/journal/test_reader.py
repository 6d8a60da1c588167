"""Reading by seq, by time and by filter: what is found, and what is left unread."""

from __future__ import annotations

import errno
import gzip
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observer_actors.errors import DiskFailed
from observer_actors.journal import JournalReader, JournalWriter, PosixDisk, Query, compact, files, look, retain
from observer_actors.journal.blocks import BlockStore, Span, stored_index
from observer_actors.journal.catalog import Segment
from observer_actors.journal.format import event_us, recorded_text
from observer_actors.journal.lines import event_times
from observer_actors.journal.times import ranges
from observer_actors.op import Op
from observer_actors.settings import JournalSettings
from tests.fakes.disk import FakeDisk
from tests.journal.support import DATA, PATHS, SMALL, START_US, commit, make_op, make_ops, open_writer, reader_of

BASE_US = event_us("2026-11-22T10:00:00.000Z", "")


@pytest.fixture
def blocks_read(monkeypatch: pytest.MonkeyPatch) -> list[Span]:
    """Give the blocks that are read, also while a journal is opened."""
    read: list[Span] = []
    read_plain = BlockStore.read_plain

    def reading(store: BlockStore, span: Span) -> bytes:
        read.append(span)
        return read_plain(store, span)

    monkeypatch.setattr(BlockStore, "read_plain", reading)
    return read


def long_journal(disk: FakeDisk, *, compacted: bool = True) -> tuple[JournalWriter, list[Op]]:
    """3,000 ops of 600 bytes: five sealed segments of two blocks each, and an active file of two."""
    writer = open_writer(disk)
    ops: list[Op] = []
    for part in range(6):
        for step in range(10):
            ops += commit(writer, make_ops(50, first=part * 500 + step * 50, pad=400))
        if part < 5:
            writer.seal()
    if compacted:
        compact(disk, DATA, writer.catalog, SMALL)
    return writer, ops


def test_one_op_costs_one_block(blocks_read: list[Span]) -> None:
    disk = FakeDisk()
    writer, ops = long_journal(disk)
    reader = reader_of(writer, disk)
    assert reader.get(1_234) == ops[1_233]
    assert len(blocks_read) == 1
    assert (reader.get(0), reader.get(3_001), reader.get(-5)) == (None, None, None)
    assert (reader.first_seq, reader.last_seq) == (1, 3_000)


@pytest.mark.parametrize("compacted", [True, False])
def test_the_newest_ops_are_found_without_reading_the_history(blocks_read: list[Span], *, compacted: bool) -> None:
    disk = FakeDisk()
    writer, ops = long_journal(disk, compacted=compacted)
    reader = reader_of(writer, disk)
    page = reader.query(Query(limit=10))
    assert page.ops == ops[:-11:-1]
    assert (page.cursor, page.complete) == (2_991, True)
    assert len(blocks_read) == 1


def test_a_time_range_reads_the_blocks_that_can_hold_it(blocks_read: list[Span]) -> None:
    disk = FakeDisk()
    writer = open_writer(disk)
    ops: list[Op] = []
    for hour in range(10):
        batch = make_ops(60, pad=4_600)
        for op in batch:
            op.timestamp = op.timestamp.replace("T10:", f"T{hour:02d}:")
        ops += commit(writer, batch)
        writer.seal()
    compact(disk, DATA, writer.catalog, SMALL)
    reader = reader_of(writer, disk)
    since = event_us("2026-11-22T03:00:30Z", "")
    page = reader.query(Query(since_us=since, until_us=since + 9_000_001))
    assert [op.seq for op in page.ops] == list(range(220, 210, -1))
    assert (page.cursor, page.complete) == (None, True)
    assert len(blocks_read) <= 2


@pytest.mark.parametrize("is_opened_anew", [False, True])
def test_the_times_of_blocks_are_known_before_any_is_compacted_or_read(
    blocks_read: list[Span], *, is_opened_anew: bool
) -> None:
    disk = FakeDisk()
    writer, ops = long_journal(disk, compacted=False)
    if is_opened_anew:
        writer = open_writer(disk)
    reader = reader_of(writer, disk)
    blocks_read.clear()
    assert reader.query(Query(since_us=BASE_US + 10**12)).ops == []
    assert reader.query(Query(until_us=BASE_US - 10**12, newest_first=False)).ops == []
    assert blocks_read == []
    times = [event_us(op.timestamp, op.recorded_at) for op in ops]
    for op, time in [*zip(ops, times, strict=True)][:: len(ops) // 7]:
        found = reader.query(Query(since_us=time, until_us=time + 1, limit=10_000, newest_first=False))
        assert [one.seq for one in found.ops] == [other.seq for other, at in zip(ops, times, strict=True) if at == time]
        assert op in found.ops


@pytest.mark.parametrize("state", ["active", "sealed", "compacted", "plain", "opened anew"])
def test_a_clock_that_is_years_off_costs_a_query_nothing(state: str, blocks_read: list[Span]) -> None:
    """Each block holds an op of 1970, and one of no time at all, beside those of its day."""
    disk, settings = FakeDisk(), JournalSettings(compress=state != "plain")
    writer = open_writer(disk)
    ops: list[Op] = []
    for day in range(1, 21):
        batch = make_ops(60, pad=4_600)
        for op in batch:
            op.timestamp = op.timestamp.replace("-22T", f"-{day:02d}T")
        batch[7].timestamp = "1970-01-01T00:00:00.000Z"
        batch[9].timestamp = "yesterday"
        ops += commit(writer, batch)
        if day % 4 == 0 and state != "active":
            writer.seal()
    if state in ("compacted", "plain", "opened anew"):
        compact(disk, DATA, writer.catalog, settings)
    if state == "opened anew":
        writer = open_writer(disk)
    reader = reader_of(writer, disk)
    blocks_read.clear()
    since = event_us("2026-11-03T00:00:00Z", "")
    page = reader.query(Query(since_us=since, until_us=since + 86_400_000_000, limit=1_000))
    assert [op.seq for op in page.ops] == [seq for seq in range(180, 120, -1) if seq not in (128, 130)]
    assert (page.cursor, page.complete) == (None, True)
    assert len(blocks_read) <= 3
    assert [op.seq for op in reader.query(Query(until_us=10**9)).ops] == list(range(1_148, 0, -60))


def test_where_times_are_near_each_other_the_files_say_no_more_than_they_used_to() -> None:
    disk = FakeDisk()
    long_journal(disk)
    for name in disk.list(PATHS.segments):
        if name.endswith(".json"):
            path = PATHS.segments / name
            assert b"time_ranges" not in disk.read(path, 0, disk.size(path))


_TEXTS = ("2026-11-22T10:00:00.123Z", "2026-11-22T10:00:00.124+02:00", "2026-11-22T10:00:00", "2026-11-22", "x", "")


@given(st.lists(st.sampled_from(_TEXTS), max_size=5))
def test_the_times_of_a_block_are_those_of_its_ops_one_by_one(texts: list[str]) -> None:
    ops = make_ops(len(texts))
    for op, text in zip(ops, texts, strict=True):
        op.timestamp, op.recorded_at = text, recorded_text(START_US)
    times = [event_us(op.timestamp, op.recorded_at) for op in ops]
    assert event_times(ops) == ranges(times)


def test_an_unreadable_time_counts_as_when_it_was_recorded() -> None:
    disk = FakeDisk()
    writer = open_writer(disk)
    op = make_op(1)
    op.timestamp = "yesterday"
    commit(writer, [op])
    reader = reader_of(writer, disk)
    assert reader.query(Query(since_us=START_US, until_us=START_US + 1)).ops == [op]
    assert reader.query(Query(until_us=START_US)).ops == []
    assert reader.query(Query(since_us=START_US + 1)).ops == []


def test_a_scan_has_a_budget_and_says_where_to_go_on() -> None:
    disk = FakeDisk()
    writer, ops = long_journal(disk)
    reader = reader_of(writer, disk)
    page = reader.query(Query(endpoint="none such", scanned_ops_max=700))
    assert (page.ops, page.complete) == ([], False)
    assert page.cursor is not None
    assert 700 <= 3_001 - page.cursor <= 1_200
    found: list[Op] = []
    cursor: int | None = 0
    while cursor is not None:
        query = Query(source="bot", newest_first=False, after_seq=cursor, limit=400, scanned_ops_max=500)
        page = reader.query(query)
        found += page.ops
        cursor = page.cursor
    assert found == [op for op in ops if op.source == "bot"]


def test_who_reads_block_by_block_meets_every_op_and_each_block_once(blocks_read: list[Span]) -> None:
    disk = FakeDisk()
    writer, ops = long_journal(disk)
    reader = reader_of(writer, disk)
    found: list[Op] = []
    reads = 0
    while block := reader.read_block(len(found)).ops:
        found += block
        reads += 1
    assert found == ops
    assert len(blocks_read) == reads > 1


def test_a_limit_of_nothing_gives_nothing(blocks_read: list[Span]) -> None:
    disk = FakeDisk()
    writer, _ = long_journal(disk)
    reader = reader_of(writer, disk)
    assert reader.read(0, 0) == []
    assert reader.query(Query(limit=0)).ops == []
    assert blocks_read == []


def test_bytes_that_are_not_durable_are_not_seen() -> None:
    disk = FakeDisk()
    writer = open_writer(disk)
    ops = commit(writer, make_ops(2))
    disk.fail("datasync", times=9)
    disk.fail("truncate", times=9)
    with pytest.raises(DiskFailed):
        commit(writer, make_ops(2))
    assert disk.contents(PATHS.active).count(b"\n") == 4
    assert reader_of(writer, disk).read(0, 10) == ops
    assert reader_of(writer, disk).query(Query()).ops == ops[::-1]


def test_a_read_error_is_ours() -> None:
    disk = FakeDisk()
    writer, _ = long_journal(disk)
    disk.fail("read", times=2, code=errno.ENOMEM)  # the block index, and what it is made again from
    with pytest.raises(DiskFailed, match="reading the journal"):
        reader_of(writer, disk).read(0, 10)


@pytest.mark.parametrize("newest_first", [True, False])
def test_a_reader_goes_on_while_files_are_sealed_compacted_and_removed(*, newest_first: bool) -> None:
    disk = FakeDisk()
    writer, ops = long_journal(disk, compacted=False)
    reader = reader_of(writer, disk)
    got: list[int] = []
    asked = Query(newest_first=newest_first)
    for number, part in enumerate(reader._walk(1, 3_000, asked)):  # noqa: SLF001 - to act between two blocks
        got += [op.seq for op in part.ops]
        if number == 0:
            writer.seal()
        if number == 1:
            compact(disk, DATA, writer.catalog, SMALL)
        if number == 3:
            commit(writer, make_ops(5))
    assert sorted(got) == [op.seq for op in ops]
    assert got == sorted(got, reverse=newest_first)


def test_a_removed_history_ends_the_walk_where_it_ends() -> None:
    disk = FakeDisk()
    writer, _ = long_journal(disk)
    reader = reader_of(writer, disk)
    walk = reader._walk(1, 3_000, Query())  # noqa: SLF001
    got = [op.seq for op in next(walk).ops]
    retain(disk, DATA, writer.catalog, JournalSettings(retained_bytes_max=1), now_us=START_US)
    got += [op.seq for part in walk for op in part.ops]
    assert got == list(range(3_000, 2_500, -1))
    assert reader.damaged_lines == 0


@pytest.mark.parametrize("newest_first", [True, False])
def test_damaged_lines_are_passed_over_and_counted(*, newest_first: bool) -> None:
    disk = FakeDisk()
    writer, ops = long_journal(disk, compacted=False)
    for path, line in [(PATHS.active, 0), (PATHS.active, 7), (PATHS.raw(501), 0), (PATHS.raw(1), 499)]:
        lines = disk.contents(path).splitlines(keepends=True)
        lines[line] = b"#" * (len(lines[line]) - 1) + b"\n"
        disk.plant(path, b"".join(lines))
    reader = reader_of(writer, disk)
    lost = {2_501, 2_508, 501, 500}
    for _ in range(2):
        page = reader.query(Query(limit=10_000, newest_first=newest_first))
        assert sorted(op.seq for op in page.ops) == [op.seq for op in ops if op.seq not in lost]
        assert reader.damaged_lines == 4
    assert reader.get(501) is None


def writer_behind_a_damaged_line(disk: FakeDisk) -> JournalWriter:
    """Open the journal anew with ten ops in it, of which the first has rotted."""
    writer = open_writer(disk, JournalSettings())
    commit(writer, make_ops(5))
    commit(writer, make_ops(5, first=5))
    first, *others = disk.contents(PATHS.active).splitlines(keepends=True)
    disk.plant(PATHS.active, b"#" * (len(first) - 1) + b"\n" + b"".join(others))
    return open_writer(disk, JournalSettings())


def test_a_damaged_line_of_the_block_that_is_written_is_counted_once_however_often_it_is_read() -> None:
    disk = FakeDisk()
    writer = writer_behind_a_damaged_line(disk)
    reader = reader_of(writer, disk)
    for length in range(9, 12):
        assert len(reader.query(Query()).ops) == length
        assert reader.damaged_lines == 1
        commit(writer, make_ops(1))
    writer.seal()
    compact(disk, DATA, writer.catalog, JournalSettings())
    assert len(reader.query(Query()).ops) == 12
    assert reader.damaged_lines == 1


@pytest.mark.parametrize("reads", range(1, 4))
def test_a_damaged_line_costs_no_other_op_where_its_file_is_sealed_while_it_is_read(
    reads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FakeDisk()
    writer = writer_behind_a_damaged_line(disk)
    reader = reader_of(writer, disk)
    read, to_come = disk.read, iter(range(1, 100))

    def read_later(path: Path, offset: int, length: int) -> bytes:
        if next(to_come) == reads:
            writer.seal()
            commit(writer, make_ops(20, first=10))  # the new file is longer than the old one
        return read(path, offset, length)

    monkeypatch.setattr(disk, "read", read_later)
    found = reader.read_block(0)
    assert [op.seq for op in found.ops] == list(range(2, 11))
    assert reader.damaged_lines == 1


@pytest.mark.parametrize("first", range(1, 11))
def test_two_lines_that_rot_to_one_cost_no_other_op_wherever_blocks_begin(
    first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BLOCK_BYTES", 1_000)
    disk = FakeDisk()
    writer = open_writer(disk, JournalSettings())
    ops = [op for number in range(13) for op in commit(writer, make_ops(1, first=number))]
    lines = disk.contents(PATHS.active).splitlines(keepends=True)
    lines[first : first + 2] = [b"x" * (len(lines[first]) + len(lines[first + 1]) - 1) + b"\n"]
    disk.plant(PATHS.active, b"".join(lines))
    reader = reader_of(open_writer(disk, JournalSettings()), disk)
    assert reader.last_seq == len(ops)
    assert reader.read(0, 100) == [op for op in ops if op.seq not in {first + 1, first + 2}]


def test_a_damaged_block_costs_its_own_ops_only() -> None:
    disk = FakeDisk()
    writer, ops = long_journal(disk)
    stored = bytearray(disk.contents(PATHS.compressed(501)))
    stored[300] ^= 1
    disk.plant(PATHS.compressed(501), bytes(stored))
    reader = reader_of(writer, disk)
    found = [op.seq for op in reader.read(0, 10_000)]
    lost = reader.damaged_lines
    assert 0 < lost < 500
    assert found == [op.seq for op in ops if not 501 <= op.seq < 501 + lost]
    disk.remove(PATHS.index(501))
    again = JournalReader(disk, DATA, look(disk, DATA))
    assert [op.seq for op in again.read(1_000, 10_000)] == list(range(1_001, 3_001))
    assert [op.seq for op in again.read(0, 600)] == [*range(1, 501), *range(1_001, 1_101)]


@pytest.mark.parametrize("blocks", [0, 1])
def test_what_a_segment_lacks_that_ends_between_two_blocks_is_counted(blocks: int) -> None:
    disk = FakeDisk()
    writer, ops = long_journal(disk)
    index = stored_index(disk, PATHS, 501)
    assert index is not None
    cut_at = index.blocks[blocks]
    disk.plant(PATHS.compressed(501), disk.contents(PATHS.compressed(501))[: cut_at.offset])
    for newest_first in (False, True):
        reader = reader_of(writer, disk)
        found = sorted(op.seq for op in reader.query(Query(limit=10_000, newest_first=newest_first)).ops)
        assert found == [op.seq for op in ops if not cut_at.first_seq <= op.seq <= 1_000]
        assert reader.damaged_lines == 1_001 - cut_at.first_seq


def test_what_is_compacted_behind_a_damaged_block_is_read_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FakeDisk()
    writer = open_writer(disk)
    commit(writer, make_ops(20))
    writer.seal()
    compact(disk, DATA, writer.catalog, SMALL)
    commit(writer, make_ops(20, first=20))
    writer.seal()
    stored = bytearray(disk.contents(PATHS.compressed(1)))
    stored[len(stored) // 2] ^= 1
    disk.plant(PATHS.compressed(1), bytes(stored))
    reader = reader_of(writer, disk)
    spans, looked = reader._store.spans, []  # noqa: SLF001 - to do it at the worst moment

    def compacted_meanwhile(segment: Segment) -> Sequence[Span]:
        looked.append(segment.first_seq)
        if segment.entry is None and len(looked) > 2:  # by now the first one is known to be damaged
            compact(disk, DATA, writer.catalog, SMALL)
        return spans(segment)

    monkeypatch.setattr(reader._store, "spans", compacted_meanwhile)  # noqa: SLF001
    assert [op.seq for op in reader.read(0, 100)] == list(range(21, 41))


def test_a_segment_that_is_gone_is_passed_over() -> None:
    disk = FakeDisk()
    writer, _ = long_journal(disk)
    disk.remove(PATHS.compressed(501))
    disk.remove(PATHS.index(501))
    reader = reader_of(writer, disk)
    assert [op.seq for op in reader.read(0, 10_000)] == [*range(1, 501), *range(1_001, 3_001)]
    assert reader.damaged_lines == 500


def test_plain_compacted_blocks_that_rot_give_what_can_be_read() -> None:
    disk = FakeDisk()
    writer = open_writer(disk)
    ops = commit(writer, make_ops(5))
    writer.seal()
    compact(disk, DATA, writer.catalog, JournalSettings(compress=False))
    lines = disk.contents(PATHS.raw(1)).splitlines(keepends=True)
    lines[2] = lines[2].replace(b'"op 2"', b'"op\x002"')
    disk.plant(PATHS.raw(1), b"".join(lines))
    reader = reader_of(writer, disk)
    assert reader.read(0, 10) == ops[:2] + ops[3:]


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("shown", [b"[redacted]", b"[redacted]" * 50])
def test_a_compacted_segment_that_a_person_has_edited_is_read_as_it_is_now(shown: bytes, *, compressed: bool) -> None:
    disk = FakeDisk()
    writer, ops = long_journal(disk, compacted=False)
    compact(disk, DATA, writer.catalog, JournalSettings(compress=compressed))
    reader = reader_of(writer, disk)
    assert reader.read(0, 1) == ops[:1]
    path = PATHS.compressed(1) if compressed else PATHS.raw(1)
    lines = gzip.decompress(disk.contents(path)) if compressed else disk.contents(path)
    edited = lines.replace(b"x" * 400, shown)
    disk.plant(path, gzip.compress(edited) if compressed else edited)
    assert [op.seq for op in reader.read(0, 600)] == [op.seq for op in ops[:600]]
    assert reader.damaged_lines == 0


def test_a_look_from_outside_follows_a_writer() -> None:
    disk = FakeDisk()
    writer = open_writer(disk)
    ops = commit(writer, make_ops(5))
    catalog = look(disk, DATA)
    reader = JournalReader(disk, DATA, catalog)
    assert reader.read(0, 100) == ops
    writer.seal()
    ops += commit(writer, make_ops(5, first=5))
    compact(disk, DATA, writer.catalog, SMALL)
    assert reader.read(0, 100) == ops[:5]
    catalog.refresh()
    assert reader.read(0, 100) == ops
    writer.seal()
    retain(disk, DATA, writer.catalog, JournalSettings(retained_bytes_max=1), now_us=START_US)
    assert reader.read(0, 100) == ops[5:]


def test_readers_in_threads_see_a_prefix_without_gaps_while_all_goes_on(tmp_path: Path) -> None:
    disk = PosixDisk()
    writer = open_writer(disk, data=tmp_path)
    commit(writer, make_ops(1))
    reader = reader_of(writer, disk, tmp_path)
    wrong: list[object] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seqs = [op.seq for op in reader.read(0, 10**6)]
            page = [op.seq for op in reader.query(Query(limit=10**6)).ops]
            if seqs != list(range(1, len(seqs) + 1)) or page != list(range(len(page), 0, -1)):
                wrong.append((seqs, page))

    def maintain() -> None:
        while not stop.is_set():
            compact(disk, tmp_path, writer.catalog, SMALL)

    threads = [threading.Thread(target=target) for target in (read, read, maintain)]
    for thread in threads:
        thread.start()
    for number in range(150):
        commit(writer, make_ops(5, first=number * 5))
        if writer.seal_due():
            writer.seal()
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert reader.damaged_lines == 0
