"""systemd's notification protocol (sd_notify(3)): datagrams to the socket that ``NOTIFY_SOCKET`` names.

The watchdog is fed only while both ends of the pipeline make progress: the listener answers a request, and the
persister has concluded a round since the last look. One that has had nothing to do is given an empty submission; it
waits behind all callers, so that under overload the rounds themselves must do. That others have taken all connections,
or have as many requests served as may be, is no reason to be ended: the question comes by a connection that is kept,
has the time to wait for its turn, and to be told that there are too many is an answer.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import Final, Protocol

import httpx
import trio

from observer_actors.actors.admission import Admission
from observer_actors.actors.persister import Persister
from observer_actors.addresses import parse_address
from observer_actors.errors import ObserverError
from observer_actors.http.views import Readiness
from observer_actors.http.web import TooManyRequests
from observer_actors.problems import read_problem
from observer_actors.supervision import Life

STATUS_S: Final = 5.0
TOO_MANY: Final = ("listen.connections_max", "listen.connections_per_address_max")


class Notifier:
    """Tells systemd how we are; does nothing when systemd did not start us."""

    def __init__(self) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        meant_for_us = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        microseconds = os.environ.get("WATCHDOG_USEC", "") if meant_for_us else ""
        self.watchdog_s: float | None = int(microseconds) / 1e6 if microseconds.isdigit() else None
        """Without a `WATCHDOG=1` for this long, systemd ends the process; None when nobody watches."""

    @property
    def wanted(self) -> bool:
        """Whether anybody listens."""
        return bool(self._address)

    def send(self, **state: str) -> None:
        """Send e.g. ``READY="1"``. A manager that is gone does not matter to us."""
        if not self.wanted:
            return
        message = "\n".join(f"{name}={value}" for name, value in state.items())
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as channel:
            try:
                channel.sendto(message.encode(), self._address)
            except OSError:
                return


class Notified(Protocol):
    """What is said of a daemon."""

    addresses: list[str]
    admission: Admission
    persister: Persister
    life: Life

    def readiness(self) -> Readiness:
        """Say whether events are taken."""

    def rate_per_second(self) -> float:
        """Give the rate of commits."""


async def keep_notified(notifier: Notifier, daemon: Notified) -> None:
    """Tell systemd when the daemon is ready, how it is, and that it makes progress."""
    if not notifier.wanted:
        return
    await daemon.life.wait_ready()
    notifier.send(READY="1", STATUS=_status(daemon), MAINPID=str(os.getpid()))
    answer_s = notifier.watchdog_s / 3 if notifier.watchdog_s else STATUS_S
    period_s = min(STATUS_S, answer_s)
    where = parse_address(daemon.addresses[0])
    # No name is checked: a certificate is for the name by which others know us, and nothing is told but that we ask.
    kept = httpx.Limits(keepalive_expiry=None)
    transport = httpx.AsyncHTTPTransport(uds=where.socket, verify=False, limits=kept)
    async with httpx.AsyncClient(
        base_url=where.base, headers=where.headers, transport=transport, trust_env=False, timeout=answer_s
    ) as client:
        rounds = daemon.persister.status.rounds
        while not await _is_told_to_stop(daemon, period_s):
            if await _listens(client) and await _persists(daemon, rounds, period_s):
                notifier.send(WATCHDOG="1", STATUS=_status(daemon))
            rounds = daemon.persister.status.rounds


async def _is_told_to_stop(daemon: Notified, within_s: float) -> bool:
    """Wait; a daemon that stops is asked nothing more: a socket that systemd holds would start the next one for it."""
    with trio.move_on_after(within_s):
        await daemon.life.stopping.wait()
    return daemon.life.stopping.is_set()


async def _listens(client: httpx.AsyncClient) -> bool:
    try:
        answer = await client.get("/health")
    except httpx.HTTPError:
        return False
    return answer.is_success or _is_one_too_many(answer)


async def _persists(daemon: Notified, rounds: int, within_s: float) -> bool:
    """Whether the persister has concluded a round since there were so many; one that was idle is given cause to."""
    status = daemon.persister.status
    if status.rounds == rounds:
        # Any round counts, whatever has become of the submission. Its wait is ours: that of callers may be far longer.
        with trio.move_on_after(within_s), suppress(ObserverError):
            await daemon.admission.submit((), 0)
    return status.rounds != rounds


def _is_one_too_many(answer: httpx.Response) -> bool:
    """Whether the connection was accepted, judged, and turned away, or the request was."""
    problem = read_problem(answer.content)
    return problem.limit in TOO_MANY or problem.title == TooManyRequests.title


def _status(daemon: Notified) -> str:
    readiness = daemon.readiness()
    state = "taking events" if readiness.ready else "; ".join(readiness.reasons)
    return f"{daemon.addresses[0]}: {state}, {daemon.rate_per_second():.1f} a second"
