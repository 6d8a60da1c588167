"""The program of the disk's process: it appends to a file what it is sent, syncs it, and says how that went.

It is run by its path (`actors/disk_process.py`), and imports nothing of ours: so it starts in some 20 ms, and takes a
few megabytes. It decides nothing: what a failure means for the journal is `writer`'s business.

A request is `REQUEST`, then the bytes, through a pipe; the answer is `ANSWER`, through another, and one comes at the
beginning, unasked, once requests can be taken. The descriptor of a file that is another than before comes through a
socket (``SCM_RIGHTS``), with its path. One request is under way at a time. When the other end is closed, whether or
not in the middle of a request, the process ends, and nothing of that request is written.

Pipes and no pair of sockets: to read from a Unix socket wakes the other end as one that may write, for nothing.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import struct
import sys
import time
from contextlib import suppress
from typing import Final

REQUEST: Final = struct.Struct("=BQQ")
"""What is to be done, bytes that the file must hold before, and bytes that follow."""
APPEND, APPEND_TO_ANOTHER, LET_GO = 0, 1, 2
"""Let go: close the file, which would take its room for as long as it is open, whatever becomes of its name."""
ANSWER: Final = struct.Struct("=BiQ")
"""How far it came, errno if that was not to the end, and microseconds that fdatasync took."""
SYNCED, NOT_WRITTEN, NOT_SYNCED = 0, 1, 2
"""Not written: perhaps a part was. Not synced: fdatasync has failed."""

_RECEIVE_BYTES: Final = 1024 * 1024
_PATH_BYTES_MAX: Final = 4_096


def serve(requests: int, answers: int, files: socket.socket) -> None:
    """Serve requests until the other end is closed.

    :param requests: descriptor of a pipe, as is ``answers``.
    """
    file, path = -1, b""
    os.write(answers, ANSWER.pack(SYNCED, 0, 0))  # there it is
    while True:
        data = os.read(requests, _RECEIVE_BYTES)
        if len(data) < REQUEST.size:
            return
        what, held, length = REQUEST.unpack_from(data)
        parts = [data[REQUEST.size :]]
        missing = length - len(parts[0])
        while missing > 0:
            part = os.read(requests, min(missing, _RECEIVE_BYTES))
            if not part:
                return
            parts.append(part)
            missing -= len(part)
        if what != APPEND:
            if file >= 0:
                os.close(file)
            file = -1
        if what == APPEND_TO_ANOTHER:
            path, (file, *_), _, _ = socket.recv_fds(files, _PATH_BYTES_MAX, 1)
        if what == LET_GO:
            os.write(answers, ANSWER.pack(SYNCED, 0, 0))
            continue
        os.write(answers, ANSWER.pack(*append(file, path, held, b"".join(parts))))


def is_as_left(file: int, path: bytes | os.PathLike[str], held: int) -> bool:
    """Say whether an open file still has its name, and as many bytes as we left it with.

    What is written to a file under another name, or none, would be out of sight, or gone with us.
    """
    now = os.fstat(file)
    try:
        return now.st_size == held and os.path.samestat(now, os.stat(path, follow_symlinks=False))  # noqa: PTH116 - fast
    except FileNotFoundError:
        return False


def append(file: int, path: bytes, held: int, data: bytes) -> tuple[int, int, int]:
    """Append to a file that holds so many bytes, and sync it; give the parts of an `ANSWER`.

    A file that was removed or renamed, or is of another size, is somebody else's by now (ESTALE).
    """
    reached, began = NOT_WRITTEN, 0
    try:
        if not is_as_left(file, path, held):
            return NOT_WRITTEN, errno.ESTALE, 0
        rest = memoryview(data)
        while rest:
            written = os.write(file, rest)
            if not written:
                return NOT_WRITTEN, errno.EIO, 0
            rest = rest[written:]
        reached, began = NOT_SYNCED, time.perf_counter_ns()
        os.fdatasync(file)
        reached, error = SYNCED, 0
    except OSError as failed:
        error = failed.errno or errno.EIO
    return reached, error, (time.perf_counter_ns() - began) // 1_000 if began else 0


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # meant for the daemon, which says when it is over
        signal.signal(number, signal.SIG_IGN)
    with suppress(BrokenPipeError):
        serve(int(sys.argv[1]), int(sys.argv[2]), socket.socket(fileno=int(sys.argv[3])))
