"""`observer-actors serve`."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress
from functools import partial
from typing import Final

import trio

from observer_actors.commands._options import ConfigOptions
from observer_actors.logs import configure_logs
from observer_actors.settings import Settings

M_ARENA_MAX: Final = -8
"""See mallopt(3)."""


def serve(options: ConfigOptions = ConfigOptions()) -> None:
    """Run the daemon in the foreground until SIGTERM or SIGINT; SIGHUP reads the configuration again.

    The line `listening` of the log says where it listens: at any level of the log where the port is 0.

    Example: observer-actors serve --port 3800 --data-dir ./data
    """
    gc.disable()  # nothing of what is imported is garbage: to search for it would take an eighth of the time
    from observer_actors.process import serve_until_signalled  # noqa: PLC0415 - 0.3 s that `--help` need not pay

    gc.enable()

    def load() -> Settings:
        return options.load().settings

    _share_memory()
    settings = load()
    configure_logs(settings.log.level)
    trio.run(partial(serve_until_signalled, settings, load))


def _share_memory() -> None:
    """Have all threads take memory from one place: by itself glibc lets each keep what its largest body took."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)
