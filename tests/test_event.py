"""The contract's table, row by row, and what hostile bytes may do to it: nothing but a 400 that names the field."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, TypeVar

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from observer_actors.batch import EVENT_BYTES_MAX, events_at_most, newlines
from observer_actors.errors import EventInvalid, EventTooComplex
from observer_actors.event import (
    DEFAULT_SOURCES,
    ID_CHARS_MAX,
    NOTES_MAX,
    SHORT_BYTES,
    TOGETHER_BYTES,
    Event,
    EventDecoder,
    JudgedBatch,
    JudgedEvent,
    LineError,
)
from observer_actors.op import (
    ATTR_CHARS_MAX,
    ATTRS_MAX,
    Op,
    decode_op,
    encode_op,
    encode_ops,
    iso_milliseconds,
    time_us,
)
from observer_actors.secrets import Secrets

T = TypeVar("T")
NOW: Final = "2026-11-22T10:00:00.123Z"
SEEDS_KEYS: Final = (
    "timestamp", "endpoint", "input_summary", "success", "duration_ms", "output_summary", "error", "source",
    "staffer_id", "sig_hash", "event_kind", "role", "city", "state", "count", "rescue_attempted", "rescue_succeeded",
)  # fmt: skip
OUR_KEYS: Final = ("seq", "recorded_at", "id", "attrs")
AS_GIVEN: Final = ("error", "staffer_id", "sig_hash", "event_kind", "role", "city", "state")
decoder: Final = EventDecoder()


def record(**event: object) -> dict[str, Any]:
    """Give the record that an event becomes, as it stands on disk."""
    judged = decoder.one(msgspec.json.encode(event), now=NOW)
    decoded: dict[str, Any] = msgspec.json.decode(encode_op(judged.op))
    return decoded


def notes(**event: object) -> tuple[str, ...]:
    return decoder.one(msgspec.json.encode(event), now=NOW).notes


def refusal(body: bytes | dict[str, object]) -> EventInvalid:
    with pytest.raises(EventInvalid) as caught:
        decoder.one(body if isinstance(body, bytes) else msgspec.json.encode(body), now=NOW)
    return caught.value


def batch(body: bytes, lines_max: int = 100) -> JudgedBatch:
    return decoder.many(body, now=NOW, lines_max=lines_max)


# ------------------------------------------------------------------------------------------- the table, row by row


def test_an_empty_event_becomes_the_record_of_defaults_in_the_seeds_order() -> None:
    given = record()
    assert given == {
        "timestamp": NOW,
        "endpoint": "scenario:fill",
        "input_summary": "? ?×? in ?, ?",
        "success": False,
        "duration_ms": 0,
        "output_summary": "failed",
        "source": "scenario",
        "rescue_attempted": False,
        "rescue_succeeded": False,
        "seq": 0,
        "recorded_at": "",
    }
    assert list(given) == [key for key in (*SEEDS_KEYS, *OUR_KEYS) if key in given]


def test_what_is_given_is_kept_as_it_is_given() -> None:
    event = {
        "timestamp": "2026-01-02T03:04:05.678Z",
        "endpoint": "sql:run",
        "input_summary": "in",
        "success": True,
        "duration_ms": 12.5,
        "output_summary": "out",
        "error": "none",
        "source": "mcp",
        "staffer_id": "s",
        "sig_hash": "h",
        "event_kind": "fill",
        "role": "Welder",
        "city": "Ohio",
        "state": "OH",
        "count": 3,
        "rescue_attempted": True,
        "rescue_succeeded": True,
        "id": "k",
    }
    assert record(**event) == {**event, "seq": 0, "recorded_at": ""}
    assert notes(**event) == ()


@pytest.mark.parametrize("given", [{}, {"timestamp": None}])
def test_an_event_without_a_time_gets_that_of_its_arrival(given: dict[str, object]) -> None:
    assert record(**given)["timestamp"] == NOW


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "1700000000"])
def test_a_time_that_cannot_be_read_is_kept_and_said(text: str) -> None:
    assert record(timestamp=text)["timestamp"] == text
    assert notes(timestamp=text) == ("timestamp: not an ISO 8601 time; kept as given, found by its arrival",)


@pytest.mark.parametrize(
    ("source", "endpoint"),
    [
        ("auditor", "auditor:verdict"),
        ("bot", "bot:cycle"),
        ("scenario", "scenario:fill"),
        ("mcp", "scenario:fill"),
        ("elsewhere", "scenario:fill"),
        (None, "scenario:fill"),
    ],
)
def test_the_endpoint_falls_back_by_source(source: str | None, endpoint: str) -> None:
    assert record(source=source)["endpoint"] == endpoint
    assert record(source=source, endpoint=None)["endpoint"] == endpoint
    assert record(source=source, endpoint="")["endpoint"] == ""


def test_the_input_summary_falls_back_to_the_template() -> None:
    event = {"event_kind": "fill", "role": "Welder", "count": 3, "city": "Columbus", "state": "OH"}
    assert record(**event)["input_summary"] == "fill Welder×3 in Columbus, OH"
    assert record(**event, input_summary=None)["input_summary"] == "fill Welder×3 in Columbus, OH"
    assert record(**event, input_summary="")["input_summary"] == ""


@pytest.mark.parametrize("name", ["event_kind", "role", "count", "city", "state"])
def test_what_is_missing_or_null_shows_as_a_question_mark(name: str) -> None:
    event: dict[str, object] = {"event_kind": "k", "role": "r", "count": "c", "city": "y", "state": "s"}
    shown = "k r×c in y, s".replace({"event_kind": "k", "city": "y"}.get(name, name[0]), "?")
    assert record(**{**event, name: None})["input_summary"] == shown
    del event[name]
    assert record(**event)["input_summary"] == shown


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        ("3", "3"),
        ("3.0", "3"),
        ("1e2", "100"),
        ("0.5", "0.5"),
        ("-0", "0"),
        ("-0.0", "0"),
        ("1e-6", "0.000001"),
        ("1.5e-5", "0.000015"),
        ("1e-7", "1e-7"),
        ("1e-10", "1e-10"),
        ("1e20", "100000000000000000000"),
        ("1e21", "1e+21"),
        ("-1.5e300", "-1.5e+300"),
        ('"many"', "many"),
    ],
)
def test_a_count_shows_in_the_template_as_javascript_shows_it(number: str, shown: str) -> None:
    op = decoder.one(f'{{"count":{number}}}'.encode(), now=NOW).op
    assert op.input_summary == f"? ?×{shown} in ?, ?"


@pytest.mark.parametrize(
    ("given", "success"),
    [
        ({"success": True}, True),
        ({"success": False, "ok": True}, False),
        ({"success": True, "ok": False}, True),
        ({"success": None, "ok": True}, True),
        ({"success": "true", "ok": True}, True),
        ({"success": 1}, False),
        ({"ok": True}, True),
        ({"ok": "yes"}, False),
        ({"ok": 1}, False),
        ({"ok": [True]}, False),
        ({}, False),
    ],
)
def test_success_is_the_first_of_success_and_ok_that_is_a_boolean(given: dict[str, object], *, success: bool) -> None:
    assert record(**given)["success"] is success


@pytest.mark.parametrize(
    ("given", "duration_ms"),
    [
        ({"duration_ms": 5}, 5),
        ({"duration_ms": 0, "audit_duration_ms": 7}, 0),
        ({"duration_ms": None, "audit_duration_ms": 7}, 7),
        ({"audit_duration_ms": "7.5"}, 7.5),
        ({"audit_duration_ms": None}, 0),
        ({"duration_ms": -3}, -3),
        ({"duration_ms": "12"}, 12),
        ({"duration_ms": " 12\n"}, 12),
        ({"duration_ms": "\ufeff12\u00a0"}, 12),
        ({"duration_ms": ""}, 0),
        ({"duration_ms": "  "}, 0),
        ({"duration_ms": "0x10"}, 16),
        ({"duration_ms": "0b11"}, 3),
        ({"duration_ms": "0o17"}, 15),
        ({"duration_ms": "1e3"}, 1000),
        ({"duration_ms": ".5"}, 0.5),
        ({"duration_ms": "5."}, 5),
        ({"duration_ms": "+5"}, 5),
        ({"duration_ms": "-0"}, 0),
        ({"duration_ms": "1" * 80}, int(float("1" * 80))),
    ],
)
def test_the_duration_is_a_number_or_what_javascript_would_make_of_the_text(
    given: dict[str, object], duration_ms: float
) -> None:
    assert record(**given)["duration_ms"] == duration_ms


@pytest.mark.parametrize(
    "text",
    [
        "fast",
        "1_000",
        "١٢",
        "Infinity",
        "-Infinity",
        "NaN",
        "1e400",
        "12ms",
        "0x",
        "1,5",
        "\x1c1",
        "9" * 400,
        "0x" + "f" * 400,
    ],
)
def test_a_duration_text_that_is_no_finite_number_is_refused_by_name(text: str) -> None:
    assert refusal({"duration_ms": text}).field == "duration_ms"
    assert refusal({"audit_duration_ms": text}).field == "audit_duration_ms"
    assert refusal({"duration_ms": 5, "audit_duration_ms": text}).field == "audit_duration_ms"


@pytest.mark.parametrize(
    ("given", "output_summary"),
    [
        ({"output_summary": "out", "one_liner": "one", "ok": True}, "out"),
        ({"output_summary": None, "one_liner": "one", "ok": True}, "one"),
        ({"output_summary": ""}, ""),
        ({"one_liner": "", "ok": True}, ""),
        ({"ok": True, "error": "ignored"}, "ok"),
        ({"ok": False, "error": "boom"}, "boom"),
        ({"error": ""}, ""),
        ({"error": None}, "failed"),
        ({"ok": False}, "failed"),
    ],
)
def test_the_output_summary_falls_back_step_by_step(given: dict[str, object], output_summary: str) -> None:
    assert record(**given)["output_summary"] == output_summary


@pytest.mark.parametrize("name", [*AS_GIVEN, "count"])
def test_a_field_without_a_fallback_is_left_out_when_absent_and_kept_when_null(name: str) -> None:
    assert name not in record()
    assert record(**{name: None})[name] is None
    assert record(**{name: "text"})[name] == "text"


@pytest.mark.parametrize("source", sorted(DEFAULT_SOURCES))
def test_a_known_source_stays_without_a_word(source: str) -> None:
    assert record(source=source)["source"] == source
    assert notes(source=source) == ()


def test_an_absent_source_becomes_scenario_without_a_word() -> None:
    assert record()["source"] == record(source=None)["source"] == "scenario"
    assert notes() == notes(source=None) == ()


@pytest.mark.parametrize("source", ["elsewhere", "", "MCP", 5, True, ["mcp"], {"a": 1}])
def test_an_unknown_source_becomes_scenario_and_the_answer_says_so(source: object) -> None:
    assert record(source=source)["source"] == "scenario"
    (note,) = notes(source=source)
    assert note.startswith("source: ")
    assert note.endswith("is not a known source; kept as scenario")


def test_a_source_of_the_configuration_stays() -> None:
    judged = EventDecoder(["gateway"]).one(b'{"source":"gateway"}', now=NOW)
    assert (judged.op.source, judged.notes) == ("gateway", ())


@pytest.mark.parametrize(
    ("value", "truth"),
    [
        (True, True),
        (False, False),
        (None, False),
        (0, False),
        (0.0, False),
        (1, True),
        (-1, True),
        ("", False),
        ("false", True),
        ([], True),
        ({}, True),
    ],
)
@pytest.mark.parametrize("name", ["rescue_attempted", "rescue_succeeded"])
def test_rescue_is_the_truth_of_what_was_given(name: str, value: object, *, truth: bool) -> None:
    assert record(**{name: value})[name] is truth


@pytest.mark.parametrize(
    "name", ["timestamp", "endpoint", "input_summary", "output_summary", "one_liner", "id", *AS_GIVEN]
)
@pytest.mark.parametrize("value", [5, 1.5, True, ["a"], {"a": "b"}])
@pytest.mark.parametrize("more", [{}, {"own": 1}, {"city ": "unknown field"}])
def test_a_text_of_another_type_is_refused_by_name(name: str, value: object, more: dict[str, object]) -> None:
    error = refusal({**more, name: value})
    assert error.field == name
    assert str(error).startswith(f"{name}: expected `str")


@pytest.mark.parametrize("name", ["count", "duration_ms", "audit_duration_ms"])
@pytest.mark.parametrize("value", [True, [1], {"a": 1}])
def test_a_number_of_another_type_is_refused_by_name(name: str, value: object) -> None:
    assert refusal({name: value}).field == name


@pytest.mark.parametrize("length", [0, ID_CHARS_MAX + 1])
def test_an_id_has_bounds(length: int) -> None:
    assert refusal({"id": "x" * length}).field == "id"
    assert record(id="x" * ID_CHARS_MAX)["id"] == "x" * ID_CHARS_MAX


# ------------------------------------------------------------------------------------------- attributes


def test_unknown_scalars_are_kept_under_attrs_after_those_given_there() -> None:
    event = {"attrs": {"a": 1, "b": None}, "c": "text", "d": 1.5, "e": True, "a": 2}
    assert record(**event)["attrs"] == {"a": 2, "b": None, "c": "text", "d": 1.5, "e": True}
    assert notes(**event) == ()


def test_lists_objects_long_names_and_what_is_beyond_the_bound_are_not_kept_and_said() -> None:
    many = {f"k{number}": number for number in range(ATTRS_MAX + 1)}
    assert record(**many)["attrs"] == {name: many[name] for name in list(many)[:ATTRS_MAX]}
    assert notes(**many)[0].startswith(f'"k{ATTRS_MAX}": not kept; attributes are scalars')
    assert "attrs" not in record(a=[1], b={"c": 1}, **{"n" * 65: 1})
    assert notes(a=[1], b={"c": 1}, **{"n" * 65: 1}, d=[])[0].startswith('"a", "b", "nnn')


@pytest.mark.parametrize("wrapped", [{"events": [{"endpoint": "a", "success": True}]}, {"event": {"ok": True}}])
def test_a_wrapper_around_events_is_refused_by_name_and_not_kept_as_a_failure(wrapped: dict[str, object]) -> None:
    error = refusal(wrapped)
    assert error.field in wrapped
    assert "/events" in error.hint
    assert batch(msgspec.json.encode(wrapped)).errors == [LineError(1, error.detail, error.field)]
    assert record(**wrapped, tokens=1)["attrs"] == {"tokens": 1}


@pytest.mark.parametrize("body", [b'[{"ok":true}]', b'{"ok":true}\n{"ok":true}'])
def test_who_sends_many_as_one_event_is_told_where_they_go(body: bytes) -> None:
    assert "/events" in refusal(body).hint


def test_a_long_attribute_is_cut_and_said() -> None:
    event = {"text": "é" * (ATTR_CHARS_MAX + 1)}
    assert record(**event)["attrs"] == {"text": "é" * ATTR_CHARS_MAX}
    assert notes(**event) == ('"text": cut to 1,024 characters',)


def test_what_the_witness_assigns_is_left_out_and_said_in_a_fixed_order() -> None:
    assert record(seq=5, recorded_at="x")["seq"] == 0
    assert notes(seq=5, recorded_at="x") == (
        "recorded_at: assigned by the witness; the given one is left out",
        "seq: assigned by the witness; the given one is left out",
    )


@pytest.mark.parametrize("attrs", [[1], "a", 1, True])
def test_attrs_of_another_type_are_refused(attrs: object) -> None:
    assert refusal({"attrs": attrs}).field == "attrs"
    assert refusal({"attrs": attrs, "own": 1}).field == "attrs"


def test_a_note_shows_nothing_that_a_terminal_would_obey() -> None:
    (note,) = notes(source="\x1b[31m\n\u202e\x9b")
    assert note.isprintable()
    assert len(notes(source="x" * 5_000)[0]) < 120


# ------------------------------------------------------------------------------------------- hostile bytes


@pytest.mark.parametrize("body", [b"", b" ", b"{", b"{}{}", b"{} x", b"{'a':1}", b'{"a":NaNo}', b'{"city":"\x01"}'])
def test_what_is_not_json_is_refused(body: bytes) -> None:
    assert str(refusal(body)).startswith("not JSON")


@pytest.mark.parametrize("body", [b"[]", b"null", b"1", b'"x"', b"true", b"[{}]"])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    assert str(refusal(body)).startswith("expected `object`")


@pytest.mark.parametrize("name", ["city", "own"])
@pytest.mark.parametrize("text", [b"\xff", b"\xed\xa0\x80", b"\xc0\x80"])
def test_a_text_that_is_not_unicode_is_refused(name: str, text: bytes) -> None:
    assert str(refusal(b'{"%b":"%b"}' % (name.encode(), text))).startswith("not JSON")
    assert str(refusal(b'{"x%b":1}' % text)).startswith("not JSON")


HALF: Final = "half of a character in a text; kept as U+FFFD"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (rb"boom \ud83d", "boom \ufffd"),
        (rb"\uDE00\uD83D", "\ufffd\ufffd"),
        (rb"\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
        (rb"\ud83dx\\ud83d", r"\ufffdx\ud83d".replace(r"\ufffd", "\ufffd")),
        (rb"\\\ud83d", "\\\ufffd"),
        (rb"\ud83d\n", "\ufffd\n"),
    ],
)
def test_half_a_character_is_replaced_and_the_answer_says_so(text: bytes, kept: str) -> None:
    """As `JSON.stringify` and `json.dumps` write a text that was cut within a pair."""
    body = b'{"error":"%b","x%b":1}' % (text, text)
    judged = decoder.one(body, now=NOW)
    assert (judged.op.error, judged.op.attrs, judged.notes) == (kept, {f"x{kept}": 1}, (HALF,))
    good = b'{"endpoint":"a"}'
    assert decoder.several([body, good], now=NOW)[0] == judged
    for whole in (b"%b\n%b" % (body, good), b"[%b,%b]" % (body, good)):
        both = batch(whole)
        assert (len(both.ops), both.errors, both.notes) == (2, [], {HALF: 1})


def test_half_a_character_hides_no_secret() -> None:
    judged = decoder.one(rb'{"error":"\ud83dpassword=hunter2"}', now=NOW)
    assert (judged.op.error, judged.redacted) == ("\ufffdpassword=[redacted:password]", {"password": 1})


def test_an_id_with_half_a_character_is_refused_for_another_half_would_make_it_the_same() -> None:
    assert refusal(rb'{"id":"a\ud83d"}').field == "id"
    assert batch(rb'[{"id":"a\ud83d"},{"id":"b"}]').errors == [LineError(1, "id: holds half of a character", "id")]


@pytest.mark.parametrize(
    ("body", "says", "field"),
    [
        (b'{"city":"NaN","duration_ms":NaN}', "duration_ms: NaN is no JSON number", "duration_ms"),
        (b'{"attrs":{"x": -Infinity}}', "x: -Infinity is no JSON number", "x"),
        (b'{"x":[1,Infinity]}', "Infinity is no JSON number", ""),
        (b"NaN", "NaN is no JSON number", ""),
        (rb'{"x\ud800":"\ud83d","own":NaN}', "own: NaN is no JSON number", "own"),
    ],
)
def test_what_is_no_number_in_json_is_named(body: bytes, says: str, field: str) -> None:
    refused = refusal(body)
    assert (str(refused), refused.field) == (says, field)
    assert refused.hint


def test_an_op_is_one_line_of_raw_utf8_but_for_what_a_terminal_obeys() -> None:
    text = "\u2028\u2029\x00\x7f\x85\U0001f600\ufeff\U000e0041"
    line = encode_ops([decoder.one(msgspec.json.encode({"city": text}), now=NOW).op])
    assert line.count(b"\n") == 1
    assert b"\\u2028\\u2029\\u0000\\u007f\\u0085" + "\U0001f600".encode() + b"\\ufeff\\udb40\\udc41" in line
    assert decode_op(line).city == text


def test_a_byte_order_mark_before_the_event_is_passed_over() -> None:
    assert decoder.one(b'\xef\xbb\xbf{"city":"x"}', now=NOW).op.city == "x"
    assert len(batch(b"\xef\xbb\xbf[{},{}]").ops) == 2
    assert len(batch(b"\xef\xbb\xbf{}\n{}").ops) == 2


def test_of_a_key_given_twice_the_last_counts_as_in_javascript() -> None:
    assert decoder.one(b'{"city":"a","city":"b"}', now=NOW).op.city == "b"
    assert decoder.one(b'{"x":1,"x":2}', now=NOW).op.attrs == {"x": 2}
    assert decoder.one(rb'{"c\u0069ty":"escaped"}', now=NOW).op.city == "escaped"


@pytest.mark.parametrize("name", ["duration_ms", "audit_duration_ms", "count"])
@pytest.mark.parametrize("number", [b"1e999", b"9" * 400, b"-" + b"9" * 400, b"9" * 5_000])
def test_a_number_beyond_a_double_is_refused_by_name(name: str, number: bytes) -> None:
    assert refusal(b'{"%b":%b}' % (name.encode(), number)).field == name
    usual = b'{"endpoint":"a","input_summary":"b","success":true,"source":"mcp","%b":%b}' % (name.encode(), number)
    assert refusal(usual).field == name
    assert [error.field for error in batch(usual).errors] == [name]
    assert decoder.several([usual, b"{}"], now=NOW)[0] is None


def test_an_attribute_beyond_a_double_is_refused() -> None:
    assert decoder.one(b'{"y":%b}' % (b"9" * 25), now=NOW).op.attrs == {"y": 10**25 - 1}
    assert refusal(b'{"x":%b}' % (b"9" * 400)).field == "x"
    assert refusal(b'{"attrs":{"x":%b}}' % (b"9" * 400)).field == "x"
    assert str(refusal(b'{"x":1e999}')) == "a number is out of range"


@pytest.mark.parametrize("name", ["ok", "source", "attrs", "own", "city"])
@pytest.mark.parametrize(("left", "right"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_deep_nesting_is_an_error_and_no_crash(name: str, left: bytes, right: bytes) -> None:
    depth = 30_000
    refusal(b'{"%b":%b1%b}' % (name.encode(), left * depth, right * depth))
    refusal(left * depth)
    batch_of_one = batch(b'{"%b":%b1%b}\n{}' % (name.encode(), left * depth, right * depth))
    assert ([error.line for error in batch_of_one.errors], len(batch_of_one.ops)) == ([1], 1)


@pytest.mark.parametrize("name", ["ok", "source", "attrs", "own", "rescue_attempted", "rescue_succeeded"])
@pytest.mark.parametrize("depth", [33, 1_400, 5_000, 30_000])
def test_nesting_has_one_answer_however_deep_it_is(name: str, depth: int) -> None:
    nested = b'{"a":' * depth + b"1" + b"}" * depth
    body = b'{"%b":%b}' % (name.encode(), nested)
    for event in (body, b'{"city":"password=hunter2",' + body[1:]):
        refused = refusal(event)
        assert (type(refused), refused.limit) == (EventTooComplex, "listen.depth_max")
        assert str(refused) == "is nested more than 32 levels deep"


def test_an_element_nested_too_deeply_costs_no_other() -> None:
    judged = batch(b'[{},{"a":%b%b},NaN]' % (b"[" * 500, b"]" * 500))
    assert (len(judged.ops), judged.errors[0]) == (1, LineError(2, "is nested more than 32 levels deep"))


def test_an_event_has_a_size() -> None:
    body = b'{"city":"%b"}'
    room = EVENT_BYTES_MAX - len(body) + 2
    assert len(decoder.one(body % (b"x" * room), now=NOW).op.input_summary) > room
    assert "at most 262,144 bytes" in str(refusal(body % (b"x" * (room + 1))))


# ------------------------------------------------------------------------------------------- batches


def test_each_line_is_judged_by_itself_under_its_own_number() -> None:
    judged = batch(b'{"city":"a"}\r\n\r\n{"city":5}\n  \nnope\n\n{"city":"b"}\n')
    assert [op.city for op in judged.ops] == ["a", "b"]
    assert [(error.line, error.field) for error in judged.errors] == [(3, "city"), (5, "")]


def test_elements_of_an_array_are_judged_by_position() -> None:
    judged = batch(b' \n[{"city":"a"}, {"city":5}, 7, [],\n{"city":"b"}]\n')
    assert [op.city for op in judged.ops] == ["a", "b"]
    assert [error.line for error in judged.errors] == [2, 3, 4]
    assert judged.errors[0] == LineError(2, "city: expected `str | null`, got `int`", "city")


@pytest.mark.parametrize("body", [b"", b" \r\n \n", b"[]", b" [ ] ", b"\xef\xbb\xbf"])
def test_an_empty_batch_is_an_error(body: bytes) -> None:
    with pytest.raises(EventInvalid, match="empty"):
        batch(body)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"[{}", "it has no end"),
        (b'[{},{"a":"', "element 2 is not JSON at its byte 6"),
        (b"[" * 50_000, "element 1 is nested too deeply to say where it ends"),
        (b"[{},%b%b]" % (b"[" * 50_000, b"]" * 50_000), "element 2 is nested too deeply to say where it ends"),
        (b"[{},", "element 2 is not JSON at its byte 1"),
        (b"[{},]", "element 2 is not JSON at its byte 1"),
        (b"[,{}]", "element 1 is not JSON at its byte 1"),
        (b"[{},,{}]", "element 2 is not JSON at its byte 1"),
        (b"[nope,{}]", "element 1 is not JSON at its byte 1"),
        (b"[{} x,{}]", "element 1 is not one value"),
        (b'[{}:1,"a" "b"]', "element 1 is not one value"),
        (b'[{},"a" "b"]', "element 2 is not one value"),
        (b"[{}] x", "something stands behind its end"),
        (b"[{}]]", "something stands behind its end"),
        (b'[NaN,{"a":["]}]', "element 2 is not JSON at its byte 7"),
        (b'[NaN,{"a":"%b"}]' % (b"x" * EVENT_BYTES_MAX), "element 2 is longer than 262,144 bytes"),
        (
            b'[{"a":"%b' % (b"x" * 3 * EVENT_BYTES_MAX),
            "element 1 is not JSON at its byte 6, or longer than 262,144 bytes",
        ),
    ],
)
def test_a_broken_array_is_an_error_of_the_whole(body: bytes, why: str) -> None:
    with pytest.raises(EventInvalid, match=f"^not a JSON array: {why}$"):
        batch(body)


@pytest.mark.parametrize(
    "bad",
    [
        b'{"duration_ms":NaN}',
        b"-Infinity",
        b'{"a":"\x01"}',
        b'"\xff"',
        b'{"a":"%b\xe9","b":[NaN,%b]}' % (b"\xc3\xa9" * 50_000, b"9" * 5_000),
        b"[%b]" % (b"[" * 500 + b"NaN" + b"]" * 500),
    ],
)
def test_an_element_that_is_nearly_json_costs_no_other(bad: bytes) -> None:
    judged = batch(b' [ {"city":"a,]"} ,\n%b\t, {"city":"\\"[,"}]\r\n' % bad)
    assert [op.city for op in judged.ops] == ["a,]", '"[,']
    assert [(error.line, error.error) for error in judged.errors] == [(2, str(refusal(bad)))]


@pytest.mark.parametrize(
    "bad",
    [
        (b'{"endpoint":"/x"y"}', b'{"endpoint":"/x"y"}'),
        (b'{"a":"b",c"}', b'{"a":"b"c"}'),
        (b'{"a":[1}', b'{"a":1]}'),
        (b'{"a":{"b":1}', b'{"c":1}}'),
        (b"[1", b"1]]"),
        (b'{"a":"\\"}', b'{"a":""}'),
    ],
)
def test_a_good_event_between_two_that_are_not_json_is_never_taken_for_a_part_of_them(bad: tuple[bytes, bytes]) -> None:
    """Where two such would be taken for one, all between them would be lost behind a 200."""
    for between in (b'{"city":"b"}', b'{"city":"b"},{"city":"c"}'):
        with pytest.raises(EventInvalid, match=r"^not a JSON array: "):
            batch(b'[{"city":"a"},%b,%b,%b,{"city":"d"}]' % (bad[0], between, bad[1]))


def test_elements_are_told_apart_wherever_they_stand_in_a_large_array() -> None:
    lengths = [1, 70_000, EVENT_BYTES_MAX - 20, 30, 150_000, EVENT_BYTES_MAX - 20, EVENT_BYTES_MAX - 20, 2]
    elements = [b'{"own":"%b"}' % (b"x" * length) for length in lengths]
    judged = batch(b"[" + b" ,\n".join([*elements, b"NaN", *elements]) + b"]")
    assert (len(judged.ops), [error.line for error in judged.errors]) == (2 * len(elements), [len(elements) + 1])


def test_a_batch_has_a_number_of_events_and_blank_lines_do_not_count() -> None:
    assert len(batch(b"\n" * 50 + b"{}\n\n\n" * 10, lines_max=10).ops) == 10
    assert len(batch(b"[" + b"{}," * 9 + b"{}]", lines_max=10).ops) == 10
    for body in (b"{}\n" * 11, b"[" + b"{}," * 10 + b"{}]", b"x\n" * 11):
        with pytest.raises(EventInvalid, match="at most 10 events"):
            batch(body, lines_max=10)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf", b" \r\n" * 100])
def test_how_many_events_a_batch_may_hold_is_known_beforehand(mark: bytes) -> None:
    for body in (b"{}\n{}\n{}", b"[{},{},{}]", b"[1,1,1]"):
        assert events_at_most(mark + body, 1_000) >= 3
        assert events_at_most(mark + body, 2) == 2
    assert events_at_most(mark + b"[" + b",".join([b"{}"] * 50) + b"]", 1_000) == 50


def test_an_array_of_millions_is_refused_before_it_is_taken_apart() -> None:
    body = b'["a,\\",",[1,2],' + b"1," * 1_200_000 + b"and no end"  # which who takes it apart would find first
    with pytest.raises(EventInvalid, match="at most 50,000 events"):
        batch(body, lines_max=50_000)


def test_a_large_array_of_few_events_is_taken_for_all_its_commas() -> None:
    event = b'{"own":[' + b"1," * 1_000 + b'1],"city":"a,\\",b"}'
    judged = batch(b"[" + b",".join([event] * 1_001) + b"]", lines_max=1_001)
    assert (len(judged.ops), len(judged.errors)) == (1_001, 0)


def test_notes_of_a_batch_are_counted_and_bounded() -> None:
    judged = batch(b"\n".join(b'{"source":"s%d"}' % (number % 50) for number in range(100)))
    assert len(judged.notes) == NOTES_MAX + 1
    assert judged.notes["further notes"] == 100 - 2 * NOTES_MAX


# ------------------------------------------------------------------------------------------- properties

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.one_of(st.integers(-(10**30), 10**30), st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 9))
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3))
names = st.sampled_from([*Event.__struct_fields__, "seq", "recorded_at"]) | texts
wild_events = st.dictionaries(names, values, max_size=12)
good_events = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys((*AS_GIVEN, "timestamp", "endpoint", "input_summary", "output_summary"), st.none() | texts),
        **dict.fromkeys(("count", "duration_ms"), st.none() | numbers),
        **dict.fromkeys(("success", "ok", "source", "rescue_attempted"), values),
        "attrs": st.dictionaries(texts, scalars, max_size=5),
        "own": scalars,
    },
)


@given(good_events)
def test_an_op_comes_back_from_disk_as_it_went(event: dict[str, Any]) -> None:
    op = decoder.one(msgspec.json.encode(event), now=NOW).op
    line = encode_op(op)
    assert decode_op(line) == op
    assert encode_op(decode_op(line)) == line
    assert b"\n" not in line
    keys = list(json.loads(line))
    assert keys == [key for key in (*SEEDS_KEYS, *OUR_KEYS) if key in keys]


def judged_or_refused(judge: Callable[[], T]) -> T | EventInvalid:
    try:
        return judge()
    except EventInvalid as error:
        return error


@given(wild_events)
@example({"0\x1f\x1f\x1f\x1f\x1f\x08" + "\U00010000" * 4: {}})
def test_any_object_becomes_an_op_or_an_error_that_names_a_field(event: dict[str, Any]) -> None:
    judged = judged_or_refused(lambda: decoder.one(msgspec.json.encode(event), now=NOW))
    if isinstance(judged, EventInvalid):
        assert judged.field in {ascii(name)[1:-1] for name in event}
    else:
        assert decode_op(encode_op(judged.op)) == judged.op


@given(st.binary(max_size=80) | values.map(msgspec.json.encode))
@example(b'{"city":"\\ud800"}')
@example(b'{"":0,"\xff":0}')
def test_any_bytes_give_an_op_or_an_error_of_ours(body: bytes) -> None:
    judged_or_refused(lambda: decoder.one(body, now=NOW))
    judged_or_refused(lambda: batch(body, 5))


@given(st.lists(wild_events, min_size=1, max_size=6))
def test_lines_and_elements_are_judged_alike(events: list[dict[str, Any]]) -> None:
    lines = [msgspec.json.encode(event) for event in events]
    as_lines = batch(b"\n".join(lines))
    assert as_lines == batch(b"[" + b",".join(lines) + b"]")
    assert len(as_lines.ops) + len(as_lines.errors) == len(events)


# What is within the usual form and just beyond it, field by field.
nearly_usual = st.fixed_dictionaries(
    {
        "endpoint": st.sampled_from(["sql:run", "", None]),
        "input_summary": st.sampled_from(["in", None]),
        "success": st.sampled_from([True, False, None, 1]),
        "source": st.sampled_from(["mcp", "bot", "nobody", None]),
    },
    optional={
        "timestamp": st.sampled_from([NOW, "", "yesterday", None]),
        "duration_ms": st.sampled_from([0, 1.5, -3, 2**53 + 1, 10**400, "12", None]),
        "output_summary": st.sampled_from(["out", "", None]),
        "error": st.sampled_from(["timeout", "", None, 5]),
        "count": st.sampled_from([3, 3.0, "three", 10**400, None]),
        "rescue_attempted": st.sampled_from([True, False, 1, None]),
        "id": st.sampled_from(["key", "", "k" * (ID_CHARS_MAX + 1), None]),
        "attrs": st.sampled_from([{}, {"a": 1}, {"a": [1]}, {"a": 10**400}, {"a": "x" * 2_000}, None]),
        "seq": st.just(7),
        "own": st.just("field"),
    },
)


@given(nearly_usual)
def test_the_one_pass_way_gives_what_the_long_way_gives(event: dict[str, Any]) -> None:
    body = json.dumps(event).encode()
    as_it_is = judged_or_refused(lambda: decoder.one(body, now=NOW))
    the_long_way = judged_or_refused(lambda: decoder.one(b"\xef\xbb\xbf" + body, now=NOW))  # a mark is never usual
    assert str(as_it_is) == str(the_long_way)
    together = judged_or_refused(lambda: batch(b"\n".join([body] * 3)))
    assert isinstance(together, JudgedBatch)
    assert [str(op) for op in together.ops] == ([str(as_it_is.op)] * 3 if isinstance(as_it_is, JudgedEvent) else [])


@pytest.mark.parametrize(
    "body",
    [b'{"endpoint":"a",\n"input_summary":"b","success":true,"source":"mcp"}', b'{"endpoint":"a"}{"endpoint":"b"}'],
)
def test_a_value_on_two_lines_and_two_values_on_one_are_no_ndjson(body: bytes) -> None:
    assert batch(body).ops == []


@given(st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)))  # noqa: DTZ001 - made aware below
def test_a_time_is_read_as_it_was_written(time: datetime) -> None:
    aware = time.replace(tzinfo=UTC, microsecond=time.microsecond // 1000 * 1000)
    text = iso_milliseconds(aware)
    assert text.endswith("Z")
    assert len(text) == len(NOW)
    micros = time_us(text)
    assert micros is not None
    assert (aware - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1e6 == pytest.approx(micros, abs=1_000)


@given(st.text(max_size=30))
def test_any_text_is_a_time_or_none(text: str) -> None:
    assert time_us(text) is None or isinstance(time_us(text), int)


def test_ops_are_encoded_a_line_each() -> None:
    op = Op(timestamp="t", endpoint="e", input_summary="i", success=True, duration_ms=1, output_summary="o", source="m")
    assert encode_ops([op, op]) == (encode_op(op) + b"\n") * 2


@pytest.mark.parametrize("rule", ["corp key (\\S+).*$", "^.*corp key (\\S+)", "corp key \\S+$"])
def test_a_rule_that_reaches_to_the_end_of_a_body_finds_as_much_in_several(rule: str) -> None:
    decoder = EventDecoder(secrets=Secrets([f"corp={rule}"]))
    body = b'{"endpoint":"a","success":true,"source":"bot","input_summary":"the corp key SECRET1"}'
    plain = b'{"endpoint":"a","success":true,"source":"bot","input_summary":"x"}'
    alone = decoder.one(body, now=NOW)
    assert [event and event.op for event in decoder.several([plain, body, plain], now=NOW)][1] == alone.op


def test_of_several_that_may_hold_secrets_only_so_much_is_judged_together() -> None:
    long = msgspec.json.encode({"error": "password=hunter2 " + "x" * (TOGETHER_BYTES // 3)})
    judged = decoder.several([b"{}", long, long, b"{}", long, b"{}"], now=NOW)
    assert [event is not None for event in judged] == [True, True, True, True, False, False]


@pytest.mark.parametrize(("body", "is_short"), [(b'{"error":"e"}', True), (b'{"error":"password=hunter2"}', False)])
def test_what_is_long_or_may_hold_a_secret_takes_long_to_judge(body: bytes, *, is_short: bool) -> None:
    assert decoder.is_short(body) is is_short
    assert not decoder.is_short(body + b" " * SHORT_BYTES)


FRAGMENTS: Final = (
    b'{"endpoint":"a","input_summary":"b","success":true,"source":"bot"}',
    b'{"endpoint":"c","input_summary":"d","success":false,"source":"mcp","error":"e"}',
    b'{"endpoint":"a","input_summary":"sk-ant-api03-' + b"x" * 60 + b'","success":true,"source":"bot"}',
    b'{"city":"x","colour":"green"}',
    b"\n",
    b"[",
    b"]",
    b" ",
    b",",
    b'{"a":',
    b"1}",
    b"{}",
    b"null",
    b"\xef\xbb\xbf",
    b"\xff",
)


@given(st.lists(st.lists(st.sampled_from(FRAGMENTS), max_size=3).map(b"".join), min_size=1, max_size=5))
def test_several_are_judged_as_each_by_itself(bodies: list[bytes]) -> None:
    decoder = EventDecoder()

    def alone(body: bytes) -> JudgedEvent | None:
        try:
            return decoder.one(body, now=NOW)
        except EventInvalid:
            return None

    assert list(decoder.several(bodies, now=NOW)) == [alone(body) for body in bodies]


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=12).map(b"".join), st.integers(0, 6))
def test_a_batch_is_judged_as_line_by_line(body: bytes, lines_max: int) -> None:
    decoder, slow = EventDecoder(), EventDecoder()
    slow._may_be_usual = False  # noqa: SLF001 - so that it has the long way only
    both = [judged_or_refused(partial(one.many, body, now=NOW, lines_max=lines_max)) for one in (decoder, slow)]
    assert str(both[0]) == str(both[1])


def test_a_usual_line_is_no_larger_than_any_event_may_be() -> None:
    usual = b'{"endpoint":"a","input_summary":"%b","success":true,"source":"bot"}'
    fits, too_large = usual % (b"x" * (EVENT_BYTES_MAX - len(usual) + 2)), usual % (b"x" * EVENT_BYTES_MAX)
    assert len(fits) == EVENT_BYTES_MAX
    judged = batch(b"\n".join([fits, too_large]))
    assert (len(judged.ops), [error.line for error in judged.errors]) == (1, [2])
    assert [event is not None for event in EventDecoder().several([fits, too_large], now=NOW)] == [True, False]


@given(st.lists(st.sampled_from([b"\n", b"a", b"bc"]), max_size=20).map(b"".join), st.integers(-1, 8))
def test_newlines_are_counted_up_to_a_bound(data: bytes, most: int) -> None:
    count = data.count(b"\n")
    assert newlines(data, most) == (count if most < 0 else min(count, most))


def test_an_element_on_several_lines_is_no_larger_than_any_event_may_be() -> None:
    fields = ",\n".join(
        f'"{name}":"{"x" * 60_000}"' for name in ("endpoint", "input_summary", "error", "city", "state")
    )
    judged = batch(f'[{{"success":true,"source":"mcp",\n{fields}}}]'.encode())
    assert (judged.ops, len(judged.errors)) == ([], 1)
    assert "262,144" in judged.errors[0].error


@pytest.mark.parametrize("decoder", [EventDecoder(depth_max=1), EventDecoder(fields_max=3)], ids=["depth", "fields"])
def test_bounds_closer_than_those_of_the_usual_form_hold_for_it_too(decoder: EventDecoder) -> None:
    event = {"endpoint": "e", "input_summary": "i", "success": True, "source": "mcp", "attrs": dict.fromkeys("abcd", 1)}
    body = msgspec.json.encode(event)
    with pytest.raises(EventTooComplex):
        decoder.one(body, now=NOW)
    assert decoder.several([body, body], now=NOW) == [None, None]
    assert decoder.many(body, now=NOW, lines_max=5).ops == []
