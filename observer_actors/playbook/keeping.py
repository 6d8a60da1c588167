"""The playbook's state as rows: what has changed is saved by itself, and all of it compared to the byte. Pure."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Section(StrEnum):
    """What a row holds."""

    META = "meta"
    ENDPOINT = "endpoint"
    RUN = "run"
    ENTRY = "entry"
    STANDING = "standing"
    TRIAL_RUN = "trial-run"
    TRIAL_ADVICE = "trial-advice"
    TRIAL_ENTRY = "trial-entry"


class Row(msgspec.Struct, frozen=True, array_like=True):
    """One part of the state."""

    section: Section
    key: str
    seq: int
    """Rows of a section are restored in this order."""
    record: bytes
    """JSON; empty for a part that is no more."""


class Kept:
    """Which parts have changed since they were last saved, and since when each has been there."""

    def __init__(self) -> None:
        self._changed: dict[tuple[Section, str], None] = {}
        self._taken: dict[tuple[Section, str], None] = {}
        self.born: dict[tuple[Section, str], int] = {}
        """The seq that made a part, for those that are restored in that order."""
        self.seq = 0
        """Of the op in hand: what is touched was made or changed by it."""

    def touch(self, section: Section, key: str = "") -> None:
        """Note that a part was made or changed."""
        self._changed[section, key] = None
        self.born.setdefault((section, key), self.seq)

    def gone(self, section: Section, key: str) -> None:
        """Note that a part is no more; one of the same name is another one."""
        self._changed[section, key] = None
        self.born.pop((section, key), None)

    def take(self) -> list[tuple[Section, str]]:
        """Give what has changed and was not saved; it is given again until `saved` is called."""
        self._taken |= self._changed
        self._changed = {}
        return list(self._taken)

    def saved(self) -> None:
        """Note that what was given last is saved, as it was then or later."""
        self._taken = {}
