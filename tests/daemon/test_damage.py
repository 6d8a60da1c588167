"""A data directory in which something has rotted: the daemon starts all the same, and says what it found."""

from __future__ import annotations

import errno
import json
import os
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import structlog
import trio

from observer_actors.actors.open_journal import OpenJournal
from observer_actors.actors.surroundings import Surroundings
from observer_actors.errors import DiskFailed
from observer_actors.journal import DirectoryLock, PosixDisk, Query, blocks, verify
from observer_actors.journal.format import Paths
from observer_actors.settings import JournalSettings, ListenSettings, Settings
from tests.commands.typed import typed
from tests.daemon.inside import daemon_inside, eventually
from tests.daemon.served import served
from tests.harness import running_daemon, seen
from tests.journal.support import commit, make_ops
from tests.journal.test_posix import Rotten

SEGMENT_BYTES = 2_000
CONFIG = f"[journal]\nsegment_bytes_max = {SEGMENT_BYTES}\n"


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a directory with compacted segments and saved counters: 30 ops."""
    data = tmp_path_factory.mktemp("left")
    with served(data, CONFIG) as daemon:
        for _ in range(30):
            daemon.event(endpoint="tool:a", success=True)
        daemon.log.wait("segment_compacted")
        assert daemon.json("/stats")["lifetime"]["total"] == 30  # or it ends with fewer in its counters
    return data


@pytest.fixture
def observer(left: Path, tmp_path: Path) -> Path:
    """Give a copy of it, to be damaged: the folder within ``data``."""
    shutil.copytree(left, tmp_path / "data", ignore=shutil.ignore_patterns("lock"))
    return tmp_path / "data" / "_observer"


async def test_a_manifest_that_is_no_text_any_more_is_rebuilt(tmp_path: Path, observer: Path) -> None:
    _replace_once(observer / "segments" / "manifest.json", b'"checksum": "', b'"checksum": "\xfc')
    async with running_daemon(tmp_path / "data") as daemon:
        assert "damaged" in (await daemon.logged("journal_opened"))["manifest_problem"]
        assert (await daemon.event(endpoint="tool:a"))["seq"] == 31


async def test_versions_that_have_rotted_stop_nothing(tmp_path: Path, observer: Path) -> None:
    """The numbers that say which version wrote a file: another there is no newer version."""
    _replace_once(observer / "segments" / "manifest.json", b'"format": 1', b'"format":21')
    with (observer / "learned.sqlite3").open("r+b") as file:
        file.seek(61)  # within user_version
        file.write(b"\x01")
    async with running_daemon(tmp_path / "data") as daemon:
        assert "damaged" in (await daemon.logged("journal_opened"))["manifest_problem"]
        await daemon.logged("store_damaged")
        assert (await daemon.event(endpoint="tool:a"))["seq"] == 31


async def test_counters_that_are_no_text_any_more_are_counted_anew(tmp_path: Path, observer: Path) -> None:
    _replace_once(observer / "stats.json", b"tool:a", b"tool\xfca")
    left = (observer / "stats.json").read_bytes()
    (observer / "stats.json.unreadable-1").write_bytes(b"of an earlier start")
    async with running_daemon(tmp_path / "data") as daemon:
        await daemon.logged("snapshot_unreadable", within_s=5)
        kept = (observer / "stats.json.unreadable-2").read_bytes()
        assert kept == left, "it may hold what the journal no longer does"
        assert (observer / "stats.json.unreadable-1").read_bytes() == b"of an earlier start"
        # Counted anew from the journal, which takes its time.
        await seen(lambda: daemon.json("/stats"), lambda stats: stats["lifetime"]["total"] == 30)


async def test_counters_that_have_rotted_are_not_believed(tmp_path: Path, observer: Path) -> None:
    _replace_once(observer / "stats.json", b'"last_seq":30', b'"last_seq":70')
    async with running_daemon(tmp_path / "data") as daemon:
        # Counted anew from the journal, which takes its time.
        await seen(lambda: daemon.json("/stats"), lambda stats: stats["lifetime"]["total"] == 30)
        assert [line for line in daemon.log if line["event"] == "journal_cut"] == []


@pytest.mark.parametrize("rotten", [b'"fndpoint":"tool:a"', b'"endpoint"z"tool:a"', b'"endpoint":"tool:a\xff'])
async def test_a_newest_op_that_cannot_be_read_keeps_nobody_waiting(
    tmp_path: Path, observer: Path, rotten: bytes
) -> None:
    data, active = tmp_path / "data", observer / "ops.jsonl"
    before, _, behind = active.read_bytes().rpartition(b'"endpoint":"tool:a"')
    active.write_bytes(before + rotten + behind)
    async with running_daemon(data) as daemon:
        # The ring keeper would be given up after a minute, again and again.
        await seen(lambda: daemon.json("/stats"), lambda stats: stats["lifetime"]["last_seq"] == 30)
        assert [actor for actor in _leaves(await daemon.json("/actors")) if actor["restarts"]] == []
        receipt = await daemon.event(endpoint="next")
        assert (receipt["seq"], receipt["ring_size"]) == (31, 30), "the one that is lost is not to come"
        assert "observer_journal_damaged_lines 1.0" in (await daemon.get("/metrics")).text
    async with running_daemon(data) as daemon:
        told = await daemon.logged("journal_opened")
        assert (told["last_seq"], told["torn"]) == (31, [])


def _leaves(tree: Any) -> list[Any]:
    return [leaf for actor in tree["actors"] for leaf in _below(actor)]


def _below(actor: Any) -> list[Any]:
    return [leaf for child in actor["children"] for leaf in _below(child)] if actor.get("children") else [actor]


async def test_a_lost_segment_is_told_by_each_start_by_the_metrics_and_by_doctor(
    tmp_path: Path, observer: Path
) -> None:
    (observer / "segments" / "ops-00000000000000000001.jsonl.gz").unlink()
    for _ in range(2):
        async with running_daemon(tmp_path / "data") as daemon:
            ops = (await daemon.logged("journal_gap"))["ops"]
            assert ops > 0
            assert f"observer_journal_missing_ops {ops}.0" in (await daemon.get("/metrics")).text
            where = ("--data-dir", str(tmp_path / "data"), "--url", daemon.url)
            said = await trio.to_thread.run_sync(partial(typed, "doctor", *where))
            assert (said.returncode, f"{ops} ops of the journal are in no file" in said.stdout) == (1, True), said


async def test_segments_that_somebody_removes_while_the_daemon_runs_are_told_of_and_sealing_goes_on(
    tmp_path: Path,
) -> None:
    (tmp_path / "observer.toml").write_text(CONFIG)
    data = tmp_path / "data"
    async with running_daemon(data, "--config", str(tmp_path / "observer.toml")) as daemon:
        for _ in range(30):
            await daemon.event(endpoint="tool:a")
        segments, active = data / "_observer" / "segments", data / "_observer" / "ops.jsonl"

        def is_worked_in() -> bool:
            """A file that is full is about to be sealed, and moved there."""
            try:
                is_full = active.stat().st_size >= SEGMENT_BYTES
            except FileNotFoundError:
                is_full = True
            return is_full or any((*segments.glob("*.jsonl"), *segments.glob("*.tmp")))

        await eventually(lambda: not is_worked_in())
        sealed = daemon.ops()[0].seq - 1
        segments.rename(tmp_path / "removed")  # at once: what is missing is told of as it is found
        for _ in range(10):
            await daemon.event(endpoint="tool:a")
        assert (await daemon.logged("journal_gap"))["ops"] == sealed
        assert await daemon.metric("observer_journal_missing_ops") == sealed
        assert [op["seq"] for op in await daemon.all_ops()] == list(range(sealed + 1, 41))
        assert not [line for line in daemon.log if line["event"] in ("seal_failed", "actor_failed")]
        assert await daemon.stop() == 0
    async with running_daemon(data) as daemon:
        assert (await daemon.logged("journal_gap"))["ops"] == sealed


async def test_a_segment_that_the_medium_does_not_give_stops_nothing_for_long(
    tmp_path: Path, observer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "ROTTEN_S", 0.5)
    disk = Rotten(errno.EIO)
    disk.path, disk.places = next((observer / "segments").glob("*.gz")), range(1_000_000)
    (observer / "stats.json").unlink()
    settings = Settings(data_dir=tmp_path / "data", listen=ListenSettings(port=0))
    with trio.fail_after(60):
        async with (
            daemon_inside(settings, disk=disk) as daemon,
            httpx.AsyncClient(base_url=daemon.addresses[0], trust_env=False, timeout=30) as client,
        ):
            assert (await client.post("/event", json={"endpoint": "tool:a"})).json()["seq"] == 31
            await eventually(lambda: 0 < daemon.stats.stats.all.successes < 30, within_s=30)
            ops = (await client.get("/ops", params={"limit": 100, "order": "oldest"})).json()["ops"]
            assert 0 < len(ops) < 31
            assert daemon.views.damaged_lines()


async def test_a_last_line_that_has_rotted_is_told_from_a_torn_one_by_the_counters_that_hold_it(
    tmp_path: Path, observer: Path
) -> None:
    active = (observer / "ops.jsonl").read_bytes()
    (observer / "ops.jsonl").write_bytes(active[:-1] + b" ")  # rot that looks like a torn write
    async with running_daemon(tmp_path / "data") as daemon:
        assert (await daemon.logged("journal_opened"))["last_seq"] == 29
        told = await daemon.logged("snapshot_foreign")
        assert (told["seq"], told["last_seq"]) == (30, 29)
        await daemon.event(endpoint="tool:a")
        assert await daemon.stop() == 0
    said = await trio.to_thread.run_sync(typed, "verify", "--data-dir", str(tmp_path / "data"))
    assert "stats.json.foreign-30: the journal once went up to 30, as these counters say, and began anew" in said.stdout


@pytest.mark.parametrize(("old", "new"), [(b'"seq":30', b'"seq":10'), (b'"seq":30', b'"seq"_30')])
async def test_a_last_line_that_has_rotted_is_damage_and_its_seq_is_not_given_again(
    tmp_path: Path, observer: Path, old: bytes, new: bytes
) -> None:
    _replace_once(observer / "ops.jsonl", old, new)
    for seq in (31, 32):
        async with running_daemon(tmp_path / "data") as daemon:
            told = await daemon.logged("journal_opened")
            assert (told["last_seq"], told["torn"], told["damaged_lines"]) == (seq - 1, [], 1)
            assert (await daemon.event(endpoint="tool:a"))["seq"] == seq
            assert await daemon.stop() == 0
    assert typed("verify", "--data-dir", str(tmp_path / "data")).returncode == 1


async def test_doctor_says_what_is_the_matter_with_a_stopped_directory(tmp_path: Path, observer: Path) -> None:
    first = observer / "segments" / "ops-00000000000000000001.jsonl.gz"
    first.unlink()
    assert "ops of the journal are in no file" in typed("doctor", "--data-dir", str(tmp_path / "data")).stdout
    manifest = observer / "segments" / "manifest.json"
    manifest.unlink()
    manifest.mkdir()
    said = typed("doctor", "--data-dir", str(tmp_path / "data"), "--json").stdout
    assert f"Is a directory ({manifest.name})" in said


def test_doctor_says_before_a_start_that_a_journal_ends_too_early(tmp_path: Path, observer: Path) -> None:
    (observer / "ops.jsonl").unlink()
    last = verify(tmp_path / "data").last_seq
    found = json.loads(typed("doctor", "--data-dir", str(tmp_path / "data"), "--json").stdout)
    assert [(one["level"], one["what"]) for one in found if one["about"] == "journal"] == [
        ("problem", f"ends at seq {last}, and ops up to 30 were counted: those between are lost")
    ]


async def test_a_probe_sees_that_the_active_file_was_cut(tmp_path: Path) -> None:
    log = structlog.get_logger()
    journal = OpenJournal(PosixDisk(), tmp_path, JournalSettings, log=log, around=Surroundings())
    writer = journal.open_writer(None)
    commit(writer, make_ops(3))
    journal.probe()
    active = Paths(tmp_path).active
    os.truncate(active, active.stat().st_size - 1)
    with pytest.raises(DiskFailed, match="cut by somebody else"):
        journal.probe()
    writer.close()


async def test_a_directory_that_is_away_for_a_moment_is_not_damaged_and_costs_nobody_an_op(tmp_path: Path) -> None:
    data, away = tmp_path / "data", tmp_path / "away"
    with DirectoryLock(data) as lock:
        journal = _journal_with(PosixDisk(is_ours=lock.is_in_place), data, segments=3)
        data.rename(away)
        with pytest.raises(DiskFailed, match="removed, renamed or replaced"):
            await journal.query(Query(before_seq=20))
        with structlog.testing.capture_logs() as told:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_come_back, away, data)
                found = await journal.following(0)
        assert [op.seq for op in found.ops] == list(range(1, 11))
        assert [line["event"] for line in told] == ["journal_unreadable"]
        assert journal.damaged_lines() == 0


def test_a_clock_that_is_a_year_ahead_for_a_moment_deletes_nothing(tmp_path: Path) -> None:
    now = SimpleNamespace(ahead_s=0.0, passed_s=0.0)
    around = Surroundings(
        time_ns=lambda: round((1.8e9 + now.ahead_s + now.passed_s) * 1e9), monotonic=lambda: float(now.passed_s)
    )
    settings = JournalSettings(retained_seconds_max=3_600)
    journal = OpenJournal(PosixDisk(), tmp_path, lambda: settings, log=structlog.get_logger(), around=around)
    writer = journal.open_writer(None)
    for _ in range(2):
        commit(writer, make_ops(10))
        writer.seal()
    commit(writer, make_ops(1))
    kept = []
    for now.ahead_s, now.passed_s in [(0, 0), (0, 700), (3e7, 760), (0, 820), (0, 3_500), (0, 3_700)]:
        while journal.maintain():
            pass
        kept.append(journal.reader.first_seq)
    writer.close()
    assert kept == [1, 1, 1, 1, 1, 21]


async def _come_back(away: Path, data: Path) -> None:
    await trio.sleep(0.2)
    await trio.Path(away).rename(data)


async def test_what_is_compacted_while_a_reader_of_the_last_incarnation_reads_is_read_again(tmp_path: Path) -> None:
    class Opened(PosixDisk):
        """The persister starts anew, and a segment is compacted, while the first read is on its way."""

        def read(self, path: Path, offset: int, length: int) -> bytes:
            if threads and path.suffix == ".jsonl" and path.parent.name == "segments":
                threads.clear()
                journal.open_writer(None).close()
                assert journal.maintain()
            return super().read(path, offset, length)

    threads: list[str] = []
    journal = _journal_with(Opened(), tmp_path, segments=1)
    threads.append("reader")
    assert [op.seq for op in (await journal.following(0)).ops] == list(range(1, 11))
    assert (threads, journal.damaged_lines()) == ([], 0)


def _journal_with(disk: PosixDisk, data: Path, *, segments: int) -> OpenJournal:
    """Open a journal of as many sealed segments, of ten ops each."""
    journal = OpenJournal(disk, data, JournalSettings, log=structlog.get_logger(), around=Surroundings())
    writer = journal.open_writer(None)
    for _ in range(segments):
        commit(writer, make_ops(10))
        writer.seal()
    writer.close()
    return journal


def _replace_once(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))
