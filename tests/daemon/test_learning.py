"""Learning in the real process: what goes wrong around it neither loses what was learned nor disturbs the witness."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import trio

from observer_actors.patterns import Pattern, apply
from observer_actors.settings import CycleSettings, ListenSettings, RingSettings, Settings, SupervisionSettings
from observer_actors.store import LEARNED_PATH
from tests.daemon.elsewhere import PATH_VARIABLE
from tests.daemon.inside import Crashes, caught_up, daemon_inside
from tests.daemon.load import stored_ops
from tests.daemon.test_doors import certificate
from tests.fakes.http_peer import (
    Bytes,
    Close,
    Garbage,
    Hang,
    HttpPeer,
    Json,
    Reply,
    Request,
    Slow,
    Status,
    closed_url,
    http_peer,
    speaking_tls,
)
from tests.harness import Daemon, running_daemon

LEARN_S: Final = 20.0
CONFIG: Final = """
[cycle]
seconds = 0.1
consolidate_every = 2
[gateway]
timeout_seconds = 0.5
retry_seconds_max = 0.2
[model]
timeout_seconds = 0.2
[supervision]
backoff_seconds_first = 0.05
backoff_seconds_max = 0.1
park_seconds = 0.2
"""
ANSWER: Final = Json({"text": "The disk is full."})
ENDPOINTS: Final = ("sql:run", "tool:book", "tool:search")


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., Any]:
    """Start a daemon on the one data directory, with short times."""
    config = tmp_path / "config.toml"
    config.write_text(CONFIG)
    data_dir = tmp_path / "data"

    def start_one(gateway: str = "", model: str = "", **options: Any) -> Any:
        environment = {"GATEWAY_URL": gateway, "LAKEHOUSE_URL": model}
        return running_daemon(data_dir, "--config", str(config), environment=environment, **options)

    return start_one


async def report(daemon: Daemon, endpoint: str, *, successes: int = 0, failures: int = 0) -> None:
    events = [
        {"endpoint": endpoint, "success": True, "duration_ms": 10, "input_summary": f"row {n}"}
        for n in range(successes)
    ]
    events += [{"endpoint": endpoint, "success": False, "error": f"row {n} is gone"} for n in range(failures)]
    answer = (await daemon.post("/events", events)).json()
    assert answer["accepted"] == len(events)


async def learn_three(daemon: Daemon) -> None:
    for endpoint in ENDPOINTS:
        await report(daemon, endpoint, successes=5, failures=2)


def told(gateway: HttpPeer) -> list[str]:
    """Give what the gateway's log was told, in order of arrival."""
    return [request.json()["operation"] for request in gateway.received("/log")]


def keys(gateway: HttpPeer) -> list[str]:
    return [request.headers["idempotency-key"] for request in gateway.received("/log")]


async def metric(daemon: Daemon, name: str) -> float | None:
    for line in (await daemon.get("/metrics")).text.splitlines():
        if line.startswith(name + " "):
            return float(line.split()[1])
    return None


async def until_metric(daemon: Daemon, name: str, value: float) -> None:
    with trio.fail_after(LEARN_S):
        while await metric(daemon, name) != value:
            await daemon.cycles(1)


async def until_counts(daemon: Daemon, expected: dict[str, int]) -> None:
    """Wait until the failures stand so: endpoint -> count."""
    with trio.fail_after(LEARN_S):
        while await counts(daemon) != expected:
            await daemon.cycles(1)


async def until_consolidated(daemon: Daemon, endpoints: int) -> None:
    """Wait until the gateway is to be told of so many, in one go or in several."""
    with trio.fail_after(LEARN_S):
        while sum(line["created"] for line in daemon.log if line["event"] == "consolidated") < endpoints:
            await daemon.cycles(1)


async def counts(daemon: Daemon) -> dict[str, int]:
    return {pattern["endpoint"]: pattern["count"] for pattern in (await daemon.json("/failures"))["failures"]}


async def settled(daemon: Daemon, peer: HttpPeer, messages: int) -> None:
    """Wait until the gateway has been told so much, and the daemon knows."""
    with trio.fail_after(LEARN_S):
        await peer.wait_requests(messages, "/log")
    await until_metric(daemon, 'observer_outbox_pending{receiver="gateway"}', 0)


def outbox(daemon: Daemon) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(daemon.data_dir / LEARNED_PATH)) as file:
        return file.execute("SELECT key, state FROM outbox ORDER BY id").fetchall()


def crashed(daemon: Daemon) -> set[str]:
    return {line["actor"] for line in daemon.log if line["event"] == "actor_failed"}


# --------------------------------------------------------------------------------- the same evidence


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_restart_sends_nothing_again(start: Callable[..., Any], number: signal.Signals) -> None:
    async with http_peer(Status(200)) as peer:
        peer.on("/ai/generate", ANSWER)
        async with start(peer.url, peer.url) as daemon:
            await learn_three(daemon)
            # Which of them a cycle meets together is chance; when all is quiet, all has been told.
            await until_counts(daemon, dict.fromkeys(ENDPOINTS, 2))
            await settled(daemon, peer, 4)
            await daemon.cycles(5)
            before = [request.body for request in peer.requests]
            await daemon.client.aclose()
            await daemon.stop(number)
        async with start(peer.url, peer.url) as daemon:
            await daemon.cycles(5)
            assert [request.body for request in peer.requests] == before
            assert await counts(daemon) == dict.fromkeys(ENDPOINTS, 2)
            entries = (await daemon.json("/playbook", kind="do"))["entries"]
            assert {entry["endpoint"] for entry in entries} == set(ENDPOINTS)
            # New evidence is told, also after the restart.
            await report(daemon, "sql:run", successes=3)
            await settled(daemon, peer, len(told(peer)) + 1)
            assert told(peer)[-1] == "consolidated: 8 successful sql:run calls"
        assert len(set(keys(peer))) == len(keys(peer))


async def test_sigkill_between_queueing_and_delivery_loses_nothing(start: Callable[..., Any]) -> None:
    async with http_peer(Hang()) as peer:
        async with start(peer.url) as daemon:
            await learn_three(daemon)
            with trio.fail_after(LEARN_S):
                await peer.wait_requests(1, "/log")
            await until_metric(daemon, 'observer_outbox_pending{receiver="gateway"}', 3)
            await daemon.stop(signal.SIGKILL)
        waiting = [key for key, state in outbox(daemon) if state == "pending"]
        assert len(waiting) == 3
        peer.on("/log", Status(200))
        tried = len(keys(peer))
        async with start(peer.url) as daemon:
            await settled(daemon, peer, tried + 3)
            assert keys(peer)[tried:] == waiting
            assert set(keys(peer)[:tried]) == {waiting[0]}


async def test_a_gateway_with_troubles_gets_all_in_order_and_a_refusal_blocks_nothing(
    start: Callable[..., Any],
) -> None:
    async with http_peer() as peer:
        first: list[str] = []

        def refuse_the_first(request: Request) -> Reply:
            key = request.headers["idempotency-key"]
            first[:] = first or [key]
            return Status(400) if [key] == first else Status(200)

        troubles = Status(500), Status(429), Garbage(), Close(), Slow(0.7, Status(200))
        peer.on("/log", *troubles, refuse_the_first)
        async with start(peer.url) as daemon:
            await learn_three(daemon)
            await until_metric(daemon, 'observer_outbox_delivered_total{receiver="gateway"}', 2)
            sent = [key for key, _ in outbox(daemon)]
            assert keys(peer) == [sent[0]] * 6 + sent[1:]
            assert [state for _, state in outbox(daemon)] == ["refused", "delivered", "delivered"]
            refused = await daemon.logged("message_refused")
            assert (refused["actor"], refused["key"], refused["error"]) == ("courier", sent[0], "status 400")
            assert crashed(daemon) == set()


async def test_a_gateway_that_comes_up_later_gets_it_all(start: Callable[..., Any]) -> None:
    url = closed_url()
    async with start(url) as daemon:
        await learn_three(daemon)
        await daemon.logged("delivery_failed")
        await until_metric(daemon, 'observer_outbox_pending{receiver="gateway"}', 3)
        async with http_peer(Status(200), port=int(url.rpartition(":")[2])) as peer:
            await settled(daemon, peer, 3)
            assert keys(peer) == [key for key, _ in outbox(daemon)]


async def test_what_waits_for_a_gateway_that_was_taken_out_again_is_told_once_and_raises_no_alert(
    start: Callable[..., Any],
) -> None:
    async with start(closed_url()) as daemon:
        await learn_three(daemon)
        await until_metric(daemon, 'observer_outbox_pending{receiver="gateway"}', 3)
    async with start() as daemon:
        stranded = await daemon.logged("messages_stranded")
        assert (stranded["receiver"], stranded["pending"]) == ("gateway", 3)
        metrics = (await daemon.get("/metrics")).text
        assert 'observer_outbox_delivered_total{receiver="gateway"}' in metrics
        assert "observer_outbox_pending{" not in metrics


async def test_a_gateway_that_is_configured_later_hears_of_what_is_known_already(start: Callable[..., Any]) -> None:
    async with start() as daemon:
        await learn_three(daemon)
        await until_counts(daemon, dict.fromkeys(ENDPOINTS, 2))
        await daemon.cycles(5)
        assert outbox(daemon) == []
        assert "consolidated" not in {line["event"] for line in daemon.log}
    async with http_peer(Status(200)) as peer, start(peer.url) as daemon:
        await settled(daemon, peer, 3)
        assert sorted(told(peer)) == [f"consolidated: 5 successful {endpoint} calls" for endpoint in ENDPOINTS]


@pytest.mark.parametrize(
    "answer",
    [None, Status(200), Garbage(), Bytes(b"[" * 100_000)],
    ids=["down", "no JSON", "garbage", "nested without end"],
)
async def test_a_required_gateway_that_is_not_there_ends_the_process_with_69(
    tmp_path: Path, answer: Reply | None
) -> None:
    async with http_peer(answer or Hang()) as peer:
        url = peer.url if answer else closed_url()
        config = tmp_path / "config.toml"
        config.write_text(f'[gateway]\nurl = "{url}"\nrequired = true\n')
        async with running_daemon(tmp_path / "data", "--config", str(config), wait_ready=False) as daemon:
            with trio.fail_after(LEARN_S):
                assert await daemon.process.wait() == 69
            said = await daemon.logged("not_json")
            assert said["text"].startswith(f"observer-actors: the gateway at {url} does not answer GET /health: ")
            assert daemon.url == ""


async def test_a_required_gateway_that_is_there_lets_the_daemon_start(tmp_path: Path) -> None:
    async with http_peer() as peer:
        peer.on("GET /health", Json({"status": "ok"}))
        config = tmp_path / "config.toml"
        config.write_text(f'[gateway]\nurl = "{peer.url}"\nrequired = true\n')
        async with running_daemon(tmp_path / "data", "--config", str(config)) as daemon:
            assert (await daemon.json("/health"))["status"] == "ok"


async def test_a_gateway_and_a_model_of_a_private_authority_are_trusted_as_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cert, key = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    async with http_peer(Status(200), tls=speaking_tls(cert, key)) as peer:
        peer.on("GET /health", Json({"status": "ok"}))
        peer.on("/ai/generate", ANSWER)
        config = tmp_path / "config.toml"
        config.write_text(
            f'[gateway]\nurl = "{peer.url}"\nrequired = true\n[model]\nlakehouse_url = "{peer.url}"\n'
            "[cycle]\nseconds = 0.1\n"
        )
        async with running_daemon(tmp_path / "data", "--config", str(config)) as daemon:
            await report(daemon, "sql:run", failures=3)
            with trio.fail_after(LEARN_S):
                while "error_analysis: 3 failures" not in told(peer):
                    await daemon.cycles(1)


# ------------------------------------------------------------------------------------------ the model


async def test_a_model_in_trouble_disturbs_nobody_and_is_asked_again_later(start: Callable[..., Any]) -> None:
    troubles: list[Reply] = [Status(500), Hang(), Garbage(), Json({"words": "none"})]
    async with http_peer(Status(200)) as peer:
        peer.on("/ai/generate", *troubles, ANSWER)
        async with start(peer.url, peer.url) as daemon:
            await report(daemon, "sql:run", failures=3)
            while len(peer.received("/ai/generate")) < len(troubles):
                await report(daemon, "tool:book", successes=1)  # ingest goes on
            with trio.fail_after(LEARN_S):
                while "error_analysis: 3 failures" not in told(peer):
                    await daemon.cycles(1)
            failed = [line for line in daemon.log if line["event"] == "analysis_failed"]
            assert [line["cycles_skipped"] for line in failed] == [1, 2, 4, 8]
            assert crashed(daemon) == set()
            await daemon.cycles(5)
        assert len(peer.received("/ai/generate")) == len(troubles) + 1
        assert len({request.body for request in peer.received("/ai/generate")}) == 1


# ------------------------------------------------------------------------------------------- the file


async def test_a_file_that_is_damaged_at_the_start_is_learned_anew_and_nothing_is_sent_again(
    start: Callable[..., Any],
) -> None:
    async with http_peer(Status(200)) as peer:
        async with start(peer.url) as daemon:
            await learn_three(daemon)
            await settled(daemon, peer, 3)
        damage(daemon.data_dir / LEARNED_PATH, "patterns", "playbook", "cursors")
        async with start(peer.url) as daemon:
            said = await daemon.logged("store_damaged")
            assert (said["level"], said["actor"]) == ("error", "store")
            assert Path(said["set_aside"]).exists()  # noqa: ASYNC240 - a test may look
            await until_counts(daemon, dict.fromkeys(ENDPOINTS, 2))
            await until_consolidated(daemon, len(ENDPOINTS))
            await report(daemon, "sql:run", failures=1)
            await until_counts(daemon, {**dict.fromkeys(ENDPOINTS, 2), "sql:run": 3})
            await daemon.cycles(3)
            assert len(told(peer)) == 3
            await report(daemon, "sql:run", successes=3)  # what is new is told although the entry began anew
            await settled(daemon, peer, 4)


async def test_rubbish_in_the_files_place_does_not_stop_the_start(start: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "data" / LEARNED_PATH
    path.parent.mkdir(parents=True)
    path.write_bytes(os.urandom(50_000))
    async with start() as daemon:
        await daemon.logged("store_damaged")
        await learn_three(daemon)
        await until_counts(daemon, dict.fromkeys(ENDPOINTS, 2))
        assert crashed(daemon) == set()


async def test_damage_while_it_runs_is_mended_and_the_patterns_are_all_there_again(start: Callable[..., Any]) -> None:
    async with http_peer(Status(200)) as peer, start(peer.url) as daemon:
        await learn_three(daemon)
        await settled(daemon, peer, 3)
        path = daemon.data_dir / LEARNED_PATH
        damage(path, "patterns", "playbook", "diagnoses")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            # The daemon's pages of the file now count as old, and it reads them again.
            other.execute("INSERT INTO counters (name, n) VALUES ('test', 1)")
        await report(daemon, "tool:new", successes=5, failures=1)
        await daemon.logged("store_damaged")
        await until_counts(daemon, {**dict.fromkeys(ENDPOINTS, 2), "tool:new": 1})
        await settled(daemon, peer, 4)
        with trio.fail_after(LEARN_S):
            while saved(path, "analyzer") != 27:
                await daemon.cycles(1)
        assert crashed(daemon) <= {"analyzer", "consolidator", "courier"}
        assert (await daemon.get("/ready")).status_code == 200
        await daemon.client.aclose()
        assert await daemon.stop() == 0
        async with start(peer.url) as again:
            assert await counts(again) == {**dict.fromkeys(ENDPOINTS, 2), "tool:new": 1}
            await again.cycles(3)
            assert len(set(keys(peer))) == len(keys(peer)) == 4


async def test_a_file_that_another_process_holds_stops_no_event(start: Callable[..., Any]) -> None:
    async with start(closed_url()) as daemon:
        await learn_three(daemon)
        await until_consolidated(daemon, len(ENDPOINTS))
        with closing(sqlite3.connect(daemon.data_dir / LEARNED_PATH, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await report(daemon, "tool:new", successes=5, failures=1)
            assert "locked" in (await daemon.logged("store_refused"))["error"]
            await report(daemon, "tool:new", failures=1)
            assert (await daemon.get("/ready")).status_code == 200
            other.execute("ROLLBACK")
        await until_counts(daemon, {**dict.fromkeys(ENDPOINTS, 2), "tool:new": 2})
        await until_consolidated(daemon, len(ENDPOINTS) + 1)
        assert not crashed(daemon)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 256 KiB, or skip."""
    place = tmp_path / "small"
    place.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("mounting a small file system needs root")
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)], capture_output=True, check=False, text=True
    )
    if done.returncode:
        pytest.skip(f"cannot mount a small file system: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


async def test_a_full_disk_under_the_file_stops_no_event_and_is_got_over(tmp_path: Path, small_disk: Path) -> None:
    config = tmp_path / "config.toml"
    elsewhere = {PATH_VARIABLE: str(small_disk / LEARNED_PATH.name), "GATEWAY_URL": closed_url()}
    config.write_text(CONFIG)
    async with running_daemon(
        tmp_path / "data", "--config", str(config), module="tests.daemon.elsewhere", environment=elsewhere
    ) as daemon:
        await learn_three(daemon)
        await until_consolidated(daemon, len(ENDPOINTS))
        ballast = small_disk / "ballast"
        with ballast.open("wb", buffering=0) as file:
            while fits(file.write):
                pass
        await report(daemon, "tool:new", successes=5, failures=1)
        assert "full" in (await daemon.logged("store_refused"))["error"]
        await report(daemon, "tool:new", failures=1)
        assert (await daemon.get("/ready")).status_code == 200
        ballast.unlink()
        await until_counts(daemon, {**dict.fromkeys(ENDPOINTS, 2), "tool:new": 2})
        await until_consolidated(daemon, len(ENDPOINTS) + 1)
        assert not crashed(daemon)


def fits(write: Callable[[bytes], int]) -> bool:
    try:
        return write(bytes(4_096)) == 4_096
    except OSError:
        return False


def damage(path: Path, *tables: str) -> None:
    """Overwrite the pages that tables begin with, once all is in the file itself."""
    with closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        size = file.execute("PRAGMA page_size").fetchone()[0]
        rows = file.execute("SELECT name, rootpage FROM sqlite_schema").fetchall()
    pages = {name: page for name, page in rows if name in tables}
    assert len(pages) == len(tables)
    with path.open("r+b") as raw:
        for page in pages.values():
            raw.seek((page - 1) * size)
            raw.write(b"\xff" * size)


def saved(path: Path, consumer: str) -> int:
    with closing(sqlite3.connect(path)) as file:
        rows = file.execute("SELECT seq FROM cursors WHERE consumer = ?", (consumer,)).fetchall()
    return int(rows[0][0]) if rows else 0


# ----------------------------------------------------------------------------------- crashes, restarts


async def test_crashes_and_restarts_of_the_analyzer_give_the_patterns_of_a_clean_run(
    shared_data: Path, tmp_path: Path
) -> None:
    """Also from a journal that is larger than the ring."""
    lines = (shared_data / "taubench_airline_ops.jsonl").read_bytes().splitlines(keepends=True)
    settings = Settings(
        data_dir=tmp_path,
        listen=ListenSettings(port=0),
        ring=RingSettings(capacity_ops=50),
        cycle=CycleSettings(seconds=60),
        supervision=SupervisionSettings(
            intensity=50, backoff_seconds_first=0.01, backoff_seconds_max=0.02, crashes_before_quarantine=10
        ),
    )
    steps = {("analyzer", "grouping"): (2, 3, 5, 6, 9), ("analyzer", "loading"): (2, 5)}
    half = len(lines) // 2
    patterns: dict[str, Pattern] = {}
    for part in (lines[:half], lines[half:]):
        crashes = Crashes(dict(steps))
        async with daemon_inside(settings, on_step=crashes) as daemon, httpx.AsyncClient(trust_env=False) as client:
            for at in range(0, len(part), 40):
                answer = await client.post(f"{daemon.addresses[0]}/events", content=b"".join(part[at : at + 40]))
                assert answer.status_code == 200
            await crashes.wait_happened()
            await caught_up(daemon)
            patterns = dict(daemon.analyzer.patterns)
            await client.aclose()
    assert patterns == apply({}, stored_ops(tmp_path)).patterns
    assert len(patterns) == 11
    async with daemon_inside(settings) as daemon:
        assert dict(daemon.analyzer.patterns) == patterns
