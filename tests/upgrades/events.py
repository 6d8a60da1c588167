"""What stands in each kept directory: the same events, whatever wrote them."""

from __future__ import annotations

from typing import Any, Final

COUNT: Final = 60


def _event(number: int) -> dict[str, Any]:
    failed = number % 4 == 0
    event: dict[str, Any] = {
        "timestamp": f"2026-11-25T10:{number:02d}:00.000Z",
        "endpoint": f"tool:{'search' if number % 3 else 'book'}",
        "input_summary": f"event {number} in Zürich, “quoted”",
        "success": not failed,
        "duration_ms": number * 1.5,
        "source": ("mcp", "bot", "auditor", "scenario")[number % 4],
    }
    if number % 2:
        event["id"] = f"event-{number}"
    if failed:
        event["error"] = f"timeout after {number} ms"
    if number % 5 == 0:
        event |= {"city": "Zürich", "role": "Welder", "count": number, "weather": "rain", "depth": 3}
    return event


EVENTS: Final = tuple(_event(number) for number in range(1, COUNT + 1))
