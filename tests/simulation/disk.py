"""The disk of a simulated process: `FakeDisk`, whose calls take virtual time, and which can go on after a death."""

from __future__ import annotations

from collections.abc import Callable

from tests.fakes.disk import FakeDisk, Kind
from tests.simulation.turns import pause


class Defect(Exception):
    """No error of the disk: something that nobody has foreseen."""


class Killed(Defect):
    """What a dead process gets. No `OSError`: a sync that is cut off has not failed, and loses nothing."""


class SimulatedDisk(FakeDisk):
    """See the module.

    :param seed: see `FakeDisk`.
    :param happened: told of each call, by kind.
    """

    def __init__(self, seed: int, happened: Callable[[str], None]) -> None:
        super().__init__(seed)
        self.defect_after: int | None = None
        """Calls until one raises a `Defect`."""
        self.death_after: int | None = None
        """Calls until one at which the process dies."""
        self.on_death: Callable[[], None] = lambda: None
        self._happened = happened
        self._is_dead = False

    def step(self, kind: Kind) -> None:
        """Take a moment; then count a call, and fail if that is due."""
        pause()
        if self._is_dead:
            raise Killed("this process is no more")
        self._happened(kind)
        self.death_after = _sooner(self.death_after)
        if self.death_after == 0:
            self.on_death()
            raise Killed("this process is no more")
        self.defect_after = _sooner(self.defect_after)
        if self.defect_after == 0:
            self.defect_after = None
            raise Defect(kind)
        super().step(kind)

    def killed(self, seed: int) -> SimulatedDisk:
        """End this process: give the disk as the next one finds it, with all that the system has in memory."""
        return self._successor(self, seed)

    def unplugged(self, seed: int) -> SimulatedDisk:
        """Lose power: give the disk as it comes up again."""
        return self._successor(self.crash(seed), seed)

    def _successor(self, left: FakeDisk, seed: int) -> SimulatedDisk:
        after = type(self)(seed, self._happened)
        after._names, after._names_on_disk = left._names, left._names_on_disk  # noqa: SLF001 - one disk to another
        after._directories, after._changes = left._directories, left._changes  # noqa: SLF001
        after.short_writes, after.quota_bytes = self.short_writes, self.quota_bytes
        after._failures = self._failures  # noqa: SLF001
        after.on_death = self.on_death
        self._is_dead = True
        return after


def _sooner(after: int | None) -> int | None:
    return None if after is None else after - 1
