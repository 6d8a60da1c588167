"""How long to wait before the next try."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observer_actors.backoff import asked_wait_s

NOW: Final = 1_800_000_000.0
"""Fri, 15 Jan 2027 08:00:00 GMT."""


@pytest.mark.parametrize(
    ("retry_after", "date", "wait_s"),
    [
        ("", "", 0),
        ("7", "", 7),
        ("007", "", 7),
        ("9" * 5_000, "", 3_600),
        ("-7", "", 0),
        ("7.5", "", 0),
        ("\u0667", "", 0),
        ("soon", "", 0),
        ("Fri, 15 Jan 2027 08:00:30 GMT", "", 30),
        ("Friday, 15-Jan-27 08:00:30 GMT", "", 30),
        ("Fri Jan 15 08:00:30 2027", "", 30),
        ("Fri, 15 Jan 2027 07:59:00 GMT", "", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", "", 3_600),
        ("Fri, 15 Jan 2027 08:00:30 +9999999999999", "", 0),
        ("Fri, 15 Jan 2027 12:00:30 GMT", "Fri, 15 Jan 2027 12:00:00 GMT", 30),
        ("Fri, 15 Jan 2027 08:00:30 GMT", "today", 30),
        ("7", "Fri, 15 Jan 2027 12:00:00 GMT", 7),
    ],
)
def test_a_server_asks_for_seconds_or_names_a_time_by_its_own_clock(retry_after: str, date: str, wait_s: float) -> None:
    assert asked_wait_s(retry_after, date, now=NOW, most_s=3_600) == wait_s


@given(st.text(), st.text())
def test_any_texts_are_read(retry_after: str, date: str) -> None:
    assert 0 <= asked_wait_s(retry_after, date, now=NOW, most_s=300) <= 300
