from __future__ import annotations

import pytest
import trio

from observer_actors.actors.cycle import Cycle
from tests.supervision.injected_time import injected_time


@pytest.mark.parametrize(("every", "numbers"), [(1, [1, 2, 3, 4, 5, 6, 7]), (3, [3, 6])])
@injected_time
async def test_each_gives_every_nth_cycle(every: int, numbers: list[int]) -> None:
    cycle, seen = Cycle(lambda: 10.0), list[int]()

    async def read() -> None:
        async for number in cycle.each(every):
            seen.append(number)

    with trio.move_on_after(75):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cycle.run)
            nursery.start_soon(read)
    assert seen == numbers


@injected_time
async def test_a_late_reader_skips_what_it_missed() -> None:
    cycle, seen = Cycle(lambda: 10.0), list[int]()

    async def read() -> None:
        async for number in cycle.each():
            seen.append(number)
            await trio.sleep(22)

    with trio.move_on_after(75):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cycle.run)
            nursery.start_soon(read)
    assert seen == [1, 3, 5]


@injected_time
async def test_a_changed_period_takes_effect_with_the_next_tick() -> None:
    period = 10.0
    cycle = Cycle(lambda: period)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cycle.run)
        await trio.sleep(5)
        period = 1.0
        await trio.sleep(8.5)
        assert cycle.number == 4
        nursery.cancel_scope.cancel()


@injected_time
async def test_a_changed_period_takes_effect_at_once_where_that_is_asked_for() -> None:
    period = 10.0
    cycle = Cycle(lambda: period)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cycle.run)
        await trio.sleep(5)
        period = 7.0
        cycle.reconsider()
        await trio.sleep(1.5)
        assert cycle.number == 0, "counted from the last tick, and not from the change"
        await trio.sleep(1)
        assert cycle.number == 1
        await trio.sleep(3.5)
        period = 1.0
        cycle.reconsider()
        await trio.sleep(0.1)
        assert cycle.number == 2, "it was due already"
        nursery.cancel_scope.cancel()
