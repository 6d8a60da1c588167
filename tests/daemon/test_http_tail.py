"""`/tail`: every op once and in order, also behind a Last-Event-ID, and no reader may hold up anyone else."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import trio
import trio.testing

from observer_actors.actors.commits import Commits
from observer_actors.actors.tail import Tail
from observer_actors.errors import DiskFailed
from observer_actors.http.server import GRACE_S
from observer_actors.http.sse import CHUNK_BYTES, KEEP_ALIVE_S, stream
from observer_actors.op import Op, decode_op
from observer_actors.settings import TailSettings
from tests.actors.ops import Journal
from tests.harness import Daemon, running_daemon

READ_S: Final = 20.0


def configured(tmp_path: Path, text: str) -> tuple[str, str]:
    file = tmp_path / "observer.toml"
    file.write_text(text)
    return "--config", str(file)


class Reader:
    """Reads server-sent events: lines end at a newline, and at nothing that Unicode has besides."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.last_event_id = 0
        self._stream = stream
        self._unread = b""

    async def leave(self) -> None:
        """Close our side, as who goes away does, and go on listening."""
        await self._stream.send_eof()

    async def until(self, end: bytes) -> str | None:
        """Give what stands before some bytes; None when they never come."""
        with trio.fail_after(READ_S):
            while end not in self._unread:
                chunk = await self._stream.receive_some()
                if not chunk:
                    return None
                self._unread += chunk
        part, _, self._unread = self._unread.partition(end)
        return part.decode()

    async def message(self) -> dict[str, str]:
        """Give the fields of the next message; a comment stands under the empty name."""
        message = await self.until(b"\n\n")
        if message is None:
            return {"closed": ""}
        fields = (line.partition(":") for line in message.split("\n"))
        return {name: value.removeprefix(" ") for name, _, value in fields}

    async def seqs(self, count: int) -> list[int]:
        """Give the seqs of the next so many ops."""
        seqs: list[int] = []
        while len(seqs) < count:
            message = await self.message()
            if message.get("event") == "pattern":  # that the failures have been grouped may be told in between
                continue
            assert message.get("event") == "op", message
            seqs.append(decode_op(message["data"].encode()).seq)
            assert message["id"] == str(seqs[-1])
        return seqs


@asynccontextmanager
async def following(daemon: Daemon, after: int | None = None) -> AsyncIterator[Reader]:
    """Follow over HTTP/1.0, where the body is what comes, in no chunks."""
    async with await trio.open_tcp_stream("127.0.0.1", port_of(daemon)) as connection:
        resume = "" if after is None else f"Last-Event-ID: {after}\r\n"
        await connection.send_all(f"GET /tail HTTP/1.0\r\nHost: localhost\r\n{resume}\r\n".encode())
        reader = Reader(connection)
        head = (await reader.until(b"\r\n\r\n") or "").lower()
        assert head.startswith("http/1.1 200 ")
        assert "\r\ncontent-type: text/event-stream\r\n" in head
        assert "\r\ncache-control: no-store\r\n" in head
        begin = await reader.message()
        assert begin.keys() == {"retry", "id"}
        assert begin["retry"] == "2000"
        reader.last_event_id = int(begin["id"])
        yield reader


def port_of(daemon: Daemon) -> int:
    return int(daemon.url.rpartition(":")[2])


async def readers(daemon: Daemon) -> dict[str, Any]:
    text = (await daemon.get("/metrics")).text
    found = (line.split() for line in text.splitlines() if line.startswith("observer_tail_"))
    return {name: float(value) for name, value in found}


async def until_readers(daemon: Daemon, count: int) -> None:
    with trio.fail_after(READ_S):
        while (await readers(daemon))["observer_tail_readers"] != count:
            pass


async def test_ops_come_as_they_are_committed_as_they_are_on_disk(tmp_path: Path) -> None:
    async with running_daemon(tmp_path) as daemon:
        await daemon.event(endpoint="before", ok=True)
        async with following(daemon) as reader:
            await until_readers(daemon, 1)
            await daemon.event(endpoint="live", error="line\nbreak\u2028")
            message = await reader.message()
            assert message.keys() == {"id", "event", "data"}
            on_disk = (tmp_path / "_observer" / "ops.jsonl").read_text().split("\n")
            assert message["data"] == on_disk[1]
        await until_readers(daemon, 0)


async def test_behind_a_last_event_id_nothing_is_missed_and_nothing_comes_twice_while_load_runs(tmp_path: Path) -> None:
    config = configured(tmp_path, "[journal]\nsegment_bytes_max = 50000\n[tail]\nbuffer_ops_max = 100000\n")
    total = 4_000

    async def load(daemon: Daemon) -> None:
        for _ in range(total // 50 - 20):
            assert (await daemon.post("/events", b"{}\n" * 50)).status_code == 200

    async def follow(daemon: Daemon, after: int) -> None:
        async with following(daemon, after) as reader:
            assert await reader.seqs(total - after) == list(range(after + 1, total + 1))

    async with running_daemon(tmp_path, *config) as daemon:
        assert (await daemon.post("/events", b"{}\n" * 1_000)).status_code == 200
        async with trio.open_nursery() as nursery:
            nursery.start_soon(load, daemon)
            for after in (0, 1, 500, 999, 1_000):
                nursery.start_soon(follow, daemon, after)


async def test_a_reader_that_comes_back_goes_on_where_it_left(tmp_path: Path) -> None:
    async with running_daemon(tmp_path) as daemon:
        await daemon.post("/events", b"{}\n" * 30)
        seen: list[int] = []
        while len(seen) < 30:
            async with following(daemon, len(seen)) as reader:
                seen += await reader.seqs(10)
        assert seen == list(range(1, 31))


async def test_a_reader_that_comes_back_before_it_was_sent_an_op_misses_none(tmp_path: Path) -> None:
    async with running_daemon(tmp_path) as daemon:
        await daemon.post("/events", b"{}\n" * 3)
        for after, begins_behind in ((None, 3), (2, 2), (10**17, 3)):
            async with following(daemon, after) as reader:
                assert reader.last_event_id == begins_behind
        await daemon.event()
        async with following(daemon, 3) as reader:
            assert await reader.seqs(1) == [4]


async def test_a_last_event_id_beyond_the_journal_follows_from_now(tmp_path: Path) -> None:
    async with running_daemon(tmp_path) as daemon:
        await daemon.event()
        async with following(daemon, 10**17) as reader:
            await until_readers(daemon, 1)
            await daemon.event()
            assert await reader.seqs(1) == [2]


async def test_what_is_no_last_event_id_is_named(tmp_path: Path) -> None:
    async with running_daemon(tmp_path) as daemon:
        for text in ("x", "-1", "9" * 30):
            response = await daemon.get("/tail", headers={"Last-Event-ID": text})
            assert (response.status_code, response.json()["field"]) == (400, "Last-Event-ID")


async def test_a_filter_that_the_stream_does_not_know_is_refused_and_not_passed_over(tmp_path: Path) -> None:
    async with running_daemon(tmp_path) as daemon:
        response = await daemon.get("/tail", params={"source": "bot"})
        assert (response.status_code, response.json()["field"]) == (400, "source")
        assert response.json()["hint"] == "it takes none"


async def test_a_reader_too_many_is_told_when_to_come_again(tmp_path: Path) -> None:
    async with running_daemon(tmp_path, *configured(tmp_path, "[tail]\nreaders_max = 2\n")) as daemon:
        async with following(daemon), following(daemon):
            await until_readers(daemon, 2)
            response = await daemon.get("/tail")
            assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
            assert response.json()["error"] == "2 readers already"
            assert response.json()["hint"] == "send it again after 5 s; an event, with the same id"
        await until_readers(daemon, 0)
        async with following(daemon):
            pass


async def test_a_reader_that_has_gone_gives_its_place_up_at_once(tmp_path: Path) -> None:
    """Before the next op or keep-alive, and though others that close their side are waited for two minutes here."""
    config = configured(tmp_path, "[tail]\nreaders_max = 1\n[admission]\nwait_seconds_max = 60\n")
    async with running_daemon(tmp_path, *config) as daemon:
        for _ in range(3):
            async with following(daemon) as reader:
                await until_readers(daemon, 1)
                await reader.leave()
                assert await reader.message() == {"closed": ""}
            await until_readers(daemon, 0)


async def test_readers_that_come_all_at_once_are_no_more_than_may_be(tmp_path: Path) -> None:
    async with running_daemon(tmp_path, *configured(tmp_path, "[tail]\nreaders_max = 2\n")) as daemon:
        async with AsyncExitStack() as stack:
            streams = [
                await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", port_of(daemon)))
                for _ in range(20)
            ]
            for stream in streams:
                await stream.send_all(b"GET /tail HTTP/1.1\r\nHost: localhost\r\n\r\n")
            with trio.fail_after(READ_S):
                answers = [bytes(await stream.receive_some(12)) for stream in streams]
            assert set(answers) <= {b"HTTP/1.1 200", b"HTTP/1.1 503"}
            await until_readers(daemon, 2)
        await until_readers(daemon, 0)


@asynccontextmanager
async def a_reader_that_does_not_read(daemon: Daemon) -> AsyncIterator[None]:
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    with deaf:
        deaf.connect(("127.0.0.1", port_of(daemon)))
        deaf.sendall(b"GET /tail HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await until_readers(daemon, 1)
        yield


async def fill_until_dropped(daemon: Daemon) -> int:
    """Post large ops until the slow reader has been dropped; give their number."""
    body = msgspec.json.encode({"error": "x" * 200_000})
    posted = 0
    with trio.fail_after(READ_S):
        while not (await readers(daemon))["observer_tail_dropped_total"]:
            assert (await daemon.post("/event", body)).status_code == 200
            posted += 1
    return posted


async def test_a_slow_reader_is_dropped_and_counted_while_others_go_on(tmp_path: Path) -> None:
    async with (
        running_daemon(tmp_path, *configured(tmp_path, "[tail]\nbuffer_ops_max = 10\n")) as daemon,
        a_reader_that_does_not_read(daemon),
        following(daemon) as reader,
    ):
        await until_readers(daemon, 2)
        seqs: list[int] = []

        async def read(task_status: trio.TaskStatus[None]) -> None:
            task_status.started()
            while True:
                seqs.extend(await reader.seqs(1))

        async with trio.open_nursery() as nursery:
            await nursery.start(read)
            posted = await fill_until_dropped(daemon)
            with trio.fail_after(READ_S):
                while len(seqs) < posted:
                    await readers(daemon)
            nursery.cancel_scope.cancel()
        assert seqs == list(range(1, posted + 1))
        counted = await readers(daemon)
        assert counted["observer_tail_dropped_total"] == 1
        assert counted["observer_tail_dropped_ops_total"] >= 10


async def test_a_stop_ends_the_readers_within_the_budgets(tmp_path: Path) -> None:
    async with running_daemon(tmp_path) as daemon, following(daemon) as reader, following(daemon, 0) as second:
        await daemon.event()
        assert await second.seqs(1) == [1]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(daemon.stop)
            while (message := await reader.message()).get("event") in ("op", "pattern"):
                pass
            assert message == {"event": "end", "data": "{}"}
            assert await reader.message() == {"closed": ""}
        assert daemon.process.returncode == 0
        assert not [line for line in daemon.log if line["event"] == "shutdown_forced"]


async def test_a_reader_that_comes_back_while_the_daemon_stops_does_not_hold_it_up(tmp_path: Path) -> None:
    request = b"GET /tail HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with (
        running_daemon(tmp_path) as daemon,
        await trio.open_tcp_stream("127.0.0.1", port_of(daemon)) as connection,
    ):
        reader = Reader(connection)
        await connection.send_all(request)
        assert await reader.until(b"\nid: ") is not None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(daemon.stop)
            assert await reader.until(b"event: end\n") is not None
            assert await reader.until(b"\r\n0\r\n\r\n") is not None
            await connection.send_all(request)
            with trio.fail_after(GRACE_S / 2):
                assert await reader.until(b"event: end\n") is not None


async def test_a_stop_is_in_time_though_a_reader_does_not_read(tmp_path: Path) -> None:
    async with running_daemon(tmp_path, *configured(tmp_path, "[tail]\nbuffer_ops_max = 10\n")) as daemon:
        async with a_reader_that_does_not_read(daemon):
            await fill_until_dropped(daemon)
            assert await daemon.stop() == 0
        assert not [line for line in daemon.log if line["event"] == "shutdown_forced"]


def a_tail() -> tuple[Journal, Commits, Tail]:
    async def set_aside(_consumer: str, _op: Op, _crashes: int) -> None:
        raise AssertionError

    journal = Journal()
    commits = Commits(journal.following, crashes_max=3, set_aside=set_aside)
    commits.resume(0)
    return journal, commits, Tail(commits, journal.read, TailSettings())


async def test_what_waits_for_a_reader_is_sent_together_and_in_parts_where_it_is_much() -> None:
    journal, commits, tail = a_tail()
    async with aclosing(stream(tail, None)) as parts:
        await anext(parts)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(anext, parts)
            await trio.testing.wait_all_tasks_blocked()
            commits.publish(journal.append(1))
        for _ in range(100):
            commits.publish(journal.append(2))
        assert (await anext(parts)).count(b"event: op\n") == 200
        commits.publish(journal.append(400))
        first, rest = await anext(parts), await anext(parts)
        assert first.count(b"event: op\n") + rest.count(b"event: op\n") == 400
        assert CHUNK_BYTES <= len(first) < CHUNK_BYTES + 1_000
    following = stream(tail, None)
    commits.publish(journal.append(1))
    async with aclosing(following) as parts:
        head, part = await anext(parts), await anext(parts)
        assert (head, part.partition(b"\n")[0]) == (b"retry: 2000\nid: 601\n\n", b"id: 602"), "since it was let in"
    async with aclosing(stream(tail, 1)) as parts:
        await anext(parts)
        assert (await anext(parts)).startswith(b"id: 2\n")
        assert (await anext(parts)).count(b"event: op\n") > 100, "from the journal, too"


async def test_what_the_disk_does_not_give_ends_a_stream_and_the_reader_is_told_why() -> None:
    async def refuses(_after_seq: int, _most: int) -> list[Op]:
        raise DiskFailed("EIO while reading\nthe journal")

    journal, commits, _ = a_tail()
    commits.publish(journal.append(1))
    with_room = Tail(commits, refuses, TailSettings(readers_max=1))
    begin, end = b"retry: 2000\nid: 0\n\n", b"event: end\ndata: {}\n\n"
    async with aclosing(stream(with_room, 0)) as parts:
        assert [part async for part in parts] == [begin, b": EIO while reading\\nthe journal\n\n", end]
    assert with_room.statistics.readers == 0
    without_room = Tail(commits, refuses, TailSettings(readers_max=0))
    async with aclosing(stream(without_room, 0)) as parts:
        assert [part async for part in parts] == [begin, b": 0 readers already\n\n", end]


async def test_a_silent_stream_is_kept_alive(autojump_clock: trio.testing.MockClock) -> None:
    _, _, tail = a_tail()
    began = autojump_clock.current_time()
    async with aclosing(stream(tail, None)) as parts:
        assert await anext(parts) == b"retry: 2000\nid: 0\n\n"
        assert await anext(parts) == b": still here\n\n"
        assert await anext(parts) == b": still here\n\n"
        assert autojump_clock.current_time() - began == 2 * KEEP_ALIVE_S
        tail.end()
        assert [part async for part in parts] == [b"event: end\ndata: {}\n\n"]
    async with aclosing(stream(tail, None)) as parts:
        assert await anext(parts) == b"retry: 2000\nid: 0\n\n"
        tail.end()
        assert [part async for part in parts] == [b"event: end\ndata: {}\n\n"], "it was let in before"
