"""A log: a file of lines, compressed or not, read in batches from any place; or a stream, from its beginning."""

from __future__ import annotations

import gzip
import os
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import IO, ClassVar, Final, cast
from uuid import uuid4

from observer_actors.commands._line_ids import BEGINNING_BYTES, LineIds
from observer_actors.errors import ObserverError

BATCH_BYTES: Final = 1_048_576
"""An eighth of what the daemon takes at once by default; a larger batch gains nothing."""
BATCH_LINES: Final = 5_000
LINE_BYTES_MAX: Final = 64 * 1024 * 1024
"""Far more than a daemon takes. What has no ends of lines, also when it is decompressed, must not fill the memory."""
STDIN: Final = Path("-")
GZIP_BEGINS: Final = b"\x1f"
"""So does no JSON (RFC 1952, 2.3.1)."""


class FileUnreadable(ObserverError):
    """The file cannot be read."""

    exit_code: ClassVar[int] = 66


@contextmanager
def opened(path: Path) -> Iterator[LogFile]:
    """Open a log.

    :raises FileUnreadable: it cannot be read; also as long as it is read.
    """
    with _told(path):
        stored = sys.stdin.buffer if path == STDIN else path.open("rb")
    with nullcontext() if path == STDIN else stored:
        yield LogFile(path, cast("BufferedReader", stored))


class LogFile:
    """One file, read from any place; offsets count what is in it when it is not compressed.

    ``is_stream`` says that it is standard input or a pipe, and can be read only once. How it begins tells which log it
    is, and whether it is compressed (``is_gzip``).
    """

    def __init__(self, path: Path, stored: BufferedReader) -> None:
        self.path = path
        self.is_stream = path == STDIN or not stored.seekable()
        self._stored = stored
        self.trouble: FileUnreadable | None = None
        """Why it cannot be read any further."""
        with _told(path):
            self.is_gzip = stored.peek(1).startswith(GZIP_BEGINS)
        self._lines = cast("IO[bytes]", gzip.GzipFile(fileobj=stored)) if self.is_gzip else stored
        ahead = b""
        while len(ahead) < BEGINNING_BYTES and (line := self._read_line()):
            ahead += line
        self._ahead = BytesIO(ahead)
        begins = ahead[:BEGINNING_BYTES]
        self.ids = LineIds(uuid4().bytes if self.is_stream else os.fsencode(path.resolve()), begins)

    @property
    def size(self) -> int:
        """The bytes on disk, also of a file that was rotated away since; 0 when nobody knows."""
        return 0 if self.is_stream else os.fstat(self._stored.fileno()).st_size

    def done(self, offset: int) -> int:
        """How far that is, in bytes on disk."""
        if self.is_gzip and not self.is_stream:
            return self._stored.tell()
        return offset

    def part(self, begin: int, end: int) -> bytes:
        """Read from one offset to another."""
        with _told(self.path):
            self._lines.seek(begin)
            return self._lines.read(end - begin)

    def batches(self, offset: int) -> Iterator[list[bytes]]:
        """Give the lines from an offset on, in batches; the last line may have no end."""
        if not self.is_stream:
            self._ahead, self.trouble = BytesIO(), None
            with _told(self.path):
                self._lines.seek(offset)
        while lines := self._some_lines():
            yield lines
        if self.trouble is not None:
            raise self.trouble

    def _some_lines(self) -> list[bytes]:
        lines: list[bytes] = []
        size = 0
        while len(lines) < BATCH_LINES and size < BATCH_BYTES and (line := self._ahead.readline() or self._read_line()):
            lines.append(line)
            size += len(line)
        return lines

    def _read_line(self) -> bytes:
        """Give the next line; none where the file ends, or cannot be read any further, which is then told at the end.

        What stands before that is good: it must come in.
        """
        if self.trouble is not None:
            return b""
        try:
            with _told(self.path):
                line = self._lines.readline(LINE_BYTES_MAX)
        except FileUnreadable as trouble:
            self.trouble = trouble
            return b""
        if len(line) == LINE_BYTES_MAX and not line.endswith(b"\n"):
            hint = "it should be JSONL: one JSON object a line"
            why = f"cannot read {self.path}: a line of {LINE_BYTES_MAX:,} bytes or more"
            self.trouble = FileUnreadable(why, hint=hint)
            return b""
        return line


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn what reading raises, also of a compressed file that is damaged, into `FileUnreadable`."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise FileUnreadable(f"cannot read {path}: {why}") from error
