"""What callers send: an op that can be stored and read again, or an error of ours that blames the caller."""

from __future__ import annotations

from typing import Final

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from observer_actors.errors import EventInvalid
from observer_actors.event import EventDecoder
from observer_actors.op import Op, decode_op, encode_op
from tests.fuzz.examples import Change, changed, changes, fuzzed
from tests.test_event import judged_or_refused

NOW: Final = "2026-11-25T10:00:00.123Z"
EVENTS: Final[tuple[dict[str, object], ...]] = (
    {"source": "bot", "endpoint": "sql:run", "success": False, "error": "timeout after 30 s", "duration_ms": "12.5"},
    {"event_kind": "fill", "role": "Welder", "count": 3, "city": "Zürich", "state": "ZH", "ok": True, "id": "e-1"},
    {"timestamp": "2026-11-25T10:00:00Z", "rescue_attempted": 1, "x": [1, {"y": None}], "attrs": {"z": "“"}},
    {},
)
BODIES: Final = tuple(msgspec.json.encode(event) for event in EVENTS)
BATCHES: Final = (b"\n".join(BODIES), b"[" + b",".join(BODIES) + b"]")
LINES_MAX: Final = 50


@given(st.sampled_from(BODIES), changes)
@fuzzed(300)
def test_an_event_whose_bytes_were_changed_is_an_op_or_refused(body: bytes, todo: list[Change]) -> None:
    judged = judged_or_refused(lambda: EventDecoder().one(changed(body, todo), now=NOW))
    if not isinstance(judged, EventInvalid):
        _comes_back(judged.op)


@given(st.sampled_from(BATCHES), changes)
@fuzzed(300)
def test_a_batch_whose_bytes_were_changed_is_judged_line_by_line_or_refused(body: bytes, todo: list[Change]) -> None:
    judged = judged_or_refused(lambda: EventDecoder().many(changed(body, todo), now=NOW, lines_max=LINES_MAX))
    if isinstance(judged, EventInvalid):
        return
    assert 0 < len(judged.ops) + len(judged.errors) <= LINES_MAX
    for op in judged.ops:
        _comes_back(op)


def _comes_back(op: Op) -> None:
    """It is one line of UTF-8, and that line is the same op."""
    line = encode_op(op)
    assert b"\n" not in line
    assert b"\0" not in line
    line.decode()
    assert decode_op(line) == op
