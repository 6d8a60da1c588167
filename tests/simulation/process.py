"""One simulated process: a daemon that can die at any time, and the connections of its callers."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio
from trio.abc import Clock

from observer_actors.actors.surroundings import Surroundings
from observer_actors.daemon import Daemon
from observer_actors.settings import Settings
from observer_actors.supervision import GivenUp
from tests.simulation.disk import SimulatedDisk

EPOCH_NS: Final = 1_800_000_000_000_000_000


class TimeOfDay:
    """The time of day: the virtual clock's, and what it was set forward or back."""

    def __init__(self, clock: Clock) -> None:
        self.ahead_s = 0.0
        self._clock = clock

    def __call__(self) -> int:
        """Nanoseconds since 1970."""
        return EPOCH_NS + round((self._clock.current_time() + self.ahead_s) * 1e9)


class Process:
    """See the module.

    :param on_step: called at each step of an actor, while the process lives.
    """

    def __init__(
        self,
        settings: Settings,
        listener: socket.socket,
        disk: SimulatedDisk,
        around: Surroundings,
        *,
        on_step: Callable[[Process, str, str], None],
    ) -> None:
        self.is_dead = False
        self.gave_up = False
        """It ended by itself: the root's restarts were exhausted."""
        self.over = trio.Event()
        self.serving = trio.Event()
        self.stopping = False
        self._scope = trio.CancelScope()
        self._connections: set[trio.CancelScope] = set()
        self._on_step = on_step
        self.daemon = Daemon(settings, [listener], disk=disk, around=around, on_step=self._step)

    @property
    def takes_events(self) -> bool:
        """Whether callers reach it."""
        return self.serving.is_set() and not (self.stopping or self.is_dead or self.over.is_set())

    async def run(self) -> None:
        """Serve until stopped, given up or dead."""
        try:
            with self._scope:
                await self.daemon.run()
        except* GivenUp:
            self.gave_up = True
        finally:
            self._cut_connections()
            self.over.set()

    def stop(self) -> None:
        """Tell it to drain, as SIGTERM does."""
        self.stopping = True
        self.daemon.stop()

    def die(self) -> None:
        """Be no more. What still runs of it finds a disk and a network that refuse; nobody hears from it again."""
        self.is_dead = True
        self._scope.cancel()
        self._cut_connections()

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Be cut off when the process ends."""
        with trio.CancelScope() as scope:
            self._connections.add(scope)
            try:
                yield
            finally:
                self._connections.discard(scope)

    def _cut_connections(self) -> None:
        for scope in self._connections:
            scope.cancel()

    def _step(self, name: str, step: str) -> None:
        if self.is_dead:
            return
        if (name, step) == ("ingest", "serving"):
            self.serving.set()
        self._on_step(self, name, step)


class Kept:
    """A SQLite file, kept as it was when a process died; what it does on its way out does not count."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._aside: dict[str, bytes] = {}

    def keep(self) -> None:
        self._aside = {path.name: path.read_bytes() for path in self._files()}

    def put_back(self) -> None:
        for path in self._files():
            path.unlink()
        for name, content in self._aside.items():
            self._path.with_name(name).write_bytes(content)

    def _files(self) -> list[Path]:
        return sorted(self._path.parent.glob(f"{self._path.name}*"))
