"""Entries of the playbook, and the deltas that make and change them: nothing is rewritten wholesale."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from observer_actors.patterns import Outgoing, stable_id

__all__ = ["Created", "Delta", "Entry", "Kind", "Updated", "entry_id"]


class Kind(StrEnum):
    """What an entry advises."""

    DO = "do"
    """This worked."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of advice, with its evidence."""

    id: str
    kind: Kind
    endpoint: str
    text: str
    version: int
    """From 1; each update adds one."""
    successes: int
    """Successes taken in so far, each once, also those that have left the ring since."""
    duration_ms_total: float
    """The sum of their durations."""
    first_seq: int
    last_seq: int
    """The newest op that is in the counts: only newer ones are added."""
    example_seqs: tuple[int, ...]
    """The newest `consolidation.EXAMPLES_MAX`, oldest first."""
    inputs: tuple[str, ...]
    """Input summaries of the newest `consolidation.INPUTS_MAX` successes, oldest first, each cut."""
    sent_successes: int = 0
    """``successes`` as the gateway was last told; 0: never."""

    @property
    def avg_duration_ms(self) -> float:
        """The mean of the durations."""
        return self.duration_ms_total / self.successes


class Created(msgspec.Struct, frozen=True):
    """A new entry, and the message that tells the gateway."""

    entry: Entry
    message: Outgoing | None = None


class Updated(msgspec.Struct, frozen=True):
    """An entry as its evidence has it now; a message when the gateway's copy has become stale."""

    entry: Entry
    message: Outgoing | None = None


Delta = Created | Updated


def entry_id(kind: Kind, endpoint: str) -> str:
    """Give the id of an entry: 16 hex digits, the same for ever."""
    return stable_id("entry", kind.value, endpoint)
