"""The daemon does what the program that it replaces did, and the check that says so would see it if it did not."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
import trio

from tests.conftest import ROOT
from tests.parity.__main__ import shown
from tests.parity.bodies import Body, written
from tests.parity.bun import INSTALL_SECONDS_MAX, Unavailable
from tests.parity.check import Options, Report, check
from tests.parity.compare import Exchange, Side, differences, exchange_pairs, look_pairs
from tests.parity.made import made
from tests.parity.named import NAMED, name_of, unpaid
from tests.parity.seed import seed_program

NOW = datetime(2026, 4, 22, 10, 0, 0, tzinfo=UTC)
SEED_RECORD: dict[str, Any] = {
    "timestamp": "2026-04-22T10:00:00.000Z",
    "endpoint": "scenario:fill",
    "input_summary": "? Welder×? in ?, ?",
    "success": False,
    "duration_ms": 0,
    "output_summary": "failed",
    "source": "scenario",
    "role": "Welder",
    "rescue_attempted": False,
    "rescue_succeeded": False,
}
OUR_RECORD = {**SEED_RECORD, "seq": 1, "recorded_at": "2026-04-22T10:00:00.000000Z"}


def line(record: dict[str, Any], **changes: Any) -> bytes:
    changed = {name: value for name, value in {**record, **changes}.items() if value is not ...}
    return json.dumps(changed, ensure_ascii=False, separators=(",", ":")).encode()


def exchange(
    event: object, *, ours: bytes | None = None, status: int = 200, prompt: bool = True, **said: Any
) -> Exchange:
    seed = Side(200, {"accepted": True, "ring_size": 1}, (line(SEED_RECORD),), kept=1)
    answer = {"accepted": True, "ring_size": 1, "seq": 1, **said} if status == 200 else said
    lines = (ours or line(OUR_RECORD),) if status == 200 else ()
    other = Side(status, answer, lines, kept=len(lines), prompt=prompt)
    return Exchange(Body("made up", json.dumps(event).encode()), seed, other, NOW, NOW)


def unnamed(happened: Exchange) -> list[str]:
    report = Report()
    pairs = exchange_pairs(happened)
    names = report.take(pairs, differences(pairs, happened))
    return [difference.pair.field for difference in [*report.unnamed, *unpaid(happened, names)]]


def test_only_what_we_add_differs_when_all_is_well() -> None:
    assert unnamed(exchange({"role": "Welder"})) == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"role": "welder"}, "line.role"),
        ({"role": None}, "line.role"),
        ({"role": ...}, "line.role"),
        ({"city": None}, "line.city"),
        ({"success": 0}, "line.success"),
        ({"duration_ms": "0"}, "line.duration_ms"),
        ({"input_summary": "? Welder×0 in ?, ?"}, "line.input_summary"),
        ({"timestamp": "2026-04-22T11:00:00.000Z"}, "line.timestamp"),
        ({"timestamp": "2026-04-22T10:00:00Z"}, "line.timestamp"),
        ({"seq": 3}, "line.seq"),
        ({"recorded_at": "2026-04-22T10:00:00.000Z"}, "line.recorded_at"),
        ({"attrs": {"role": "Welder"}}, "line.attrs"),
        ({"flavour": "new"}, "line.flavour"),
    ],
)
def test_a_line_that_differs_otherwise_is_seen(changes: dict[str, Any], field: str) -> None:
    assert field in unnamed(exchange({"role": "Welder"}, ours=line(OUR_RECORD, **changes)))


def test_the_order_and_the_form_of_a_line_are_seen() -> None:
    backwards = line(dict(reversed(list(OUR_RECORD.items()))))
    assert unnamed(exchange({}, ours=backwards)) == ["line's keys in order"]
    assert unnamed(exchange({}, ours=json.dumps(OUR_RECORD).encode())) == ["line's form"]


def test_an_answer_before_its_line_is_seen() -> None:
    assert unnamed(exchange({}, prompt=False)) == ["line is there when the answer comes"]


@pytest.mark.parametrize("said", [{"ring_size": 7}, {"accepted": 1}, {"accepted": False}])
def test_an_answer_that_differs_is_seen(said: dict[str, Any]) -> None:
    assert unnamed(exchange({}, **said)) == [f"answer.{next(iter(said))}"]


def test_a_refusal_is_wanted_only_for_the_field_that_is_wrong() -> None:
    wrong = {"city": 5, "role": "Welder"}
    assert unnamed(exchange(wrong, status=400, error="city: wants text")) == []
    assert unnamed(exchange(wrong, status=400, error="role: wants text")) == ["status"]
    assert unnamed(exchange(wrong, status=400, error="invalid event")) == ["status"]
    assert unnamed(exchange(wrong, status=503, error="city: wants text")) == ["status"]
    assert unnamed(exchange({"city": "5"}, status=400, error="city: wants text")) == ["status"]


def test_a_promise_that_is_not_kept_is_seen() -> None:
    assert unnamed(exchange({"source": "cron"})) == ["owed: an unknown source is said in the answer"]
    assert unnamed(exchange({"source": "cron"}, notes=["source: cron is not known"])) == []
    assert unnamed(exchange({"a": 1})) == ["owed: unknown scalars are kept under attrs, within a bound"]
    assert unnamed(exchange({"a": 1}, ours=line(OUR_RECORD, attrs={"a": 1}))) == []
    assert unnamed(exchange({"a": 1}, ours=line(OUR_RECORD, attrs={"a": True}))) != []


def test_statistics_are_compared_to_the_last_leaf() -> None:
    def found(**changes: Any) -> list[str]:
        op = {"ts": "2026-04-22T10:00:00.000Z", "ok": True}
        seed = Side(200, {"total": 1, "by_source": {"bot": 1}, "recent_scenario_ops": [op]})
        ours = Side(200, {**seed.answer, **changes})
        pairs = look_pairs("/stats", seed, ours, began=NOW, ended=NOW)
        return [difference.pair.field for difference in differences(pairs) if name_of(difference) is None]

    assert found(rates={"second": 1}, total=1.0) == []
    assert found(total=2) == ["/stats.total"]
    assert found(by_source={"bot": 1, "mcp": 0}) == ["/stats.by_source.mcp"]
    assert found(recent_scenario_ops=[]) == ["/stats.recent_scenario_ops length"]
    assert found(recent_scenario_ops=[{"ts": "yesterday", "ok": True}]) == ["/stats.recent_scenario_ops[0].ts"]


def test_bodies_are_the_same_in_each_run() -> None:
    assert written() == written()
    assert made(20, seed=3) == made(20, seed=3)


@pytest.mark.timeout(INSTALL_SECONDS_MAX + 100)
def test_the_daemon_does_what_the_program_it_replaces_did() -> None:
    try:
        report = trio.run(check, Options(seed_program(), ROOT / ".parity", examples=60))
    except Unavailable as absent:
        pytest.skip(str(absent))
    if report.unnamed:
        pytest.fail("\n".join(map(shown, report.unnamed)), pytrace=False)
    assert [entry.name for entry in NAMED if not entry.by_chance and not report.named[entry.name]] == []
