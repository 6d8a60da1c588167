"""A connection costs something only as long as somebody is at the other end."""

from __future__ import annotations

import gc
import socket
import ssl
import struct
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from observer_actors.http.front_door import TOLD_AT_ONCE_MAX, FrontDoor, _Encrypted
from observer_actors.http.intake import Intake
from observer_actors.http.listeners import ACCEPTED_AT_ONCE
from observer_actors.http.replies import Reply
from observer_actors.settings import ListenSettings, Settings
from tests.daemon.inside import daemon_inside, eventually
from tests.daemon.test_doors import certificate
from tests.harness import Daemon, journal_ops, running_daemon

PLAIN: Final = b"POST /event HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"
CONNECTIONS: Final = 20
GONE_S_MAX: Final = 5.0


async def test_a_connection_that_its_client_has_closed_is_let_go_of_at_once(tmp_path: Path) -> None:
    async with running_daemon(tmp_path) as daemon:
        before = _descriptors(daemon)
        for ask in (PLAIN, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"):
            async with AsyncExitStack() as stack:
                for _ in range(CONNECTIONS):
                    stream = await trio.open_tcp_stream("127.0.0.1", int(daemon.url.rpartition(":")[2]))
                    await stack.enter_async_context(stream)
                    await stream.send_all(ask)
                    assert b" 200 " in await stream.receive_some()
                assert _descriptors(daemon) >= before + CONNECTIONS
            await eventually(lambda: _descriptors(daemon) <= before, within_s=GONE_S_MAX)


async def test_connections_that_are_turned_away_take_a_bounded_number_of_descriptors(tmp_path: Path) -> None:
    async with running_daemon(tmp_path, "--set", "listen.connections_max=2") as daemon, AsyncExitStack() as stack:
        most = _descriptors(daemon) + 2 + TOLD_AT_ONCE_MAX + ACCEPTED_AT_ONCE  # the last ones are just being looked at
        for _ in range(300):
            stream = await trio.open_tcp_stream("127.0.0.1", int(daemon.url.rpartition(":")[2]))
            await stack.enter_async_context(stream)
            assert _descriptors(daemon) <= most


ASKS_FIRST: Final = PLAIN.replace(b"Content-", b"Expect: 100-continue\r\nContent-")
READS: Final = b"GET /ops HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def test_a_client_that_goes_while_requests_wait_behind_its_first_leaves_nothing(tmp_path: Path) -> None:
    async with running_daemon(tmp_path) as daemon:
        for _ in range(100):  # what lies open otherwise has an answer that could not be sent, now and then
            await daemon.event()
        before = _descriptors(daemon)
        for ask in (ASKS_FIRST + PLAIN, READS * 3, READS + READS[:9]):
            for _ in range(100):
                stream = await trio.open_tcp_stream("127.0.0.1", int(daemon.url.rpartition(":")[2]))
                await stream.send_all(ask)
                reset = struct.pack("ii", 1, 0)
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
                await stream.aclose()
            await eventually(lambda: _descriptors(daemon) <= before, within_s=GONE_S_MAX)


@pytest.mark.parametrize("last", ["asked for", "of so many"])
async def test_answers_before_the_last_one_are_not_lost_to_what_is_sent_behind_it(tmp_path: Path, last: str) -> None:
    """Closed with bytes unread, the kernel resets the connection, and the client may read nothing more of it."""
    most = ("--set", "listen.requests_per_connection_max=51") if last == "of so many" else ()
    closing = PLAIN.replace(b"Content-", b"Connection: close\r\nContent-") if last == "asked for" else PLAIN
    async with running_daemon(tmp_path, *most) as daemon:
        with trio.socket.socket() as plain:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
            await plain.connect(("127.0.0.1", int(daemon.url.rpartition(":")[2])))
            stream = trio.SocketStream(plain)
            with trio.move_on_after(0.5):
                await stream.send_all(PLAIN * 50 + closing + PLAIN * 400)
            read = b""
            with trio.fail_after(5):
                async for part in stream:
                    read += bytes(part)
        assert read.count(b" 200 OK") == 51
        assert len(daemon.ops()) == 51


async def test_who_is_turned_away_takes_nobodys_place(tmp_path: Path) -> None:
    """Of one address, while they read why: the daemon has room for others all the while."""
    limits = ("listen.connections_max=12", "listen.connections_per_address_max=2")
    async with running_daemon(tmp_path, *(part for limit in limits for part in ("--set", limit))) as daemon:
        port = int(daemon.url.rpartition(":")[2])
        with ExitStack() as stack:

            def connected(address: str) -> socket.socket:
                client = stack.enter_context(socket.socket())
                client.settimeout(5)
                client.bind((address, 0))
                client.connect(("127.0.0.1", port))
                return client

            many = [connected("127.0.0.2") for _ in range(30)]
            assert many[2].recv(100).startswith(b"HTTP/1.1 429 ")
            other = connected("127.0.0.3")
            other.sendall(PLAIN)
            assert other.recv(100).startswith(b"HTTP/1.1 200 ")


async def test_over_a_unix_socket_one_too_many_is_told_so_also_where_tcp_speaks_tls(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    unix = tmp_path / "socket"
    settings = (f"listen.tls_cert={cert}", f"listen.tls_key={key}", f"listen.unix={unix}", "listen.connections_max=1")
    options = [part for setting in settings for part in ("--set", setting)]
    async with running_daemon(tmp_path / "data", *options, wait_ready=False) as daemon:
        await daemon.logged("ready")
        with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
            for client in (first, second):
                client.settimeout(5)
                client.connect(str(unix))
            assert b'"limit":"listen.connections_max"' in second.recv(4_096)


def _asked_over_tls(port: int, trust: ssl.SSLContext, *requests: bytes, before: Callable[[int], None]) -> list[bytes]:
    answers = []
    with trust.wrap_socket(socket.create_connection(("127.0.0.1", port), 5), server_hostname="localhost") as client:
        for number, request in enumerate(requests):
            before(number)
            client.sendall(request)
            answers.append(client.recv(4_096))
    return answers


async def test_a_connection_over_tls_leaves_nothing_once_it_has_ended(tmp_path: Path) -> None:
    """What only a search for garbage finds stays for long: such a search is rare here."""
    cert, key = certificate(tmp_path)
    trust = ssl.create_default_context(cafile=str(cert))
    settings = Settings(data_dir=tmp_path / "data", listen=ListenSettings(port=0, tls_cert=str(cert), tls_key=str(key)))
    async with daemon_inside(settings) as daemon:
        port = int(daemon.addresses[0].rpartition(":")[2])
        gc.collect()
        gc.disable()
        try:
            for _ in range(5):
                answers = await trio.to_thread.run_sync(
                    partial(_asked_over_tls, port, trust, PLAIN, before=lambda _: None)
                )
                assert answers[0].startswith(b"HTTP/1.1 200 ")
                socket.create_connection(("127.0.0.1", port), 5).close()  # as who only looks whether the port is open
            await eventually(lambda: not any(isinstance(held, trio.SSLStream) for held in gc.get_objects()))
        finally:
            gc.enable()


async def test_over_tls_a_request_that_comes_as_its_connection_is_let_go_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was stored, and its caller heard that it did not come in time."""
    cert, key = certificate(tmp_path)
    trust = ssl.create_default_context(cafile=str(cert))
    settings = Settings(data_dir=tmp_path / "data", listen=ListenSettings(port=0, tls_cert=str(cert), tls_key=str(key)))
    read = _Encrypted._read  # noqa: SLF001 - nobody else can tell
    is_late = False

    async def let_go_meanwhile(connection: _Encrypted, most: int) -> bytes | bytearray:
        data = await read(connection, most)
        if is_late:
            connection.let_go()
        return data

    def before(number: int) -> None:
        nonlocal is_late
        is_late = number == 1

    monkeypatch.setattr(_Encrypted, "_read", let_go_meanwhile)
    async with daemon_inside(settings) as daemon:
        port = int(daemon.addresses[0].rpartition(":")[2])
        answers = await trio.to_thread.run_sync(partial(_asked_over_tls, port, trust, PLAIN, PLAIN, before=before))
    assert [answer[:13] for answer in answers] == [b"HTTP/1.1 200 "] * 2
    assert len(journal_ops(tmp_path / "data")) == 2


class _Joining(trio.abc.Instrument):
    """Connects in the very turn of the event loop in which all of a door's tasks have just ended."""

    def __init__(self, doors: list[FrontDoor], port: int) -> None:
        self.client: socket.socket | None = None
        self._doors = doors
        self._port = port

    def before_io_wait(self, timeout: float) -> None:  # noqa: ARG002 - as trio calls it
        nursery = self._doors[-1]._nursery  # noqa: SLF001 - see above
        if self.client is None and nursery is not None and not nursery.child_tasks:
            self.client = socket.create_connection(("127.0.0.1", self._port), 5)


async def test_who_connects_as_ingest_crashes_is_not_left_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    doors: list[FrontDoor] = []
    made, batch = FrontDoor.__init__, Intake.batch
    crashes = True

    def noted(door: FrontDoor, *arguments: Any, **options: Any) -> None:
        doors.append(door)
        made(door, *arguments, **options)

    async def crash(intake: Intake, *arguments: Any) -> Reply:
        if crashes:
            raise RuntimeError("as if it were wrong")
        return await batch(intake, *arguments)

    monkeypatch.setattr(FrontDoor, "__init__", noted)
    monkeypatch.setattr(Intake, "batch", crash)
    async with daemon_inside(Settings(data_dir=tmp_path, listen=ListenSettings(port=0))) as daemon:
        port = int(daemon.addresses[0].rpartition(":")[2])
        statistics = doors[-1].intake.statistics
        for _ in range(3):  # trio shuffles who has the first turn
            joining = _Joining(doors, port)
            trio.lowlevel.add_instrument(joining)
            incarnations = len(doors)
            with socket.create_connection(("127.0.0.1", port), 5) as client:
                client.sendall(PLAIN.replace(b"/event", b"/events"))
                await eventually(lambda: len(doors) > incarnations and joining.client is not None)  # noqa: B023
            trio.lowlevel.remove_instrument(joining)
            assert joining.client is not None
            with joining.client as late:
                late.setblocking(False)
                await trio.sleep(0.05)
                await trio.lowlevel.wait_writable(late)
                with suppress(OSError):
                    late.sendall(PLAIN)
                with trio.fail_after(10), suppress(ConnectionResetError):
                    await trio.lowlevel.wait_readable(late)
                    assert late.recv(100)[:13] in {b"", b"HTTP/1.1 200 "}
            await eventually(lambda: not statistics.connections)


def _descriptors(daemon: Daemon) -> int:
    return len(list(Path(f"/proc/{daemon.process.pid}/fd").iterdir()))
