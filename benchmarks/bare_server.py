"""The bare limit: HTTP/1.1 parsed by httptools on trio, answered at once, nothing decoded and nothing stored.

Run by itself: ``python -m benchmarks.bare_server PORT``.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import Final

import httptools
import trio

__all__: list[str] = []

RECEIVE_BYTES: Final = 65_536
_BODY: Final = b'{"accepted":true,"ring_size":2000,"seq":1234567}'
_ANSWER: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
    b"date: Sun, 22 Nov 2026 10:00:00 GMT\r\n\r\n%b" % (len(_BODY), _BODY)
)


class _Requests:
    """Counts whole requests."""

    def __init__(self) -> None:
        self.complete = 0
        self.body = b""

    def on_body(self, body: bytes) -> None:
        self.body = body

    def on_message_complete(self) -> None:
        self.complete += 1


async def _serve(stream: trio.SocketStream) -> None:
    requests = _Requests()
    parser = httptools.HttpRequestParser(requests)
    descriptor = stream.socket.fileno()
    async with stream:
        while True:
            await trio.lowlevel.wait_readable(descriptor)
            try:
                data = os.read(descriptor, RECEIVE_BYTES)
            except OSError:
                return
            if not data:
                return
            parser.feed_data(data)
            if requests.complete:
                os.write(descriptor, _ANSWER * requests.complete)
                requests.complete = 0


if __name__ == "__main__":
    trio.run(partial(trio.serve_tcp, _serve, int(sys.argv[1]), host="127.0.0.1"))
