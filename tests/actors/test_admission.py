from __future__ import annotations

import random
import weakref

import pytest
import trio
import trio.testing

from observer_actors.actors.admission import TURN_S, Admission, Receipts, Room, Submission, Turns
from observer_actors.errors import DiskFailed, Overloaded
from observer_actors.settings import AdmissionSettings
from observer_actors.supervision import Events, Mailbox
from tests.actors.ops import ops
from tests.supervision.injected_time import injected_time

MIB = 1024 * 1024


class World:
    """Admission before a mailbox whose persister the test plays."""

    def __init__(self, *, ops_max: int = 10, bytes_max: int = 1_000, mailbox_max: int = 100) -> None:
        self.mailbox: Mailbox[Submission] = Mailbox(
            "persister", mailbox_max, events=Events(), crashes_max=3, set_aside=self._set_aside
        )
        self.admission = Admission(
            self.mailbox,
            AdmissionSettings(waiting_ops_max=ops_max, waiting_bytes_max=bytes_max, wait_seconds_max=5.0),
        )
        self.outcomes: list[object] = []

    async def _set_aside(self, _message: Submission, _crashes: int) -> None:
        raise AssertionError

    async def submit(self, count: int = 1, size: int = 10) -> None:
        try:
            self.outcomes.append(await self.admission.submit(ops(1, count), size))
        except Overloaded as error:
            self.outcomes.append(str(error))
        except DiskFailed as error:
            self.outcomes.append(error)

    async def persist(self, *, refusing: DiskFailed | None = None, takes_s: float = 0.0) -> None:
        while True:
            async with self.mailbox.take() as (submission,):
                if submission.withdrawn:
                    submission.drop()
                    continue
                submission.taken = True
                if takes_s:
                    await trio.sleep(takes_s)
                if refusing:
                    submission.refuse(refusing)
                else:
                    submission.receipts = Receipts(range(1, 1 + len(submission.ops)))
                    submission.accept()

    def waiting(self) -> tuple[int, int, int]:
        now = self.admission.statistics()
        return now.waiting_ops, now.waiting_bytes, now.callers_waiting


@injected_time
async def test_room_is_given_back_also_when_the_answer_comes_before_put_returns() -> None:
    for _ in range(20):  # the order in which trio runs tasks is random
        world = World()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.persist)
            await trio.testing.wait_all_tasks_blocked()
            await world.submit()
            nursery.cancel_scope.cancel()
        assert world.outcomes == [Receipts(range(1, 2))]
        assert world.waiting() == (0, 0, 0)


@injected_time
async def test_each_caller_of_a_refused_submission_counts_also_where_several_share_it() -> None:
    admission = World().admission
    async with trio.open_nursery() as nursery:
        nursery.start_soon(admission.keep_time)
        await trio.testing.wait_all_tasks_blocked()
        submission = admission.offer(ops(1, 3), 30, lambda: None)
        assert submission is not None
        await trio.sleep(6)
        with pytest.raises(Overloaded, match="nothing was stored"):
            admission.settle(submission, 3)
        assert admission.statistics().refusals == 3
        nursery.cancel_scope.cancel()


@injected_time
async def test_without_room_callers_wait_then_are_refused_and_nothing_is_stored() -> None:
    world = World(ops_max=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.submit)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(world.submit)
        await trio.testing.wait_all_tasks_blocked()
        assert world.admission.full
    assert world.outcomes == ["waited 2.5 s for room; nothing was stored", "waited 5 s; nothing was stored"]
    assert (world.admission.statistics().waits, world.admission.statistics().refusals) == (1, 2)
    assert world.waiting() == (1, 10, 0), "what lies in the mailbox takes memory"
    assert world.admission.overdue
    with trio.move_on_after(1):
        await world.persist()
    assert world.waiting() == (0, 0, 0)
    assert not world.admission.overdue, "also not for the one that had found no room"


@injected_time
async def test_a_submission_that_the_disk_is_busy_with_may_still_succeed() -> None:
    world = World()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: world.persist(takes_s=8))
        await world.submit()
        assert world.outcomes == ["waited 5 s for the disk; the write may still succeed"]
        assert world.waiting() == (1, 10, 0)
        await trio.sleep(4)
        assert world.waiting() == (0, 0, 0)
        nursery.cancel_scope.cancel()


@injected_time
async def test_a_caller_who_gives_up_at_a_full_mailbox_leaves_no_trace() -> None:
    world = World(mailbox_max=1)
    world.mailbox.put_nowait(Submission((), 0))
    await world.submit()
    assert world.outcomes == ["waited 5 s; nothing was stored"]
    assert world.waiting() == (0, 0, 0)


@injected_time
async def test_one_refusal_for_many_callers_does_not_grow_with_them() -> None:
    world, refusal = World(), DiskFailed("EIO")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: world.persist(refusing=refusal))
        for _ in range(50):
            await world.submit()
        nursery.cancel_scope.cancel()
    assert world.outcomes == [refusal] * 50
    depth, frame = 0, refusal.__traceback__
    while frame:
        depth, frame = depth + 1, frame.tb_next
    assert depth < 5
    assert world.waiting() == (0, 0, 0)


@injected_time
async def test_anything_fits_into_an_empty_room_and_small_ones_do_not_overtake() -> None:
    room = Room(10, 100)
    await room.enter(50, 500)
    order: list[int] = []

    async def enter(number: int, count: int) -> None:
        await room.enter(count, 1)
        order.append(number)

    async with trio.open_nursery() as nursery:
        for number, count in enumerate([10, 1, 1]):
            nursery.start_soon(enter, number, count)
            await trio.testing.wait_all_tasks_blocked()
        room.leave(50, 500)
        await trio.testing.wait_all_tasks_blocked()
        assert (order, room.waiting) == ([0], 2)
        room.leave(10, 1)
        await trio.testing.wait_all_tasks_blocked()
        assert (sorted(order), room.waiting) == ([0, 1, 2], 0)


@injected_time
async def test_who_would_fit_waits_behind_who_does_not_but_for_who_is_inside_and_needs_more() -> None:
    room = Room(10, 100)
    await room.enter(4, 60)
    assert (room.fits(6, 40), room.fits(7, 40), room.fits(6, 41)) == (True, False, False)
    await room.enter(1, 40)
    order: list[str] = []

    async def enter(name: str, count: int, *, first: bool = False) -> None:
        await room.enter(count, 0, first=first)
        order.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(enter, "large", 9)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(enter, "small", 1)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(lambda: enter("inside, large", 6, first=True))
        nursery.start_soon(lambda: enter("inside", 2, first=True))
        await trio.testing.wait_all_tasks_blocked()
        assert (room.waiting, order) == (3, ["inside"])
        room.leave(4, 60)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert order == ["inside", "inside, large"]


@injected_time
async def test_when_the_first_in_line_gives_up_those_behind_it_may_enter() -> None:
    room = Room(10, 100)
    await room.enter(5, 5)
    async with trio.open_nursery() as nursery:

        async def give_up() -> None:
            with trio.move_on_after(1):
                await room.enter(9, 1)

        nursery.start_soon(give_up)
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(2):
            await room.enter(5, 5)
    assert (room.count, room.bytes, room.waiting) == (10, 10, 0)


@injected_time
async def test_one_who_is_let_in_and_cancelled_in_the_same_moment_gives_the_room_back() -> None:
    room = Room(1, 100)
    await room.enter(1, 1)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(room.enter, 1, 1)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            room.leave(1, 1)
    assert (room.count, room.bytes, room.waiting) == (0, 0, 0)


@pytest.mark.parametrize("seed", range(60))
@injected_time
async def test_a_room_is_never_overfull_serves_in_order_and_ends_empty(seed: int) -> None:
    rng = random.Random(seed)
    room = Room(rng.randint(1, 10), rng.randint(10, 100))
    came: list[int] = []
    entered: list[int] = []
    inside: dict[int, tuple[int, int]] = {}

    def check() -> None:
        assert room.count == sum(count for count, _ in inside.values())
        assert room.bytes == sum(size for _, size in inside.values())
        assert len(inside) <= 1 or (room.count <= room.count_max and room.bytes <= room.bytes_max)

    async def visit(number: int) -> None:
        count, size = rng.randint(1, 6), rng.randint(0, 60)
        came.append(number)
        with trio.move_on_after(rng.expovariate(0.3)):
            await room.enter(count, size)
            entered.append(number)
            inside[number] = (count, size)
        if number in inside:
            with trio.CancelScope(shield=True):
                await trio.sleep(rng.random() * 3)
            del inside[number]
            room.leave(count, size)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for number in range(60):
            nursery.start_soon(visit, number)
            await trio.testing.wait_all_tasks_blocked()
            check()
            await trio.sleep(rng.random())
    assert (room.count, room.bytes, room.waiting, inside) == (0, 0, 0, {})
    assert len(came) == 60


@pytest.mark.parametrize("seed", range(40))
@injected_time
async def test_admission_gives_all_room_back_whatever_callers_and_the_disk_do(seed: int) -> None:
    rng = random.Random(seed)
    world = World(ops_max=rng.randint(1, 20), bytes_max=rng.randint(1, 200), mailbox_max=rng.randint(1, 5))

    async def call() -> None:
        with trio.move_on_after(rng.expovariate(0.3)):
            await world.submit(rng.randint(1, 8), rng.randint(1, 100))

    async def persist() -> None:
        while True:
            with trio.move_on_after(rng.expovariate(0.5)):
                refusing = DiskFailed("EIO") if rng.random() < 0.3 else None
                await world.persist(refusing=refusing, takes_s=rng.random() * rng.choice([0, 1, 8]))

    async with trio.open_nursery() as disk:
        disk.start_soon(persist)
        async with trio.open_nursery() as callers:
            for _ in range(50):
                callers.start_soon(call)
                await trio.sleep(rng.random())
        await trio.sleep(200)
        disk.cancel_scope.cancel()
    assert world.waiting() == (0, 0, 0)


@injected_time
async def test_while_time_is_kept_callers_are_refused_in_time_without_a_timer_of_their_own() -> None:
    world = World()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.admission.keep_time)
        await trio.testing.wait_all_tasks_blocked()
        started = trio.current_time()
        for _ in range(3):
            nursery.start_soon(world.submit)
        await trio.testing.wait_all_tasks_blocked()
        assert world.waiting() == (3, 30, 0)
        while len(world.outcomes) < 3:
            await trio.testing.wait_all_tasks_blocked()
            await trio.sleep(0.1)
        assert 5.0 <= trio.current_time() - started <= 5.4
        assert [world.admission.overdue] == [True]
        nursery.start_soon(world.persist)
        await trio.testing.wait_all_tasks_blocked()
        assert world.waiting() == (0, 0, 0)
        assert [world.admission.overdue] == [False]
        nursery.cancel_scope.cancel()
    assert world.outcomes == ["waited 5 s; nothing was stored"] * 3


@injected_time
async def test_while_time_is_kept_answers_come_and_room_is_given_back() -> None:
    world = World(ops_max=4)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.admission.keep_time)
        nursery.start_soon(lambda: world.persist(takes_s=0.5))
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(8):
            nursery.start_soon(world.submit)
        await trio.sleep(4.5)
        nursery.cancel_scope.cancel()
    assert world.outcomes == [Receipts(range(1, 2))] * 8
    assert world.waiting() == (0, 0, 0)


class Caller:
    """Counts how often it is told, and holds what it waits for, as callers do."""

    def __init__(self) -> None:
        self.told = 0
        self.submission: Submission | None = None

    def tell(self) -> None:
        self.told += 1


@injected_time
async def test_a_caller_is_told_once_and_forgotten_also_when_the_disk_answers_after_it_was_refused() -> None:
    world, caller = World(), Caller()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.admission.keep_time)
        nursery.start_soon(lambda: world.persist(takes_s=8))
        await trio.testing.wait_all_tasks_blocked()
        submission = world.admission.offer(ops(1, 1), 10, caller.tell)
        assert submission is not None
        caller.submission = submission
        await trio.sleep(6)
        assert (caller.told, submission.finished) == (1, False)
        forgotten = weakref.ref(caller)
        await trio.sleep(3)
        assert (caller.told, submission.finished) == (1, True)
        del caller
        assert forgotten() is None, "without a search for garbage"
        nursery.cancel_scope.cancel()


@injected_time
async def test_when_nobody_keeps_time_any_more_nobody_waits_for_ever() -> None:
    world = World()
    async with trio.open_nursery() as nursery, trio.open_nursery() as keeping:
        keeping.start_soon(world.admission.keep_time)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(world.submit)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(world.submit)
        keeping.cancel_scope.cancel()
    assert world.outcomes == ["waited 5 s; nothing was stored"] * 2


@pytest.mark.parametrize("mib_per_second", [0.2, 0.5, 2.0, 20.0])
@injected_time
async def test_what_is_let_in_is_what_the_disk_takes_in_time(mib_per_second: float) -> None:
    world = World(ops_max=50_000, bytes_max=12 * MIB, mailbox_max=10_000)
    stored = 0

    async def call() -> None:
        while True:
            await world.submit(1, MIB // 10)
            await trio.sleep(0.5)

    async def persist() -> None:
        nonlocal stored
        while True:
            async with world.mailbox.take(10_000, weight_max=2 * MIB) as submissions:
                taken = [submission for submission in submissions if not submission.withdrawn]
                for submission in submissions:
                    submission.taken = not submission.withdrawn
                    if submission.withdrawn:
                        submission.drop()
                await trio.sleep(0.01 + sum(submission.weight for submission in taken) / (mib_per_second * MIB))
                for submission in taken:
                    submission.accept()
                stored += len(taken)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.admission.keep_time)
        nursery.start_soon(persist)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(200):
            nursery.start_soon(call)
        await trio.sleep(30)
        world.outcomes.clear()
        before, stored = world.admission.statistics(), 0
        await trio.sleep(120)
        nursery.cancel_scope.cancel()
    answered = sum(isinstance(outcome, Receipts) for outcome in world.outcomes)
    assert stored >= 0.9 * mib_per_second * 10 * 120, "the disk is never idle"
    assert answered >= 0.95 * stored - 5, f"{answered} of {stored} were answered in time"
    assert (before.waiting_bytes_max == 12 * MIB) == (mib_per_second == 20.0)


@injected_time
async def test_a_turn_that_does_not_come_in_time_is_refused_and_a_long_one_is_given_back_whatever_ends_it() -> None:
    turns = Turns(1, "no turn")
    told: list[object] = []

    async def take(takes_s: float) -> None:
        try:
            async with turns:
                with trio.fail_after(takes_s):
                    await trio.sleep_forever()
        except (Overloaded, trio.TooSlowError) as error:
            told.append((trio.current_time() - began, str(error)))

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take, TURN_S + 1)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(take, 1)
        await trio.sleep(TURN_S + 0.5)
        nursery.start_soon(take, 1)
    assert told == [(TURN_S, "no turn within 5 s"), (TURN_S + 1, ""), (TURN_S + 2, "")]
