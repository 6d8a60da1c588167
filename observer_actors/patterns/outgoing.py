"""What the gateway and the webhook are to be told: decided here, queued by the store, sent by the courier."""

from __future__ import annotations

from typing import Final

import msgspec

GATEWAY_LOG_PATH: Final = "/log"
WEBHOOK_PATH: Final = "http:webhook"
"""Its URL is for the configuration alone: it may hold a token, and the outbox is a file."""


class LogEntry(msgspec.Struct, frozen=True, kw_only=True):
    """The body of the gateway's `POST /log`; the order of the fields is the seed's."""

    operation: str
    approach: str
    result: str
    context: str


class Outgoing(msgspec.Struct, frozen=True, kw_only=True):
    """A message. The same ``key`` is queued once, however often it is handed in."""

    key: str
    path: str
    """Where it goes: a path of the gateway's, or `WEBHOOK_PATH`."""
    body: bytes
    """JSON, in UTF-8."""


def log_message(key: str, entry: LogEntry) -> Outgoing:
    """Wrap an entry of the gateway's log."""
    return Outgoing(key=key, path=GATEWAY_LOG_PATH, body=msgspec.json.encode(entry))


def webhook_message(key: str, content: msgspec.Struct) -> Outgoing:
    """Wrap what the webhook is told."""
    return Outgoing(key=key, path=WEBHOOK_PATH, body=msgspec.json.encode(content))
