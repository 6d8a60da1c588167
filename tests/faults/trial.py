"""One round: a data directory, callers that remember what they were told, and what must be true in the end."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from observer_actors.journal import verify
from tests.daemon.load import Ledger, clients, settle, stored_ops
from tests.faults.scenario import Seen
from tests.harness import Daemon, running_daemon

CLIENTS: Final = 6
PAD_CHARS: Final = 60
LIMIT_S: Final = 60.0
"""Whatever is waited for comes sooner, on a slow machine too."""
LOOK_S: Final = 0.01
CONFIG: Final = """
[journal]
segment_bytes_max = 20_000

[admission]
wait_seconds_max = 1.0

[cycle]
seconds = 0.2
consolidate_every = 1
"""
"""A segment holds about 50 ops: sealing and compaction happen all the time."""


class Trial:
    """See the module.

    :param folder: an empty one.
    :param repeats: how many faults to inject.
    """

    def __init__(self, folder: Path, seed: int, repeats: int) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.chance = random.Random(seed)
        self.repeats = repeats
        self.ledger = Ledger()
        self.load = clients(CLIENTS, self.ledger, seed, pad=PAD_CHARS)
        self.remarks: Counter[str] = Counter()
        self._config = folder / "observer.toml"
        self._config.write_text(CONFIG)
        self._faults = self._starts = 0
        self._ready_s_max = self._recovered_s_max = 0.0

    @asynccontextmanager
    async def daemon(
        self,
        *,
        prefix: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        wait_ready: bool = True,
    ) -> AsyncIterator[Daemon]:
        """Run the daemon; it is gone at the end, in whatever way."""
        started = trio.current_time()
        self._starts += 1
        async with running_daemon(
            self.data,
            "--config",
            str(self._config),
            prefix=prefix,
            environment=environment,
            wait_ready=wait_ready,
            ready_s=LIMIT_S,
        ) as daemon:
            if wait_ready:
                self._ready_s_max = max(self._ready_s_max, trio.current_time() - started)
            yield daemon

    @asynccontextmanager
    async def callers(self, daemon: Daemon) -> AsyncIterator[None]:
        """Have all clients send meanwhile. They end by themselves when nobody listens any more."""
        async with trio.open_nursery() as nursery:
            for client in self.load:
                nursery.start_soon(client.run, daemon.url)
            yield
            nursery.cancel_scope.cancel()

    def injected(self, times: int = 1) -> None:
        """Count a fault."""
        self._faults += times

    async def more(self, ops: int) -> None:
        """Wait until so many more ops have been acknowledged."""
        with trio.fail_after(LIMIT_S):
            await self.ledger.wait_owed(len(self.ledger.owed) + ops)

    async def recovered(self) -> None:
        """The fault is over: wait until ops are acknowledged again, more than can have been under way."""
        over = trio.current_time()
        await self.more(100)
        self._recovered_s_max = max(self._recovered_s_max, trio.current_time() - over)

    async def refused(self) -> None:
        """Wait for a refusal that comes from now on."""
        before = self._refusals()
        await until(lambda: self._refusals() > before)

    def _refusals(self) -> int:
        return sum(count for status, count in self.ledger.answers.items() if status != 200)

    async def finish(self) -> None:
        """Start the daemon once more, and end with it."""
        async with self.daemon() as daemon:
            await self.finish_with(daemon)

    async def finish_with(self, daemon: Daemon, data: Path | None = None) -> None:
        """Let those who retry get through, stop the daemon, and hold what was promised against what is there.

        :param data: where its directory is seen by us, if that is another place.
        """
        with trio.fail_after(LIMIT_S):
            await settle(self.load, daemon.url)
            await self._check_convergence(daemon)
        if data is not None:
            self.check(data)  # it may be gone with the daemon
        assert await daemon.stop() == 0
        if data is None:
            self.check(self.data)

    async def _check_convergence(self, daemon: Daemon) -> None:
        """The consumers come to what a clean run gives."""

        async def counted() -> bool:
            lifetime = (await daemon.json("/stats"))["lifetime"]
            return bool(lifetime["last_seq"] == (await daemon.json("/health"))["last_seq"])

        await until(counted)
        lifetime = (await daemon.json("/stats"))["lifetime"]
        assert lifetime["total"] == lifetime["last_seq"] == lifetime["successes"] + lifetime["failures"]
        assert lifetime["total"] >= len(self.ledger.owed)

    def check(self, data: Path) -> None:
        """Hold the journal against what callers were told.

        :raises AssertionError: it is not so.
        """
        ops = stored_ops(data)
        self.ledger.check(ops)
        retried = {name for name, event in self.ledger.sent.items() if "id" in event}
        assert retried <= self.ledger.owed, "a client that retries gets through in the end"
        report = verify(data)
        assert [finding for finding in report.findings if finding.severity == "damage"] == []
        assert (report.ops, report.last_seq) == (len(ops), len(ops))

    def seen(self) -> Seen:
        """Sum up."""
        return Seen(
            faults=self._faults,
            starts=self._starts,
            acknowledged=len(self.ledger.owed),
            unanswered=len(self.ledger.unanswered),
            answers=dict(self.ledger.answers),
            ready_s_max=self._ready_s_max,
            recovered_s_max=self._recovered_s_max,
            remarks=dict(self.remarks),
        )


async def until(condition: Callable[[], bool] | Callable[[], Awaitable[bool]], *, within_s: float = LIMIT_S) -> None:
    """Wait until it holds; looked at again and again, for another process gives no signal of ours."""
    with trio.fail_after(within_s):
        while True:
            holds = condition()
            if holds if isinstance(holds, bool) else await holds:
                return
            await trio.sleep(LOOK_S)
