"""Compression of a sealed segment, in a process of its own: gzip members, and what each of them holds.

Of a segment's second or so a good part is Python's: decoding the times that the index needs. A thread would have the
event loop wait for the interpreter's lock meanwhile. So the process that compresses is another, and a nice one; it
lives for one segment, gets the file that it writes as a descriptor, and decides nothing: what is made of its answer,
syncing included, is `sealing`'s business. It dies with its parent.
"""

from __future__ import annotations

import fcntl
import io
import os
import signal
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from observer_actors.journal.blocks import BlockFacts, describe_block
from observer_actors.journal.files import AppendFile, Disk, PosixDisk, PosixFile, Writable, chunks, write_all

_LEVEL: Final = 3
"""Half the time of zlib's default for a fifth more bytes (on real agents' ops: 128 MB/s and 0.13, against 61 MB/s and
0.11): compression shares the cores with the events that come meanwhile."""
ELSEWHERE_BYTES_MIN: Final = 4 * 1024 * 1024
"""A smaller segment is compressed before a process would have started."""
STALL_S: Final = 10.0
"""A process that has written nothing for so long hangs, and is killed. It writes a block every 2 ms, or where it is the
nice one among a hundred that never rest, every 2 s."""
_NICENESS: Final = 10
PROGRAM: Final = f"""
import os, sys
try:
    os.nice({_NICENESS})
except OSError:
    pass
sys.path[:] = sys.argv[1].split("\\n")
from observer_actors.journal.compressing import main
main(*sys.argv[2:])
"""
"""Is nice before it imports anything, which takes as long as a tenth of the compression; imports what this process
would."""


class Compressed(Struct, frozen=True, tag=True):
    """What has been written."""

    blocks: tuple[BlockFacts, ...]
    sha256: str
    elsewhere: bool = False
    """By a process of its own."""


class _Refused(Struct, frozen=True, tag=True):
    """What the system has refused."""

    code: int
    text: str


_answers: Final[msgspec.json.Decoder[Compressed | _Refused]] = msgspec.json.Decoder(Compressed | _Refused)


def compress(disk: Disk, raw: Path, end: int, file: AppendFile, first_seq: int) -> Compressed:
    """Compress a raw segment into an empty file, in a process of its own. Blocking; syncs nothing.

    Done here where it is not worth a process, where the file is not just one of the system's, and where the process
    does not do it: it cannot be started, is killed, hangs, or is of another version by now.

    :param end: bytes of the segment that count.
    :raises OSError: the disk refuses.
    """
    if end >= ELSEWHERE_BYTES_MIN and type(file) is PosixFile and sys.executable:
        done = _elsewhere(raw, end, file, first_seq)
        if done is not None:
            return done
        file.truncate(0)
    return compress_here(disk, raw, end, file, first_seq)


def _elsewhere(raw: Path, end: int, file: PosixFile, first_seq: int) -> Compressed | None:
    """Have a process do it; None when it does not.

    :raises OSError: the disk refuses, as it says.
    """
    given = ("\n".join(sys.path), str(raw), str(end), str(file.fileno()), str(first_seq))
    try:
        with (
            _lifeline() as lifeline,
            subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-P", "-c", PROGRAM, *given],
                stdin=lifeline,
                stdout=subprocess.PIPE,
                pass_fds=[file.fileno()],
                process_group=0,  # what a terminal sends to the daemon is not meant for it; a session has its own share
            ) as process,
        ):
            said = _said(process, file)
        # The last line: whatever Python runs at its start may have said something, too.
        answer = _answers.decode(said.rpartition(b"\n")[2])
    except (OSError, subprocess.SubprocessError, msgspec.MsgspecError):
        return None
    if isinstance(answer, _Refused):
        raise OSError(answer.code, answer.text)
    return msgspec.structs.replace(answer, elsewhere=True)


def _said(process: subprocess.Popen[bytes], file: PosixFile) -> bytes:
    """Wait for what a process says, for as long as its file grows.

    :raises SubprocessError: it hangs, and was killed, or has failed.
    """
    size = 0
    try:
        while True:
            with suppress(subprocess.TimeoutExpired):
                said, _ = process.communicate(timeout=STALL_S)
                break
            before, size = size, file.size()
            if before == size:
                raise subprocess.TimeoutExpired(process.args, STALL_S)
    finally:
        process.kill()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return said


@contextmanager
def _lifeline() -> Iterator[int]:
    """Give the end of a pipe that says nothing until this process has ended, or the block has."""
    lifeline, ours = os.pipe()
    try:
        yield lifeline
    finally:
        os.close(lifeline)
        os.close(ours)


def compress_here(disk: Disk, raw: Path, end: int, file: Writable, first_seq: int) -> Compressed:
    """Do the same in this process, holding the interpreter's lock for a good part of it."""
    blocks, digest, offset, due = [], sha256(), 0, first_seq
    for _, plain in chunks(disk, raw, 0, end):
        deflate = zlib.compressobj(_LEVEL, wbits=31)
        stored = deflate.compress(plain) + deflate.flush()
        write_all(file, stored)
        digest.update(stored)
        blocks.append(describe_block(offset, len(stored), plain, due))
        due = max(due, blocks[-1].block.last_seq + 1)
        offset += len(stored)
    return Compressed(tuple(blocks), digest.hexdigest())


def main(raw: str, end: str, descriptor: str, first_seq: str) -> None:
    """Serve as the process: the answer, as JSON, goes to standard output."""
    _end_with(sys.stdin.fileno())
    answer: Compressed | _Refused
    try:
        with io.FileIO(int(descriptor), "a") as file:
            answer = compress_here(PosixDisk(), Path(raw), int(end), file, int(first_seq))
    except OSError as error:
        answer = _Refused(error.errno or 0, error.strerror or str(error))
    sys.stdout.buffer.write(b"\n" + msgspec.json.encode(answer))


def _end_with(pipe: int) -> None:
    """Have the system kill this process, stopped or not, when nobody holds the other end of a pipe any more."""
    fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(pipe, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    with suppress(BlockingIOError):  # nothing comes, unless it has ended already
        os.read(pipe, 1)
        os._exit(1)
