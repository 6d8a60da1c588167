"""One byte of one file is not what was written: in each kind of file, at a random place."""

from __future__ import annotations

import gzip
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import trio

from observer_actors.journal import VerifyReport, verify
from observer_actors.journal.format import Paths, decode_manifest, encode_manifest
from observer_actors.op import Op
from tests.daemon.load import stored_ops
from tests.faults.trial import LIMIT_S, Trial, until
from tests.harness import Daemon

SEGMENTS_MIN: Final = 3
LEARNED: Final = "learned.sqlite3"
COUNTERS: Final = "counters"


@dataclass(frozen=True)
class Kind:
    """A kind of file."""

    name: str
    choose: Callable[[Paths, random.Random], Path]
    sealed: bool = False
    """It is checksummed: a changed byte never gets out as an op."""
    is_journal: bool = False
    """It holds ops: those of the damaged place may be gone, and that is said."""
    head_bytes: int = 0
    """Only so many bytes at the beginning are tried; 0 for all. Of a random place few would be among them."""


KINDS: Final = (
    Kind("active file", lambda paths, _: paths.active, is_journal=True),
    Kind("segment, compressed", lambda paths, chance: _any(paths, ".jsonl.gz", chance), sealed=True, is_journal=True),
    Kind("segment, not yet compressed", lambda paths, chance: _any(paths, ".jsonl", chance), is_journal=True),
    Kind("block index", lambda paths, chance: _any(paths, ".index.json", chance), sealed=True),
    Kind("manifest", lambda paths, _: paths.manifest, sealed=True),
    Kind("manifest's format", lambda paths, _: paths.manifest, sealed=True, head_bytes=len('{\n "format": 1,')),
    Kind(COUNTERS, lambda paths, _: paths.observer / "stats.json", sealed=True),
    Kind("SQLite", lambda paths, _: paths.observer / LEARNED, sealed=True),
    Kind("SQLite's head", lambda paths, _: paths.observer / LEARNED, sealed=True, head_bytes=100),
    Kind("SQLite's log", lambda paths, _: paths.observer / f"{LEARNED}-wal", sealed=True),
    Kind("the librarian's place", lambda paths, _: paths.observer / "librarian.json", sealed=True),
    Kind("lock", lambda paths, _: paths.lock, sealed=True),
)


def _any(paths: Paths, suffix: str, chance: random.Random) -> Path:
    return chance.choice(sorted(path for path in paths.segments.iterdir() if path.name.endswith(suffix)))


async def corrupt_byte(trial: Trial) -> None:
    """Each time in a copy of the same directory, by which the daemon is then started."""
    whole = await _prepared(trial)
    ops = {op.seq: op for op in stored_ops(whole)}
    first = trial.chance.randrange(len(KINDS))
    for number in range(trial.repeats):
        kind = KINDS[(first + number) % len(KINDS)]
        trial.data = trial.folder / f"copy-{number}"
        shutil.copytree(whole, trial.data)
        path = kind.choose(Paths(trial.data), trial.chance)
        if not path.stat().st_size:  # the active file, directly after it was sealed
            kind = KINDS[(KINDS.index(kind) + 1) % len(KINDS)]
            path = kind.choose(Paths(trial.data), trial.chance)
        what = _change_a_byte(path, trial.chance, kind.head_bytes)
        report = verify(trial.data)
        async with trial.daemon() as daemon:
            trial.injected()
            try:
                await _hold(trial, kind, daemon, ops, report)
            except AssertionError as error:
                error.add_note(f"{what}\n{report.findings}")
                raise


async def _prepared(trial: Trial) -> Path:
    """Make a directory that has a file of each kind, as a daemon leaves it that was killed."""
    for is_last in (False, True):
        async with trial.daemon() as daemon:
            async with trial.callers(daemon):
                await trial.more(200)
            await until(lambda daemon=daemon: _is_compacted(trial.data, daemon))
            if is_last:
                await until(lambda: (trial.data / "_observer" / f"{LEARNED}-wal").stat().st_size > 0)
                daemon.process.kill()
                await daemon.process.wait()
            else:
                assert await daemon.stop() == 0
    _uncompact_the_newest(Paths(trial.data))
    assert verify(trial.data).findings == ()
    return trial.data


async def _is_compacted(data: Path, daemon: Daemon) -> bool:
    """Tell whether the daemon has done all that it will do by itself."""
    segments = Paths(data).segments
    names = [path.name for path in segments.iterdir()]
    return (
        len([name for name in names if name.endswith(".gz")]) >= SEGMENTS_MIN
        and not [name for name in names if name.endswith((".jsonl", ".tmp"))]
        and await daemon.metric("observer_consumer_behind_ops") == 0
    )


def _uncompact_the_newest(paths: Paths) -> None:
    """Take back the last compaction: a raw segment stands there only for a moment otherwise."""
    manifest = decode_manifest(paths.manifest.read_bytes())
    entry = manifest.segments[-1]
    compressed = paths.segments / entry.file
    paths.raw(entry.first_seq).write_bytes(gzip.decompress(compressed.read_bytes()))
    compressed.unlink()
    paths.index(entry.first_seq).unlink()
    rest = msgspec.structs.replace(manifest, segments=manifest.segments[:-1])
    paths.manifest.write_bytes(encode_manifest(rest))


def _change_a_byte(path: Path, chance: random.Random, head_bytes: int) -> str:
    data = bytearray(path.read_bytes())
    at = chance.randrange(head_bytes or len(data))
    before = data[at]
    data[at] ^= chance.randint(1, 255)
    path.write_bytes(data)
    return f"{path.name}: byte {at} of {len(data)} was {before:#04x} and is {data[at]:#04x}"


async def _hold(trial: Trial, kind: Kind, daemon: Daemon, ops: dict[int, Op], report: VerifyReport) -> None:
    """Compare what the daemon serves with what there was."""
    asked = {op["seq"]: op for op in await daemon.all_ops()}
    served = {seq: msgspec.convert(op, Op) for seq, op in asked.items()}
    lost = ops.keys() - served.keys()
    altered = [seq for seq, op in served.items() if op != ops.get(seq)]
    new = (await daemon.event(endpoint="new"))["seq"]
    is_told = bool(report.findings) or any(line.get("level") in ("warning", "error") for line in daemon.log)
    assert is_told or not lost, f"{len(lost)} ops are gone, and nothing says so"
    if kind.sealed:
        assert altered == [], "a changed op was served"
    if not kind.is_journal:
        assert lost == set()
    assert new == max(ops) + 1 or set(range(new, max(ops) + 1)) <= lost, "a seq was given twice"
    await until(lambda: _has_counted(daemon, new))
    counted = (await daemon.json("/stats"))["lifetime"]["total"]
    is_counted = len(ops) - len(lost) < counted <= len(ops) + 1
    assert is_counted or kind.name == COUNTERS, "counted otherwise"
    with trio.fail_after(LIMIT_S):
        assert await daemon.stop() == 0
    outcome = _outcome(lost, altered, is_told=is_told) if is_counted else "counted wrongly: nothing checksums it"
    trial.remarks[f"{kind.name}: {outcome}"] += 1


def _outcome(lost: set[int], altered: list[int], *, is_told: bool) -> str:
    if altered:
        return "an op was altered in silence, for nothing checksums it yet" if not is_told else "an op altered, told"
    if lost:
        return "ops of the damaged place lost, and told"
    return "told, and nothing lost" if is_told else "nothing lost"


async def _has_counted(daemon: Daemon, seq: int) -> bool:
    return bool((await daemon.json("/stats"))["lifetime"]["last_seq"] >= seq)
