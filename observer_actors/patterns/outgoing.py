"""What the gateway and the webhook are to be told: decided here, queued by the store, sent by the courier."""

from __future__ import annotations

from typing import Final

import msgspec

__all__ = ["GATEWAY_LOG_PATH", "LogEntry", "Outgoing", "log_message", "webhook_message"]

GATEWAY_LOG_PATH: Final = "/log"


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
    """Where it goes: a path of the gateway's, or the whole URL of another receiver."""
    body: bytes
    """JSON, in UTF-8."""


def log_message(key: str, entry: LogEntry) -> Outgoing:
    """Wrap an entry of the gateway's log."""
    return Outgoing(key=key, path=GATEWAY_LOG_PATH, body=msgspec.json.encode(entry))


def webhook_message(url: str, key: str, content: msgspec.Struct) -> Outgoing:
    """Wrap what a webhook is told."""
    return Outgoing(key=key, path=url, body=msgspec.json.encode(content))
