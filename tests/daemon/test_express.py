"""When the express lane looks at what has come: at once, or together with what comes until the disk has answered."""

from __future__ import annotations

import errno
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio

from observer_actors.actors import persister
from observer_actors.daemon import Daemon
from observer_actors.event import JudgedEvent
from observer_actors.http import express
from observer_actors.http.express import FEW, HEAD_BYTES, RECEIVE_BYTES, Express, Group, Rider
from observer_actors.http.front_door import _Connection
from observer_actors.http.intake import Intake
from observer_actors.http.wire import Head
from observer_actors.settings import ListenSettings, Settings
from tests.daemon.inside import daemon_inside, eventually
from tests.fakes.troubled_disk import TroubledDisk

LIMIT_S = 30.0
EVENT = b"POST /event HTTP/1.1\r\nHost: localhost\r\nContent-Length: 16\r\n\r\n" + b'{"endpoint":"a"}'


class Lane:
    """A daemon, its riders, and how many events the lane has judged together, each time."""

    def __init__(self, daemon: Daemon, disk: TroubledDisk, riders: Sequence[socket.socket], sizes: list[int]) -> None:
        self.daemon = daemon
        self.disk = disk
        self.riders = riders
        self.sizes = sizes

    def send(self, riders: Sequence[socket.socket]) -> None:
        """Send an event each, in one go: the event loop has no turn in between."""
        for rider in riders:
            rider.sendall(EVENT)

    async def answered(self, riders: Sequence[socket.socket]) -> None:
        for rider in riders:
            await trio.lowlevel.wait_readable(rider)
            assert rider.recv(4_096).startswith(b"HTTP/1.1 200 ")

    @property
    def commits(self) -> int:
        return self.daemon.persister.status.rounds


@asynccontextmanager
async def lane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Lane]:
    """Run a daemon in which the lane waits for an answer of the disk, however long; its riders have been answered."""
    monkeypatch.setattr(express, "GATHER_S", LIMIT_S)
    sizes: list[int] = []
    judged = Intake.judged

    def counted(intake: Intake, bodies: Sequence[bytes], traces: Sequence[str]) -> Sequence[JudgedEvent | None]:
        sizes.append(len(bodies))
        return judged(intake, bodies, traces)

    monkeypatch.setattr(Intake, "judged", counted)
    disk = TroubledDisk()
    settings = Settings(data_dir=tmp_path, listen=ListenSettings(port=0))
    with trio.fail_after(LIMIT_S), ExitStack() as stack:
        async with daemon_inside(settings, disk=disk) as daemon:
            port = int(daemon.addresses[0].rpartition(":")[2])
            riders = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(FEW + 3)]
            made = Lane(daemon, disk, riders, sizes)
            for rider in riders:
                made.send([rider])
                await made.answered([rider])
            sizes.clear()
            yield made
            for rider in riders:
                rider.close()


async def test_a_few_that_come_while_the_disk_has_many_are_looked_at_together_when_it_has_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lane(tmp_path, monkeypatch) as made:
        many, few = made.riders[:FEW], made.riders[FEW:]
        made.disk.hold()
        made.send(many)
        await trio.to_thread.run_sync(made.disk.wait_held)
        for rider in few:
            made.send([rider])
            await trio.sleep(0.02)
        assert made.sizes == [FEW]
        made.disk.release()
        await made.answered([*many, *few])
        assert made.sizes == [FEW, len(few)]


async def test_of_callers_that_are_looked_at_together_each_has_its_own_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lane(tmp_path, monkeypatch) as made:
        last_seq, [bad, *good] = made.daemon.commits.last_seq, made.riders[:4]
        bad.sendall(EVENT.replace(b'{"', b"{''", 1).replace(b"16", b"17"))
        for rider, digit in zip(good, (b"1", b"", b"2"), strict=True):
            trace = b"00-%b-%b-01" % (digit * 32, digit * 16)
            rider.sendall(EVENT.replace(b"\r\n\r\n", b"\r\ntraceparent: %b\r\n\r\n" % trace))
        await made.answered(good)
        assert made.sizes == [len(good) + 1]
        ops = [await made.daemon.journal.get(last_seq + number) for number in range(1, 4)]
        named = [op.attrs["trace_id"] if op.attrs else None for op in ops if op is not None]
        assert named == ["1" * 32, None, "2" * 32]


async def test_while_the_disk_has_few_what_comes_is_looked_at_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lane(tmp_path, monkeypatch) as made:
        some, other = made.riders[: FEW - 1], made.riders[-1]
        made.disk.hold()
        made.send(some)
        await trio.to_thread.run_sync(made.disk.wait_held)
        made.send([other])
        await eventually(lambda: made.sizes == [FEW - 1, 1])
        made.disk.release()
        await made.answered([*some, other])


async def test_what_comes_before_the_disk_has_anything_is_looked_at_at_once_and_shares_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lane(tmp_path, monkeypatch) as made:
        first, many, other = made.riders[0], made.riders[1 : FEW + 1], made.riders[-1]
        monkeypatch.setattr(persister, "TURNS_BETWEEN", 20_000)
        made.send([first])
        await made.answered([first])  # and now the persister lets others have their turns
        commits = made.commits
        made.send(many)
        await eventually(lambda: made.sizes == [1, FEW])
        made.send([other])
        await eventually(lambda: made.sizes == [1, FEW, 1])
        assert made.commits == commits
        monkeypatch.setattr(persister, "TURNS_BETWEEN", 2)
        await made.answered([*many, other])
        assert made.commits == commits + 1


async def test_of_a_batch_that_waits_for_room_no_more_than_a_head_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands may wait; what is not read of them is in no memory of ours."""
    read: list[int] = []
    judged: list[int] = []
    holding: list[int] = []
    look, several, answer = Express._look, Intake.judged, _Connection._answer  # noqa: SLF001 - nobody else can tell

    def watched(lane: Express, rider: Rider, group: Group) -> None:
        look(lane, rider, group)
        read.append(len(rider.unread))

    def counted(intake: Intake, bodies: Sequence[bytes], traces: Sequence[str]) -> Sequence[JudgedEvent | None]:
        judged.append(len(bodies))
        return several(intake, bodies, traces)

    async def held(connection: _Connection, head: Head) -> None:
        holding.append(len(connection.unread))
        await answer(connection, head)

    monkeypatch.setattr(_Connection, "_answer", held)
    monkeypatch.setattr(Express, "_look", watched)
    monkeypatch.setattr(Intake, "judged", counted)
    line = b'{"endpoint":"a","input_summary":"%b"}' % (b"x" * 3_000)
    batch = b"\n".join([line] * 20)
    settings = Settings(data_dir=tmp_path, listen=ListenSettings(port=0))
    with trio.fail_after(LIMIT_S):
        async with daemon_inside(settings) as daemon:
            port = int(daemon.addresses[0].rpartition(":")[2])
            async with await trio.open_tcp_stream("127.0.0.1", port) as client:

                async def ask(path: bytes, body: bytes, more: bytes = b"") -> None:
                    head = b"POST %b HTTP/1.1\r\nHost: localhost\r\n%bContent-Length: %d\r\n\r\n"
                    head %= (path, more, len(body))
                    await client.send_all(head + body)
                    assert (await client.receive_some()).startswith(b"HTTP/1.1 200 ")

                for _ in range(2):
                    await ask(b"/events", batch)
                assert max(read) == HEAD_BYTES
                await ask(b"/events", batch, b"X-Long: %b\r\n" % (b"x" * HEAD_BYTES))
                assert max(holding) <= 2 * HEAD_BYTES, "also where the head does not come with the first read"
                read.clear()
                await ask(b"/event", line)  # longer than a head, so it is the connection's own
                assert judged == []
                await ask(b"/event", line)
                assert judged == [1], "and then such an event rides"
                read.clear()
                await ask(b"/events", batch)
                read.clear()
                await ask(b"/events", batch)
                assert max(read) == HEAD_BYTES


def event_of(size: int) -> bytes:
    """Give a request with an event, of so many bytes in all."""
    for padding in range(size):
        body = b'{"endpoint":"a","input_summary":"%b"}' % (b"x" * padding)
        made = b"POST /event HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        if len(made) == size:
            return made
    raise AssertionError(size)


@pytest.mark.parametrize("has_ridden", [False, True])
async def test_who_sends_on_where_a_read_ends_is_read_on(tmp_path: Path, *, has_ridden: bool) -> None:
    """The epoll tells once of what has come: what a read has left behind nobody tells of again."""
    piece = RECEIVE_BYTES if has_ridden else HEAD_BYTES
    settings = Settings(data_dir=tmp_path, listen=ListenSettings(port=0))
    with trio.fail_after(LIMIT_S):
        async with daemon_inside(settings) as daemon:
            port = int(daemon.addresses[0].rpartition(":")[2])
            for size in (piece - 1, piece, piece + 1, 2 * piece):
                async with await trio.open_tcp_stream("127.0.0.1", port) as client:
                    if has_ridden:
                        await client.send_all(EVENT)
                        await client.receive_some()
                    await client.send_all(event_of(size) + EVENT)
                    answers = b""
                    while answers.count(b"HTTP/1.1 200 ") < 2:
                        answers += await client.receive_some()


async def test_who_has_sent_a_small_event_may_send_a_larger_one_in_the_lane(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lane(tmp_path, monkeypatch) as made:
        made.riders[0].sendall(event_of(3_000))
        await made.answered(made.riders[:1])
        assert made.sizes == [1]


async def test_a_connection_that_waits_for_its_next_request_has_no_task(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, listen=ListenSettings(port=0))
    with trio.fail_after(LIMIT_S), ExitStack() as stack:
        async with daemon_inside(settings) as daemon:
            port = int(daemon.addresses[0].rpartition(":")[2])
            before = trio.lowlevel.current_statistics().tasks_living
            for ask in (
                EVENT,
                EVENT.replace(b"/event", b"/events"),
                b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
            ):
                for _ in range(10):
                    client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
                    client.sendall(ask)
                    await trio.lowlevel.wait_readable(client)
                    assert client.recv(4_096).startswith(b"HTTP/1.1 200 ")
            await eventually(lambda: trio.lowlevel.current_statistics().tasks_living <= before + 5)


@pytest.mark.parametrize("path", [b"/event", b"/events"])
async def test_what_comes_at_the_last_moment_of_a_drain_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: bytes
) -> None:
    settings = Settings(data_dir=tmp_path, listen=ListenSettings(port=0))
    let_go = Express.let_go
    with trio.fail_after(LIMIT_S), socket.socket() as client:

        def late(lane: Express) -> None:
            client.sendall(EVENT.replace(b"/event", path))
            let_go(lane)

        monkeypatch.setattr(Express, "let_go", late)
        async with daemon_inside(settings) as daemon:
            client.connect(("127.0.0.1", int(daemon.addresses[0].rpartition(":")[2])))
            client.sendall(EVENT)
            await trio.lowlevel.wait_readable(client)
            assert client.recv(4_096).startswith(b"HTTP/1.1 200 ")
        answer = client.recv(4_096)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" in answer.lower()


async def test_a_connection_that_the_kernel_has_no_room_to_watch_is_closed_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """epoll_ctl(2): ENOSPC beyond `max_user_watches`, ENOMEM."""

    def refuse(lane: Express, rider: Rider) -> None:  # noqa: ARG001 - as `board`
        raise OSError(errno.ENOSPC, "No space left on device")

    settings = Settings(data_dir=tmp_path, listen=ListenSettings(port=0))
    with trio.fail_after(LIMIT_S):
        async with daemon_inside(settings) as daemon:
            port = int(daemon.addresses[0].rpartition(":")[2])
            with monkeypatch.context() as patched:
                patched.setattr(Express, "board", refuse)
                async with await trio.open_tcp_stream("127.0.0.1", port) as client:
                    assert await client.receive_some() == b""
            async with await trio.open_tcp_stream("127.0.0.1", port) as client:
                await client.send_all(EVENT)
                assert (await client.receive_some()).startswith(b"HTTP/1.1 200 ")
                with monkeypatch.context() as patched:
                    patched.setattr(Express, "board", refuse)
                    await client.send_all(EVENT.replace(b"/event", b"/events"))
                    assert (await client.receive_some()).startswith(b"HTTP/1.1 200 ")
                    assert await client.receive_some() == b""
