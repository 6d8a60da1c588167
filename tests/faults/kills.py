"""The process dies, stands still, or is told to end: at random moments, under load."""

from __future__ import annotations

import os
import signal
from typing import Final

import trio

from tests.faults.tracing import Injection, has_killed, started_under
from tests.faults.trial import LIMIT_S, Trial
from tests.harness import Daemon
from tests.processes import children

STARTING_SHARE: Final = 0.2
"""Of the kills come while the daemon is starting: in the middle of a recovery, often."""
STARTING_S: Final = 2.5
STEPS: Final = {
    "fdatasync": 60,
    "fsync": 20,
    "rename": 8,
    "ftruncate": 8,
    "unlink": 6,
    "write": 150,
    "pwrite64": 30,
}
"""System call -> up to which occurrence a kill is tried. The first of them come while the daemon is starting."""
LOADED_S: Final = 4.0


async def kill_under_load(trial: Trial) -> None:
    """SIGKILL, and start again on what is left, several times."""
    for _ in range(trial.repeats):
        is_starting = trial.chance.random() < STARTING_SHARE
        async with trial.daemon(wait_ready=not is_starting) as daemon:
            if is_starting:
                await trio.sleep(trial.chance.uniform(0, STARTING_S))
                await _kill(trial, daemon)
                continue
            async with trial.callers(daemon):
                await trial.more(trial.chance.randint(20, 300))
                await trio.sleep(trial.chance.uniform(0, 0.02))
                await _kill(trial, daemon)
    await trial.finish()


async def _kill(trial: Trial, daemon: Daemon) -> None:
    daemon.process.kill()
    await daemon.process.wait()
    trial.injected()


async def kill_the_disks_process(trial: Trial) -> None:
    """SIGKILL for the process that appends and syncs, or SIGSTOP for a while; the daemon is left alone."""
    async with trial.daemon() as daemon:
        async with trial.callers(daemon):
            for _ in range(trial.repeats):
                await trial.more(trial.chance.randint(20, 200))
                [disk] = children(daemon.process.pid)
                if trial.chance.random() < 0.5:
                    os.kill(disk, signal.SIGKILL)
                else:
                    os.kill(disk, signal.SIGSTOP)
                    await trio.sleep(trial.chance.uniform(0, 1.5))
                    os.kill(disk, signal.SIGCONT)
                trial.injected()
                await trial.recovered()
        await trial.finish_with(daemon)


async def kill_at_a_system_call(trial: Trial) -> None:
    """SIGKILL as the n-th call of some kind is made: between two steps of a commit, a seal, a start."""
    for number in range(trial.repeats):
        call = trial.chance.choice(list(STEPS))
        when = str(trial.chance.randint(1, STEPS[call]))
        log = trial.folder / f"strace-{number}"
        prefix = started_under(Injection(call, "signal=SIGKILL", when=when), log)
        async with trial.daemon(prefix=prefix, wait_ready=False) as daemon:
            await _load_once_ready(trial, daemon)
            is_reached = daemon.process.returncode is not None or has_killed(log)
            daemon.process.kill()  # where it was not reached, or by the disk's process alone
            assert await daemon.process.wait() == -signal.SIGKILL, "\n".join(daemon.raw_log)
        trial.remarks[f"at {call}" if is_reached else "not reached"] += 1
        trial.injected(is_reached)
    await trial.finish()


async def _load_once_ready(trial: Trial, daemon: Daemon) -> None:
    """Load it until it is killed, or for a while."""
    try:
        await daemon.ready(within_s=LIMIT_S)
    except AssertionError:
        if daemon.process.returncode is None:
            raise
        return  # it was killed before
    async with trial.callers(daemon):
        with trio.move_on_after(LOADED_S):
            await daemon.process.wait()


async def stand_still(trial: Trial) -> None:
    """SIGSTOP, and SIGCONT a while later."""
    async with trial.daemon() as daemon:
        async with trial.callers(daemon):
            for _ in range(trial.repeats):
                await trial.more(trial.chance.randint(20, 200))
                daemon.process.send_signal(signal.SIGSTOP)
                await trio.sleep(trial.chance.choice([0.02, 0.2, 1.5]) * trial.chance.random())
                daemon.process.send_signal(signal.SIGCONT)
                trial.injected()
                await trial.recovered()
        await trial.finish_with(daemon)


async def stop_under_load(trial: Trial) -> None:
    """SIGTERM at a random moment, some of them twice: what was taken is finished, and the process ends with 0."""
    for _ in range(trial.repeats):
        async with trial.daemon() as daemon, trial.callers(daemon):
            await trial.more(trial.chance.randint(20, 200))
            await trio.sleep(trial.chance.uniform(0, 0.02))
            daemon.process.send_signal(signal.SIGTERM)
            if trial.chance.random() < 0.5:
                daemon.process.send_signal(signal.SIGTERM)
            with trio.fail_after(LIMIT_S):
                assert await daemon.process.wait() == 0
            trial.injected()
    await trial.finish()
