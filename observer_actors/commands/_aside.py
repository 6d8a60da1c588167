"""What is said beside the answer, on standard error."""

from __future__ import annotations

import sys
from contextlib import suppress

from observer_actors.visible import visible


def told(text: str) -> None:
    """Say something in a line; nothing in it moves the cursor. Where nobody takes it, that is no reason to end."""
    with suppress(OSError):
        print(visible(text), file=sys.stderr, flush=True)
