"""What takes long holds up nobody else: it is judged apart, one after the other, and nobody waits for who is behind."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from math import inf
from pathlib import Path
from typing import Final

import httpx
import pytest
import trio

from observer_actors.event import EventDecoder, JudgedBatch, JudgedEvent
from observer_actors.http.intake import SHORT_EVENTS
from observer_actors.ring import Ring
from observer_actors.settings import AdmissionSettings, ListenSettings, Settings
from tests.daemon.inside import Crash, daemon_inside, eventually

LIMIT_S: Final = 30.0
USUAL: Final = b'{"endpoint":"a","input_summary":"b","success":true,"source":"bot"}\n' * 100
UNUSUAL: Final = b'{"endpoint":"a","source":"elsewhere"}\n' * SHORT_EVENTS
EVENT: Final = b'{"endpoint":"a"}'
SUSPICIOUS: Final = b'{"endpoint":"a","error":"password=hunter2hunter2"}'


class Held:
    """Judging that waits for our word, but where the event loop does it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches = self.events = 0
        """Under way."""
        self._may_go_on = threading.Semaphore(0)
        self._loop = threading.get_ident()
        by_line, one = EventDecoder.by_line, EventDecoder.one

        def held_by_line(decoder: EventDecoder, body: bytes, *, now: str, lines_max: int) -> JudgedBatch:
            with self._held("batches"):
                return by_line(decoder, body, now=now, lines_max=lines_max)

        def held_one(decoder: EventDecoder, body: bytes, *, now: str) -> JudgedEvent:
            if body != SUSPICIOUS:
                return one(decoder, body, now=now)
            with self._held("events"):
                return one(decoder, body, now=now)

        monkeypatch.setattr(EventDecoder, "by_line", held_by_line)
        monkeypatch.setattr(EventDecoder, "one", held_one)

    def let_go(self, times: int) -> None:
        self._may_go_on.release(times)

    @contextmanager
    def _held(self, what: str) -> Iterator[None]:
        if threading.get_ident() == self._loop:
            yield
            return
        setattr(self, what, getattr(self, what) + 1)
        assert self._may_go_on.acquire(timeout=LIMIT_S)
        yield
        setattr(self, what, getattr(self, what) - 1)


@asynccontextmanager
async def client_of(tmp_path: Path, wait_s: float = LIMIT_S) -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings(
        data_dir=tmp_path, listen=ListenSettings(port=0), admission=AdmissionSettings(wait_seconds_max=wait_s)
    )
    with trio.fail_after(LIMIT_S):
        async with daemon_inside(settings) as daemon, httpx.AsyncClient(base_url=daemon.addresses[0]) as client:
            yield client


async def test_one_at_a_time_is_judged_apart_and_whoever_sends_something_else_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch)
    statuses: list[int] = []

    async def post(path: str, body: bytes) -> None:
        statuses.append((await client.post(path, content=body)).status_code)

    async with client_of(tmp_path) as client, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(post, "/events", UNUSUAL)
            nursery.start_soon(post, "/event?", SUSPICIOUS)
        await eventually(lambda: (held.batches, held.events) == (1, 1))
        for path, body in (("/events", USUAL), ("/events", EVENT), ("/event", EVENT)):
            answer = await client.post(path, content=body)
            assert answer.status_code == 200
        assert (await client.get("/health")).status_code == 200
        assert (held.batches, held.events, statuses) == (1, 1, [])
        held.let_go(6)
    assert statuses == [200] * 6


async def test_who_waits_too_long_to_be_judged_is_told_to_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch)
    async with client_of(tmp_path, wait_s=0.2) as client, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: client.post("/events", content=UNUSUAL))
        await eventually(lambda: held.batches == 1)
        answer = await client.post("/events", content=UNUSUAL)
        assert answer.status_code == 503
        assert "not judged within 0.2 s" in answer.json()["detail"]
        assert int(answer.headers["Retry-After"]) >= 1
        held.let_go(1)


async def test_health_waits_for_no_consumer_and_figures_wait_for_none_that_is_far_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("observer_actors.http.views.READ_OWN_WRITES_S", inf)
    monkeypatch.setattr("observer_actors.http.views.BEHIND_OPS_MAX", 0)  # stats may have taken one of them
    monkeypatch.setattr(Ring, "push", _broken)
    async with client_of(tmp_path) as client:
        for number in (1, 2):
            await client.post("/event", content=EVENT)
            health = (await client.get("/health")).json()
            assert (health["ops_in_ring"], health["last_seq"]) == (number, number)
        assert (await client.get("/stats")).json()["total"] == 0


def _broken(*_: object) -> None:
    raise Crash("on purpose")
