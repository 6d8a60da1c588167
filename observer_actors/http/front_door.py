"""The front door: one port for everything. Ingest is handled here; whatever else comes is Hypercorn's.

A `POST /event` through the web framework costs some 600 µs of processor time, through this loop 60 to 80. So the loop
looks at the head of each request before anyone else does:

* A *plain* ingest request is parsed by httptools (llhttp) and answered here. Plain means: exactly one of two request
  lines, one ``Host``, one ``Content-Length``, and neither ``Transfer-Encoding`` nor ``Expect`` nor ``Upgrade``.
* Anything else, and anything that llhttp will not have, goes to Hypercorn with every byte that has been read of it,
  and the rest of its connection with it. So what is wrong with a request, and where one ends that is not plain, is
  only ever decided there: there are no two opinions for a smuggler to play off against each other.

Both ways give the body to the same `Intake`. The requests of a connection are taken, and so answered, in order.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from email.utils import formatdate
from enum import Enum
from http import HTTPStatus
from math import inf
from time import time
from typing import Final

import httptools
import trio

from observer_actors.errors import Overloaded, RequestTimedOut
from observer_actors.http.bodies import BodyRoom
from observer_actors.http.intake import Intake
from observer_actors.http.replies import Reply, problem_reply

__all__ = ["FrontDoor", "HandOver"]

HandOver = Callable[[trio.SocketStream, bytes], Awaitable[None]]
"""Serves the rest of a connection, of which some bytes have been read."""

RECEIVE_BYTES: Final = 8_192
"""What a connection may hold without room for it: a whole event usually, and the beginning of a batch."""
RECEIVE_BYTES_MAX: Final = 262_144
STALL_S: Final = 2.0
BODY_BYTES_A_SECOND_MIN: Final = 65_536
"""A body holds room while it arrives. It may stand still for `STALL_S` in all, and must come at this rate besides: who
only announces one, or trickles it, does not keep others out."""
HEAD_BYTES_MAX: Final = 16_384
"""A longer head is not plain. Hypercorn's own limit is the same."""
LOOK_S: Final = 1.0
"""How often time limits are looked at."""
SEND_S_MAX: Final = 30.0
"""A client that does not read its answers is let go."""

_HEAD_END: Final = b"\r\n\r\n"
_EVENT: Final = b"POST /event HTTP/1.1\r\n"
_EVENTS: Final = b"POST /events HTTP/1.1\r\n"
_NEVER_PLAIN: Final = frozenset({b"transfer-encoding", b"expect", b"upgrade", b"te", b"trailer"})


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
        self.refused = 0
        self.idle_s = idle_s
        self.request_s = request_s
        self.draining = False
        self._hand_over = hand_over
        self._connections: set[_Connection] = set()

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one connection until it ends, and close it; one too many is told so at once."""
        self.open += 1
        try:
            if self.open <= self.connections_max:
                await self._serve(stream)
            else:
                self.refused += 1
                await _turn_away(stream, self.connections_max)
        finally:
            self.open -= 1

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

    async def keep_time(self) -> None:
        """Let go of what takes longer than it may; for ever. One look a second costs less than a timer a request."""
        while True:
            await trio.sleep(LOOK_S)
            now = trio.current_time()
            for connection in self._connections:
                if now > connection.until:
                    connection.scope.cancel()

    def drain(self) -> None:
        """Let go of silent connections at once, and of each other one after the request that it has begun."""
        self.draining = True
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
            os.write(stream.socket.fileno(), _rendered(reply, close=True))


@dataclass(slots=True)
class _Request:
    """A plain request, as its head announces it."""

    single: bool
    encoding: str
    close: bool
    body_at: int
    end: int


class _Connection:
    """One connection. ``_unread`` is what has been received and belongs to no answered request.

    Reads and writes go to the descriptor: it is ready when we are told so, and a small answer always fits.
    """

    def __init__(self, door: FrontDoor, stream: trio.SocketStream) -> None:
        self.scope = trio.CancelScope()
        self.until = inf
        self.busy = False
        self._answering = False
        self._door = door
        self._stream = stream
        self._descriptor = stream.socket.fileno()
        self._unread = b""

    async def run(self) -> bytes | None:
        """Answer plain requests; give what is unread when one is not plain, or None at the end.

        :raises OSError: the client is gone.
        """
        try:
            with self.scope:
                while not self._door.draining:
                    request = await self._head()
                    if request is None:
                        return self._unread
                    await self._answer(request)
        except _Ended:
            return None
        if self.scope.cancelled_caught and self.busy and not self._answering:
            await self._say_too_late()
        return None

    async def _head(self) -> _Request | None:
        """Give the next request once its head is there; None when it is not plain."""
        door = self._door
        self.busy = bool(self._unread)
        self._answering = False
        if not self._unread:
            self.until = trio.current_time() + door.idle_s
            await self._receive(1)
            self.busy = True
        request = _head_of(self._unread, door.body_bytes_max)
        if request is _INCOMPLETE:
            self.until = trio.current_time() + door.request_s
            while request is _INCOMPLETE:
                await self._receive(1)
                request = _head_of(self._unread, door.body_bytes_max)
        self.until = inf
        return request

    async def _answer(self, request: _Request) -> None:
        """Wait for the body, while there is room for it, and answer."""
        missing = request.end - len(self._unread)
        if missing <= 0:
            await self._take(request)
            return
        try:
            async with self._door.bodies.hold(request.end if request.end > RECEIVE_BYTES else 0):
                await self._receive(missing, at_least_by=trio.current_time() + min(STALL_S, self._door.request_s))
                self.until = inf
                await self._take(request)
        except Overloaded as error:
            await self._send(problem_reply(error), close=True)

    async def _take(self, request: _Request) -> None:
        body = self._unread[request.body_at : request.end]
        self._unread = self._unread[request.end :]
        take = self._door.intake.event if request.single else self._door.intake.batch
        reply = await take(body, request.encoding)
        await self._send(reply, close=request.close or self._door.draining)

    async def _receive(self, least: int, at_least_by: float | None = None) -> None:
        """Receive so many bytes, or a few more, behind what is unread.

        :param at_least_by: when the next byte must be there; each one that comes gives time for others.
        """
        parts = [self._unread] if self._unread else []
        while least > 0:
            if at_least_by is not None:
                self.until = at_least_by
            await trio.lowlevel.wait_readable(self._descriptor)
            try:
                part = os.read(self._descriptor, min(max(least, RECEIVE_BYTES), RECEIVE_BYTES_MAX))
            except BlockingIOError:
                continue
            if not part:
                raise _Ended
            parts.append(part)
            least -= len(part)
            if at_least_by is not None:
                at_least_by += len(part) / BODY_BYTES_A_SECOND_MIN
        self._unread = parts[0] if len(parts) == 1 else b"".join(parts)

    async def _send(self, reply: Reply, *, close: bool) -> None:
        """Send an answer.

        :raises _Ended: it was the last.
        """
        self._answering = True
        data = _rendered(reply, close=close)
        try:
            sent = os.write(self._descriptor, data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self.until = trio.current_time() + SEND_S_MAX
            await self._stream.send_all(data[sent:])
            self.until = inf
        if close:
            raise _Ended

    async def _say_too_late(self) -> None:
        """Tell a client whose request did not come in time, if it listens."""
        reply = problem_reply(RequestTimedOut("the request did not arrive in time"))
        with suppress(OSError):
            os.write(self._descriptor, _rendered(reply, close=True))


class _Ended(Exception):
    """Nothing more is to be said on this connection."""


class _NotPlain(Exception):
    """Hypercorn's case."""


class _Incomplete(Enum):
    INCOMPLETE = "incomplete"


_INCOMPLETE: Final = _Incomplete.INCOMPLETE
"""The head has not ended yet, and may still be plain."""


def _head_of(data: bytes, body_bytes_max: int) -> _Request | _Incomplete | None:
    """Read the head at the beginning of the data: a request, `_INCOMPLETE`, or None when it is not plain."""
    single = data.startswith(_EVENT)
    if not single and not data.startswith(_EVENTS):
        begun = len(data) < len(_EVENTS) and (_EVENT.startswith(data) or _EVENTS.startswith(data))
        return _INCOMPLETE if begun else None
    body_at = data.find(_HEAD_END) + len(_HEAD_END)
    if body_at < len(_HEAD_END):
        return _INCOMPLETE if len(data) < HEAD_BYTES_MAX else None
    found = _Headers()
    try:
        httptools.HttpRequestParser(found).feed_data(data[:body_at])
    except (httptools.HttpParserError, _NotPlain):
        return None
    if found.hosts != 1 or not 0 <= found.length <= body_bytes_max:
        return None
    return _Request(single, found.encoding, found.close, body_at, body_at + found.length)


class _Headers:
    """What the parser reports of a head."""

    __slots__ = ("close", "encoding", "hosts", "length")

    def __init__(self) -> None:
        self.length = -1
        self.encoding = ""
        self.close = False
        self.hosts = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header in, or raise `_NotPlain`."""
        name = name.lower()
        if name == b"content-length":
            if self.length >= 0 or not value.isdigit():
                raise _NotPlain
            self.length = int(value)
        elif name == b"host":
            self.hosts += 1
        elif name == b"content-encoding":
            self.encoding = value.decode("latin-1")
        elif name == b"connection":
            self.close = value.lower() == b"close"
            if not self.close and value.lower() != b"keep-alive":
                raise _NotPlain
        elif name in _NEVER_PLAIN:
            raise _NotPlain


_REASONS: Final = {status.value: status.phrase for status in HTTPStatus}
_dates: dict[int, str] = {}


def _rendered(reply: Reply, *, close: bool) -> bytes:
    """Give the reply as it goes over the wire."""
    more = "".join(f"{name.lower()}: {value}\r\n" for name, value in reply.headers)
    if close:
        more += "connection: close\r\n"
    head = (
        f"HTTP/1.1 {reply.status} {_REASONS[reply.status]}\r\n"
        f"content-type: {reply.content_type}\r\n"
        f"content-length: {len(reply.body)}\r\n"
        f"date: {_date()}\r\n"
        f"{more}\r\n"
    )
    return head.encode("latin-1") + reply.body


def _date() -> str:
    """Give the time as HTTP wants it, formatted once a second."""
    second = int(time())
    if second not in _dates:
        _dates.clear()
        _dates[second] = formatdate(second, usegmt=True)
    return _dates[second]
