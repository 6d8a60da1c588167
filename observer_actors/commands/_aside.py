"""What is said beside the answer, on standard error."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Final

from observer_actors.visible import visible

PROGRESS_S: Final = 2.0
"""Nothing is said of progress before this; where it is not a terminal, then a line in this time."""


def told(text: str) -> None:
    """Say something in a line; nothing in it moves the cursor. Where nobody takes it, that is no reason to end."""
    with suppress(OSError):
        print(visible(text), file=sys.stderr, flush=True)
