"""`verify` finds each kind of damage and says where, and finds nothing where nothing is."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from observer_actors.errors import DiskFailed, FormatUnknown
from observer_actors.journal import DirectoryLock, Finding, PosixDisk, VerifyReport, compact, retain, verify
from observer_actors.journal.files import replace_file
from observer_actors.journal.format import Paths
from observer_actors.settings import JournalSettings
from observer_actors.stats import Stats, encode_snapshot
from tests.fakes.disk import FakeDisk
from tests.journal.support import DATA, PATHS, SMALL, START_US, commit, everything, make_op, make_ops, open_writer


def prepared() -> FakeDisk:
    """Ops 1 to 10 compacted, 11 to 20 sealed and raw, 21 to 30 active; commits of five."""
    disk = FakeDisk()
    writer = open_writer(disk)
    for part in range(6):
        commit(writer, make_ops(5, first=part * 5))
        if part in {1, 3}:
            writer.seal()
        if part == 1:
            compact(disk, DATA, writer.catalog, SMALL)
    return disk


def check(disk: FakeDisk) -> VerifyReport:
    return verify(DATA, disk=disk, in_use=False)


def test_a_clean_directory_has_no_findings() -> None:
    assert check(prepared()) == VerifyReport(
        findings=(),
        damage=0,
        notices=0,
        ops=30,
        segments=2,
        stored_bytes=check(prepared()).stored_bytes,
        first_seq=1,
        last_seq=30,
        in_use=False,
    )


def test_an_empty_directory_is_clean() -> None:
    disk = FakeDisk()
    assert not check(disk).findings
    open_writer(disk)
    report = check(disk)
    assert (report.findings, report.ops, report.first_seq, report.last_seq) == ((), 0, 0, 0)


def lines_of(disk: FakeDisk, path: Path) -> list[bytes]:
    return disk.contents(path).splitlines(keepends=True)


def edit(path: Path, change: Callable[[list[bytes]], object]) -> Callable[[FakeDisk], None]:
    def plant(disk: FakeDisk) -> None:
        lines = lines_of(disk, path)
        change(lines)
        disk.plant(path, b"".join(lines))

    return plant


def rot(path: Path, at: int) -> Callable[[FakeDisk], None]:
    def plant(disk: FakeDisk) -> None:
        data = bytearray(disk.contents(path))
        data[at] ^= 4
        disk.plant(path, bytes(data))

    return plant


def replaced(line: int, old: bytes, new: bytes) -> Callable[[list[bytes]], None]:
    def change(lines: list[bytes]) -> None:
        assert old in lines[line]
        lines[line] = lines[line].replace(old, new)

    return change


RAW = "segments/" + PATHS.raw(11).name
GZ = "segments/" + PATHS.compressed(1).name
# what is planted; severity, file, line, part of what is said
DAMAGE: dict[str, tuple[Callable[[FakeDisk], object], tuple[str, str, int | None, str]]] = {
    "rubbish in the active file": (
        edit(PATHS.active, lambda lines: lines.__setitem__(1, b"rubbish\n")),
        ("damage", "ops.jsonl", 2, "bad line: not a record"),
    ),
    "NUL in the active file": (
        edit(PATHS.active, replaced(2, b"op 22", b"op\x0022")),
        ("damage", "ops.jsonl", 3, "bad line: holds NUL bytes"),
    ),
    "a line lost in the active file": (
        edit(PATHS.active, lambda lines: lines.pop(2)),
        ("damage", "ops.jsonl", 3, "gap: seq 23 to 23 are missing"),
    ),
    "a line twice in the active file": (
        edit(PATHS.active, lambda lines: lines.insert(2, lines[1])),
        ("damage", "ops.jsonl", 3, "seq 22 comes again or too late, expected 23"),
    ),
    "times out of order": (
        edit(PATHS.raw(11), replaced(7, b".000003Z", b".000001Z")),
        ("damage", RAW, 8, "recorded_at of seq 18 is earlier"),
    ),
    "rubbish in a raw segment": (
        edit(PATHS.raw(11), lambda lines: lines.__setitem__(9, b"{}\n")),
        ("damage", RAW, 10, "bad line"),
    ),
    "the end of a raw segment lost": (
        edit(PATHS.raw(11), lambda lines: lines.__delitem__(slice(8, None))),
        ("damage", "ops.jsonl", 1, "gap: seq 19 to 20 are missing"),
    ),
    "a raw segment lost": (
        lambda disk: disk.remove(PATHS.raw(11)),
        ("damage", "ops.jsonl", 1, "gap: seq 11 to 20 are missing"),
    ),
    "a compressed segment lost": (
        lambda disk: disk.remove(PATHS.compressed(1)),
        ("damage", "segments", None, f"{PATHS.compressed(1).name}, which the manifest names, is missing"),
    ),
    "rot in a compressed segment": (rot(PATHS.compressed(1), 100), ("damage", GZ, None, "cannot be decompressed")),
    "a gzip header that rots": (rot(PATHS.compressed(1), 4), ("damage", GZ, None, "the SHA-256 differs")),
    "rot in the manifest": (
        rot(PATHS.manifest, 200),
        ("damage", "segments/manifest.json", None, "the manifest is damaged"),
    ),
    "no manifest": (
        lambda disk: disk.remove(PATHS.manifest),
        ("damage", "segments/manifest.json", None, "the manifest is missing"),
    ),
    "rot in a block index": (
        rot(PATHS.index(1), 50),
        ("notice", "segments/" + PATHS.index(1).name, None, "the block index is missing or wrong"),
    ),
    "a torn tail": (
        edit(PATHS.active, replaced(9, b"\n", b"")),
        ("notice", "ops.jsonl", None, "torn tail of"),
    ),
    "a tail set aside": (
        lambda disk: disk.plant(PATHS.observer / "ops.jsonl.torn-1", b"x"),
        ("notice", "ops.jsonl.torn-1", None, "bytes of a torn commit"),
    ),
    "a tail set aside under a name that is no UTF-8": (
        lambda disk: disk.plant(PATHS.observer / "ops.jsonl.torn-\udcff", b"x"),
        ("notice", "ops.jsonl.torn-\\udcff", None, "bytes of a torn commit"),
    ),
    "a manifest set aside": (
        lambda disk: disk.plant(PATHS.segments / "manifest.json.damaged-1", b"x"),
        ("notice", "segments/manifest.json.damaged-1", None, "a damaged manifest"),
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_planted_damage_is_found_and_located(name: str) -> None:
    disk = prepared()
    plant, (severity, file, line, what) = DAMAGE[name]
    plant(disk)
    report = check(disk)
    assert any(
        (found.severity, found.file, found.line) == (severity, file, line) and what in found.what
        for found in report.findings
    ), report.findings
    assert report.is_damaged == (severity == "damage")
    assert msgspec.json.encode(report), "whatever a file is called"
    assert (report.damage, report.notices) == (
        sum(f.severity == "damage" for f in report.findings),
        sum(f.severity == "notice" for f in report.findings),
    )


def test_an_offset_says_where_the_line_begins() -> None:
    disk = prepared()
    lines = lines_of(disk, PATHS.active)
    disk.plant(PATHS.active, b"".join([*lines[:2], b"rubbish\n", *lines[3:]]))
    [finding] = check(disk).findings
    assert finding == Finding(
        severity="damage", file="ops.jsonl", what=finding.what, line=3, offset=len(lines[0] + lines[1])
    )


def test_a_time_that_has_rotted_to_a_later_one_is_told_once() -> None:
    disk = prepared()
    edit(PATHS.active, replaced(1, b'recorded_at":"2', b'recorded_at":"3'))(disk)
    [finding] = check(disk).findings
    assert (finding.line, finding.what) == (3, "recorded_at of seq 23 is earlier than that of the op before")


def test_a_time_that_has_rotted_to_none_is_told_once_and_its_op_given_to_nobody() -> None:
    disk = FakeDisk()
    writer = open_writer(disk)
    ops = commit(writer, make_ops(5)) + commit(writer, make_ops(5, first=5))
    lines = disk.contents(PATHS.active).splitlines(keepends=True)
    lines[2] = lines[2].replace(b'"recorded_at":"2', b'"recorded_at":"r')
    disk.plant(PATHS.active, b"".join(lines))
    writer = open_writer(disk)
    assert writer.recovery.damaged_lines == 1
    for prepare in (lambda: None, writer.seal, lambda: compact(disk, DATA, writer.catalog, SMALL)):
        prepare()
        [damage] = check(disk).findings
        assert (damage.line, damage.what) == (3, "bad line: not a record: no seq or recorded_at of its own")
        assert everything(writer, disk) == ops[:2] + ops[3:]


def test_an_id_that_comes_twice_is_a_notice_within_the_window() -> None:
    disk = FakeDisk()
    writer = open_writer(disk)
    commit(writer, [make_op(1, id_="a"), make_op(2), make_op(3, id_="a")])
    [finding] = check(disk).findings
    assert (finding.severity, finding.line, finding.what) == ("notice", 3, "the id of seq 3 was given to seq 1 already")
    assert not verify(DATA, disk=disk, in_use=False, dedup_window_ops=1).findings


def test_what_retention_removed_is_no_gap() -> None:
    disk = prepared()
    retain(disk, DATA, open_writer(disk).catalog, JournalSettings(retained_bytes_max=1), now_us=START_US)
    report = check(disk)
    assert (report.findings, report.first_seq, report.ops) == ((), 11, 20)


def test_a_file_of_rubbish_makes_a_report_of_bounded_size() -> None:
    disk = prepared()
    disk.plant(PATHS.raw(11), b"rubbish\n" * 5_000)
    report = check(disk)
    assert len(report.findings) == 1_000
    assert report.damage == 5_000


def test_behind_a_damaged_block_the_next_one_is_checked() -> None:
    disk = FakeDisk()
    writer = open_writer(disk)
    for part in range(10):
        commit(writer, make_ops(300, first=part * 300, pad=400))
    writer.seal()
    commit(writer, make_ops(1))
    compact(disk, DATA, writer.catalog, SMALL)
    rot(PATHS.compressed(1), 5_000)(disk)
    report = check(disk)
    assert [finding.what.split(":")[0] for finding in report.findings] == [
        "a block cannot be decompressed",
        "gap",
        "its bytes (" + str(disk.size(PATHS.compressed(1))) + ") are not those of the manifest ("
        + str(disk.size(PATHS.compressed(1))) + ")",
    ]  # fmt: skip
    assert 1_500 < report.ops < 3_001


def test_a_newer_format_and_a_broken_disk_are_errors() -> None:
    disk = prepared()
    disk.fail("read", code=errno.ENOMEM)
    with pytest.raises(DiskFailed, match="verifying"):
        check(disk)
    disk.plant(PATHS.manifest, b'{"format":9}')
    with pytest.raises(FormatUnknown):
        check(disk)


def test_a_manifest_that_the_medium_does_not_give_is_damage() -> None:
    disk = prepared()
    disk.fail("read")
    report = check(disk)
    assert [finding.what[:31] for finding in report.findings] == ["the manifest cannot be read: In"]


def test_progress_is_reported_up_to_the_whole() -> None:
    seen: list[tuple[int, int]] = []
    disk = prepared()
    verify(DATA, disk=disk, in_use=False, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1] > 0


class MeddlingDisk(FakeDisk):
    """Lets something happen just before the n-th read from now on."""

    def __init__(self) -> None:
        super().__init__()
        self.reads_left = -1
        self.meddle: Callable[[], object] = int

    def read(self, path: Path, offset: int, length: int) -> bytes:
        self.reads_left -= 1
        if self.reads_left == 0:
            self.meddle()
        return super().read(path, offset, length)


@pytest.mark.parametrize("reads", range(1, 25))
@pytest.mark.parametrize("what", ["seal", "compact", "retain", "all"])
def test_a_writer_at_any_point_of_a_check_makes_no_false_damage(reads: int, what: str) -> None:
    disk = MeddlingDisk()
    writer = open_writer(disk)
    for part in range(4):
        commit(writer, make_ops(5, first=part * 5))
        writer.seal()
        if part < 2:
            compact(disk, DATA, writer.catalog, SMALL)
    commit(writer, make_ops(5, first=20))

    def meddle() -> None:
        if what in {"seal", "all"}:
            writer.seal()
            commit(writer, make_ops(7, first=25))
        if what in {"compact", "all"}:
            compact(disk, DATA, writer.catalog, SMALL)
        if what in {"retain", "all"}:
            retain(disk, DATA, writer.catalog, JournalSettings(retained_bytes_max=1), now_us=START_US)

    disk.meddle, disk.reads_left = meddle, reads
    report = verify(DATA, disk=disk, in_use=True)
    assert report.findings == ()
    assert report.last_seq in {25, 32}


ROTTEN = encode_snapshot(Stats(last_seq=30)).replace(b"30", b"70")


@pytest.mark.parametrize("content", [encode_snapshot(Stats(last_seq=30)), ROTTEN, b"{", b'{"stats":3}', b"[" * 100_000])
def test_counters_that_end_with_the_journal_or_cannot_be_read_say_nothing(content: bytes) -> None:
    disk = prepared()
    replace_file(disk, PATHS.counters, content)
    assert check(disk).findings == ()


def test_a_journal_that_ends_before_what_was_counted_has_lost_something() -> None:
    disk = prepared()
    replace_file(disk, PATHS.counters, encode_snapshot(Stats(last_seq=33)))
    (found,) = check(disk).findings
    assert (found.severity, found.file) == ("damage", "ops.jsonl")
    assert "up to 33" in found.what
    assert "ends at 30" in found.what
    assert verify(DATA, disk=disk, in_use=True).damage == 0, "they may be a moment ahead of the look"


def test_a_directory_in_use_gives_no_false_damage(tmp_path: Path) -> None:
    disk = PosixDisk()
    stop = threading.Event()
    settings = JournalSettings(segment_bytes_max=20_000, retained_bytes_max=20_000)
    with DirectoryLock(tmp_path):
        writer = open_writer(disk, settings, data=tmp_path)
        commit(writer, make_ops(10))

        def write() -> None:
            number = 0
            while not stop.is_set():
                commit(writer, make_ops(20, first=number))
                number += 20
                if writer.seal_due():
                    writer.seal()
                    compact(disk, tmp_path, writer.catalog, settings)
                    retain(disk, tmp_path, writer.catalog, settings, now_us=START_US)

        thread = threading.Thread(target=write)
        thread.start()
        reports = [verify(tmp_path)]
        while len(reports) < 15 or reports[-1].last_seq == reports[0].last_seq:
            reports.append(verify(tmp_path))
        stop.set()
        thread.join()
    assert {report.findings for report in reports} == {()}
    assert all(report.in_use for report in reports)
    assert reports[-1].last_seq > reports[0].last_seq
    assert not verify(tmp_path).in_use


@pytest.mark.parametrize("looks", range(1, 6))
def test_a_daemon_that_starts_in_the_midst_of_a_check_makes_no_false_damage(tmp_path: Path, looks: int) -> None:
    disk, left = PosixDisk(), [looks]
    writer = open_writer(disk, data=tmp_path)
    for part in range(4):
        commit(writer, make_ops(5, first=part * 5))
        writer.seal()
    commit(writer, make_ops(5, first=20))
    writer.close()
    with ExitStack() as stack:

        def start(_done: int, _total: int) -> None:
            left[0] -= 1
            if left[0]:
                return
            stack.enter_context(DirectoryLock(tmp_path))
            daemon = open_writer(disk, data=tmp_path)
            commit(daemon, make_ops(5, first=25))
            daemon.seal()
            commit(daemon, make_ops(5, first=30))
            compact(disk, tmp_path, daemon.catalog, SMALL)
            replace_file(disk, Paths(tmp_path).counters, encode_snapshot(Stats(last_seq=35)))

        report = verify(tmp_path, progress=start)
    assert (report.findings, report.in_use) == ((), True)
    assert report.last_seq in {25, 35}
