"""What the playbook makes of real events is true: held against the file by other code, and the page says it."""

from __future__ import annotations

from pathlib import Path

from observer_actors.playbook import Kind
from tests.airline import PAGE, entries, page, recounted, told


def about(drawn: int, counted: int) -> bool:
    """Say whether a number was right when its evidence was an eighth less, or one verdict ago."""
    return abs(drawn - counted) <= max(3, counted / 8)


def test_what_entries_say_is_what_the_file_says(shared_data: Path) -> None:
    events = told(shared_data)
    found = entries(shared_data)
    assert {entry.kind for entry in found} == set(Kind)
    for entry in found:
        counted = recounted(entry, events)
        if entry.kind is not Kind.RECIPE:
            assert about(entry.failed, counted.failed), entry.text
            assert about(entry.succeeded, counted.succeeded), entry.text


def test_the_page_is_fresh(shared_data: Path) -> None:
    assert PAGE.read_text() == page(shared_data)
