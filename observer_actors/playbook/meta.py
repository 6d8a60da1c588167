"""What the playbook keeps that belongs to no endpoint, run or entry. Pure."""

from __future__ import annotations

import msgspec

from observer_actors.playbook.decisions import Revocation
from observer_actors.playbook.entries import Mark
from observer_actors.playbook.witnesses import Corroboration


class Left(msgspec.Struct):
    """What found no room, and was counted only."""

    ops: int = 0
    """Ops of endpoints beyond the bound."""
    endpoints: int = 0
    """Endpoints that made room for others."""
    entries: int = 0
    values: int = 0
    runs: int = 0
    """Runs that were forgotten before a verdict came."""


class Meta(msgspec.Struct):
    """What belongs to no endpoint, run or entry."""

    corroboration: Corroboration
    version: int = 0
    """Of the rules (`fold.VERSION`)."""
    first_seq: int = 0
    """The first op of all that was taken in; 0: none was."""
    successes: int = 0
    """Of all callers, as the seed counts them."""
    sources: list[str] = []
    revocations: list[Revocation] = []
    outdated: bool = False
    """It has to be made anew: something was revoked that still counts, or the rules are others."""
    marks: dict[str, Mark] = {}
    """Entry -> what a person has decided of one that is not there: without what was revoked it may come later."""
    left: Left = msgspec.field(default_factory=Left)
    inherited: int = 0
    """Entries, and decisions about others, that were taken over from the playbook before it (`Playbook.inherit`)."""
