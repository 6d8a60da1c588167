"""One HTTP exchange, on trio and on asyncio: bytes out, bytes in, and every trouble told as `Unreachable`.

httpx speaks both through httpcore; the time limit, which holds for the whole exchange, and the threads are anyio's,
which httpx brings. Each exchange has a client of its own: a shared one would be bound to the event loop that used
it first, and a program may have several, one after the other or at once.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401 - what a thread of the exchange would import, is imported before
import functools
import ipaddress
import os
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import anyio
import anyio.to_thread
import certifi  # noqa: F401 - as above
import httpcore  # noqa: F401 - as above
import httpx

from observer_actors.addresses import UNIX, Address, parse_address, without_password
from observer_actors.client._delivery import Answer
from observer_actors.client._forks import IMPORTING
from observer_actors.client._places import daemon_headers
from observer_actors.errors import Unreachable, said_by
from observer_actors.visible import visible

ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
"""An answer is held in memory as a whole; a larger one is a failed call."""
_PIECE_BYTES: Final = 65_536
"""Are decompressed at once: to 64 MiB at most, with gzip."""
NO_CERTIFICATES: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For a daemon to whom no TLS is spoken: to load those that are trusted takes some 50 ms."""
_HEADERS: Final = {
    "Content-Type": "application/json",
    "Accept": "application/json",
    "User-Agent": "observer-actors",
}


def join(base: str, path: str) -> str:
    """Put base and path together with one slash between them."""
    return f"{base.rstrip('/')}/{path.lstrip('/')}"


def shown_place(base: str, path: str) -> str:
    """Name a place at the daemon, for use in a message: a socket's is the socket."""
    return shown(base if base.startswith(UNIX) else join(base, path))


async def exchange(
    base: str, method: str, target: str, *, seconds: float, content: bytes = b"", tries: int = 1
) -> Answer:
    """Send a request to the daemon, and read the answer whatever its status; as that of `_plain`.

    :param tries: again, at once, when the connection broke; more than 1 only for what may arrive twice.
    :raises TokenInvalid: OBSERVER_TOKEN holds what cannot be sent.
    :raises Unreachable: no answer within the limit, or one above `ANSWER_BYTES_MAX`.
    """
    where = parse_address(base)
    where = Address(join(where.base, target), where.socket)
    place = shown_place(base, target.partition("?")[0])
    with anyio.move_on_after(seconds):
        while True:
            tries -= 1
            try:
                return await _exchange(place, method, where, content)
            except Unreachable as trouble:
                if not (trouble.broke and tries):
                    raise
    raise _no_answer(place, seconds)


async def fetch(url: str, content: bytes, *, seconds: float) -> Answer:
    """POST JSON to the gateway, as JavaScript's `fetch` does: redirects are followed, and a proxy is used.

    The daemon takes no part in either: the proxy of an environment would be handed the token.

    :param seconds: from the look-up of the name to the answer's last byte.
    :raises Unreachable: as `exchange`.
    """
    with anyio.move_on_after(seconds):
        return await _exchange(shown(url), "POST", Address(url), content, as_fetch=True)
    raise _no_answer(shown(url), seconds)


def _no_answer(place: str, seconds: float) -> Unreachable:
    return Unreachable(f"{place}: no answer within {seconds:g} s")


async def _exchange(place: str, method: str, where: Address, content: bytes, *, as_fetch: bool = False) -> Answer:
    raw = bytearray()
    with _translated(place), anyio.CancelScope() as reading:
        headers = _HEADERS | (where.headers if as_fetch else daemon_headers(where))
        certificates = await _certificates() if as_fetch or where.is_encrypted else NO_CERTIFICATES
        async with (
            httpx.AsyncClient(
                verify=certificates,
                timeout=None,  # noqa: S113 - the caller limits the whole
                auth=None if as_fetch else httpx.Auth(),  # none but what the headers say
                trust_env=as_fetch and not _is_loopback(where.base),
                follow_redirects=as_fetch,
                transport=httpx.AsyncHTTPTransport(uds=where.socket, verify=certificates) if where.socket else None,
            ) as client,
            client.stream(method, where.base, content=content, headers=headers) as response,
        ):
            # Anything raised in this loop, or by httpx's own decompression above it, would abandon the nested
            # generators to the garbage collector, which trio reports. Cancelling ends the innermost first.
            async for chunk in response.aiter_raw():
                raw += chunk
                if len(raw) > ANSWER_BYTES_MAX:
                    reading.cancel()
        body = None if reading.cancel_called else _decompressed(response, raw)
        if body is not None:
            return Answer(response.status_code, body, response.headers.get("retry-after", ""))
    raise Unreachable(f"{place}: an answer of more than {ANSWER_BYTES_MAX:,} bytes")


def _decompressed(response: httpx.Response, raw: bytearray) -> bytes | None:
    """Undo the Content-Encoding, piece by piece; None when that gives more than the bound.

    :raises httpx.DecodingError: it cannot be undone.
    """
    pieces = (bytes(raw[at : at + _PIECE_BYTES]) for at in range(0, len(raw), _PIECE_BYTES))
    body = bytearray()
    for piece in httpx.Response(200, headers=response.headers, content=pieces).iter_bytes():
        body += piece
        if len(body) > ANSWER_BYTES_MAX:
            return None
    return bytes(body)


async def _certificates() -> ssl.SSLContext:
    """Load the certificates once in a process, off the loop. A redirect of a gateway's may need them too."""
    if not _loaded.cache_info().currsize:
        await anyio.to_thread.run_sync(_load, abandon_on_cancel=True)
    return _loaded()


def _load() -> None:
    with IMPORTING:  # else each of those who call at the same time would, and all of them take as long as that
        _loaded()


def certificates() -> ssl.SSLContext:
    """Load the certificates that are trusted: those of SSL_CERT_FILE or SSL_CERT_DIR, else certifi's and the machine's.

    Takes some 50 ms.

    :raises Unreachable: there are none.
    """
    try:
        trusted = httpx.create_ssl_context()
    except OSError as error:
        raise Unreachable(f"no certificates: {error}", hint="see SSL_CERT_FILE and SSL_CERT_DIR") from error
    if not (os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR")):
        trusted.load_default_certs()
    return trusted


_loaded: Final = functools.cache(certificates)


def _is_loopback(url: str) -> bool:
    """Tell what no proxy from the environment can reach for us."""
    host = httpx.URL(url).host
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


_BROKE: Final = (httpx.ReadError, httpx.WriteError, httpx.CloseError, httpx.RemoteProtocolError)


_NO_ADDRESS: Final = (httpx.InvalidURL, ValueError, OverflowError, ImportError)
"""Beside httpx's own: a name that DNS cannot hold, a proxy's URL that is none, a port above 65,535, and a SOCKS proxy
without the package for it."""


_NOBODY: Final = re.compile(r"(?i)all .*attempts.* failed")
"""Trio's words and anyio's for the same thing, which must fall into the same pattern."""


@contextmanager
def _translated(place: str) -> Iterator[None]:
    """Turn what httpx raises into ours."""
    try:
        yield
    except (httpx.HTTPError, RuntimeError) as error:  # the latter, while the interpreter ends: there is no thread
        why = _NOBODY.sub("cannot connect", said_by(error)) or type(error).__name__
        raise Unreachable(f"{place}: {why}", broke=isinstance(error, _BROKE)) from error
    except _NO_ADDRESS as error:
        raise _no_address(place, error) from error
    except ExceptionGroup as group:  # anyio, on asyncio, tells so of what went wrong while connecting
        known, other = group.split(_NO_ADDRESS)
        if known is None or other is not None:
            raise
        raise _no_address(place, known.exceptions[0]) from group


def _no_address(place: str, error: Exception) -> Unreachable:
    why = "" if "•" in place else f": {error}"  # which may quote a password that is hidden there
    return Unreachable(f"{place}: no usable address or proxy{why}")


def shown(url: str) -> str:
    """Give a URL for use in a message: without a password, and with nothing that a terminal would obey."""
    return visible(without_password(url))
