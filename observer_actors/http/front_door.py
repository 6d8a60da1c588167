"""The front door: one port for everything. What agents wait for is handled here; whatever else comes is Hypercorn's.

A `POST /event` through the web framework costs some 600 µs of processor time. So the door looks at the head of each
request before anyone else does:

* A *plain* request is parsed by httptools (llhttp) and answered here. Plain means: `POST /event`, `POST /events` or
  `GET /advice?…`, one ``Host``, one ``Content-Length`` with POST and none above 0 with GET, and neither
  ``Transfer-Encoding`` nor ``Expect`` nor what only browsers say. An ``Upgrade`` is passed over, here as there.
* Anything else, and anything that llhttp will not have, goes to Hypercorn once its head is there, with every byte that
  has been read. So what is wrong with a request, and where one ends that is not plain, is only ever decided there:
  there are no two opinions for a smuggler to play off against each other. What has come behind it comes back.

Between two requests a connection waits in the express lane (`express`), where single events are answered, and has no
task; what has to wait for anything but the disk gets one, here, until it is answered. Over TLS there is no such lane:
a connection has its task from the beginning to the end, which waits, reads and writes itself.

Both ways give what was asked to the same `Intake`, or the same `Advise`. The requests of a connection are taken, and
so answered, in order.

One file, though a long one: who has a connection in hand changes with each request, and that is followed in one place.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from math import inf
from typing import Final

import trio

from observer_actors.errors import ObserverError, Overloaded, RequestTimedOut
from observer_actors.http.bodies import (
    BYTES_A_SECOND_MIN,
    Arrival,
    BodyRoom,
    HeadTooLarge,
    Held,
    head_too_large,
    no_request,
)
from observer_actors.http.express import HEAD_BYTES, RECEIVE_BYTES, Ending, Express, Rider
from observer_actors.http.guard import PEER, Guard, Peer, peer_of
from observer_actors.http.intake import Intake
from observer_actors.http.replies import Reply, problem_reply
from observer_actors.http.wire import (
    HEADERS_MAX,
    INCOMPLETE,
    Head,
    Incomplete,
    has_too_many_headers,
    head_bytes,
    read_head,
    rendered,
)
from observer_actors.settings import ListenSettings
from observer_actors.tokens import Scope

Advise = Callable[[str, str], Awaitable[Reply]]
"""Answers `GET /advice`, given its query and its ``Accept`` header."""

Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]
"""A connection, without TLS or with it."""

HandOver = Callable[[Stream, bytes, int], Awaitable[bytes | None]]
"""Serves the next request of a connection, given the bytes that have been read of it, and how many requests it has made
before. Gives what has come behind it; None when the connection is to be closed."""

RECEIVE_BYTES_MAX: Final = 262_144
FREE_BYTES: Final = 2_048
"""What an unfinished request may hold without room for it: nearly every event, and nearly every head."""
BEGINNINGS_BYTES_MAX: Final = 8 * 1024 * 1024
"""Room for all unfinished heads that are longer (with their requests, until Hypercorn has answered them) and all
unfinished requests up to `RECEIVE_BYTES`. It is theirs alone, so that they do not wait behind large bodies."""
TOLD_AT_ONCE_MAX: Final = 32
"""Connections that are turned away and given time to read why. Each takes a descriptor beyond `connections_max`, and
the journal needs some too: what is beyond this is closed at once, and may not see it."""
LAST_REQUESTS_S: Final = 0.2
"""A client of ours sends its next request within milliseconds."""
LAST_WORD_S: Final = 1.0
"""For the answer to a request that did not come in time, and for the last word of TLS."""
LOOK_S: Final = 1.0
"""How often time limits are looked at."""
_REPORT: Final = re.compile(rb"POST /events?[ ?]")


class FrontDoor:
    """All connections of one incarnation of ingest.

    :param guard: gives the guard in force; it changes when the settings are reloaded.
    :param connections_max: one more is answered 503 and closed.
    :param wait_s: how long a request waits at most for room.
    :param tls: gives what the next TCP connection needs to speak TLS; None: it speaks none.
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
        tls: Callable[[], ssl.SSLContext | None],
    ) -> None:
        self.intake = intake
        self.advise = advise
        self.bodies = BodyRoom(settings.bodies_bytes_max, wait_s=wait_s)
        self.beginnings = BodyRoom(BEGINNINGS_BYTES_MAX, wait_s=wait_s, what="request", limit="")
        self.hand_over = hand_over
        self.guard = guard
        self.settings = settings
        self.draining = False
        self.letting_go = False
        self.express = Express(intake, guard, settings, self._let_off)
        self._connections_max = connections_max
        self._tls = tls
        self._connections: set[_Connection] = set()
        self._turned_away: set[_Connection] = set()
        """Of those that are open still."""
        self._by_address: Counter[str] = Counter()
        self._nursery: trio.Nursery | None = None
        """While connections are taken in."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve all connections that are taken in, and keep time; for ever. In the end they are closed."""
        try:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self.express.run)
                self._nursery.start_soon(self._keep_time)
                task_status.started()
        finally:
            self._nursery = None
            self.express.close()
            for connection in self._connections | self._turned_away:
                self._close(connection)

    def take_in(self, accepted: socket.socket) -> None:
        """Serve a connection until it ends, and close it; one too many is told so at once."""
        try:
            peer = peer_of(accepted, map(Scope, self.settings.unix_scopes))
        except OSError:  # it has gone already
            accepted.close()
            return
        if self._nursery is None:  # all have just been closed
            accepted.close()
            return
        self.intake.statistics.connections += 1
        tls = self._tls() if peer.address else None
        if tls is not None:
            connection: _Connection = _Encrypted(self, accepted, peer, tls)
        else:
            connection = _Connection(self, accepted, peer)
        refusal = self._one_too_many(peer)
        if refusal is not None:
            self._turn_away(connection, refusal)
            return
        self._connections.add(connection)
        self._by_address[peer.address] += 1
        if isinstance(connection, _Encrypted):
            self._start(connection)
        else:
            self._settle(connection)

    def _one_too_many(self, peer: Peer) -> ObserverError | None:
        if len(self._connections) >= self._connections_max:
            return Overloaded(f"{self._connections_max:,} connections already", limit="listen.connections_max")
        most = self.settings.connections_per_address_max
        if peer.address and self._by_address[peer.address] >= most:
            return TooManyConnections(
                f"{most:,} connections from {peer.address} already", limit="listen.connections_per_address_max"
            )
        return None

    def _turn_away(self, connection: _Connection, refusal: ObserverError) -> None:
        self.intake.statistics.connections_refused += 1
        self._turned_away.add(connection)
        connection.ending = Ending.CLOSED
        if not isinstance(connection, _Encrypted):  # to tell it why takes a handshake
            with suppress(OSError):
                os.write(connection.descriptor, rendered(problem_reply(refusal), close=True))
            if len(self._turned_away) <= TOLD_AT_ONCE_MAX:
                connection.ending = Ending.LINGERING
        self._settle(connection)

    def _let_off(self, connection: Rider) -> None:
        assert isinstance(connection, _Connection)
        if connection.ending is not None and not connection.unsent:
            self._settle(connection)
        else:
            connection.busy = True
            self._start(connection)

    def _start(self, connection: _Connection) -> None:
        """Give a connection a task of its own."""
        assert self._nursery is not None
        connection.scope = trio.CancelScope()
        self._nursery.start_soon(self._serve, connection)

    async def _serve(self, connection: _Connection) -> None:
        PEER.set(connection.peer)
        try:
            await connection.run()
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            # The client is gone, or speaks no TLS; what was stored for it is stored.
            connection.ending = Ending.CLOSED
        self._settle(connection)

    def _settle(self, connection: _Connection) -> None:
        """Say where a connection without a task goes: it lingers, is closed, or waits in the lane."""
        try:
            if connection.ending is Ending.LINGERING:
                self.express.linger(connection)
            elif connection.ending is Ending.CLOSED or self.letting_go:
                self._close(connection)
            else:
                self.express.board(connection)
        except OSError:  # the kernel watches no more of them
            self._close(connection)

    def _close(self, connection: _Connection) -> None:
        connection.accepted.close()
        self.intake.statistics.connections -= 1
        if connection in self._turned_away:
            self._turned_away.remove(connection)
            return
        self._connections.remove(connection)
        self._by_address[connection.peer.address] -= 1
        if not self._by_address[connection.peer.address]:
            del self._by_address[connection.peer.address]

    async def _keep_time(self) -> None:
        """Let go of what takes longer than it may. One look a second costs less than a timer a request."""
        while True:
            await trio.sleep(LOOK_S)
            now = trio.current_time()
            for connection in self._connections | self._turned_away:
                if now <= connection.until:
                    continue
                if connection.is_off:
                    connection.scope.cancel()
                else:
                    self.express.drop(connection)

    async def drain(self) -> None:
        """End each connection with its next answer; after a moment, let go of those that are silent.

        Who has just been answered may be sending again: closed at once, it would not know whether we have it.
        """
        self.express.draining = self.draining = True
        if self._connections:
            await trio.sleep(LAST_REQUESTS_S)
        self.letting_go = True
        self.express.let_go()
        for connection in self._connections:
            connection.let_go()

    @property
    def busy(self) -> int:
        """Connections with a request under way."""
        return sum(connection.busy for connection in self._connections)


class TooManyConnections(ObserverError):
    """One address has more connections than it may."""

    status = 429
    title = "too many connections"
    retryable = True


class _Connection(Rider):
    """One connection, and what its task does.

    Reads and writes go to the descriptor: it is ready when we are told so, and a small answer always fits.
    """

    __slots__ = ("_answering", "_arrival", "_door", "_reports", "_stream", "scope")

    scope: trio.CancelScope
    """Around all that the task does. Cancelled when its time is over."""

    def __init__(self, door: FrontDoor, accepted: socket.socket, peer: Peer) -> None:
        super().__init__(accepted, peer)
        self._door = door
        self._stream: trio.SocketStream | None = None
        self._answering = False
        self._arrival: Arrival | None = None
        """Of the body that is being received."""
        self._reports = False
        """The request under way is a report, as far as its head is there."""

    @property
    def stream(self) -> Stream:
        """The connection for those who send much, and for Hypercorn."""
        if self._stream is None:
            self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(self.accepted))
        return self._stream

    async def run(self) -> None:
        """Answer what is there, until it waits for another request, or ends.

        :raises OSError, trio.BrokenResourceError: the client is gone.
        """
        with self.scope:
            await self._serve_all()
        if self.scope.cancelled_caught:
            await self._be_late()

    async def _serve_all(self) -> None:
        if self.unsent:
            await self._send_all(self.unsent)
            self.unsent = b""
        while self.unread and self.ending is None:
            await self._serve_one()
        self.busy = self._answering = False

    async def _be_late(self) -> None:
        """End a connection whose time is over, and tell its client, if it waits for an answer and listens."""
        self.ending, self.unsent = self.ending or Ending.CLOSED, b""
        if self.busy and not self._answering:
            with trio.move_on_after(LAST_WORD_S):
                late = RequestTimedOut("the head did not arrive in time", limit="listen.head_seconds_max")
                await self._refuse(self._arrival.late() if self._arrival else late)

    def let_go(self) -> None:
        """Wait no longer for the rest of a head. Idle connections are in the lane: `Express.let_go` ends them."""
        if self.is_off and self.until < inf and not (self._answering or self._arrival):
            self.until = -inf

    async def _serve_one(self) -> None:
        try:
            async with self._door.beginnings.hold(0) as held:
                head = await self._head(held)
                if head is None:
                    await self._hand_over()
                    return
            await self._answer(head)
        except (Overloaded, HeadTooLarge) as error:
            if self._reports and isinstance(error, Overloaded):
                self._door.intake.note_refused()
            await self._refuse(error)

    async def _head(self, held: Held) -> Head | None:
        """Give the next request once its head is there; None when it is not plain.

        :raises Overloaded: there is no room for a head as long as this one.
        :raises HeadTooLarge: nor will there ever be.
        """
        settings = self._door.settings
        self._answering, self._arrival = False, None
        self.until = trio.current_time() + settings.head_seconds_max
        head: Head | Incomplete | None = INCOMPLETE
        while head is INCOMPLETE:
            self.unread = self.unread.lstrip(b"\r\n")  # which some send behind a body (RFC 9112, 2.2)
            self.busy = bool(self.unread)
            if self.busy:
                head = read_head(
                    self.unread, body_bytes_max=settings.body_bytes_max, head_bytes_max=settings.head_bytes_max
                )
            self._reports = _REPORT.match(self.unread) is not None
            if head is INCOMPLETE:
                if len(self.unread) >= FREE_BYTES and not held.size:
                    await held.grow(settings.head_bytes_max)
                if not await self._receive(1):
                    head = None
        self.until = inf
        if isinstance(head, Head):
            return head
        size = head_bytes(self.unread)
        if size > settings.head_bytes_max:
            raise head_too_large(settings.head_bytes_max)
        if has_too_many_headers(self.unread[:size]):
            raise HeadTooLarge(f"the head of a request has at most {HEADERS_MAX} headers")
        return None

    async def _hand_over(self) -> None:
        """Have Hypercorn serve a request, unless nothing has come of it."""
        if not self.unread:
            self.ending = Ending.CLOSED
            return
        unread, self.unread = self.unread, b""
        behind = await self._door.hand_over(self.stream, unread, self.requests)
        self.requests += 1
        self.piece = HEAD_BYTES
        if behind is None:
            self.ending = Ending.LINGERING
        else:
            self.unread = behind

    async def _answer(self, head: Head) -> None:
        """Wait for the body, while there is room for it, and answer.

        :raises Overloaded: there is none.
        """
        refusal = self._door.guard().refusal(self.peer, head.method, head.path, head.host, head.authorization)
        if refusal is not None:
            self._door.intake.statistics.denied[refusal.status] += 1
            await self._refuse(refusal)
            return
        self.requests += 1
        missing = head.end - len(self.unread)
        if missing <= 0:
            await self._take(head)
            return
        room = self._door.bodies if head.end > RECEIVE_BYTES else self._door.beginnings
        async with room.hold(head.end if head.end > FREE_BYTES else 0):
            self._arrival = Arrival(self._door.settings.request_seconds_max)
            is_whole = await self._receive(missing, self._arrival)
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
        self._answering, self.ending = True, Ending.LINGERING if close else None
        data = rendered(reply, close=close)
        sent = self._send_now(data)
        if sent < len(data):
            await self._send_all(data[sent:])

    def _send_now(self, data: bytes) -> int:
        """Send what can be sent without waiting, and say how much that was."""
        with suppress(BlockingIOError):
            return os.write(self.descriptor, data)
        return 0

    async def _send_all(self, data: bytes) -> None:
        self._answering = True
        seconds_max = self._door.settings.answer_seconds_max + len(data) / BYTES_A_SECOND_MIN
        self.until = trio.current_time() + seconds_max
        await self.stream.send_all(data)
        self.until = inf
        await trio.lowlevel.checkpoint_if_cancelled()  # whose time is over has no other request stored


class _Encrypted(_Connection):
    """One over TLS. What is read and sent goes through the stream; it does not ride."""

    __slots__ = ("_encrypted", "_is_idle", "_tls")

    def __init__(self, door: FrontDoor, accepted: socket.socket, peer: Peer, tls: ssl.SSLContext) -> None:
        super().__init__(door, accepted, peer)
        self._tls = tls
        self._is_idle = False
        self._encrypted: trio.SSLStream[trio.SocketStream]
        """Made by `run`: it takes a socket of trio's."""

    @property
    def stream(self) -> trio.SSLStream[trio.SocketStream]:
        """The connection."""
        return self._encrypted

    async def run(self) -> None:
        """Shake hands, answer requests until the connection ends, and say so in TLS's words too.

        Without them what was sent may count as cut off.

        :raises OSError, trio.BrokenResourceError: the client is gone, or speaks no TLS.
        """
        plain = trio.SocketStream(trio.socket.from_stdlib_socket(self.accepted))
        self._encrypted = trio.SSLStream(plain, self._tls, server_side=True, https_compatible=True)
        try:
            await super().run()
            self.ending = self.ending or Ending.CLOSED
            if self.ending is Ending.LINGERING:
                with trio.move_on_after(LAST_WORD_S), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await self._encrypted.unwrap()
        finally:
            vars(self._encrypted).clear()  # it leads back to itself: it would stay until the next search for garbage

    def let_go(self) -> None:
        """End the connection if it is idle; wait no longer for the rest of a head."""
        if self._is_idle:
            self.scope.cancel()
        else:
            super().let_go()

    async def _serve_all(self) -> None:
        self.until = trio.current_time() + self._door.settings.head_seconds_max
        await self._encrypted.do_handshake()
        while self.ending is None and not self._door.letting_go:
            await self._wait()
            await super()._serve_all()

    async def _wait(self) -> None:
        """Wait for the next request, in nobody's lane. One that has come as the wait is over is the last."""
        self.until = trio.current_time() + self._door.settings.idle_seconds_max
        whole, self.scope = self.scope, trio.CancelScope()
        self._is_idle = True
        with self.scope:
            self.unread = bytes(await self._read(self.piece))
        self._is_idle, self.scope = False, whole
        self.until = inf
        if not self.unread:
            self.ending = Ending.CLOSED

    async def _read(self, most: int) -> bytes | bytearray:
        return await self._encrypted.receive_some(most)

    def _send_now(self, data: bytes) -> int:  # noqa: ARG002 - nothing can be encrypted without a turn
        return 0
