"""Blocking calls that take turns."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from tests.simulation.turns import TurnLock, Turns, pause
from tests.supervision.injected_time import injected_time


@asynccontextmanager
async def turns(*, interleaved: bool = True) -> AsyncIterator[Turns]:
    """Give turns in which each pause takes a second."""
    async with trio.open_nursery() as nursery:
        made = Turns(nursery, lambda: 1.0, lambda: interleaved, lambda: None)
        yield made
    made.close()


@injected_time
async def test_calls_come_between_each_other_where_they_pause_and_nowhere_else() -> None:
    seen: list[str] = []

    def call(name: str) -> None:
        for step in range(2):
            seen.append(f"{name}{step}")
            pause()

    async with turns() as taking, trio.open_nursery() as nursery:
        nursery.start_soon(taking.in_thread, lambda: call("a"))
        await trio.sleep(0.5)
        nursery.start_soon(taking.in_thread, lambda: call("b"))
    assert seen == ["a0", "b0", "a1", "b1"]
    assert trio.current_time() == 4.5  # before, twice between, after


@injected_time
async def test_a_call_that_is_not_interleaved_runs_in_one_piece() -> None:
    async with turns(interleaved=False) as taking:
        await taking.in_thread(pause)
    assert trio.current_time() == 2


@injected_time
async def test_what_a_call_raises_is_raised_to_who_waits_for_it() -> None:
    async with turns() as taking:
        with pytest.raises(ZeroDivisionError):
            await taking.in_thread(lambda: 1 // 0)


@injected_time
async def test_who_is_cancelled_waits_for_the_end_of_its_call_unless_it_abandons_it() -> None:
    ended: list[int] = []

    def call() -> None:
        pause()
        ended.append(1)

    async def wait(taking: Turns, *, abandon: bool) -> None:
        with trio.move_on_after(0.5):
            await taking.in_thread(call, abandon_on_cancel=abandon)

    async with turns() as taking:
        await wait(taking, abandon=False)
        assert trio.current_time() == 3
        await wait(taking, abandon=True)
        assert trio.current_time() == 3.5
    assert len(ended) == 2


@injected_time
async def test_a_lock_holds_up_other_calls_but_the_event_loop_only_until_the_holder_lets_go() -> None:
    lock = TurnLock()
    seen: list[str] = []

    def call(name: str) -> None:
        with lock:
            seen.append(f"{name} in")
            pause()
            seen.append(f"{name} out")

    async with turns() as taking, trio.open_nursery() as nursery:
        for name in "ab":
            nursery.start_soon(taking.in_thread, lambda name=name: call(name))
        await trio.sleep(1.5)
        with lock:
            seen.append("loop")
    assert seen[:3] in (["a in", "a out", "loop"], ["b in", "b out", "loop"])
    assert sorted(seen[3:]) in (["a in", "a out"], ["b in", "b out"])


@injected_time
async def test_at_the_end_of_a_process_no_call_stays_under_way() -> None:
    ended: list[int] = []

    def call(number: int) -> None:
        for _ in range(number):
            pause()
        ended.append(number)

    async with turns() as taking, trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(taking.in_thread, lambda number=number: call(number))
        await trio.sleep(0.5)
        taking.end()
        assert sorted(ended) == [0, 1, 2]
        assert trio.current_time() == 0.5
