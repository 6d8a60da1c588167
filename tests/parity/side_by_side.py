"""The two programs, asked the same."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeVar

import httpx

from tests.parity.bodies import Body
from tests.parity.compare import Exchange, Side
from tests.parity.program import Program, wait_until

LINE_SECONDS_MAX: Final = 10.0
"""The seed writes after it has answered; if it fails, it says so to nobody."""


class SideBySide:
    """Posts each body to both, and pairs what came of it. One body at a time: the seed's writes may overtake."""

    def __init__(self, seed: "_Contender", ours: "_Contender") -> None:
        self._seed = seed
        self._ours = ours
        self._ids: set[str] = set()

    async def post(self, body: Body) -> Exchange:
        """Post to both, and wait for the lines they write.

        :raises ProgramFailed: the seed took the event and wrote no line.
        """
        began = datetime.now(UTC)
        seed, ours = await _both(self._seed.post, self._ours.post, body)
        exchange = Exchange(body, seed, ours, began, datetime.now(UTC), frozenset(self._ids))
        key = exchange.event.get("id")
        if isinstance(key, str):
            self._ids.add(key)
        return exchange

    async def post_only(self, body: Body) -> tuple[Side, Side]:
        """Post to both and return the answers; the lines are for `lines`."""
        return await _both(self._seed.send, self._ours.send, body)

    async def look(self, method: str, path: str) -> tuple[Side, Side]:
        """Ask both for something else."""
        request = (method, path)
        return await _both(self._seed.ask, self._ours.ask, request)

    async def lines(self, count: int) -> tuple[int, int]:
        """Wait until the seed has written ``count`` lines, and return how many each side has."""
        await self._seed.wait_for(count)
        return self._seed.count(), self._ours.count()


T = TypeVar("T")
Ask = Callable[[T], Awaitable[Side]]


async def _both(seed: Ask[T], ours: Ask[T], argument: T) -> tuple[Side, Side]:
    """Ask one after the other: an error then comes out as it is."""
    return await seed(argument), await ours(argument)


class _Contender:
    def __init__(self, program: Program, client: httpx.AsyncClient) -> None:
        self._client = client
        self._tail = _Tail(program.data_file)
        self._waits = program.name == "the seed"

    async def post(self, body: Body) -> Side:
        """Ours has written before it answers, so only the seed is waited for."""
        side = await self.send(body)
        lines = self._tail.new()
        prompt = bool(lines)
        if self._waits and not lines and side.status == httpx.codes.OK:
            lines = await wait_until(self._look, seconds_max=LINE_SECONDS_MAX, what="the seed's line")
        return replace(side, lines=tuple(lines), kept=self._tail.count, prompt=prompt)

    async def send(self, body: Body) -> Side:
        headers = {} if body.content_type is None else {"Content-Type": body.content_type}
        content = _in_chunks(body.content) if body.chunked else body.content
        return _side(await self._client.post("/event", content=content, headers=headers))

    async def ask(self, request: tuple[str, str]) -> Side:
        return _side(await self._client.request(*request))

    async def wait_for(self, count: int) -> None:
        async def look() -> bool | None:
            return self.count() >= count or None

        await wait_until(look, seconds_max=LINE_SECONDS_MAX, what=f"{count} lines of the seed")

    def count(self) -> int:
        self._tail.new()
        return self._tail.count

    async def _look(self) -> list[bytes] | None:
        return self._tail.new() or None


def _side(answer: httpx.Response) -> Side:
    try:
        return Side(answer.status_code, json.loads(answer.content))
    except ValueError:
        return Side(answer.status_code, answer.text)


async def _in_chunks(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 50):
        yield content[start : start + 50]


class _Tail:
    """Reads the complete lines of a file that another program is appending to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self.count = 0

    def new(self) -> list[bytes]:
        """Return the lines that came since the last call."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            complete, newline, _ = file.read().rpartition(b"\n")
        self._offset += len(complete) + len(newline)
        lines = complete.split(b"\n") if newline else []
        self.count += len(lines)
        return lines


@asynccontextmanager
async def side_by_side(seed: Program, ours: Program) -> AsyncIterator[SideBySide]:
    """Keep a connection open to each."""
    async with (
        httpx.AsyncClient(base_url=seed.base_url, trust_env=False, timeout=30.0) as one,
        httpx.AsyncClient(base_url=ours.base_url, trust_env=False, timeout=30.0) as other,
    ):
        yield SideBySide(_Contender(seed, one), _Contender(ours, other))
