"""Labels and ids of a bounded length, made of what callers say. Pure."""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

LABEL_CHARS_MAX: Final = 200
ENDPOINT_CHARS_MAX: Final = LABEL_CHARS_MAX


def stable_id(*parts: str) -> str:
    """Hash the parts into 16 hex digits (BLAKE2b, 64 bits): of 1,000 ids two are the same once in 10^13."""
    return hashlib.blake2b(msgspec.json.encode(parts), digest_size=8).hexdigest()


def bounded_endpoint(endpoint: str) -> str:
    """Give the endpoint in at most `ENDPOINT_CHARS_MAX` characters; a hash keeps two long ones apart."""
    return endpoint if len(endpoint) <= ENDPOINT_CHARS_MAX else bounded_label(endpoint, "endpoint")


def bounded_label(text: str, kind: str) -> str:
    """Give the name of something of a kind in at most `LABEL_CHARS_MAX` characters, likewise."""
    if len(text) <= LABEL_CHARS_MAX:
        return text
    mark = "…" + stable_id(kind, text)
    return text[: LABEL_CHARS_MAX - len(mark)] + mark
