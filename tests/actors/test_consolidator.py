"""When the consolidator has its turn. What it makes of the ops is tested in `test_playbook`."""

from __future__ import annotations

from pathlib import Path

import structlog
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from observer_actors.actors.commits import LULL_S, OPS_AT_ONCE_MAX, Commits
from observer_actors.actors.consolidator import RECENT_S, Consolidator
from observer_actors.actors.cycle import Cycle
from observer_actors.actors.learned import Learned
from observer_actors.op import Op
from observer_actors.settings import GatewaySettings
from observer_actors.store import Shelf
from observer_actors.supervision import Life
from tests.actors.ops import Journal


async def _nothing_set_aside(_consumer: str, _op: Op, _crashes: int) -> None:
    raise AssertionError("nothing crashes here")


def test_while_events_come_in_it_has_one_turn_in_each_lull_and_afterwards_as_many_as_it_wants(tmp_path: Path) -> None:
    clock = MockClock()  # stands still: a turn ends where what is handed out at once does
    journal = Journal()
    commits = Commits(journal.read_block, crashes_max=3, set_aside=_nothing_set_aside)

    def taken() -> int:
        return consolidator.playbook.cursor // OPS_AT_ONCE_MAX

    async def follow() -> None:
        commits.publish(journal.append(6 * OPS_AT_ONCE_MAX))
        async with trio.open_nursery() as nursery:
            life = Life("consolidator", 1, on_progress=lambda: None, on_step=lambda _name, _step: None)
            nursery.start_soon(consolidator.run, life)
            await life.wait_ready()
            await wait_all_tasks_blocked()
            turns = [taken()]
            for _ in range(2):
                await wait_all_tasks_blocked()  # nothing more happens by itself
                commits.lull()
                await wait_all_tasks_blocked()
                turns.append(taken())
            clock.jump(LULL_S)  # the disk is given nothing: it goes on all the same
            await wait_all_tasks_blocked()
            turns.append(taken())
            clock.jump(RECENT_S)
            await wait_all_tasks_blocked()
            turns.append(taken())
            nursery.cancel_scope.cancel()
        await learned.close()
        assert turns == [1, 2, 3, 4, 6]

    learned = Learned(tmp_path, GatewaySettings(url="http://gateway"), log=structlog.get_logger())
    consolidator = Consolidator(
        commits.feed("consolidator"),
        learned,
        Shelf(),
        Cycle(lambda: 1_000.0),
        journal.read,
        every=1,
        log=structlog.get_logger(),
    )
    trio.run(follow, clock=clock)
