"""`observer-actors patterns group`: a line out for each line in."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from observer_actors.commands.patterns import InputInvalid, grouped
from tests.harness import running_daemon, seen

COMMAND = [sys.executable, "-m", "observer_actors", "patterns", "group"]


def written(*lines: bytes) -> list[dict[str, str | None]]:
    invalid: list[InputInvalid] = []
    found = [json.loads(line) for line in grouped(lines, invalid)]
    assert not invalid
    return found


def test_each_line_gets_the_pattern_that_it_has_in_the_end() -> None:
    names = ("alice", "bob", "carol", "dave")
    answers = written(*(json.dumps({"error": f"Invalid user {name} from 10.0.0.1"}).encode() for name in names))
    assert {answer["template"] for answer in answers} == {"Invalid user <any> from <ip>"}
    assert len({answer["pattern"] for answer in answers}) == 1


def test_endpoints_are_told_apart() -> None:
    one, other = written(b'{"endpoint":"a","error":"boom at 5"}', b'{"endpoint":"b","error":"boom at 6"}')
    assert one["template"] == other["template"] == "boom at <num>"
    assert one["pattern"] != other["pattern"]


def test_what_is_no_failure_has_no_pattern() -> None:
    answers = written(b'{"success":true,"error":"x"}', b"\n", b"{}", b'{"output_summary":"it failed"}')
    assert [answer["template"] for answer in answers] == [None, None, "failed", "it failed"]


EVENTS: list[dict[str, object]] = [
    {"ok": True, "error": "the disk is full"},
    {"error": "the disk is full"},
    {"success": "true", "error": "the disk is full"},
    {"success": None, "error": "no such table"},
    {"success": 1, "source": "bot", "error": "no such table"},
    {"endpoint": "sql:run"},
    {"endpoint": "sql:run", "error": "", "one_liner": "it went wrong"},
    {"endpoint": "sql:run", "error": "\x1b[31mtimeout\x1b[0m for <num> of 7"},
    {"endpoint": "sql:run", "error": "login refused with password=hunter2hunter2"},
    {"endpoint": "e" * 300, "error": "boom at 7"},
]


async def test_events_get_the_patterns_that_the_daemon_gives_them_and_its_journal_too(tmp_path: Path) -> None:
    async with running_daemon(tmp_path / "data") as daemon:
        for event in EVENTS:
            await daemon.event(**event)
        failing = {f"{event}" for event in EVENTS if event.get("ok") is not True}
        await seen(
            lambda: daemon.json("/failures"),
            lambda answer: sum(found["count"] for found in answer["failures"]) >= len(failing),
        )
        found = {found["id"]: found["template"] for found in (await daemon.json("/failures"))["failures"]}
    answers = written(*(json.dumps(event).encode() for event in EVENTS))
    assert {answer["pattern"]: answer["template"] for answer in answers[1:]} == found
    assert answers[0] == {"pattern": None, "template": None}
    assert written(*(tmp_path / "data" / "_observer" / "ops.jsonl").read_bytes().splitlines()) == answers


def test_a_compressed_file_and_one_with_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    lines = b'\xef\xbb\xbf{"error":"row 7 gone"}\n{"error":"row 8 gone"}\n'
    (tmp_path / "ops.jsonl.gz").write_bytes(gzip.compress(lines))
    done = subprocess.run([*COMMAND, str(tmp_path / "ops.jsonl.gz")], capture_output=True, check=True)
    assert [json.loads(line)["template"] for line in done.stdout.splitlines()] == ["row <num> gone"] * 2
    (tmp_path / "torn").write_bytes(gzip.compress(lines)[:-12])
    done = subprocess.run([*COMMAND, str(tmp_path / "torn")], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (66, b"")
    assert f"cannot read {tmp_path / 'torn'}: ".encode() in done.stderr


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"error":5}', b'{"error":"\xff"}', b"[" * 100_000])
def test_a_line_that_is_no_event_is_named_and_costs_no_other(line: bytes) -> None:
    invalid: list[InputInvalid] = []
    answers = [
        json.loads(answer)["template"] for answer in grouped([b'{"error":"x"}', line, b'{"error":"y"}'], invalid)
    ]
    assert answers == ["x", None, "y"]
    assert [str(error)[:8] for error in invalid] == ["line 2: "]


def test_the_command_ends_with_65_where_a_line_is_none() -> None:
    done = subprocess.run(COMMAND, input=b'{"error":"x"}\n{"err', capture_output=True, check=False)
    assert (done.returncode, len(done.stdout.splitlines())) == (65, 2)
    assert b"line 2: " in done.stderr


@pytest.mark.parametrize("arguments", [[], ["-"]])
def test_it_reads_standard_input(arguments: list[str]) -> None:
    done = subprocess.run([*COMMAND, *arguments], input=b'{"error":"row 7 gone"}\n', capture_output=True, check=True)
    assert json.loads(done.stdout)["template"] == "row <num> gone"


def test_it_reads_a_file_and_says_when_it_cannot(tmp_path: Path) -> None:
    (tmp_path / "errors.jsonl").write_text('{"error":"row 7 gone"}\n{"error":"row 8 gone"}\n')
    done = subprocess.run([*COMMAND, str(tmp_path / "errors.jsonl")], capture_output=True, check=True)
    assert len(done.stdout.splitlines()) == 2
    absent = subprocess.run([*COMMAND, str(tmp_path / "absent")], capture_output=True, check=False)
    assert absent.returncode == 66
    assert b"No such file" in absent.stderr
