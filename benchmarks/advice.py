"""`GET /advice` with a full playbook: each answer is in the journal before it is sent."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import partial
from http import HTTPStatus
from http.client import HTTPConnection
from random import Random
from typing import Any, Final
from urllib.parse import urlencode

import httpx
import msgspec
import trio

from benchmarks.bench import Bench
from benchmarks.contest import Contest, Figure, Run
from benchmarks.rivals import Server, running_ours
from tests.parity.program import ProgramFailed
from tests.processes import cpu_seconds

ENTRIES: Final = 10_000
"""As many as the playbook holds."""
ENDPOINTS: Final = 900
FAILURES: Final = 12
"""Of each endpoint, each in its own words."""
REQUESTS_A_SECOND: Final = 200
BATCH: Final = 2_000
LEARNT_S: Final = 120.0
SETTLED_S: Final = 10.0
"""Until what was learned is saved, and in the index of words."""
FULL_PLAYBOOK: Final = f"{ENTRIES:,} entries"
_FIRST: Final = ("amber", "birch", "cobalt", "dune", "ember", "flint", "grove", "heron", "iris", "jade", "kelp", "lark")
_THEN: Final = ("moss", "north", "onyx", "pine", "quartz", "reef", "slate", "thorn", "umber", "vale", "wren", "yarrow")

ADVICE: Final = Contest(
    "advice",
    "GET /advice with a full playbook",
    f"A playbook of {ENTRIES:,} entries, all of which may be handed out, at {ENDPOINTS} endpoints. One connection asks"
    " with an endpoint and an input of twenty words, each time as another run; every answer was in the journal"
    f" (fdatasync) before it was sent. {REQUESTS_A_SECOND} requests for each second of a load elsewhere, one after the"
    " other, without a warm-up. Once.",
    (
        Figure("p99_ms", "p99 ms", "{:.2f}", ranged=True),
        Figure("p50_ms", "p50 ms", "{:.2f}"),
        Figure("max_ms", "max ms", "{:.2f}"),
        Figure("per_second", "answers/s"),
        Figure("cpu_ms", "the daemon's processor ms an answer", "{:.2f}"),
        Figure("entries", "entries"),
    ),
    once=True,
    without_wrk=True,
)


def runs(bench: Bench) -> dict[str, Run]:
    """Give what is measured."""
    return {FULL_PLAYBOOK: partial(_asked, bench)}


async def _asked(bench: Bench) -> Mapping[str, float]:
    async with running_ours(bench) as server:
        entries = await teach(server)
        await trio.sleep(SETTLED_S)
        cpu = cpu_seconds(server.pid)
        took = await trio.to_thread.run_sync(_ask, server.port, int(bench.seconds * REQUESTS_A_SECOND))
        cpu = cpu_seconds(server.pid) - cpu
        took.sort()
        return {
            "p99_ms": took[int(len(took) * 0.99)],
            "p50_ms": took[len(took) // 2],
            "max_ms": took[-1],
            "per_second": len(took) / sum(took) * 1e3,
            "cpu_ms": cpu / len(took) * 1e3,
            "entries": entries,
        }


def _ask(port: int, times: int) -> list[float]:
    """Ask so many times over one connection; give the milliseconds that each answer took.

    :raises ProgramFailed: it was not an answer with or without entries.
    """
    chance = Random(7)
    took: list[float] = []
    with closing(HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        for number in range(times):
            words = " ".join(chance.choice(_FIRST + _THEN) for _ in range(20))
            endpoint = f"tool:{chance.randrange(ENDPOINTS)}"
            query = urlencode({"endpoint": endpoint, "input": words, "run": f"r{number}", "limit": 3})
            began = time.perf_counter()
            connection.request("GET", f"/advice?{query}")
            response = connection.getresponse()
            body = response.read()
            took.append((time.perf_counter() - began) * 1e3)
            if response.status != HTTPStatus.OK:
                raise ProgramFailed(f"GET /advice answered {response.status}: {body[:200]!r}")
    return took


async def teach(server: Server) -> int:
    """Report what fills the playbook, wait until it is in it, and give how many entries may be handed out.

    :raises ProgramFailed: they are too few.
    """
    lines = list(_lines())
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        for at in range(0, len(lines), BATCH):
            (await client.post(f"{server.url}/events", content=b"\n".join(lines[at : at + BATCH]))).raise_for_status()
        return await _learnt(server, client)


def _lines() -> Iterator[bytes]:
    """Give failures of each endpoint in many words, each told by two sources in two runs, and some successes."""
    for endpoint in range(ENDPOINTS):
        for failure in range(FAILURES):
            error = f"{_FIRST[failure]} {_THEN[(failure + endpoint) % len(_THEN)]}"
            for source in ("mcp", "bot"):
                yield _event(endpoint, source, failure, error)
        for number in range(4):
            yield _event(endpoint, ("mcp", "bot")[number % 2], number, "")


def _event(endpoint: int, source: str, number: int, error: str) -> bytes:
    event: dict[str, Any] = {
        "endpoint": f"tool:{endpoint}",
        "source": source,
        "input_summary": f"case {endpoint}",
        "success": not error,
        "attrs": {"run": f"{source}-{endpoint}-{number}"},
    }
    return msgspec.json.encode(event | ({"error": error} if error else {}))


async def _learnt(server: Server, client: httpx.AsyncClient) -> int:
    last_seq = (await client.get(f"{server.url}/health")).json()["last_seq"]
    with trio.fail_after(LEARNT_S):
        while True:
            playbook = (await client.get(f"{server.url}/playbook?handed_out=true&limit=1")).json()
            if playbook["last_seq"] >= last_seq:
                break
            await trio.sleep(1.0)
    if playbook["total"] < ENTRIES:
        raise ProgramFailed(f"{playbook['total']:,} entries instead of {ENTRIES:,}")
    return int(playbook["total"])
