"""The runs that are remembered: their steps, and what an outside checker has judged of them. Pure.

A verdict is an op of source `AUDITOR` that names a run (`trial.run_name`); the first one counts. It says how the run
ended, and is nobody's word for what its ops say. A success in a run that was judged failed is no success, whoever
reported it; the steps of whoever reported first in a run are what its verdict shows of habits. A verdict comes before
or after the ops. A step beyond `STEPS_MAX` is counted as a call, and shows nothing else.

Bounds: the `RUNS_MAX` runs that have had an op last, with `STEPS_MAX` steps each, `STEPS_ALL_MAX` in all. A verdict on
a run that has been forgotten changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from observer_actors.playbook.inputs import Feature

RUNS_MAX: Final = 2_000
STEPS_MAX: Final = 60
STEPS_ALL_MAX: Final = 20_000
PATH_MAX: Final = 3
"""Endpoints between a failure and the next call; a longer way says little about what helped."""
OTHER_INPUT: Final = ""
"""Stands as the whole way where the next call came at once, but with another input: that is not the same call again."""


class Step(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One op of a run, as far as evidence has come from it."""

    seq: int
    endpoint: str
    source: str
    ok: bool
    """It succeeded, and nothing that it gave speaks against that (`doubt.suspicion`)."""
    features: tuple[Feature, ...] = ()
    """Without attributes that earlier calls like it (`alike`) have had; none where one of them had the same input."""
    failure: str = ""
    """Its masked text; "" for what is reported as a success, suspect or not."""
    given: int = 0
    """A checksum of its input: within a run it tells whether two calls are the same."""


class Run(msgspec.Struct):
    """One run."""

    name: str
    number: int
    """The seq of its first op."""
    last_seq: int
    source: str = ""
    """Who reported first in it; "" while only a verdict has come."""
    judge: str = ""
    """Who has judged it; "": nobody."""
    good: bool = False
    verdict_seq: int = 0
    steps: list[Step] = []

    @property
    def is_full(self) -> bool:
        """Whether further steps are not noted: of those nobody knows what they repeat, or what they came after."""
        return len(self.steps) >= STEPS_MAX

    @property
    def is_bad(self) -> bool:
        """Whether it was judged failed."""
        return bool(self.judge) and not self.good


class Runs:
    """All of them."""

    def __init__(self) -> None:
        self.by_name: dict[str, Run] = {}
        """The one whose last op is oldest first."""
        self._steps = 0

    def restore(self, run: Run) -> None:
        """Take a run in as it was; by ascending ``last_seq``."""
        self.by_name[run.name] = run
        self._steps += len(run.steps)

    def reached(self, name: str, seq: int) -> Run:
        """Give the run that an op belongs to."""
        run = self.by_name.pop(name, None) or Run(name, seq, seq)
        run.last_seq = seq
        self.by_name[name] = run
        return run

    def reporter(self, name: str) -> str:
        """Give who reported first in a run; "" where nobody has, or it is forgotten."""
        run = self.by_name.get(name)
        return "" if run is None else run.source

    def add(self, run: Run, step: Step) -> None:
        """Note a step, if there is room for it in the run."""
        run.source = run.source or step.source
        if not run.is_full:
            run.steps.append(step)
            self._steps += 1

    def forget_oldest(self) -> list[Run]:
        """Keep the bounds; give the runs that were forgotten."""
        gone = []
        while len(self.by_name) > RUNS_MAX or (self._steps > STEPS_ALL_MAX and len(self.by_name) > 1):
            name, run = next(iter(self.by_name.items()))
            del self.by_name[name]
            self._steps -= len(run.steps)
            gone.append(run)
        return gone


def alike(steps: Sequence[Step], step: Step) -> Iterator[Step]:
    """Give the earlier calls of a step's source and endpoint that had the same outcome.

    :param steps: those of the run before it.
    """
    for one in steps:
        if (one.endpoint, one.source, one.ok, one.failure) == (step.endpoint, step.source, step.ok, step.failure):
            yield one


def way_from_failure(steps: Sequence[Step], step: Step) -> tuple[Step, tuple[str, ...]] | None:
    """Give the failure that a step comes after, and the endpoints that succeeded in between, each once in a row.

    Nothing in between is the same call again; with another input it is `OTHER_INPUT`. Of the steps of the same source
    alone: nobody can put a step into another's way. None where the call before it at its endpoint did not fail, or lies
    too far back.

    :param steps: those of the run before it.
    """
    path: list[str] = []
    for before in reversed(steps):
        if before.source != step.source:
            continue
        if before.endpoint == step.endpoint:
            if not path and before.given != step.given:
                path.append(OTHER_INPUT)
            return (before, tuple(reversed(path))) if before.failure else None
        if before.ok and (not path or path[-1] != before.endpoint):
            path.append(before.endpoint)
            if len(path) > PATH_MAX:
                return None
    return None


def habits(steps: Sequence[Step]) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    """Give each endpoint that a run has called, its first op, and the endpoints that had succeeded before."""
    called: dict[str, None] = {}
    succeeded: dict[str, None] = {}
    for step in steps:
        if step.endpoint not in called:
            yield step.endpoint, step.seq, tuple(succeeded)
            called[step.endpoint] = None
        if step.ok:
            succeeded[step.endpoint] = None
