"""What has to begin anew in a child process: a lock may be held there by a thread that did not come along."""

from __future__ import annotations

import os
import weakref
from typing import Final, Protocol

__all__ = ["Renewable", "renewed_after_fork"]


class Renewable(Protocol):
    """Something with locks or threads."""

    def renew(self) -> None:
        """Begin anew."""


_known: Final[weakref.WeakSet[Renewable]] = weakref.WeakSet()


def renewed_after_fork(thing: Renewable) -> None:
    """Have it begin anew in each child process, for as long as it is there."""
    _known.add(thing)


def _renew_all() -> None:
    for thing in list(_known):
        thing.renew()


os.register_at_fork(after_in_child=_renew_all)
