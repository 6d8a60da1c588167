"""Every use is an experiment: who got an entry, who did not, and how their runs ended. Pure.

The rules:

* A run is *drawn* for an entry when the entry would be part of an answer to it: into the control with the chance
  ``share``, by a hash of entry and run (`in_control`), and else it is exposed. Once drawn a run stays where it is, also
  when the share changes; the trial that begins then leaves it out. A request without a run is a run of its own, under
  its advice id.
* A draw stands in the journal as an op of source `OWN_SOURCE` and endpoint `ADVICE_ENDPOINT` (`exposure_attrs`), before
  the agent has its answer. `Trials` is a fold over the journal: clock and chance have no part in it.
* The outcome of a run is its verdict: an op of source ``auditor`` that names the run, or an advice id of it. Where
  there is none it is, for each entry, the last report: an op with an advice id for whose answer the entry was drawn, at
  the endpoint that the advice was asked for, of the source that the request named, if it named one. A success whose own
  output says otherwise (`doubt.suspicion`) is a failure. An op without an advice id reports on all advice that its run
  has asked for in its source's name. Of the sources that report, the run is that one's which asked first, and who has
  only asked owns nothing. But a source is a label that the reporter gives itself: who may report may speak for another
  source, and as ``auditor`` for any run. What comes later corrects what was counted: a
  verdict counts instead of a report, a second verdict instead of the first. But of the verdicts on a run no more than
  the first `OUTCOMES_MAX` count, and as many reports on it for an entry: those of who comes to own it anew.
* A run without an outcome is *lost* once `OVERTAKEN_MAX` runs that were drawn for the entry after it have one: it
  counts as failed until an outcome comes, in either arm alike. Else advice that makes agents hang would never show it.
  Runs that are on their way, however many, make none late. But only a run that an op had named before it was drawn for
  the entry is lost: one that has only asked may never have begun, and the permission to ask is not yet the one to
  report. Nor is one lost of which an op has come since, from whatever endpoint and whoever has sent it: that says
  nothing of how it went, but it did not hang. Where it goes another way, as it was advised, it is in neither arm.
* A task is what the request calls so. For each entry and task the outcomes that were settled last in either arm are
  compared: ``fixed`` when the control failed and the exposed succeeded, ``broken`` the other way round.

Bounds: the newest `RUNS_MAX` runs and `ADVICES_MAX` advice ids, `DRAWS_MAX` entries and the newest `ADVICES_OF_RUN_MAX`
advice ids a run, `TASKS_MAX` tasks and `WAITING_MAX` runs without an outcome an entry (of more the oldest is lost),
`SOURCES_MAX` sources an entry by name. The outcome of a run that is
forgotten stays as it was counted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final

import msgspec

from observer_actors.doubt import run_of, suspicion
from observer_actors.event import AUDITOR, OWN_SOURCE
from observer_actors.labels import bounded_endpoint
from observer_actors.op import Op, Scalar
from observer_actors.playbook.keeping import Kept, Section
from observer_actors.playbook.lift import UNKNOWN, Arm, Sides, Trial

ADVICE_ENDPOINT: Final = "observer:advice"
ADVICE_ID: Final = "advice_id"
"""The attribute by which an op says which advice it had."""
RUNS_MAX: Final = 10_000
ADVICES_MAX: Final = 20_000
DRAWS_MAX: Final = 50
ADVICES_OF_RUN_MAX: Final = 20
TASKS_MAX: Final = 200
OUTCOMES_MAX: Final = 3
"""Reports of a run on an entry that count, each instead of the one before, and verdicts on a run, too. An outcome that
changes for ever is as if the run were drawn by chance again and again: of ten runs that report a hundred times each two
of three showed help or harm at some look, where there was neither. With so many the interval misses no more often than
it says."""
OVERTAKEN_MAX: Final = 100
WAITING_MAX: Final = 1_000
WINDOW_RUNS: Final = 400
"""Runs with an outcome after which the recent counts begin anew: when what had helped begins to do harm, that is seen
several times sooner than in all of them. With half as many it is no sooner, and less harm is seen later."""
NO_TRIAL: Final = -1
SOURCES_MAX: Final = 20
OTHER: Final = "other"


class Exposure(msgspec.Struct, frozen=True, kw_only=True):
    """What one answer handed out, and what it held back."""

    advice_id: str
    run: str = ""
    """Empty: the request is a run of its own."""
    task: str = ""
    asked_by: str = ""
    """The source of the reports to come, as the request says it; empty: any."""
    endpoint: str = ""
    """What was asked about, as `bounded_endpoint` gives it; empty: reports at any endpoint count."""
    exposed: tuple[str, ...] = ()
    """Ids of entries."""
    control: tuple[str, ...] = ()
    trusted: tuple[str, ...] | None = None
    """Those of both that were drawn with the small share of control (`states.is_trusted`); None: the op does not say,
    as those of older versions."""


class Draw(msgspec.Struct):
    """One run and one entry."""

    exposed: bool
    trial: int
    """Which trial of the entry it belongs to: `EntryTrial.began`."""
    reported: bool | None = None
    """The last outcome that was reported, of the first `OUTCOMES_MAX`."""
    reports: int = 0
    """How many have come, of those."""
    counted: bool | None = None
    """The outcome as it stands in the counts."""
    window: int = 0
    """The value of `EntryTrial.window` when it was counted: later windows do not hold it."""
    lost: bool = False
    """It counts as failed, as no outcome has come."""
    heard: bool = False
    """An op of the run has come since, from whomever: it is not lost."""
    label: str = ""
    """The source under which it is counted."""

    def report(self, *, is_good: bool) -> None:
        """Take a report in, if it counts."""
        if self.reports < OUTCOMES_MAX:
            self.reported, self.reports = is_good, self.reports + 1


class Run(msgspec.Struct):
    """A run that was drawn for an entry at least."""

    task: str = ""
    source: str = ""
    """Whose it is: of those who have reported, the one that asked first; "" until somebody has."""
    since: int = 0
    """Which of the run's advice was the first that ``source`` has reported on, from 0."""
    first: str = ""
    """The source of the first op that named it: counts by source go there until somebody has reported."""
    asker: str = ""
    """In whose name it has asked first: counts go there until an op has named it."""
    verdict: bool | None = None
    verdicts: int = 0
    """How many have come, of those that count."""
    draws: dict[str, Draw] = msgspec.field(default_factory=dict)
    advices: list[str] = []
    """Ids of the advice that it has asked for, the newest last."""
    asked: int = 0
    """How often it has asked."""

    def judge(self, *, is_good: bool) -> None:
        """Take a verdict in, if it counts."""
        if self.verdicts < OUTCOMES_MAX:
            self.verdict, self.verdicts = is_good, self.verdicts + 1

    def draws_of(self, advices: Iterable[Asked]) -> dict[str, Draw]:
        """Give the draws of the entries that some of its advice was about, by entry."""
        return {entry: self.draws[entry] for one in advices for entry in one.entries if entry in self.draws}


class Asked(msgspec.Struct, frozen=True):
    """The run that an advice id belongs to, the entries that were drawn then, and where its reports come from."""

    run: str
    entries: tuple[str, ...]
    endpoint: str = ""
    source: str = ""
    number: int = 0
    """How often the run had asked before."""

    def is_reported_by(self, op: Op, *, is_named: bool) -> bool:
        """Say whether an op of its run, from the endpoint, tells how it went.

        :param is_named: the op has its id, which whoever only knows the name of the run has not.
        """
        return op.source == self.source or (is_named and not self.source)


class EntryTrial(msgspec.Struct):
    """The counts of one entry."""

    began: int = 0
    """The seq of the op with which it began: no other trial of the entry has it, also when the entry was forgotten."""
    trusted: bool = False
    """Its runs are drawn with the small share of control; one that was drawn with the other stays out of it."""
    exposed: Arm = Arm()
    control: Arm = Arm()
    by_source: dict[str, Sides] = msgspec.field(default_factory=dict)
    recent: dict[str, Sides] = msgspec.field(default_factory=dict)
    """By source."""
    window: int = 0
    """The recent counts have begun anew so many times."""
    tasks: dict[str, tuple[bool | None, bool | None]] = msgspec.field(default_factory=dict)
    """Task -> the last outcome in the control, and among the exposed; the newest tasks."""
    drawn: int = 0
    """Runs that were drawn for it."""
    unsettled: dict[str, int] = msgspec.field(default_factory=dict)
    """Run -> how many were drawn before it, oldest first: those whose outcome may still come."""
    lost: tuple[int, int] = (0, 0)
    """Runs that count as failed since no outcome has come: exposed, control."""


class Trials:
    """All trials, as far as they have come.

    :param kept: is told what has changed.
    :param reporter: gives the source of a run's first op, by its name; "" where none is remembered.
    """

    def __init__(self, kept: Kept, reporter: Callable[[str], str]) -> None:
        self.runs: dict[str, Run] = {}
        """By name, oldest first; a run without a name is here under its advice id."""
        self.advices: dict[str, Asked] = {}
        self.entries: dict[str, EntryTrial] = {}
        self._kept = kept
        self._reporter = reporter

    def add(self, op: Op) -> list[str]:
        """Take the next op in; give the ids of the entries whose counts are others now."""
        if op.source == OWN_SOURCE:
            return self._expose(_exposure(op), op.seq) if op.endpoint == ADVICE_ENDPOINT else []
        if not self.runs:
            return []
        advice_id = _text(op, ADVICE_ID)
        asked = self.advices.get(advice_id) if advice_id else None
        named = run_name(op)
        name = named if named in self.runs or asked is None else asked.run
        run = self.runs.get(name)
        if run is None:
            return []
        self._kept.touch(Section.TRIAL_RUN, name)
        if op.source == AUDITOR:
            run.judge(is_good=op.success)
            return self._settled(name, tuple(run.draws))
        run.first = run.first or op.source
        if asked is not None and self.runs.get(asked.run) is not run:
            return []  # it names one run, and the advice of another: it says nothing of either
        advices = [asked] if asked else [self.advices[one] for one in run.advices if one in self.advices]
        heard = [one for one in advices if one.endpoint in ("", _place(op))]
        reported = [one for one in heard if one.is_reported_by(op, is_named=asked is not None)]
        draws = {entry: draw for entry, draw in run.draws.items() if not draw.heard}
        for draw in draws.values():
            draw.heard = True
        if reported and _is_owner(run, op.source, min(one.number for one in reported)):
            is_good = op.success and suspicion(op) is None
            draws |= run.draws_of(reported)
            for draw in run.draws_of(reported).values():
                draw.report(is_good=is_good)
        return self._settled(name, draws)

    def drawn(self, run: str, entry: str) -> bool | None:
        """Say whether a run is exposed to an entry; None when it has not been drawn."""
        known = self.runs.get(run)
        draw = known.draws.get(entry) if known else None
        return draw.exposed if draw else None

    def trial(self, entry: str) -> Trial:
        """Give what the uses of an entry have come to, in its present trial."""
        counts = self.entries.get(entry)
        if counts is None:
            return Trial()
        outcomes = [pair for pair in counts.tasks.values() if None not in pair]
        return Trial(
            exposed=counts.exposed,
            control=counts.control,
            fixed=outcomes.count((False, True)),
            broken=outcomes.count((True, False)),
            by_source=dict(counts.by_source),
            recent=dict(counts.recent),
            lost=counts.lost,
        )

    def restart(self, entry: str, seq: int, *, trusted: bool = False) -> None:
        """Begin a new trial: the counts start from nothing, and runs drawn before stay out of them.

        :param seq: of the op that makes it begin.
        :param trusted: its runs are drawn with the small share of control.
        """
        self.entries[entry] = EntryTrial(seq, trusted=trusted)
        self._kept.touch(Section.TRIAL_ENTRY, entry)

    def forget(self, entry: str) -> None:
        """Forget an entry that is gone; its draws stay until their runs go, and count for nothing."""
        self.entries.pop(entry, None)
        self._kept.gone(Section.TRIAL_ENTRY, entry)

    def _expose(self, exposure: Exposure, seq: int) -> list[str]:
        name = exposure.run or exposure.advice_id
        run = self.runs.setdefault(name, Run())
        run.task, run.asker = run.task or exposure.task, run.asker or exposure.asked_by
        run.first = run.first or self._reporter(name)
        run.advices.append(exposure.advice_id)
        del run.advices[:-ADVICES_OF_RUN_MAX]
        sides = [(entry, True) for entry in exposure.exposed] + [(entry, False) for entry in exposure.control]
        entries = tuple(entry for entry, _ in sides)
        drawn: list[str] = []
        for entry, exposed in sides:
            if entry not in run.draws and len(run.draws) < DRAWS_MAX:
                counts = self.entries.setdefault(entry, EntryTrial(seq))
                self._kept.touch(Section.TRIAL_ENTRY, entry)
                is_its = exposure.trusted is None or counts.trusted is (entry in exposure.trusted)
                run.draws[entry] = Draw(exposed, counts.began if is_its else NO_TRIAL)
                if not is_its:  # on its way as the share changed, or of a playbook that was otherwise then
                    continue
                drawn.append(entry)
                counts.unsettled.pop(name, None)  # of a run of that name that is forgotten
                counts.unsettled[name] = counts.drawn
                counts.drawn += 1
        asked = Asked(name, entries, exposure.endpoint, exposure.asked_by, run.asked)
        self.advices[exposure.advice_id] = asked
        run.asked += 1
        self._kept.touch(Section.TRIAL_RUN, name)
        self._kept.touch(Section.TRIAL_ADVICE, exposure.advice_id)
        self._keep_bounded(Section.TRIAL_RUN, self.runs, RUNS_MAX)
        self._keep_bounded(Section.TRIAL_ADVICE, self.advices, ADVICES_MAX)
        return self._settled(name, drawn)  # it may have been judged already

    def _keep_bounded(self, section: Section, parts: dict[str, Run] | dict[str, Asked], most: int) -> None:
        if len(parts) > most:
            oldest = next(iter(parts))
            del parts[oldest]
            self._kept.gone(section, oldest)

    def _settled(self, name: str, entries: Collection[str]) -> list[str]:
        """Count a run's outcome, and the runs that are lost now, for some of its entries."""
        changed = dict.fromkeys(self._settle(name, entries))
        for entry in entries:
            for late in self._overtaken(entry):
                changed.update(dict.fromkeys(self._settle(late, (entry,), is_over=True)))
        return list(changed)

    def _overtaken(self, entry: str) -> Iterator[str]:
        """Take out the runs that are not waited for any longer; give those of them that count as lost."""
        counts = self.entries.get(entry)
        while counts is not None and counts.unsettled:
            oldest, number = next(iter(counts.unsettled.items()))
            settled = counts.drawn - number - len(counts.unsettled)  # of those drawn after it
            if settled < OVERTAKEN_MAX and len(counts.unsettled) <= WAITING_MAX:
                return
            del counts.unsettled[oldest]
            run = self.runs.get(oldest)
            draw = run.draws.get(entry) if run is not None and run.first else None
            if draw is not None and not draw.heard:
                yield oldest

    def _settle(self, name: str, entries: Collection[str], *, is_over: bool = False) -> list[str]:
        """Count a run's outcome for some of its entries, where it is another than what was counted.

        :param is_over: where there is none, the run counts as lost.
        """
        run = self.runs[name]
        changed = []
        for entry in entries:
            draw, counts = run.draws[entry], self.entries.get(entry)
            if counts is None or counts.began != draw.trial:
                continue
            outcome = run.verdict if run.verdict is not None else draw.reported
            is_lost = outcome is None and is_over
            if outcome is not None:
                counts.unsettled.pop(name, None)
            if is_lost:
                outcome = False
            if (outcome, is_lost) == (draw.counted, draw.lost):
                continue
            if draw.counted is not None:
                _count(counts, draw, -1)
            draw.counted, draw.lost = outcome, is_lost
            self._kept.touch(Section.TRIAL_RUN, name)
            self._kept.touch(Section.TRIAL_ENTRY, entry)
            if outcome is not None:
                draw.label = run.source or run.first or run.asker or UNKNOWN
                _count(counts, draw, 1)
                if not is_lost:
                    _note_task(counts, run.task, draw)
            changed.append(entry)
        return changed


def _is_owner(run: Run, source: str, number: int) -> bool:
    """Say whether a source that reports on some advice of a run owns it; it does from now on if it asked first."""
    if not run.source or (source != run.source and number < run.since):
        run.source, run.since = source, number
        for draw in run.draws.values():
            draw.reports = 0
    return source == run.source


def in_control(entry: str, run: str, share: float, secret: str = "") -> bool:
    """Draw a run: for the same entry and run always alike, for two entries each by itself.

    :param share: the chance of the control, 0 to 1.
    :param secret: who knows it can choose names of runs that fall on one side.
    """
    digest = hashlib.blake2b(f"{secret}{entry}\n{run}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) < share * 2.0**64


def exposure_attrs(exposure: Exposure) -> dict[str, Scalar]:
    """Give the attributes of the op that journals an exposure."""
    attrs: dict[str, Scalar] = {ADVICE_ID: exposure.advice_id}
    for name in ("run", "task", "asked_by", "endpoint"):
        if text := getattr(exposure, name):
            attrs[name] = text
    for name in ("exposed", "control"):
        if ids := getattr(exposure, name):
            attrs[name] = ",".join(ids)
    if exposure.trusted is not None:  # none of them is not the same as not said
        attrs["trusted"] = ",".join(exposure.trusted)
    return attrs


def run_name(op: Op) -> str:
    """Give the run that an op names, whatever the field that it stands in; empty when it names none."""
    return (run_of(op) or "").partition(":")[2]


def asked_by(op: Op) -> str:
    """Give the source in whose name the advice was asked for that an exposure journals; "" for any other op."""
    return _text(op, "asked_by") if op.source == OWN_SOURCE and op.endpoint == ADVICE_ENDPOINT else ""


def _exposure(op: Op) -> Exposure:
    return Exposure(
        advice_id=_text(op, ADVICE_ID),
        run=_text(op, "run"),
        task=_text(op, "task"),
        asked_by=_text(op, "asked_by"),
        endpoint=_text(op, "endpoint"),
        exposed=_ids(op, "exposed"),
        control=_ids(op, "control"),
        trusted=_ids(op, "trusted") if isinstance(op.attrs, dict) and "trusted" in op.attrs else None,
    )


def _ids(op: Op, name: str) -> tuple[str, ...]:
    return tuple(filter(None, _text(op, name).split(",")))


def _place(op: Op) -> str:
    return bounded_endpoint(op.endpoint)


def _text(op: Op, name: str) -> str:
    value = op.attrs.get(name) if isinstance(op.attrs, dict) else None
    return value if isinstance(value, str) else ""


def _count(counts: EntryTrial, draw: Draw, times: int) -> None:
    """Add a draw's counted outcome so many times: 1, or -1 to take it back."""
    if times > 0 and draw.label not in counts.by_source and len(counts.by_source) >= SOURCES_MAX:
        draw.label = OTHER
    arm = Arm(succeeded=times) if draw.counted else Arm(failed=times)
    one = Sides(exposed=arm) if draw.exposed else Sides(control=arm)
    counts.exposed += one.exposed
    counts.control += one.control
    _add_to_source(counts.by_source, draw.label, one)
    if times > 0:
        if sum(sides.total for sides in counts.recent.values()) >= WINDOW_RUNS:
            counts.recent, counts.window = {}, counts.window + 1
        draw.window = counts.window
    if draw.window == counts.window:
        _add_to_source(counts.recent, draw.label, one)
    if draw.lost:
        exposed, control = counts.lost
        counts.lost = (exposed + times, control) if draw.exposed else (exposed, control + times)


def _add_to_source(by_source: dict[str, Sides], source: str, one: Sides) -> None:
    """Add a run to those of its source; one of which nothing is left has no say (`lift.none_alone`)."""
    by_source[source] = by_source.get(source, Sides()) + one
    if not by_source[source].total:
        del by_source[source]


def _note_task(counts: EntryTrial, task: str, draw: Draw) -> None:
    if task:
        control, with_it = counts.tasks.pop(task, (None, None))
        pair = (control, draw.counted) if draw.exposed else (draw.counted, with_it)
        counts.tasks[task] = pair
        if len(counts.tasks) > TASKS_MAX:
            del counts.tasks[next(iter(counts.tasks))]
