"""A fork: what has to begin anew in the child, where a thread that did not come along may hold a lock for ever."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable
from typing import Final, Protocol

IMPORTING: Final = threading.RLock()
"""Held while something is imported that not every host needs, or certificates are loaded, once: a fork waits for it, as
an import that it cuts short could never be done in the child. What our own threads need is imported before there are
any."""


class Renewable(Protocol):
    """Something with locks or threads."""

    def renew(self) -> None:
        """Begin anew."""


_known: Final[weakref.WeakSet[Renewable]] = weakref.WeakSet()


def renewed_after_fork(thing: Renewable) -> None:
    """Have it begin anew in each child process, for as long as it is there."""
    _known.add(thing)


def _renew_all(known: Iterable[Renewable] = _known) -> None:
    for thing in list(known):  # of the module as it was when this was made: one that is reloaded has others
        thing.renew()


os.register_at_fork(before=IMPORTING.acquire, after_in_parent=IMPORTING.release, after_in_child=IMPORTING.release)
os.register_at_fork(after_in_child=_renew_all)
