"""`observer-actors patterns group`: a line out for each line in."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from observer_actors.commands.patterns import InputInvalid, grouped

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
    assert [answer["template"] for answer in answers] == [None, None, None, "it failed"]


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
    assert absent.returncode == 65
    assert b"No such file" in absent.stderr
