"""A mailbox: a bounded channel that outlives its actor, and a slot for what the actor has in hand.

The rules:

* The supervisor's side owns the mailbox; an incarnation of the actor only ever reads through `take`. The channel's
  receiver is never closed while the daemon lives (closing the last one would throw the buffer away).
* What `take` hands out stays in the slot until the ``async with`` block is left without an error. An incarnation that
  crashes leaves it there, and the next one gets it first: singly, and what can be split in parts, so that one bad
  message does not take its neighbours with it. Being cancelled is not a crash, unless something went wrong on the way
  out.
* A message that was alone in hand at N crashes is set aside: quarantined, never dropped in silence.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Generic, TypeVar

import trio

from observer_actors.supervision.events import Events, MessageRedelivered

T = TypeVar("T")


class Drained(Exception):
    """The mailbox was told to drain, and nothing is left in it."""


@dataclass(frozen=True, slots=True)
class MailboxStatistics:
    """``depth`` messages wait, ``bound`` at most; ``in_hand`` are being worked on."""

    depth: int
    bound: int
    in_hand: int


class Mailbox(Generic[T]):
    """Messages for one actor.

    :param bound: messages that may wait; `put_nowait` raises `trio.WouldBlock` above it.
    :param crashes_max: crashes with the same message in hand before it is set aside.
    :param set_aside: called with such a message and the number of crashes.
    :param split: gives the parts of a message that was in hand at a crash; itself alone when it has none.
    """

    def __init__(
        self,
        name: str,
        bound: int,
        *,
        events: Events,
        crashes_max: int,
        set_aside: Callable[[T, int], Awaitable[None]],
        split: Callable[[T], Sequence[T]] = lambda message: (message,),
    ) -> None:
        self.name = name
        self._bound = bound
        self._events = events
        self._crashes_max = crashes_max
        self._set_aside = set_aside
        self._split = split
        self._send, self._receive = trio.open_memory_channel[T](bound)
        self._in_hand: list[T] = []
        self._again: deque[T] = deque()
        self._crashes = 0
        self._waiting: trio.CancelScope | None = None
        self._draining = False

    def put_nowait(self, message: T) -> None:
        """Put a message in, or raise `trio.WouldBlock` when the mailbox is full."""
        self._send.send_nowait(message)

    async def put(self, message: T) -> None:
        """Put a message in, waiting for room; give it a deadline from outside."""
        await self._send.send(message)

    @property
    def in_hand(self) -> tuple[T, ...]:
        """What an incarnation is working on, or left behind, in order."""
        return (*self._in_hand, *self._again)

    async def open(self) -> None:
        """Begin an incarnation: whatever the last one had in hand when it crashed comes first."""
        self._draining = False
        left = self._in_hand = [part for message in self._in_hand for part in self._split(message)]
        if not left:
            return
        if len(left) == 1:
            self._crashes += 1
            if self._crashes >= self._crashes_max:
                await self._set_aside(left[0], self._crashes)
                self._in_hand, self._crashes = [], 0
                return
        self._events.emit(MessageRedelivered(actor=self.name, messages=len(left)))
        self._again.extendleft(reversed(left))
        self._in_hand = []

    def take(self, most: int = 1, *, weight_max: int = 0) -> Holding[list[T]]:
        """Wait for messages, and hold them until the block is left without an error.

        :param most: hand out up to this many, as many as are there.
        :param weight_max: stop adding once the sum of ``message.weight`` reaches this; 0 does not look.
        :raises Drained: `drain` was called and nothing is left.
        """
        return Holding(partial(self._hand_out, most, weight_max), self._leave)

    def drain(self) -> None:
        """Have `take` hand out what is left, then raise `Drained`, rather than wait for more."""
        self._draining = True
        if self._waiting is not None:
            self._waiting.cancel()

    def statistics(self) -> MailboxStatistics:
        """Give how many messages there are."""
        depth = self._send.statistics().current_buffer_used + len(self._again)
        return MailboxStatistics(depth, self._bound, len(self._in_hand))

    async def _hand_out(self, most: int, weight_max: int) -> list[T]:
        self._in_hand = [self._again.popleft()] if self._again else await self._gather(most, weight_max)
        return self._in_hand

    def _leave(self, error: BaseException | None) -> None:
        """Clear the slot; after a crash, leave it to `open`."""
        if error is None:
            self._crashes = 0
        elif only_cancelled(error):
            self._again.extendleft(reversed(self._in_hand))
        else:
            return
        self._in_hand = []

    async def _gather(self, most: int, weight_max: int) -> list[T]:
        messages = [await self._first()]
        weight = getattr(messages[0], "weight", 0)
        while len(messages) < most and not 0 < weight_max <= weight:
            try:
                message = self._receive.receive_nowait()
            except trio.WouldBlock:
                break
            messages.append(message)
            weight += getattr(message, "weight", 0)
        return messages

    async def _first(self) -> T:
        while not self._draining:
            with trio.CancelScope() as self._waiting:
                return await self._receive.receive()
        await trio.lowlevel.checkpoint()
        try:
            return self._receive.receive_nowait()
        except trio.WouldBlock:
            raise Drained from None


class Holding(Generic[T]):
    """What an actor has in hand, as an async context manager.

    :param hand_out: waits for it and gives it.
    :param leave: called when the block is left, with the error that it is left with, or None.
    """

    def __init__(self, hand_out: Callable[[], Awaitable[T]], leave: Callable[[BaseException | None], None]) -> None:
        self._hand_out = hand_out
        self._leave = leave

    async def __aenter__(self) -> T:
        return await self._hand_out()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(error)


def only_cancelled(error: BaseException) -> bool:
    """Say whether an error is nothing but a cancellation; inside a nursery that is a group of them."""
    if isinstance(error, BaseExceptionGroup):
        return all(only_cancelled(leaf) for leaf in error.exceptions)
    return isinstance(error, trio.Cancelled)
