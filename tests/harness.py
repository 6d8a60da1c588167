"""The real daemon as a process: started on a free port, spoken to over its socket, stopped or killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx
import msgspec
import trio

from observer_actors.op import Op, decode_op
from tests.forked import ForkedForTrio, may_fork
from tests.processes import refuse_crash, resident_bytes

READY_S: Final = 40.0
STOP_S: Final = 40.0
"""Both are reached only by what fails: on a machine that has much else to do, a second's start takes twenty."""
TOLD_S: Final = 10.0
LOOK_S: Final = 0.02
"""Between two looks at what gives no signal: without a pause they would keep the processor from what is waited for."""

T = TypeVar("T")


def own_environment(**more: str) -> dict[str, str]:
    """Give this process's environment without what says how a daemon is configured, or where one is."""
    foreign = ("OBSERVER_", "GATEWAY_URL", "LAKEHOUSE_URL")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)} | more


def free_port() -> int:
    """Give a port of the loopback interface that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Daemon:
    """A daemon that runs, its log, and a client of it."""

    def __init__(self, process: trio.Process | ForkedForTrio, data_dir: Path) -> None:
        self.process = process
        self.data_dir = data_dir
        self.url = ""
        self.log: list[dict[str, Any]] = []
        self.raw_log: list[str] = []
        self.client = httpx.AsyncClient(trust_env=False, timeout=30)
        self._logged = trio.Event()
        self._log_ended = trio.Event()

    async def read_log(self) -> None:
        """Collect the log until the process ends."""
        assert self.process.stderr is not None
        rest = b""
        async for chunk in self.process.stderr:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._take(line.decode())
        self._log_ended.set()
        self._logged.set()

    async def log_ended(self) -> None:
        """Wait until the whole log has been read, which is after the process has ended."""
        with trio.fail_after(STOP_S):
            await self._log_ended.wait()

    def _take(self, line: str) -> None:
        self.raw_log.append(line)
        try:
            fields = msgspec.json.decode(line)
        except msgspec.DecodeError:
            fields = {"event": "not_json", "text": line}
        self.log.append(fields)
        self._logged.set()
        self._logged = trio.Event()

    async def logged(self, event: str, *, within_s: float = READY_S, **fields: object) -> dict[str, Any]:
        """Wait for a line of the log with this event name and these fields."""
        with trio.fail_after(within_s):
            while True:
                for line in self.log:
                    if line.get("event") == event and fields.items() <= line.items():
                        return line
                if self.process.returncode is not None and self._logged.is_set():
                    raise AssertionError(f"ended without {event}:\n" + "\n".join(self.raw_log))
                with trio.move_on_after(0.5):
                    await self._logged.wait()

    async def ready(self, *, within_s: float = READY_S) -> None:
        """Wait until it takes events."""
        started = await self.logged("listening", within_s=within_s)
        self.url = started["url"]
        await self.logged("ready", within_s=within_s)

    async def get(self, path: str, **options: Any) -> httpx.Response:
        return await self.client.get(self.url + path, **options)

    async def json(self, path: str, **params: Any) -> Any:
        response = await self.get(path, params=params)
        assert response.status_code == 200, response.text
        return response.json()

    async def all_ops(self) -> list[Any]:
        """Read `/ops` page by page, from the oldest."""
        ops: list[Any] = []
        parameters = {"after_seq": "0", "limit": "1000"}
        while True:
            page = await self.json("/ops", **parameters)
            ops += page["ops"]
            if page["next"] is None:
                return ops
            parameters = {"cursor": page["next"], "limit": "1000"}

    async def metric(self, name: str) -> float:
        """Give a metric; where labels tell several of its name apart, the largest."""
        lines = (await self.get("/metrics")).text.splitlines()
        return max(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

    async def caught_up(self, *, within_s: float = STOP_S) -> None:
        """Wait until every consumer has taken in all that is on disk."""
        await seen(lambda: self.metric("observer_consumer_behind_ops"), lambda behind: not behind, within_s=within_s)

    async def cycles(self, count: int) -> None:
        """Let so many whole cycles pass."""
        now = max((line["cycle"] for line in self.log if line["event"] == "cycle"), default=0)
        await self.logged("cycle", cycle=now + count + 1)

    def resident_bytes(self) -> int:
        """Give the memory that it and its children take just now."""
        return resident_bytes(self.process.pid)

    async def post(self, path: str, body: object, **options: Any) -> httpx.Response:
        content = body if isinstance(body, bytes) else msgspec.json.encode(body)
        return await self.client.post(self.url + path, content=content, **options)

    async def event(self, **fields: object) -> dict[str, Any]:
        response = await self.post("/event", fields)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; give the exit status."""
        self.process.send_signal(number)
        with trio.fail_after(STOP_S):
            return await self.process.wait()

    def ops(self) -> list[Op]:
        return journal_ops(self.data_dir)


def journal_ops(data_dir: Path) -> list[Op]:
    """Read the active file as anyone would."""
    lines = (data_dir / "_observer" / "ops.jsonl").read_bytes().splitlines()
    return [decode_op(line) for line in lines]


@asynccontextmanager
async def running_daemon(
    data_dir: Path,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    wait_ready: bool = True,
    module: str = "observer_actors",
    prefix: Sequence[str] = (),
    ready_s: float = READY_S,
) -> AsyncIterator[Daemon]:
    """Start the daemon on a free port, and make sure that it is gone at the end.

    :param prefix: a command that becomes the daemon, such as ``prlimit --nofile=99``: its process id is the daemon's.
    :param ready_s: how long it may take until it takes events.
    """
    given = ["serve", "--port", "0", "--data-dir", str(data_dir), *arguments]
    process: trio.Process | ForkedForTrio
    if may_fork(module, environment or {}) and not prefix:
        process = ForkedForTrio(module, given, own_environment(**(environment or {})))
    else:
        process = await trio.lowlevel.open_process(
            [*prefix, sys.executable, "-m", module, *given],
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            env=own_environment(**(environment or {})),
        )
    daemon = Daemon(process, data_dir)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(daemon.read_log)
        try:
            if wait_ready:
                await daemon.ready(within_s=ready_s)
            yield daemon
        finally:
            with trio.CancelScope(shield=True):
                await daemon.client.aclose()  # first: a connection that stays open holds the drain up
                if process.returncode is None:
                    await _end(process)
                refuse_crash(process.returncode)
        nursery.cancel_scope.cancel()


async def seen(ask: Callable[[], Awaitable[T]], holds: Callable[[T], object] = bool, *, within_s: float = STOP_S) -> T:
    """Ask another process, which gives no signal, until its answer is as wanted; give that answer."""
    with trio.fail_after(within_s):
        while not holds(answer := await ask()):  # noqa: ASYNC110 - see above
            await trio.sleep(LOOK_S)
    return answer


async def _end(process: trio.Process | ForkedForTrio) -> None:
    process.terminate()
    with trio.move_on_after(STOP_S):
        await process.wait()
        return
    process.kill()
    await process.wait()


async def first_told(streams: Sequence[trio.SocketStream]) -> bytes:
    """Wait for the first of some connections that have asked nothing to be told something, and give that.

    Connections that wait together are accepted together, in any order: nobody can say which is one too many.
    """
    told: list[bytes] = []

    async def listen(stream: trio.SocketStream) -> None:
        told.append(await stream.receive_some())
        nursery.cancel_scope.cancel()

    with trio.fail_after(TOLD_S):
        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(listen, stream)
    return told[0]
