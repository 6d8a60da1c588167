"""Compaction, retention, and a crash or an error at each of their steps."""

from __future__ import annotations

import errno
import gzip
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from observer_actors.errors import DiskFailed
from observer_actors.journal import (
    ClockWatch,
    JournalReader,
    JournalWriter,
    Query,
    blocks,
    compact,
    forget_lost,
    look,
    retain,
    verify,
)
from observer_actors.journal.blocks import Patience
from observer_actors.journal.format import decode_manifest
from observer_actors.op import Op
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
    make_ops,
    open_writer,
    reader_of,
)

YEAR_US = 365 * 86_400 * 10**6
PLAIN = msgspec.structs.replace(SMALL, compress=False)


def three_segments(disk: FakeDisk, clock: Clock | None = None) -> tuple[JournalWriter, list[Op]]:
    """Ops 1 to 30 in three sealed segments, 31 to 35 in the active file."""
    writer = open_writer(disk, clock=clock)
    ops: list[Op] = []
    for part in range(3):
        for step in range(2):
            ops += commit(writer, make_ops(5, first=part * 10 + step * 5))
        writer.seal()
    return writer, ops + commit(writer, make_ops(5, first=30))


def test_a_compacted_segment_is_gzip_that_holds_the_same_lines() -> None:
    disk = FakeDisk()
    writer, _ = three_segments(disk)
    raw = disk.contents(PATHS.raw(11))
    done = compact(disk, DATA, writer.catalog, SMALL)
    assert [(c.entry.first_seq, c.entry.last_seq, c.entry.ops, c.residue_bytes) for c in done] == [
        (1, 10, 10, 0),
        (11, 20, 10, 0),
        (21, 30, 10, 0),
    ]
    assert gzip.decompress(disk.contents(PATHS.compressed(11))) == raw
    assert disk.list(PATHS.segments) == [
        "manifest.json",
        *(f"ops-{first:020d}.{kind}" for first in (1, 11, 21) for kind in ("index.json", "jsonl.gz")),
    ]
    assert decode_manifest(disk.contents(PATHS.manifest)).segments == tuple(c.entry for c in done)
    assert compact(disk, DATA, writer.catalog, SMALL) == []


def test_blocks_are_independent_members() -> None:
    disk = FakeDisk()
    writer = open_writer(disk)
    ops = commit(writer, make_ops(5_000, pad=100))
    writer.seal()
    compact(disk, DATA, writer.catalog, SMALL)
    spans = reader_of(writer, disk)._store.spans(writer.catalog.snapshot().segments[0])  # noqa: SLF001
    assert len(spans) > 5
    stored = disk.contents(PATHS.compressed(1))
    for span in spans:
        lines = gzip.decompress(stored[span.offset : span.offset + span.stored_bytes]).splitlines()
        assert msgspec.json.decode(lines[0])["seq"] == span.first_seq
    assert everything(writer, disk) == ops


def test_without_compression_the_segment_stays_and_is_indexed() -> None:
    disk = FakeDisk()
    writer, ops = three_segments(disk)
    raw = disk.contents(PATHS.raw(1))
    compact(disk, DATA, writer.catalog, PLAIN)
    assert disk.contents(PATHS.raw(1)) == raw
    assert [entry.file for entry in writer.catalog.snapshot().manifest.segments] == [
        PATHS.raw(first).name for first in (1, 11, 21)
    ]
    assert everything(writer, disk) == ops
    assert everything(open_writer(disk), disk) == ops
    assert verify(DATA, disk=disk, in_use=False).findings == ()


@pytest.mark.parametrize("compress", [True, False])
def test_residue_is_set_aside_when_its_segment_is_compacted(*, compress: bool) -> None:
    disk = FakeDisk()
    writer = open_writer(disk)
    ops = commit(writer, make_ops(3))
    disk.fail("datasync")
    ops += commit(writer, make_ops(2, first=3))
    held = disk.contents(PATHS.raw(1))
    disk.plant(PATHS.raw(1), held + b'{"half a line')
    [notice] = verify(DATA, disk=disk, in_use=False).findings
    assert (notice.severity, notice.offset, notice.what) == (
        "notice",
        len(held),
        "residue of a failed commit follows, which is no part of the journal",
    )
    again = open_writer(disk)
    [done] = compact(disk, DATA, again.catalog, SMALL if compress else PLAIN)
    assert done.residue_bytes == 13
    assert disk.contents(PATHS.observer / "ops.jsonl.torn-1") == b'{"half a line'
    assert everything(open_writer(disk), disk) == ops


def test_of_a_segment_that_somebody_has_cut_nothing_is_set_aside() -> None:
    disk = FakeDisk()
    writer, ops = three_segments(disk)
    raw = disk.contents(PATHS.raw(11))
    disk.plant(PATHS.raw(11), raw[: len(raw) // 2])
    done = compact(disk, DATA, writer.catalog, SMALL)
    assert [(one.entry.ops, one.residue_bytes) for one in done] == [(10, 0), (5, 0), (10, 0)]
    assert disk.list(PATHS.observer) == ["ops.jsonl", "segments"]
    assert (writer.statistics().missing_ops, everything(writer, disk)) == (5, ops[:15] + ops[20:])


@pytest.mark.parametrize("compress", [True, False])
def test_what_was_cut_and_not_synced_does_not_come_back_into_a_segment_that_is_described(*, compress: bool) -> None:
    disk = FakeDisk()
    writer = open_writer(disk)
    ops = commit(writer, make_ops(3))
    disk.fail("datasync", times=2)  # the batch's, and that of the cut
    ops += commit(writer, make_ops(2, first=3))
    compact(disk, DATA, writer.catalog, SMALL if compress else PLAIN)
    for seed in range(30):
        after = disk.crash(seed)
        assert everything(open_writer(after), after) == ops
        assert not verify(DATA, disk=after, in_use=False).is_damaged


def test_a_segment_stays_until_what_is_to_replace_it_is_there_whole() -> None:
    class Forgetful(FakeDisk):
        """Takes a compressed file, and does not keep all of it."""

        def size(self, path: Path) -> int:
            return super().size(path) - (path.suffix == ".gz")

    disk = Forgetful()
    writer, ops = three_segments(disk)
    with pytest.raises(DiskFailed, match="compacting"):
        compact(disk, DATA, writer.catalog, SMALL)
    assert str(PATHS.raw(1)) in disk.names()
    assert everything(writer, disk) == ops


def retained(disk: FakeDisk, writer: JournalWriter, now_us: int | None = START_US, **given: float) -> list[int]:
    chosen = msgspec.convert({**msgspec.to_builtins(SMALL), **given}, JournalSettings)
    return [r.entry.first_seq for r in retain(disk, DATA, writer.catalog, chosen, now_us=now_us)]


def test_retention_by_size_removes_the_oldest() -> None:
    disk = FakeDisk()
    writer, ops = three_segments(disk)
    assert retained(disk, writer, retained_bytes_max=1) == []  # raw ones wait
    compact(disk, DATA, writer.catalog, SMALL)
    sizes = [entry.stored_bytes for entry in writer.catalog.snapshot().manifest.segments]
    assert retained(disk, writer, retained_bytes_max=sum(sizes)) == []
    assert retained(disk, writer, retained_bytes_max=sum(sizes[1:])) == [1]
    assert everything(writer, disk) == ops[10:]
    assert reader_of(writer, disk).first_seq == 11
    assert retained(disk, writer, retained_bytes_max=1) == [11, 21]
    assert everything(writer, disk) == ops[30:]
    assert disk.list(PATHS.segments) == ["manifest.json"]
    assert verify(DATA, disk=disk, in_use=False).findings == ()
    assert open_writer(disk).last_seq == 35


def test_retention_by_age_judges_the_last_op() -> None:
    disk, clock = FakeDisk(), Clock()
    writer, _ = three_segments(disk, clock)
    compact(disk, DATA, writer.catalog, SMALL)
    assert retained(disk, writer, now_us=START_US + 59 * 10**6, retained_seconds_max=60) == []
    assert retained(disk, writer, now_us=START_US + 61 * 10**6, retained_seconds_max=60) == [1, 11, 21]


def test_by_age_nothing_is_removed_while_the_time_is_not_known() -> None:
    disk, clock = FakeDisk(), Clock()
    writer, _ = three_segments(disk, clock)
    compact(disk, DATA, writer.catalog, SMALL)
    assert retained(disk, writer, now_us=None, retained_seconds_max=60) == []
    assert retained(disk, writer, now_us=None, retained_bytes_max=1) == [1, 11, 21]


def test_what_was_recorded_while_the_clock_was_ahead_is_as_old_as_its_file() -> None:
    disk, clock = FakeDisk(), Clock(START_US + 10 * YEAR_US)
    writer, _ = three_segments(disk, clock)
    compact(disk, DATA, writer.catalog, SMALL)
    assert retained(disk, writer, now_us=START_US + YEAR_US, retained_seconds_max=60) == []
    disk.modified = {PATHS.compressed(first): START_US + first * 10**6 for first in (1, 11, 21)}
    assert retained(disk, writer, now_us=START_US + 75 * 10**6, retained_seconds_max=60) == [1, 11]


def test_a_segment_of_which_no_op_can_be_read_is_as_old_as_its_file() -> None:
    disk = FakeDisk()
    writer, _ = three_segments(disk)
    disk.plant(PATHS.raw(1), bytes(len(disk.contents(PATHS.raw(1)))))
    [rotten, *_] = compact(disk, DATA, writer.catalog, SMALL)
    assert (rotten.entry.ops, rotten.entry.last_seq) == (0, 10)
    disk.modified = {PATHS.compressed(1): START_US}
    assert retained(disk, writer, now_us=START_US + 59 * 10**6, retained_seconds_max=60) == []
    assert retained(disk, writer, now_us=START_US + 61 * 10**6, retained_seconds_max=60) == [1, 11, 21]


def test_a_segment_whose_last_time_has_rotted_to_none_is_as_old_as_its_file() -> None:
    disk = FakeDisk()
    writer, _ = three_segments(disk)
    *lines, last = disk.contents(PATHS.raw(1)).splitlines(keepends=True)
    disk.plant(PATHS.raw(1), b"".join(lines) + last.replace(b'"2027-01-15T', b'"2027-02-31T'))
    [rotten, *_] = compact(disk, DATA, writer.catalog, SMALL)
    assert rotten.entry.last_recorded_at.startswith("2027-02-31T")
    disk.modified = {PATHS.compressed(1): START_US}
    assert retained(disk, writer, now_us=START_US + 59 * 10**6, retained_seconds_max=60) == []


def test_the_time_of_day_is_believed_once_it_has_gone_with_the_monotonic_clock_for_a_while() -> None:
    watch = ClockWatch()

    def believed(ahead_s: float, at_s: float) -> bool:
        return watch.is_steady(1e9 + ahead_s + at_s, at_s)

    assert [believed(0, at) for at in (0, 300, 599, 600)] == [False, False, False, True]
    assert [believed(YEAR_US / 1e6, at) for at in (660, 1_259)] == [False, False], "a year ahead"
    assert [believed(0, at) for at in (1_260, 1_859, 1_860)] == [False, False, True]
    assert believed(59, 1_920), "as it is slewed"


def test_retention_keeps_the_newest_segment_while_the_active_file_is_empty() -> None:
    disk = FakeDisk()
    writer, _ = three_segments(disk)
    writer.seal()
    compact(disk, DATA, writer.catalog, SMALL)
    assert retained(disk, writer, retained_bytes_max=1) == [1, 11, 21]
    assert open_writer(disk).last_seq == 35


@pytest.mark.parametrize("compress", [True, False])
def test_retention_makes_room_where_there_is_none_at_all(*, compress: bool) -> None:
    disk = FakeDisk()
    writer, ops = three_segments(disk)
    compact(disk, DATA, writer.catalog, SMALL if compress else PLAIN)
    disk.plant(PATHS.segments / "ops-00000000000000000031.jsonl.gz.tmp", b"x")
    disk.quota_bytes = disk.used_bytes()
    assert retained(disk, writer, retained_bytes_max=1) == [1, 11, 21]
    assert everything(writer, disk) == ops[30:]
    assert disk.list(PATHS.segments) == ["manifest.json"]
    assert open_writer(disk).last_seq == 35


class Rotten(FakeDisk):
    """Files of which the medium does not give a place."""

    def __init__(self, *paths: Path) -> None:
        super().__init__()
        self.paths = paths
        self.place = 100
        self.is_rotten = True

    def read(self, path: Path, offset: int, length: int) -> bytes:
        if self.is_rotten and path in self.paths and offset <= self.place < offset + length:
            raise OSError(errno.EIO, "input/output error", str(path))
        return super().read(path, offset, length)


def injected_monotonic(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Give the time that patience goes by, to be moved."""
    now_s = [1_000.0]
    monkeypatch.setattr(blocks, "monotonic", lambda: now_s[0])
    return now_s


@pytest.mark.parametrize("compress", [True, False])
def test_a_segment_that_cannot_be_read_holds_up_no_other_for_long(
    monkeypatch: pytest.MonkeyPatch, *, compress: bool
) -> None:
    disk = Rotten(PATHS.raw(11))
    writer, ops = three_segments(disk)
    told: list[str] = []
    patience = Patience()
    now_s = injected_monotonic(monkeypatch)

    def compacted() -> list[int]:
        settings = msgspec.structs.replace(SMALL, compress=compress)
        done = compact(
            disk,
            DATA,
            writer.catalog,
            settings,
            most=1,
            patience=patience,
            unreadable=lambda segment, _error: told.append(segment.path.name),
        )
        return [one.entry.first_seq for one in done]

    assert compacted() == [1]
    with pytest.raises(DiskFailed):
        compacted()
    now_s[0] += blocks.ROTTEN_S
    patience.was_read(PATHS.raw(11), 0)  # by a reader, who asked for the beginning of it
    assert [compacted() for _ in range(2)] == [[21], []]
    disk.is_rotten = False
    assert compacted() == [], "it is not asked for again with each pass"
    disk.is_rotten = True
    now_s[0] += blocks.GIVEN_UP_S
    assert compacted() == [], "still, which is no news"
    disk.is_rotten = False
    now_s[0] += blocks.GIVEN_UP_S
    assert (compacted(), everything(writer, disk)) == ([11], ops), "it was a matter of the moment"
    assert told == [PATHS.raw(11).name]


def test_patience_begins_anew_once_a_segment_could_be_compacted_or_at_least_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = injected_monotonic(monkeypatch)
    disk, patience = Rotten(PATHS.raw(11)), Patience()
    writer, _ = three_segments(disk)

    def refused() -> bool:
        try:
            compact(disk, DATA, writer.catalog, PLAIN, patience=patience)
        except DiskFailed:
            return True
        return False

    assert refused()
    disk.is_rotten = False
    now_s[0] += blocks.ROTTEN_S
    disk.fail("datasync")
    assert refused(), "the disk refuses to write"
    disk.is_rotten = True
    assert refused(), "much later"
    disk.is_rotten = False
    assert not refused()
    assert not patience.is_over(PATHS.raw(11))


def test_a_disk_that_refuses_to_write_is_not_taken_for_a_segment_that_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(blocks, "ROTTEN_S", 0.0)
    disk = FakeDisk()
    writer, _ = three_segments(disk)
    disk.fail("write")
    with pytest.raises(DiskFailed, match="EIO while compacting a segment"):
        compact(disk, DATA, writer.catalog, SMALL, patience=Patience())


@pytest.mark.parametrize("how", ["by size", "by age"])
def test_retention_removes_a_segment_that_cannot_be_read_in_its_turn(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "ROTTEN_S", 0.0)
    disk, clock = Rotten(PATHS.raw(1)), Clock()
    writer, ops = three_segments(disk, clock)
    compact(disk, DATA, writer.catalog, SMALL, patience=Patience())
    if how == "by size":
        sizes = [segment.bytes for segment in writer.catalog.snapshot().segments[:1]]
        sizes += [entry.stored_bytes for entry in writer.catalog.snapshot().manifest.segments]
        assert retained(disk, writer, retained_bytes_max=sum(sizes)) == []
        assert retained(disk, writer, retained_bytes_max=sum(sizes[1:])) == [1]
        assert everything(writer, disk) == ops[10:]
    else:
        assert retained(disk, writer, now_us=START_US + 61 * 10**6, retained_seconds_max=60) == [1, 11, 21]
        assert everything(writer, disk) == ops[30:]
    assert str(PATHS.raw(1)) not in disk.names()
    assert open_writer(disk).last_seq == 35


def test_an_index_that_is_lost_with_a_place_of_its_segment_stops_no_pass() -> None:
    disk = Rotten(PATHS.compressed(1))
    writer, _ = three_segments(disk)
    compact(disk, DATA, writer.catalog, SMALL)
    disk.remove(PATHS.index(1))
    assert compact(disk, DATA, writer.catalog, SMALL) == []
    writer.seal()
    assert [one.entry.first_seq for one in compact(disk, DATA, writer.catalog, SMALL)] == [31]


Step = Callable[[FakeDisk, JournalWriter], object]
STEPS: dict[str, Step] = {
    "seal": lambda _disk, writer: writer.seal(),
    "compact": lambda disk, writer: compact(disk, DATA, writer.catalog, SMALL),
    "compact without compression": lambda disk, writer: compact(disk, DATA, writer.catalog, PLAIN),
    "retain": lambda disk, writer: retained(disk, writer, retained_bytes_max=1),
    "retain on a full disk": lambda disk, writer: on_full_disk(disk, writer),  # noqa: PLW0108 - it stands below
}


def on_full_disk(disk: FakeDisk, writer: JournalWriter) -> None:
    """Retain where the disk has no room for the manifest at first."""
    disk.fail("write", code=errno.ENOSPC)
    try:
        retained(disk, writer, retained_bytes_max=1)
    finally:
        disk.fail("write", times=0)


def prepared(step: str) -> tuple[FakeDisk, JournalWriter, list[Op]]:
    disk = FakeDisk()
    writer, ops = three_segments(disk)
    if step.startswith("retain"):
        compact(disk, DATA, writer.catalog, SMALL)
    return disk, writer, ops


def calls_of(step: str) -> int:
    disk, writer, _ = prepared(step)
    before = disk.calls.total()
    STEPS[step](disk, writer)
    return disk.calls.total() - before - (step == "retain on a full disk")  # one of its calls fails by itself


EVERY_CALL = [(step, call) for step in STEPS for call in range(calls_of(step))]
REMOVES_A_HALF = ("retain on a full disk", 2)
"""What a failed write has left: that it cannot be removed either is no error of its own."""


def is_as_acknowledged(found: list[Op], ops: list[Op], step: str) -> bool:
    return found == ops or (step.startswith("retain") and found == ops[30:])


@pytest.mark.parametrize(("step", "call"), EVERY_CALL)
def test_a_crash_at_every_step_loses_nothing(step: str, call: int) -> None:
    disk, writer, ops = prepared(step)
    disk.fail("any", after=call, times=10**6)
    with pytest.raises(DiskFailed):
        STEPS[step](disk, writer)
    disk.heal()
    for seed in range(8):
        after = disk.durable() if seed == 0 else disk.crash(seed)
        again = open_writer(after)
        assert again.recovery.is_clean
        assert is_as_acknowledged(everything(again, after), ops, step)
        compact(after, DATA, again.catalog, SMALL)
        retained(after, again, retained_seconds_max=10**9)
        assert is_as_acknowledged(everything(again, after), ops, step)
        assert verify(DATA, disk=after, in_use=False).findings == ()
        assert not [name for name in after.names() if name.endswith(".tmp")]
        if step == "compact":
            assert str(PATHS.raw(1)) not in after.names()


@pytest.mark.parametrize(("step", "call"), [one for one in EVERY_CALL if one != REMOVES_A_HALF])
def test_an_error_at_every_step_is_made_good_by_the_next_run(step: str, call: int) -> None:
    disk, writer, ops = prepared(step)
    reader = reader_of(writer, disk)
    disk.fail("any", after=call)
    with pytest.raises(DiskFailed):
        STEPS[step](disk, writer)
    assert not [name for name in disk.names() if name.endswith(".tmp")], "on a full disk that is room"
    assert is_as_acknowledged(reader.read(0, 100), ops, step)
    ops += commit(writer, make_ops(2, first=35))
    STEPS[step](disk, writer)
    compact(disk, DATA, writer.catalog, SMALL)
    assert is_as_acknowledged(reader.read(0, 100), ops, step)
    assert verify(DATA, disk=disk, in_use=False).findings == ()


def test_a_missing_manifest_is_rebuilt_from_the_block_indexes() -> None:
    disk = FakeDisk()
    writer, ops = three_segments(disk)
    compact(disk, DATA, writer.catalog, SMALL)
    before = decode_manifest(disk.contents(PATHS.manifest))
    disk.remove(PATHS.manifest)
    again = open_writer(disk)
    assert again.recovery.manifest_problem == "the manifest is missing"
    assert decode_manifest(disk.contents(PATHS.manifest)) == before
    assert everything(again, disk) == ops


def test_without_the_manifest_what_retention_removed_is_not_missing_of_plain_segments_either() -> None:
    disk = FakeDisk()
    writer, ops = three_segments(disk)
    compact(disk, DATA, writer.catalog, PLAIN)
    assert retained(disk, writer, now_us=None, retained_bytes_max=3_000) == [1, 11]
    disk.remove(PATHS.manifest)
    [damage] = verify(DATA, disk=disk, in_use=False).findings
    assert damage.what == "the manifest is missing"
    again = open_writer(disk)
    assert (again.recovery.manifest_problem, again.recovery.missing_ops) == ("the manifest is missing", 0)
    assert everything(again, disk) == ops[20:]


@pytest.mark.parametrize("with_indexes", [True, False])
def test_a_damaged_manifest_is_set_aside_and_rebuilt(*, with_indexes: bool) -> None:
    disk = FakeDisk()
    writer, ops = three_segments(disk)
    compact(disk, DATA, writer.catalog, SMALL)
    good = disk.contents(PATHS.manifest)
    bad = good.replace(b'"ops": 10', b'"ops": 11')
    disk.plant(PATHS.manifest, bad)
    if not with_indexes:
        for first in (1, 11, 21):
            disk.plant(PATHS.index(first), b"rot")
    again = open_writer(disk)
    assert again.recovery.manifest_problem.startswith("the manifest is damaged: checksum")
    assert disk.contents(PATHS.segments / "manifest.json.damaged-1") == bad
    assert decode_manifest(disk.contents(PATHS.manifest)) == decode_manifest(good)
    assert everything(again, disk) == ops
    assert open_writer(disk).recovery.is_clean


def test_a_segment_that_a_person_has_edited_and_its_index_removed_is_read_once_for_another() -> None:
    disk = FakeDisk()
    writer, ops = three_segments(disk)
    compact(disk, DATA, writer.catalog, PLAIN)
    disk.plant(PATHS.raw(11), disk.contents(PATHS.raw(11)).replace(b'"op ', b'"edited op '))
    disk.remove(PATHS.index(11))
    compact(disk, DATA, writer.catalog, PLAIN)
    read = disk.calls["read"]
    compact(disk, DATA, writer.catalog, PLAIN)
    assert disk.calls["read"] == read
    assert [op.seq for op in everything(writer, disk)] == [op.seq for op in ops]
    assert verify(DATA, disk=disk, in_use=False).is_damaged


def test_a_damaged_segment_without_its_index_is_not_read_again_by_each_run() -> None:
    disk = FakeDisk()
    writer, _ = three_segments(disk)
    compact(disk, DATA, writer.catalog, SMALL)
    disk.plant(PATHS.compressed(11), b"?" + disk.contents(PATHS.compressed(11))[1:])
    disk.remove(PATHS.index(11))
    patience = Patience()
    compact(disk, DATA, writer.catalog, SMALL, patience=patience)
    read = disk.calls["read"]
    compact(disk, DATA, writer.catalog, SMALL, patience=patience)
    assert disk.calls["read"] == read


def test_missing_block_indexes_are_rebuilt_by_readers_and_written_by_the_next_compaction() -> None:
    disk = FakeDisk()
    writer, ops = three_segments(disk)
    compact(disk, DATA, writer.catalog, SMALL)
    index = disk.contents(PATHS.index(11))
    disk.remove(PATHS.index(11))
    disk.plant(PATHS.index(21), b"{}")
    reader = JournalReader(disk, DATA, look(disk, DATA))
    assert reader.read(0, 100) == ops
    compact(disk, DATA, writer.catalog, SMALL)
    assert disk.contents(PATHS.index(11)) == index


def test_a_segment_that_is_all_rot_is_kept_counted_and_passed_over() -> None:
    disk = FakeDisk()
    _, ops = three_segments(disk)
    disk.plant(PATHS.raw(11), b"rot\n" * 100)
    again = open_writer(disk)
    reader = reader_of(again, disk)
    assert reader.read(0, 100) == ops[:10] + ops[20:]
    assert reader.damaged_lines > 0
    done = compact(disk, DATA, again.catalog, SMALL)
    assert [(c.entry.ops, c.entry.damaged) for c in done] == [(10, 0), (0, 100), (10, 0)]
    assert everything(open_writer(disk), disk) == ops[:10] + ops[20:]
    assert reader.query(Query(newest_first=True, limit=100)).ops == (ops[:10] + ops[20:])[::-1]


@pytest.mark.parametrize("seed", range(20))
def test_what_was_cut_before_a_plain_segment_was_described_stays_cut_when_power_fails(seed: int) -> None:
    disk = FakeDisk()
    writer = open_writer(disk, PLAIN)
    ops = commit(writer, make_ops(5))
    disk.fail("datasync")
    ops += commit(writer, make_ops(5, first=5))  # into a second file: the first is cut, and never synced again
    compact(disk, DATA, writer.catalog, PLAIN)
    after = disk.crash(seed)
    open_writer(after, PLAIN).close()
    report = verify(DATA, disk=after, in_use=False)
    assert [finding.what for finding in report.findings if finding.severity == "damage"] == []
    assert report.ops == len(ops)


@pytest.mark.parametrize("first", [1, 11, 21])
def test_a_lost_segment_is_told_at_each_start_until_it_comes_back(first: int) -> None:
    disk = FakeDisk()
    writer, ops = three_segments(disk)
    compact(disk, DATA, writer.catalog, SMALL)
    held = disk.contents(PATHS.compressed(first))
    disk.remove(PATHS.compressed(first))
    assert open_writer(disk).recovery.missing_ops == 10
    again = open_writer(disk)
    assert again.recovery.problems == (f"{PATHS.compressed(first).name}, which the manifest names, is missing",)
    assert (again.recovery.missing_ops, again.statistics().missing_ops, again.recovery.is_clean) == (10, 10, False)
    disk.plant(PATHS.compressed(first), held)
    restored = open_writer(disk)
    assert (restored.recovery.missing_ops, restored.recovery.is_clean) == (0, True)
    assert everything(restored, disk) == ops


def test_a_lost_segment_that_comes_back_as_it_was_before_its_compression_stays_for_the_next_start() -> None:
    disk = FakeDisk()
    writer, ops = three_segments(disk)
    held = disk.contents(PATHS.raw(11))
    compact(disk, DATA, writer.catalog, SMALL)
    disk.remove(PATHS.compressed(11))
    assert forget_lost(disk, DATA, writer.catalog) == 1
    disk.plant(PATHS.raw(11), held)
    assert compact(disk, DATA, writer.catalog, SMALL) == []
    assert retain(disk, DATA, writer.catalog, msgspec.structs.replace(SMALL, retained_bytes_max=600), now_us=None)
    again = open_writer(disk)
    assert (again.recovery.missing_ops, everything(again, disk)) == (0, ops[10:])
    assert [done.entry.first_seq for done in compact(disk, DATA, again.catalog, SMALL)] == [11]
    assert verify(DATA, disk=disk, in_use=False).findings == ()


def test_seqs_of_the_newest_segment_are_given_out_once_also_when_it_is_lost() -> None:
    disk = FakeDisk()
    writer = open_writer(disk)
    commit(writer, make_ops(10))
    writer.seal()
    compact(disk, DATA, writer.catalog, SMALL)
    disk.remove(PATHS.compressed(1))
    assert [open_writer(disk).last_seq for _ in range(3)] == [10, 10, 10]
    again = open_writer(disk)
    assert [op.seq for op in commit(again, make_ops(1))] == [11]
    assert (open_writer(disk).last_seq, open_writer(disk).recovery.missing_ops) == (11, 10)


@pytest.mark.parametrize("first", [1, 11, 21])
def test_a_raw_segment_that_is_lost_is_told_at_each_start_until_it_comes_back(first: int) -> None:
    disk = FakeDisk()
    writer, ops = three_segments(disk)
    ops += commit(writer, make_ops(1, first=30))
    held = disk.contents(PATHS.raw(first))
    disk.remove(PATHS.raw(first))
    again = open_writer(disk)
    assert (again.recovery.missing_ops, again.recovery.is_clean) == (10, False)
    assert everything(again, disk) == [op for op in ops if not first <= op.seq < first + 10]
    assert verify(DATA, disk=disk, in_use=False).is_damaged
    restored = FakeDisk()
    for name in disk.names():
        restored.plant(Path(name), disk.contents(Path(name)))
    restored.plant(PATHS.raw(first), held)
    assert (open_writer(restored).recovery.missing_ops, everything(open_writer(restored), restored)) == (0, ops)
    compact(disk, DATA, again.catalog, SMALL)
    assert again.statistics().missing_ops == open_writer(disk).recovery.missing_ops == 10


@pytest.mark.parametrize("seq", [b"10", b"90"])
def test_a_seq_that_has_rotted_at_the_end_of_a_raw_segment_hides_no_other_op(seq: bytes) -> None:
    disk = FakeDisk()
    _, ops = three_segments(disk)
    raw = disk.contents(PATHS.raw(11))
    disk.plant(PATHS.raw(11), raw.replace(b'"seq":20', b'"seq":' + seq))
    again = open_writer(disk)
    assert everything(again, disk)[:19] == ops[:19]
    compact(disk, DATA, again.catalog, SMALL)
    assert everything(open_writer(disk), disk)[:19] == ops[:19]


@pytest.mark.parametrize("last", [b"rot\n", b"half of a li", bytes(300)])
def test_a_raw_segment_whose_last_line_has_rotted_misses_no_file(last: bytes) -> None:
    disk = FakeDisk()
    _, ops = three_segments(disk)
    lines = disk.contents(PATHS.raw(11)).splitlines(keepends=True)
    disk.plant(PATHS.raw(11), b"".join(lines[:-1]) + last)
    again = open_writer(disk)
    assert again.recovery.missing_ops == 0
    assert everything(again, disk) == ops[:19] + ops[20:]


@pytest.mark.parametrize("what", ["a raw segment", "a compacted one", "the folder"])
def test_what_is_lost_beside_the_writing_is_told_as_a_start_tells_it(what: str) -> None:
    disk = FakeDisk()
    writer, ops = three_segments(disk)
    compact(disk, DATA, writer.catalog, SMALL, most=2)
    assert forget_lost(disk, DATA, writer.catalog) == 0
    lost = {"a raw segment": [21], "a compacted one": [1], "the folder": [1, 11, 21]}[what]
    for name in disk.list(PATHS.segments):
        if what == "the folder" or name.startswith(f"ops-{lost[0]:020d}"):
            disk.remove(PATHS.segments / name)
    assert forget_lost(disk, DATA, writer.catalog) == len(lost)
    assert writer.statistics().missing_ops == 10 * len(lost)
    assert forget_lost(disk, DATA, writer.catalog) == 0
    assert open_writer(disk.durable()).recovery.missing_ops == 10 * len(lost), "also where the process ends now"
    kept = [op for op in ops if not any(first <= op.seq < first + 10 for first in lost)]
    assert everything(writer, disk) == kept
    writer.seal()
    kept += commit(writer, make_ops(3, first=35))
    compact(disk, DATA, writer.catalog, SMALL)
    assert everything(writer, disk) == kept
    again = open_writer(disk)
    assert (again.recovery.missing_ops, again.last_seq) == (10 * len(lost), 38)
    assert everything(again, disk) == kept


def test_what_retention_removed_is_not_missing_nor_what_was_lost_below_it() -> None:
    disk = FakeDisk()
    writer, _ = three_segments(disk)
    compact(disk, DATA, writer.catalog, SMALL)
    disk.remove(PATHS.compressed(11))
    again = open_writer(disk)
    size = disk.size(PATHS.compressed(21))
    retain(disk, DATA, again.catalog, JournalSettings(retained_bytes_max=size), now_us=START_US)
    assert again.catalog.snapshot().first_seq == 21
    assert again.statistics().missing_ops == 10  # what was removed goes up to 10
    retain(disk, DATA, again.catalog, JournalSettings(retained_bytes_max=1), now_us=START_US)
    assert (again.catalog.snapshot().first_seq, again.statistics().missing_ops) == (31, 0)
    assert decode_manifest(disk.contents(PATHS.manifest)).segments == ()
    assert open_writer(disk).recovery.is_clean
