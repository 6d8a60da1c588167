"""Closing a connection while its client may still be sending."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Final

import trio

__all__ = ["end", "linger"]

LINGER_S: Final = 1.0
PIECE_BYTES: Final = 65_536


def end(stream: trio.SocketStream) -> None:
    """Say that no more is sent. Trio's `send_eof` takes a turn for it, in which no other task may send."""
    with suppress(OSError):
        stream.socket.shutdown(socket.SHUT_WR)


async def linger(stream: trio.SocketStream) -> None:
    """Say that no more is sent, and read on for a moment, until the client closes too.

    Closed at once, with bytes unread, the kernel resets the connection, and the client may never see the answer that
    says why (RFC 9112, 9.6).
    """
    with trio.move_on_after(LINGER_S), suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
        end(stream)
        while await stream.receive_some(PIECE_BYTES):
            pass
