"""What is posted: the written bodies, a row of the contract's table after the other. The made ones: `made`."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

FIELDS_AS_GIVEN: Final = ("staffer_id", "sig_hash", "event_kind", "role", "city", "state", "count")


@dataclass(frozen=True)
class Body:
    """The body of one `POST /event`, and how it is sent."""

    label: str
    content: bytes
    content_type: str | None = "application/json"
    chunked: bool = False


def written() -> list[Body]:
    """Return every written body, in an order that is always the same."""
    return [
        *(Body(f"{row}: {_short(event)}", _json(event)) for row, event in _events()),
        *(Body(f"text: {text[:60]!r}", text) for text in _TEXTS),
        *(Body(f"number: {text}", f'{{"{field}":{text}}}'.encode()) for field, text in _numbers()),
        *(Body(f"sent as {kind}", _json({"role": kind}), content_type=kind) for kind in _CONTENT_TYPES),
        Body("sent in chunks", _json(_COMPLETE), chunked=True),
        Body("an event of 300 kB", _json({"error": "é" * 150_000})),
        Body("an event of 200 kB", _json({"error": "é" * 100_000})),
        Body("nested deeply in a field nobody knows", b'{"deep":' + b"[" * 5_000 + b"]" * 5_000 + b"}"),
    ]


_COMPLETE: Final[Mapping[str, Any]] = {
    "timestamp": "2026-04-22T10:11:12.131Z",
    "endpoint": "scenario:fill",
    "input_summary": "fill Welder×3 in Toledo, OH",
    "success": False,
    "duration_ms": 1_234,
    "output_summary": "no workers → gave up",
    "error": "drift abort",
    "source": "scenario",
    "staffer_id": "kim",
    "sig_hash": "ab12cd34",
    "event_kind": "baseline_fill",
    "role": "Welder",
    "city": "Toledo",
    "state": "OH",
    "count": 3,
    "rescue_attempted": True,
    "rescue_succeeded": False,
}

_SOURCES: Final = ("mcp", "scenario", "auditor", "bot")
_UNKNOWN_SOURCES: Final = ("", "MCP", "cron", "auditor ", "ünbekannt", 5, True, ["mcp"], {"mcp": 1})
_TRUTHS: Final[tuple[Any, ...]] = (True, False, 0, 1, -1, 0.0, 0.5, "", "0", "false", " ", [], {}, [0], None)
_TEXT_VALUES: Final = (
    "", " ", "plain", "null", "Łódź", "日本語", "👩‍👩‍👧 🏳️‍🌈", "e\u0301", "\u202eright to left", 'a"b\\c/d',
    "a\tb\r\nc", "\u0000\u0001\u001f\u007f", "\u2028\u2029", "\ufeff", "\U0010ffff", '{"a":1}', "x" * 5_000,
)  # fmt: skip
_WRONG_FOR_TEXT: Final[tuple[Any, ...]] = (7, 1.5, True, False, ["a"], {"a": "b"}, [], {})
_TEXT_FIELDS: Final = (
    "timestamp", "endpoint", "input_summary", "output_summary", "one_liner", "error",
    *FIELDS_AS_GIVEN[:-1],
)  # fmt: skip
_NUMERIC_STRINGS: Final = (
    "12", "12.5", " 12 ", "\t12\n", "", " ", "0", "-0", "+5", "-7", ".5", "5.", "1e3", "1E-3", "007", "0x1F", "0o17",
    "0b101", "-0x1F", "1_000", "1,5", "abc", "12ms", "Infinity", "-Infinity", "NaN", "١٢", "12345678901234567890",
    "1e300", "1e400", "12345678901234567890123", "\u00a012\u2003", "0.1", "123456789.123456789", "9007199254740993",
    "\ufeff12", "1" * 80,
)  # fmt: skip
_CONTENT_TYPES: Final = (
    None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "image/png",
    "application/json; charset=iso-8859-1", "nonsense",
)  # fmt: skip


def _events() -> Iterator[tuple[str, Any]]:
    yield "nothing at all", {}
    yield "everything", dict(_COMPLETE)
    yield "everything, turned round", dict(reversed(list(_COMPLETE.items())))
    yield "everything null", dict.fromkeys(_COMPLETE)
    for name in _COMPLETE:
        yield f"{name} absent", {k: v for k, v in _COMPLETE.items() if k != name}
        yield f"{name} null", {**_COMPLETE, name: None}
        yield f"{name} alone", {name: _COMPLETE[name]}
    yield from _sources()
    yield from _outcomes()
    yield from _durations()
    yield from _summaries()
    yield from _values()
    yield from _beyond_the_table()
    for other in (None, [], [1], [_COMPLETE], "text", "", 3, 0, 1.5, True, False):
        yield "not an object", other


def _sources() -> Iterator[tuple[str, Any]]:
    for source in (*_SOURCES, *_UNKNOWN_SOURCES):
        for rest in ({}, {"endpoint": "own"}, {"endpoint": None}, {"endpoint": ""}):
            yield "source and endpoint", {"source": source, **rest}


def _outcomes() -> Iterator[tuple[str, Any]]:
    flags: Iterator[tuple[Any, Any]] = product((True, False, None, "true", 1, 0, []), (True, False, None, "false", 1))
    for success, ok in flags:
        yield "success before ok", {"success": success, "ok": ok}
    yield "ok alone", {"ok": True}
    for field in ("rescue_attempted", "rescue_succeeded"):
        for value in _TRUTHS:
            yield "truth", {field: value}


def _durations() -> Iterator[tuple[str, Any]]:
    for text in _NUMERIC_STRINGS:
        yield "numeric string", {"duration_ms": text}
        yield "numeric string", {"audit_duration_ms": text}
        yield "numeric string in a count", {"count": text}
    for wrong in (True, False, [], [5], {}, {"ms": 5}):
        yield "duration of a wrong type", {"duration_ms": wrong}
    yield "duration before audit duration", {"duration_ms": 5, "audit_duration_ms": 7}
    yield "duration before audit duration", {"duration_ms": 0, "audit_duration_ms": 7}
    yield "duration before audit duration", {"duration_ms": None, "audit_duration_ms": 7}
    yield "duration before audit duration", {"duration_ms": "", "audit_duration_ms": 7}
    yield "duration before audit duration", {"duration_ms": 5, "audit_duration_ms": "abc"}


def _summaries() -> Iterator[tuple[str, Any]]:
    for ok in (True, False):
        for output, line, error in product(("done", "", None), ("one line", "", None), ("broke", "", None)):
            event = {"output_summary": output, "one_liner": line, "error": error}
            yield "output summary", {"success": ok, **event}
        yield "output summary", {"success": ok, "error": "broke"}
        yield "output summary", {"success": ok}
    parts = {"event_kind": "fill", "role": "Welder", "count": 3, "city": "Toledo", "state": "OH"}
    for name in parts:
        for value in (None, "", "0", 0 if name == "count" else "×"):
            yield "input summary", {**parts, name: value}
        yield "input summary", {k: v for k, v in parts.items() if k != name}


def _values() -> Iterator[tuple[str, Any]]:
    for name in _TEXT_FIELDS:
        for text in _TEXT_VALUES:
            yield "text", {name: text}
        for wrong in _WRONG_FOR_TEXT:
            yield "wrong type", {name: wrong}
    for wrong in (True, [], [3], {}, {"n": 3}):
        yield "wrong type", {"count": wrong}
    for time in ("2026-04-22", "2026-04-22T10:11:12", "2026-04-22T10:11:12+02:00", "yesterday", "", "1766400000"):
        yield "timestamp", {"timestamp": time}


def _beyond_the_table() -> Iterator[tuple[str, Any]]:
    yield "unknown scalar", {"model": "qwen2.5", "tokens": 12, "cost": 0.25, "cached": True, "parent": None}
    yield "unknown compound", {"tags": ["a"], "usage": {"in": 1}}
    yield "unknown wrapper", {"events": [{"ok": True}]}
    yield "unknown, of both kinds", {"tags": ["a"], "tokens": 12}
    yield "unknown, too many", {f"k{n}": n for n in range(40)}
    yield "unknown, too long", {"note": "é" * 2_000, "n" * 100: 1}
    yield "unknown names of JavaScript", {"__proto__": {"city": "X"}, "constructor": 1, "toString": "x", "": 0}
    yield "attrs", {"attrs": {"a": 1, "b": "c"}, "d": 2}
    yield "attrs null", {"attrs": None}
    yield "attrs of a wrong type", {"attrs": [1]}
    yield "id", {"id": "one-of-a-kind", "city": "Toledo"}
    yield "id again", {"id": "one-of-a-kind", "city": "Toledo"}
    yield "id null", {"id": None}
    yield "id empty", {"id": ""}
    yield "id too long", {"id": "x" * 200}
    yield "id of a wrong type", {"id": 5}
    yield "names that the witness assigns", {"seq": 99, "recorded_at": "2020-01-01T00:00:00Z"}


_TEXTS: Final = (
    b"", b" ", b"nope", b"{", b"}", b'{"a"', b'{"a":', b'{"a":1', b'{"a":1,}', b"{,}", b"{'a':1}", b"{a:1}",
    b'{"a":1} x', b'{"a":1}{"a":1}', b'{"a":01}', b'{"a":1.}', b'{"a":.5}', b'{"a":+1}', b'{"a":-}', b'{"a":0x1}',
    b'{"a":NaN}', b'{"a":Infinity}', b'{"a":undefined}', b'{"a":tru}', b'{"a":"\\x41"}', b'{"a":"\\u00g0"}',
    b'{"a":"line\nbreak"}', b'{"a":"tab\there"}', b'{"a":"nul\x00"}', b"// c\n{}", b'{"a":/**/1}', b"\x00{}",
    b"{}\x00", b"\x0b{}", b"\xc2\xa0{}", b" \t\r\n{ \t\r\n} \t\r\n", b'\xef\xbb\xbf{"city":"a byte order mark"}',
    b'{"city":"first","city":"last"}', b'{"city":"\\u00e9\\ud83d\\ude00\\/\\b\\f"}', b'{"c\\u0069ty":"escaped name"}',
    b'{"city":"lone \\ud800 high"}', b'{"city":"lone \\udc00 low"}', b'{"city":"not UTF-8 \xff"}',
    b'{"other":"not UTF-8 \xe9t\xe9"}', b'{"city":"surrogate \xed\xa0\x80"}', b'{"other":"\\ud800"}',
    b'{"error":"cut \\ud83d","success":false,"\\udc00":"\\ud83d\\ud83d\\ude00"}',
    b'{"id":"half an id \\ud83d"}',
)  # fmt: skip

_NUMBERS: Final = (
    "0", "-0", "-0.0", "1.0", "1.5", "0.1", "100.0", "1e3", "1E+2", "1e-7", "1.5e-10", "123456.789", "1e16", "1e20",
    "1e21", "1.5e300", "9007199254740991", "9007199254740993", "12345678901234567890", "-9223372036854775809",
    "18446744073709551616", "123456789012345678901234567890", "5e-324", "1e-400", "0.30000000000000004",
    "1.7976931348623157e308", "1e400", "-1e400", "1" * 400,
)  # fmt: skip


def _numbers() -> Iterator[tuple[str, str]]:
    for field in ("duration_ms", "audit_duration_ms", "count", "rescue_attempted", "reading"):
        for text in _NUMBERS:
            yield field, text


def _json(event: object) -> bytes:
    return json.dumps(event, ensure_ascii=False).encode()


def _short(event: object) -> str:
    text = json.dumps(event)
    return text if len(text) <= 80 else text[:77] + "…"
