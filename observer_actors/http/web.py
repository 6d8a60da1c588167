"""The other way in: Hypercorn, one request at a time, each handed over with the bytes that have been read of it.

What has come behind it is given back to the front door, and so is the connection: while it is idle it costs as little
as any other, and whatever is plain of what it asks for next is answered as fast.

What Hypercorn leaves open is kept here: time for an answer, how many requests at once, and what its own refusals say.
"""

from __future__ import annotations

import logging
import socket
from contextlib import suppress
from typing import Any, Final

import h11
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import wrap_app

from observer_actors.errors import ObserverError, Overloaded
from observer_actors.http.bodies import BYTES_A_SECOND_MIN, HeadTooLarge, no_request
from observer_actors.http.front_door import Stream
from observer_actors.http.gate import ENDLESS, GO_ON, IDLE, Sends
from observer_actors.http.replies import problem_reply
from observer_actors.http.wire import rendered
from observer_actors.settings import ListenSettings

REQUESTS_MAX: Final = 500
"""At once: each takes some 50 KB, whatever it is about."""
WAITING_MAX: Final = 500
"""Requests that wait until there are fewer: each takes some 8 KB, and there may be as many as connections."""
PIECE_BYTES: Final = 16_384
"""Read at once. Hypercorn takes in ten of them before it waits for somebody to read them."""
SMALL_PIECES: Final = 12
SMALL_PIECE_BYTES: Final = 1_024
"""So the first pieces of a request are small: while it waits for room nobody reads it. Who has got further is read."""
HALF_CLOSED_S: Final = 1.0
"""A client that has closed its side may still wait for its answer: for as long as a request may wait for room and for
the disk, and so much longer. Most have gone."""

_CLOSE: Final = (b"connection", b"close")


class Web:
    """The web application behind Hypercorn.

    :param application: the ASGI application; there is nothing that it has to do at the start or at the end.
    :param sends: is told what is being sent.
    :param wait_s: how long a request waits at most until there are fewer than `REQUESTS_MAX`.
    """

    def __init__(
        self,
        application: Any,  # noqa: ANN401 - ASGI has no common type
        settings: ListenSettings,
        sends: Sends,
        *,
        wait_s: float,
    ) -> None:
        self._application = wrap_app(application, 0, "asgi")
        self._config = _config(settings)
        self._settings = settings
        self._context = WorkerContext(None)
        self._sends = sends
        self._servers: set[_Server] = set()
        self._is_draining = False
        self._wait_s = wait_s
        self._requests = trio.CapacityLimiter(REQUESTS_MAX)

    async def serve(self, stream: Stream, unread: bytes, requests: int) -> bytes | None:
        """Serve the next request of a connection that has made so many before.

        :param unread: the request; at least its whole head, unless there will be no more of it.
        :return: what has come behind it; None when the connection is to be closed.
        :raises TooManyRequests: so many are being served, or wait for that.
        """
        await self._enter()
        rest = _Rest(stream, unread, self._sends, self._settings)
        state = ConnectionState({})
        half_closed_s = 2 * self._wait_s + HALF_CLOSED_S
        requests = self._config.keep_alive_max_requests if self._is_draining else requests
        server = _Server(requests, half_closed_s, self._application, self._config, self._context, state, rest)
        state[GO_ON] = server.go_on
        state[ENDLESS] = server.wait_for_nobody
        state[IDLE] = rest.idle
        self._servers.add(server)
        try:
            await server.run()
            return server.unread
        finally:
            self._servers.discard(server)
            server.forget()
            self._requests.release()

    async def _enter(self) -> None:
        if self._requests.statistics().tasks_waiting >= WAITING_MAX:
            raise TooManyRequests(f"{WAITING_MAX:,} requests wait to be served already")
        with trio.move_on_after(self._wait_s) as waited:
            await self._requests.acquire()
        if waited.cancelled_caught:
            raise TooManyRequests(f"{REQUESTS_MAX:,} requests are being served already")

    def drain(self) -> None:
        """Have each answer be the last of its connection, and say so.

        One that has begun cannot say so any more: its connection goes back to the front door. Hypercorn, if it were
        told, would close it, with whatever has been sent behind the request.
        """
        self._is_draining = True
        for server in self._servers:
            server.be_last()


class TooManyRequests(Overloaded):
    """As many requests are being served as may be."""

    title = "too many requests"


class VersionRefused(ObserverError):
    """A version of HTTP that is not spoken here."""

    status = 505
    title = "HTTP version not supported"


class EncodingRefused(ObserverError):
    """A Transfer-Encoding that cannot be read."""

    status = 501
    title = "transfer encoding not supported"


class _Patient(h11.Connection):
    """Hypercorn's connection, which speaks HTTP/1 alone, and takes no offence at what comes behind the last request.

    What comes behind one with ``Connection: close`` would be refused with 400 while the answer to that one is being
    made: the caller would be told that nothing was stored, and it was. So it is dropped.
    """

    _has_ended = False

    def ended(self) -> bytes:
        """Give what has come behind the request that has been answered, and nothing more to Hypercorn."""
        self._has_ended = True
        return self.trailing_data[0]

    @property
    def they_are_waiting_for_100_continue(self) -> bool:
        """Never, to Hypercorn: it would say it before anybody has looked at the head. `_Server.go_on` says it."""
        return False

    def send(self, event: Any) -> Any:  # noqa: ANN401 - h11's
        """Give the bytes of an event. An answer before the end of the request is the last one, and says so.

        Once, although the gate may have said it, and Hypercorn too.
        """
        if isinstance(event, h11.Response) and (self.their_state is h11.SEND_BODY or _CLOSE in event.headers):
            headers = [*(header for header in event.headers if header != _CLOSE), _CLOSE]
            event = h11.Response(status_code=event.status_code, headers=headers)
        return super().send(event)

    def receive_data(self, data: bytes) -> None:
        """Take in what has come."""
        if not data or self.their_state is not h11.MUST_CLOSE:
            super().receive_data(data)

    def next_event(self) -> Any:  # noqa: ANN401 - h11's
        """Give the next event; behind the request there is none.

        :raises h11.RemoteProtocolError: as h11, and of HTTP/2, which Hypercorn would go on to speak.
        """
        if self._has_ended or self.their_state is h11.MUST_CLOSE:
            return h11.NEED_DATA
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            if self.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:  # rather than to end in the middle of our answer
                return h11.NEED_DATA
            raise error.with_traceback(None)  # noqa: B904 - the same; h11 leads it back to itself
        if not isinstance(event, h11.Request):
            return event
        if not event.http_version.startswith(b"1."):
            raise h11.RemoteProtocolError("not spoken here", error_status_hint=VersionRefused.status)
        if not event.method.isupper():  # "get" is another method than "GET"; Hypercorn would take it for that
            raise h11.RemoteProtocolError("no method that is known anywhere")
        return _without_upgrade(event)


def _without_upgrade(request: h11.Request) -> h11.Request:
    """Give a request without its offer of another protocol, which Hypercorn would take (RFC 9110, 7.8: nobody must)."""
    headers = [(name, value) for name, value in request.headers if name != b"upgrade"]
    if len(headers) == len(request.headers):
        return request
    return h11.Request(method=request.method, target=request.target, headers=headers, http_version=request.http_version)


class _Server(TCPServer):
    """Hypercorn's, for one request: then what has come behind it is given back, and the connection with it.

    Hypercorn would cancel the request of a client that has closed its side, or wait for another one.
    """

    stream: _Rest  # type: ignore[assignment]  # what Hypercorn uses of a stream

    def __init__(self, requests: int, half_closed_s: float, *arguments: Any) -> None:  # noqa: ANN401 - Hypercorn's
        super().__init__(*arguments)
        self.idle_task = _Never()  # type: ignore[assignment]  # what Hypercorn uses of it
        self.unread: bytes | None = None
        """What has come behind the request; None unless the connection may serve another one."""
        self._connection = _Patient(h11.SERVER, max_incomplete_event_size=self.config.h11_max_incomplete_size)
        self._requests = requests
        self._half_closed_s = half_closed_s
        self._answered = trio.Event()
        """Or nobody is waited for any more who has closed its side."""

    def forget(self) -> None:
        """Let go of what has served the connection: each part of it leads back to the others.

        Only a search for garbage would find them, with what was read last.
        """
        wrapper = vars(self).get("protocol")
        if wrapper is not None:  # there is none where the client has gone already
            vars(wrapper.protocol).clear()
            vars(wrapper).clear()
        vars(self).clear()

    async def _read_data(self) -> None:
        # ProtocolWrapper has made one of its own, which nothing has been read by yet.
        protocol = self.protocol.protocol
        assert isinstance(protocol, H11Protocol)
        protocol.connection = self._connection
        protocol.keep_alive_requests = self._requests
        with self.stream.reading, suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await self.stream.receive_some(PIECE_BYTES):
                if self.unread is not None:  # it came while the answer ended
                    self.unread += data
                    break
                await self.protocol.handle(RawData(bytes(data)))
            else:
                await self.protocol.handle(RawData(b""))
                with trio.move_on_after(self._half_closed_s):
                    await self._answered.wait()
        await self.protocol.handle(Closed())
        if self.unread is not None:
            self.unread += self.stream.unread

    async def _close(self) -> None:
        """Close behind what is just being sent, also where another task sends it."""
        async with self.send_lock:
            await super()._close()

    def be_last(self) -> None:
        """Have the answer be the last one, and say so."""
        wrapper = vars(self).get("protocol")
        if wrapper is not None and isinstance(wrapper.protocol, H11Protocol):
            wrapper.protocol.keep_alive_requests = self.config.keep_alive_max_requests

    def wait_for_nobody(self) -> None:
        """Have the answer end when the client closes its side.

        A reader that goes away closes that one first; one that only does not write any more cannot be told from it.
        """
        self._answered.set()

    async def go_on(self) -> None:
        """Tell a client to send the body, if it waits for that (RFC 9110, 10.1.1)."""
        if self._connection.client_is_waiting_for_100_continue:
            data = self._connection.send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))
            await self.protocol_send(RawData(data))

    async def protocol_send(self, event: Event) -> None:
        """Send, and end with the answer."""
        if isinstance(event, Updated) and event.idle and not self.stream.is_broken:
            self.unread = self._connection.ended()
            self.stream.give_back()
        else:
            if isinstance(event, Closed):
                await self._read_no_more()
            await super().protocol_send(event)
        if isinstance(event, Closed) or self.unread is not None:
            self._answered.set()

    async def _read_no_more(self) -> None:
        """Have nothing wait for the next request: it may have come behind one that was answered before its end."""
        protocol = self.protocol.protocol
        assert isinstance(protocol, H11Protocol)
        self._connection.ended()
        await protocol.can_read.set()


class _Never:
    """In place of the task that would close an idle connection: whoever is idle is not here."""

    async def restart(self, *_: object) -> None:
        """Do nothing."""

    async def stop(self) -> None:
        """Do nothing."""


class _Rest:
    """A stream of which some bytes have been read: they come first. What Hypercorn uses of a stream, and no more.

    The stream itself stays open, for it is the front door's. One over TLS Hypercorn takes for a plain one: nothing that
    it would do differently is left to it.
    """

    def __init__(self, stream: Stream, unread: bytes, sends: Sends, settings: ListenSettings) -> None:
        self.socket = (stream if isinstance(stream, trio.SocketStream) else stream.transport_stream).socket
        self.unread = unread
        self.is_broken = False
        """An answer could not be sent."""
        self.reading = trio.CancelScope()
        """Around all reading. Cancelled when the answer is sent, and when it cannot be: before it looks at what came
        behind the request, Hypercorn would wait for the end of that answer, for ever."""
        self._receiving = trio.CancelScope()
        self._is_closed = self._is_given_back = False
        self._pieces = 0
        self._idle = 0.0
        self._idle_since: float | None = None
        self._stream = stream
        self._sends = sends
        self._settings = settings

    def give_back(self) -> None:
        """End reading; what remains to be done by Hypercorn concerns the connection no more."""
        self._is_given_back = True
        self.reading.cancel()

    async def send_eof(self) -> None:
        """Say that no more is sent; over TLS nothing says so but the end of the connection."""
        if not self._is_given_back and isinstance(self._stream, trio.SocketStream):
            with suppress(OSError):  # Trio's own takes a turn for it, in which no other task may send
                self.socket.shutdown(socket.SHUT_WR)

    async def aclose(self) -> None:
        """End receiving; again is harmless. Who is just handling what was received still has to tell others of it."""
        self._is_closed = True
        self._receiving.cancel()

    async def send_all(self, data: bytes) -> None:
        """Send; a client that does not read is cut off."""
        seconds_max = self._settings.answer_seconds_max + len(data) / BYTES_A_SECOND_MIN
        with self._sends.sending(seconds_max) as scope:
            try:
                await self._stream.send_all(_said(data, self._settings))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._break()
                raise
        if scope.cancelled_caught:
            self._break()
            raise trio.BrokenResourceError("the client does not read")

    def _break(self) -> None:
        self.is_broken = True
        self.reading.cancel()

    async def receive_some(self, max_bytes: int) -> bytes | bytearray:
        """Give what was read before, then what comes."""
        if self._pieces < SMALL_PIECES:
            self._pieces += 1
            max_bytes = SMALL_PIECE_BYTES
        if self._is_closed:
            raise trio.ClosedResourceError
        if self.unread:
            await trio.lowlevel.checkpoint()
            data, self.unread = self.unread[:max_bytes], self.unread[max_bytes:]
            return data
        self._idle_since = trio.current_time()
        try:
            with trio.CancelScope() as self._receiving:
                return await self._stream.receive_some(max_bytes)
        finally:
            self._idle, self._idle_since = self.idle(), None
        raise trio.ClosedResourceError

    def idle(self) -> float:
        """Give for how many seconds in all there has been nothing to read."""
        return self._idle + (0.0 if self._idle_since is None else trio.current_time() - self._idle_since)


def _said(data: bytes, settings: ListenSettings) -> bytes:
    """Give what is sent: Hypercorn's own refusals, which say nothing, in our words."""
    status = data[9:12] if data.startswith(b"HTTP/1.1 ") and b"\r\ncontent-length: 0\r\n" in data else b""
    if status == b"400":
        refusal: ObserverError = no_request()
    elif status == b"431":
        what = (
            "what stands behind the head of a request besides its body: trailers, or the line of a chunk, hold at most"
        )
        refusal = HeadTooLarge(f"{what} {settings.head_bytes_max:,} bytes", limit="listen.head_bytes_max")
    elif status == b"501":
        refusal = EncodingRefused("of transfer encodings only chunked is spoken here", hint="or send a Content-Length")
    elif status == b"505":
        refusal = VersionRefused("that version of HTTP is not spoken here", hint="use HTTP/1.1")
    else:
        return data
    return rendered(problem_reply(refusal), close=True)


def _config(settings: ListenSettings) -> Config:
    config = Config()
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn")
    config.keep_alive_max_requests = settings.requests_per_connection_max
    config.h11_max_incomplete_size = settings.head_bytes_max
    config.include_server_header = False
    return config
