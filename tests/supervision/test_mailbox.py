from __future__ import annotations

import random

import pytest
import trio
import trio.testing

from observer_actors.supervision import Drained, Events, Mailbox, MessageRedelivered
from tests.supervision.injected_time import injected_time


class Box:
    """A mailbox whose quarantine is a list."""

    def __init__(self, bound: int = 100, crashes_max: int = 3) -> None:
        self.aside: list[tuple[int, int]] = []
        self.events = Events()
        self.mailbox: Mailbox[int] = Mailbox(
            "a", bound, events=self.events, crashes_max=crashes_max, set_aside=self._set_aside
        )

    async def _set_aside(self, message: int, crashes: int) -> None:
        self.aside.append((message, crashes))

    async def crash(self, most: int = 1) -> list[int]:
        held: list[int] = []
        with pytest.raises(ValueError, match="crashed"):  # noqa: PT012 - the crash is inside
            async with self.mailbox.take(most) as messages:
                held = list(messages)
                raise ValueError("crashed")
        await self.mailbox.open()
        return held

    async def take(self, most: int = 1) -> list[int]:
        async with self.mailbox.take(most) as messages:
            return list(messages)


@injected_time
async def test_what_was_in_hand_at_a_crash_comes_again_singly_and_in_order() -> None:
    box = Box()
    for message in range(5):
        box.mailbox.put_nowait(message)
    assert await box.crash(most=3) == [0, 1, 2]
    assert box.mailbox.in_hand == (0, 1, 2)
    assert [await box.take(9) for _ in range(4)] == [[0], [1], [2], [3, 4]]
    assert box.events.recent() == (MessageRedelivered(actor="a", messages=3),)


@injected_time
async def test_a_message_alone_in_hand_at_n_crashes_is_set_aside() -> None:
    box = Box(crashes_max=3)
    for message in range(3):
        box.mailbox.put_nowait(message)
    await box.crash(most=3)
    assert await box.take() == [0]
    assert [await box.crash() for _ in range(3)] == [[1]] * 3
    assert box.aside == [(1, 3)]
    assert await box.take() == [2]


@injected_time
async def test_a_success_between_crashes_begins_the_count_anew() -> None:
    box = Box(crashes_max=2)
    for message in range(2):
        box.mailbox.put_nowait(message)
    await box.crash()
    assert await box.take() == [0]
    await box.crash()
    assert box.aside == []


@pytest.mark.parametrize("in_nursery", [False, True])
@injected_time
async def test_being_cancelled_is_no_crash_also_inside_a_nursery(*, in_nursery: bool) -> None:
    box = Box(crashes_max=1)
    for message in range(2):
        box.mailbox.put_nowait(message)
    with trio.move_on_after(1):
        async with box.mailbox.take(2):
            if in_nursery:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(trio.sleep_forever)
                    await trio.sleep_forever()
            await trio.sleep_forever()
    await box.mailbox.open()
    assert (box.aside, box.events.recent()) == ([], ())
    assert [await box.take(), await box.take()] == [[0], [1]]


@injected_time
async def test_an_error_on_the_way_out_of_a_cancellation_is_a_crash() -> None:
    box = Box(crashes_max=1)
    box.mailbox.put_nowait(7)
    with pytest.raises(ValueError, match="dirty"), trio.move_on_after(1):  # noqa: PT012 - the crash is inside
        async with box.mailbox.take():
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("dirty")
    await box.mailbox.open()
    assert box.aside == [(7, 1)]


@injected_time
async def test_so_is_an_error_beside_a_cancellation_inside_a_nursery() -> None:
    async def fails() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("dirty")

    box = Box(crashes_max=1)
    box.mailbox.put_nowait(7)
    with pytest.RaisesGroup(ValueError), trio.move_on_after(1):
        async with box.mailbox.take(), trio.open_nursery() as nursery:
            nursery.start_soon(fails)
            await trio.sleep_forever()
    await box.mailbox.open()
    assert box.aside == [(7, 1)]


@injected_time
async def test_what_cannot_be_set_aside_stays_in_hand() -> None:
    tries = 0

    async def fail_once(_message: int, _crashes: int) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise OSError("disk")

    mailbox: Mailbox[int] = Mailbox("a", 1, events=Events(), crashes_max=1, set_aside=fail_once)
    mailbox.put_nowait(7)
    with pytest.raises(ValueError, match="crashed"):
        async with mailbox.take():
            raise ValueError("crashed")
    with pytest.raises(OSError, match="disk"):
        await mailbox.open()
    assert list(mailbox.in_hand) == [7]
    await mailbox.open()
    assert (list(mailbox.in_hand), tries) == ([], 2)


@injected_time
async def test_a_drained_mailbox_gives_what_is_left_then_ends() -> None:
    box = Box()
    for message in range(2):
        box.mailbox.put_nowait(message)
    box.mailbox.drain()
    assert [await box.take(), await box.take()] == [[0], [1]]
    with pytest.raises(Drained):
        await box.take()


@injected_time
async def test_what_comes_as_the_drain_begins_is_not_left_behind() -> None:
    box = Box()
    taken: list[int] = []

    async def consume() -> None:
        try:
            while True:
                taken.extend(await box.take())
        except Drained:
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(consume)
        await trio.testing.wait_all_tasks_blocked()
        box.mailbox.drain()
        box.mailbox.put_nowait(7)
    assert taken == [7]


@injected_time
async def test_senders_wait_at_the_bound_and_put_nowait_raises() -> None:
    box = Box(bound=1)
    await box.mailbox.put(1)
    with pytest.raises(trio.WouldBlock):
        box.mailbox.put_nowait(2)
    with trio.move_on_after(1) as scope:
        await box.mailbox.put(2)
    assert scope.cancelled_caught
    assert await box.take(5) == [1]


@injected_time
async def test_a_batch_stops_at_its_weight() -> None:
    class Heavy:
        weight = 4

    mailbox: Mailbox[Heavy] = Mailbox("a", 10, events=Events(), crashes_max=1, set_aside=Box()._set_aside)  # type: ignore[arg-type]  # noqa: SLF001
    for _ in range(5):
        mailbox.put_nowait(Heavy())
    async with mailbox.take(10, weight_max=8) as messages:
        assert len(messages) == 2


@pytest.mark.parametrize("seed", range(60))
@injected_time
async def test_every_message_is_handled_once_in_order_unless_quarantined(  # noqa: C901 - a world in one place
    seed: int,
) -> None:
    """An actor that crashes, is cancelled and is restarted at random, against the list of what was sent."""
    rng = random.Random(seed)
    crashes_max = rng.randint(1, 4)
    box = Box(bound=rng.randint(1, 8), crashes_max=crashes_max)
    poison = {message for message in range(60) if rng.random() < 0.08}
    handled: list[int] = []
    over = False

    async def incarnation() -> None:
        await box.mailbox.open()
        while True:
            async with box.mailbox.take(rng.randint(1, 6)) as messages:
                if rng.random() < 0.5:
                    await trio.sleep(rng.random())
                if poison.intersection(messages):
                    raise ValueError("poison")
                if len(messages) > 1 and rng.random() < 0.1:
                    raise ValueError("bad luck")
                handled.extend(messages)

    async def supervise() -> None:
        nonlocal over
        while not over:
            with trio.move_on_after(rng.expovariate(0.5)):
                try:
                    await incarnation()
                except ValueError:
                    continue
                except Drained:
                    over = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervise)
        for message in range(60):
            await box.mailbox.put(message)
            if rng.random() < 0.3:
                await trio.sleep(rng.random())
        await trio.sleep(600)
        over = True
        box.mailbox.drain()
    assert handled == [message for message in range(60) if message not in poison]
    assert box.aside == [(message, crashes_max) for message in sorted(poison)]
