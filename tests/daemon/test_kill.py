"""SIGKILL under load, again and again: what was acknowledged is in the journal, once, where it was said to be."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import msgspec
import trio

from tests.conftest import ROOT
from tests.daemon.load import Client, Ledger, clients, settle, stored_ops
from tests.harness import Daemon, running_daemon
from tests.processes import children

ROUNDS: Final = int(os.environ.get("OBSERVER_KILL_ROUNDS", "8"))
SEED: Final = int(os.environ.get("OBSERVER_KILL_SEED", "20261122"))
CLIENTS: Final = 6
ROUND_S: Final = 60.0
HELD: Final = 71
CONFIG: Final = """
[journal]
segment_bytes_max = 20_000

[cycle]
seconds = 0.2
consolidate_every = 1
"""
"""A segment holds about 60 ops: sealing and compaction happen in every round."""


async def test_what_was_acknowledged_before_a_sigkill_is_stored_exactly_once_where_it_was_said_to_be(
    tmp_path: Path,
) -> None:
    chance = random.Random(SEED)
    config, data_dir = tmp_path / "observer.toml", tmp_path / "data"
    config.write_text(CONFIG)
    ledger = Ledger()
    load = clients(CLIENTS, ledger, SEED)

    for _ in range(ROUNDS):
        async with running_daemon(data_dir, "--config", str(config)) as daemon:
            await _kill_under_load(daemon, load, ledger, chance)
            assert not [line for line in daemon.log if line["event"] == "actor_failed"]

    async with running_daemon(data_dir, "--config", str(config)) as daemon:
        await settle(load, daemon.url)
        await _kill_nothing_but_stop_under_load(daemon, load)

    async with running_daemon(data_dir, "--config", str(config)) as daemon:
        await settle(load, daemon.url)
        asked = await daemon.all_ops()
        running = await _verified(data_dir)
        assert await daemon.stop() == 0

    ops = stored_ops(data_dir)
    ledger.check(ops)
    assert msgspec.to_builtins(ops) == asked
    stopped = await _verified(data_dir)
    assert (running["in_use"], stopped["in_use"]) == (True, False)
    assert (stopped["ops"], stopped["first_seq"], stopped["last_seq"]) == (len(ops), 1, len(ops))
    assert stopped["damage"] == running["damage"] == 0
    assert stopped["segments"] >= ROUNDS, "no sealing happened: the test has lost its point"
    retried = {name for name, event in ledger.sent.items() if "id" in event}
    assert retried <= ledger.owed, "a client that retries gets through in the end"


async def test_a_sigkill_of_the_disks_process_costs_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    ledger = Ledger()
    load = clients(CLIENTS, ledger, SEED)
    async with running_daemon(tmp_path) as daemon:
        with trio.fail_after(ROUND_S):
            async with trio.open_nursery() as nursery:
                for client in load:
                    nursery.start_soon(client.run, daemon.url)
                for incarnation in (2, 3, 4):
                    await ledger.wait_owed(len(ledger.owed) + 100)
                    [disk] = children(daemon.process.pid)
                    os.kill(disk, signal.SIGKILL)
                    await daemon.logged("actor_started", actor="persister", incarnation=incarnation)
                await ledger.wait_owed(len(ledger.owed) + 100)
                nursery.cancel_scope.cancel()
        await settle(load, daemon.url)
        assert len([line for line in daemon.log if line["event"] == "actor_failed"]) == 3
        assert await daemon.stop() == 0
    ledger.check(stored_ops(tmp_path))


async def test_the_disks_process_is_started_anew_also_when_nobody_sends(tmp_path: Path) -> None:
    async with running_daemon(tmp_path) as daemon:
        [disk] = children(daemon.process.pid)
        os.kill(disk, signal.SIGKILL)
        await daemon.logged("actor_started", actor="persister", incarnation=2)
        assert (await daemon.event(endpoint="a"))["seq"] == 1
        assert children(daemon.process.pid) != {disk}


async def test_without_its_program_the_thread_writes(tmp_path: Path) -> None:
    program = tmp_path / "embedding.py"
    program.write_text("import sys\nfrom observer_actors.cli import main\nsys.executable = '/bin/true'\nmain()\n")
    environment = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path.cwd())])}
    async with running_daemon(tmp_path / "data", module="embedding", environment=environment) as daemon:
        await daemon.logged("disk_process_missing")
        assert (await daemon.event(endpoint="a"))["seq"] == 1
        assert children(daemon.process.pid) == set()


async def test_the_next_daemon_waits_for_a_disks_process_that_may_still_write(tmp_path: Path) -> None:
    async with running_daemon(tmp_path) as daemon:
        [disk] = children(daemon.process.pid)
        os.kill(disk, signal.SIGSTOP)
        daemon.process.kill()
        await daemon.process.wait()
    async with running_daemon(tmp_path, wait_ready=False) as daemon:
        assert await daemon.process.wait() == HELD
    assert "is in use by what is left of process" in "".join(daemon.raw_log)
    unit = (ROOT / "systemd" / "observer-actors.service").read_text(encoding="utf-8")
    [never_again] = re.findall("^RestartPreventExitStatus=(.*)$", unit, re.MULTILINE)
    assert str(HELD) not in never_again.split()  # systemd tries again
    os.kill(disk, signal.SIGKILL)
    async with running_daemon(tmp_path) as daemon:
        assert await daemon.stop() == 0


async def _kill_under_load(daemon: Daemon, load: list[Client], ledger: Ledger, chance: random.Random) -> None:
    """Kill a random moment after so many more ops have been acknowledged. The clients end by themselves then."""
    enough = len(ledger.owed) + chance.randint(20, 300)
    with trio.fail_after(ROUND_S):
        async with trio.open_nursery() as nursery:
            for client in load:
                nursery.start_soon(client.run, daemon.url)
            await ledger.wait_owed(enough)
            await trio.sleep(chance.uniform(0, 0.02))
            daemon.process.kill()
            await daemon.process.wait()


async def _kill_nothing_but_stop_under_load(daemon: Daemon, load: list[Client]) -> None:
    with trio.fail_after(ROUND_S):
        async with trio.open_nursery() as nursery:
            for client in load:
                nursery.start_soon(client.run, daemon.url)
            await daemon.logged("segment_sealed")
            assert await daemon.stop() == 0
            nursery.cancel_scope.cancel()


async def _verified(data_dir: Path) -> Any:
    """Run `observer-actors verify --json`, and give what it says."""
    command = [sys.executable, "-m", "observer_actors", "verify", "--data-dir", str(data_dir), "--json"]
    result = await trio.run_process(
        command, capture_stdout=True, capture_stderr=True, check=False, stdin=subprocess.DEVNULL
    )
    assert result.returncode == 0, result.stdout.decode() + result.stderr.decode()
    return msgspec.json.decode(result.stdout)
