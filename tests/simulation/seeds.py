"""Seeds that once failed; they are run before any others."""

from __future__ import annotations

from typing import Final

__all__ = ["FAILED"]

FAILED: Final[dict[int, str]] = {}
