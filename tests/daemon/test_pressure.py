"""A disk that is slow, full or failing, and more callers than it can serve: they wait, and are refused."""

from __future__ import annotations

import errno
import math
import os
import re
import socket
import subprocess
import sys
from collections import Counter
from contextlib import AsyncExitStack
from itertools import islice, product
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import pytest
import trio

from observer_actors.actors import persister
from observer_actors.actors.admission import AdmissionStatistics
from observer_actors.daemon import Daemon
from observer_actors.journal import PosixDisk
from observer_actors.journal.files import AppendFile
from observer_actors.settings import (
    AdmissionSettings,
    JournalSettings,
    ListenSettings,
    Settings,
    SupervisionSettings,
)
from observer_actors.stats import Stats
from observer_actors.supervision import ActorFailed, ActorStopped
from tests.daemon.crashing import PLAN_VARIABLE
from tests.daemon.inside import Crash, caught_up, daemon_inside, eventually
from tests.daemon.load import Answer, Ledger, Wire, clients, connected, name_in, settle, stored_ops
from tests.fakes.troubled_disk import Kind, TroubledDisk
from tests.harness import Daemon as DaemonProcess
from tests.harness import running_daemon

LIMIT_S: Final = 30.0
SEED: Final = 11


def settings_for(data_dir: Path, **admission: Any) -> Settings:
    return Settings(
        data_dir=data_dir,
        listen=ListenSettings(port=0),
        journal=JournalSettings(segment_bytes_max=12_000),
        admission=AdmissionSettings(**admission),
        supervision=SupervisionSettings(backoff_seconds_first=0.01, backoff_seconds_max=0.05, park_seconds=0.05),
    )


def batch(name: str, count: int, pad: int = 0) -> bytes:
    return b"\n".join(msgspec.json.encode({"id": f"{name}-{n}", "input_summary": "x" * pad}) for n in range(count))


async def get(daemon: Daemon, path: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=daemon.addresses[0], trust_env=False) as http:
        return await http.get(path)


async def metrics(daemon: Daemon) -> dict[str, float]:
    """Give the metrics that have no label."""
    text = (await get(daemon, "/metrics")).text
    return {name: float(value) for name, value in re.findall(r"^([a-z_]+) ([0-9.e+-]+)$", text, re.MULTILINE)}


def check_problem(answer: Answer, status: int) -> None:
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) >= 1
    assert (answer.json["status"], answer.json["retryable"]) == (status, True)
    assert answer.json["error"] == answer.json["detail"]


# ------------------------------------------------------------------------------------------------------ slow


async def test_callers_of_a_disk_that_hangs_wait_and_are_refused_and_what_was_withdrawn_is_not_stored(
    tmp_path: Path,
) -> None:
    disk = TroubledDisk()
    answers: dict[str, Answer] = {}
    samples: list[AdmissionStatistics] = []

    async def post(daemon: Daemon, name: str) -> None:
        async with connected(daemon.addresses[0]) as wire:
            answers[name] = await wire.post("/events", batch(name, 5))

    async def sample(daemon: Daemon) -> None:
        while True:
            samples.append(daemon.admission.statistics())
            await trio.lowlevel.checkpoint()

    bounds = {"waiting_ops_max": 50, "waiting_bytes_max": 1_500, "wait_seconds_max": 3.0}  # long enough to look
    async with daemon_inside(settings_for(tmp_path, **bounds), disk=disk) as daemon:
        with trio.fail_after(LIMIT_S):
            async with trio.open_nursery() as sampling:
                sampling.start_soon(sample, daemon)
                disk.hold()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(post, daemon, "first")
                    await trio.to_thread.run_sync(disk.wait_held)
                    for n in range(40):
                        nursery.start_soon(post, daemon, f"n{n}")
                    await eventually(lambda: daemon.admission.statistics().callers_waiting > 20)
                    assert daemon.readiness().reasons == ["callers are waiting for room"]
                    meanwhile = await metrics(daemon)
                ready = await get(daemon, "/ready")
                disk.release()
                await eventually(lambda: daemon.readiness().ready)
                sampling.cancel_scope.cancel()
                samples.append(daemon.admission.statistics())  # the sampler's last may be of the step before
            assert (await get(daemon, "/ready")).status_code == 200
            after = await metrics(daemon)
            async with connected(daemon.addresses[0]) as wire:
                assert (await wire.post("/event", b'{"id":"later"}')).status == 200

    for answer in answers.values():
        check_problem(answer, 503)
    assert (ready.status_code, ready.json()["reasons"]) == (503, ["callers have waited for the disk in vain"])
    uncertain = {name for name, answer in answers.items() if "may still succeed" in answer.json["detail"]}
    assert uncertain == {"first"}
    assert all("nothing was stored" in answer.json["detail"] for name, answer in answers.items() if name != "first")
    assert [op.id for op in stored_ops(tmp_path)] == [*(f"first-{n}" for n in range(5)), "later"]

    assert 0 < max(sample.waiting_ops for sample in samples) <= 50
    assert 1_000 < max(sample.waiting_bytes for sample in samples) <= 1_500
    assert samples[-1].waiting_ops == samples[-1].waiting_bytes == samples[-1].callers_waiting == 0
    assert 0 < meanwhile["observer_waiting_ops"] <= meanwhile["observer_waiting_ops_max"] == 50
    assert 0 < meanwhile["observer_waiting_bytes"] <= meanwhile["observer_waiting_bytes_max"] == 1_500
    assert meanwhile["observer_callers_waiting"] > 20
    assert (meanwhile["observer_ready"], after["observer_ready"]) == (0, 1)
    assert after["observer_admission_waits_total"] > 20
    assert after["observer_admission_refusals_total"] == after["observer_ingest_refused_total"] == 41
    assert after["observer_persister_withdrawn_total"] > 0


async def test_an_event_that_waited_for_room_is_one_request_of_its_connection(tmp_path: Path) -> None:
    disk = TroubledDisk()
    settings = settings_for(tmp_path, waiting_ops_max=1, wait_seconds_max=30)
    settings = msgspec.structs.replace(settings, listen=ListenSettings(port=0, requests_per_connection_max=2))
    answers: list[Answer] = []

    async with daemon_inside(settings, disk=disk) as daemon:
        with trio.fail_after(LIMIT_S):
            disk.hold()
            async with (
                connected(daemon.addresses[0]) as first,
                connected(daemon.addresses[0]) as waits,
                trio.open_nursery() as nursery,
            ):

                async def post(wire: Wire, name: str) -> None:
                    answers.append(await wire.post("/event", msgspec.json.encode({"id": name})))

                nursery.start_soon(post, first, "first")
                await trio.to_thread.run_sync(disk.wait_held)
                nursery.start_soon(post, waits, "waits")
                await eventually(lambda: daemon.admission.statistics().callers_waiting == 1)
                disk.release()
                await eventually(lambda: len(answers) == 2)
                await post(waits, "its second")
    assert [answer.status for answer in answers] == [200] * 3


async def test_a_single_caller_refused_by_a_disk_that_hangs_is_enough_for_not_ready(tmp_path: Path) -> None:
    disk = TroubledDisk()
    async with daemon_inside(settings_for(tmp_path, wait_seconds_max=0.1), disk=disk) as daemon:
        with trio.fail_after(LIMIT_S):
            disk.hold()
            async with connected(daemon.addresses[0]) as wire:
                check_problem(await wire.post("/event", b'{"id":"a"}'), 503)
                assert daemon.readiness().reasons == ["callers have waited for the disk in vain"]
                disk.release()
                await eventually(lambda: daemon.readiness().ready)
                again = await wire.post("/event", b'{"id":"a"}')
    assert (again.status, again.json["seq"], again.json["duplicate"]) == (200, 1, True)
    assert [op.id for op in stored_ops(tmp_path)] == ["a"]


# ------------------------------------------------------------------------------------------- full and failing


@pytest.mark.parametrize(
    ("kinds", "code", "status"),
    [
        pytest.param(("write",), errno.ENOSPC, 507, id="full"),
        pytest.param(("write",), errno.EDQUOT, 507, id="over-quota"),
        pytest.param(("write",), errno.EIO, 503, id="write-fails"),
        pytest.param(("datasync",), errno.EIO, 503, id="sync-fails"),
        pytest.param(("write", "truncate", "open_append", "rename", "sync_directory"), errno.EIO, 503, id="all-fails"),
    ],
)
async def test_a_disk_that_refuses_makes_callers_hear_it_and_all_is_well_once_it_does_not(
    tmp_path: Path, kinds: tuple[Kind, ...], code: int, status: int
) -> None:
    disk = TroubledDisk()
    ledger = Ledger()
    load = clients(4, ledger, SEED)
    async with daemon_inside(settings_for(tmp_path), disk=disk) as daemon:
        url = daemon.addresses[0]
        with trio.fail_after(LIMIT_S):
            async with trio.open_nursery() as nursery:
                for client in load:
                    nursery.start_soon(client.run, url)
                await ledger.wait_owed(100)
                disk.fail(*kinds, code=code)
                await eventually(lambda: ledger.refused)
                async with connected(url) as wire:
                    check_problem(await wire.post("/event", b"{}"), status)
                ready = await get(daemon, "/ready")
                nursery.cancel_scope.cancel()
            disk.heal()
            await eventually(lambda: daemon.readiness().ready)  # nobody sends anything
            await settle(load, url)
            async with trio.open_nursery() as nursery:
                for client in load:
                    nursery.start_soon(client.run, url)
                await ledger.wait_owed(len(ledger.owed) + 100)
                nursery.cancel_scope.cancel()
            await settle(load, url)
            await caught_up(daemon)
            counts = await metrics(daemon)
        counted = daemon.stats.stats
    assert ready.status_code == 503
    assert f"the disk refuses: {errno.errorcode[code]}" in ready.json()["reasons"][0]
    assert counts["observer_disk_errors_total"] > 0
    failed = {event.actor for event in daemon.events.recent() if isinstance(event, ActorFailed)}
    assert failed <= {"archivist"}, "nobody who takes events or shows them"
    ops = stored_ops(tmp_path)
    ledger.check(ops)
    assert set(ledger.refused) & {name_in(op.input_summary) for op in ops} == set(), (
        "refused, never retried, and stored all the same"
    )
    assert counted.last_seq == len(ops)


async def test_a_disk_that_does_not_let_a_segment_be_sealed_still_takes_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(persister, "SEAL_RETRY_S", 0.1)
    disk = TroubledDisk()
    ledger = Ledger()
    load = clients(2, ledger, SEED)
    async with daemon_inside(settings_for(tmp_path), disk=disk) as daemon:
        with trio.fail_after(LIMIT_S):
            disk.fail("rename")
            async with trio.open_nursery() as nursery:
                for client in load:
                    nursery.start_soon(client.run, daemon.addresses[0])
                await ledger.wait_owed(150)
                disk.heal()
                await eventually(lambda: daemon.persister.status.journal and daemon.persister.status.journal.segments)
                nursery.cancel_scope.cancel()
    assert ledger.refused == {}
    ledger.check(stored_ops(tmp_path))


class NoRoomForArchives(PosixDisk):
    """Full to a degree: what is large does not fit."""

    is_full = False

    def open_append(self, path: Path, *, create: bool) -> AppendFile:
        if self.is_full and path.name.endswith(".gz.tmp"):
            raise OSError(errno.ENOSPC, "no space left on device (injected)")
        return super().open_append(path, create=create)


async def test_retention_makes_room_also_when_there_is_none_to_compress_in(tmp_path: Path) -> None:
    disk = NoRoomForArchives()
    settings = settings_for(tmp_path)
    journal = JournalSettings(segment_bytes_max=5_000, retained_bytes_max=8_000)
    async with daemon_inside(msgspec.structs.replace(settings, journal=journal), disk=disk) as daemon:
        with trio.fail_after(LIMIT_S):
            async with connected(daemon.addresses[0]) as wire:
                oldest = tmp_path / "_observer" / "segments" / "ops-00000000000000000001.jsonl.gz"
                assert (await wire.post("/events", batch("a", 20))).status == 200
                await eventually(oldest.exists)
                disk.is_full = True
                for n in range(3):
                    assert (await wire.post("/events", batch(f"b{n}", 20))).status == 200
                await eventually(lambda: not oldest.exists())


async def test_an_id_whose_op_was_deleted_is_known_until_the_next_start(tmp_path: Path) -> None:
    journal = JournalSettings(segment_bytes_max=5_000, retained_bytes_max=1)
    settings = msgspec.structs.replace(settings_for(tmp_path), journal=journal)
    with trio.fail_after(LIMIT_S):
        async with daemon_inside(settings) as daemon, connected(daemon.addresses[0]) as wire:
            assert (await wire.post("/event", b'{"id":"first"}')).json["seq"] == 1
            assert (await wire.post("/events", batch("more", 30))).status == 200
            assert (await wire.post("/events", batch("even-more", 30))).status == 200
            await eventually(lambda: daemon.journal.reader.get(1) is None)
            again = await wire.post("/event", b'{"id":"first"}')
            assert (again.json["seq"], again.json["duplicate"]) == (1, True)
            assert daemon.commits.last_seq == 61
        async with daemon_inside(settings) as daemon, connected(daemon.addresses[0]) as wire:
            anew = await wire.post("/event", b'{"id":"first"}')
            assert (anew.json["seq"], anew.json.get("duplicate")) == (62, None)


async def test_a_disk_that_refuses_at_the_start_is_waited_for_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with daemon_inside(settings_for(tmp_path)) as daemon, connected(daemon.addresses[0]) as wire:
        assert (await wire.post("/events", batch("old", 10))).status == 200
    monkeypatch.setattr(persister, "OPENING_S", 0.0)
    monkeypatch.setattr(persister, "DISK_RETRY_S", 0.05)
    disk = TroubledDisk()
    disk.fail("datasync", code=errno.ENOSPC)
    async with daemon_inside(settings_for(tmp_path, wait_seconds_max=0.1), disk=disk, wait_ready=False) as daemon:
        with trio.fail_after(LIMIT_S):
            await eventually(lambda: daemon.persister.status.refusing)
            ready = await get(daemon, "/ready")
            async with connected(daemon.addresses[0]) as wire:
                check_problem(await wire.post("/event", b'{"id":"early"}'), 503)
                disk.heal()
                await eventually(lambda: daemon.readiness().ready)
                await caught_up(daemon)
                assert [op.seq for op in daemon.ring.ring] == list(range(1, 11)), "also before anybody sends anything"
                assert (await wire.post("/event", b'{"id":"new"}')).json["seq"] == 11
            await caught_up(daemon)
        ring, counted = list(daemon.ring.ring), daemon.stats.stats
    assert ready.status_code == 503
    assert ready.json()["reasons"][0] == "the journal is not open"
    assert "ENOSPC" in ready.json()["reasons"][1]
    ops = stored_ops(tmp_path)
    assert [op.id for op in ops] == [*(f"old-{n}" for n in range(10)), "new"]
    assert ring == ops
    expected = Stats()
    expected.add(ops)
    assert counted == expected


async def test_who_stops_while_the_disk_refuses_at_the_start_waits_for_no_further_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(persister, "OPENING_S", math.inf)
    monkeypatch.setattr(persister, "DISK_RETRY_S", math.inf)
    disk = TroubledDisk()
    disk.fail("sync_directory", code=errno.ENOSPC)
    async with daemon_inside(settings_for(tmp_path), disk=disk, wait_ready=False) as daemon:
        await eventually(lambda: daemon.persister.status.refusing)
    assert "ShutdownForced" not in daemon.events.counts()
    said = next(event for event in daemon.events.recent() if isinstance(event, ActorStopped))
    assert (said.actor, said.error[:16]) == ("persister", "DiskFull: ENOSPC")


async def first_answer(process: trio.Process, port: int) -> Answer:
    """Post an event as soon as the daemon listens; its log does not say when."""
    while True:
        assert process.returncode is None
        try:
            async with connected(f"http://127.0.0.1:{port}") as wire:
                return await wire.post("/event", b'{"id":"a"}')
        except OSError:
            await trio.sleep(0.02)


async def test_a_log_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "observer_actors", "serve", "--port", str(port), "--data-dir", str(tmp_path)]
    full = os.open("/dev/full", os.O_WRONLY)
    process = await trio.lowlevel.open_process(command, stderr=full, stdin=subprocess.DEVNULL)
    os.close(full)
    try:
        with trio.fail_after(LIMIT_S):
            stored = await first_answer(process, port)
            process.terminate()
            await process.wait()
    finally:
        process.kill()
    assert stored.status == 200
    assert [op.id for op in stored_ops(tmp_path)] == ["a"]


# ---------------------------------------------------------------------------------------------------- memory


async def test_a_seal_that_failed_half_way_is_mended_without_traffic(tmp_path: Path) -> None:
    disk = TroubledDisk()
    async with daemon_inside(settings_for(tmp_path), disk=disk) as daemon:
        disk.fail("sync_directory")  # a commit needs none; a seal has renamed the file by then
        with trio.fail_after(LIMIT_S):
            async with connected(daemon.addresses[0]) as wire:
                while not daemon.persister.status.refusing:
                    assert (await wire.post("/event", b'{"input_summary":"to fill a segment"}')).status in (200, 503)
            disk.heal()
            await eventually(lambda: daemon.readiness().ready)


async def test_large_commits_do_not_pile_up_for_a_consumer_that_is_parked(tmp_path: Path) -> None:
    gone = True

    def keep_away(name: str, step: str) -> None:
        if gone and (name, step) == ("analyzer", "loading"):
            raise Crash("not now")

    async with daemon_inside(settings_for(tmp_path), on_step=keep_away) as daemon:
        feed = daemon.feeds["analyzer"]
        with trio.fail_after(LIMIT_S):
            async with connected(daemon.addresses[0]) as wire:
                for n in range(24):
                    assert (await wire.post("/events", batch(f"b{n}", 1_000))).status == 200
            waiting = feed.statistics()
            gone = False
            await caught_up(daemon)
    assert (waiting.behind, waiting.passed_over) == (24_000, 4)
    assert (feed.cursor, feed.statistics().depth) == (24_000, 0)


OFFERED_CLIENTS: Final = 200
OFFERED_BYTES: Final = 2_000_000
OFFERED_S: Final = 4.0
GROWTH_BYTES_MAX: Final = 160 * 1024 * 1024
SMALL_BOUNDS: Final = """
[listen]
bodies_bytes_max = 8_388_608

[admission]
waiting_ops_max = 10_000
waiting_bytes_max = 4_194_304
wait_seconds_max = 0.5
"""


async def test_memory_stays_flat_when_far_more_is_offered_than_a_slow_disk_takes(tmp_path: Path) -> None:
    config = tmp_path / "observer.toml"
    config.write_text(SMALL_BOUNDS)
    plan = {PLAN_VARIABLE: "disk:sync:0.3"}
    statuses: list[int] = []
    line = msgspec.json.encode({"input_summary": "x" * (OFFERED_BYTES // 500)})  # no id: each is stored
    body = b"\n".join([line] * 500)

    async def offer(url: str) -> None:
        while True:
            try:
                async with connected(url) as wire:
                    while True:
                        answer = await wire.post("/events", body)
                        statuses.append(answer.status)
                        if answer.status != 200:
                            check_problem(answer, 503)
            except (OSError, trio.BrokenResourceError):
                await trio.lowlevel.checkpoint()

    started = running_daemon(
        tmp_path / "data", "--config", str(config), module="tests.daemon.crashing", environment=plan
    )
    async with started as daemon:
        assert (await daemon.post("/events", body)).status_code == 200
        before = peak_bytes(daemon.process.pid)
        with trio.move_on_after(OFFERED_S):
            async with trio.open_nursery() as nursery:
                for _ in range(OFFERED_CLIENTS):
                    nursery.start_soon(offer, daemon.url)
        grown = peak_bytes(daemon.process.pid) - before
        assert (await daemon.get("/health")).status_code == 200
    print(f"grown by {grown:,} bytes; {Counter(statuses)}")  # noqa: T201 - for whoever looks into a failure
    assert grown < GROWTH_BYTES_MAX, f"{grown:,} bytes, with {OFFERED_CLIENTS * OFFERED_BYTES:,} offered at any time"
    assert 503 in statuses
    assert 200 in statuses


async def test_memory_stays_flat_when_many_ask_for_all_failures_and_read_none(tmp_path: Path) -> None:
    """An answer has some 2 MB; sixty that were made beside each other took 200."""
    words = ("".join(letters) for letters in product("abcdefghij", repeat=6))
    failures = [
        {"endpoint": f"e{n % 100}", "success": False, "error": " ".join(islice(words, 250))} for n in range(1_000)
    ]
    async with running_daemon(tmp_path) as daemon:
        assert (await daemon.post("/events", b"\n".join(map(msgspec.json.encode, failures)))).status_code == 200
        for _ in range(9):  # each waits a second for the analyzer
            await daemon.get("/failures?limit=1000")
        found = (await daemon.get("/failures?limit=1000")).json()
        assert found["total"] == len(failures)
        assert len(msgspec.json.encode(found)) > 2_000_000
        grown = await grown_by_readers(daemon, "/failures?limit=1000", 60)
    assert grown < 60_000_000, f"{grown:,} bytes"


@pytest.mark.parametrize("learned", ["failures", "entries"])
async def test_memory_stays_flat_when_many_ask_where_something_comes_from_and_read_none(
    tmp_path: Path, learned: str
) -> None:
    """It comes from ten operations of 200 KB; sixty answers that waited for the journal side by side took 120 MB."""
    words = ("".join(letters) for letters in product("abcdefghij", repeat=6))
    async with running_daemon(tmp_path) as daemon:
        for number in range(10):
            about = {"endpoint": "sql:run", "source": ("mcp", "bot")[number % 2], "run": f"r{number}"}
            said = {"input_summary": " ".join(islice(words, 28_000))}
            tried = [{"success": False, "error": "refused", **about, **said}, {"success": True, **about, **said}]
            assert (await daemon.post("/events", b"\n".join(map(msgspec.json.encode, tried)))).status_code == 200
        path = {"failures": "/failures", "entries": "/playbook"}[learned]
        with trio.fail_after(LIMIT_S):
            while not (found := (await daemon.get(path)).json()[learned]):  # noqa: ASYNC110 - of another process
                await trio.sleep(0.1)
        path = f"{path}/{found[0]['id']}"
        assert len((await daemon.get(path)).content) > 1_900_000
        grown = await grown_by_readers(daemon, path, 60)
    assert grown < 60_000_000, f"{grown:,} bytes"


async def test_memory_stays_flat_when_many_ask_for_metrics_and_read_none(tmp_path: Path) -> None:
    """The counters of 200 endpoints take 700 KB until they are encoded."""
    events = [{"endpoint": f"e{number}", "success": True} for number in range(300)]
    async with running_daemon(tmp_path) as daemon:
        assert (await daemon.post("/events", b"\n".join(map(msgspec.json.encode, events)))).status_code == 200
        await daemon.get("/metrics")
        grown = await grown_by_readers(daemon, "/metrics", 200)
    assert grown < 60_000_000, f"{grown:,} bytes"


async def grown_by_readers(daemon: DaemonProcess, path: str, count: int) -> int:
    """Ask so often and read no answer; give the memory that this took, until one more who asks is answered."""
    before = peak_bytes(daemon.process.pid)
    async with AsyncExitStack() as stack:
        for _ in range(count):
            stream = await trio.open_tcp_stream("127.0.0.1", int(daemon.url.rpartition(":")[2]))
            await stack.enter_async_context(stream)
            await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        with trio.fail_after(LIMIT_S):
            assert (await daemon.get(path)).status_code in {200, 503}
    return peak_bytes(daemon.process.pid) - before


def peak_bytes(pid: int) -> int:
    """Give the most that a process has had in memory so far."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="ascii"), re.MULTILINE)
    assert found
    return int(found[1]) * 1024
