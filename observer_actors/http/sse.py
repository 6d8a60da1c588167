"""Server-sent events (WHATWG HTML, section 9.2) from a tail."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Final

import msgspec

from observer_actors.actors.tail import Page, Tail
from observer_actors.errors import ObserverError
from observer_actors.op import Op, encode_op
from observer_actors.patterns import StateChanged
from observer_actors.visible import visible, visible_json

KEEP_ALIVE_S: Final = 15.0
"""Proxies and clients give a silent connection up after 30 to 60 seconds."""
RETRY_MS: Final = 2_000
CHUNK_BYTES: Final = 64 * 1024
"""A chunk is sent once it has as much, at least: with more, others would wait longer for their turn."""


def stream(tail: Tail, after_seq: int | None) -> AsyncGenerator[bytes]:
    """Give the bytes of the event stream, until the reader was dropped or told that it is over.

    The id comes first: a browser that comes back before it was sent any op says that it goes on there.
    """
    begins_behind = tail.begins_behind(after_seq)
    head = b"retry: %d\nid: %d\n\n" % (RETRY_MS, begins_behind)
    return _written(head, tail.follow(begins_behind, silence_s=KEEP_ALIVE_S))  # here: an end counts from now on


async def _written(head: bytes, following: AsyncGenerator[Page]) -> AsyncGenerator[bytes]:
    yield head
    try:
        async with aclosing(following) as pages:
            async for page in pages:
                for chunk in _chunks(page):
                    yield chunk
    except ObserverError as error:  # too many came at the same time, or the disk refuses: the answer has begun
        yield f": {visible(error.detail)}\n\n".encode()
    yield b"event: end\ndata: {}\n\n"


def _chunks(page: Page) -> Iterator[bytes]:
    """Write a page: a chunk is a pass of its own through all that lies between here and the socket."""
    if not page:
        yield b": still here\n\n"
    chunk = bytearray()
    for each in page:
        chunk += _message(each)
        if len(chunk) >= CHUNK_BYTES:
            yield bytes(chunk)
            chunk.clear()
    if chunk:
        yield bytes(chunk)


def _message(each: Op | StateChanged) -> bytes:
    if isinstance(each, StateChanged):  # without an id: it is in no journal
        return b"event: pattern\ndata: %b\n\n" % visible_json(msgspec.json.encode(each))
    return b"id: %d\nevent: op\ndata: %b\n\n" % (each.seq, encode_op(each))
