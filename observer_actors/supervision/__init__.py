"""Supervision: actors that are restarted when they fail, and mailboxes that outlive them."""

from observer_actors.supervision.events import (
    ActorFailed,
    ActorParked,
    ActorStarted,
    ActorStopped,
    Events,
    LifecycleEvent,
    MessageQuarantined,
    MessageRedelivered,
    RestartScheduled,
    RestartsExhausted,
    ShutdownForced,
)
from observer_actors.supervision.mailbox import Drained, Mailbox
from observer_actors.supervision.restart import RestartPolicy
from observer_actors.supervision.supervisor import (
    ActorStatistics,
    ChildSpec,
    Exhausted,
    GivenUp,
    Life,
    State,
    Strategy,
    Supervisor,
)

__all__ = [
    "ActorFailed",
    "ActorParked",
    "ActorStarted",
    "ActorStatistics",
    "ActorStopped",
    "ChildSpec",
    "Drained",
    "Events",
    "Exhausted",
    "GivenUp",
    "Life",
    "LifecycleEvent",
    "Mailbox",
    "MessageQuarantined",
    "MessageRedelivered",
    "RestartPolicy",
    "RestartScheduled",
    "RestartsExhausted",
    "ShutdownForced",
    "State",
    "Strategy",
    "Supervisor",
]
