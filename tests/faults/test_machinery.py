"""The oracle sees what it is there for, and the report says it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from observer_actors.event import EventDecoder
from observer_actors.op import Op
from tests.daemon.load import Answer, Ledger
from tests.faults.campaign import Result, Round, replay_command
from tests.faults.report import report
from tests.faults.scenario import Seen, Unavailable, summed
from tests.faults.table import SCENARIOS
from tests.faults.tracing import Injection, started_under

PROBLEM = {"content-type": "application/problem+json", "retry-after": "1"}


def event(name: str) -> dict[str, Any]:
    return {"endpoint": "a", "input_summary": f"{name} asks", "success": True}


def op(name: str, seq: int) -> Op:
    made = EventDecoder().one(msgspec.json.encode(event(name)), now="2026-11-25T10:00:00.000Z").op
    made.seq = seq
    return made


def told(ledger: Ledger, name: str, status: int, **answer: object) -> None:
    events = [event(name)]
    ledger.note_sent(events)
    ledger.note(events, Answer(status, PROBLEM, msgspec.json.encode({"status": status, "error": "x", **answer})))


def ledger_of_three() -> Ledger:
    """a-1 and a-2 were acknowledged, b-1 was refused, and c-1 was not answered."""
    ledger = Ledger()
    told(ledger, "a-1", 200, seq=1)
    told(ledger, "a-2", 200, seq=2)
    told(ledger, "b-1", 503)
    ledger.note_sent([event("c-1")])
    return ledger


@pytest.mark.parametrize("stored", [["a-1", "a-2"], ["a-1", "a-2", "c-1"]])
def test_what_was_promised_passes(stored: list[str]) -> None:
    ledger_of_three().check([op(name, seq) for seq, name in enumerate(stored, 1)])


@pytest.mark.parametrize(
    ("stored", "why"),
    [
        ([op("a-1", 1)], "acknowledged, but lost"),
        ([op("a-1", 1), op("a-2", 3)], "seq has a gap"),
        ([op("a-1", 1), op("a-2", 2), op("a-2", 3)], "stored more than once"),
        ([op("a-1", 1), op("a-2", 2), op("b-1", 3)], "refused, but stored"),
        ([op("a-1", 1), op("a-2", 2), op("d-1", 3)], "never sent"),
        ([op("c-1", 1), op("a-1", 2), op("a-2", 3)], "under another seq"),
        ([op("a-1", 1), msgspec.structs.replace(op("a-2", 2), success=False)], "otherwise than sent"),
    ],
)
def test_what_was_not_is_seen(stored: list[Op], why: str) -> None:
    with pytest.raises(AssertionError, match=why):
        ledger_of_three().check(stored)


def test_a_changed_order_of_one_caller_is_seen() -> None:
    ledger = Ledger()
    ledger.note_sent([event("a-1")])
    told(ledger, "a-2", 200, seq=1)
    with pytest.raises(AssertionError, match="behind a later one"):
        ledger.check([op("a-2", 1), op("a-1", 2)])


def test_who_was_told_that_it_may_be_stored_may_find_it_stored() -> None:
    ledger = Ledger()
    told(ledger, "b-1", 503, error="the write may still succeed")
    ledger.check([op("b-1", 1)])
    ledger.check([])


def test_the_report_says_what_was_kept_and_how_to_run_again_what_was_not() -> None:
    kept, broken, absent = SCENARIOS[:3]
    round_ = Round(broken.name, 7, 2)
    results = [
        Result(kept.name, kept=[Seen(faults=3, acknowledged=1_234), Seen(faults=4, answers={503: 2})]),
        Result(broken.name, broken=[round_]),
        Result(absent.name, unavailable="no such tool"),
    ]
    text = report((kept, broken, absent), results, date="today", seed=1, facts={"processor": "one"})
    assert "3 rounds, 7 faults" in text
    assert "1,234 ops acknowledged; 0 ops without an answer; 2 answers of 503." in text
    assert "**in 1 of them a promise was not kept**" in text
    assert f"* Not kept: `{replay_command(round_)}`" in text
    assert "nothing, for it was not run: no such tool" in text
    assert "* processor: one" in text


def test_rounds_are_summed_up() -> None:
    together = summed([Seen(starts=1, ready_s_max=2.0, remarks={"a": 1}), Seen(starts=2, ready_s_max=1.0)])
    assert (together.starts, together.ready_s_max, together.remarks) == (3, 2.0, {"a": 1})


def test_each_fault_has_a_name_of_its_own() -> None:
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS)


def test_a_process_is_killed_at_the_call_that_is_named(tmp_path: Path) -> None:
    syncs = "import os, sys\nfor n in range(5): os.fsync(sys.stdout.fileno()); os.write(2, b'.')"
    try:
        prefix = started_under(Injection("fsync", "signal=SIGKILL", when="3"), tmp_path / "log")
    except Unavailable as absent:
        pytest.skip(str(absent))
    with (tmp_path / "file").open("wb") as file:
        ended = subprocess.run(
            [*prefix, sys.executable, "-c", syncs], stdout=file, stderr=subprocess.PIPE, check=False, timeout=60
        )
    assert (ended.returncode, ended.stderr) == (-signal.SIGKILL, b"..")
