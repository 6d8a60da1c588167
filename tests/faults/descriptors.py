"""The process may open no more files: by a limit from the start, or by one that falls while it runs."""

from __future__ import annotations

import resource
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import trio

from tests.faults.trial import Trial, until
from tests.harness import Daemon

FILES_MAX: Final = 160
CONNECTIONS: Final = 220
KEPT: Final = 64
"""What the daemon keeps for itself, as it says in its settings."""
REFUSED_EVENT: Final = b"POST /event HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n["
"""Answered 400, and the connection stays open: nothing is stored that no caller knows of."""
HELD_S_MAX: Final = 2.5


async def more_connections_than_files(trial: Trial) -> None:
    """More connections than files: those beyond are turned away with 503, and everyone else is served."""
    prefix = ["prlimit", f"--nofile={FILES_MAX}:{FILES_MAX}", "--"]
    async with trial.daemon(prefix=prefix) as daemon:
        async with trial.callers(daemon):
            for _ in range(trial.repeats):
                await trial.more(50)
                async with AsyncExitStack() as stack:
                    turned_away = 0
                    for _ in range(CONNECTIONS):
                        turned_away += await _is_turned_away(daemon, stack)
                    assert CONNECTIONS - FILES_MAX + KEPT <= turned_away < CONNECTIONS
                    await trial.more(100)
                trial.injected(turned_away)
                await trial.recovered()
        await trial.finish_with(daemon)


async def _is_turned_away(daemon: Daemon, stack: AsyncExitStack) -> bool:
    """Open a connection and keep it; tell whether the daemon says that it is one too many."""
    stream = await trio.open_tcp_stream("127.0.0.1", int(daemon.url.rpartition(":")[2]))
    await stack.enter_async_context(stream)
    await stream.send_all(REFUSED_EVENT)
    with trio.fail_after(20):
        return b" 503 " in await stream.receive_some()


async def no_file_can_be_opened(trial: Trial) -> None:
    """The limit falls below what is open (EMFILE from all that opens anything), and rises again."""
    async with trial.daemon() as daemon:
        pid = daemon.process.pid
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        async with trial.callers(daemon):
            for _ in range(trial.repeats):
                await trial.more(trial.chance.randint(50, 200))
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (_open_files(pid), before[1]))
                trial.injected()
                await trio.sleep(trial.chance.uniform(0.2, HELD_S_MAX))
                resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
                await trial.recovered()
        await until(lambda: _is_ready(daemon))
        await trial.finish_with(daemon)


async def _is_ready(daemon: Daemon) -> bool:
    return (await daemon.get("/ready")).status_code == 200


def _open_files(pid: int) -> int:
    return max(int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()) + 1
