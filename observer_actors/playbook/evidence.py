"""What has been seen at one endpoint, in bounded memory. Pure.

An endpoint counts its successes and failures, by feature (`inputs`) too; its failures by masked text; what was done
between a failure and the next call in the same run (*recoveries*); and which endpoints were called before it in runs
that were judged (*habits*). Each count knows its witnesses.

Failures whose masked texts differ in one word of `ALIKE_WORDS_MIN` or more, and have the same likely cause, are one.

Features are counted of calls that say something new: what repeats an earlier call of its run, or may as the run is
full, is no further witness of what makes the difference. Nor is an attribute one more than once among a run's calls
that are alike (`runs.alike`): what is so throughout a run shows no more by its tenth call than by its first.

A value that worked may fail from one day on, or the other way round, while calls without it do not: then it has turned
(`Value.add`), and what it did before is no longer counted.

What finds no room is counted, not kept. What one failure text more would take from others goes at the cost of the one
that has been quiet for longest among those that nothing corroborates; where all are, of these: an endpoint that lives
for months fails in other words than it did.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache, reduce
from typing import Final

import msgspec

from observer_actors.patterns.contrast import mid_p
from observer_actors.patterns.taxonomy import Ruling, ruled
from observer_actors.playbook.inputs import SHAPE, Feature
from observer_actors.playbook.meta import Left
from observer_actors.playbook.runs import Step
from observer_actors.playbook.witnesses import Corroboration, Tally, Witnesses

EXAMPLES_MAX: Final = 5
FEATURES_MAX: Final = 30
"""Features of an endpoint, by name."""
VALUES_MAX: Final = 8
"""Of a feature. When it is full, one that is one source's alone makes room. When as many again come,
and not from one source unless that is enough, the feature may be anything (an id, a free text), and is forgotten."""
STRAYS_MAX: Final = 64
"""Values of a source for which others made room, in a feature; further ones are passed over."""
SHAPES_MAX: Final = 16
"""Shapes of an endpoint's input; one more is not kept."""
FAILURES_MAX: Final = 24
FAILURE_VALUES_MAX: Final = 60
"""Values that the failures of one text had."""
ALIASES_MAX: Final = 100
ALIKE_WORDS_MIN: Final = 5
TOLD_MAX: Final = 8
"""Texts of a failure that stands for several, of which is known who has told them."""
STATUSES_MAX: Final = 4
"""HTTP statuses that the failures of one text named; one that one source alone has named makes room."""
RECOVERIES_MAX: Final = 24
HABITS_MAX: Final = 24
FAILING_MAX: Final = 5
"""Tries of a way back in a row that may fail, as far as they count beside what others say. Of a way that leads back
every second time one more do so once in 64. As many calls in a row with a value may go otherwise than most have."""
USUAL_TIMES: Final = 4
"""So many times as often a value has worked as failed, or failed as worked, of which it is said that it has turned. Of
one that works in four calls of five six in a row fail once in 15,000."""
TURN_P_MAX: Final = 1e-6
"""The chance at most that a value which is said to have turned has only met a bad hour of its endpoint, or a good one;
so small that the look which follows finds what works now."""
DURATION_MS_MAX: Final = 1e10
_DURATION_LOG: Final = math.log(1.2)
"""Durations are counted in steps of 20 %: a quantile is right within 10 %."""


class Room(msgspec.Struct):
    """Room for values of features, shared by all endpoints; what finds none is counted."""

    left: int
    corroboration: Corroboration
    counted: Left

    def take(self) -> bool:
        """Take room for one."""
        if self.left <= 0:
            self.counted.values += 1
            return False
        self.left -= 1
        return True


class Drawn(msgspec.Struct, array_like=True, gc=False):
    """What is drawn from, as far as it counts."""

    count: int = 0
    """Successes; of a failure: how often it was."""
    corroborated: bool = False
    failed: int = 0
    doubtful: int = 0
    judged: int = 0

    def is_other_than(self, before: Drawn) -> bool:
        """Say whether its calls, or all of it, are others by an eighth, or it is corroborated now, or no more.

        What has gone counts like what has come: a verdict takes more away than it brings.
        """
        calls = abs(self.count - before.count) + abs(self.failed - before.failed)
        rest = abs(self.doubtful - before.doubtful) + abs(self.judged - before.judged)
        then = before.count + before.failed
        return (
            self.corroborated != before.corroborated
            or calls >= max(1, then // 8)
            or calls + rest >= max(1, (then + before.doubtful + before.judged) // 8)
        )


class Value(msgspec.Struct, array_like=True, gc=False):
    """The calls that had one value of a feature; once it has turned only those since then."""

    ok: Witnesses
    bad: Witnesses
    lately: Witnesses | None = None
    """The newest ones, all of which went otherwise than four in five had until then; None: there are none."""
    before: tuple[int, int] = (0, 0)
    """Calls of the endpoint that had succeeded, and that had failed, when the first of these came."""
    is_lately_ok: bool = False

    def add(self, step: Step, run: int, calls: tuple[int, int], corroboration: Corroboration) -> bool:
        """Count a call; say whether the value has turned by it, as calls without it have not: earlier ones are past.

        :param calls: of the endpoint that succeeded, and that failed, with this one.
        """
        side, other = (self.ok, self.bad) if step.ok else (self.bad, self.ok)
        if self.lately is None or self.is_lately_ok is not step.ok:
            self.lately = None
            if other.count >= USUAL_TIMES * FAILING_MAX and (
                other.shared(corroboration) >= USUAL_TIMES * (side.shared(corroboration) + FAILING_MAX)
            ):
                self.lately, self.is_lately_ok, self.before = Witnesses(), step.ok, calls
        side.add(step.seq, run, step.source)
        if self.lately is None:
            return False
        self.lately.add(step.seq, run, step.source)
        if not self.lately.suffice(corroboration) or self.lately.shared(corroboration) <= FAILING_MAX:
            return False
        succeeded, failed = (now - then for now, then in zip(calls, self.before, strict=True))
        alike, others = (succeeded, failed) if step.ok else (failed, succeeded)
        alike = max(alike, self.lately.count)
        if mid_p(self.lately.count, alike, self.lately.count, alike + max(others, 0)) > TURN_P_MAX:
            return False
        self.ok, self.bad = (self.lately, Witnesses()) if step.ok else (Witnesses(), self.lately)
        self.lately = None
        return True

    def doubt(self, step: Step, run: int) -> None:
        """Take a success back, as its run was judged failed."""
        self.ok.doubt(step.seq, run, step.source)
        if self.lately is not None:
            self.lately.doubt(step.seq, run, step.source)


class Failure(msgspec.Struct):
    """Failures with one masked text."""

    text: str
    """The first one; of two that were merged, that of the one which had happened more often."""
    witnesses: Witnesses
    joint: str = ""
    """Where it stands for several texts: what they have in common, with ``<any>`` where they differ."""
    texts: dict[str, Witnesses] = {}
    """Where it does, or was merged with another, some of them -> who has told it so; else empty: all have as `text`."""
    statuses: dict[int, Tally] = {}
    """HTTP status that they named, 0: none -> how many; the first few."""
    values: dict[str, Tally] = {}
    """Feature and value (`feature_key`) -> how many of them had it, but for repeats."""
    compared: Tally = msgspec.field(default_factory=Tally)
    """All of them but for repeats."""
    apart: Tally = msgspec.field(default_factory=Tally)
    """The first ones of their runs: of these attributes are counted."""
    seqs: list[int] = []
    drawn: Drawn = msgspec.field(default_factory=Drawn)
    said: str = ""
    """What sets it apart, as it was last drawn: one that says the same is merged with it."""
    looks: int = 0
    """How often it was looked at what sets it apart."""
    way: str = ""
    """The one value that was last known to work."""

    def status(self, corroboration: Corroboration) -> int:
        """Give the HTTP status that most of them named; 0: none, or different ones.

        Once the failure is corroborated, what one source alone has named is none.
        """
        enough = self.witnesses.suffice(corroboration)
        counts = {status: one.shared(corroboration) if enough else one.count for status, one in self.statuses.items()}
        most = max(counts, key=lambda status: (counts[status], -status), default=0)
        return most if 2 * counts.get(most, 0) > sum(counts.values()) else 0

    def ruling(self, corroboration: Corroboration) -> Ruling:
        """Give the likely cause, and what to do about it."""
        return ruled(self.joint or self.text, self.status(corroboration) or None)

    def shown(self, corroboration: Corroboration) -> str:
        """Give its text in words that nobody alone has chosen, as far as it is corroborated at all.

        The one text that is corroborated by itself and that half of them had, if no other like it is; else what all
        have in common.
        """
        half = self.witnesses.shared(corroboration) / 2
        enough = [text for text, one in self.texts.items() if one.suffice(corroboration)]
        alike = [text for text in enough if _says(self.joint, text)]
        alone = [text for text in enough if text not in alike or len(alike) == 1]
        most = [text for text in alone if self.texts[text].shared(corroboration) >= half]
        return most[0] if len(most) == 1 else self.joint or self.text

    def is_told_otherwise(self, shown: str, corroboration: Corroboration) -> bool:
        """Say whether others have told it in words that are not those that are shown."""
        return any(one.suffice(corroboration) and not _says(shown, text) for text, one in self.texts.items())

    def named(self, status: int, source: str, corroboration: Corroboration) -> None:
        """Note the HTTP status that one of them named."""
        if status in self.statuses or _has_room_for_a_status(self.statuses, corroboration):
            self.statuses.setdefault(status, Tally()).add(source)

    def tell(self, text: str, seq: int, run: int, source: str, corroboration: Corroboration) -> None:
        """Note who has told it in these words; what one alone has told makes room for others."""
        if text not in self.texts:
            if len(self.texts) >= TOLD_MAX:
                alone = next((one for one, who in self.texts.items() if who.is_alone(corroboration)), None)
                if alone is None:
                    return
                del self.texts[alone]
            self.texts[text] = Witnesses()
        self.texts[text].add(seq, run, source)

    def told(self) -> dict[str, Witnesses]:
        """Give its texts, with who has told it so."""
        return self.texts or {self.text: self.witnesses.joined(Witnesses())}


class Recovery(msgspec.Struct):
    """What was done between a failure and the next call of the endpoint by the same source, in the same run."""

    failure: str
    steps: tuple[str, ...]
    """Endpoints; empty: the same call was made again at once; `OTHER_INPUT`: one with another input."""
    ok: Witnesses
    bad: Witnesses
    """Calls that failed again."""
    failing: Tally = msgspec.field(default_factory=Tally)
    """Those of them since the last success."""
    seqs: list[int] = []
    contrary_seqs: list[int] = []
    drawn: Drawn = msgspec.field(default_factory=Drawn)

    def is_of_the_past(self, corroboration: Corroboration) -> bool:
        """Say whether it has failed each of the last times, so that the world is another by now."""
        return self.failing.shared(corroboration) > FAILING_MAX


class Habit(msgspec.Struct):
    """Judged runs that called this endpoint after another one."""

    good: Witnesses
    bad: int = 0
    seqs: list[int] = []
    contrary_seqs: list[int] = []


class Endpoint(msgspec.Struct):
    """All there is of one endpoint."""

    name: str
    first_seq: int
    last_seq: int = 0
    ok: Witnesses = msgspec.field(default_factory=Witnesses)
    bad: Witnesses = msgspec.field(default_factory=Witnesses)
    doubtful: Tally = msgspec.field(default_factory=Tally)
    """The successes that count for nothing, as `ok` has them, by who reported them."""
    ok_seqs: list[int] = []
    bad_seqs: list[int] = []
    durations: dict[int, int] = {}
    """Of successes: step -> how many."""
    features: dict[str, dict[str, Value] | None] = {}
    """Name -> value -> calls; None for one that has too many values."""
    strays: dict[str, Tally] = {}
    """Name of a feature that is full -> further values that have come; "" -> further features."""
    failures: dict[str, Failure] = {}
    """By masked text, the one that was quiet for longest first."""
    aliases: dict[str, str] = {}
    """Masked text -> the one that it counts as."""
    recoveries: dict[str, Recovery] = {}
    habits: dict[str, Habit] = {}
    judged_good: int = 0
    """Judged runs that called it."""
    judged_bad: int = 0
    looks: int = 0
    """How often it was looked at what sets all of its failures apart."""
    drawn: Drawn = msgspec.field(default_factory=Drawn)
    due: list[str] = []
    """What has to be drawn anew still."""
    corroborated: bool = False
    """Something of it is, or was: it is not forgotten."""
    successes: int = 0
    """Ops that said so, whatever was judged: the gateway's copy counts like the seed."""
    duration_ms_total: float = 0.0
    inputs: list[str] = []
    success_seq: int = 0

    @property
    def calls(self) -> int:
        """Successes and failures that count."""
        return self.ok.count + self.bad.count

    def values(self) -> int:
        """Give how much room the values take."""
        return sum(len(values) for values in self.features.values() if values)

    def succeeded(self, step: Step, run: int, room: Room, *, is_doubtful: bool) -> None:
        """Count a success."""
        self.ok.add(step.seq, run, step.source, is_doubtful=is_doubtful)
        if is_doubtful:
            self.doubtful.add(step.source)
        else:
            noted(self.ok_seqs, step.seq)
        self._count(step, run, room, is_doubtful=is_doubtful)

    def took(self, duration_ms: float) -> None:
        """Note how long a success took, where it is said: nothing is said as 0."""
        if duration_ms <= 0:
            return
        place = _place_of(duration_ms)
        self.durations[place] = self.durations.get(place, 0) + 1

    def quantile_ms(self, share: float) -> float:
        """Give the duration that ``share`` of the successes did not exceed, within 10 %."""
        rank, seen = share * (sum(self.durations.values()) - 1), 0
        for place in sorted(self.durations):
            seen += self.durations[place]
            if rank < seen:
                return float(1.2**place)
        return 0.0

    def failed(self, step: Step, run: int, room: Room, *, is_new: bool, is_first: bool) -> Failure:
        """Count a failure; give the one that it counts for.

        :param is_new: it repeats no earlier one of its run.
        :param is_first: none of its run is like it.
        """
        self.bad.add(step.seq, run, step.source)
        noted(self.bad_seqs, step.seq)
        self._count(step, run, room, is_doubtful=False)
        failure = self.failures[step.failure] = self.failures.pop(step.failure)
        failure.witnesses.add(step.seq, run, step.source)
        noted(failure.seqs, step.seq)
        if is_new:
            failure.compared.add(step.source)
        if is_first:
            failure.apart.add(step.source)
        for feature in step.features:
            key = feature_key(feature)
            has_room = len(failure.values) < FAILURE_VALUES_MAX
            if key in failure.values or has_room or _forget_alone(failure.values, room.corroboration):
                failure.values.setdefault(key, Tally()).add(step.source)
        return failure

    def known_as(self, masked: str, status: int, corroboration: Corroboration) -> str:
        """Give the text that a failure's masked text counts as; "" for one that is new."""
        root = self.aliases.get(masked, masked)
        if root in self.failures:
            return root
        if len(self.aliases) < ALIASES_MAX:
            for root, failure in self.failures.items():
                if (text := _joint(failure, masked, status, corroboration)) is not None:
                    self.aliases[masked] = root
                    failure.texts, failure.joint = failure.told(), text
                    return root
        return ""

    def found(self, masked: str) -> None:
        """Keep a failure text that is new."""
        self.failures[masked] = Failure(masked, Witnesses())

    def quiet_failure(self, corroboration: Corroboration) -> str | None:
        """Give the one that makes room for another; None where there is some.

        Of the source that has most of those that are not corroborated, so that none can crowd out another, the
        quietest; where all are corroborated the quietest of all.
        """
        if len(self.failures) < FAILURES_MAX:
            return None
        alone = {text: one.witnesses for text, one in self.failures.items() if not one.witnesses.suffice(corroboration)}
        return _of_the_greediest(alone) or next(iter(self.failures))

    def forget_failure(self, text: str) -> None:
        """Forget a failure, and what is known of recovering from it."""
        del self.failures[text]
        self.recoveries = {key: one for key, one in self.recoveries.items() if one.failure != text}
        self.aliases = {alias: root for alias, root in self.aliases.items() if root != text}

    def merge_failures(self, text: str, other: str, corroboration: Corroboration) -> list[tuple[str, str]]:
        """Take the failures of another text for those of the first, with what is known of recovering from them.

        :returns: the recoveries that are known by another key now: the old one, the new one.
        """
        one, two = self.failures[text], self.failures.pop(other)
        told = one.told()
        for words, who in two.told().items():
            told[words] = told[words].joined(who) if words in told else who
        most = sorted(told, key=lambda words: told[words].count, reverse=True)[:TOLD_MAX]
        one.texts = {words: who for words, who in told.items() if words in most}
        if two.witnesses.count > one.witnesses.count:
            one.text, one.joint = two.text, two.joint
        one.witnesses = one.witnesses.joined(two.witnesses)
        for status, tally in two.statuses.items():
            known = one.statuses.get(status)
            if known is not None or _has_room_for_a_status(one.statuses, corroboration):
                one.statuses[status] = tally if known is None else known.joined(tally)
        one.compared, one.apart = one.compared.joined(two.compared), one.apart.joined(two.apart)
        one.looks = max(one.looks, two.looks)
        one.seqs = sorted({*one.seqs, *two.seqs})[-EXAMPLES_MAX:]
        for key, tally in two.values.items():
            if key in one.values or len(one.values) < FAILURE_VALUES_MAX:
                one.values[key] = one.values[key].joined(tally) if key in one.values else tally
        self.aliases = {alias: text if root == other else root for alias, root in self.aliases.items()}
        if len(self.aliases) < ALIASES_MAX:
            self.aliases[other] = text
        return [self._rename_recovery(key, text) for key, way in tuple(self.recoveries.items()) if way.failure == other]

    def _rename_recovery(self, key: str, failure: str) -> tuple[str, str]:
        """Have a recovery be one from another failure, together with what is known of the same way from that."""
        way = self.recoveries.pop(key)
        way.failure, renamed = failure, recovery_key(failure, way.steps)
        known = self.recoveries.setdefault(renamed, way)
        if known is not way:
            known.ok, known.bad = known.ok.joined(way.ok), known.bad.joined(way.bad)
            known.failing = min(known.failing, way.failing, key=lambda tally: tally.count)
            known.seqs = sorted({*known.seqs, *way.seqs})[-EXAMPLES_MAX:]
            known.contrary_seqs = sorted({*known.contrary_seqs, *way.contrary_seqs})[-EXAMPLES_MAX:]
        return key, renamed

    def recovered(
        self,
        failed: Step,
        path: tuple[str, ...],
        step: Step,
        run: int,
        corroboration: Corroboration,
        *,
        is_doubtful: bool,
    ) -> Recovery | None:
        """Count how a call went that followed a failed one, if there is room.

        :param is_doubtful: a success would be none, as its run was judged failed.
        """
        failure = self.aliases.get(failed.failure, failed.failure)
        key = recovery_key(failure, path)
        recovery = self.recoveries.get(key)
        if recovery is None:
            if failure not in self.failures or not self._has_room_for_a_recovery(corroboration):
                return None
            recovery = self.recoveries[key] = Recovery(failure, path, Witnesses(), Witnesses())
        if step.ok:
            recovery.ok.add(step.seq, run, step.source, is_doubtful=is_doubtful)
            if not is_doubtful:
                noted(recovery.seqs, step.seq)
                recovery.failing = Tally()
        else:
            recovery.bad.add(step.seq, run, step.source)
            recovery.failing.add(step.source)
            noted(recovery.contrary_seqs, step.seq)
        return recovery

    def judged(self, run: int, source: str, seq: int, before: Iterable[str], *, good: bool) -> None:
        """Count a judged run that has called this endpoint.

        :param seq: its first op here.
        :param before: the endpoints that it had called before.
        """
        self.judged_good += good
        self.judged_bad += not good
        for name in before:
            habit = self.habits.get(name)
            if habit is None:
                if len(self.habits) >= HABITS_MAX:
                    continue
                habit = self.habits[name] = Habit(Witnesses())
            if good:
                habit.good.add(seq, run, source)
                noted(habit.seqs, seq)
            else:
                habit.bad += 1
                noted(habit.contrary_seqs, seq)

    def _has_room_for_a_recovery(self, corroboration: Corroboration) -> bool:
        """Say whether there is room, made where one source alone has tried."""
        if len(self.recoveries) >= RECOVERIES_MAX:
            tried = {key: one.ok.joined(one.bad) for key, one in self.recoveries.items()}
            greedy = _makes_room(tried, corroboration)
            if greedy is not None:
                del self.recoveries[greedy]
        return len(self.recoveries) < RECOVERIES_MAX

    def doubted(self, step: Step, run: int, way: tuple[Step, tuple[str, ...]] | None) -> None:
        """Take a success back that was counted before, as its run was judged failed.

        :param way: the failed call that it followed, and how (`runs.way_from_failure`).
        """
        if self.ok.doubt(step.seq, run, step.source):
            self.doubtful.add(step.source)
        for name, text in step.features:
            value = (self.features.get(name) or {}).get(text)
            if value is not None:
                value.doubt(step, run)
        if way is not None:
            failed, path = way
            recovery = self.recoveries.get(recovery_key(self.aliases.get(failed.failure, failed.failure), path))
            if recovery is not None:
                recovery.ok.doubt(step.seq, run, step.source)

    def _count(self, step: Step, run: int, room: Room, *, is_doubtful: bool) -> None:
        """Count a call for each of its values; what is said of one that has turned is drawn anew."""
        for feature, value in self._values(step, room):
            if is_doubtful:
                value.ok.add(step.seq, run, step.source, is_doubtful=True)
            elif value.add(step, run, (self.ok.count, self.bad.count), room.corroboration):
                self.drawn = Drawn()
                for text, failure in self.failures.items():
                    if text != step.failure:  # of which these calls are
                        failure.values.pop(feature_key(feature), None)

    def _values(self, step: Step, room: Room) -> list[tuple[Feature, Value]]:
        """Give the values to count with their features, made where there is room for them."""
        found = []
        for name, text in step.features:
            values = self.features.get(name, _NOTHING)
            if values is _NOTHING:
                if len(self.features) >= FEATURES_MAX and not self._forget_a_feature(step.source, room):
                    continue
                values = self.features[name] = {}
            if values is None:
                continue
            value = values.get(text)
            if value is None:
                value = self._value(name, text, step.source, room)
                if value is None:
                    continue
            found.append(((name, text), value))
        return found

    def _value(self, name: str, text: str, source: str, room: Room) -> Value | None:
        """Make a value, if there is room for it among those of its feature."""
        values = self.features[name]
        assert values is not None
        most = SHAPES_MAX if name == SHAPE else VALUES_MAX
        if len(values) >= most:
            strays = self.strays.setdefault(name, Tally())
            if source == strays.leader and strays.lead >= STRAYS_MAX:
                return None
            if strays.shared(room.corroboration) > most:  # nobody alone says that it may be anything
                if name != SHAPE:
                    room.left += len(values)
                    self.features[name] = None
                return None
            strays.add(source)
            if not _forget_a_value(values, room):
                return None
        if not room.take():
            return None
        value = values[text] = Value(Witnesses(), Witnesses())
        return value

    def _forget_a_feature(self, source: str, room: Room) -> bool:
        """Make room for a feature of a source, at the cost of one that one source alone has used."""
        strays = self.strays.setdefault("", Tally())
        if source == strays.leader and strays.lead >= STRAYS_MAX:
            return False
        strays.add(source)
        used = {
            name: reduce(Witnesses.joined, [part for one in values.values() for part in (one.ok, one.bad)], Witnesses())
            for name, values in self.features.items()
            if values is not None
        }
        name = _makes_room(used, room.corroboration)
        if name is None:
            return False
        room.left += len(self.features.pop(name) or ())
        self.strays.pop(name, None)
        return True


_NOTHING: Final[dict[str, Value]] = {}


@lru_cache(4_096)
def _place_of(duration_ms: float) -> int:
    return round(math.log(min(duration_ms, DURATION_MS_MAX)) / _DURATION_LOG) if duration_ms > 1 else 0


def _of_the_greediest(items: Mapping[str, Witnesses]) -> str | None:
    """Give the first of those that are of the source that has most of them; None where there are none."""
    if not items:
        return None
    whose = {key: next(iter(who.by_source), "") for key, who in items.items()}
    [(greedy, _)] = Counter(whose.values()).most_common(1)
    return next(key for key, source in whose.items() if source == greedy)


def _makes_room(items: Mapping[str, Witnesses], corroboration: Corroboration) -> str | None:
    """Give what one source alone has shown, of the source that has most of it; None where there is no such thing."""
    return _of_the_greediest({key: who for key, who in items.items() if who.is_alone(corroboration)})


def _forget_a_value(values: dict[str, Value], room: Room) -> bool:
    """Make room among values, at the cost of what one source alone has used."""
    text = _makes_room({text: one.ok.joined(one.bad) for text, one in values.items()}, room.corroboration)
    if text is None:
        return False
    del values[text]
    room.left += 1
    return True


def _has_room_for_a_status(statuses: dict[int, Tally], corroboration: Corroboration) -> bool:
    """Say whether there is room, made where one source alone has named, and that is not enough.

    Of the source that has most of them the rarest makes room.
    """
    if len(statuses) >= STATUSES_MAX:
        alone = {status: one for status, one in statuses.items() if one.is_alone(corroboration)}
        if alone:
            greedy = Counter(one.leader for one in alone.values()).most_common(1)[0][0]
            own = [status for status, one in alone.items() if one.leader == greedy]
            del statuses[min(own, key=lambda status: alone[status].count)]
    return len(statuses) < STATUSES_MAX


def _forget_alone(tallies: dict[str, Tally], corroboration: Corroboration) -> bool:
    """Make room at the cost of what one source alone has counted, where that is not enough."""
    alone = next((key for key, one in tallies.items() if one.is_alone(corroboration)), None)
    if alone is None:
        return False
    del tallies[alone]
    return True


def recovery_key(failure: str, path: Iterable[str]) -> str:
    """Give what a recovery is known by."""
    return "\n".join((failure, *path))


def feature_key(feature: Feature) -> str:
    """Give a feature with its value as one text."""
    return f"{feature[0]}\n{feature[1]}"


def noted(seqs: list[int], seq: int) -> None:
    """Keep the newest examples, oldest first."""
    seqs.append(seq)
    if len(seqs) > EXAMPLES_MAX:
        del seqs[0]


def _joint(failure: Failure, masked: str, status: int, corroboration: Corroboration) -> str | None:
    """Give the text that a failure has together with another masked text; None where they do not say the same.

    The word in which they differ is in neither's word any more, so that whoever came first cannot choose it.
    """
    words, others = (failure.joint or failure.text).split(), masked.split()
    if len(words) != len(others) or len(words) < ALIKE_WORDS_MIN:
        return None
    places = [n for n, (a, b) in enumerate(zip(words, others, strict=True)) if a not in (b, _ANY)]
    if len(places) > (0 if failure.joint else 1):
        return None
    if failure.ruling(corroboration).cause != ruled(masked, status or None).cause:
        return None
    for place in places:
        words[place] = _ANY
    return " ".join(words)


def _says(shown: str, text: str) -> bool:
    """Say whether a text is what is shown, with any word where that says so."""
    words, others = shown.split(), text.split()
    return len(words) == len(others) and all(a in (b, _ANY) for a, b in zip(words, others, strict=True))


_ANY: Final = "<any>"
