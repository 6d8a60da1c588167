"""Entries out of evidence: what an endpoint's counts show, in words for an agent. Pure.

What is drawn:

* `do`: an endpoint that works (`SUCCESSES_MIN`), how often with Wilson's interval, how fast, and with which input; and
  the way to call it, where that makes the difference (`differences`).
* `avoid`: a failure (`FAILURES_MIN`) with its likely cause, what to do about it, and what works where this fails. Where
  an attribute of the op sets it apart, and nearly all of it has that (`SCOPE_SHARE_MIN`), it is for such ops alone.
* `recipe`: the steps after which a call succeeds that had failed (`RECOVERIES_MIN`, in `RECOVERY_RATE_MIN` of the
  tries, and not in none of the last ones); and the step that runs judged good have before a call, and bad ones have
  not (Fisher, `HABIT_P_MAX`, Bonferroni).

A word of a caller stands in a text only where it is corroborated by itself, or is what the entry is about: that is
handed out only when it is corroborated.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final, NamedTuple

from observer_actors.patterns.contrast import Z_95
from observer_actors.patterns.taxonomy import Cause
from observer_actors.playbook.deltas import Evidence
from observer_actors.playbook.differences import (
    Counts,
    Difference,
    Found,
    Side,
    against_successes,
    chance_p,
    of_all_failures,
)
from observer_actors.playbook.entries import Kind, entry_id
from observer_actors.playbook.evidence import Endpoint, Failure, Habit, Recovery
from observer_actors.playbook.inputs import SHAPE, is_attribute, shown_name
from observer_actors.playbook.runs import OTHER_INPUT
from observer_actors.playbook.witnesses import Balance, Corroboration, Witnesses

SUCCESSES_MIN: Final = 3
"""The seed's."""
FAILURES_MIN: Final = 2
RECOVERIES_MIN: Final = 3
RECOVERY_RATE_MIN: Final = 0.5
HABIT_RUNS_MIN: Final = 5
HABIT_P_MAX: Final = 0.01
HABIT_SHARE_MIN: Final = 0.2
RETRIES_MIN: Final = 3
USUAL_RATE_MIN: Final = 0.8
"""Of the calls with an input of which it is said that it works."""
SCOPE_SHARE_MIN: Final = 0.9
FAILURE_CHARS_MAX: Final = 160
_PASSES: Final = frozenset({Cause.TIMEOUT, Cause.NETWORK, Cause.UPSTREAM, Cause.RATE_LIMIT, Cause.RESOURCE})
"""Causes that may be gone the next time."""


class Draft(NamedTuple):
    """What an entry says that may say what makes the difference; without evidence there is nothing to say."""

    evidence: Evidence | None
    said: str = ""
    """What makes the difference, as one text: two drafts that say the same are one."""
    is_look: bool = False
    """A difference was looked for."""
    way: str = ""
    """Which value works, where an `avoid` knows of just one."""


def draw_do(endpoint: Endpoint, corroboration: Corroboration) -> Evidence | None:
    """Say that an endpoint works, how often, how fast, and with what."""
    ok, bad = _weighed(endpoint.ok, endpoint.bad, corroboration)
    calls = ok + bad
    if ok < SUCCESSES_MIN or 2 * ok < calls:
        return None
    low, high = wilson(ok, calls)
    parts = [
        f"{_code(endpoint.name)} works: {ok:,} of {calls:,} calls succeeded ({_percent(low)} to {_percent(high)} %)."
    ]
    if endpoint.ok.doubtful:
        doubtful = f"{endpoint.ok.doubtful:,} more are not counted"
        parts.append(f"{doubtful}: of runs that were judged failed, or with an output that says otherwise.")
    half, most = endpoint.quantile_ms(0.5), endpoint.quantile_ms(0.95)
    if most > 1:
        parts.append(f"Half of them took up to {_ms(half)}, 95 % up to {_ms(most)}.")
    shape = _usual_shape(endpoint, corroboration)
    if shape:
        parts.append(shape)
    return _evidence(endpoint, endpoint.ok, corroboration, "", parts, succeeded=ok, failed=bad)


def draw_way(counts: Counts) -> Draft:
    """Say how to call an endpoint, where that makes the difference."""
    endpoint, corroboration = counts.endpoint, counts.corroboration
    found, is_look = of_all_failures(counts)
    if found is None or found.works is None or is_attribute(found.feature):
        return Draft(None, is_look=is_look)
    works, fails = found.works, found.fails
    if found.is_one_of_many:
        return Draft(_draw_other_way(counts, found), _said(found), is_look)
    instead = f", with {_phrase(found.feature, fails)} {_of(fails)}" if found.tells_fails else ""
    parts = [
        f"Call {_code(endpoint.name)} with {_phrase(found.feature, works)}:",
        f"{_of(works)} such calls succeeded{instead}.",
    ]
    value = (endpoint.features[found.feature] or {}).get(works.value)
    witnesses = endpoint.ok if value is None else value.ok
    about = _phrase(found.feature, works)
    evidence = _evidence(
        endpoint, witnesses, corroboration, about, parts, succeeded=works.succeeded, failed=works.failed
    )
    return Draft(evidence, _said(found), is_look)


def _draw_other_way(counts: Counts, found: Difference) -> Evidence | None:
    """Say how not to call an endpoint, where any other way will do."""
    endpoint, others = counts.endpoint, found.others
    if not found.tells_fails:
        return None
    about = f"{_code(found.feature)} being another than {found.fails.value}"
    parts = [f"Call {_code(endpoint.name)} with {about}:", f"{_of(others)} did well so, with it {_of(found.fails)}."]
    return _evidence(
        endpoint, endpoint.ok, counts.corroboration, about, parts, succeeded=others.succeeded, failed=others.failed
    )


def draw_avoid(counts: Counts, root: str, failure: Failure) -> Draft:
    """Say how an endpoint fails, why, what to do about it, and what works."""
    endpoint, corroboration = counts.endpoint, counts.corroboration
    enough = failure.witnesses.suffice(corroboration)
    counted = failure.witnesses, endpoint.ok, endpoint.bad
    balance = Balance.of(endpoint.ok, endpoint.bad)
    count, ok, failed = (balance.weight(one, corroboration) if enough else one.count for one in counted)
    if failure.witnesses.weight(corroboration) < FAILURES_MIN:
        return Draft(None)
    ruling = failure.ruling(corroboration)
    text = failure.shown(corroboration)
    failed = max(count, failed)
    calls = ok + failed + (endpoint.doubtful.shared(corroboration) if enough else endpoint.ok.doubtful)
    parts = [f"{_code(endpoint.name)} fails with {_told(failure, corroboration)} ({count:,} of {calls:,} calls)."]
    if ruling.cause is not Cause.UNKNOWN:
        parts.append(ruling.advice)
    compared = failure.compared.shared(corroboration)
    values = {key: tally.shared(corroboration) for key, tally in failure.values.items()}
    found, is_look = against_successes(counts, values, compared, failure.looks + 1) if enough else Found(None, False)
    if found is not None and (difference := _difference(found)):
        parts.append(difference)
    again = endpoint.recoveries.get(root)
    if again is not None and enough:
        again_bad, again_ok = _weighed(again.bad, again.ok, corroboration, like=failure.witnesses)
        again_ok += again.ok.doubtful  # whatever became of the run, it did not fail
        if again_bad >= RETRIES_MIN and again_bad > 2 * again_ok:
            parts.append(f"Called again at once it failed {again_bad:,} of {again_bad + again_ok:,} times.")
    evidence = _evidence(
        endpoint,
        failure.witnesses,
        corroboration,
        text,
        parts,
        succeeded=ok,
        failed=count,
        examples=failure.seqs,
        contrary=endpoint.ok_seqs,
        scope=_scope(found, failure.apart.shared(corroboration)),
    )
    said = "" if found is None else f"{ruling.cause}\n{_said(found)}"
    way = f"{found.feature}\n{found.works.value}" if found is not None and found.works and found.ways == 1 else ""
    return Draft(evidence, said, is_look, way)


def draw_recovery(endpoint: Endpoint, recovery: Recovery, corroboration: Corroboration) -> Evidence | None:
    """Say what leads from a failure to success."""
    ok, bad = _weighed(recovery.ok, recovery.bad, corroboration)
    tries = ok + bad
    failure = endpoint.failures.get(recovery.failure)
    if failure is None or recovery.steps == (OTHER_INPUT,) or ok < RECOVERIES_MIN or ok < RECOVERY_RATE_MIN * tries:
        return None
    if recovery.is_of_the_past(corroboration):
        return None
    ruling = failure.ruling(corroboration)
    if not recovery.steps and ruling.cause not in _PASSES:
        return None
    others = [one for one in endpoint.recoveries.values() if one.failure == recovery.failure and one is not recovery]
    weighed = [
        (0, one.failing.shared(corroboration))
        if one.is_of_the_past(corroboration)
        else _weighed(one.ok, one.bad, corroboration, like=recovery.ok)
        for one in others
    ]
    others_ok, others_tries = sum(good for good, _ in weighed), sum(map(sum, weighed))
    if others_tries and others_ok * tries >= ok * others_tries:
        return None  # other ways work as well
    steps = " then ".join(map(_code, recovery.steps))
    way = f"call {steps}, and then {_code(endpoint.name)} again" if steps else f"call {_code(endpoint.name)} again"
    text = _quoted(failure.shown(corroboration))
    fails = f"{_code(endpoint.name)} fails with {_told(failure, corroboration)}"
    parts = [f"When {fails}, {way}: that succeeded {ok:,} of {tries:,} times."]
    if others_tries >= RETRIES_MIN:
        parts.append(f"Other ways did {others_ok:,} of {others_tries:,} times.")
    elif recovery.steps:
        parts.append("Hardly any other way was tried.")
    if not recovery.steps:
        parts.append(ruling.advice)
    about = f"after {text}: {' → '.join((*recovery.steps, endpoint.name))}"
    return _evidence(
        endpoint,
        recovery.ok,
        corroboration,
        about,
        parts,
        succeeded=ok,
        failed=bad,
        examples=recovery.seqs,
        contrary=recovery.contrary_seqs,
    )


def draw_habit(endpoint: Endpoint, other: str, habit: Habit, corroboration: Corroboration) -> Evidence | None:
    """Say which endpoint to call before, where runs that did were judged better."""
    good, bad = habit.good.count, habit.bad
    without_good, without_bad = endpoint.judged_good - good, endpoint.judged_bad - bad
    with_, without = good + bad, without_good + without_bad
    if min(with_, without) < HABIT_RUNS_MIN or good < HABIT_RUNS_MIN:
        return None
    if good / with_ - without_good / without < HABIT_SHARE_MIN:
        return None
    if chance_p(good, endpoint.judged_good, bad, endpoint.judged_bad) * len(endpoint.habits) > HABIT_P_MAX:
        return None
    parts = [
        f"Before {_code(endpoint.name)}, call {_code(other)}.",
        f"Of the runs that did {good:,} of {with_:,} were judged good, of the others {without_good:,} of {without:,}.",
    ]
    return _evidence(
        endpoint,
        habit.good,
        corroboration,
        f"{other} → {endpoint.name}",
        parts,
        succeeded=good,
        failed=bad,
        examples=habit.seqs,
        contrary=habit.contrary_seqs,
    )


def ids_about(endpoint: Endpoint, failure: str) -> list[str]:
    """Give the ids of the entries about a failure: the first says how it fails, the others how to go on."""
    ways = [key for key, recovery in endpoint.recoveries.items() if recovery.failure == failure]
    return [
        entry_id(Kind.AVOID, endpoint.name, failure),
        *(entry_id(Kind.RECIPE, endpoint.name, way) for way in ways),
    ]


def wilson(succeeded: int, total: int) -> tuple[float, float]:
    """Give Wilson's 95 % interval of a proportion (1927)."""
    if not total:
        return 0.0, 1.0
    rate, spread = succeeded / total, Z_95 * Z_95 / total
    middle = (rate + spread / 2) / (1 + spread)
    width = math.sqrt(rate * (1 - rate) * spread + spread * spread / 4) / (1 + spread)
    return max(0.0, middle - width), min(1.0, middle + width)


def _weighed(
    shown: Witnesses, other: Witnesses, corroboration: Corroboration, *, like: Witnesses | None = None
) -> tuple[int, int]:
    """Give how much two counts weigh against each other.

    While what an entry says is not corroborated nobody is told of it, and all counts.

    :param shown: what the entry says, unless that is ``like``.
    """
    if not (like or shown).suffice(corroboration):
        return shown.count, other.count
    balance = Balance.of(shown, other)
    return balance.weight(shown, corroboration), balance.weight(other, corroboration)


def _evidence(  # noqa: PLR0913 - what an entry has
    endpoint: Endpoint,
    witnesses: Witnesses,
    corroboration: Corroboration,
    about: str,
    parts: Iterable[str],
    *,
    succeeded: int,
    failed: int,
    examples: Iterable[int] | None = None,
    contrary: Iterable[int] | None = None,
    scope: dict[str, str] | None = None,
) -> Evidence:
    examples = tuple(endpoint.ok_seqs if examples is None else examples)
    return Evidence(
        about=about,
        text=" ".join(parts),
        scope=scope or {},
        succeeded=succeeded,
        failed=failed,
        doubtful=witnesses.doubtful,
        runs=len(witnesses.runs),
        sources=tuple(sorted(witnesses.sources)),
        corroborated=witnesses.suffice(corroboration),
        example_seqs=examples,
        contrary_seqs=tuple(endpoint.bad_seqs if contrary is None else contrary),
        first_seq=witnesses.first_seq,
        last_seq=examples[-1] if examples else endpoint.last_seq,
    )


def _scope(found: Difference | None, count: int) -> dict[str, str]:
    """Give the attribute that nearly all of the failures have, and that sets them apart: elsewhere it does not fail.

    :param count: the failures, as attributes are counted of them.
    """
    if found is None or not found.tells_fails or not is_attribute(found.feature):
        return {}
    return {shown_name(found.feature): found.fails.value} if found.fails.compared >= SCOPE_SHARE_MIN * count else {}


def _usual_shape(endpoint: Endpoint, corroboration: Corroboration) -> str:
    """Say which input succeeds most, where enough witnesses have used it."""
    shapes = endpoint.features.get(SHAPE) or {}
    best = max(shapes, key=lambda shape: (shapes[shape].ok.shared(corroboration), shape), default="")
    if not best or not shapes[best].ok.suffice(corroboration):
        return ""
    ok, bad = _weighed(shapes[best].ok, shapes[best].bad, corroboration)
    if ok < USUAL_RATE_MIN * (ok + bad):
        return ""
    return f"Input that works: {_code(best)} ({ok:,} of {ok + bad:,})."


def _difference(found: Difference) -> str:
    """Say what sets the failing calls apart; nothing where only what works may be told, and that is no advice.

    Where the better value mostly fails, too, if with other errors, it does not "work".
    """
    fails, works = found.fails, found.works
    is_way = works is not None and not found.is_one_of_many and not is_attribute(found.feature)
    if works is not None and is_way and works.succeeded >= USUAL_RATE_MIN * works.calls:
        worked = f"It works with {_phrase(found.feature, works)} ({_of(works)})"
        return (
            f"{worked}, not with {_phrase(found.feature, fails)} ({_of(fails)})." if found.tells_fails else f"{worked}."
        )
    if not found.tells_fails:
        return ""
    such = f", such as {works.value} ({_of(works)})" if works and not is_attribute(found.feature) else ""
    failing = f"Calls with {_phrase(found.feature, fails)} succeeded {_of(fails)} times"
    once = " (calls of a run that are alike count once)" if is_attribute(found.feature) else ""
    return f"{failing}, all others {_of(found.others)}{such}{once}."


def _said(found: Difference) -> str:
    return "\n".join((found.feature, found.works.value if found.works else "", found.fails.value))


def _phrase(feature: str, side: Side) -> str:
    if feature == SHAPE:
        return f"the input {_code(side.value)}"
    return f"{_code(shown_name(feature))} being {side.value}"


def _of(side: Side) -> str:
    return f"{side.succeeded:,} of {side.calls:,}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}"


def _ms(value: float) -> str:
    return f"{value / 1000:.1f} s" if value >= 1_000 else f"{value:.0f} ms"  # noqa: PLR2004 - milliseconds in a second


_QUOTES: Final = str.maketrans({"“": '"', "”": '"', "`": "'"})
"""What others have said ends no quotation of ours: behind it they would speak in our name."""


def _told(failure: Failure, corroboration: Corroboration) -> str:
    text = failure.shown(corroboration)
    return _quoted(text) + " or in other words" * failure.is_told_otherwise(text, corroboration)


def _quoted(text: str) -> str:
    cut = text if len(text) <= FAILURE_CHARS_MAX else text[: FAILURE_CHARS_MAX - 1] + "…"
    return f"“{cut.translate(_QUOTES)}”"


def _code(text: str) -> str:
    return f"`{text.translate(_QUOTES)}`"
