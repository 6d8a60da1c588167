"""The front door: one port for everything. What agents wait for is handled here; whatever else comes is Hypercorn's.

A `POST /event` through the web framework costs some 600 µs of processor time. So the door looks at the head of each
request before anyone else does:

* A *plain* request is parsed by httptools (llhttp) and answered here. Plain means: `POST /event`, `POST /events` or
  `GET /advice?…`, one ``Host``, one ``Content-Length`` with POST and none with GET, and neither ``Transfer-Encoding``
  nor ``Expect`` nor ``Upgrade`` nor what only browsers say.
* Anything else, and anything that llhttp will not have, goes to Hypercorn once its head is there, with every byte that
  has been read. So what is wrong with a request, and where one ends that is not plain, is only ever decided there:
  there are no two opinions for a smuggler to play off against each other. What has come behind it comes back.

Between two requests a connection waits in the express lane (`express`), where single events are answered without ever
waking the connection's own task; what has to wait for anything but the disk is that task's, here. Over TLS there is no
such lane: the task waits, reads and writes itself.

Both ways give what was asked to the same `Intake`, or the same `Advise`. The requests of a connection are taken, and
so answered, in order.
"""

from __future__ import annotations

import os
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from math import inf
from typing import Final

import trio

from observer_actors.errors import ObserverError, Overloaded
from observer_actors.http.bodies import (
    Arrival,
    BodyRoom,
    HeadTooLarge,
    Held,
    body_late,
    head_late,
    head_too_large,
    no_request,
)
from observer_actors.http.express import HEAD_BYTES, RECEIVE_BYTES, Express, Rider
from observer_actors.http.guard import PEER, Guard, Peer, peer_of
from observer_actors.http.intake import Intake
from observer_actors.http.lingering import linger
from observer_actors.http.replies import Reply, problem_reply
from observer_actors.http.wire import INCOMPLETE, Head, Incomplete, head_bytes, read_head, rendered
from observer_actors.settings import ListenSettings
from observer_actors.tokens import Scope

__all__ = ["Advise", "FrontDoor", "HandOver"]

Advise = Callable[[str, str], Awaitable[Reply]]
"""Answers `GET /advice`, given its query and its ``Accept`` header."""

HandOver = Callable[[trio.SocketStream | trio.SSLStream[trio.SocketStream], bytes, int], Awaitable[bytes | None]]
"""Serves the next request of a connection, given the bytes that have been read of it, and how many requests it has made
before. Gives what has come behind it; None when the connection is to be closed."""

RECEIVE_BYTES_MAX: Final = 262_144
FREE_BYTES: Final = 2_048
"""What an unfinished request may hold without room for it: nearly every event, and nearly every head."""
BEGINNINGS_BYTES_MAX: Final = 8 * 1024 * 1024
"""Of all unfinished heads that are longer, and their requests until Hypercorn has answered them; and of all unfinished
requests up to `RECEIVE_BYTES`. They do not wait behind large bodies."""
TOLD_AT_ONCE_MAX: Final = 32
"""Connections that are turned away and given time to read why. Each takes a descriptor beyond `connections_max`, and
the journal needs some too: what is beyond this is closed at once, and may not see it."""
LAST_REQUESTS_S: Final = 0.2
"""A client of ours sends its next request within milliseconds."""
LAST_WORD_S: Final = 1.0
"""For the answer to a request that did not come in time, and for the last word of TLS."""
LOOK_S: Final = 1.0
"""How often time limits are looked at."""


class FrontDoor:
    """All connections of one incarnation of ingest.

    :param guard: gives the guard in force; it changes when the settings are reloaded.
    :param connections_max: one more is answered 503 and closed.
    :param wait_s: how long a request waits at most for room.
    :param tls: with it, TCP connections speak TLS.
    """

    def __init__(
        self,
        intake: Intake,
        hand_over: HandOver,
        guard: Callable[[], Guard],
        settings: ListenSettings,
        *,
        advise: Advise,
        connections_max: int,
        wait_s: float,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.intake = intake
        self.advise = advise
        self.bodies = BodyRoom(settings.bodies_bytes_max, wait_s=wait_s)
        self.beginnings = BodyRoom(BEGINNINGS_BYTES_MAX, wait_s=wait_s, what="request", limit="")
        self.hand_over = hand_over
        self.guard = guard
        self.settings = settings
        self.open = 0
        """Connections, those too whose request is Hypercorn's."""
        self.draining = False
        self.letting_go = False
        self.express = Express(intake, guard, settings)
        self._connections_max = connections_max
        self._tls = tls
        self._connections: set[_Connection] = set()
        self._by_address: Counter[str] = Counter()
        self._being_told = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one connection until it ends, and close it; one too many is told so at once."""
        try:
            peer = peer_of(stream, map(Scope, self.settings.unix_scopes))
        except OSError:  # it has gone already
            await trio.aclose_forcefully(stream)
            return
        self.open += 1
        self._by_address[peer.address] += 1
        self.intake.statistics.connections += 1
        try:
            refusal = self._one_too_many(peer)
            if refusal is None:
                PEER.set(peer)
                await self._serve(stream, peer)
            else:
                self.intake.statistics.connections_refused += 1
                await self._turn_away(stream, refusal)
        finally:
            self.open -= 1
            self._by_address -= Counter([peer.address])
            self.intake.statistics.connections -= 1

    def _one_too_many(self, peer: Peer) -> ObserverError | None:
        if self.open > self._connections_max:
            return Overloaded(f"{self._connections_max:,} connections already", limit="listen.connections_max")
        most = self.settings.connections_per_address_max
        if peer.address and self._by_address[peer.address] > most:
            return TooManyConnections(
                f"{most:,} connections from {peer.address} already", limit="listen.connections_per_address_max"
            )
        return None

    async def _serve(self, stream: trio.SocketStream, peer: Peer) -> None:
        if self._tls is not None and peer.address:
            connection: _Connection = _Encrypted(self, stream, peer, self._tls)
        else:
            connection = _Connection(self, stream, peer)
        async with stream:
            self._connections.add(connection)
            try:
                await connection.run()
            except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                return  # the client is gone, or speaks no TLS; what was stored for it is stored
            finally:
                self._connections.discard(connection)
            if connection.is_last_said:
                await connection.end()

    async def _turn_away(self, stream: trio.SocketStream, refusal: ObserverError) -> None:
        async with stream:
            if self._tls is not None:
                return  # to tell why takes a handshake
            with suppress(OSError):
                os.write(stream.socket.fileno(), rendered(problem_reply(refusal), close=True))
            if self._being_told < TOLD_AT_ONCE_MAX:
                self._being_told += 1
                try:
                    await linger(stream)
                finally:
                    self._being_told -= 1

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

    async def drain(self) -> None:
        """End each connection with its next answer; after a moment, let go of those that are silent.

        Who has just been answered may be sending again: closed at once, it would not know whether we have it.
        """
        self.express.draining = self.draining = True
        if not self.express.is_empty:
            await trio.sleep(LAST_REQUESTS_S)
        self.letting_go = True
        self.express.let_go()
        for connection in self._connections:
            connection.let_go()

    @property
    def busy(self) -> int:
        """Connections with a request under way; those are not counted whose request is Hypercorn's."""
        return sum(connection.busy for connection in self._connections)


class TooManyConnections(ObserverError):
    """One address has more connections than it may."""

    status = 429
    title = "too many connections"
    retryable = True


class _Connection(Rider):
    """One connection, and the task that serves it.

    Reads and writes go to the descriptor: it is ready when we are told so, and a small answer always fits.
    """

    stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]

    def __init__(self, door: FrontDoor, stream: trio.SocketStream, peer: Peer) -> None:
        super().__init__(stream.socket.fileno(), peer)
        self.stream = self._socket_stream = stream
        self.scope = trio.CancelScope()
        self._door = door
        self._answering = False
        self._expects_body = False

    async def run(self) -> None:
        """Answer requests until the connection ends.

        :raises OSError, trio.BrokenResourceError: the client is gone.
        """
        with self.scope:
            while not self.ended and (self.unread or not self._door.letting_go):
                self.unread = self.unread.removeprefix(b"\r\n")  # some send it behind a body (RFC 9112, 2.2)
                if self.unread:
                    await self._serve_one()
                else:
                    await self._ride()
        if self.scope.cancelled_caught and self.busy and not self._answering:
            await self._say_too_late()

    async def end(self) -> None:
        """Say that this was all, kindly: the client may be sending still what is not read any more."""
        await linger(self._socket_stream)

    def let_go(self) -> None:
        """End the connection if it is idle; those in the lane end there."""

    async def _ride(self) -> None:
        self.busy = self._answering = False
        await self._door.express.ride(self)
        self.busy = True
        if self.unsent:
            await self._send_all(self.unsent)
            self.unsent = b""

    async def _serve_one(self) -> None:
        try:
            async with self._door.beginnings.hold(0) as held:
                head = await self._head(held)
                if head is None:
                    await self._hand_over()
                    return
            await self._answer(head)
        except (Overloaded, HeadTooLarge) as error:
            await self._refuse(error)

    async def _head(self, held: Held) -> Head | None:
        """Give the next request once its head is there; None when it is not plain.

        :raises Overloaded: there is no room for a head as long as this one.
        :raises HeadTooLarge: nor will there ever be.
        """
        settings = self._door.settings
        self.busy, self._answering, self._expects_body = True, False, False
        self.until = trio.current_time() + settings.head_seconds_max
        head: Head | Incomplete | None = INCOMPLETE
        while head is INCOMPLETE:
            head = read_head(
                self.unread, body_bytes_max=settings.body_bytes_max, head_bytes_max=settings.head_bytes_max
            )
            if head is INCOMPLETE:
                if len(self.unread) >= FREE_BYTES and not held.size:
                    await held.grow(settings.head_bytes_max)
                if not await self._receive(1):
                    head = None
        self.until = inf
        if isinstance(head, Head):
            return head
        if head_bytes(self.unread) > settings.head_bytes_max:
            raise head_too_large(settings.head_bytes_max)
        return None

    async def _hand_over(self) -> None:
        """Have Hypercorn serve a request."""
        unread, self.unread, self.busy = self.unread, b"", False
        behind = await self._door.hand_over(self.stream, unread, self.requests)
        self.requests += 1
        self.piece = HEAD_BYTES
        if behind is None:
            self.ended = self.is_last_said = True
        else:
            self.unread = behind

    async def _answer(self, head: Head) -> None:
        """Wait for the body, while there is room for it, and answer.

        :raises Overloaded: there is none.
        """
        refusal = self._door.guard().refusal(self.peer, head.method, head.path, head.host, head.authorization)
        if refusal is not None:
            await self._refuse(refusal)
            return
        self.requests += 1
        missing = head.end - len(self.unread)
        if missing <= 0:
            await self._take(head)
            return
        self._expects_body = True
        room = self._door.bodies if head.end > RECEIVE_BYTES else self._door.beginnings
        async with room.hold(head.end if head.end > FREE_BYTES else 0):
            is_whole = await self._receive(missing, Arrival(self._door.settings.request_seconds_max))
            self.until = inf
            if is_whole:
                await self._take(head)
            else:
                await self._refuse(no_request())

    async def _refuse(self, error: ObserverError) -> None:
        await self._send(problem_reply(error), close=True)

    async def _take(self, head: Head) -> None:
        body = self.unread[head.body_at : head.end]
        self.unread = self.unread[head.end :]
        self.piece = RECEIVE_BYTES if head.path == "/event" else HEAD_BYTES
        if head.path == "/event":
            reply = await self._door.intake.event(body, head.encoding, head.trace)
        elif head.path == "/events":
            reply = await self._door.intake.batch(body, head.encoding, head.trace)
        else:
            reply = await self._door.advise(head.query, head.accept)
        spent = self.requests >= self._door.settings.requests_per_connection_max
        await self._send(reply, close=head.close or spent or self._door.draining)

    async def _receive(self, least: int, arrival: Arrival | None = None) -> bool:
        """Receive so many bytes, or a few more, behind what is unread; say False when the client has ended instead."""
        parts: list[bytes | bytearray] = [self.unread]
        while least > 0:
            if arrival is not None:
                self.until = arrival.by
            part = await self._read(min(max(least, HEAD_BYTES), RECEIVE_BYTES_MAX))
            if not part:
                return False
            parts.append(part)
            least -= len(part)
            if arrival is not None:
                arrival.came(len(part))
        self.unread = b"".join(parts)
        await trio.lowlevel.checkpoint_if_cancelled()  # whose time is over is told so here, and not once it is stored
        return True

    async def _read(self, most: int) -> bytes | bytearray:
        """Wait for bytes, and give up to so many; none at the end."""
        while True:
            await trio.lowlevel.wait_readable(self.descriptor)
            with suppress(BlockingIOError):
                return os.read(self.descriptor, most)

    async def _send(self, reply: Reply, *, close: bool) -> None:
        """Send an answer, the last one if ``close``."""
        self._answering, self.is_last_said = True, close
        data = rendered(reply, close=close)
        sent = self._send_now(data)
        if sent < len(data):
            await self._send_all(data[sent:])
        self.ended = close

    def _send_now(self, data: bytes) -> int:
        """Send what can be sent without waiting, and say how much that was."""
        with suppress(BlockingIOError):
            return os.write(self.descriptor, data)
        return 0

    async def _send_all(self, data: bytes) -> None:
        self._answering = True
        self.until = trio.current_time() + self._door.settings.answer_seconds_max
        await self.stream.send_all(data)
        self.until = inf

    async def _say_too_late(self) -> None:
        """Tell a client whose request did not come in time, if it listens."""
        with trio.move_on_after(LAST_WORD_S):
            await self._refuse(body_late() if self._expects_body else head_late())


class _Encrypted(_Connection):
    """One over TLS. What is read and sent goes through the stream; it does not ride."""

    stream: trio.SSLStream[trio.SocketStream]

    def __init__(self, door: FrontDoor, stream: trio.SocketStream, peer: Peer, tls: ssl.SSLContext) -> None:
        super().__init__(door, stream, peer)
        self.stream = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)

    async def run(self) -> None:
        """Shake hands, and answer requests until the connection ends.

        :raises OSError, trio.BrokenResourceError: the client is gone, or speaks no TLS.
        """
        self.until = trio.current_time() + self._door.settings.head_seconds_max
        with self.scope:
            await self.stream.do_handshake()
        if not self.scope.cancelled_caught:
            self.scope = trio.CancelScope()
            await super().run()

    async def end(self) -> None:
        """Say that this was all, in TLS's words too, or what was sent may count as cut off."""
        with trio.move_on_after(LAST_WORD_S), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self.stream.unwrap()
        await super().end()

    def let_go(self) -> None:
        """End the connection if it is idle."""
        if not self.is_off:
            self.scope.cancel()

    async def _ride(self) -> None:
        """Wait for the next request, in nobody's lane."""
        self.busy = self._answering = self.is_off = False
        self.until = trio.current_time() + self._door.settings.idle_seconds_max
        self.unread = bytes(await self._read(self.piece))
        self.busy, self.ended, self.is_off, self.until = True, not self.unread, True, inf

    async def _read(self, most: int) -> bytes | bytearray:
        return await self.stream.receive_some(most)

    def _send_now(self, data: bytes) -> int:  # noqa: ARG002 - nothing can be encrypted without a turn
        return 0
