"""A constant rate of requests, whether or not the answers come in time: an open loop, in a process of its own.

Run by itself: ``python -m benchmarks.pacing PORT RATE SECONDS WARM_SECONDS``; says one line of JSON.

Each request is due at a time fixed beforehand, and its latency counts *from that time*: what the server, or this
client, makes wait is in the figure, so that a stall shows in every request that it delayed (no coordinated
omission). How late this client itself sent a request although a connection was free is given beside it.
"""

from __future__ import annotations

import gc
import select
import socket
import sys
import time
from collections import deque
from typing import Final

import msgspec
from msgspec import Struct

from benchmarks.payload import events

CONNECTIONS: Final = 64
"""Mostly more than are busy at half load; when none is free, requests wait, and their latency counts on."""
AFTER_SECONDS_MAX: Final = 10.0
_OK: Final = b"HTTP/1.1 200 "
_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length: "


class Paced(Struct):
    """What came out. Times in milliseconds."""

    wanted_per_second: float
    per_second: float
    answered: int
    failed: int
    unanswered: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    late_p99_ms: float
    """How late this client sent, for reasons of its own: the 99th percentile."""
    waited: int
    """Requests that were due while no connection was free."""


class _Connection:
    """One keep-alive connection with at most one request under way."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due = 0.0
        self._received = b""

    def answer(self) -> bytes | None:
        """Read; give the answer once it is whole."""
        data = self.socket.recv(65_536)
        if not data:
            raise ConnectionError("closed")
        self._received += data
        head_end = self._received.find(_HEAD_END)
        if head_end < 0:
            return None
        head = self._received[:head_end].lower()
        at = head.index(_LENGTH) + len(_LENGTH)
        length = int(head[at:].partition(b"\r")[0])
        if len(self._received) < head_end + len(_HEAD_END) + length:
            return None
        whole, self._received = self._received, b""
        return whole


class _Client:
    """Sends what is due, and notes when it was answered. It shares the machine with the server, and so does little."""

    def __init__(self, port: int) -> None:
        self._requests = [
            b"POST /event HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
            for body in events()
        ]
        self._connections = {c.socket.fileno(): c for c in (_Connection(port) for _ in range(CONNECTIONS))}
        self._free = deque(self._connections.values())
        self._epoll = select.epoll()
        for descriptor in self._connections:
            self._epoll.register(descriptor, select.EPOLLIN)
        self._turn = 0
        self.latencies: list[float] = []
        self.lateness: list[float] = []
        self.failed = 0
        self.waited = 0

    def run(self, rate: float, seconds: float) -> float:
        """Send ``rate`` requests a second for so long, wait for the rest; give the time it took to the last answer."""
        clock, poll, epoll = time.perf_counter, self._epoll.poll, (self._epoll.fileno(),)
        self.latencies, self.lateness, self.failed, self.waited = [], [], 0, 0
        began, count, sent, starved = clock(), int(rate * seconds), 0, False
        give_up_at = began + seconds + AFTER_SECONDS_MAX
        while (sent < count or self.unanswered) and (now := clock()) < give_up_at:
            while sent < count and self._free and began + sent / rate <= now:
                due = began + sent / rate
                self._send(due)
                now = clock()
                if starved:
                    self.waited += 1
                else:
                    self.lateness.append(now - due)
                sent += 1
            starved = sent < count and not self._free and began + sent / rate <= now
            until = began + sent / rate if sent < count and self._free else now + AFTER_SECONDS_MAX
            readable, _, _ = select.select(epoll, (), (), max(0.0, until - now))  # `poll` itself counts milliseconds
            for descriptor, _ in poll(0) if readable else ():
                self._receive(self._connections[descriptor])
        return clock() - began

    @property
    def unanswered(self) -> int:
        """Requests under way."""
        return CONNECTIONS - len(self._free)

    def _send(self, due: float) -> None:
        connection = self._free.popleft()
        connection.due = due
        self._turn = (self._turn + 1) % len(self._requests)
        connection.socket.sendall(self._requests[self._turn])

    def _receive(self, connection: _Connection) -> None:
        answer = connection.answer()
        if answer is None:
            return
        if answer.startswith(_OK):
            self.latencies.append(time.perf_counter() - connection.due)
        else:
            self.failed += 1
        self._free.append(connection)


def _share(values: list[float], share: float) -> float:
    """Give the value that ``share`` of them do not exceed, in milliseconds."""
    return values[min(len(values) - 1, int(share * len(values)))] * 1e3 if values else 0.0


def _main(port: int, rate: float, seconds: float, warm_seconds: float) -> None:
    client = _Client(port)
    gc.disable()  # its pauses would be taken for the server's
    client.run(rate, warm_seconds)
    took = client.run(rate, seconds)
    latencies, lateness = sorted(client.latencies), sorted(client.lateness)
    paced = Paced(
        wanted_per_second=rate,
        per_second=len(latencies) / took,
        answered=len(latencies),
        failed=client.failed,
        unanswered=client.unanswered,
        p50_ms=_share(latencies, 0.5),
        p90_ms=_share(latencies, 0.9),
        p99_ms=_share(latencies, 0.99),
        p999_ms=_share(latencies, 0.999),
        max_ms=_share(latencies, 1.0),
        late_p99_ms=_share(lateness, 0.99),
        waited=client.waited,
    )
    sys.stdout.buffer.write(msgspec.json.encode(paced) + b"\n")


if __name__ == "__main__":
    _main(int(sys.argv[1]), *map(float, sys.argv[2:5]))
