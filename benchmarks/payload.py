"""What is sent: events of one length, the same for every contestant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

EVENT_BYTES: Final = 226
VARIATIONS: Final = 256
"""Different events, taken in turn: together they are longer than zlib's window, so the daemon's compression gets no
help from the repetition."""
BATCH_EVENTS: Final = 500
COUNTED: Final = "@" * 12
"""Stands in an event where the load generator puts a number that goes up with each event it sends."""
RUN: Final = "~" * 12
"""The same, for one that goes up with each `RUN_EVENTS` of them."""
RUN_EVENTS: Final = 20
SALT: Final = "0" * 20
"""Stands where each load generator puts what no other one does: what is sent later is nothing that was sent before."""
BATCHES: Final = 8
FAILURES_ONE_IN: Final = 16

_TOOLS: Final = ("search_flights", "book_reservation", "update_baggage", "cancel_order", "get_user_details")
_CITIES: Final = ("Toledo, OH", "Denver, CO", "Austin, TX", "Boston, MA", "Fresno, CA", "Tulsa, OK", "Miami, FL")


def event(number: int) -> dict[str, Any]:
    """Make an event: one in `FAILURES_ONE_IN` has failed. It is `EVENT_BYTES` long as JSON."""
    success = number % FAILURES_ONE_IN != 0
    made: dict[str, Any] = {
        "endpoint": f"tool:{_TOOLS[number % len(_TOOLS)]}",
        "input_summary": f"reservation {number * 7_919 % 99_991} in {_CITIES[number % len(_CITIES)]}",
        "success": success,
        "duration_ms": 20 + number * 37 % 900,
        "source": ("mcp", "bot", "scenario")[number % 3],
    }
    if success:
        made["output_summary"] = f"ok, {number % 9} changed"
    else:
        made["error"] = f"HTTP 503 from upstream after {number % 60} s"
    missing = EVENT_BYTES - len(msgspec.json.encode(made))
    made["input_summary"] += (" for passenger, asked again by the agent on behalf of the user" * 3)[:missing]
    return made


def reported(number: int) -> dict[str, Any]:
    """Make the same event as `Observer` sends it: with an id that none has had, a time, and the run it belongs to."""
    made = event(number)
    of_op = {name: made[name] for name in ("source", "endpoint", "input_summary", "success", "duration_ms")}
    told = {"output_summary": made["output_summary"]} if "output_summary" in made else {"error": made["error"]}
    time = f"2026-11-22T10:{number // 1_000 % 60:02}:{number // 20 % 60:02}.{number * 37 % 1_000:03}Z"
    return {"id": f"{SALT}-{COUNTED}", "timestamp": time, **of_op, **told, "attrs": {"run": f"task-{SALT}-{RUN}"}}


def events(make: Callable[[int], dict[str, Any]] = event) -> list[bytes]:
    """Give all variations as JSON."""
    return [msgspec.json.encode(make(number)) for number in range(VARIATIONS)]


def batches(make: Callable[[int], dict[str, Any]] = event) -> list[bytes]:
    """Give bodies of `BATCH_EVENTS` events each, as NDJSON."""
    numbers = (range(first, first + BATCH_EVENTS) for first in range(0, BATCHES * BATCH_EVENTS, BATCH_EVENTS))
    return [b"\n".join(msgspec.json.encode(make(number)) for number in some) for some in numbers]
