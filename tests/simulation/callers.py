"""Callers of the simulated daemon: through the intake, without sockets; what they are told goes into the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final, Protocol

import msgspec
import trio

from observer_actors.actors.admission import LOOK_S
from observer_actors.daemon import Daemon
from observer_actors.http.replies import Reply
from tests.daemon.load import Answer, Ledger
from tests.simulation.process import Process

BATCH_MAX: Final = 12
IMPATIENT_S: Final = 0.3
"""The mean time after which a caller that breaks the connection does so."""
SLACK_S: Final = 0.05
ENDPOINTS: Final = ("tool:search", "tool:book", "tool:cancel")
RUN_EVENTS: Final = 7
POISON: Final = "tool:poison"
STARTED: Final = "2026-01-01T00:00:00.000Z"
MAY_BE_STORED: Final = 500
"""Quarantined: the caller is told that trying again does not help."""

Event = dict[str, Any]


class Reach(Protocol):
    """How a caller gets at the daemon."""

    async def reached(self) -> Process:
        """Wait until a process takes events."""

    def told(self, what: str, *, seconds: float) -> None:
        """Note what a caller was told, and after how long."""


@dataclass(frozen=True)
class Habits:
    """What a caller is like."""

    retries: bool
    """Sends again, with the same ids, what was not acknowledged; else it gives no ids."""
    pace_s: float
    """The mean time between two requests."""
    impatience: float
    """The part of its requests that it breaks off."""
    poison: float
    """The part of its events that make the persister crash."""


class Caller:
    """Sends single events, batches, and events of an express lane's group, one after another.

    :param wait_s: the daemon's limit, in which it must have answered.
    """

    def __init__(
        self, name: str, ledger: Ledger, chance: Random, *, habits: Habits, reach: Reach, wait_s: float
    ) -> None:
        self.pending: list[Event] = []
        self._name = name
        self._ledger = ledger
        self._chance = chance
        self._habits = habits
        self._reach = reach
        self._wait_s = wait_s
        self._count = 0
        self._beside: set[str] = set()
        """The events that were sent beside each other, each for itself."""

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            await trio.sleep(self._chance.expovariate(1 / self._habits.pace_s))
            impatience_s = float("inf")
            if self._chance.random() < self._habits.impatience:
                impatience_s = self._chance.expovariate(1 / IMPATIENT_S)
            await self._send(impatience_s)

    async def settle(self) -> None:
        """Send what is pending until it is acknowledged."""
        while self.pending:
            await trio.sleep(self._chance.expovariate(10))
            await self._send(float("inf"))

    async def _send(self, patience_s: float) -> None:
        process = await self._reach.reached()
        events = self.pending or self._make()
        self.pending = events if self._habits.retries else []
        self._ledger.note_sent(events)
        self._ledger.overtaken |= self._beside.intersection(event["input_summary"] for event in events)
        began = trio.current_time()
        with trio.move_on_after(patience_s):
            async with process.connected():
                answers = await self._exchange(process.daemon, events)
                if process.is_dead:
                    return  # what it said on its way out did not get here
                for told, answer in answers:
                    self._note(told, answer, trio.current_time() - began)

    async def _exchange(self, daemon: Daemon, events: Sequence[Event]) -> list[tuple[Sequence[Event], Answer]]:
        bodies = [msgspec.json.encode(event) for event in events]
        if len(events) == 1:
            return [(events, _answer(await daemon.intake.event(bodies[0])))]
        if self._chance.random() < 0.3:
            self._beside |= {event["input_summary"] for event in events}
            replies = await _in_lane(daemon, bodies)
            if replies is not None:
                return [([event], _answer(reply)) for event, reply in zip(events, replies, strict=True)]
        return [(events, _answer(await daemon.intake.batch(b"\n".join(bodies))))]

    def _note(self, events: Sequence[Event], answer: Answer, seconds: float) -> None:
        names = [event["input_summary"] for event in events]
        self._reach.told(f"{names[0]}+{len(names)} {answer.status} {answer.body.decode()}", seconds=seconds)
        assert seconds <= self._wait_s + LOOK_S + SLACK_S, f"{names[0]} was answered after {seconds:.3f} s"
        self._ledger.note(events, answer)
        if answer.status in {200, MAY_BE_STORED}:
            done = {event["input_summary"] for event in events}
            self.pending = [event for event in self.pending if event["input_summary"] not in done]

    def _make(self) -> list[Event]:
        size = 1 if self._chance.random() < 0.6 else self._chance.randint(2, BATCH_MAX)
        return [self._event() for _ in range(size)]

    def _event(self) -> Event:
        self._count += 1
        chance = self._chance
        success = chance.random() < 0.7
        event = {
            "timestamp": STARTED,
            "endpoint": POISON if chance.random() < self._habits.poison else chance.choice(ENDPOINTS),
            "input_summary": f"{self._name}-{self._count}",
            "success": success,
            "duration_ms": chance.randint(1, 900),
            "source": chance.choice(("mcp", "bot", "scenario")),
            "run": f"{self._name}-{self._count // RUN_EVENTS}",
        }
        if self._count % RUN_EVENTS == RUN_EVENTS - 1:
            event["source"] = "auditor"  # the verdict on the run
        if self._habits.retries:
            event["id"] = f"{self._name}-{self._count}"
        if not success:
            event["error"] = f"{chance.choice(('timeout', 'refused'))} after {self._count} ms"
        return event


async def _in_lane(daemon: Daemon, bodies: Sequence[bytes]) -> list[Reply] | None:
    """Submit single events together, as the express lane does; None when there is no room for them now."""
    intake = daemon.intake
    judged = [event for event in intake.judged(bodies, [""] * len(bodies)) if event is not None]
    assert len(judged) == len(bodies)
    answered = trio.Event()
    submission = intake.offer(judged, sum(map(len, bodies)), answered.set)
    if submission is None:
        return None
    await answered.wait()
    return intake.replies(judged, submission)


def _answer(reply: Reply) -> Answer:
    headers = {name.lower(): value for name, value in reply.headers}
    return Answer(reply.status, {"content-type": reply.content_type, **headers}, reply.body)
