"""The daemon inside the test's own process: real listener, real disk, real trio, and a hook at every step."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager

import trio

from observer_actors.daemon import Daemon
from observer_actors.http.listeners import open_listeners
from observer_actors.journal import DirectoryLock, Disk
from observer_actors.settings import Settings
from observer_actors.supervision import ActorStatistics

END_S = 20.0


class Crash(Exception):
    """Raised on purpose."""


class Crashes:
    """A hook that counts the steps of all actors, and raises at those planned.

    :param planned: (actor, step) -> at which occurrences, counted from 1.
    """

    def __init__(self, planned: dict[tuple[str, str], tuple[int, ...]] | None = None) -> None:
        self.seen: Counter[tuple[str, str]] = Counter()
        self._planned = {(*key, n) for key, occurrences in (planned or {}).items() for n in occurrences}
        self._happened = trio.Event()

    def __call__(self, name: str, step: str) -> None:
        self.seen[name, step] += 1
        due = (name, step, self.seen[name, step])
        if due in self._planned:
            self._planned.remove(due)
            if not self._planned:
                self._happened.set()
            raise Crash(f"{name} at {step}, occurrence {due[2]}")

    async def wait_happened(self) -> None:
        """Wait until all of them have."""
        if self._planned:
            await self._happened.wait()


@asynccontextmanager
async def daemon_inside(
    settings: Settings,
    *,
    disk: Disk | None = None,
    on_step: Callable[[str, str], None] = lambda _name, _step: None,
    wait_ready: bool = True,
    make: type[Daemon] = Daemon,
) -> AsyncIterator[Daemon]:
    """Run a daemon; at the end it is drained, and must have ended by itself."""
    with ExitStack() as stack:
        stack.enter_context(DirectoryLock(settings.data_dir))
        listeners = [stack.enter_context(listener) for listener in open_listeners(settings.listen, needs_token=False)]
        daemon = make(settings, listeners, disk=disk, on_step=on_step)
        async with trio.open_nursery() as nursery:
            if wait_ready:
                with trio.fail_after(END_S):
                    await nursery.start(daemon.run)
            else:
                nursery.start_soon(daemon.run)
            yield daemon
            daemon.stop()
            nursery.cancel_scope.deadline = trio.current_time() + END_S
        assert not nursery.cancel_scope.cancelled_caught, "did not stop by itself"


def leaves(daemon: Daemon) -> dict[str, ActorStatistics]:
    """Give the actors as they stand now, without their supervisors."""
    return {actor.name: actor for branch in daemon.root.statistics() for actor in branch.children}


async def eventually(condition: Callable[[], object], *, within_s: float = END_S) -> None:
    """Wait until it holds; looked at again and again, for what it is about gives no signal."""
    with trio.fail_after(within_s):
        while not condition():  # noqa: ASYNC110 - see above
            await trio.sleep(0.005)


async def caught_up(daemon: Daemon) -> None:
    """Wait until every consumer has taken in all that is committed."""
    with trio.fail_after(END_S):
        for feed in daemon.feeds.values():
            await feed.reached(daemon.commits.last_seq)
