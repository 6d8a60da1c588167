"""The disk hangs: what only saves time at the next start keeps nobody, and at the end it is left, and said."""

from __future__ import annotations

import re
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from observer_actors.actors import librarian
from observer_actors.actors.disk_thread import THREAD_NAME
from observer_actors.http import server
from observer_actors.journal.files import replace_file
from observer_actors.kb import OutcomeFilter
from observer_actors.settings import JournalSettings, ListenSettings, RingSettings, Settings
from observer_actors.store import Store
from tests.daemon.inside import END_S, caught_up, daemon_inside, eventually
from tests.daemon.load import connected, stored_ops
from tests.fakes.troubled_disk import TroubledDisk

FAILED = b'{"endpoint":"a","success":false,"error":"row gone"}'


@pytest.mark.parametrize("already", [False, True])
async def test_a_disk_that_hangs_at_the_end_keeps_nobody_and_what_was_not_saved_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, already: bool
) -> None:
    """The files' syncs hang, and those of SQLite; before the end already, or from then on."""
    settings = Settings(data_dir=tmp_path, listen=ListenSettings(port=0))
    disk, goes_on, hangs = TroubledDisk(), threading.Event(), threading.Event()
    save_patterns, save_playbook = Store.save_patterns, Store.save_playbook

    def hanging(store: Store, *arguments: Any, save: Any, **options: Any) -> Any:
        hangs.set()
        assert goes_on.wait(60)
        return save(store, *arguments, **options)

    try:
        async with daemon_inside(settings, disk=disk) as daemon, connected(daemon.addresses[0]) as wire:
            assert (await wire.post("/event", FAILED)).status == 200
            await caught_up(daemon)
            for name, save in (("save_patterns", save_patterns), ("save_playbook", save_playbook)):
                monkeypatch.setattr(Store, name, lambda *a, save=save, **o: hanging(*a, save=save, **o))
            disk.hold()
            if already:
                await eventually(hangs.is_set)
        assert "ShutdownForced" not in daemon.events.counts()
        abandoned = re.findall(r"save_abandoned\s+actor=(\w+)", capsys.readouterr().out)
        assert abandoned == ["librarian", "consolidator", "analyzer", "stats"]
        assert [op.seq for op in stored_ops(tmp_path)] == [1]
    finally:
        disk.release()
        goes_on.set()
    monkeypatch.undo()
    async with daemon_inside(settings) as daemon:
        await caught_up(daemon)
        assert [pattern.count for pattern in daemon.analyzer.patterns.values()] == [1]
        assert daemon.stats.stats.last_seq == 1


async def test_while_the_librarians_cursor_is_saved_the_knowledge_base_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(data_dir=tmp_path, listen=ListenSettings(port=0))
    goes_on, hangs = threading.Event(), threading.Event()

    def hanging(*arguments: Any) -> None:
        hangs.set()
        assert goes_on.wait(60)
        replace_file(*arguments)

    monkeypatch.setattr(librarian, "SAVE_S", 0.001)
    monkeypatch.setattr(librarian, "replace_file", hanging)
    async with daemon_inside(settings) as daemon, connected(daemon.addresses[0]) as wire:
        try:
            assert (await wire.post("/event", FAILED)).status == 200
            await eventually(hangs.is_set)
            with trio.fail_after(END_S):
                assert (await daemon.librarian.find(OutcomeFilter())).rows == []
                assert (await daemon.librarian.history("a", newest=1)).newest == []
        finally:
            goes_on.set()


async def test_while_the_active_file_is_renamed_the_daemon_goes_on_and_tells_of_its_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = JournalSettings(segment_bytes_max=1)
    settings = Settings(data_dir=tmp_path, listen=ListenSettings(port=0), journal=journal)
    goes_on, hangs = threading.Event(), threading.Event()
    rename = TroubledDisk.rename
    were_told: list[bool] = []

    def hanging(disk: TroubledDisk, source: Path, target: Path) -> None:
        if source.name == "ops.jsonl":
            hangs.set()
            were_told.append(goes_on.wait(5))
        rename(disk, source, target)

    monkeypatch.setattr(TroubledDisk, "rename", hanging)
    async with daemon_inside(settings, disk=TroubledDisk()) as daemon, connected(daemon.addresses[0]) as wire:
        try:
            assert (await wire.post("/event", FAILED)).status == 200
            await eventually(hangs.is_set)
            async with httpx.AsyncClient(base_url=daemon.addresses[0], trust_env=False) as client:
                told = (await client.get("/metrics")).text
            assert "observer_journal_segments 0.0" in told
        finally:
            goes_on.set()
    assert were_told == [True]


async def test_a_disk_that_hangs_while_the_journal_is_read_for_those_who_follow_it_keeps_nobody_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(data_dir=tmp_path, listen=ListenSettings(port=0))
    async with daemon_inside(settings) as daemon, connected(daemon.addresses[0]) as wire:
        assert (await wire.post("/event", FAILED)).status == 200
    goes_on, hangs = threading.Event(), threading.Event()
    read = TroubledDisk.read

    def hanging(disk: TroubledDisk, path: Path, offset: int, length: int) -> bytes:
        if threading.current_thread().name != THREAD_NAME:  # by which the journal is opened
            hangs.set()
            assert goes_on.wait(END_S + 5)
        return read(disk, path, offset, length)

    monkeypatch.setattr(TroubledDisk, "read", hanging)
    try:
        async with daemon_inside(settings, disk=TroubledDisk(), wait_ready=False) as daemon:
            await eventually(hangs.is_set)
        assert "ShutdownForced" not in daemon.events.counts()
    finally:
        goes_on.set()


@pytest.mark.parametrize("path", ["/ops", "/kb/outcomes"])
async def test_a_disk_that_hangs_while_a_caller_is_read_for_keeps_nobody_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    settings = Settings(data_dir=tmp_path, listen=ListenSettings(port=0), ring=RingSettings(capacity_ops=1))
    (tmp_path / "_kb").mkdir()
    (tmp_path / "_kb" / "outcomes.jsonl").write_text("{}\n")
    goes_on, hangs, is_held = threading.Event(), threading.Event(), threading.Event()
    read = TroubledDisk.read

    def hanging(disk: TroubledDisk, path: Path, offset: int, length: int) -> bytes:
        if is_held.is_set():
            hangs.set()
            assert goes_on.wait(60)
        return read(disk, path, offset, length)

    async def ask(url: str) -> None:
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as client:
            with suppress(httpx.TransportError):
                await client.get(path)

    monkeypatch.setattr(TroubledDisk, "read", hanging)
    monkeypatch.setattr(server, "GRACE_S", 0.1)
    try:
        async with trio.open_nursery() as callers:
            async with daemon_inside(settings, disk=TroubledDisk()) as daemon, connected(daemon.addresses[0]) as wire:
                for _ in range(2):
                    assert (await wire.post("/event", FAILED)).status == 200
                await caught_up(daemon)
                is_held.set()
                callers.start_soon(ask, daemon.addresses[0])
                await eventually(hangs.is_set)
            assert "ShutdownForced" not in daemon.events.counts()
    finally:
        goes_on.set()
