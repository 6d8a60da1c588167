"""The disk refuses, is slow, or is full: system calls of the running daemon fail for a while, then no more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import trio

from tests.faults.tracing import Injection, injections, tampered
from tests.faults.trial import Trial, until
from tests.harness import Daemon

HELD_S_MAX: Final = 2.5
"""Longer than the daemon waits between two tries of a disk that refuses."""
ALL: Final = "write,fdatasync,fsync,ftruncate,rename,unlink"
FAILING: Final = (
    ("fdatasync", "1"),
    ("fdatasync", ""),
    ("write", "1"),
    ("write", ""),
    ("ftruncate,fdatasync", ""),
    ("rename", ""),
    ("rename", "1"),
    ("fsync", ""),
    ("fsync", "1"),
    (ALL, ""),
)
"""System calls that fail together, and which of them: all unless a number says otherwise."""
FULL: Final = (("write", ""), ("write", "1"), ("write,fdatasync", ""))
DELAYS_US: Final = (20_000, 200_000, 1_500_000)
"""The last is longer than a caller waits."""


async def disk_fails(trial: Trial) -> None:
    """EIO from one kind of system call, or from all."""
    await _refusals(trial, "EIO", FAILING)


async def disk_is_full(trial: Trial) -> None:
    """ENOSPC from whatever makes files grow."""
    await _refusals(trial, "ENOSPC", FULL)


async def _refusals(trial: Trial, error: str, failing: Sequence[tuple[str, str]]) -> None:
    async with trial.daemon() as daemon:
        async with trial.callers(daemon):
            for number in range(trial.repeats):
                await trial.more(trial.chance.randint(50, 200))
                calls, when = trial.chance.choice(failing)
                await _inject(trial, daemon, number, calls=calls, error=error, when=when)
        await trial.finish_with(daemon)
        assert not [line for line in daemon.log if line["event"] == "restarts_exhausted"]


async def _inject(trial: Trial, daemon: Daemon, number: int, *, calls: str, error: str, when: str) -> None:
    """Let calls on the files of the journal fail until some have; the daemon's sockets and its log are not meant."""
    log = trial.folder / f"strace-{number}"
    observer = trial.data / "_observer"
    only = observer / "ops.jsonl" if "write" in calls else None
    async with injections(daemon.process.pid, Injection(calls, f"error={error}", when=when, only=only), log):
        await until(lambda: tampered(log) > 0)
        if not when:
            await trio.sleep(trial.chance.uniform(0, HELD_S_MAX))
    trial.remarks[f"{error} from {calls}{' once' if when else ''}"] += 1
    trial.injected(tampered(log))
    await trial.recovered()


async def disk_is_slow(trial: Trial) -> None:
    """Each fdatasync takes long; the longest take longer than callers wait."""
    async with trial.daemon() as daemon:
        async with trial.callers(daemon):
            for number in range(trial.repeats):
                await trial.more(trial.chance.randint(50, 200))
                log = trial.folder / f"strace-{number}"
                delay_us = trial.chance.choice(DELAYS_US)
                injection = Injection("fdatasync", f"delay_enter={delay_us}")
                async with injections(daemon.process.pid, injection, log):
                    await until(lambda log=log: tampered(log) > 0)
                    await trio.sleep(trial.chance.uniform(0, HELD_S_MAX))
                trial.injected(tampered(log))
                await trial.recovered()
        await trial.finish_with(daemon)
