"""The real disk: permissions, the lock, and one round trip; and what the fake has in common with it."""

from __future__ import annotations

import errno
import fcntl
import gzip
import mmap
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from unittest.mock import Mock

import pytest

from observer_actors.errors import ConfigInvalid, DataDirectoryHeld, DataDirectoryLocked, DiskFailed
from observer_actors.journal import (
    DirectoryLock,
    JournalReader,
    PosixDisk,
    Query,
    blocks,
    close_to_others,
    compact,
    directory_in_use,
    files,
    linked_elsewhere,
    look,
    refuse_foreign,
    retain,
    verify,
)
from observer_actors.journal.directory import Closed
from observer_actors.journal.files import (
    LOST_PAGES_MAX,
    PAGE_BYTES,
    PIECE_BYTES,
    Around,
    Disk,
    disk_error,
    replace_file,
    write_all,
)
from observer_actors.journal.format import BLOCK_BYTES, Paths
from observer_actors.settings import JournalSettings
from tests.conftest import ROOT
from tests.fakes.disk import FakeDisk
from tests.journal.support import SMALL, START_US, commit, make_op, make_ops, open_writer, reader_of


def test_a_journal_on_a_real_disk(tmp_path: Path) -> None:
    disk, paths = PosixDisk(), Paths(tmp_path / "new" / "data")
    writer = open_writer(disk, data=paths.data)
    ops = commit(writer, make_ops(10))
    writer.seal()
    ops += commit(writer, make_ops(5, first=10))
    raw = paths.raw(1).read_bytes()
    compact(disk, paths.data, writer.catalog, SMALL)
    assert gzip.decompress(paths.compressed(1).read_bytes()) == raw
    assert reader_of(writer, disk, paths.data).read(0, 100) == ops
    assert JournalReader(disk, paths.data, look(disk, paths.data)).read(0, 100) == ops
    writer.close()
    with paths.active.open("ab") as file:
        file.write(b'{"torn')
    again = open_writer(disk, data=paths.data)
    assert (again.last_seq, len(again.recovery.torn)) == (15, 1)
    assert (paths.observer / "ops.jsonl.torn-1").read_bytes() == b'{"torn'
    assert not verify(paths.data).is_damaged
    retain(disk, paths.data, again.catalog, JournalSettings(retained_bytes_max=1), now_us=START_US)
    assert reader_of(again, disk, paths.data).read(0, 100) == ops[10:]
    again.close()


@pytest.mark.parametrize("how", ["in place", "by another of its name"])
def test_a_file_that_somebody_has_edited_is_not_cut_in_the_midst_of_a_line(tmp_path: Path, how: str) -> None:
    """The op that came next would go on that line, and be acknowledged and lost with it."""
    disk, active = PosixDisk(), Paths(tmp_path).active
    writer = open_writer(disk, data=tmp_path)
    ops = commit(writer, make_ops(5))
    edited = active.read_bytes().replace(b'"op 1"', b'"op one"')
    if how == "in place":
        active.write_bytes(edited)
    else:
        active.with_suffix(".new").write_bytes(edited)
        active.with_suffix(".new").replace(active)
    for _ in range(3):
        with pytest.raises(DiskFailed, match="changed by somebody else"):
            commit(writer, make_ops(1, first=5))
    writer.close()
    assert active.read_bytes() == edited
    again = open_writer(disk, data=tmp_path)
    ops[1].input_summary = "op one"
    ops += commit(again, make_ops(1, first=5))
    assert reader_of(again, disk, tmp_path).read(0, 100) == ops
    assert verify(tmp_path).findings == ()
    again.close()


def test_files_and_directories_are_closed_to_others(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with DirectoryLock(data):
        writer = open_writer(PosixDisk(), data=data)
        commit(writer, make_ops(3))
        writer.seal()
        compact(PosixDisk(), data, writer.catalog, SMALL)
        writer.close()
    modes = {path.relative_to(tmp_path): stat.S_IMODE(path.stat().st_mode) for path in data.rglob("*")}
    modes[Path("data")] = stat.S_IMODE(data.stat().st_mode)
    assert len(modes) == 8
    assert {
        path: mode for path, mode in modes.items() if mode != (0o700 if (tmp_path / path).is_dir() else 0o600)
    } == {}


def test_a_second_daemon_is_told_who_holds_the_directory(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from observer_actors.journal import DirectoryLock\n"
        "lock = DirectoryLock(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert directory_in_use(tmp_path)
        with pytest.raises(DataDirectoryLocked, match=f"in use by process {holder.pid}"):
            DirectoryLock(tmp_path)
        holder.kill()
    assert not directory_in_use(tmp_path)
    with DirectoryLock(tmp_path) as lock:
        assert directory_in_use(tmp_path)
        lock.close()
        assert not directory_in_use(tmp_path)


def test_of_a_holder_whose_number_nobody_has_here_it_is_said_what_it_may_be(tmp_path: Path) -> None:
    with DirectoryLock(tmp_path):
        Paths(tmp_path).lock.write_text("999999999\n")
        with pytest.raises(DataDirectoryHeld, match="in use by what is left of process 999999999") as refused:
            DirectoryLock(tmp_path)
    assert "its child" in refused.value.hint
    assert "in another container" in refused.value.hint


def test_who_removes_the_lock_file_does_not_let_a_second_daemon_in(tmp_path: Path) -> None:
    with DirectoryLock(tmp_path):
        Paths(tmp_path).lock.unlink()
        assert directory_in_use(tmp_path)
        for _ in range(2):
            with pytest.raises(DataDirectoryLocked, match=r"by a process that .*/lock does not name") as refused:
                DirectoryLock(tmp_path)
            assert "was the lock file removed?" in refused.value.hint
        assert directory_in_use(tmp_path)
    assert not directory_in_use(tmp_path)


def test_who_locks_on_a_full_disk_keeps_the_room_that_the_lock_file_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, write = Paths(tmp_path).lock, os.pwrite
    with DirectoryLock(tmp_path):
        pass
    file.write_text("1234567890\n")

    def write_over(descriptor: int, data: bytes, offset: int) -> int:
        if not os.fstat(descriptor).st_size:  # others have filled the disk, by what became free just now
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", write_over)
    with DirectoryLock(tmp_path):
        assert file.read_text() == f"{os.getpid()}\n"


def test_the_lock_knows_its_directory_by_more_than_its_name(tmp_path: Path) -> None:
    data, away = tmp_path / "data", tmp_path / "away"
    with DirectoryLock(data) as lock:
        Paths(data).lock.unlink()
        assert lock.is_in_place(), "of the lock file it does not matter"
        data.rename(away)
        assert not lock.is_in_place()
        data.symlink_to(away)
        assert lock.is_in_place()
        data.unlink()
        shutil.copytree(away, data)
        assert not lock.is_in_place()


def test_a_directory_stays_locked_for_who_holds_it_when_it_is_let_go_of(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path)
    with lock.held():
        lock.close()
        with pytest.raises(DataDirectoryLocked), DirectoryLock(tmp_path):
            pass
        with pytest.raises(DiskFailed, match="removed, renamed or replaced"), lock.held():
            pass
    DirectoryLock(tmp_path).close()


def test_who_cannot_hold_a_lock_for_want_of_open_files_leaves_none_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[int] = []

    def dup(descriptor: int) -> int:
        if copied:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        copied.append(fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 0))
        return copied[0]

    with DirectoryLock(tmp_path) as lock:
        monkeypatch.setattr(os, "dup", dup)
        with pytest.raises(DiskFailed, match="keeping the lock"), lock.held():
            pass
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(copied[0])


def test_a_disk_whose_directory_is_another_one_by_now_changes_nothing_and_reads_nothing(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_bytes(b"theirs")
    disk = PosixDisk(is_ours=lambda: False)
    for call in (
        lambda: disk.open_append(theirs, create=False),
        lambda: disk.open_append(tmp_path / "new", create=True),
        lambda: disk.rename(theirs, tmp_path / "new"),
        lambda: disk.remove(theirs),
        lambda: disk.make_directories(tmp_path / "new"),
        lambda: disk.list(tmp_path),
        lambda: disk.read(theirs, 0, 6),
        lambda: disk.size(theirs),
    ):
        with pytest.raises(OSError, match="the data directory was removed, renamed or replaced") as refused:
            call()
        assert refused.value.errno == errno.ESTALE
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("theirs", b"theirs")]


def test_a_directory_that_goes_while_a_file_is_looked_for_is_told_from_a_file_that_is_not_there(tmp_path: Path) -> None:
    missing = tmp_path / "none"
    with pytest.raises(OSError, match="the data directory was removed, renamed or replaced"):
        PosixDisk(is_ours=iter([True, False]).__next__).read(missing, 0, 1)
    with pytest.raises(OSError, match="the data directory was removed, renamed or replaced"):
        PosixDisk(is_ours=iter([True, False]).__next__).size(missing)
    with pytest.raises(FileNotFoundError):
        PosixDisk(is_ours=iter([True, True]).__next__).read(missing, 0, 1)


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, None], ids=["folder", "file", "nothing"])
@pytest.mark.parametrize(
    "name",
    [
        "_observer/learned.sqlite3-wal",
        "_observer/librarian.json.tmp",
        "_observer/ops.jsonl.torn-1",
        "_observer/segments",
        "_observer/segments/ops-00000000000000000001.jsonl",
        "_kb",
        "_kb/outcomes.jsonl",
    ],
)
def test_a_link_to_whatever_it_be_is_refused(tmp_path: Path, name: str, make: Callable[[Path], None] | None) -> None:
    data, outside = tmp_path / "data", tmp_path / "outside"
    link = data / name
    link.parent.mkdir(parents=True)
    refuse_foreign(data, data / "_kb" / "outcomes.jsonl")
    if make is not None:
        make(outside)
    link.symlink_to(outside)
    with pytest.raises(ConfigInvalid, match=f"{name} is a symbolic link"):
        refuse_foreign(data, data / "_kb" / "outcomes.jsonl")


def test_a_hard_link_is_told_of_where_files_are_written_in_place(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_text("somebody's\n")
    assert linked_elsewhere(tmp_path / "none") == []
    for place in (Paths(tmp_path).raw(1), tmp_path / "_kb" / "outcomes.jsonl"):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.hardlink_to(theirs)
    (Paths(tmp_path).observer / "stats.json").write_text("{}")
    assert linked_elsewhere(tmp_path) == []
    written = (Paths(tmp_path).observer / "learned.sqlite3", Paths(tmp_path).active)
    for place in written:
        place.hardlink_to(theirs)
    assert linked_elsewhere(tmp_path) == [str(place) for place in written]
    refuse_foreign(tmp_path, tmp_path / "_kb" / "outcomes.jsonl")


def test_what_is_open_within_a_closed_folder_of_segments_is_out_of_reach(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    tmp_path.chmod(0o700)
    paths.segments.mkdir(parents=True)
    places = (paths.observer, paths.active, paths.segments, paths.raw(1))
    paths.active.touch()
    paths.raw(1).touch()
    for folder_mode, closed in ((0o700, places[:2]), (0o710, places)):
        for place, mode in zip(places, (0o710, 0o640, folder_mode, 0o640), strict=True):
            place.chmod(mode)
        assert close_to_others(tmp_path) == Closed(tuple(map(str, closed)), (), is_directory_open=False)
        assert close_to_others(tmp_path) == Closed((), (), is_directory_open=False)


def test_a_start_asks_the_system_of_no_compacted_segment_by_name(tmp_path: Path) -> None:
    """There may be tens of thousands: the folder's listing and the manifest tell enough."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    data, log = tmp_path / "data", tmp_path / "log"
    writer = open_writer(PosixDisk(), data=data)
    for number in range(3):
        commit(writer, make_ops(1, first=number))
        writer.seal()
    assert len(compact(PosixDisk(), data, writer.catalog, SMALL)) == 3
    writer.close()
    command = [strace, "-f", "-o", str(log), "-e", "trace=%file", sys.executable, "-c", _START, str(data)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if "ptrace" in done.stderr:
        pytest.skip(f"strace cannot trace: {done.stderr.strip()}")
    assert (done.returncode, done.stdout) == (0, "3 segments\n"), done.stderr
    asked = log.read_text()
    assert str(Paths(data).manifest) in asked
    assert [line for line in asked.splitlines() if "/segments/ops-" in line] == []


_START = """
import contextlib, sys, time
from pathlib import Path
from observer_actors.data_dir import take_directory
from observer_actors.journal import JournalWriter, PosixDisk, compact, retain
from observer_actors.settings import JournalSettings, Settings

data, settings = Path(sys.argv[1]), JournalSettings(dedup_window_ops=0)
with contextlib.ExitStack() as stack:
    take_directory(stack, Settings(data_dir=data))
    writer = JournalWriter.open(PosixDisk(), data, settings, now_us=lambda: time.time_ns() // 1_000)
    compact(PosixDisk(), data, writer.catalog, settings)
    retain(PosixDisk(), data, writer.catalog, settings, now_us=None)
    print(writer.statistics().segments, "segments")
    writer.close()
"""


@pytest.mark.parametrize("place", ["active", "manifest", "lock", "raw", "compressed"])
def test_a_folder_in_the_place_of_a_file_is_refused_by_name(tmp_path: Path, place: str) -> None:
    paths = Paths(tmp_path)
    found = getattr(paths, place)
    path = found if isinstance(found, Path) else found(1)
    path.mkdir(parents=True)
    with pytest.raises(ConfigInvalid, match=f"{path} is a folder, and must be a file"):
        refuse_foreign(tmp_path)


def test_a_block_index_that_is_a_folder_is_made_again_in_memory(tmp_path: Path) -> None:
    disk, paths = PosixDisk(), Paths(tmp_path)
    writer = open_writer(disk, data=tmp_path)
    ops = commit(writer, make_ops(10))
    writer.seal()
    compact(disk, tmp_path, writer.catalog, SMALL)
    writer.close()
    paths.index(1).unlink()
    paths.index(1).mkdir()
    refuse_foreign(tmp_path)
    again = open_writer(disk, data=tmp_path)
    assert reader_of(again, disk, tmp_path).read(0, 100) == ops
    again.close()
    assert [finding.severity for finding in verify(tmp_path).findings] == ["notice"]
    paths.manifest.unlink()
    assert JournalReader(disk, tmp_path, look(disk, tmp_path)).read(0, 100) == ops


def test_an_error_names_the_file_and_what_fits_it(tmp_path: Path) -> None:
    Paths(tmp_path).manifest.mkdir(parents=True)
    with pytest.raises(DiskFailed) as folder:
        open_writer(PosixDisk(), data=tmp_path)
    assert ("(manifest.json)" in str(folder.value), "a folder" in folder.value.hint) == (True, True)
    assert str(tmp_path) not in str(folder.value), "callers hear it too"
    closed = disk_error(PermissionError(errno.EACCES, "Permission denied", b"/data/\xff"), "reading the journal")
    assert str(closed) == "EACCES while reading the journal: Permission denied (\\udcff)"
    assert "must belong to" in closed.hint
    long = disk_error(OSError(errno.EFBIG, "File too large"), "writing the journal")
    assert "journal.segment_bytes_max" in long.hint
    deep = disk_error(OSError(errno.ENAMETOOLONG, "File name too long"), "looking over the data directory")
    assert "shorter" in deep.hint
    fixed = disk_error(PermissionError(errno.EPERM, "Operation not permitted"), "opening the lock file")
    assert "lsattr" in fixed.hint
    mounted = disk_error(OSError(errno.EXDEV, "Invalid cross-device link"), "sealing the active file")
    assert "mount the whole directory" in mounted.hint


def test_what_others_keep_beside_is_their_business(tmp_path: Path) -> None:
    """Other programs' files in the data directory, and folders that the daemon never looks into."""
    for name in ("_kb/error_corrections.jsonl", "_auditor", "_observer/old/ops.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to("elsewhere")
    refuse_foreign(tmp_path, tmp_path / "_kb" / "outcomes.jsonl")


def test_a_fifo_in_the_place_of_the_lock_hangs_nobody_who_asks(tmp_path: Path) -> None:
    lock = Paths(tmp_path).lock
    lock.parent.mkdir()
    os.mkfifo(lock)
    code = (
        "import sys; from pathlib import Path; from observer_actors.journal import directory_in_use\n"
        "sys.exit(directory_in_use(Path(sys.argv[1])))"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=20)


def test_no_file_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match="symbolic links"):
        PosixDisk().open_append(tmp_path / "link", create=True)
    assert not (tmp_path / "outside").exists()


def test_a_directory_that_cannot_be_made_is_a_failed_disk(tmp_path: Path) -> None:
    (tmp_path / "_observer").write_text("in the way")
    with pytest.raises(DiskFailed, match="opening the journal"):
        open_writer(PosixDisk(), data=tmp_path)


@pytest.fixture(params=["posix", "fake"])
def disk(request: pytest.FixtureRequest) -> Disk:
    return PosixDisk() if request.param == "posix" else FakeDisk()


def test_real_and_fake_disk_do_the_same(disk: Disk, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    disk.make_directories(folder)
    disk.make_directories(folder)
    with pytest.raises(FileNotFoundError):
        disk.open_append(folder / "x", create=False)
    file = disk.open_append(folder / "x", create=True)
    write_all(file, b"hello world")
    file.datasync()
    assert (file.size(), disk.size(folder / "x")) == (11, 11)
    file.truncate(5)
    write_all(file, b"!")
    file.close()
    assert disk.read(folder / "x", 0, 100) == b"hello!"
    assert disk.read(folder / "x", 4, 1) == b"o"
    assert disk.read(folder / "x", 9, 1) == b""
    replace_file(disk, folder / "y", b"first")
    replace_file(disk, folder / "y", b"second")
    disk.rename(folder / "x", folder / "z")
    disk.sync_directory(folder)
    assert disk.list(folder) == ["y", "z"]
    assert disk.list(folder.parent) == ["b"]
    assert disk.list(folder / "none") == []
    disk.remove(folder / "z")
    for call in (
        lambda: disk.remove(folder / "z"),
        lambda: disk.size(folder / "z"),
        lambda: disk.read(folder / "z", 0, 1),
        lambda: disk.rename(folder / "z", folder / "q"),
        lambda: disk.open_append(folder / "none" / "x", create=True),
        lambda: disk.sync_directory(folder / "none"),
    ):
        with pytest.raises(FileNotFoundError):
            call()
    assert disk.read(folder / "y", 0, 100) == b"second"


class Rotten(PosixDisk):
    """A place of its medium cannot be read."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.path = Path()
        self.places = range(0)

    def read(self, path: Path, offset: int, length: int) -> bytes:
        if path == self.path and offset < self.places.stop and offset + length > self.places.start:
            raise OSError(self.number, os.strerror(self.number), str(path))
        return super().read(path, offset, length)


@pytest.mark.parametrize("places", [range(1), range(1_000_000)], ids=["its beginning", "all of it"])
@pytest.mark.parametrize("is_compacted", [True, False])
@pytest.mark.parametrize("has_index", [True, False])
def test_a_segment_that_the_medium_does_not_give_is_damage_and_no_more(
    tmp_path: Path,
    places: range,
    is_compacted: bool,  # noqa: FBT001
    has_index: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk, paths = Rotten(errno.EIO), Paths(tmp_path)
    writer = open_writer(disk, data=tmp_path)
    ops = []
    for number in range(3):
        ops += commit(writer, [make_op(10 * number + n, id_=f"{number}-{n}") for n in range(10)])
        writer.seal()
    ops += commit(writer, make_ops(5, first=30))
    if is_compacted:
        compact(disk, tmp_path, writer.catalog, SMALL)
    disk.path, disk.places = (paths.compressed if is_compacted else paths.raw)(11), places
    if is_compacted and not has_index:
        paths.index(11).unlink()
    rest = [op for op in ops if not 11 <= op.seq <= 20]
    reader = reader_of(writer, disk, tmp_path)
    with pytest.raises(DiskFailed):  # it may be a path to the disk that comes back
        reader.read(0, 100)
    assert reader.damaged_lines == 0
    monkeypatch.setattr(blocks, "ROTTEN_S", 0)
    found = reader.read(0, 100)
    assert [op for op in found if not 11 <= op.seq <= 20] == rest
    assert reader.damaged_lines > 0
    newest = reader.query(Query(limit=100)).ops
    assert [op for op in reversed(newest) if not 11 <= op.seq <= 20] == rest
    writer.close()
    if is_compacted:  # a raw one has to be read, for nothing else says what is in it
        said = verify(tmp_path, disk=disk)
        assert (said.is_damaged, said.last_seq) == (True, 35)
        assert {finding.file for finding in said.findings if finding.severity == "damage"} == {
            "segments/ops-00000000000000000011.jsonl.gz"
        }
        again = open_writer(disk, data=tmp_path)
        assert (again.last_seq, again.recovery.missing_ops) == (35, 0)
        assert again.sift([make_op(0, id_="0-3"), make_op(0, id_="2-3")]).known.keys() == {0, 1}


@pytest.mark.parametrize("is_scanned", [True, False])
def test_of_a_raw_segment_the_lines_around_a_lost_place_are_read(
    tmp_path: Path,
    is_scanned: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk, paths = Rotten(errno.EIO), Paths(tmp_path)
    writer = open_writer(disk, data=tmp_path)
    ops = commit(writer, make_ops(1_000))
    writer.seal()
    ops += commit(writer, make_ops(5, first=1_000))
    if not is_scanned:
        writer.close()
        writer = open_writer(disk, data=tmp_path)
    disk.path, disk.places = paths.raw(1), range(100_000, 100_001)
    monkeypatch.setattr(blocks, "ROTTEN_S", 0)
    found = reader_of(writer, disk, tmp_path).read(0, 10_000)
    missing = sorted({op.seq for op in ops} - {op.seq for op in found})
    assert [op for op in ops if op.seq not in missing] == found
    assert 0 < len(missing) < 30
    writer.close()


def test_a_lost_page_that_is_read_again_and_again_costs_no_more_than_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, paths = Rotten(errno.EIO), Paths(tmp_path)
    writer = open_writer(disk, data=tmp_path)
    commit(writer, make_ops(1_000))
    writer.seal()
    disk.path, disk.places = paths.raw(1), range(100_000, 100_001)
    monkeypatch.setattr(blocks, "ROTTEN_S", 0)
    reader = reader_of(writer, disk, tmp_path)
    first = reader.read(0, 10_000)
    for _ in range(LOST_PAGES_MAX):
        reader.read(0, 10_000)
    assert reader.read(0, 10_000) == first


def test_so_many_lost_pages_are_looked_for_one_by_one_and_no_more(tmp_path: Path) -> None:
    class Lost(PosixDisk):
        def read(self, path: Path, offset: int, length: int) -> bytes:
            if length > PAGE_BYTES or offset // PAGE_BYTES % 2:
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
            return super().read(path, offset, length)

    (tmp_path / "file").write_bytes((b"." * (PAGE_BYTES - 1) + b"\n") * 192)
    around = Around(Lost())
    for _ in range(2):
        found = [around.read(tmp_path / "file", at * BLOCK_BYTES, BLOCK_BYTES) for at in range(3)]
        assert [part.count(b"." * (PAGE_BYTES - 1)) for part in found] == [32, 32, 0]
        assert [len(part) for part in found] == [BLOCK_BYTES] * 3


def test_what_may_be_read_later_is_no_damage(tmp_path: Path) -> None:
    disk, paths = Rotten(errno.EMFILE), Paths(tmp_path)
    writer = open_writer(disk, data=tmp_path)
    commit(writer, make_ops(10))
    writer.seal()
    compact(disk, tmp_path, writer.catalog, SMALL)
    disk.path, disk.places = paths.compressed(1), range(1)
    with pytest.raises(DiskFailed):
        reader_of(writer, disk, tmp_path).read(0, 100)


LARGE = b"".join(b"%07d\n" % number for number in range(500_000))


@pytest.fixture
def sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What a removed file, still open, takes whenever the disk is left in peace."""
    seen: list[int] = []

    def look_on(_seconds: float) -> None:
        for fd in Path("/proc/self/fd").iterdir():
            with suppress(FileNotFoundError):  # the listing's own
                name = str(fd.readlink())
                if name.startswith(str(tmp_path)) and name.endswith(" (deleted)"):
                    seen.append(fd.stat().st_size)

    monkeypatch.setattr(files, "sleep", look_on)
    return seen


def test_a_large_file_is_given_back_in_pieces(tmp_path: Path, sizes: list[int]) -> None:
    path = tmp_path / "large"
    path.write_bytes(LARGE)
    disk = PosixDisk()
    disk.remove(path, later=True)
    assert not path.exists()
    assert not sizes
    disk.free(slowly=True)
    assert sizes == [3 * PIECE_BYTES, 2 * PIECE_BYTES, PIECE_BYTES]
    disk.free(slowly=True)
    assert len(sizes) == 3
    assert not [fd for fd in Path("/proc/self/fd").iterdir() if "/large" in os.path.realpath(fd)]


def test_so_is_a_segment_that_is_compressed(tmp_path: Path, sizes: list[int]) -> None:
    disk = PosixDisk()
    writer = open_writer(disk, data=tmp_path)
    commit(writer, make_ops(2_500, pad=1_000))
    writer.seal()
    raw = Paths(tmp_path).raw(1)
    size = raw.stat().st_size
    compact(disk, tmp_path, writer.catalog, JournalSettings())
    disk.free(slowly=True)
    assert sizes == list(reversed(range(PIECE_BYTES, size, PIECE_BYTES)))
    assert len(sizes) > 1
    assert not raw.exists()
    writer.close()


@pytest.mark.parametrize("how", ["linked", "read", "mapped", "read elsewhere"])
def test_a_removed_file_that_others_have_stays_whole(tmp_path: Path, sizes: list[int], how: str) -> None:
    path = tmp_path / "large"
    path.write_bytes(LARGE)
    with ExitStack() as stack:
        read: Callable[[], bytes]
        if how == "linked":
            backup = tmp_path / "backup"
            backup.hardlink_to(path)
            read = backup.read_bytes
        elif how == "read elsewhere":
            program = "import sys; f = open(sys.argv[1], 'rb'); print(flush=True); input(); print(f.read().decode())"
            other = subprocess.Popen(
                [sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            stack.enter_context(other)
            assert other.stdout
            assert other.stdout.readline() == b"\n"
            read = lambda: other.communicate(b"\n")[0][:-1]  # noqa: E731
        else:
            file = path.open("rb")
            if how == "mapped":
                mapped = stack.enter_context(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
                file.close()
                read = mapped.read
            else:
                stack.enter_context(file)
                read = file.read
        disk = PosixDisk()
        disk.remove(path, later=True)
        disk.free(slowly=True)
        assert not path.exists()
        assert read() == LARGE
    assert not sizes


def test_what_cannot_be_opened_is_removed_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named, pipe, target = tmp_path / "named", tmp_path / "pipe", tmp_path / "target"
    target.write_bytes(LARGE)
    named.symlink_to(target)
    os.mkfifo(pipe)
    disk = PosixDisk()
    for path in (named, pipe):
        disk.remove(path, later=True)
        disk.free(slowly=True)
    assert target.read_bytes() == LARGE
    full = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    monkeypatch.setattr(os, "open", Mock(side_effect=full))
    disk.remove(target, later=True)
    disk.free(slowly=True)
    assert not any(tmp_path.iterdir())


def test_without_time_it_is_given_back_at_once(tmp_path: Path, sizes: list[int]) -> None:
    disk, path = PosixDisk(), tmp_path / "large"
    path.write_bytes(LARGE)
    disk.remove(path, later=True)
    disk.free(slowly=False)
    assert not sizes
    assert not [fd for fd in Path("/proc/self/fd").iterdir() if os.path.realpath(fd).startswith(str(tmp_path))]


def test_each_of_several_is_given_back_once_and_nothing_else_is_touched(tmp_path: Path, sizes: list[int]) -> None:
    disk = PosixDisk()
    for path in (tmp_path / "first", tmp_path / "second"):
        path.write_bytes(LARGE)
        disk.remove(path, later=True)
    with pytest.raises(FileNotFoundError):
        disk.remove(tmp_path / "none", later=True)
    (tmp_path / "probe").write_bytes(b"")
    disk.remove(tmp_path / "probe")
    disk.free(slowly=True)
    each = [3 * PIECE_BYTES, 2 * PIECE_BYTES, PIECE_BYTES]
    assert [size for size in sizes if size < len(LARGE)] == [*each, *each]
    assert not [fd for fd in Path("/proc/self/fd").iterdir() if os.path.realpath(fd).startswith(str(tmp_path))]


def test_who_opens_a_removed_file_just_then_does_not_end_us(tmp_path: Path) -> None:
    """As what watches a folder does. The kernel tells us by a signal, which would be our end by default."""
    program = """
import fcntl, os, sys
from pathlib import Path
from observer_actors.journal import PosixDisk
ask = fcntl.fcntl
def opened(fd, command, argument=0):
    done = ask(fd, command, argument)
    if (command, argument) == (fcntl.F_SETLEASE, fcntl.F_WRLCK):
        try:
            os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK)
        except BlockingIOError:
            print("told")
    return done
fcntl.fcntl = opened
disk = PosixDisk()
disk.remove(Path(sys.argv[1]), later=True)
disk.free(slowly=True)
print("on")
"""
    (tmp_path / "large").write_bytes(LARGE)
    command = [sys.executable, "-c", program, str(tmp_path / "large")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (ended.returncode, ended.stdout) == (0, "told\non\n"), ended.stderr
