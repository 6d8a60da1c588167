"""The two ends of a plain request, as bytes: reading its head, and writing its answer. Pure but for the clock.

A head means the same whenever it comes, so what it means is remembered: callers send the same one again and again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from email.utils import formatdate
from enum import Enum
from functools import lru_cache
from http import HTTPStatus
from time import time
from typing import Final

import httptools
from msgspec import Struct

from observer_actors.http.replies import FOR_BROWSERS, Reply

LENGTH_DIGITS_MAX: Final = 18
"""A longer length is the gate's case: the same limit there."""
HEADERS_MAX: Final = 100
"""As Apache and gunicorn have it. A header of three bytes takes a thousand until its request has been answered."""
REMEMBERED_BYTES_MAX: Final = 1_024
REMEMBERED_MAX: Final = 1_024
"""Heads remembered, and how long one may be: a MiB in all."""

_HEAD_END: Final = b"\r\n\r\n"
_ANY_HEAD_END: Final = re.compile(rb"\n\r?\n")
_LINE: Final = re.compile(rb"(?:POST (/events?)|GET /advice\?([!-\"$-~]*)) HTTP/1\.([01])\r\n")
_MEANINGFUL: Final = frozenset(
    {
        *(b"content-length", b"host", b"content-encoding", b"connection", b"authorization", b"traceparent", b"accept"),
        *(b"sec-fetch-dest", b"sec-fetch-mode"),
    }
)
"""The last two only beside the site, of which a browser tells; `fetch` of Node sends a mode without one."""
_NEVER_PLAIN: Final = frozenset(
    {
        *(b"transfer-encoding", b"expect", b"te", b"trailer"),
        *(b"origin", b"referer", b"sec-fetch-site"),
    }
)
_CONNECTIONS: Final = frozenset({b"keep-alive", b"close", b"upgrade", b"upgrade, http2-settings"})
"""Java's own client offers HTTP/2 with each request, and Apache's TLS: nobody has to take that (RFC 9110, 7.8)."""


class Head(Struct, frozen=True, gc=False):
    """A plain request, as its head announces it. ``body_at`` and ``end`` count from the beginning of the head."""

    method: str
    path: str
    query: str
    """What follows the question mark of `GET /advice`."""
    accept: str
    encoding: str
    close: bool
    host: str
    authorization: str
    trace: str
    """`traceparent`."""
    body_at: int
    end: int


class Incomplete(Enum):
    """The type of `INCOMPLETE`."""

    INCOMPLETE = "incomplete"


INCOMPLETE: Final = Incomplete.INCOMPLETE
"""The head has not ended yet."""


def read_head(data: bytes, *, body_bytes_max: int, head_bytes_max: int) -> Head | Incomplete | None:
    """Read the head at the beginning of the data: a plain request, or None when it is not plain.

    `INCOMPLETE` when more bytes may complete the head. Any other data is a whole head, or none, already: Hypercorn
    never has to wait for the rest of one.

    :param body_bytes_max: a longer body is not plain.
    :param head_bytes_max: nor is a longer head, or one of more headers than `HEADERS_MAX`.
    """
    body_at = data.find(_HEAD_END) + len(_HEAD_END)
    if body_at < len(_HEAD_END):
        return INCOMPLETE if len(data) <= head_bytes_max and _may_be_head(data) else None
    if body_at > head_bytes_max:
        return None
    head = data[:body_at]
    found = _remembered(head) if _is_remembered(head) else _parse(head)
    return found if found and found.end - body_at <= body_bytes_max else None


def head_bytes(data: bytes) -> int:
    """Give the length of the head at the beginning of the data, as far as it has come."""
    end = _ANY_HEAD_END.search(data)
    return end.end() if end else len(data)


def has_too_many_headers(head: bytes) -> bool:
    """Say whether a head, with the line before and behind its headers, has more than `HEADERS_MAX`."""
    return head.count(b"\n") > HEADERS_MAX + 2


def _is_remembered(head: bytes) -> bool:
    """Say whether a head may be kept: not what holds a token, nor what comes but once."""
    lower = head.lower()
    return (
        len(head) <= REMEMBERED_BYTES_MAX
        and head.startswith(b"POST")
        and b"\nauthorization:" not in lower
        and b"\ntraceparent:" not in lower
    )


def _may_be_head(begun: bytes) -> bool:
    """Say whether more bytes may complete this head; not where h11 already sees its end, or an error."""
    return begun[:1] > b" " and _ANY_HEAD_END.search(begun) is None


def _parse(head: bytes) -> Head | None:
    """Parse a whole head; None when it is not plain."""
    line = _LINE.match(head)
    if line is None or has_too_many_headers(head):
        return None
    headers = _Headers()
    try:
        with suppress(httptools.HttpParserUpgrade):  # said at the end of the head
            httptools.HttpRequestParser(headers).feed_data(head)
    except (httptools.HttpParserError, _NotPlain):
        return None
    said = headers.said
    connection = said.get(b"connection", b"keep-alive").lower()
    is_advice = line[1] is None
    method, path, query = ("GET", "/advice", line[2].decode()) if is_advice else ("POST", line[1].decode(), "")
    length = _length(method, said.get(b"content-length"))
    if b"host" not in said or length is None or connection not in _CONNECTIONS:
        return None
    return Head(
        method=method,
        path=path,
        query=query,
        accept=said.get(b"accept", b"").decode("latin-1"),
        encoding=said.get(b"content-encoding", b"").decode("latin-1"),
        close=connection == b"close" or line[3] == b"0",
        host=said[b"host"].decode("latin-1"),
        authorization=said.get(b"authorization", b"").decode("latin-1"),
        trace=said.get(b"traceparent", b"").decode("latin-1"),
        body_at=len(head),
        end=len(head) + length,
    )


def _length(method: str, announced: bytes | None) -> int | None:
    """Give the length of a body; None when it is not plain: none with POST, or one with GET."""
    if method == "GET":
        return 0 if announced in (None, b"0") else None
    if announced is None or not announced.isdigit() or len(announced) > LENGTH_DIGITS_MAX:
        return None
    return int(announced)


_remembered = lru_cache(REMEMBERED_MAX)(_parse)


class _NotPlain(Exception):
    """Hypercorn's case."""


class _Headers:
    """What the parser reports of a head: the headers that mean something here, each at most once."""

    __slots__ = ("said",)

    def __init__(self) -> None:
        self.said: dict[bytes, bytes] = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header in, or raise `_NotPlain`."""
        name = name.lower()
        if name in _NEVER_PLAIN or name in self.said:
            raise _NotPlain
        if name in _MEANINGFUL:
            self.said[name] = value.strip(b" \t")  # what stands behind it llhttp leaves there (RFC 9112, 5.1)


_REASONS: Final = {status.value: status.phrase for status in HTTPStatus}


def rendered(reply: Reply, *, close: bool) -> bytes:
    """Give the reply as it goes over the wire."""
    return _head_for(reply, close=close) + reply.body


def all_rendered(replies: Sequence[Reply], closes: Sequence[bool]) -> list[bytes]:
    """Give replies as they go over the wire: those in a row that differ in nothing but their words have one head."""
    answers: list[bytes] = []
    last, last_close, head = None, False, b""
    for reply, close in zip(replies, closes, strict=True):
        if last is None or close is not last_close or not _is_alike(reply, last):
            last, last_close, head = reply, close, _head_for(reply, close=close)
        answers.append(head + reply.body)
    return answers


def _is_alike(one: Reply, other: Reply) -> bool:
    return (
        len(one.body) == len(other.body)
        and one.status == other.status
        and one.headers == other.headers
        and one.content_type == other.content_type
    )


def _head_for(reply: Reply, *, close: bool) -> bytes:
    headers = (*reply.headers, ("connection", "close")) if close else reply.headers
    return _head_of(int(time()), reply.status, reply.content_type, len(reply.body), headers)


@lru_cache(256)
def _head_of(second: int, status: int, content_type: str, length: int, headers: tuple[tuple[str, str], ...]) -> bytes:
    """Give the head of an answer: within a second, answers of one length have the same."""
    more = "".join(f"{name.lower()}: {value}\r\n" for name, value in (*FOR_BROWSERS, *headers))
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\n"
        f"content-type: {content_type}\r\n"
        f"content-length: {length}\r\n"
        f"date: {formatdate(second, usegmt=True)}\r\n"
        f"{more}\r\n"
    )
    return head.encode("latin-1")
