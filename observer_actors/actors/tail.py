"""Live tails: each reader has a bounded buffer, and one that is too slow is dropped, never waited for."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import msgspec
import trio

from observer_actors.actors.commits import Commits, ReadJournal
from observer_actors.errors import Overloaded
from observer_actors.op import Op
from observer_actors.patterns import StateChanged
from observer_actors.settings import TailSettings

PAGE_OPS: Final = 500
"""Ops that a reader is given together: what it costs to send does not depend on how many there are."""
PAGE_BYTES: Final = 64 * 1024
"""Of a reader's buffer at once, as of the next: what it has been given waits in it no more."""
BYTES_WAITING_MAX: Final = 4 * 1024 * 1024
"""What the ops that wait for one reader were in the requests that brought them, unless it is one commit alone."""


Page = Sequence[Op | StateChanged]
"""What a reader is given together, in order."""


class TailStatistics(msgspec.Struct):
    """Readers now, and since the start: how many were dropped, and the ops that waited for them then."""

    readers: int = 0
    dropped: int = 0
    dropped_ops: int = 0


class Tap:
    """One reader's buffer: follows `Commits` as a feed does, but gives up rather than fall behind."""

    def __init__(self, ops_max: int) -> None:
        self.dropped = False
        self.ended = False
        self._ops_max = ops_max
        self._buffer: deque[tuple[Op | StateChanged, int]] = deque()
        """Each with its share of the size of its commit."""
        self._bytes = 0
        self._more = trio.Event()

    def offer(self, ops: Page, size: int = 0) -> int:
        """Take a commit in, or drop the reader: give the number of ops that it lost just now.

        A reader that has read all is not slow: it gets one commit, however large.
        """
        if self.dropped or self.ended or not ops:
            return 0
        lost = len(self._buffer) + len(ops)
        share = size // len(ops)
        self._bytes += share * len(ops)
        self.dropped = bool(self._buffer) and (lost > self._ops_max or self._bytes > BYTES_WAITING_MAX)
        if self.dropped:
            self._buffer.clear()
        else:
            self._buffer.extend((op, share) for op in ops)
        self._more.set()
        return lost if self.dropped else 0

    def end(self) -> None:
        """Let the reader have what is there, then end."""
        self.ended = True
        self._more.set()

    @property
    def over(self) -> bool:
        """Whether there will be no more."""
        return not self._buffer and (self.dropped or self.ended)

    async def take(self) -> Page:
        """Wait for ops, or changes of patterns' states; give up to a page of them, none when there will be no more."""
        while not self._buffer:
            if self.over:
                return ()
            self._more = trio.Event()
            await self._more.wait()
        page: list[Op | StateChanged] = []
        enough = self._bytes - PAGE_BYTES
        while self._buffer and len(page) < PAGE_OPS and (not page or self._bytes > enough):
            each, share = self._buffer.popleft()
            self._bytes -= share
            page.append(each)
        return page


class Tail:
    """All readers."""

    def __init__(self, commits: Commits, read: ReadJournal, settings: TailSettings) -> None:
        self.statistics = TailStatistics()
        self._commits = commits
        self._read = read
        self._settings = settings
        self._taps: set[Tap] = set()
        self._ends = 0
        """How often all readers were ended."""
        self._is_closed = False
        commits.tap(self._offer)

    def follow(self, after_seq: int | None, *, silence_s: float) -> AsyncGenerator[Page]:
        """Give ops as they are committed, from ``after_seq`` on (out of the journal), or from now on: all that wait.

        And, as they happen, changes of patterns' states; those are not repeated out of the journal.

        Gives an empty page after each ``silence_s`` seconds without one. Ends when the reader was dropped, or told to
        (`end`), also before the first op was asked for: a client may leave its answer's head unread until then.

        :raises Overloaded: as `check_room` does.
        """
        return self._following(after_seq, silence_s, self._ends)

    async def _following(self, after_seq: int | None, silence_s: float, ends: int) -> AsyncGenerator[Page]:
        with self._listening(ends) as tap:
            live_from, cursor = self._commits.last_seq, self.begins_behind(after_seq)
            while cursor < live_from:
                replayed = await self._read(cursor, PAGE_OPS)
                if tap.ended:
                    return  # what has been committed since would leave a gap
                if not replayed:
                    break
                yield replayed
                cursor = replayed[-1].seq
            while not tap.over:
                page: Page = ()
                with trio.move_on_after(silence_s):
                    page = await tap.take()
                fresh: list[Op | StateChanged] = []
                for each in page:
                    if isinstance(each, Op):
                        if each.seq <= cursor:
                            continue  # replayed already, or published twice
                        cursor = each.seq
                    fresh.append(each)
                if fresh or not (page or tap.over):
                    yield fresh

    def begins_behind(self, after_seq: int | None) -> int:
        """Give the seq behind which who asks for what follows ``after_seq`` begins: the last one, if it is beyond."""
        last_seq = self._commits.last_seq
        return last_seq if after_seq is None else min(after_seq, last_seq)

    def check_room(self) -> None:
        """Raise `Overloaded` when there are as many readers as may be, or nobody knows yet where the journal ends."""
        if not self._commits.is_open:
            raise Overloaded("the journal is not open yet")
        if self.statistics.readers >= self._settings.readers_max:
            raise Overloaded(f"{self._settings.readers_max} readers already", retry_after_s=5, limit="tail.readers_max")

    def close(self) -> None:
        """End all readers, and whoever comes yet: the daemon stops, and would wait for them."""
        self._is_closed = True
        self.end()

    def end(self) -> None:
        """End all readers: who may read has changed."""
        self._ends += 1
        for tap in self._taps:
            tap.end()

    @contextmanager
    def _listening(self, ends: int) -> Iterator[Tap]:
        self.check_room()  # again: many may have asked before the first of them begins
        tap = Tap(self._settings.buffer_ops_max)
        if self._is_closed or ends != self._ends:
            tap.end()
        self._taps.add(tap)
        self.statistics.readers += 1
        try:
            yield tap
        finally:
            self._taps.discard(tap)
            self.statistics.readers -= 1

    def announce(self, change: StateChanged) -> None:
        """Show a change of a pattern's state to all readers."""
        self._offer((change,))

    def _offer(self, ops: Page, size: int = 0) -> None:
        for tap in self._taps:
            lost = tap.offer(ops, size)
            self.statistics.dropped += lost > 0
            self.statistics.dropped_ops += lost
