"""Where a daemon is and what lets a caller in, as we write them. Pure.

Addresses are ``http://127.0.0.1:3800``, and ``unix:///run/observer-actors/http.sock``.
"""

from __future__ import annotations

import ipaddress
import re
from typing import ClassVar, Final
from urllib.parse import urlsplit

from msgspec import Struct

from observer_actors.errors import ObserverError

UNIX: Final = "unix://"
SERVICE_LINKS: Final = ("tcp://", "udp://", "sctp://")
"""Begins what Kubernetes sets in ``…_PORT`` for a Service: in ``OBSERVER_PORT`` it is no port that anybody meant."""
ADDRESS_HINT: Final = "e.g. http://127.0.0.1:3800 or unix:///run/x.sock"


class AddressInvalid(ObserverError):
    """A text that is no address."""

    title = "invalid address"
    exit_code: ClassVar[int] = 64


class TokenInvalid(ObserverError):
    """A text that cannot be sent as a token."""

    title = "invalid token"
    exit_code: ClassVar[int] = 64


class Address(Struct, frozen=True):
    """Where to send a request.

    ``base`` begins its URL; ``socket`` is the path of the Unix socket that takes it there, or None for the network.
    """

    base: str
    socket: str | None = None

    @property
    def is_encrypted(self) -> bool:
        """Whether TLS is spoken there."""
        return urlsplit(self.base).scheme == "https"

    @property
    def headers(self) -> dict[str, str]:
        """What a request says beside, where the address has a zone: it is for the sender alone (RFC 6874)."""
        netloc = urlsplit(self.base).netloc.rpartition("@")[2]
        return {"Host": _ZONE.sub("]", netloc)} if "%" in netloc else {}


_ZONE: Final = re.compile(r"%[^]]*]")


def parse_address(text: str) -> Address:
    """Read an address; anything that does not begin with ``unix://`` is taken for an HTTP URL."""
    if text.startswith(UNIX):
        return Address("http://localhost", text.removeprefix(UNIX))
    return Address(text.rstrip("/"))


_SCHEME: Final = re.compile(r"(\w+://)?")
_QUERY: Final = re.compile(r"[?#].*", re.DOTALL)


def without_password(url: str) -> str:
    """Give a URL for use in a message: user, password, query and fragment are hidden.

    A password may hold what it should not, such as a slash, and a text that is no URL may hold one: then more is hidden
    than need be, and never less.
    """
    begins = _SCHEME.match(url)
    scheme = begins[0] if begins else ""
    login, at, place = url.removeprefix(scheme).rpartition("@")
    if _QUERY.search(login):  # of which the "@" may be a part
        return f"{scheme}•••"
    return f"{scheme}{'•••@' if at else ''}{_QUERY.sub('?•••', place)}"


def check_address(text: str) -> None:
    """Refuse what cannot be an address. One has no query and no fragment: paths are put behind it.

    :raises AddressInvalid: it is none.
    """
    if not (_is_origin(text) or text.removeprefix(UNIX) not in ("", text)):
        raise AddressInvalid(f"'{without_password(text)[:80]}' is no address", hint=ADDRESS_HINT)


def _is_origin(text: str) -> bool:
    """Tell whether it is an HTTP URL to which paths can be added."""
    try:
        parts = urlsplit(text)
        is_place = parts.scheme in ("http", "https") and parts.port != 0 and is_host(parts.netloc.rpartition("@")[2])
        return is_place and text.isprintable() and not _QUERY.search(text) and bool(text.encode())
    except ValueError:
        return False


def is_host(authority: str) -> bool:
    """Say whether this names a host, as a URL does, with or without a port; an address in brackets may have a zone."""
    name = host_of(authority)
    if authority.startswith("["):  # the zone is for the sender alone
        return is_ip_address(name.partition("%")[0]) and name.isascii()
    try:
        return bool(host_name(name))
    except AddressInvalid:
        return False


_HOST_NAME: Final = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*"
)
"""RFC 1123, and the underscores of container names."""


def host_of(authority: str) -> str:
    """Give the host that ``Host`` names, without its port, in lower case; "" where what stands around it is none."""
    if authority.startswith("["):
        name, bracket, port = authority[1:].partition("]")
        return name.lower() if bracket and (not port or (port[1:].isdigit() and port[0] == ":")) else ""
    name, colon, port = authority.rpartition(":")
    name = name if colon and (port.isdigit() or not port) else authority
    return name.lower().removesuffix(".")


def host_name(text: str) -> str:
    """Give a host as requests name it: without a port, names in other alphabets as IDNA writes them.

    :raises AddressInvalid: it is none.
    """
    try:
        name = text if is_ip_address(text) else host_of(text).encode("idna").decode()
    except UnicodeError:
        name = ""
    if not (_HOST_NAME.fullmatch(name) or is_ip_address(name)):
        hint = "e.g. observer.example, without http:// and blanks; each name by itself"
        raise AddressInvalid(f"{text[:80]!a} is no host name", hint=hint)
    return name


def is_ip_address(name: str) -> bool:
    """Say whether it is an IP address; one with a zone, which means nothing to anybody else, is none."""
    try:
        return "%" not in name and bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def check_token(token: str, name: str) -> None:
    """Refuse what cannot be sent as a token.

    :param name: of what holds it: it is told, the token is not.
    :raises TokenInvalid: it cannot.
    """
    if not (token.isascii() and token.isprintable() and " " not in token):
        hint = "a token is ASCII, without blanks and ends of lines, as `observer-actors token NAME` makes it"
        raise TokenInvalid(f"{name} holds what no token has", hint=hint)
