"""Signals that a command takes for a while. What it was started to ignore, as by `nohup`, it goes on to ignore."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

ENDING: Final = (signal.SIGTERM, signal.SIGHUP)
"""What ends a program that does not take them; Ctrl-C, which Python takes, is beside them."""
EXIT_SIGNALLED: Final = 128
"""Plus the signal's number, as in a shell."""


@contextmanager
def taken(*numbers: int, by: Callable[[int, FrameType | None], object] | signal.Handlers) -> Iterator[None]:
    """Have these signals handled so within the block, but for those that are ignored."""
    before = {number: signal.getsignal(number) for number in numbers}
    before = {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}
    for number in before:
        signal.signal(number, by)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
