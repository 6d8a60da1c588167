"""The disk hangs when the daemon is to end: what only saves time at the next start is left, and said."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import pytest

from observer_actors.settings import ListenSettings, Settings
from observer_actors.store import Store
from tests.daemon.inside import caught_up, daemon_inside, eventually
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

    def hanging(store: Store, *arguments: Any, save: Any, **options: Any) -> None:
        hangs.set()
        assert goes_on.wait(60)
        save(store, *arguments, **options)

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
