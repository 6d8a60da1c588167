"""When a pattern is shown to a model, with which words, and what the gateway is told about the answer. Pure.

A pattern is due when it is

* **new**: never diagnosed;
* **back**: since the last diagnosis its state has become regressed, or it failed again after a quiet time of at least
  an hour of recorded time, and of at least 4 times its mean distance between failures until then
  (`grouping.QUIET_US_MIN`, `QUIET_TIMES_MEAN`);
* **escalating**: since the last diagnosis its state has become escalating, or it has failed at least 10 times, and
  at least 4 times as often as in all the time before it: there is much more to go by. So a pattern with n failures,
  no spike and no quiet time is shown about log5(n) times in all.

Never in between, never while it is muted or resolved, and never twice with the same evidence: `Inquiry.key` is a hash
of it.

The prompt's words and lines are the seed's (`observer.ts`, `analyzeErrors`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Final

import msgspec

from observer_actors.labels import stable_id
from observer_actors.patterns.grouping import Example, Pattern, by_any_id
from observer_actors.patterns.outgoing import LogEntry, Outgoing, log_message
from observer_actors.patterns.states import Standing, State
from observer_actors.patterns.taxonomy import Cause

ESCALATION_FAILURES_MIN: Final = 10
ESCALATION_TIMES: Final = 4
LINES_MAX: Final = 10
"""Failures in one prompt, as in the seed."""
CASES_MAX: Final = LINES_MAX
"""Patterns in one prompt: each has a line of its own. The others' turn comes with the next inquiry."""
GATEWAY_CHARS_MAX: Final = 500
"""Characters of the answer and of the failures in the gateway's copy, as in the seed."""
TEXT_CHARS_MAX: Final = 20_000
"""Characters of an answer that are kept: many times the 400 tokens that are asked for."""


class Reason(StrEnum):
    """Why a pattern is shown to a model."""

    NEW = "new"
    BACK = "back"
    ESCALATING = "escalating"


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One pattern of an inquiry, as it stood when the inquiry was made."""

    pattern_id: str
    reason: Reason
    seqs: tuple[int, ...]
    """The ops that the prompt quotes."""
    failures: int
    """Failures since the last diagnosis."""
    count: int
    last_seq: int


class Inquiry(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked. The same evidence has the same ``key``, and other evidence another one."""

    key: str
    cases: tuple[Case, ...]
    failures: tuple[str, ...]
    """The quoted failures, one line each, oldest first."""
    prompt: str


class Claim(msgspec.Struct, frozen=True):
    """Something that a model says, and the ops that it rests on."""

    text: str
    ops: tuple[int, ...]


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """What is taken of a model's answer, where it was asked for its evidence."""

    cause: Cause
    claims: tuple[Claim, ...]
    advice: str
    thrown_out: int = 0
    """Claims that named no op, or one that was not shown."""

    @property
    def text(self) -> str:
        """The answer in words."""
        claims = [f"{claim.text} (ops {', '.join(map(str, claim.ops))})" for claim in self.claims]
        return "\n".join([f"Cause: {self.cause}", *claims, self.advice])


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """What a model said about an inquiry."""

    key: str
    """The inquiry's."""
    cases: tuple[Case, ...]
    text: str
    model: str
    created: str
    """ISO 8601."""
    statement: Statement | None = None
    """Where the model was asked for its evidence; each claim names ops that were shown to it."""


def due(pattern: Pattern, standing: Standing | None = None) -> Reason | None:
    """Say why the pattern is to be shown to a model now; None when it is not."""
    state = standing.state if standing is not None else State.NEW
    if state in (State.MUTED, State.RESOLVED):
        return None
    if not pattern.diagnosed_seq:
        return Reason.NEW
    is_recent = standing is not None and standing.since_seq > pattern.diagnosed_seq
    if pattern.back_seq > pattern.diagnosed_seq or (is_recent and state is State.REGRESSED):
        return Reason.BACK
    if is_recent and state is State.ESCALATING:
        return Reason.ESCALATING
    if pattern.undiagnosed >= max(ESCALATION_FAILURES_MIN, ESCALATION_TIMES * pattern.diagnosed_count):
        return Reason.ESCALATING
    return None


def turn(pattern: Pattern, standing: Standing | None) -> tuple[bool, int]:
    """Give the place in line of one that is due: what escalates, is back or is new first, then what failed last."""
    state = standing.state if standing is not None else State.NEW
    return state not in (State.ESCALATING, State.REGRESSED, State.NEW), -pattern.last_seq


def inquire(
    patterns: Iterable[Pattern], standing: Callable[[str], Standing | None] = lambda _pattern: None
) -> Inquiry | None:
    """Put the patterns that are due into one prompt; None when none is.

    At most `CASES_MAX` patterns, those with the most failures since their last diagnosis first.
    """
    reasons = [(found, reason) for found in patterns if (reason := due(found, standing(found.id))) is not None]
    if not reasons:
        return None
    reasons.sort(key=lambda item: (-item[0].undiagnosed, item[0].id))
    chosen = reasons[:CASES_MAX]
    quoted = _quoted([pattern for pattern, _ in chosen])
    cases = tuple(case_of(pattern, reason, quoted) for pattern, reason in chosen)
    failures = tuple(example.line for example in quoted)
    return Inquiry(key=_evidence_key(cases), cases=cases, failures=failures, prompt=_prompt("\n".join(failures)))


def conclude(inquiry: Inquiry, text: str, *, model: str, created: str, statement: Statement | None = None) -> Diagnosis:
    """Make a diagnosis of a model's answer."""
    return Diagnosis(
        key=inquiry.key,
        cases=inquiry.cases,
        text=text[:TEXT_CHARS_MAX],
        model=model,
        created=created,
        statement=statement,
    )


def diagnosed_by(diagnosis: Diagnosis, patterns: Mapping[str, Pattern]) -> dict[str, Pattern]:
    """Give, by id, the patterns that count as diagnosed now.

    :param patterns: as they stand; they may have grown, and become one, since the inquiry was made.
    """
    owners = by_any_id(patterns.values())
    diagnosed: dict[str, Pattern] = {}
    for case in diagnosis.cases:
        if (owner := owners.get(case.pattern_id)) is not None:
            known = diagnosed.get(owner.id, owner)
            diagnosed[owner.id] = msgspec.structs.replace(
                known,
                diagnosed_seq=max(known.diagnosed_seq, case.last_seq),
                diagnosed_count=known.diagnosed_count + case.failures,  # of those it has taken in some may be, too
            )
    return diagnosed


def inquiry_message(inquiry: Inquiry, text: str) -> Outgoing:
    """Give the gateway's copy, in the seed's words.

    The seed counts all failures of the ring; this counts those of the patterns in question since they were
    last diagnosed, so that no failure is announced twice.
    """
    failures = sum(case.failures for case in inquiry.cases)
    entry = LogEntry(
        operation=f"error_analysis: {failures} failures",
        approach="LLM-analyzed error patterns",
        result=text[:GATEWAY_CHARS_MAX],
        context="\n".join(inquiry.failures)[:GATEWAY_CHARS_MAX],
    )
    return log_message(f"error_analysis:{inquiry.key}", entry)


def _quoted(patterns: Iterable[Pattern]) -> list[Example]:
    """Choose the failures to quote: the newest of each pattern, then the newest of all; oldest first."""
    newest: list[Example] = []
    rest: list[Example] = []
    for pattern in patterns:
        newest.append(pattern.examples[-1])
        rest.extend(pattern.examples[:-1])
    rest.sort(key=lambda example: example.seq)
    room = LINES_MAX - len(newest)
    return sorted(newest + (rest[-room:] if room > 0 else []), key=lambda example: example.seq)


def case_of(pattern: Pattern, reason: Reason, quoted: Iterable[Example]) -> Case:
    """Give the case of a pattern as it stands.

    :param quoted: the failures that the prompt quotes, also of other patterns.
    """
    own = {example.seq for example in pattern.examples}
    return Case(
        pattern_id=pattern.id,
        reason=reason,
        seqs=tuple(example.seq for example in quoted if example.seq in own),
        failures=pattern.undiagnosed,
        count=pattern.count,
        last_seq=pattern.last_seq,
    )


def _evidence_key(cases: Iterable[Case]) -> str:
    evidence = sorted((case.pattern_id, case.reason.value, case.seqs) for case in cases)
    return stable_id("inquiry", msgspec.json.encode(evidence).decode())


def _prompt(failures: str) -> str:
    return f"""\
You are a system reliability observer. Analyze these recent failures and suggest fixes:
{failures}
For each error:
1. What likely caused it?
2. How should the agent adjust its approach?
3. Should this be added to the playbook as a "don't do this"?
Be specific and actionable. Under 200 words."""
