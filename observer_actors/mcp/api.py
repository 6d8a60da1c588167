"""The daemon's HTTP API, as the tools use it: over a socket, or within the daemon."""

from __future__ import annotations

from typing import Final

import httpx

from observer_actors.addresses import check_address, parse_address
from observer_actors.client._places import observer_token
from observer_actors.client._wire import certificates
from observer_actors.errors import ObserverError, Unreachable
from observer_actors.mcp.tools import Call
from observer_actors.problems import read_problem

SECONDS: Final = 10.0


class Refused(ObserverError):
    """It was not done, and here is why: the daemon's own answer, mostly."""


class Api:
    """Carries calls out; used within ``async with``."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def carry_out(self, call: Call) -> bytes:
        """Give the body of a good answer.

        :raises Refused: it is not one, or this makes no request.
        :raises Unreachable: there is none.
        """
        try:
            answer = await self._client.request(
                call.method, call.path, params=call.parameters, content=call.content or None
            )
        except httpx.InvalidURL as error:
            raise Refused(f"the arguments make no request: {error}", hint="they may be too long") from error
        except httpx.HTTPError as error:
            raise Unreachable(
                f"the daemon does not answer: {str(error) or type(error).__name__}", hint="is it running?"
            ) from error
        if answer.is_success:
            return answer.content
        problem = read_problem(answer.content)
        raise Refused(problem.detail or f"the daemon answered {answer.status_code}", hint=problem.hint)


def outside(address: str) -> httpx.AsyncClient:
    """Give a client of a daemon elsewhere; the token is taken from OBSERVER_TOKEN.

    :raises AddressInvalid: this is no address.
    :raises TokenInvalid: it is none that can be sent.
    :raises Unreachable: the certificates that are trusted cannot be loaded.
    """
    check_address(address)
    where, token = parse_address(address), observer_token()
    return httpx.AsyncClient(
        base_url=where.base,
        transport=httpx.AsyncHTTPTransport(uds=where.socket) if where.socket else None,
        verify=certificates() if where.is_encrypted else True,  # `trust_env` would bring proxies, too
        timeout=SECONDS,
        trust_env=False,
        headers=where.headers | ({"Authorization": f"Bearer {token}"} if token else {}),
    )
