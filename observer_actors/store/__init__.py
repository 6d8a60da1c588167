"""What has been learned, and what must leave this machine, in one SQLite file."""

from __future__ import annotations

from observer_actors.store.files import StoreBusy, StoreDamaged, StoreFailed, refuse_newer
from observer_actors.store.learned import (
    ANALYZER,
    LEARNED_PATH,
    Lane,
    LaneStatistics,
    Queued,
    Saved,
    Store,
)
from observer_actors.store.reading import CONSOLIDATOR, read_playbook
from observer_actors.store.shelf import Shelf

__all__ = [
    "ANALYZER",
    "CONSOLIDATOR",
    "LEARNED_PATH",
    "Lane",
    "LaneStatistics",
    "Queued",
    "Saved",
    "Shelf",
    "Store",
    "StoreBusy",
    "StoreDamaged",
    "StoreFailed",
    "read_playbook",
    "refuse_newer",
]
