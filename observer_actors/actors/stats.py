"""The stats actor: counts everything ever committed, and writes the line of each cycle."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import trio
from structlog.typing import FilteringBoundLogger

from observer_actors.actors.commits import Feed
from observer_actors.actors.cycle import Cycle
from observer_actors.actors.ring_keeper import RingKeeper
from observer_actors.actors.saving import Snapshots, saved
from observer_actors.actors.surroundings import InThread
from observer_actors.journal import Disk
from observer_actors.journal.files import aside, replace_file
from observer_actors.problems import UNREADABLE
from observer_actors.stats import RateWindow, Stats, decode_snapshot, encode_snapshot
from observer_actors.supervision import Life

SNAPSHOT_S: Final = 30.0
"""Ops since the last snapshot are read from the journal again at the next start: at worst half a minute's."""
SAVE_BUDGET_S: Final = 0.5


class StatsKeeper:
    """The actor, and the counters as others may read them, also while it is being restarted."""

    def __init__(
        self,
        feed: Feed,
        ring: RingKeeper,
        cycle: Cycle,
        *,
        path: Path,
        disk: Disk,
        in_thread: InThread,
        log: FilteringBoundLogger,
    ) -> None:
        self.stats = Stats()
        self._rate = RateWindow()
        self._feed = feed
        self._ring = ring
        self._cycle = cycle
        self._path = path
        self._disk = disk
        self._in_thread = in_thread
        self._log = log
        self._snapshots = Snapshots("the counters", in_thread, log)
        self._saved_seq = 0

    async def run(self, life: Life) -> None:
        """Serve as an actor: go on from the snapshot, and save one now and then and at the end."""
        life.at("loading")
        self.stats = await self._in_thread(partial(self._load, self._feed.end))
        self._saved_seq = self.stats.last_seq
        await self._feed.open(self.stats.last_seq)
        life.ready()
        async with saved(self._snapshot, life, every_s=SNAPSHOT_S, budget_s=SAVE_BUDGET_S, log=self._log) as nursery:
            nursery.start_soon(self._follow, life)
            nursery.start_soon(self._report_cycles)

    def rate_per_second(self) -> float:
        """Give the mean rate over the last minute; what was read from the journal to catch up is not in it."""
        return self._rate.per_second(trio.current_time())

    async def _follow(self, life: Life) -> None:
        while True:
            life.at("waiting")
            async with self._feed.take() as ops:
                life.at("counting")
                self.stats.add(ops)
                self._rate.add(trio.current_time(), sum(op.seq > self._feed.live_from for op in ops))

    async def _snapshot(self) -> None:
        if self.stats.last_seq == self._saved_seq:
            return
        seq, content = self.stats.last_seq, encode_snapshot(self.stats)
        if await self._snapshots.written(partial(replace_file, self._disk, self._path, content)):
            self._saved_seq = seq

    def _load(self, last_seq: int) -> Stats:
        """Read the counters. Those that are no use are kept: they may tell of ops that are lost, or were removed.

        :param last_seq: the journal's end.
        """
        foreign = None
        try:
            stats = decode_snapshot(self._disk.read(self._path, 0, self._disk.size(self._path)))
        except FileNotFoundError:
            return Stats()
        except (OSError, *UNREADABLE) as error:
            self._log.warning("snapshot_unreadable", path=str(self._path), error=str(error), hint="counting anew")
        else:
            if stats.last_seq <= last_seq:
                return stats
            self._log.warning("snapshot_foreign", seq=stats.last_seq, last_seq=last_seq, hint="counting anew")
            foreign = self._path.with_name(f"{self._path.name}.foreign-{stats.last_seq}")
        with suppress(OSError):  # then they are counted anew all the same
            self._disk.rename(self._path, foreign or aside(self._disk, self._path, "unreadable"))
        return Stats()

    async def _report_cycles(self) -> None:
        """Write the seed's line, once a cycle."""
        async for number in self._cycle.each():
            counts = self._ring.ring.statistics()
            self._log.info(
                "cycle",
                cycle=number,
                total_ops=counts.total,
                successes=counts.successes,
                failures=counts.failures,
                scenario_ops=self._ring.ring.scenario_ops(),
            )
