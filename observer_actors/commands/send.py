"""`observer-actors send`."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Final
from uuid import uuid4

import msgspec
from cyclopts import Parameter

from observer_actors.batch import BYTE_ORDER_MARK
from observer_actors.commands._answers import EventAnswer
from observer_actors.commands._aside import told
from observer_actors.commands._options import ApiOptions, AttributeFlags, JsonFlag
from observer_actors.commands._screen import print_json
from observer_actors.errors import EventInvalid, UsageInvalid
from observer_actors.event import with_whole_characters
from observer_actors.problems import UNREADABLE
from observer_actors.trace import trace_attributes

_LABELS: Final = frozenset({"source", "id"})
"""Who says it, and under which key: these alone make no event."""


@Parameter(name="*", allow_leading_hyphen=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class EventFlags:
    """The fields of an event."""

    endpoint: Annotated[str | None, Parameter(help="What was called.")] = None
    source: Annotated[str | None, Parameter(help="mcp, scenario, auditor, bot, or a label of your own.")] = None
    success: Annotated[
        bool | None,
        Parameter(name="--success", negative="--failed", help="The outcome; unless given, a failure if --error is."),
    ] = None
    duration_ms: Annotated[float | None, Parameter(help="How long it took.")] = None
    input_summary: Annotated[str | None, Parameter(name="--input", help="What went in.")] = None
    output_summary: Annotated[str | None, Parameter(name="--output", help="What came out.")] = None
    error: Annotated[str | None, Parameter(help="What went wrong.")] = None
    id: Annotated[str | None, Parameter(help="Your key: sent again, it is stored once. One is made unless given.")] = (
        None
    )

    def given(self) -> dict[str, Any]:
        """Give what was given, as fields of an event.

        :raises EventInvalid: a duration that JSON cannot say.
        """
        if self.duration_ms is not None and not math.isfinite(self.duration_ms):
            raise EventInvalid(f"{self.duration_ms} is no duration", field="duration_ms", hint="e.g. 12.5")
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in given.items() if value is not None}


def send(
    flags: EventFlags = EventFlags(),
    beside: AttributeFlags = AttributeFlags(),
    api: ApiOptions = ApiOptions(),
    *,
    json: JsonFlag = False,
) -> None:
    """Report one operation, from flags or from standard input (a JSON object).

    Where no flag says what happened, --run, --advice-id, --attr, --source and --id are added to what is read.
    It is on disk when the command exits 0. An id makes sure that it is stored once, however often it is sent.
    A trace that TRACEPARENT names is carried on, where flags make the event.

    Example: observer-actors send --endpoint sql:run --error "timeout after 30 s"
    """
    given, attributes = flags.given(), beside.read()
    if given.keys() - _LABELS:
        trace = trace_attributes(os.environ.get("TRACEPARENT", ""))
        event = {"id": uuid4().hex, "success": "error" not in given, **given, "attrs": trace | attributes}
        content = msgspec.json.encode(event)
    else:
        content = _from_stdin(given, attributes)
    body, answer = api.post(EventAnswer, "/event", content)
    if json:
        print_json(body)
        return
    print(f"{'known already' if answer.duplicate else 'stored'} as op {answer.seq}")
    for note in answer.notes:
        told(f"  {note}")


def _from_stdin(given: Mapping[str, Any], attributes: Mapping[str, str]) -> bytes:
    """Give what stands there, and behind it what flags say beside it, and an id where it has none.

    Of a name that comes twice the last counts. All else stays as it is: the daemon says what it makes of it.
    """
    if sys.stdin.isatty():
        raise UsageInvalid(
            "no event given", hint="give flags, e.g. --endpoint NAME, or a JSON object on standard input"
        )
    body = sys.stdin.buffer.read().removeprefix(BYTE_ORDER_MARK)
    try:
        event = msgspec.json.decode(with_whole_characters(body))
    except UNREADABLE as error:
        raise EventInvalid(f"standard input is not JSON: {error}", hint="one JSON object; many: `import -`") from error
    if not isinstance(event, dict):
        raise EventInvalid("standard input is no JSON object", hint="one JSON object; many: `import -`")
    if event.get("id") is None:
        given = {"id": uuid4().hex, **given}
    if attributes:
        held = event.get("attrs") or {}
        if not isinstance(held, dict):
            raise EventInvalid("is no JSON object", field="attrs")
        given = {**given, "attrs": {**held, **attributes}}
    if not given:
        return body
    end = body.rindex(b"}")
    return b"%b%b%b%b" % (body[:end], b"," if event else b"", msgspec.json.encode(given)[1:-1], body[end:])
