"""The campaign: off, on, off, on, then tasks that nobody has seen, with advice, without, and with an empty playbook."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.daemon.served import Served, served
from tests.loop.fleet import Agents, Episode, Poisoner, run_name
from tests.loop.world import TOOLS, Task, tasks

POISONED_AFTER: Final = ("off 1", "on 1")
LATER_OFF: Final = "changed, off"
LATER_ON: Final = "changed, on"
QUIET_S: Final = 0.5
"""Until the daemon has taken in what it was told: longer than any of its followers lingers."""


@dataclass(frozen=True)
class Plan:
    """How much is done.

    :param per_tool: tasks a tool that the fleet works on, and as many that it never sees before the end.
    """

    per_tool: int = 12
    rounds_off: int = 2
    rounds_on: int = 8
    seed: int = 1
    poison_rounds: int = 40
    rounds_unseen: int = 1
    rounds_later: int = 0
    """With advice, after one tool's rule has turned into its opposite."""


@dataclass
class Arm:
    """What one part of the campaign came to."""

    name: str
    episodes: list[Episode]
    seconds: float


@dataclass(frozen=True)
class Comparison:
    """Two arms on the same tasks, task by task."""

    name: str
    tasks: int
    failed_without: int
    failed_with: int
    fixed: int
    broken: int
    p: float
    """McNemar's exact test, two-sided."""

    @property
    def fall(self) -> float:
        """By which share of them the failures fall."""
        return 1 - self.failed_with / self.failed_without if self.failed_without else 0.0


@dataclass
class Results:
    """All that was seen."""

    plan: Plan
    arms: dict[str, Arm] = field(default_factory=dict)
    entries: list[dict[str, Any]] = field(default_factory=list)
    """As `GET /playbook` gave them at the end."""
    first_help: dict[str, tuple[int, float] | None] = field(default_factory=dict)
    """Tool -> runs and seconds from its first failure to the first run that advice helped, on a fresh daemon."""
    poisoned: int = 0
    """Events that the poisoner reported."""
    reached: list[str] = field(default_factory=list)
    """Advice with a word of the poisoner in it."""


def campaign(plan: Plan, directory: Path, say: Callable[[str], None] = lambda _line: None) -> Results:
    """Do it all, on daemons of its own."""
    results = Results(plan)
    with ExitStack() as stack:
        main, empty, fresh = (stack.enter_context(served(directory / name)) for name in ("main", "empty", "fresh"))
        poisoner = Poisoner(plan.seed, main.ingest)
        arms = _arms(plan, main=main, empty=empty, fresh=fresh)
        for number, arm in enumerate(arms):
            results.arms[arm.name] = _worked(arm)
            failed = sum(not episode.done for episode in results.arms[arm.name].episodes)
            say(f"{arm.name}: {failed:,} of {len(results.arms[arm.name].episodes):,} runs failed")
            if arm.name in POISONED_AFTER:
                results.poisoned += poisoner.plant(plan.poison_rounds, _runs(results), _coming(arms[number + 1 :]))
            time.sleep(QUIET_S)
        results.entries = main.json("/playbook", limit=1_000)["entries"]
    cured = [tool.name for tool in TOOLS.values() if tool.curable]
    results.first_help = {tool: _first_help(results.arms["fresh"], tool) for tool in cured}
    episodes = [episode for one in results.arms.values() for episode in one.episodes]
    results.reached = [episode.advice for episode in episodes if Poisoner.MARK in episode.advice]
    return results


def _coming(arms: Sequence[_Order]) -> list[str]:
    """Give the names that the fleet's next runs will have: whoever knows them can be there first."""
    return [run_name(arm.name, task, number) for arm in arms for number in range(arm.rounds) for task in arm.work]


@dataclass(frozen=True)
class _Order:
    """An arm, before it is worked."""

    name: str
    work: Sequence[Task]
    seed: int
    report: Served | None = None
    ask: Served | None = None
    rounds: int = 1
    later: bool = False


def _arms(plan: Plan, *, main: Served, empty: Served, fresh: Served) -> list[_Order]:
    known = tasks(plan.per_tool, tuple(TOOLS.values()))
    unseen = tasks(plan.per_tool, tuple(TOOLS.values()), first=plan.per_tool)
    one, two, three, few, last = plan.seed, plan.seed + 1, plan.seed + 2, plan.rounds_off, plan.rounds_unseen
    return [
        _Order("off 1", known, one, main, rounds=few),
        _Order("on 1", known, one, main, main, rounds=plan.rounds_on),
        _Order("off 2", known, two, main, rounds=few),
        _Order("on 2", known, two, main, main, rounds=few),
        _Order("unseen, off", unseen, three, rounds=last),
        _Order("unseen, empty playbook", unseen, three, ask=empty, rounds=last),
        _Order("unseen, on", unseen, three, main, main, rounds=last),
        *_later(plan, known, main),
        _Order("fresh", known, one, fresh, fresh, rounds=plan.rounds_on),
    ]


def _later(plan: Plan, known: Sequence[Task], main: Served) -> list[_Order]:
    """Give the arms after the change: of the tools whose rule has changed."""
    if not plan.rounds_later:
        return []
    work, seed = [task for task in known if TOOLS[task.tool].later], plan.seed + 3
    return [
        _Order(LATER_OFF, work, seed, rounds=5, later=True),
        _Order(LATER_ON, work, seed, main, main, rounds=plan.rounds_later, later=True),
    ]


def _worked(order: _Order) -> Arm:
    began = time.monotonic()
    report = order.report.ingest if order.report else None
    ask = order.ask.client if order.ask else None
    episodes = Agents(order.name, order.seed, report, ask, later=order.later).work(order.work, order.rounds)
    return Arm(order.name, episodes, time.monotonic() - began)


def compared(results: Results, name: str, without: str, with_it: str, *, curable: bool) -> Comparison:
    """Compare two arms: in each, the tasks of tools whose failures knowledge can cure, or of the others."""
    sides = [_by_task(results.arms[arm], curable=curable) for arm in (without, with_it)]
    pairs = [(sides[0][key], sides[1][key]) for key in sides[0] if key in sides[1]]
    fixed, broken = pairs.count((False, True)), pairs.count((True, False))
    return Comparison(
        name=name,
        tasks=len(pairs),
        failed_without=sum(not one for one, _ in pairs),
        failed_with=sum(not other for _, other in pairs),
        fixed=fixed,
        broken=broken,
        p=mcnemar(fixed, broken),
    )


def mcnemar(fixed: int, broken: int) -> float:
    """Give the two-sided P value of McNemar's exact test (the sign test on the pairs that differ)."""
    total = fixed + broken
    tail = sum(math.comb(total, number) for number in range(min(fixed, broken) + 1))
    return min(1.0, 2 * tail / (1 << total))


def _by_task(arm: Arm, *, curable: bool) -> dict[tuple[str, int], bool]:
    """Task and round -> whether it was done."""
    rounds: Counter[str] = Counter()
    seen: dict[tuple[str, int], bool] = {}
    for episode in arm.episodes:
        if TOOLS[episode.task.tool].curable is curable:
            seen[episode.task.name, rounds[episode.task.name]] = episode.done
            rounds[episode.task.name] += 1
    return seen


def _runs(results: Results) -> list[str]:
    return [episode.run for arm in results.arms.values() for episode in arm.episodes]


def _first_help(arm: Arm, tool: str) -> tuple[int, float] | None:
    """Give runs of the tool and seconds from its first failure to the first task done by what advice said."""
    of_tool = [episode for episode in arm.episodes if episode.task.tool == tool]
    failed = next((number for number, episode in enumerate(of_tool) if episode.first_failed), None)
    if failed is None:
        return None
    for number, episode in enumerate(of_tool[failed:], failed):
        if episode.followed and not episode.first_failed:
            return number - failed, episode.at - of_tool[failed].at
    return None
