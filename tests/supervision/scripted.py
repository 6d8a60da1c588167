"""Scripted actors under a supervisor, and the log of what happened and when."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from observer_actors.supervision import ChildSpec, Events, Life, LifecycleEvent, RestartPolicy, Strategy, Supervisor

Run = Callable[[Life], Awaitable[None]]
PATIENT = RestartPolicy(intensity=3, window_s=100.0, backoff_first_s=1.0, backoff_max_s=4.0)
"""Delays of 1, 2, 4, 4 s with full jitter."""


class Tree:
    """A supervisor, and everything that it told, with the seconds since its start."""

    def __init__(
        self,
        *children: ChildSpec,
        name: str = "top",
        on_step: Callable[[str, str], None] = lambda _name, _step: None,
        **settings: Any,
    ) -> None:
        self.log: list[tuple[float, LifecycleEvent]] = []
        self.events = Events(self._note)
        settings = {"policy": PATIENT, "jitter": lambda: 1.0, "strategy": Strategy.ONE_FOR_ONE, **settings}
        self.supervisor = Supervisor(name, children, events=self.events, **settings)
        self.life = Life(name, 1, on_progress=self._note_progress, on_step=on_step)
        self.progress = 0
        self.error: BaseException | None = None
        self._began = trio.current_time()
        self.over = trio.Event()

    def _note(self, event: LifecycleEvent, _error: Exception | None) -> None:
        self.log.append((round(trio.current_time() - self._began, 3), event))

    def _note_progress(self) -> None:
        self.progress += 1

    async def run(self) -> None:
        try:
            await self.supervisor.run(self.life)
        except Exception as error:  # noqa: BLE001 - what it lets out is what a test looks at
            self.error = error
        self.over.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Tree]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.run)
            await self.life.wait_ready()
            yield self
            nursery.cancel_scope.cancel()

    async def stop(self) -> None:
        self.life.stopping.set()
        await self.over.wait()

    def told(self, *kinds: type[LifecycleEvent]) -> list[LifecycleEvent]:
        return [event for _, event in self.log if not kinds or isinstance(event, kinds)]

    def at(self, *kinds: type[LifecycleEvent]) -> list[tuple[float, str]]:
        return [(when, event.actor) for when, event in self.log if not kinds or isinstance(event, kinds)]

    def states(self) -> list[str]:
        return [actor.state for actor in self.supervisor.statistics()]


async def serve(life: Life) -> None:
    life.ready()
    await trio.sleep_forever()


async def drain(life: Life) -> None:
    life.ready()
    await life.stopping.wait()


def crashes(after_s: float = 0.0, *, times: float = float("inf"), progress: bool = False) -> Run:
    """An actor that fails ``after_s`` seconds after it got ready, so many times, then serves."""
    left = times

    async def run(life: Life) -> None:
        nonlocal left
        life.ready()
        if left <= 0:
            await trio.sleep_forever()
        left -= 1
        await trio.sleep(after_s)
        if progress:
            life.progress()
        raise ValueError("crashed")

    return run
