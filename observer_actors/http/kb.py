"""`/kb`: what auditors found, and what is known of what they looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, UnsetType
from quart import request
from quart.typing import ResponseReturnValue
from quart_schema import document_querystring, document_response, tag
from quart_trio import QuartTrio

from observer_actors.errors import QueryInvalid
from observer_actors.http.description import document_problems
from observer_actors.http.exchange import list_reply, send, turns_of_long_answers
from observer_actors.http.queries import (
    SEQ_DIGITS_MAX,
    Parameter,
    Time,
    parse_limit,
    parse_parameters,
    parse_seq,
    parse_short,
    parse_text,
    parse_time,
)
from observer_actors.http.replies import json_reply
from observer_actors.http.views import Views
from observer_actors.kb import AuditHistory, FindingCounts, OutcomeFilter, OutcomeRow
from observer_actors.kb.rows import SIGNATURE_CHARS_MAX

NEWEST_DEFAULT: Final = 5
NEWEST_MAX: Final = 100

Signature = Annotated[str, msgspec.Meta(max_length=SIGNATURE_CHARS_MAX)]


class Outcome(OutcomeRow, frozen=True, kw_only=True):
    """A row; of an audit, and of nothing else, also what follows here."""

    ok: bool | UnsetType = UNSET
    findings: FindingCounts | UnsetType = UNSET
    one_liner: str | UnsetType = UNSET
    duration_ms: int | float | UnsetType = UNSET
    id: str | UnsetType = UNSET


class OutcomesAnswer(msgspec.Struct, frozen=True):
    """`GET /kb/outcomes`, newest first.

    ``next``: the cursor of the following page, null at the end. ``complete``: false when older rows are no longer
    held and were not looked at. ``damaged``: lines that could not be read.
    """

    outcomes: Sequence[Outcome]
    next: str | None
    complete: bool
    damaged: int


class OutcomesParameters(msgspec.Struct, frozen=True):
    """The parameters of `GET /kb/outcomes`; `since` by the time that the row itself says."""

    signature: Signature | UnsetType = UNSET
    kind: str | UnsetType = UNSET
    overall: str | UnsetType = UNSET
    since: Time | UnsetType = UNSET
    limit: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 100
    cursor: Annotated[str, msgspec.Meta(pattern=rf"^[0-9]{{1,{SEQ_DIGITS_MAX}}}$")] | UnsetType = UNSET


class HistoryParameters(msgspec.Struct, frozen=True):
    """The parameters of `GET /kb/history`: a signature, and how many of the newest audits are given as they are."""

    sig: Annotated[Signature, msgspec.Meta(min_length=1)]
    limit: Annotated[int, msgspec.Meta(ge=1, le=NEWEST_MAX)] = NEWEST_DEFAULT


def register_kb(app: QuartTrio, views: Views) -> None:
    """Add the routes."""
    making = turns_of_long_answers()

    @app.get("/kb/outcomes")
    @tag(["audits"])
    @document_querystring(OutcomesParameters)
    @document_response(OutcomesAnswer, 200)
    @document_problems(400, 503)
    async def outcomes() -> ResponseReturnValue:
        """Find what auditors found, newest first.

        With the `cursor` of an answer repeat the filters: it says where to go on, and not what was asked for.
        """
        values = parse_parameters(request.args.items(multi=True), _OUTCOMES, "/kb/outcomes")
        await views.own_writes("librarian")
        since_us, before = values.pop("since", None), values.pop("cursor", None)
        async with making:
            page = await views.librarian.find(OutcomeFilter(since_us=since_us, before=before, **values))
            following = None if page.before is None else str(page.before)
            return send(await list_reply(OutcomesAnswer([], following, page.complete, page.damaged), page.rows))

    @app.get("/kb/history")
    @tag(["audits"])
    @document_querystring(HistoryParameters)
    @document_response(AuditHistory, 200)
    @document_problems(400, 503)
    async def history() -> ResponseReturnValue:
        """Sum up what audits of a signature, and of similar ones (the same pull request or branch), came to."""
        values = parse_parameters(request.args.items(multi=True), _HISTORY, "/kb/history")
        if not values.get("sig"):
            raise QueryInvalid("is missing", field="sig", hint="a signature such as pr6-7fe47bab")
        await views.own_writes("librarian")
        newest = values.get("limit", NEWEST_DEFAULT)
        return send(json_reply(await views.librarian.history(values["sig"], newest=newest)))


_signature: Final = parse_short(SIGNATURE_CHARS_MAX)
_OUTCOMES: Final[Mapping[str, Parameter]] = {
    "signature": _signature,
    "kind": parse_text,
    "overall": parse_text,
    "since": parse_time,
    "limit": parse_limit,
    "cursor": parse_seq,
}
_HISTORY: Final[Mapping[str, Parameter]] = {
    "sig": _signature,
    "limit": partial(parse_limit, most=NEWEST_MAX),
}
