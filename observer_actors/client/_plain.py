"""One HTTP exchange over a socket, for threads: sockets and h11 are loaded in a tenth of the time that httpx takes.

A connection each: a batch goes out twice a second at most; what is not kept cannot be stale, or shared after a fork.
The time limit holds for everything but the look-up of a name, for which the system has a limit of its own.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401 - looking a host up would import it, in the thread
import functools
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final
from urllib.parse import SplitResult, urlsplit

import h11

from observer_actors.addresses import Address, parse_address, without_password
from observer_actors.client._delivery import Answer
from observer_actors.client._forks import IMPORTING
from observer_actors.client._guest import monotonic_s
from observer_actors.client._places import daemon_headers
from observer_actors.errors import Unreachable
from observer_actors.visible import visible

ANSWER_BYTES_MAX: Final = 1024 * 1024
_READ_BYTES: Final = 65_536
_PORTS: Final = {"http": 80, "https": 443}


def exchange(base: str, method: str, target: str, *, seconds: float, content: bytes = b"") -> Answer:
    """Send a request to the daemon, and read the answer whatever its status. Blocks.

    :param base: as `observer_actors.addresses` reads it.
    :param target: path and query.
    :param seconds: for all of it.
    :raises TokenInvalid: OBSERVER_TOKEN holds what cannot be sent.
    :raises Unreachable: no answer within the limit, none in HTTP, or one above `ANSWER_BYTES_MAX`.
    """
    where = parse_address(base)
    deadline = monotonic_s() + seconds
    with _translated(where):
        parts = urlsplit(where.base)
        with _connected(where, parts, deadline) as connection:
            request = h11.Request(method=method, target=parts.path + target, headers=_headers(where, content))
            return _Exchange(connection, deadline).run(request, content)


class _Exchange:
    """HTTP over one connection."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline
        self._http = h11.Connection(h11.CLIENT)

    def run(self, request: h11.Request, content: bytes) -> Answer:
        """Send, then read the answer to its end."""
        with suppress(OSError):  # who refuses may hang up before it has read all: its answer says why
            for part in (request, h11.Data(data=content), h11.EndOfMessage()):
                self._limit()
                self._connection.sendall(self._http.send(part) or b"")
        head: h11.Response | None = None
        body = b""
        while not isinstance(event := self._next(), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > ANSWER_BYTES_MAX:
                    raise ValueError(f"an answer of more than {ANSWER_BYTES_MAX:,} bytes")
        assert head is not None, "h11 ends no message that has not begun"
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
        return Answer(head.status_code, body, headers.get("retry-after", ""))

    def _next(self) -> h11.Event:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._limit()
            received = self._connection.recv(_READ_BYTES)
            if not received and self._http.their_state is h11.SEND_RESPONSE and not self._http.trailing_data[0]:
                raise ConnectionError("the connection was closed before an answer came")
            self._http.receive_data(received)
        if isinstance(event, h11.Event):
            return event
        raise ConnectionError("the connection was closed")

    def _limit(self) -> None:
        self._connection.settimeout(_left(self._deadline))


def _left(deadline: float) -> float:
    left = deadline - monotonic_s()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


@contextmanager
def _connected(where: Address, parts: SplitResult, deadline: float) -> Iterator[socket.socket]:
    if where.socket is not None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_left(deadline))
            connection.connect(where.socket)
            yield connection
        return
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError("no http:// or https:// address")
    with _opened(parts.hostname, parts.port or _PORTS[parts.scheme], deadline) as plain:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if parts.scheme == "http":
            yield plain
            return
        certificates = _certificates()
        plain.settimeout(_left(deadline))
        with certificates.wrap_socket(plain, server_hostname=parts.hostname) as encrypted:
            yield encrypted


def _opened(host: str, port: int, deadline: float) -> socket.socket:
    """Connect to the first address of a name that lets us. Each has its share of the time that is left.

    `socket.create_connection` gives each all of the time.
    """
    refused: OSError | None = None
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for tried, (family, kind, protocol, _, address) in enumerate(found):
        connection: socket.socket | None = None
        try:
            connection = socket.socket(family, kind, protocol)  # there may be none of a family that a name has
            connection.settimeout(_left(deadline) / (len(found) - tried))
            connection.connect(address)
        except OSError as error:
            if connection is not None:
                connection.close()
            refused = refused or error
        else:
            return connection
    try:
        raise refused or OSError("the name has no address")
    finally:
        refused = None  # it holds this frame, by its traceback: only the search for garbage would free both


def _certificates() -> ssl.SSLContext:
    with IMPORTING:  # else each of the threads that ask at first would load them, which takes some 50 ms
        return _loaded()


_loaded: Final = functools.cache(ssl.create_default_context)


def _headers(where: Address, content: bytes) -> list[tuple[str, str]]:
    headers = {
        "Host": urlsplit(where.base).netloc.rpartition("@")[2],
        "User-Agent": "observer-actors",
        "Accept": "application/json",
        "Connection": "close",
    }
    if content:
        headers |= {"Content-Type": "application/x-ndjson", "Content-Length": str(len(content))}
    return [*(headers | daemon_headers(where)).items()]


@contextmanager
def _translated(where: Address) -> Iterator[None]:
    """Turn whatever a network, a peer or an address can do into ours."""
    try:
        yield
    except (OSError, ValueError, h11.ProtocolError) as error:  # UnicodeError, of a host's name, is a ValueError
        address = where.socket or without_password(where.base)
        quotes = isinstance(error, ValueError) and "@" in where.base  # of an address, and so perhaps of a password
        why = "no usable address" if quotes else getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise Unreachable(f"{visible(address)}: {why}") from error
