"""The other way in: Hypercorn, one connection at a time, each handed over with the bytes that have been read of it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import trio
from hypercorn.config import Config
from hypercorn.events import Event, Updated
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import wrap_app

__all__ = ["Web"]

KEEP_ALIVE_S: Final = 75
SEND_S_MAX: Final = 30.0
"""A client that does not read what it asked for is let go."""


class Web:
    """The web application behind Hypercorn.

    :param application: the ASGI application.
    """

    def __init__(self, application: Any) -> None:  # noqa: ANN401 - ASGI has no type that Hypercorn and ours agree on
        self._application = wrap_app(application, 0, "asgi")
        self._config = _config()
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

    async def serve(self, stream: trio.SocketStream, unread: bytes) -> None:
        """Serve the rest of a connection."""
        rest = _Rest(stream, unread, self._sends)
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


class _Rest:
    """A stream of which some bytes have been read: they come first. What Hypercorn uses of a stream, and no more."""

    def __init__(self, stream: trio.SocketStream, unread: bytes, sends: set[trio.CancelScope]) -> None:
        self._stream = stream
        self._unread = unread
        self._sends = sends
        self.socket = stream.socket
        self.send_eof = stream.send_eof
        self.aclose = stream.aclose

    async def send_all(self, data: bytes) -> None:
        """Send; a client that does not read is cut off."""
        with trio.move_on_after(SEND_S_MAX) as scope:
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


def _config() -> Config:
    config = Config()
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn")
    config.keep_alive_timeout = KEEP_ALIVE_S
    config.keep_alive_max_requests = 1_000_000
    config.include_server_header = False
    return config
