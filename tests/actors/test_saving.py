"""What an actor knows is saved at its end, but not after a crash, which may have left an op half taken in."""

from __future__ import annotations

import errno

import pytest
import structlog
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from observer_actors.actors.saving import Snapshots, saved
from observer_actors.supervision import Life
from observer_actors.threads import in_thread


class Actor:
    """Takes in an op every second, in two steps; saves every 10 s."""

    def __init__(self, crashes_at: int = 0, error: type[BaseException] = RuntimeError) -> None:
        self.crashes_at = crashes_at
        self.error = error
        self.known = [0, 0]
        self.disk = [0, 0]

    async def save(self) -> None:
        await trio.lowlevel.checkpoint()
        self.disk = list(self.known)

    async def run(self) -> None:
        log = structlog.get_logger()
        life = Life("actor", 1, on_progress=lambda: None, on_step=lambda _name, _step: None)
        async with saved(self.save, life, every_s=10, budget_s=1, log=log) as nursery:
            nursery.start_soon(self.take_in)

    async def take_in(self) -> None:
        for op in range(1, 26):
            await trio.sleep(1)
            self.known[0] = op
            if op == self.crashes_at:
                raise self.error("in the midst of it")
            self.known[1] = op


async def test_at_the_end_all_is_saved(autojump_clock: MockClock) -> None:
    actor = Actor()
    with trio.move_on_after(100):
        await actor.run()
    assert actor.disk == [25, 25]
    assert autojump_clock.current_time() == 100


async def test_who_is_stopped_saves_what_it_knows(autojump_clock: MockClock) -> None:
    actor = Actor()
    with trio.move_on_after(17.5):
        await actor.run()
    assert actor.disk == [17, 17]
    assert autojump_clock.current_time() == 17.5


async def test_who_cannot_save_at_the_end_is_told_of_the_disk_whether_it_hangs_or_is_full(
    autojump_clock: MockClock,
) -> None:
    actor = Actor()
    with capture_logs() as lines, trio.move_on_after(5):
        actor.save = trio.sleep_forever  # type: ignore[method-assign]
        await actor.run()
    assert [(line["event"], line["hint"].partition(";")[0]) for line in lines] == [
        ("save_abandoned", "the disk hangs or is full, or another program holds the store")
    ]
    assert autojump_clock.current_time() == 6


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
async def test_a_crash_leaves_what_was_saved_before(autojump_clock: MockClock, error: type[BaseException]) -> None:
    actor = Actor(crashes_at=17, error=error)
    with pytest.RaisesGroup(error, flatten_subgroups=True):
        await actor.run()
    assert actor.known == [17, 16]
    assert actor.disk == [10, 10]
    assert autojump_clock.current_time() == 17


async def test_a_disk_that_refuses_is_told_of_once_and_again_when_it_says_otherwise() -> None:
    disk: list[int] = [errno.ENOSPC, errno.ENOSPC, errno.EIO, 0, errno.EIO]

    def write() -> None:
        if code := disk.pop(0):
            raise OSError(code, "refused")

    with capture_logs() as lines:
        snapshots = Snapshots("the counters", in_thread, structlog.get_logger())
        written = [await snapshots.written(write) for _ in range(5)]
    assert written == [False, False, False, True, False]
    assert [(line["event"], line["error"].split()[0]) for line in lines] == [
        ("snapshot_failed", "ENOSPC"),
        ("snapshot_failed", "EIO"),
        ("snapshot_failed", "EIO"),
    ]
