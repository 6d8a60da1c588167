"""Server-sent events, as they are read (WHATWG HTML, section 9.2.6)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Message:
    """One message."""

    event: str
    data: str


def messages(lines: Iterable[str]) -> Iterator[Message]:
    """Give the messages; comments are passed over, and one that the end cut short is not given."""
    fields: dict[str, list[str]] = {}
    for line in lines:
        if line == "":
            if "data" in fields:
                yield Message(_last(fields, "event") or "message", "\n".join(fields["data"]))
            fields = {}
        else:
            name, _, value = line.partition(":")
            fields.setdefault(name, []).append(value.removeprefix(" "))


def _last(fields: dict[str, list[str]], name: str) -> str:
    return fields.get(name, [""])[-1]
