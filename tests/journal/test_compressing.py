"""Compression in a process of its own, with real files and real processes."""

from __future__ import annotations

import errno
import gzip
import os
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import pytest

from observer_actors.journal import JournalWriter, PosixDisk, compact, compressing, verify
from observer_actors.journal.compressing import CompressorEnded, compress, compress_here
from observer_actors.journal.files import PosixFile
from observer_actors.journal.format import Paths
from tests.journal.support import SMALL, Clock, commit, make_ops


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressing, "ELSEWHERE_BYTES_MIN", 0)


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
    before = children_s()
    done = compress(disk, raw, end, elsewhere)
    assert children_s() > before, "a process has done it"
    assert done == compress_here(disk, raw, end, here)
    assert (tmp_path / "elsewhere").read_bytes() == (tmp_path / "here").read_bytes()
    assert gzip.decompress((tmp_path / "here").read_bytes()) == raw.read_bytes()
    assert len(done.blocks) > 2


def children_s() -> float:
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime


def test_a_small_segment_is_not_worth_a_process(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressing, "ELSEWHERE_BYTES_MIN", raw.stat().st_size + 1)
    before = children_s()
    compress(PosixDisk(), raw, raw.stat().st_size, opened(tmp_path / "here"))
    assert gzip.decompress((tmp_path / "here").read_bytes()) == raw.read_bytes()
    assert children_s() == before


def test_only_what_counts_of_the_file_is_compressed(raw: Path, tmp_path: Path) -> None:
    lines = raw.read_bytes().splitlines(keepends=True)
    end = len(b"".join(lines[:5]))
    compress(PosixDisk(), raw, end, opened(tmp_path / "some"))
    assert gzip.decompress((tmp_path / "some").read_bytes()) == b"".join(lines[:5])


def test_what_the_system_refuses_there_is_raised_here(raw: Path) -> None:
    full = PosixFile(Path("/dev/full"), create=False)
    with pytest.raises(OSError, match="No space left") as refused:
        compress(PosixDisk(), raw, raw.stat().st_size, full)
    assert refused.value.errno == errno.ENOSPC


def test_a_segment_that_is_gone_is_said_to_be(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        compress(PosixDisk(), raw.with_name("gone"), 10, opened(tmp_path / "none"))


@pytest.mark.parametrize("executable", ["", "/nowhere/python"])
def test_without_such_a_process_it_is_done_here(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, executable: str
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    compress(PosixDisk(), raw, raw.stat().st_size, opened(tmp_path / "here"))
    assert gzip.decompress((tmp_path / "here").read_bytes()) == raw.read_bytes()


def test_killed_in_the_middle_it_loses_nothing_and_the_next_pass_does_it(
    writer: JournalWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = "import os, signal; os.kill(os.getpid(), signal.SIGSTOP);"
    program = compressing._PROGRAM  # noqa: SLF001 - the moment is what counts
    monkeypatch.setattr(compressing, "_PROGRAM", stopped + program)
    ended = Event()

    def kill_our_child() -> None:
        me = os.getpid()
        while not ended.wait(0.01):
            for child in Path(f"/proc/{me}/task/{me}/children").read_text().split() + _children_of_threads():
                if "compressing" in Path(f"/proc/{child}/cmdline").read_text():
                    os.kill(int(child), signal.SIGKILL)
                    return

    killer = Thread(target=kill_our_child)
    killer.start()
    try:
        with pytest.raises(CompressorEnded, match="-9"):
            compact(PosixDisk(), tmp_path, writer.catalog, SMALL)
    finally:
        ended.set()
        killer.join()
    monkeypatch.undo()
    assert [segment.entry for segment in writer.catalog.snapshot().segments] == [None]
    [done] = compact(PosixDisk(), tmp_path, writer.catalog, SMALL)
    assert done.entry.ops == 4_000
    assert sorted(path.suffix for path in Paths(tmp_path).segments.iterdir()) == [".gz", ".json", ".json"]
    assert verify(tmp_path, in_use=False).findings == ()


def _children_of_threads() -> list[str]:
    return [
        child
        for children in Path(f"/proc/{os.getpid()}/task").glob("*/children")
        for child in children.read_text().split()
    ]
