"""The hot functions by themselves: nanoseconds an op. They guard against a slip; nothing is judged by them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

import msgspec
import trio

from benchmarks.bench import Bench
from benchmarks.contest import Contest, Figure, Run
from benchmarks.payload import BATCH_EVENTS, events
from benchmarks.rivals import fresh_folder
from observer_actors.event import Event, EventDecoder
from observer_actors.journal import JournalWriter, PosixDisk
from observer_actors.journal.files import AppendFile
from observer_actors.op import Op, decode_op, encode_op, encode_ops
from observer_actors.patterns.masking import template_of
from observer_actors.ring import Ring
from observer_actors.settings import JournalSettings
from observer_actors.stats import LatencySketch, Stats

__all__ = ["MICRO", "runs"]

MICRO: Final = Contest(
    "micro",
    "The hot functions by themselves",
    f"Each is called over and over on {BATCH_EVENTS} events of the usual kind; best, median and worst pass, in"
    " nanoseconds an op. Once.",
    (
        Figure("median_ns", "ns an op, median"),
        Figure("best_ns", "best"),
        Figure("worst_ns", "worst"),
    ),
    once=True,
)
PASSES_MIN: Final = 5
SECONDS_A_FUNCTION: Final = 0.5
NOW: Final = "2026-11-22T10:00:00.000Z"
ERRORS: Final = (
    "HTTP 503 from https://api.example.com/flights?id=4711 after 30.2s (request 8f14e45f-ceea-467f-9575-1c0a3f2b6d11)",
    "Error: reservation 'HATHAT' of user_0042 not found at 2026-04-22T10:11:12Z",
    '{"error": "connect ECONNREFUSED 10.0.3.17:5432", "code": 5}',
    "TypeError: cannot read properties of undefined (reading 'seat') at /srv/app/src/book.ts:118:23",
)

_Pass = Callable[[], object]
"""Handles `BATCH_EVENTS` ops."""


def runs(bench: Bench) -> dict[str, Run]:
    """Give the functions."""
    bodies = (events() * (BATCH_EVENTS // len(events()) + 1))[:BATCH_EVENTS]
    plain = {name: partial(_measure, bench, one_pass) for name, one_pass in _plain(bodies).items()}
    return {
        **plain,
        f"journal: stamp and commit of {BATCH_EVENTS}, no sync": partial(_commit, bench, bodies, syncs=False),
        f"journal: stamp and commit of {BATCH_EVENTS}, fdatasync": partial(_commit, bench, bodies, syncs=True),
    }


def _plain(bodies: list[bytes]) -> dict[str, _Pass]:
    """Give what needs no file."""
    decoder, ops = EventDecoder(), _ops(bodies)
    decode = msgspec.json.Decoder(Event).decode
    lines = [encode_op(op) for op in ops]
    batch = b"\n".join(bodies)
    ring, stats, sketch = Ring(2_000), Stats(), LatencySketch()
    durations = [float(op.duration_ms) for op in ops]
    errors = (ERRORS * BATCH_EVENTS)[:BATCH_EVENTS]
    return {
        "decode (msgspec alone)": lambda: [decode(body) for body in bodies],
        "decode and normalise: EventDecoder.one": lambda: [decoder.one(body, now=NOW) for body in bodies],
        f"the same in a batch of {BATCH_EVENTS}: EventDecoder.many": lambda: decoder.many(
            batch, now=NOW, lines_max=BATCH_EVENTS
        ),
        "encode_ops": lambda: encode_ops(ops),
        "decode_op": lambda: [decode_op(line) for line in lines],
        "Ring.push": lambda: ring.push(ops),
        "Stats.add": lambda: stats.add(ops),
        "LatencySketch.add": partial(_each, sketch.add, durations),
        "template_of": lambda: [template_of(error) for error in errors],
    }


def _each(call: Callable[[float], object], values: list[float]) -> None:
    for value in values:
        call(value)


async def _measure(bench: Bench, one_pass: _Pass) -> Mapping[str, float]:
    seconds = min(SECONDS_A_FUNCTION, bench.seconds)
    return _figures(await trio.to_thread.run_sync(_time, one_pass, seconds))


async def _commit(bench: Bench, bodies: list[bytes], *, syncs: bool) -> Mapping[str, float]:
    async with fresh_folder(bench, "micro") as folder:
        return _figures(await trio.to_thread.run_sync(_time_commits, bodies, folder, syncs, bench.seconds))


def _time_commits(bodies: list[bytes], folder: Path, syncs: bool, seconds: float) -> list[float]:  # noqa: FBT001 - to_thread
    disk = PosixDisk() if syncs else _UnsyncedDisk()
    writer = JournalWriter.open(disk, folder, JournalSettings(), now_us=lambda: time.time_ns() // 1_000)
    ops = _ops(bodies)

    def one_pass() -> None:
        writer.stamp(ops)
        writer.commit(ops)

    try:
        return _time(one_pass, min(SECONDS_A_FUNCTION, seconds))
    finally:
        writer.close()


class _UnsyncedDisk(PosixDisk):
    """A disk whose fdatasync returns at once: what remains is our own work, and the write into the page cache."""

    def open_append(self, path: Path, *, create: bool) -> AppendFile:
        file = super().open_append(path, create=create)
        file.datasync = lambda: None  # type: ignore[method-assign]
        return file


def _ops(bodies: list[bytes]) -> list[Op]:
    decoder = EventDecoder()
    return [decoder.one(body, now=NOW).op for body in bodies]


def _time(one_pass: _Pass, seconds: float) -> list[float]:
    """Give the seconds of each pass, after one that does not count."""
    one_pass()
    passes: list[float] = []
    until = time.perf_counter() + seconds
    while len(passes) < PASSES_MIN or time.perf_counter() < until:
        began = time.perf_counter()
        one_pass()
        passes.append(time.perf_counter() - began)
    return passes


def _figures(passes: list[float]) -> Mapping[str, float]:
    each = [seconds / BATCH_EVENTS * 1e9 for seconds in passes]
    return {"median_ns": median(each), "best_ns": min(each), "worst_ns": max(each)}
