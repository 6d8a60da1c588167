"""What a start makes of what a crash or rot has left: as scripts, bytes in and decisions out."""

from __future__ import annotations

import errno
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from observer_actors.errors import DiskFailed, DiskFull, FormatUnknown
from observer_actors.journal import JournalWriter, blocks, compact, look, verify
from observer_actors.journal.blocks import Patience
from observer_actors.journal.format import Manifest, decode_manifest, encode_manifest
from observer_actors.journal.opening import REPORTED_MAX, DamagedLine, TornTail
from observer_actors.journal.recovery import plan, scanned
from observer_actors.journal.surveying import survey
from observer_actors.op import decode_op, encode_op
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
    seq_known,
)
from tests.journal.test_sealing import Rotten, injected_monotonic


def line(seq: int, commit_number: int, note: str = "") -> bytes:
    op = make_op(seq)
    if note:
        op.attrs = {"note": note}
    op.seq, op.recorded_at = seq, f"2027-01-15T08:00:00.{commit_number:06d}Z"
    return encode_op(op) + b"\n"


A1, A2, A3, B4, B5, B6, C7 = (line(s, c) for s, c in [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (6, 2), (7, 3)])
C7_LATE = line(6, 3)
LONG3 = line(3, 1, note="x" * 300)
BAD = b'{"timestamp":"2026-\n'


def seq_rotten(good: bytes, seq: int) -> bytes:
    begin = good.index(b'"seq":') + len(b'"seq":')
    return good[:begin] + str(seq).encode() + good[good.index(b",", begin) :]


HOLE = bytes(300)

# name, the file's pieces, index of the first piece set aside (None: none), indexes of damaged pieces, last seq
CASES: list[tuple[str, list[bytes], int | None, list[int], int]] = [
    ("empty", [], None, [], 0),
    ("whole", [A1, A2, A3, B4, B5], None, [], 5),
    ("a last line without its newline", [A1, A2, A3, B4[:-1]], 3, [], 3),
    ("a last line cut short", [A1, A2, A3, B4, B5[:40]], 4, [], 4),
    ("zeros at the end", [A1, A2, A3, HOLE], 3, [], 3),
    ("a hole within the last commit", [A1, A2, A3, B4, HOLE + b"\n", B6], 4, [], 4),
    ("a hole at the beginning of the last commit", [A1, A2, A3, HOLE + b'"}\n', B5, B6], 3, [], 3),
    ("a bad line directly before the last commit", [A1, A2, BAD, B4], None, [2], 4),
    ("a line with a hole directly before the last commit", [A1, A2, HOLE + BAD, B4], 2, [], 2),
    ("a last line that has rotted", [A1, A2, A3, BAD], None, [3], 4),
    ("the last two lines", [A1, A2, A3, BAD, BAD], None, [3, 4], 5),
    ("a last line that has rotted, and a torn tail", [A1, A2, A3, BAD, B5[:30]], 4, [3], 4),
    ("a last line whose seq has rotted", [A1, A2, A3, B4.replace(b'"seq":4', b'"seq":1')], None, [3], 4),
    ("a line that has rotted in the last commit", [A1, A2, A3, B4, BAD, B6], None, [4], 6),
    ("a line that has rotted, and one cut short", [A1, BAD, A3[:40]], 2, [1], 2),
    ("a hole, and behind it a line that has rotted", [A1, A2, A3, HOLE + b"\n", BAD], 3, [], 3),
    ("only a line that has rotted", [BAD], None, [0], 1),
    ("a bad line two commits before the end", [A1, BAD, A3, B4, B5], None, [1], 5),
    ("a bad first line two commits before the end", [BAD, A2, A3, B4], None, [0], 4),
    ("a NUL in a line two commits before the end", [A1, A2[:30] + b"\0" + A2[31:], A3, B4], None, [1], 4),
    ("damage and a torn tail", [A1, BAD, A3, B4, C7[:50]], 4, [1], 4),
    ("a bad line between two earlier commits", [A1, A2, BAD, B4, B5, B6, C7], None, [2], 7),
    ("only a torn commit", [A1[:20]], 0, [], 0),
    ("only zeros", [HOLE], 0, [], 0),
    ("a line that comes again in the last commit", [A1, A2, A3, B4, B4], None, [4], 5),
    ("a line that comes again long before", [A1, A1, A2, A3, B4], None, [1], 4),
    ("a gap within the last commit", [A1, A2, A3, B4, B6, line(7, 2)], None, [4], 7),
    ("a gap between commits", [A1, A2, B4, B5], None, [2], 5),
    ("a gap within an earlier commit", [A1, A3, B4], None, [1], 4),
    ("a gap at the beginning", [B4, B5], None, [0], 5),
    ("a seq that has rotted to a later one", [A1, seq_rotten(A2, 9), A3, B4, B5], None, [1], 5),
    ("the same to that of the next line", [A1, seq_rotten(A2, 3), A3, B4, B5], None, [1], 5),
    ("the same in the first line", [seq_rotten(A1, 9), A2, A3, B4], None, [0], 4),
    ("the same in the first of two lines", [seq_rotten(A1, 9), A2], None, [0], 2),
    ("the same in the last commit", [A1, A2, A3, B4, seq_rotten(B5, 9), B6], None, [4], 6),
    ("the same in the last line", [A1, A2, A3, B4, seq_rotten(B5, 9)], None, [4], 5),
    ("the same in two lines", [A1, seq_rotten(A2, 7), seq_rotten(A3, 9), B4, B5], None, [1, 2], 5),
    ("the same, and a torn tail", [A1, A2, A3, seq_rotten(B4, 9), B5[:30]], 4, [3], 4),
    ("the last two lines in one", [A1, A2, A3[:-1] + b"\2" + B4], None, [2], 4),
    (
        "the last two lines, one without its seq",
        [A1, A2, b"x" + A3[1:], B4.replace(b'"seq"', b'"sfq"')],
        None,
        [2, 3],
        4,
    ),
    ("the same the other way round", [A1, A2, A3.replace(b'"seq"', b'"sfq"'), b"x" + B4[1:]], None, [2, 3], 4),
    ("two lines in one in the last commit", [A1, A2, A3, B4[:-1] + b"\2" + B5, B6], None, [3], 6),
    ("a newline in the last line", [A1, A2, A3[:90] + b"\n", A3[91:]], None, [2, 3], 3),
    ("a newline at the beginning of the last line", [A1, A2, b"\n", A3[1:]], None, [2, 3], 3),
    ("a newline within the first key of the last line", [A1, A2, A3[:5] + b"\n", A3[6:]], None, [2, 3], 3),
    ("a newline behind the seq of the last line", [A1, A2, A3[:-4] + b"\n", A3[-3:]], None, [2, 3], 3),
    ("the same with much behind it", [A1, A2, LONG3[:-250] + b"\n", LONG3[-249:]], None, [2, 3], 3),
    (
        "a newline in the seq of the last line",
        [A1, A2, *A3.replace(b'"seq":3', b'"se\n":3').splitlines(keepends=True)],
        None,
        [2, 3],
        3,
    ),
    ("recorded_at that goes backwards at the end", [A1, A2, A3, B4, line(5, 1)], None, [4], 5),
    ("recorded_at that has rotted to a later time", [A1, A2, line(3, 900_000), B4, B5, C7_LATE], None, [2], 6),
    ("the same within a commit", [A1, line(2, 900_000), A3, B4, B5], None, [1], 5),
    ("the same in the first line", [line(1, 900_000), A2, A3, B4], None, [0], 4),
    ("the same in the last line but one", [A1, A2, A3, line(4, 900_000), B5], None, [4], 5),
    ("recorded_at that has rotted to no time", [A1, A2.replace(b"T08:00", b"T0x:00"), A3, B4], None, [1], 4),
    ("a blank line in an earlier commit", [A1, b"\n", A2, A3, B4], None, [1], 4),
    ("two records in a line", [A1[:-1] + A2, A3, B4], None, [0], 4),
    ("a line that is no record of ours", [A1, b'{"seq":2,"recorded_at":"soon"}\n', A3, B4], None, [1], 4),
]


@pytest.mark.parametrize(
    ("pieces", "torn", "damaged", "last_seq"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_a_start_decides(pieces: list[bytes], torn: int | None, damaged: list[int], last_seq: int) -> None:
    disk = FakeDisk()
    data = b"".join(pieces)
    offsets = [sum(map(len, pieces[:at])) for at in range(len(pieces) + 1)]
    disk.make_directories(PATHS.segments)
    disk.plant(PATHS.manifest, encode_manifest(Manifest()))
    disk.plant(PATHS.active, data)
    writer = open_writer(disk)
    report = writer.recovery
    assert (report.last_seq, writer.last_seq) == (last_seq, last_seq)
    kept = data if torn is None else data[: offsets[torn]]
    assert disk.contents(PATHS.active) == kept
    assert [(tail.offset, tail.bytes) for tail in report.torn] == (
        [] if torn is None else [(offsets[torn], len(data) - offsets[torn])]
    )
    if torn is not None:
        assert disk.contents(PATHS.observer / "ops.jsonl.torn-1") == data[offsets[torn] :]
    assert [line.offset for line in report.damage] == [offsets[at] for at in damaged]
    assert report.is_clean == (torn is None and not damaged)
    good = everything(writer, disk)
    commit(writer, make_ops(1))
    assert [op.seq for op in everything(writer, disk)] == [*(op.seq for op in good), last_seq + 1]
    again = open_writer(disk)
    assert again.recovery.torn == ()
    assert everything(again, disk) == everything(writer, disk)


def test_of_many_damaged_lines_a_report_names_the_first_and_counts_all() -> None:
    disk = FakeDisk()
    writer = open_writer(disk)
    for first in range(0, 400, 100):
        commit(writer, make_ops(100, first=first))
    lines = disk.contents(PATHS.active).splitlines(keepends=True)
    disk.plant(
        PATHS.active, b"".join(b"?" * (len(line) - 1) + b"\n" if n % 2 else line for n, line in enumerate(lines))
    )
    report = open_writer(disk).recovery
    assert (report.damaged_lines, len(report.damage), report.damage[0].offset) == (200, REPORTED_MAX, len(lines[0]))


def test_reports_say_what_and_where() -> None:
    disk = FakeDisk()
    disk.make_directories(PATHS.segments)
    disk.plant(PATHS.active, A1 + BAD + A3 + B4 + C7[:50])
    report = open_writer(disk).recovery
    assert report.torn == (TornTail("ops.jsonl", len(A1 + BAD + A3 + B4), 50, "incomplete", "ops.jsonl.torn-1"),)
    [damage] = report.damage
    assert damage == DamagedLine("ops.jsonl", len(A1), damage.reason)
    assert damage.reason.startswith("not a record: ")


@pytest.mark.parametrize(
    ("pieces", "start", "kept", "torn"),
    [
        ([A1, A2, A3, B4, B5], 4, 3, False),
        ([A1, A2, A3, B4, B5[:30]], 4, 3, False),
        ([A1, A2, A3, BAD, B5], 4, 3, False),
        ([A1, A2, A3], 4, 3, False),
        ([B4, B5], 4, 0, False),
        ([A1, A2, A3, B4[:30]], 5, 3, True),
        ([A1, BAD, A3, B4], 4, 3, False),
        ([A1, A2, BAD, B4], 4, 3, False),
    ],
)
def test_what_was_not_acknowledged_is_cut(*, pieces: list[bytes], start: int, kept: int, torn: bool) -> None:
    disk = FakeDisk()
    disk.make_directories(PATHS.segments)
    disk.plant(PATHS.active, b"".join(pieces))
    if start == 4 and kept == 0:
        disk.plant(PATHS.raw(1), A1 + A2 + A3)
    writer = open_writer(disk, unacknowledged_from=start)
    assert disk.contents(PATHS.active) == b"".join(pieces[:kept])
    assert writer.last_seq == 3
    assert bool(writer.recovery.torn) == torn
    commit(writer, make_ops(2))
    assert everything(writer, disk)[-1].seq == 5


@pytest.mark.parametrize("active", [None, b"", HOLE, B4[:20]])
@pytest.mark.parametrize("residue", [b"", B4[:30], B4 + B5, B4 + HOLE + B6])
def test_with_an_empty_active_file_the_last_raw_segment_is_the_end(active: bytes | None, residue: bytes) -> None:
    disk = FakeDisk()
    disk.make_directories(PATHS.segments)
    disk.plant(PATHS.raw(1), A1 + A2 + A3 + residue)
    if active is not None:
        disk.plant(PATHS.active, active)
    writer = open_writer(disk)
    assert writer.last_seq == {B4 + B5: 5, B4 + HOLE + B6: 4}.get(residue, 3)
    commit(writer, make_ops(1))
    seqs = [op.seq for op in everything(open_writer(disk), disk)]
    assert seqs == list(range(1, writer.last_seq + 1))


def test_a_rotten_line_at_the_end_keeps_its_seq_through_sealing_and_compaction() -> None:
    disk = FakeDisk()
    disk.make_directories(PATHS.segments)
    disk.plant(PATHS.raw(1), A1 + A2 + BAD)
    first = open_writer(disk)
    assert (first.last_seq, first.recovery.damaged_lines, first.recovery.torn) == (3, 1, ())
    second = commit(first, make_ops(2))
    disk.plant(PATHS.active, disk.contents(PATHS.active).splitlines(keepends=True)[0] + BAD)
    writer = open_writer(disk)
    assert (writer.last_seq, writer.seal()) == (5, True)
    third = commit(writer, make_ops(1))
    compact(disk, DATA, writer.catalog, SMALL)
    for again in (writer, open_writer(disk)):
        assert [op.seq for op in everything(again, disk)] == [1, 2, second[0].seq, third[0].seq] == [1, 2, 4, 6]
        assert again.statistics().missing_ops == 0
    assert [entry.damaged for entry in writer.catalog.snapshot().manifest.segments] == [1, 1]


ROTTEN_SEQS = [(1, 900), (1, 2), (2, 1), (700, 710), (700, 7_000), (1_500, 1_000), (1_999, 2_001), (2_000, 9_000)]


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize(
    ("size", "edited", "by", "lost"),
    [
        (2, 11, seq_rotten(line(11, 1), 91), 11),
        (2, 11, seq_rotten(line(11, 1), 13), 11),
        (2, 11, seq_rotten(line(11, 1), 711), 11),
        (2, 12, seq_rotten(line(12, 1), 92), 12),
        (5, 12, b"", 12),
        (5, 12, BAD, 12),
    ],
)
def test_a_line_of_a_short_segment_costs_its_op_alone_once_that_is_compacted(
    size: int, edited: int, by: bytes, lost: int, *, compress: bool
) -> None:
    disk = FakeDisk()
    writer = open_writer(disk)
    for ops in (10, size, 100):
        commit(writer, make_ops(ops))
        writer.seal()
    lines = disk.contents(PATHS.raw(11)).splitlines(keepends=True)
    lines[edited - 11] = by
    disk.plant(PATHS.raw(11), b"".join(lines))
    writer = open_writer(disk)
    compact(disk, DATA, writer.catalog, msgspec.structs.replace(SMALL, compress=compress))
    kept = [seq for seq in range(1, 111 + size) if seq != lost]
    assert [op.seq for op in everything(writer, disk)] == kept
    [damage] = verify(DATA, disk=disk, in_use=False).findings
    assert damage.line == lost - 10
    disk.remove(PATHS.index(11))
    assert [op.seq for op in everything(open_writer(disk), disk)] == kept


@pytest.mark.parametrize(("seq", "rotten"), [*ROTTEN_SEQS, (1_047, 9_000), (1_048, 9_000)])
def test_a_seq_that_has_rotted_costs_its_op_alone_wherever_it_lies(seq: int, rotten: int) -> None:
    disk = FakeDisk()
    settings = JournalSettings(segment_bytes_max=10**9, dedup_window_ops=5_000)
    writer = open_writer(disk, settings)
    for first in range(1, 2_001, 5):
        commit(writer, [make_op(number, id_=f"id{number}") for number in range(first, first + 5)])
    lines = disk.contents(PATHS.active).splitlines(keepends=True)
    lines[seq - 1] = seq_rotten(lines[seq - 1], rotten)
    disk.plant(PATHS.active, b"".join(lines))
    kept = [number for number in range(1, 2_001) if number != seq]

    def check(writer: JournalWriter) -> None:
        assert [op.seq for op in everything(writer, disk)] == kept
        assert [number for number in range(1, 2_001) if seq_known(writer, f"id{number}") == number] == kept
        assert writer.last_seq == 2_000
        damage = [found for found in verify(DATA, disk=disk, in_use=False).findings if found.severity == "damage"]
        assert [found.line for found in damage] == [seq]

    writer = open_writer(disk, settings)
    assert (writer.recovery.damaged_lines, writer.recovery.torn, writer.recovery.missing_ops) == (1, (), 0)
    check(writer)
    writer.seal()
    check(open_writer(disk, settings))
    compact(disk, DATA, writer.catalog, settings)
    assert [entry.ops for entry in writer.catalog.snapshot().manifest.segments] == [1_999]
    check(open_writer(disk, settings))


def test_a_seq_that_has_rotted_hides_no_segment_that_is_lost() -> None:
    disk = FakeDisk()
    disk.make_directories(PATHS.segments)
    disk.plant(PATHS.manifest, encode_manifest(Manifest()))
    disk.plant(PATHS.raw(1), A1 + seq_rotten(A2, 9) + A3)
    disk.plant(PATHS.active, C7)
    assert open_writer(disk).recovery.missing_ops == 3


@pytest.mark.parametrize(
    ("files", "lost"),
    [
        ({1: [A1, A2, A3], 4: [seq_rotten(B4, 1)]}, 4),
        ({1: [A1, A2, A3], 4: [seq_rotten(B4, 9), B5]}, 4),
        ({1: [A1, A2, A3], 4: [seq_rotten(B4, 3), B5], 6: [B6]}, 4),
        ({1: [A1, A2, A3], 4: [B4, seq_rotten(B5, 1)], 6: [B6]}, 5),
        ({1: [A1, A2, A3, B4[:40]], 4: [line(4, 3), seq_rotten(line(5, 4), 1)]}, 5),
    ],
)
def test_a_seq_that_has_rotted_in_a_short_file_costs_its_op_alone(files: dict[int, list[bytes]], lost: int) -> None:
    disk = FakeDisk()
    disk.make_directories(PATHS.segments)
    disk.plant(PATHS.manifest, encode_manifest(Manifest()))
    newest = max(files)
    for first, lines in files.items():
        disk.plant(PATHS.active if first == newest else PATHS.raw(first), b"".join(lines))
    last = newest + len(files[newest]) - 1
    writer = open_writer(disk)
    assert (writer.last_seq, writer.recovery.torn, writer.recovery.missing_ops) == (last, (), 0)
    assert [op.seq for op in everything(writer, disk)] == [seq for seq in range(1, last + 1) if seq != lost]


@pytest.mark.parametrize("before", ["compacted", "raw", "none"])
def test_where_the_only_line_of_the_active_file_has_rotted_its_seq_is_kept(before: str) -> None:
    disk = FakeDisk()
    writer = open_writer(disk)
    if before != "none":
        commit(writer, make_ops(3))
        writer.seal()
    if before == "compacted":
        compact(disk, DATA, writer.catalog, SMALL)
    [acknowledged] = commit(writer, make_ops(1))
    disk.plant(PATHS.active, b"x" + disk.contents(PATHS.active)[1:])
    # The clock is set back, too.
    writer = open_writer(disk, clock=Clock(START_US - 10**9))
    report = writer.recovery
    assert (report.last_seq, report.damaged_lines, report.missing_ops, report.torn) == (acknowledged.seq, 1, 0, ())
    commit(writer, make_ops(1))
    ops = everything(open_writer(disk), disk)
    assert [op.seq for op in ops] == [*range(1, acknowledged.seq), acknowledged.seq + 1]
    times = [op.recorded_at for op in ops]
    assert times == sorted(times)


def test_the_id_of_a_line_counts_that_follows_one_whose_time_has_rotted_to_later() -> None:
    disk = FakeDisk()
    commit(open_writer(disk), [make_op(number, id_=f"id{number}") for number in range(1, 6)])
    lines = disk.contents(PATHS.active).splitlines(keepends=True)
    lines[3] = lines[3].replace(b'recorded_at":"2', b'recorded_at":"3')
    disk.plant(PATHS.active, b"".join(lines))
    writer = open_writer(disk)
    assert [seq_known(writer, f"id{number}") for number in range(1, 6)] == [1, 2, 3, 4, 5]


def test_residue_behind_a_sealed_segment_does_not_count() -> None:
    disk = FakeDisk()
    disk.make_directories(PATHS.segments)
    disk.plant(PATHS.raw(1), A1 + A2 + A3 + B4 + B5[:30])
    disk.plant(PATHS.active, line(4, 9) + line(5, 9))
    writer = open_writer(disk)
    ops = everything(writer, disk)
    assert [(op.seq, op.recorded_at[-3:]) for op in ops] == [(1, "01Z"), (2, "01Z"), (3, "01Z"), (4, "09Z"), (5, "09Z")]
    assert writer.recovery.is_clean


def test_a_segment_of_which_nothing_was_acknowledged_goes_away() -> None:
    disk = FakeDisk()
    disk.make_directories(PATHS.segments)
    disk.plant(PATHS.raw(1), A1 + A2 + A3)
    disk.plant(PATHS.raw(4), B4 + B5)
    writer = open_writer(disk, unacknowledged_from=4)
    assert writer.last_seq == 3
    assert disk.list(PATHS.segments) == ["manifest.json", PATHS.raw(1).name]
    ops = [decode_op(line) for line in (A1, A2, A3)] + commit(writer, make_ops(2))
    for seed in range(20):
        after = disk.crash(seed)
        again = open_writer(after)
        assert (again.recovery.is_clean, everything(again, after)) == (True, ops), "it has not come back either"


LEFT_BY_A_CRASH: dict[str, tuple[dict[Path, bytes], int | None]] = {
    "a torn tail": ({PATHS.raw(1): A1, PATHS.active: A2 + A3 + B4[:30]}, None),
    "a torn tail of each file": ({PATHS.raw(1): A1 + A2 + A3 + B4 + B5[:30], PATHS.active: B4[:20]}, None),
    "an unacknowledged batch": ({PATHS.raw(1): A1 + A2 + A3, PATHS.active: B4 + B5}, 4),
    "the same in both files": ({PATHS.raw(1): A1 + A2 + A3 + B4 + B5, PATHS.active: B4 + B5}, 4),
    "the same in a sealed file": ({PATHS.raw(1): A1 + A2 + A3, PATHS.raw(4): B4 + B5}, 4),
    "a damaged manifest": ({PATHS.raw(1): A1 + A2 + A3, PATHS.manifest: b"rot", PATHS.active: B4}, None),
}


@pytest.mark.parametrize("left", LEFT_BY_A_CRASH)
def test_power_lost_at_any_call_of_a_start_loses_nothing_that_was_there(left: str) -> None:
    """What was not acknowledged may stay; what was, and what was set aside, must."""
    files, start = LEFT_BY_A_CRASH[left]

    def planted() -> FakeDisk:
        disk = FakeDisk()
        disk.make_directories(PATHS.segments)
        for path, data in files.items():
            disk.plant(path, data)
        return disk

    disk = planted()
    expected = everything(open_writer(disk, unacknowledged_from=start), disk)
    aside = sorted(disk.contents(PATHS.observer / name) for name in disk.list(PATHS.observer) if ".torn-" in name)
    for call in range(disk.calls.total() + 1):
        disk = planted()
        disk.fail("any", after=call, times=10**6)
        with suppress(DiskFailed):
            open_writer(disk, unacknowledged_from=start)
        for seed in range(8):
            after = disk.durable() if seed == 0 else disk.crash(seed)
            again = open_writer(after)
            found = everything(again, after)
            assert found[: len(expected)] == expected
            assert len(found) == again.last_seq
            assert again.recovery.damaged_lines == again.recovery.missing_ops == 0
            held = [after.contents(PATHS.observer / name) for name in after.list(PATHS.observer) if ".torn-" in name]
            assert sorted(held) == aside
            ops = found + commit(again, make_ops(1))
            after = after.durable()
            assert everything(open_writer(after), after) == ops


def test_a_newer_format_is_refused() -> None:
    disk = FakeDisk()
    disk.make_directories(PATHS.segments)
    disk.plant(PATHS.manifest, b'{"format":2,"something":"new"}')
    with pytest.raises(FormatUnknown, match="format 2"):
        open_writer(disk)


def test_a_format_that_has_rotted_is_damage_and_no_newer_one() -> None:
    disk = FakeDisk()
    commit(open_writer(disk), make_ops(1))
    written = disk.contents(PATHS.manifest)
    for rotten in (b'"format":21', b'"format": 2', b'"format":-1', b'"format": 0'):
        damaged = written.replace(b'"format": 1', rotten)
        assert damaged != written
        disk.plant(PATHS.manifest, damaged)
        writer = open_writer(disk)
        assert "manifest is damaged" in writer.recovery.manifest_problem
        assert (disk.contents(PATHS.manifest), writer.last_seq) == (written, 1)


def test_a_new_directory_gets_a_manifest_and_an_empty_file() -> None:
    disk = FakeDisk()
    writer = open_writer(disk)
    assert writer.recovery.is_clean
    assert disk.names() == [str(PATHS.active), str(PATHS.manifest)]
    assert decode_manifest(disk.contents(PATHS.manifest)).format == 1
    assert disk.durable().names() == disk.names()


def test_what_a_killed_process_wrote_is_synced_before_it_counts() -> None:
    disk = FakeDisk()
    commit(open_writer(disk), make_ops(1))
    file = disk.open_append(PATHS.active, create=False)
    file.write(line(2, 999_999))
    assert open_writer(disk).last_seq == 2
    assert open_writer(disk.durable()).last_seq == 2


def test_a_scan_marks_the_file_sparsely_and_finds_the_last_commit() -> None:
    found = scanned([(0, A1 + A2 + A3), (len(A1) * 3, B4 + B5)], 1)
    assert [(mark.offset, mark.first_seq) for mark in found.marks] == [(0, 1), (3 * len(A1), 4)]
    assert (found.good, found.good_before_last_commit, found.size) == (5, 3, len(A1) * 3 + len(B4) * 2)
    assert plan(found, found.size).keep_bytes == found.size


def test_a_scan_keeps_no_more_ids_than_are_wanted() -> None:
    """A file may hold millions; one more is kept than is wanted, since the last may turn out to be none."""
    disk = FakeDisk()
    writer = open_writer(disk)
    commit(writer, [msgspec.structs.replace(op, id=f"id-{number}") for number, op in enumerate(make_ops(50), 1)])
    found = scanned([(0, disk.contents(PATHS.active))], 1, ids_max=3)
    assert list(found.ids) == [(seq, f"id-{seq}") for seq in range(47, 51)]


def test_a_line_longer_than_a_chunk_is_read_whole() -> None:
    disk = FakeDisk()
    writer = open_writer(disk)
    ops = commit(writer, [make_op(1), make_op(2, pad=700_000), make_op(3)])
    again = open_writer(disk)
    assert again.last_seq == 3
    assert everything(again, disk) == ops


def test_a_batch_larger_than_a_block_is_indexed_within() -> None:
    disk = FakeDisk()
    writer = open_writer(disk)
    commit(writer, make_ops(3))
    ops = commit(writer, make_ops(3_000, pad=100))
    marks = writer.catalog.snapshot().active.marks
    assert len(marks) > 3
    data = disk.contents(PATHS.active)
    for mark in marks:
        head = msgspec.json.decode(data[mark.offset : data.index(b"\n", mark.offset)])
        assert head["seq"] == mark.first_seq
    reader_ops = everything(writer, disk)
    assert reader_ops[3:] == ops


TORN = b'{"timestamp":"2026' + b"x" * 300_000


def with_torn_tail() -> FakeDisk:
    disk = FakeDisk()
    writer = open_writer(disk)
    commit(writer, make_ops(3))
    writer.close()
    disk.plant(PATHS.active, disk.contents(PATHS.active) + TORN)
    return disk


def test_a_start_on_a_full_disk_leaves_the_next_one_all_the_room_that_is_made() -> None:
    disk = with_torn_tail()
    used = disk.used_bytes()
    for room in (1_000, 200_000, 0, len(TORN)):
        disk.quota_bytes = used + room
        disk.fail("rename", code=errno.ENOSPC)  # where the directory has to grow
        with pytest.raises(DiskFull):
            open_writer(disk)
        assert disk.used_bytes() == used
    disk.heal()
    assert open_writer(disk).last_seq == 3
    assert disk.contents(PATHS.observer / "ops.jsonl.torn-1") == TORN


def test_a_torn_tail_that_cannot_be_cut_is_set_aside_once() -> None:
    disk = with_torn_tail()
    for copies in (1, 0, 0):
        disk.fail("truncate", after=copies)
        with pytest.raises(DiskFailed):
            open_writer(disk)
    assert open_writer(disk).last_seq == 3
    assert [name for name in disk.list(PATHS.observer) if "torn" in name] == ["ops.jsonl.torn-1"]


@pytest.mark.parametrize("path", [PATHS.manifest, PATHS.raw(11)], ids=["manifest", "raw segment"])
def test_a_place_that_the_medium_does_not_give_keeps_a_start_waiting_for_a_while_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Rotten(path)
    writer = open_writer(disk)
    for _ in range(3):
        commit(writer, make_ops(10))
        writer.seal()
    commit(writer, make_ops(10))
    compact(disk, DATA, writer.catalog, SMALL, most=1)
    writer.close()
    if path == PATHS.manifest:
        with pytest.raises(DiskFailed, match="EIO"):
            open_writer(disk)
    assert look(disk, DATA).snapshot().last_seq == 40
    monkeypatch.setattr(blocks, "ROTTEN_S", 0.0)
    again = open_writer(disk)
    assert (again.last_seq, again.recovery.missing_ops) == (40, 0)
    assert again.recovery.manifest_problem == (
        "the manifest cannot be read: input/output error" if path == PATHS.manifest else ""
    )
    assert [op.seq for op in commit(again, make_ops(1))] == [41]


def test_a_copy_put_over_a_newer_directory_is_told_of_and_without_its_open_file_what_is_left_is_whole() -> None:
    disk, settings = FakeDisk(), msgspec.structs.replace(SMALL, segment_bytes_max=10**6)
    writer = open_writer(disk, settings)
    commit(writer, make_ops(10))
    copied = {path: disk.contents(path) for path in (PATHS.active, PATHS.manifest)}
    commit(writer, make_ops(10))
    writer.seal()
    compact(disk, DATA, writer.catalog, settings)
    commit(writer, make_ops(5))
    writer.close()
    for path, contents in copied.items():
        disk.plant(path, contents)
    found = verify(DATA, disk=disk, in_use=False)
    assert [one.what for one in found.findings] == [
        f"seq {seq} comes again or too late, expected 21" for seq in range(1, 11)
    ]
    disk.remove(PATHS.active)
    report = verify(DATA, disk=disk, in_use=False)
    assert (report.findings, report.last_seq) == ((), 20)
    assert [op.seq for op in commit(open_writer(disk, settings), make_ops(1))] == [21]


@pytest.mark.parametrize("path", [PATHS.manifest, PATHS.active, PATHS.compressed(1)], ids=["manifest", "end", "orphan"])
def test_a_second_place_that_is_not_given_much_later_is_waited_for_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = injected_monotonic(monkeypatch)
    disk, patience = Rotten(path), Patience()
    disk.place = 0
    writer = open_writer(disk)
    commit(writer, make_ops(10))
    writer.seal()
    commit(writer, make_ops(10))
    compact(disk, DATA, writer.catalog, SMALL)
    writer.close()
    if path == PATHS.compressed(1):
        disk.remove(PATHS.manifest)
        disk.remove(PATHS.index(1))
    for is_rotten in (True, False, True):
        disk.is_rotten = is_rotten
        try:
            found = survey(disk, DATA, patience=patience)
        except OSError:
            assert is_rotten
        else:
            assert not is_rotten
            assert not found.problems
        now_s[0] += blocks.ROTTEN_S


@pytest.mark.parametrize("ops_written", [5, 100])
@pytest.mark.parametrize("place", [100, 20_000, -1], ids=["first", "middle", "last"])
def test_an_active_file_of_which_the_medium_does_not_give_a_place_is_sealed_and_the_rest_of_it_counts(
    place: int, ops_written: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is the end, nothing tells how many ops it held: no seq is given out again, so that some are left out."""
    settings = msgspec.structs.replace(SMALL, segment_bytes_max=10**6)
    disk = Rotten(PATHS.active, PATHS.raw(1))
    writer = open_writer(disk, settings)
    ops = [op for number in range(ops_written) for op in commit(writer, make_ops(1, first=number))]
    writer.close()
    disk.place = place % disk.size(PATHS.active)
    with pytest.raises(DiskFailed, match="EIO"):
        open_writer(disk, settings)
    monkeypatch.setattr(blocks, "ROTTEN_S", 0.0)
    again = open_writer(disk, settings)
    found = again.recovery
    assert (found.torn, found.damaged_lines > 0, found.segments, found.active_bytes) == ((), True, 1, 0)
    assert (found.missing_ops, disk.list(PATHS.segments)[0]) == (0, "manifest.json")
    assert PATHS.raw(1).name in disk.list(PATHS.segments)
    assert ops_written <= found.last_seq <= ops_written + 20
    disk.paths = disk.paths[1:]  # the new file lies elsewhere
    more = commit(again, make_ops(3))
    assert everything(again, disk)[-3:] == everything(open_writer(disk, settings), disk)[-3:] == more
    disk.is_rotten = False
    assert [op for op in everything(open_writer(disk, settings), disk) if op.seq <= ops_written] == ops


def test_an_active_file_that_is_sealed_for_a_lost_place_is_synced_before_it_counts_and_never_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(blocks, "ROTTEN_S", 0.0)

    def scarred() -> FakeDisk:
        disk = Rotten(PATHS.active, PATHS.raw(1))
        disk.place = 0
        commit(open_writer(disk), make_ops(1, pad=5_000))
        disk.open_append(PATHS.active, create=False).write(line(2, 999_999))  # and is killed before it can sync
        return disk

    def seqs_in(disk: FakeDisk) -> list[int]:
        return [op.seq for op in everything(open_writer(disk), disk)]

    disk = scarred()
    before = disk.calls.total()
    assert seqs_in(disk) == [2]
    assert seqs_in(disk.durable()) == [1, 2]
    for call in range(disk.calls.total() - before):
        disk = scarred()
        disk.fail("any", after=call, times=10**6)
        with suppress(DiskFailed):
            open_writer(disk)
        for seed in range(8):
            assert seqs_in(disk.crash(seed)) in ([1], [1, 2])


def test_an_active_file_that_is_sealed_for_a_lost_place_is_waited_for_once_and_all_that_was_done_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = injected_monotonic(monkeypatch)
    settings, patience = msgspec.structs.replace(SMALL, segment_bytes_max=10**6), Patience()
    disk = Rotten(PATHS.active, PATHS.raw(1))
    writer = open_writer(disk, settings)
    for number in range(100):
        commit(writer, make_ops(1, first=number))
    writer.close()
    size = disk.size(PATHS.active)
    disk.plant(PATHS.active, disk.contents(PATHS.active) + TORN)
    disk.place = 5_000

    def opened() -> JournalWriter:
        return JournalWriter.open(disk, DATA, settings, now_us=Clock(), patience=patience)

    with pytest.raises(DiskFailed, match="EIO"):
        opened()
    now_s[0] += blocks.ROTTEN_S
    told = opened().recovery
    assert [(torn.offset, torn.bytes) for torn in told.torn] == [(size, len(TORN))]
    assert told.problems == (f"a place of the active file cannot be read: it is sealed as {PATHS.raw(1).name}",)
    assert (told.last_seq, told.missing_ops) == (100, 0)


def test_a_copy_of_a_torn_end_that_cannot_be_read_refuses_no_start() -> None:
    disk, old = Rotten(PATHS.observer / "ops.jsonl.torn-1"), with_torn_tail()
    disk.place = 0
    disk.make_directories(PATHS.observer)
    disk.plant(PATHS.active, old.contents(PATHS.active))
    disk.plant(PATHS.observer / "ops.jsonl.torn-1", TORN)
    assert open_writer(disk).last_seq == 3
    assert disk.contents(PATHS.observer / "ops.jsonl.torn-2") == TORN
