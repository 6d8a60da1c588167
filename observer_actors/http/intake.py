"""What happens to an ingest request, whichever way it came in: bytes in, a `Reply` out.

Transports frame requests and bound their size; everything after that is here, once.
"""

from __future__ import annotations

import sys
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Final, TypeVar

import msgspec
import trio
from msgspec import UNSET, UnsetType
from structlog.typing import FilteringBoundLogger

from observer_actors.actors.admission import Admission, Receipts, Room, Submission, in_time
from observer_actors.actors.surroundings import Surroundings
from observer_actors.batch import events_at_most
from observer_actors.errors import ObserverError, RequestInvalid, RequestTooLarge
from observer_actors.event import BATCH_SHAPE, SOURCE_NOTE, EventDecoder, JudgedBatch, JudgedEvent, LineError
from observer_actors.http.replies import PROBLEM, Problem, Reply, json_reply, problem_of, problem_reply
from observer_actors.op import ATTRS_MAX, Op, Scalar
from observer_actors.settings import ListenSettings
from observer_actors.trace import trace_attributes
from observer_actors.visible import visible_json

T = TypeVar("T")
INLINE_BYTES_MAX: Final = 262_144
"""A larger batch is judged apart also when it is usual."""
SHORT_EVENTS: Final = 64
"""A batch of as many is judged apart, unless it is usual."""
JUDGED_EVENTS_MAX: Final = 10_000
"""Events of batches that are judged, or wait for the disk, whatever they were as bytes: as many as go to the disk at
once by default. As clients send them each takes some 1.5 KB of memory then. One batch alone may have more."""
UNPACKED_AT_ONCE_MAX: Final = 1
UNPACKED_MAX: Final = 10_000
GZIP_MEMBERS_MAX: Final = 10_000
"""Members of a gzip body: empty ones are 20 bytes each, and to begin one costs as much as to inflate kilobytes."""
GZIP_PIECE_BYTES: Final = 65_536
ERRORS_SHOWN_MAX: Final = 1_000
LABELS_LOGGED_MAX: Final = 50
INTERNAL_ERROR: Final = 500


class EventAnswer(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The answer to `POST /event`: the op is on disk, at `seq`."""

    accepted: bool
    ring_size: int
    seq: int
    duplicate: bool = False
    notes: tuple[str, ...] = ()


class BatchAnswer(msgspec.Struct, kw_only=True):
    """The answer to `POST /events`: each line judged by itself; what was accepted is on disk."""

    accepted: int
    rejected: int
    errors: list[LineError]
    ring_size: int
    duplicates: int = 0
    first_seq: int | None = None
    last_seq: int | None = None
    errors_omitted: int = 0
    notes: dict[str, int] = {}


class IntakeStatistics(msgspec.Struct):
    """What came in since the start."""

    events: int = 0
    batches: int = 0
    accepted: int = 0
    rejected: int = 0
    duplicates: int = 0
    refused: int = 0
    foreign_sources: int = 0
    redacted: Counter[str] = msgspec.field(default_factory=Counter)
    """Secrets that were taken out, by kind."""
    denied: Counter[int] = msgspec.field(default_factory=Counter)
    """Requests of any kind that the guard did not let in, by the status of the answer."""
    connections: int = 0
    """Open now, those handed over to Hypercorn too."""
    connections_refused: int = 0
    """Answered 503 or 429, and closed: there were too many, or too many of one address."""


class Intake:
    """Takes events in.

    :param decoder: gives the decoder in force; it changes when the settings are reloaded.
    :param wait_s: how long a batch waits at most until there is room to judge it, and a compressed body until there is
        room for what is in it.
    :param ring_size: gives the size of the ring once it holds what is committed.
    """

    def __init__(
        self,
        admission: Admission,
        decoder: Callable[[], EventDecoder],
        settings: ListenSettings,
        *,
        wait_s: float,
        ring_size: Callable[[], int],
        log: FilteringBoundLogger,
        around: Surroundings,
    ) -> None:
        self._in_thread = around.in_thread
        self.statistics = IntakeStatistics()
        self._admission = admission
        self._decoder = decoder
        self._settings = settings
        self._ring_size = ring_size
        self._log = log
        self._logged: set[str] = set()
        """Notes about sources that were logged, `LABELS_LOGGED_MAX` at most."""
        self._now = _Now(around.time_ns)
        self._wait_s = wait_s
        self._judging_events, self._judging_batches = trio.CapacityLimiter(1), trio.CapacityLimiter(1)
        self._unpacking = trio.CapacityLimiter(UNPACKED_AT_ONCE_MAX)
        self._unpacked = Room(UNPACKED_MAX, settings.bodies_bytes_max)
        self._judged = Room(JUDGED_EVENTS_MAX, sys.maxsize)

    async def event(self, body: bytes, encoding: str = "", trace: str = "") -> Reply:
        """Take one event in: 200 once it is on disk, else a problem.

        :param trace: a `traceparent` of the caller's, for events that name no trace themselves.
        """
        self.statistics.events += 1
        try:
            if not encoding:
                return await self._event(body, trace)
            async with self._plain(body, encoding) as plain:
                return await self._event(plain, trace)
        except ObserverError as error:
            return self._refuse(error, 1)

    async def _event(self, body: bytes, trace: str) -> Reply:
        decoder, now = self._decoder(), self._now.text()
        if decoder.is_short(body):
            event = decoder.one(body, now=now)
        else:
            event = await self._apart(partial(decoder.one, body, now=now), self._judging_events)
        receipts = await self._admission.submit(_traced((event.op,), trace), len(body))
        self._count(receipts, 0)
        return self._accepted(event, receipts, 0)

    def judged(self, bodies: Sequence[bytes], traces: Sequence[str]) -> Sequence[JudgedEvent | None]:
        """Judge events of several callers; None in place of one that is invalid or takes long: give that to `event`.

        :param traces: one for each, as of `event`.
        """
        events = self._decoder().several(bodies, now=self._now.text())
        if not any(traces):
            return events
        return [
            event and msgspec.structs.replace(event, op=_traced((event.op,), trace)[0])
            for event, trace in zip(events, traces, strict=True)
        ]

    def offer(self, events: Sequence[JudgedEvent], size: int, on_answered: Callable[[], None]) -> Submission | None:
        """Take single events of several callers in together, if there is room for them now; None if not.

        :param size: of their bodies.
        :param on_answered: called once, later: then `replies` gives the answers.
        """
        submission = self._admission.offer([event.op for event in events], size, on_answered, is_shared=True)
        if submission is not None:
            self.statistics.events += len(events)
        return submission

    def replies(self, events: Sequence[JudgedEvent], submission: Submission) -> list[Reply]:
        """Answer events that were taken in, each by itself: 200 when it is on disk, else a problem."""
        if submission.parts:
            parts = zip(events, submission.parts, strict=True)
            return [reply for event, part in parts for reply in self.replies([event], part)]
        try:
            receipts = self._admission.settle(submission, len(events))
        except ObserverError as error:
            return [self._refuse(error, len(events))] * len(events)
        self._count(receipts, 0)
        if not receipts.duplicates and not any(event.notes for event in events):
            # What msgspec would make of them, in a third of the time.
            begins = b'{"accepted":true,"ring_size":%d,"seq":' % self._ring_size()
            return [Reply(200, b"%b%d}" % (begins, seq)) for seq in receipts.seqs]
        return [self._accepted(event, receipts, position) for position, event in enumerate(events)]

    def _accepted(self, event: JudgedEvent, receipts: Receipts, position: int) -> Reply:
        seq, notes = receipts.seqs[position], event.notes
        self.statistics.redacted.update(event.redacted)
        self._look_at({note: 1 for note in notes if note.startswith(SOURCE_NOTE)})
        duplicate = position in receipts.duplicates
        return json_reply(
            EventAnswer(accepted=True, ring_size=self._ring_size(), seq=seq, duplicate=duplicate, notes=notes)
        )

    def without_secrets(self, text: str, *, is_endpoint: bool = False) -> str:
        """Give a text that is no event, and is kept all the same, without its secrets: as in an event."""
        return self._decoder().secrets.text(text, self.statistics.redacted, is_endpoint=is_endpoint)

    def known_source(self, label: str) -> str:
        """Give the source under which an op with this label would be kept."""
        return self._decoder().known_source(label)

    async def batch(self, body: bytes, encoding: str = "", trace: str = "") -> Reply:
        """Take many events in: 200 once the good ones are on disk, 400 when none was good; ``trace`` as of `event`."""
        self.statistics.batches += 1
        try:
            async with self._plain(body, encoding) as plain, self._room_to_judge(plain):
                judged = await self._judge(plain)
                ops = _traced(judged.ops, trace)
                receipts = await self._admission.submit(ops, len(plain)) if ops else Receipts(())
        except ObserverError as error:
            reply = self._refuse(error, 1)
            if error.status >= INTERNAL_ERROR:
                return reply
            return _refused_batch(problem_of(error), self._answer(JudgedBatch([], [], {}, {}), Receipts(())))
        self._count(receipts, len(judged.errors))
        self._look_at(judged.unknown_sources)
        self.statistics.redacted.update(judged.redacted)
        answer = self._answer(judged, receipts)
        return json_reply(answer) if answer.accepted else _refused_batch(_all_rejected(answer), answer)

    @asynccontextmanager
    async def _room_to_judge(self, body: bytes) -> AsyncIterator[None]:
        """Wait for room for what a batch becomes, and hold it: an event of two bytes is an op of a thousand."""
        count = events_at_most(body, self._settings.batch_events_max)
        await in_time(self._judged.enter(count, len(body)), self._wait_s, "no room to judge the batch")
        try:
            yield
        finally:
            self._judged.leave(count, len(body))

    async def _judge(self, body: bytes) -> JudgedBatch:
        decoder, now, lines_max = self._decoder(), self._now.text(), self._settings.batch_events_max
        judge = decoder.many
        if len(body) <= INLINE_BYTES_MAX:
            batch = decoder.usual(body, now=now, lines_max=lines_max)
            if batch is not None:
                return batch
            judge = decoder.by_line
            if decoder.is_short(body) and events_at_most(body, SHORT_EVENTS) < SHORT_EVENTS:
                return judge(body, now=now, lines_max=lines_max)
        return await self._apart(partial(judge, body, now=now, lines_max=lines_max), self._judging_batches)

    async def _apart(self, judge: Callable[[], T], limiter: trio.CapacityLimiter) -> T:
        """Judge in a thread what takes long, after what is judged there already.

        A thread that computes takes every other turn of the interpreter. With sixteen of them, the event loop would
        have one in seventeen.

        :raises Overloaded: so much is judged already that this would not begin in time.
        """
        return await in_time(self._in_thread(judge, limiter=limiter), self._wait_s, "not judged")

    @asynccontextmanager
    async def _plain(self, body: bytes, encoding: str) -> AsyncIterator[bytes]:
        """Give the body without its encoding. A compressed one counts by what is in it, for as long as we hold it."""
        match encoding.strip().lower():
            case "" | "identity":
                yield body
            case "gzip" | "x-gzip":
                plain = await in_time(self._unpack(body), self._wait_s, "no room to decompress the body")
                try:
                    yield plain
                finally:
                    self._unpacked.leave(1, len(plain))
            case _:
                raise EncodingUnknown(f"Content-Encoding {encoding[:40]!a} is not known", hint="use gzip or none")

    async def _unpack(self, body: bytes) -> bytes:
        async with self._unpacking:  # also while it waits for room: this many unpacked bodies are beyond it
            plain = await self._in_thread(partial(_gunzip, body, self._settings.decompressed_bytes_max))
            await self._unpacked.enter(1, len(plain))
            return plain

    def _answer(self, judged: JudgedBatch, receipts: Receipts) -> BatchAnswer:
        seqs, duplicates = receipts.seqs, receipts.duplicates
        if duplicates:
            seqs = [seq for position, seq in enumerate(seqs) if position not in duplicates]
        return BatchAnswer(
            accepted=len(receipts.seqs),
            rejected=len(judged.errors),
            errors=judged.errors[:ERRORS_SHOWN_MAX],
            errors_omitted=max(0, len(judged.errors) - ERRORS_SHOWN_MAX),
            ring_size=self._ring_size(),
            duplicates=len(duplicates),
            first_seq=seqs[0] if seqs else None,
            last_seq=seqs[-1] if seqs else None,
            notes=judged.notes,
        )

    def note_refused(self) -> None:
        """Count a report that was refused for lack of room before it got here."""
        self.statistics.refused += 1

    def _refuse(self, error: ObserverError, count: int) -> Reply:
        if error.status < INTERNAL_ERROR:
            self.statistics.rejected += count
        else:
            self.statistics.refused += count
        return problem_reply(error)

    def _count(self, receipts: Receipts, rejected: int) -> None:
        self.statistics.accepted += len(receipts.seqs)
        self.statistics.rejected += rejected
        self.statistics.duplicates += len(receipts.duplicates)

    def _look_at(self, notes: Mapping[str, int]) -> None:
        """Count foreign sources, and log each label once."""
        for note, count in notes.items():
            self.statistics.foreign_sources += count
            if note not in self._logged and len(self._logged) < LABELS_LOGGED_MAX:
                self._log.warning("source_unknown", note=note, hint="add it to sources.extra to keep it")
                self._logged.add(note)


def _traced(ops: Sequence[Op], trace: str) -> Sequence[Op]:
    """Give the ops with the caller's trace, where they name none and have room for it."""
    attributes = trace_attributes(trace) if trace else {}
    if not attributes:
        return ops
    return [msgspec.structs.replace(op, attrs=_with_trace(op.attrs, attributes)) for op in ops]


def _with_trace(attrs: dict[str, Scalar] | UnsetType, trace: dict[str, str]) -> dict[str, Scalar] | UnsetType:
    if attrs is UNSET:
        return {**trace}
    names_one = not attrs.keys().isdisjoint(trace)
    return attrs if names_one or len(attrs) + len(trace) > ATTRS_MAX else {**attrs, **trace}


class EncodingUnknown(RequestInvalid):
    """A Content-Encoding that we cannot read."""

    status = 415
    title = "unknown encoding"


class _Now:
    """The time as text (ISO 8601, milliseconds, Z), made anew once a millisecond from that of the second."""

    def __init__(self, time_ns: Callable[[], int]) -> None:
        self._time_ns = time_ns
        self._milliseconds = self._second = 0
        self._text = self._begun = ""

    def text(self) -> str:
        """Give the time now."""
        milliseconds = self._time_ns() // 1_000_000
        if milliseconds != self._milliseconds:
            self._milliseconds = milliseconds
            second, rest = divmod(milliseconds, 1_000)
            if second != self._second:
                self._second = second
                self._begun = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S.")
            self._text = f"{self._begun}{rest:03d}Z"
        return self._text


def _all_rejected(answer: BatchAnswer) -> Problem:
    first = answer.errors[0]
    detail = f"no line was good; line {first.line}: {first.error}"
    hint = "" if first.field else BATCH_SHAPE
    return Problem(title="invalid batch", status=400, detail=detail, error=detail, field=first.field, hint=hint)


def _refused_batch(problem: Problem, answer: BatchAnswer) -> Reply:
    """Answer that nothing of a batch was taken: a problem, with the fields that callers of `/events` look for."""
    said = {**msgspec.to_builtins(problem), **msgspec.to_builtins(answer)}
    return Reply(problem.status, visible_json(msgspec.json.encode(said)), PROBLEM)


def _gunzip(body: bytes, size_max: int) -> bytes:
    """Decompress all members of a gzip body, and no more than ``size_max`` bytes of them."""
    parts: list[bytes] = []
    room, at = size_max + 1, 0
    for _ in range(GZIP_MEMBERS_MAX):
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            if at == len(body):
                raise RequestInvalid("the gzip body ends too early")
            piece = body[at : at + GZIP_PIECE_BYTES]
            try:
                part = member.decompress(piece, min(room, sys.maxsize))
            except zlib.error as error:
                raise RequestInvalid(f"not gzip: {error}", hint="or leave Content-Encoding out") from error
            at += len(piece) - len(member.unused_data) - len(member.unconsumed_tail)
            parts.append(part)
            room -= len(part)
            if room <= 0:
                raise RequestTooLarge(
                    f"more than {size_max:,} bytes after decompression",
                    hint="send smaller batches",
                    limit="listen.decompressed_bytes_max",
                )
        if at == len(body):
            return b"".join(parts)
    raise RequestInvalid(f"more than {GZIP_MEMBERS_MAX:,} gzip members")
