"""Which operations: the filters of `GET /ops`, as flags."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import msgspec
from cyclopts import Parameter, Token

from observer_actors.commands._answers import OpsAnswer
from observer_actors.commands._api import Api
from observer_actors.errors import UsageInvalid
from observer_actors.op import Op, time_us

PAGE_OPS: Final = 1_000
"""The most that the daemon gives at once."""
_AGO: Final = re.compile(r"(?P<number>[0-9]{1,6})(?P<unit>[smhd])")
_FORMS: Final = "an ISO 8601 time, or how long ago: 90s, 15m, 2h, 7d"
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def _time(_type: object, tokens: Sequence[Token]) -> str:
    """Read a time as the API wants it: as it was given, but for one that says how long ago.

    :raises UsageInvalid: it is none; names the flag.
    """
    flag, text = tokens[0].keyword, tokens[0].value
    if found := _AGO.fullmatch(text):
        try:
            return (datetime.now(UTC) - timedelta(**{_UNITS[found["unit"]]: int(found["number"])})).isoformat()
        except OverflowError as error:
            raise UsageInvalid(f"{flag}: {text!a} ago is before the year 1", hint=_FORMS) from error
    if time_us(text) is None:
        raise UsageInvalid(f"{flag}: {text[:40]!a} is no time", hint=_FORMS)
    return text


Time = Annotated[str, Parameter(converter=_time)]


@Parameter(name="*", allow_leading_hyphen=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is in an operation; each one given must fit."""

    source: Annotated[str | None, Parameter(help="Only of this source.")] = None
    endpoint: Annotated[str | None, Parameter(help="Only of this endpoint.")] = None
    success: Annotated[
        bool | None, Parameter(name="--success", negative="--failed", help="Only what succeeded, or only what failed.")
    ] = None

    def fits(self, op: Op) -> bool:
        """Tell whether an op is wanted."""
        pairs = ((self.source, op.source), (self.endpoint, op.endpoint), (self.success, op.success))
        return all(wanted is None or wanted == found for wanted, found in pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters(Wanted):
    """And when it was, and where it stands."""

    since: Annotated[
        Time | None, Parameter(help="Not before: an ISO 8601 time, or how long ago: 90s, 15m, 2h, 7d.")
    ] = None
    until: Annotated[Time | None, Parameter(help="Before: likewise.")] = None
    after_seq: Annotated[int | None, Parameter(help="Only behind this seq.")] = None
    before_seq: Annotated[int | None, Parameter(help="Only before this seq.")] = None

    @property
    def by_content(self) -> bool:
        """Whether ops are left out because of what is in them, and not only because of where they stand."""
        return any(value is not None for value in (self.source, self.endpoint, self.success, self.since, self.until))


def pages(daemon: Api, parameters: dict[str, object], *, limit: int | None) -> Iterator[tuple[bytes, OpsAnswer]]:
    """Give page after page, each as it came and as a value, until there are no more or the limit is reached."""
    left, cursor = limit, None
    while left is None or left > 0:
        asked = {**parameters, "limit": PAGE_OPS if left is None else min(left, PAGE_OPS), "cursor": cursor}
        body = daemon.get("/ops", asked)
        page = daemon.decoded(OpsAnswer, body)
        yield body, page
        cursor = page.next
        left = None if left is None else left - len(page.ops)
        if cursor is None:
            return


def raw_ops(body: bytes) -> list[msgspec.Raw]:
    """Give the ops of a page byte for byte, with whatever a newer daemon says of them."""
    return msgspec.json.decode(body, type=_RawPage).ops


class _RawPage(msgspec.Struct, frozen=True):
    ops: list[msgspec.Raw]
