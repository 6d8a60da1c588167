from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from observer_actors.op import Op
from observer_actors.ring import RecentOp, Ring, RingStatistics


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


pushes = st.lists(st.lists(st.tuples(st.sampled_from(["mcp", "scenario", "bot"]), st.booleans()), max_size=9))


@given(st.integers(1, 20), pushes)
def test_a_ring_is_the_end_of_a_list(capacity: int, pushes: list[list[tuple[str, bool]]]) -> None:
    ring, everything = Ring(capacity), list[Op]()
    for batch in pushes:
        fresh = [op(len(everything) + n, source, success=ok) for n, (source, ok) in enumerate(batch, 1)]
        ring.push(fresh)
        everything += fresh
        held = everything[-capacity:]
        scenario = [kept for kept in held if kept.source == "scenario"]
        assert list(ring) == held
        assert list(ring.newest_first()) == held[::-1]
        assert len(ring) == len(held)
        assert ring.last_seq == len(everything)
        assert ring.oldest_seq == (held[0].seq if held else 1)
        assert ring.scenario_ops() == len(scenario)
        assert ring.statistics() == RingStatistics(
            total=len(held),
            successes=sum(kept.success for kept in held),
            failures=sum(not kept.success for kept in held),
            by_source={source: n for source in ("mcp", "scenario", "bot") if (n := _count(held, source))},
            recent_scenario_ops=[
                RecentOp(ts=kept.timestamp, ok=kept.success, staffer=kept.staffer_id) for kept in scenario[-10:]
            ],
        )


def _count(ops: list[Op], source: str) -> int:
    return sum(kept.source == source for kept in ops)


def test_fewer_are_held_when_their_texts_are_long() -> None:
    ring = Ring(100, characters_max=1_000)
    for seq in range(1, 11):
        long = op(seq, "mcp", success=False)
        long.error = "x" * 300
        ring.push([long])
    assert 1 <= len(ring) <= 3
    assert [held.seq for held in ring] == list(range(11 - len(ring), 11))
    assert ring.statistics().total == len(ring)
