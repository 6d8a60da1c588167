"""Resident memory at full load, and when the daemon is offered far more than it can take."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from statistics import mean
from typing import Final

import trio

from benchmarks.bench import Bench
from benchmarks.contest import Contest, Figure, Run, Unmeasured
from benchmarks.events import check_stored, last_seq
from benchmarks.load import BATCHES, SINGLES, Load, press
from benchmarks.machine import free_bytes
from benchmarks.processes import sample_memory
from benchmarks.rivals import running_ours

__all__ = ["CONTESTANTS", "MEMORY", "runs"]

CONTESTANTS: Final[Mapping[str, tuple[Load, int]]] = {
    "events, c=256": (SINGLES, 256),
    "batches, c=16": (BATCHES, 16),
    "too many batches, c=2,000": (BATCHES, 2_000),
}
"""Sixteen connections saturate the daemon with batches: 2,000 offer more than 100 times that at once."""
DISK_BYTES: Final = 25_000_000_000
"""Half a million events a second, for a minute, before compression."""
WARM_SECONDS: Final = 10.0

MEMORY: Final = Contest(
    "memory",
    "Resident memory at full load",
    "Sampled every second from /proc, after ten seconds of the same load. Flat: the mean of the last third of the"
    " samples against that of the first third. Once.",
    (
        Figure("max_mb", "most, MB", "{:.0f}"),
        Figure("first_third_mb", "first third, MB", "{:.0f}"),
        Figure("last_third_mb", "last third, MB", "{:.0f}"),
        Figure("growth", "last / first", "{:.2f}"),
        Figure("seconds", "s"),
        Figure("per_second", "events/s"),
        Figure("not_2xx", "not 2xx"),
        Figure("broken", "broken"),
    ),
    once=True,
)


def runs(bench: Bench) -> dict[str, Run]:
    """Give the loads."""
    return {name: partial(_measure, bench, *load) for name, load in CONTESTANTS.items()}


async def _measure(bench: Bench, load: Load, connections: int) -> Mapping[str, float]:
    if load is BATCHES and free_bytes(bench.folder) < DISK_BYTES:
        raise Unmeasured(f"a minute of batches may write {DISK_BYTES / 1e9:.0f} GB, and there is less room")
    samples: list[int] = []
    async with running_ours(bench) as server, trio.open_nursery() as nursery:
        await press(bench, server, load, connections, seconds=min(WARM_SECONDS, bench.memory_seconds), warm=False)
        before = await last_seq(server)
        nursery.start_soon(sample_memory, server.pid, samples)
        figures = await press(bench, server, load, connections, seconds=bench.memory_seconds, warm=False)
        nursery.cancel_scope.cancel()
        await check_stored(server, figures["acknowledged"], since=before)
    third = max(1, len(samples) // 3)
    first, last = mean(samples[:third]), mean(samples[-third:])
    return {
        **figures,
        "max_mb": max(samples) / 1e6,
        "first_third_mb": first / 1e6,
        "last_third_mb": last / 1e6,
        "growth": last / first,
        "seconds": bench.memory_seconds,
    }
