"""`observer-actors failures`: one pattern, looked at and acted on by a person, against a real daemon."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Final

import pytest
from rich.console import Console

from observer_actors.commands._answers import FailureAnswer
from observer_actors.commands.failures import table_of
from observer_actors.patterns import Action
from tests.commands.typed import answered, typed
from tests.daemon.served import Served, served

HOSTILE: Final = "\x1b[31mred\u202e 2026\nforged " + "very long, " * 80


def id_of(daemon: Served, endpoint: str) -> str:
    (found,) = daemon.json("/failures", endpoint=endpoint)["failures"]
    assert isinstance(found["id"], str)
    return found["id"]


def acted(daemon: Served, *arguments: str) -> str:
    ended = typed("failures", *arguments, "--url", daemon.url)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


def test_one_pattern_is_shown_whole(daemon: Served) -> None:
    for number in (1, 2):
        daemon.event(
            endpoint="shown:whole", success=False, error=f"timed out after {number} s", source="bot", duration_ms=750
        )
    key = id_of(daemon, "shown:whole")
    acted(daemon, "note", key, "Ada looks\nafter it")
    shown = acted(daemon, "show", key).splitlines()
    assert shown[0] == "timed out after <num>"
    assert shown[2].startswith("new since 20")
    assert shown[2].endswith(", at shown:whole")
    assert shown[3] == "count: 2; by event time, in the last hour 2, 24 hours 2, 30 days 2"
    assert shown[4].endswith("they took 1.5 s")
    assert shown[5] == "sources: bot 2"
    assert shown[6].startswith("likely cause: timeout (")
    (noted,) = (line for line in shown if line.startswith("note of 20"))
    assert noted.endswith(r": Ada looks\nafter it")
    assert ["timed out after" in line and "FAIL" in line for line in shown[shown.index("newest:") + 1 :]] == [True] * 2
    assert answered("failures", "show", key, "--url", daemon.url)["notes"][0]["text"] == "Ada looks\nafter it"


def test_what_the_api_lets_a_person_do_the_command_does(daemon: Served) -> None:
    daemon.event(endpoint="done:with", success=False, error="no route")
    key = id_of(daemon, "done:with")
    said = [acted(daemon, *words) for words in (("mute", key, "--note", "why"), ("note", key, "-x"), ("unmute", key))]
    assert said == [f"{key}: muted\n", f"{key}: muted\n", f"{key}: new\n"]
    assert answered("failures", "resolve", key, "--url", daemon.url)["state"] == "resolved"
    assert key not in acted(daemon, "--state", "open")
    daemon.event(endpoint="done:with", success=False, error="no route")
    assert key in acted(daemon, "--state", "open")
    detail = daemon.json(f"/failures/{key}")
    assert (detail["state"], [note["text"] for note in detail["notes"]]) == ("regressed", ["why", "-x"])
    commands = typed("failures", "--help").stdout
    assert all(f"│ {action} " in commands for action in Action)


@pytest.mark.parametrize("words", [("show",), ("mute",), ("note",)])
def test_of_an_id_that_is_not_there_those_near_it_are_named(tmp_path: Path, words: tuple[str, ...]) -> None:
    with served(tmp_path) as daemon:
        daemon.event(endpoint="near", success=False, error="no route")
        key = id_of(daemon, "near")
        for wrong, hint in ((key[:7], f"near it: {key}"), (f"{key[:15]}x", f"near it: {key}"), ("x1", "GET /failures")):
            text = ["text"] if words == ("note",) else []
            ended = typed("failures", *words, wrong, *text, "--url", daemon.url)
            assert (ended.returncode, ended.stdout) == (1, "")
            assert f"there is no pattern '{wrong}'" in ended.stderr
            assert hint in ended.stderr


def test_a_text_that_would_take_the_screen_is_cut_in_the_list_and_whole_by_itself(daemon: Served) -> None:
    daemon.event(endpoint="hostile", success=False, error=HOSTILE)
    (line,) = (line for line in acted(daemon).splitlines() if "hostile" in line)
    assert "…" in line
    assert len(line) < 300
    whole = acted(daemon, "show", id_of(daemon, "hostile"))
    assert whole.startswith(r"red\u202e <num> forged very long, very long")
    assert not {"\x1b", "\u202e"} & set(line + whole)
    assert not any(line.startswith("forged") for line in whole.splitlines())


def test_an_id_can_be_copied_from_a_narrow_screen() -> None:
    found = FailureAnswer("93cc03aecfb642e7", "e" * 300, "word " * 50, "escalating", 1_000, "2026-11-22T10:00:00Z")
    with io.StringIO() as screen:
        Console(file=screen, width=60).print(table_of([found]))
        assert found.id in screen.getvalue()


@pytest.mark.parametrize(("columns", "lines"), [(80, 4), (4_096, 2)])
def test_a_pattern_can_be_read_on_a_narrow_screen(columns: int, lines: int) -> None:
    pattern = "connection to <host> refused after <num> tries"
    found = FailureAnswer("93cc03aecfb642e7", "sql:run", pattern, "escalating", 1_000, "2026-11-22T10:00:00Z")
    with io.StringIO() as screen:
        Console(file=screen, width=columns).print(table_of([found]))
        shown = screen.getvalue()
    assert len(shown.splitlines()) == lines
    assert all(part in shown for part in (pattern, "93cc03aecfb642e7", "1,000", "escalating", "2026-11-22 10:00:00"))


def test_top_shows_what_fails_now_and_not_what_once_cost_more(tmp_path: Path) -> None:
    with served(tmp_path) as daemon:
        for number in range(20):
            daemon.event(endpoint=f"once:{number}", success=False, error="gone", duration_ms=60_000)
        daemon.event(endpoint="fails:now", success=False, error="gone", duration_ms=1)
        daemon.event(endpoint="is:muted", success=False, error="gone", duration_ms=1)
        acted(daemon, "mute", id_of(daemon, "is:muted"))
        shown = typed("top", "--once", "--url", daemon.url).stdout.partition("failing patterns")[2]
        assert ("fails:now" in shown, "is:muted" in shown) == (True, False)
        (line,) = (line for line in shown.splitlines() if "fails:now" in line)
        assert id_of(daemon, "fails:now") in line, "a file is no narrow screen"


def test_that_failures_are_counted_anew_is_said(tmp_path: Path) -> None:
    with served(tmp_path) as daemon:
        daemon.events(*({"endpoint": "a", "ok": False, "error": f"{n} " + "row is gone " * 150} for n in range(1_500)))
        for _ in range(3):  # so far behind that no reader waits for it
            daemon.events(*[{"endpoint": "b", "ok": True}] * 7_000)
    (tmp_path / "_observer" / "learned.sqlite3").unlink()
    with served(tmp_path) as daemon:
        listed = acted(daemon)
        shown = typed("failures", "show", "0000", "--url", daemon.url)
        assert listed.endswith("this is not all of them yet\n")
        assert (shown.returncode, "failures are counted anew" in shown.stderr) == (1, True)
        while not (answer := daemon.json("/failures"))["complete"]:
            time.sleep(0.1)
        assert sum(found["count"] for found in answer["failures"]) == 1_500
        assert "not all" not in acted(daemon)


def test_what_sets_the_failures_apart_is_shown(daemon: Served) -> None:
    fine = [{"endpoint": "apart", "ok": True, "attrs": {"version": "1.0"}}] * 40
    failing = [
        {"endpoint": "apart", "ok": False, "error": f"row {n} gone", "attrs": {"version": "2.0"}} for n in range(10)
    ]
    daemon.events(*fine, *failing)
    shown = acted(daemon, "show", id_of(daemon, "apart"))
    assert "more often than others: attrs.version 2.0 (10 of 10, of the successes 0 of 40)\n" in shown
