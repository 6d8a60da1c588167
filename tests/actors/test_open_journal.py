"""The journal as actors share it: whose turn it is, and what is done when nothing else waits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
import structlog
import trio
import trio.testing

from observer_actors.actors.admission import TURN_S
from observer_actors.actors.open_journal import QUERIES_MAX, READS_MAX, OpenJournal
from observer_actors.actors.surroundings import Surroundings
from observer_actors.errors import DiskFailed, Overloaded
from observer_actors.journal import Query
from observer_actors.settings import JournalSettings
from tests.fakes.disk import FakeDisk
from tests.journal.support import commit, make_ops
from tests.supervision.injected_time import injected_time

T = TypeVar("T")


class Threads:
    """In their place: a call waits for its turn, and then until the disk is quick again."""

    def __init__(self) -> None:
        self.quick = trio.Event()

    async def __call__(
        self, call: Callable[[], T], /, *, abandon_on_cancel: bool = False, limiter: trio.CapacityLimiter | None = None
    ) -> T:
        assert limiter is not None
        await limiter.acquire_on_behalf_of(call)
        try:
            with trio.CancelScope(shield=not abandon_on_cancel):
                await self.quick.wait()
            return call()
        finally:
            limiter.release_on_behalf_of(call)


def opened(threads: Threads) -> OpenJournal:
    around = Surroundings(in_thread=threads)
    journal = OpenJournal(FakeDisk(), Path("/data"), JournalSettings, log=structlog.get_logger(), around=around)
    writer = journal.open_writer(None)
    commit(writer, make_ops(10))
    return journal


@injected_time
async def test_who_asks_for_a_few_ops_and_who_fell_behind_wait_for_no_queries() -> None:
    threads = Threads()
    journal = opened(threads)
    async with trio.open_nursery() as nursery:
        for _ in range(10 * QUERIES_MAX):
            nursery.start_soon(journal.query, Query())
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(READS_MAX - 1):
            nursery.start_soon(journal.read, 0, 1)
        await trio.testing.wait_all_tasks_blocked()
        threads.quick, slow = trio.Event(), threads.quick
        threads.quick.set()
        assert (await journal.following(0)).through == 10
        found = await journal.get(3)
        assert found is not None
        assert found.seq == 3
        slow.set()


@injected_time
async def test_whose_turn_does_not_come_is_refused_and_who_has_it_is_answered() -> None:
    threads = Threads()
    journal = opened(threads)
    told: list[str] = []

    async def ask(call: Callable[[], object]) -> None:
        try:
            await call()  # type: ignore[misc] # what an async function gives
        except Overloaded as error:
            told.append(error.detail)
        else:
            told.append("answered")

    async with trio.open_nursery() as nursery:
        for _ in range(QUERIES_MAX):
            nursery.start_soon(ask, partial(journal.query, Query()))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(ask, partial(journal.query, Query()))
        await trio.sleep(TURN_S + 1)
        assert told == ["too much else is read; not read within 5 s"]
        threads.quick.set()
    assert told[1:] == ["answered"] * QUERIES_MAX


def test_what_is_removed_is_given_back_slowly_only_when_nothing_waits_to_be_compressed() -> None:
    freed = []

    class Disk(FakeDisk):
        def free(self, *, slowly: bool) -> None:
            freed.append(slowly)

    journal = OpenJournal(Disk(), Path("/data"), JournalSettings, log=structlog.get_logger(), around=Surroundings())
    writer = journal.open_writer(None)
    for _ in range(2):
        commit(writer, make_ops(10))
        writer.seal()
    assert journal.maintain()
    assert journal.maintain()
    assert freed == [False, True]


def test_what_is_removed_is_given_back_also_where_the_disk_refuses_what_follows() -> None:
    """On a full disk it is the room that the rest of the pass lacks, and each pass after it."""
    freed = []

    class Disk(FakeDisk):
        def remove(self, path: Path, *, later: bool = False) -> None:
            super().remove(path, later=later)
            self.fail("sync_directory")

        def free(self, *, slowly: bool) -> None:
            freed.append(slowly)

    journal = OpenJournal(Disk(), Path("/data"), JournalSettings, log=structlog.get_logger(), around=Surroundings())
    writer = journal.open_writer(None)
    commit(writer, make_ops(10))
    writer.seal()
    with pytest.raises(DiskFailed):
        journal.maintain()
    assert freed == [False]
