"""What a request asks for: query parameters and small bodies, each mistake named."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Final, TypeVar

import msgspec

from observer_actors.errors import QueryInvalid, RequestInvalid
from observer_actors.journal import Query
from observer_actors.labels import bounded_endpoint
from observer_actors.op import time_us
from observer_actors.problems import UNREADABLE
from observer_actors.visible import cut

T = TypeVar("T")

Parameter = Callable[[str, str], Any]
"""Reads the text of a parameter, given its name for an error."""

LIMIT_DEFAULT: Final = 100
LIMIT_MAX: Final = 1_000
CURSOR: Final = re.compile(r"^(newest|oldest)-([0-9]{1,18})$")
"""Written so that it is one of ECMA-262, too, as the description of the API wants it."""
SEQ_DIGITS_MAX: Final = 18
Seq = Annotated[int, msgspec.Meta(ge=0, lt=10**SEQ_DIGITS_MAX)]
Time = Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]
"""Both as they are described."""
TimeOrEmpty = Annotated[str, msgspec.Meta(extra_json_schema={"anyOf": [{"format": "date-time"}, {"const": ""}]})]
ERROR_CHARS_MAX: Final = 200
"""Of what is said of a body: it repeats the names of fields, which may be as long as the body."""


def parse_ops_query(parameters: Iterable[tuple[str, str]]) -> Query:
    """Read the parameters of `GET /ops`.

    Newest first, unless ``order=oldest`` or ``after_seq`` is given without an order.

    :raises QueryInvalid: names the parameter, and the nearest known one for a name that is not known.
    """
    values = parse_parameters(parameters, _PARAMETERS, "/ops")
    order = values.pop("order", None)
    newest_first = order == "newest" if order else "after_seq" not in values
    cursor = values.pop("cursor", None)
    if cursor is not None:
        if order and newest_first != cursor[0]:
            raise QueryInvalid("goes the other way", field="order", hint="keep the order that the cursor was given for")
        newest_first, bound = cursor
        if newest_first:
            values["before_seq"] = min(bound, values.get("before_seq", bound))
        else:
            values["after_seq"] = max(bound, values.get("after_seq", bound))
    values.setdefault("limit", LIMIT_DEFAULT)
    since_us, until_us = values.pop("since", None), values.pop("until", None)
    return Query(newest_first=newest_first, since_us=since_us, until_us=until_us, **values)


def parse_parameters(
    parameters: Iterable[tuple[str, str]], known: Mapping[str, Parameter], path: str
) -> dict[str, Any]:
    """Read the parameters of a query, each by its name.

    :raises QueryInvalid: names the parameter, and the nearest known one for a name that is not known.
    """
    given: dict[str, str] = {}
    for name, text in parameters:
        if name in given:
            raise QueryInvalid("is given more than once", field=name)
        given[name] = text
        if name not in known:
            nearest = difflib.get_close_matches(name, known, 1)
            others = "known are " + ", ".join(known) if known else "it takes none"
            hint = f"did you mean {nearest[0]}?" if nearest else others
            raise QueryInvalid(f"is not a parameter of {path}", field=ascii(name)[1:-1][:60], hint=hint)
    return {name: known[name](text, name) for name, text in given.items()}


def parse_body(body: bytes, kind: type[T], example: str) -> T:
    """Read a body of a few fields.

    :raises RequestInvalid: it is none of its kind; the example is the hint.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except UNREADABLE as error:
        raise RequestInvalid(f"the body: {cut(str(error), ERROR_CHARS_MAX)}", hint=example) from error


def cursor_after(query: Query, seq: int) -> str:
    """Give the cursor that goes on behind ``seq``."""
    return f"{'newest' if query.newest_first else 'oldest'}-{seq}"


def parse_seq(text: str, name: str) -> int:
    """Read a seq: up to 18 digits."""
    if not (text.isascii() and text.isdigit() and len(text) <= SEQ_DIGITS_MAX):
        raise QueryInvalid(f"{text[:40]!a} is not a whole number from 0", field=name)
    return int(text)


def parse_text(text: str, _name: str) -> str:
    """Take a text as it is."""
    return text


def parse_short(chars_max: int) -> Callable[[str, str], str]:
    """Give what takes a text of so many characters at most."""

    def parse(text: str, name: str) -> str:
        if len(text) > chars_max:
            raise QueryInvalid(f"is longer than {chars_max} characters", field=name)
        return text

    return parse


def parse_label(text: str, _name: str) -> str:
    """Take an endpoint as what is learned names it: a long one in short."""
    return bounded_endpoint(text)


def parse_one_of(*known: str) -> Callable[[str, str], str]:
    """Give what reads one of these names."""

    def parse(text: str, name: str) -> str:
        if text not in known:
            raise QueryInvalid(f"{text[:40]!a} is none of {', '.join(known)}", field=name)
        return text

    return parse


def parse_boolean(text: str, name: str) -> bool:
    """Read true or false."""
    try:
        return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
    except KeyError:
        raise QueryInvalid(f"{text[:40]!a} is neither true nor false", field=name) from None


def parse_time(text: str, name: str) -> int:
    """Read an ISO 8601 time as microseconds since 1970."""
    # A plus sign that was not percent-encoded arrives as a blank; between a date and a time any character may stand.
    time = time_us(text.replace(" ", "+"))
    if time is None:
        raise QueryInvalid(f"{text[:40]!a} is not an ISO 8601 time", field=name, hint="e.g. 2026-11-22T10:00:00Z")
    return time


def parse_limit(text: str, name: str, most: int = LIMIT_MAX) -> int:
    """Read how many are wanted: 1 to ``most``."""
    limit = parse_seq(text, name)
    if not 1 <= limit <= most:
        raise QueryInvalid(f"wants 1 to {most:,}, got {limit}", field=name)
    return limit


def _cursor(text: str, name: str) -> tuple[bool, int]:
    found = CURSOR.fullmatch(text)
    if found is None:
        raise QueryInvalid("is not a cursor of ours", field=name, hint="give the `next` of an earlier answer back")
    return found[1] == "newest", int(found[2])


_PARAMETERS: Final[Mapping[str, Parameter]] = {
    "source": parse_text,
    "endpoint": parse_text,
    "success": parse_boolean,
    "since": parse_time,
    "until": parse_time,
    "after_seq": parse_seq,
    "before_seq": parse_seq,
    "limit": parse_limit,
    "order": parse_one_of("newest", "oldest"),
    "cursor": _cursor,
}
