"""A data directory with many ops, made by the journal's own writer and taken in once by the daemon."""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Final

import msgspec
import trio
from msgspec import Struct

from benchmarks.bench import Bench
from benchmarks.contest import Unmeasured
from benchmarks.events import behind_ops
from benchmarks.payload import VARIATIONS, event, events
from benchmarks.rivals import running_ours
from observer_actors import __version__
from observer_actors.event import EventDecoder
from observer_actors.journal import JournalWriter, PosixDisk, compact
from observer_actors.journal.format import FORMAT
from observer_actors.op import Op, iso_milliseconds
from observer_actors.playbook.fold import VERSION
from observer_actors.settings import JournalSettings
from tests.machine import free_bytes
from tests.parity.program import ProgramFailed

STEP_US: Final = 10_000
"""Between two ops: a hundred a second, so that ten million are 28 hours."""
COMMIT_OPS: Final = 5_000
BYTES_AN_OP: Final = 500
"""Of free disk that is asked for: the line, and its compressed form while both are there."""
SETTLE_SECONDS_MAX: Final = 1_500.0
LOOK_SECONDS: Final = 1.0
SAID_EVERY: Final = 15
"""Looks between two lines about how far we are."""
_MARK: Final = "made.json"
_COMPRESSED: Final = (".gz", ".index.json")


class _Made(Struct):
    """Says that a directory is whole, and what is in it."""

    version: str
    ops: int
    first_us: int


async def full_journal(bench: Bench) -> Path:
    """Give the data directory with ``bench.ops`` ops, made at the first call.

    :raises Unmeasured: there is no room for it, or it could not be made before.
    """
    if bench.full_journal is None:
        folder = bench.cache / f"ops-{bench.ops}"
        if _made(folder) is None:
            if bench.begun_journal:
                raise Unmeasured("the full journal could not be made")
            bench.begun_journal = True
            await _make(bench, folder)
        bench.full_journal = folder
    return bench.full_journal


def first_time(data: Path) -> datetime:
    """Give the time of the first op; the others follow in steps of `STEP_US`."""
    made = _made(data)
    assert made is not None
    return _moment(made.first_us)


def clone(data: Path, target: Path) -> None:
    """Copy a data directory: sealed segments, which nobody ever changes, by link, all else byte by byte."""
    may_link = data.stat().st_dev == target.parent.stat().st_dev

    def copy(source: str, destination: str) -> None:
        if may_link and source.endswith(_COMPRESSED):
            os.link(source, destination)
        else:
            shutil.copy2(source, destination)

    shutil.copytree(data, target, copy_function=copy)


def forget_pages(data: Path) -> None:
    """Ask the kernel to drop the pages of every file, as if nobody had read them since the machine was started."""
    for path in data.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)  # only what is on disk can be dropped
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


def _made(folder: Path) -> _Made | None:
    """Say what a directory holds; None when it is not whole, or another version made it."""
    try:
        made = msgspec.json.decode((folder / _MARK).read_bytes(), type=_Made)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    return made if made.version == _version() else None


def _version() -> str:
    """What the contents depend on: the events, the format, the playbook's rules, the program."""
    return f"{zlib.crc32(b''.join(events()))} {FORMAT} {VERSION} {__version__}"


async def _make(bench: Bench, folder: Path) -> None:
    wanted, free = bench.ops * BYTES_AN_OP, free_bytes(bench.cache)
    if wanted > free:
        raise Unmeasured(
            f"{bench.ops:,} ops want {wanted / 1e9:.1f} GB of disk, {free / 1e9:.1f} GB are free (--ops N)"
        )
    bench.say(f"making a journal of {bench.ops:,} ops")
    shutil.rmtree(folder, ignore_errors=True)
    first_us = int(datetime.now(UTC).timestamp() * 1e6) - bench.ops * STEP_US
    await _write(bench, folder, first_us)
    bench.say("having the daemon take it in once")
    await _settle(bench, folder)
    made = _Made(_version(), bench.ops, first_us)
    (folder / _MARK).write_bytes(msgspec.json.encode(made))


async def _write(bench: Bench, folder: Path, first_us: int) -> None:
    """Write the ops, and compress what is sealed, beside each other."""
    clock = _Clock(first_us)
    disk, settings = PosixDisk(), JournalSettings()
    writer = JournalWriter.open(disk, folder, settings, now_us=clock)
    is_written = False

    async def keep_compact() -> None:
        while True:
            last = is_written
            if not await trio.to_thread.run_sync(lambda: compact(disk, folder, writer.catalog, settings, most=1)):
                if last:
                    return
                await trio.sleep(LOOK_SECONDS / 10)

    def write(ops: list[Op]) -> None:
        clock.now_us = first_us + writer.last_seq * STEP_US
        writer.stamp(ops)
        writer.commit(ops)
        if writer.seal_due():
            writer.seal()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_compact)
        for ops in _commits(bench.ops, first_us):
            await trio.to_thread.run_sync(write, ops)
            if writer.last_seq % (bench.ops // 10 or 1) < COMMIT_OPS:
                bench.say(f"{writer.last_seq:,} ops written")
        is_written = True
    writer.close()


class _Clock:
    """Microseconds since 1970, moved by hand: the ops are as old as they say."""

    def __init__(self, now_us: int) -> None:
        self.now_us = now_us

    def __call__(self) -> int:
        return self.now_us


def _commits(ops: int, first_us: int) -> Iterator[list[Op]]:
    """Give the ops in lists of one commit each."""
    decoder = EventDecoder()
    kinds = [decoder.one(msgspec.json.encode(event(number)), now="").op for number in range(VARIATIONS)]
    for first in range(0, ops, COMMIT_OPS):
        numbers = range(first, min(ops, first + COMMIT_OPS))
        yield [_op(kinds[number % VARIATIONS], first_us + number * STEP_US) for number in numbers]


def _op(kind: Op, time_us: int) -> Op:
    return msgspec.structs.replace(kind, timestamp=iso_milliseconds(_moment(time_us)))


def _moment(time_us: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_us)


async def _settle(bench: Bench, folder: Path) -> None:
    """Run the daemon until all its consumers have taken in what is there, as they would have on the way.

    :raises ProgramFailed: they have not within `SETTLE_SECONDS_MAX`.
    """
    async with running_ours(bench, folder) as server:
        with trio.move_on_after(SETTLE_SECONDS_MAX):
            for look in count():
                behind = await behind_ops(server)
                if not behind:
                    break
                if look % SAID_EVERY == 0:
                    bench.say(f"{behind:,.0f} ops to go")
                await trio.sleep(LOOK_SECONDS)
            await trio.sleep(LOOK_SECONDS)
            return
    raise ProgramFailed(f"the daemon had not taken in {bench.ops:,} ops after {SETTLE_SECONDS_MAX:.0f} s")
