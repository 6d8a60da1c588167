"""Seeds that failed, by what they have found; they are run before any others.

A change of the plan or of the daemon's steps makes another run of a seed. So each defect has a test of its own, too.
With its defect put in again, 28, 3073 and 1241 find it; 1 and 95 do so no more, and are kept as runs like any other.
"""

from __future__ import annotations

from typing import Final

FAILED: Final = {
    1: "a disk that refuses delays the opening of the journal: the store was set aside as learned from another one",
    28: "a process ends while an actor fails: the actor's error was let out of the tree",
    95: "the persister crashes three times with what is on disk in hand: a live reader never saw it",
    3073: "a file is cut and not synced, then described as it is, then power fails: its checksum was wrong",
    1942: "a call of the store hangs on after the disk is well: the stop was forced, as promised, and called a fault",
    1241: "a batch is refused, its cut fails, the process ends: it was stored, and its caller had been told otherwise",
}
