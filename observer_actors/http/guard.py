"""The guard: who is let in, and for what. Decides without I/O; both ways in ask it before they read a body.

* ``Host`` must name this daemon: an address, ``localhost``, the machine's own name, or one of `listen.hosts`. A web
  page whose own name was made to point here (DNS rebinding) says its own name, and is refused with 421.
* A browser says where a request comes from (``Origin``, ``Sec-Fetch-Site``). Unless that is this daemon's own page, the
  request is refused with 403: no web page may post to, read from, or frame a daemon on somebody's laptop. Following a
  link in a window of its own is no page's doing. Where it says neither (plain HTTP, but for this machine itself; old
  ones), ``Referer`` counts for what leaves a trace.
* With tokens, each request but `/health` and `/ready` needs one with the scope that it takes: 401, 403.
* Over a Unix socket, which no browser reaches, the kernel says who is there: root and the daemon's own user may do
  everything, anybody else whom the socket's mode lets in what `listen.unix_scopes` says, and what a token says besides.
"""

from __future__ import annotations

import os
import re
import socket
import struct
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Final

from msgspec import Struct

from observer_actors.addresses import host_name, host_of, is_ip_address
from observer_actors.errors import ObserverError
from observer_actors.tokens import ALL_SCOPES, Scope, Tokens

_OPEN_PATHS: Final = frozenset({"/health", "/ready"})
INGEST_PATHS: Final = frozenset({"/event", "/events"})
_MCP_PATH: Final = "/mcp"
"""What its tools do is asked about once more, each by itself."""
_LEAVES_A_TRACE: Final = frozenset({"/advice"})
"""Where GET writes to the journal: a link on somebody's page must not have it do so."""
_AUTHORITY_END: Final = re.compile("[/?#]")
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_CREDENTIALS: Final = struct.Struct("3i")
"""struct ucred: pid, uid, gid."""
HOST_SHOWN_MAX: Final = 100
DENIALS: Final = (401, 403, 421)
"""The statuses of what follows."""


class HostUnknown(ObserverError):
    """The request is for somebody else."""

    status = 421
    title = "misdirected request"


class OriginForeign(ObserverError):
    """A web page of somebody else's asks."""

    status = 403
    title = "foreign origin"


class TokenMissing(ObserverError):
    """No token, or none that is known."""

    status = 401
    title = "token needed"


class ScopeMissing(ObserverError):
    """The token, or the user, may not do that."""

    status = 403
    title = "not allowed"


class Peer(Struct, frozen=True):
    """Who is at the other end of a connection."""

    address: str
    """IP address; "" over a Unix socket."""
    scopes: frozenset[Scope] | None = None
    """What it may do without a token; None: nothing, where there are tokens."""


PEER: ContextVar[Peer] = ContextVar("peer")
"""The peer of the connection that the running task serves: ASGI has no place for a user."""


class Guard:
    """The rules of one configuration.

    :param hosts: names beside addresses, `localhost` and the machine's own, as `host_name` takes them.
    :param tokens: None: whoever reaches the port may do everything.
    """

    def __init__(self, hosts: Iterable[str], tokens: Tokens | None) -> None:
        self._hosts = frozenset({*map(host_name, hosts), "localhost", socket.gethostname().lower()})
        self._tokens = tokens
        self._names_us = lru_cache(256)(self._is_ours)

    def refusal(self, peer: Peer, method: str, path: str, host: str, authorization: str) -> ObserverError | None:
        """Say why a request is refused that does not come from a browser; None when it is not."""
        if peer.scopes is None and not self._names_us(host):
            return HostUnknown(
                f"{(host_of(host) or host)[:HOST_SHOWN_MAX]!a} is not a name of this daemon",
                hint="use its address, or add the name to listen.hosts",
            )
        return self._unscoped(peer, _scope_of(method, path), authorization)

    def refusal_by_headers(
        self, peer: Peer, method: str, path: str, headers: Mapping[str, str]
    ) -> ObserverError | None:
        """Say why a request is refused, whoever sent it; None when it is not.

        :param headers: by names in lower case.
        """
        host = headers.get("host", "")
        for page in (headers.get("origin"), headers.get("referer") if path in _LEAVES_A_TRACE else None):
            if page is not None and not _is_page_of(host, page):
                return OriginForeign(
                    f"a page of {page[:HOST_SHOWN_MAX]!a} asks", hint="no web page may use this daemon"
                )
        site = headers.get("sec-fetch-site", "none")
        in_a_window = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == ("navigate", "document")
        follows_link = method == "GET" and path not in _LEAVES_A_TRACE and in_a_window
        if site not in ("none", "same-origin") and not follows_link:
            return OriginForeign("a page of another site asks", hint="no web page may use this daemon")
        return self.refusal(peer, method, path, host, headers.get("authorization", ""))

    def _is_ours(self, host: str) -> bool:
        name = host_of(host)
        return name in self._hosts or is_ip_address(name)

    def _unscoped(self, peer: Peer, scope: Scope | None, authorization: str) -> ObserverError | None:
        if scope is None:
            return None
        if _suffices(peer.scopes, scope) or (peer.scopes is None and self._tokens is None):
            return None
        kind, _, presented = authorization.partition(" ")
        token = self._tokens.find(presented.strip()) if self._tokens is not None and kind.lower() == "bearer" else None
        if token is None and peer.scopes is None:
            return TokenMissing("a token is needed" if not authorization else "the token is not known")
        if token is None:
            other = ", and the token is not known" if authorization else ""
            hint = "listen.unix_scopes says what users of the socket may do; a token may give more"
            return ScopeMissing(f"this user may not do that{other}: it takes the scope {scope}", hint=hint)
        if _suffices(token.scopes, scope):
            return None
        return ScopeMissing(f"the token {token.name!a} may not do that: it takes the scope {scope}")


def _suffices(granted: frozenset[Scope] | None, scope: Scope) -> bool:
    return granted is not None and (scope in granted or Scope.ADMIN in granted)


def _scope_of(method: str, path: str) -> Scope | None:
    if method == "POST" and path in INGEST_PATHS:
        return Scope.INGEST
    if method in _READING or path == _MCP_PATH:
        return None if path in _OPEN_PATHS else Scope.READ
    return Scope.ADMIN


def _is_page_of(host: str, url: str) -> bool:
    return _AUTHORITY_END.split(url.lower().partition("://")[2], 1)[0] == host.lower()


def peer_of(connection: socket.socket, unix_scopes: Iterable[Scope]) -> Peer:
    """Say who is at the other end.

    :param unix_scopes: for users of a Unix socket other than root and our own.
    :raises OSError: nobody any more.
    """
    if connection.family != socket.AF_UNIX:
        return Peer(connection.getpeername()[0])
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    assert isinstance(raw, bytes)
    _, uid, _ = _CREDENTIALS.unpack(raw)
    return Peer("", ALL_SCOPES if uid in (0, os.geteuid()) else frozenset(unix_scopes))
