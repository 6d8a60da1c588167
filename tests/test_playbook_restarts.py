"""The playbook in tiny bounds, cut at any op: saved and restored there it is what it would have been, to the byte."""

from __future__ import annotations

import random
from typing import Any, Final

import pytest

from observer_actors.op import Op
from observer_actors.playbook import (
    Action,
    Corroboration,
    Decision,
    Of,
    Playbook,
    Row,
    evidence,
    fold,
    ledger,
    runs,
    trial,
)
from tests.playbook_ops import call, decided, exposed, numbered, revoked, save, verdict

pytestmark = pytest.mark.no_cover

SEEDS: Final = 60
TINY: Final = {
    trial: {
        "RUNS_MAX": 12,
        "ADVICES_MAX": 15,
        "DRAWS_MAX": 2,
        "OVERTAKEN_MAX": 3,
        "WAITING_MAX": 6,
        "WINDOW_RUNS": 10,
        "TASKS_MAX": 4,
        "SOURCES_MAX": 3,
    },
    fold: {"ENDPOINTS_MAX": 4, "VALUES_MAX": 40, "SOURCES_MAX": 4},
    evidence: {"FEATURES_MAX": 4, "VALUES_MAX": 3, "SHAPES_MAX": 3, "FAILURES_MAX": 3, "ALIASES_MAX": 4}
    | {"RECOVERIES_MAX": 3, "HABITS_MAX": 3, "STRAYS_MAX": 5, "TOLD_MAX": 2, "FAILURE_VALUES_MAX": 6},
    runs: {"RUNS_MAX": 8, "STEPS_MAX": 6, "STEPS_ALL_MAX": 25},
    ledger: {"ENTRIES_MAX": 9, "MARKS_MAX": 3},
}
ERRORS: Final = (
    "the engine has stalled badly",
    "the motor has stalled badly",
    "timeout after 5 s",
    "HTTP 429 slow down",
    "no",
)
INPUTS: Final = ("", '{"a":1}', '{"a":"x","b":2}', '{"c":[]}', "select 7")


def journal(seed: int) -> list[Op]:
    """Make up what agents, an auditor, the daemon and a person write."""
    chance = random.Random(seed)
    playbook, ops, advices = Playbook(), list[Op](), ["none"]

    def add(op: Op) -> None:
        [numbered_] = numbered([op], first=len(ops) + 1)
        playbook.take(numbered_)
        ops.append(numbered_)

    for _ in range(chance.randrange(50, 400)):
        what, run = chance.random(), f"r{chance.randrange(20)}"
        if what < 0.6:
            error = chance.choice(ERRORS) if chance.random() < 0.5 else ""
            more: dict[str, Any] = {"advice_id": chance.choice(advices)} if chance.random() < 0.3 else {}
            where, source = f"e{chance.randrange(6)}", chance.choice("ABCDEF")
            named = run if chance.random() < 0.8 else ""
            add(call(where, error=error, given=chance.choice(INPUTS), run=named, source=source, **more))
        elif what < 0.7:
            add(verdict(run, good=chance.random() < 0.5))
        elif what < 0.94:
            known = [entry.id for entry in playbook.entries.values() if entry.available] or ["deadbeef00000000"]
            some = chance.sample(known, min(len(known), 3))
            at = chance.randrange(len(some) + 1)
            advices = [*advices[-10:], f"a{len(ops)}"]
            add(exposed(advices[-1], ",".join(some[:at]), control=",".join(some[at:]), run=run))
        elif what < 0.98:
            entry = chance.choice([*playbook.entries, "0123456789abcdef"])
            add(decided(Decision(action=chance.choice(list(Action)), entry=entry, note="so")))
        else:
            add(revoked(chance.choice(list(Of)), chance.choice(["A", "B", run])))
    return ops


@pytest.mark.parametrize("seed", range(SEEDS))
def test_cut_anywhere_it_is_the_same_to_the_byte(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, bounds in TINY.items():
        for name, most in bounds.items():
            monkeypatch.setattr(module, name, most)
    ops = journal(seed)
    whole, part, rows = Playbook(Corroboration()), Playbook(Corroboration()), dict[tuple[str, str], Row]()
    cuts = set(random.Random(seed).sample(range(len(ops)), 4))
    for number, op in enumerate(ops):
        whole.take(op)
        part.take(op)
        if number in cuts:
            save(part, rows)
            assert [rows[key] for key in sorted(rows)] == part.rows()
            part = Playbook.restored(rows.values(), part.cursor)
    assert part.rows() == whole.rows()
    anew = Playbook(Corroboration(), whole.meta.revocations)
    for op in ops:
        anew.take(op)
    assert not anew.outdated
