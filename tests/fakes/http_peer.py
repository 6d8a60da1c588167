"""A real HTTP/1.1 server on loopback that answers as a test says: the gateway, the model, the daemon, a wreck.

    async with http_peer() as gateway:
        gateway.on("/log", Status(503), Close(), Json({"ok": True}))  # in this order; the last one for ever
        gateway.on("GET /health", Json({"status": "ok"}))
        gateway.on("/echo", lambda request: Json(request.json()))
        ...  # call gateway.url, from this process or another, on trio, asyncio or a thread
        await gateway.wait_requests(3, "/log")  # no sleeping
        assert [request.json() for request in gateway.received("/log")] == [...]

A request is recorded once it has arrived as a whole, before it is answered. What is not scripted gets the default
reply: 404, with what was asked for. It needs trio; a client on asyncio runs in `trio.to_thread.run_sync`.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import parse_qs, urlsplit

import h11
import trio

from tests.harness import free_port

Headers = Mapping[str, str]
_READ_BYTES: Final = 65_536


@dataclass(frozen=True)
class Request:
    """A request as it arrived."""

    method: str
    target: str
    headers: Headers
    """Names in lower case; of a header given twice, the last."""
    body: bytes
    connection: int
    """Which of the peer's connections it came by, from 1: keep-alive shows here."""

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.target).query, keep_blank_values=True)

    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """One connection, as a reply sees it: whole responses, or any bytes."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.http = h11.Connection(h11.SERVER)

    async def send_head(self, status: int, headers: Headers, length: int) -> None:
        head = [("Content-Length", str(length)), *headers.items()]
        await self._send(h11.Response(status_code=status, headers=head))

    async def send_data(self, data: bytes) -> None:
        await self._send(h11.Data(data=data))

    async def send_end(self) -> None:
        await self._send(h11.EndOfMessage())

    async def _send(self, event: h11.Event) -> None:
        data = self.http.send(event)
        if data:
            await self.stream.send_all(data)


class Reply(Protocol):
    """What happens to a request. Returning in the middle of a response closes the connection."""

    async def send(self, wire: Wire) -> None: ...


@dataclass(frozen=True)
class Bytes:
    """A well-formed response with any body."""

    body: bytes = b""
    status: int = 200
    headers: Headers = field(default_factory=dict)

    async def send(self, wire: Wire) -> None:
        await wire.send_head(self.status, self.headers, len(self.body))
        if self.body:
            await wire.send_data(self.body)
        await wire.send_end()


def Json(value: object, status: int = 200, headers: Headers | None = None) -> Bytes:  # noqa: N802 - reads as a reply
    """A response whose body is this value as JSON."""
    body = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return Bytes(body, status, {"Content-Type": "application/json", **(headers or {})})


def Status(status: int, headers: Headers | None = None) -> Bytes:  # noqa: N802 - reads as a reply
    """A response with this status and no body."""
    return Bytes(b"", status, headers or {})


@dataclass(frozen=True)
class Held:
    """A slow answer: the reply is sent once the test sets the event. `trio.Event` belongs to the peer's loop."""

    until: trio.Event
    reply: Reply

    async def send(self, wire: Wire) -> None:
        await self.until.wait()
        await self.reply.send(wire)


@dataclass(frozen=True)
class Slow:
    """An answer after so many seconds of real time, for a process that cannot be told when."""

    seconds: float
    reply: Reply

    async def send(self, wire: Wire) -> None:
        await trio.sleep(self.seconds)
        await self.reply.send(wire)


@dataclass(frozen=True)
class Hang:
    """No answer, ever; the connection stays open until the peer is closed."""

    async def send(self, wire: Wire) -> None:  # noqa: ARG002 - a reply takes it
        await trio.sleep_forever()


@dataclass(frozen=True)
class Close:
    """The connection ends without an answer."""

    async def send(self, wire: Wire) -> None:
        await wire.stream.aclose()


@dataclass(frozen=True)
class Garbage:
    """Bytes that are no HTTP, then the end."""

    data: bytes = b"\x16\x03\x01 this is no HTTP\r\n\r\n"

    async def send(self, wire: Wire) -> None:
        await wire.stream.send_all(self.data)
        await wire.stream.aclose()


@dataclass(frozen=True)
class Partial:
    """The head and so many bytes of the body, then the end, or silence."""

    reply: Bytes
    sent: int
    then_hang: bool = False

    async def send(self, wire: Wire) -> None:
        await wire.send_head(self.reply.status, self.reply.headers, len(self.reply.body))
        await wire.send_data(self.reply.body[: self.sent])
        if self.then_hang:
            await trio.sleep_forever()
        await wire.stream.aclose()


Answerer = Callable[[Request], Reply]


class _Script:
    """Replies in order, the last one for ever."""

    def __init__(self, replies: Sequence[Reply | Answerer]) -> None:
        assert replies, "a script needs a reply"
        self._replies = list(replies)

    def next(self, request: Request) -> Reply:
        reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
        return reply(request) if callable(reply) else reply


def _not_scripted(request: Request) -> Reply:
    return Json({"error": f"nothing scripted for {request.method} {request.path}"}, 404)


class HttpPeer:
    """The server; made by `http_peer`. Its methods belong to the trio thread that opened it."""

    def __init__(self, port: int, default: Reply | Answerer, scope: trio.CancelScope, scheme: str) -> None:
        self.port: Final = port
        self.url: Final = f"{scheme}://127.0.0.1:{port}"
        self.requests: Final[list[Request]] = []
        self.connections = 0
        self.troubles: Final[list[str]] = []
        """Connections that the client broke or spoke no HTTP on; not an error: tests make clients do that."""
        self.failure: Exception | None = None
        """What an answerer raised; `http_peer` ends the test's block with it."""
        self._scope = scope
        self._default = _Script([default])
        self._scripts: dict[str, _Script] = {}
        self._arrived = trio.Event()

    def on(self, route: str, *replies: Reply | Answerer) -> None:
        """Script a route, ``/path`` for every method or ``GET /path``, and forget what was scripted for it before.

        Scripting ``/path`` forgets every method's script for it too.
        An answerer makes the reply out of the request; what it raises ends the test's block.
        """
        for older in [name for name in self._scripts if name.endswith(f" {route}")]:
            del self._scripts[older]
        self._scripts[route] = _Script(replies)

    def received(self, path: str | None = None) -> list[Request]:
        """Give the requests to a path, in the order of arrival; None for all."""
        return [request for request in self.requests if path in (None, request.path)]

    async def wait_requests(self, count: int, path: str | None = None) -> list[Request]:
        """Wait until so many requests have arrived, and give them. The caller sets the time limit."""
        while len(self.received(path)) < count:
            await self._arrived.wait()
        return self.received(path)

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Serve one connection until either side ends it."""
        self.connections += 1
        number = self.connections
        wire = Wire(stream)
        async with stream:
            try:
                while request := await _next_request(wire, number):
                    await self._answer(wire, request)
                    if (wire.http.our_state, wire.http.their_state) != (h11.DONE, h11.DONE):
                        return
                    wire.http.start_next_cycle()
            except (trio.BrokenResourceError, trio.ClosedResourceError, h11.ProtocolError) as error:
                self.troubles.append(f"connection {number}: {error!r}")

    async def _answer(self, wire: Wire, request: Request) -> None:
        self.requests.append(request)
        arrived, self._arrived = self._arrived, trio.Event()
        arrived.set()
        by_method = self._scripts.get(f"{request.method} {request.path}")
        script = by_method or self._scripts.get(request.path) or self._default
        try:
            reply = script.next(request)
        except Exception as error:  # noqa: BLE001 - `http_peer` raises it, where the test is
            self.failure = error
            self._scope.cancel()
            return
        await reply.send(wire)


async def _next_request(wire: Wire, connection: int) -> Request | None:
    """Read one whole request, or None at the end of the connection."""
    head: h11.Request | None = None
    body = bytearray()
    while True:
        event = wire.http.next_event()
        match event:
            case h11.NEED_DATA:
                if wire.http.they_are_waiting_for_100_continue:
                    await wire.stream.send_all(
                        wire.http.send(h11.InformationalResponse(status_code=100, headers=[])) or b""
                    )
                wire.http.receive_data(bytes(await wire.stream.receive_some(_READ_BYTES)))
            case h11.Request():
                head = event
            case h11.Data():
                body += event.data
            case h11.EndOfMessage():
                assert head is not None
                headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
                return Request(
                    head.method.decode("ascii"), head.target.decode("ascii"), headers, bytes(body), connection
                )
            case _:
                return None


@asynccontextmanager
async def http_peer(
    default: Reply | Answerer = _not_scripted, *, port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[HttpPeer]:
    """Serve on 127.0.0.1 until the block is left; connections that are open then are cut.

    :param port: 0 for a free one; a given one serves tests in which a peer goes away and comes back.
    :param tls: with it the peer speaks TLS.
    """
    failed: Exception | None = None
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(port, host="127.0.0.1")
        scheme = "https" if tls else "http"
        peer = HttpPeer(listener.socket.getsockname()[1], default, nursery.cancel_scope, scheme)
        accepting = trio.SSLListener(listener, tls, https_compatible=True) if tls else listener
        nursery.start_soon(trio.serve_listeners, peer.serve, [accepting])
        try:
            yield peer
        except Exception as error:  # noqa: BLE001 - raised again below, as itself rather than in the nursery's group
            failed = error
        nursery.cancel_scope.cancel()
    if failed := peer.failure or failed:
        raise failed


def speaking_tls(cert: Path, key: Path) -> ssl.SSLContext:
    """Give what a peer speaks TLS with."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    return context


def closed_url() -> str:
    """Give the URL of a loopback port that nobody listens on."""
    return f"http://127.0.0.1:{free_port()}"
