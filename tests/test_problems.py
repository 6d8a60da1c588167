"""What an answer says of an error, whoever it is from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observer_actors.client._advice import read_advice
from observer_actors.client._delivery import Answer, Backoff, Delivery
from observer_actors.commands import _resume
from observer_actors.errors import RequestTooLarge
from observer_actors.http.replies import problem_reply
from observer_actors.problems import RETRY_AFTER_S_MAX, TEXT_CHARS_MAX, ReceivedProblem, read_problem, retry_after_s

DEEP = b'{"detail":"x","other":' + b"[" * 100_000


def test_what_an_observer_says_is_read() -> None:
    error = RequestTooLarge("too much", hint="send less", limit="listen.body_bytes_max")
    found = read_problem(problem_reply(error).body)
    assert found == ReceivedProblem(
        title=error.title, detail="too much", error="too much", hint="send less", limit="listen.body_bytes_max"
    )


def test_what_a_terminal_would_obey_is_an_escape_in_a_problem() -> None:
    body = problem_reply(RequestTooLarge("\u202ex", hint="\u009b2J")).body
    assert body.isascii()
    assert (read_problem(body).detail, read_problem(body).hint) == ("\u202ex", "\u009b2J")


@given(st.binary())
def test_any_bytes_are_read(body: bytes) -> None:
    assert isinstance(read_problem(body), ReceivedProblem)


@pytest.mark.parametrize("body", [b"", b"[]", b"3", b'"x"', b"<html>", b"\xff", b'{"detail":"\xff"}', DEEP])
def test_what_is_no_problem_says_nothing(body: bytes) -> None:
    assert read_problem(body) == ReceivedProblem()


def test_a_field_of_another_kind_hides_no_other() -> None:
    body = json.dumps({"detail": "no", "hint": 5, "field": None, "retryable": "yes", "title": "x" * 9_999}).encode()
    assert read_problem(body) == ReceivedProblem(detail="no", title="x" * TEXT_CHARS_MAX)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, None), ("", None), ("-1", None), ("1.5", None), ("Fri, 27 Nov 2026 10:00:00 GMT", None), ("7", 7.0)],
)
def test_a_retry_after_is_whole_seconds(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header) == seconds
    assert retry_after_s("9" * 20) == RETRY_AFTER_S_MAX


def test_who_reads_what_is_nested_without_end_takes_it_for_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_advice(Answer(200, DEEP)) is None
    delivery = Delivery([], Backoff())
    assert (delivery.answered(Answer(400, DEEP))[0], delivery.trouble) == ({"retries": 1}, "answered 400")
    monkeypatch.setattr(_resume, "_path", lambda *_: tmp_path / "state")
    (tmp_path / "state").write_bytes(DEEP)
    assert _resume.load(Path("x"), "y") == _resume.Progressed()
