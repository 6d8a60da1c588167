"""The ingest actor: accepts connections, and stops doing so in good order.

The listening sockets belong to the daemon and outlive each incarnation: while ingest is being restarted, connections
wait in the kernel's backlog. Each incarnation serves duplicates of them.
"""

from __future__ import annotations

import resource
import socket
import ssl
import sys
from collections.abc import Callable
from typing import Final

import trio

from observer_actors.errors import ConfigInvalid
from observer_actors.http.bodies import BodyRoom
from observer_actors.http.front_door import Advise, FrontDoor
from observer_actors.http.gate import Application, Gate, Sends
from observer_actors.http.guard import Guard
from observer_actors.http.intake import Intake
from observer_actors.http.listeners import accept
from observer_actors.http.web import Web
from observer_actors.settings import ListenSettings
from observer_actors.supervision import Life

GRACE_S: Final = 6.0
"""For requests under way when the daemon stops: a little longer than a caller waits for its commit."""
DRAIN_LOOK_S: Final = 0.01
WEB_WAITING_MAX: Final = 250
"""Requests to Hypercorn that wait for room for their bodies, of those that it serves at once: others have no bodies."""
FILES_KEPT: Final = 64
"""Descriptors for the journal, the store and the threads that read: connections never take the last ones."""
FILES_MIN: Final = FILES_KEPT + 16
"""With fewer a reader or two, and the watchdog, would be all who are let in."""


def files_max() -> int:
    """Let the process open as many files as it may, and say how many that is.

    :raises ConfigInvalid: they are so few that hardly anybody could be served.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    most = hard if hard != resource.RLIM_INFINITY else sys.maxsize
    if most < FILES_MIN:
        hint = f"LimitNOFILE= in the unit, or ulimit -n: {FILES_KEPT} are for the journal, and one for a connection"
        raise ConfigInvalid(f"{most} open files are too few: at least {FILES_MIN}", hint=hint)
    return most


class IngestServer:
    """The actor.

    :param guard: gives the guard in force.
    :param application: the ASGI application, for all that the front door does not do itself.
    :param tls: gives what TLS needs, as it is in force for the next connection; None without it.
    :param on_stopping: called once when the actor is told to stop, before it waits for requests under way.
    """

    def __init__(  # noqa: PLR0913 - an actor gets everything it needs as arguments
        self,
        intake: Intake,
        application: Application,
        listeners: list[socket.socket],
        guard: Callable[[], Guard],
        settings: ListenSettings,
        *,
        tls: Callable[[], ssl.SSLContext | None],
        advise: Advise,
        wait_s: float,
        on_stopping: Callable[[], None],
    ) -> None:
        self._intake = intake
        self._advise = advise
        self._application = application
        self._listeners = listeners
        self._guard = guard
        self._settings = settings
        self._tls = tls
        self._wait_s = wait_s
        self._on_stopping = on_stopping

    async def run(self, life: Life) -> None:
        """Serve as an actor; drains: stops accepting, and finishes what is under way."""
        settings = self._settings
        bodies = BodyRoom(
            settings.bodies_bytes_max,
            wait_s=self._wait_s,
            whole_bytes=settings.body_bytes_max,
            waiting_max=WEB_WAITING_MAX,
        )
        sends = Sends()
        gate = Gate(
            self._application,
            bodies,
            self._guard,
            sends,
            body_bytes_max=settings.body_bytes_max,
            body_seconds_max=settings.request_seconds_max,
            answers_bytes_max=settings.answers_bytes_max,
            intake=self._intake,
        )
        web = Web(gate, settings, sends, wait_s=self._wait_s)
        door = FrontDoor(
            self._intake,
            web.serve,
            self._guard,
            settings,
            advise=self._advise,
            connections_max=min(settings.connections_max, files_max() - FILES_KEPT),
            wait_s=self._wait_s,
            tls=self._tls,
        )
        async with trio.open_nursery() as connections:
            await connections.start(door.run)
            await self._accept_until_told(door, life)
            life.at("draining")
            self._on_stopping()
            web.drain()
            await door.drain()
            with trio.move_on_after(GRACE_S):
                while door.busy:  # noqa: ASYNC110 - once in a life; an event would cost each request
                    await trio.sleep(DRAIN_LOOK_S)
            sends.abort()
            connections.cancel_scope.cancel()

    async def _accept_until_told(self, door: FrontDoor, life: Life) -> None:
        async with trio.open_nursery() as accepting:
            for listener in self._listeners:
                accepting.start_soon(accept, listener.dup(), door.take_in)
            life.at("serving")
            life.ready()
            await life.stopping.wait()
            accepting.cancel_scope.cancel()
