"""The supervisor: starts actors in order, restarts the one that fails, stops them in reverse.

The contract of an actor, ``async def actor(life: Life) -> None``:

* It serves until it is cancelled, or, when its spec says ``drains``, until ``life.stopping`` is set and it has
  finished what it had accepted. Returning before that is a failure.
* It begins by cleaning up whatever its last incarnation may have left, then calls ``life.ready()``.
* It calls ``life.progress()`` when it has finished something that a crash would not undo, which resets the backoff, and
  ``life.at(step)`` when it begins a step: operators see it in `/actors`, and tests make actors crash there.
* It lets errors out. Only the supervisor catches broadly, here, once (`_incarnate`).

After Erlang/OTP: `one_for_one` restarts the child that failed, `rest_for_one` also those started after it. Every
child is permanent. Restarts are counted per child. When they are exhausted, a supervisor escalates (it fails, and its
own supervisor decides; the root's failure ends the process) or parks the child (tried again every ``park_s`` until it
makes progress).

One task decides everything, `Supervisor.run`: it looks at the children, does the one thing that is to be done next
(`_act`), and looks again. Incarnations only leave notes (`is_ready`, `exited`, `error`) and wake it. A child that
shields itself from cancellation for ever cannot be ended from within Python: its supervisor waits for it, and the
daemon's hard exit or systemd's watchdog is what ends it.

A supervisor is an actor: trees are made by giving `Supervisor.run` to a `ChildSpec`.

One file, though a long one: contract, states and decisions are read together or not understood.
"""

from __future__ import annotations

import enum
import math
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Final, Protocol

import trio

from observer_actors.errors import ObserverError
from observer_actors.supervision.events import (
    ActorFailed,
    ActorParked,
    ActorStarted,
    ActorStopped,
    Events,
    RestartScheduled,
    RestartsExhausted,
    ShutdownForced,
)
from observer_actors.supervision.restart import RestartHistory, RestartPolicy

ERROR_CHARS_MAX: Final = 500
"""What `/actors` and an event keep of an error; the log has its traceback, too, where it may be a fault of ours."""


class Strategy(enum.Enum):
    """Which children are restarted when one fails."""

    ONE_FOR_ONE = "one_for_one"
    REST_FOR_ONE = "rest_for_one"


class Exhausted(enum.Enum):
    """What happens when a child's restarts are exhausted."""

    ESCALATE = "escalate"
    PARK = "park"


class State(enum.Enum):
    """Where a child stands."""

    STARTING = "starting"
    RUNNING = "running"
    BACKING_OFF = "backing_off"
    PARKED = "parked"
    STOPPING = "stopping"
    STOPPED = "stopped"


class GivenUp(ObserverError):
    """Restarts are exhausted; the last error is the cause."""


class NotServing(ObserverError):
    """An actor returned, or did not become ready in time."""


class Depth(Protocol):
    """What `/actors` shows of an actor's queue."""

    @property
    def depth(self) -> int:
        """How many wait."""

    @property
    def bound(self) -> int:
        """How many may wait."""


StepHook = Callable[[str, str], None]
"""Called with the actor's name and its step; in tests it raises."""


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How a supervisor runs one child.

    :param drains: stopping sets ``life.stopping`` and waits; else the child is cancelled at once.
    :param stop_s: time to stop in; after it the child is cancelled and `ShutdownForced` is emitted.
    :param start_s: time to become ready in.
    :param depth: where to read the depth of its queue.
    """

    name: str
    run: Callable[[Life], Awaitable[None]]
    drains: bool = False
    stop_s: float = 1.0
    start_s: float = 10.0
    depth: Callable[[], Depth] | None = None
    supervisor: Supervisor | None = None


@dataclass(frozen=True, slots=True)
class ActorStatistics:
    """One actor as `/actors` shows it. ``since_s`` is how long it has been in its state."""

    name: str
    state: str
    since_s: float
    incarnation: int
    restarts: int
    step: str
    step_s: float
    last_error: str
    mailbox_depth: int | None = None
    mailbox_bound: int | None = None
    strategy: str = ""
    children: tuple[ActorStatistics, ...] = ()


class Life:
    """What an incarnation of an actor gets from its supervisor."""

    def __init__(
        self,
        name: str,
        incarnation: int,
        *,
        on_progress: Callable[[], None],
        on_step: StepHook,
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.incarnation = incarnation
        self.stopping = trio.Event()
        self.step = ""
        self.step_since = trio.current_time()
        self._ready = trio.Event()
        self._on_ready = on_ready
        self._on_progress = on_progress
        self.on_step = on_step
        """Called by `at`, also of the actors below this one."""

    def ready(self) -> None:
        """Say that the actor serves; the supervisor starts the next one. Again is harmless."""
        if not self._ready.is_set():
            self._ready.set()
            self._on_ready()

    async def wait_ready(self) -> None:
        """Wait until the actor serves."""
        await self._ready.wait()

    def progress(self) -> None:
        """Say that the actor has finished something; its backoff begins anew."""
        self._on_progress()

    def at(self, step: str) -> None:
        """Say what the actor is doing now."""
        self.step = step
        self.step_since = trio.current_time()
        self.on_step(self.name, step)


@dataclass(slots=True, eq=False)
class _Child:
    """A spec and what has become of it.

    ``due``: when something is to be done about it: it is started then, or, when it is starting, given up on.
    """

    spec: ChildSpec
    index: int
    state: State = State.STOPPED
    since: float = 0.0
    due: float | None = None
    history: RestartHistory = field(default_factory=RestartHistory)
    parked: bool = False
    last_error: str = ""
    # Of the incarnation that runs, or was the last:
    incarnation: int = 0
    life: Life | None = None
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    is_ready: bool = False
    exited: trio.Event = field(default_factory=trio.Event)
    error: Exception | None = None

    def enter(self, state: State) -> None:
        if self.state is not state:
            self.state = state
            self.since = trio.current_time()

    @property
    def alive(self) -> bool:
        return self.state in _ALIVE

    @property
    def ended(self) -> bool:
        """Whether it is gone without having been told to stop."""
        return self.state in _SERVING and self.exited.is_set()

    @property
    def step(self) -> str:
        return self.life.step if self.life else ""


_SERVING: Final = frozenset({State.STARTING, State.RUNNING})
_ALIVE: Final = _SERVING | {State.STOPPING}


class Supervisor:
    """Runs children until told to stop.

    :param children: in the order of their start.
    :param jitter: gives a number from 0 to 1 for each delay.
    """

    def __init__(
        self,
        name: str,
        children: Sequence[ChildSpec],
        *,
        events: Events,
        strategy: Strategy = Strategy.ONE_FOR_ONE,
        policy: RestartPolicy | None = None,
        exhausted: Exhausted = Exhausted.ESCALATE,
        park_s: float = 60.0,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self._children = [_Child(spec, index) for index, spec in enumerate(children)]
        self._events = events
        self._strategy = strategy
        self._policy = policy or RestartPolicy()
        self._exhausted = exhausted
        self._park_s = park_s
        self._jitter = jitter
        self._stopping = False
        self._given_up: GivenUp | None = None
        self._waiting = trio.CancelScope()
        # Of the run that is on:
        self._life: Life
        self._nursery: trio.Nursery

    def as_child(self) -> ChildSpec:
        """Give this supervisor as a child of another; its budgets are the sums of its children's, and a second."""
        budget_s = sum(child.spec.stop_s for child in self._children) + 1.0
        start_s = sum(child.spec.start_s for child in self._children) + 1.0
        return ChildSpec(self.name, self.run, drains=True, stop_s=budget_s, start_s=start_s, supervisor=self)

    async def run(self, life: Life) -> None:
        """Serve as an actor: ready once each child has been tried, whether or not it serves yet.

        :raises GivenUp: a child's restarts are exhausted and the strategy is to escalate.
        """
        self._life = life
        self._stopping, self._given_up = False, None
        for child in self._children:
            child.history, child.parked = RestartHistory(), False
            child.due = trio.current_time()
            child.enter(State.BACKING_OFF)
        try:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._watch_stopping)
                while not self._stopping:
                    await self._act()
                for child in reversed(self._children):
                    await self._stop(child)
                self._nursery.cancel_scope.cancel()
        finally:
            self._note_cancelled()
        if self._given_up is not None:
            raise self._given_up

    def statistics(self) -> tuple[ActorStatistics, ...]:
        """Give the children as they stand now, in order."""
        return tuple(self._describe(child) for child in self._children)

    async def _watch_stopping(self) -> None:
        await self._life.stopping.wait()
        self._stopping = True
        self._wake()

    def _wake(self) -> None:
        self._waiting.cancel()

    async def _act(self) -> None:
        """Do the one thing that is to be done next, or wait until there is one."""
        child = next((child for child in self._children if child.state is State.STARTING and child.is_ready), None)
        if child is not None:
            self._note_started(child)
            return
        child = next((child for child in self._children if child.ended), None)
        if child is not None:
            await self._on_exit(child)
            return
        due, child = min(self._agenda(), key=itemgetter(0), default=(math.inf, None))
        if child is not None and due <= trio.current_time():
            self._begin_or_abort(child)
            return
        if not any(child.state is State.STARTING for child in self._children):
            self._life.ready()
        with trio.CancelScope(deadline=due) as self._waiting:
            await trio.sleep_forever()

    def _agenda(self) -> Iterator[tuple[float, _Child]]:
        """Give what is to be done, and when; a child that is starting holds back those after it."""
        held_back = False
        for child in self._children:
            is_starting = child.state is State.STARTING
            if child.due is not None and (is_starting or not held_back):
                yield child.due, child
            held_back = held_back or is_starting

    def _begin_or_abort(self, child: _Child) -> None:
        """Start a child that is due, or cancel one that did not become ready in time."""
        if child.state is State.STARTING:
            child.due = None
            child.scope.cancel()
            return
        child.incarnation += 1
        child.life = Life(
            child.spec.name,
            child.incarnation,
            on_progress=lambda: self._on_progress(child),
            on_step=self._life.on_step,
            on_ready=lambda: self._on_ready(child),
        )
        child.scope, child.is_ready, child.exited, child.error = trio.CancelScope(), False, trio.Event(), None
        child.due = trio.current_time() + child.spec.start_s
        child.enter(State.STARTING)
        self._nursery.start_soon(self._incarnate, child, child.life, name=child.spec.name)

    async def _incarnate(self, child: _Child, life: Life) -> None:
        """Run one incarnation. The one place that catches broadly: whatever the actor lets out is its failure."""
        try:
            with child.scope:
                await child.spec.run(life)
        except Exception as error:  # noqa: BLE001 - see above; cancellation is no Exception and passes through
            child.error = error
        except BaseExceptionGroup as group:
            # We were cancelled, and it failed on its way out: the first goes on, the second is recorded.
            child.error, cancelled = group.split(Exception)
            assert cancelled is not None, "a group of errors alone is an Exception"
            raise cancelled from None
        finally:
            child.exited.set()
            self._wake()

    def _on_ready(self, child: _Child) -> None:
        if not child.scope.cancel_called:
            child.is_ready = True
            self._wake()

    def _on_progress(self, child: _Child) -> None:
        """Note that a child finished something, which is this supervisor's progress too."""
        child.history = child.history.progressed()
        child.parked = False
        self._life.progress()

    async def _on_exit(self, child: _Child) -> None:
        """Decide what follows when a child has ended by itself."""
        error = self._note_ended(child)
        child.history, delay_s = child.history.failed(trio.current_time(), self._policy, self._jitter())
        if delay_s is None or child.parked:
            if self._exhausted is Exhausted.ESCALATE:
                self._give_up(child, error)
                return
            delay_s = self._park(child)
        affected = self._affected(child)
        for other in reversed(affected):
            await self._stop(other)
        if not self._stopping:
            self._schedule(affected, delay_s, because_of=child)

    def _park(self, child: _Child) -> float:
        child.parked = True
        self._events.emit(ActorParked(actor=child.spec.name, retry_s=self._park_s))
        return self._park_s

    def _give_up(self, child: _Child, error: Exception) -> None:
        self._events.emit(RestartsExhausted(actor=self.name, failed=child.spec.name))
        message = f"{child.spec.name} failed {len(child.history.failures)} times in {self._policy.window_s:g} s"
        self._given_up = GivenUp(f"{message}: {_describe_error(error)}")
        self._given_up.__cause__ = error
        self._stopping = True

    def _affected(self, failed: _Child) -> Sequence[_Child]:
        return [failed] if self._strategy is Strategy.ONE_FOR_ONE else self._children[failed.index :]

    def _schedule(self, children: Sequence[_Child], delay_s: float, *, because_of: _Child) -> None:
        due = trio.current_time() + delay_s
        for child in children:
            child.due = due
            child.enter(State.PARKED if child.parked else State.BACKING_OFF)
            self._events.emit(RestartScheduled(actor=child.spec.name, delay_s=delay_s, because_of=because_of.spec.name))

    async def _stop(self, child: _Child) -> None:
        """Stop one child within its budget. Whatever goes wrong while it stops is recorded, not raised."""
        child.due = None
        if child.ended:
            self._note_ended(child)
        elif child.alive and child.life is not None:
            child.enter(State.STOPPING)
            child.life.stopping.set()
            if not child.spec.drains:
                child.scope.cancel()
            with trio.move_on_after(child.spec.stop_s):
                await child.exited.wait()
            if not child.exited.is_set():
                self._events.emit(ShutdownForced(actor=child.spec.name, budget_s=child.spec.stop_s, step=child.step))
                child.scope.cancel()
                await child.exited.wait()
            self._note_stopped(child)
        child.enter(State.STOPPED)

    def _note_started(self, child: _Child) -> None:
        child.due = None
        child.enter(State.RUNNING)
        self._events.emit(ActorStarted(actor=child.spec.name, incarnation=child.incarnation))

    def _note_ended(self, child: _Child) -> Exception:
        """Record that a child has ended by itself, and give its failure."""
        error = _failure(child)
        child.due = None
        child.enter(State.STOPPED)
        child.last_error = _describe_error(error)
        self._events.emit(ActorFailed(actor=child.spec.name, error=child.last_error, step=child.step), error)
        return error

    def _note_stopped(self, child: _Child) -> None:
        error = _describe_error(child.error) if child.error else ""
        child.last_error = error or child.last_error
        child.enter(State.STOPPED)
        self._events.emit(ActorStopped(actor=child.spec.name, error=error), child.error)

    def _note_cancelled(self) -> None:
        """Record what became of the children when this supervisor was cancelled, and they with it."""
        for child in reversed(self._children):
            child.due = None
            if child.alive:
                self._note_stopped(child)
            child.enter(State.STOPPED)

    def _describe(self, child: _Child) -> ActorStatistics:
        now = trio.current_time()
        depth = child.spec.depth() if child.spec.depth else None
        supervisor = child.spec.supervisor
        return ActorStatistics(
            name=child.spec.name,
            state=child.state.value,
            since_s=round(now - child.since, 3),
            incarnation=child.incarnation,
            restarts=max(0, child.incarnation - 1),
            step=child.step,
            step_s=round(now - child.life.step_since, 3) if child.life and child.life.step else 0.0,
            last_error=child.last_error,
            mailbox_depth=depth.depth if depth else None,
            mailbox_bound=depth.bound if depth else None,
            strategy=supervisor._strategy.value if supervisor else "",  # noqa: SLF001 - a supervisor looking at another
            children=supervisor.statistics() if supervisor else (),
        )


def _failure(child: _Child) -> Exception:
    """Give what a child that ended by itself did wrong."""
    name, error = child.spec.name, child.error
    if child.state is State.STARTING and child.scope.cancel_called:
        besides = f"; while it was stopped: {_describe_error(error)}" if error else ""
        return NotServing(f"{name} was not ready within {child.spec.start_s:g} s{besides}")
    return error or NotServing(f"{name} returned without being told to")


def _describe_error(error: BaseException) -> str:
    """Name an error in a line of `ERROR_CHARS_MAX` at most; of a group, its leaves."""
    if isinstance(error, BaseExceptionGroup):
        text = "; ".join(_describe_error(leaf) for leaf in error.exceptions)
    else:
        text = f"{type(error).__name__}: {error}".splitlines()[0]
    return text[:ERROR_CHARS_MAX]
