"""Each actor crashes at each of its steps with load running; everything is real but the crash.

Nothing is lost, doubled or out of place, and nobody else is restarted.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import h11
import msgspec
import pytest
import trio
import trio.testing

from observer_actors.daemon import Daemon
from observer_actors.http.views import Readiness
from observer_actors.journal.lock import directory_in_use
from observer_actors.op import Op
from observer_actors.patterns import Pattern, apply
from observer_actors.process import EXIT_HARD
from observer_actors.settings import (
    AdmissionSettings,
    CycleSettings,
    GatewaySettings,
    JournalSettings,
    ListenSettings,
    ModelSettings,
    Settings,
    SupervisionSettings,
)
from observer_actors.stats import Stats, Tally
from observer_actors.supervision import (
    ActorFailed,
    ActorParked,
    ActorStatistics,
    ActorStopped,
    ChildSpec,
    Exhausted,
    LifecycleEvent,
    MessageQuarantined,
    MessageRedelivered,
    RestartScheduled,
    ShutdownForced,
    Strategy,
    Supervisor,
)
from tests.daemon.crashing import PLAN_VARIABLE
from tests.daemon.inside import Crash, Crashes, caught_up, daemon_inside, eventually, leaves
from tests.daemon.load import Answer, Ledger, clients, connected, settle, stored_ops
from tests.fakes.http_peer import HttpPeer, Json, http_peer
from tests.fakes.troubled_disk import TroubledDisk
from tests.harness import running_daemon

SEED: Final = 7
LOAD_S: Final = 30.0
OPS_BEFORE: Final = 60
"""Enough for a segment to be sealed."""
OPS_AFTER: Final = 40

STEPS: Final = {
    ("persister", "opening"): "rare",
    ("persister", "waiting"): "often",
    ("persister", "taken"): "often",
    ("persister", "stamped"): "often",
    ("persister", "committed"): "often",
    ("persister", "sealing"): "rare",
    ("ring_keeper", "loading"): "rare",
    ("ring_keeper", "waiting"): "often",
    ("ring_keeper", "taking"): "often",
    ("stats", "loading"): "rare",
    ("stats", "waiting"): "often",
    ("stats", "counting"): "often",
    ("archivist", "maintaining"): "rare",
    ("archivist", "waiting"): "rare",
    ("analyzer", "loading"): "rare",
    ("analyzer", "waiting"): "often",
    ("analyzer", "grouping"): "often",
    ("analyzer", "asking"): "rare",
    ("consolidator", "loading"): "rare",
    ("consolidator", "waiting"): "rare",
    ("consolidator", "consolidating"): "rare",
    ("librarian", "loading"): "rare",
    ("librarian", "waiting"): "often",
    ("librarian", "filing"): "often",
    ("courier", "waiting"): "rare",
    ("courier", "delivering"): "rare",
    ("courier", "settling"): "rare",
    ("ingest", "serving"): "rare",
}
"""Every step that an actor takes while it serves, and how often: a rare one crashes a second time in a row."""
LATER: Final = {"rare": (1, 2), "often": (9,)}
RESTARTED_WITH: Final = {"persister": ("persister", "ring_keeper", "stats"), "ring_keeper": ("ring_keeper", "stats")}
"""rest_for_one in the pipeline; every other actor is restarted alone."""


@dataclass(frozen=True)
class Outcome:
    """What a daemon was like when the load was over and all had caught up, and what it left behind."""

    ops: list[Op]
    ring: list[Op]
    stats: Stats
    patterns: dict[str, Pattern]
    actors: dict[str, ActorStatistics]
    events: tuple[LifecycleEvent, ...]


def quick_settings(data_dir: Path, *, gateway: str = "", model: str = "") -> Settings:
    return Settings(
        data_dir=data_dir,
        listen=ListenSettings(port=0),
        journal=JournalSettings(segment_bytes_max=12_000),
        admission=AdmissionSettings(wait_seconds_max=20),
        cycle=CycleSettings(seconds=0.03, consolidate_every=1),
        gateway=GatewaySettings(url=gateway, retry_seconds_max=1),
        model=ModelSettings(lakehouse_url=model),
        supervision=SupervisionSettings(backoff_seconds_first=0.01, backoff_seconds_max=0.05, park_seconds=0.05),
    )


async def run_under_load(data_dir: Path, crashes: Crashes) -> Outcome:
    """Send until the crashes have happened and all actors serve again; check what was acknowledged."""
    ledger = Ledger()
    async with http_peer(Json({"text": "look at the timeouts"})) as peer:
        settings = quick_settings(data_dir, gateway=peer.url, model=peer.url)
        async with daemon_inside(settings, on_step=crashes) as daemon:
            await _load(daemon, ledger, crashes)
            await caught_up(daemon)
            await eventually(lambda: _delivered(peer) and not _pending(daemon))
            seen = _look(daemon)
    ops = stored_ops(data_dir)
    ledger.check(ops)
    assert ledger.refused == {}
    return replace(seen, ops=ops)


async def _load(daemon: Daemon, ledger: Ledger, crashes: Crashes) -> None:
    url = daemon.addresses[0]
    load = clients(4, ledger, SEED)
    with trio.fail_after(LOAD_S):
        async with trio.open_nursery() as nursery:
            for client in load:
                nursery.start_soon(client.run, url)
            await ledger.wait_owed(OPS_BEFORE)
            await crashes.wait_happened()
            await eventually(lambda: all(actor.state == "running" for actor in leaves(daemon).values()))
            await ledger.wait_owed(len(ledger.owed) + OPS_AFTER)
            nursery.cancel_scope.cancel()
        await settle(load, url)


def _delivered(peer: HttpPeer) -> bool:
    """Say whether what the model said has reached the gateway."""
    keys = [request.headers.get("idempotency-key", "") for request in peer.received()]
    return any(key.startswith("error_analysis") for key in keys)


def _pending(daemon: Daemon) -> int:
    statistics = daemon.learned.statistics()
    return sum(lane.pending for lane in statistics.values()) if statistics else 0


def _look(daemon: Daemon) -> Outcome:
    return Outcome(
        ops=[],
        ring=list(daemon.ring.ring),
        stats=msgspec.convert(msgspec.to_builtins(daemon.stats.stats), Stats),
        patterns=dict(daemon.analyzer.patterns),
        actors=leaves(daemon),
        events=daemon.events.recent(),
    )


def check_consumers(outcome: Outcome) -> None:
    """Compare with what a run without crashes makes of the same ops."""
    expected = Stats()
    expected.add(outcome.ops)
    assert outcome.stats == expected
    assert outcome.ring == outcome.ops[-2_000:]
    undiagnosed = {
        id_: msgspec.structs.replace(pattern, diagnosed_seq=0, diagnosed_count=0)
        for id_, pattern in outcome.patterns.items()
    }
    assert undiagnosed == apply({}, outcome.ops).patterns


def of_kind(outcome: Outcome, kind: type[LifecycleEvent]) -> list[str]:
    return [event.actor for event in outcome.events if isinstance(event, kind)]


async def test_a_run_without_a_crash_takes_every_step_and_restarts_nobody(tmp_path: Path) -> None:
    crashes = Crashes()
    outcome = await run_under_load(tmp_path, crashes)
    check_consumers(outcome)
    assert {actor.incarnation for actor in outcome.actors.values()} == {1}
    assert set(crashes.seen) - {("ingest", "draining")} == set(STEPS)
    assert of_kind(outcome, ActorFailed) == []


CASES: Final = [
    pytest.param(actor, step, how_often, occurrences, id=f"{actor}-{step}-{'-'.join(map(str, occurrences))}")
    for (actor, step), how_often in STEPS.items()
    for occurrences in ((1,), LATER[how_often])
]


@pytest.mark.parametrize(("actor", "step", "how_often", "occurrences"), CASES)
async def test_an_actor_that_crashes_loses_nothing_and_takes_nobody_else_with_it(
    tmp_path: Path, actor: str, step: str, how_often: str, occurrences: tuple[int, ...]
) -> None:
    outcome = await run_under_load(tmp_path, Crashes({(actor, step): occurrences}))
    check_consumers(outcome)

    restarted = RESTARTED_WITH.get(actor, (actor,))
    restarts = {name: found.restarts for name, found in outcome.actors.items() if found.restarts}
    assert restarts[actor] == len(occurrences)
    # At the start of the daemon those after it were not there yet; it may wait before they are.
    is_later = how_often == "often" and (step, occurrences) != ("waiting", (1,))
    assert restarts.keys() == set(restarted) if is_later else restarts.keys() <= set(restarted)
    failed = [event for event in outcome.events if isinstance(event, ActorFailed)]
    assert [event.actor for event in failed] == [actor] * len(occurrences)
    assert all(f"Crash: {actor} at {step}" in event.error for event in failed)
    scheduled = [event for event in outcome.events if isinstance(event, RestartScheduled)]
    assert [(event.actor, event.because_of) for event in scheduled] == [(name, actor) for name in restarted] * len(
        failed
    )
    assert outcome.actors[actor].last_error == failed[-1].error


@pytest.mark.parametrize("step", ["taken", "stamped", "committed"])
async def test_a_persister_that_crashes_again_on_its_way_back_loses_nothing(tmp_path: Path, step: str) -> None:
    planned = {("persister", step): (5, 6), ("persister", "opening"): (2,)}
    outcome = await run_under_load(tmp_path, Crashes(planned))
    check_consumers(outcome)
    failed = [event.step for event in outcome.events if isinstance(event, ActorFailed)]
    assert failed == [step, "opening", step]
    assert of_kind(outcome, MessageRedelivered)[0] == "persister"


async def test_a_live_reader_sees_what_is_on_disk_also_when_its_submission_is_set_aside(tmp_path: Path) -> None:
    crashes = Crashes({("persister", "taken"): (1,), ("persister", "committed"): (1,), ("persister", "stamped"): (2,)})
    seen: list[int] = []
    async with daemon_inside(quick_settings(tmp_path), on_step=crashes) as daemon:

        async def read() -> None:
            async with aclosing(daemon.tail.follow(None, silence_s=LOAD_S)) as pages:
                async for page in pages:
                    seen.extend(each.seq for each in page if isinstance(each, Op))

        with trio.fail_after(LOAD_S):
            async with trio.open_nursery() as nursery, connected(daemon.addresses[0]) as wire:
                nursery.start_soon(read)
                await trio.testing.wait_all_tasks_blocked()
                for seq in (1, 2):
                    answer = await wire.post("/event", b"{}")
                    assert (answer.status, answer.json["seq"]) == (200, seq)
                await eventually(lambda: 2 in seen)
                nursery.cancel_scope.cancel()
    assert seen == [1, 2]


async def test_an_actor_that_crashes_while_it_stops_spoils_nothing(tmp_path: Path) -> None:
    crashes = Crashes({("ingest", "draining"): (1,)})
    ledger = Ledger()
    async with daemon_inside(quick_settings(tmp_path), on_step=crashes) as daemon:
        load = clients(4, ledger, SEED)
        with trio.fail_after(LOAD_S):
            async with trio.open_nursery() as nursery:
                for client in load:
                    nursery.start_soon(client.run, daemon.addresses[0])
                await ledger.wait_owed(OPS_BEFORE)
                daemon.stop()
                await crashes.wait_happened()
                nursery.cancel_scope.cancel()
    ledger.check(stored_ops(tmp_path))
    (stopped,) = [e for e in daemon.events.recent() if isinstance(e, ActorStopped) and e.actor == "ingest"]
    assert "Crash: ingest at draining" in stopped.error


def crash_with_poison(
    daemon: Callable[[], Daemon], before: Callable[[], None] = lambda: None
) -> Callable[[str, str], None]:
    """Give a hook by which the persister crashes whenever it has an op called ``poison`` in hand.

    :param before: called before each crash.
    """

    def on_step(name: str, step: str) -> None:
        if (name, step) != ("persister", "taken"):
            return
        mailbox = daemon().mailbox
        in_hand = mailbox.in_hand[: mailbox.statistics().in_hand]
        if any("poison" in (op.id, op.endpoint) for submission in in_hand for op in submission.ops):
            before()
            raise Crash("poison")

    return on_step


async def test_a_poison_message_is_quarantined_and_its_neighbours_in_the_batch_are_stored(tmp_path: Path) -> None:
    disk = TroubledDisk()
    daemon: Daemon
    answers: dict[str, Answer] = {}

    async def post(id_: str) -> None:
        async with connected(daemon.addresses[0]) as wire:
            answers[id_] = await wire.post("/event", msgspec.json.encode({"endpoint": "a\u202e\x7f", "id": id_}))

    async with daemon_inside(quick_settings(tmp_path), disk=disk, on_step=crash_with_poison(lambda: daemon)) as daemon:
        with trio.fail_after(LOAD_S):
            async with trio.open_nursery() as nursery:
                disk.hold()
                nursery.start_soon(post, "first")
                await trio.to_thread.run_sync(disk.wait_held)
                for depth, id_ in enumerate(("before", "poison", "after"), 1):
                    nursery.start_soon(post, id_)
                    await eventually(lambda depth=depth: daemon.mailbox.statistics().depth == depth)  # type: ignore[misc]
                disk.release()

    assert [op.id for op in stored_ops(tmp_path)] == ["first", "before", "after"]
    assert {id_: answer.status for id_, answer in answers.items()} == {
        "first": 200,
        "before": 200,
        "poison": 500,
        "after": 200,
    }
    problem = answers["poison"]
    assert problem.headers["content-type"] == "application/problem+json"
    assert problem.json["title"] == "quarantined"
    (kept,) = quarantined(tmp_path)
    assert (kept["actor"], kept["crashes"], [op["id"] for op in kept["ops"]]) == ("persister", 3, ["poison"])
    assert kept["ops"][0]["seq"] == 0, "it has no place in the journal"
    assert kept["ops"][0]["endpoint"] == "a\u202e\x7f"
    assert rb'"a\u202e\u007f"' in (tmp_path / "_observer" / "quarantine.jsonl").read_bytes(), "as an escape"
    happened = [e for e in daemon.events.recent() if isinstance(e, MessageQuarantined)]
    assert happened == [MessageQuarantined(actor="persister", crashes=3, message="1 ops, id poison")]


async def test_a_poison_event_does_not_take_those_with_it_that_came_at_the_same_moment(tmp_path: Path) -> None:
    daemon: Daemon

    def post(body: bytes) -> bytes:
        return b"POST /event HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    ids = ["one", "two", "poison", "four"]
    statuses = {}
    async with daemon_inside(quick_settings(tmp_path), on_step=crash_with_poison(lambda: daemon)) as daemon:
        async with AsyncExitStack() as stack:
            port = int(daemon.addresses[0].rpartition(":")[2])
            streams = [await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", port)) for _ in ids]
            for stream in streams:  # from now on they are in the lane
                await stream.send_all(post(b"{}"))
                assert b" 200 " in await stream.receive_some()
            await trio.testing.wait_all_tasks_blocked()
            for stream, id_ in zip(streams, ids, strict=True):  # nobody else has a turn: they are one group
                os.write(stream.socket.fileno(), post(msgspec.json.encode({"id": id_})))
            with trio.fail_after(LOAD_S):
                for stream, id_ in zip(streams, ids, strict=True):
                    statuses[id_] = int((await stream.receive_some())[9:12])
        assert daemon.admission.statistics().waiting_ops == 0
    assert statuses == {"one": 200, "two": 200, "poison": 500, "four": 200}
    assert [op.id for op in stored_ops(tmp_path)][len(ids) :] == ["one", "two", "four"]
    assert [[op["id"] for op in kept["ops"]] for kept in quarantined(tmp_path)] == [["poison"]]


async def test_what_was_stamped_before_a_crash_is_not_taken_for_what_was_written_since(tmp_path: Path) -> None:
    """An id leaves its window between two crashes: its op gets the seq that another one had before the first."""
    disk = TroubledDisk()
    daemon: Daemon
    crashed = set()
    answers: dict[str, Answer] = {}

    def crash(name: str, step: str) -> None:
        if name != "persister":
            return
        in_hand = daemon.mailbox.in_hand[: daemon.mailbox.statistics().in_hand]
        endpoints = [op.endpoint for submission in in_hand for op in submission.ops]
        if step == "stamped" and endpoints == ["a", "b", "c"]:
            crashed.add("all")
            raise Crash("all in hand")
        if step == "taken" and endpoints == ["c"] and "c" not in crashed:
            crashed.add("c")
            raise Crash("c in hand")

    async def post(endpoint: str, id_: str = "") -> None:
        async with connected(daemon.addresses[0]) as wire:
            event = {"endpoint": endpoint, "id": id_} if id_ else {"endpoint": endpoint}
            answers[endpoint] = await wire.post("/event", msgspec.json.encode(event))

    settings = quick_settings(tmp_path)
    settings = msgspec.structs.replace(settings, journal=JournalSettings(dedup_window_ops=2))
    async with daemon_inside(settings, disk=disk, on_step=crash) as daemon:
        await post("first", "x")
        with trio.fail_after(LOAD_S):
            async with trio.open_nursery() as nursery:
                disk.hold()
                nursery.start_soon(post, "second")
                await trio.to_thread.run_sync(disk.wait_held)
                for depth, (endpoint, id_) in enumerate((("a", ""), ("b", "x"), ("c", "")), 1):
                    nursery.start_soon(post, endpoint, id_)
                    await eventually(lambda depth=depth: daemon.mailbox.statistics().depth == depth)  # type: ignore[misc]
                disk.release()
    assert crashed == {"all", "c"}
    stored = {op.seq: op.endpoint for op in stored_ops(tmp_path)}
    assert stored == {1: "first", 2: "second", 3: "a", 4: "b", 5: "c"}
    assert {answer.json["seq"]: endpoint for endpoint, answer in answers.items()} == stored


async def test_a_poison_message_is_refused_and_does_not_stop_the_daemon_when_the_disk_takes_no_quarantine(
    tmp_path: Path,
) -> None:
    disk = TroubledDisk()
    crashes = 0
    daemon: Daemon

    def fill_the_disk() -> None:
        nonlocal crashes
        crashes += 1
        if crashes == 3:
            disk.fail("write", code=errno.ENOSPC)

    poisoned = crash_with_poison(lambda: daemon, fill_the_disk)
    async with daemon_inside(quick_settings(tmp_path), disk=disk, on_step=poisoned) as daemon:
        with trio.fail_after(LOAD_S):
            async with connected(daemon.addresses[0]) as wire:
                refused = await wire.post("/event", b'{"id":"poison"}')
                disk.heal()
                stored = await wire.post("/event", b'{"id":"good"}')
    assert (refused.status, stored.status) == (500, 200)
    assert [op.id for op in stored_ops(tmp_path)] == ["good"]
    assert not (tmp_path / "_observer" / "quarantine.jsonl").read_bytes(), "half a line was taken back"
    assert crashes == 3


async def test_two_poison_messages_in_a_row_do_not_stop_the_daemon(tmp_path: Path) -> None:
    daemon: Daemon

    async with daemon_inside(quick_settings(tmp_path), on_step=crash_with_poison(lambda: daemon)) as daemon:
        with trio.fail_after(LOAD_S):
            async with connected(daemon.addresses[0]) as wire:
                refused = [(await wire.post("/event", b'{"endpoint":"poison"}')).status for _ in range(2)]
                assert (await wire.post("/event", b'{"endpoint":"good"}')).status == 200
    assert refused == [500] * 2
    assert [op.endpoint for op in stored_ops(tmp_path)] == ["good"]
    assert len(quarantined(tmp_path)) == 2


async def test_a_poison_op_for_the_ring_keeper_is_left_out_by_it_alone(tmp_path: Path) -> None:
    daemon: Daemon

    def crash_with_poison(name: str, step: str) -> None:
        if (name, step) == ("ring_keeper", "taking"):
            in_hand = daemon.feeds["ring_keeper"]._in_hand  # noqa: SLF001 - nobody else asks
            if any(op.id == "op-5" for op in in_hand):
                raise Crash("poison")

    async with daemon_inside(quick_settings(tmp_path), on_step=crash_with_poison) as daemon:
        with trio.fail_after(LOAD_S):
            async with connected(daemon.addresses[0]) as wire:
                lines = [
                    msgspec.json.encode({"id": f"op-{n}", "success": n % 2 == 0, "error": "x"}) for n in range(1, 11)
                ]
                assert (await wire.post("/events", b"\n".join(lines))).status == 200
                await caught_up(daemon)
                assert (await wire.post("/event", b'{"id":"op-11"}')).status == 200
                await caught_up(daemon)
        ring = [op.seq for op in daemon.ring.ring]
        counted = daemon.stats.stats.last_seq, daemon.stats.stats.all
        failures = sum(pattern.count for pattern in daemon.analyzer.patterns.values())
        restarts = {name: actor.restarts for name, actor in leaves(daemon).items() if actor.restarts}
    ops = stored_ops(tmp_path)
    assert [op.id for op in ops] == [f"op-{n}" for n in range(1, 12)]
    assert ring == [1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    assert counted == (11, Tally(successes=5, failures=6))
    assert failures == 6
    assert restarts.keys() == {"ring_keeper", "stats"}
    (kept,) = quarantined(tmp_path)
    assert (kept["actor"], kept["ops"][0]["seq"], kept["ops"][0]["id"]) == ("ring_keeper", 5, "op-5")


async def test_a_crash_in_the_middle_of_counting_leaves_nothing_counted_twice(tmp_path: Path) -> None:
    async with daemon_inside(quick_settings(tmp_path)) as daemon:
        with trio.fail_after(LOAD_S):
            async with connected(daemon.addresses[0]) as wire:
                assert (await wire.post("/event", b'{"endpoint":"a"}')).status == 200
                await caught_up(daemon)
                (op,) = daemon.ring.ring
                # Counted as a success before its duration turns out to be no number; and no op of the journal.
                daemon.commits.publish([msgspec.structs.replace(op, seq=2, duration_ms="long")])
                await eventually(lambda: leaves(daemon)["stats"].restarts)
                await caught_up(daemon)
        counted = daemon.stats.stats
    expected = Stats()
    expected.add(stored_ops(tmp_path))
    assert counted == expected


async def test_an_exhausted_pipeline_ends_the_process_with_an_error(tmp_path: Path) -> None:
    config = tmp_path / "observer.toml"
    config.write_text("[supervision]\nbackoff_seconds_first = 0.01\nbackoff_seconds_max = 0.02\n")
    plan = {PLAN_VARIABLE: "persister:waiting:crash"}
    started = running_daemon(
        tmp_path, "--config", str(config), module="tests.daemon.crashing", environment=plan, wait_ready=False
    )
    async with started as daemon:
        with trio.fail_after(LOAD_S):
            assert await daemon.process.wait() == 1
        given_up = [line["actor"] for line in daemon.log if line["event"] == "restarts_exhausted"]
        assert given_up == ["pipeline"] * 3 + ["root"]
        assert "Crash: persister at waiting" in daemon.raw_log[-1] + daemon.raw_log[-2]


async def test_what_hangs_for_good_is_ended_by_the_hard_exit(tmp_path: Path) -> None:
    plan = {PLAN_VARIABLE: "ingest:draining:hang"}
    async with running_daemon(tmp_path, module="tests.daemon.crashing", environment=plan) as daemon:
        await daemon.event(endpoint="a")
        assert await daemon.stop() == EXIT_HARD
    assert [op.endpoint for op in stored_ops(tmp_path)] == ["a"]


async def test_an_exhausted_learning_actor_is_parked_and_comes_back_while_the_daemon_stays_ready(
    tmp_path: Path,
) -> None:
    crashes = Crashes({("analyzer", "loading"): tuple(range(1, 9))})
    async with daemon_inside(quick_settings(tmp_path), on_step=crashes) as daemon:
        with trio.fail_after(LOAD_S):
            await eventually(lambda: daemon.events.counts().get("ActorParked"))
            assert daemon.readiness() == Readiness(ready=True, reasons=[])
            async with connected(daemon.addresses[0]) as wire:
                assert (await wire.post("/event", b'{"success":false,"error":"boom"}')).status == 200
            await crashes.wait_happened()
            await caught_up(daemon)
        assert [pattern.count for pattern in daemon.analyzer.patterns.values()] == [1]
        assert leaves(daemon)["analyzer"].state == "running"
        restarts = {name: actor.restarts for name, actor in leaves(daemon).items() if actor.restarts}
        assert restarts == {"analyzer": 8}
    parked = [event for event in daemon.events.recent() if isinstance(event, ActorParked)]
    assert parked == [ActorParked(actor="analyzer", retry_s=0.05)] * 3
    assert "RestartsExhausted" not in daemon.events.counts()


async def test_an_actor_that_does_not_stop_within_its_budget_is_cancelled_and_said_to_have_been(tmp_path: Path) -> None:
    disk = TroubledDisk()

    async def post(url: str) -> None:
        with suppress(trio.BrokenResourceError, h11.RemoteProtocolError):
            async with connected(url) as wire:
                await wire.post("/event", b'{"id":"late"}')

    async with trio.open_nursery() as nursery:
        with trio.fail_after(LOAD_S):
            async with daemon_inside(quick_settings(tmp_path), disk=disk, make=ImpatientDaemon) as daemon:
                disk.hold()
                nursery.start_soon(post, daemon.addresses[0])
                await trio.to_thread.run_sync(disk.wait_held)
                daemon.stop()
                await eventually(lambda: daemon.events.counts().get("ShutdownForced") == 2)
                disk.release()
    forced = [event for event in daemon.events.recent() if isinstance(event, ShutdownForced)]
    assert [(event.actor, event.step) for event in forced] == [("ingest", "draining"), ("persister", "stamped")]
    assert [op.id for op in stored_ops(tmp_path)] == ["late"], "a write that has begun is never abandoned"


class SlowToRename(TroubledDisk):
    """Compaction takes long on it."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go_on = threading.Event(), threading.Event()

    def rename(self, source: Path, target: Path) -> None:
        if target.suffix == ".gz":
            self.begun.set()
            assert self.go_on.wait(LOAD_S)
        super().rename(source, target)


async def test_the_directory_is_not_let_go_of_while_a_segment_is_still_being_compacted(tmp_path: Path) -> None:
    disk = SlowToRename()
    ended = trio.Event()

    settings = msgspec.structs.replace(quick_settings(tmp_path), cycle=CycleSettings())  # nothing ticks meanwhile

    async def run() -> None:
        async with daemon_inside(settings, disk=disk) as daemon:
            started.append(daemon)
            async with connected(daemon.addresses[0]) as wire:
                lines = [msgspec.json.encode({"input_summary": "x" * 200}) for _ in range(100)]
                assert (await wire.post("/events", b"\n".join(lines))).status == 200
            await trio.to_thread.run_sync(disk.begun.wait, LOAD_S)
        ended.set()

    started: list[Daemon] = []
    with trio.fail_after(LOAD_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await eventually(lambda: started and leaves(started[0])["persister"].state == "stopped")
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert not ended.is_set()
            assert directory_in_use(tmp_path)
            disk.go_on.set()
            await ended.wait()
    assert not directory_in_use(tmp_path)


class ImpatientDaemon(Daemon):
    """Gives its actors a moment to stop in."""

    def _supervisor(
        self, name: str, strategy: Strategy, *children: ChildSpec, exhausted: Exhausted = Exhausted.ESCALATE
    ) -> Supervisor:
        hurried = [replace(child, stop_s=0.1) for child in children]
        return super()._supervisor(name, strategy, *hurried, exhausted=exhausted)


def quarantined(data_dir: Path) -> list[Any]:
    lines = (data_dir / "_observer" / "quarantine.jsonl").read_bytes().splitlines()
    return [msgspec.json.decode(line) for line in lines]
