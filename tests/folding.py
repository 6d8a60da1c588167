"""What a fold of failures has changed, brought onto the patterns as the analyzer does it."""

from __future__ import annotations

from collections.abc import Mapping

from observer_actors.patterns import Pattern
from observer_actors.patterns.grouping import Changes


def onto(patterns: Mapping[str, Pattern], changes: Changes) -> dict[str, Pattern]:
    """Give the patterns as they are with the changes."""
    gone = {*changes.absorbed, changes.forgotten}
    return {key: kept for key, kept in {**patterns, **changes.patterns}.items() if key not in gone}
