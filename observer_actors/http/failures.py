"""`/failures`: what fails in the same way, since when, in which state; and what a person can do with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal

import msgspec
import trio
from msgspec import UNSET, UnsetType
from quart import request
from quart.typing import ResponseReturnValue
from quart_schema import document_querystring, document_request, document_response, tag
from quart_trio import QuartTrio

from observer_actors.actors.evidence import contrast_of
from observer_actors.errors import NotFound, RequestInvalid
from observer_actors.http.description import document_problems
from observer_actors.http.doubt import DoubtAnswer, doubt_answer
from observer_actors.http.exchange import list_reply, request_body, send, turns_of_long_answers
from observer_actors.http.queries import (
    Parameter,
    Time,
    parse_body,
    parse_label,
    parse_limit,
    parse_one_of,
    parse_parameters,
    parse_text,
    parse_time,
)
from observer_actors.http.replies import Reply, json_reply
from observer_actors.http.views import Views
from observer_actors.op import Op, time_us
from observer_actors.patterns import (
    Action,
    Cause,
    Contrast,
    Diagnosis,
    Example,
    Note,
    Pattern,
    Ruling,
    Scope,
    Standing,
    State,
    rule,
    series,
)
from observer_actors.patterns.history import DAY_US, HOUR_US, MINUTE_US
from observer_actors.patterns.states import NOTE_CHARS_MAX
from observer_actors.playbook import Entry, Kind
from observer_actors.settings import PatternState

SPARK_HOURS: Final = 24
MINUTES_SHOWN: Final = 60
HOURS_SHOWN: Final = 48
DAYS_SHOWN: Final = 30
LIMIT_DEFAULT: Final = 100
AT_ONCE: Final = 50
"""Patterns that are looked at before others have their turn: each has texts in which a cause is looked for."""
NEAR_CHARS: Final = 4
"""Ids that begin alike: one was cut, or mistyped further on. Of 2,000 some 3 % have another one so near."""
NEAR_MAX: Final = 3
OPEN: Final = "open"
"""What a person still has to look at: neither resolved nor muted."""
OP_COST_MS: Final = 1_000.0
"""What a failed operation costs beside the time it took: a turn of the agent that has to think again."""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A pattern of failures, and how it stands."""

    id: str
    version: int
    endpoint: str
    template: str
    scope: Scope
    state: State
    state_since_us: int
    """Microseconds since 1970."""
    muted: bool
    first_seq: int
    last_seq: int
    first_seen: str
    last_seen: str
    count: int
    wasted_ms: float
    impact_ms: float
    """`wasted_ms` and a second an operation."""
    sources: dict[str, int]
    ruling: Ruling
    """The likely cause by rules, and what an agent should do differently."""
    spark: list[int]
    """Failures in each of the last 24 hours, oldest first, by the time of the event."""
    examples: tuple[Example, ...]
    aliases: tuple[str, ...]


class Series(msgspec.Struct, frozen=True):
    """Failures by time of event, oldest first; the last window is the one that is under way."""

    minutes: list[int]
    hours: list[int]
    days: list[int]


class FailureDetail(Failure, frozen=True, kw_only=True):
    """`GET /failures/{id}`."""

    history: Series
    ops: list[Op]
    """The newest failures, as far as the journal still has them."""
    diagnosis: Diagnosis | None
    """What a model said of it last: commentary, of which each claim names ops."""
    contrast: list[Contrast]
    """What sets the newest failures apart from the newest successes at this endpoint."""
    notes: tuple[Note, ...]
    lessons: list[Entry]
    """The entries of the playbook that come from these failures, then what is known to work at this endpoint."""


class FailuresAnswer(msgspec.Struct, frozen=True):
    """`GET /failures`: what fails in the same way; `total` counts what the filters let through.

    `complete`: false while what the journal holds is counted anew, after the loss of the store or an upgrade.
    """

    failures: list[Failure]
    total: int
    complete: bool
    doubt: DoubtAnswer


class FailuresParameters(msgspec.Struct, frozen=True):
    """The parameters of `GET /failures`; `since` and `until` ask for the newest failure.

    `state`: ``open`` is any but resolved and muted.
    """

    endpoint: str | UnsetType = UNSET
    source: str | UnsetType = UNSET
    state: Literal[PatternState, "open"] | UnsetType = UNSET
    cause: Cause | UnsetType = UNSET
    text: str | UnsetType = UNSET
    since: Time | UnsetType = UNSET
    until: Time | UnsetType = UNSET
    sort: Literal["impact", "count", "wasted", "last_seen", "first_seen"] = "impact"
    limit: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = LIMIT_DEFAULT


class Act(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /failures/{id}`; `note` may stand beside any action, and must beside `note`."""

    action: Action
    note: Annotated[str, msgspec.Meta(max_length=NOTE_CHARS_MAX)] = ""


def register_failures(app: QuartTrio, views: Views) -> None:
    """Add the routes."""
    making = turns_of_long_answers()
    detailing = turns_of_long_answers()  # one holds ten ops, of up to 256 KiB each, while it waits for the journal

    @app.get("/failures")
    @tag(["learning"])
    @document_querystring(FailuresParameters)
    @document_response(FailuresAnswer, 200)
    @document_problems(400, 503)
    async def failures() -> ResponseReturnValue:
        """Show what fails in the same way, what costs most first unless told otherwise.

        There is no next page: where `total` is above 1,000, narrow it by the filters.
        """
        given = parse_parameters(request.args.items(multi=True), _PARAMETERS, "/failures")
        await views.own_writes("analyzer")
        async with making:
            return send(await _answer(views, given, views.now_us()))

    @app.get("/failures/<pattern>")
    @tag(["learning"])
    @document_response(FailureDetail, 200)
    @document_problems(404, 503)
    async def one_failure(pattern: str) -> ResponseReturnValue:
        """Show one pattern with its newest failures, its history, and what is known to work."""
        await views.own_writes("analyzer")
        async with detailing:
            return send(json_reply(await _detail(views, _found(views, pattern))))

    @app.post("/failures/<pattern>")
    @tag(["learning"])
    @document_request(Act)
    @document_response(Failure, 200)
    @document_problems(400, 404, 408, 413, 503, 507)
    async def act_on_failure(pattern: str) -> ResponseReturnValue:
        """Resolve, mute or unmute a pattern, or note something; answered once it is on disk."""
        act = _act(await request_body())
        note, acknowledged_seq = views.intake.without_secrets(act.note), views.commits.last_seq
        await views.own_writes("analyzer")
        found = _found(views, pattern)
        standing = await views.analyzer.standings.act(found, act.action, note, acknowledged_seq=acknowledged_seq)
        return send(json_reply(Failure(**_fields(found, standing, views.now_us()))))


def _act(body: bytes) -> Act:
    act = parse_body(body, Act, '{"action": "resolve"}; or "mute", "unmute", or "note" with a "note"')
    if act.action is Action.NOTE and not act.note.strip():
        raise RequestInvalid("note: is empty", hint='{"action": "note", "note": "…"}')
    return act


def _found(views: Views, key: str) -> Pattern:
    """Find a pattern by its id, or by that of one that has become part of it."""
    patterns = views.analyzer.patterns
    found = patterns.get(key) or next((p for p in patterns.values() if key in p.aliases), None)
    if found is None:
        if not _is_complete(views):
            raise NotFound(f"there is no pattern {key[:40]!a} yet", hint="failures are counted anew; try again later")
        near = sorted(key_of for key_of in patterns if key_of.startswith(key[:NEAR_CHARS]))[:NEAR_MAX]
        hint = f"near it: {', '.join(near)}" if near else "`observer-actors failures`, or GET /failures, lists them"
        raise NotFound(f"there is no pattern {key[:40]!a}", hint=hint)
    return found


def _is_complete(views: Views) -> bool:
    return views.feeds["analyzer"].has_caught_up


async def _answer(views: Views, given: Mapping[str, Any], now_us: int) -> Reply:
    standings = views.analyzer.standings
    wanted = {**given, "text": given["text"].casefold()} if "text" in given else given
    kept = []
    for number, pattern in enumerate(tuple(views.analyzer.patterns.values())):
        if number % AT_ONCE == 0:
            await trio.lowlevel.checkpoint()
        if _passes(pattern, standings.get(pattern.id), wanted):
            kept.append(pattern)
    kept.sort(key=_SORTS[given.get("sort", "impact")], reverse=True)
    shown = kept[: given.get("limit", LIMIT_DEFAULT)]
    failures = (Failure(**_fields(pattern, standings.get(pattern.id), now_us)) for pattern in shown)
    return await list_reply(
        FailuresAnswer([], len(kept), _is_complete(views), doubt_answer(views.analyzer.doubts)), failures
    )


def _passes(pattern: Pattern, standing: Standing | None, given: Mapping[str, Any]) -> bool:
    return (
        given.get("endpoint") in (None, pattern.endpoint)
        and ("state" not in given or _is_in((standing or Standing()).state, given["state"]))
        and ("source" not in given or given["source"] in pattern.sources)
        and ("text" not in given or given["text"] in pattern.template.casefold())
        and ("since" not in given or (time_us(pattern.last_seen) or 0) >= given["since"])
        and ("until" not in given or (time_us(pattern.last_seen) or 0) < given["until"])
        and ("cause" not in given or given["cause"] == rule(pattern).cause)
    )


def _is_in(state: State, wanted: str) -> bool:
    return state not in (State.RESOLVED, State.MUTED) if wanted == OPEN else state == wanted


def _impact_ms(pattern: Pattern) -> float:
    return pattern.wasted_ms + OP_COST_MS * pattern.count


def _fields(pattern: Pattern, standing: Standing | None, now_us: int) -> dict[str, Any]:
    standing = standing or Standing()
    return {
        **{name: getattr(pattern, name) for name in Failure.__struct_fields__ if hasattr(pattern, name)},
        "state": standing.state,
        "state_since_us": standing.since_us,
        "muted": standing.muted,
        "impact_ms": _impact_ms(pattern),
        "ruling": rule(pattern),
        "spark": series(pattern.history.hours, now_us // HOUR_US, SPARK_HOURS),
    }


async def _detail(views: Views, pattern: Pattern) -> FailureDetail:
    now_us = views.now_us()
    standing = views.analyzer.standings.get(pattern.id)
    history = pattern.history
    found = [await views.get(example.seq) for example in reversed(pattern.examples)]
    return FailureDetail(
        **_fields(pattern, standing, now_us),
        history=Series(
            series(history.minutes, now_us // MINUTE_US, MINUTES_SHOWN),
            series(history.hours, now_us // HOUR_US, HOURS_SHOWN),
            series(history.days, now_us // DAY_US, DAYS_SHOWN),
        ),
        ops=[op for op in found if op is not None],
        diagnosis=views.analyzer.diagnosis_of(pattern.id),
        contrast=await contrast_of(views.query, views.analyzer.pattern_of, pattern),
        notes=() if standing is None else standing.notes,
        lessons=await _lessons(views, pattern),
    )


async def _lessons(views: Views, pattern: Pattern) -> list[Entry]:
    """Give the entries that come from a pattern's failures, and those that say what works."""
    entries = views.consolidator.playbook.ledger.at(pattern.endpoint)
    own = [entry for entry in entries if entry.kind is Kind.AVOID and await _comes_from(views, entry, pattern)]
    return [*own, *(entry for entry in entries if entry.kind is not Kind.AVOID)]


async def _comes_from(views: Views, entry: Entry, pattern: Pattern) -> bool:
    shown = {example.seq for example in pattern.examples}
    if not shown.isdisjoint(entry.example_seqs):
        return True
    op = await views.get(entry.example_seqs[-1]) if entry.example_seqs else None
    return op is not None and views.analyzer.pattern_of(op) == pattern.id


_SORTS: Final[Mapping[str, Callable[[Pattern], Any]]] = {
    "impact": lambda pattern: (_impact_ms(pattern), pattern.last_seq),
    "count": lambda pattern: (pattern.count, pattern.last_seq),
    "wasted": lambda pattern: (pattern.wasted_ms, pattern.last_seq),
    "last_seen": lambda pattern: pattern.last_seq,
    "first_seen": lambda pattern: pattern.first_seq,
}
_PARAMETERS: Final[Mapping[str, Parameter]] = {
    "endpoint": parse_label,
    "source": parse_text,
    "state": parse_one_of(*State, OPEN),
    "cause": parse_one_of(*Cause),
    "text": parse_text,
    "since": parse_time,
    "until": parse_time,
    "sort": parse_one_of(*_SORTS),
    "limit": parse_limit,
}
