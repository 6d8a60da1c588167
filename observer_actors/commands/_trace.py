"""The caller's trace, as W3C Trace Context says it and as programs hand it on in ``TRACEPARENT``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Final

__all__ = ["trace_attributes"]

_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
_NONE: Final = re.compile("0+")


def trace_attributes(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Give ``trace_id`` and ``span_id``; nothing when there is no trace, or none that is well formed."""
    found = _TRACEPARENT.fullmatch(environment.get("TRACEPARENT", ""))
    if found is None or _NONE.fullmatch(found["trace"]) or _NONE.fullmatch(found["span"]):
        return {}
    return {"trace_id": found["trace"], "span_id": found["span"]}
