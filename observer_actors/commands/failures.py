"""`observer-actors failures`: what fails in the same way, one of it whole, and what a person does with it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Annotated, Literal

import cyclopts
import msgspec
from cyclopts import Parameter, validators

from observer_actors.commands._answers import FailureAnswer, FailureDetailAnswer, FailuresAnswer
from observer_actors.commands._filters import Time
from observer_actors.commands._options import ApiOptions, Id, JsonFlag, Note, NoteText
from observer_actors.commands._screen import (
    ENDPOINT_CHARS,
    LISTED_MAX,
    SUMMARY_CHARS,
    Listing,
    console,
    op_line,
    print_json,
    say_more,
    shown_time,
)
from observer_actors.op import iso_at
from observer_actors.visible import cut, visible

app = cyclopts.App(name="failures", help="Show what fails in the same way, mute it, resolve it, or note something.")


@Parameter(name="*", allow_leading_hyphen=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class FailureFilters:
    """Each one given must fit. The daemon, which may be of another version, says what it knows of states and causes."""

    endpoint: Annotated[str | None, Parameter(help="Only of this endpoint.")] = None
    source: Annotated[str | None, Parameter(help="Only what this source has seen.")] = None
    state: Annotated[
        str | None,
        Parameter(
            help="Only in this state: new, ongoing, escalating, regressed, resolved, muted; open: the first four."
        ),
    ] = None
    cause: Annotated[str | None, Parameter(help="Only with this likely cause, such as timeout.")] = None
    text: Annotated[str | None, Parameter(help="Only with this in the pattern.")] = None
    since: Annotated[
        Time | None, Parameter(help="Failed last not before: an ISO 8601 time, or how long ago: 90s, 15m, 2h, 7d.")
    ] = None
    until: Annotated[Time | None, Parameter(help="Failed last before: likewise.")] = None


@app.default
def failures(
    filters: FailureFilters = FailureFilters(),
    api: ApiOptions = ApiOptions(),
    *,
    sort: Literal["impact", "count", "wasted", "last_seen", "first_seen"] = "impact",
    limit: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=LISTED_MAX))] = 100,
    json: JsonFlag = False,
) -> None:
    """Show what fails in the same way, what costs most first.

    Example: observer-actors failures --since 1d

    Parameters
    ----------
    sort
        What is first: what costs most (impact), has failed most often, wasted most time, failed last, or begun last.
    limit
        Most patterns to show.
    """
    body, answer = api.get(FailuresAnswer, "/failures", asdict(filters) | {"sort": sort, "limit": limit})
    if json:
        print_json(body)
        return
    if answer.failures:
        console().print(table_of(answer.failures))
        say_more(answer.total, len(answer.failures), "--endpoint and the other filters")
    else:
        print("nothing that has failed fits" if filters != FailureFilters() else "nothing has failed")
    if not answer.complete:
        print("failures are counted anew from the journal: this is not all of them yet")


@app.command
def show(pattern: Id, api: ApiOptions = ApiOptions(), *, json: JsonFlag = False) -> None:
    """Show one pattern: how it stands, how often it failed, why, what was noted, and its newest operations.

    Example: observer-actors failures show 8d7b13ab5acc1357
    """
    body, answer = api.get(FailureDetailAnswer, f"/failures/{pattern}")
    if json:
        print_json(body)
        return
    print("\n".join(map(visible, _in_words(answer))))
    screen = console()
    for op in answer.ops:
        screen.print(op_line(op), soft_wrap=True)


@app.command
def mute(pattern: Id, api: ApiOptions = ApiOptions(), *, note: Note = "", json: JsonFlag = False) -> None:
    """Say no more of a pattern until it is unmuted: no webhook is told, no model asked. It goes on being counted.

    Example: observer-actors failures mute 8d7b13ab5acc1357 --note "known; the vendor mends it in June"
    """
    _act(api, pattern, "mute", note, json=json)


@app.command
def unmute(pattern: Id, api: ApiOptions = ApiOptions(), *, note: Note = "", json: JsonFlag = False) -> None:
    """Let a pattern be told of again.

    Example: observer-actors failures unmute 8d7b13ab5acc1357
    """
    _act(api, pattern, "unmute", note, json=json)


@app.command
def resolve(pattern: Id, api: ApiOptions = ApiOptions(), *, note: Note = "", json: JsonFlag = False) -> None:
    """Say that a pattern is mended. If it fails again it is regressed.

    Example: observer-actors failures resolve 8d7b13ab5acc1357 --note "released in 2.4.1"
    """
    _act(api, pattern, "resolve", note, json=json)


@app.command
def note(pattern: Id, text: NoteText, api: ApiOptions = ApiOptions(), *, json: JsonFlag = False) -> None:
    """Note something with a pattern, such as who looks after it.

    Example: observer-actors failures note 8d7b13ab5acc1357 "Ada looks after it"
    """
    _act(api, pattern, "note", text, json=json)


def _act(api: ApiOptions, pattern: str, action: str, note: str, *, json: bool) -> None:
    body, answer = api.post(
        FailureAnswer, f"/failures/{pattern}", msgspec.json.encode({"action": action, "note": note})
    )
    if json:
        print_json(body)
    else:
        print(visible(f"{answer.id}: {answer.state}"))


def _in_words(one: FailureDetailAnswer) -> Iterable[str]:
    yield one.template
    yield ""
    yield f"{one.state} since {shown_time(iso_at(one.state_since_us / 1e6))}, at {one.endpoint}"
    spans = ((one.history.minutes, "hour"), (one.history.hours[-24:], "24 hours"), (one.history.days, "30 days"))
    recent = ", ".join(f"{span} {sum(counts):,}" for counts, span in spans)
    yield f"count: {one.count:,}; by event time, in the last {recent}"
    seen = f"first {shown_time(one.first_seen)} (op {one.first_seq}), last {shown_time(one.last_seen)}"
    yield f"recorded: {seen} (op {one.last_seq}); they took {one.wasted_ms / 1_000:,.1f} s"
    yield "sources: " + ", ".join(f"{source} {count:,}" for source, count in one.sources.items())
    because = f", by “{one.ruling.because}”" if one.ruling.because else ""
    yield f"likely cause: {one.ruling.cause} ({one.ruling.confidence:.0%}{because}). {one.ruling.advice}"
    for found in one.contrast:
        shares = f"{found.failing_with:,} of {found.failing:,}, of the successes {found.succeeding_with:,} of"
        yield f"more often than others: {found.feature} {found.value} ({shares} {found.succeeding:,})"
    if (said := one.diagnosis) is not None:
        yield f"diagnosis by {said.model}, {shown_time(said.created)}:"
        yield from (f"  {line}" for line in said.text.splitlines())
    for lesson in one.lessons:
        yield f"lesson {lesson.id} ({lesson.kind}): {cut(lesson.text, SUMMARY_CHARS)}"
    for noted in one.notes:
        yield f"note of {shown_time(iso_at(noted.at_us / 1e6))}: {noted.text}"
    if one.aliases:
        yield f"once also: {', '.join(one.aliases)}"
    if one.ops:
        yield "newest:"


def table_of(found: Iterable[FailureAnswer]) -> Listing:
    """Lay patterns out, one a line where the screen is wide enough."""
    columns = ("count", "state", "last seen", "endpoint", "pattern", "id")
    below = (("count", "state"), ("last seen", "id"), ("endpoint", "pattern"))
    return Listing(columns, tuple(map(_cells, found)), numbers=("count",), below=below)


def _cells(one: FailureAnswer) -> tuple[str, ...]:
    return (
        f"{one.count:,}",
        one.state,
        shown_time(one.last_seen),
        cut(one.endpoint, ENDPOINT_CHARS),
        cut(one.template, SUMMARY_CHARS),
        one.id,
    )
