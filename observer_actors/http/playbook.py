"""`/playbook`: what is known to work and to fail, whence, whether it helps; and what a person decides of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
import trio
from msgspec import UNSET, UnsetType
from quart import request
from quart.typing import ResponseReturnValue
from quart_schema import document_querystring, document_request, document_response, tag
from quart_trio import QuartTrio

from observer_actors.actors.consolidator import AHEAD_MAX
from observer_actors.doubt import suspicion
from observer_actors.errors import NotFound, Overloaded, RequestInvalid
from observer_actors.event import OWN_SOURCE
from observer_actors.http.description import document_problems
from observer_actors.http.exchange import list_reply, request_body, send, turns_of_long_answers
from observer_actors.http.queries import (
    Parameter,
    Seq,
    TimeOrEmpty,
    parse_body,
    parse_boolean,
    parse_label,
    parse_limit,
    parse_one_of,
    parse_parameters,
    parse_seq,
    parse_text,
)
from observer_actors.http.replies import Reply, json_reply
from observer_actors.http.views import Views
from observer_actors.op import ATTR_CHARS_MAX, Op, time_us
from observer_actors.playbook import Action, Decision, Entry, Kind, Left, Of, Revocation, State, decision_attrs
from observer_actors.playbook.decisions import NOTE_CHARS_MAX, PLAYBOOK_ENDPOINT
from observer_actors.playbook.fold import REVOCATIONS_MAX
from observer_actors.playbook.lift import Lift, lift
from observer_actors.playbook.states import ALPHA
from observer_actors.playbook.trial import run_name

LIMIT_DEFAULT: Final = 100
DECIDED_S: Final = 1.0
"""A decision is on disk when it is answered, and holds; so long the answer waits for the playbook to take it in, too,
so that it has the new version and the note."""


class ShownEntry(Entry, frozen=True, kw_only=True):
    """An entry, whether it is handed out, and what its uses have come to."""

    handed_out: bool
    """By its evidence, by what a person has decided, and by its trial."""
    lift: Lift
    """Exposed less control in the present trial, with its always-valid 95 % interval."""


class PlaybookAnswer(msgspec.Struct, frozen=True):
    """`GET /playbook`; `total` counts what the filters let through."""

    entries: list[ShownEntry]
    total: int
    last_seq: int
    """All ops up to it are in the entries."""
    outdated: bool
    """Something was revoked, and the playbook is being made anew; what it may touch is not handed out meanwhile."""
    left: Left
    """What found no room, and was counted only."""


class PlaybookParameters(msgspec.Struct, frozen=True):
    """The parameters of `GET /playbook`; `seq` asks for the entries that an op, or a verdict's run, is evidence of."""

    endpoint: str | UnsetType = UNSET
    kind: Kind | UnsetType = UNSET
    state: State | UnsetType = UNSET
    handed_out: bool | UnsetType = UNSET
    text: str | UnsetType = UNSET
    seq: Seq | UnsetType = UNSET
    limit: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = LIMIT_DEFAULT


class PatternReference(msgspec.Struct, frozen=True):
    """A pattern of failures that ops of an entry belong to."""

    id: str
    template: str
    seqs: list[int]


class Verdict(msgspec.Struct, frozen=True):
    """What was judged of a run that ops of an entry belong to."""

    run: str
    good: bool
    seq: int
    """Of the verdict."""
    seqs: list[int]


class EntryDetail(ShownEntry, frozen=True, kw_only=True):
    """`GET /playbook/{id}`: the entry with where it comes from, as far as the journal still has it."""

    ops: list[Op]
    """Those that show it, then those that ended the other way, each oldest first."""
    patterns: list[PatternReference]
    """The failures among them, by the pattern that they belong to."""
    verdicts: list[Verdict]
    """On the runs of those ops, as far as they are remembered."""
    suspect: list[int]
    """Ops among them that claim a success which their own words speak against."""


class Decide(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /playbook/{id}`; `note` may stand beside any action, and must beside `note`."""

    action: Action
    note: Annotated[str, msgspec.Meta(max_length=NOTE_CHARS_MAX)] = ""


class Revoke(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /playbook/revoke`: all that came from a source, a run or a staffer, recorded since a time."""

    of: Of
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=ATTR_CHARS_MAX)]
    since: Annotated[TimeOrEmpty, msgspec.Meta(max_length=ATTR_CHARS_MAX)] = ""
    note: Annotated[str, msgspec.Meta(max_length=NOTE_CHARS_MAX)] = ""


class Revoked(msgspec.Struct, frozen=True):
    """The revocation is on disk, and the playbook is being made anew."""

    seq: int
    suspended: int
    """Entries that it may touch: not handed out until that is done."""


def register_playbook(app: QuartTrio, views: Views) -> None:
    """Add the routes."""
    making = turns_of_long_answers()
    detailing = turns_of_long_answers()  # one holds ten ops, of up to 256 KiB each, while it waits for the journal

    @app.get("/playbook")
    @tag(["learning"])
    @document_querystring(PlaybookParameters)
    @document_response(PlaybookAnswer, 200)
    @document_problems(400, 503)
    async def playbook() -> ResponseReturnValue:
        """Show what is known to work and to fail, the most evidence first.

        There is no next page: where `total` is above 1,000, narrow it by the filters.
        """
        given = parse_parameters(request.args.items(multi=True), _PARAMETERS, "/playbook")
        op = await views.get(given["seq"]) if "seq" in given else None
        async with making:
            return send(await _answer(views, given, op))

    @app.get("/playbook/<entry>")
    @tag(["learning"])
    @document_response(EntryDetail, 200)
    @document_problems(404, 503)
    async def one_entry(entry: str) -> ResponseReturnValue:
        """Show one entry with the ops, patterns and verdicts that it comes from, and its history."""
        async with detailing:
            return send(json_reply(await _detail(views, _found(views, entry))))

    _register_decisions(app, views)


def _register_decisions(app: QuartTrio, views: Views) -> None:
    one_at_a_time = trio.Lock()

    @app.post("/playbook/<entry>")
    @tag(["learning"])
    @document_request(Decide)
    @document_response(ShownEntry, 200)
    @document_problems(400, 404, 408, 413, 503, 507)
    async def decide_on_entry(entry: str) -> ResponseReturnValue:
        """Pin, unpin, withhold, release or retire an entry, or note something; answered once it is on disk.

        It holds from the answer on. Where the playbook is behind the journal, the entry's version, history and notes
        follow later.
        """
        found = _found(views, entry)
        decided = parse_body(await request_body(), Decide, '{"action": "withhold"}')
        if decided.action is Action.NOTE and not decided.note.strip():
            raise RequestInvalid("note: is empty", hint='{"action": "note", "note": "…"}')
        note = views.intake.without_secrets(decided.note)
        decision = Decision(action=decided.action, entry=found.id, note=note)
        async with one_at_a_time:
            seq = await _written_down(views, decision)
        await _taken_in(views, seq)
        return send(json_reply(shown(views, _found(views, entry))))

    @app.post("/playbook/revoke")
    @tag(["learning"])
    @document_request(Revoke)
    @document_response(Revoked, 200)
    @document_problems(400, 408, 413, 503, 507)
    async def revoke() -> ResponseReturnValue:
        """Take back all that came from a source, a run or a staffer; answered once it is on disk."""
        asked = parse_body(await request_body(), Revoke, '{"of": "source", "name": "…"}')
        if asked.since and time_us(asked.since) is None:
            raise RequestInvalid("since: is not an ISO 8601 time", hint="e.g. 2026-11-22T10:00:00Z")
        if asked.of is Of.SOURCE and asked.name == OWN_SOURCE:
            raise RequestInvalid(f"name: {OWN_SOURCE} is the daemon itself", hint="name the source of an event")
        clean = views.intake.without_secrets
        revocation = Revocation(of=asked.of, name=clean(asked.name), since=asked.since, note=clean(asked.note))
        async with one_at_a_time:
            if not views.consolidator.has_room_for(revocation):
                raise RequestInvalid(f"there are {REVOCATIONS_MAX:,} revocations already")
            seq = await _written_down(views, revocation)
        await _taken_in(views, seq)
        return send(json_reply(Revoked(seq, views.consolidator.suspended)))


async def _written_down(views: Views, decided: Decision | Revocation) -> int:
    """Put a decision into the journal, and let it hold; give its seq.

    :raises Overloaded: the playbook has so many to take in already, or the journal has no room.
    :raises DiskFailed: the disk refused.
    """
    if not views.consolidator.expects_more:
        raise Overloaded(f"{AHEAD_MAX:,} decisions wait for the playbook to take them in")
    seq = await views.recorder.record(PLAYBOOK_ENDPOINT, decision_attrs(decided))
    views.consolidator.expect(msgspec.structs.replace(decided, seq=seq))
    return seq


async def _taken_in(views: Views, seq: int) -> None:
    """Wait a while until the playbook has taken in what was written down."""
    with trio.move_on_after(DECIDED_S):
        await views.consolidator.reached(seq)


def shown(views: Views, entry: Entry) -> ShownEntry:
    """Give an entry with what follows from it."""
    return ShownEntry(**_fields(views, entry))


def _fields(views: Views, entry: Entry) -> dict[str, Any]:
    return _as_stands(entry, *_standing(views, entry))


def _standing(views: Views, entry: Entry) -> tuple[bool, bool]:
    """Say whether an entry is handed out, and whether it may have been revoked: by the playbook that it is of."""
    return views.consolidator.hands_out(entry), views.consolidator.is_taken_back(entry)


def _as_stands(entry: Entry, handed_out: bool, suspended: bool) -> dict[str, Any]:  # noqa: FBT001 - of `_standing`
    shown = {"handed_out": handed_out, "suspended": suspended}
    return {**msgspec.structs.asdict(entry), **shown, "lift": lift(entry.trial, ALPHA)}


def _found(views: Views, key: str) -> Entry:
    """Find an entry by its id, or by that of one that has become part of it."""
    found = views.consolidator.playbook.ledger.find(key)
    if found is None:
        raise NotFound(f"there is no entry {key[:40]!a}", hint="GET /playbook lists them")
    return views.consolidator.as_decided(found)


async def _answer(views: Views, given: Mapping[str, Any], op: Op | None) -> Reply:
    playbook = views.consolidator.playbook
    entries: Sequence[Entry] = tuple(playbook.entries.values())
    if "seq" in given:
        entries = () if op is None else _evidenced(views, op)
    kept = [entry for entry in map(views.consolidator.as_decided, entries) if _passes(views, entry, given)]
    kept.sort(key=lambda entry: (-entry.succeeded - entry.failed, entry.id))
    answer = PlaybookAnswer([], len(kept), playbook.cursor, playbook.outdated, playbook.meta.left)
    # While the answer is made, another playbook may take this one's place: by it, what was revoked here stands again.
    stand = [(entry, *_standing(views, entry)) for entry in kept[: given.get("limit", LIMIT_DEFAULT)]]
    return await list_reply(answer, (ShownEntry(**_as_stands(*one)) for one in stand))


def _evidenced(views: Views, op: Op) -> list[Entry]:
    """Give the entries that an op is counted in; for a verdict those of its run's ops."""
    ledger = views.consolidator.playbook.ledger
    found = map(ledger.find, sorted(views.consolidator.playbook.shown_by(op)))
    return list({entry.id: entry for entry in found if entry is not None}.values())


def _passes(views: Views, entry: Entry, given: Mapping[str, Any]) -> bool:
    return (
        given.get("endpoint") in (None, entry.endpoint)
        and given.get("kind") in (None, entry.kind)
        and given.get("state") in (None, entry.state)
        and given.get("handed_out") in (None, views.consolidator.hands_out(entry))
        and ("text" not in given or given["text"].casefold() in entry.text.casefold())
    )


async def _detail(views: Views, entry: Entry) -> EntryDetail:
    found = [await views.get(seq) for seq in (*entry.example_seqs, *entry.contrary_seqs)]
    ops = [op for op in found if op is not None]
    return EntryDetail(
        **_fields(views, entry),
        ops=ops,
        patterns=_patterns(views, ops),
        verdicts=_verdicts(views, ops),
        suspect=[op.seq for op in ops if suspicion(op)],
    )


def _patterns(views: Views, ops: Iterable[Op]) -> list[PatternReference]:
    seqs: dict[str, list[int]] = {}
    for op in ops:
        if not op.success:
            seqs.setdefault(views.analyzer.pattern_of(op), []).append(op.seq)
    patterns = views.analyzer.patterns
    return [PatternReference(key, patterns[key].template, where) for key, where in seqs.items() if key in patterns]


def _verdicts(views: Views, ops: Iterable[Op]) -> list[Verdict]:
    runs = views.consolidator.playbook.runs.by_name
    seqs: dict[str, list[int]] = {}
    for op in ops:
        name = run_name(op)
        if name:
            seqs.setdefault(name, []).append(op.seq)
    known = [(runs.get(name), where) for name, where in seqs.items()]
    return [
        Verdict(run.name, run.good, run.verdict_seq, where)
        for run, where in known
        if run is not None and run.verdict_seq
    ]


_PARAMETERS: Final[Mapping[str, Parameter]] = {
    "endpoint": parse_label,
    "kind": parse_one_of(*Kind),
    "state": parse_one_of(*State),
    "handed_out": parse_boolean,
    "text": parse_text,
    "seq": parse_seq,
    "limit": parse_limit,
}
