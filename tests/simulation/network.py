"""The gateway and the model as one HTTP transport: in good order, slow, wrong, down or endless."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Callable
from random import Random
from typing import Final

import httpx
import msgspec
import trio

GATEWAY: Final = "http://gateway"
MODEL: Final = "http://model"
SLOW_S: Final = 30.0
"""Longer than anybody waits."""
ENDLESS_PIECE: Final = b"x" * 65_536


class Manners(enum.Enum):
    """How a peer answers."""

    GOOD = "good"
    SLOW = "slow"
    HANGING = "hanging"
    WRONG = "wrong"
    REFUSING = "refusing"
    DOWN = "down"
    ENDLESS = "endless"


class Network:
    """See the module.

    :param happened: told of each answer.
    """

    def __init__(self, chance: Random, happened: Callable[[str], None]) -> None:
        self.manners = {GATEWAY: Manners.GOOD, MODEL: Manners.GOOD}
        self.received: list[tuple[str, bytes]] = []
        """Key and body of each message that the gateway has taken, in order."""
        self._chance = chance
        self._happened = happened

    async def exchange(self, request: httpx.Request) -> httpx.Response:
        """Answer, or do not."""
        peer = f"{request.url.scheme}://{request.url.host}"
        manners = self.manners[peer]
        self._happened(f"{peer} {manners.value} {request.headers.get('idempotency-key', '')}")
        await trio.sleep(self._chance.expovariate(50))
        if manners is Manners.DOWN:
            raise httpx.ConnectError("connection refused")
        if manners is Manners.HANGING:
            await trio.sleep(SLOW_S)
        body = await request.aread()
        taken = manners in {Manners.GOOD, Manners.SLOW, Manners.ENDLESS}
        if peer == GATEWAY and taken:
            self.received.append((request.headers["idempotency-key"], body))
        if manners is Manners.SLOW:
            await trio.sleep(self._chance.expovariate(1))
        return self._answer(manners, body)

    def _answer(self, manners: Manners, asked: bytes) -> httpx.Response:
        match manners:
            case Manners.WRONG:
                return _response(self._chance.choice((302, 408, 429, 500, 503)), b'{"text":[]}')
            case Manners.REFUSING:
                return _response(422, b"{}")
            case Manners.ENDLESS:
                return httpx.Response(200, stream=_Endless())
            case _:
                return _response(200, msgspec.json.encode({"text": f"look at {len(asked)} characters"}))


def _response(status: int, body: bytes) -> httpx.Response:
    return httpx.Response(status, stream=httpx.ByteStream(body))


class Line(httpx.AsyncBaseTransport):
    """One process's way to the network.

    :param is_cut: whether the process is dead.
    """

    def __init__(self, network: Network, is_cut: Callable[[], bool]) -> None:
        self._is_cut = is_cut
        self._network = network

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See `httpx.AsyncBaseTransport`."""
        if self._is_cut():
            raise httpx.ConnectError("this process is no more")
        return await self._network.exchange(request)


class _Endless(httpx.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            await trio.sleep(0.01)
            yield ENDLESS_PIECE

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
