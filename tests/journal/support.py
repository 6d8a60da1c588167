"""What the journal's tests share."""

from __future__ import annotations

from pathlib import Path

from msgspec import UNSET

from observer_actors.journal import JournalReader, JournalWriter
from observer_actors.journal.files import Disk
from observer_actors.journal.format import Paths
from observer_actors.op import Op, Seq
from observer_actors.settings import JournalSettings

DATA = Path("/data")
PATHS = Paths(DATA)
SMALL = JournalSettings(segment_bytes_max=2_000, dedup_window_ops=50)
START_US = 1_800_000_000_000_000


class Clock:
    """Microseconds that stand still unless moved."""

    def __init__(self, now_us: int = START_US) -> None:
        self.now_us = now_us

    def __call__(self) -> int:
        return self.now_us


def make_op(number: int = 0, *, id_: str | None = None, success: bool = True, pad: int = 0) -> Op:
    return Op(
        timestamp=f"2026-11-22T10:{number // 60 % 60:02d}:{number % 60:02d}.000Z",
        endpoint=f"tool:{number % 3}",
        input_summary=f"op {number}" + "x" * pad,
        success=success,
        duration_ms=number,
        output_summary="ok",
        source="bot" if number % 2 else "mcp",
        id=UNSET if id_ is None else id_,
    )


def make_ops(count: int, *, first: int = 0, pad: int = 0) -> list[Op]:
    return [make_op(number, pad=pad) for number in range(first, first + count)]


def open_writer(
    disk: Disk,
    settings: JournalSettings = SMALL,
    clock: Clock | None = None,
    unacknowledged_from: int | None = None,
    data: Path = DATA,
) -> JournalWriter:
    start = None if unacknowledged_from is None else Seq(unacknowledged_from)
    return JournalWriter.open(disk, data, settings, now_us=clock or Clock(), unacknowledged_from=start)


def commit(writer: JournalWriter, ops: list[Op]) -> list[Op]:
    writer.stamp(ops)
    writer.commit(ops)
    return ops


def seq_known(writer: JournalWriter, id_: str) -> Seq | None:
    """Give the seq under which an op that came with this id now would be acknowledged; None when it would be new."""
    return writer.sift([make_op(id_=id_)]).known.get(0)


def reader_of(writer: JournalWriter, disk: Disk, data: Path = DATA) -> JournalReader:
    return JournalReader(disk, data, writer.catalog)


def everything(writer: JournalWriter, disk: Disk) -> list[Op]:
    return reader_of(writer, disk).read(0, 10**9)
