"""What has been committed, as streams that survive lag, crashes and restarts.

The journal is the source of truth, and each consumer has a cursor: the last seq that it has taken in. New commits are
offered to every consumer through a bounded channel. One that is full is passed over, never waited for: when its
consumer comes to the gap, it reads the journal from its cursor until it has caught up.

As with a mailbox, what a consumer has in hand when it crashes is handed to it again, one op at a time, and an op that
was alone in hand at N crashes is set aside. Here the op stays in the journal; only this consumer leaves it out.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Final

import trio

from observer_actors.journal import Stretch
from observer_actors.op import Op, Seq
from observer_actors.supervision.mailbox import Holding, only_cancelled

ReadJournal = Callable[[int, int], Awaitable[Sequence[Op]]]
"""(after_seq, most) -> the ops that follow, in order; empty when there is none."""
ReadBlock = Callable[[int], Awaitable[Stretch]]
"""(after_seq) -> the next ops, in order, of one block of the journal, and how far it is known."""
SetAside = Callable[[str, Op, int], Awaitable[None]]
"""(consumer, op, crashes)"""

COMMITS_WAITING_MAX: Final = 512
"""Commits that wait for one consumer. Beyond it the journal is the queue, so this may be small."""
OPS_WAITING_MAX: Final = 20_000
"""How far a commit may be ahead of the consumer that it waits for, unless it is the very next one. A consumer that is
further behind reads it from the journal: to keep it in memory for so long would be waste."""
BYTES_WAITING_MAX: Final = 2 * 1024 * 1024
"""What the ops that wait were in the requests that brought them, unless it is one commit alone. In memory their texts
take up to four times as much: where one character is an emoji, all of them are as wide."""
GATHERED_OPS: Final = 1_000
BLOCKS_KEPT: Final = 4
"""Blocks of the journal that were read last: consumers that fell behind together want the same ones."""
OPS_AT_ONCE_MAX: Final = 300
"""Handed out at once: about half a millisecond's work for a consumer, in which nobody else has a turn."""
SET_ASIDE_MAX: Final = 10_000
LULL_S: Final = 0.005
"""How long a consumer waits at most for a moment in which nobody waits for the event loop."""
_SEQ: Final = attrgetter("seq")


@dataclass(frozen=True, slots=True)
class FeedStatistics:
    """``depth`` commits wait, ``bound`` at most; ``behind`` ops are not yet taken in."""

    depth: int
    bound: int
    behind: int
    passed_over: int
    quarantined: int


class Commits:
    """The hub: the persister publishes, consumers follow.

    :param read: reads the journal; shared by all that fell behind.
    :param crashes_max: of a consumer with an op alone in hand; then it leaves that op out.
    :param set_aside: takes what is left out.
    """

    def __init__(self, read: ReadBlock, *, crashes_max: int, set_aside: SetAside) -> None:
        self.last_seq = 0
        self.resumed_us = 0
        """When the newest op that the journal held as it was opened was recorded, in µs since 1970; 0 for none."""
        self._read = read
        self.crashes_max = crashes_max
        self.set_aside = set_aside
        self._feeds: list[Feed] = []
        self._taps: list[Callable[[Sequence[Op], int], None]] = []
        self.lulls = 0
        self._lull = trio.lowlevel.ParkingLot()
        self._blocks: deque[Sequence[Op]] = deque(maxlen=BLOCKS_KEPT)
        self._reading = trio.Lock()
        self._opened = trio.Event()

    def feed(self, name: str, *, linger_s: float = 0.0) -> Feed:
        """Make the feed of a consumer; once for each, it outlives the consumer's incarnations.

        :param linger_s: see `Feed`.
        """
        feed = Feed(name, self, linger_s)
        self._feeds.append(feed)
        return feed

    def tap(self, offer: Callable[[Sequence[Op], int], None]) -> None:
        """Have ``offer`` called with each commit and its size, as of `publish`; it must neither block nor raise."""
        self._taps.append(offer)

    def resume(self, last_seq: int, recorded_us: int = 0) -> None:
        """Say what the journal holds after it was opened.

        :param recorded_us: when the last op was recorded; 0 for none.
        """
        self.last_seq = max(self.last_seq, last_seq)
        if not self.is_open:
            self.resumed_us = recorded_us
            for feed in self._feeds:
                feed.live_from = self.last_seq  # of consumers that began before
            self._opened.set()
        self.publish(())

    @property
    def is_open(self) -> bool:
        """The journal has been opened in this process, and so `last_seq` is known."""
        return self._opened.is_set()

    async def opened(self) -> None:
        """Wait until the journal has been opened; a disk that refuses may put that off."""
        await self._opened.wait()

    async def following(self, cursor: int) -> Stretch:
        """Give the next ops after a cursor from the journal, as far as one block of it has them; none at the end."""
        if (kept := self._kept(cursor)) is not None:
            return kept  # also while a place that the disk does not give holds up the next read
        async with self._reading:
            if (kept := self._kept(cursor)) is not None:
                return kept
            found = await self._read(cursor)
            if found.ops:
                self._blocks.append(found.ops)
            return found

    def _kept(self, cursor: int) -> Stretch | None:
        for block in self._blocks:
            if block[0].seq <= cursor + 1 <= block[-1].seq:
                return Stretch(block[bisect_right(block, cursor, key=_SEQ) :], Seq(block[-1].seq))
        return None

    def lull(self) -> None:
        """Note that a commit is with the disk: until it answers, callers wait for that and not for the event loop."""
        self.lulls += 1
        self._lull.unpark_all()

    def hurry(self) -> None:
        """End every `wait_lull` at once: somebody waits in `Feed.reached` for a consumer to catch up."""
        self._lull.unpark_all()

    async def wait_lull(self) -> None:
        """Wait for the next lull, or `LULL_S`: what a consumer does then holds up no caller, as far as possible."""
        with trio.move_on_after(LULL_S):
            await self._lull.park()

    def publish(self, ops: Sequence[Op], size: int = 0) -> None:
        """Offer a commit to all consumers. Giving the same one twice does no harm.

        :param size: bytes of the requests that brought the ops.
        """
        if ops:
            self.last_seq = max(self.last_seq, ops[-1].seq)
            for offer in self._taps:
                offer(ops, size)
        for feed in self._feeds:
            feed.offer(ops, size)


class Feed:
    """One consumer's way through the journal.

    :param linger_s: once the consumer has caught up, it waits so long after the next commit and takes what has come
        together, unless somebody waits in `reached`. Under load there are a thousand commits a second, and to wake for
        each would cost more than the work.
    """

    def __init__(self, name: str, commits: Commits, linger_s: float) -> None:
        self.name = name
        self.cursor = 0
        self.live_from = 0
        """What was committed when this incarnation of the consumer began: what comes behind it is new."""
        self._commits = commits
        self._send, self._receive = trio.open_memory_channel[tuple[Sequence[Op], int]](COMMITS_WAITING_MAX)
        self._in_hand: Sequence[Op] = ()
        self._reaches = 0
        self._next: Sequence[Op] = ()
        self._suspects = range(0)
        self._crashes: Counter[int] = Counter()
        self._left_out: set[int] = set()
        self._passed_over = 0
        self._waiting_bytes = 0
        self._moved = trio.lowlevel.ParkingLot()
        self._linger_s = linger_s
        self._hurry = trio.Event()

    def offer(self, ops: Sequence[Op], size: int) -> None:
        """Take a commit in, or leave it to the journal."""
        if ops:
            is_next = ops[0].seq <= self.cursor + 1
            has_room = self._waiting_bytes + size <= BYTES_WAITING_MAX
            if not is_next and (ops[-1].seq - self.cursor > OPS_WAITING_MAX or not has_room):
                self._passed_over += 1
                return
        try:
            self._send.send_nowait((ops, size))
        except trio.WouldBlock:
            self._passed_over += 1
        else:
            self._waiting_bytes += size

    async def open(self, cursor: int) -> None:
        """Begin an incarnation of the consumer, which has taken in everything up to ``cursor``."""
        self._next = ()
        self.live_from = self._commits.last_seq
        self._move(cursor)
        left, self._in_hand = self._in_hand, ()
        if not left:
            return
        self._suspects = _widened(self._suspects, left)
        if len(left) == 1:
            await self.crashed_at(left[0])

    async def crashed_at(self, op: Op) -> None:
        """Count a crash of the consumer with an op alone in hand, be it from here or not; after N set it aside."""
        self._crashes[op.seq] += 1
        if self._crashes[op.seq] >= self._commits.crashes_max and len(self._left_out) < SET_ASIDE_MAX:
            await self._commits.set_aside(self.name, op, self._crashes.pop(op.seq))
            self._left_out.add(op.seq)

    def leaves_out(self, op: Op) -> bool:
        """Say whether an op was set aside."""
        return op.seq in self._left_out

    def take(self) -> Holding[Sequence[Op]]:
        """Wait for the ops that follow the cursor, and hold them until the block is left without an error.

        Gives at least one op; those that were set aside are not among them.
        """
        return Holding(self._hand_out, self._leave)

    async def reached(self, seq: int) -> None:
        """Wait until the consumer has taken in everything up to ``seq``; give it a deadline from outside."""
        while self.cursor < seq:
            self._hurry.set()
            self._commits.hurry()
            await self._moved.park()

    async def opened(self) -> None:
        """Wait until the journal has been opened: before, nobody knows its end."""
        await self._commits.opened()

    async def caught_up(self) -> None:
        """Wait until the consumer has taken in all that was there when it began."""
        await self.opened()
        await self.reached(self.live_from)

    def skip(self, cursor: int) -> None:
        """Pass over everything up to ``cursor``; for a consumer with nothing in hand."""
        if cursor > self.cursor:
            self._move(cursor)

    async def wait_lull(self) -> None:
        """Let others have their turn until the next lull; see `Commits.wait_lull`."""
        await self._commits.wait_lull()

    @property
    def has_caught_up(self) -> bool:
        """The consumer has taken in all that was there when it began."""
        return self.cursor >= self.live_from

    @property
    def resumed_us(self) -> int:
        """As of `Commits`."""
        return self._commits.resumed_us

    @property
    def lulls(self) -> int:
        """How many there were since the start."""
        return self._commits.lulls

    @property
    def end(self) -> int:
        """The newest op that there is to take in, or that was taken in."""
        return max(self.cursor, self._commits.last_seq)

    def statistics(self) -> FeedStatistics:
        """Give how far the consumer is behind, and what went wrong so far."""
        return FeedStatistics(
            depth=self._send.statistics().current_buffer_used,
            bound=COMMITS_WAITING_MAX,
            behind=self.end - self.cursor,
            passed_over=self._passed_over,
            quarantined=len(self._left_out),
        )

    async def _hand_out(self) -> Sequence[Op]:
        await trio.lowlevel.checkpoint()  # a consumer far behind takes again and again: others have their turn here
        self._reaches, self._in_hand = await self._next_kept()
        return self._in_hand

    def _leave(self, error: BaseException | None) -> None:
        """Move on; after a crash, leave what is in hand to `open`."""
        if error is not None:
            self._in_hand = () if only_cancelled(error) else self._in_hand
            return
        self._crashes.pop(self._in_hand[0].seq, None)
        self._in_hand = ()
        self._move(self._reaches)

    def _move(self, cursor: int) -> None:
        self.cursor = cursor
        self._moved.unpark_all()

    async def _next_kept(self) -> tuple[int, Sequence[Op]]:
        """Give the next ops that are not left out, and the seq up to which they reach."""
        while True:
            ops = await self._following()
            kept = [op for op in ops if op.seq not in self._left_out] if self._left_out else ops
            if kept:
                return ops[-1].seq, kept
            self._move(ops[-1].seq)

    async def _following(self) -> Sequence[Op]:
        """Give the next ops after the cursor: at least one, and one only while a crash is being looked into."""
        ops = self._next if self._next and self._next[0].seq == self.cursor + 1 else await self._fetch()
        most = OPS_AT_ONCE_MAX
        if ops[0].seq in self._suspects:
            most = 1
        elif ops[0].seq < self._suspects.start:
            most = min(most, self._suspects.start - ops[0].seq)
        ops, self._next = ops[:most], ops[most:]
        return ops

    async def _fetch(self) -> Sequence[Op]:
        """Give ops from the channel while they join on, else from the journal."""
        while True:
            ops = await self._offered()
            if ops and ops[0].seq <= self.cursor + 1 <= ops[-1].seq:
                return ops[self.cursor + 1 - ops[0].seq :]
            committed = self._commits.last_seq
            if committed <= self.cursor or (ops and ops[-1].seq <= self.cursor):
                continue  # known already
            found = await self._commits.following(self.cursor)
            if found.ops:
                return found.ops
            # Deleted by retention, or damaged; and where somebody has cut the journal, it ends before.
            self._move(found.through if found.through > self.cursor else committed)

    async def _offered(self) -> Sequence[Op]:
        if self._linger_s and self.cursor >= self._commits.last_seq:
            await self._linger()  # under load something has come then, and nobody had to wake us for it
        try:
            ops = self._received(self._receive.receive_nowait())
        except trio.WouldBlock:
            if self._commits.last_seq > self.cursor:
                return ()
            ops = self._received(await self._receive.receive())
            if self._linger_s:
                await self._linger()
        return self._gathered(ops) if self._linger_s else ops

    def _received(self, commit: tuple[Sequence[Op], int]) -> Sequence[Op]:
        ops, size = commit
        self._waiting_bytes -= size
        return ops

    async def _linger(self) -> None:
        """Let more commits come, and then others have their turn, unless somebody waits for us."""
        if not self._moved:
            self._hurry = trio.Event()
        with trio.move_on_after(self._linger_s) as lingers:
            await self._hurry.wait()
        if lingers.cancelled_caught:
            await self._commits.wait_lull()

    def _gathered(self, ops: Sequence[Op]) -> Sequence[Op]:
        """Give a commit and those that have come since and join on to it."""
        gathered = list(ops)
        while len(gathered) < GATHERED_OPS:
            try:
                more = self._received(self._receive.receive_nowait())
            except trio.WouldBlock:
                break
            if more and gathered and more[0].seq != gathered[-1].seq + 1:
                break  # what lies between was passed over; the journal has it, and this too
            gathered.extend(more)
        return gathered


def _widened(suspects: range, left: Sequence[Op]) -> range:
    """Give the seqs to be taken singly after a crash with ``left`` in hand; suspects that were passed are cleared."""
    first, end = left[0].seq, left[-1].seq + 1
    if first >= suspects.stop:
        return range(first, end)
    return range(min(first, suspects.start), max(end, suspects.stop))
