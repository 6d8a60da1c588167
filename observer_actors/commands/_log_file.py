"""A log: a file of lines, compressed or not, read in batches from any place; or a stream, from its beginning."""

from __future__ import annotations

import gzip
import os
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, BytesIO, RawIOBase
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


class LogFile:
    """One file, read from any place; offsets count what is in it when it is not compressed.

    ``is_stream`` says that it is standard input or a pipe, and can be read only once.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stored = self._open()
        self.is_stream = path == STDIN or not self._stored.seekable()
        self.stream: IO[bytes] = self._stored
        name = uuid4().bytes if self.is_stream else os.fsencode(path.resolve())
        self.ids = LineIds(name, begins=b"")
        self._ahead = BytesIO()
        self._is_gzip = False

    def begin(self) -> None:
        """Look at how it begins: whether it is compressed, and which log it is."""
        with self._told():
            self._is_gzip = self._stored.peek(1).startswith(GZIP_BEGINS)
            if self._is_gzip:
                self.stream = cast("IO[bytes]", gzip.GzipFile(fileobj=self._stored))
            begins = self.stream.read(BEGINNING_BYTES)
            self._ahead = BytesIO(begins + self._read_line())
        self.ids = LineIds(self.ids.name, begins)

    @property
    def size(self) -> int:
        """The bytes on disk, also of a file that was rotated away since; 0 when nobody knows."""
        return 0 if self.is_stream else os.fstat(self._stored.fileno()).st_size

    def done(self, offset: int) -> int:
        """How far that is, in bytes on disk."""
        if self._is_gzip and not self.is_stream:
            return self._stored.tell()
        return offset

    def part(self, begin: int, end: int) -> bytes:
        """Read from one offset to another."""
        with self._told():
            self.stream.seek(begin)
            return self.stream.read(end - begin)

    def batches(self, offset: int) -> Iterator[list[bytes]]:
        """Give the lines from an offset on, in batches; the last line may have no end."""
        if not self.is_stream:
            self._ahead = BytesIO()
            with self._told():
                self.stream.seek(offset)
        while lines := self._some_lines():
            yield lines

    def _some_lines(self) -> list[bytes]:
        lines: list[bytes] = []
        size = 0
        while len(lines) < BATCH_LINES and size < BATCH_BYTES and (line := self._line()):
            lines.append(line)
            size += len(line)
        return lines

    def _line(self) -> bytes:
        with self._told():
            return self._ahead.readline() or self._read_line()

    def _read_line(self) -> bytes:
        line = self.stream.readline(LINE_BYTES_MAX)
        if len(line) == LINE_BYTES_MAX and not line.endswith(b"\n"):
            hint = "it should be JSONL: one JSON object a line"
            raise FileUnreadable(f"cannot read {self.path}: a line of {LINE_BYTES_MAX:,} bytes or more", hint=hint)
        return line

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what reading raises, also of a compressed file that is damaged, into `FileUnreadable`."""
        try:
            yield
        except (OSError, EOFError, zlib.error) as error:
            raise FileUnreadable(f"cannot read {self.path}: {error}") from error

    def _open(self) -> BufferedReader:
        if self.path == STDIN:
            return BufferedReader(cast("RawIOBase", sys.stdin.buffer))
        try:
            return self.path.open("rb")
        except OSError as error:
            raise FileUnreadable(f"cannot read {self.path}: {error.strerror}") from error

    def close(self) -> None:
        """Close the file."""
        if self._is_gzip:
            self.stream.close()
        if self.path == STDIN:
            self._stored.detach()
        else:
            self._stored.close()
