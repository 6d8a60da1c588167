"""The playbook as a fold over the journal: one op after the other, in the order of their seq. Pure.

The rules:

* Nothing but the ops decides: no clock, no chance, and not how they are divided into calls. So the same journal gives
  the same bytes (`Playbook.rows`), today, after a restart, and on another machine.
* What callers report is evidence (`evidence`); an auditor's verdict says what the evidence of its run is worth
  (`runs`). From evidence that has changed by an eighth since the last time, or that has become corroborated, entries
  are drawn (`drawing`).
* What the daemon itself has put into the journal says who got which entry, and what a person has decided (`trial`,
  `decisions`). Its source says that it is so; no caller can use it.
* What was revoked is passed over as if it had never come. Counts cannot be taken back one by one, so a revocation that
  was not known at the beginning leaves the fold `outdated`: what it may touch is suspended (`Playbook.suspends`), and a
  new fold that knows of it takes its place. The one that knows of all of them gives the bytes that count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Self
from zlib import crc32

import msgspec

from observer_actors.doubt import suspicion
from observer_actors.event import AUDITOR, OWN_SOURCE
from observer_actors.labels import bounded_endpoint
from observer_actors.op import Op
from observer_actors.patterns import error_text, template_of
from observer_actors.patterns.taxonomy import status_in
from observer_actors.playbook.decisions import Of, Revocation, decision_in
from observer_actors.playbook.deltas import Delta
from observer_actors.playbook.drawer import Drawer
from observer_actors.playbook.drawing import ids_about
from observer_actors.playbook.entries import Entry, Kind, entry_id
from observer_actors.playbook.evidence import Endpoint, Room
from observer_actors.playbook.inputs import Feature, features, is_attribute
from observer_actors.playbook.keeping import Kept, Row, Section
from observer_actors.playbook.ledger import Ledger
from observer_actors.playbook.meta import Meta
from observer_actors.playbook.runs import Run, Runs, Step, alike, habits, way_from_failure
from observer_actors.playbook.states import Standing
from observer_actors.playbook.trial import Asked, EntryTrial, run_name
from observer_actors.playbook.trial import Run as TrialRun
from observer_actors.playbook.witnesses import Corroboration

VERSION: Final = 11
"""Of these rules. Rules that make other entries of the same ops have another; what older ones made is made anew. Since
11 a run's outcome is settled by its first reports, and verdicts, one that had reported before it first asked may be
lost, and more errors of tools and providers have their cause. Since 10 what a value did before it has turned is past;
of failures that are all corroborated the quietest makes room; who has hardly used an entry has no say in whether it
helps; what is withheld is tried again once it advises otherwise; and of changes of evidence that follow each other an
entry keeps the newest. Since 9 a way back that has failed each of the last times is none, whatever it did before. Since
8 more libraries' errors have their cause, and a traceback has that of the error at its end; what one source alone has
said makes no room where that is enough; what was decided of two entries that became one holds for either of them that
comes again by itself; a run that was judged failed is no witness, also where the verdict comes late; and what one
source alone says of a failure's HTTP status decides nothing, and makes room for what others say of it."""
ENDPOINTS_MAX: Final = 1_000
"""Endpoints with evidence. One more takes the place of the one that was quiet for longest among those of which nothing
is corroborated."""
VALUES_MAX: Final = 60_000
"""Values of features, of all endpoints together: about 40 MB."""
SOURCES_MAX: Final = 50
REVOCATIONS_MAX: Final = 1_000
"""None is ever forgotten, or what it took back would come again; a further one is refused where it is asked for."""
OTHER: Final = "other"
INPUTS_MAX: Final = 3
INPUT_CHARS_MAX: Final = 200
"""These two are the seed's."""
ERROR_CHARS_MAX: Final = 2_000
NO_TEXT: Final = "<no text>"
"""Stands for the masked text of a failure whose text is empty or blank."""
DURATION_MS_MAX: Final = 1e15
"""A longer duration (30,000 years) is a caller's mistake, and must not make the sum infinite."""


class Playbook:
    """The fold.

    :param revocations: those that stand in the journal, as far as they are known: what they cover is passed over.
    :param meta: what was saved of one that this one goes on from; its corroboration holds.
    """

    def __init__(
        self,
        corroboration: Corroboration = Corroboration(),  # noqa: B008 - frozen
        revocations: Sequence[Revocation] = (),
        meta: Meta | None = None,
    ) -> None:
        self.cursor = 0
        self.endpoints: dict[str, Endpoint] = {}
        """By name, the one that was quiet for longest first."""
        self.runs = Runs()
        self.kept = Kept()
        self.meta = meta or Meta(corroboration, VERSION)
        self.ledger = Ledger(self.kept, self.meta, self.runs.reporter)
        self._drawer = Drawer(self.ledger, self.meta.corroboration)
        self._room = Room(VALUES_MAX, self.meta.corroboration, self.meta.left)
        self.passed_over = 0
        """Ops that were left out since they are revoked, since this object was made."""
        self.undone: list[Revocation] = []
        """Revocations that it is to be made anew for."""
        self._has_other_rules = False
        self._ahead = list(revocations)
        """Known revocations that have not come yet."""

    @property
    def entries(self) -> Mapping[str, Entry]:
        """Id -> entry."""
        return self.ledger.entries

    @property
    def outdated(self) -> bool:
        """Whether it has to be made anew: something was revoked that still counts, or the rules are others."""
        return self.meta.outdated

    def set_rules(self, corroboration: Corroboration) -> None:
        """Have it made anew if it was made by other rules; until then no entry of it is handed out."""
        if (self.meta.corroboration, self.meta.version) != (corroboration, VERSION):
            self._has_other_rules = self.meta.outdated = True
            self.kept.touch(Section.META)

    def take(self, op: Op) -> list[Delta]:
        """Take the next op in; give what it has changed. One that was taken in before changes nothing."""
        if op.seq <= self.cursor:
            return []
        self.cursor = op.seq
        self.meta.first_seq = self.meta.first_seq or op.seq
        deltas = self.ledger.begin(op.seq)
        self.kept.touch(Section.META)
        decided = decision_in(op)
        if isinstance(decided, Revocation):
            self._revoke(decided)
        elif decided is not None:
            self.ledger.decide(decided, op)
        elif self._is_revoked(op):
            self.passed_over += 1
        else:
            if op.source != OWN_SOURCE:
                self._take_reported(op)
            self.ledger.take(op)
        return deltas

    def resume(self) -> None:
        """Go on with what was suspended: nothing that is still in the journal was meant by what was revoked."""
        self.undone = []
        self.meta.outdated = False
        self.kept.touch(Section.META)

    def inherit(self, old: Playbook, seq: int) -> None:
        """Begin with what ops before ``seq`` have decided, as another playbook has it: the journal has them no more.

        :param seq: of the first op that is left; nothing was taken in yet.
        """
        if old.meta.first_seq < seq or old.meta.inherited:
            self.meta.inherited = self.ledger.inherit(old.ledger, seq)

    def forget_before(self, seq: int) -> list[Delta]:
        """Forget what only ops before it have shown: they are in the journal no more. Give what has changed."""
        deltas = self.ledger.begin(self.cursor)
        for endpoint in tuple(self.endpoints.values()):
            if endpoint.last_seq < seq:
                self._forget(endpoint)
                continue
            for text in [text for text, one in endpoint.failures.items() if one.seqs and one.seqs[-1] < seq]:
                self._forget_failure(endpoint, text)
                self.kept.touch(Section.ENDPOINT, endpoint.name)
        return deltas

    def shown_by(self, op: Op) -> set[str]:
        """Give the ids of the entries that an op is counted in: as a verdict those that its run's steps are."""
        if not self.outdated and any(revocation.covers(op) for revocation in self.meta.revocations):
            return set()
        if op.source == AUDITOR:
            run = self.runs.by_name.get(run_name(op))
            steps = [] if run is None else [(one.seq, one.endpoint, one.ok, one.failure) for one in run.steps]
        else:
            text = _masked(error_text(op)) if not op.success else ""
            steps = [(op.seq, bounded_endpoint(op.endpoint), op.success, text)]
        return {key for step in steps for key in self._counted_in(*step)}

    def _counted_in(self, seq: int, name: str, ok: bool, text: str) -> Iterator[str]:  # noqa: FBT001 - of a step
        endpoint = self.endpoints.get(name)
        if endpoint is None or not endpoint.first_seq <= seq <= self.cursor:
            return
        yield entry_id(Kind.DO, name)
        if not ok:
            yield entry_id(Kind.AVOID, name, endpoint.aliases.get(text, text))
        for entry in self.ledger.at(name):
            if seq in entry.example_seqs or seq in entry.contrary_seqs:
                yield entry.id

    # ------------------------------------------------------------------------------------- what callers report

    def _take_reported(self, op: Op) -> None:
        endpoint = self._endpoint(op)
        if endpoint is None:
            self.meta.left.ops += 1
        else:
            self._count_like_the_seed(endpoint, op)
            if op.source != AUDITOR:
                self._learn(endpoint, op)
            self.kept.touch(Section.ENDPOINT, endpoint.name)
        if op.source == AUDITOR:
            self._judge(op)

    def _endpoint(self, op: Op) -> Endpoint | None:
        """Give the endpoint of an op, as the one that was used last; None when there is no room for it."""
        name = bounded_endpoint(op.endpoint)
        endpoint = self.endpoints.pop(name, None)
        if endpoint is None:
            if len(self.endpoints) >= ENDPOINTS_MAX and not self._forget_an_endpoint():
                return None
            endpoint = Endpoint(name, op.seq)
        endpoint.last_seq = op.seq
        self.endpoints[name] = endpoint
        return endpoint

    def _forget_an_endpoint(self) -> bool:
        name = next((name for name, one in self.endpoints.items() if not one.corroborated), None)
        if name is None:
            return False
        self._forget(self.endpoints[name])
        self.meta.left.endpoints += 1
        return True

    def _forget(self, endpoint: Endpoint) -> None:
        del self.endpoints[endpoint.name]
        self._room.left += endpoint.values()
        self.kept.gone(Section.ENDPOINT, endpoint.name)
        for entry in self.ledger.at(endpoint.name):
            self.ledger.lose(entry.id)

    def _forget_failure(self, endpoint: Endpoint, text: str) -> None:
        for key in ids_about(endpoint, text):
            self.ledger.lose(key)
        endpoint.forget_failure(text)

    def _count_like_the_seed(self, endpoint: Endpoint, op: Op) -> None:
        if not op.success:
            return
        self.meta.successes += 1
        endpoint.successes += 1
        endpoint.success_seq = op.seq
        endpoint.duration_ms_total += float(min(max(op.duration_ms, -DURATION_MS_MAX), DURATION_MS_MAX))
        endpoint.inputs.append(op.input_summary[:INPUT_CHARS_MAX])
        del endpoint.inputs[:-INPUTS_MAX]

    def _learn(self, endpoint: Endpoint, op: Op) -> None:
        """Take in what an op shows of its endpoint, and draw what has to be drawn anew."""
        source, name = self._source(op.source), run_name(op)
        run = self._reached(name, op.seq) if name else None
        number = run.number if run else -1 - self.meta.sources.index(source)
        failure = "" if op.success else self._failure(endpoint, op, source, number)
        is_sound = op.success and suspicion(op) is None
        given = crc32(op.input_summary.encode("utf-8", "surrogatepass"))
        step = Step(op.seq, endpoint.name, source, is_sound, (), failure, given)
        before = [] if run is None else list(alike(run.steps, step))
        is_new = not (run is not None and run.is_full) and all(one.given != given for one in before)
        if is_new:
            step = msgspec.structs.replace(step, features=_not_said(features(op), before))
        if op.success:
            is_doubtful = not step.ok or (run is not None and run.is_bad)
            endpoint.succeeded(step, number, self._room, is_doubtful=is_doubtful)
            endpoint.took(op.duration_ms)
        else:
            failed = endpoint.failed(step, number, self._room, is_new=is_new, is_first=is_new and not before)
            self._drawer.failed(endpoint, failure, failed)
        if run is not None:
            if not run.is_full:
                self._recover(endpoint, run, step)
            self.runs.add(run, step)
            self._keep_runs_bounded()
        self._drawer.grown(endpoint)

    def _source(self, name: str) -> str:
        """Give the name under which a source is a witness: beyond `SOURCES_MAX` all are one."""
        sources = self.meta.sources
        if name in sources:
            return name
        name = name if len(sources) < SOURCES_MAX else OTHER
        if name not in sources:
            sources.append(name)
        return name

    def _reached(self, name: str, seq: int) -> Run:
        self.kept.touch(Section.RUN, name)
        return self.runs.reached(name, seq)

    def _keep_runs_bounded(self) -> None:
        for run in self.runs.forget_oldest():
            self.meta.left.runs += not run.judge
            self.kept.gone(Section.RUN, run.name)

    def _failure(self, endpoint: Endpoint, op: Op, source: str, run: int) -> str:
        """Give the text that a failure counts as, with room made for it if there can be."""
        text = error_text(op)
        masked, status = _masked(text), status_in(text[:ERROR_CHARS_MAX]) or 0
        root = endpoint.known_as(masked, status, self.meta.corroboration)
        if not root:
            if (quiet := endpoint.quiet_failure(self.meta.corroboration)) is not None:
                self._forget_failure(endpoint, quiet)
            root = masked
            endpoint.found(masked)
        failure = endpoint.failures[root]
        failure.named(status, source, self.meta.corroboration)
        if failure.texts:
            failure.tell(masked, op.seq, run, source, self.meta.corroboration)
        return root

    def _recover(self, endpoint: Endpoint, run: Run, step: Step) -> None:
        found = way_from_failure(run.steps, step)
        if found is None:
            return
        recovery = endpoint.recovered(*found, step, run.number, self.meta.corroboration, is_doubtful=run.is_bad)
        if recovery is not None:
            self._drawer.recovered(endpoint, recovery)

    # ------------------------------------------------------------------------------------------------ verdicts

    def _judge(self, op: Op) -> None:
        """Take a verdict in: what the evidence of its run is worth, and which habits the run had."""
        name = run_name(op)
        if not name:
            return
        run = self._reached(name, op.seq)
        self._keep_runs_bounded()
        if run.judge:
            return
        run.judge, run.good, run.verdict_seq = AUDITOR, op.success, op.seq
        if run.is_bad:
            for n, step in enumerate(run.steps):
                if step.ok and (endpoint := self.endpoints.get(step.endpoint)) is not None:
                    endpoint.doubted(step, run.number, way_from_failure(run.steps[:n], step))
        self._judge_habits(run)
        for name in dict.fromkeys(step.endpoint for step in run.steps):
            if (endpoint := self.endpoints.get(name)) is not None:
                self.kept.touch(Section.ENDPOINT, name)
                self._drawer.judged(endpoint)

    def _judge_habits(self, run: Run) -> None:
        """Take in what a verdict says of how the steps of whoever the run belongs to followed each other."""
        for name, seq, before in habits([step for step in run.steps if step.source == run.source]):
            if (endpoint := self.endpoints.get(name)) is not None:
                endpoint.judged(run.number, run.source, seq, before, good=run.good)

    # ------------------------------------------------------------------------------------------------- revocations

    def _revoke(self, revocation: Revocation) -> None:
        known = next((one for one in self._ahead if one.takes_in(revocation)), None)
        self.meta.revocations = [one for one in self.meta.revocations if not revocation.takes_in(one)]
        if len(self.meta.revocations) >= REVOCATIONS_MAX:
            return
        self.meta.revocations = [*self.meta.revocations, revocation]
        if known is not None:
            self._ahead = [one for one in self._ahead if one.seq != revocation.seq]
            return
        self.undone.append(revocation)
        self.meta.outdated = True

    def suspends(self, endpoint: str) -> bool:
        """Say whether no entry of an endpoint is to be handed out until the playbook has been made anew."""
        return self._has_other_rules or any(self.may_touch(one, endpoint) for one in self.undone)

    def may_hold(self, revocation: Revocation) -> bool:
        """Say whether anything here may come from what was revoked."""
        return revocation.of is not Of.SOURCE or any(self.may_touch(revocation, name) for name in self.endpoints)

    def may_touch(self, revocation: Revocation, name: str) -> bool:
        """Say whether the evidence of an endpoint may come from what was revoked."""
        if revocation.of is not Of.SOURCE or revocation.name == AUDITOR or OTHER in self.meta.sources:
            return True
        endpoint = self.endpoints.get(name)
        return endpoint is not None and any(one.may_come_from(revocation.name) for one in (endpoint.ok, endpoint.bad))

    def _is_revoked(self, op: Op) -> bool:
        return bool(self._ahead) and any(revocation.covers(op) for revocation in self._ahead)

    # ---------------------------------------------------------------------------------------------------- rows

    def parts(self) -> Iterator[tuple[Section, str]]:
        """Give all parts of the state, in a fixed order."""
        yield Section.META, ""
        for section, (parts, _) in self._tables().items():
            for key in parts:
                yield section, key

    def row(self, section: Section, key: str) -> Row:
        """Give one part of the state, as it is now."""
        part = self._part(section, key)
        if part is None:
            return Row(section, key, 0, b"")
        if section is Section.META:
            seq = 0
        else:
            seq = getattr(part, "last_seq", 0) if section in _BY_LAST_SEQ else self.kept.born.get((section, key), 0)
        return Row(section, key, seq, msgspec.json.encode(part))

    def rows(self) -> list[Row]:
        """Give all of the state."""
        return [self.row(section, key) for section, key in sorted(self.parts())]

    def _part(self, section: Section, key: str) -> msgspec.Struct | None:
        return self.meta if section is Section.META else self._tables()[section][0].get(key)

    def _tables(self) -> dict[Section, tuple[Mapping[str, msgspec.Struct], msgspec.json.Decoder[Any]]]:
        """Give the parts of each section but the first, by key, and what reads them."""
        ledger = self.ledger
        return {
            Section.ENDPOINT: (self.endpoints, _ENDPOINTS),
            Section.RUN: (self.runs.by_name, _RUNS),
            Section.ENTRY: (ledger.entries, _ENTRIES),
            Section.STANDING: (ledger.standings, _STANDINGS),
            Section.TRIAL_RUN: (ledger.trials.runs, _TRIAL_RUNS),
            Section.TRIAL_ADVICE: (ledger.trials.advices, _ASKED),
            Section.TRIAL_ENTRY: (ledger.trials.entries, _ENTRY_TRIALS),
        }

    @classmethod
    def restored(cls, rows: Iterable[Row], cursor: int) -> Self:
        """Go on from what was saved.

        :param cursor: the last op that is in it.
        :raises msgspec.DecodeError: a row is not what it should be.
        """
        saved = sorted(rows, key=lambda row: (row.seq, row.section, row.key))
        meta = (_META.decode(row.record) for row in saved if row.section is Section.META)
        playbook = cls(meta=next(meta, None))
        playbook.cursor = cursor
        for row in saved:
            if row.section is not Section.META:
                playbook._restore(row)
        playbook.undone = playbook.meta.revocations if playbook.outdated else []
        playbook._room.left -= sum(endpoint.values() for endpoint in playbook.endpoints.values())
        return playbook

    def _restore(self, row: Row) -> None:
        self.kept.born[row.section, row.key] = row.seq
        parts, decoder = self._tables()[row.section]
        part = decoder.decode(row.record)
        if isinstance(part, Entry):
            self.ledger.restore(part)
        elif isinstance(part, Run):
            self.runs.restore(part)
        else:
            assert isinstance(parts, dict)
            parts[row.key] = part


def _not_said(found: tuple[Feature, ...], before: Sequence[Step]) -> tuple[Feature, ...]:
    """Give the features of a call but for attributes that calls like it have had: a run has them throughout."""
    said = {feature for one in before for feature in one.features}
    return tuple(feature for feature in found if feature not in said or not is_attribute(feature[0]))


def _masked(text: str) -> str:
    """Give what a failure is known by; one that says nothing is a failure, too."""
    return template_of(text[:ERROR_CHARS_MAX]) or NO_TEXT


_META: Final = msgspec.json.Decoder(Meta)
_ENDPOINTS: Final = msgspec.json.Decoder(Endpoint)
_RUNS: Final = msgspec.json.Decoder(Run)
_ENTRIES: Final = msgspec.json.Decoder(Entry)
_STANDINGS: Final = msgspec.json.Decoder(Standing)
_TRIAL_RUNS: Final = msgspec.json.Decoder(TrialRun)
_ASKED: Final = msgspec.json.Decoder(Asked)
_ENTRY_TRIALS: Final = msgspec.json.Decoder(EntryTrial)
_BY_LAST_SEQ: Final = frozenset({Section.ENDPOINT, Section.RUN})
"""Sections whose parts are in the order of their last use; the others are in that in which they were made."""
