"""One HTTP exchange, on trio and on asyncio: bytes out, bytes in, and every trouble told as `Unreachable`.

httpx speaks both through httpcore; the time limit, which holds for the whole exchange, and the threads are anyio's,
which httpx brings. Each exchange has a client of its own: a shared one would be bound to the event loop that used
it first, and a program may have several, one after the other or at once.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401 - what a thread of the exchange would import, is imported before
import functools
import ipaddress
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

from observer_actors.addresses import Address, without_password
from observer_actors.client._delivery import Answer
from observer_actors.errors import Unreachable, said_by
from observer_actors.visible import visible

ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
"""An answer is held in memory as a whole; a larger one is a failed call."""
_HEADERS: Final = {
    "Content-Type": "application/json",
    "Accept": "application/json",
    "User-Agent": "observer-actors",
}


def join(base: str, path: str) -> str:
    """Put base and path together with one slash between them."""
    return f"{base.rstrip('/')}/{path.lstrip('/')}"


async def post(
    url: str,
    content: bytes,
    *,
    timeout_seconds: float,
    tries: int = 1,
    as_fetch: bool = False,
    socket: str | None = None,
    token: str = "",
) -> Answer:
    """POST JSON, and read the answer whatever its status.

    :param timeout_seconds: for all tries together, from the look-up of the name to the answer's last byte.
    :param socket: path of the Unix socket that takes it there.
    :param token: sent as a bearer token.
    :param as_fetch: follow redirects, and go by a proxy of the environment. The daemon takes no part in either: a proxy
        would be handed the token.
    :param tries: again, at once, when the connection broke; more than 1 only for what may arrive twice.
    :raises Unreachable: no answer within the limit, or one above `ANSWER_BYTES_MAX`.
    """
    with anyio.move_on_after(timeout_seconds):
        while True:
            tries -= 1
            try:
                return await _exchange(url, content, as_fetch=as_fetch, socket=socket, token=token)
            except Unreachable as trouble:
                if not (trouble.broke and tries):
                    raise
    raise Unreachable(f"{shown(url)}: no answer within {timeout_seconds:g} s")


async def get(url: str, *, timeout_seconds: float, socket: str | None = None, token: str = "") -> Answer:
    """GET, and read the answer whatever its status; as `post`."""
    with anyio.move_on_after(timeout_seconds):
        return await _exchange(url, b"", method="GET", socket=socket, token=token)
    raise Unreachable(f"{shown(url)}: no answer within {timeout_seconds:g} s")


async def _exchange(
    url: str, content: bytes, *, method: str = "POST", as_fetch: bool = False, socket: str | None, token: str
) -> Answer:
    raw = _Chunks()
    with _translated(url), anyio.CancelScope() as reading:
        headers = _HEADERS | Address(url).headers | ({"Authorization": f"Bearer {token}"} if token else {})
        certificates = await _certificates()
        async with (
            httpx.AsyncClient(
                verify=certificates,
                timeout=None,  # noqa: S113 - `post` limits the whole
                auth=httpx.Auth() if token else None,  # else a user in the URL would take the token's place
                trust_env=as_fetch and not _is_loopback(url),
                follow_redirects=as_fetch,
                transport=httpx.AsyncHTTPTransport(uds=socket, verify=certificates) if socket else None,
            ) as client,
            client.stream(method, url, content=content, headers=headers) as response,
        ):
            # Anything raised in this loop, or by httpx's own decompression above it, would abandon the nested
            # generators to the garbage collector, which trio reports. Cancelling ends the innermost first.
            async for chunk in response.aiter_raw():
                if not raw.add(chunk):
                    reading.cancel()
        body = _decompressed(response, raw.chunks) if raw.fits else None
        if body is not None:
            return Answer(response.status_code, body, response.headers.get("retry-after", ""))
    raise Unreachable(f"{shown(url)}: an answer of more than {ANSWER_BYTES_MAX:,} bytes")


class _Chunks:
    """What has been read, up to the bound."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self._size = 0

    @property
    def fits(self) -> bool:
        """Whether nothing had to be left out."""
        return self._size <= ANSWER_BYTES_MAX

    def add(self, chunk: bytes) -> bool:
        """Keep the chunk, or tell that it is one too many."""
        self._size += len(chunk)
        if self.fits:
            self.chunks.append(chunk)
        return self.fits


def _decompressed(response: httpx.Response, raw: list[bytes]) -> bytes | None:
    """Undo the Content-Encoding; None when that gives more than the bound.

    :raises httpx.DecodingError: it cannot be undone.
    """
    body = _Chunks()
    whole = httpx.Response(200, headers=response.headers, content=iter(raw))
    fits = all(body.add(chunk) for chunk in whole.iter_bytes())
    return b"".join(body.chunks) if fits else None


async def _certificates() -> ssl.SSLContext:
    """Load the certificates once in a process, off the loop. A redirect may need them too."""
    if not _loaded.cache_info().currsize:
        await anyio.to_thread.run_sync(_loaded)
    return _loaded()


def certificates() -> ssl.SSLContext:
    """Load the certificates that are trusted: those of SSL_CERT_FILE or SSL_CERT_DIR, else certifi's. Takes over 20 ms.

    :raises Unreachable: there are none.
    """
    try:
        return httpx.create_ssl_context()
    except OSError as error:
        raise Unreachable(f"no certificates: {error}", hint="see SSL_CERT_FILE and SSL_CERT_DIR") from error


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
def _translated(url: str) -> Iterator[None]:
    """Turn what httpx raises into ours."""
    try:
        yield
    except (httpx.HTTPError, RuntimeError) as error:  # the latter, while the interpreter ends: there is no thread
        why = _NOBODY.sub("cannot connect", said_by(error)) or type(error).__name__
        raise Unreachable(f"{shown(url)}: {why}", broke=isinstance(error, _BROKE)) from error
    except _NO_ADDRESS as error:
        raise _no_address(url, error) from error
    except ExceptionGroup as group:  # anyio, on asyncio, tells so of what went wrong while connecting
        known, other = group.split(_NO_ADDRESS)
        if known is None or other is not None:
            raise
        raise _no_address(url, known.exceptions[0]) from group


def _no_address(url: str, error: Exception) -> Unreachable:
    why = "" if "@" in url else f": {error}"  # which may quote a password
    return Unreachable(f"{shown(url)}: no usable address or proxy{why}")


def shown(url: str) -> str:
    """Give a URL for use in a message: without a password, and with nothing that a terminal would obey."""
    return visible(without_password(url))
