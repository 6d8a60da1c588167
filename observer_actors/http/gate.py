"""The gate before the web application: who is let in (`guard`), and how much may be in memory at once.

Quart reads a body to its end whether or not the handler wants it. A request passes the gate, and its body is read,
only when there is room for all of it: for what `Content-Length` says, or, when nothing says it, for what comes, as it
comes. Until then the bytes stay in the socket, and TCP holds the sender back. An answer leaves only when there is
room for it among those that are being sent: readers that do not read cost a bounded amount of memory. Where there is no
room, the one that has been sent for longest is cut off (`Sends`): so they do not keep others from being answered, too.

HTTP/1 only (`web` sees to it): over HTTP/2 one connection can begin a hundred answers and read none.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final
from urllib.parse import unquote

import trio

from observer_actors.actors.admission import Room
from observer_actors.errors import ObserverError, Overloaded, RequestInvalid, RequestTooLarge, first_of
from observer_actors.http.bodies import REQUESTS_MAX, UNANNOUNCED_BYTES, Arrival, BodyRoom, Held
from observer_actors.http.guard import INGEST_PATHS, PEER, Guard
from observer_actors.http.intake import Intake
from observer_actors.http.replies import FOR_BROWSERS, Reply, problem_reply
from observer_actors.http.wire import LENGTH_DIGITS_MAX

# ASGI's own types are as loose: what is in a message depends on its type.
Message = Any
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Any, Any], Awaitable[None]]

GO_ON: Final = "go_on"
"""The key, in a connection's state, of what tells a client that waits for "100 Continue" to send the body."""
IDLE: Final = "idle"
"""The key, there too, of what tells for how many seconds in all the socket has had nothing to read: only then is it the
sender who is late. To take apart what has come may take us long."""
ENDLESS: Final = "endless"
"""The key, there too, of what is to be told of an answer that does not end by itself."""
READ_S: Final = 2.0
"""A client may take this long over an answer, whoever waits; as long as a body may stand still (`Arrival`)."""
ROOM_S: Final = 1.0
"""What was cut off gives its room back at once; others may have waited for it, too."""
_BODYLESS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_SAID_ONCE: Final = frozenset(
    {
        "authorization",
        "content-encoding",
        "host",
        "origin",
        "referer",
        "sec-fetch-dest",
        "sec-fetch-mode",
        "sec-fetch-site",
    }
)
"""What the guard asks for, and what a body is read by."""
_WITH_HOST: Final = re.compile(rb"https?://([^/]*)(/.*)?", re.IGNORECASE)
_OUR_HOST: Final = (b"host", b"localhost")
_FOR_BROWSERS: Final = [(name.encode(), value.encode()) for name, value in FOR_BROWSERS]


class Sends:
    """What is being sent to clients of the application, the oldest first; each can be cut off.

    Hypercorn shields its sends, so that cancelling does not end them.
    """

    def __init__(self) -> None:
        self._since: dict[trio.CancelScope, float] = {}

    @contextmanager
    def sending(self, seconds_max: float) -> Iterator[trio.CancelScope]:
        """Have what is sent within the block cut off after so long, or when it is to make room."""
        with trio.move_on_after(seconds_max) as scope:
            self._since[scope] = trio.current_time()
            try:
                yield scope
            finally:
                del self._since[scope]

    def cut_off_oldest(self) -> bool:
        """Make room at the cost of the client that has been reading for longest; False if none has had its time."""
        for scope, since in self._since.items():
            if not scope.cancel_called:
                is_over = trio.current_time() - since >= READ_S
                if is_over:
                    scope.cancel()
                return is_over
        return False

    def abort(self) -> None:
        """Cut all off."""
        for scope in self._since:
            scope.cancel()


class Gate:
    """An ASGI application around another one.

    :param sends: what the server is sending of its answers.
    :param answers_bytes_max: of all answers that are being sent.
    :param body_seconds_max: time for a body to arrive.
    :param intake: is told of each report whose body finds no room (one for whose answer there is none was counted), and
        of whom the guard does not let in.
    """

    def __init__(
        self,
        application: Application,
        bodies: BodyRoom,
        guard: Callable[[], Guard],
        sends: Sends,
        *,
        body_bytes_max: int,
        body_seconds_max: float,
        answers_bytes_max: int,
        intake: Intake,
    ) -> None:
        self._intake = intake
        self._application = application
        self._guard = guard
        self._bodies = bodies
        self._body_bytes_max = body_bytes_max
        self._body_seconds_max = body_seconds_max
        self._sends = sends
        self._answers = Room(REQUESTS_MAX, answers_bytes_max)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request."""
        refused: Reply | None = None  # no error: bound to a name here, it and this frame would keep each other alive
        try:
            refused = await self._served(scope, receive, send)
        except* ObserverError as errors:  # the application lets none out: they are the gate's
            refused = problem_reply(first_of(errors))
        if refused is not None:
            async with _passing_over(receive):
                await _answer(refused, send)

    async def _served(self, scope: Message, receive: Receive, send: Send) -> Reply | None:
        """Have the application serve a request; None, or what the guard has against it."""
        headers = _headers(scope)
        scope = _by_path(scope, headers)
        refusal = self._guard().refusal_by_headers(PEER.get(), scope["method"], scope["path"], headers)
        if refusal is not None:
            self._intake.statistics.denied[refusal.status] += 1
            return problem_reply(refusal)
        room, most = self._room_for(scope["method"], headers)
        is_report = scope["method"] == "POST" and scope["path"] in INGEST_PATHS
        on_no_room = [self._intake.note_refused] if is_report else []
        async with self._bodies.hold(room, *on_no_room, grows=room < most) as held:
            await scope["state"][GO_ON]()
            arriving = _Arriving(receive, held, most, self._body_seconds_max, scope["state"][IDLE])
            await self._application(scope, arriving, _Answering(send, self._answers, self._sends, arriving))
        return None

    def _room_for(self, method: str, headers: dict[str, str]) -> tuple[int, int]:
        """Give the room that a body takes at first, and at most."""
        largest = self._body_bytes_max
        length = headers.get("content-length")
        is_chunked = "transfer-encoding" in headers
        if length is not None and is_chunked:  # whoever stands between may have read it by its length (RFC 9112, 6.1)
            raise RequestInvalid("a request has a Content-Length or a Transfer-Encoding, not both")
        if method in _BODYLESS:
            if is_chunked or (length or "").strip("0"):  # it would hold its room for as long as the answer takes
                raise RequestInvalid(f"a body means nothing to {method}", hint="leave it out, or POST")
            return 0, 0
        if length is None:
            return min(UNANNOUNCED_BYTES, largest), largest
        if not length.isdecimal() or len(length) > LENGTH_DIGITS_MAX:
            raise RequestInvalid(f"Content-Length {length[:40]!a} is no length")
        if int(length) > largest:
            raise RequestTooLarge(
                f"a body holds at most {largest:,} bytes, this one {int(length):,}",
                hint="send it in several requests, or compress it",
                limit="listen.body_bytes_max",
            )
        return int(length), int(length)


class _Arriving:
    """Gives the application what arrives of a body, while there is room; it has no patience with one that stalls.

    Once the answer has begun nothing is said against the body any more, and what still comes of it is passed over: the
    application reads while it answers, and would break its answer off.

    :param idle: as `IDLE`.
    :raises RequestTimedOut, RequestTooLarge, Overloaded: from within the application, which passes it on.
    """

    def __init__(
        self, receive: Receive, held: Held, bytes_max: int, seconds_max: float, idle: Callable[[], float]
    ) -> None:
        self.receive = receive
        self.is_answered = False
        """Whether the answer has begun."""
        self._idle = idle
        self._held = held
        self._bytes_max = bytes_max
        self._came = 0
        self._arrival: Arrival | None = Arrival(seconds_max)
        self._looked_at = trio.current_time()

    @property
    def is_over(self) -> bool:
        """Whether all of the body has been taken."""
        return self._arrival is None

    async def __call__(self) -> Message:
        if self._arrival is None:
            return await self.receive()
        try:
            return await self._more(self._arrival)
        except ObserverError:
            if not self.is_answered:
                raise
        await _pass_over(self.receive)
        return {"type": "http.disconnect"}

    async def _more(self, arrival: Arrival) -> Message:
        arrival.waited(trio.current_time() - self._looked_at)
        message = await self._next(arrival)
        size = len(message.get("body", b""))
        arrival.came(size)
        self._came += size
        if self._came > self._bytes_max:
            raise RequestTooLarge(
                f"a body holds at most {self._bytes_max:,} bytes",
                hint="send it in several requests, or compress it",
                limit="listen.body_bytes_max",
            )
        if not message.get("more_body", False):
            self._arrival = None
        elif self._came > self._held.size // 2 and self._held.size < self._bytes_max:
            began = trio.current_time()
            await self._held.grow(min(2 * self._held.size, self._bytes_max))  # for what comes next
            arrival.waited(trio.current_time() - began)
        self._looked_at = trio.current_time()
        return message

    async def _next(self, arrival: Arrival) -> Message:
        message: Message = None
        while message is None:
            began, idle = trio.current_time(), self._idle()
            with trio.move_on_at(arrival.by):
                message = await self.receive()
            busy = trio.current_time() - began - (self._idle() - idle)
            arrival.waited(max(0.0, busy))
            if message is None and trio.current_time() >= arrival.by:
                raise arrival.late()
        return message


class _Answering:
    """Sends an answer on, while there is room for it.

    :raises Overloaded: there is none, and nothing of the answer has been sent.
    """

    def __init__(self, send: Send, room: Room, sends: Sends, arriving: _Arriving) -> None:
        self._send = send
        self._room = room
        self._sends = sends
        self._arriving = arriving
        self._start: Message | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] != "http.response.body":
            self._start = {**message, "headers": [*message["headers"], *_FOR_BROWSERS]}
            return
        size = len(message.get("body", b""))
        await self._enter(size)
        try:
            start, self._start = self._start, None
            if start is not None:
                self._arriving.is_answered = True
                await self._send(start)
            # As soon as Hypercorn has the end, it tells the application that the client is gone; Quart then cancels the
            # request, and with it Hypercorn, which is just about to close the connection or to make it idle.
            is_last = not message.get("more_body", False)
            with trio.CancelScope(shield=is_last):
                if is_last and not self._arriving.is_over:
                    async with _passing_over(self._arriving.receive):
                        await self._send(message)
                else:
                    await self._send(message)
        finally:
            self._room.leave(1, size)

    async def _enter(self, size: int) -> None:
        begins = self._start is not None  # what goes on may have to wait for long, and keeps nobody waiting behind it
        if not begins or self._room.fits(1, size):
            await self._room.enter(1, size, first=begins)
            return
        if self._sends.cut_off_oldest():
            with trio.move_on_after(ROOM_S):
                await self._room.enter(1, size, first=True)
                return
        raise Overloaded("no room for answers on their way", limit="listen.answers_bytes_max")


def _headers(scope: Message) -> dict[str, str]:
    """Give the headers of a request, by names in lower case.

    :raises RequestInvalid: two answers to what the guard asks.
    """
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name = raw_name.decode("latin-1")
        if name in headers and name in _SAID_ONCE:
            raise RequestInvalid(f"a request has one {name.title()} at most")
        headers[name] = raw_value.decode("latin-1")
    if scope["http_version"] == "1.0":  # which no browser speaks, and need not say it
        headers.setdefault("host", "localhost")
    return headers


def _by_path(scope: Message, headers: dict[str, str]) -> Message:
    """Give a request as it is understood: its path as Quart reads it, to which more slashes at the beginning are one.

    A target that names a host is for that host, whatever ``Host`` says (RFC 9112, 3.2.2). Which one it is for only the
    guard has to know: Quart, whose routes are the same for all, would fail over what is none.

    :raises RequestInvalid: the target is neither a path nor such a one.
    """
    target, path = scope["raw_path"], scope["path"]
    if not target.startswith(b"/"):
        found = _WITH_HOST.fullmatch(target)
        if found is None:
            raise RequestInvalid("the target of a request is a path, or begins with http:// or https://")
        headers["host"] = found[1].decode("latin-1")
        target = found[2] or b"/"
        path = unquote(target.decode("latin-1"))
    raw = [_OUR_HOST, *(header for header in scope["headers"] if header[0] != b"host")]
    return {**scope, "headers": raw, "raw_path": target, "path": "/" + path.lstrip("/")}


@asynccontextmanager
async def _passing_over(receive: Receive) -> AsyncIterator[None]:
    """Take what still comes of a body that nobody reads.

    Left in Hypercorn's queue it would block the end of the request, and so the end of the answer.
    """
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_pass_over, receive)
        yield
        nursery.cancel_scope.cancel()


async def _pass_over(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _answer(reply: Reply, send: Send) -> None:
    headers = [
        ("content-type", reply.content_type),
        ("content-length", str(len(reply.body))),
        *reply.headers,
        *FOR_BROWSERS,
    ]
    raw = [(name.lower().encode(), value.encode()) for name, value in headers]
    await send({"type": "http.response.start", "status": reply.status, "headers": [*raw, (b"connection", b"close")]})
    await send({"type": "http.response.body", "body": reply.body, "more_body": False})
