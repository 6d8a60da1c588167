"""What an actor knows is saved at its end, but not after a crash, which may have left an op half taken in."""

from __future__ import annotations

import pytest
import structlog
import trio
from trio.testing import MockClock

from observer_actors.actors.saving import saved
from observer_actors.supervision import Life


class Actor:
    """Takes in an op every second, in two steps; saves every 10 s."""

    def __init__(self, crashes_at: int = 0, error: type[BaseException] = RuntimeError) -> None:
        self.crashes_at = crashes_at
        self.error = error
        self.known = [0, 0]
        self.disk = [0, 0]

    async def save(self) -> None:
        await trio.lowlevel.checkpoint()
        self.disk = list(self.known)

    async def run(self) -> None:
        log = structlog.get_logger()
        life = Life("actor", 1, on_progress=lambda: None, on_step=lambda _name, _step: None)
        async with saved(self.save, life, every_s=10, budget_s=1, log=log) as nursery:
            nursery.start_soon(self.take_in)

    async def take_in(self) -> None:
        for op in range(1, 26):
            await trio.sleep(1)
            self.known[0] = op
            if op == self.crashes_at:
                raise self.error("in the midst of it")
            self.known[1] = op


async def test_at_the_end_all_is_saved(autojump_clock: MockClock) -> None:
    actor = Actor()
    with trio.move_on_after(100):
        await actor.run()
    assert actor.disk == [25, 25]
    assert autojump_clock.current_time() == 100


async def test_who_is_stopped_saves_what_it_knows(autojump_clock: MockClock) -> None:
    actor = Actor()
    with trio.move_on_after(17.5):
        await actor.run()
    assert actor.disk == [17, 17]
    assert autojump_clock.current_time() == 17.5


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
async def test_a_crash_leaves_what_was_saved_before(autojump_clock: MockClock, error: type[BaseException]) -> None:
    actor = Actor(crashes_at=17, error=error)
    with pytest.RaisesGroup(error, flatten_subgroups=True):
        await actor.run()
    assert actor.known == [17, 16]
    assert actor.disk == [10, 10]
    assert autojump_clock.current_time() == 17
