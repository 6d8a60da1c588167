"""What a caller may send, and the way from there to an `Op`.

Pure: no clock, no file, no network. The rules are those of the program that this daemon replaces, field by field:

* ``null`` counts as absent wherever a field has a fallback; the fields without one are kept as given.
* A field of a wrong type is an error that names the field, but for those that the seed took whatever they were
  (`Event` marks them ``Any``). Nothing else about an event is an error: an unknown source becomes ``scenario``, an
  outcome that is no boolean counts as false, an unknown scalar field goes to ``attrs``, and the answer carries a note.

An event that keeps every rule (`_Usual`) becomes an op in one pass, without a second thought; the first thing about it
that needs one sends it the long way (`Event`), where each rule stands once. Both ways give the same op.

One file, though a long one: who changes a rule has to see both ways.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, TypeVar, cast

import msgspec
from msgspec import UNSET, Meta, UnsetType

from observer_actors.batch import BYTE_ORDER_MARK, EVENT_BYTES_MAX, newlines, split
from observer_actors.ecmascript import NUMERIC_PATTERN, number_text, read_number, truthy
from observer_actors.errors import EventInvalid, EventTooComplex, EventTooLarge, EventUnreadable
from observer_actors.op import ATTR_CHARS_MAX, ATTR_NAME_CHARS_MAX, ATTRS_MAX, MaybeText, Op, Scalar, time_us
from observer_actors.secrets import Findings, Secrets, compiled_secrets

AUDITOR: Final = "auditor"
"""Whose events are verdicts."""
DEFAULT_SOURCES: Final = frozenset({"mcp", "scenario", AUDITOR, "bot"})
FALLBACK_SOURCE: Final = "scenario"
OWN_SOURCE: Final = "observer"
"""What the daemon itself writes: no caller's event is kept under it, whatever the settings say."""
ID_CHARS_MAX: Final = 128
FIELDS_MAX: Final = 256
DEPTH_MAX: Final = 32
USUAL_DEPTH: Final = 2
"""Of an event whose attributes are scalars."""
SOURCE_NOTE: Final = "source: "
ONE_OBJECT: Final = "send one JSON object, in UTF-8; many go to /events, each a line or in one array"
BATCH_SHAPE: Final = "send one JSON object a line, or an array of objects"
HALF_NOTE: Final = "half of a character in a text; kept as U+FFFD"
"""Of a text that was cut within a pair of surrogates: `JSON.stringify` and `json.dumps` write what is left of it."""
NOTES_MAX: Final = 20
"""Distinct notes in the answer to a batch: enough to learn from, and no answer that grows with the batch."""
BATCH_SECRETS_MAX: Final = 10_000
"""To take one out costs some 20 µs: a batch of nothing else must not keep a thread for minutes."""
SHORT_BYTES: Final = 8_192
"""An event that is no longer, and holds nothing that looks like a secret, is judged while all others wait."""
TOGETHER_BYTES: Final = 32_768
"""Of events of several callers that may hold secrets, and are judged together while all others wait."""

_DEFAULT_ENDPOINTS: Final[Mapping[str, str]] = {AUDITOR: "auditor:verdict", "bot": "bot:cycle"}
_FALLBACK_ENDPOINT: Final = "scenario:fill"


NumericText = Annotated[str, Meta(extra_json_schema={"pattern": NUMERIC_PATTERN})]


class Event(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /event`. `Any` marks the fields that are taken whatever their type, as the seed did."""

    timestamp: str | None = None
    endpoint: str | None = None
    input_summary: str | None = None
    success: Any = None
    ok: Any = None
    duration_ms: int | float | NumericText | None = None
    audit_duration_ms: int | float | NumericText | None = None
    output_summary: str | None = None
    one_liner: str | None = None
    error: MaybeText = UNSET
    source: Any = None
    staffer_id: MaybeText = UNSET
    sig_hash: MaybeText = UNSET
    event_kind: MaybeText = UNSET
    role: MaybeText = UNSET
    city: MaybeText = UNSET
    state: MaybeText = UNSET
    count: int | float | str | UnsetType | None = UNSET
    rescue_attempted: Any = None
    rescue_succeeded: Any = None
    id: Annotated[str, Meta(extra_json_schema={"minLength": 1, "maxLength": ID_CHARS_MAX})] | None = None
    attrs: dict[str, Any] | None = None


_EXACT_MAX: Final = 2**53
"""What is beyond is unusual, for a float may stand for it no more."""
_ExactInt = Annotated[int, Meta(ge=-_EXACT_MAX, le=_EXACT_MAX)]
_ExactFloat = Annotated[float, Meta(ge=float(-_EXACT_MAX), le=float(_EXACT_MAX))]
_Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
_Attributes = Annotated[
    dict[
        Annotated[str, Meta(max_length=ATTR_NAME_CHARS_MAX)],
        Annotated[str, Meta(max_length=ATTR_CHARS_MAX)] | _Int64 | float | bool | None,
    ],
    Meta(max_length=ATTRS_MAX),
]
_NoInt = Annotated[int, Meta(gt=1, lt=0)]
_NoText = Annotated[str, Meta(min_length=1, max_length=0)]
"""Types that no value has: an event that gives `seq` or `recorded_at` fails the fast decoder, and goes the long way."""


class _Usual(Op, kw_only=True, forbid_unknown_fields=True, gc=False):
    """An event that is a record already, but for what the witness fills in: then it is an `Op`, and no copy of it.

    The fields are an op's, in its order. ``None`` stands for what is to be filled in.
    """

    timestamp: str | None = None  # type: ignore[assignment]
    endpoint: str
    input_summary: str
    success: bool
    duration_ms: _ExactInt | _ExactFloat = 0
    output_summary: str | None = None  # type: ignore[assignment]
    error: MaybeText = UNSET
    source: str
    staffer_id: MaybeText = UNSET
    sig_hash: MaybeText = UNSET
    event_kind: MaybeText = UNSET
    role: MaybeText = UNSET
    city: MaybeText = UNSET
    state: MaybeText = UNSET
    count: _Int64 | float | str | UnsetType | None = UNSET
    rescue_attempted: bool = False
    rescue_succeeded: bool = False
    seq: _NoInt = 0
    recorded_at: _NoText = ""
    id: Annotated[str, Meta(min_length=1, max_length=ID_CHARS_MAX)] | UnsetType = UNSET
    attrs: _Attributes | UnsetType = UNSET


class JudgedEvent(msgspec.Struct, frozen=True):
    """A good event: its op (not yet committed), and what the caller should know about how it was taken."""

    op: Op
    notes: tuple[str, ...] = ()
    redacted: dict[str, int] = {}
    """Kind of secret -> how many of it were taken out."""


class LineError(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why one line of a batch was rejected. ``line`` counts from 1; in a JSON array it is the position."""

    line: int
    error: str
    field: str = ""


class JudgedBatch(msgspec.Struct, frozen=True):
    """A batch in which each line has been judged by itself."""

    ops: list[Op]
    errors: list[LineError]
    notes: dict[str, int]
    """Note -> number of events that it is about; those beyond a bound are counted together."""
    unknown_sources: dict[str, int]
    """Every note about a source that is not known -> number of events."""
    redacted: dict[str, int] = {}
    """Kind of secret -> how many of it were taken out."""


_KNOWN: Final = frozenset(Event.__struct_fields__)
_ASSIGNED_HERE: Final = frozenset({"seq", "recorded_at"})
_usual_decoder: Final = msgspec.json.Decoder(_Usual)
_usual_array_decoder: Final = msgspec.json.Decoder(list[_Usual])
_event_decoder: Final = msgspec.json.Decoder(Event)
_object_decoder: Final = msgspec.json.Decoder()


class EventDecoder:
    """Turns bytes into ops, with one set of known sources.

    :param sources: labels that stay as they are; any other becomes ``scenario``, with a note.
    :param secrets: what is taken out of an event before anything else is done with it.
    :param fields_max: fields of an event, those within its values too.
    :param depth_max: nesting of an event: 1 is one object with nothing but scalars in it.
    """

    def __init__(
        self,
        sources: Iterable[str] = DEFAULT_SOURCES,
        secrets: Secrets | None = None,
        *,
        fields_max: int = FIELDS_MAX,
        depth_max: int = DEPTH_MAX,
    ) -> None:
        self._sources = (frozenset(sources) | DEFAULT_SOURCES) - {OWN_SOURCE}
        self.secrets = secrets or compiled_secrets()
        self._fields_max = fields_max
        self._depth_max = depth_max
        self._may_be_usual = depth_max >= USUAL_DEPTH and fields_max >= ATTRS_MAX
        """What keeps every rule of the usual form is within these bounds too."""

    def one(self, body: bytes, *, now: str) -> JudgedEvent:
        """Judge one event.

        :param now: the time of arrival, for an event that says no time of its own.
        :raises EventInvalid: not JSON, not an object, or a field of a wrong type; names the field.
        :raises EventTooComplex: too many fields, or nested too deeply.
        """
        if len(body) > EVENT_BYTES_MAX:
            raise EventTooLarge(f"an event holds at most {EVENT_BYTES_MAX:,} bytes, this one {len(body):,}")
        try:
            return self._one(body, now)
        except EventUnreadable:
            whole = with_whole_characters(body) if rb"\ud" in body or rb"\uD" in body else body
            if whole == body:
                raise
        judged = self._one(whole, now)
        if judged.op.id is not UNSET and "\ufffd" in judged.op.id:
            raise EventInvalid("holds half of a character", field="id", hint="another half would make it the same id")
        return JudgedEvent(judged.op, (HALF_NOTE, *judged.notes), judged.redacted)

    def _one(self, body: bytes, now: str) -> JudgedEvent:
        if self.secrets.may_be_in(body):
            return self._without_secrets(body, now)
        try:
            ops = self._ops([_usual_decoder.decode(body)], now) if self._may_be_usual else []
        except _UNUSUAL:
            ops = []
        return JudgedEvent(ops[0]) if ops else self._second_look(body, now)

    def several(self, bodies: Sequence[bytes], *, now: str) -> Sequence[JudgedEvent | None]:
        """Judge one event of each of several callers; None for one that is refused or not looked at: `one` says why.

        As lines of a batch, where each is one line and usual: that costs half as much. Of others that may hold
        secrets up to `TOGETHER_BYTES`.
        """
        may_be_joined = not self.secrets.has_own_rules or not any(map(self.secrets.may_be_in, bodies))
        usual = self._usual_lines(b"\n".join(bodies), len(bodies), now) if may_be_joined else []
        if usual:
            return [JudgedEvent(op) for op in usual]
        looked_at, judged = 0, []
        for body in bodies:
            if self.secrets.may_be_in(body):
                looked_at += len(body)
            judged.append(self._good(body, now) if looked_at <= TOGETHER_BYTES else None)
        return judged

    def is_short(self, body: bytes) -> bool:
        """Say whether to judge an event takes so little that everybody else may wait for it."""
        return len(body) <= SHORT_BYTES and not self.secrets.may_be_in(body)

    def _good(self, body: bytes, now: str) -> JudgedEvent | None:
        try:
            return self.one(body, now=now)
        except EventInvalid:
            return None

    def many(self, body: bytes, *, now: str, lines_max: int) -> JudgedBatch:
        """Judge each line of NDJSON, or each element of a JSON array, by itself. Blank lines are passed over.

        :param lines_max: more lines than this are an error of the whole batch.
        :raises EventInvalid: no line at all, an array whose elements cannot be told apart, or too many lines.
        """
        return self.usual(body, now=now, lines_max=lines_max) or self.by_line(body, now=now, lines_max=lines_max)

    def usual(self, body: bytes, *, now: str, lines_max: int) -> JudgedBatch | None:
        """Judge a batch of usual events, in a sixth of the time; None when it holds anything else. As `many`."""
        usual = self._usual(body, now, lines_max)
        return JudgedBatch(usual, [], {}, {}) if usual else None

    def by_line(self, body: bytes, *, now: str, lines_max: int) -> JudgedBatch:
        """Judge any batch. As `many`."""
        batch = JudgedBatch([], [], {}, {}, {})
        for number, line in split(body, lines_max):
            try:
                judged = self.one(line, now=now)
            except EventInvalid as invalid:
                batch.errors.append(LineError(number, invalid.detail, invalid.field))
                continue
            batch.ops.append(judged.op)
            for note in judged.notes:
                if note.startswith(SOURCE_NOTE):
                    batch.unknown_sources[note] = batch.unknown_sources.get(note, 0) + 1
                key = note if note in batch.notes or len(batch.notes) < NOTES_MAX else "further notes"
                batch.notes[key] = batch.notes.get(key, 0) + 1
            for kind, times in judged.redacted.items():
                batch.redacted[kind] = batch.redacted.get(kind, 0) + times
            if judged.redacted and sum(batch.redacted.values()) > BATCH_SECRETS_MAX:
                raise EventTooComplex(
                    f"the batch holds more than {BATCH_SECRETS_MAX:,} secrets", hint="send less at once"
                )
        if not batch.ops and not batch.errors:
            raise EventInvalid("the batch is empty", hint=BATCH_SHAPE)
        return batch

    def _usual(self, body: bytes, now: str, lines_max: int) -> list[Op]:
        """Give the ops of a batch of usual events; none when it holds anything else."""
        if body[:1] != b"[":
            lines = body.removesuffix(b"\n")
            count = newlines(lines, lines_max) + 1
            return self._usual_lines(lines, count, now) if count <= lines_max else []
        if not self._may_be_usual or len(body) > EVENT_BYTES_MAX or self.secrets.may_be_in(body):
            return []
        try:
            events = _usual_array_decoder.decode(body)
            return self._ops(events, now) if len(events) <= lines_max else []
        except _UNUSUAL:
            return []

    def _usual_lines(self, lines: bytes, count: int, now: str) -> list[Op]:
        """Judge so many usual events, each a line; give none when there is anything else.

        In JSON a brace, a newline and a brace can only stand between two values, and not within one: where each line
        begins and ends with a brace, and there are as many values as lines, each line is one value.
        """
        is_plain = lines[:1] == b"{" and lines[-1:] == b"}" and lines.count(b"}\n{") == count - 1 == newlines(lines)
        if not is_plain or not self._may_be_usual or _has_long_line(lines) or self.secrets.may_be_in(lines):
            return []
        try:
            events = _usual_decoder.decode_lines(lines)
            return self._ops(events, now) if len(events) == count else []
        except _UNUSUAL:
            return []

    def _ops(self, events: list[_Usual], now: str) -> list[Op]:
        """Make events that need no second look what they are: ops. None of them, when one needs it."""
        sources = self._sources
        for event in events:
            if event.source not in sources:
                return []
            if event.timestamp is None:
                event.timestamp = now
            else:
                datetime.fromisoformat(event.timestamp)  # raises: the long way has a note
            if not event.attrs:
                event.attrs = UNSET
            if event.output_summary is None:
                event.output_summary = _outcome(event.error, success=event.success)
            event.__class__ = Op  # type: ignore[assignment]
        return cast("list[Op]", events)

    def _without_secrets(self, body: bytes, now: str) -> JudgedEvent:
        """Judge an event in which a secret may be."""
        given = self._decode_object(body.removeprefix(BYTE_ORDER_MARK))
        found = Findings()
        judged = self._second_look(msgspec.json.encode(self.secrets.taken_out(given, found)), now)
        if not found:
            return judged
        kinds = ", ".join(f"{kind} ({times})" for kind, times in sorted(found.items()))
        return JudgedEvent(judged.op, (*judged.notes, f"secrets were taken out: {kinds}"), dict(found))

    def _second_look(self, body: bytes, now: str) -> JudgedEvent:
        notes: list[str] = []
        event = self._decode_event(body.removeprefix(BYTE_ORDER_MARK), notes)
        return JudgedEvent(self._normalise(event, now, notes), tuple(notes))

    def _decode_event(self, body: bytes, notes: list[str]) -> Event:
        """Decode an event with fields of the record alone in one pass, and one with fields of its own in a second."""
        try:
            event = _event_decoder.decode(body)
        except msgspec.ValidationError as error:
            if "unknown field" not in str(error):
                raise _field_error(error) from error
        except (msgspec.DecodeError, UnicodeError) as error:
            raise _unreadable(body, error) from error
        except RecursionError as error:
            raise self._too_deep() from error
        else:
            flags = [event.success, event.ok, event.rescue_attempted, event.rescue_succeeded]
            self._measure([event.attrs, event.source, *flags])
            return event
        return _with_unknown_fields(self._decode_object(body), notes)

    def _decode_object(self, body: bytes) -> Any:  # noqa: ANN401 - whatever JSON holds
        try:
            given = _object_decoder.decode(body)
        except msgspec.ValidationError as error:  # the only thing that it can have against JSON
            raise EventInvalid("a number is out of range", hint="give it as a text") from error
        except (msgspec.DecodeError, UnicodeError) as error:
            raise _unreadable(body, error) from error
        except RecursionError as error:
            raise self._too_deep() from error
        self._measure(given)
        return given

    def _measure(self, value: Any) -> None:  # noqa: ANN401 - whatever JSON holds
        """Refuse what has too many fields, or is nested too deeply."""
        depth, fields, level = 0, 0, [value]
        while level := [part for part in level if isinstance(part, dict | list) and part]:
            depth += 1
            fields += sum(len(part) for part in level if isinstance(part, dict))
            if depth > self._depth_max:
                raise self._too_deep()
            if fields > self._fields_max:
                raise EventTooComplex(f"has more than {self._fields_max} fields", limit="listen.fields_max")
            level = [inner for part in level for inner in (part.values() if isinstance(part, dict) else part)]

    def _too_deep(self) -> EventTooComplex:
        """Give the one answer, also where nesting is beyond what can be decoded: how much that is depends on Python."""
        return EventTooComplex(f"is nested more than {self._depth_max} levels deep", limit="listen.depth_max")

    def known_source(self, label: str) -> str:
        """Give the source under which an op with this label is kept."""
        return label if label in self._sources else FALLBACK_SOURCE

    def _normalise(self, event: Event, now: str, notes: list[str]) -> Op:
        source = event.source if isinstance(event.source, str) else ""
        if source not in self._sources:
            if event.source is not None:
                notes.append(f"{SOURCE_NOTE}{_shown(event.source)} is not a known source; kept as {FALLBACK_SOURCE}")
            source = FALLBACK_SOURCE
        if event.timestamp is not None and time_us(event.timestamp) is None:
            notes.append("timestamp: not an ISO 8601 time; kept as given, found by its arrival")
        success = event.success if isinstance(event.success, bool) else event.ok is True
        if not success and not isinstance(event.success, bool) and not isinstance(event.ok, bool):
            _note_outcome(event, notes)
        if event.id is not None and not 0 < len(event.id) <= ID_CHARS_MAX:
            raise EventInvalid(f"wants 1 to {ID_CHARS_MAX} characters, got {len(event.id)}", field="id")
        return Op(
            timestamp=now if event.timestamp is None else event.timestamp,
            endpoint=_DEFAULT_ENDPOINTS.get(source, _FALLBACK_ENDPOINT) if event.endpoint is None else event.endpoint,
            input_summary=_input_summary(event) if event.input_summary is None else event.input_summary,
            success=success,
            duration_ms=_duration(event),
            output_summary=_output_summary(event, success=success),
            error=event.error,
            source=source,
            staffer_id=event.staffer_id,
            sig_hash=event.sig_hash,
            event_kind=event.event_kind,
            role=event.role,
            city=event.city,
            state=event.state,
            count=_within_double(event.count, "count"),
            rescue_attempted=truthy(event.rescue_attempted),
            rescue_succeeded=truthy(event.rescue_succeeded),
            id=UNSET if event.id is None else event.id,
            attrs=_attributes(event.attrs, notes) if event.attrs else UNSET,
        )


_UNUSUAL: Final = (msgspec.MsgspecError, ValueError, RecursionError)
"""What the one-pass way may meet: the long way says what is wrong, if anything is."""


def _has_long_line(lines: bytes) -> bool:
    return len(lines) > EVENT_BYTES_MAX and max(map(len, lines.split(b"\n"))) > EVENT_BYTES_MAX


def with_whole_characters(body: bytes) -> bytes:
    r"""Give JSON in which each half of a pair (`\ud83d` alone) is `\ufffd`: else it cannot be decoded."""
    return _ESCAPE.sub(lambda escape: rb"\ufffd" if escape["half"] else escape[0], body)


def _unreadable(body: bytes, error: Exception) -> EventUnreadable:
    """Say why a body is no JSON; of what JavaScript and Python call a number we know better than the decoder."""
    may_have_one = b"NaN" in body or b"Infinity" in body
    for found in _TEXT_OR_NO_NUMBER.finditer(body) if may_have_one else ():
        number = found["behind_name"] or found["alone"]
        if number:
            name = ascii((found["name"] or b"").decode("utf-8", "replace"))[1:-1]
            field = name if len(name) <= ATTR_NAME_CHARS_MAX else ""
            return EventUnreadable(
                f"{number.decode()} is no JSON number", field=field, hint="send null, or leave it out"
            )
    return EventUnreadable(f"not JSON: {error}", hint=ONE_OBJECT)


_ESCAPE: Final = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.",
    re.DOTALL,
)
_TEXT_OR_NO_NUMBER: Final = re.compile(
    rb'"(?P<name>(?:[^"\\]|\\.)*+)(?:"|\\?\Z)(?:[ \t\r\n]*:[ \t\r\n]*(?P<behind_name>-?(?:NaN|Infinity)\b))?'
    rb"|(?<!\w)(?P<alone>-?(?:NaN|Infinity)\b)",
    re.DOTALL,
)


def _with_unknown_fields(given: Any, notes: list[str]) -> Event:  # noqa: ANN401 - whatever JSON holds
    if not isinstance(given, dict):
        raise EventInvalid("expected `object`", hint=ONE_OBJECT)
    known = {name: value for name, value in given.items() if name in _KNOWN}
    unknown = {name: value for name, value in given.items() if name not in _KNOWN}
    if len(given) == 1 and any(map(_holds_objects, unknown.values())):
        raise EventInvalid(
            "no field of an event: send what is in it without a wrapper",
            field=ascii(next(iter(unknown))[:ATTR_NAME_CHARS_MAX])[1:-1],
            hint=ONE_OBJECT,
        )
    for name in sorted(_ASSIGNED_HERE & unknown.keys()):
        del unknown[name]
        notes.append(f"{name}: assigned by the witness; the given one is left out")
    try:
        event = msgspec.convert(known, Event)
    except msgspec.ValidationError as error:
        raise _field_error(error) from error
    event.attrs = {**(event.attrs or {}), **unknown}
    return event


def _holds_objects(value: Any) -> bool:  # noqa: ANN401 - whatever JSON holds
    return isinstance(value, dict) or (isinstance(value, list) and isinstance(next(iter(value), None), dict))


_FIELD_PATH: Final = re.compile(r"^(?P<detail>.*?) - at `\$\.(?P<field>[^`.\[]+).*`$", re.DOTALL)


def _field_error(error: msgspec.ValidationError) -> EventInvalid:
    """Turn msgspec's "Expected `str`, got `int` - at `$.city`" into an error that names the field."""
    found = _FIELD_PATH.match(str(error))
    if found is None:
        return EventInvalid(_lower_first(str(error)), hint=ONE_OBJECT)
    return EventInvalid(_lower_first(found["detail"]), field=found["field"])


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def _input_summary(event: Event) -> str:
    kind, role, count, city, state = (
        "?" if value is None or value is UNSET else value
        for value in (event.event_kind, event.role, event.count, event.city, event.state)
    )
    if isinstance(count, float):
        count = number_text(count)
    return f"{kind} {role}×{count} in {city}, {state}"


def says_no_input(op: Op) -> bool:
    """Say whether an op's input summary was made of its other fields, for want of an input."""
    summary = op.input_summary
    if "×" not in summary:
        return False
    kind, role, city, state = (
        value if isinstance(value, str) else "?" for value in (op.event_kind, op.role, op.city, op.state)
    )
    return summary.startswith(f"{kind} {role}×") and summary.endswith(f" in {city}, {state}")


def _output_summary(event: Event, *, success: bool) -> str:
    for candidate in (event.output_summary, event.one_liner):
        if candidate is not None:
            return candidate
    return _outcome(event.error, success=success)


def _outcome(error: MaybeText, *, success: bool) -> str:
    """Say how it went, where nobody has."""
    if success:
        return "ok"
    return error if isinstance(error, str) else "failed"


def _duration(event: Event) -> int | float:
    """Give the duration that counts; the other one must be a number all the same."""
    given = (("duration_ms", event.duration_ms), ("audit_duration_ms", event.audit_duration_ms))
    durations = [
        _number(value, name) if isinstance(value, str) else _within_double(value, name)
        for name, value in given
        if value is not None
    ]
    return durations[0] if durations else 0


_T = TypeVar("_T")


def _within_double(value: _T, field: str) -> _T:
    """Refuse a whole number that other readers of JSON, and our own sums, would take for infinite."""
    if isinstance(value, int) and not -_DOUBLE_MAX <= value <= _DOUBLE_MAX:
        raise EventInvalid("integer value out of range", field=ascii(field)[1:-1])
    return value


_DOUBLE_MAX: Final = int(sys.float_info.max)


def _number(text: str, field: str) -> int | float:
    """Read a numeric string.

    :raises EventInvalid: it is no number, or not a finite one.
    """
    number = read_number(text)
    if number is None:
        detail = f"{_shown(text)} is not a finite number"
        raise EventInvalid(detail, field=field, hint="give milliseconds as a number")
    return _within_double(number, field)


def _note_outcome(event: Event, notes: list[str]) -> None:
    for name, value in (("success", event.success), ("ok", event.ok)):
        if value is not None:
            notes.append(f"{name}: {_shown(value)} is no boolean; counted as a failure")


def _attributes(given: Mapping[str, Any], notes: list[str]) -> dict[str, Scalar] | UnsetType:
    """Keep what is scalar, within the bounds; say what was not kept."""
    kept: dict[str, Scalar] = {}
    dropped: list[str] = []
    for name, value in given.items():
        if len(kept) >= ATTRS_MAX or len(name) > ATTR_NAME_CHARS_MAX or isinstance(value, dict | list):
            dropped.append(name)
        elif isinstance(value, str) and len(value) > ATTR_CHARS_MAX:
            kept[name] = value[:ATTR_CHARS_MAX]
            notes.append(f"{_shown(name)}: cut to {ATTR_CHARS_MAX:,} characters")
        else:
            kept[name] = _within_double(value, name)
    if dropped:
        shown = ", ".join(_shown(name) for name in dropped[:3]) + (" …" if len(dropped) > 3 else "")  # noqa: PLR2004
        bounds = f"{ATTRS_MAX} at most, under names of up to {ATTR_NAME_CHARS_MAX} characters"
        notes.append(f"{shown}: not kept; attributes are scalars, {bounds}")
    return kept or UNSET


def _shown(value: object) -> str:
    """Give what a caller sent for use in a message: short, and with nothing that a terminal would obey."""
    text = ascii(value) if not isinstance(value, str) else '"' + ascii(value)[1:-1] + '"'
    return text if len(text) <= 60 else text[:57] + "…"  # noqa: PLR2004
