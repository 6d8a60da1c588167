"""Where the librarian goes on. What it makes of a verdict is tested with the daemon, in `test_audits`."""

from __future__ import annotations

from pathlib import Path

import structlog
import trio

from observer_actors.actors.commits import Commits
from observer_actors.actors.librarian import Librarian
from observer_actors.journal import Stretch
from observer_actors.kb import OutcomesIndex
from observer_actors.op import Op
from observer_actors.supervision import Life
from observer_actors.threads import in_thread
from tests.actors.ops import Journal
from tests.fakes.disk import FakeDisk


async def test_it_goes_on_from_its_cursor_also_where_the_journal_is_opened_later(tmp_path: Path) -> None:
    """To begin anew is to write rows twice, where the file holds more than is known of it."""
    disk, journal = FakeDisk(), Journal()
    journal.append(3)
    disk.make_directories(tmp_path)
    disk.plant(tmp_path / "librarian.json", b'{"seq":2,"has_rows":false}')
    read_from: list[int] = []

    async def following(after_seq: int) -> Stretch:
        read_from.append(after_seq)
        return await journal.following(after_seq)

    commits = Commits(following, crashes_max=3, set_aside=_nothing_set_aside)
    feed = commits.feed("librarian")
    librarian = Librarian(
        feed,
        commits,
        OutcomesIndex(tmp_path, disk),
        path=tmp_path / "librarian.json",
        disk=disk,
        in_thread=in_thread,
        log=structlog.get_logger(),
    )
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            life = Life("librarian", 1, on_progress=lambda: None, on_step=lambda _name, _step: None)
            nursery.start_soon(librarian.run, life)
            await life.wait_ready()
            commits.resume(3)
            await feed.reached(3)
            assert read_from == [2]
            nursery.cancel_scope.cancel()


async def _nothing_set_aside(_consumer: str, _op: Op, _crashes: int) -> None:
    raise AssertionError("nothing crashes here")
