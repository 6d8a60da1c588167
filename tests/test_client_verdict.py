"""The auditor's wire: the file, the event, the row, and what is left when one of them fails."""

import json
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
import trio
from hypothesis import given
from hypothesis import strategies as st

from observer_actors.client import (
    AuditRow,
    Finding,
    FindingCounts,
    Receipt,
    Severity,
    Verdict,
    audit_history,
    report_verdict,
    statistics,
)
from observer_actors.client import _verdict as wire
from observer_actors.client._verdict import _stem
from observer_actors.errors import ConfigInvalid, DiskFailed, DiskFull, EventInvalid
from observer_actors.event import EventDecoder
from observer_actors.journal.files import AppendFile, PosixDisk
from observer_actors.kb import outcomes_path
from observer_actors.kb.files import append_row, append_rows, read_audit_rows
from tests.fakes.event_loops import Runtime
from tests.fakes.http_peer import Close, HttpPeer, Json, closed_url, http_peer

VERDICT = Verdict(
    signature="pr6-7fe47bab",
    overall="request_changes",
    one_liner="1 block, 2 warn: größere Sache",
    findings=(
        Finding("block", "drops an error", "a/b.py", 12),
        Finding("warn", "no test"),
        Finding("warn", "long function", "a/c.py"),
    ),
    duration_ms=1234,
    timestamp="2026-11-22T10:00:00.000Z",
)
ROW = AuditRow(
    kind="audit",
    signature="pr6-7fe47bab",
    overall="request_changes",
    ok=False,
    findings=FindingCounts(info=0, warn=2, block=1),
    one_liner=VERDICT.one_liner,
    duration_ms=1234,
    timestamp=VERDICT.timestamp,
    id=VERDICT.id,
)


@pytest.fixture
async def observer(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[HttpPeer]:
    async with http_peer() as peer:
        peer.on("/event", Json({"accepted": True, "ring_size": 1, "seq": 5}))
        monkeypatch.setenv("OBSERVER_URL", peer.url)
        yield peer


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


def test_a_verdict_is_ok_when_it_approves() -> None:
    assert not VERDICT.ok
    assert msgspec.structs.replace(VERDICT, overall="approve").ok


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"signature": ""}, "signature"),
        ({"signature": "a\nb"}, "signature"),
        ({"signature": "x" * 201}, "signature"),
        ({"overall": ""}, "overall"),
        ({"duration_ms": -1}, "duration_ms"),
        ({"duration_ms": float("nan")}, "duration_ms"),
        ({"one_liner": "\ud800"}, ""),
        ({"findings": (Finding("info", "\ud800"),)}, ""),
        ({"findings": (object(),)}, "findings"),
        ({"findings": None}, "findings"),
        ({"signature": None}, "signature"),
        ({"one_liner": None}, "one_liner"),
        ({"timestamp": 7}, "timestamp"),
        ({"duration_ms": "1"}, "duration_ms"),
    ],
)
def test_a_verdict_is_valid_once_built(change: dict[str, Any], field: str) -> None:
    with pytest.raises(EventInvalid) as caught:
        msgspec.structs.replace(VERDICT, **change)
    assert caught.value.field == field


def test_a_finding_has_one_of_three_severities() -> None:
    severity: Any = "fatal"
    with pytest.raises(EventInvalid, match="severity: wants info, warn or block, got 'fatal'"):
        Finding(severity, "title")


def texts_below(directory: Path) -> list[str]:
    return [file.read_text() for file in directory.rglob("*") if file.is_file()]


SECRET = "sk-proj-abcdefghijklmnopqrstuv"  # made up


async def test_no_secret_of_a_verdict_is_written_or_sent(tmp_path: Path, observer: HttpPeer) -> None:
    findings = (Finding("block", f"leaks {SECRET}", f"a/{SECRET}.py", 3), Finding("warn", "no test"))
    verdict = Verdict(signature="pr6", overall="reject", one_liner=f"leaked {SECRET}", findings=findings)
    report = await report_verdict(verdict, data_dir=tmp_path)
    again = await report_verdict(verdict, data_dir=tmp_path)
    assert (report.repeated, again.repeated, again.path) == (False, True, report.path)
    files = texts_below(tmp_path)
    sent = [request.body.decode() for request in observer.requests]
    assert len(files) > 1
    assert len(sent) == 2
    for text in (*files, *sent):
        assert SECRET not in text
    assert "leaks [redacted:api_key]" in report.path.read_text()
    assert [row.one_liner for row in audit_history(tmp_path)] == ["leaked [redacted:api_key]"]


@pytest.mark.parametrize("field", ["signature", "overall"])
async def test_a_verdict_whose_name_holds_a_secret_is_refused(tmp_path: Path, field: str) -> None:
    named = {"signature": "pr6", "overall": "reject", "one_liner": "x"} | {field: SECRET}
    with pytest.raises(EventInvalid, match="holds a secret") as refused:
        await report_verdict(msgspec.convert(named, Verdict), data_dir=tmp_path)
    assert (refused.value.field, SECRET in str(refused.value)) == (field, False)
    assert not texts_below(tmp_path)


async def test_a_verdict_goes_to_disk_to_the_daemon_and_into_the_knowledge_base(
    runtime: Runtime, observer: HttpPeer, tmp_path: Path
) -> None:
    data_dir = tmp_path / "data"
    report = await runtime(lambda: report_verdict(VERDICT, data_dir=data_dir))
    assert (report.repeated, report.recorded, report.troubles) == (False, True, ())
    assert report.receipt == Receipt(accepted=True, ring_size=1, seq=5)
    assert report.path == data_dir / "_auditor" / "verdicts" / "pr6-7fe47bab.json"
    assert json.loads(report.path.read_bytes()) == {
        "id": VERDICT.id,
        "signature": "pr6-7fe47bab",
        "overall": "request_changes",
        "ok": False,
        "one_liner": VERDICT.one_liner,
        "counts": {"info": 0, "warn": 2, "block": 1},
        "findings": [
            {"severity": "block", "title": "drops an error", "file": "a/b.py", "line": 12},
            {"severity": "warn", "title": "no test", "file": "", "line": None},
            {"severity": "warn", "title": "long function", "file": "a/c.py", "line": None},
        ],
        "duration_ms": 1234,
        "timestamp": VERDICT.timestamp,
    }
    judged = EventDecoder().one(observer.requests[0].body, now="")
    assert judged.notes == ()
    assert msgspec.to_builtins(judged.op) == {
        "timestamp": VERDICT.timestamp,
        "endpoint": "auditor:verdict",
        "input_summary": "? ?×? in ?, ?",
        "success": False,
        "duration_ms": 1234,
        "output_summary": VERDICT.one_liner,
        "source": "auditor",
        "sig_hash": "pr6-7fe47bab",
        "rescue_attempted": False,
        "rescue_succeeded": False,
        "seq": 0,
        "recorded_at": "",
        "id": VERDICT.id,
        "attrs": {
            "overall": "request_changes",
            "findings_info": 0,
            "findings_warn": 2,
            "findings_block": 1,
        },
    }
    assert audit_history(data_dir) == [ROW]
    (line,) = outcomes_path(data_dir).read_bytes().splitlines()
    assert list(json.loads(line))[:3] == ["kind", "signature", "overall"]


async def test_files_and_directories_are_closed_to_others(observer: HttpPeer, tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    report = await report_verdict(VERDICT, data_dir=data_dir, observer_url=observer.url)
    made = [path for path in data_dir.rglob("*") if path.is_dir()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in [data_dir, *made]} == {0o700}
    files = [report.path, outcomes_path(data_dir)]
    assert sorted(path for path in data_dir.rglob("*") if path.is_file()) == sorted(files)
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


async def test_a_second_verdict_on_the_same_signature_stands_beside_the_first(
    observer: HttpPeer, tmp_path: Path
) -> None:
    assert observer.url
    second = msgspec.structs.replace(VERDICT, overall="approve", findings=())
    third = msgspec.structs.replace(second, timestamp="2026-11-23T10:00:00.000Z")
    reports = [await report_verdict(verdict, data_dir=tmp_path) for verdict in (VERDICT, second, third)]
    names = [report.path.name for report in reports]
    assert names == ["pr6-7fe47bab.json", "pr6-7fe47bab~2.json", "pr6-7fe47bab~3.json"]
    assert [json.loads(report.path.read_bytes())["overall"] for report in reports] == [
        "request_changes",
        "approve",
        "approve",
    ]
    assert [row.overall for row in audit_history(tmp_path)] == ["request_changes", "approve", "approve"]


async def test_the_same_verdict_again_is_one_file_one_op_and_one_row(observer: HttpPeer, tmp_path: Path) -> None:
    first = await report_verdict(VERDICT, data_dir=tmp_path)
    again = await report_verdict(VERDICT, data_dir=tmp_path)
    assert (again.path, again.repeated, again.recorded) == (first.path, True, True)
    assert {request.json()["id"] for request in observer.requests} == {VERDICT.id}
    assert len(outcomes_path(tmp_path).read_bytes().splitlines()) == 1


async def test_a_repeated_report_does_what_was_left(observer: HttpPeer, tmp_path: Path) -> None:
    outcomes_path(tmp_path).mkdir(parents=True)
    cut_short = await report_verdict(VERDICT, data_dir=tmp_path, observer_url=closed_url())
    assert (cut_short.receipt, cut_short.recorded) == (None, False)
    outcomes_path(tmp_path).rmdir()
    report = await report_verdict(VERDICT, data_dir=tmp_path, observer_url=observer.url)
    assert (report.repeated, report.recorded, report.troubles) == (True, True, ())
    assert audit_history(tmp_path) == [ROW]


async def test_auditors_at_once_lose_no_verdict(observer: HttpPeer, tmp_path: Path) -> None:
    assert observer.url
    verdicts = [msgspec.structs.replace(VERDICT, duration_ms=number) for number in range(20)]
    async with trio.open_nursery() as nursery:
        for verdict in verdicts:
            nursery.start_soon(partial(report_verdict, verdict, data_dir=tmp_path))
    files = list((tmp_path / "_auditor" / "verdicts").iterdir())
    assert sorted(json.loads(file.read_bytes())["duration_ms"] for file in files) == list(range(20))
    assert sorted(row.duration_ms for row in audit_history(tmp_path)) == list(range(20))


async def test_trouble_with_the_daemon_is_logged_and_told_and_the_rest_is_done(
    observer: HttpPeer, tmp_path: Path, logged: list[Any], runtime: Runtime
) -> None:
    observer.on("/event", Close())
    report = await runtime(lambda: report_verdict(VERDICT, data_dir=tmp_path))
    assert report.receipt is None
    assert report.recorded
    error = f"{observer.url}/event: Server disconnected without sending a response."
    assert report.troubles == (f"not posted: {error}",)
    assert logged == [
        {
            "event": "verdict_not_posted",
            "log_level": "warning",
            "actor": "client",
            "signature": "pr6-7fe47bab",
            "error": error,
            "hint": "",
        }
    ]
    assert audit_history(tmp_path) == [ROW]


async def test_trouble_with_the_row_is_logged_counted_and_told(
    observer: HttpPeer, tmp_path: Path, logged: list[Any]
) -> None:
    outcomes_path(tmp_path).mkdir(parents=True)
    before = statistics().rows_lost
    report = await report_verdict(VERDICT, data_dir=tmp_path)
    assert report.receipt is not None
    assert not report.recorded
    (trouble,) = report.troubles
    assert trouble.startswith("not recorded: EISDIR while appending to the knowledge base")
    assert [line["event"] for line in logged] == ["verdict_not_recorded"]
    assert statistics().rows_lost == before + 1
    assert len(observer.requests) == 1


async def test_a_verdict_that_cannot_be_written_raises_and_nothing_else_happens(
    observer: HttpPeer, tmp_path: Path, runtime: Runtime
) -> None:
    (tmp_path / "_auditor").write_text("in the way")
    with pytest.raises(DiskFailed, match="while writing a verdict"):
        await runtime(lambda: report_verdict(VERDICT, data_dir=tmp_path))
    assert observer.requests == []
    assert audit_history(tmp_path) == []


FULL_DISK = """
import resource, sys
import trio
from observer_actors.client import Verdict, report_verdict
from observer_actors.errors import DiskFailed
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (50, hard))
verdict = Verdict(signature="s", overall="approve", one_liner="fine")
try:
    trio.run(lambda: report_verdict(verdict, data_dir=sys.argv[1]))
except DiskFailed as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
"""


def test_a_verdict_that_was_written_in_part_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path)]
    said = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=60)
    assert said.stdout == b"EFBIG while writing a verdict: File too large\n"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


async def test_verdicts_on_one_signature_are_bounded(
    observer: HttpPeer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "VERSIONS_MAX", 2)
    for number in range(2):
        await report_verdict(msgspec.structs.replace(VERDICT, duration_ms=number), data_dir=tmp_path)
    with pytest.raises(DiskFailed, match="pr6-7fe47bab has 2 verdicts already"):
        await report_verdict(VERDICT, data_dir=tmp_path)
    assert len(observer.requests) == 2
    assert len(list((tmp_path / "_auditor" / "verdicts").iterdir())) == 2


async def test_the_data_directory_comes_from_the_environment(
    observer: HttpPeer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert observer.url
    monkeypatch.setenv("OBSERVER_DATA_DIR", str(tmp_path / "there"))
    report = await report_verdict(VERDICT)
    assert report.path.is_relative_to(tmp_path / "there")
    assert audit_history() == [ROW]


@pytest.mark.parametrize("given", [None, "~/x", Path("~/x")], ids=["variable", "text", "path"])
async def test_no_verdict_is_kept_in_a_folder_that_is_called_like_a_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str | Path | None
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OBSERVER_DATA_DIR", "~/x")
    said = f"{'data_dir' if given else 'OBSERVER_DATA_DIR'}: a path that begins with ~"
    with pytest.raises(ConfigInvalid, match=said):
        await report_verdict(VERDICT, data_dir=given, observer_url=closed_url())
    with pytest.raises(ConfigInvalid, match=said):
        audit_history(given)
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize(
    ("signature", "stem"),
    [
        ("pr6-7fe47bab", "pr6-7fe47bab"),
        ("v1.2_x", "v1.2_x"),
        ("../../etc/passwd", "_.._etc_passwd-"),
        (".hidden", "hidden-"),
        ("a b", "a_b-"),
        ("pr6~2", "pr6_2-"),
        ("größe", "gr__e-"),
        ("x" * 150, "x" * 100 + "-"),
    ],
)
def test_a_file_name_is_safe_whatever_the_signature(signature: str, stem: str) -> None:
    made = _stem(signature)
    assert made.startswith(stem)
    assert len(made) == len(stem) + (8 if stem.endswith("-") else 0)


@given(st.text(min_size=1, max_size=200), st.text(min_size=1, max_size=200))
def test_two_signatures_never_share_a_file_name(one: str, other: str) -> None:
    assert (_stem(one) == _stem(other)) == (one == other)


# ------------------------------------------------------------------------------- the knowledge base's file


def row(number: int, signature: str = "s") -> AuditRow:
    return AuditRow(kind="audit", signature=signature, overall="approve", id=f"id-{number}")


def test_no_file_is_no_history(tmp_path: Path) -> None:
    assert audit_history(tmp_path) == []


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    outcomes_path(tmp_path).mkdir(parents=True)
    with pytest.raises(DiskFailed, match="EISDIR while reading the knowledge base"):
        audit_history(tmp_path)


def test_history_is_by_signature_and_in_order(tmp_path: Path) -> None:
    rows = [row(1, "a"), row(2, "b"), row(3, "a")]
    for each in rows:
        append_row(tmp_path, each)
    assert audit_history(tmp_path) == rows
    assert audit_history(tmp_path, "a") == [rows[0], rows[2]]
    assert audit_history(tmp_path, "c") == []


def test_the_same_outcome_told_twice_counts_once(tmp_path: Path) -> None:
    anonymous = AuditRow(kind="audit", signature="s", overall="approve")
    for each in (row(1), row(1), anonymous, anonymous):
        append_row(tmp_path, each)
    assert audit_history(tmp_path) == [row(1), anonymous, anonymous]


def test_torn_and_foreign_lines_are_passed_over_and_the_torn_are_logged(tmp_path: Path, logged: list[Any]) -> None:
    append_row(tmp_path, row(1))
    with outcomes_path(tmp_path).open("ab") as file:
        file.write(b'{"kind":"scenario","signature":7}\n')
        file.write(b'\n[1]\n"text"\nnull\n')
        file.write(b'{"kind":"audit","signature":"s"}\n')
        file.write(b"\xff\xfe\n" + b"[" * 100_000 + b"\n")
        file.write(b'{"kind":"audit","signature":"s","overall":"approve","extra":[1]}\n')
        file.write(b'{"kind":"audit","signa')
    append_row(tmp_path, row(2))
    foreign = AuditRow(kind="audit", signature="s", overall="approve")
    assert read_audit_rows(tmp_path) == ([row(1), foreign, row(2)], 4)
    assert audit_history(tmp_path) == [row(1), foreign, row(2)]
    assert [(line["event"], line["lines"]) for line in logged] == [("knowledge_base_damaged", 4)]


class HalfFile:
    """Takes half of what it is given, as a disk does that is nearly full."""

    def __init__(self, file: AppendFile) -> None:
        self._file = file
        self.datasync, self.truncate, self.size, self.close = (
            file.datasync,
            file.truncate,
            file.size,
            file.close,
        )

    def write(self, data: bytes | memoryview) -> int:
        return self._file.write(data[: len(data) // 2])


class HalfDisk(PosixDisk):
    def open_append(self, path: Path, *, create: bool) -> AppendFile:
        return HalfFile(super().open_append(path, create=create))


def test_a_row_that_was_taken_in_part_is_an_error_and_costs_no_other_row(tmp_path: Path) -> None:
    append_row(tmp_path, row(1))
    with pytest.raises(DiskFull, match="taken in part"):
        append_rows(tmp_path, [row(2)], disk=HalfDisk())
    append_row(tmp_path, row(2))
    assert read_audit_rows(tmp_path) == ([row(1), row(2)], 1)


APPENDER = """
import sys
from pathlib import Path
from observer_actors.kb.files import append_row
from observer_actors.kb.rows import AuditRow
name = sys.argv[2]
for number in range(50):
    row = AuditRow(kind="audit", signature=name, overall="o" * 3000, id=f"{name}-{number}")
    append_row(Path(sys.argv[1]), row)
"""


def test_processes_that_append_at_once_lose_no_row(tmp_path: Path) -> None:
    names = ["a", "b", "c", "d"]
    running = [subprocess.Popen([sys.executable, "-c", APPENDER, str(tmp_path), name]) for name in names]
    assert [process.wait(60) for process in running] == [0] * 4
    rows, damaged = read_audit_rows(tmp_path)
    assert damaged == 0
    for name in names:
        assert [each.id for each in rows if each.signature == name] == [f"{name}-{n}" for n in range(50)]


severities: st.SearchStrategy[Severity] = st.sampled_from(["info", "warn", "block"])


@given(st.lists(severities))
def test_findings_are_counted_by_severity(found: list[Severity]) -> None:
    verdict = Verdict(signature="s", overall="o", one_liner="", findings=tuple(Finding(each, "t") for each in found))
    counts = verdict.counts
    assert (counts.info, counts.warn, counts.block) == tuple(found.count(each) for each in ("info", "warn", "block"))
