"""How each contestant is started and stopped. Each run gets a fresh process, and a data directory of its own."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from compileall import compile_dir
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

import httpx
import trio

from benchmarks.bench import ROOT, Bench
from tests.harness import free_port, own_environment
from tests.parity.gateway import running_gateway
from tests.parity.program import ProgramFailed, answers, end_of, started, wait_until
from tests.parity.seed import CYCLE_SECONDS, running_seed

STOP_SECONDS_MAX: Final = 45.0
"""A daemon that has been given more than it can take still finishes what it accepted."""
ANSWER_SECONDS_MAX: Final = 5.0


@dataclass(frozen=True)
class Server:
    """A contestant that answers on the loopback interface."""

    port: int
    pid: int
    start_seconds: float
    """From its spawning to the first answer that says it is ready."""

    @property
    def url(self) -> str:
        """Base of its paths, where it speaks HTTP."""
        return f"http://127.0.0.1:{self.port}"

    async def get(self, path: str) -> str:
        """Give the text that it answers with."""
        async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
            response = await client.get(self.url + path)
            return response.raise_for_status().text


@asynccontextmanager
async def fresh_folder(bench: Bench, name: str) -> AsyncIterator[Path]:
    """Make a folder on the disk that is measured, and remove it with all that is in it."""
    folder = Path(mkdtemp(dir=bench.folder, prefix=f"{name}-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def running_ours(
    bench: Bench,
    data: Path | None = None,
    environment: Mapping[str, str] | None = None,
    *,
    profile: Path | None = None,
) -> AsyncIterator[Server]:
    """Run our daemon with its default settings: fdatasync before the answer, compression, all actors.

    Its modules are compiled beforehand, as they are where it is installed: where nobody may write bytecode
    (``PYTHONDONTWRITEBYTECODE``), each start would compile all of them.

    :param data: its data directory; a fresh one unless given.
    :param profile: where `profiled` shall write what its event loop does.
    """
    async with fresh_folder(bench, "ours") as folder:
        port = free_port()
        given = ["--port", str(port), "--data-dir", str(data or folder / "data")]
        program = ["observer_actors"] if profile is None else ["benchmarks.profiled", str(profile)]
        command = [sys.executable, "-m", *program, "serve", *given]
        own = [f"{name}={value}" for name, value in (environment or {}).items()]
        name = "ours, profiled" if profile is not None else " ".join(["ours", *own])
        bench.note_command(name, [*own, "python", *command[1:]])
        log = folder / "log"
        if not await trio.to_thread.run_sync(partial(compile_dir, ROOT / "observer_actors", quiet=1)):
            raise ProgramFailed("the daemon's modules cannot be compiled")
        began = time.perf_counter()
        env = own_environment(**(environment or {}))
        async with started(command, folder=ROOT, env=env, log=log) as process:
            await answers(process, f"http://127.0.0.1:{port}/ready", log)
            yield Server(port, process.pid, time.perf_counter() - began)
            await _end(bench, process, "ours")


@asynccontextmanager
async def running_the_seed(bench: Bench) -> AsyncIterator[Server]:
    """Run the program that ours replaces, under Bun, with a gateway that answers and no cycle."""
    bun, program = bench.tool("bun"), bench.tool("seed")
    settings = ["GATEWAY_URL=URL", "OBSERVER_PORT=PORT", f"OBSERVER_CYCLE={CYCLE_SECONDS}"]
    bench.note_command("the seed", [*settings, "bun", "run", os.path.relpath(program, ROOT)])  # noqa: ASYNC240 - it only counts dots
    with running_gateway() as gateway:
        async with running_seed(bun, program, gateway_url=gateway.url) as seed:
            yield Server(int(seed.base_url.rpartition(":")[2]), seed.process.pid, 0.0)


@asynccontextmanager
async def running_redis(bench: Bench) -> AsyncIterator[Server]:
    """Run Redis with an append-only file that is synced before each answer.

    In its favour: no snapshots, and the file is never rewritten during a run. Our daemon seals and compresses.
    """
    async with fresh_folder(bench, "redis") as folder:
        port = free_port()
        settings = {
            "--port": str(port),
            "--bind": "127.0.0.1",
            "--dir": str(folder),
            "--appendonly": "yes",
            "--appendfsync": "always",
            "--save": "",
            "--auto-aof-rewrite-percentage": "0",
        }
        command = [str(bench.tool("redis-server")), *(word for pair in settings.items() for word in pair)]
        bench.note_command("redis", command)
        async with started(command, folder=folder, env=own_environment(), log=folder / "log") as process:
            await wait_until(lambda: _pong(process, port, folder / "log"), seconds_max=10, what="an answer from Redis")
            yield Server(port, process.pid, 0.0)
            await _end(bench, process, "redis")


@asynccontextmanager
async def running_bare(bench: Bench) -> AsyncIterator[Server]:
    """Run the bare limit: HTTP parsed by httptools on trio, answered, nothing stored."""
    async with fresh_folder(bench, "bare") as folder:
        port = free_port()
        command = [sys.executable, "-m", "benchmarks.bare_server", str(port)]
        bench.note_command("bare HTTP", ["python", *command[1:]])
        log = folder / "log"
        async with started(command, folder=ROOT, env=own_environment(), log=log) as process:
            await answers(process, f"http://127.0.0.1:{port}/", log)
            yield Server(port, process.pid, 0.0)


async def _end(bench: Bench, process: trio.Process, name: str) -> None:
    """Ask a process to end; what does not is killed when its block ends, and that is said."""
    process.send_signal(signal.SIGTERM)
    with trio.move_on_after(STOP_SECONDS_MAX):
        await process.wait()
        return
    bench.results.remark(f"{name} did not end within {STOP_SECONDS_MAX:.0f} s of SIGTERM after a run, and was killed")


async def _pong(process: trio.Process, port: int, log: Path) -> bool | None:
    if process.poll() is not None:
        raise ProgramFailed(f"Redis ended with {process.returncode}: {end_of(log)}")
    try:
        return await redis_says(port, "PING") == "+PONG" or None
    except OSError:
        return None


async def redis_says(port: int, command: str) -> str:
    """Give the first line of Redis's answer to an inline command."""
    with trio.fail_after(ANSWER_SECONDS_MAX):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(command.encode() + b"\r\n")
            return (await stream.receive_some(100)).decode().strip()
