"""Where the librarian goes on. What it makes of a verdict is tested with the daemon, in `test_audits`."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import structlog
import trio
from structlog.testing import capture_logs

from observer_actors.actors import librarian
from observer_actors.actors.commits import Commits
from observer_actors.event import AUDITOR
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
    actor = librarian.Librarian(
        feed,
        OutcomesIndex(tmp_path, disk),
        path=tmp_path / "librarian.json",
        disk=disk,
        in_thread=in_thread,
        log=structlog.get_logger(),
    )
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            life = Life("librarian", 1, on_progress=lambda: None, on_step=lambda _name, _step: None)
            nursery.start_soon(actor.run, life)
            await life.wait_ready()
            commits.resume(3)
            await feed.reached(3)
            assert read_from == [2]
            nursery.cancel_scope.cancel()


async def test_of_a_cursor_of_another_journal_nothing_is_left_before_the_first_row(tmp_path: Path) -> None:
    """Killed before the next save, it would go on from there once this journal is as long, and pass over verdicts."""
    disk, journal, cursor = FakeDisk(), Journal(), tmp_path / "librarian.json"
    (verdict,) = journal.append(1)
    verdict.source, verdict.sig_hash, verdict.endpoint = AUDITOR, "sig", "auditor:verdict"
    disk.make_directories(tmp_path / "_kb")
    disk.plant(cursor, b'{"seq":9,"has_rows":false}')
    commits = Commits(journal.following, crashes_max=3, set_aside=_nothing_set_aside)
    feed = commits.feed("librarian")
    actor = librarian.Librarian(
        feed,
        OutcomesIndex(tmp_path, disk),
        path=cursor,
        disk=disk,
        in_thread=in_thread,
        log=structlog.get_logger(),
    )
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            life = Life("librarian", 1, on_progress=lambda: None, on_step=lambda _name, _step: None)
            nursery.start_soon(actor.run, life)
            commits.resume(1)
            await feed.reached(1)
            assert actor.rows_written == 1
            killed = disk.durable()
            nursery.cancel_scope.cancel()
    assert killed.contents(cursor) == b'{"seq":0,"has_rows":false}'


async def test_a_full_disk_is_told_of_once_and_the_row_comes_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(librarian, "RETRY_S_MAX", 0.001)
    disk, journal = FakeDisk(), Journal()
    (verdict,) = journal.append(1)
    verdict.source, verdict.sig_hash, verdict.endpoint = AUDITOR, "sig", "auditor:verdict"
    disk.make_directories(tmp_path / "_kb")
    disk.fail("write", code=errno.ENOSPC, times=3)
    commits = Commits(journal.following, crashes_max=3, set_aside=_nothing_set_aside)
    feed = commits.feed("librarian")
    with capture_logs() as lines:
        log = structlog.get_logger()
        index = OutcomesIndex(tmp_path, disk)
        actor = librarian.Librarian(
            feed, index, path=tmp_path / "librarian.json", disk=disk, in_thread=in_thread, log=log
        )
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                life = Life("librarian", 1, on_progress=lambda: None, on_step=lambda _name, _step: None)
                nursery.start_soon(actor.run, life)
                commits.resume(1)
                await feed.reached(1)
                nursery.cancel_scope.cancel()
    assert disk.contents(tmp_path / "_kb" / "outcomes.jsonl").count(b'"signature":"sig"') == 1
    assert [line["event"] for line in lines] == ["knowledge_base_refused"]


async def _nothing_set_aside(_consumer: str, _op: Op, _crashes: int) -> None:
    raise AssertionError("nothing crashes here")
