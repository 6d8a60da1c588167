"""The port: requests whose bytes were changed. Both ways in see the same ones, and store the same events."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from typing import Final

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.daemon.served import Served, served
from tests.daemon.test_front_door import PLAIN_LINE, REQUESTS, SMUGGLED, START
from tests.fuzz.examples import Change, changed, changes, fuzzed

CONFIG: Final = (
    "[listen]\nbody_bytes_max = 20000\nhead_seconds_max = 0.5\nrequest_seconds_max = 0.5\nbatch_events_max = 100\n"
)
PIPELINES: Final = (
    *REQUESTS.values(),
    *SMUGGLED.values(),
    REQUESTS["an event"] * 3,
    REQUESTS["a batch of lines"] + REQUESTS["another method"] + REQUESTS["an event"],
    REQUESTS["an event"] + REQUESTS["advice"] * 2 + REQUESTS["advice as the header has it"] + REQUESTS["an event"],
    START + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n{}" + REQUESTS["an event"],
)
STATUS: Final = re.compile(rb"HTTP/1\.1 (\d{3}) ")
REFUSED: Final = 400
NOT_FOUND: Final = 404


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("data"), CONFIG) as one:
        yield one
        for line in one.log.lines:
            assert line["level"] != "error", "\n".join(map(str, line.values()))


def marked(data: bytes, name: bytes) -> bytes:
    """Give what may be plain a header behind its first line: ``TE`` has Hypercorn serve it, another name says nothing.

    Of one length, so that a request whose length is wrong goes on to the same byte of what stands behind it.
    """
    return PLAIN_LINE.sub(rb"\g<0>" + name + rb": trailers\r\n", data)


def said(daemon: Served, data: bytes, cut: float, *, first: bytes = b"") -> list[int]:
    """Send bytes in two pieces, and the end; give the statuses that come back."""
    url = httpx.URL(daemon.url)
    with socket.create_connection((url.host, url.port or 0), timeout=10) as connection:
        answer = b""
        if first:
            connection.sendall(first)
            connection.recv(65_536)
        at = int(cut * len(data))
        try:
            for piece in filter(None, (data[:at], data[at:])):
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65_536):
                answer += part
        except OSError:  # refused, and closed, before all of it was read
            pass
    return [int(status) for status in STATUS.findall(answer) if status != b"100"]


def stored(daemon: Served) -> int:
    return int(daemon.json("/health")["last_seq"])


@given(st.sampled_from(PIPELINES), changes, st.floats(0, 1))
@fuzzed(150)
def test_changed_requests_are_the_same_both_ways(daemon: Served, data: bytes, todo: list[Change], cut: float) -> None:
    data = changed(data, todo)[:60_000]
    seen = []
    for name, first in ((b"XX", b""), (b"XX", REQUESTS["an event"]), (b"TE", b"")):  # in its task, in the lane, and not
        before = stored(daemon) + bool(first)
        statuses = said(daemon, marked(data, name), cut, first=first)
        seen.append((statuses, stored(daemon) - before))
    is_unknown = any(NOT_FOUND in statuses for statuses, _ in seen)
    comparable = [(_comparable(statuses), None if is_unknown else count) for statuses, count in seen]
    assert comparable == [comparable[0]] * 3, (data, seen)


def _comparable(statuses: list[int]) -> list[int]:
    """Leave out how the last request was refused: of one that did not come whole several things are wrong.

    And what comes behind a path that nobody knows: its answer is the last one where it was given before the body came.
    It may not even come, where the connection was reset over that body.
    """
    if NOT_FOUND in statuses:
        return statuses[: statuses.index(NOT_FOUND)]
    return statuses[:-1] if statuses and statuses[-1] >= REFUSED else statuses
