"""`observer-actors serve`."""

from __future__ import annotations

import ctypes
import gc
import signal
from contextlib import suppress
from typing import Final

from observer_actors.commands._options import ConfigOptions
from observer_actors.commands._signals import ENDING
from observer_actors.settings import Settings

M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
M_ARENA_MAX: Final = -8
"""See mallopt(3)."""
LARGE_BYTES: Final = 4 * 1024 * 1024
FREE_BYTES_MAX: Final = 8 * 1024 * 1024


def serve(options: ConfigOptions = ConfigOptions()) -> None:
    """Run the daemon in the foreground until SIGTERM or SIGINT; SIGHUP reads the configuration again.

    The line `listening` of the log says where it listens: at any level of the log where the port is 0.

    Example: observer-actors serve --port 3800 --data-dir ./data
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # they wait until the process takes them
    gc.disable()  # nothing of what is imported is garbage: to search for it would take an eighth of the time
    from observer_actors.process import serve_until_signalled  # noqa: PLC0415 - 0.5 s that `--help` need not pay

    gc.enable()

    def load() -> Settings:
        return options.load().settings

    _give_memory_back()
    serve_until_signalled(load(), load)


def _give_memory_back() -> None:
    """Have the system get back what large bodies and commits took, once they are done with.

    By itself glibc lets each thread keep what its largest body took, and keeps twice as much as the largest piece that
    was ever given back, up to 64 MiB. With less than these bounds batches become slower.
    """
    with suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_ARENA_MAX, 1)  # all threads take memory from one place
        mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(M_TRIM_THRESHOLD, FREE_BYTES_MAX)
