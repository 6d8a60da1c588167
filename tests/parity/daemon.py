"""This daemon, as a person starts it: the command line, a free port, a data directory of its own."""

import re
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import trio

from tests.harness import READY_S, own_environment
from tests.parity.program import Program, ProgramFailed, answers, end_of, started, stop, wait_until

COMMAND: Final = (sys.executable, "-m", "observer_actors", "serve")
ROOT: Final = Path(__file__).parents[2]

_ADDRESS: Final = re.compile(r"\b(\d+\.\d+\.\d+\.\d+):(\d+)\b")


@asynccontextmanager
async def running_daemon(command: Sequence[str] = COMMAND) -> AsyncIterator[Program]:
    """Run it with its defaults, without a gateway or a model, until the block ends.

    :raises ProgramFailed: it does not come up, or does not exit with 0 when told to stop.
    """
    with TemporaryDirectory(prefix="parity-ours-") as made:
        data, log = Path(made) / "data", Path(made) / "log"
        line = [*command, "--port", "0", "--data-dir", str(data)]
        async with started(line, folder=ROOT, env=own_environment(), log=log) as process:
            url = await _address(process, log)
            await answers(process, f"{url}/ready", log)
            yield Program("ours", url, data / "_observer" / "ops.jsonl", log, process)
            if (code := await stop(process)) != 0:
                raise ProgramFailed(f"ours exited with {code} after SIGTERM")


async def _address(process: trio.Process, log: Path) -> str:
    """Read the bound address from the first line of the log."""

    async def look() -> str | None:
        if process.poll() is not None:
            raise ProgramFailed(f"ours ended with {process.returncode}: {end_of(log)}")
        return _first_line(log)

    first = await wait_until(look, seconds_max=READY_S, what="the first line of our log")
    found = _ADDRESS.search(first)
    if found is None:
        raise ProgramFailed(f"no address in the first line of our log: {end_of(log)}")
    return f"http://{found[0]}"


def _first_line(log: Path) -> str | None:
    """Return it once it is complete."""
    line, newline, _ = log.read_text(encoding="utf-8").partition("\n")
    return line if newline else None
