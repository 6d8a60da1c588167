"""Addresses as we write them: ``http://127.0.0.1:3800``, and ``unix:///run/observer-actors/http.sock``. Pure."""

from __future__ import annotations

from msgspec import Struct

__all__ = ["UNIX", "Address", "parse_address"]

UNIX = "unix://"


class Address(Struct, frozen=True):
    """Where to send a request.

    ``base`` begins its URL; ``socket`` is the path of the Unix socket that takes it there, or None for the network.
    """

    base: str
    socket: str | None = None


def parse_address(text: str) -> Address:
    """Read an address; anything that does not begin with ``unix://`` is taken for an HTTP URL."""
    if text.startswith(UNIX):
        return Address("http://localhost", text.removeprefix(UNIX))
    return Address(text.rstrip("/"))
