"""What a person has said of a pattern, while it is being loaded."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import structlog
import trio
import trio.testing

from observer_actors.actors.learned import Learned
from observer_actors.actors.standings import Standings
from observer_actors.patterns import Action, Standing
from observer_actors.settings import FailuresSettings, GatewaySettings
from tests.actors.test_learned import PATTERN


async def test_what_a_person_asks_for_while_the_standings_are_loaded_is_done_afterwards(tmp_path: Path) -> None:
    """The analyzer has crashed, and its next incarnation goes on from the file."""
    loading, goes_on = trio.Event(), trio.Event()

    class Slow(Learned):
        async def load_standings(self) -> dict[str, Standing]:
            found = await super().load_standings()
            loading.set()
            await goes_on.wait()
            return found

    learned = Slow(tmp_path, GatewaySettings(), log=structlog.get_logger())
    standings = Standings(
        learned, FailuresSettings(), log=structlog.get_logger(), clock=lambda: 1_795_000_000.0, announce=lambda _: None
    )
    await learned.load_patterns()
    standings.review([PATTERN])
    await standings.save()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(standings.load)
        await loading.wait()
        nursery.start_soon(partial(standings.act, PATTERN, Action.MUTE, "", acknowledged_seq=7))
        await trio.testing.wait_all_tasks_blocked()
        goes_on.set()
    known = standings.get(PATTERN.id)
    assert known is not None
    assert known.muted
    assert (await learned.load_standings())[PATTERN.id] == known
    await learned.close()
