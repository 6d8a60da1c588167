"""Where the time of the daemon's event loop goes under each of the loads, by who takes it (see `profiled`)."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import trio

from benchmarks.bench import Bench
from benchmarks.contest import Contest, Figure, Run
from benchmarks.events import BATCH_CONNECTIONS, last_seq
from benchmarks.half_load import full_rate, paced
from benchmarks.load import BATCHES, SINGLES, Load, press
from benchmarks.profiled import WAITING, Sums
from benchmarks.rivals import Server, fresh_folder, running_ours
from tests.parity.program import wait_until

_WHOSE: Final[Mapping[str, str]] = {
    "reading": "Express._read",
    "answering": "Express._answer",
    "connections": "FrontDoor._serve",
    "persister": "persister",
    "ring": "ring_keeper",
    "stats": "StatsKeeper.",
    "patterns": "Analyzer.",
    "playbook": "Consolidator.",
}
"""Figure -> what the names of its tasks hold."""
ANSWER_SECONDS_MAX: Final = 5.0

PROFILE: Final = Contest(
    "profile",
    "Where the event loop's time goes",
    "Our daemon alone, with an instrument in its event loop: how long the steps of each task take, in percent of the"
    " time. By the clock, so what another program or thread has kept the processor or the interpreter's lock for is in"
    " it; and the instrument takes some itself. The lane reads, judges and submits single events, and answers them"
    " (then it reads who has sent the next one already); connections are everybody else's, batches too. Waiting: there"
    " is nothing to do, also while the load generator starts and ends. The rest is other tasks, and trio's own. Once.",
    (
        Figure("waiting", "waiting", "{:.0f} %"),
        Figure("reading", "the lane: reading, judging", "{:.0f} %"),
        Figure("answering", "the lane: answering", "{:.0f} %"),
        Figure("connections", "connections", "{:.0f} %"),
        Figure("persister", "persister", "{:.0f} %"),
        Figure("ring", "ring", "{:.0f} %"),
        Figure("stats", "stats", "{:.0f} %"),
        Figure("patterns", "patterns", "{:.0f} %"),
        Figure("playbook", "playbook", "{:.0f} %"),
        Figure("rest", "the rest", "{:.0f} %"),
        Figure("per_second", "events/s"),
        Figure("loop_us", "event loop, µs an event", "{:.1f}"),
    ),
    once=True,
)


def runs(bench: Bench) -> dict[str, Run]:
    """Give the loads."""
    return {
        "events, c=32": partial(_profiled, bench, partial(_pressed, bench, SINGLES, 32)),
        "events, c=256": partial(_profiled, bench, partial(_pressed, bench, SINGLES, 256)),
        "batches, c=16": partial(_profiled, bench, partial(_pressed, bench, BATCHES, BATCH_CONNECTIONS)),
        "events, half load": partial(_profiled, bench, partial(_half, bench)),
    }


async def _profiled(bench: Bench, load: Callable[[Server], Awaitable[Mapping[str, float]]]) -> Mapping[str, float]:
    async with fresh_folder(bench, "profile") as folder:
        file = folder / "sums"
        async with running_ours(bench, profile=file) as server:
            await load(server)  # the warm-up
            before, first = await _sums(server, file), await last_seq(server)
            await load(server)
            after, last = await _sums(server, file), await last_seq(server)
    return shares_between(before, after, last - first)


async def _pressed(bench: Bench, load: Load, connections: int, server: Server) -> Mapping[str, float]:
    return await press(bench, server, load, connections, warm=False)


async def _half(bench: Bench, server: Server) -> Mapping[str, float]:
    return await paced(bench, server, await full_rate(bench) / 2)


async def _sums(server: Server, file: Path) -> Sums:
    """Have the daemon write its sums, and read them."""
    there = trio.Path(file)
    await there.unlink(missing_ok=True)

    async def written() -> bytes | None:
        return await there.read_bytes() if await there.exists() else None

    os.kill(server.pid, signal.SIGUSR1)
    content = await wait_until(written, seconds_max=ANSWER_SECONDS_MAX, what="the sums of the event loop")
    return msgspec.json.decode(content, type=Sums)


def shares_between(before: Sums, after: Sums, events: int) -> Mapping[str, float]:
    """Give the shares of the time between two looks, in percent.

    :param events: that were committed meanwhile.
    """
    elapsed = after.elapsed - before.elapsed
    spent = {name: seconds - before.steps.get(name, 0.0) for name, seconds in after.steps.items()}
    waiting = spent.pop(WAITING, 0.0)
    shares = {
        figure: 100 * sum(seconds for name, seconds in spent.items() if whose in name) / elapsed
        for figure, whose in _WHOSE.items()
    }
    shares["waiting"] = 100 * waiting / elapsed
    return {
        **shares,
        "rest": 100 - sum(shares.values()),
        "per_second": events / elapsed,
        "loop_us": (elapsed - waiting) / max(1, events) * 1e6,
    }
