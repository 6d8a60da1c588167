"""`AsyncObserver`: for programs on trio or asyncio that want no thread: a task of theirs sends what there is."""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

import anyio
from anyio.lowlevel import current_token

from observer_actors.client._advice import Advice, read_advice
from observer_actors.client._delivery import Answer, Deliveries, Delivery
from observer_actors.client._guest import attempt, attempt_of_host, attempted
from observer_actors.client._ledger import warn_once
from observer_actors.client._limits import bounded_seconds
from observer_actors.client._observed import Observed, called
from observer_actors.client._outbox import ObserverStatistics
from observer_actors.client._places import observer_base
from observer_actors.client._recorder import CLOSE_SECONDS, NO_ATTRS, Recorder
from observer_actors.client._sender import CLOSING_PAUSE_S, FLUSH_PAUSE_S, REQUEST_SECONDS
from observer_actors.client._verdict import Verdict, VerdictReport, report_verdict
from observer_actors.client._wire import exchange

LOOK_S: Final = 0.01
"""Between two looks at the counts while somebody waits for them, and at least between two at the queue."""


class AsyncObserver(Recorder):
    """As `Observer`, within ``async with``: at its end what is left is sent within ``close_seconds``.

    Its task raises nothing and its block's own exceptions come out as they are, in no group. Several tasks may be
    within at once, one of them several times: it ends with the last. They are in one event loop; another one may follow
    when that has ended, but for several at once there is `Observer`.
    """

    def _begin(self) -> None:
        self._deliveries = Deliveries(self._outbox)
        self._home: tuple[int, object] = (os.getpid(), None)
        """The process, and the event loop, that the rest is of."""
        self._entries = 0
        self._scope: anyio.CancelScope | None = None
        """Of the task that sends; None while there is none."""
        self._lingers = False
        self._in_hand: Delivery | None = None
        self._hurried: anyio.Event
        """Of the block; nobody hurries before it is entered."""

    def _queued(self) -> None:
        if not self._entries or self._home[0] != os.getpid():
            warn_once("observer_not_entered", "AsyncObserver", "it sends within `async with` alone")
        elif self._scope is None:
            attempt(None, self._go_on)  # in another thread there is no loop
        elif self._lingers and self._outbox.has_batch() and threading.get_ident() == self._thread:
            attempt(None, self._hurried.set)  # from another thread it may not be; and its loop may be closed

    async def __aenter__(self) -> Self:
        self._come_home()
        while self._scope is not None and self._scope.cancel_called:  # noqa: ASYNC110 - its time is over: some milliseconds
            await anyio.sleep(LOOK_S)
        self._entries += 1
        self._start(math.inf)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._is_home():
            self._entries -= 1
            if not self._entries:
                await self._close()

    async def _close(self) -> None:
        """Send what is left, then give up what there still is; who enters meanwhile goes on with it."""
        until = anyio.current_time() + self._close_s
        interruption: BaseException | None = None
        self._hurried.set()
        with anyio.CancelScope(shield=True):  # a host that is being cancelled waits no longer than this either
            while not self._entries and (self._scope is not None or self._is_left(until)):
                self._start(until)
                try:
                    await anyio.sleep(LOOK_S)
                except anyio.get_cancelled_exc_class() as cancelled:  # asyncio's `Task.cancel` minds no shield
                    interruption = cancelled
        if not self._entries:
            self._abandon()
        if interruption is not None:
            raise interruption

    async def advice(
        self,
        endpoint: str = "",
        *,
        input: object = "",  # noqa: A002 - as the parameter of the request is called
        role: str = "",
        run: str = "",
        task: str = "",
        attrs: Mapping[str, object] = NO_ATTRS,
        source: str = "",
        limit: int = 1,
    ) -> Advice:
        """Ask what is known about an operation that is about to be done, as `Observer.advice` does."""
        question = self._question(
            endpoint, input, role=role, run=run, task=task, attrs=attrs, source=source, limit=limit
        )
        if question is None:
            return Advice()
        began = anyio.current_time()
        advice = await attempted(self._ask(question.target))
        if isinstance(advice, Exception):
            advice = None
        return self._advised_by(question, advice, took_s=anyio.current_time() - began)

    async def observed(
        self, endpoint: str, body: object, description: str, *, gateway_url: str | None = None, run: str = ""
    ) -> Observed:
        """POST ``body`` to the gateway, and report the outcome, as `observer_actors.client.observed` does.

        What it reports waits in the queue, as `Observer.observed` has it.
        """
        observed = await called(endpoint, body, description, gateway_url=gateway_url)
        self._report_op(observed.op, run)
        return observed

    async def report_verdict(
        self, verdict: Verdict, *, data_dir: str | os.PathLike[str] | None = None
    ) -> VerdictReport:
        """Write a verdict, tell the daemon, and add a row to the knowledge base, before it returns.

        :raises DiskFailed: the verdict is not on disk, which an auditor has to know.
        :raises EventInvalid: its signature or its overall holds a secret; nothing was done.
        """
        return await report_verdict(verdict, data_dir=data_dir, observer_url=self._url)

    async def flush(self, seconds: float = CLOSE_SECONDS) -> bool:
        """Send what is there; say whether all of it is accepted or refused within the limit."""
        until = anyio.current_time() + attempt_of_host(CLOSE_SECONDS, bounded_seconds, "seconds", seconds)
        self._go_on()
        then = self._outbox.statistics()
        while not self._is_over(then) and (left_s := until - anyio.current_time()) > 0:
            if self._is_home():
                self._hurried.set()
            with anyio.move_on_after(min(FLUSH_PAUSE_S, left_s)):
                while not self._is_over(then):  # noqa: ASYNC110 - any thread may settle it: by dropping
                    await anyio.sleep(LOOK_S)
        return self._outbox.is_taken(then)

    def _is_over(self, then: ObserverStatistics) -> bool:
        return self._outbox.is_settled(then) or self._scope is None

    def _is_left(self, until: float) -> bool:
        return self._outbox.statistics().waiting > 0 and anyio.current_time() < until

    def _is_home(self) -> bool:
        return self._home == (os.getpid(), current_token())

    def _come_home(self) -> None:
        """Begin anew in another process, or another event loop: the task is not here, nor is whoever was within.

        What is in hand goes on here, unless it is the parent's.
        """
        if self._is_home():
            return
        if self._home[0] != os.getpid():
            self._in_hand = None
        elif self._scope is not None:
            hint = "of what the other one reports, nothing more is sent: for several at once there is Observer"
            warn_once("observer_in_two_event_loops", "AsyncObserver", hint)
        self._home = (os.getpid(), current_token())
        self._entries = 0
        self._scope = None

    def _go_on(self) -> None:
        """Start the task again that its host has cancelled, with all others of the loop."""
        if self._entries and self._scope is None and self._is_home():
            self._start(math.inf)

    def _start(self, until: float) -> None:
        """Make sure that a task sends what there is: until then, or, if that is for ever, while anybody is within."""
        if self._scope is None:
            self._thread = threading.get_ident()
            self._hurried = anyio.Event()
            self._scope = anyio.CancelScope()
            self._task = _task_of_its_own(self._run(self._scope), partial(self._ended, self._scope))
        self._scope.deadline = until

    async def _run(self, scope: anyio.CancelScope) -> None:
        await attempted(self._send_all(scope))

    def _ended(self, scope: anyio.CancelScope) -> None:
        if scope is self._scope:  # else its loop was left behind
            self._scope = None

    async def _send_all(self, scope: anyio.CancelScope) -> None:
        with scope:
            while self._entries:
                self._lingers = True
                await self._pause(max(LOOK_S, self._linger_s))
                self._lingers = False
                await self._send_rest()
            await self._send_rest()

    async def _send_rest(self) -> None:
        """Send what is in hand, then what is in the queue. When it is cancelled, what is in hand stays there."""
        while self._in_hand is not None or (batch := self._outbox.take()):
            self._in_hand = self._in_hand or self._deliveries.begin(batch)
            await self._deliver(self._in_hand)
            self._in_hand = None

    def _abandon(self) -> None:
        given_up = 0 if self._in_hand is None else self._in_hand.left
        self._in_hand = None
        while batch := self._outbox.take():
            given_up += len(batch)
        if given_up:
            self._deliveries.given_up(given_up, self._outbox.statistics().last_trouble)

    async def _deliver(self, delivery: Delivery) -> None:
        while delivery.left:
            answer = await attempted(self._post(delivery))
            pause_s = self._deliveries.answered(delivery, answer)
            await self._pause(pause_s if self._entries else min(pause_s, CLOSING_PAUSE_S))

    async def _pause(self, seconds: float) -> None:
        """Wait, but no longer than until somebody hurries."""
        with anyio.move_on_after(seconds):
            await self._hurried.wait()
        if self._hurried.is_set():
            self._hurried = anyio.Event()

    async def _post(self, delivery: Delivery) -> Answer:
        base, content = observer_base(self._url), delivery.content()
        return await exchange(base, "POST", "/events", content=content, seconds=REQUEST_SECONDS)

    async def _ask(self, target: str) -> Advice | None:
        return read_advice(await exchange(observer_base(self._url), "GET", target, seconds=self._advice_s))


def _task_of_its_own(work: Coroutine[Any, Any, None], ended: Callable[[], None]) -> object:
    """Start a task that is in no block of the host's: what cancels that, or leaves it last, ends no delivery.

    :param ended: called when it has ended, also when asyncio cancels it before its first step.
    :returns: what must be kept for as long as it is there.
    """
    trio: Any = sys.modules.get("trio")  # whoever runs on one of the two has imported it
    if trio is not None and trio.lowlevel.in_trio_task():
        return trio.lowlevel.spawn_system_task(_awaited, work, ended)
    asyncio: Any = sys.modules["asyncio"]
    task = asyncio.create_task(work)
    task.add_done_callback(lambda _: ended())
    return task


async def _awaited(work: Awaitable[None], ended: Callable[[], None]) -> None:
    try:
        await work
    finally:
        ended()
