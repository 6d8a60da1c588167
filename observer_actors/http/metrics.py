"""`/metrics`: everything that is counted, read at the moment of the scrape.

Nothing on the way of an event touches a metric object; actors keep plain counters, and this collector reads them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from observer_actors import __version__
from observer_actors.actors.consultant import ConsultantStatistics
from observer_actors.http.advice_metrics import advice_metrics
from observer_actors.http.guard import DENIALS
from observer_actors.http.views import Views
from observer_actors.labels import LABEL_CHARS_MAX, bounded_endpoint, stable_id
from observer_actors.patterns import State
from observer_actors.ring import Ring
from observer_actors.supervision import ActorStatistics, LifecycleEvent
from observer_actors.supervision import State as ActorState
from observer_actors.visible import snake, visible

_TRACE_ID: Final = re.compile(r"[0-9a-f]{32}")
_HASH: Final = re.compile(r"#[0-9a-f]{16}\Z")
_HASH_CHARS: Final = 17


class DaemonCollector(Collector):
    """The daemon's counters as they were when it was made, for prometheus_client, which may encode them in a thread."""

    def __init__(self, views: Views) -> None:
        self._views = views
        self._metrics = tuple(self._read())

    def collect(self) -> Sequence[Metric]:
        """Give all metrics."""
        return self._metrics

    def _read(self) -> Iterator[Metric]:
        yield InfoMetricFamily("observer", "What runs.", {"version": __version__})
        reloads = "Reloads (SIGHUP) that failed, or could not use a file, since the last good one."
        yield _gauge("observer_reloads_failed", reloads, self._views.reloads_failed())
        yield from self._intake()
        yield from self._waiting()
        yield from self._journal()
        yield from self._operations()
        yield from self._followers()
        yield from advice_metrics(self._views)
        yield from self._patterns()
        yield from self._doubts()
        yield from self._consultations()
        yield from self._tail()
        yield from self._outbox()
        yield from self._actors()

    def _intake(self) -> Iterator[Metric]:
        counts = self._views.intake.statistics
        yield _counter("observer_requests_event", "POST /event requests.", counts.events)
        yield _counter("observer_requests_batch", "POST /events requests.", counts.batches)
        yield _counter("observer_events_accepted", "Events acknowledged.", counts.accepted)
        yield _counter("observer_events_rejected", "Events that were invalid.", counts.rejected)
        yield _counter("observer_events_duplicate", "Events whose id was known.", counts.duplicates)
        yield _counter("observer_ingest_refused", "Ingest requests refused for lack of room or disk.", counts.refused)
        redacted = CounterMetricFamily("observer_secrets_redacted", "Secrets taken out, by kind.", labels=["kind"])
        for kind, times in sorted(counts.redacted.items()):
            redacted.add_metric([kind], times)
        yield redacted
        text = "Requests not let in: no token (401), not the scope or a foreign page (403), not our host (421)."
        denied = CounterMetricFamily("observer_requests_denied", text, labels=["status"])
        for status in DENIALS:
            denied.add_metric([str(status)], counts.denied[status])
        yield denied
        yield _gauge("observer_connections", "Connections that are open.", counts.connections)
        yield _counter("observer_connections_refused", "Connections turned away.", counts.connections_refused)
        yield _counter("observer_sources_unknown", "Events with an unknown source.", counts.foreign_sources)

    def _waiting(self) -> Iterator[Metric]:
        waiting = self._views.admission.statistics()
        yield _gauge("observer_waiting_ops", "Ops that wait for the disk.", waiting.waiting_ops)
        yield _gauge("observer_waiting_ops_max", "Bound on ops that wait.", waiting.waiting_ops_max)
        yield _gauge("observer_waiting_bytes", "Bytes that wait for the disk.", waiting.waiting_bytes)
        yield _gauge(
            "observer_waiting_bytes_max",
            "Bound on bytes that wait, as of now: fewer with a slow disk.",
            waiting.waiting_bytes_max,
        )
        yield _gauge("observer_callers_waiting", "Callers that wait for room.", waiting.callers_waiting)
        yield _counter("observer_admission_waits", "Submissions that had to wait for room.", waiting.waits)
        yield _counter("observer_admission_refusals", "Submissions refused.", waiting.refusals)

    def _journal(self) -> Iterator[Metric]:
        status = self._views.persister.status
        yield _gauge("observer_ready", "1 while events are taken.", int(self._views.readiness().ready))
        damaged = self._views.damaged_lines()
        yield _gauge("observer_journal_damaged_lines", "Lines, or blocks of them, that cannot be read.", damaged)
        yield _gauge("observer_journal_last_seq", "Seq of the last committed op.", self._views.commits.last_seq)
        yield _counter("observer_persister_rounds", "Rounds of the persister.", status.rounds)
        yield _counter("observer_persister_withdrawn", "Submissions withdrawn before the write.", status.withdrawn)
        yield _counter("observer_disk_errors", "Writes and syncs that the disk refused.", status.disk_errors)
        journal = status.journal
        if journal is None:
            return
        yield _gauge("observer_journal_missing_ops", "Ops that no file holds any more.", journal.missing_ops)
        removed = journal.removed_through
        yield _gauge("observer_journal_removed_seq", "Ops up to this seq were deleted by retention.", removed)
        yield _gauge("observer_journal_active_bytes", "Size of the active file.", journal.active_bytes)
        yield _gauge("observer_journal_segments", "Sealed segments.", journal.segments)
        yield _counter("observer_journal_commits", "Group commits.", journal.commits)
        yield _counter("observer_journal_bytes_written", "Bytes written to the journal.", journal.bytes_written)
        yield _counter("observer_journal_seals", "Times the active file was sealed.", journal.seals)
        yield _counter("observer_journal_repairs", "Times a failed write was taken back.", journal.repairs)
        yield _gauge("observer_journal_sync_seconds", "Time of the last fdatasync.", journal.last_sync_us / 1e6)

    def _operations(self) -> Iterator[Metric]:
        yield _gauge("observer_ring_ops", "Ops in the ring.", len(self._views.ring.ring))
        if self._views.feeds["stats"].has_caught_up:  # else they would seem to have been reset
            yield from self._lifetime()

    def _lifetime(self) -> Iterator[Metric]:
        stats = self._views.stats.stats
        operations = CounterMetricFamily(
            "observer_operations",
            "Ops ever committed; absent while counted anew.",
            labels=["source", "outcome"],
        )
        for source, tally in sorted(stats.sources.items()):
            operations.add_metric([_label(source), "success"], tally.successes)
            operations.add_metric([_label(source), "failure"], tally.failures)
        yield operations
        endpoints = CounterMetricFamily(
            "observer_endpoint_operations",
            "Ops by endpoint, the first 200 by name; likewise.",
            labels=["endpoint", "outcome"],
        )
        durations = SummaryMetricFamily(
            "observer_endpoint_duration_seconds",
            "Duration the callers reported; likewise.",
            labels=["endpoint"],
        )
        failed = _newest_failures(self._views.ring.ring)
        for endpoint, endpoint_tally in sorted(stats.endpoints.items()):
            label, latency = _label(endpoint), endpoint_tally.latency
            endpoints.add_metric([label, "success"], endpoint_tally.successes)
            endpoints.add_metric([label, "failure"], endpoint_tally.failures, exemplar=failed.get(endpoint))
            durations.add_metric([label], count_value=latency.count, sum_value=latency.sum_ms / 1e3)
        yield endpoints
        yield durations

    def _followers(self) -> Iterator[Metric]:
        behind = GaugeMetricFamily("observer_consumer_behind_ops", "Ops not yet taken in.", labels=["consumer"])
        passed_over = CounterMetricFamily(
            "observer_consumer_passed_over",
            "Commits left to the journal: its channel was full, or it was far behind.",
            labels=["consumer"],
        )
        quarantined = GaugeMetricFamily("observer_consumer_quarantined_ops", "Ops left out.", labels=["consumer"])
        for feed in self._views.feeds.values():
            statistics = feed.statistics()
            behind.add_metric([feed.name], statistics.behind)
            passed_over.add_metric([feed.name], statistics.passed_over)
            quarantined.add_metric([feed.name], statistics.quarantined)
        yield from (behind, passed_over, quarantined)

    def _patterns(self) -> Iterator[Metric]:
        standings = self._views.analyzer.standings
        patterns = GaugeMetricFamily("observer_patterns", "Failure patterns.", labels=["state"])
        changes = CounterMetricFamily("observer_pattern_changes", "Patterns that came into a state.", labels=["state"])
        counts = standings.counts()
        for state in State:
            patterns.add_metric([state], counts.get(state, 0))
            changes.add_metric([state], standings.changes[state])
        yield from (patterns, changes)
        if self._views.feeds["analyzer"].has_caught_up:  # as above
            text = "Failures without room for a pattern of their own; absent while counted anew."
            yield _counter("observer_failures_ungrouped", text, self._views.analyzer.ungrouped)
        dropped = standings.dropped
        yield _counter("observer_webhook_dropped", "Messages for the webhook let go before they were saved.", dropped)

    def _consultations(self) -> Iterator[Metric]:
        consultant = self._views.analyzer.consultant
        counts = consultant.statistics if consultant is not None else ConsultantStatistics()
        yield _counter("observer_model_questions", "Questions put to the model.", counts.asked)
        yield _counter("observer_model_failures", "Questions without an answer.", counts.failed)
        yield _counter("observer_model_unusable", "Answers of no use.", counts.unusable)
        yield _counter("observer_model_refusals", "Questions not put: budget or circuit breaker.", counts.refused)
        yield _counter("observer_model_tokens", "Tokens of questions and answers.", counts.tokens)
        claims = CounterMetricFamily("observer_model_claims", "Claims of the model.", labels=["outcome"])
        claims.add_metric(["kept"], counts.claims_kept)
        claims.add_metric(["thrown_out"], counts.claims_thrown_out)
        yield claims
        total = counts.claims_kept + counts.claims_thrown_out
        rate = counts.claims_thrown_out / total if total else 0.0
        yield _gauge("observer_model_fabrication_ratio", "Share of claims without an op that was shown.", rate)

    def _doubts(self) -> Iterator[Metric]:
        if not self._views.feeds["analyzer"].has_caught_up:
            return  # as above
        doubts = self._views.analyzer.doubts
        for kind, labels in (("source", doubts.sources), ("endpoint", doubts.endpoints)):
            claims = CounterMetricFamily(
                f"observer_{kind}_claims",
                "Ops that claimed success: all, those whose output says otherwise, those whose run has a verdict, and"
                " those whose run's verdict was a failure; absent while counted anew.",
                labels=[kind, "doubt"],
            )
            for label, counts in sorted(labels.items()):
                for doubt in ("claimed", "suspect", "judged", "refuted"):
                    claims.add_metric([_label(label), doubt], getattr(counts, doubt))
            yield claims
        # No counters: two runs with a verdict may turn out to be one, and a run is silent until a failed op comes late.
        yield _gauge("observer_runs_judged", "Runs with a verdict.", doubts.runs_judged)
        yield _gauge("observer_runs_failed", "Runs whose verdict was a failure.", doubts.runs_failed)
        silent = doubts.runs_silent
        yield _gauge("observer_runs_silent", "Failed runs of which no op had said that it failed.", silent)

    def _tail(self) -> Iterator[Metric]:
        tail = self._views.tail.statistics
        yield _gauge("observer_tail_readers", "Readers of /tail.", tail.readers)
        yield _counter("observer_tail_dropped", "Readers dropped because they were too slow.", tail.dropped)
        yield _counter("observer_tail_dropped_ops", "Ops those readers had waiting.", tail.dropped_ops)
        written = self._views.librarian.rows_written
        yield _counter("observer_audit_rows", "Verdicts whose row in the knowledge base the daemon wrote.", written)

    def _outbox(self) -> Iterator[Metric]:
        of = ["receiver"]
        text = "Messages to be delivered, for each receiver that is configured."
        pending = GaugeMetricFamily("observer_outbox_pending", text, labels=of)
        delivered = CounterMetricFamily("observer_outbox_delivered", "Messages delivered.", labels=of)
        refused = CounterMetricFamily("observer_outbox_refused", "Messages the receiver refused for good.", labels=of)
        text = "Messages dropped because the outbox was full."
        dropped = CounterMetricFamily("observer_outbox_dropped", text, labels=of)
        for lane, counts in (self._views.outbox() or {}).items():
            if lane in self._views.lanes:
                pending.add_metric([lane.value], counts.pending)
            delivered.add_metric([lane.value], counts.delivered)
            refused.add_metric([lane.value], counts.refused)
            dropped.add_metric([lane.value], counts.dropped)
        yield from (pending, delivered, refused, dropped)

    def _actors(self) -> Iterator[Metric]:
        states = GaugeMetricFamily("observer_actor_state", "1 for the state an actor is in.", labels=["actor", "state"])
        restarts = CounterMetricFamily("observer_actor_restarts", "Restarts.", labels=["actor"])
        depth = GaugeMetricFamily("observer_mailbox_depth", "Messages that wait.", labels=["actor"])
        bound = GaugeMetricFamily("observer_mailbox_bound", "Messages that may wait.", labels=["actor"])
        for actor in _flat(self._views.tree()):
            for state in ActorState:
                states.add_metric([actor.name, state.value], int(actor.state == state.value))
            restarts.add_metric([actor.name], actor.restarts)
            if actor.mailbox_depth is not None and actor.mailbox_bound is not None:
                depth.add_metric([actor.name], actor.mailbox_depth)
                bound.add_metric([actor.name], actor.mailbox_bound)
        events = CounterMetricFamily("observer_lifecycle_events", "Lifecycle events.", labels=["event"])
        counts = self._views.events.counts()
        for name in sorted(kind.__name__ for kind in LifecycleEvent.__subclasses__()):
            # Also what has not happened yet: a series that begins at 1 has not increased, as Prometheus sees it.
            events.add_metric([snake(name)], counts.get(name, 0))
        yield from (states, restarts, depth, bound, events)


def _label(text: str) -> str:
    """Give a caller's text as a label: what cannot be seen is escaped, and a hash tells it from what looks so.

    What is escaped is longer, and so it may have to be cut. What ends as if it had such a hash gets one, too.
    """
    shown = visible(text)
    if shown == text and not _HASH.search(text):
        return text
    return f"{shown[: LABEL_CHARS_MAX - _HASH_CHARS]}#{stable_id('label', text)}"


def _flat(actors: Sequence[ActorStatistics]) -> Iterator[ActorStatistics]:
    for actor in actors:
        yield actor
        yield from _flat(actor.children)


def _newest_failures(ring: Ring) -> dict[str, Exemplar]:
    """Give the newest failure of each endpoint in the ring: from a graph to the op, and to the caller's trace.

    Only OpenMetrics carries exemplars, and only 128 characters of each: a seq, and a trace id (32 of them).
    """
    found: dict[str, Exemplar] = {}
    for op in ring.newest_first():
        if op.success or (endpoint := bounded_endpoint(op.endpoint)) in found:
            continue
        labels = {"seq": str(op.seq)}
        trace_id = op.attrs.get("trace_id") if isinstance(op.attrs, dict) else None
        if isinstance(trace_id, str) and _TRACE_ID.fullmatch(trace_id):
            labels["trace_id"] = trace_id
        found[endpoint] = Exemplar(labels, 1.0)
    return found


def _counter(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, value=value)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)
