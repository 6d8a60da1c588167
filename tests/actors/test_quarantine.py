"""The quarantine's file. What gets there is tested with the daemon, in `test_crashes`."""

from __future__ import annotations

from pathlib import Path

from observer_actors.actors.quarantine import append_line
from tests.fakes.disk import FakeDisk


def test_a_line_that_a_crash_has_torn_costs_no_other(tmp_path: Path) -> None:
    disk, path = FakeDisk(), tmp_path / "quarantine.jsonl"
    disk.make_directories(tmp_path)
    append_line(disk, path, b"1")
    with_torn = disk.contents(path) + b"2, an"
    disk.plant(path, with_torn)
    append_line(disk, path, b"3")
    append_line(disk, path, b"4")
    assert disk.contents(path) == with_torn + b"\n3\n4\n"
