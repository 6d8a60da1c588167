"""The playbook: what worked, with the ops that show it. Pure."""

from __future__ import annotations

from observer_actors.playbook.consolidation import (
    Created,
    Delta,
    Entry,
    Updated,
    consolidate,
    endpoints_left_out,
)
from observer_actors.playbook.entries import Kind, entry_id

__all__ = [
    "Created",
    "Delta",
    "Entry",
    "Kind",
    "Updated",
    "consolidate",
    "endpoints_left_out",
    "entry_id",
]
