"""`observer-actors import`: JSONL of any size into the journal, each line once.

A batch of lines is sent and acknowledged, then the place behind it is noted, then the next. Between the two a crash may
fall; so each line that has no id gets one, made from the file's path, the line's place and its bytes. The batch that is
sent again is then recognised.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import sys
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Any, ClassVar, Final, cast
from uuid import uuid4

import msgspec
from cyclopts import Parameter

from observer_actors.commands import _resume
from observer_actors.commands._answers import BatchAnswer, HealthAnswer, RejectedLine
from observer_actors.commands._api import Api, Refused
from observer_actors.commands._options import ApiOptions, JsonFlag
from observer_actors.commands._screen import LongWork, print_json, told
from observer_actors.commands._usage import UsageInvalid
from observer_actors.errors import ObserverError
from observer_actors.op import Op
from observer_actors.problems import UNREADABLE
from observer_actors.visible import visible

BATCH_BYTES: Final = 1_048_576
"""An eighth of what the daemon takes at once by default; a larger batch gains nothing."""
BATCH_LINES: Final = 5_000
TOO_LARGE: Final = 413
SHOWN_ERRORS_MAX: Final = 20
STDIN: Final = Path("-")
EXIT_REJECTED: Final = 1


class FileUnreadable(ObserverError):
    """The file cannot be read."""

    exit_code: ClassVar[int] = 66


class Imported(msgspec.Struct):
    """What came of it, over all files."""

    lines: int = 0
    accepted: int = 0
    duplicates: int = 0
    """Of those accepted: the daemon knew their ids."""
    rejected: int = 0
    resumed_lines: int = 0
    """Passed over, because an earlier import had brought them."""


def import_(
    *files: Annotated[Path, Parameter(allow_leading_hyphen=True)],
    api: ApiOptions = ApiOptions(),  # noqa: B008 - frozen
    from_start: Annotated[bool, Parameter(negative=())] = False,
    json: JsonFlag = False,
) -> int:
    """Bring files of operations in: JSONL of any size, also compressed (.gz), also the seed's ops.jsonl.

    An import that was cut short goes on where it was when the same command is given again, and a file that has grown is
    gone on with. No line is stored twice. Lines that cannot be taken are named, and the status is then 1.

    Example: observer-actors import old/ops.jsonl

    Parameters
    ----------
    files
        The files; `-` is standard input, which cannot be resumed.
    from_start
        Read the files from their beginning, whatever was imported before.
    """
    if not files:
        raise UsageInvalid("no file given", hint="observer-actors import FILE…, or - for standard input")
    result = Imported()
    with api.open() as daemon, LongWork("importing", "bytes") as progress:
        for file in files:
            _import_file(daemon, _Source(file), result, progress, from_start=from_start)
    if json:
        print_json(msgspec.json.encode(result))
    else:
        print(_in_words(result))
    return EXIT_REJECTED if result.rejected else 0


class _Source:
    """One file, read from any place; offsets count what is in it when it is not compressed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_stdin = path == STDIN
        self.salt = uuid4().bytes if self.is_stdin else os.fsencode(path.absolute())
        """What tells a line from one with the same bytes at the same place of another file."""
        self._is_gzip = path.suffix == ".gz"
        self.stream = self._open()

    @property
    def size(self) -> int:
        """The bytes on disk; 0 when nobody knows."""
        return 0 if self.is_stdin else self.path.stat().st_size

    def done(self, offset: int) -> int:
        """How far that is, in bytes on disk."""
        if self._is_gzip:
            return self._stored.tell()
        return offset

    def part(self, begin: int, end: int) -> bytes:
        """Read from one offset to another."""
        with self._told():
            self.stream.seek(begin)
            return self.stream.read(end - begin)

    def batches(self, offset: int) -> Iterator[list[bytes]]:
        """Give the lines from an offset on, in batches; the last line may have no end."""
        if not self.is_stdin:
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
            return self.stream.readline()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what reading raises, also of a compressed file that is damaged, into `FileUnreadable`."""
        try:
            yield
        except (OSError, EOFError, zlib.error) as error:
            raise FileUnreadable(f"cannot read {self.path}: {error}") from error

    def _open(self) -> IO[bytes]:
        if self.is_stdin:
            return sys.stdin.buffer
        try:
            self._stored = self.path.open("rb")
        except OSError as error:
            raise FileUnreadable(f"cannot read {self.path}: {error.strerror}") from error
        return cast("IO[bytes]", gzip.GzipFile(fileobj=self._stored)) if self._is_gzip else self._stored

    def close(self) -> None:
        """Close the file."""
        if not self.is_stdin:
            self.stream.close()
            self._stored.close()


@dataclass(slots=True)
class _Place:
    """How far a file is imported: bytes, lines, and the bytes just before."""

    offset: int = 0
    lines: int = 0
    tail: bytes = b""
    last_seq: int = 0
    """Of the op that was acknowledged last; 0 for none."""

    def behind(self, lines: list[bytes], last_seq: int | None) -> _Place:
        """Give the place behind some more lines, and which op the last of them has become, if any."""
        size = sum(map(len, lines))
        tail = (self.tail + b"".join(lines))[-_resume.LOOKED_BACK_BYTES :]
        return _Place(self.offset + size, self.lines + len(lines), tail, last_seq or self.last_seq)


def _import_file(daemon: Api, source: _Source, result: Imported, progress: LongWork, *, from_start: bool) -> None:
    with closing(source):
        place = _Place() if from_start or source.is_stdin else _where_it_was(daemon, source)
        result.resumed_lines += place.lines
        try:
            for lines in source.batches(place.offset):
                whole = _without_torn_end(lines, source)
                place = place.behind(whole, _send(daemon, source, whole, place, result))
                if not source.is_stdin:
                    _note(daemon, source, place)
                progress(source.done(place.offset), source.size)
        except ObserverError:
            told(f"{source.path}: {place.lines:,} lines are in; the same command goes on from there")
            raise


def _where_it_was(daemon: Api, source: _Source) -> _Place:
    known = _resume.load(source.path, daemon.address)
    tail = source.part(max(0, known.offset - _resume.LOOKED_BACK_BYTES), known.offset)
    if not known.fits(tail):
        return _Place()
    if not _has(daemon, known):
        told(f"{source.path}: what was imported before is not in this daemon's journal; from the beginning")
        return _Place()
    return _Place(known.offset, known.lines, tail, known.last_seq)


def _has(daemon: Api, known: _resume.Progressed) -> bool:
    """Tell whether the daemon has what was imported; as far as it lets us see that."""
    if daemon.read(HealthAnswer, "/health").last_seq < known.last_seq:
        return False
    return not known.recorded_at or _recorded_at(daemon, known.last_seq) in ("", known.recorded_at)


def _recorded_at(daemon: Api, seq: int) -> str:
    """Give when an op was committed; "" for one that is kept no more, or that our token may not read."""
    try:
        return daemon.read(Op, f"/ops/{seq}").recorded_at
    except Refused:
        return ""


def _note(daemon: Api, source: _Source, place: _Place) -> None:
    recorded_at = _recorded_at(daemon, place.last_seq) if place.last_seq else ""
    progressed = _resume.Progressed(
        place.offset, place.lines, _resume.checksum(place.tail), place.last_seq, recorded_at
    )
    _resume.save(source.path, daemon.address, progressed)


def _without_torn_end(lines: list[bytes], source: _Source) -> list[bytes]:
    """Leave out a last line that somebody is still writing: it comes with the next import."""
    if lines[-1].endswith(b"\n") or _is_json(lines[-1]):
        return lines
    told(f"{source.path}: the last line is not complete; left for the next import")
    return lines[:-1]


def _send(daemon: Api, source: _Source, lines: list[bytes], place: _Place, result: Imported) -> int | None:
    """Send some lines; half of them at a time where the daemon takes less at once. Give the seq of the last op."""
    if not lines:
        return None
    try:
        answer = daemon.decoded(BatchAnswer, daemon.post("/events", _with_ids(lines, source.salt, place.offset)))
    except Refused as refusal:
        if refusal.answered == TOO_LARGE and len(lines) > 1:
            half = len(lines) // 2
            between = place.behind(lines[:half], _send(daemon, source, lines[:half], place, result))
            return _send(daemon, source, lines[half:], between, result) or between.last_seq
        answer = _as_answer(daemon, refusal, lines)
    result.lines += len(lines)
    result.accepted += answer.accepted
    result.duplicates += answer.duplicates
    _tell_rejected(source, answer, place.lines, result)
    return answer.last_seq


def _as_answer(daemon: Api, refusal: Refused, lines: list[bytes]) -> BatchAnswer:
    """Read what a daemon says that took none of the lines.

    :raises Refused: that was not because of the lines.
    """
    if not any(line.strip() for line in lines):
        return BatchAnswer()
    if refusal.answered == TOO_LARGE:
        return BatchAnswer(rejected=1, errors=(msgspec.convert({"line": 1, "error": str(refusal)}, RejectedLine),))
    answer = daemon.decoded(BatchAnswer, refusal.body)
    if not answer.rejected:
        raise refusal
    return answer


def _tell_rejected(source: _Source, answer: BatchAnswer, lines_before: int, result: Imported) -> None:
    for line in answer.errors[: max(0, SHOWN_ERRORS_MAX - result.rejected)]:
        told(f"{source.path}:{lines_before + line.line}: {visible(line.error)}")
    if result.rejected <= SHOWN_ERRORS_MAX < result.rejected + answer.rejected:
        told("… further lines that are rejected are counted, and not shown")
    result.rejected += answer.rejected


class _HasId(msgspec.Struct):
    id: Any = None


_id_decoder: Final = msgspec.json.Decoder(_HasId)


def _with_ids(lines: list[bytes], salt: bytes, offset: int) -> bytes:
    """Give each object that has no id one; whatever is no object is the daemon's to reject."""
    made = []
    for line in lines:
        made.append(_with_id(line, salt, offset))
        offset += len(line)
    return b"".join(made)


def _with_id(line: bytes, salt: bytes, offset: int) -> bytes:
    """Write the id at the end: of two the last counts, should the line have one that is null."""
    try:
        if _id_decoder.decode(line).id is not None:
            return line
    except UNREADABLE:
        return line
    end = line.rindex(b"}")
    if line[:end].strip() == b"{":
        return line
    digest = hashlib.blake2b(b"%b\0%d\0%b" % (salt, offset, line), digest_size=12).hexdigest()
    return b'%b,"id":"import-%b"%b' % (line[:end], digest.encode(), line[end:])


def _is_json(line: bytes) -> bool:
    try:
        msgspec.json.decode(line)
    except UNREADABLE:
        return False
    return True


def _in_words(result: Imported) -> str:
    parts = [f"{result.accepted:,} ops are in"]
    if result.duplicates:
        parts.append(f"{result.duplicates:,} of them were there already")
    if result.rejected:
        parts.append(f"{result.rejected:,} lines were rejected")
    if result.resumed_lines:
        parts.append(f"{result.resumed_lines:,} lines had been imported before")
    return ", ".join(parts)
