from __future__ import annotations

from typing import Final

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from observer_actors.op import Op
from observer_actors.ring import RecentOp, Ring, RingStatistics

SOURCES: Final = ("mcp", "scenario", "bot")


def op(seq: int, source: str, *, success: bool) -> Op:
    return Op(
        timestamp=str(seq),
        endpoint="/x",
        input_summary="",
        success=success,
        duration_ms=1,
        output_summary="",
        source=source,
        seq=seq,
        staffer_id="s" if seq % 2 else None,
    )


class RingMachine(RuleBasedStateMachine):
    """A ring against the end of a list."""

    @initialize(capacity=st.integers(1, 20))
    def begin(self, capacity: int) -> None:
        self.ring = Ring(capacity)
        self.everything: list[Op] = []

    @rule(batch=st.lists(st.tuples(st.sampled_from(SOURCES), st.booleans()), max_size=9))
    def push(self, batch: list[tuple[str, bool]]) -> None:
        first = len(self.everything) + 1
        fresh = [op(first + n, source, success=ok) for n, (source, ok) in enumerate(batch)]
        self.ring.push(fresh)
        self.everything += fresh

    @invariant()
    def holds_the_end_of_the_list(self) -> None:
        ring = self.ring
        held = self.everything[-ring.capacity :]
        assert list(ring) == held
        assert list(ring.newest_first()) == held[::-1]
        assert len(ring) == len(held)
        assert ring.last_seq == len(self.everything)

    @invariant()
    def counts_what_it_holds(self) -> None:
        held = self.everything[-self.ring.capacity :]
        scenario = [kept for kept in held if kept.source == "scenario"]
        assert self.ring.scenario_ops() == len(scenario)
        assert self.ring.statistics() == RingStatistics(
            total=len(held),
            successes=sum(kept.success for kept in held),
            failures=sum(not kept.success for kept in held),
            by_source={source: n for source in SOURCES if (n := _count(held, source))},
            recent_scenario_ops=[
                RecentOp(ts=kept.timestamp, ok=kept.success, staffer=kept.staffer_id) for kept in scenario[-10:]
            ],
        )


TestRingMachine = RingMachine.TestCase


def _count(ops: list[Op], source: str) -> int:
    return sum(kept.source == source for kept in ops)


LONG: Final = "x" * 300_000


@pytest.mark.parametrize(
    ("field", "value", "held"),
    [
        ("error", LONG, 3),
        ("error", "\U0001f600" + LONG, 1),
        ("error", "\u20ac" + LONG, 1),
        ("error", "\xe9" + LONG, 1),
        ("timestamp", LONG, 3),
        ("count", LONG, 3),
        ("attrs", {"a": LONG, "b": 1}, 3),
        ("count", 10**300, 10),
    ],
)
def test_fewer_are_held_when_their_texts_take_much_memory(field: str, value: object, held: int) -> None:
    ring = Ring(100, text_bytes_max=1_000_000)
    for seq in range(1, 11):
        ring.push([msgspec.structs.replace(op(seq, "mcp", success=False), **{field: value})])
    assert [one.seq for one in ring] == list(range(11 - held, 11))
    assert ring.statistics().total == held


def test_what_the_daemon_notes_itself_is_not_held_but_counts_as_seen() -> None:
    ring = Ring(3)
    ring.push([op(1, "mcp", success=True), op(2, "observer", success=True), op(3, "observer", success=True)])
    assert ([held.seq for held in ring], ring.last_seq) == ([1], 3)
    ring.push([op(4, "observer", success=True)])
    assert (len(ring), ring.last_seq) == (1, 4)
    assert ring.statistics().by_source == {"mcp": 1}
