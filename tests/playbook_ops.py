"""Operations for tests of the playbook: agents that report in runs, an auditor that judges them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec
from hypothesis import strategies as st

from observer_actors.op import Op, Scalar
from observer_actors.playbook import (
    Action,
    Corroboration,
    Decision,
    Kind,
    Of,
    Playbook,
    Revocation,
    Row,
    decision_attrs,
)
from observer_actors.playbook.decisions import PLAYBOOK_ENDPOINT
from observer_actors.playbook.deltas import Delta
from observer_actors.playbook.entries import entry_id
from observer_actors.playbook.trial import ADVICE_ENDPOINT

ALONE: Final = Corroboration(runs_min=1, sources_min=1)


def call(
    endpoint: str = "sql:run",
    *,
    error: str = "",
    given: str = "",
    run: str = "",
    source: str = "mcp",
    ms: float = 10,
    staffer: str = "",
    **attrs: Scalar,
) -> Op:
    """Give what an agent reports of one call: it failed where there is an error."""
    named = {**attrs, "run": run} if run else attrs
    return Op(
        timestamp="2026-11-22T10:00:00.000Z",
        endpoint=endpoint,
        input_summary=given,
        success=not error,
        duration_ms=ms,
        output_summary="ok",
        error=error or msgspec.UNSET,
        source=source,
        staffer_id=staffer or msgspec.UNSET,
        attrs=named or msgspec.UNSET,
    )


def verdict(run: str, *, good: bool) -> Op:
    """Give what an auditor says of a run."""
    return msgspec.structs.replace(
        call("auditor:verdict", error="" if good else "it did not", run=run, source="auditor", ms=0)
    )


def own(endpoint: str, attrs: dict[str, Scalar]) -> Op:
    """Give an op of the daemon's own."""
    return msgspec.structs.replace(call(endpoint, source="observer", ms=0), attrs=attrs)


def exposed(advice: str, entries: str, *, control: str = "", run: str = "", trusted: str | None = "") -> Op:
    """Give the op that says what an answer handed out.

    :param trusted: those drawn with the small share; None: it does not say, as those of older versions.
    """
    attrs = {"advice_id": advice, "run": run, "exposed": entries, "control": control}
    said: dict[str, Scalar] = {name: text for name, text in attrs.items() if text}
    if trusted is not None:
        said["trusted"] = trusted
    return own(ADVICE_ENDPOINT, said)


def decided(decision: Decision | Revocation) -> Op:
    """Give the op that says what a person has decided."""
    return own(PLAYBOOK_ENDPOINT, decision_attrs(decision))


def revoked(of: Of, name: str, since: str = "") -> Op:
    """Give the op that takes something back."""
    return decided(Revocation(of=of, name=name, since=since))


def numbered(ops: Iterable[Op], first: int = 1) -> list[Op]:
    """Give the ops as the journal would hold them: a second apart."""
    return [
        msgspec.structs.replace(op, seq=seq, recorded_at=f"2026-11-22T10:{seq // 60 % 60:02}:{seq % 60:02}.000000Z")
        for seq, op in enumerate(ops, start=first)
    ]


def fold(ops: Iterable[Op], playbook: Playbook | None = None, corroboration: Corroboration = ALONE) -> Playbook:
    """Fold ops into a playbook."""
    playbook = playbook or Playbook(corroboration)
    for op in ops:
        playbook.take(op)
    return playbook


def save(playbook: Playbook, rows: dict[tuple[str, str], Row]) -> None:
    """Save what has changed since the last time."""
    for part in playbook.kept.take():
        row = playbook.row(*part)
        if row.record:
            rows[part] = row
        else:
            rows.pop(part, None)
    playbook.kept.saved()


def deltas(ops: Iterable[Op], playbook: Playbook) -> Iterator[Delta]:
    """Give all that the ops change."""
    for op in ops:
        yield from playbook.take(op)


_ENDPOINTS = st.sampled_from(("book", "search", "pay"))
_RUNS = st.sampled_from(("", "r1", "r2", "r3", "r4", "r5", "r6"))
_INPUTS = st.sampled_from(
    ("", "plain 7", '{"date":"2026-11-22","n":1}', '{"date":"tomorrow","n":1}', '{"n":2,"card":"gold"}', '{"n":[1,')
)
_ERRORS = st.sampled_from(
    (
        "",
        "",
        "",
        "no seat 7 on flight HAT9 is left",
        "no bed 7 on flight HAT9 is left",
        "HTTP 503 upstream",
        "timed out after 3 s",
        "invalid date",
    )
)
_CALLS = st.builds(
    lambda endpoint, error, given, run, source, staffer: call(
        endpoint, error=error, given=given, run=run, source=source, staffer=staffer
    ),
    _ENDPOINTS,
    _ERRORS,
    _INPUTS,
    _RUNS,
    st.sampled_from(("mcp", "scenario")),
    st.sampled_from(("", "ann")),
)
_VERDICTS = st.builds(lambda run, good: verdict(run, good=good), _RUNS, st.booleans())
_ENTRIES = st.sampled_from((entry_id(Kind.DO, "book"), entry_id(Kind.AVOID, "book", "invalid date")))
_EXPOSURES = st.builds(
    lambda advice, entry, run, is_control: exposed(
        advice, "" if is_control else entry, control=entry if is_control else "", run=run
    ),
    st.sampled_from(("a1", "a2", "a3")),
    _ENTRIES,
    _RUNS,
    st.booleans(),
)
_REPORTS = st.builds(
    lambda advice, error, run: call("book", error=error, run=run, advice_id=advice),
    st.sampled_from(("a1", "a2", "a3")),
    _ERRORS,
    _RUNS,
)
_DECISIONS = st.builds(
    lambda action, entry: decided(Decision(action=action, entry=entry, note="so")), st.sampled_from(Action), _ENTRIES
)
_OPS = st.one_of(*[_CALLS] * 8, *[_VERDICTS] * 2, _EXPOSURES, _REPORTS, _DECISIONS)
journals: Final = st.lists(_OPS, min_size=0, max_size=80).map(numbered)
"""Journals of agents in a few runs, of an auditor, and of what the daemon and persons add to them."""
