"""Signals that a command takes for a while. What it was started to ignore, as by `nohup`, it goes on to ignore."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

ENDING: Final = (signal.SIGTERM, signal.SIGHUP)
"""What ends a program that does not take them; Ctrl-C, which Python takes, is beside them."""
_OURS: Final = frozenset(
    # what cannot be taken; what job control and a window's size are told to the whole group by
    {signal.SIGKILL, signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCONT, signal.SIGWINCH}
    # what says something of this process alone: its children, its sockets, its own faults
    | {signal.SIGCHLD, signal.SIGURG, signal.SIGPIPE, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}
    | {signal.SIGTRAP, signal.SIGSYS}
    # Ctrl-C, which a command on the same terminal gets as we do
    | {signal.SIGINT}
)
PASSED_ON: Final = tuple(sorted(signal.valid_signals() - _OURS))
"""What somebody who means a command sends to the program that waits for it."""
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
