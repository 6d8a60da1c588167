"""Each difference that is wanted, by name: only these may occur.

One entry a difference: its name, the row of the contract's table (or, beyond the table, the reason), what it
explains, and, where the difference is a promise, when it is owed. Keep the conditions narrow: what an entry
explains too generously, the check no longer sees.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final

from tests.parity.bodies import FIELDS_AS_GIVEN
from tests.parity.compare import ABSENT, Difference, Exchange, Pair, made_within


@dataclass(frozen=True)
class Named:
    """A wanted difference."""

    name: str
    row: str
    """The contract's words; in brackets where the contract has none."""
    explains: Callable[[Difference], bool]
    owed: Callable[[Exchange], bool] = lambda _: False
    """Whether an event that both took must show this difference."""
    by_chance: bool = False
    """It depends on who is faster, and may not occur at all."""


def name_of(difference: Difference) -> str | None:
    """Return the name of the first entry that explains the difference."""
    return next((entry.name for entry in NAMED if entry.explains(difference)), None)


def unpaid(exchange: Exchange, names: set[str | None]) -> Iterator[Difference]:
    """Give a difference for each promise that ours did not keep about an event that both took."""
    if exchange.ours.lines:
        for entry in NAMED:
            if entry.name not in names and entry.owed(exchange):
                yield Difference(Pair(f"owed: {entry.name}", ABSENT, ABSENT), exchange)


NOT_COMPARED: Final = (
    "`GATEWAY/log` is the only playbook",
    "sends the same failures to the model every cycle, for ever",
    "posts the same consolidation every 5 cycles",
)
"""Rows about the cycle, of which none runs here."""

KNOWN_SOURCES: Final = frozenset({"mcp", "scenario", "auditor", "bot"})
TEXT_FIELDS: Final = (
    "timestamp", "endpoint", "input_summary", "output_summary", "one_liner", "error", *FIELDS_AS_GIVEN[:-1],
)  # fmt: skip
KNOWN_FIELDS: Final = frozenset(
    {*TEXT_FIELDS, "success", "ok", "duration_ms", "audit_duration_ms", "source", "count", "rescue_attempted"}
    | {"rescue_succeeded", "id", "attrs"}
)
ASSIGNED_FIELDS: Final = frozenset({"seq", "recorded_at"})
EVENT_BYTES_MAX: Final = 262_144
ID_CHARS_MAX: Final = 128
ATTRS_MAX: Final = 32
ATTR_CHARS_MAX: Final = 1_024
ATTR_NAME_CHARS_MAX: Final = 64
DOUBLE_EXACT_MAX: Final = 2**53


# ------------------------------------------------------------------------------- refused here, taken there


def _refused(difference: Difference) -> Exchange | None:
    """Return the exchange when the seed took the event and ours answered 400 (413 for a size, 422 for nesting)."""
    if difference.pair.field != "status" or difference.exchange is None or difference.pair.seed != 200:
        return None
    return difference.exchange if difference.pair.ours in {400, 413, 422} else None


def _names(exchange: Exchange, field: str) -> bool:
    """Tell whether our answer's error names the field."""
    answer = exchange.ours.answer
    return isinstance(answer, dict) and f"{field}:" in str(answer.get("error"))


def _not_an_object(difference: Difference) -> bool:
    exchange = _refused(difference)
    return exchange is not None and not isinstance(exchange.given, dict) and exchange.given is not ABSENT


def _only_a_wrapper(difference: Difference) -> bool:
    exchange = _refused(difference)
    if exchange is None or len(exchange.event) != 1:
        return False
    ((name, value),) = exchange.event.items()
    first = value[0] if isinstance(value, list) and value else value
    return name not in KNOWN_FIELDS | ASSIGNED_FIELDS and isinstance(first, dict)


def _wrong_type(difference: Difference) -> bool:
    exchange = _refused(difference)
    return exchange is not None and any(_names(exchange, field) for field in _wrong_fields(exchange.event))


def _wrong_fields(event: Mapping[str, Any]) -> Iterator[str]:
    for field, value in event.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        text = isinstance(value, str)
        if value is None:
            continue
        if (
            (field in TEXT_FIELDS and not text)
            or (field == "count" and not number and not text)
            or (field.endswith("duration_ms") and not number and not (text and _is_number(value)))
        ):
            yield field


_BLANKS: Final = " \t\n\v\f\r\u00a0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff" + "".join(
    map(chr, range(0x2000, 0x200B))
)
_NUMBER: Final = re.compile(
    r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|0[xX][0-9a-fA-F]+|0[oO][0-7]+|0[bB][01]+"
)


def _is_number(text: str) -> bool:
    """Tell whether JavaScript's `Number()` makes a finite number of it; what is blank is 0."""
    digits = text.strip(_BLANKS)
    if not digits:
        return True
    if not _NUMBER.fullmatch(digits):
        return False
    return digits[:2].lower() in {"0x", "0o", "0b"} or isfinite(float(digits))


def _beyond_double(difference: Difference) -> bool:
    exchange = _refused(difference)
    return exchange is not None and any(
        isinstance(value, int | float) and abs(value) > 1.7976931348623157e308 for value in _scalars(exchange.given)
    )


def _not_unicode(difference: Difference) -> bool:
    exchange = _refused(difference)
    if exchange is None:
        return False
    try:
        exchange.body.content.decode()
    except UnicodeDecodeError:
        return True
    return False


_HALF: Final = re.compile("[\ud800-\udfff]")


def _whole(text: str) -> str:
    return _HALF.sub("\ufffd", text)


def _has_half(exchange: Exchange) -> bool:
    return any(isinstance(value, str) and _HALF.search(value) for value in _scalars(exchange.given))


def _half_replaced(difference: Difference) -> bool:
    pair, exchange = difference.pair, difference.exchange
    if isinstance(pair.seed, str) and _HALF.search(pair.seed):
        return bool(pair.ours == _whole(pair.seed))
    if exchange is None or not _has_half(exchange):
        return False
    return pair == Pair("line's form", "escapes, no blanks", "raw UTF-8, no blanks") or _note(difference).startswith(
        "half of a character"
    )


def _too_large(difference: Difference) -> bool:
    exchange = _refused(difference)
    return exchange is not None and len(exchange.body.content) > EVENT_BYTES_MAX


def _too_deep(difference: Difference) -> bool:
    exchange = _refused(difference)
    return exchange is not None and exchange.body.content.count(b"[") + exchange.body.content.count(b"{") > 900


def _bad_own_field(difference: Difference) -> bool:
    """`id` and `attrs` mean nothing to the seed."""
    exchange = _refused(difference)
    if exchange is None:
        return False
    key, attrs = exchange.event.get("id"), exchange.event.get("attrs")
    bad_key = key is not None and not (isinstance(key, str) and 0 < len(key) <= ID_CHARS_MAX and not _HALF.search(key))
    bad_attrs = attrs is not None and not isinstance(attrs, dict)
    return (bad_key and _names(exchange, "id")) or (bad_attrs and _names(exchange, "attrs"))


def _scalars(value: Any) -> Iterator[Any]:
    """Give each scalar and each name, in no order; without recursion, for what was sent may be nested deeply."""
    left = [value]
    while left:
        match left.pop():
            case dict() as fields:
                yield from fields
                left += fields.values()
            case list() as elements:
                left += elements
            case scalar:
                yield scalar


# ------------------------------------------------------------------------------- taken by both, and more said


def _note(difference: Difference) -> str:
    """Return the note that ours added to its answer, if this is one."""
    pair = difference.pair
    return pair.ours if pair.field == "answer.notes" and isinstance(pair.ours, str) else ""


def _source_is_unknown(exchange: Exchange) -> bool:
    source = exchange.event.get("source")
    return source is not None and not (isinstance(source, str) and source in KNOWN_SOURCES)


def _source_said(difference: Difference) -> bool:
    return (
        difference.exchange is not None
        and _note(difference).startswith("source:")
        and _source_is_unknown(difference.exchange)
    )


def _unknown(event: Mapping[str, Any]) -> dict[str, Any]:
    given = event.get("attrs") or {}
    fields = {name: value for name, value in event.items() if name not in KNOWN_FIELDS | ASSIGNED_FIELDS}
    return {**given, **fields}


def _expected_attrs(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the rule makes of the fields that nobody knows: scalars, within the bounds, the first of them."""
    kept = {
        _whole(name): _whole(value)[:ATTR_CHARS_MAX] if isinstance(value, str) else value
        for name, value in _unknown(event).items()
        if not isinstance(value, dict | list) and len(name) <= ATTR_NAME_CHARS_MAX
    }
    return dict(list(kept.items())[:ATTRS_MAX])


def _attrs_kept(difference: Difference) -> bool:
    exchange, pair = difference.exchange, difference.pair
    if exchange is None:
        return False
    if pair.field == "line.attrs":
        # As text: in Python 1 equals True, and on disk it does not.
        return pair.seed is ABSENT and json.dumps(pair.ours) == json.dumps(_expected_attrs(exchange.event))
    bounded = " not kept; " in _note(difference) or ": cut to " in _note(difference)
    return bounded and _expected_attrs(exchange.event) != _unknown(exchange.event)


def _time_unread(difference: Difference) -> bool:
    return (
        difference.exchange is not None
        and _note(difference).startswith("timestamp:")
        and difference.exchange.event.get("timestamp") is not None
    )


def _outcome_unread(difference: Difference) -> bool:
    if difference.exchange is None:
        return False
    event = difference.exchange.event
    return any(
        _note(difference).startswith(f"{name}: ") and not isinstance(event.get(name), bool | None)
        for name in ("success", "ok")
    )


def _assigned_left_out(difference: Difference) -> bool:
    if difference.exchange is None:
        return False
    given = ASSIGNED_FIELDS & difference.exchange.event.keys()
    return any(_note(difference).startswith(f"{name}: assigned") for name in given)


def _journal_keys(difference: Difference) -> bool:
    exchange, pair = difference.exchange, difference.pair
    if exchange is None or pair.seed is not ABSENT:
        return False
    if pair.field in {"line.seq", "answer.seq"}:
        return bool(pair.ours == exchange.ours.kept) or (pair.field == "answer.seq" and _is_known_again(exchange))
    if pair.field == "line.recorded_at":
        return made_within(pair.ours, exchange.began, exchange.ended, digits=6)
    return pair.field == "line.id" and bool(pair.ours == exchange.event.get("id"))


def _is_known_again(exchange: Exchange) -> bool:
    return exchange.event.get("id") in exchange.ids_before


def _known_again(difference: Difference) -> bool:
    exchange, pair = difference.exchange, difference.pair
    return exchange is not None and pair == Pair("lines", 1, 0) and _is_known_again(exchange)


def _more_said(difference: Difference) -> bool:
    """Keys beside those of the seed, of a posted event's answer, `/stats` and `/health`; a note has its own entry."""
    pair = difference.pair
    if pair.seed is not ABSENT or pair.field in {"answer.notes", "answer.seq"}:
        return False
    if difference.exchange is not None:
        return pair.field.startswith("answer.")
    return re.fullmatch(r"(/stats|/health)(\?\w+=\w+)?\.\w+", pair.field) is not None


def _digits_kept(difference: Difference) -> bool:
    """JavaScript rounds a whole number beyond 2^53; the summary shows what is kept."""
    exchange, pair = difference.exchange, difference.pair
    if exchange is None:
        return False
    if pair.field in {"line.count", "line.duration_ms"}:
        whole = isinstance(pair.ours, int) and abs(pair.ours) > DOUBLE_EXACT_MAX
        return whole and isinstance(pair.seed, int | float) and float(pair.ours) == float(pair.seed)
    count = exchange.event.get("count")
    if pair.field != "line.input_summary" or not isinstance(count, int) or abs(count) <= DOUBLE_EXACT_MAX:
        return False
    rounded = re.escape(str(pair.ours)).replace(f"×{count}".replace("-", r"\-"), r"×(-?[0-9.e+]+)")
    shown = re.fullmatch(rounded, str(pair.seed), re.DOTALL)
    return shown is not None and shown.re.groups == 1 and float(shown[1]) == float(count)


# ------------------------------------------------------------------------------------------- the table


def _is(field: str, seed: object, ours: object) -> Callable[[Difference], bool]:
    return lambda difference: difference.pair == Pair(field, seed, ours)


NAMED: Final = (
    Named(
        "the line is there when the answer comes",
        "answers before the write, which may fail in silence",
        _is("line is there when the answer comes", seed=False, ours=True),
        by_chance=True,
    ),
    Named(
        "listens on the loopback only",
        "binds 0.0.0.0, no authentication",
        _is("address", seed="0.0.0.0", ours="127.0.0.1"),  # noqa: S104 - the seed's
    ),
    Named(
        "runs without a gateway",
        "exits when the gateway is unreachable",
        _is("without a gateway", seed="exits with 1", ours="runs"),
    ),
    Named("a body that is no object is refused", "a non-object body becomes an op full of defaults", _not_an_object),
    Named("a wrapper around events is refused", "unknown fields are dropped", _only_a_wrapper),
    Named("a wrong type is refused, and the field named", "wrong types pass through", _wrong_type),
    Named(
        "an unknown source is said in the answer",
        "unknown sources become `scenario` without a word",
        _source_said,
        owed=_source_is_unknown,
    ),
    Named(
        "unknown scalars are kept under attrs, within a bound",
        "unknown fields are dropped",
        _attrs_kept,
        owed=lambda exchange: bool(_expected_attrs(exchange.event)),
    ),
    Named("the answer says more", "(POST /event: more keys are fine; /stats and /health likewise)", _more_said),
    Named(
        "seq, recorded_at and id in the line, seq in the answer",
        "(design, the journal: the seed's keys in the seed's order, then `seq` and what else we add)",
        _journal_keys,
    ),
    Named("an id that was seen is not stored twice", "(design, the journal: an event may carry an `id`)", _known_again),
    Named("a bad id or bad attrs is refused", "(fields that the seed does not have)", _bad_own_field),
    Named("a given seq or recorded_at is left out", "(keys that the witness assigns)", _assigned_left_out),
    Named("a timestamp that is no time is said in the answer", "(kept as given, like the seed)", _time_unread),
    Named(
        "an outcome that is no boolean is said in the answer", "(counted as a failure, like the seed)", _outcome_unread
    ),
    Named("whole numbers beyond 2^53 keep their digits", "(JavaScript rounds them)", _digits_kept),
    Named("a number beyond a double is refused", "(the seed makes null of it)", _beyond_double),
    Named("what is not Unicode is refused", "(the line is UTF-8; the seed alters it)", _not_unicode),
    Named(
        "half of a character is kept as U+FFFD, and that is said in the answer",
        "(the line is UTF-8; the seed writes the half as an escape)",
        _half_replaced,
        owed=_has_half,
    ),
    Named("an event has a size limit", "(every bound has an answer)", _too_large),
    Named("nesting has a limit", "(every bound has an answer)", _too_deep),
)
