"""When the consolidator has its turn. What it makes of the ops is tested in `test_playbook`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec
import pytest
import structlog
import trio
from trio.testing import MockClock

from observer_actors.actors.commits import LULL_S, Commits
from observer_actors.actors.consolidator import (
    AHEAD_MAX,
    FORGET_S,
    LOOK_AT_LOAD_S,
    MANY_A_COMMIT,
    PAUSE_S,
    TURN_S,
    Consolidator,
)
from observer_actors.actors.cycle import Cycle
from observer_actors.actors.learned import Learned
from observer_actors.op import Op
from observer_actors.playbook import Action, Corroboration, Decision, Entry, Kind, Of, Playbook, Revocation, Row, State
from observer_actors.playbook.deltas import Delta
from observer_actors.playbook.entries import Mark, entry_id
from observer_actors.playbook.fold import REVOCATIONS_MAX
from observer_actors.settings import GatewaySettings
from observer_actors.store import Shelf, StoreBusy
from observer_actors.supervision import Life
from tests.actors.ops import Journal
from tests.playbook_ops import call, decided, numbered, revoked

RATE: Final = 2_000
"""Many events a second."""
OPS_A_TURN: Final = 10
LINGER_S: Final = 0.02


class BusyLearned(Learned):
    """The real one, whose file may be busy when the playbook is saved."""

    is_busy = False

    async def save_playbook(self, rows: Sequence[Row], seq: int, *, whole: bool = False) -> None:
        if self.is_busy:
            raise StoreBusy("locked")
        await super().save_playbook(rows, seq, whole=whole)


class Poisoned(Exception):
    """An op makes the consolidator crash."""


class World:
    """A journal, its commits, and a consolidator for which an op takes a tenth of its turn."""

    def __init__(self, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = MockClock(autojump_threshold=0)
        self.journal = Journal()
        self.aside: list[int] = []
        self.commits = Commits(self.journal.following, crashes_max=3, set_aside=self._set_aside)
        self.feed = self.commits.feed("consolidator", linger_s=LINGER_S)
        self.data_dir = data_dir
        self.turns = 0
        take = Playbook.take

        def take_for_a_while(playbook: Playbook, op: Op) -> list[Delta]:
            self.clock.jump(TURN_S / OPS_A_TURN)
            return take(playbook, op)

        def take_a_turn(*arguments: object) -> int:
            self.turns += 1
            return turn(*arguments)  # type: ignore[arg-type]

        turn = Consolidator._take  # noqa: SLF001 - whenever it is its turn
        monkeypatch.setattr(Playbook, "take", take_for_a_while)
        monkeypatch.setattr(Consolidator, "_take", take_a_turn)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Consolidator]:
        learned = Learned(self.data_dir, GatewaySettings(url="http://gateway"), log=structlog.get_logger())
        consolidator = self.consolidator(learned)
        async with self.incarnation(consolidator):
            yield consolidator
        await learned.close()

    def consolidator(self, learned: Learned) -> Consolidator:
        cycle, log = Cycle(lambda: 1_000.0), structlog.get_logger()
        return Consolidator(
            self.feed, learned, Shelf(), cycle, self.journal.following, every=1, log=log, corroboration=Corroboration()
        )

    @asynccontextmanager
    async def incarnation(self, consolidator: Consolidator) -> AsyncIterator[None]:
        """Run it once, as the supervisor would."""
        async with trio.open_nursery() as nursery:
            life = Life("consolidator", 1, on_progress=lambda: None, on_step=lambda _name, _step: None)
            nursery.start_soon(consolidator.run, life)
            await life.wait_ready()
            yield
            nursery.cancel_scope.cancel()

    async def supervised(self, consolidator: Consolidator, is_done: Callable[[], bool]) -> int:
        """Run it, again after each crash, until something is so; give how often it has crashed."""
        for crashes in range(10):
            try:
                async with self.incarnation(consolidator):
                    while not is_done():  # noqa: ASYNC110 - nothing tells
                        await trio.sleep(0.1)
                    return crashes
            except* Poisoned:
                pass
        raise AssertionError("it crashes for ever")

    async def _set_aside(self, _consumer: str, op: Op, _crashes: int) -> None:
        self.aside.append(op.seq)

    async def revoke(self, consolidator: Consolidator, source: str) -> None:
        """Write down, as the API does, that a source is taken back, and wait until the playbook has taken it in."""
        seq = len(self.journal.ops) + 1
        self.journal.ops += numbered([revoked(Of.SOURCE, source)], first=seq)
        self.commits.publish(self.journal.ops[-1:])
        consolidator.expect(Revocation(of=Of.SOURCE, name=source, seq=seq))
        await consolidator.reached(seq)

    async def events(self, per_second: int, seconds: float, *, at_once: int = 1) -> None:
        """Commit events, each by itself; then there is a lull."""
        for _ in range(int(per_second * seconds / at_once)):
            for _ in range(at_once):
                self.commits.publish(self.journal.append(1))
            self.commits.lull()
            await trio.sleep(at_once / per_second)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_nothing_is_handed_out_before_it_is_known_how_far_the_journal_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that refuses may put off its opening; what stands in it may revoke what the saved playbook holds."""
    world = World(tmp_path, monkeypatch)
    entry = Entry(id="e", kind=Kind.DO, endpoint="/x", about="", text="", corroborated=True, succeeded=10)

    async def main() -> None:
        async with world.running() as consolidator:
            before = consolidator.hands_out(entry)
            world.journal.append(1)
            world.commits.resume(1)
            await consolidator.reached(1)
            assert (before, consolidator.hands_out(entry)) == (False, True)

    trio.run(main, clock=world.clock)


def test_what_was_revoked_is_handed_out_no_more_also_while_an_older_playbook_is_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash before the save: in the store the revocation is still to come, and was taken in in memory."""
    world = World(tmp_path, monkeypatch)
    world.journal.ops += numbered(call(run=f"r{n}", source=source) for n in range(6) for source in ("mcp", "bot"))
    count = len(world.journal.ops)
    learned = BusyLearned(tmp_path, GatewaySettings(), log=structlog.get_logger())
    consolidator = world.consolidator(learned)
    seen: set[bool] = set()

    async def look(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        while True:
            seen.add(handed_out())
            await trio.lowlevel.checkpoint()

    def handed_out() -> bool:
        return any(map(consolidator.hands_out, consolidator.entries.values()))

    async def main() -> None:
        world.commits.resume(count)
        async with world.incarnation(consolidator):
            await consolidator.reached(count)
            assert handed_out()
        learned.is_busy = True
        with pytest.RaisesGroup(StoreBusy, flatten_subgroups=True):
            async with world.incarnation(consolidator):
                await world.revoke(consolidator, "bot")
                await world.revoke(consolidator, "another")
                assert not handed_out()
                await trio.sleep_forever()
        learned.is_busy = False
        async with trio.open_nursery() as nursery:
            await nursery.start(look)
            async with world.incarnation(consolidator):
                await consolidator.reached(count + 2)
            nursery.cancel_scope.cancel()
        await learned.close()

    trio.run(main, clock=world.clock)
    assert seen == {False}


@pytest.mark.parametrize(
    ("actions", "mark"),
    [
        ([Action.WITHHOLD], Mark.WITHHELD),
        ([Action.RETIRE], Mark.RETIRED),
        ([Action.PIN], Mark.PINNED),
        ([Action.PIN, Action.UNPIN], Mark.NONE),
        ([Action.WITHHOLD, Action.UNPIN], Mark.WITHHELD),
        ([Action.RETIRE, Action.RELEASE], Mark.NONE),
        ([Action.NOTE], Mark.NONE),
    ],
)
def test_a_decision_holds_at_once_however_far_the_playbook_is_behind_and_is_what_it_comes_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, actions: list[Action], mark: Mark
) -> None:
    world = World(tmp_path, monkeypatch)
    world.journal.ops += numbered(call(run=f"r{n}", source=source) for n in range(6) for source in ("mcp", "bot"))
    key, known = entry_id(Kind.DO, "sql:run"), len(world.journal.ops)

    async def main() -> None:
        world.commits.resume(known)
        async with world.running() as consolidator:
            await consolidator.reached(known)
            backlog = [
                *(call("filler") for _ in range(1_000)),
                *(decided(Decision(action=a, entry=key)) for a in actions),
            ]
            world.journal.ops += numbered(backlog, first=known + 1)
            world.commits.publish(world.journal.ops[known:])
            end = len(world.journal.ops)
            for seq, action in enumerate(actions, start=end - len(actions) + 1):
                consolidator.expect(Decision(action=action, entry=key, seq=seq))
            assert consolidator.playbook.cursor == known
            at_once, is_handed_out = how_it_stands(consolidator, key), mark in {Mark.NONE, Mark.PINNED}
            await consolidator.reached(end)
            assert how_it_stands(consolidator, key) == at_once == (mark, State.CANDIDATE, is_handed_out, is_handed_out)

    trio.run(main, clock=world.clock)


def how_it_stands(consolidator: Consolidator, key: str) -> tuple[Mark, State, bool, bool]:
    entry = consolidator.entry(key)
    assert entry is not None
    return entry.mark, entry.state, entry.available, consolidator.hands_out(consolidator.entries[key])


def test_what_a_trial_has_withheld_is_handed_out_again_as_soon_as_a_person_has_released_it(world: World) -> None:
    key = entry_id(Kind.DO, "sql:run")
    withheld = Entry(
        id=key, kind=Kind.DO, endpoint="sql:run", about="", text="", corroborated=True, state=State.WITHHELD
    )

    async def main() -> None:
        world.journal.append(1)
        world.commits.resume(1)
        async with world.running() as consolidator:
            await consolidator.reached(1)
            assert not consolidator.hands_out(withheld)
            consolidator.expect(Decision(action=Action.RELEASE, entry=key, seq=2))
            assert consolidator.as_decided(withheld).state is State.CANDIDATE
            assert consolidator.hands_out(withheld)

    trio.run(main, clock=world.clock)


def test_a_decision_too_many_has_to_wait_until_the_playbook_has_taken_others_in(world: World) -> None:
    async def main() -> None:
        world.commits.resume(0)
        async with world.running() as consolidator:
            for seq in range(1, AHEAD_MAX + 1):
                assert consolidator.expects_more
                consolidator.expect(Decision(action=Action.PIN, entry="e", seq=seq))
            assert not consolidator.expects_more
            world.commits.publish(world.journal.append(1))
            await consolidator.reached(1)
            assert consolidator.expects_more

    trio.run(main, clock=world.clock)


@pytest.mark.parametrize("is_known", [True, False])
def test_an_op_that_cannot_be_taken_in_does_not_keep_the_playbook_from_being_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_known: bool
) -> None:
    """Also where it has become so only now, as by another version, or was set aside by an earlier process."""
    world = World(tmp_path, monkeypatch)
    world.journal.ops += numbered(call(run=f"r{n}", source=source) for n in range(6) for source in ("mcp", "bot"))
    poison, count = 5, len(world.journal.ops)
    learned = Learned(tmp_path, GatewaySettings(), log=structlog.get_logger())
    consolidator = world.consolidator(learned)
    take, is_poisoned = Playbook.take, is_known

    def take_or_crash(playbook: Playbook, op: Op) -> list[Delta]:
        if is_poisoned and op.seq == poison:
            playbook.cursor = op.seq
            raise Poisoned
        return take(playbook, op)

    monkeypatch.setattr(Playbook, "take", take_or_crash)

    async def main() -> None:
        nonlocal is_poisoned
        world.commits.resume(count)
        before = await world.supervised(consolidator, lambda: consolidator.playbook.cursor == count)
        is_poisoned = True
        world.journal.ops += numbered([revoked(Of.SOURCE, "mcp")], first=count + 1)
        world.commits.publish(world.journal.ops[-1:])
        crashes = await world.supervised(consolidator, lambda: bool(consolidator.playbook.passed_over))
        await learned.close()
        assert (world.aside, before, crashes) == ([poison], 4 if is_known else 0, 0 if is_known else 3)

    trio.run(main, clock=world.clock)
    assert [one.sources for one in consolidator.entries.values()] == [("bot",)]


def test_what_is_forgotten_without_a_new_op_is_saved_too(world: World) -> None:
    old = [call("old", run=f"r{n}", source=source) for n in range(6) for source in ("mcp", "bot")]
    world.journal.ops += numbered([*old, *(msgspec.structs.replace(op, endpoint="new") for op in old)])
    learned = Learned(world.data_dir, GatewaySettings(), log=structlog.get_logger())

    async def main() -> None:
        world.commits.resume(len(world.journal.ops))
        async with world.incarnation(world.consolidator(learned)):
            await trio.sleep(FORGET_S / 2)
            world.journal.deleted = set(range(1, len(old) + 1))
            before = await endpoints_saved(learned)
            await trio.sleep(FORGET_S)
            assert (before, await endpoints_saved(learned)) == ({"old", "new"}, {"new"})
        await learned.close()

    trio.run(main, clock=world.clock)


async def endpoints_saved(learned: Learned) -> set[str]:
    return {entry.endpoint for entry in (await learned.load_playbook()).entries.values()}


def test_a_revocation_too_many_finds_no_room_unless_it_takes_the_place_of_an_earlier_one(world: World) -> None:
    def of(name: str, since: str = "", seq: int = 0) -> Revocation:
        return Revocation(of=Of.RUN, name=name, since=since, seq=seq)

    async def main() -> None:
        world.journal.ops += numbered(decided(of(f"r{n}")) for n in range(REVOCATIONS_MAX - 1))
        world.commits.resume(REVOCATIONS_MAX - 1)
        async with world.running() as consolidator:
            await consolidator.reached(REVOCATIONS_MAX - 1)
            assert consolidator.has_room_for(of("other"))
            world.journal.ops += numbered([decided(of("last"))], first=REVOCATIONS_MAX)
            world.commits.last_seq = REVOCATIONS_MAX
            consolidator.expect(of("last", seq=REVOCATIONS_MAX))
            asked = [of("other"), of("r7"), of("last"), of("r7", since="2026-11-22T10:00:00Z")]
            assert [consolidator.has_room_for(one) for one in asked] == [False, True, True, False]

    trio.run(main, clock=world.clock)


def test_a_backlog_is_taken_in_without_waiting_while_few_events_come(world: World) -> None:
    backlog = 2_000

    async def main() -> None:
        world.journal.append(backlog)
        world.commits.resume(backlog)
        began = trio.current_time()
        async with world.running(), trio.open_nursery() as nursery:
            nursery.start_soon(world.events, 20, 10.0)
            await world.feed.reached(backlog)
            took = trio.current_time() - began
            nursery.cancel_scope.cancel()
        assert took < 1.1 * backlog / OPS_A_TURN * TURN_S

    trio.run(main, clock=world.clock)


@pytest.mark.parametrize("at_once", [1, MANY_A_COMMIT])
def test_while_many_events_come_it_has_one_turn_in_each_lull_and_fewer_where_many_share_it(
    world: World, at_once: int
) -> None:
    rate, backlog, seconds = RATE * at_once, 20_000, 0.2

    async def main() -> None:
        world.journal.append(backlog)
        world.commits.resume(backlog)
        async with world.running():
            await world.events(rate, 4 * LOOK_AT_LOAD_S, at_once=at_once)
            world.turns, lulls = 0, world.commits.lulls
            await world.events(rate, seconds, at_once=at_once)
            possible = world.commits.lulls - lulls if at_once == 1 else seconds / PAUSE_S
            assert 0.5 * possible <= world.turns <= possible + seconds / LULL_S
            assert world.feed.statistics().behind > 0

    trio.run(main, clock=world.clock)


def test_many_events_that_are_a_commit_each_are_taken_in_together(world: World) -> None:
    """Or it would take in one in each lull, and never make up for a lull that it has missed."""
    rate = RATE

    async def main() -> None:
        world.commits.resume(0)
        async with world.running():
            await world.events(rate, 1.0, at_once=3)
            assert world.feed.statistics().behind <= rate * (LINGER_S + LULL_S)

    trio.run(main, clock=world.clock)
