from __future__ import annotations

from observer_actors.supervision import ActorFailed, ActorStarted, Events, LifecycleEvent
from observer_actors.supervision.events import KEPT


def test_events_are_counted_kept_and_given_to_every_sink() -> None:
    first: list[LifecycleEvent] = []
    second: list[LifecycleEvent] = []
    errors: list[Exception | None] = []
    events = Events(
        lambda event, _error: first.append(event),
        lambda event, _error: second.append(event),
        lambda _event, error: errors.append(error),
    )
    told = [ActorStarted(actor="a", incarnation=1), ActorFailed(actor="a", error="x")]
    wrong = ValueError("x")
    events.emit(told[0])
    events.emit(told[1], wrong)
    assert errors == [None, wrong]
    assert first == second == list(events.recent()) == told
    assert events.counts() == {"ActorStarted": 1, "ActorFailed": 1}


def test_only_the_newest_are_kept() -> None:
    events = Events()
    for incarnation in range(KEPT + 5):
        events.emit(ActorStarted(actor="a", incarnation=incarnation))
    assert [event.incarnation for event in events.recent() if isinstance(event, ActorStarted)] == [*range(5, KEPT + 5)]
    assert events.counts() == {"ActorStarted": KEPT + 5}
