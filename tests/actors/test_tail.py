from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest
import trio
import trio.testing

from observer_actors.actors.commits import Commits
from observer_actors.actors.tail import PAGE_BYTES, PAGE_OPS, Page, Tail, Tap
from observer_actors.errors import Overloaded
from observer_actors.op import Op
from observer_actors.patterns import State, StateChanged
from observer_actors.settings import TailSettings
from tests.actors.ops import Journal, ops
from tests.supervision.injected_time import injected_time


def seqs(page: Page) -> list[int]:
    return [each.last_seq if isinstance(each, StateChanged) else each.seq for each in page]


class World:
    """A journal, its commits, and tails of 10 ops for 2 readers."""

    def __init__(self) -> None:
        self.journal = Journal()
        self.commits = Commits(self.journal.following, crashes_max=3, set_aside=self._set_aside)
        self.commits.resume(0)
        self.tail = Tail(self.commits, self.journal.read, TailSettings(readers_max=2, buffer_ops_max=10))

    async def _set_aside(self, _consumer: str, _op: Op, _crashes: int) -> None:
        raise AssertionError

    def commit(self, count: int) -> list[Op]:
        fresh = self.journal.append(count)
        self.commits.publish(fresh)
        return fresh

    @asynccontextmanager
    async def reader(self, after_seq: int | None = None, *, pause_s: float = 0.0) -> AsyncIterator[list[int | None]]:
        """Collect what a reader gets; -1 when its tail ended."""
        got: list[int | None] = []

        async def read() -> None:
            async with aclosing(self.tail.follow(after_seq, silence_s=10)) as following:
                async for page in following:
                    got.extend(seqs(page) if page else [None])
                    if pause_s:
                        await trio.sleep(pause_s)
            got.append(-1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            yield got
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()


@injected_time
async def test_a_reader_gets_what_is_committed_from_now_on_once_also_when_published_twice() -> None:
    world = World()
    world.commit(3)
    async with world.reader() as got:
        again = world.commit(2)
        await trio.testing.wait_all_tasks_blocked()
        world.commits.publish(again)
        world.commit(1)
    assert got == [4, 5, 6]


@injected_time
async def test_a_reader_resumes_from_the_journal_without_gap_or_repetition() -> None:
    world = World()
    world.commit(1_200)
    async with world.reader(100) as got:
        world.commit(3)
    assert got == [*range(101, 1_204)]


@injected_time
async def test_a_reader_that_has_seen_another_journal_goes_on_from_now() -> None:
    world = World()
    world.commit(3)
    async with world.reader(9_000) as got:
        world.commit(2)
    assert got == [4, 5]


@injected_time
async def test_silence_is_told() -> None:
    world = World()
    async with world.reader() as got:
        await trio.sleep(25)
    assert got == [None, None]


@injected_time
async def test_a_reader_that_is_too_slow_is_dropped_and_counted() -> None:
    world = World()
    async with world.reader(pause_s=1) as got:
        for _ in range(4):
            world.commit(4)
        await trio.sleep(30)
    assert (got[0], got[-1]) == (None, -1) or got == [-1]
    assert (world.tail.statistics.dropped, world.tail.statistics.dropped_ops) == (1, 12)
    assert world.tail.statistics.readers == 0


@injected_time
async def test_a_large_commit_does_not_drop_a_reader_that_has_read_all() -> None:
    world = World()
    async with world.reader() as got:
        world.commit(50)
    assert got == [*range(1, 51)]
    assert world.tail.statistics.dropped == 0


@injected_time
async def test_at_the_end_readers_get_what_is_there() -> None:
    world = World()
    async with world.reader() as got:
        world.commit(3)
        world.tail.end()
    assert [seq for seq in got if seq] == [1, 2, 3, -1]


@injected_time
async def test_a_replay_ends_with_the_daemon_and_leaves_no_gap() -> None:
    world = World()
    world.commit(2_000)
    async with world.reader(0, pause_s=0.01) as got:
        world.commit(1)
        world.tail.end()
        await trio.sleep(60)
    assert got == [*range(1, len(got)), -1]
    assert len(got) < 1_100


@injected_time
async def test_a_reader_that_was_let_in_before_the_end_and_begins_after_it_gets_nothing() -> None:
    world = World()
    world.commit(1)
    let_in = world.tail.follow(0, silence_s=10)
    world.tail.end()
    assert [op async for op in let_in] == []
    async with world.reader(0) as got:
        pass
    assert got == [1], "who comes back is judged anew, and follows"


@injected_time
async def test_a_reader_is_refused_until_the_journal_is_open() -> None:
    world = World()
    world.commits = Commits(world.journal.following, crashes_max=3, set_aside=world._set_aside)  # noqa: SLF001 - its own
    world.tail = Tail(world.commits, world.journal.read, TailSettings())
    world.journal.append(5)
    with pytest.raises(Overloaded):  # where it would go on from is not known: what lies between would be left out
        await anext(world.tail.follow(3, silence_s=10))
    world.commits.resume(5)
    async with world.reader(3) as got:
        world.commit(1)
    assert got == [4, 5, 6]


@injected_time
async def test_there_are_only_so_many_readers() -> None:
    world = World()
    async with world.reader(), world.reader():
        with pytest.raises(Overloaded):
            world.tail.check_room()
    world.tail.check_room()


@injected_time
async def test_a_dropped_tap_takes_nothing_more() -> None:
    tap = Tap(4)
    assert [tap.offer(ops(1, 3)), tap.offer(ops(4, 5)), tap.offer(ops(6, 6))] == [0, 5, 0]

    assert tap.over
    assert not await tap.take()


async def test_a_reader_of_long_ops_is_dropped_sooner() -> None:
    tap = Tap(1_000)
    assert [tap.offer(ops(1, 3), 30_000_000), tap.offer(ops(4, 4), 10)] == [0, 4]
    assert tap.dropped


@injected_time
async def test_a_tap_gives_its_ops_in_order() -> None:
    tap = Tap(4)
    tap.offer(ops(1, 2))
    tap.offer(ops(3, 3))
    assert seqs(await tap.take()) == [1, 2, 3]


async def test_a_tap_gives_all_that_waits_a_page_at_a_time() -> None:
    tap = Tap(10_000)
    tap.offer(ops(1, PAGE_OPS))
    tap.offer(ops(PAGE_OPS + 1, PAGE_OPS + 4), 2 * PAGE_BYTES)
    tap.offer(ops(PAGE_OPS + 5, PAGE_OPS + 5), 2 * PAGE_BYTES)
    tap.offer(ops(PAGE_OPS + 6, PAGE_OPS + 6))
    taken = [len(await tap.take()) for _ in range(4)]
    assert taken == [PAGE_OPS, 2, 2, 1], "one, however long; and what waits behind it is left to the next"
    assert seqs(await tap.take()) == [PAGE_OPS + 6]


CHANGE = StateChanged(
    pattern="p", endpoint="e", template="t", was=None, state=State.NEW, at="2026-11-22T10:00:00Z", count=1, last_seq=99
)


@injected_time
async def test_a_change_of_state_comes_between_the_ops() -> None:
    world = World()
    async with world.reader() as got:
        world.commit(1)
        world.tail.announce(CHANGE)
        world.commit(1)
    assert got == [1, 99, 2]


async def test_a_reader_that_is_ended_gets_what_was_there_and_nothing_that_comes_after() -> None:
    tap = Tap(10)
    first, second = ops(1, 2)
    tap.offer([first])
    tap.end()
    tap.offer([second])
    assert (await tap.take(), await tap.take()) == ([first], ())
