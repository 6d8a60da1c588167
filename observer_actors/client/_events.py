"""Telling the daemon about one event, and reading what it says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from uuid import uuid4

import msgspec

from observer_actors.client._delivery import Answer
from observer_actors.client._guest import tried
from observer_actors.client._ledger import LEDGER
from observer_actors.client._limits import bounded_seconds
from observer_actors.client._places import observer_base
from observer_actors.client._texts import text
from observer_actors.client._wire import exchange, shown_place
from observer_actors.errors import (
    DiskFailed,
    DiskFull,
    EventInvalid,
    EventTooComplex,
    ObserverError,
    Overloaded,
    Quarantined,
    RequestInvalid,
    RequestTooLarge,
    Unreachable,
)
from observer_actors.op import Op
from observer_actors.problems import UNREADABLE, read_problem, retry_after_s

EVENT_SECONDS: Final = 10.0
"""Twice the 5 s after which the daemon itself refuses what it could not commit."""
_TARGET: Final = "/event"
_TRIES: Final = 2


class Receipt(msgspec.Struct, frozen=True):
    """The daemon's answer to one event: it is on disk."""

    accepted: bool
    ring_size: int = 0
    seq: int = 0
    """Where the op lies in the journal; 0 from a daemon that does not say (the seed)."""
    duplicate: bool = False
    """The `id` was known: the op at `seq` is the one from before."""
    notes: tuple[str, ...] = ()
    """What the daemon changed about the event."""


_receipts: Final = msgspec.json.Decoder(Receipt)  # here, as in `journal.format`: a host may ask in several threads


async def record_external_op(
    event: Mapping[str, object] | Op,
    *,
    observer_url: str | None = None,
    timeout_seconds: float = EVENT_SECONDS,
) -> Receipt:
    """Report one event, for a caller who wants to know what became of it. On trio and on asyncio.

    :param event: the fields of `POST /event`. Without an ``id`` it gets one, and with it, it is sent a second time
        when the connection breaks: it is stored once.
    :param observer_url: base URL, or ``unix:///PATH``; by default OBSERVER_URL, else 127.0.0.1 at OBSERVER_PORT or
        3800.
    :param timeout_seconds: for all of it; 0 to a day, as of all such: what is beyond is clamped.
    :raises ConfigInvalid: the time limit is no number.
    :raises TokenInvalid: OBSERVER_TOKEN holds what cannot be sent.
    :raises EventInvalid: the event is no JSON, or the daemon does not take it; names the field.
    :raises RequestTooLarge: it is above the daemon's limit.
    :raises Overloaded: the daemon has no room or is stopping; ``retry_after_s`` says when to come back.
    :raises DiskFailed: the daemon cannot write (`DiskFull`: until someone makes room).
    :raises RequestInvalid: any other refusal.
    :raises Unreachable: no answer, or none of an observer. Whether the event is stored is not known.
    """
    limit_s = bounded_seconds("timeout_seconds", timeout_seconds)
    try:
        content, base = _encoded(event), observer_base(observer_url)
        answer = await exchange(base, "POST", _TARGET, content=content, seconds=limit_s, tries=_TRIES)
        receipt = _judge(shown_place(base, _TARGET), answer)
    except ObserverError as trouble:
        LEDGER.report_lost(trouble)
        raise
    LEDGER.report_accepted()
    return receipt


def _encoded(event: Mapping[str, object] | Op) -> bytes:
    content = tried(_as_json, event)
    if isinstance(content, Exception):
        hint = "text, numbers, booleans, null, lists and objects"
        raise EventInvalid(f"not JSON: {text(content)}", hint=hint) from content
    return content


def _as_json(event: Mapping[str, object] | Op) -> bytes:
    fields = msgspec.to_builtins(event) if isinstance(event, Op) else dict(event)
    if isinstance(event, Op):
        del fields["seq"], fields["recorded_at"]  # which the witness assigns
    if fields.get("id") is None:
        fields["id"] = uuid4().hex
    return msgspec.json.encode(fields)


def _judge(url: str, answer: Answer) -> Receipt:
    if not 200 <= answer.status < 300:  # noqa: PLR2004 - HTTP's idea of success
        raise _refusal(url, answer)
    try:
        receipt = _receipts.decode(answer.body)
    except UNREADABLE as error:
        raise Unreachable(f"{url}: not an observer's answer: {error}", hint="is OBSERVER_URL right?") from error
    if not receipt.accepted:
        raise Unreachable(f"{url}: not accepted, and no reason given")
    return receipt


_BY_TITLE: Final[Mapping[str, type[ObserverError]]] = {
    leaf.title: leaf
    for leaf in (
        DiskFailed,
        DiskFull,
        EventInvalid,
        EventTooComplex,
        Overloaded,
        Quarantined,
        RequestInvalid,
        RequestTooLarge,
    )
}
_BY_STATUS: Final[Mapping[int, type[ObserverError]]] = {
    400: EventInvalid,
    413: RequestTooLarge,
    503: Overloaded,
    507: DiskFull,
}


def _refusal(url: str, answer: Answer) -> ObserverError:
    """Turn a problem+json back into the leaf that it was made from; other servers' errors go by their status."""
    problem = read_problem(answer.body)
    fallback = RequestInvalid if answer.status < 500 else Unreachable  # noqa: PLR2004 - whose fault it is
    leaf = _BY_TITLE.get(problem.title) or _BY_STATUS.get(answer.status, fallback)
    detail = problem.detail or problem.error or f"{url} answered {answer.status}"
    hint, limit = problem.hint, problem.limit
    if issubclass(leaf, EventInvalid):
        return leaf(detail.removeprefix(f"{problem.field}: "), field=problem.field, hint=hint, limit=limit)
    if issubclass(leaf, Overloaded):
        return leaf(detail, retry_after_s=int(max(1.0, retry_after_s(answer.retry_after) or 1.0)), limit=limit)
    if issubclass(leaf, Unreachable):
        return leaf(detail, hint=hint)
    return leaf(detail, hint=hint, limit=limit)
