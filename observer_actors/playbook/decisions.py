"""What a person decides, of one entry or of all that came from a source, a run or a staffer. Pure.

A decision stands in the journal: an op of source `observer` and endpoint `PLAYBOOK_ENDPOINT`, with the fields of
`Decision` or of `Revocation` as its attributes.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from observer_actors.event import OWN_SOURCE
from observer_actors.op import Op, Scalar, time_us
from observer_actors.playbook.entries import Mark
from observer_actors.playbook.trial import asked_by, run_name

PLAYBOOK_ENDPOINT: Final = "observer:playbook"
NOTE_CHARS_MAX: Final = 1_000
"""Below what an attribute holds."""
REVOKE: Final = "revoke"


class EntryAction(StrEnum):
    """What a person can do with an entry."""

    PIN = "pin"
    """Hand it out whatever its trial says, as long as it is corroborated."""
    UNPIN = "unpin"
    WITHHOLD = "withhold"
    """Hand it out no more until it is released."""
    RELEASE = "release"
    """Take back what a person has decided; one that its trial has withheld or retired is tried again."""
    RETIRE = "retire"
    """Hand it out no more."""
    NOTE = "note"


Action = EntryAction
"""Under its whole name it does not stand for what is done with a pattern in `/openapi.json`."""


class Of(StrEnum):
    """By what evidence is revoked."""

    SOURCE = "source"
    RUN = "run"
    STAFFER = "staffer"


class Decision(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """About one entry."""

    action: Action
    entry: str
    note: str = ""
    seq: int = 0
    """Of the op that says so."""


class Revocation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All that came from somebody, before this was decided."""

    of: Of
    name: str
    since: str = ""
    """Only ops that the witness recorded at or after it (`recorded_at`, which no caller has a say in); "": all."""
    note: str = ""
    seq: int = 0
    """Of the op that says so: it takes back what is before it."""

    def covers(self, op: Op) -> bool:
        """Say whether an op is taken back."""
        if op.seq >= self.seq or self._named(op) != self.name:
            return False
        if not self.since:
            return True
        recorded, since = time_us(op.recorded_at), time_us(self.since)
        return recorded is None or since is None or recorded >= since

    def takes_in(self, other: Revocation) -> bool:
        """Say whether this one takes back all that another does: the same, or the same once more and in full."""
        if self.seq == other.seq:
            return True
        return (self.of, self.name, self.since) == (other.of, other.name, "") and self.seq > other.seq

    def _named(self, op: Op) -> str | None:
        if self.of is Of.SOURCE:
            return asked_by(op) if op.source == OWN_SOURCE else op.source
        if self.of is Of.RUN:
            return run_name(op)
        return op.staffer_id if isinstance(op.staffer_id, str) else None


for _kind in (Decision, Revocation):
    msgspec.json.Decoder(_kind)  # read by `convert`, which looks them up once, too: as in `journal.format`


def decision_attrs(decided: Decision | Revocation) -> dict[str, Scalar]:
    """Give the attributes of the op that journals a decision."""
    attrs: dict[str, Scalar] = msgspec.to_builtins(decided)
    return attrs if isinstance(decided, Decision) else {"action": REVOKE, **attrs}


def decision_in(op: Op) -> Decision | Revocation | None:
    """Read the decision that an op of the daemon's own journals; None for one that holds none that is known."""
    if op.source != OWN_SOURCE or op.endpoint != PLAYBOOK_ENDPOINT or not isinstance(op.attrs, dict):
        return None
    kind: type[Decision | Revocation] = Revocation if op.attrs.get("action") == REVOKE else Decision
    try:
        return msgspec.structs.replace(msgspec.convert(op.attrs, kind), seq=op.seq)
    except msgspec.ValidationError:
        return None  # of a later version


def marked(mark: Mark, action: Action) -> Mark:
    """Give what a mark is after an action."""
    if action is Action.UNPIN:
        return Mark.NONE if mark is Mark.PINNED else mark
    return {
        Action.PIN: Mark.PINNED,
        Action.WITHHOLD: Mark.WITHHELD,
        Action.RETIRE: Mark.RETIRED,
        Action.RELEASE: Mark.NONE,
    }.get(action, mark)


def stricter(mark: Mark, other: Mark) -> Mark:
    """Give which of two marks keeps more back: where two entries become one, what was forbidden of either stays so."""
    return max(mark, other, key=tuple(Mark).index)
