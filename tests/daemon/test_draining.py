"""Requests that come in at the very moment at which the daemon begins to drain."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Final

import pytest
import trio

from observer_actors.http.intake import IntakeStatistics
from observer_actors.http.web import Web
from observer_actors.settings import ListenSettings, Settings
from tests.daemon.inside import daemon_inside
from tests.daemon.load import stored_ops

CONNECTIONS: Final = 40
REQUEST: Final = b'POST /event HTTP/1.1\r\nHost: localhost\r\nContent-Length: 17\r\n\r\n{"endpoint":"%02d"}'


@pytest.mark.parametrize("turns", range(6))
async def test_what_was_taken_while_draining_is_not_said_to_have_come_too_late(tmp_path: Path, turns: int) -> None:
    async with daemon_inside(Settings(data_dir=tmp_path, listen=ListenSettings(port=0))) as daemon:
        port = int(daemon.addresses[0].rpartition(":")[2])
        clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS)]
        await _accepted(daemon.intake.statistics)
        for number, client in enumerate(clients):
            client.sendall(REQUEST % number)
        for _ in range(turns):
            await trio.lowlevel.checkpoint()
        daemon.stop()
    answers = [_answer(client) for client in clients]
    stored = {op.endpoint for op in stored_ops(tmp_path)}
    for number, answer in enumerate(answers):
        endpoint = f"{number:02d}"
        assert (b" 200 " in answer) == (endpoint in stored), (endpoint, answer)
        assert answer == b"" or b" 200 " in answer or b" 503 " in answer
    assert stored, "some had been sent before it was to stop"


async def test_who_waits_for_his_turn_at_hypercorn_is_answered_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = trio.Event()

    async def enter(web: Web) -> None:
        waits.set()
        await trio.sleep(0.5)
        await web._requests.acquire()  # noqa: SLF001 - as it does, late

    monkeypatch.setattr(Web, "_enter", enter)
    async with daemon_inside(Settings(data_dir=tmp_path, listen=ListenSettings(port=0))) as daemon:
        client = socket.create_connection(("127.0.0.1", int(daemon.addresses[0].rpartition(":")[2])))
        client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with trio.fail_after(10):
            await waits.wait()
        daemon.stop()
    assert b" 200 " in _answer(client)


async def _accepted(statistics: IntakeStatistics) -> None:
    with trio.fail_after(10):
        while statistics.connections < CONNECTIONS:
            await trio.lowlevel.checkpoint()


def _answer(client: socket.socket) -> bytes:
    with client:
        client.settimeout(10)
        try:
            return client.recv(65_536)
        except ConnectionResetError:
            return b""
