"""The store as the learning actors share it, when its file is damaged under them."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
import structlog
import trio
from structlog.testing import capture_logs

from observer_actors.actors.learned import Learned, StoreReplaced
from observer_actors.actors.standings import Standings
from observer_actors.actors.surroundings import Surroundings
from observer_actors.errors import DiskFailed
from observer_actors.patterns import Action, Example, Outgoing, Pattern
from observer_actors.playbook import Copy, Entry, Kind, Row, Section
from observer_actors.settings import FailuresSettings, GatewaySettings
from observer_actors.store import LEARNED_PATH, Lane, LaneStatistics, StoreBusy, StoreDamaged

PATTERN = Pattern(
    id="p1",
    version=1,
    endpoint="sql:run",
    template="row <num> gone",
    first_seq=1,
    last_seq=7,
    first_seen="2026-11-22T10:00:00.000000Z",
    last_seen="2026-11-22T10:00:01.000000Z",
    count=2,
    examples=(Example(7, "[sql:run] x: row 7 gone"),),
    sources={"mcp": 2},
)
ENTRY = Entry(id="e1", kind=Kind.DO, endpoint="sql:run", about="", text="works")
PLAYBOOK = [Row(Section.ENTRY, "e1", 9, msgspec.json.encode(ENTRY))]


def message(key: str) -> Outgoing:
    return Outgoing(key=key, path="/log", body=b"{}")


def copy(key: str) -> Copy:
    return Copy("sql:run", 5, message(key))


@pytest.fixture
async def learned(tmp_path: Path) -> AsyncIterator[Learned]:
    made = Learned(tmp_path, GatewaySettings(url="http://gateway"), log=structlog.get_logger())
    yield made
    await made.close()


async def damaged_under(learned: Learned, data_dir: Path) -> None:
    """Have one actor find the damage, as a crash of its own."""
    path = data_dir / LEARNED_PATH
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        page_bytes = other.execute("PRAGMA page_size").fetchone()[0]
        page = other.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'patterns'").fetchone()[0]
        with path.open("r+b") as file:
            file.seek((page - 1) * page_bytes)
            file.write(b"\xff" * page_bytes)
        other.execute("INSERT INTO counters (name, n) VALUES ('test', 1)")  # the pages in memory count as old now
    with pytest.raises(StoreDamaged):
        await learned.load_patterns()


async def test_what_was_loaded_from_a_damaged_file_is_not_saved_into_the_one_in_its_place(
    learned: Learned, tmp_path: Path
) -> None:
    """The cursor would say that all is there, and the patterns that had not changed would be missing."""
    await learned.load_patterns()
    await learned.load_playbook()
    await learned.save_patterns({"p1": PATTERN}, 7)
    await learned.save_told([copy("a")])
    with capture_logs() as logs:
        await damaged_under(learned, tmp_path)
        with pytest.raises(StoreReplaced):
            await learned.save_patterns({}, 8)
        with pytest.raises(StoreReplaced):
            await learned.save_playbook(PLAYBOOK, 9)
    assert [line["event"] for line in logs] == ["store_damaged"]
    assert await learned.load_patterns() == ({}, 0)
    await learned.save_patterns({"p1": PATTERN}, 7)
    with pytest.raises(StoreReplaced):  # the other actor has not loaded yet
        await learned.save_playbook(PLAYBOOK, 9)
    assert (await learned.load_playbook()).entries == {}
    await learned.save_playbook(PLAYBOOK, 9)
    assert await learned.load_patterns() == ({"p1": PATTERN}, 7)


@pytest.mark.parametrize("how", ["removed", "renamed", "replaced"])
async def test_nothing_is_saved_to_a_file_that_was_taken_away(learned: Learned, tmp_path: Path, how: str) -> None:
    path = tmp_path / LEARNED_PATH
    await learned.load_patterns()
    await learned.save_patterns({"p1": PATTERN}, 7)
    if how == "replaced":
        path.with_name("other").write_bytes(b"")
        path.with_name("other").rename(path)
    elif how == "renamed":
        path.rename(path.with_name("away"))
    else:
        for file in path.parent.glob(f"{path.name}*"):
            file.unlink()
    with capture_logs() as logs, pytest.raises(StoreReplaced):
        await learned.save_patterns({}, 8)
    assert [line["event"] for line in logs] == ["store_taken_away"]
    assert await learned.load_patterns() == ({}, 0)
    await learned.save_patterns({"p1": PATTERN}, 8)
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT seq FROM cursors").fetchall() == [(8,)]


async def test_what_is_saved_waits_while_another_process_holds_the_file_and_nothing_crashes(
    learned: Learned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("observer_actors.store.files.BUSY_SECONDS", 0.01)
    monkeypatch.setattr("observer_actors.actors.learned.BUSY_SECONDS", 0.01)
    monkeypatch.setattr("observer_actors.actors.standings.ACT_S", 0.3)
    standings = Standings(
        learned, FailuresSettings(), log=structlog.get_logger(), clock=lambda: 1e9, announce=lambda _change: None
    )
    await learned.load_patterns()
    with closing(sqlite3.connect(tmp_path / LEARNED_PATH, isolation_level=None)) as other, capture_logs() as logs:
        other.execute("BEGIN IMMEDIATE")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(learned.save_patterns, {"p1": PATTERN}, 7)
            with pytest.raises(StoreBusy, match="database is locked"):  # a person does not wait for ever
                await standings.act(PATTERN, Action.NOTE, "mine", acknowledged_seq=7)
            other.execute("ROLLBACK")
    await standings.save()
    assert [line["event"] for line in logs] == ["store_refused"]
    assert await learned.load_patterns() == ({"p1": PATTERN}, 7)
    assert [note.text for note in (await learned.load_standings())["p1"].notes] == ["mine"]


async def test_a_file_whose_directory_is_away_is_waited_for(tmp_path: Path) -> None:
    data, away = tmp_path / "data", tmp_path / "away"
    around = Surroundings(is_ours=lambda: not away.exists())
    learned = Learned(data, GatewaySettings(), log=structlog.get_logger(), around=around)
    await learned.load_patterns()
    data.rename(away)
    with pytest.raises(DiskFailed, match="the data directory was removed, renamed or replaced"):
        await learned.save_patterns({"p1": PATTERN}, 7)
    with pytest.raises(DiskFailed, match="the data directory was removed, renamed or replaced"):
        await Learned(data, GatewaySettings(), log=structlog.get_logger(), around=around).load_patterns()
    assert not data.exists()
    away.rename(data)
    await learned.save_patterns({"p1": PATTERN}, 7)
    assert await learned.load_patterns() == ({"p1": PATTERN}, 7)
    await learned.close()


async def test_a_message_in_hand_while_the_file_is_replaced_is_noted_as_itself(
    learned: Learned, tmp_path: Path
) -> None:
    """The new file numbers its messages anew."""
    await learned.load_patterns()
    await learned.save_patterns({"p1": PATTERN}, 7)
    await learned.load_playbook()
    await learned.save_told([copy(key) for key in "abc"])
    await learned.delivered(await learned.next_message(Lane.GATEWAY))
    in_hand = await learned.next_message(Lane.GATEWAY)
    await damaged_under(learned, tmp_path)
    await learned.delivered(in_hand)
    assert (in_hand.key, (await learned.next_message(Lane.GATEWAY)).key) == ("b", "c")


async def test_who_waits_for_a_message_is_woken_by_it(learned: Learned) -> None:
    await learned.load_playbook()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:

            async def deliver(count: int) -> None:
                for _ in range(count):
                    await learned.delivered(await learned.next_message(Lane.GATEWAY))

            nursery.start_soon(deliver, 50)
            for number in range(50):
                await learned.save_told([copy(f"m{number}")])
    statistics = learned.statistics()
    assert statistics is not None
    assert statistics[Lane.GATEWAY] == LaneStatistics(delivered=50)


async def test_a_store_that_is_opened_before_the_journal_is_compared_with_it_later_and_not_doubted_meanwhile(
    tmp_path: Path,
) -> None:
    ends: list[int | None] = [9]
    settings = GatewaySettings()
    learned = Learned(tmp_path, settings, log=structlog.get_logger(), last_seq=lambda: ends[-1])
    await learned.load_patterns()
    await learned.save_patterns({"p1": PATTERN}, 7)
    await learned.close()

    ends.append(None)  # the next process, whose disk has not let it open the journal yet
    learned = Learned(tmp_path, settings, log=structlog.get_logger(), last_seq=lambda: ends[-1])
    assert await learned.load_patterns() == ({"p1": PATTERN}, 7)
    ends.append(9)
    assert await learned.load_patterns() == ({"p1": PATTERN}, 7)
    await learned.close()

    ends.append(None)
    learned = Learned(tmp_path, settings, log=structlog.get_logger(), last_seq=lambda: ends[-1])
    await learned.load_patterns()
    ends.append(3)  # it is another journal
    with pytest.raises(StoreReplaced):
        await learned.save_patterns({"p1": PATTERN}, 8)
    assert await learned.load_patterns() == ({}, 0)
    await learned.close()
