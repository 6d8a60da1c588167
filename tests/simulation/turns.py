"""Blocking calls on the virtual clock: in threads of their own, of which one runs at a time.

The rules:

* A call runs until it comes to the disk (`pause`). There it hands the turn back, waits for a time that the seed
  decides, and goes on. So calls of several threads are interleaved at each access to the disk, and everything that
  the event loop does lies between; but nothing ever runs at the same time as something else, and the operating
  system's scheduler decides nothing.
* Changing threads costs more than most calls. So only some calls are interleaved, as the seed decides; the others
  take their time before and after, and run in one piece.
* A lock that such calls share (`TurnLock`) makes who waits for it hand the turn back as well. The event loop cannot
  wait: it lets the holder go on until the lock is free, as it would stand still in the real process.
* When the process dies (`end`), every call under way goes on until it comes to the disk, which refuses: no thread is
  left behind.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from queue import SimpleQueue
from typing import Final, TypeVar

import outcome
import trio

T = TypeVar("T")
_running: Final = threading.local()


class Job:
    """One call, and the thread that runs it; the event loop's own when there is none."""

    def __init__(self, call: Callable[[], object], worker: Worker | None) -> None:
        self.worker = worker
        self.waits_for_lock = False
        """Handed the turn back because somebody else holds a lock."""
        self.result: outcome.Maybe[object] | None = None
        self._call = call
        self._begun = False

    def advance(self) -> bool:
        """Let it run until it hands the turn back; say whether it is done. Called by the event loop's thread only."""
        if self.result is not None:
            return True
        if self.worker is None:
            self.result = outcome.capture(self._call)
        else:
            self.worker.turn(None if self._begun else self)
            self._begun = True
        return self.result is not None

    def run(self) -> None:
        """Run it; in its thread."""
        _running.job = self
        self.result = outcome.capture(self._call)
        _running.job = None

    def pause(self, *, for_lock: bool = False) -> None:
        """Hand the turn back, and wait for the next; in its thread."""
        assert self.worker is not None
        self.waits_for_lock = for_lock
        self.worker.hand_back()


class Worker:
    """A thread that runs jobs, one after the other, when it has its turn."""

    def __init__(self) -> None:
        self._turns: SimpleQueue[Job | None] = SimpleQueue()
        self._backs: SimpleQueue[None] = SimpleQueue()
        threading.Thread(target=self._serve, daemon=True).start()

    def turn(self, job: Job | None) -> None:
        self._turns.put(job)
        self._backs.get()

    def hand_back(self) -> None:
        self._backs.put(None)
        self._turns.get()

    def _serve(self) -> None:
        while (job := self._turns.get()) is not None:
            job.run()
            self._backs.put(None)

    def end(self) -> None:
        """Let the thread end; it has no job."""
        self._turns.put(None)


class Turns:
    """The threads of one process.

    :param nursery: outlives the process: a call goes on although nobody waits for it any more.
    :param pause_s: gives how long the next access to the disk takes, in virtual seconds.
    :param interleaves: decides whether the next call is one that others may come between.
    :param after_turn: called by the event loop's thread after each turn of a call.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        pause_s: Callable[[], float],
        interleaves: Callable[[], bool],
        after_turn: Callable[[], None],
    ) -> None:
        self._nursery = nursery
        self._pause_s = pause_s
        self._interleaves = interleaves
        self._after_turn = after_turn
        self._idle: list[Worker] = []
        self._jobs: list[Job] = []
        self._turn_taken = trio.lowlevel.ParkingLot()
        """Who waits for a lock looks again."""

    async def in_thread(
        self,
        call: Callable[[], T],
        /,
        *,
        abandon_on_cancel: bool = False,
        limiter: trio.CapacityLimiter | None = None,
    ) -> T:
        """Run a call as `trio.to_thread.run_sync` does."""
        await trio.lowlevel.checkpoint_if_cancelled()
        job = Job(call, self._worker() if self._interleaves() else None)
        if limiter is not None:
            await limiter.acquire_on_behalf_of(job)
        done = trio.Event()
        self._jobs.append(job)
        self._nursery.start_soon(self._drive, job, done, limiter)
        with trio.CancelScope(shield=not abandon_on_cancel):
            await done.wait()
        assert job.result is not None
        return job.result.unwrap()  # type: ignore[return-value]  # it is this call's

    @asynccontextmanager
    async def disk_thread(self) -> AsyncIterator[OneAtATime]:
        """Give what runs calls as `DiskThread` does."""
        yield OneAtATime(self)

    def end(self) -> None:
        """Run what is under way to its end: the process is dead, and its disk refuses."""
        waiting = list(self._jobs)
        while waiting:
            waiting = [job for job in waiting if not job.advance()]

    def close(self) -> None:
        """Let the threads end; nothing is under way any more."""
        for worker in self._idle:
            worker.end()
        self._idle = []

    async def _until_next_turn(self, job: Job) -> None:
        if job.waits_for_lock:
            await self._turn_taken.park()
        else:
            await trio.sleep(self._pause_s())

    def _advance(self, job: Job) -> bool:
        is_done = job.advance()
        if not job.waits_for_lock:
            self._turn_taken.unpark_all()
        self._after_turn()
        return is_done

    def _worker(self) -> Worker:
        return self._idle.pop() if self._idle else Worker()

    async def _drive(self, job: Job, done: trio.Event, limiter: trio.CapacityLimiter | None) -> None:
        """Give a job its turns, whatever happens to who waits for it."""
        with trio.CancelScope(shield=True):
            await trio.sleep(self._pause_s())
            while not self._advance(job):
                await self._until_next_turn(job)
            await trio.sleep(self._pause_s())  # it is done, and nobody knows yet
        self._jobs.remove(job)
        if job.worker is not None:
            self._idle.append(job.worker)
        if limiter is not None:
            limiter.release_on_behalf_of(job)
        done.set()


class OneAtATime:
    """Runs calls one at a time, each to its end, as `DiskThread` does."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._busy = False
        self._waiting = trio.lowlevel.ParkingLot()

    async def __call__(self, call: Callable[[], T]) -> T:
        await trio.lowlevel.checkpoint_if_cancelled()
        while self._busy:
            await self._waiting.park()
        self._busy = True
        try:
            return await self._turns.in_thread(call)
        finally:
            self._busy = False
            self._waiting.unpark()


class TurnLock:
    """A lock for calls that take turns; in the place of `threading.Lock`."""

    def __init__(self) -> None:
        self._holder: Job | None = None
        self._is_held = False

    def __enter__(self) -> bool:
        job = _job()
        while self._is_held:
            if job is not None:
                job.pause(for_lock=True)
            else:
                assert self._holder is not None, "the event loop waits for itself"
                self._holder.advance()
        self._holder, self._is_held = job, True
        return True

    def __exit__(self, *_error: object) -> None:
        self._is_held, self._holder = False, None


def pause() -> None:
    """Hand the turn back, if a call that takes turns is running."""
    job = _job()
    if job is not None:
        job.pause()


def _job() -> Job | None:
    return getattr(_running, "job", None)


@contextmanager
def locks_that_take_turns(*modules: object) -> Iterator[None]:
    """Have these modules make such locks where they say ``Lock()``."""
    held = [vars(module)["Lock"] for module in modules]
    for module in modules:
        setattr(module, "Lock", TurnLock)  # noqa: B010 - a module's own name, for a while
    try:
        yield
    finally:
        for module, lock in zip(modules, held, strict=True):
            setattr(module, "Lock", lock)  # noqa: B010 - see above
