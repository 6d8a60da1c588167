"""Mistakes of whoever types a command, beside those that can be seen in the command line's form."""

from __future__ import annotations

from typing import ClassVar

from observer_actors.errors import ObserverError


class UsageInvalid(ObserverError):
    """A command line whose parts can be read, and make no sense."""

    exit_code: ClassVar[int] = 64
