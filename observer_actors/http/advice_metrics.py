"""The part of `/metrics` about the playbook and advice. Labels are bounded: the most used entries have their own."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from heapq import nlargest
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from observer_actors.actors.adviser import ANSWERS
from observer_actors.actors.consolidator import Consolidator
from observer_actors.http.views import Views
from observer_actors.playbook.entries import Entry, Mark, State
from observer_actors.playbook.lift import Sides, lift
from observer_actors.playbook.states import ALPHA

LIFTS_MAX: Final = 50
"""Three series each."""
UNCORROBORATED: Final = "uncorroborated"
UNSUPPORTED: Final = "unsupported"
STANDS: Final = (UNCORROBORATED, UNSUPPORTED, *State, Mark.PINNED)
"""How an entry may stand: a person's word goes before the state, and without evidence neither counts."""


def advice_metrics(views: Views) -> Iterator[Metric]:
    """Give what is counted of the playbook, and of advice."""
    counts = views.adviser.statistics
    requests = CounterMetricFamily(
        "observer_advice_requests",
        "Requests for advice: entries were given, all were held back for the control, there was nothing to say, or it"
        " could not be journalled.",
        labels=["answer"],
    )
    for answer in ANSWERS:
        requests.add_metric([answer], counts.requests[answer])
    yield requests
    uses = CounterMetricFamily("observer_advice_entries", "Entries handed out, and held back.", labels=["arm"])
    uses.add_metric(["exposed"], counts.exposed)
    uses.add_metric(["control"], counts.control)
    yield uses
    yield from _of_entries(views.consolidator)


def _of_entries(consolidator: Consolidator) -> Iterator[Metric]:
    entries = tuple(consolidator.entries.values())
    standing: Counter[str] = Counter()
    outcomes: dict[str, Sides] = defaultdict(Sides)
    for entry in entries:
        stands = _stands(entry, is_taken_back=consolidator.is_taken_back(entry))
        standing[stands] += 1
        outcomes[stands] += Sides(entry.trial.exposed, entry.trial.control)
    number = GaugeMetricFamily("observer_playbook_entries", "Entries, by how they stand.", labels=["state"])
    runs = GaugeMetricFamily(
        "observer_advice_runs",
        "Runs with an outcome in the present trials of entries: a run counts once for each entry.",
        labels=["state", "arm", "outcome"],
    )
    for stands in STANDS:
        number.add_metric([stands], standing[stands])
        sides = outcomes[stands]
        for name, arm in (("exposed", sides.exposed), ("control", sides.control)):
            runs.add_metric([stands, name, "success"], arm.succeeded)
            runs.add_metric([stands, name, "failure"], arm.failed)
    yield from (number, runs, _lift_of_the_most_used(entries))


def _lift_of_the_most_used(entries: Sequence[Entry]) -> Metric:
    shown = GaugeMetricFamily(
        "observer_advice_lift",
        "Success rate of the runs that were exposed to an entry less that of its control, and its always-valid 95 %"
        f" interval, in the present trials of the {LIFTS_MAX} entries with the most runs.",
        labels=["entry", "bound"],
    )
    used = (entry for entry in entries if entry.trial.exposed.total or entry.trial.control.total)
    for entry in nlargest(LIFTS_MAX, used, key=lambda one: (one.trial.exposed.total + one.trial.control.total, one.id)):
        found = lift(entry.trial, ALPHA)
        for bound, value in (("low", found.low), ("estimate", found.estimate), ("high", found.high)):
            if value is not None:
                shown.add_metric([entry.id, bound], value)
    return shown


def _stands(entry: Entry, *, is_taken_back: bool) -> str:
    if not entry.corroborated:
        return UNCORROBORATED
    if not entry.supported or is_taken_back:
        return UNSUPPORTED
    return entry.mark or entry.state
