"""The witness's doubt as it is shown: shares beside the counts, and marks on the ops that it concerns."""

from __future__ import annotations

import msgspec

from observer_actors.doubt import Claims, Doubts, suspicion
from observer_actors.op import Op


class DoubtfulOp(Op, kw_only=True, omit_defaults=False):
    """An op as it was reported; `suspect` says what in its own words speaks against the success that it claims."""

    suspect: str | msgspec.UnsetType = msgspec.UNSET


class ClaimsAnswer(msgspec.Struct, frozen=True):
    """Ops that claimed success: how many, and how many of them there is reason to doubt."""

    claimed: int
    suspect: int
    """Their own output says otherwise."""
    judged: int
    """Their run has a verdict."""
    refuted: int
    """Their run's verdict was a failure."""
    suspect_share: float
    """Of `claimed`."""
    refuted_share: float
    """Of `judged`."""


class RunsAnswer(msgspec.Struct, frozen=True):
    """Runs with a verdict."""

    judged: int
    failed: int
    silent: int
    """Failed, although no op of theirs had said so."""
    silent_share: float
    """Of `failed`: claimed success, but was not."""


class DoubtAnswer(msgspec.Struct, frozen=True):
    """Claims of success, and what speaks against them; over everything ever committed, ops of source auditor aside."""

    runs: RunsAnswer
    by_source: dict[str, ClaimsAnswer]
    by_endpoint: dict[str, ClaimsAnswer]
    reasons: dict[str, int]
    """Suspect ops by reason."""


def doubt_answer(doubts: Doubts) -> DoubtAnswer:
    """Put the counts into an answer."""
    return DoubtAnswer(
        runs=RunsAnswer(
            doubts.runs_judged,
            doubts.runs_failed,
            doubts.runs_silent,
            _share(doubts.runs_silent, doubts.runs_failed),
        ),
        by_source={label: _claims(claims) for label, claims in doubts.sources.items()},
        by_endpoint={label: _claims(claims) for label, claims in doubts.endpoints.items()},
        reasons=dict(doubts.reasons),
    )


def marked_op(op: Op) -> DoubtfulOp:
    """Give the op with a mark, if there is reason for one: the record itself stays as it was reported."""
    return DoubtfulOp(**msgspec.structs.asdict(op), suspect=suspicion(op) or msgspec.UNSET)


def _claims(claims: Claims) -> ClaimsAnswer:
    return ClaimsAnswer(
        claims.claimed,
        claims.suspect,
        claims.judged,
        claims.refuted,
        _share(claims.suspect, claims.claimed),
        _share(claims.refuted, claims.judged),
    )


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0
