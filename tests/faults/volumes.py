"""A file system that is really full, really read-only, or whose permissions have changed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from shutil import which
from typing import Final

import trio

from tests.faults.chamber import Chamber, chamber
from tests.faults.scenario import Unavailable
from tests.faults.trial import LIMIT_S, Trial
from tests.harness import Daemon

SIZE: Final = "48m"
HELD_S_MAX: Final = 2.5
PIECE: Final = bytes(65_536)
EXIT_CONFIG: Final = 78


async def file_system_is_full(trial: Trial) -> None:
    """A tmpfs without a free page, while the daemon runs or as it starts; then there is room again."""
    async with _mounted(trial) as room:
        for _ in range(trial.repeats):
            is_killed = trial.chance.random() < 0.5
            async with trial.daemon(prefix=room.prefix) as daemon, trial.callers(daemon):
                await trial.more(trial.chance.randint(50, 300))
                with _filled(room.outside):
                    trial.injected()
                    await trial.refused()
                    await trio.sleep(trial.chance.uniform(0, HELD_S_MAX))
                    if is_killed:
                        await _restart_on_a_full_disk(trial, room, daemon)
                        continue
                await trial.recovered()
                assert await daemon.stop() == 0
        assert trial.ledger.answers[507] > 0
        async with trial.daemon(prefix=room.prefix) as daemon:
            await trial.finish_with(daemon, room.outside / "data")


async def _restart_on_a_full_disk(trial: Trial, room: Chamber, killed: Daemon) -> None:
    """It starts, says that there is no room, and takes events once there is."""
    killed.process.kill()
    await killed.process.wait()
    async with trial.daemon(prefix=room.prefix, wait_ready=False) as daemon:
        await daemon.ready(within_s=LIMIT_S)
        async with trial.callers(daemon):
            await trial.refused()  # a few ops may fit into the last page of the file
            _empty(room.outside)
            await trial.recovered()
        assert await daemon.stop() == 0
    trial.remarks["started on the full disk"] += 1


@contextmanager
def _filled(folder: Path) -> Iterator[None]:
    """Leave no room."""
    filler = folder / "filler"
    try:
        with filler.open("wb", buffering=0) as file:
            while True:
                file.write(PIECE)
    except OSError:
        yield
    finally:
        _empty(folder)


def _empty(folder: Path) -> None:
    (folder / "filler").unlink(missing_ok=True)


async def read_only_at_the_start(trial: Trial) -> None:
    """A directory on a read-only file system: no start, with a reason; once it can be written again, all is there."""
    async with _mounted(trial) as room:
        async with trial.daemon(prefix=room.prefix) as daemon, trial.callers(daemon):
            await trial.more(200)
            assert await daemon.stop() == 0
        for _ in range(trial.repeats):
            await room.remount("ro")
            async with trial.daemon(prefix=room.prefix, wait_ready=False) as daemon:
                with trio.fail_after(LIMIT_S):
                    assert await daemon.process.wait() == EXIT_CONFIG
                await daemon.log_ended()
                assert "read-only file system" in "\n".join(daemon.raw_log)
            trial.injected()
            await room.remount("rw")
        async with trial.daemon(prefix=room.prefix) as daemon:
            await trial.finish_with(daemon, room.outside / "data")


@contextmanager
def _unwritable(observer: Path) -> Iterator[None]:
    """No file can be made, renamed or opened for writing; the one that is open already can still be written."""
    changed = [observer, observer / "segments"]
    for path in changed:
        path.chmod(0o500)
    try:
        yield
    finally:
        for path in changed:
            path.chmod(0o700)


async def unwritable_for_a_while(trial: Trial) -> None:
    """The directories lose their write permission while the daemon runs, and get it back."""
    async with trial.daemon(prefix=_without_privilege()) as daemon:
        async with trial.callers(daemon):
            for _ in range(trial.repeats):
                await trial.more(trial.chance.randint(50, 200))
                with _unwritable(trial.data / "_observer"):
                    await trio.sleep(trial.chance.uniform(0.2, HELD_S_MAX))
                trial.injected()
                await trial.recovered()
        await trial.finish_with(daemon)


def _without_privilege() -> list[str]:
    """Give what makes permissions count for root too."""
    if os.geteuid() != 0:
        return []
    if which("setpriv") is None:
        raise Unavailable("setpriv is not installed")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--"]


def _mounted(trial: Trial) -> AbstractAsyncContextManager[Chamber]:
    folder = trial.folder / "volume"
    folder.mkdir()
    trial.data = folder / "data"
    return chamber(folder, SIZE)
