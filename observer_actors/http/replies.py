"""Answers, whichever way they leave: JSON, and errors as `application/problem+json` (RFC 9457).

Every error also has an `error` key, where the callers of the program that we replace look for it.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from observer_actors.errors import EventInvalid, ObserverError, QueryInvalid
from observer_actors.visible import visible_json

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"
FOR_BROWSERS: Final = (("x-content-type-options", "nosniff"), ("x-frame-options", "DENY"))
"""In each answer: it is what it says that it is, and no page may show it as a part of itself."""
_SAID_WITH: Final = {401: (("WWW-Authenticate", "Bearer"),), 405: (("Allow", "POST"),)}
"""What an error of a status has to say (RFC 9110, 15.5.2 and 15.5.6). Of ours only `/mcp` takes one method alone."""
_encoder: Final = msgspec.json.Encoder()


class Reply(msgspec.Struct, frozen=True):
    """Status, body and headers of an answer; how it is sent is the transport's business."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What went wrong: `title` names the kind, `detail` this case, `field` the field, `hint` what to do.

    `limit` is the setting of the limit that was met.
    """

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    error: str
    field: str = ""
    hint: str = ""
    limit: str = ""
    retryable: bool = False


def json_reply(
    content: Any,  # noqa: ANN401 - whatever msgspec encodes
    status: int = 200,
    headers: tuple[tuple[str, str], ...] = (),
) -> Reply:
    """Answer with JSON."""
    return Reply(status, visible_json(_encoder.encode(content)), headers=headers)


def problem_of(error: ObserverError) -> Problem:
    """Say an error in the words of RFC 9457."""
    field = error.field if isinstance(error, EventInvalid | QueryInvalid) else ""
    return Problem(
        title=error.title,
        status=error.status,
        detail=error.detail,
        error=error.detail,
        field=field,
        hint=error.hint,
        limit=error.limit,
        retryable=error.retryable,
    )


def problem_reply(error: ObserverError) -> Reply:
    """Answer with an error, and with `Retry-After` where trying again can help."""
    retry_after_s = getattr(error, "retry_after_s", None)
    headers = (("Retry-After", str(retry_after_s)),) if retry_after_s else _SAID_WITH.get(error.status, ())
    return Reply(error.status, visible_json(_encoder.encode(problem_of(error))), PROBLEM, headers)
