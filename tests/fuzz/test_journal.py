"""What lies on the disk: any change of any file leaves a journal that opens, serves what it still can, and says so."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

from hypothesis import example, given
from hypothesis import strategies as st

from observer_actors.errors import FormatUnknown
from observer_actors.journal import JournalReader, Query, compact, verify
from observer_actors.journal.format import UNREADABLE, Manifest, SegmentIndex, decode_index, decode_manifest
from observer_actors.journal.lines import decode_head, decode_heads, decode_ops, decode_record, split_lines
from observer_actors.journal.recovery import plan, scanned
from observer_actors.op import Op
from tests.fakes.disk import FakeDisk
from tests.fuzz.examples import Change, changed, changes, fuzzed
from tests.journal.support import DATA, PATHS, SMALL, commit, everything, make_op, make_ops, open_writer

DEEP: Final = [("insert", 0.0, 7)]
"""A line nested without end."""
TWICE: Final = [("repeat", 1.0, 15), ("repeat", 0.25, 277)]
"""Lines that come again."""
FILES: Final = 6
"""The active file, a raw segment, a compressed one, its index, another index, the manifest."""


@cache
def whole() -> tuple[dict[Path, bytes], dict[int, Op]]:
    """Give the files of a journal of 30 ops, 1 to 10 compacted, 11 to 20 raw, 21 to 30 active; and the ops."""
    disk = FakeDisk()
    writer = open_writer(disk)
    for part in range(6):
        ops = [make_op(number, id_=f"id-{number}") for number in range(part * 5, part * 5 + 5)]
        commit(writer, ops)
        if part in {1, 3}:
            writer.seal()
        if part == 1:
            compact(disk, DATA, writer.catalog, SMALL)
    served = {op.seq: op for op in everything(writer, disk)}
    return {Path(name): disk.contents(Path(name)) for name in disk.names()}, served


def planted(at: int, todo: list[Change]) -> tuple[FakeDisk, Path]:
    """Give a disk on which one file of the journal was changed."""
    files, _ = whole()
    path = sorted(files)[at % len(files)]
    disk = FakeDisk()
    disk.make_directories(PATHS.segments)
    for name, content in files.items():
        disk.plant(name, changed(content, todo) if name == path else content)
    return disk, path


@given(st.integers(0, FILES), changes)
@example(0, DEEP)
@example(1, DEEP)
@example(2, DEEP)
@example(3, DEEP)
@example(4, DEEP)
@example(0, TWICE)
@fuzzed(200)
def test_a_journal_of_which_a_file_was_changed_opens_and_serves_what_it_can(at: int, todo: list[Change]) -> None:
    disk, path = planted(at, todo)
    _, ops = whole()
    try:
        found = verify(DATA, disk=disk, in_use=False)
        writer = open_writer(disk)
    except FormatUnknown:
        assert path == PATHS.manifest
        return
    served = everything(writer, disk)
    seqs = [op.seq for op in served]
    assert seqs == sorted(set(seqs)), "a seq is served twice, or out of order"
    lost = ops.keys() - set(seqs)
    is_only_the_end = path == PATHS.active and lost == set(range(min(lost, default=0), max(ops) + 1))
    assert not lost or found.findings or is_only_the_end, "lost, and nothing says so"
    if path not in (PATHS.active, PATHS.raw(11)):
        assert all(op == ops.get(op.seq) for op in served), "what is checksummed was served altered"
    assert {op.seq for op in served if op.seq not in ops} == set() or path in (PATHS.active, PATHS.raw(11))
    (new,) = commit(writer, make_ops(1, first=99))
    assert new.seq > max(seqs, default=0), "a seq was given twice"
    assert everything(writer, disk)[-1] == new
    _opens_again_as_it_was(disk, [*served, new])


def _opens_again_as_it_was(disk: FakeDisk, ops: list[Op]) -> None:
    again = open_writer(disk)
    assert again.recovery.torn == ()
    assert everything(again, disk) == ops
    reader = JournalReader(disk, DATA, again.catalog)
    assert reader.query(Query(limit=1_000)).ops == ops[::-1]
    compact(disk, DATA, again.catalog, SMALL)
    assert everything(again, disk) == ops


@given(st.binary(max_size=300) | st.tuples(st.integers(0, FILES), changes))
@example((0, DEEP))
@example((5, DEEP))
@fuzzed(300)
def test_what_reads_lines_takes_any_bytes(given_: bytes | tuple[int, list[Change]]) -> None:
    chunk = given_ if isinstance(given_, bytes) else _content(*given_)
    lines = list(split_lines(chunk))
    assert b"".join(line for _, line in lines) == chunk
    decode_heads(chunk)
    ops, bad = decode_ops(chunk)
    assert len(ops) + bad <= len(lines)
    for _, line in lines:
        decode_head(line)
        decode_record(line)
    assert 0 <= plan(scanned([(0, chunk)], 1), len(chunk)).keep_bytes <= len(chunk)


@given(st.binary(max_size=300) | st.tuples(st.integers(0, FILES), changes))
@example((5, DEEP))
@fuzzed(300)
def test_what_reads_manifests_and_indexes_takes_any_bytes(given_: bytes | tuple[int, list[Change]]) -> None:
    data = given_ if isinstance(given_, bytes) else _content(*given_)
    for decode, kind in ((decode_manifest, Manifest), (decode_index, SegmentIndex)):
        try:
            assert isinstance(decode(data), kind)
        except (*UNREADABLE, FormatUnknown):
            continue


def _content(at: int, todo: list[Change]) -> bytes:
    disk, path = planted(at, todo)
    return disk.contents(path)
