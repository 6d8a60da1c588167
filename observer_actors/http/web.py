"""The other way in: Hypercorn, one connection at a time, each handed over with the bytes that have been read of it.

What Hypercorn leaves open is kept here: time for a head, time for an answer, and what its own refusals say.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from math import inf
from typing import Any, Final

import h11
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import wrap_app

from observer_actors.errors import ObserverError
from observer_actors.http.bodies import BYTES_A_SECOND_MIN, head_late, no_request
from observer_actors.http.gate import GO_ON, head_too_large
from observer_actors.http.lingering import end, linger
from observer_actors.http.replies import problem_reply
from observer_actors.http.wire import rendered
from observer_actors.settings import ListenSettings

__all__ = ["Web"]


PIECE_BYTES: Final = 16_384
"""Read at once. Hypercorn takes in ten of them before it waits for somebody to read them."""
SMALL_PIECES: Final = 12
SMALL_PIECE_BYTES: Final = 1_024
"""So the first pieces of a request are small: while it waits for room nobody reads it. Who has got further is read."""
HALF_CLOSED_S: Final = 5.0
"""A client that has closed its side may still wait for its answer; most have gone."""


class Web:
    """The web application behind Hypercorn.

    :param application: the ASGI application.
    """

    def __init__(self, application: Any, settings: ListenSettings) -> None:  # noqa: ANN401 - ASGI has no common type
        self._application = wrap_app(application, 0, "asgi")
        self._config = _config(settings)
        self._settings = settings
        self._context = WorkerContext(None)
        self._sends: set[trio.CancelScope] = set()

    @asynccontextmanager
    async def started(self) -> AsyncIterator[None]:
        """Run the application's start-up and shutdown around the block."""
        lifespan = Lifespan(self._application, self._config, {})
        async with trio.open_nursery() as nursery:
            await nursery.start(lifespan.handle_lifespan)
            await lifespan.wait_for_startup()
            yield
            await lifespan.wait_for_shutdown()
            nursery.cancel_scope.cancel()

    async def serve(
        self, stream: trio.SocketStream | trio.SSLStream[trio.SocketStream], unread: bytes, requests: int
    ) -> None:
        """Serve the rest of a connection that has made so many requests."""
        of_kind = _Rest if isinstance(stream, trio.SocketStream) else _EncryptedRest
        rest = of_kind(stream, unread, self._sends, self._settings)  # type: ignore[arg-type]  # as just looked at
        state = ConnectionState({})
        server = _Server(requests, self._application, self._config, self._context, state, rest)
        state[GO_ON] = server.go_on
        try:
            await server.run()
        finally:
            server.forget()

    async def drain(self) -> None:
        """Have each connection closed once it is idle."""
        await self._context.terminated.set()

    def abort(self) -> None:
        """Let go of the clients that do not read: Hypercorn shields its sends, so that cancelling does not end them."""
        for scope in self._sends:
            scope.cancel()


class VersionRefused(ObserverError):
    """A version of HTTP that is not spoken here."""

    status = 505
    title = "HTTP version not supported"


class _Patient(h11.Connection):
    """Hypercorn's connection, which speaks HTTP/1 alone, and takes no offence at what comes behind the last request.

    The latter would be refused with 400 while the answer to that request is being made: the caller would be told that
    nothing was stored, and it was. So it is dropped.
    """

    @property
    def they_are_waiting_for_100_continue(self) -> bool:
        """Never, to Hypercorn: it would say it before anybody has looked at the head. `_Server.go_on` says it."""
        return False

    def receive_data(self, data: bytes) -> None:
        """Take in what has come."""
        if not data or self.their_state is not h11.MUST_CLOSE:
            super().receive_data(data)

    def next_event(self) -> Any:  # noqa: ANN401 - h11's
        """Give the next event; behind the last request there is none.

        :raises h11.RemoteProtocolError: as h11, and of HTTP/2, which Hypercorn would go on to speak.
        """
        if self.their_state is h11.MUST_CLOSE:
            return h11.NEED_DATA
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            raise error.with_traceback(None)  # noqa: B904 - the same; h11 leads it back to itself
        if not isinstance(event, h11.Request):
            return event
        if not event.http_version.startswith(b"1."):
            raise h11.RemoteProtocolError("not spoken here", error_status_hint=VersionRefused.status)
        return _without_upgrade(event)


def _without_upgrade(request: h11.Request) -> h11.Request:
    """Give a request without its offer of another protocol, which Hypercorn would take (RFC 9110, 7.8: nobody must)."""
    headers = [(name, value) for name, value in request.headers if name != b"upgrade"]
    if len(headers) == len(request.headers):
        return request
    return h11.Request(method=request.method, target=request.target, headers=headers, http_version=request.http_version)


class _Server(TCPServer):
    """Hypercorn's, which would cancel the request of a client that has closed its side, or wait for another one."""

    stream: _Ours  # type: ignore[assignment]  # what Hypercorn uses of a stream
    _has_ended = False

    def __init__(self, requests: int, *arguments: Any) -> None:  # noqa: ANN401 - Hypercorn's
        super().__init__(*arguments)
        self._requests = requests
        self._answered = trio.Event()

    def forget(self) -> None:
        """Let go of what has served the connection: each part of it leads back to the others.

        Only a search for garbage would find them, with what was read last.
        """
        wrapper = vars(self).get("protocol")
        if wrapper is not None:  # there is none where the client has gone already, or TLS came to nothing
            vars(wrapper.protocol).clear()
            vars(wrapper).clear()
        vars(self).clear()

    async def _read_data(self) -> None:
        # ProtocolWrapper has made one of its own, which nothing has been read by yet.
        protocol = self.protocol.protocol
        assert isinstance(protocol, H11Protocol)
        protocol.connection = _Patient(h11.SERVER, max_incomplete_event_size=self.config.h11_max_incomplete_size)
        protocol.keep_alive_requests = self._requests
        with self.stream.reading, suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await self.stream.receive_some(PIECE_BYTES):
                await self.protocol.handle(RawData(bytes(data)))
            self._has_ended = True
            await self.protocol.handle(RawData(b""))
            if not self.stream.is_idle:
                self._answered = trio.Event()
                with trio.move_on_after(HALF_CLOSED_S):
                    await self._answered.wait()
        self._has_ended = True
        await self.protocol.handle(Closed())
        await self.idle_task.stop()

    async def go_on(self) -> None:
        """Tell a client to send the body, if it waits for that (RFC 9110, 10.1.1)."""
        connection = self.protocol.protocol.connection
        if isinstance(connection, _Patient) and connection.client_is_waiting_for_100_continue:
            data = connection.send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))
            await self.protocol_send(RawData(data))

    async def protocol_send(self, event: Event) -> None:
        """Send; nobody is idle any more once the client has ended."""
        if isinstance(event, Updated | Closed):
            is_idle = isinstance(event, Closed) or event.idle
            self.stream.idle(is_idle=is_idle, begun=is_idle and self._has_begun())
            if is_idle:
                self._answered.set()
        if not (self._has_ended and isinstance(event, Updated)):
            await super().protocol_send(event)

    def _has_begun(self) -> bool:
        """Whether bytes of the next request are there already: sent while the one before was being answered."""
        protocol = self.protocol.protocol
        return isinstance(protocol, H11Protocol) and bool(protocol.connection.trailing_data[0])


class _Ours:
    """A stream of which some bytes have been read: they come first. What Hypercorn uses of a stream, and no more."""

    def __init__(
        self,
        stream: trio.SocketStream | trio.SSLStream[trio.SocketStream],
        unread: bytes,
        sends: set[trio.CancelScope],
        settings: ListenSettings,
    ) -> None:
        self.is_idle = True
        self.reading = trio.CancelScope()
        """Around all reading. Cancelled when an answer cannot be sent: before it looks at what came behind the request,
        Hypercorn would wait for the end of that answer, for ever."""
        self._pieces = 0
        """Received of the request that is under way."""
        self._head_by = inf
        self._receiving = trio.CancelScope()
        self._is_receiving = False
        self._is_closing = False
        self._stream = stream
        self._unread = unread
        self._sends = sends
        self._settings = settings

    async def aclose(self) -> None:
        """Close; again is harmless."""
        await self._stream.aclose()

    async def send_all(self, data: bytes) -> None:
        """Send; a client that does not read is cut off."""
        with trio.move_on_after(self._settings.answer_seconds_max + len(data) / BYTES_A_SECOND_MIN) as scope:
            self._sends.add(scope)
            try:
                await self._stream.send_all(_said(data, self._settings))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self.reading.cancel()
                raise
            finally:
                self._sends.discard(scope)
        if scope.cancelled_caught:
            self.reading.cancel()
            await trio.aclose_forcefully(self._stream)
            raise trio.BrokenResourceError("the client does not read")

    def idle(self, *, is_idle: bool, begun: bool) -> None:
        """Say whether no request is under way, and whether one has begun then all the same."""
        self.is_idle = is_idle
        if is_idle:
            self._pieces = 0
        self._expect_head(begun=begun)

    def _expect_head(self, *, begun: bool) -> None:
        self._head_by = trio.current_time() + self._settings.head_seconds_max if begun else inf
        self._receiving.deadline = self._head_by

    async def receive_some(self, max_bytes: int) -> bytes | bytearray:
        """Give what was read before, then what comes."""
        if self._is_closing:
            raise trio.ClosedResourceError
        if self._pieces < SMALL_PIECES:
            self._pieces += 1
            max_bytes = SMALL_PIECE_BYTES
        if self._unread:
            data: bytes | bytearray = self._unread[:max_bytes]
            self._unread = self._unread[max_bytes:]
            await trio.lowlevel.checkpoint()
        else:
            self._is_receiving = True
            try:
                with trio.CancelScope(deadline=self._head_by) as self._receiving:
                    data = await self._stream.receive_some(max_bytes)
            finally:
                self._is_receiving = False
            if self._receiving.cancelled_caught and self._is_closing:
                raise trio.ClosedResourceError
            if self._receiving.cancelled_caught:
                await self.send_all(rendered(problem_reply(head_late()), close=True))
                raise trio.BrokenResourceError("the client does not send")
        if self.is_idle and self._head_by == inf:
            self._expect_head(begun=True)
        return data


class _Rest(_Ours):
    """Over plain TCP or a Unix socket."""

    def __init__(
        self, stream: trio.SocketStream, unread: bytes, sends: set[trio.CancelScope], settings: ListenSettings
    ) -> None:
        super().__init__(stream, unread, sends, settings)
        self.socket = stream.socket
        self._plain = stream

    async def send_eof(self) -> None:
        """Say that no more is sent."""
        end(self._plain)

    async def aclose(self) -> None:
        """Close, kindly. Whoever receives now is told that it is closed."""
        if not self._is_closing:
            self._is_closing = True
            self._receiving.cancel()
            with trio.CancelScope(shield=True):  # Hypercorn closes from within what it cancels; `linger` has a limit
                while self._is_receiving:
                    await trio.lowlevel.checkpoint()
                await linger(self._plain)
        await super().aclose()


class _EncryptedRest(_Ours):
    """Over TLS. Hypercorn tells it by `do_handshake`."""

    def __init__(
        self,
        stream: trio.SSLStream[trio.SocketStream],
        unread: bytes,
        sends: set[trio.CancelScope],
        settings: ListenSettings,
    ) -> None:
        super().__init__(stream, unread, sends, settings)
        self.transport_stream = stream.transport_stream
        self.do_handshake = stream.do_handshake
        self._encrypted = stream

    def selected_alpn_protocol(self) -> str | None:
        """Give what was agreed on; after the handshake."""
        return self._encrypted.selected_alpn_protocol()  # type: ignore[no-any-return]  # trio hands it through untyped


def _said(data: bytes, settings: ListenSettings) -> bytes:
    """Give what is sent: Hypercorn's own refusals, which say nothing, in our words."""
    status = data[9:12] if data.startswith(b"HTTP/1.1 ") and b"\r\ncontent-length: 0\r\n" in data else b""
    if status == b"400":
        refusal: ObserverError = no_request()
    elif status == b"431":
        refusal = head_too_large(settings.head_bytes_max)
    elif status == b"505":
        refusal = VersionRefused("that version of HTTP is not spoken here", hint="use HTTP/1.1")
    else:
        return data
    return rendered(problem_reply(refusal), close=True)


def _config(settings: ListenSettings) -> Config:
    config = Config()
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn")
    config.keep_alive_timeout = settings.idle_seconds_max
    config.keep_alive_max_requests = settings.requests_per_connection_max
    config.h11_max_incomplete_size = settings.head_bytes_max
    config.ssl_handshake_timeout = settings.head_seconds_max
    config.include_server_header = False
    return config
