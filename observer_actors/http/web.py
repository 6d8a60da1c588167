"""The other way in: Hypercorn, one connection at a time, each handed over with the bytes that have been read of it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.events import Event, Updated
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import wrap_app

from observer_actors.settings import ListenSettings

__all__ = ["Web"]


class Web:
    """The web application behind Hypercorn.

    :param application: the ASGI application.
    """

    def __init__(self, application: Any, settings: ListenSettings) -> None:  # noqa: ANN401 - ASGI has no common type
        self._application = wrap_app(application, 0, "asgi")
        self._config = _config(settings)
        self._send_s_max = settings.answer_seconds_max
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

    async def serve(self, stream: trio.SocketStream | trio.SSLStream[trio.SocketStream], unread: bytes) -> None:
        """Serve the rest of a connection."""
        of_kind = _Rest if isinstance(stream, trio.SocketStream) else _EncryptedRest
        rest = of_kind(stream, unread, self._sends, self._send_s_max)  # type: ignore[arg-type]  # as just looked at
        server = _Server(self._application, self._config, self._context, ConnectionState({}), rest)  # type: ignore[arg-type]
        await server.run()

    async def drain(self) -> None:
        """Have each connection closed once it is idle."""
        await self._context.terminated.set()

    def abort(self) -> None:
        """Let go of the clients that do not read: Hypercorn shields its sends, so that cancelling does not end them."""
        for scope in self._sends:
            scope.cancel()


class _Server(TCPServer):
    """Hypercorn's, which would wait for the next request of a client that has closed its side until the idle limit."""

    _has_ended = False

    async def _read_data(self) -> None:
        await super()._read_data()
        self._has_ended = True
        await self.idle_task.stop()

    async def protocol_send(self, event: Event) -> None:
        """Send; nobody is idle any more once the client has ended."""
        if not (self._has_ended and isinstance(event, Updated)):
            await super().protocol_send(event)


class _Ours:
    """A stream of which some bytes have been read: they come first. What Hypercorn uses of a stream, and no more."""

    def __init__(
        self,
        stream: trio.SocketStream | trio.SSLStream[trio.SocketStream],
        unread: bytes,
        sends: set[trio.CancelScope],
        send_s_max: float,
    ) -> None:
        self._stream = stream
        self._unread = unread
        self._sends = sends
        self._send_s_max = send_s_max
        self.aclose = stream.aclose

    async def send_all(self, data: bytes) -> None:
        """Send; a client that does not read is cut off."""
        with trio.move_on_after(self._send_s_max) as scope:
            self._sends.add(scope)
            try:
                await self._stream.send_all(data)
            finally:
                self._sends.discard(scope)
        if scope.cancelled_caught:
            await trio.aclose_forcefully(self._stream)
            raise trio.BrokenResourceError("the client does not read")

    async def receive_some(self, max_bytes: int) -> bytes | bytearray:
        """Give what was read before, then what comes."""
        if self._unread:
            first, self._unread = self._unread[:max_bytes], self._unread[max_bytes:]
            await trio.lowlevel.checkpoint()
            return first
        return await self._stream.receive_some(max_bytes)


class _Rest(_Ours):
    """Over plain TCP or a Unix socket."""

    def __init__(
        self, stream: trio.SocketStream, unread: bytes, sends: set[trio.CancelScope], send_s_max: float
    ) -> None:
        super().__init__(stream, unread, sends, send_s_max)
        self.socket = stream.socket
        self.send_eof = stream.send_eof


class _EncryptedRest(_Ours):
    """Over TLS. Hypercorn tells it by `do_handshake`."""

    def __init__(
        self,
        stream: trio.SSLStream[trio.SocketStream],
        unread: bytes,
        sends: set[trio.CancelScope],
        send_s_max: float,
    ) -> None:
        super().__init__(stream, unread, sends, send_s_max)
        self.transport_stream = stream.transport_stream
        self.do_handshake = stream.do_handshake
        self._encrypted = stream

    def selected_alpn_protocol(self) -> str | None:
        """Give what was agreed on; after the handshake."""
        return self._encrypted.selected_alpn_protocol()  # type: ignore[no-any-return]  # trio hands it through untyped


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
