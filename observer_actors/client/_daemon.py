"""The client of a daemon that is asked more than once: by a command, and by MCP's tools, which must not block.

It goes by no proxy of the environment, which would be handed the token, and follows no redirect.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypedDict

import httpx

from observer_actors.addresses import (
    ADDRESS_HINT,
    Address,
    AddressInvalid,
    check_address,
    parse_address,
    without_password,
)
from observer_actors.client._places import daemon_headers
from observer_actors.client._wire import NO_CERTIFICATES, certificates


def blocking_client(address: str, timeout_s: float) -> httpx.Client:
    """Give a client of a daemon; the token is taken from OBSERVER_TOKEN.

    :param timeout_s: how long an answer is waited for, or anything more of one.
    :raises AddressInvalid: this is no address.
    :raises TokenInvalid: it is none that can be sent.
    :raises Unreachable: the certificates that are trusted cannot be loaded.
    """
    with _checked(address) as where:
        transport = httpx.HTTPTransport(uds=where.socket, verify=NO_CERTIFICATES) if where.socket else None
        return httpx.Client(transport=transport, **_arguments(where, timeout_s))


def async_client(address: str, timeout_s: float) -> httpx.AsyncClient:
    """Give one that does not block; as `blocking_client`."""
    with _checked(address) as where:
        transport = httpx.AsyncHTTPTransport(uds=where.socket, verify=NO_CERTIFICATES) if where.socket else None
        return httpx.AsyncClient(transport=transport, **_arguments(where, timeout_s))


class _Arguments(TypedDict):
    """What both are made with."""

    base_url: str
    verify: ssl.SSLContext
    timeout: float
    trust_env: bool
    headers: dict[str, str]
    auth: httpx.Auth


def _arguments(where: Address, timeout_s: float) -> _Arguments:
    return {
        "base_url": where.base,
        "verify": certificates() if where.is_encrypted else NO_CERTIFICATES,  # `trust_env` would bring proxies, too
        "timeout": timeout_s,
        "trust_env": False,
        "headers": daemon_headers(where),
        "auth": httpx.Auth(),  # none but what the headers say
    }


@contextmanager
def _checked(address: str) -> Iterator[Address]:
    check_address(address)
    try:
        yield parse_address(address)
    except httpx.InvalidURL as error:  # it is stricter with names in other alphabets (IDNA 2008)
        raise AddressInvalid(f"'{without_password(address)[:80]}' is no address: {error}", hint=ADDRESS_HINT) from error
