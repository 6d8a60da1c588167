"""The front door: one port for everything. Ingest is handled here; whatever else comes is Hypercorn's.

A `POST /event` through the web framework costs some 600 µs of processor time. So the door looks at the head of each
request before anyone else does:

* A *plain* ingest request is parsed by httptools (llhttp) and answered here. Plain means: exactly one of two request
  lines, one ``Host``, one ``Content-Length``, and neither ``Transfer-Encoding`` nor ``Expect`` nor ``Upgrade``.
* Anything else, and anything that llhttp will not have, goes to Hypercorn with every byte that has been read of it,
  and the rest of its connection with it. So what is wrong with a request, and where one ends that is not plain, is
  only ever decided there: there are no two opinions for a smuggler to play off against each other.

Between two requests a connection waits in the express lane (`express`), where single events are answered without ever
waking the connection's own task; what has to wait for anything but the disk is that task's, here.

Both ways give the body to the same `Intake`. The requests of a connection are taken, and so answered, in order.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from math import inf
from typing import Final

import trio

from observer_actors.errors import Overloaded, RequestTimedOut
from observer_actors.http.bodies import BodyRoom
from observer_actors.http.express import RECEIVE_BYTES, Express, Rider
from observer_actors.http.intake import Intake
from observer_actors.http.replies import Reply, problem_reply
from observer_actors.http.wire import INCOMPLETE, Head, read_head, rendered

__all__ = ["FrontDoor", "HandOver"]

HandOver = Callable[[trio.SocketStream, bytes], Awaitable[None]]
"""Serves the rest of a connection, of which some bytes have been read."""

RECEIVE_BYTES_MAX: Final = 262_144
STALL_S: Final = 2.0
BODY_BYTES_A_SECOND_MIN: Final = 65_536
"""A body holds room while it arrives. It may stand still for `STALL_S` in all, and must come at this rate besides: who
only announces one, or trickles it, does not keep others out."""
LOOK_S: Final = 1.0
"""How often time limits are looked at."""
SEND_S_MAX: Final = 30.0
"""A client that does not read its answers is let go."""


class FrontDoor:
    """All connections of one incarnation of ingest.

    :param body_bytes_max: a longer body is not plain.
    :param connections_max: one more is answered 503 and closed.
    :param idle_s: a connection may be silent this long between two requests.
    :param request_s: a request may take this long to arrive.
    """

    def __init__(
        self,
        intake: Intake,
        bodies: BodyRoom,
        hand_over: HandOver,
        *,
        body_bytes_max: int,
        connections_max: int,
        idle_s: float,
        request_s: float,
    ) -> None:
        self.intake = intake
        self.bodies = bodies
        self.body_bytes_max = body_bytes_max
        self.connections_max = connections_max
        self.open = 0
        """Connections, those handed over too."""
        self.request_s = request_s
        self.draining = False
        self.express = Express(intake, body_bytes_max=body_bytes_max, idle_s=idle_s)
        self._hand_over = hand_over
        self._connections: set[_Connection] = set()

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one connection until it ends, and close it; one too many is told so at once."""
        self.open += 1
        self.intake.statistics.connections += 1
        try:
            if self.open <= self.connections_max:
                await self._serve(stream)
            else:
                self.intake.statistics.connections_refused += 1
                await _turn_away(stream, self.connections_max)
        finally:
            self.open -= 1
            self.intake.statistics.connections -= 1

    async def _serve(self, stream: trio.SocketStream) -> None:
        connection = _Connection(self, stream)
        unread: bytes | None = None
        async with stream:
            self._connections.add(connection)
            try:
                unread = await connection.run()
            except (OSError, trio.BrokenResourceError):
                return  # the client is gone; what was stored for it is stored
            finally:
                self._connections.discard(connection)
            if unread is not None:
                await self._hand_over(stream, unread)

    async def run(self) -> None:
        """Serve the express lane, and keep time; for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.express.run)
            nursery.start_soon(self._keep_time)

    async def _keep_time(self) -> None:
        """Let go of what takes longer than it may. One look a second costs less than a timer a request."""
        while True:
            await trio.sleep(LOOK_S)
            now = trio.current_time()
            for connection in self._connections:
                if now > connection.until:
                    connection.scope.cancel()

    def drain(self) -> None:
        """Let go of silent connections at once, and of each other one after the request that it has begun."""
        self.draining = self.express.draining = True
        for connection in self._connections:
            if not connection.busy:
                connection.scope.cancel()

    @property
    def busy(self) -> int:
        """Connections with a request under way; those handed over are not counted."""
        return sum(connection.busy for connection in self._connections)


async def _turn_away(stream: trio.SocketStream, connections_max: int) -> None:
    reply = problem_reply(Overloaded(f"{connections_max:,} connections already"))
    async with stream:
        with suppress(OSError):
            os.write(stream.socket.fileno(), rendered(reply, close=True))


class _Connection(Rider):
    """One connection, and the task that serves it.

    Reads and writes go to the descriptor: it is ready when we are told so, and a small answer always fits.
    """

    def __init__(self, door: FrontDoor, stream: trio.SocketStream) -> None:
        super().__init__(stream.socket.fileno())
        self.scope = trio.CancelScope()
        self._answering = False
        self._door = door
        self._stream = stream

    async def run(self) -> bytes | None:
        """Answer plain requests; give what is unread when one is not plain, or None at the end.

        :raises OSError: the client is gone.
        """
        with self.scope:
            while not self.ended and not self._door.draining:
                if not self.unread:
                    await self._ride()
                    continue
                head = await self._head()
                if head is None:
                    return self.unread
                await self._answer(head)
        if self.scope.cancelled_caught and self.busy and not self._answering:
            await self._say_too_late()
        return None

    async def _ride(self) -> None:
        self.busy = self._answering = False
        await self._door.express.ride(self)
        self.busy = True
        if self.unsent:
            await self._send_rest(self.unsent)

    async def _head(self) -> Head | None:
        """Give the next request once its head is there; None when it is not plain."""
        door = self._door
        self.busy, self._answering = True, False
        self.until = trio.current_time() + door.request_s
        head = read_head(self.unread, door.body_bytes_max)
        while head is INCOMPLETE:
            if not await self._receive(1):
                return None
            head = read_head(self.unread, door.body_bytes_max)
        self.until = inf
        return head if isinstance(head, Head) else None

    async def _answer(self, head: Head) -> None:
        """Wait for the body, while there is room for it, and answer."""
        missing = head.end - len(self.unread)
        if missing <= 0:
            await self._take(head)
            return
        try:
            async with self._door.bodies.hold(head.end if head.end > RECEIVE_BYTES else 0):
                by = trio.current_time() + min(STALL_S, self._door.request_s)
                if await self._receive(missing, at_least_by=by):
                    self.until = inf
                    await self._take(head)
        except Overloaded as error:
            await self._send(problem_reply(error), close=True)

    async def _take(self, head: Head) -> None:
        body = self.unread[head.body_at : head.end]
        self.unread = self.unread[head.end :]
        take = self._door.intake.event if head.single else self._door.intake.batch
        reply = await take(body, head.encoding)
        await self._send(reply, close=head.close or self._door.draining)

    async def _receive(self, least: int, at_least_by: float | None = None) -> bool:
        """Receive so many bytes, or a few more, behind what is unread; say False when the client has ended instead.

        :param at_least_by: when the next byte must be there; each one that comes gives time for others.
        """
        parts = [self.unread]
        while least > 0:
            if at_least_by is not None:
                self.until = at_least_by
            await trio.lowlevel.wait_readable(self.descriptor)
            try:
                part = os.read(self.descriptor, min(max(least, RECEIVE_BYTES), RECEIVE_BYTES_MAX))
            except BlockingIOError:
                continue
            if not part:
                self.ended = True
                return False
            parts.append(part)
            least -= len(part)
            if at_least_by is not None:
                at_least_by += len(part) / BODY_BYTES_A_SECOND_MIN
        self.unread = b"".join(parts)
        return True

    async def _send(self, reply: Reply, *, close: bool) -> None:
        """Send an answer, the last one if ``close``."""
        self._answering = True
        data = rendered(reply, close=close)
        try:
            sent = os.write(self.descriptor, data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            await self._send_rest(data[sent:])
        self.ended = close

    async def _send_rest(self, data: bytes) -> None:
        self._answering = True
        self.until = trio.current_time() + SEND_S_MAX
        await self._stream.send_all(data)
        self.until, self.unsent = inf, b""

    async def _say_too_late(self) -> None:
        """Tell a client whose request did not come in time, if it listens."""
        reply = problem_reply(RequestTimedOut("the request did not arrive in time"))
        with suppress(OSError):
            os.write(self.descriptor, rendered(reply, close=True))
