"""Labels and ids of a bounded length, made of what callers say. Pure."""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

ENDPOINT_CHARS_MAX: Final = 200


def stable_id(*parts: str) -> str:
    """Hash the parts into 16 hex digits (BLAKE2b, 64 bits): of 1,000 ids two are the same once in 10^13."""
    return hashlib.blake2b(msgspec.json.encode(parts), digest_size=8).hexdigest()


def bounded_endpoint(endpoint: str) -> str:
    """Give the endpoint in at most `ENDPOINT_CHARS_MAX` characters; a hash keeps two long ones apart."""
    if len(endpoint) <= ENDPOINT_CHARS_MAX:
        return endpoint
    mark = "…" + stable_id("endpoint", endpoint)
    return endpoint[: ENDPOINT_CHARS_MAX - len(mark)] + mark
