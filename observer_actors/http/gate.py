"""The gate before the web application: who is let in (`guard`), and how much of all bodies may be in memory at once.

Quart reads a body to its end whether or not the handler wants it. A request passes the gate, and its body is read,
only when there is room for all of it: for what `Content-Length` says, or for the most that is allowed when it says
nothing. Until then the bytes stay in the socket, and TCP holds the sender back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

from observer_actors.errors import ObserverError, RequestInvalid, RequestTooLarge
from observer_actors.http.bodies import BodyRoom
from observer_actors.http.guard import PEER, Guard
from observer_actors.http.replies import Reply, problem_reply
from observer_actors.http.wire import LENGTH_DIGITS_MAX

__all__ = ["Application", "Gate"]

# ASGI's own types are as loose: what is in a message depends on its type.
Message = Any
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Any, Any], Awaitable[None]]

CLOSING_S: Final = 5.0
"""Over HTTP/2 the end of an answer waits until the client has room for it."""
_BODYLESS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class HeadTooLarge(RequestInvalid):
    """The line and the headers of a request above their limit."""

    status = 431
    title = "head too large"


class Gate:
    """An ASGI application around another one."""

    def __init__(
        self,
        application: Application,
        bodies: BodyRoom,
        guard: Callable[[], Guard],
        *,
        head_bytes_max: int,
        body_bytes_max: int,
    ) -> None:
        self._head_bytes_max = head_bytes_max
        self._application = application
        self._guard = guard
        self._bodies = bodies
        self._body_bytes_max = body_bytes_max

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "websocket":  # there is none here, and the guard is not asked about one
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        headers.setdefault("host", headers.get(":authority", ""))
        try:
            refusal = self._guard().refusal_by_headers(PEER.get(), scope["method"], scope["path"], headers)
            if refusal is not None:
                raise refusal
            self._measure(scope)
            async with self._bodies.hold(self._announced(scope)):
                await self._application(scope, receive, _closing(send))
        except ObserverError as error:  # the application lets none out: it is the gate's
            await _answer(problem_reply(error), send)

    def _measure(self, scope: Message) -> None:
        """Refuse a head above its limit: Hypercorn only looks at how much of an unfinished one it holds."""
        line = len(scope["method"]) + len(scope["raw_path"]) + len(scope["query_string"])
        if line + sum(len(name) + len(value) + 4 for name, value in scope["headers"]) > self._head_bytes_max:
            raise HeadTooLarge(f"the head of a request holds at most {self._head_bytes_max:,} bytes")

    def _announced(self, scope: Message) -> int:
        headers = dict(scope["headers"])
        largest = self._body_bytes_max
        length = headers.get(b"content-length")
        if length is None:
            chunked = b"transfer-encoding" in headers or scope["method"] not in _BODYLESS
            return largest if chunked else 0
        if not length.isdigit() or len(length) > LENGTH_DIGITS_MAX:
            raise RequestInvalid(f"Content-Length {ascii(length[:40])[1:]} is no length")
        if int(length) > largest:
            raise RequestTooLarge(
                f"a body holds at most {largest:,} bytes, this one {int(length):,}",
                hint="send it in several requests, or compress it",
            )
        return int(length)


def _closing(send: Send) -> Send:
    """Keep the end of an answer from being cancelled.

    As soon as Hypercorn has the end, it tells the application that the client is gone; Quart then cancels the request,
    and with it Hypercorn, which is just about to close the connection or to make it idle.
    """

    async def send_whole(message: Message) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            with trio.move_on_after(CLOSING_S, shield=True):
                await send(message)
        else:
            await send(message)

    return send_whole


async def _answer(reply: Reply, send: Send) -> None:
    headers = [("content-type", reply.content_type), ("content-length", str(len(reply.body))), *reply.headers]
    raw = [(name.lower().encode(), value.encode()) for name, value in headers]
    await send({"type": "http.response.start", "status": reply.status, "headers": [*raw, (b"connection", b"close")]})
    await send({"type": "http.response.body", "body": reply.body, "more_body": False})
