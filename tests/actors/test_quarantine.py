"""The quarantine's file. What gets there is tested with the daemon, in `test_crashes`."""

from __future__ import annotations

import json
from pathlib import Path

import structlog
import trio

from observer_actors.actors.quarantine import Quarantine, append_line
from observer_actors.actors.surroundings import Surroundings
from observer_actors.journal import PosixDisk
from observer_actors.supervision import Events
from tests.fakes.disk import FakeDisk
from tests.journal.support import make_op


def test_a_line_that_a_crash_has_torn_costs_no_other(tmp_path: Path) -> None:
    disk, path = FakeDisk(), tmp_path / "quarantine.jsonl"
    disk.make_directories(tmp_path)
    append_line(disk, path, b"1")
    with_torn = disk.contents(path) + b"2, an"
    disk.plant(path, with_torn)
    append_line(disk, path, b"3")
    append_line(disk, path, b"4")
    assert disk.contents(path) == with_torn + b"\n3\n4\n"


async def test_what_several_actors_set_aside_at_the_same_time_is_all_there(tmp_path: Path) -> None:
    log = structlog.get_logger()
    quarantine = Quarantine(tmp_path, Events(), disk=PosixDisk(), log=log, around=Surroundings())
    (tmp_path / "_observer").mkdir()
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(quarantine.op, f"actor {number}", make_op(number), 3)
    lines = (tmp_path / "_observer" / "quarantine.jsonl").read_text().splitlines()
    assert {json.loads(line)["actor"] for line in lines} == {f"actor {number}" for number in range(20)}
