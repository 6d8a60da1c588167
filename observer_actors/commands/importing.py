"""`observer-actors import`: JSONL of any size into the journal, each line once.

A batch of lines is sent and acknowledged, then the place behind it is noted, then the next. Between the two a crash may
fall; so each line that has no id gets one (`_line_ids`), by which the daemon knows it when it is sent again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Final

import msgspec
from cyclopts import Parameter

from observer_actors.batch import BYTE_ORDER_MARK
from observer_actors.commands import _resume
from observer_actors.commands._answers import BatchAnswer, HealthAnswer, RejectedLine
from observer_actors.commands._api import Api, Refused
from observer_actors.commands._aside import told
from observer_actors.commands._exported import sift
from observer_actors.commands._log_file import LogFile, opened
from observer_actors.commands._options import ApiOptions, JsonFlag
from observer_actors.commands._screen import LongWork, print_json
from observer_actors.errors import ObserverError, UsageInvalid
from observer_actors.event import with_whole_characters
from observer_actors.op import Op
from observer_actors.problems import TOO_LARGE, UNREADABLE, is_about_the_batch, read_problem

SHOWN_ERRORS_MAX: Final = 20
NOTES_MAX: Final = 20
EXIT_REJECTED: Final = 1


class ImportUnknown(ObserverError):
    """The daemon's journal has nothing of what was imported before, and is not empty."""

    exit_code: ClassVar[int] = 65


class Imported(msgspec.Struct):
    """What came of it, over all files."""

    lines: int = 0
    accepted: int = 0
    duplicates: int = 0
    """Of those accepted: the daemon had them, or knew their ids."""
    rejected: int = 0
    resumed_lines: int = 0
    """Passed over, because an earlier import had brought them."""
    left_out: int = 0
    """Lines of an export that are the daemon's own: revocations, decisions, draws of advice."""
    notes: dict[str, int] = msgspec.field(default_factory=dict)
    """How lines were taken otherwise than they said -> how many; those beyond `NOTES_MAX` are counted together."""


def import_(
    *files: Annotated[Path, Parameter(allow_leading_hyphen=True)],
    api: ApiOptions = ApiOptions(),
    from_start: Annotated[bool, Parameter(negative=())] = False,
    json: JsonFlag = False,
) -> int:
    """Bring files of operations in: JSONL of any size, also compressed (.gz), also the seed's ops.jsonl.

    An import that was cut short goes on where it was when the same command is given again, and a file that has grown is
    gone on with. Lines that cannot be taken are named, and the status is then 1.

    Of an export, what the daemon has already is recognised, however old it is. What a daemon had put into its journal
    by itself is left out, and counted: decisions, revocations and draws of advice are no operations of agents. A copy
    of the data directory keeps them.

    No line is stored twice, wherever its file lies now, as long as it is one of the newest 100,000 operations
    (`journal.dedup_window_ops`). Of lines that have neither `id` nor `timestamp`, and of those without `id` of a log
    that was shorter than 4 KiB when it was imported, this is true of the same file alone, and of the latter no more
    once it has grown beyond that and is read from its beginning.

    Example: observer-actors import old/ops.jsonl

    Parameters
    ----------
    files
        The files; `-` is standard input. Of it, and of a pipe, it is not noted how far it was.
    from_start
        Read the files from their beginning, whatever was imported before; the lines that are among the newest 100,000
        operations are recognised.
    """
    if not files:
        raise UsageInvalid("no file given", hint="observer-actors import FILE…, or - for standard input")
    result = Imported()
    with api.open() as daemon, LongWork("importing", "bytes") as progress:
        for file in files:
            with opened(file) as source:
                _import_file(daemon, source, result, progress, from_start=from_start)
    if json:
        print_json(msgspec.json.encode(result))
    else:
        for note, count in result.notes.items():
            told(f"{note} ({count:,} lines)")
        print(_in_words(result))
    return EXIT_REJECTED if result.rejected else 0


@dataclass(slots=True)
class _Place:
    """How far a file is imported: bytes, lines, and the bytes just before."""

    offset: int = 0
    lines: int = 0
    tail: bytes = b""
    last_seq: int = 0
    """Of the op that was acknowledged last, or a newer one; 0 for none."""
    noted: _resume.Progressed = field(default_factory=_resume.Progressed)
    """What was noted last."""

    def behind(self, lines: list[bytes], last_seq: int | None) -> _Place:
        """Give the place behind some more lines, and which op the last of them has become, if any."""
        size = sum(map(len, lines))
        tail = (self.tail + b"".join(lines))[-_resume.LOOKED_BACK_BYTES :]
        return _Place(self.offset + size, self.lines + len(lines), tail, last_seq or self.last_seq, self.noted)


def _import_file(daemon: Api, source: LogFile, result: Imported, progress: LongWork, *, from_start: bool) -> None:
    place = _Place() if from_start or source.is_stream else _where_it_was(daemon, source)
    result.resumed_lines += place.lines
    try:
        for lines in source.batches(place.offset):
            whole = _without_torn_end(lines, source)
            sifted = sift(daemon, _without_mark(whole))
            result.accepted += sifted.known
            result.duplicates += sifted.known
            result.left_out += sifted.own
            last_seq = _send(daemon, source, sifted.lines, place, result) or sifted.known_seq
            place = place.behind(whole, last_seq)
            if not source.is_stream:
                _note(daemon, source, place)
            progress(source.done(place.offset), source.size)
            if len(whole) < len(lines):  # what has been written behind it since begins in the midst of a line
                break
    except (ObserverError, KeyboardInterrupt) as end:
        if source.trouble not in (None, end):  # why the daemon did not take what is half of an array
            told(str(source.trouble))
        told(f"{source.path}: {place.lines:,} lines are in; {_how_to_go_on(source, place)}")
        raise


def _how_to_go_on(source: LogFile, place: _Place) -> str:
    if source.is_stream:
        unpacked = "… | gunzip" if source.is_gzip else "…"
        return f"go on with what follows them: {unpacked} | tail -n +{place.lines + 1} | observer-actors import -"
    return "the same command goes on from there"


def _where_it_was(daemon: Api, source: LogFile) -> _Place:
    """Give the newest place up to which the daemon's journal has the file.

    :raises ImportUnknown: the file was imported, and nobody can tell what the journal has of it.
    """
    noted = _resume.load(source.path, daemon.address)
    if not noted.fits(_tail(source, noted)):
        return _Place()
    last_seq = daemon.read(HealthAnswer, "/health").last_seq
    for known in noted.places():
        if _has(daemon, last_seq, known) and known.fits(tail := _tail(source, known)):
            if known.offset < noted.offset:
                told(f"{source.path}: the daemon's journal is an older copy; on from line {known.lines + 1:,}")
            return _Place(known.offset, known.lines, tail, known.last_seq, known)
    if last_seq:
        raise ImportUnknown(
            f"{source.path}: what was imported before is not in this daemon's journal, which has other ops",
            hint="is it the right daemon? `--from-start` imports the file from its beginning",
        )
    told(f"{source.path}: what was imported before is not in this daemon's journal; from the beginning")
    return _Place()


def _tail(source: LogFile, known: _resume.Progressed) -> bytes:
    return source.part(max(0, known.offset - _resume.LOOKED_BACK_BYTES), known.offset)


def _has(daemon: Api, last_seq: int, known: _resume.Progressed) -> bool:
    """Tell whether the daemon, whose journal ends at `last_seq`, has what was imported; as far as it lets us see."""
    if last_seq < known.last_seq:
        return False
    return not known.recorded_at or _recorded_at(daemon, known.last_seq) in ("", known.recorded_at)


def _recorded_at(daemon: Api, seq: int) -> str:
    """Give when an op was committed; "" for one that is kept no more, or that our token may not read."""
    try:
        return daemon.read(Op, f"/ops/{seq}").recorded_at
    except Refused:
        return ""


def _note(daemon: Api, source: LogFile, place: _Place) -> None:
    recorded_at = _recorded_at(daemon, place.last_seq) if place.last_seq else ""
    progressed = _resume.Progressed(
        place.offset, place.lines, _resume.checksum(place.tail), place.last_seq, recorded_at
    )
    place.noted = progressed.behind(place.noted)
    _resume.save(source.path, daemon.address, place.noted)


def _without_torn_end(lines: list[bytes], source: LogFile) -> list[bytes]:
    """Leave out a file's last line that somebody is still writing: it comes with the next import."""
    if source.is_stream or lines[-1].endswith(b"\n") or _is_json(lines[-1]) or _is_json(b"".join(lines)):
        return lines  # all together where it is one array
    told(f"{source.path}: the last line is not complete; left for the next import")
    return lines[:-1]


def _without_mark(lines: list[bytes]) -> list[bytes]:
    """Put blanks where some editors begin a text with a mark, so that the places of all others stay."""
    if not lines or not lines[0].startswith(BYTE_ORDER_MARK):
        return lines
    return [lines[0].removeprefix(BYTE_ORDER_MARK).rjust(len(lines[0])), *lines[1:]]


def _send(daemon: Api, source: LogFile, lines: list[bytes], place: _Place, result: Imported) -> int | None:
    """Send some lines; half of them at a time where the daemon takes less at once. Give the seq of the last op."""
    if not any(line.strip() for line in lines):
        result.lines += len(lines)
        return None
    try:
        answer = daemon.decoded(BatchAnswer, daemon.post("/events", source.ids.added(lines, place.offset)))
    except Refused as refusal:
        if len(lines) > 1 and is_about_the_batch(refusal.answered, read_problem(refusal.body)):
            half = len(lines) // 2
            between = place.behind(lines[:half], _send(daemon, source, lines[:half], place, result))
            return _send(daemon, source, lines[half:], between, result) or between.last_seq
        answer = _as_answer(daemon, refusal)
    result.lines += len(lines)
    result.accepted += answer.accepted
    result.duplicates += answer.duplicates
    for note, count in answer.notes.items():
        key = note if note in result.notes or len(result.notes) < NOTES_MAX else "further notes"
        result.notes[key] = result.notes.get(key, 0) + count
    _tell_rejected(source, answer, place.lines, result)
    if answer.last_seq is None and answer.duplicates:  # somewhere in the journal: one without its end may not have them
        return daemon.read(HealthAnswer, "/health").last_seq
    return answer.last_seq


def _as_answer(daemon: Api, refusal: Refused) -> BatchAnswer:
    """Read what a daemon says that took none of the lines.

    :raises Refused: that was not because of the lines.
    """
    if refusal.answered == TOO_LARGE:
        return BatchAnswer(rejected=1, errors=(RejectedLine(1, str(refusal)),))
    answer = daemon.decoded(BatchAnswer, refusal.body)
    if not answer.rejected:
        raise refusal
    return answer


def _tell_rejected(source: LogFile, answer: BatchAnswer, lines_before: int, result: Imported) -> None:
    for line in answer.errors[: max(0, SHOWN_ERRORS_MAX - result.rejected)]:
        told(f"{source.path}:{lines_before + line.line}: {line.error}")
    if result.rejected <= SHOWN_ERRORS_MAX < result.rejected + answer.rejected:
        told("… further lines that are rejected are counted, and not shown")
    result.rejected += answer.rejected


def _is_json(line: bytes) -> bool:
    try:
        msgspec.json.decode(with_whole_characters(line.removeprefix(BYTE_ORDER_MARK)))
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
    if result.left_out:
        parts.append(f"{result.left_out:,} lines were left out: {_OWN}")
    return ", ".join(parts)


_OWN: Final = "the daemon's own ops (decisions, revocations, draws), which only a copy of its directory restores"
