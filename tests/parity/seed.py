"""The program that is replaced, run as it is under Bun, from where it lies; it is never copied.

Also for the benchmark: `running_seed` gives its address and its file.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import trio

from tests.harness import free_port
from tests.parity.bun import Unavailable
from tests.parity.program import Program, ProgramFailed, answers, started, stop

ROOT: Final = Path(__file__).parents[2]

CYCLE_SECONDS: Final = 1_000_000
"""So long that no cycle begins during a run. More than 2^31 ms would begin at once."""

STARTS_MAX: Final = 3
"""Between finding a free port and binding it, someone else may take it."""

EXIT_SECONDS_MAX: Final = 20.0


def seed_program(given: Path | None = None) -> Path:
    """Return the program's path: the given one, or that in the folder of shared things.

    That folder is `OBSERVER_SHARED`, or `shared` beside the repository.

    :raises Unavailable: it is not there.
    """
    shared = Path(os.environ.get("OBSERVER_SHARED") or ROOT.parent / "shared")
    path = given or shared / "seed" / "observer.ts"
    if not path.is_file():
        raise Unavailable(f"the program to compare with is absent: {path} (give --seed, or set OBSERVER_SHARED)")
    return path.resolve()


@asynccontextmanager
async def running_seed(
    bun: Path, program: Path, *, gateway_url: str, cycle_seconds: int = CYCLE_SECONDS
) -> AsyncIterator[Program]:
    """Run it in a folder of its own, until the block ends.

    :param gateway_url: something that answers `GET /health` with JSON; also used as its `LAKEHOUSE_URL`.
    """
    with TemporaryDirectory(prefix="parity-seed-") as made:
        folder = Path(made)
        for attempt in range(1, STARTS_MAX + 1):
            port = free_port()
            environment = _environment(folder, gateway_url, port=port, cycle_seconds=cycle_seconds)
            url, log = f"http://127.0.0.1:{port}", folder / "log"
            async with started([bun, "run", program], folder=folder, env=environment, log=log) as process:
                try:
                    await answers(process, f"{url}/health", log)
                except ProgramFailed:
                    if attempt < STARTS_MAX and "in use" in log.read_text(encoding="utf-8"):
                        continue
                    raise
                yield Program("the seed", url, folder / "data" / "_observer" / "ops.jsonl", log, process)
                await stop(process)
                return


async def exit_code_without_gateway(bun: Path, program: Path) -> int:
    """Start it with a gateway that is not there, and return what it exits with.

    :raises ProgramFailed: it does not exit.
    """
    with TemporaryDirectory(prefix="parity-seed-") as made:
        folder = Path(made)
        nowhere = f"http://127.0.0.1:{free_port()}"
        environment = _environment(folder, nowhere, port=free_port(), cycle_seconds=CYCLE_SECONDS)
        async with started([bun, "run", program], folder=folder, env=environment, log=folder / "log") as process:
            with trio.move_on_after(EXIT_SECONDS_MAX):
                return await process.wait()
    raise ProgramFailed("the seed runs on without a gateway")


def _environment(folder: Path, gateway_url: str, *, port: int, cycle_seconds: int) -> dict[str, str]:
    """Give it nothing of ours: a proxy variable would send its calls elsewhere."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder),
        "DO_NOT_TRACK": "1",
        "GATEWAY_URL": gateway_url,
        "LAKEHOUSE_URL": gateway_url,
        "OBSERVER_PORT": str(port),
        "OBSERVER_CYCLE": str(cycle_seconds),
    }
