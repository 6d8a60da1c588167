"""Random trees of scripted actors run against a model of a supervisor that knows no tasks, only times."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from observer_actors.supervision import (
    ActorFailed,
    ActorStarted,
    ActorStopped,
    ChildSpec,
    Exhausted,
    Life,
    RestartPolicy,
    RestartScheduled,
    Strategy,
)
from observer_actors.supervision.restart import RestartHistory
from tests.supervision.injected_time import injected_time
from tests.supervision.scripted import Tree

FOR_EVER: Final = float("inf")
START_S: Final = 6.0
PARK_S: Final = 40.0


@dataclass(frozen=True)
class Act:
    """One incarnation: ready and over after so long since its start, with or without an error and progress."""

    ready_s: float
    over_s: float
    crash: bool
    progress: bool


@dataclass(frozen=True)
class Plan:
    strategy: Strategy
    exhausted: Exhausted
    policy: RestartPolicy
    scripts: list[list[Act]]
    stop_at: float


def plan_of(rng: random.Random) -> Plan:
    def act() -> Act:
        ready_s = rng.choice([rng.random(), rng.random() * 8])
        return Act(ready_s, rng.expovariate(0.15), rng.random() < 0.7, rng.random() < 0.3)

    count = rng.randint(1, 5)
    return Plan(
        strategy=rng.choice(list(Strategy)),
        exhausted=rng.choice(list(Exhausted)),
        policy=RestartPolicy(rng.randint(1, 6), rng.uniform(5, 60), rng.uniform(0.1, 3), rng.uniform(1, 10)),
        scripts=[[act() for _ in range(rng.randint(0, 8))] for _ in range(count)],
        stop_at=rng.uniform(1, 150),
    )


STEADY: Final = Act(0.5, FOR_EVER, crash=False, progress=False)
Told = tuple[float, str, int]


class Model:
    """The same tree as a table: for each child the time at which something happens to it next."""

    def __init__(self, plan: Plan) -> None:
        count = len(plan.scripts)
        self.plan = plan
        self.told: list[Told] = []
        self.now = 0.0
        self.pending: dict[int, float] = dict.fromkeys(range(count), 0.0)
        self.starting: dict[int, float] = {}
        self.running: set[int] = set()
        self.incarnations = [0] * count
        self.history = [RestartHistory()] * count
        self.parked = [False] * count
        self.gave_up = False

    def tell(self, what: str, child: int) -> None:
        self.told.append((round(self.now, 3), what, child))

    def act(self, child: int) -> Act:
        script, number = self.plan.scripts[child], self.incarnations[child] - 1
        return script[number] if number < len(script) else STEADY

    def happenings(self) -> list[tuple[float, int, str]]:
        found = []
        for child, began in self.starting.items():
            act = self.act(child)
            found += [(began + act.ready_s, child, "ready"), (began + START_S, child, "late")]
        for child in {*self.starting, *self.running}:
            found.append((self.began[child] + self.act(child).over_s, child, "over"))
        first_starting = min(self.starting, default=len(self.parked))
        found += [(due, child, "due") for child, due in self.pending.items() if child < first_starting]
        return found

    began: dict[int, float]

    def run(self) -> list[Told]:
        self.began = {}
        while not self.gave_up:
            when, child, what = min(self.happenings(), default=(FOR_EVER, 0, ""))
            if when > self.plan.stop_at:
                break
            self.now = max(self.now, when)
            getattr(self, what)(child)
        self.now = self.now if self.gave_up else self.plan.stop_at
        self.stop([*range(len(self.parked))])
        return self.told

    def due(self, child: int) -> None:
        del self.pending[child]
        self.incarnations[child] += 1
        self.starting[child] = self.began[child] = self.now

    def ready(self, child: int) -> None:
        del self.starting[child]
        self.running.add(child)
        self.tell("started", child)
        if self.act(child).progress:
            self.history[child] = RestartHistory(self.history[child].failures)
            self.parked[child] = False

    def late(self, child: int) -> None:
        self.failed(child)

    def over(self, child: int) -> None:
        self.failed(child)

    def gone(self, child: int) -> None:
        self.starting.pop(child, None)
        self.running.discard(child)

    def failed(self, child: int) -> None:
        self.gone(child)
        self.tell("failed", child)
        self.history[child], delay_s = self.history[child].failed(self.now, self.plan.policy, 1.0)
        if delay_s is None or self.parked[child]:
            if self.plan.exhausted is Exhausted.ESCALATE:
                self.gave_up = True
                return
            self.parked[child], delay_s = True, PARK_S
        is_alone = self.plan.strategy is Strategy.ONE_FOR_ONE
        affected = [child] if is_alone else [*range(child, len(self.parked))]
        self.stop(affected)
        for other in affected:
            self.pending[other] = self.now + delay_s
            self.tell("scheduled", other)

    def stop(self, children: list[int]) -> None:
        for child in reversed(children):
            self.pending.pop(child, None)
            if child in self.starting or child in self.running:
                self.gone(child)
                self.tell("stopped", child)


def scripted(script: list[Act]) -> ChildSpec:
    async def run(life: Life) -> None:
        act = script[life.incarnation - 1] if life.incarnation <= len(script) else STEADY
        began = trio.current_time()
        if act.ready_s < act.over_s:
            await trio.sleep_until(began + act.ready_s)
            life.ready()
            if act.progress:
                life.progress()
        await trio.sleep_until(began + act.over_s)
        if act.crash:
            raise ValueError

    return ChildSpec("", run, start_s=START_S)


KINDS: Final = {
    ActorStarted: "started",
    ActorFailed: "failed",
    ActorStopped: "stopped",
    RestartScheduled: "scheduled",
}


@settings(max_examples=300)
@given(st.integers(0))
def test_the_supervisor_does_what_the_model_says(seed: int) -> None:
    compare(plan_of(random.Random(seed)))


@injected_time
async def compare(plan: Plan) -> None:
    """Run a plan for real and as a table, and hold the two against each other."""
    specs = [
        ChildSpec(str(number), scripted(script).run, start_s=START_S) for number, script in enumerate(plan.scripts)
    ]
    tree = Tree(*specs, strategy=plan.strategy, policy=plan.policy, exhausted=plan.exhausted, park_s=PARK_S)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tree.run)
        with trio.move_on_after(plan.stop_at):
            await tree.over.wait()
        await tree.stop()
    model = Model(plan)
    expected = model.run()
    told = [(when, KINDS[type(event)], int(event.actor)) for when, event in tree.log if type(event) in KINDS]
    assert [(what, child) for _, what, child in told] == [(what, child) for _, what, child in expected]
    # Both are rounded, after sums in another order.
    assert [when for when, _, _ in told] == pytest.approx([when for when, _, _ in expected], abs=0.0015)
    assert (tree.error is not None) == model.gave_up
    assert set(tree.states()) == {"stopped"}
