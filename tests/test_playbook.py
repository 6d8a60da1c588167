"""Successes into playbook entries."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from observer_actors.event import EventDecoder
from observer_actors.op import Op
from observer_actors.patterns import Outgoing
from observer_actors.playbook import (
    Created,
    Delta,
    Entry,
    Kind,
    Updated,
    consolidate,
    endpoints_left_out,
    entry_id,
)
from observer_actors.playbook.consolidation import ENTRIES_MAX, EXAMPLES_MAX


def success(seq: int, endpoint: str = "sql:run", *, ms: float = 10, given: str = "", ok: bool = True) -> Op:
    return Op(
        timestamp="2026-11-22T10:00:00.000Z",
        endpoint=endpoint,
        input_summary=given or f"input {seq}",
        success=ok,
        duration_ms=ms,
        output_summary="ok",
        source="mcp",
        seq=seq,
    )


def entries_after(*batches: Iterable[Op], entries: Mapping[str, Entry] | None = None) -> dict[str, Entry]:
    known = dict(entries or {})
    for batch in batches:
        known |= {delta.entry.id: delta.entry for delta in consolidate(list(batch), known)}
    return known


def only(deltas: list[Delta]) -> Delta:
    [delta] = deltas
    return delta


def body(message: Outgoing | None) -> dict[str, str]:
    assert message is not None
    content: dict[str, str] = json.loads(message.body)
    return content


def test_an_entry_and_the_gateways_copy_are_the_seeds() -> None:
    ops = [success(seq, ms=seq) for seq in range(1, 6)]
    delta = only(consolidate(ops, {}))
    assert delta == Created(
        Entry(
            id=entry_id(Kind.DO, "sql:run"),
            kind=Kind.DO,
            endpoint="sql:run",
            text="sql:run works with inputs like: input 3; input 4; input 5 (5 calls succeeded, 3 ms on average)",
            version=1,
            successes=5,
            duration_ms_total=15.0,
            first_seq=1,
            last_seq=5,
            example_seqs=(1, 2, 3, 4, 5),
            inputs=("input 3", "input 4", "input 5"),
            sent_successes=5,
        ),
        Outgoing(key=f"entry:{entry_id(Kind.DO, 'sql:run')}:5", path="/log", body=delta.message.body)
        if delta.message is not None
        else pytest.fail("no message"),
    )
    assert list(body(delta.message).items()) == [
        ("operation", "consolidated: 5 successful sql:run calls"),
        ("approach", "common pattern: input 3; input 4; input 5"),
        ("result", "avg_duration=3ms, 5 successes"),
        ("context", "endpoint=sql:run"),
    ]


def test_the_common_pattern_is_cut_at_200_characters() -> None:
    ops = [success(seq, given="é" * 90) for seq in range(1, 6)]
    expected = "common pattern: " + "; ".join(["é" * 90] * 3)[:200]
    assert body(only(consolidate(ops, {})).message)["approach"] == expected


@pytest.mark.parametrize(
    ("durations", "expected"),
    # What JavaScript's toFixed(0) gives: node -e 'console.log((2.5).toFixed(0))'
    [
        ([0, 0, 1.5], "1"),
        ([1, 2, 4.5], "3"),
        ([0, 0, -1.5], "-1"),
        ([0, 0, -1.2], "-0"),
        ([0, 0, 0], "0"),
        ([1e300, 1e300, 1e300], "1000000000000000"),
        ([10**400, 0, 0], "333333333333333"),
    ],
)
def test_the_average_is_rounded_as_the_seed_rounds(durations: list[float], expected: str) -> None:
    ops = [success(seq, ms=ms) for seq, ms in enumerate(durations, start=1)]
    others = [success(8, "other"), success(9, "other")]
    assert body(only(consolidate(ops + others, {})).message)["result"].startswith(f"avg_duration={expected}ms,")


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ({"a": 4}, []),
        ({"a": 5}, ["a"]),
        ({"a": 3, "b": 1}, []),
        ({"a": 3, "b": 2}, ["a"]),
        ({"b": 3, "a": 3}, ["b", "a"]),
        ({"a": 2, "b": 2, "c": 2}, []),
    ],
)
def test_five_successes_in_all_and_three_of_an_endpoint_make_an_entry(
    calls: dict[str, int], expected: list[str]
) -> None:
    endpoints = [endpoint for endpoint, count in calls.items() for _ in range(count)]
    ops = [success(seq, endpoint) for seq, endpoint in enumerate(endpoints, start=1)]
    assert [delta.entry.endpoint for delta in consolidate(ops, {})] == expected


def test_failures_make_no_entry() -> None:
    assert consolidate([success(seq, ok=False) for seq in range(1, 10)], {}) == []


def test_an_update_adds_only_what_is_new() -> None:
    ops = [success(seq) for seq in range(1, 10)]
    entries = entries_after(ops[:6])
    delta = only(consolidate(ops, entries))
    assert isinstance(delta, Updated)
    assert (delta.entry.version, delta.entry.successes, delta.entry.last_seq) == (2, 9, 9)
    assert delta.entry.inputs == ("input 7", "input 8", "input 9")


def test_an_entry_goes_on_when_its_endpoint_has_become_rare() -> None:
    entries = entries_after([success(seq) for seq in range(1, 6)])
    assert only(consolidate([success(6)], entries)).entry.successes == 6


def test_the_gateway_gets_a_copy_when_the_evidence_has_grown_by_half() -> None:
    entries: dict[str, Entry] = {}
    copies = []
    for seq in range(6, 101):
        for delta in consolidate([success(n) for n in range(1, seq)], entries):
            entries[delta.entry.id] = delta.entry
            if delta.message is not None:
                copies.append((delta.message.key.split(":")[2], delta.entry.successes))
    assert copies == [
        ("5", 5),
        ("8", 8),
        ("12", 12),
        ("18", 18),
        ("27", 27),
        ("41", 41),
        ("62", 62),
        ("93", 93),
    ]


def test_only_the_newest_examples_are_kept() -> None:
    [entry] = entries_after([success(seq) for seq in range(1, 50)]).values()
    assert entry.example_seqs == tuple(range(50 - EXAMPLES_MAX, 50))


def test_endpoints_beyond_the_bound_are_counted_and_get_no_entry() -> None:
    ops = [success(3 * n + i + 1, f"e{n}") for n in range(ENTRIES_MAX + 7) for i in range(3)]
    entries = entries_after(ops)
    assert len(entries) == ENTRIES_MAX
    assert endpoints_left_out(ops, {}) == endpoints_left_out(ops, entries) == 7
    assert consolidate(ops, entries) == []
    assert endpoints_left_out(ops[:30], {}) == 0


some_ops = st.lists(st.tuples(st.sampled_from("abc"), st.floats(-10, 1e6), st.booleans()), max_size=60).map(
    lambda given: [success(seq, endpoint, ms=ms, ok=ok) for seq, (endpoint, ms, ok) in enumerate(given, start=1)]
)


@given(some_ops)
def test_the_same_ops_again_give_no_delta(ops: list[Op]) -> None:
    assert consolidate(ops, entries_after(ops)) == []


@given(some_ops, st.randoms(use_true_random=False))
def test_the_order_of_the_ops_makes_no_difference_to_an_entry(ops: list[Op], random: Random) -> None:
    shuffled = list(ops)
    random.shuffle(shuffled)
    assert entries_after(shuffled) == entries_after(ops)


@given(some_ops, st.integers(0, 60))
def test_taking_ops_in_twice_counts_what_taking_them_in_once_does(ops: list[Op], cut: int) -> None:
    """All but what depends on the number of calls: the version, and when the gateway was told."""
    counted = [
        {entry.id: msgspec.structs.replace(entry, version=0, sent_successes=0) for entry in entries.values()}
        for entries in (entries_after(ops[:cut], ops), entries_after(ops))
    ]
    assert counted[0] == counted[1]


@given(some_ops)
def test_entries_survive_the_way_to_disk_and_back(ops: list[Op]) -> None:
    for entry in entries_after(ops).values():
        assert msgspec.json.decode(msgspec.json.encode(entry), type=Entry) == entry


def test_the_airline_data_gives_an_entry_for_each_endpoint_that_worked(shared_data: Path) -> None:
    lines = (shared_data / "taubench_airline_ops.jsonl").read_bytes()
    ops = EventDecoder().many(lines, now="2026-11-22T10:00:00.000Z", lines_max=10_000).ops
    for seq, op in enumerate(ops, start=1):
        op.seq = seq
    entries = entries_after(ops)
    worked = [op.endpoint for op in ops if op.success]
    assert {entry.endpoint: entry.successes for entry in entries.values()} == {
        endpoint: worked.count(endpoint) for endpoint in set(worked) if worked.count(endpoint) >= 3
    }
