"""What the daemon has around it besides its disk: threads, its lock, the time of day, chance and the network.

As they are in the real process. A simulation gives others, on a clock and a seed of its own (`tests/simulation`).
"""

from __future__ import annotations

import functools
import os
import random
import ssl
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol, TypeVar

import certifi
import httpx
import trio

from observer_actors.actors.disk_process import DiskProcess
from observer_actors.actors.disk_thread import DiskThread
from observer_actors.op import iso_at
from observer_actors.threads import in_thread

T = TypeVar("T")


class InThread(Protocol):
    """Runs a blocking call where it holds nobody up; as `threads.in_thread` does, which is the real one."""

    async def __call__(
        self,
        call: Callable[[], T],
        /,
        *,
        abandon_on_cancel: bool = False,
        limiter: trio.CapacityLimiter | None = None,
    ) -> T:
        """Give what the call gives; raise what it raises."""


class OneByOne(Protocol):
    """Runs blocking calls one at a time, each to its end; as `DiskThread` does, which is the real one."""

    async def __call__(self, call: Callable[[], T]) -> T:
        """Give what the call gives; raise what it raises."""


StartDiskThread = Callable[[], AbstractAsyncContextManager[OneByOne]]
StartDiskProcess = Callable[[], AbstractAsyncContextManager[DiskProcess]]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """See the module.

    :param in_thread: for calls that may run beside each other.
    :param disk_thread: starts the thread of an incarnation of the persister.
    :param disk_process: starts the process of one; None where there is none, and the thread writes.
    :param is_ours: says whether the data directory that has the name is still the one that this daemon has locked.
    :param holding: keeps the data directory locked while a thread works in it that is not waited for at the end.
    :param time_ns: nanoseconds since 1970.
    :param monotonic: seconds since whenever, which nobody sets.
    :param chance: gives a number from 0 to 1: the jitter of delays.
    :param transport: how HTTP requests leave; None is httpx's own.
    """

    in_thread: InThread = in_thread
    disk_thread: StartDiskThread = DiskThread.started
    disk_process: StartDiskProcess | None = DiskProcess.started
    is_ours: Callable[[], bool] = lambda: True
    holding: Callable[[], AbstractContextManager[None]] = nullcontext
    time_ns: Callable[[], int] = time.time_ns
    monotonic: Callable[[], float] = time.monotonic
    chance: Callable[[], float] = random.random
    transport: httpx.AsyncBaseTransport | None = None

    def seconds(self) -> float:
        """Give the time of day: seconds since 1970."""
        return self.time_ns() / 1e9


@functools.cache
def trusted_certificates() -> ssl.SSLContext:
    """Load the certificates that a gateway, a webhook or a model is known by, once in a process: it takes some 50 ms.

    Those of `SSL_CERT_FILE` and `SSL_CERT_DIR`; unless either is set, the system's, and certifi's where it has none.
    """
    trusted = ssl.create_default_context()
    if not (os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR")):
        trusted.load_verify_locations(certifi.where())
    return trusted


def now_text(time_ns: Callable[[], int]) -> str:
    """Give the time as text (ISO 8601, milliseconds, Z)."""
    return iso_at(time_ns() / 1e9)
