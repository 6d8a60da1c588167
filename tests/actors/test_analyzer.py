"""The analyzer over a real file, between steps that a daemon cannot be held at; time is the test's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from types import MappingProxyType
from typing import Any

import pytest
import structlog
import trio
import trio.testing
from structlog.testing import capture_logs
from trio.testing import MockClock

from observer_actors.actors.analyzer import Analyzer
from observer_actors.actors.commits import Commits
from observer_actors.actors.cycle import Cycle
from observer_actors.actors.learned import Learned
from observer_actors.actors.standings import UNSENT_MAX, Standings
from observer_actors.doubt import Doubts
from observer_actors.errors import DiskFailed, ObserverError
from observer_actors.journal import Stretch
from observer_actors.journal.format import recorded_us
from observer_actors.models import ModelFailed
from observer_actors.op import Op, Seq, iso_at
from observer_actors.patterns import Action, Diagnosis, Outgoing, Pattern, Standing, State, StateChanged, apply
from observer_actors.settings import FailuresSettings, GatewaySettings
from observer_actors.store import Lane, StoreBusy
from observer_actors.supervision import Life

CYCLE_S = 30.0
WAIT_S = 10.0
START_S = datetime(2026, 11, 22, 10, tzinfo=UTC).timestamp()


class ScriptedModel:
    """Fails so often, then answers."""

    name = "scripted"
    meanwhile: Callable[[], Awaitable[None]] | None = None
    """What happens while it thinks."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.prompts: list[str] = []
        self.asked = 0

    async def generate(self, prompt: str) -> str:
        await trio.lowlevel.checkpoint()
        self.prompts.append(prompt)
        self.asked += 1
        if self.asked <= self.failures:
            raise ModelFailed("away")
        if self.meanwhile is not None:
            await self.meanwhile()
        return f"answer {self.asked}"


class HeldLearned(Learned):
    """The real one, with something happening just before a save reaches the file, or when something was loaded."""

    before_patterns: Callable[[], Awaitable[None]] | None = None
    before_diagnosis: Callable[[], Awaitable[None]] | None = None
    after_diagnosis: Callable[[], Awaitable[None]] | None = None
    after_loading: Callable[[str], Awaitable[None]] | None = None

    async def load_patterns(self) -> tuple[dict[str, Pattern], int]:
        loaded = await super().load_patterns()
        await self._loaded_now("patterns")
        return loaded

    async def load_doubts(self) -> Doubts:
        loaded = await super().load_doubts()
        await self._loaded_now("doubts")
        return loaded

    async def load_standings(self) -> dict[str, Standing]:
        loaded = await super().load_standings()
        await self._loaded_now("standings")
        return loaded

    async def _loaded_now(self, what: str) -> None:
        if self.after_loading is not None:
            await self.after_loading(what)

    async def save_patterns(
        self,
        changes: Mapping[str, Pattern | None],
        seq: int,
        doubts: Doubts | None = None,
        said: Mapping[Diagnosis, Sequence[Outgoing]] = MappingProxyType({}),
    ) -> None:
        if self.before_patterns is not None:
            await self.before_patterns()
        if said and self.before_diagnosis is not None:
            await self.before_diagnosis()
        await super().save_patterns(changes, seq, doubts, said)
        if said and self.after_diagnosis is not None:
            await self.after_diagnosis()


class Bench:
    """An analyzer with its feed, its file and its cycle."""

    def __init__(self, data_dir: Path, model: ScriptedModel, clock: MockClock, ops: Sequence[Op] = ()) -> None:
        log = structlog.get_logger()
        self.clock = clock
        self.ops = list(ops)
        """What the journal holds."""
        self.held_at, self.goes_on = len(ops) // 2, trio.Event()
        """The journal takes its time there; what is committed later is handed over without it."""
        self.changes: list[StateChanged] = []
        self.progress: list[None] = []
        self.commits = Commits(self._read, crashes_max=3, set_aside=self._set_aside)
        self.feed = self.commits.feed("analyzer")
        self.commits.resume(len(self.ops), recorded_us(self.ops[-1].recorded_at) if self.ops else 0)
        self.cycle = Cycle(lambda: CYCLE_S)
        self.learned = HeldLearned(data_dir, GatewaySettings(url="http://gateway"), log=log)
        self.analyzer = Analyzer(
            self.feed,
            self.learned,
            self.cycle,
            model,
            log=log,
            settings=FailuresSettings(),
            clock=lambda: START_S + clock.current_time(),
            announce=self.changes.append,
            consultant=None,
        )

    async def _read(self, after_seq: int) -> Stretch:
        await trio.lowlevel.checkpoint()
        if after_seq < self.held_at:
            return Stretch(self.ops[after_seq : self.held_at], Seq(self.held_at))
        if self.ops[: self.held_at]:
            await self.goes_on.wait()
        return Stretch(self.ops[after_seq:], Seq(max(after_seq, len(self.ops))))

    async def _set_aside(self, consumer: str, op: Op, crashes: int) -> None:
        raise AssertionError(f"{consumer} set {op} aside after {crashes}")

    async def fail(self, *errors: str) -> None:
        """Commit failures, and wait until they have been grouped."""
        start = len(self.ops)
        new = [failure(start + n, error) for n, error in enumerate(errors, start=1)]
        self.ops += new
        self.commits.publish(new)
        await self.feed.reached(len(self.ops))

    async def tick(self) -> None:
        """Let a cycle begin, and wait until all that follows from it has been done."""
        await trio.testing.wait_all_tasks_blocked()
        number = self.cycle.number
        self.clock.jump(CYCLE_S)
        await self.until(lambda: self.cycle.number > number)
        await trio.testing.wait_all_tasks_blocked()

    async def until(self, condition: Callable[[], object]) -> None:
        deadline = monotonic() + WAIT_S
        while not condition():
            assert monotonic() < deadline
            await trio.testing.wait_all_tasks_blocked(0.001)  # a loop that never rests may keep the threads from theirs

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run an incarnation, as the supervisor would."""
        life = Life("analyzer", 1, on_progress=lambda: self.progress.append(None), on_step=lambda _name, _step: None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.cycle.run)
            nursery.start_soon(self.analyzer.run, life)
            await life.wait_ready()
            yield
            nursery.cancel_scope.cancel()

    async def crash_saving(self, refusal: ObserverError, *errors: str) -> None:
        """Run an incarnation that ends with the save of these failures, which is refused."""

        async def refuse() -> None:
            await trio.lowlevel.checkpoint()
            raise refusal

        self.learned.before_patterns = refuse
        with pytest.RaisesGroup(type(refusal), flatten_subgroups=True):
            async with self.running():
                await self.fail(*errors)
                await trio.testing.wait_all_tasks_blocked()
                self.clock.jump(2)
                await trio.Event().wait()
        self.learned.before_patterns = None

    async def reopened(self) -> tuple[dict[str, Pattern], int]:
        """Give what the file holds."""
        return await self.learned.load_patterns()


def failure(seq: int, error: str, at: str = "") -> Op:
    return Op(
        seq=seq,
        timestamp=at or "2026-11-22T10:00:00.000Z",
        recorded_at=at or f"2026-11-22T10:00:{seq % 60:02}.000000Z",
        endpoint="sql:run",
        input_summary=f"query {seq}",
        success=False,
        duration_ms=1,
        output_summary=error,
        error=error,
        source="mcp",
    )


@pytest.fixture
async def make_bench(tmp_path: Path) -> AsyncIterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(clock: MockClock, model: ScriptedModel | None = None, ops: Sequence[Op] = ()) -> Bench:
        made.append(Bench(tmp_path, model or ScriptedModel(), clock, ops))
        return made[-1]

    yield make
    for bench in made:
        await bench.learned.close()


async def test_a_model_that_fails_is_asked_again_with_a_backoff_and_what_is_due_stays_due(
    make_bench: Callable[..., Bench], mock_clock: MockClock
) -> None:
    model = ScriptedModel(failures=6)
    bench = make_bench(mock_clock, model)
    asked_at = []
    async with bench.running():
        await bench.fail("disk gone")
        for _ in range(60):
            before = model.asked
            await bench.tick()
            if model.asked > before:
                asked_at.append(bench.cycle.number)
        await bench.until(lambda: all(pattern.diagnosed_seq for pattern in bench.analyzer.patterns.values()))
        # Its failures are forgotten: what is new is asked at once.
        await bench.fail("out of memory")
        await bench.tick()
        await bench.until(lambda: model.asked == 8)
    assert asked_at == [1, 3, 6, 11, 20, 37, 54]
    assert len(set(model.prompts[:7])) == 1


@pytest.mark.parametrize("moment", ["before_diagnosis", "after_diagnosis"])
async def test_failures_that_come_while_a_diagnosis_is_saved_are_counted(
    make_bench: Callable[..., Bench], mock_clock: MockClock, moment: str
) -> None:
    bench = make_bench(mock_clock)
    saved = trio.Event()

    async def meanwhile() -> None:
        await bench.fail("disk 3 gone", "disk 4 gone")
        saved.set()

    setattr(bench.learned, moment, meanwhile)
    async with bench.running():
        await bench.fail("disk 1 gone", "disk 2 gone")
        await bench.tick()
        await bench.until(saved.is_set)
        await bench.until(lambda: not bench.analyzer._saving.locked())  # noqa: SLF001 - the moment has no other sign
    (kept,) = bench.analyzer.patterns.values()
    assert (kept.count, kept.diagnosed_count, kept.diagnosed_seq) == (4, 2, 2)
    patterns, seq = await bench.reopened()
    assert (list(patterns.values()), seq) == ([kept], 4)


async def test_what_could_not_be_saved_is_not_taken_for_saved(
    make_bench: Callable[..., Bench], mock_clock: MockClock
) -> None:
    """The disk hangs while the actor is stopped, and by its last save, on the way out, it is there again."""
    bench = make_bench(mock_clock)
    hangs = ["once"]

    async def hang_once() -> None:
        await trio.lowlevel.checkpoint()
        if hangs:
            hangs.clear()
            await trio.sleep_forever()

    bench.learned.before_patterns = hang_once
    async with bench.running():
        await bench.fail("disk gone", "disk gone")
        await trio.testing.wait_all_tasks_blocked()
        bench.clock.jump(2)
        await trio.testing.wait_all_tasks_blocked()
        assert not hangs
    assert await bench.reopened() == (apply({}, bench.ops).patterns, 2)


async def test_a_crash_before_the_save_costs_nothing(make_bench: Callable[..., Bench], mock_clock: MockClock) -> None:
    bench = make_bench(mock_clock)
    await bench.crash_saving(StoreBusy("locked"), "disk 1 gone", "no such table", "disk 2 gone")
    assert await bench.reopened() == ({}, 0)
    async with bench.running():
        await bench.feed.reached(3)
    assert await bench.reopened() == (apply({}, bench.ops).patterns, 3)


async def test_only_what_is_saved_is_progress_so_that_a_disk_that_fails_is_tried_ever_later(
    make_bench: Callable[..., Bench], mock_clock: MockClock
) -> None:
    bench = make_bench(mock_clock)
    await bench.crash_saving(DiskFailed("disk I/O error"), "disk gone")
    assert not bench.progress
    async with bench.running():
        await bench.feed.reached(1)
        await trio.testing.wait_all_tasks_blocked()
        bench.clock.jump(2)
        await bench.until(lambda: bench.progress)


@pytest.mark.parametrize("moment", ["before_patterns", "before_diagnosis", "after_diagnosis"])
async def test_what_was_said_is_kept_where_the_store_is_busy_and_nobody_is_asked_or_told_twice(
    make_bench: Callable[..., Bench], mock_clock: MockClock, moment: str
) -> None:
    """Also where the pattern itself is not in the store yet, or the save comes to its end all the same."""
    model = ScriptedModel()
    bench = make_bench(mock_clock, model)

    async def refuse() -> None:
        await trio.lowlevel.checkpoint()
        raise StoreBusy("locked")

    async def begin_to_refuse() -> None:
        setattr(bench.learned, moment, refuse)
        await bench.fail("disk 2 gone")

    model.meanwhile = begin_to_refuse
    with pytest.RaisesGroup(StoreBusy, flatten_subgroups=True):
        async with bench.running():
            await bench.fail("disk 1 gone")
            await bench.tick()
            await trio.Event().wait()
    if moment != "after_diagnosis":
        with pytest.RaisesGroup(StoreBusy, flatten_subgroups=True):
            async with bench.running():
                await trio.testing.wait_all_tasks_blocked()
                bench.clock.jump(2)
                await trio.Event().wait()
    setattr(bench.learned, moment, None)
    async with bench.running():
        await bench.fail("disk 3 gone")
        await bench.tick()
    assert model.asked == 1
    [kept] = bench.analyzer.patterns.values()
    assert (kept.count, kept.diagnosed_count, kept.diagnosed_seq) == (3, 1, 1)
    assert await bench.reopened() == ({kept.id: kept}, 3)
    assert bench.analyzer.diagnosis_of(kept.id) == (await bench.learned.load_diagnoses({kept.id: kept}))[kept.id]
    outbox = await bench.learned.outbox()
    assert outbox[Lane.GATEWAY].pending == 1


@pytest.mark.parametrize("moment", ["before_diagnosis", "after_diagnosis"])
async def test_patterns_that_became_one_just_before_a_diagnosis_and_a_crash_are_counted_once(
    make_bench: Callable[..., Bench], mock_clock: MockClock, moment: str
) -> None:
    model = ScriptedModel()
    bench = make_bench(mock_clock, model)

    async def become_one() -> None:
        await bench.fail("no such table dave here", "no such table erin here")

    async def crash() -> None:
        await trio.lowlevel.checkpoint()
        raise StoreBusy("locked")

    model.meanwhile = become_one
    setattr(bench.learned, moment, crash)
    with pytest.RaisesGroup(StoreBusy, flatten_subgroups=True):
        async with bench.running():
            await bench.fail(*(f"no such table {name} here" for name in ("alice", "bob", "carol")))
            await bench.tick()
            await trio.Event().wait()
    setattr(bench.learned, moment, None)
    async with bench.running():
        await bench.feed.reached(5)
    (kept,) = bench.analyzer.patterns.values()
    assert (kept.count, len(kept.aliases)) == (5, 3)
    assert list((await bench.reopened())[0]) == [kept.id]


async def test_what_a_person_wrote_is_kept_where_only_the_patterns_were_saved_as_one(
    make_bench: Callable[..., Bench], mock_clock: MockClock
) -> None:
    bench = make_bench(mock_clock)
    async with bench.running():
        await bench.fail(*(f"no such table {name} here" for name in ("alice", "bob", "carol")))
        await bench.analyzer.standings.act(
            tuple(bench.analyzer.patterns.values())[1], Action.NOTE, "mine", acknowledged_seq=3
        )
        before = dict(await bench.learned.load_standings())
        await bench.fail(*(f"no such table {name} here" for name in ("dave", "erin")))
    [kept] = bench.analyzer.patterns
    assert len(before) == 3
    await bench.learned.save_standings(before, ())  # as a crash between the two saves leaves it
    async with bench.running():
        await trio.testing.wait_all_tasks_blocked()
        standing = bench.analyzer.standings.get(kept)
        assert standing is not None
        assert [note.text for note in standing.notes] == ["mine"]
        assert sum(bench.analyzer.standings.counts().values()) == 1
    assert list(await bench.learned.load_standings()) == [kept]


async def test_what_a_person_wrote_is_kept_once_where_the_pattern_becomes_part_of_one_that_was_not_judged_yet(
    make_bench: Callable[..., Bench], mock_clock: MockClock
) -> None:
    names = ("alice", "bob", "carol", "dave", "erin", "frank")
    bench = make_bench(mock_clock, ops=[failure(n, f"no such table {name} here") for n, name in enumerate(names, 1)])
    async with bench.running():
        await bench.feed.reached(bench.held_at)
        _, pattern, _ = bench.analyzer.patterns.values()
        await bench.analyzer.standings.act(pattern, Action.NOTE, "mine", acknowledged_seq=6)
        bench.goes_on.set()
        await bench.feed.reached(len(names))
        [kept] = bench.analyzer.patterns
        standing = bench.analyzer.standings.get(kept)
    assert standing is not None
    assert [note.text for note in standing.notes] == ["mine"]


@pytest.mark.parametrize("process", ["the same process", "another process"])
@pytest.mark.parametrize("held", ["patterns", "doubts", "standings"])
async def test_what_a_person_does_while_the_analyzer_loads_is_kept_and_so_is_what_they_did_before(
    make_bench: Callable[..., Bench], mock_clock: MockClock, held: str, process: str
) -> None:
    first = make_bench(mock_clock)
    async with first.running():
        await first.fail("disk gone", "no such table")
        before, meanwhile = first.analyzer.patterns
        await act(first, before)
    again = first if process == "the same process" else make_bench(mock_clock, ops=first.ops)
    again.goes_on.set()
    acted = {before}

    async with trio.open_nursery() as nursery:

        async def person() -> None:
            await act(again, meanwhile)
            acted.add(meanwhile)

        async def hold(loaded: str) -> None:
            if loaded == held and meanwhile in again.analyzer.patterns:  # else they are told that there is none
                nursery.start_soon(person)
                await trio.testing.wait_all_tasks_blocked()

        again.learned.after_loading = hold
        async with again.running():
            again.learned.after_loading = None
            await again.feed.reached(2)
            await again.until(lambda: not nursery.child_tasks)
            assert again.analyzer.patterns.keys() == {before, meanwhile}
            in_memory = {key for key in (before, meanwhile) if muted(again.analyzer.standings.get(key))}
        on_disk = {key for key, standing in (await again.learned.load_standings()).items() if muted(standing)}
    assert (in_memory, on_disk) == (acted, acted)


async def act(bench: Bench, pattern: str) -> None:
    found = bench.analyzer.patterns[pattern]
    assert muted(await bench.analyzer.standings.act(found, Action.MUTE, "", acknowledged_seq=2))


def muted(standing: Standing | None) -> bool:
    return standing is not None and standing.muted


async def test_what_finds_no_room_is_told_once_and_counted(
    make_bench: Callable[..., Bench], mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("observer_actors.patterns.catalogue.PATTERNS_MAX", 2)
    with capture_logs() as logs:
        bench = make_bench(mock_clock)
        async with bench.running():
            await bench.fail("the disk is full")
            assert (logs_of(logs, "patterns_full"), bench.analyzer.ungrouped) == ([], 0)
            await bench.fail("no such table", "division by zero")
            await bench.fail("recursion is too deep")
        async with bench.running():
            await bench.fail("a key is missing")
    assert logs_of(logs, "patterns_full") == [
        {"event": "patterns_full", "log_level": "warning", "endpoint": "sql:run", "scope": "endpoint-other"}
    ]
    assert bench.analyzer.ungrouped == 4


async def test_what_has_been_idle_makes_room_unless_a_person_wrote_of_it(
    make_bench: Callable[..., Bench], mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("observer_actors.patterns.catalogue.PATTERNS_MAX", 3)
    old = iso(START_S - 20 * 86_400)
    bench = make_bench(mock_clock, ops=[failure(1, "the disk is full", old), failure(2, "no such table", old)])
    bench.goes_on.set()
    with capture_logs() as logs:
        async with bench.running():
            await bench.until(lambda: bench.feed.has_caught_up)
            noted, idle = bench.analyzer.patterns.values()
            await bench.analyzer.standings.act(noted, Action.NOTE, "ours", acknowledged_seq=2)
            await bench.fail("division by zero")
        async with bench.running():
            [_, new] = bench.analyzer.patterns.values()
            assert bench.analyzer.patterns.keys() == {noted.id, new.id} == (await bench.reopened())[0].keys()
            assert new.template == "division by zero"
            assert bench.analyzer.standings.get(idle.id) is None
    assert logs_of(logs, "pattern_forgotten") == [
        {"event": "pattern_forgotten", "log_level": "info", "pattern": idle.id, "endpoint": "sql:run", "count": 1}
    ]


def logs_of(logs: Sequence[MutableMapping[str, Any]], event: str) -> list[MutableMapping[str, Any]]:
    return [line for line in logs if line["event"] == event]


async def test_what_is_learned_anew_from_the_journal_is_judged_and_asked_about_when_it_is_whole(
    make_bench: Callable[..., Bench], mock_clock: MockClock
) -> None:
    """It has failed every 90 s for thirty hours, and another has been quiet for most of that time."""
    count = 1_200
    times_s = [START_S - 90 * (count - number) for number in range(count)]
    ops = [
        failure(seq, "disk gone" if seq % 100 != 1 or seq > count / 2 else "no route", iso(at_s))
        for seq, at_s in enumerate(times_s, start=1)
    ]
    model = ScriptedModel()
    bench = make_bench(mock_clock, model, ops)
    async with bench.running():
        await bench.feed.reached(bench.held_at)
        for _ in range(3):
            await bench.tick()
        assert len(bench.analyzer.patterns) == 2
        assert (bench.changes, model.prompts) == ([], [])
        bench.goes_on.set()
        await bench.feed.reached(count)
        await bench.until(lambda: len(bench.changes) == 2)
    changes = {change.template: (change.was, change.state, change.count) for change in bench.changes}
    assert changes == {"disk gone": (None, State.ONGOING, count - 6), "no route": (None, State.RESOLVED, 6)}


async def test_what_fails_all_the_time_is_not_resolved_by_a_daemon_that_was_down(
    make_bench: Callable[..., Bench], mock_clock: MockClock
) -> None:
    down_s, ops = 8 * 3_600, 30
    times_s = [START_S - down_s - 60 * (ops - number) for number in range(ops)]
    model = ScriptedModel()
    bench = make_bench(
        mock_clock, model, [failure(seq, "disk gone", iso(at_s)) for seq, at_s in enumerate(times_s, start=1)]
    )
    async with bench.running():
        bench.goes_on.set()
        await bench.until(lambda: bench.changes)
        assert [change.state for change in bench.changes] == [State.NEW]
        for more_s, changes in ((3_500, 1), (200, 2)):
            mock_clock.jump(more_s)
            bench.analyzer.standings.review(bench.analyzer.patterns.values())
            assert len(bench.changes) == changes
    assert [change.state for change in bench.changes] == [State.NEW, State.RESOLVED]


def iso(at_s: float) -> str:
    return iso_at(at_s)


class MessagesKept(Learned):
    """Takes what the webhook is to be told, unless its disk is away."""

    def __init__(self) -> None:
        self.is_away = True
        self.messages: list[Outgoing] = []

    async def save_standings(self, _standings: Mapping[str, Standing], messages: Sequence[Outgoing]) -> None:
        await trio.lowlevel.checkpoint()
        if self.is_away:
            raise StoreBusy("away")
        self.messages += messages


async def test_of_the_messages_that_cannot_be_saved_the_newest_wait_and_the_others_are_counted() -> None:
    learned, log = MessagesKept(), structlog.get_logger()
    settings = FailuresSettings(webhook_url="http://127.0.0.1:9", webhook_states=("new",))
    standings = Standings(learned, settings, log=log, clock=lambda: START_S, announce=lambda _change: None)
    at = iso_at(START_S)
    ids = [f"p{n}" for n in range(UNSENT_MAX + 5)]
    for half in (ids[:600], ids[600:]):
        standings.review(
            Pattern(
                id=one,
                version=1,
                endpoint="a",
                template=one,
                first_seq=1,
                last_seq=1,
                first_seen=at,
                last_seen=at,
                count=1,
                examples=(),
                sources={},
            )
            for one in half
        )
        with pytest.raises(StoreBusy):
            await standings.save()
    learned.is_away = False
    await standings.save()
    assert [message.key.split(":")[1] for message in learned.messages] == ids[5:]
    assert standings.dropped == 5
