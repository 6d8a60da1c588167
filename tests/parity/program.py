"""A program under observation: a process, where it answers, and the file it writes."""

import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import httpx
import trio

from tests.harness import READY_S, STOP_S

T = TypeVar("T")

POLL_SECONDS: Final = 0.001
"""Between two looks at what another process does; it has no way to tell us."""


class ProgramFailed(Exception):
    """A program did not start, did not stop, or broke off; the text holds the end of what it said."""


@dataclass(frozen=True)
class Program:
    """A running program. It writes its standard error to ``log`` and its ops to ``data_file``."""

    name: str
    base_url: str
    data_file: Path
    log: Path
    process: trio.Process


async def wait_until(look: Callable[[], Awaitable[T | None]], *, seconds_max: float, what: str) -> T:
    """Look again and again until there is something to return.

    :raises ProgramFailed: it did not come within ``seconds_max``.
    """
    with trio.move_on_after(seconds_max):
        while (found := await look()) is None:  # noqa: ASYNC110 - another process can set no event of ours
            await trio.sleep(POLL_SECONDS)
        return found
    raise ProgramFailed(f"{what}: not within {seconds_max:g} s")


@asynccontextmanager
async def started(
    command: Sequence[str | Path], *, folder: Path, env: Mapping[str, str], log: Path
) -> AsyncIterator[trio.Process]:
    """Run ``command`` in ``folder`` with this environment and no other; it is killed if the block leaves it running."""
    with log.open("wb") as sink:
        process = await trio.lowlevel.open_process(
            command, cwd=folder, env=dict(env), stdin=subprocess.DEVNULL, stdout=sink, stderr=sink
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            with trio.CancelScope(shield=True):  # a killed process ends; without this it stays a zombie
                await process.wait()


async def answers(process: trio.Process, url: str, log: Path) -> None:
    """Wait until ``url`` answers 200.

    :raises ProgramFailed: the process ended, or did not answer in time.
    """

    async def look() -> bool | None:
        if process.returncode is not None or process.poll() is not None:
            raise ProgramFailed(f"ended with {process.returncode} before it answered: {end_of(log)}")
        try:
            return (await client.get(url)).status_code == httpx.codes.OK or None
        except httpx.TransportError:
            return None

    async with httpx.AsyncClient(trust_env=False, timeout=5.0) as client:
        await wait_until(look, seconds_max=READY_S, what=f"an answer from {url}")


async def stop(process: trio.Process) -> int:
    """Ask the process to end with SIGTERM, and return its exit code.

    :raises ProgramFailed: it is still there after `STOP_S`.
    """
    process.send_signal(signal.SIGTERM)
    with trio.move_on_after(STOP_S):
        return await process.wait()
    raise ProgramFailed(f"still running {STOP_S:g} s after SIGTERM")


def end_of(log: Path) -> str:
    """Return the last of what a program has said."""
    return log.read_text(encoding="utf-8", errors="replace").strip()[-1_000:]
