"""A run: a plan carried out, with processes that die and are started again.

First there is trouble, as planned; then all is well again, and what was promised must come about within bounds: see
`oracle`. Callers do not go over sockets, for those have a clock of their own: they go through the intake, as the front
door and Hypercorn do.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from random import Random
from typing import Final

import trio

from observer_actors.actors.surroundings import Surroundings
from observer_actors.journal import JournalReader, look
from observer_actors.op import Op
from observer_actors.store import LEARNED_PATH
from tests.daemon.inside import Crash, leaves
from tests.daemon.load import Ledger
from tests.simulation.callers import POISON, Caller, Habits
from tests.simulation.disk import SimulatedDisk
from tests.simulation.network import Line, Manners, Network
from tests.simulation.oracle import Bounds, all_serve, check_after, check_settled, has_caught_up
from tests.simulation.plan import (
    ClockJumps,
    Die,
    DiskDefect,
    DiskFails,
    DiskFault,
    DiskFull,
    DiskHangs,
    DiskHeals,
    DiskShort,
    DiskSlow,
    Fault,
    PeerTurns,
    Plan,
)
from tests.simulation.process import Kept, Process, TimeOfDay
from tests.simulation.reader import Reader
from tests.simulation.run import Run
from tests.simulation.turns import Turns

RESTART_S: Final = 1.0
"""As systemd would wait, roughly."""
CALM_S: Final = 30.0
"""Virtual seconds in which a daemon that is let alone must have recovered: twice the longest ever seen."""
INTERLEAVED: Final = 0.2
"""The part of all blocking calls that others come between."""
AFTERWARDS_S: Final = 3.0
"""Virtual seconds in which callers go on as before when all is well again."""
LOOK_S: Final = 0.1


class World:
    """See the module.

    :param listener: nobody connects to it.
    """

    def __init__(self, plan: Plan, run: Run, disk: SimulatedDisk, listener: socket.socket) -> None:
        self.plan = plan
        self.run = run
        self._listener = listener
        self.ledger = Ledger()
        self.network = Network(self._random("network"), run.note)
        self.clock = TimeOfDay(run.clock)
        self.disk = disk
        self.disk.on_death = self._die_at_the_disk
        self.bounds = Bounds()
        self.process: Process | None = None
        self._is_over = False
        self._turn = trio.Event()
        """Another process serves."""
        self._crashes = self._random("crashes")
        self._pauses = self._random("pauses")
        self._chance = self._random("chance")
        self._deaths = self._random("deaths")
        self._mean_s = plan.pause_s
        self._hangs_until = 0.0
        self._hung_until = 0.0
        """The end of the longest hang that there was."""
        self._is_troubled = True
        self._way_to_die = ""
        self._store = Kept(plan.settings.data_dir / LEARNED_PATH)

    def _random(self, name: str) -> Random:
        """Give chances of their own to each part: one more call of one does not change the others."""
        return Random(f"{self.plan.seed} {name}")

    # ------------------------------------------------------------------------------------- what callers use

    async def reached(self) -> Process:
        """Wait until a process takes events."""
        while True:
            process = self.process
            if process is not None and process.takes_events:
                return process
            await self._turn.wait()

    def told(self, what: str, *, seconds: float) -> None:
        """Note what a caller was told."""
        self.run.note(f"told {what} after {seconds:.9f}")
        self.run.count("answers")

    # ----------------------------------------------------------------------------------------- the course

    async def take_its_course(self) -> None:
        """Trouble, calm, and what must be true then."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_serving)
            nursery.start_soon(Reader(self._random("reader"), self).run)
            callers = [self._caller(number, habits) for number, habits in enumerate(self.plan.callers)]
            async with trio.open_nursery() as calling:
                for caller in callers:
                    calling.start_soon(caller.run)
                await self._trouble()
                self._calm_down()
                await trio.sleep(AFTERWARDS_S)
                calling.cancel_scope.cancel()
            process = await self._settle(callers)
            ops = self._stored()
            check_settled(process.daemon, ops, self.run.left_out, self.network)
            self._is_over = True
            await trio.sleep_until(self._hung_until)  # a call that hangs goes on hanging when the disk is well again
            self.run.forced.clear()  # a disk that is slow for long has its price
            process.stop()
            with trio.fail_after(process.daemon.stop_seconds_max):
                await process.over.wait()
            nursery.cancel_scope.cancel()
        assert not self.bounds.broken, self.bounds.broken
        assert not self.run.never_seen, f"in the log: {self.run.never_seen}"
        assert not self.run.forced, f"had to be forced to stop: {self.run.forced}"
        assert check_after(self.plan.settings.data_dir, self.disk, self.ledger) == ops
        self.run.counts["ops"] = len(ops)

    def _caller(self, number: int, habits: Habits) -> Caller:
        chance = self._random(f"caller {number}")
        wait_s = self.plan.settings.admission.wait_seconds_max
        return Caller(f"c{number}", self.ledger, chance, habits=habits, reach=self, wait_s=wait_s)

    async def _trouble(self) -> None:
        for fault in self.plan.faults:
            await trio.sleep_until(fault.at_s)
            self.run.note(f"fault {fault}")
            self.run.count(type(fault).__name__)
            self._apply(fault)
        await trio.sleep_until(self.plan.trouble_s)

    def _calm_down(self) -> None:
        self.run.note("calm")
        self._is_troubled = False
        self._way_to_die = ""
        self.disk.death_after = self.disk.defect_after = None
        self._heal_disk()
        self.network.manners = dict.fromkeys(self.network.manners, Manners.GOOD)

    async def _settle(self, callers: Sequence[Caller]) -> Process:
        """Wait until all is as it would be without the trouble; give the process that serves then."""
        calm_at = trio.current_time() - AFTERWARDS_S
        with trio.move_on_after(CALM_S) as limit:
            async with trio.open_nursery() as settling:
                for caller in callers:
                    settling.start_soon(caller.settle)
            process = await self.reached()
            while not (all_serve(process.daemon) and has_caught_up(process.daemon)):
                await trio.sleep(LOOK_S)
                process = await self.reached()
            self.run.seconds = trio.current_time() - calm_at
            cycle = self.plan.settings.cycle
            await trio.sleep(2 * cycle.seconds * cycle.consolidate_every)
            while not has_caught_up(process.daemon):  # noqa: ASYNC110 - see above
                await trio.sleep(LOOK_S)
            return process
        assert limit.cancelled_caught
        raise AssertionError(f"not recovered within {CALM_S:g} s: {self._state()}")

    def _state(self) -> str:
        if self.process is None:
            return "no process"
        daemon = self.process.daemon
        actors = {name: f"{actor.state} at {actor.step}" for name, actor in leaves(daemon).items()}
        cursors = {name: feed.cursor for name, feed in daemon.feeds.items()}
        return f"{actors}, {daemon.commits.last_seq} committed, {cursors}, {daemon.learned.statistics()}"

    def _stored(self) -> list[Op]:
        data_dir = self.plan.settings.data_dir
        return JournalReader(self.disk, data_dir, look(self.disk, data_dir)).read(0, 10**9)

    # --------------------------------------------------------------------------------------------- faults

    def _apply(self, fault: Fault) -> None:
        match fault:
            case DiskFault():
                self._trouble_disk(fault)
            case ClockJumps(seconds=seconds):
                self.clock.ahead_s += seconds
            case PeerTurns(peer=peer, manners=manners):
                self.network.manners[peer] = manners
            case Die(how=how, after_calls=after):
                self._end_after(how, after)

    def _trouble_disk(self, fault: DiskFault) -> None:
        disk = self.disk
        match fault:
            case DiskFails(kind=kind, after=after, times=times, code=code):
                disk.fail(kind, after=after, times=times, code=code)
            case DiskFull(room_bytes=room):
                disk.quota_bytes = disk.used_bytes() + room
            case DiskShort():
                disk.short_writes = True
            case DiskSlow(mean_s=mean_s):
                self._mean_s = mean_s
            case DiskHangs(until_s=until_s):
                self._hangs_until = until_s
                self._hung_until = max(self._hung_until, until_s)
            case DiskDefect(after=after):
                disk.defect_after = after
            case DiskHeals():
                self._heal_disk()

    def _heal_disk(self) -> None:
        self.disk.heal()
        self.disk.quota_bytes = None
        self.disk.short_writes = False
        self._mean_s = self.plan.pause_s
        self._hangs_until = 0.0

    def _end_after(self, how: str, calls: int) -> None:
        process = self.process
        if process is None or process.is_dead or process.over.is_set():
            return
        if how == "stop":
            if process.takes_events:
                self.run.count("stop")
                process.stop()
            return
        self._way_to_die = how
        self.disk.death_after = calls
        if not calls:
            self._die_at_the_disk()
            self._die_if_due()

    def _die_at_the_disk(self) -> None:
        """Keep what the next process is to find: in whatever thread the call of the disk runs."""
        process = self.process
        if process is None or process.is_dead or not self._way_to_die:
            return
        self.run.count(self._way_to_die)
        seed = self._deaths.randrange(2**32)
        self.disk = self.disk.killed(seed) if self._way_to_die == "kill" else self.disk.unplugged(seed)
        # SQLite's calls take no turns: none is under way, and all that it has committed is synced.
        self._store.keep()
        process.is_dead = True
        self._way_to_die = ""

    def _die_if_due(self) -> None:
        if self.process is not None and self.process.is_dead:
            self.process.die()

    def _pause_s(self) -> float:
        now = trio.current_time()
        if self.process is not None and self.process.is_dead:
            return 0.0
        if now < self._hangs_until:
            return self._hangs_until - now
        if not self._mean_s or self._pauses.random() < 0.5:
            return 0.0
        return self._pauses.expovariate(1 / self._mean_s)

    def _interleaves(self) -> bool:
        return self._pauses.random() < INTERLEAVED

    def _step(self, process: Process, name: str, step: str) -> None:
        """Look at the queues, and let an actor crash where the seed says so."""
        self.run.note(f"{name} at {step}")
        self.bounds.look(process.daemon)
        if not self._is_troubled:
            return
        if self._crashes.random() < self.plan.crash_chance.get(name, 0.0):
            self.run.count("crashes")
            raise Crash(f"{name} at {step}")
        if (name, step) == ("persister", "taken") and _has_poison(process):
            self.run.count("poisoned")
            raise Crash("poison")

    # ------------------------------------------------------------------------------------------ processes

    async def _keep_serving(self) -> None:
        """Start a process, and another when it has ended, as systemd does, until the run is over."""
        while not self._is_over:
            async with trio.open_nursery() as threads:
                turns = Turns(threads, self._pause_s, self._interleaves, self._die_if_due)
                await self._live(turns)
            turns.close()
            await trio.sleep(RESTART_S)

    async def _live(self, turns: Turns) -> None:
        self.run.count("starts")
        self.run.note("a process starts")
        around = Surroundings(
            in_thread=turns.in_thread,
            disk_thread=turns.disk_thread,
            disk_process=None,
            time_ns=self.clock,
            monotonic=self.run.clock.current_time,
            chance=self._chance.random,
            transport=Line(self.network, lambda: process.is_dead),
        )
        process = self.process = Process(self.plan.settings, self._listener, self.disk, around, on_step=self._step)
        process.daemon.commits.tap(lambda ops, _size: self.run.note(f"commits {ops[0].seq} to {ops[-1].seq}"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(process.run)
            nursery.start_soon(self._announce, process)
            await process.over.wait()
            nursery.cancel_scope.cancel()
        if not process.is_dead:
            self.disk = self.disk.killed(0)
        turns.end()
        if process.is_dead:
            self._store.put_back()
        self._note_end(process)

    async def _announce(self, process: Process) -> None:
        await process.serving.wait()
        self._turn.set()
        self._turn = trio.Event()

    def _note_end(self, process: Process) -> None:
        self.run.note(f"a process is over: dead {process.is_dead}, gave up {process.gave_up}")
        if process.gave_up:
            self.run.count("gave up")


def _has_poison(process: Process) -> bool:
    return any(op.endpoint == POISON for submission in process.daemon.mailbox.in_hand for op in submission.ops)
