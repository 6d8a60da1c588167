"""Failures grouped by endpoint and by what their error texts have in common, folded into records. Pure.

The rules:

* The text of a failure is its ``error``; its ``output_summary`` where that is absent, null or empty (the seed
  says ``undefined`` there).
* Which texts belong together says `catalogue`. A pattern keeps the id that it was founded with: across restarts, with
  more data, under a later algorithm. Where two turn out to be one, the older lives on and keeps the other's id as an
  alias.
* Ops are taken in by ascending ``seq``; an op at or below a pattern's ``last_seq`` is in it already and
  changes nothing. So one fold over all ops and many folds over parts of them, also overlapping ones, give the
  same; only whether a pattern is "back" is judged before two are joined, not anew.
* Memory is bounded: what finds no room takes the place of what has been idle for long, or is counted under the
  endpoint's "other" pattern, and where those are too many, under the one for all endpoints.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from observer_actors.labels import bounded_endpoint
from observer_actors.op import Op, time_us
from observer_actors.patterns.catalogue import Catalogue, Group, Known
from observer_actors.patterns.history import History, added, joined
from observer_actors.patterns.masking import ALGORITHM_VERSION

EXAMPLES_MAX: Final = 10
"""Failures the seed shows to its model."""
WASTED_MS_MAX: Final = 86_400_000.0
EXAMPLE_CHARS_MAX: Final = 500
"""Characters of an example: the gateway's copy is cut at 500, and would not show more."""
ERROR_CHARS_KEPT: Final = EXAMPLE_CHARS_MAX // 2
"""Of an error, whatever the input takes: an agent's input alone is often longer than an example."""
QUIET_US_MIN: Final = 3_600 * 1_000_000
"""A pattern is back when its failures had stopped for an hour of recorded time…"""
QUIET_TIMES_MEAN: Final = 4
"""… and for 4 times their mean distance until then: what fails every two hours is ongoing, never "back"."""


class Example(msgspec.Struct, frozen=True):
    """One failure of a pattern: its op, and ``[endpoint] input_summary: error`` in one line, a long input cut."""

    seq: int
    line: str
    error_at: int = 0
    """Where the error begins in the line; 0 where an older version wrote it, and did not say."""

    @property
    def error(self) -> str:
        """The error by itself; "" where that is not known."""
        return self.line[self.error_at :] if self.error_at else ""


class Pattern(Known, frozen=True, kw_only=True):
    """Failures that look the same."""

    first_seq: int
    last_seq: int
    first_seen: str
    """When the witness recorded the first failure."""
    count: int
    examples: tuple[Example, ...]
    """The newest `EXAMPLES_MAX`, oldest first."""
    sources: dict[str, int]
    """Failures by source. Never changed in place."""
    history: History = History()
    """Failures by time of event."""
    wasted_ms: float = 0.0
    """The time that the failures took, as reported: of each none if it is negative, and a day at most."""
    back_seq: int = 0
    """The newest failure that came after a quiet time (`QUIET_US_MIN`, `QUIET_TIMES_MEAN`); 0: none has."""
    diagnosed_seq: int = 0
    """``last_seq`` at the last diagnosis; 0: never diagnosed."""
    diagnosed_count: int = 0
    """``count`` at the last diagnosis."""

    @property
    def undiagnosed(self) -> int:
        """Failures since the last diagnosis."""
        return self.count - self.diagnosed_count


class Changes(msgspec.Struct, frozen=True):
    """What a fold has changed."""

    patterns: dict[str, Pattern]
    """Id -> pattern of those that are new or changed."""
    absorbed: dict[str, str]
    """Id of a pattern that is no more -> id of the one that it has become part of."""
    forgotten: str = ""
    """Id of the pattern that made room for that of the last failure that was looked at; "": none had to."""
    left: Sequence[Op] = ()
    """Failures that were not looked at, as it was enough, or a pattern was forgotten."""


def by_any_id(patterns: Iterable[Pattern]) -> dict[str, Pattern]:
    """Give each pattern by its id, and by those of the ones that have become part of it."""
    return {key: pattern for pattern in patterns for key in (pattern.id, *pattern.aliases)}


def catalogue_of(patterns: Iterable[Pattern], is_kept: Callable[[str], bool] = lambda _: False) -> Catalogue:
    """Make the catalogue that has led to these patterns.

    :param is_kept: tells of an id whether that pattern never makes room.
    """
    ordered = sorted(patterns, key=lambda pattern: (pattern.first_seq, pattern.id))
    return Catalogue(ordered, is_kept)


def apply(
    patterns: Mapping[str, Pattern],
    ops: Iterable[Op],
    catalogue: Catalogue | None = None,
    is_enough: Callable[[], bool] = lambda: False,
) -> Changes:
    """Fold the failures among the ops into the patterns.

    However they are divided into folds, patterns, texts and counts are the same. Where two patterns become one,
    ``back_seq`` and the last digits of ``wasted_ms`` may differ.

    :param patterns: id -> pattern, all there are; left as they are.
    :param catalogue: the one that has led to these patterns; it goes on with the ops. Made anew where none is given.
    :param is_enough: asked behind each failure whether the rest is to be left: one that is like no other takes long.
    """
    catalogue = catalogue or catalogue_of(patterns.values())
    failed = sorted((op for op in ops if not op.success), key=lambda op: op.seq)
    placed: list[tuple[Group, Op]] = []
    forgotten = ""
    for op in failed:
        now_us = time_us(op.recorded_at) or 0
        placed.append((catalogue.place(bounded_endpoint(op.endpoint), error_text(op), now_us), op))
        forgotten = catalogue.take_forgotten()
        if is_enough() or forgotten:
            break
    absorbed = {one: group for one, group in catalogue.take_absorbed().items() if one in patterns}
    folds: dict[str, tuple[Group, list[Op]]] = {group.id: (group, []) for group in absorbed.values()}
    for group, op in placed:
        counts = group.last()
        folds.setdefault(counts.id, (counts, []))[1].append(op)
    bases = {key: patterns.get(key) for key in folds}
    for one, group in absorbed.items():
        base = bases[group.id]
        assert base is not None, "the oldest lives on, so it was known when the other was"
        bases[group.id] = _joined(base, patterns[one])
    changes = {key: _folded(bases[key], group, failures) for key, (group, failures) in folds.items()}
    return Changes(
        {key: changed for key, changed in changes.items() if changed is not patterns.get(key) and key != forgotten},
        {one: group.id for one, group in absorbed.items()},
        forgotten,
        tuple(failed[len(placed) :]),
    )


def _joined(one: Pattern, other: Pattern) -> Pattern:
    first, last = min(one, other, key=lambda part: part.first_seq), max(one, other, key=lambda part: part.last_seq)
    examples = sorted({*one.examples, *other.examples}, key=lambda example: example.seq)
    return msgspec.structs.replace(
        one,
        first_seq=first.first_seq,
        first_seen=first.first_seen,
        last_seq=last.last_seq,
        last_seen=last.last_seen,
        count=one.count + other.count,
        examples=tuple(examples[-EXAMPLES_MAX:]),
        sources=dict(Counter(one.sources) + Counter(other.sources)),
        history=joined(one.history, other.history),
        wasted_ms=one.wasted_ms + other.wasted_ms,
        back_seq=max(one.back_seq, other.back_seq),
        diagnosed_seq=max(one.diagnosed_seq, other.diagnosed_seq),
        diagnosed_count=one.diagnosed_count + other.diagnosed_count,
    )


def error_text(op: Op) -> str:
    """Give what an op says about its failure."""
    return op.error or op.output_summary


def _folded(known: Pattern | None, group: Group, failures: Sequence[Op]) -> Pattern:
    """Take failures, ascending, into a pattern; the same one when it has them all already."""
    since = known.last_seq if known is not None else 0
    failures = [op for op in failures if op.seq > since]
    if known is None:
        known = _empty(group, failures[0])
    described = _described(known, group)
    if not failures:
        return described
    last = failures[-1]
    new = [_example(op) for op in failures[-EXAMPLES_MAX:]]
    return msgspec.structs.replace(
        described,
        last_seq=last.seq,
        last_seen=last.recorded_at,
        count=known.count + len(failures),
        examples=(*known.examples, *new)[-EXAMPLES_MAX:],
        sources=dict(Counter(known.sources) + Counter(op.source for op in failures)),
        history=added(known.history, failures),
        wasted_ms=_wasted_ms(known.wasted_ms, failures),
        back_seq=_back_seq(known.first_seen, known.last_seen, known.count, failures) or known.back_seq,
    )


def _wasted_ms(before: float, failures: Sequence[Op]) -> float:
    for op in failures:  # one by one: the same sum, however the failures are divided into folds
        before += min(max(0.0, op.duration_ms), WASTED_MS_MAX)
    return before


def _described(known: Pattern, group: Group) -> Pattern:
    """Give the pattern with what its group has learned; the same one when that is nothing."""
    names, aliases = tuple(sorted(group.names)), tuple(group.aliases)
    learned = (group.template, names, group.is_cut, aliases)
    if learned == (known.template, known.names, known.is_cut, known.aliases):
        return known
    version = known.version if group.template == known.template else ALGORITHM_VERSION
    return msgspec.structs.replace(
        known, version=version, template=group.template, names=names, is_cut=group.is_cut, aliases=aliases
    )


def _empty(group: Group, first: Op) -> Pattern:
    """Give the pattern of a group before its first failure is counted."""
    return Pattern(
        id=group.id,
        version=ALGORITHM_VERSION,
        endpoint=group.endpoint,
        template=group.template,
        scope=group.scope,
        first_seq=first.seq,
        last_seq=0,
        first_seen=first.recorded_at,
        last_seen=first.recorded_at,
        count=0,
        examples=(),
        sources={},
    )


def _back_seq(first_seen: str, last_seen: str, count: int, failures: Sequence[Op]) -> int:
    """Find the newest of the failures that came after a quiet time; 0 when none did.

    :param count: failures from ``first_seen`` to ``last_seen``, both included.
    """
    start, previous = time_us(first_seen), time_us(last_seen)
    back = 0
    for seen, op in enumerate(failures, start=count):
        now = time_us(op.recorded_at)
        if start is not None and previous is not None and now is not None:
            quiet = now - previous
            if quiet >= QUIET_US_MIN and quiet * (seen - 1) >= QUIET_TIMES_MEAN * (previous - start):
                back = op.seq
        previous = now if now is not None else previous
    return back


def _example(op: Op) -> Example:
    """Give ``[endpoint] input_summary: error`` as one line: an error cannot forge the line of another."""
    # Cut before and after: a field may hold 256 KiB, and joining its words may not.
    parts = (op.endpoint, op.input_summary, error_text(op))
    endpoint, given, error = (" ".join(part[: 2 * EXAMPLE_CHARS_MAX].split()) for part in parts)
    before = f"[{endpoint}] {given}: "
    room = EXAMPLE_CHARS_MAX - min(len(error), ERROR_CHARS_KEPT)
    if len(before) > room:
        before = f"{before[: room - len(_GOES_ON)]}{_GOES_ON}"
    return Example(op.seq, f"{before}{error}"[:EXAMPLE_CHARS_MAX], len(before))


_GOES_ON: Final = "…: "
"""Ends an input that was cut."""
