"""Admission: what may wait for the disk, for how long, and what a caller hears when it may not.

Backpressure begins at the persister. Ops that wait for it are bounded in number and in bytes (`Room`); a caller waits
for room and for its commit, up to one limit, then is refused. A refused submission that the persister has not yet
taken in hand is withdrawn: 503 then means "not stored".

Half of that limit at most is for room, and there is room for as much as the disk has lately taken in a quarter of it:
else, with a slow disk, each would be let in, and written, and refused shortly before. The last quarter is for a disk
that has become slower since, or takes what it takes by fits and starts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from math import exp, inf
from typing import Final, TypeVar

import msgspec
import trio

from observer_actors.errors import ObserverError, Overloaded
from observer_actors.op import Op
from observer_actors.settings import AdmissionSettings
from observer_actors.supervision import Mailbox

T = TypeVar("T")

LOOK_S: Final = 0.1
"""How often `Admission.keep_time` looks."""
TURN_S: Final = 5.0
"""How long who asks for ops, or a long answer, waits at most for its turn. Who has it is answered, however long that
takes."""
FOR_ROOM: Final = 1 / 2
"""Share of its time that a caller waits for room."""
FOR_DISK: Final = 1 / 4
"""Share of that time in which the disk should have taken all that is let in."""
LATELY_S: Final = 2.0
"""What the disk took so long ago counts for a third (1/e) of what it takes now."""
ROOM_BYTES_MIN: Final = 256 * 1024
"""Room that there is with the slowest disk: some callers must be let in to see that it has become faster."""


class Receipts(msgspec.Struct, frozen=True, gc=False):
    """The ops of a submission are on disk: one seq for each, in order."""

    seqs: Sequence[int]
    duplicates: frozenset[int] = frozenset()
    """Positions of those that were there before, under the same id."""


class Submission:
    """Ops that one caller waits for, as the persister's mailbox holds them; or single ops of several callers.

    :param weight: bytes, as they came in.
    :param on_answered: called once: the persister is done with it, or its caller has waited long enough.
    :param is_shared: each op has a caller of its own.
    """

    __slots__ = (
        "_is_shared",
        "_on_answered",
        "committed",
        "error",
        "finished",
        "holder",
        "ops",
        "parts",
        "receipts",
        "stamped",
        "taken",
        "weight",
        "withdrawn",
    )

    def __init__(
        self,
        ops: Sequence[Op],
        weight: int,
        on_answered: Callable[[], None] | None = None,
        *,
        is_shared: bool = False,
    ) -> None:
        self.ops = ops
        self.weight = weight
        self.parts: Sequence[Submission] = ()
        """One for each op, once it was split: then they say how it went."""
        self._is_shared = is_shared
        self._on_answered = on_answered or _nobody
        self.finished = False
        """The persister is done with it, and has said how it went."""
        self.receipts = Receipts(())
        self.error: ObserverError | None = None
        self.holder: Admission | Submission | None = None
        """Whose room it takes, or whose part it is; None before, and once the persister is done with it."""
        self.taken = False
        self.withdrawn = False
        self.stamped: Sequence[Op] = ()
        """The ops that got a seq: those that are no duplicates."""
        self.committed = False
        """The stamped ops are on disk."""

    def split(self) -> Sequence[Submission]:
        """Give the parts in its place: ops of different callers shall not share the fate of one that makes us crash."""
        if not self._is_shared or self.committed or len(self.ops) == 1:
            return (self,)
        self.parts = [Submission((op,), self.weight // len(self.ops)) for op in self.ops]
        for part in self.parts:
            part.holder, part.withdrawn = self, self.withdrawn
        return self.parts

    def leave(self, _part: Submission) -> None:
        """Take note that the persister is done with a part, and answer with the last one."""
        if all(one.holder is None for one in self.parts):
            self._finish()

    def withdraw(self) -> None:
        """Have the persister pass over it, unless it is in hand already."""
        self.withdrawn = True
        for part in self.parts:
            part.withdrawn = True

    def unstamp(self) -> None:
        """Take back the seqs of ops that are not on disk: by the next time others may have them."""
        if not self.committed:
            self.stamped = ()

    def accept(self) -> None:
        """Tell the caller that its ops are on disk, as the receipts say."""
        self._finish()

    def refuse(self, error: ObserverError) -> None:
        """Tell the caller that its ops are not stored, and why."""
        self.error = error
        self._finish()

    def drop(self) -> None:
        """Give back the room that it takes, once: nobody has it in hand any more, or will have."""
        holder, self.holder = self.holder, None
        if holder is not None:
            holder.leave(self)

    def tell(self) -> None:
        """Tell the caller, once, that there is an answer.

        And drop the callback: it and this object refer to each other, and only the search for garbage would free them.
        """
        told, self._on_answered = self._on_answered, _nobody
        told()

    def _finish(self) -> None:
        self.finished = True
        self.drop()
        self.tell()


def _nobody() -> None:
    """Take the place of a callback that was called already, or that nobody has given."""


class Room:
    """Room for so many things of so many bytes in all; those who wait for it are served in order."""

    def __init__(self, count_max: int, bytes_max: int) -> None:
        self.count_max = count_max
        self.bytes_max = bytes_max
        self.count = 0
        self.bytes = 0
        self._waiting: deque[tuple[int, int, trio.Event]] = deque()

    def fits(self, count: int, size: int) -> bool:
        """Say whether there is room now. Anything fits into an empty room, or it never would."""
        return self.count == 0 or (self.count + count <= self.count_max and self.bytes + size <= self.bytes_max)

    @property
    def waiting(self) -> int:
        """How many wait for room."""
        return len(self._waiting)

    def resize(self, bytes_max: int) -> None:
        """Have room for more bytes, or for fewer once those have left that are too many."""
        self.bytes_max = bytes_max
        self._admit()

    async def enter(self, count: int, size: int, *, first: bool = False) -> None:
        """Wait for room and take it; give it a deadline from outside.

        :param first: before all who wait already: for who is inside and needs more to come to an end.
        """
        if (first or not self._waiting) and self.fits(count, size):
            self.take(count, size)
            return
        turn = (count, size, trio.Event())
        if first:
            self._waiting.appendleft(turn)
        else:
            self._waiting.append(turn)
        try:
            await turn[2].wait()
        except trio.Cancelled:
            if turn[2].is_set():
                self.leave(count, size)
            else:
                self._waiting.remove(turn)
                self._admit()
            raise

    def leave(self, count: int, size: int) -> None:
        """Give room back."""
        self.count -= count
        self.bytes -= size
        self._admit()

    def take(self, count: int, size: int) -> None:
        """Take room that is there, out of turn."""
        self.count += count
        self.bytes += size

    def _admit(self) -> None:
        while self._waiting and self.fits(*self._waiting[0][:2]):
            count, size, admitted = self._waiting.popleft()
            self.take(count, size)
            admitted.set()


async def in_time(work: Awaitable[T], seconds: float, what: str, *, limit: str = "admission.wait_seconds_max") -> T:
    """Wait for something so long, and then refuse.

    :param what: could not be had, in words that "within 5 s" can follow.
    :raises Overloaded: it took longer.
    """
    with trio.move_on_after(seconds):
        return await work
    raise Overloaded(f"{what} within {seconds:g} s", limit=limit)


class Turns:
    """A limiter that nobody waits for longer than `TURN_S`: trio's threads take it as one, and ``async with`` does.

    :param most: have a turn at the same time.
    :param what: the others do not get, in words that "within 5 s" can follow.
    """

    def __init__(self, most: int, what: str) -> None:
        self._limiter = trio.CapacityLimiter(most)
        self._what = what

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        """Wait for a turn.

        :raises Overloaded: it does not come in time; of ``async with``, likewise.
        """
        await in_time(self._limiter.acquire_on_behalf_of(borrower), TURN_S, self._what, limit="")

    def release_on_behalf_of(self, borrower: object) -> None:
        """Give it back."""
        self._limiter.release_on_behalf_of(borrower)

    async def __aenter__(self) -> None:
        await self.acquire_on_behalf_of(trio.lowlevel.current_task())

    async def __aexit__(self, *_error: object) -> None:
        self.release_on_behalf_of(trio.lowlevel.current_task())


class Pace:
    """What the disk takes: a mean over the times in which something waited for it, newer ones count for more."""

    def __init__(self) -> None:
        self.bytes_per_second = inf
        self._since = -inf
        self._bytes = 0
        self._has_rested = True

    def took(self, size: int, *, rests: bool) -> None:
        """Take note of what it has taken, and whether nothing is left for it."""
        self._bytes += size
        self._has_rested |= rests

    def look(self, now: float, *, rests: bool) -> None:
        """Take in what has happened since the last look, unless there was a moment with nothing to do.

        :param now: seconds, of any clock.
        :param rests: nothing waits now.
        """
        seconds = now - self._since
        if not self._has_rested:
            pace, old = self._bytes / seconds, exp(-seconds / LATELY_S)
            before = pace if self.bytes_per_second == inf else self.bytes_per_second
            self.bytes_per_second = old * before + (1 - old) * pace
        self._since, self._bytes, self._has_rested = now, 0, rests


@dataclass(frozen=True, slots=True)
class AdmissionStatistics:
    """What waits, and what has been refused since the start."""

    waiting_ops: int
    waiting_ops_max: int
    waiting_bytes: int
    waiting_bytes_max: int
    callers_waiting: int
    waits: int
    refusals: int


class Admission:
    """The way from a request to the persister's mailbox, and back with the receipts.

    While `keep_time` runs, a caller that finds room waits without a timer of its own: at tens of thousands of
    callers a second their timers would cost more than what they wait for.
    """

    def __init__(self, mailbox: Mailbox[Submission], settings: AdmissionSettings) -> None:
        self._mailbox = mailbox
        self._settings = settings
        self._room = Room(settings.waiting_ops_max, settings.waiting_bytes_max)
        self._pace = Pace()
        self._waits = 0
        self._refusals = 0
        self._overdue = 0
        self._keeps_time = False
        self._timed: deque[tuple[float, Submission]] = deque()
        """Who waits without a timer, and until when; in order, as the limit is the same for all."""

    async def submit(self, ops: Sequence[Op], size: int) -> Receipts:
        """Hand ops to the persister and wait until they are on disk.

        :param size: bytes they take while they wait.
        :raises Overloaded: no room, or no answer, within the limit; nothing is stored unless the message says so.
        :raises DiskFailed: the disk refused.
        """
        answered = trio.Event()
        submission = self.offer(ops, size, answered.set)
        if submission is not None:
            await answered.wait()
        else:
            until = trio.current_time() + self._settings.wait_seconds_max
            await self._enter(len(ops), size)
            submission = Submission(ops, size, answered.set)
            with trio.move_on_at(until) as limit:
                await self._pass(submission, answered)
            if limit.cancelled_caught:
                self._give_up(submission)
        return self.settle(submission)

    def offer(
        self, ops: Sequence[Op], size: int, on_answered: Callable[[], None], *, is_shared: bool = False
    ) -> Submission | None:
        """Hand ops to the persister if there is room for them now; None if not, or if nobody keeps time.

        :param size: bytes they take while they wait.
        :param on_answered: called once, later: then `settle` says how it went, with each of its parts if it has any.
        :param is_shared: each op has a caller of its own.
        """
        room = self._room
        if not self._keeps_time or room.waiting or not room.fits(len(ops), size):
            return None
        submission = Submission(ops, size, on_answered, is_shared=is_shared)
        try:
            self._mailbox.put_nowait(submission)
        except trio.WouldBlock:
            return None
        room.take(len(ops), size)
        submission.holder = self
        self._timed.append((trio.current_time() + self._settings.wait_seconds_max, submission))
        return submission

    def settle(self, submission: Submission, callers: int = 1) -> Receipts:
        """Say how it went with an answered submission; once for each.

        :param callers: how many wait for it.
        :raises Overloaded: no answer within the limit; nothing is stored unless the message says so.
        :raises DiskFailed: the disk refused.
        """
        if submission.finished and submission.error is None:
            return submission.receipts
        self._refusals += callers
        if submission.error is not None:
            # One error tells all callers of a round; without this its traceback would grow with each of them.
            raise submission.error.with_traceback(None)
        waited = f"waited {self._settings.wait_seconds_max:g} s"
        if submission.taken:
            raise Overloaded(f"{waited} for the disk; the write may still succeed", limit="admission.wait_seconds_max")
        raise Overloaded(f"{waited}; nothing was stored", limit="admission.wait_seconds_max")

    def leave(self, submission: Submission) -> None:
        """Give the room of a submission back; the persister is done with it."""
        self._overdue -= submission.withdrawn
        self._room.leave(len(submission.ops), submission.weight)
        is_stored = submission.finished and submission.error is None
        self._pace.took(submission.weight if is_stored else 0, rests=self._room.count == 0)

    async def keep_time(self) -> None:
        """Wake callers that have waited long enough; for ever, once."""
        self._keeps_time = True
        try:
            while True:
                await trio.sleep(LOOK_S)
                now = trio.current_time()
                self._wake(now)
                self._pace.look(now, rests=self._room.count == 0)
                self._fit_room()
        finally:
            self._keeps_time = False
            self._wake(inf)

    @property
    def full(self) -> bool:
        """Whether callers have to wait."""
        return self._room.waiting > 0

    @property
    def overdue(self) -> bool:
        """Whether something that its caller has given up on still waits for the disk."""
        return self._overdue > 0

    def statistics(self) -> AdmissionStatistics:
        """Give what waits now, and the counts so far."""
        room = self._room
        return AdmissionStatistics(
            waiting_ops=room.count,
            waiting_ops_max=room.count_max,
            waiting_bytes=room.bytes,
            waiting_bytes_max=room.bytes_max,
            callers_waiting=room.waiting,
            waits=self._waits,
            refusals=self._refusals,
        )

    def _wake(self, now: float) -> None:
        timed = self._timed
        while timed and (timed[0][1].finished or timed[0][0] <= now):
            _, submission = timed.popleft()
            if not submission.finished:
                self._give_up(submission)
                submission.tell()

    def _fit_room(self) -> None:
        """Have room for what the disk takes in time."""
        settings = self._settings
        fitting = max(ROOM_BYTES_MIN, self._pace.bytes_per_second * settings.wait_seconds_max * FOR_DISK)
        self._room.resize(int(min(settings.waiting_bytes_max, fitting)))

    def _give_up(self, submission: Submission) -> None:
        """Have the persister pass over it, unless it has it in hand already."""
        submission.withdraw()
        self._overdue += submission.holder is not None

    async def _enter(self, count: int, size: int) -> None:
        """Wait for room, for a share of the time that a caller waits.

        :raises Overloaded: there was none.
        """
        if self._room.waiting or not self._room.fits(count, size):
            self._waits += 1
        seconds = self._settings.wait_seconds_max * FOR_ROOM
        with trio.move_on_after(seconds):
            await self._room.enter(count, size)
            return
        self._refusals += 1
        raise Overloaded(f"waited {seconds:g} s for room; nothing was stored", limit="admission.wait_seconds_max")

    async def _pass(self, submission: Submission, answered: trio.Event) -> None:
        """Wait for the mailbox, and for the answer."""
        # From here on the room is given back when the persister is done with the submission, also after we have
        # given up: what lies in the mailbox takes memory whether or not somebody still waits for it. The persister
        # may be done before `put` returns, so this comes first.
        submission.holder = self
        try:
            await self._mailbox.put(submission)
        except trio.Cancelled:
            submission.drop()
            raise
        await answered.wait()
