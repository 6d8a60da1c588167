"""How the process starts, reloads and ends."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import httpx
import msgspec
import pytest
import trio

from observer_actors import daemon as daemon_module
from observer_actors import notify, start_observer
from observer_actors.actors import persister
from observer_actors.daemon import Daemon
from observer_actors.errors import DataDirectoryLocked
from observer_actors.http import web
from observer_actors.journal import JournalWriter, PosixDisk, directory_in_use, verify
from observer_actors.journal.compressing import Compressed, compress
from observer_actors.notify import Notifier, keep_notified
from observer_actors.settings import AdmissionSettings, JournalSettings, ListenSettings, Settings
from tests.commands.typed import typed
from tests.daemon.inside import daemon_inside, eventually
from tests.daemon.load import connected, stored_ops
from tests.fakes.http_peer import Held, HttpPeer, Json, Partial, Reply, Status, http_peer
from tests.fakes.troubled_disk import Kind, TroubledDisk
from tests.harness import first_told, running_daemon, seen
from tests.journal.support import commit, make_ops
from tests.processes import children, cpu_seconds

IDLE_S: Final = 3.0
"""How long an idle daemon is watched."""


async def test_the_first_log_line_names_the_bound_address(tmp_path: Path) -> None:
    async with running_daemon(tmp_path) as daemon:
        first = daemon.log[0]
        assert first["event"] == "listening"
        assert first["actor"] == "daemon"
        assert first["url"].startswith("http://127.0.0.1:")
        assert (await daemon.get("/health")).json()["status"] == "ok"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_and_exits_0(tmp_path: Path, number: signal.Signals) -> None:
    own_program = {"PYTHONHASHSEED": "random"}  # whose interpreter is taken down, too
    async with running_daemon(tmp_path, environment=own_program) as daemon:
        await daemon.event(endpoint="a")
        assert await daemon.stop(number) == 0
        await daemon.log_ended()
        assert daemon.log[-1]["event"] == "stopped"
        stopped = [line["actor"] for line in daemon.log if line["event"] == "actor_stopped"]
    leaves = [name for name in stopped if name not in ("edge", "learning", "upkeep", "pipeline")]
    assert leaves == [
        "ingest", "courier", "librarian", "consolidator", "analyzer", "archivist", "stats", "ring_keeper", "persister",
    ]  # fmt: skip


@pytest.mark.parametrize(("number", "then"), [(signal.SIGHUP, "reloaded"), (signal.SIGTERM, "stopped")])
async def test_a_signal_that_comes_before_the_settings_are_read_is_obeyed_as_later(
    tmp_path: Path, number: signal.Signals, then: str
) -> None:
    config, read_again = tmp_path / "observer.toml", tmp_path / "as-a-file"
    os.mkfifo(config)
    read_again.touch()
    async with running_daemon(tmp_path / "data", "--config", str(config), wait_ready=False) as daemon:
        with trio.fail_after(10):
            writer = await trio.to_thread.run_sync(os.open, config, os.O_WRONLY, abandon_on_cancel=True)
        daemon.process.send_signal(number)
        read_again.replace(config)
        os.close(writer)  # now it is read to its end
        await daemon.logged(then)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_wait_for_a_gateway_that_is_required(tmp_path: Path, number: signal.Signals) -> None:
    async with http_peer() as peer:
        peer.on("/health", Partial(Json({"ok": True}), 1, then_hang=True))
        environment = {"GATEWAY_URL": peer.url, "OBSERVER_GATEWAY__REQUIRED": "true"}
        async with running_daemon(tmp_path, environment=environment, wait_ready=False) as daemon:
            await daemon.logged("gateway_awaited")
            assert await daemon.stop(number) == 0
        environment["OBSERVER_GATEWAY__TIMEOUT_SECONDS"] = "0.5"
        async with running_daemon(tmp_path, environment=environment, wait_ready=False) as daemon:
            with trio.fail_after(20):
                assert await daemon.process.wait() == 69
            await daemon.log_ended()
            assert "does not answer GET /health: " in daemon.raw_log[-2]
    assert not list(tmp_path.iterdir())  # noqa: ASYNC240 - a test may look


async def test_a_reload_that_comes_while_a_gateway_is_awaited_takes_place_then(tmp_path: Path) -> None:
    settings = tmp_path / "observer.toml"
    settings.write_text("[cycle]\nseconds = 30\n")
    async with http_peer() as peer:
        is_up = trio.Event()
        peer.on("/health", Held(is_up, Json({"ok": True})))
        environment = {"GATEWAY_URL": peer.url, "OBSERVER_GATEWAY__REQUIRED": "true"}
        flags = ("--config", str(settings))
        async with running_daemon(tmp_path / "data", *flags, environment=environment, wait_ready=False) as daemon:
            await daemon.logged("gateway_awaited")
            settings.write_text("[cycle]\nseconds = 31\n")
            daemon.process.send_signal(signal.SIGHUP)
            is_up.set()
            line = await daemon.logged("reloaded")
            assert line["changed"] == ["cycle.seconds"]


async def test_a_request_under_way_is_finished_though_two_signals_came(tmp_path: Path) -> None:
    async with running_daemon(tmp_path) as daemon:
        port = int(daemon.url.rpartition(":")[2])
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        body = b'{"endpoint":"late"}'
        head = b"POST /event HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
        await stream.send_all(head + body[:5])
        await daemon.event(endpoint="early")  # by now the first bytes of the other one have been read
        daemon.process.send_signal(signal.SIGTERM)
        await daemon.logged("stopping")
        daemon.process.send_signal(signal.SIGTERM)
        await daemon.logged("stopping_already")
        answer = b""
        async with stream:
            await stream.send_all(body[5:])
            with trio.fail_after(10):
                async for chunk in stream:
                    answer += chunk
        with trio.fail_after(20):
            assert await daemon.process.wait() == 0
    assert b"200" in answer.split(b"\r\n")[0]
    assert [op.endpoint for op in daemon.ops()] == ["early", "late"]


async def test_a_second_daemon_on_the_same_directory_is_refused_with_75(tmp_path: Path) -> None:
    async with running_daemon(tmp_path) as first, running_daemon(tmp_path, wait_ready=False) as second:
        with trio.fail_after(20):
            assert await second.process.wait() == 75
            await second.log_ended()
        assert f"in use by process {first.process.pid}" in second.raw_log[0]
        assert (await first.get("/health")).status_code == 200


async def test_an_address_that_is_taken_is_refused_with_75_and_a_hint(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = await _serve(tmp_path, "--port", str(taken.getsockname()[1]))
    assert result.returncode == 75
    assert "cannot listen on 127.0.0.1" in result.stderr.decode()
    assert "--port 0" in result.stderr.decode()
    assert "Traceback" not in result.stderr.decode()


async def test_too_few_open_files_are_refused_with_78(tmp_path: Path) -> None:
    if shutil.which("prlimit") is None:
        pytest.skip("prlimit is not installed (Debian: util-linux)")
    command = [sys.executable, "-m", "observer_actors", "serve", "--port=0", f"--data-dir={tmp_path}"]
    with trio.fail_after(60):
        result = await trio.run_process(["prlimit", "--nofile=79", *command], check=False, capture_stderr=True)
    assert (result.returncode, b"79 open files are too few" in result.stderr) == (78, True), result.stderr
    async with running_daemon(tmp_path, prefix=["prlimit", "--nofile=80"]) as daemon:
        await daemon.event(endpoint="a")


async def test_a_directory_of_a_newer_version_is_refused_with_78(tmp_path: Path) -> None:
    segments = tmp_path / "_observer" / "segments"
    segments.mkdir(parents=True)
    (segments / "manifest.json").write_text('{"format": 1000}')
    result = await _serve(tmp_path, "--port", "0")
    assert result.returncode == 78
    assert "format 1000" in result.stderr.decode()


async def test_what_was_counted_goes_on_after_a_restart(tmp_path: Path) -> None:
    for round_ in range(1, 3):
        async with running_daemon(tmp_path) as daemon:
            for number in range(5):
                await daemon.event(endpoint="a", success=True, id=f"{round_}-{number}")
            again = await daemon.event(endpoint="a", success=True, id="1-0")
            stats = await daemon.json("/stats")
            assert await daemon.stop() == 0
        assert again == {"accepted": True, "ring_size": 5 * round_, "seq": 1, "duplicate": True}
        assert stats["total"] == stats["lifetime"]["total"] == 5 * round_


async def test_who_takes_the_journal_away_begins_anew_with_everything(tmp_path: Path) -> None:
    """What was counted and learned of another journal would only hide what comes: it is set aside."""
    async with running_daemon(tmp_path) as daemon:
        for _ in range(20):
            await daemon.event(endpoint="a", success=False, error="old")
        assert await daemon.stop() == 0
    (tmp_path / "_observer" / "ops.jsonl").unlink()
    async with running_daemon(tmp_path) as daemon:
        assert (await daemon.event(endpoint="b", success=False, error="new"))["seq"] == 1
        await daemon.caught_up(within_s=120)
        failures = await daemon.json("/failures")
        stats = await daemon.json("/stats")
        await daemon.logged("store_damaged")
        await daemon.logged("snapshot_foreign")
    assert [(failure["endpoint"], failure["count"]) for failure in failures["failures"]] == [("b", 1)]
    assert stats["lifetime"]["total"] == 1


@pytest.mark.parametrize("how", ["renamed", "truncated"])
async def test_a_journal_that_ends_before_what_was_acknowledged_is_told_of_by_the_start(
    tmp_path: Path, how: str
) -> None:
    active = tmp_path / "_observer" / "ops.jsonl"
    async with running_daemon(tmp_path) as daemon:
        for _ in range(4):
            await daemon.event(endpoint="a")
        assert await daemon.stop() == 0
        assert not [line for line in daemon.log if line["event"] == "journal_cut"]
    if how == "renamed":
        active.rename(active.with_suffix(".1"))
    else:
        active.write_bytes(b"")
    async with running_daemon(tmp_path) as daemon:
        told = await daemon.logged("journal_cut")
        assert (told["level"], told["last_seq"], told["counted"]) == ("error", 0, 4)


@pytest.mark.parametrize("how", ["the file", "its name", "its name, for another", "the directory", "the contents"])
async def test_nothing_is_acknowledged_once_the_journal_was_taken_away(tmp_path: Path, how: str) -> None:
    data = tmp_path / "data"
    async with running_daemon(data) as daemon:
        await daemon.event(endpoint="a")
        active = data / "_observer" / "ops.jsonl"
        if how == "the file":
            active.unlink()
        elif how.startswith("its name"):
            active.rename(active.with_suffix(".1"))
            if "another" in how:
                shutil.copy(active.with_suffix(".1"), active)
        elif how == "the directory":
            shutil.rmtree(data)
        else:
            active.write_bytes(b"")
        refused = await daemon.post("/event", {"endpoint": "b"})
        assert (refused.status_code, refused.json()["title"]) == (503, "disk failed")
        assert "somebody else" in refused.json()["detail"]
        not_ready = await daemon.get("/ready")
        assert not_ready.status_code == 503
        assert "the disk refuses" in not_ready.json()["reasons"][0]


@pytest.mark.parametrize("how", ["renamed", "what is in it renamed", "removed", "replaced by a copy"])
async def test_what_another_daemon_has_under_the_name_by_now_is_left_to_it(tmp_path: Path, how: str) -> None:
    """It has a lock of its own, which is free: what the first daemon follows by name would lead to the second's files.

    The first goes on once it has its own back.
    """
    data = tmp_path / "data"
    moved = data / "_observer" if how == "what is in it renamed" else data
    async with running_daemon(data) as first:
        for _ in range(3):
            await first.event(endpoint="first")
        moved.rename(tmp_path / "away")
        if how == "removed":
            shutil.rmtree(tmp_path / "away")
        held = 0
        if how == "replaced by a copy":
            shutil.copytree(tmp_path / "away", moved)
            held = 3
        async with running_daemon(data) as second:
            for seq in range(held + 1, held + 7):
                assert (await second.event(endpoint="second"))["seq"] == seq
                refused = await first.post("/event", {"endpoint": "first"})
                assert (refused.status_code, "somebody else" in refused.json()["detail"]) == (503, True), refused.text
            assert (await first.get("/ready")).status_code == 503
            assert await second.stop() == 0
        assert (verify(data).findings, [op.endpoint for op in stored_ops(data)][held:]) == ((), ["second"] * 6)
        if how == "removed":
            assert await first.stop() == 0
        else:
            moved.rename(tmp_path / "second's")
            (tmp_path / "away").rename(moved)
            await first.logged("disk_recovered")
            assert (await first.event(endpoint="first"))["seq"] == 4
            assert await first.stop() == 0
            assert (verify(data).findings, [op.endpoint for op in stored_ops(data)]) == ((), ["first"] * 4)


async def test_a_seq_of_a_segment_that_was_lost_is_never_given_out_again(tmp_path: Path) -> None:
    (tmp_path / "observer.toml").write_text("[journal]\nsegment_bytes_max = 2000\n")
    data = tmp_path / "data"
    async with running_daemon(data, "--config", str(tmp_path / "observer.toml")) as daemon:
        last = 0
        for _ in range(30):
            last = (await daemon.event(endpoint="a", input_summary="x" * 200))["seq"]
        segments = data / "_observer" / "segments"
        await daemon.logged("segment_compacted")
        assert await daemon.stop() == 0
    (data / "_observer" / "ops.jsonl").unlink()
    manifest = msgspec.json.decode((segments / "manifest.json").read_bytes())
    lost = manifest["segments"][-1]
    (segments / lost["file"]).unlink()
    for raw in segments.glob("*.jsonl"):
        raw.unlink()
    async with running_daemon(data) as daemon:
        assert lost["last_seq"] < (await daemon.event(endpoint="b"))["seq"] <= last + 1
    verified = await trio.run_process(
        [sys.executable, "-m", "observer_actors", "verify", "--data-dir", str(data)], capture_stdout=True, check=False
    )
    assert verified.returncode == 1
    assert f"{lost['first_seq']}" in verified.stdout.decode()


async def test_a_large_segment_is_compressed_by_another_process_while_events_come(tmp_path: Path) -> None:
    (tmp_path / "observer.toml").write_text("[journal]\nsegment_bytes_max = 5_000_000\n")
    data = tmp_path / "data"
    events = [{"endpoint": "a", "input_summary": f"{number} {'x' * 900}"} for number in range(3_000)]
    lines = b"\n".join(map(msgspec.json.encode, events))
    async with running_daemon(data, "--config", str(tmp_path / "observer.toml")) as daemon:
        for _ in range(2):
            assert (await daemon.post("/events", lines)).json()["accepted"] == 3_000
        await daemon.event(endpoint="meanwhile")
        assert (await daemon.logged("segment_compacted"))["elsewhere"] is True
        assert await daemon.stop() == 0
    assert len([*(data / "_observer" / "segments").glob("*.gz")]) == 1
    report = verify(data)
    assert (report.findings, report.ops) == ((), 6_001)


def leads_to(pid: int, descriptor: int) -> str:
    return str(Path(f"/proc/{pid}/fd/{descriptor}").readlink())


def journal_files(pid: int) -> list[str]:
    """Give the names of the journal's files that a process holds open."""
    leads = [Path(leads_to(pid, int(link.name))).name for link in Path(f"/proc/{pid}/fd").iterdir()]
    return [name for name in leads if ".jsonl" in name]


async def test_the_disks_process_closes_a_segment_that_was_sealed(tmp_path: Path) -> None:
    (tmp_path / "observer.toml").write_text("[journal]\nsegment_bytes_max = 100_000\n")
    async with running_daemon(tmp_path / "data", "--config", str(tmp_path / "observer.toml")) as daemon:
        [pid] = children(daemon.process.pid)
        await daemon.event(endpoint="a")
        assert journal_files(pid) == ["ops.jsonl"]
        await daemon.post("/events", b"\n".join([msgspec.json.encode({"input_summary": "x" * 900})] * 150))
        await daemon.logged("segment_sealed")
        assert journal_files(pid) == []


class Sealless(PosixDisk):
    """Nothing can be put into its folder of segments, for a while."""

    is_shut = True

    def rename(self, source: Path, target: Path) -> None:
        if self.is_shut and target.parent.name == "segments" and target.suffix == ".jsonl":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))
        super().rename(source, target)


async def test_a_file_that_cannot_be_sealed_is_written_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(persister, "SEAL_RETRY_S", 0.3)
    disk = Sealless()
    settings = Settings(
        data_dir=tmp_path, listen=ListenSettings(port=0), journal=JournalSettings(segment_bytes_max=2_000)
    )
    async with (
        daemon_inside(settings, disk=disk) as daemon,
        httpx.AsyncClient(base_url=daemon.addresses[0], trust_env=False) as client,
    ):
        for _ in range(40):
            assert (await client.post("/event", json={"endpoint": "a"})).status_code == 200
            assert (await client.get("/ready")).status_code == 200
        journal = daemon.persister.status.journal
        assert journal is not None
        assert journal.seals == 0
        disk.is_shut = False
        await trio.sleep(0.3)
        await client.post("/event", json={"endpoint": "a"})
        await eventually(lambda: daemon.persister.status.journal and daemon.persister.status.journal.seals)
    said = capsys.readouterr().out
    assert said.count("seal_failed") == 1
    assert "disk_refused" not in said


@pytest.mark.parametrize(("events", "pad"), [(1_001, 0), (600, 1_000)])
async def test_a_large_commit_is_not_for_the_disks_process(tmp_path: Path, events: int, pad: int) -> None:
    async with running_daemon(tmp_path) as daemon:
        [pid] = children(daemon.process.pid)
        large = b"\n".join([msgspec.json.encode({"input_summary": "x" * pad})] * events)
        assert (await daemon.post("/events", large)).json()["accepted"] == events
        assert journal_files(pid) == [], "it was never given the file"
        await daemon.event(endpoint="a")
        assert journal_files(pid) == ["ops.jsonl"]


@pytest.mark.parametrize("closed", ["0<&-", "2>&-", "0<&- 1>&- 2>&-"])
async def test_the_daemon_serves_without_standard_streams(tmp_path: Path, closed: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = f'exec {closed}; exec "$0" -m observer_actors serve --port {port} --data-dir "$1"'
    process = await trio.lowlevel.open_process(["bash", "-c", command, sys.executable, str(tmp_path)])
    try:
        with trio.fail_after(20):
            async with httpx.AsyncClient() as client:
                while True:
                    with contextlib.suppress(httpx.ConnectError):
                        assert (await client.post(f"http://127.0.0.1:{port}/event", json={})).status_code == 200
                        break
                    await trio.sleep(0.05)
            [disks] = children(process.pid)  # which has been given the journal by now
            for pid, number in product((process.pid, disks), (0, 1, 2)):
                if str(number) in closed:
                    assert leads_to(pid, number) == os.devnull
            process.terminate()
            assert await process.wait() == 0
    finally:
        process.kill()


async def test_connections_that_only_announce_bodies_keep_nobody_waiting(tmp_path: Path) -> None:
    """Behind all of them one would wait for 38 s: each stands still for 2 s."""
    patient = ("--set", "admission.wait_seconds_max=60")
    async with running_daemon(tmp_path, *patient) as daemon, contextlib.AsyncExitStack() as stack:
        port = int(daemon.url.rpartition(":")[2])
        for path in ("/events", "/events?x"):
            for _ in range(20):
                stream = await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", port))
                await stream.send_all(
                    b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8000000\r\n\r\n" % path.encode()
                )
        slow = await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", port))
        with trio.fail_after(20):
            for path in ("/health", "/ready", "/ops", "/actors", "/metrics"):
                assert (await daemon.get(path)).status_code == 200
            await slow.send_all(b"POST /event HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n")
            await daemon.get("/health")
            await slow.send_all(b"{}")
            assert b" 200 " in await slow.receive_some()


async def test_one_connection_too_many_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "observer.toml").write_text("[listen]\nconnections_max = 3\n")
    async with running_daemon(tmp_path / "data", "--config", str(tmp_path / "observer.toml")) as daemon:
        port = int(daemon.url.rpartition(":")[2])
        async with contextlib.AsyncExitStack() as stack:
            streams = [await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", port)) for _ in range(4)]
            assert b" 503 " in await first_told(streams)
        await seen(lambda: daemon.get("/health"), lambda answer: answer.status_code == 200)
        metrics = (await daemon.get("/metrics")).text
        assert "\nobserver_connections_refused_total " in metrics
        assert "\nobserver_connections_refused_total 0.0" not in metrics


async def test_sighup_reloads_what_can_be_reloaded_and_names_what_cannot(tmp_path: Path) -> None:
    config = tmp_path / "observer.toml"
    config.write_text('[sources]\nextra = ["crawler"]\n')
    async with running_daemon(tmp_path / "data", "--config", str(config)) as daemon:
        assert "notes" not in await daemon.event(source="crawler")
        config.write_text('[sources]\nextra = ["robot"]\n[ring]\ncapacity_ops = 5\n')
        daemon.process.send_signal(signal.SIGHUP)
        line = await daemon.logged("reloaded")
        assert (line["changed"], line["needs_restart"]) == (["sources.extra"], ["ring.capacity_ops"])
        assert "notes" not in await daemon.event(source="robot")
        assert "notes" in await daemon.event(source="crawler")
        config.write_text("[sauces]\n")
        daemon.process.send_signal(signal.SIGHUP)
        assert "sauces is no setting" in (await daemon.logged("reload_failed"))["error"]
        config.write_text(f"data_dir = {'[' * 5_000}")
        daemon.process.send_signal(signal.SIGHUP)
        await eventually(lambda: any("is not TOML" in line.get("error", "") for line in daemon.log))
        assert "notes" not in await daemon.event(source="robot")
        failed = ("doctor", "--json", "--data-dir", str(tmp_path / "data"), "--url", daemon.url)
        found = await trio.to_thread.run_sync(lambda: typed(*failed))
        assert "2 reloads have failed since" in found.stdout, found
        config.write_text("")
        daemon.process.send_signal(signal.SIGHUP)
        await eventually(lambda: len([line for line in daemon.log if line["event"] == "reloaded"]) > 1)
        assert "\nobserver_reloads_failed 0.0\n" in (await daemon.get("/metrics")).text
        assert await daemon.stop() == 0


async def test_what_waits_for_a_restart_is_told_at_any_level_of_the_log(tmp_path: Path) -> None:
    file = tmp_path / "observer.toml"
    file.write_text("")
    async with running_daemon(tmp_path / "data", "--config", str(file)) as daemon:
        file.write_text("[log]\nlevel = 'error'\n[ring]\ncapacity_ops = 500\n")
        daemon.process.send_signal(signal.SIGHUP)
        line = await daemon.logged("reloaded")
        assert (line["changed"], line["needs_restart"]) == (["log.level"], ["ring.capacity_ops"])


async def test_systemd_hears_ready_status_watchdog_reload_and_stopping(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as plain:
        path = tmp_path / "notify"
        plain.bind(str(path))
        channel = trio.socket.from_stdlib_socket(plain)
        environment = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "600000"}
        async with running_daemon(tmp_path / "data", environment=environment) as daemon:
            assert "READY=1" in await _message(channel, "READY")
            fed = await _message(channel, "WATCHDOG")
            assert f"STATUS={daemon.url}: taking events" in fed
            daemon.process.send_signal(signal.SIGHUP)
            assert "MONOTONIC_USEC=" in await _message(channel, "RELOADING")
            await _message(channel, "READY")
            daemon.process.send_signal(signal.SIGTERM)
            await _message(channel, "STOPPING")
            with trio.fail_after(20):
                assert await daemon.process.wait() == 0


async def test_systemd_is_not_told_of_a_reload_that_it_is_ready(tmp_path: Path) -> None:
    async with http_peer() as peer:
        is_up = trio.Event()
        peer.on("/health", Held(is_up, Json({"ok": True})))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as plain:
            plain.bind(str(tmp_path / "notify"))
            environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "GATEWAY_URL": peer.url}
            flags = ("--set", "gateway.required=true")
            async with running_daemon(tmp_path / "data", *flags, environment=environment, wait_ready=False) as daemon:
                await daemon.logged("gateway_awaited")
                daemon.process.send_signal(signal.SIGHUP)
                is_up.set()
                await daemon.logged("reloaded")
                first = await _message(trio.socket.from_stdlib_socket(plain), "READY")
                assert "STATUS=" in first, first


@pytest.mark.parametrize("limit", ["connections_max", "connections_per_address_max"])
async def test_systemd_does_not_end_a_daemon_whose_connections_are_all_taken(tmp_path: Path, limit: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as plain:
        path = tmp_path / "notify"
        plain.bind(str(path))
        channel = trio.socket.from_stdlib_socket(plain)
        environment = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "3000000"}
        most = ("--set", f"listen.{limit}=5")
        async with running_daemon(tmp_path / "data", *most, wait_ready=False, environment=environment) as daemon:
            await _message(channel, "READY")
            port = int((await daemon.logged("listening"))["url"].rpartition(":")[2])
            async with contextlib.AsyncExitStack() as taken:
                for _ in range(5):
                    await taken.enter_async_context(await trio.open_tcp_stream("127.0.0.1", port))
                for _ in range(2):
                    await _message(channel, "WATCHDOG")


async def test_systemd_does_not_end_a_daemon_that_has_as_many_requests_as_it_serves_at_once(
    tmp_path: Path, watching: trio.socket.SocketType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    monkeypatch.setattr(notify, "STATUS_S", 0.05)
    monkeypatch.setattr(web, "REQUESTS_MAX", 1)
    settings = Settings(
        data_dir=tmp_path / "data",
        listen=ListenSettings(port=0),
        admission=AdmissionSettings(wait_seconds_max=0.3),
    )
    async with daemon_inside(settings) as daemon, trio.open_nursery() as nursery:
        port = int(daemon.addresses[0].rpartition(":")[2])
        async with await trio.open_tcp_stream("127.0.0.1", port) as reader:
            await reader.send_all(b"GET /tail HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await reader.receive_some()
            nursery.start_soon(keep_notified, Notifier(), daemon)
            for _ in range(2):
                await _message(watching, "WATCHDOG")
        nursery.cancel_scope.cancel()


@pytest.fixture
def watching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[trio.socket.SocketType]:
    """The socket of a systemd that wants to hear of us every 30 ms."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "30000")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as plain:
        plain.bind(str(tmp_path / "notify"))
        yield trio.socket.from_stdlib_socket(plain)


@asynccontextmanager
async def asked(folder: Path, *replies: Reply) -> AsyncIterator[HttpPeer]:
    """A daemon in whose stead somebody else answers the watchdog's question."""
    settings = Settings(data_dir=folder / "data", listen=ListenSettings(port=0))
    async with http_peer() as peer, daemon_inside(settings) as daemon, trio.open_nursery() as nursery:
        peer.on("/health", *replies)
        daemon.addresses = [peer.url]
        nursery.start_soon(keep_notified, Notifier(), daemon)
        yield peer
        nursery.cancel_scope.cancel()


async def test_the_watchdogs_question_comes_by_one_connection(
    tmp_path: Path, watching: trio.socket.SocketType, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = count(0, 100)  # seconds
    monkeypatch.setattr("httpcore._async.http11.time", SimpleNamespace(monotonic=lambda: next(later)))
    async with asked(tmp_path, Json({})) as peer:
        for _ in range(3):
            await _message(watching, "WATCHDOG")
    assert {request.connection for request in peer.received("/health")} == {1}


async def test_the_watchdog_is_fed_by_no_other_refusal(tmp_path: Path, watching: trio.socket.SocketType) -> None:
    unread = Json({"limit": "listen.answers_bytes_max"}, 503)
    async with asked(tmp_path, unread, Json([], 503), Status(500), Json({})) as peer:
        await _message(watching, "WATCHDOG")
    assert len(peer.received("/health")) >= 4


class SlowDisk(TroubledDisk):
    """Takes its time for a write, whether it fails or not."""

    write_s = 0.0

    def step(self, kind: Kind) -> None:
        if kind == "write":
            time.sleep(self.write_s)
        super().step(kind)


@pytest.mark.parametrize(
    ("callers", "write_s", "wait_s", "refuses"),
    [(16, 0.05, 0.2, False), (16, 0.05, 0.2, True), (100, 0.3, 60.0, False)],
    ids=["slow", "refusing", "patient callers"],
)
async def test_the_watchdog_is_fed_by_each_round_while_more_callers_wait_than_the_disk_can_serve(
    tmp_path: Path,
    watching: trio.socket.SocketType,
    monkeypatch: pytest.MonkeyPatch,
    *,
    callers: int,
    write_s: float,
    wait_s: float,
    refuses: bool,
) -> None:
    """A question that waits behind all of them gets no answer in time, or that of the disk that refuses."""
    monkeypatch.setenv("WATCHDOG_USEC", "600000")
    settings = Settings(
        data_dir=tmp_path / "data",
        listen=ListenSettings(port=0),
        admission=AdmissionSettings(waiting_ops_max=1, wait_seconds_max=wait_s),
    )
    disk = SlowDisk()

    async def call(daemon: Daemon) -> None:
        async with connected(daemon.addresses[0]) as wire:
            while True:
                await wire.post("/events", b"{}")

    async with daemon_inside(settings, disk=disk) as daemon, trio.open_nursery() as nursery:
        disk.write_s = write_s
        if refuses:
            disk.fail("write")
        for _ in range(callers):
            nursery.start_soon(call, daemon)
        await eventually(lambda: daemon.admission.statistics().callers_waiting > callers / 2)
        nursery.start_soon(keep_notified, Notifier(), daemon)
        for _ in range(3):
            await _message(watching, "WATCHDOG")
        disk.write_s = 0.0
        nursery.cancel_scope.cancel()


async def test_the_watchdog_starves_while_the_disk_hangs(
    tmp_path: Path, watching: trio.socket.SocketType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A persister that makes no progress is what the watchdog is for, though the listener answers."""
    monkeypatch.setenv("WATCHDOG_USEC", "600000")
    settings = Settings(
        data_dir=tmp_path / "data", listen=ListenSettings(port=0), admission=AdmissionSettings(wait_seconds_max=0.2)
    )
    disk = TroubledDisk()
    async with daemon_inside(settings, disk=disk) as daemon, trio.open_nursery() as nursery:
        nursery.start_soon(keep_notified, Notifier(), daemon)
        await _message(watching, "WATCHDOG")
        disk.hold()
        async with connected(daemon.addresses[0]) as wire:
            assert (await wire.post("/event", b"{}")).status == 503
        fed = 0
        with trio.move_on_after(1.5):  # five looks of a daemon that is well
            while True:
                fed += "WATCHDOG=" in (await watching.recv(4_096)).decode()
        disk.release()
        assert fed <= 1, "but for what there was before it hung"
        await _message(watching, "WATCHDOG")
        nursery.cancel_scope.cancel()


async def test_the_daemon_runs_inside_another_trio_program(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, listen=ListenSettings(port=0))
    async with trio.open_nursery() as nursery:
        daemon: Daemon = await nursery.start(start_observer, settings)
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.post(daemon.addresses[0] + "/event", json={"endpoint": "embedded"})
        daemon.stop()
    assert answer.json()["seq"] == 1


async def test_a_directory_is_not_free_before_the_archivists_thread_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that compact the same segment would each remove its raw file, with the other's half-written one left."""
    begun, goes_on = threading.Event(), threading.Event()

    def held(*arguments: Any) -> Compressed:
        begun.set()
        assert goes_on.wait(20)
        return compress(*arguments)

    monkeypatch.setattr("observer_actors.journal.sealing.compress", held)
    monkeypatch.setattr(daemon_module, "HARD_EXIT_S", 0.1)
    writer = JournalWriter.open(PosixDisk(), tmp_path, JournalSettings(), now_us=lambda: time.time_ns() // 1_000)
    ops = commit(writer, make_ops(10))
    writer.seal()
    writer.close()
    settings = Settings(data_dir=tmp_path, listen=ListenSettings(port=0))
    async with trio.open_nursery() as nursery:
        daemon: Daemon = await nursery.start(start_observer, settings)
        await trio.to_thread.run_sync(begun.wait, 20)
        daemon.stop()
    with pytest.raises(DataDirectoryLocked, match=f"in use by process {os.getpid()}"):
        await start_observer(settings)
    goes_on.set()
    await eventually(lambda: not directory_in_use(tmp_path))
    assert (verify(tmp_path).findings, stored_ops(tmp_path)) == ((), ops)


@pytest.mark.parametrize("ops", [0, 200_000])
async def test_it_is_ready_soon_and_idles_cheaply(tmp_path: Path, ops: int) -> None:
    """The promise is 1.5 s, 120 MB and 1 %; asserted with room, for a busy machine must not decide a test."""
    if ops:
        _fill(tmp_path, ops)
    started = trio.current_time()
    async with running_daemon(tmp_path) as daemon:
        ready_s = trio.current_time() - started
        assert (await daemon.json("/health"))["last_seq"] == ops
        await daemon.caught_up(within_s=120)
        caught_up_s = trio.current_time() - started
        resident = daemon.resident_bytes()
        busy_s = cpu_seconds(daemon.process.pid)
        await trio.sleep(IDLE_S)
        share = (cpu_seconds(daemon.process.pid) - busy_s) / IDLE_S
    print(  # noqa: T201 - the figures, for -s
        f"{ops:,} ops on disk: ready in {ready_s:.2f} s, counted in {caught_up_s:.1f} s, "
        f"{resident / 1e6:.0f} MB, {share:.2%} of a processor"
    )
    assert ready_s < 10
    assert resident < 170e6
    assert share < 0.2


async def test_a_clock_that_is_behind_the_journal_is_told_of(tmp_path: Path) -> None:
    async with running_daemon(tmp_path) as daemon:
        await daemon.event(endpoint="a")
        assert await daemon.stop() == 0
    active = tmp_path / "_observer" / "ops.jsonl"
    active.write_bytes(re.sub(rb'"recorded_at":"\d{4}', b'"recorded_at":"2999', active.read_bytes()))
    async with running_daemon(tmp_path) as daemon:
        told = await daemon.logged("clock_behind")
        assert told["seconds"] > 86_400 * 365
        assert (await daemon.event(endpoint="a"))["seq"] == 2


async def test_no_counter_goes_back_over_a_start(tmp_path: Path) -> None:
    """What is still being counted anew is left out: it would rise by all there is, and that is no rate."""
    async with running_daemon(tmp_path) as daemon:
        lines = b"\n".join([b'{"endpoint":"a","success":true,"attrs":{"run":"r"}}'] * 20_000)
        assert (await daemon.post("/events", lines)).status_code == 200
        each_its_own = [
            {"endpoint": "b", "ok": False, "error": f"{'ab'[n % 2] * (n + 1)} is bad"} for n in range(1_020)
        ]
        assert (await daemon.post("/events", each_its_own)).status_code == 200
        await daemon.caught_up(within_s=120)
        ungrouped = await daemon.metric("observer_failures_ungrouped_total")
        assert ungrouped > 0
        assert await daemon.stop() == 0
    for name in ("stats.json", "learned.sqlite3"):
        (tmp_path / "_observer" / name).unlink()
    async with running_daemon(tmp_path) as daemon:
        for name, counted in (
            ('observer_operations_total{outcome="success",source="scenario"}', 20_000),
            ("observer_failures_ungrouped_total", ungrouped),
        ):
            seen: list[str] = []
            with trio.fail_after(60):
                while not seen:
                    text = (await daemon.get("/metrics")).text
                    seen = re.findall(rf"^{re.escape(name)} (\S+)", text, re.MULTILINE)
            assert list(map(float, seen)) == [counted], name


def _fill(data_dir: Path, ops: int) -> None:
    """Write a journal of so many ops with the real writer, sealed and compacted as it grows."""
    from observer_actors.event import EventDecoder  # noqa: PLC0415
    from observer_actors.journal import JournalWriter, PosixDisk, compact  # noqa: PLC0415 - for this test only
    from observer_actors.settings import JournalSettings  # noqa: PLC0415

    settings = JournalSettings()
    clock = iter(range(1_700_000_000_000_000, 2**62, 1_000_000))
    writer = JournalWriter.open(PosixDisk(), data_dir, settings, now_us=lambda: next(clock))
    template = EventDecoder().one(b'{"endpoint":"sql:run","success":true}', now="2026-11-22T10:00:00.000Z").op
    for part in range(ops // 10_000):
        ids = (f"0b9e6a0e-5a5c-4c9e-b9d6-{part * 10_000 + number:012}" for number in range(10_000))
        batch = [msgspec.structs.replace(template, id=id_) for id_ in ids]
        writer.stamp(batch)
        writer.commit(batch)
        if writer.seal_due():
            writer.seal()
    compact(PosixDisk(), data_dir, writer.catalog, settings)
    writer.close()


async def _serve(data_dir: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "observer_actors", "serve", "--data-dir", str(data_dir), *arguments]
    with trio.fail_after(20):
        return await trio.run_process(command, capture_stderr=True, check=False)


async def _message(channel: trio.socket.SocketType, name: str) -> str:
    with trio.fail_after(15):
        while True:
            text = (await channel.recv(4_096)).decode()
            if f"{name}=" in text:
                return text
