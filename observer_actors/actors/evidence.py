"""What a pattern's contrast is computed from: the newest ops at its endpoint, out of the journal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Final

import trio

from observer_actors.doubt import run_of
from observer_actors.journal import Page, Query
from observer_actors.op import Op
from observer_actors.patterns import Contrast, Pattern, Scope, contrasts, features
from observer_actors.patterns.contrast import FAILING_MIN, OPS_MAX
from observer_actors.threads import in_thread

SAMPLE_OPS: Final = OPS_MAX // 2
LOOKING_S: Final = 0.001
"""Groups of ops are looked for so long before others have their turn: some hundred of them, or one of a long text."""


Search = Callable[[Query], Awaitable[Page]]


async def contrast_of(search: Search, pattern_of: Callable[[Op], str], pattern: Pattern) -> list[Contrast]:
    """Say what sets a pattern's failures apart from the successes at the same endpoint; empty where nothing does."""
    if pattern.scope is Scope.OTHER:
        return []
    failed = await search(Query(endpoint=pattern.endpoint, success=False, limit=SAMPLE_OPS, newest_first=True))
    went_well = await search(Query(endpoint=pattern.endpoint, success=True, limit=SAMPLE_OPS, newest_first=True))
    own = []
    until = trio.current_time() + LOOKING_S
    for op in failed.ops:
        if pattern_of(op) == pattern.id:
            own.append(op)
        if trio.current_time() >= until:
            await trio.lowlevel.checkpoint()
            until = trio.current_time() + LOOKING_S
    # A page that was full says nothing of what was before it, however few of its ops are this pattern's.
    since = max(page.cursor or 0 for page in (failed, went_well))
    return await in_thread(partial(_compare, own, tuple(went_well.ops), since))


def comparable(failing: Sequence[Op], succeeding: Sequence[Op], since: int) -> tuple[Sequence[Op], Sequence[Op], bool]:
    """Restrict two samples, newest first, to the time that both cover, and to one op a run; say whether the time could.

    Where too little is left of it, all of it is kept, and times must not be compared.

    :param since: the first seq that both cover.
    """
    shared = [_one_a_run(op for op in ops if op.seq >= since) for ops in (failing, succeeding)]
    if len(shared[0]) < FAILING_MIN:
        return _one_a_run(failing), _one_a_run(succeeding), False
    return shared[0], shared[1], True


def _one_a_run(ops: Iterable[Op]) -> Sequence[Op]:
    """Give the first op of each run, of ops that are newest first, and each that names no run.

    The tests take ops as independent. What an agent does in one run is not: who tries five times says nothing five
    times over. The first, for a later one is what the agent has made of it.
    """
    return list({run_of(op) or op.seq: op for op in ops}.values())


def _compare(failing: Sequence[Op], succeeding: Sequence[Op], since: int) -> list[Contrast]:
    failing, succeeding, with_times = comparable(failing, succeeding, since)
    return contrasts(*([features(op, with_hour=with_times) for op in ops] for ops in (failing, succeeding)))
