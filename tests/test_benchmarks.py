"""The benchmark's arithmetic and report are right, and it says what it did not measure. No time decides a test."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import trio

from benchmarks import __main__ as program
from benchmarks import neighbours
from benchmarks.__main__ import CONTESTS, REPORT, main, shown
from benchmarks.advice import FULL_PLAYBOOK
from benchmarks.bench import Bench
from benchmarks.company import ALONE, IN_COMPANY, read_slowly
from benchmarks.events import BATCH, EVENT_C32, OURS, REDIS, REDIS_TWO, SEED, check_stored
from benchmarks.grouping import AIRLINE, ALL, SETS
from benchmarks.history import ASKED, EMPTY, FULL, FULL_COLD, HOUR_OPS, PAGE, QUERY_NAMES, START, Position, ask
from benchmarks.journal_data import STEP_US, clone
from benchmarks.load import REPORTED, write_script
from benchmarks.memory import CONTESTANTS
from benchmarks.payload import BATCH_EVENTS, EVENT_BYTES, RUN_EVENTS, batches, events, reported
from benchmarks.profile import PROFILE, shares_between
from benchmarks.profiled import WAITING, Sums
from benchmarks.report import report
from benchmarks.results import Results, Spread, spread
from benchmarks.rivals import Server
from benchmarks.targets import OPS, TARGETS, Target, Verdict, judge
from observer_actors.client import Observer
from observer_actors.doubt import run_of
from observer_actors.event import EventDecoder
from observer_actors.http.queries import parse_ops_query
from observer_actors.op import iso_milliseconds
from tests.actors.ops import op
from tests.conftest import ROOT
from tests.daemon.served import served
from tests.fakes.http_peer import Json, http_peer
from tests.harness import journal_ops
from tests.parity.program import ProgramFailed
from tests.processes import children, cpu_seconds, resident_bytes

ISSUE_ROWS = 9 + 4 + 1
NOW = "2026-11-22T10:00:00.000Z"


def target(beginning: str) -> Target:
    (found,) = [target for target in TARGETS if target.what.startswith(beginning)]
    return found


def c32(**rates: Sequence[float | None]) -> Results:
    names = {"ours": OURS, "seed": SEED, "redis": REDIS, "redis_two": REDIS_TWO}
    results = Results()
    for name, values in rates.items():
        for value in values:
            results.add(EVENT_C32.name, names[name], {} if value is None else {"per_second": value})
    return results


def test_a_spread_is_the_median_and_both_ends_of_what_is_there() -> None:
    assert spread([3.0, None, 1.0, 2.0]) == Spread(median=2.0, low=1.0, high=3.0, count=3)
    assert spread([None]) is None


def test_a_ratio_pairs_the_values_of_the_same_round_and_leaves_a_failed_round_out() -> None:
    results = c32(ours=[100.0, None, 300.0, 90.0], seed=[50.0, 1.0, 100.0, None])
    assert results.ratio(EVENT_C32.name, OURS, [SEED], "per_second") == Spread(median=2.5, low=2.0, high=3.0, count=2)


def all_alike(contest: str, contestants: Sequence[str], **figures: float) -> dict[str, Any]:
    return {contest: {name: [figures] for name in contestants}}


def rates(contest: str, **per_second: float) -> dict[str, Any]:
    names = {
        "ours": OURS,
        "seed": SEED,
        "redis": REDIS,
        "full": FULL,
        "empty": EMPTY,
        "company": IN_COMPANY,
        "alone": ALONE,
    }
    return {contest: {names[name]: [{"per_second": rate}] for name, rate in per_second.items()}}


GROUPINGS = [f"ours, {name}" for name in (*SETS, AIRLINE)]
JUST: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "POST /event",
        rates("event-c32", ours=100, seed=100, redis=111),
        rates("event-c32", ours=100, seed=100.1, redis=1),
    ),
    ("POST /event", rates("event-c32", ours=90, seed=1, redis=100), rates("event-c32", ours=89.9, seed=1, redis=100)),
    (
        "the same, c=256",
        rates("event-c256", ours=140, seed=100, redis=1),
        rates("event-c256", ours=139, seed=100, redis=1),
    ),
    (
        "the same, c=256",
        rates("event-c256", ours=80, seed=1, redis=100),
        rates("event-c256", ours=79, seed=1, redis=100),
    ),
    ("500 events", rates("batch", ours=300_000, redis=1e9), rates("batch", ours=299_999, redis=1e9)),
    ("500 events", rates("batch", ours=111, redis=100), rates("batch", ours=109, redis=100)),
    ("p99 of a single", all_alike("half-load", [OURS], p99_ms=4.99), all_alike("half-load", [OURS], p99_ms=5)),
    (
        "throughput with",
        rates("history-throughput", full=90, empty=100),
        rates("history-throughput", full=89, empty=100),
    ),
    (
        "start with",
        all_alike("history-start", [FULL, FULL_COLD], seconds=1.49),
        all_alike("history-start", [FULL, FULL_COLD], seconds=1.5),
    ),
    (
        "`/ops` by",
        all_alike("history-queries", QUERY_NAMES, worst_ms=99),
        all_alike("history-queries", QUERY_NAMES, worst_ms=100),
    ),
    ("p99 of `GET", all_alike("advice", [FULL_PLAYBOOK], p99_ms=4.99), all_alike("advice", [FULL_PLAYBOOK], p99_ms=5)),
    (
        "resident",
        all_alike("memory", CONTESTANTS, max_mb=249, growth=1.09),
        all_alike("memory", CONTESTANTS, max_mb=250, growth=1),
    ),
    (
        "resident",
        all_alike("memory", CONTESTANTS, max_mb=9, growth=1.09),
        all_alike("memory", CONTESTANTS, max_mb=9, growth=1.1),
    ),
    ("ingest while", rates("company", company=85, alone=100), rates("company", company=84, alone=100)),
    (
        "failures into",
        all_alike("grouping", GROUPINGS, ga=0.95, fga=0.92),
        all_alike("grouping", GROUPINGS, ga=0.949, fga=1),
    ),
    (
        "failures into",
        all_alike("grouping", GROUPINGS, ga=0.95, fga=0.92),
        all_alike("grouping", GROUPINGS, ga=1, fga=0.919),
    ),
    ("the same, airline", all_alike("grouping", GROUPINGS, ga=1), all_alike("grouping", GROUPINGS, ga=0.999)),
    ("the same in", all_alike("grouping", GROUPINGS, order=0.98), all_alike("grouping", GROUPINGS, order=0.979)),
    (
        "the same, speed",
        all_alike("grouping", [f"ours, {ALL}"], per_second=100_000),
        all_alike("grouping", [f"ours, {ALL}"], per_second=99_999),
    ),
]
"""A row of the issues -> what just meets it, and what just misses it."""


def test_each_row_of_the_issues_is_a_target() -> None:
    assert len(TARGETS) == ISSUE_ROWS
    assert {target(row).what for row, _, _ in JUST} == {one.what for one in TARGETS}


@pytest.mark.parametrize(("row", "met", "missed"), JUST)
def test_a_row_is_met_and_missed_where_the_issue_says(row: str, met: dict[str, Any], missed: dict[str, Any]) -> None:
    for measured, verdict in ((met, Verdict.MET), (missed, Verdict.MISSED)):
        results = Results(ops=OPS, memory_seconds=60, measured=measured)
        assert judge(target(row), results).verdict is verdict


def test_redis_is_as_fast_as_the_faster_of_its_rows_in_each_round() -> None:
    row = target("POST /event")
    ours, seed = [100.0, 90.0, 90.0], [1.0, 1.0, 1.0]
    rounds = c32(ours=ours, seed=seed, redis=[50.0, 100.0, 110.0], redis_two=[125.0, 50.0, None])
    assert judge(row, rounds).measured == "90 × the seed; 0.8182 × Redis"
    assert judge(row, rounds).verdict is Verdict.MISSED
    assert judge(row, c32(ours=ours, seed=seed, redis=[50.0, 100.0, 110.0])).measured.endswith("; 0.9 × Redis")


def test_an_absent_rival_leaves_a_target_unjudged_unless_it_is_missed_anyway() -> None:
    row = target("POST /event")
    assert judge(row, c32(ours=[100.0], redis=[100.0])).verdict is Verdict.NOT_JUDGED
    assert judge(row, c32(ours=[10.0], redis=[100.0])).verdict is Verdict.MISSED


def test_either_condition_of_the_batch_target_will_do() -> None:
    row = target("500 events")
    results = Results()
    results.add(BATCH.name, OURS, {"per_second": 350_000.0})
    assert judge(row, results).verdict is Verdict.MET
    slow = Results()
    slow.add(BATCH.name, OURS, {"per_second": 250_000.0})
    assert judge(row, slow).verdict is Verdict.NOT_JUDGED
    slow.add(BATCH.name, REDIS, {"per_second": 240_000.0})
    assert judge(row, slow).verdict is Verdict.MISSED


def test_nothing_is_judged_that_was_measured_on_a_smaller_scale() -> None:
    row = target("start with")
    small, whole = Results(ops=50_000), Results(ops=OPS)
    for results in (small, whole):
        for contestant in (FULL, FULL_COLD):
            results.add(START.name, contestant, {"seconds": 0.5})
    assert judge(row, small).verdict is Verdict.NOT_JUDGED
    assert "50,000 ops only" in judge(row, small).measured
    assert judge(row, whole).verdict is Verdict.MET


def test_one_slow_start_is_enough_to_miss() -> None:
    results = Results(ops=OPS)
    results.add(START.name, FULL, {"seconds": 0.5})
    results.add(START.name, FULL_COLD, {"seconds": 0.5})
    results.add(START.name, FULL_COLD, {"seconds": 1.6})
    assert judge(target("start with"), results).verdict is Verdict.MISSED


def test_with_nothing_measured_nothing_is_judged_and_no_number_is_shown() -> None:
    judged = [judge(target, Results()) for target in TARGETS]
    assert {one.verdict for one in judged} == {Verdict.NOT_JUDGED}
    assert [one.measured for one in judged if any(sign.isdigit() for sign in one.measured)] == []


def test_the_report_says_who_is_absent_what_failed_and_the_notes() -> None:
    results = c32(ours=[24_000.0, 26_000.0], redis=[25_000.0, 25_000.0])
    results.absent["the seed under Bun"] = "no npm"
    results.remark("a round failed")
    text = report(results, [EVENT_C32], "by hand: the time goes into parsing\n")
    assert "* the seed under Bun: no npm" in text
    assert "* a round failed" in text
    assert "by hand: the time goes into parsing" in text
    assert "| ours | 25,000 (24,000\u201326,000) | 1.00 (1.00\u20131.00) |" in text
    assert "| Redis | 25,000 (25,000\u201325,000) | 1.00 (0.96\u20131.04) |" in text


def test_the_report_claims_no_warm_up_and_no_empty_directory_of_who_has_none() -> None:
    head = report(c32(ours=[1.0]), [EVENT_C32], "").partition("## Targets")[0]
    assert "after a warm-up by the same, with `wrk -t1`; unless a table says otherwise." in head
    assert "an empty data directory or a copy of the full journal's;" in head
    without = {contest.name for contest in CONTESTS if "without a warm-up" in contest.text}
    assert without == {"history-start", "history-queries", "advice", "limits"}


@pytest.mark.parametrize(
    ("lacks", "is_whole"),
    [({}, True), ({"is_quick": True}, False), ({"rounds": 2}, False), ({"ops": OPS - 1}, False), ({"": ""}, False)],
)
def test_the_notes_stand_only_in_the_report_of_a_whole_run(
    lacks: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    is_whole: bool,
) -> None:
    results = Results(**{"rounds": 5, "ops": OPS, **{name: value for name, value in lacks.items() if name}})
    for contest in CONTESTS:
        results.add(contest.name, "someone", {contest.main.name: 1.0})
    if "" in lacks:
        results.measured[BATCH.name] = {OURS: [{}]}
    kept, page, notes = tmp_path / "kept.json", tmp_path / "page.md", tmp_path / "notes.md"
    kept.write_bytes(msgspec.json.encode(results))
    notes.write_text("by hand: true", encoding="utf-8")
    monkeypatch.setattr(program, "REPORT", page)
    monkeypatch.setattr(program, "NOTES", notes)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--from", str(kept)])
    assert main() == 0
    written = capsys.readouterr().out
    assert page.exists() is is_whole, "what is not whole goes to standard output"
    text = page.read_text(encoding="utf-8") if is_whole else written
    assert ("by hand: true" in text) is is_whole
    assert ("`benchmarks/notes.md`: it was written" in text) is not is_whole


def test_the_report_says_the_command_without_its_paths() -> None:
    words = ["--only", "batch", "--json", "/a b/c", "--report=/d", "--folder", "/e", "--cache", "/f", "--rounds", "1"]
    command = "python -m benchmarks --only batch --json FILE --report=FILE --folder DIR --cache DIR --rounds 1"
    assert shown(words) == command
    assert shown([]) == "python -m benchmarks"
    assert f"\nBy `{command}`.\n" in report(Results(command=command), list(CONTESTS), "")
    assert "\nBy `" not in report(Results(), list(CONTESTS), "")


def test_nobody_absent_does_not_cover_who_failed() -> None:
    results = c32(ours=[1.0, 1.0], redis=[None, 1.0])
    line = next(line for line in report(results, list(CONTESTS), "").splitlines() if line.startswith("Absent: no one"))
    assert line.endswith(f": {EVENT_C32.name}, {REDIS}.")
    assert "\nAbsent: no one.\n" in report(c32(ours=[1.0]), list(CONTESTS), "")


class Holding(Server):
    """A daemon that says how many ops it holds."""

    async def get(self, path: str) -> str:
        return f'{{"last_seq": {self.pid}}}' if path == "/health" else ""


def test_what_the_warm_up_stored_does_not_make_up_for_what_is_missing() -> None:
    held = Holding(port=0, pid=1_000, start_seconds=0.0)
    trio.run(lambda: check_stored(held, 400, since=600))
    with pytest.raises(ProgramFailed, match="401 events were acknowledged"):
        trio.run(lambda: check_stored(held, 401, since=600))


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("after_seq", 9_000_000, 9_000_099),
        ("before_seq", 9_000_000, 8_999_901),
        ("since, oldest first", 9_000_000, 9_000_099),
        ("until, newest first", 8_999_999, 8_999_900),
        ("an hour, newest first", 9_359_999, 9_359_900),
    ],
)
async def test_a_page_of_other_ops_or_of_fewer_is_no_figure(name: str, first: int, last: int) -> None:
    wanted, found = ASKED[name](Position(9_000_000, OPS, NOW, NOW))
    page = list(found[:PAGE])
    assert (page[0], page[-1], len(page)) == (first, last, PAGE)
    async with http_peer() as peer, httpx.AsyncClient(trust_env=False) as client:
        peer.on("/ops", *(Json({"ops": [{"seq": seq} for seq in seqs]}) for seqs in (page, page[1:], page[:-1])))
        assert await ask(client, peer.url, wanted, found) > 0
        for _ in range(2):
            with pytest.raises(ProgramFailed, match=f"does not give the ops {first} to {last}"):
                await ask(client, peer.url, wanted, found)


@pytest.mark.parametrize("name", QUERY_NAMES)
def test_what_a_query_should_find_is_what_it_asks_for(name: str) -> None:
    def time_of(seq: int) -> str:
        return iso_milliseconds(datetime(2026, 11, 22, tzinfo=UTC) + timedelta(microseconds=seq * STEP_US))

    at, later = 9_000_000, 9_000_000 + HOUR_OPS
    wanted, found = ASKED[name](Position(at, OPS, time_of(at), time_of(later)))
    query = parse_ops_query([(key, str(value)) for key, value in wanted.items()])
    for seq in (1, at - 1, at, at + 1, later - 1, later, later + 1, OPS):
        fits = query.fits(msgspec.structs.replace(op(seq), timestamp=time_of(seq)))
        is_behind = query.after_seq is None or seq > query.after_seq
        is_before = query.before_seq is None or seq < query.before_seq
        assert (fits and is_behind and is_before) == (seq in found)


def test_the_newest_hour_ends_with_the_newest_op() -> None:
    assert ASKED["an hour, newest first"](Position(9_900_000, OPS, NOW, NOW))[1] == range(OPS, 9_899_999, -1)


def test_a_reader_that_is_dropped_comes_back() -> None:
    counts = {"tail_bytes": 0.0, "tails": 0.0}
    came_back = trio.Event()

    async def drop(stream: trio.SocketStream) -> None:
        request = await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
        if counts["tails"] > 1:
            came_back.set()
        if b"connection: close" not in request.lower():
            await trio.sleep_forever()  # as the daemon does: the connection might be used again
        await stream.aclose()

    async def read() -> None:
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, drop, listeners)
            port: int = listeners[0].socket.getsockname()[1]
            nursery.start_soon(read_slowly, Server(port, 0, 0.0), counts)
            with trio.move_on_after(10):
                await came_back.wait()
            nursery.cancel_scope.cancel()

    trio.run(read)
    assert came_back.is_set()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--rounds", "0"), "--rounds: "),
        (("--seconds", "0"), "--seconds: "),
        (("--from", "empty", "--rounds", "3"), "--from: "),
        (("--from", "empty", "--quick"), "--from: "),
        (("--quick", "--seconds", "20"), "--quick: "),
        (("--ops", "0"), "--ops: "),
        (("--only", "limits", "--only", "nothing"), "--only: no measurement is called nothing"),
        (("--only", ""), "--only: no measurement is called '';"),
        (("--report", "absent/report.md"), "--report: "),
        (("--json", "absent/results.json"), "--json: "),
        (("--json", "."), "--json: "),
        (("--json", "results.json", "--report", "./results.json"), "--report: "),
        (("--from", "empty", "--report", "empty"), "--report: "),
        (("--json", str(REPORT), "--only", "nothing"), "--report: "),
        (("--folder", "absent"), "--folder: "),
        (("--cache", "text/cache"), "--cache: "),
        (("--from", "absent"), "--from: "),
        (("--from", "text"), "--from: "),
        (("--from", "empty"), "--from: "),
    ],
)
def test_what_could_only_fail_later_is_refused_at_once(
    given: tuple[str, ...],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "text").write_text("no JSON", encoding="utf-8")
    (tmp_path / "empty").write_text("{}", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["benchmarks", *given])
    with pytest.raises(SystemExit) as refused:
        main()
    assert refused.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith(f"python -m benchmarks: {said}")
    assert told.count("\n") == 1


def test_every_contest_has_a_name_and_a_table_of_its_own() -> None:
    names = [contest.name for contest in CONTESTS]
    assert len(set(names)) == len(names)
    results = Results()
    for contest in CONTESTS:
        results.add(contest.name, "someone", {contest.main.name: 1.0})
    text = report(results, list(CONTESTS), "")
    assert [contest.title for contest in CONTESTS if f"## {contest.title}\n" not in text] == []


def test_what_is_sent_is_of_one_length_and_good() -> None:
    decoder = EventDecoder()
    assert {len(event) for event in events()} == {EVENT_BYTES}
    assert [decoder.one(event, now=NOW).notes for event in events() if decoder.one(event, now=NOW).notes] == []
    judged = [decoder.many(batch, now=NOW, lines_max=BATCH_EVENTS) for batch in batches()]
    assert {(len(batch.ops), len(batch.errors)) for batch in judged} == {(BATCH_EVENTS, 0)}


async def test_what_is_sent_as_observer_sends_it_has_the_fields_that_it_sends() -> None:
    async with http_peer() as peer:
        peer.on("/events", Json({"accepted": 2}))

        def report_two() -> None:
            with Observer(peer.url) as observer, observer.run("task-17"):
                for works in (True, False):
                    with observer.operation("tool:book_reservation", input_summary="in Bonn") as op:
                        op.output_summary = "ok, 1 changed" if works else None
                        if not works:
                            op.fail("HTTP 503 from upstream")

        await trio.to_thread.run_sync(report_two)
        lines = peer.received("/events")[0].body.splitlines()
    ok, failed = (list(msgspec.json.decode(line)) for line in lines[:2])
    assert list(reported(1)) == ok
    assert [name for name in failed if name != "output_summary"] == list(reported(16))


def test_each_event_that_is_sent_as_observer_sends_it_is_another(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with served(data) as daemon:
        for _ in range(2):
            script = write_script(tmp_path, REPORTED)
            wrk = [shutil.which("wrk") or pytest.skip("no wrk"), "-t1", "-c2", "-d1s", "-s", str(script), daemon.url]
            said = subprocess.run(wrk, check=True, capture_output=True, text=True).stdout
            assert '"not_2xx":0,"broken":0' in said
        ops = journal_ops(data)
    assert len({op.id for op in ops}) == len(ops) > 0
    assert max(Counter(run_of(op) for op in ops).values()) <= RUN_EVENTS


def test_a_copy_shares_only_files_that_never_change(tmp_path: Path) -> None:
    names = ("ops.jsonl", "manifest.json", "ops-1.jsonl", "ops-1.jsonl.gz", "ops-1.index.json")
    (tmp_path / "data").mkdir()
    for name in names:
        (tmp_path / "data" / name).write_text(name, encoding="utf-8")
    clone(tmp_path / "data", tmp_path / "copy")
    shared = [name for name in names if (tmp_path / "copy" / name).samefile(tmp_path / "data" / name)]
    assert shared == ["ops-1.jsonl.gz", "ops-1.index.json"]
    assert [(tmp_path / "copy" / name).read_text(encoding="utf-8") for name in names] == list(names)


def command(folder: Path, *arguments: str) -> list[str]:
    folder.mkdir(exist_ok=True)
    return [sys.executable, "-m", "benchmarks", "--quick", "--folder", str(folder), *arguments]


def test_a_quick_run_measures_and_leaves_nothing_behind(tmp_path: Path) -> None:
    if not shutil.which("wrk"):
        pytest.skip("wrk is absent")
    folder, file = tmp_path / "work", tmp_path / "results.json"
    given = ("--only", "event-c32", "--json", str(file), "--report", str(tmp_path / "report.md"))
    # Without the seed: Bun would first have to be installed, and the parity check starts it too.
    environment = {**os.environ, "OBSERVER_SHARED": str(tmp_path)}
    subprocess.run(command(folder, *given), cwd=ROOT, env=environment, check=True, timeout=110)
    results = msgspec.json.decode(file.read_bytes(), type=Results)
    assert results.median(EVENT_C32.name, OURS, "acknowledged"), results.remarks
    assert list(folder.iterdir()) == []


def test_processor_time_of_a_child_that_has_ended_is_counted() -> None:
    burn = "import time; end = time.process_time() + 0.5\nwhile time.process_time() < end: pass"
    program = (
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}]); print(flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    parent.stdout.readline()
    assert not children(parent.pid)
    assert cpu_seconds(parent.pid) >= 0.5
    parent.communicate()


@pytest.mark.parametrize(("begins", "counts"), [("os.fork()", False), ("subprocess.Popen(['sleep', '60'])", True)])
def test_memory_is_not_counted_twice_while_a_child_has_not_begun_its_program(begins: str, *, counts: bool) -> None:
    program = f"import os, subprocess, time; {begins}; print(flush=True); time.sleep(60)"
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert parent.stdout is not None
        parent.stdout.readline()
        parents = int(Path(f"/proc/{parent.pid}/statm").read_text(encoding="ascii").split()[1])
        assert len(children(parent.pid)) == 1
        assert (resident_bytes(parent.pid) > parents * os.sysconf("SC_PAGE_SIZE")) is counts
    finally:
        os.killpg(parent.pid, signal.SIGKILL)
        parent.communicate()


def test_a_profile_is_in_shares_of_the_time_between_two_looks() -> None:
    before = Sums(10.0, {"a.Express._read": 1.0, WAITING: 2.0})
    after = Sums(20.0, {"a.Express._read": 3.0, WAITING: 5.0, "a.Analyzer._follow": 1.0, "of nobody": 1.0})
    found = shares_between(before, after, events=1_000)
    shown = {name: value for name, value in found.items() if value}
    assert shown == {
        "reading": 20, "patterns": 10, "waiting": 30, "rest": 40, "per_second": 100, "loop_us": pytest.approx(7_000)
    }  # fmt: skip


async def test_batches_beside_a_caller_are_sent_without_a_pause(tmp_path: Path) -> None:
    wrk, starts = tmp_path / "wrk", tmp_path / "starts"
    wrk.write_text(f'#!/bin/sh\necho >> {starts}\nexec {shutil.which("wrk") or pytest.skip("no wrk")} "$@"\n')
    wrk.chmod(0o700)
    bench = Bench(tmp_path, tmp_path, 1, 2, 1, 1, 1, Results(), tools={"wrk": wrk})
    figures = await neighbours.runs(bench)["beside batches"]()
    assert starts.read_text() == "\n", "it was started once"
    assert figures["batched_per_second"] > 0
    assert figures["answered"] == 2 * neighbours.RATE


def test_a_quick_profile_shows_each_load(tmp_path: Path) -> None:
    if not shutil.which("wrk"):
        pytest.skip("wrk is absent")
    file = tmp_path / "results.json"
    given = ("--only", "profile", "--json", str(file), "--report", str(tmp_path / "report.md"))
    subprocess.run(command(tmp_path / "work", *given), cwd=ROOT, check=True, timeout=110)
    measured = msgspec.json.decode(file.read_bytes(), type=Results).measured[PROFILE.name]
    assert len(measured) == 4
    for load, [figures] in measured.items():
        assert 0 <= figures["waiting"] < 100, load
        assert figures["connections" if load.startswith("batches") else "reading"] > 0, load


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_run_that_is_interrupted_cleans_up_and_writes_nothing(tmp_path: Path, number: signal.Signals) -> None:
    folder, written = tmp_path / "work", tmp_path / "report.md"
    process = subprocess.Popen(
        command(folder, "--only", "memory", "--report", str(written)), cwd=ROOT, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 60
        while not list(folder.glob("*/ours-*/log")) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(process.pid, number)  # as a terminal does
        assert process.wait(60) == 130
    finally:
        process.kill()
        process.wait()
    assert list(folder.iterdir()) == []
    assert not written.exists()
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # the daemon was in the same group


def test_without_its_tools_it_says_so_and_goes_on(tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": str(tmp_path), "OBSERVER_SHARED": str(tmp_path)}
    given = command(tmp_path / "work", "--only", "event-c32", "--only", "limits")
    done = subprocess.run(given, cwd=ROOT, env=environment, check=False, timeout=110, capture_output=True, text=True)
    assert done.returncode == 1
    first_round = done.stderr.index("round 1 of 1")
    assert "exit status 1" in done.stderr[:first_round]
    for absent in ("wrk", "redis-server", "redis-benchmark", "the seed under Bun"):
        assert f"* {absent}: " in done.stdout
    assert "| fdatasync | " in done.stdout
    assert "| ours | \u2014 |" in done.stdout
