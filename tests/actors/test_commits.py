from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec
import pytest
import trio
import trio.testing

from observer_actors.actors.commits import (
    BLOCKS_KEPT,
    BYTES_WAITING_MAX,
    COMMITS_WAITING_MAX,
    LULL_S,
    OPS_AT_ONCE_MAX,
    OPS_WAITING_MAX,
    Commits,
    Feed,
)
from observer_actors.actors.ring_keeper import HELD_MAX, LOADED_SHARE, RingKeeper
from observer_actors.journal import Stretch
from observer_actors.op import Op, Seq
from observer_actors.ring import Ring
from observer_actors.supervision import Life
from tests.actors.ops import BLOCK_OPS, Journal, op, seqs
from tests.supervision.injected_time import injected_time


class World:
    """A journal, its commits, and one consumer's feed."""

    def __init__(self, crashes_max: int = 3, linger_s: float = 0.0) -> None:
        self.journal = Journal()
        self.aside: list[tuple[str, int, int]] = []
        self.commits = Commits(self.journal.following, crashes_max=crashes_max, set_aside=self._set_aside)
        self.feed = self.commits.feed("a", linger_s=linger_s)

    async def _set_aside(self, consumer: str, op: Op, crashes: int) -> None:
        self.aside.append((consumer, op.seq, crashes))

    def commit(self, count: int, size: int = 0) -> Sequence[Op]:
        fresh = self.journal.append(count)
        self.commits.publish(fresh, size)
        return fresh


async def take(feed: Feed) -> list[int]:
    async with feed.take() as ops:
        return seqs(ops)


async def crash(feed: Feed) -> list[int]:
    held: list[int] = []
    with pytest.raises(ValueError, match="crashed"):  # noqa: PT012 - the crash is inside
        async with feed.take() as ops:
            held = seqs(ops)
            raise ValueError("crashed")
    return held


@injected_time
async def test_commits_come_in_order_without_reading_the_journal() -> None:
    world = World()
    world.commit(2)
    world.commit(3)
    assert [await take(world.feed), await take(world.feed)] == [[1, 2], [3, 4, 5]]
    assert (world.journal.reads, world.feed.cursor) == (0, 5)


@injected_time
async def test_what_is_there_when_a_late_journal_is_opened_is_to_be_caught_up_with() -> None:
    """A consumer may begin while the disk still refuses to let the journal be opened."""
    world = World()
    world.journal.append(5)
    await world.feed.open(0)
    done = trio.Event()

    async def wait() -> None:
        await world.feed.caught_up()
        done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        world.commits.resume(5)
        await trio.testing.wait_all_tasks_blocked()
        assert (done.is_set(), world.feed.has_caught_up) == (False, False)
        assert await take(world.feed) == [1, 2, 3, 4, 5]
        await done.wait()
    assert world.feed.has_caught_up
    world.commit(1)
    world.commits.resume(6)
    assert world.feed.has_caught_up, "what comes later does not count, also where the persister begins anew"


@injected_time
async def test_a_consumer_that_was_passed_over_catches_up_from_the_journal() -> None:
    world = World()
    for _ in range(COMMITS_WAITING_MAX + 20):
        world.commit(1)
    taken: list[int] = []
    while world.feed.statistics().behind:
        taken += await take(world.feed)
    assert taken == [*range(1, COMMITS_WAITING_MAX + 21)]
    assert world.feed.statistics().passed_over == 20
    assert world.journal.reads == 1


@injected_time
async def test_what_is_far_ahead_of_a_consumer_takes_no_memory_for_it() -> None:
    world = World()
    for _ in range(4):
        world.commit(OPS_WAITING_MAX // 2)
    assert (world.feed.statistics().depth, world.feed.statistics().passed_over) == (2, 2)
    while world.feed.cursor < OPS_WAITING_MAX // 2:
        await take(world.feed)
    world.commit(1)  # there is room, but the consumer has as much to take in before it comes here
    assert world.feed.statistics().passed_over == 3
    while world.feed.statistics().behind:
        await take(world.feed)
    assert world.commits.last_seq == 2 * OPS_WAITING_MAX + 1


@injected_time
async def test_what_waits_for_a_consumer_has_a_bound_in_bytes_but_the_very_next_commit_always_waits() -> None:
    world = World()
    for _ in range(3):
        world.commit(1, BYTES_WAITING_MAX // 2)
    assert (world.feed.statistics().depth, world.feed.statistics().passed_over) == (2, 1)
    assert [await take(world.feed) for _ in range(3)] == [[1], [2], [3]]
    assert world.journal.reads == 1, "the third came from there"
    world.commit(1, BYTES_WAITING_MAX + 1)
    world.commit(1, 1)
    assert (world.feed.statistics().depth, world.feed.statistics().passed_over) == (1, 2)
    assert await take(world.feed) == [4]
    assert world.journal.reads == 1


@injected_time
async def test_consumers_that_are_behind_together_have_each_block_read_once() -> None:
    world = World()
    feeds = [world.feed, *(world.commits.feed(name) for name in "bcd")]
    world.journal.append(10 * BLOCK_OPS)
    world.commits.resume(10 * BLOCK_OPS)
    while any(feed.statistics().behind for feed in feeds):
        for feed in feeds:
            await take(feed)
    assert world.journal.reads == 10


@injected_time
async def test_the_blocks_that_were_read_last_are_kept_and_no_others() -> None:
    world = World()
    world.journal.append((BLOCKS_KEPT + 1) * BLOCK_OPS)
    world.commits.resume((BLOCKS_KEPT + 1) * BLOCK_OPS)
    for number in (*range(BLOCKS_KEPT + 1), BLOCKS_KEPT, 1):
        await world.commits.following(number * BLOCK_OPS)
    assert world.journal.reads == BLOCKS_KEPT + 1
    await world.commits.following(0)
    assert world.journal.reads == BLOCKS_KEPT + 2


@injected_time
async def test_a_block_that_was_read_already_waits_for_no_place_that_the_disk_does_not_give() -> None:
    journal = Journal()
    journal.append(2 * BLOCK_OPS)

    async def following(after_seq: int) -> Stretch:
        if after_seq >= BLOCK_OPS:
            await trio.sleep_forever()
        return await journal.following(after_seq)

    async def nothing_set_aside(_consumer: str, _op: Op, _crashes: int) -> None:
        raise AssertionError("nothing crashes here")

    commits = Commits(following, crashes_max=3, set_aside=nothing_set_aside)
    async with trio.open_nursery() as nursery:
        await commits.following(0)
        nursery.start_soon(commits.following, BLOCK_OPS)
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(1):
            assert seqs((await commits.following(10)).ops) == list(range(11, BLOCK_OPS + 1))
        nursery.cancel_scope.cancel()


@injected_time
async def test_what_is_still_offered_but_known_is_passed_over_without_reading_the_journal() -> None:
    world = World()
    for _ in range(4):
        world.commit(1)
    await world.feed.open(2)
    assert [await take(world.feed), await take(world.feed)] == [[3], [4]]
    assert world.journal.reads == 0


async def test_a_commit_published_twice_is_taken_once() -> None:
    world = World()
    world.commits.publish(world.commit(3))
    assert await take(world.feed) == [1, 2, 3]
    world.commit(1)
    assert await take(world.feed) == [4]


async def test_what_is_published_again_after_later_commits_takes_nothing_back() -> None:
    """As a persister does that crashed with it in hand."""
    world = World()
    first = world.commit(2)
    world.commit(3)
    world.commits.publish(first)
    assert (world.commits.last_seq, world.feed.end) == (5, 5)
    world.commits.resume(4)
    assert world.commits.last_seq == 5
    assert [await take(world.feed) for _ in range(2)] == [[1, 2], [3, 4, 5]]
    assert world.feed.statistics().behind == 0


@injected_time
async def test_what_was_taken_makes_room_for_as_many_bytes() -> None:
    world = World()
    half = BYTES_WAITING_MAX // 2
    for _ in range(3):
        for _ in range(2):
            world.commit(1, half)
        assert world.feed.statistics().depth == 2
        for _ in range(2):
            await take(world.feed)
    assert (world.feed.statistics().passed_over, world.journal.reads) == (0, 0)


@injected_time
async def test_what_found_no_place_takes_no_room() -> None:
    world = World()
    half = BYTES_WAITING_MAX // 2
    for _ in range(COMMITS_WAITING_MAX):
        world.commit(1)
    world.commit(1, half)
    assert world.feed.statistics().passed_over == 1
    while world.feed.statistics().behind:
        await take(world.feed)
    for _ in range(2):
        world.commit(1, half)
    assert world.feed.statistics().depth == 2


@injected_time
async def test_after_the_journal_was_opened_consumers_read_what_it_holds() -> None:
    world = World()
    world.journal.append(5)
    async with trio.open_nursery() as nursery:
        taken: list[int] = []

        async def consume() -> None:
            taken.extend(await take(world.feed))

        nursery.start_soon(consume)
        await trio.testing.wait_all_tasks_blocked()
        world.commits.resume(5)
    assert taken == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("deleted", "left"), [((1, 2, 3), [4, 5]), ((3,), [1, 2, 4, 5]), ((4, 5), [1, 2, 3])])
@injected_time
async def test_a_hole_left_by_retention_is_stepped_over(deleted: tuple[int, ...], left: list[int]) -> None:
    world = World()
    world.journal.append(5)
    world.journal.deleted |= {*deleted}
    world.commits.resume(5)
    taken: list[int] = []
    with trio.move_on_after(1):
        while True:
            taken += await take(world.feed)
    assert taken == left
    assert world.feed.statistics().behind == 0


@injected_time
async def test_a_consumer_passes_over_no_more_than_is_known_to_be_gone() -> None:
    """The journal has gone on by the next read."""
    world = World()
    known = [Stretch([], Seq(2)), Stretch(world.journal.append(5)[2:], Seq(5))]

    async def read(_after_seq: int) -> Stretch:
        await trio.lowlevel.checkpoint()
        return known.pop(0)

    commits = Commits(read, crashes_max=3, set_aside=world._set_aside)  # noqa: SLF001 - its own
    feed = commits.feed("a")
    commits.resume(5)
    assert await take(feed) == [3, 4, 5]


@injected_time
async def test_what_somebody_has_cut_off_the_journal_is_not_waited_for() -> None:
    world = World()
    world.journal.append(2)
    world.commits.resume(5)
    with trio.fail_after(1):
        assert await take(world.feed) == [1, 2]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take, world.feed)
            await world.feed.reached(5)
            nursery.cancel_scope.cancel()


@injected_time
async def test_who_waits_for_a_seq_is_woken_also_when_it_is_gone() -> None:
    world = World()
    world.journal.append(5)
    world.journal.deleted |= {1, 2, 3, 4, 5}
    world.commits.resume(5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take, world.feed)
        with trio.fail_after(1):
            await world.feed.reached(5)
        nursery.cancel_scope.cancel()


@injected_time
async def test_after_a_crash_ops_come_singly_and_the_poisonous_one_is_left_out() -> None:
    world = World(crashes_max=2)
    world.commit(3)
    assert await crash(world.feed) == [1, 2, 3]
    await world.feed.open(0)
    assert await take(world.feed) == [1]
    for _ in range(2):
        assert await crash(world.feed) == [2]
        await world.feed.open(1)
    assert world.aside == [("a", 2, 2)]
    assert await take(world.feed) == [3], "never an empty batch"
    assert world.feed.cursor == 3


@injected_time
async def test_crashes_before_an_op_was_taken_in_do_not_count_when_it_comes_again() -> None:
    world = World(crashes_max=2)
    world.commit(1)
    with trio.fail_after(1):
        for _ in range(3):
            assert await crash(world.feed) == [1]
            await world.feed.open(0)
            assert await take(world.feed) == [1]
            await world.feed.open(0)  # stopped before what it had taken in was saved
    assert world.aside == []


@injected_time
async def test_of_ops_a_consumer_leaves_out_no_more_than_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("observer_actors.actors.commits.SET_ASIDE_MAX", 1)
    world = World(crashes_max=1)
    world.commit(1)
    assert await crash(world.feed) == [1]
    await world.feed.open(0)
    world.commit(1)
    with trio.fail_after(1):
        for _ in range(3):
            assert await crash(world.feed) == [2], "it comes again, rather than that ever more are remembered"
            await world.feed.open(1)
        assert await take(world.feed) == [2]
    assert (world.aside, world.feed.statistics().quarantined) == ([("a", 1, 1)], 1)


@injected_time
async def test_only_the_ops_that_were_in_hand_are_taken_singly() -> None:
    world = World()
    for _ in range(3):
        world.commit(10)
    assert [await take(world.feed) for _ in range(2)] == [[*range(1, 11)], [*range(11, 21)]]
    assert await crash(world.feed) == [*range(21, 31)]
    world.commit(10)
    await world.feed.open(0)
    taken = [await take(world.feed) for _ in range(12)]
    assert taken == [[*range(1, 21)], *([seq] for seq in range(21, 31)), [*range(31, 41)]]


@pytest.mark.parametrize("in_nursery", [False, True])
@injected_time
async def test_being_cancelled_is_no_crash_also_inside_a_nursery(*, in_nursery: bool) -> None:
    world = World(crashes_max=1)
    world.commit(1)
    with trio.move_on_after(1):
        async with world.feed.take():
            if in_nursery:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(trio.sleep_forever)
                    await trio.sleep_forever()
            await trio.sleep_forever()
    await world.feed.open(0)
    assert world.aside == []
    assert await take(world.feed) == [1]


@injected_time
async def test_a_consumer_far_behind_lets_others_have_their_turn() -> None:
    world = World()
    world.commit(20 * OPS_AT_ONCE_MAX)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        while world.feed.statistics().behind:
            assert len(await take(world.feed)) <= OPS_AT_ONCE_MAX
        nursery.cancel_scope.cancel()
    assert turns >= 18


@pytest.mark.parametrize("seed", range(80))
@injected_time
async def test_each_incarnation_sees_each_op_once_in_order_whatever_happens(  # noqa: C901 - a world in one place
    seed: int,
) -> None:
    """Random commits, lag, repeated publishing, retention, crashes and cancellations, against the journal."""
    rng = random.Random(seed)
    crashes_max = rng.randint(1, 3)
    world = World(crashes_max)
    total = rng.choice([30, 300, 3_000])
    poison = {seq for seq in range(1, total + 1) if rng.random() < 3 / total}
    state: list[int] = []
    durable = 0

    async def produce() -> None:
        while len(world.journal.ops) < total:
            fresh = world.commit(min(rng.randint(1, max(2, total // 20)), total - len(world.journal.ops)))
            if rng.random() < 0.2:
                world.commits.publish(fresh)
            if rng.random() < 0.1:
                world.commits.resume(world.commits.last_seq)
            if rng.random() < 0.5:
                await trio.sleep(rng.random())

    async def incarnation() -> None:
        nonlocal durable
        del state[durable:]
        await world.feed.open(state[-1] if state else 0)
        while True:
            async with world.feed.take() as ops:
                assert ops
                if rng.random() < 0.3:
                    await trio.sleep(rng.random())
                if poison.intersection(seqs(ops)):
                    raise ValueError("poison")
                state.extend(seqs(ops))
                if rng.random() < 0.5:
                    durable = len(state)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce)
        while world.commits.last_seq < total or world.feed.statistics().behind:
            with trio.move_on_after(rng.expovariate(0.05) + 0.5):
                try:
                    await incarnation()
                except ValueError:
                    continue
            world.journal.deleted |= {seq for seq in range(1, world.feed.cursor + 1) if rng.random() < 0.01}
    kept = [seq for seq in range(1, total + 1) if seq not in poison]
    gone = world.journal.deleted
    assert state == sorted(set(state)), "in order, none twice"
    assert [seq for seq in kept if seq not in gone and seq not in state] == []
    assert not poison.intersection(state)
    assert {seq for _, seq, _ in world.aside} <= poison


@injected_time
async def test_commits_that_come_within_a_moment_are_taken_together() -> None:
    world = World(linger_s=1.0)
    taken: list[list[int]] = []

    async def consume() -> None:
        while True:
            taken.append(await take(world.feed))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(consume)
        await trio.testing.wait_all_tasks_blocked()
        world.commit(2)
        await trio.sleep(0.5)
        world.commit(1)
        await trio.sleep(0.6)
        world.commit(1)
        await trio.sleep(2)
        nursery.cancel_scope.cancel()
    assert taken == [[1, 2, 3], [4]]
    assert world.journal.reads == 0
    assert world.feed.statistics().depth == 0


@injected_time
async def test_who_has_taken_in_all_is_not_woken_by_the_next_commit_but_looks_after_a_while() -> None:
    world = World(linger_s=1.0)
    taken: list[tuple[list[int], float]] = []

    async def consume() -> None:
        while True:
            seqs_ = await take(world.feed)
            taken.append((seqs_, trio.current_time()))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(consume)
        await trio.testing.wait_all_tasks_blocked()
        world.commit(1)
        await trio.sleep(1.5)
        world.commit(1)
        await trio.sleep(2)
        nursery.cancel_scope.cancel()
    [(first, at), (second, later)] = taken
    assert (first, second) == ([1], [2])
    assert later - at == pytest.approx(1.0 + LULL_S)


@injected_time
async def test_who_waits_for_a_seq_does_not_wait_for_more_commits() -> None:
    world = World(linger_s=60.0)

    async def consume() -> None:
        while True:
            await take(world.feed)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(consume)
        await trio.testing.wait_all_tasks_blocked()
        started = trio.current_time()
        for seq in (1, 2):
            world.commit(1)
            await world.feed.reached(seq)
            assert trio.current_time() == started
        nursery.start_soon(world.feed.reached, 3)  # already waits when the commit comes
        await trio.testing.wait_all_tasks_blocked()
        world.commit(1)
        await world.feed.reached(3)
        assert trio.current_time() == started
        nursery.cancel_scope.cancel()


@injected_time
async def test_who_waits_for_a_seq_does_not_wait_for_a_lull() -> None:
    world = World(linger_s=1.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take, world.feed)
        await trio.sleep(1.0 + LULL_S / 2)
        world.commit(1)
        started = trio.current_time()
        await world.feed.reached(1)
        assert trio.current_time() == started


@injected_time
async def test_a_gap_among_gathered_commits_is_filled_from_the_journal() -> None:
    world = World(linger_s=1.0)
    taken: list[int] = []

    async def consume() -> None:
        while len(taken) < 6:
            taken.extend(await take(world.feed))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(consume)
        await trio.testing.wait_all_tasks_blocked()
        world.commit(2)
        world.journal.append(2)  # published to nobody, as if this consumer had been passed over
        world.commit(2)
    assert taken == [1, 2, 3, 4, 5, 6]
    assert world.feed.statistics().depth == 0


@injected_time
async def test_a_commit_that_comes_again_among_gathered_ones_is_handed_out_once() -> None:
    world = World(linger_s=1.0)
    taken: list[int] = []

    async def consume() -> None:
        while len(taken) < 5:
            taken.extend(await take(world.feed))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(consume)
        await trio.testing.wait_all_tasks_blocked()
        world.commits.publish(world.commit(3))
        world.commit(2)
    assert taken == [1, 2, 3, 4, 5]


@injected_time
async def test_a_ring_keeper_that_fell_behind_does_not_read_what_its_ring_would_not_hold() -> None:
    world = World()
    keeper = RingKeeper(world.feed, world.commits, BLOCK_OPS)
    async with trio.open_nursery() as nursery:
        life = Life("ring_keeper", 1, on_progress=lambda: None, on_step=lambda _name, _step: None)
        nursery.start_soon(keeper.run, life)
        await life.wait_ready()
        world.journal.append(40 * BLOCK_OPS)
        world.commits.resume(40 * BLOCK_OPS)
        await world.feed.reached(40 * BLOCK_OPS)
        nursery.cancel_scope.cancel()
    assert seqs(list(keeper.ring)) == [*range(39 * BLOCK_OPS + 1, 40 * BLOCK_OPS + 1)]
    assert world.journal.reads == 1 + LOADED_SHARE, "the block at which it heard of it, and the newest"


@injected_time
async def test_a_ring_keeper_of_a_large_ring_does_not_read_what_no_ring_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("observer_actors.actors.ring_keeper.HELD_MAX", BLOCK_OPS)
    world = World()
    world.journal.append(40 * BLOCK_OPS)
    world.commits.resume(40 * BLOCK_OPS)
    keeper = RingKeeper(world.feed, world.commits, 1_000_000)
    async with trio.open_nursery() as nursery:
        life = Life("ring_keeper", 1, on_progress=lambda: None, on_step=lambda _name, _step: None)
        nursery.start_soon(keeper.run, life)
        await life.wait_ready()
        nursery.cancel_scope.cancel()
    assert world.journal.reads == LOADED_SHARE
    assert keeper.size() == LOADED_SHARE * BLOCK_OPS


def test_no_ring_holds_more_than_a_ring_keeper_reads() -> None:
    ring = Ring(1_000_000)
    shortest = msgspec.structs.replace(op(1), endpoint="", source="", duration_ms=0)
    for _ in range(12):
        ring.push([shortest] * 10_000)
    assert len(ring) < HELD_MAX
