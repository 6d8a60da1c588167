"""What an older version wrote opens, is verified and goes on; what a newer one wrote is refused, and not touched."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest
import trio

from observer_actors.journal import verify
from observer_actors.journal.format import FORMAT, Manifest, decode_manifest, encode_manifest
from observer_actors.store.schema import MIGRATIONS
from tests.daemon.load import stored_ops
from tests.fakes.http_peer import Status, http_peer
from tests.harness import running_daemon
from tests.upgrades.events import EVENTS

VERSIONS: Final = sorted(Path(__file__).parent.glob("v*"))
WAIT_S: Final = 30.0
EXIT_CONFIG: Final = 78
SHARED_MEMORY: Final = "_observer/learned.sqlite3-shm"
SEEDS_OP: Final = {
    "timestamp": "2026-04-21T08:00:00.000Z",
    "endpoint": "/search",
    "input_summary": "welders in Toledo",
    "success": True,
    "duration_ms": 12,
    "output_summary": "3 rows",
}
KILLED: Final = """
import os, sqlite3, sys
file = sqlite3.connect(sys.argv[1], isolation_level=None)
file.execute("BEGIN")
file.execute("CREATE TABLE newer (x)")
file.execute("PRAGMA user_version = 1000")
file.execute("COMMIT")
os._exit(0)
"""


@pytest.fixture(params=[pytest.param(version, id=version.name) for version in VERSIONS])
def data_dir(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Give a copy of a kept directory."""
    target = tmp_path / "data"
    shutil.copytree(request.param, target)
    for path in (target, *target.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)  # as it was written: git keeps no modes
    return target


def test_a_directory_is_kept_for_each_format() -> None:
    """``v<format of the journal>``, and where the file of learned things came to another, ``-store-<its version>``."""
    kept = [(_journal_format(version), _store_version(version)) for version in VERSIONS]
    assert {journal for journal, _ in kept} == set(range(1, FORMAT + 1))
    assert {store for _, store in kept} == set(range(1, len(MIGRATIONS) + 1))


def test_it_is_whole_before_anybody_opens_it(data_dir: Path) -> None:
    report = verify(data_dir)
    assert (report.findings, report.ops, report.first_seq, report.last_seq) == ((), len(EVENTS), 1, len(EVENTS))
    ops = stored_ops(data_dir)
    for op, event in zip(ops, EVENTS, strict=True):
        attributes = {name: event[name] for name in ("weather", "depth") if name in event}
        fields = {name: value for name, value in event.items() if name not in attributes}
        assert {name: getattr(op, name) for name in fields} == fields
        assert (op.attrs or {}) == attributes


async def test_it_opens_and_goes_on(data_dir: Path) -> None:
    before = stored_ops(data_dir)
    async with running_daemon(data_dir) as daemon:
        opened = await daemon.logged("journal_opened")
        assert (opened["last_seq"], opened["damaged_lines"], opened["torn"]) == (len(EVENTS), 0, [])
        again = await daemon.event(**EVENTS[0])
        assert (again["seq"], again["duplicate"]) == (1, True)
        assert (await daemon.event(endpoint="tool:new", success=False, error="new"))["seq"] == len(EVENTS) + 1
        await daemon.caught_up()
        lifetime = (await daemon.json("/stats"))["lifetime"]
        failures = (await daemon.json("/failures"))["failures"]
        entries = (await daemon.json("/playbook"))["entries"]
        page = await daemon.json("/ops", after_seq=0, limit=1000)
        assert await daemon.stop() == 0
        warned = {line["event"] for line in daemon.log if line.get("level") in ("warning", "error")}
    assert warned <= {"messages_stranded"}, "what an older daemon has kept for a gateway is for one that has none here"
    assert lifetime["total"] == len(EVENTS) + 1
    assert lifetime["failures"] == sum(not event["success"] for event in EVENTS) + 1
    assert sum(failure["count"] for failure in failures) == lifetime["failures"]
    assert len(entries) > 0
    assert [op["input_summary"] for op in page["ops"][:-1]] == [event["input_summary"] for event in EVENTS]
    after = stored_ops(data_dir)
    assert (after[:-1], after[-1].endpoint) == (before, "tool:new")
    assert verify(data_dir).findings == ()


@pytest.mark.parametrize("command", ["serve", "verify"])
def test_a_newer_format_is_refused_in_words_and_nothing_is_touched(data_dir: Path, command: str) -> None:
    manifest = data_dir / "_observer" / "segments" / "manifest.json"
    manifest.write_bytes(encode_manifest(Manifest(format=FORMAT + 1)))
    before = _contents(data_dir)
    done = _run(command, data_dir)
    assert done.returncode == EXIT_CONFIG
    assert done.stderr.splitlines() == [
        f"observer-actors: the journal has format {FORMAT + 1}, this version knows formats up to {FORMAT}",
        "  run the newer version that wrote this data directory",
    ]
    assert _contents(data_dir) == before


def test_a_newer_format_is_refused_also_where_the_rest_of_the_manifest_is_unknown(data_dir: Path) -> None:
    manifest = data_dir / "_observer" / "segments" / "manifest.json"
    manifest.write_text(f'{{"format": {FORMAT + 1}, "shards": [{{"ring": 7}}], "signature": "abc"}}')
    before = _contents(data_dir)
    done = _run("serve", data_dir)
    assert done.returncode == EXIT_CONFIG
    assert f"format {FORMAT + 1}" in done.stderr
    assert _contents(data_dir) == before


@pytest.mark.parametrize("is_logged", [False, True], ids=["in-the-file", "in-its-log"])
def test_newer_learned_things_are_refused_in_words_and_nothing_is_touched(data_dir: Path, is_logged: bool) -> None:  # noqa: FBT001
    """Also what a newer version that was killed has left in the write-ahead log."""
    learned = data_dir / "_observer" / "learned.sqlite3"
    if is_logged:
        subprocess.run([sys.executable, "-c", KILLED, str(learned)], check=True)
        assert learned.with_name("learned.sqlite3-wal").stat().st_size > 0
    else:
        with closing(sqlite3.connect(learned)) as connection:
            connection.execute("CREATE TABLE newer (x)")
            connection.execute("PRAGMA user_version = 1000")
    before = _contents(data_dir)
    done = _run("serve", data_dir)
    assert done.returncode == EXIT_CONFIG
    assert done.stderr.splitlines() == [
        f"observer-actors: {learned} has version 1000, this program knows up to {len(MIGRATIONS)}",
        "  run the newer program again, or move the file away: it is learned anew from the journal",
    ]
    after = _contents(data_dir)
    for contents in (before, after):
        contents.pop(SHARED_MEMORY, None)  # SQLite's index of the log: made anew by whoever opens the file
    assert after == before


async def test_who_moves_newer_learned_things_away_learns_them_anew(data_dir: Path) -> None:
    learned = data_dir / "_observer" / "learned.sqlite3"
    learned.rename(data_dir / "learned.sqlite3")
    async with running_daemon(data_dir) as daemon:
        await daemon.caught_up()
        failures = (await daemon.json("/failures"))["failures"]
    assert sum(failure["count"] for failure in failures) == sum(not event["success"] for event in EVENTS)


async def test_what_was_learned_is_there_again(data_dir: Path) -> None:
    """Also what waits for the gateway: each message of it arrives, once."""
    patterns, entries, waiting = _learned(data_dir)
    async with http_peer(Status(200)) as gateway:
        async with running_daemon(data_dir, environment={"GATEWAY_URL": gateway.url}) as daemon:
            assert {failure["id"] for failure in (await daemon.json("/failures"))["failures"]} >= patterns
            assert {entry["id"] for entry in (await daemon.json("/playbook"))["entries"]} >= entries
            with trio.fail_after(WAIT_S):
                await gateway.wait_requests(len(waiting), "/log")
            assert await daemon.stop() == 0
        delivered = [(request.headers["idempotency-key"], request.body) for request in gateway.received("/log")]
    assert delivered[: len(waiting)] == waiting
    assert len({key for key, _ in delivered}) == len(delivered)


@pytest.mark.parametrize("command", ["serve", "verify", "doctor"])
@pytest.mark.parametrize("ops", [1, 3_000])
def test_the_file_of_the_program_that_this_one_replaces_is_refused_and_not_touched(
    tmp_path: Path, command: str, ops: int
) -> None:
    file = tmp_path / "_observer" / "ops.jsonl"
    file.parent.mkdir(mode=0o700)
    file.write_text("".join(f"{json.dumps({**SEEDS_OP, 'duration_ms': number})}\n" for number in range(ops)) + '{"tim')
    before = _contents(tmp_path), sorted(tmp_path.rglob("*"))
    done = _run(command, tmp_path)
    assert "observer.ts" in done.stdout + done.stderr
    assert "`observer-actors import`" in done.stdout + done.stderr
    assert done.returncode == (1 if command == "doctor" else EXIT_CONFIG)
    assert (_contents(tmp_path), sorted(tmp_path.rglob("*"))) == before


async def test_a_journal_in_which_the_seeds_lines_stand_too_is_not_taken_for_the_seeds_file(data_dir: Path) -> None:
    file = data_dir / "_observer" / "ops.jsonl"
    file.write_text(json.dumps(SEEDS_OP) + "\n" + file.read_text())
    async with running_daemon(data_dir) as daemon:
        assert (await daemon.logged("journal_opened"))["last_seq"] == len(EVENTS)


def _learned(data_dir: Path) -> tuple[set[str], set[str], list[tuple[str, bytes]]]:
    """Read patterns, entries and messages that wait, as the file's own version wrote them."""
    with closing(sqlite3.connect(data_dir / "_observer" / "learned.sqlite3")) as file:
        version = file.execute("PRAGMA user_version").fetchone()[0]
        patterns = {id_ for (id_,) in file.execute("SELECT id FROM patterns")}
        waiting = file.execute("SELECT key, body FROM outbox WHERE state = 'pending' ORDER BY id").fetchall()
        # What version 1 held was of another kind, and is learned anew.
        found = file.execute("SELECT key FROM playbook WHERE section = 'entry'").fetchall() if version > 1 else []
    assert patterns
    assert version == 1 or (found and waiting)
    return patterns, {id_ for (id_,) in found}, waiting


def _journal_format(data_dir: Path) -> int:
    return decode_manifest((data_dir / "_observer" / "segments" / "manifest.json").read_bytes()).format


def _store_version(data_dir: Path) -> int:
    """Read it from the file's head, for a connection would make files beside it."""
    return int.from_bytes((data_dir / "_observer" / "learned.sqlite3").read_bytes()[60:64], "big")


def _run(command: str, data_dir: Path) -> subprocess.CompletedProcess[str]:
    arguments = ["--port", "0"] if command == "serve" else []
    started = [sys.executable, "-m", "observer_actors", command, "--data-dir", str(data_dir), *arguments]
    return subprocess.run(started, capture_output=True, text=True, timeout=WAIT_S, check=False)


def _contents(data_dir: Path) -> dict[str, bytes]:
    """Give every file but the lock, which a start makes before it looks."""
    files = (path for path in data_dir.rglob("*") if path.is_file() and path.name != "lock")
    return {str(path.relative_to(data_dir)): path.read_bytes() for path in files}
