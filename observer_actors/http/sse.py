"""Server-sent events (WHATWG HTML, section 9.2) from a tail."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

import msgspec

from observer_actors.actors.tail import Tail
from observer_actors.errors import Overloaded
from observer_actors.op import Op, encode_op
from observer_actors.patterns import StateChanged
from observer_actors.visible import visible_json

KEEP_ALIVE_S: Final = 15.0
"""Proxies and clients give a silent connection up after 30 to 60 seconds."""
RETRY_MS: Final = 2_000


def stream(tail: Tail, after_seq: int | None) -> AsyncGenerator[bytes]:
    """Give the bytes of the event stream, until the reader was dropped or told that it is over."""
    return _written(tail.follow(after_seq, silence_s=KEEP_ALIVE_S))  # here: an end counts from now on


async def _written(following: AsyncGenerator[Op | StateChanged | None]) -> AsyncGenerator[bytes]:
    yield f"retry: {RETRY_MS}\n\n".encode()
    try:
        async with aclosing(following) as ops:
            async for op in ops:
                if op is None:
                    yield b": still here\n\n"
                elif isinstance(op, StateChanged):
                    # Without an id: it is in no journal.
                    yield b"event: pattern\ndata: %b\n\n" % visible_json(msgspec.json.encode(op))
                else:
                    yield b"id: %d\nevent: op\ndata: %b\n\n" % (op.seq, encode_op(op))
    except Overloaded:
        yield b": too many readers\n\n"  # they came at the same time, and the answer had begun
    yield b"event: end\ndata: {}\n\n"
