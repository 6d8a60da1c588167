"""Compression in a process of its own, with real files and real processes."""

from __future__ import annotations

import errno
import gzip
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from observer_actors.journal import JournalWriter, PosixDisk, compact, compressing, verify
from observer_actors.journal.compressing import compress, compress_here
from observer_actors.journal.files import PosixFile
from observer_actors.journal.format import Paths
from tests.journal.support import SMALL, Clock, commit, make_ops

T = TypeVar("T")


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressing, "ELSEWHERE_BYTES_MIN", 0)
    monkeypatch.setattr(compressing, "STALL_S", 60.0)  # it is nice, and this machine may have much else to do


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[JournalWriter]:
    writer = JournalWriter.open(PosixDisk(), tmp_path, SMALL, now_us=Clock())
    commit(writer, make_ops(4_000, pad=200))
    writer.seal()
    yield writer
    writer.close()


@pytest.fixture
def raw(writer: JournalWriter) -> Path:
    return writer.catalog.snapshot().segments[0].path


def opened(path: Path) -> PosixFile:
    return PosixFile(path, create=True)


def test_another_process_writes_and_says_what_this_one_would(raw: Path, tmp_path: Path) -> None:
    disk, end = PosixDisk(), raw.stat().st_size
    here, elsewhere = opened(tmp_path / "here"), opened(tmp_path / "elsewhere")
    done = compress(disk, raw, end, elsewhere, 1)
    assert done.elsewhere
    assert msgspec.structs.replace(done, elsewhere=False) == compress_here(disk, raw, end, here, 1)
    assert (tmp_path / "elsewhere").read_bytes() == (tmp_path / "here").read_bytes()
    assert gzip.decompress((tmp_path / "here").read_bytes()) == raw.read_bytes()
    assert len(done.blocks) > 2


def test_a_small_segment_is_not_worth_a_process(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressing, "ELSEWHERE_BYTES_MIN", raw.stat().st_size + 1)
    assert not compress(PosixDisk(), raw, raw.stat().st_size, opened(tmp_path / "here"), 1).elsewhere
    assert gzip.decompress((tmp_path / "here").read_bytes()) == raw.read_bytes()


def test_only_what_counts_of_the_file_is_compressed(raw: Path, tmp_path: Path) -> None:
    lines = raw.read_bytes().splitlines(keepends=True)
    end = len(b"".join(lines[:5]))
    compress(PosixDisk(), raw, end, opened(tmp_path / "some"), 1)
    assert gzip.decompress((tmp_path / "some").read_bytes()) == b"".join(lines[:5])


def test_it_is_nice_from_its_beginning(tmp_path: Path) -> None:
    """The import of all that it needs is work, too."""
    package = tmp_path / "observer_actors" / "journal"
    package.mkdir(parents=True)
    (package / "compressing.py").write_text("import os\nmain = print\nprint(os.nice(0))\n")
    command = [sys.executable, "-P", "-c", compressing.PROGRAM, str(tmp_path), "then"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout == f"{min(19, os.nice(0) + 10)}\nthen\n"


def test_what_the_system_refuses_there_is_raised_here(raw: Path) -> None:
    full = PosixFile(Path("/dev/full"), create=False)
    with pytest.raises(OSError, match="No space left") as refused:
        compress(PosixDisk(), raw, raw.stat().st_size, full, 1)
    assert refused.value.errno == errno.ENOSPC


def test_a_segment_that_is_gone_is_said_to_be(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        compress(PosixDisk(), raw.with_name("gone"), 10, opened(tmp_path / "none"), 1)


@pytest.mark.parametrize("executable", ["", "/nowhere/python", "/bin/true", "/bin/false"])
def test_what_no_such_process_does_is_done_here(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, executable: str
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    assert not compress(PosixDisk(), raw, raw.stat().st_size, opened(tmp_path / "here"), 1).elsewhere
    assert gzip.decompress((tmp_path / "here").read_bytes()) == raw.read_bytes()


def test_without_a_descriptor_to_spare_it_is_done_here(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> tuple[int, int]:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "pipe", refuse)
    assert not compress(PosixDisk(), raw, raw.stat().st_size, opened(tmp_path / "here"), 1).elsewhere
    assert gzip.decompress((tmp_path / "here").read_bytes()) == raw.read_bytes()


def test_what_is_printed_as_the_process_starts_does_no_harm(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('hello', end='')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert compress(PosixDisk(), raw, raw.stat().st_size, opened(tmp_path / "elsewhere"), 1).elsewhere
    assert gzip.decompress((tmp_path / "elsewhere").read_bytes()) == raw.read_bytes()


BEFORE_IT_BEGINS = "import os, signal; os.kill(os.getpid(), signal.{});"
IN_THE_MIDDLE = "import os; os.write(int(sys.argv[4]), b'half'); os.kill(os.getpid(), 9);"


@pytest.mark.parametrize(
    "first", [BEFORE_IT_BEGINS.format("SIGKILL"), BEFORE_IT_BEGINS.format("SIGSTOP"), f"import sys; {IN_THE_MIDDLE}"]
)
def test_of_a_process_that_is_killed_or_hangs_nothing_is_left(
    writer: JournalWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    program = compressing.PROGRAM
    monkeypatch.setattr(compressing, "PROGRAM", first + program)
    monkeypatch.setattr(compressing, "STALL_S", 1.0)
    [done] = compact(PosixDisk(), tmp_path, writer.catalog, SMALL)
    assert (done.entry.ops, done.elsewhere) == (4_000, False)
    assert sorted(path.suffix for path in Paths(tmp_path).segments.iterdir()) == [".gz", ".json", ".json"]
    assert verify(tmp_path, in_use=False).findings == ()


GROWING = """
import os, sys, threading, time
begun = threading.Event()
def grow():
    while not begun.wait(0.1):
        os.write(int(sys.argv[4]), b"x")
growing = threading.Thread(target=grow)
growing.start()
time.sleep(2.5)
"""
BEGUN = """
begun.set()
growing.join()
os.ftruncate(int(sys.argv[4]), 0)
"""


def test_a_process_that_is_slow_does_not_hang(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a nice one is on a machine that is busy. Its file grows, however long its imports take."""
    monkeypatch.setattr(compressing, "PROGRAM", GROWING + compressing.PROGRAM.replace("\nmain(", BEGUN + "main("))
    monkeypatch.setattr(compressing, "STALL_S", 2.0)
    assert compress(PosixDisk(), raw, raw.stat().st_size, opened(tmp_path / "elsewhere"), 1).elsewhere
    assert gzip.decompress((tmp_path / "elsewhere").read_bytes()) == raw.read_bytes()


PARENT = r"""
import sys
from pathlib import Path
from observer_actors.journal import PosixDisk, compressing
from observer_actors.journal.files import PosixFile
compressing.ELSEWHERE_BYTES_MIN = 0
compressing.PROGRAM = (
    "import os, sys; sys.path[:] = sys.argv[1].split('\\n');"
    " from observer_actors.journal.compressing import _end_with; _end_with(0); os.kill(os.getpid(), 19)"
)
raw, target = map(Path, sys.argv[1:])
compressing.compress(PosixDisk(), raw, 1_000, PosixFile(target, create=True), 1)
"""


def test_it_dies_with_its_parent_also_while_it_is_stopped(raw: Path, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, raw, tmp_path / "x"]) as process:
        [child] = wait_for(lambda: stopped_children(process.pid))
        process.kill()
        process.wait()
    wait_for(lambda: not Path(f"/proc/{child}").exists() or state(child) in "ZX")


def stopped_children(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if state(int(child)) == "T"]


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def wait_for(condition: Callable[[], T]) -> T:
    for _ in range(2_000):
        if found := condition():
            return found
        time.sleep(0.005)
    raise AssertionError("it did not come")
