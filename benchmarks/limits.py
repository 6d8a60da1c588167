"""The bare limits: fdatasync alone, and msgspec alone."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import trio

from benchmarks.bench import Bench
from benchmarks.contest import Contest, Figure, Run
from benchmarks.payload import events
from benchmarks.rivals import fresh_folder
from observer_actors.event import Event

LIMITS: Final = Contest(
    "limits",
    "The bare limits",
    "fdatasync: one event appended to a file and synced, in a loop. msgspec: one event decoded into a Struct and"
    " encoded again, in a loop; nothing else. One thread each, without a warm-up. Bare HTTP stands in the tables of"
    " POST /event.",
    (Figure("per_second", "a second", ranged=True), Figure("us", "µs each", "{:,.2f}")),
    without_wrk=True,
)


def runs(bench: Bench) -> dict[str, Run]:
    """Give what is measured."""
    return {"fdatasync": partial(_fdatasync, bench), "msgspec": partial(_msgspec, bench)}


async def _fdatasync(bench: Bench) -> Mapping[str, float]:
    async with fresh_folder(bench, "fdatasync") as folder:
        return _figures(await trio.to_thread.run_sync(_append, folder / "file", bench.seconds))


async def _msgspec(bench: Bench) -> Mapping[str, float]:
    return _figures(await trio.to_thread.run_sync(_recode, bench.seconds))


def _figures(rate: float) -> Mapping[str, float]:
    return {"per_second": rate, "us": 1e6 / rate}


def _append(path: Path, seconds: float) -> float:
    data = [body + b"\n" for body in events()]
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        count, began = 0, time.perf_counter()
        while (took := time.perf_counter() - began) < seconds:
            os.write(descriptor, data[count % len(data)])
            os.fdatasync(descriptor)
            count += 1
        return count / took
    finally:
        os.close(descriptor)


def _recode(seconds: float) -> float:
    bodies = events()
    decode, encode = msgspec.json.Decoder(Event).decode, msgspec.json.Encoder().encode
    count, began = 0, time.perf_counter()
    while (took := time.perf_counter() - began) < seconds:
        for body in bodies:
            encode(decode(body))
        count += len(bodies)
    return count / took
