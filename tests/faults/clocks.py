"""The wall clock jumps: seconds to a year, back and forth. The monotonic clock does not, as on a machine."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

import trio

from tests.faults.scenario import Unavailable
from tests.faults.trial import Trial

SOURCE: Final = Path(__file__).with_name("clock.c")
JUMPS_S: Final = (-86_400, -3_600, -60, -1, 1, 60, 3_600, 86_400, 31_536_000)


async def clock_jumps(trial: Trial) -> None:
    """The clock is set while the daemon runs, and it is another one at the next start."""
    moved = trial.folder / "moved"
    moved.write_text("0")
    environment = {"LD_PRELOAD": str(await _built(trial.folder)), "MOVED_CLOCK": str(moved)}
    for is_last in (False, True):
        async with trial.daemon(environment=environment) as daemon:
            async with trial.callers(daemon):
                for _ in range(trial.repeats):
                    await trial.more(trial.chance.randint(50, 200))
                    moved.write_text(str(trial.chance.choice(JUMPS_S)))
                    trial.injected()
                    await trial.recovered()
            assert not [line for line in daemon.log if line["event"] == "actor_failed"]
            if is_last:
                await trial.finish_with(daemon)
            else:
                assert await daemon.stop() == 0


async def _built(folder: Path) -> Path:
    """Compile what moves the clock.

    :raises Unavailable: there is no C compiler, or no C library to compile with.
    """
    library = folder / "clock.so"
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE)]
    try:
        done = await trio.run_process(command, capture_stderr=True, check=False, stdin=subprocess.DEVNULL)
    except FileNotFoundError as error:
        raise Unavailable("cc is not installed") from error
    if done.returncode:
        raise Unavailable(f"cc: {done.stderr.decode(errors='replace').strip()}")
    return library
