"""Compression of a sealed segment, in a process of its own: gzip members, and what each of them holds.

Of a segment's second or so a good part is Python's: decoding the times that the index needs. A thread would have the
event loop wait for the interpreter's lock meanwhile. So the process that compresses is another, and a nice one; it
lives for one segment, gets the file that it writes as a descriptor, and decides nothing: what is made of its answer,
syncing included, is `sealing`'s business. When its parent dies it may go on for a moment, with a file that by then
nobody knows.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from observer_actors.journal.blocks import BlockFacts, describe_block
from observer_actors.journal.files import AppendFile, Disk, PosixDisk, PosixFile, Writable, write_all
from observer_actors.journal.lines import chunks

__all__ = ["Compressed", "CompressorEnded", "compress", "compress_here"]

_LEVEL: Final = 3
"""Half the time of zlib's default for a fifth more bytes (on real agents' ops: 128 MB/s and 0.13, against 61 MB/s and
0.11): compression shares the cores with the events that come meanwhile."""
ELSEWHERE_BYTES_MIN: Final = 4 * 1024 * 1024
"""A smaller segment is compressed before a process would have started."""
_NICENESS: Final = 10
_PROGRAM: Final = (
    "import sys; sys.path[:] = sys.argv[1].split('\\n');"
    " from observer_actors.journal.compressing import main; main(*sys.argv[2:])"
)
"""Imports what this process would."""


class Compressed(Struct, frozen=True, tag=True):
    """What has been written."""

    blocks: tuple[BlockFacts, ...]
    sha256: str


class _Refused(Struct, frozen=True, tag=True):
    """What the system has refused."""

    code: int
    text: str


class CompressorEnded(Exception):
    """The process has ended without an answer. Nothing is lost: the segment is still there."""


def compress(disk: Disk, raw: Path, end: int, file: AppendFile) -> Compressed:
    """Compress a raw segment into an empty file, in a process of its own. Blocking; syncs nothing.

    Done here where it is not worth a process, or none can be started, or the file is not just one of the system's.

    :param end: bytes of the segment that count.
    :raises CompressorEnded: it was killed, for instance.
    :raises OSError: the disk refuses.
    """
    if end < ELSEWHERE_BYTES_MIN or type(file) is not PosixFile or not sys.executable:
        return compress_here(disk, raw, end, file)
    given = ("\n".join(sys.path), str(raw), str(end), str(file.fileno()))
    try:
        done = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-P", "-c", _PROGRAM, *given],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            pass_fds=[file.fileno()],
            start_new_session=True,  # what a terminal sends to the daemon is not meant for it
            check=False,
        )
    except OSError:
        return compress_here(disk, raw, end, file)
    if done.returncode:
        raise CompressorEnded(f"the process that compresses has ended with status {done.returncode}")
    answer = msgspec.json.decode(done.stdout, type=Compressed | _Refused)
    if isinstance(answer, _Refused):
        raise OSError(answer.code, answer.text)
    return answer


def compress_here(disk: Disk, raw: Path, end: int, file: Writable) -> Compressed:
    """Do the same in this process, holding the interpreter's lock for a good part of it."""
    digest = sha256()
    blocks = tuple(_members(disk, raw, end, file, digest.update))
    return Compressed(blocks, digest.hexdigest())


def _members(disk: Disk, raw: Path, end: int, file: Writable, note: Callable[[bytes], None]) -> Iterator[BlockFacts]:
    offset = 0
    for _, plain in chunks(disk, raw, 0, end):
        deflate = zlib.compressobj(_LEVEL, wbits=31)
        stored = deflate.compress(plain) + deflate.flush()
        write_all(file, stored)
        note(stored)
        yield describe_block(offset, len(stored), plain)
        offset += len(stored)


def main(raw: str, end: str, descriptor: str) -> None:
    """Serve as the process: the answer, as JSON, goes to standard output."""
    with suppress(OSError):
        os.nice(_NICENESS)
    answer: Compressed | _Refused
    try:
        with io.FileIO(int(descriptor), "a") as file:
            answer = compress_here(PosixDisk(), Path(raw), int(end), file)
    except OSError as error:
        answer = _Refused(error.errno or 0, error.strerror or str(error))
    sys.stdout.buffer.write(msgspec.json.encode(answer))
