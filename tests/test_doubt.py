"""Claims of success, and what speaks against them: the op's own words, and the verdict on its run."""

import itertools
import json
from pathlib import Path
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from observer_actors.doubt import (
    _REASONS,
    ENDPOINTS_MAX,
    OTHER_IDS_MAX,
    RUN_LABELS_MAX,
    RUNS_MAX,
    Claims,
    Doubts,
    run_of,
    suspicion,
)
from observer_actors.event import EventDecoder
from observer_actors.op import Op


def op(**fields: object) -> Op:
    made = EventDecoder().one(msgspec.json.encode({"success": True, "endpoint": "sql:run", **fields}), now="").op
    return msgspec.structs.replace(made, seq=1)


@pytest.mark.parametrize(
    "output",
    [
        '{"error": "no such table"}',
        '{"content": [], "isError": true}',
        '{"success": false}',
        '{"ok": false, "rows": []}',
        '{"status": "failed"}',
        '{"status": 503}',
        '{"status_code": 404, "body": ""}',
        '{"exit_code": 2}',
        '{"error": "cut off in the mid',
        "Error: no seats",
        "java.io.IOException: broken pipe",
        "ValueError: invalid literal",
        "failed: no route",
        "HTTP 502 from upstream",
        "HTTP/1.1 404 Not Found",
        "it said: Traceback (most recent call last): …",
        "make: exit code 2",
        "done, exited with status 1",
        "upstream status: 503",
        "500 Internal Server Error",
        "Exit code 1\nls: no such file",
        '{"id": 1, "error": "boom"}\n',
        '[{"error": "boom"}]',
        '{"result": {"isError": true}}',
        '{"exitCode": 1}',
        "HTTP status 500",
        "Request failed with status code 500",
        "HTTP error 503",
        "the command exited with non-zero status 1",
        "Error executing tool search: boom",
        "Tool error: x",
        "An error occurred: x",
        "An error occurred (AccessDenied) when calling the operation: x",
        "Error",
        "<tool_use_error>x</tool_use_error>",
        '```json\n{"error":"x"}\n```',
        '\ufeff{"error":"x"}',
        '{"Error":"x"}',
        '{"errorMessage":"x","errorType":"y"}',
        '{"isError":"true"}',
        '{"success":"false"}',
        '{"exit_status":1}',
        "x" * 9_000 + " exit code 1",
        "done\nExit code: 1",
        "npm ERR! x\nExit status 1",
        "ran\nStatus code: 500",
        "java.lang.NullPointerException\n\tat x",
        "Uncaught TypeError: x",
        '[{"type":"text","text":"Error: boom"}]',
        '{"content":[{"type":"text","text":"Error: boom"}]}',
        "{'error': 'no such table'}",
        "{'isError': True, 'content': []}",
        "{'success': False}",
        '"{\\"error\\": \\"no such table\\"}"',
        '{"is_error": true}',
        '{"status":"error","code":500,"data":null}',
        '{"status":"fail","data":{"title":"a title is required"}}',
        '{"response":{"error":"boom"}}',
        '{"metadata":{"exit_code":1},"output":""}',
        "exit 1",
        "returncode=1",
        "return code 2",
        "rc=1",
        "CompletedProcess(args=['ls'], returncode=2, stdout='')",
        "Process finished with exit code -1",
        "exit code: 3221225477",
        "Error 404",
        "404: Not Found",
        "[ERROR] the disk is full",
        "panic: runtime error: index out of range",
        'Exception in thread "main" java.lang.IllegalStateException',
        "Segmentation fault (core dumped)",
        "\x1b[31mError: no seats\x1b[0m",
        "it failed with status code 404 for that",
        "status code 404, nothing there",
    ],
)
def test_a_success_whose_words_say_otherwise_is_suspect(output: str) -> None:
    assert suspicion(op(output_summary=output)) is not None
    assert suspicion(op(output_summary=output, success=False)) is None, "it says so itself"


@pytest.mark.parametrize(
    "output",
    [
        "ok",
        "0 errors: all good",
        '{"error": null, "rows": 3}',
        '{"error": "", "errors": []}',
        '{"isError": false, "ok": true}',
        '{"status": "available", "seats": 404}',
        '{"status": 200}',
        '{"exit_code": 0}',
        '[{"status": "cancelled"}]',
        "exit code 0",
        "status: 200",
        "error handling was added",
        "the exit 3 of the motorway",
        "Failed: 0, passed: 12",
        "Error: none",
        '{"error": "none", "rows": 3}',
        '{"error": {"code": 0}}',
        '{"status": 450, "seats": 3}',
        '{"status": "failed", "job": "j1"}',
        "status: 450 items",
        '{"error":"No errors found"}',
        '{"error":"n/a"}',
        '{"error":"-"}',
        '{"error":"0 errors"}',
        '{"success":true,"error":"none found"}',
        '{"success":true,"error":{"code":"0","message":"ok"}}',
        '{"success":true,"error":{"code":null,"message":null}}',
        '{"ok":true,"status":"failed","message":"job 7 has failed"}',
        "404 Not Found pages are served by nginx",
        '{"title":"Go","text":"Error: handling by values"}',
        "Errors were not found",
        "an error budget of 3: fine",
        "status code 404 pages are styled",
        "Error 404 pages are styled",
        "404: the area code",
        "exit 1 of the motorway",
        "rc=10 is what the script sets",
        "return code 2 to the caller",
        "CompletedProcess(args=['ls'], returncode=0, stdout='')",
        "Exit code: 0",
        "[errors] none",
        "Panic: at the disco",
        "segmentation faults were mended",
        "{'error': None, 'rows': 3}",
        "{'error': 'none'}",
        "{'error': ''}",
        "{'ok': True}",
        '"{\\"error\\": null}"',
        '"{ is a brace"',
        '{"status":"failed","data":{"job":7}}',
        '{"status":"error","code":17}',
        '{"metadata":{"exit_code":0},"output":""}',
        '{"response":{"error":null}}',
        '{"is_error": false}',
    ],
)
def test_a_plain_success_is_not(output: str) -> None:
    assert suspicion(op(output_summary=output)) is None


def test_a_success_that_carries_an_error_is_suspect() -> None:
    assert suspicion(op(error="boom")) == "it carries an error"
    assert suspicion(op(error=None)) is None


@given(st.text(max_size=300))
def test_of_any_output_one_of_the_reasons_is_said_or_none(output: str) -> None:
    assert suspicion(op(output_summary=output)) in {None, *_REASONS.values()}


def test_the_run_is_the_first_that_an_op_names() -> None:
    assert run_of(op(run="r1", sig_hash="s")) == "run:r1"
    assert run_of(op(trace_id="t1", sig_hash="s")) == "trace_id:t1"
    assert run_of(op(sig_hash="s")) == "sig_hash:s"
    assert run_of(op()) is None


def verdict(run: str, *, ok: bool) -> Op:
    return op(source="auditor", endpoint="auditor:verdict", success=ok, run=run)


def test_a_run_that_failed_without_a_word_is_silent_whichever_comes_first() -> None:
    ops = [op(run="a"), op(run="a"), op(run="b"), op(run="b", success=False), op(run="c")]
    verdicts = [verdict("a", ok=False), verdict("b", ok=False), verdict("c", ok=True)]
    expected = (3, 2, 1, Claims(claimed=4, judged=4, refuted=3))
    for seed in range(20):
        order = [*ops, *verdicts]
        Random(seed).shuffle(order)
        doubts = Doubts()
        doubts.add(order)
        assert (doubts.runs_judged, doubts.runs_failed, doubts.runs_silent, doubts.endpoints["sql:run"]) == expected


def test_a_verdict_may_name_any_id_of_a_run() -> None:
    doubts = Doubts()
    judged = op(source="auditor", endpoint="auditor:verdict", success=False, trace_id="t1")
    doubts.add([op(run="a", trace_id="t1"), op(run="b", trace_id="t2"), judged])
    assert (doubts.runs_judged, doubts.endpoints["sql:run"].judged, doubts.endpoints["sql:run"].refuted) == (1, 1, 1)


def test_a_run_is_one_by_whatever_its_ops_and_its_verdict_name_it_in_any_order() -> None:
    ops = [
        op(run="a", trace_id="t"),
        op(trace_id="t"),
        op(traceId="t", success=False),
        op(run_id="a"),
        op(run="a", sig_hash="s"),
        op(sig_hash="s"),
        op(source="auditor", endpoint="auditor:verdict", success=False, run="a", trace_id="t", sig_hash="s"),
    ]
    for seed in range(200):
        order = list(ops)
        Random(seed).shuffle(order)
        doubts = Doubts()
        doubts.add(order)
        counts = (doubts.runs_judged, doubts.runs_failed, doubts.runs_silent, len(doubts.runs))
        assert counts == (1, 1, 0, 1), seed
        assert doubts.endpoints["sql:run"] == Claims(claimed=5, judged=5, refuted=5), seed


def test_an_id_leads_to_the_run_also_by_way_of_another_id() -> None:
    doubts = Doubts()
    judged = op(source="auditor", endpoint="auditor:verdict", success=False, sig_hash="s")
    doubts.add([op(run="a", trace_id="t"), op(trace_id="t", sig_hash="s"), judged])
    assert (len(doubts.runs), doubts.endpoints["sql:run"].refuted) == (1, 2)


def test_an_id_of_a_run_that_became_part_of_another_leads_to_that() -> None:
    ops = [
        op(trace_id="t", sig_hash="s"),
        op(run="r", trace_id="t"),
        op(source="auditor", endpoint="auditor:verdict", success=False, sig_hash="s"),
    ]
    for order in itertools.permutations(ops):
        doubts = Doubts()
        doubts.add(order)
        assert (doubts.runs_judged, doubts.endpoints["sql:run"].refuted, len(doubts.runs)) == (1, 2, 1)


def test_a_second_verdict_on_a_run_changes_nothing() -> None:
    doubts = Doubts()
    doubts.add([op(run="a"), verdict("a", ok=False), verdict("a", ok=True)])
    assert (doubts.runs_judged, doubts.runs_failed, doubts.endpoints["sql:run"].refuted) == (1, 1, 1)


def test_suspects_are_counted_by_source_endpoint_and_reason() -> None:
    doubts = Doubts()
    doubts.add([op(output_summary="Error: x", source="bot"), op(output_summary="Error: x"), op()])
    assert doubts.endpoints == {"sql:run": Claims(claimed=3, suspect=2)}
    assert doubts.sources == {"bot": Claims(claimed=1, suspect=1), "scenario": Claims(claimed=2, suspect=1)}
    assert doubts.reasons == {"the output begins with an error": 2}


@given(st.lists(st.integers(0, 9), max_size=40), st.integers(0, 40))
def test_counting_in_parts_is_counting_in_one_also_across_a_restart(numbers: list[int], cut: int) -> None:
    ops = [op(run=str(n % 3), success=n % 2 == 0, source="auditor" if n > 7 else "mcp") for n in numbers]
    whole, parts = Doubts(), Doubts()
    whole.add(ops)
    parts.add(ops[:cut])
    parts = msgspec.json.decode(msgspec.json.encode(parts), type=Doubts)
    parts.add(ops[cut:])
    assert parts == whole


def test_it_takes_bounded_memory() -> None:
    doubts = Doubts()
    doubts.add([op(run=f"r{n}", endpoint=f"e{n}") for n in range(RUNS_MAX + 500)])
    assert len(doubts.runs) == RUNS_MAX
    assert len(doubts.endpoints) == ENDPOINTS_MAX + 1
    assert doubts.endpoints["other"].claimed == RUNS_MAX + 500 - ENDPOINTS_MAX


def test_of_a_run_so_many_endpoints_are_judged_and_of_its_ids_the_newest_lead_to_it() -> None:
    doubts = Doubts()
    doubts.add([op(run="r", endpoint=f"e{n}") for n in range(RUN_LABELS_MAX + 7)])
    doubts.add([op(run="r", trace_id=f"t{n}", endpoint="e0") for n in range(OTHER_IDS_MAX + 1)])
    assert (len(doubts.runs["run:r"].claims), len(doubts.other_ids)) == (RUN_LABELS_MAX, OTHER_IDS_MAX)
    doubts.add([op(trace_id="t0", success=False), op(trace_id="t1"), verdict("r", ok=False)])
    assert (doubts.runs_failed, doubts.runs_silent, len(doubts.runs)) == (1, 1, 2), "nobody knows any more whose t0 is"
    assert sum(claims.judged for claims in doubts.endpoints.values()) == RUN_LABELS_MAX + OTHER_IDS_MAX + 1


def test_an_endpoint_called_other_is_told_from_the_overflow() -> None:
    doubts = Doubts()
    doubts.add([op(endpoint=endpoint) for endpoint in ("other", *(f"e{n}" for n in range(300)), "other", "late")])
    assert (len(doubts.endpoints), doubts.endpoints["other"].claimed) == (ENDPOINTS_MAX + 1, 2)
    assert doubts.endpoints["other…"].claimed == 303 - 2 - (ENDPOINTS_MAX - 1)


def test_its_labels_are_of_a_bounded_length() -> None:
    doubts = Doubts()
    doubts.add([op(endpoint="a" * 250_000, output_summary=said, attrs={"run_id": "r"}) for said in ("ok", "failed")])
    assert len(msgspec.json.encode(doubts)) < 2_000
    doubts.add([verdict("r", ok=False)])
    assert [(len(label), claims.refuted) for label, claims in doubts.endpoints.items()] == [(200, 2)]


def test_of_the_failed_airline_episodes_most_had_no_tool_error(shared_data: Path) -> None:
    body = (shared_data / "taubench_airline_ops.jsonl").read_bytes()
    ops = EventDecoder().many(body, now="2026-11-22T10:00:00.000Z", lines_max=10_000).ops
    doubts = Doubts()
    doubts.add(ops)
    assert (doubts.runs_judged, doubts.runs_failed, doubts.runs_silent) == (200, 116, 89)
    tool_errors = sum('"Error:' in line for line in body.decode().splitlines() if '"success": true' in line)
    assert sum(claims.suspect for claims in doubts.sources.values()) == tool_errors == 0
    assert json.loads(msgspec.json.encode(doubts))["sources"]["scenario"]["claimed"] == 1_091


def test_what_the_daemon_notes_itself_claims_nothing_and_judges_nothing() -> None:
    doubts = Doubts()
    own = [
        msgspec.structs.replace(op(run=run, success=ok), source="observer") for run, ok in (("r", False), ("q", True))
    ]
    doubts.add([op(run="r", endpoint="e", source="mcp"), *own])
    assert (list(doubts.sources), list(doubts.endpoints), doubts.runs_judged) == (["mcp"], ["e"], 0)


@pytest.mark.parametrize(
    ("output", "is_suspect"),
    [
        ('[{"a":1},{"error":"gone"}]', True),
        ("[" + "{}," * 98 + '{"error":"gone"}]', True),
        ("[" + "{}," * 100 + '{"error":"gone"}]', False),
        ("error" + " " * 5_000, True),
        ("error" + " " * 5_000 + "s there were none", False),
        ("error: gone" + " " * 5_000 + "x", True),
    ],
)
def test_of_a_long_output_so_much_is_looked_at_and_no_more(output: str, *, is_suspect: bool) -> None:
    assert (suspicion(op(output_summary=output)) is not None) is is_suspect
