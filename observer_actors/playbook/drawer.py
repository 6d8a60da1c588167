"""When the evidence of an endpoint is drawn into entries: what has changed by an eighth, or become corroborated. Pure.

The failure or the way back in hand is drawn at once, all else a few things at each op of the endpoint, which may have
many.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from observer_actors.playbook.differences import Counts
from observer_actors.playbook.drawing import (
    draw_avoid,
    draw_do,
    draw_habit,
    draw_recovery,
    draw_way,
    ids_about,
)
from observer_actors.playbook.entries import Kind, entry_id
from observer_actors.playbook.evidence import Drawn, Endpoint, Failure, Recovery, recovery_key
from observer_actors.playbook.ledger import Ledger
from observer_actors.playbook.witnesses import Corroboration

DO, WAY, FAILURE, RECOVERY, HABIT = "d", "w", "f", "r", "h"
"""What can be drawn of an endpoint; behind the last three stands which."""
DRAWN_AT_ONCE: Final = 3
"""Things drawn of an endpoint at one op, beside the failure or the recovery in hand."""


class Drawer:
    """Draws entries into the ledger."""

    def __init__(self, ledger: Ledger, corroboration: Corroboration) -> None:
        self._ledger = ledger
        self._corroboration = corroboration

    def failed(self, endpoint: Endpoint, text: str, failure: Failure) -> None:
        """Draw a failure that has just come again, if it is due."""
        if _failure_now(failure, self._corroboration).is_other_than(failure.drawn):
            self._draw_avoid(endpoint, text, failure, Counts(endpoint, self._corroboration))

    def recovered(self, endpoint: Endpoint, recovery: Recovery) -> None:
        """Draw a way back that was just tried again, if it is due; where it is one or none now, the others, too."""
        now = _recovery_now(recovery, self._corroboration)
        if now.corroborated != recovery.drawn.corroborated:
            others = [
                RECOVERY + key
                for key, one in endpoint.recoveries.items()
                if one.failure == recovery.failure and one is not recovery
            ]
            endpoint.due = list(dict.fromkeys((*endpoint.due, *others)))
        if now.is_other_than(recovery.drawn):
            self._draw_recovery(endpoint, recovery)

    def judged(self, endpoint: Endpoint) -> None:
        """Draw what a verdict has changed."""
        failures = [
            FAILURE + text
            for text, one in endpoint.failures.items()
            if _failure_now(one, self._corroboration).is_other_than(one.drawn)
        ]
        recoveries = [
            RECOVERY + key
            for key, one in endpoint.recoveries.items()
            if _recovery_now(one, self._corroboration).is_other_than(one.drawn)
        ]
        endpoint.due = list(dict.fromkeys((*failures, *recoveries, *endpoint.due)))
        self.grown(endpoint)

    def grown(self, endpoint: Endpoint) -> None:
        """Draw all there is of an endpoint, when its evidence has changed by an eighth or become corroborated.

        A few at each op: an endpoint may have many.
        """
        drawn = _endpoint_now(endpoint, self._corroboration)
        if drawn.is_other_than(endpoint.drawn):
            endpoint.drawn = drawn
            endpoint.corroborated |= drawn.corroborated
            endpoint.due = list(dict.fromkeys((DO, WAY, *endpoint.due, *_all_of(endpoint))))
        if endpoint.due:
            now, endpoint.due = endpoint.due[:DRAWN_AT_ONCE], endpoint.due[DRAWN_AT_ONCE:]
            counts = Counts(endpoint, self._corroboration)
            for what in now:
                self._draw(endpoint, what, counts)

    def _draw(self, endpoint: Endpoint, what: str, counts: Counts) -> None:
        """Draw one thing, if it is there still."""
        key = what[1:]
        if what == DO:
            self._ledger.write(Kind.DO, endpoint.name, "", draw_do(endpoint, self._corroboration))
        elif what == WAY:
            way = draw_way(counts)
            endpoint.looks += way.is_look
            is_said = any(way.said and one.said.endswith(way.said) for one in endpoint.failures.values())
            self._ledger.write(Kind.DO, endpoint.name, "way", None if is_said else way.evidence)
        elif what[0] == FAILURE and key in endpoint.failures:
            self._draw_avoid(endpoint, key, endpoint.failures[key], counts)
        elif what[0] == RECOVERY and key in endpoint.recoveries:
            self._draw_recovery(endpoint, endpoint.recoveries[key])
        elif what[0] == HABIT:
            habit = draw_habit(endpoint, key, endpoint.habits[key], self._corroboration)
            self._ledger.write(Kind.RECIPE, endpoint.name, f"before\n{key}", habit)

    def _draw_recovery(self, endpoint: Endpoint, recovery: Recovery) -> None:
        recovery.drawn = _recovery_now(recovery, self._corroboration)
        way = recovery_key(recovery.failure, recovery.steps)
        self._ledger.write(Kind.RECIPE, endpoint.name, way, draw_recovery(endpoint, recovery, self._corroboration))

    def _draw_avoid(self, endpoint: Endpoint, text: str, failure: Failure, counts: Counts) -> None:
        """Draw a failure; where another one says the same, the older lives on."""
        failure.drawn = _failure_now(failure, counts.corroboration)
        enough = failure.drawn.corroborated
        endpoint.corroborated |= enough
        draft = draw_avoid(counts, text, failure)
        failure.looks += draft.is_look
        said = draft.said if enough else ""
        if said != failure.said:
            failure.said = said
            endpoint.due = list(dict.fromkeys((WAY, *endpoint.due)))
        self._ledger.write(Kind.AVOID, endpoint.name, text, draft.evidence)
        if draft.way and draft.way != failure.way:
            if draft.way.partition("\n")[0] == failure.way.partition("\n")[0]:  # another value of the same feature
                self._ledger.try_otherwise(entry_id(Kind.AVOID, endpoint.name, text))
            failure.way = draft.way
        same = [root for root, one in endpoint.failures.items() if failure.said and one.said == failure.said]
        if len(same) < 2:  # noqa: PLR2004 - alone
            return
        root = min(same, key=lambda one: endpoint.failures[one].witnesses.first_seq)
        for other in same:
            if other != root:
                self._ledger.merge(ids_about(endpoint, root)[0], ids_about(endpoint, other)[0])
                self._rewrite(endpoint, endpoint.merge_failures(root, other, counts.corroboration))
        merged = draw_avoid(counts, root, endpoint.failures[root])
        endpoint.failures[root].looks += merged.is_look
        self._ledger.write(Kind.AVOID, endpoint.name, root, merged.evidence)

    def _rewrite(self, endpoint: Endpoint, renamed: list[tuple[str, str]]) -> None:
        """Draw the ways back from a failure that has become part of another."""
        for key, now in renamed:
            self._draw_recovery(endpoint, endpoint.recoveries[now])
            one, other = (entry_id(Kind.RECIPE, endpoint.name, way) for way in (now, key))
            self._ledger.merge(one, other)


def _all_of(endpoint: Endpoint) -> Iterator[str]:
    yield from (FAILURE + text for text in endpoint.failures)
    yield from (RECOVERY + key for key in endpoint.recoveries)
    yield from (HABIT + other for other in endpoint.habits)


def _endpoint_now(endpoint: Endpoint, corroboration: Corroboration) -> Drawn:
    return Drawn(
        endpoint.ok.weight(corroboration),
        endpoint.ok.suffice(corroboration),
        endpoint.bad.weight(corroboration),
        endpoint.doubtful.shared(corroboration),
        endpoint.judged_good + endpoint.judged_bad,
    )


def _failure_now(failure: Failure, corroboration: Corroboration) -> Drawn:
    return Drawn(failure.witnesses.weight(corroboration), failure.witnesses.suffice(corroboration))


def _recovery_now(recovery: Recovery, corroboration: Corroboration) -> Drawn:
    ok, bad = recovery.ok, recovery.bad
    enough = ok.suffice(corroboration) and not recovery.is_of_the_past(corroboration)
    return Drawn(ok.weight(corroboration), enough, bad.weight(corroboration))
