"""What keeps a model from costing too much: a budget an hour, and a circuit breaker. Pure; time is given in seconds."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from observer_actors.backoff import backoff_s

HOUR_S: Final = 3_600.0
FAILURES_MAX: Final = 3
OPEN_S_FIRST: Final = 60.0
OPEN_S_MAX: Final = 1_800.0


class Call(msgspec.Struct):
    """A question that was put to a model."""

    at: float
    """Seconds since 1970."""
    tokens: int = 0


class Budget:
    """Calls and tokens within any hour: a call is let through while both have room, and its tokens count when known.

    Time is seconds since 1970, since what was spent outlives the process. A call that is dated more than an hour ahead,
    for the clock was set back since, counts no more.

    :param spent: the calls of before, oldest first.
    """

    def __init__(self, calls_max: int, tokens_max: int, spent: Iterable[Call] = ()) -> None:
        self._calls_max = calls_max
        self._tokens_max = tokens_max
        self._spent: deque[Call] = deque(spent, maxlen=calls_max)

    @property
    def spent(self) -> Sequence[Call]:
        """The calls that count, oldest first: at most ``calls_max``."""
        return tuple(self._spent)

    def has_room(self, now: float) -> bool:
        """Tell whether there is room for a call."""
        self._spent = deque((call for call in self._spent if abs(now - call.at) < HOUR_S), maxlen=self._calls_max)
        return len(self._spent) < self._calls_max and sum(call.tokens for call in self._spent) < self._tokens_max

    def take(self, now: float) -> bool:
        """Take a call, if there is room for one."""
        has_room = self.has_room(now)
        if has_room:
            self._spent.append(Call(now))
        return has_room

    def spend(self, tokens: int) -> None:
        """Note what the calls under way have used."""
        if self._spent:
            self._spent[-1].tokens += tokens


class Breaker:
    """Leaves a model alone after `FAILURES_MAX` failures in a row: `OPEN_S_FIRST`, doubled up to `OPEN_S_MAX`."""

    def __init__(self) -> None:
        self._failures = 0
        self._opened = 0
        self._until = 0.0
        self._is_tried = False
        """Open, and one question is under way that decides."""

    def is_open(self, now: float) -> bool:
        """Tell whether the model is left alone."""
        return now < self._until

    def admits(self, now: float) -> bool:
        """Tell whether the model may be asked now; after a pause one question decides, and others wait for it."""
        if self.is_open(now):
            return False
        if self._failures >= FAILURES_MAX:
            self._until = now + OPEN_S_FIRST
            self._is_tried = True
        return True

    def succeeded(self) -> None:
        """Note an answer."""
        self._failures = self._opened = 0
        self._until = 0.0
        self._is_tried = False

    def failed(self, now: float, wait_s: float = 0.0) -> None:
        """Note a failure. Those of questions that were under way when it opened do not open it once more.

        :param wait_s: as long as the server asks to be left alone.
        """
        self._failures += 1
        if self._failures == FAILURES_MAX or self._is_tried:
            self._opened += 1
            wait_s = max(wait_s, backoff_s(self._opened, OPEN_S_FIRST, OPEN_S_MAX))
            self._is_tried = False
        self._until = max(self._until, now + wait_s)
