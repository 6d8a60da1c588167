"""The caller's trace, as W3C Trace Context writes it in a header, and programs hand it on in ``TRACEPARENT``. Pure."""

from __future__ import annotations

import re
from typing import Final

_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
_NONE: Final = re.compile("0+")


def trace_attributes(traceparent: str) -> dict[str, str]:
    """Give ``trace_id`` and ``span_id``; nothing when there is no trace, or none that is well formed."""
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None or _NONE.fullmatch(found["trace"]) or _NONE.fullmatch(found["span"]):
        return {}
    return {"trace_id": found["trace"], "span_id": found["span"]}
