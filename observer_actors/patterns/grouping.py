"""Failures grouped by endpoint and by the template of their error text. Pure.

The rules:

* The text of a failure is its ``error``; its ``output_summary`` where that is absent, null or empty (the seed
  says ``undefined`` there).
* An id depends on endpoint and template alone. It is the same after a restart, with more data, and under a
  later algorithm that finds the same template.
* Ops are taken in by ascending ``seq``; an op at or below a pattern's ``last_seq`` is in it already and
  changes nothing. So one fold over all ops and many folds over parts of them, also overlapping ones, give the
  same.
* Memory is bounded, and nothing is left uncounted: what finds no room is counted under the endpoint's "other"
  pattern, and where those are too many, under the one for all endpoints.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Final

import msgspec

from observer_actors.op import Op, time_us
from observer_actors.patterns.masking import ALGORITHM_VERSION, template_of

__all__ = [
    "ENDPOINT_CHARS_MAX",
    "EXAMPLES_MAX",
    "EXAMPLE_CHARS_MAX",
    "OTHERS_MAX",
    "PATTERNS_MAX",
    "PATTERNS_PER_ENDPOINT_MAX",
    "QUIET_TIMES_MEAN",
    "QUIET_US_MIN",
    "Example",
    "Pattern",
    "Scope",
    "apply",
    "bounded_endpoint",
    "error_text",
    "pattern_id",
    "stable_id",
]

PATTERNS_MAX: Final = 1_000
"""Patterns of all endpoints together, "other" ones aside: at most about 10 MB, and more than anyone reads."""
PATTERNS_PER_ENDPOINT_MAX: Final = 250
"""Patterns of one endpoint, so that one whose errors defy grouping leaves room for the rest."""
OTHERS_MAX: Final = 100
"""Endpoints with an "other" pattern of their own."""
EXAMPLES_MAX: Final = 10
"""Failures the seed shows to its model."""
EXAMPLE_CHARS_MAX: Final = 500
"""Characters of an example: the gateway's copy is cut at 500, and would not show more."""
ENDPOINT_CHARS_MAX: Final = 200
QUIET_US_MIN: Final = 3_600 * 1_000_000
"""A pattern is back when its failures had stopped for an hour of recorded time…"""
QUIET_TIMES_MEAN: Final = 4
"""… and for 4 times their mean distance until then: what fails every two hours is ongoing, never "back"."""

_EVERYWHERE: Final = "*"
_OTHER_TEMPLATE: Final = "<other>"


class Scope(StrEnum):
    """What a pattern counts."""

    TEMPLATE = "template"
    ENDPOINT_OTHER = "endpoint-other"
    """Failures of the endpoint that found no room for a pattern of their own."""
    OTHER = "other"
    """Those of endpoints that found no room even for an "other" of their own."""


class Example(msgspec.Struct, frozen=True):
    """One failure of a pattern: its op, and ``[endpoint] input_summary: error`` in one line."""

    seq: int
    line: str


class Pattern(msgspec.Struct, frozen=True, kw_only=True):
    """Failures that look the same. ``version`` names the algorithm that made the template."""

    id: str
    version: int
    endpoint: str
    template: str
    scope: Scope = Scope.TEMPLATE
    first_seq: int
    last_seq: int
    first_seen: str
    """When the witness recorded the first failure: its time never runs backwards, a caller's may."""
    last_seen: str
    count: int
    examples: tuple[Example, ...]
    """The newest `EXAMPLES_MAX`, oldest first."""
    sources: dict[str, int]
    """Failures by source. Never changed in place."""
    back_seq: int = 0
    """The newest failure that came after a quiet time (`QUIET_US_MIN`, `QUIET_TIMES_MEAN`); 0: none has."""
    diagnosed_seq: int = 0
    """``last_seq`` at the last diagnosis; 0: never diagnosed."""
    diagnosed_count: int = 0
    """``count`` at the last diagnosis."""


def apply(patterns: Mapping[str, Pattern], ops: Iterable[Op]) -> dict[str, Pattern]:
    """Fold the failures among the ops into the patterns.

    :param patterns: id -> pattern, all there are; left as they are.
    :returns: id -> pattern of those that are new or changed.
    """
    admission = _Admission(patterns)
    folds: dict[str, tuple[_Key, list[Op]]] = {}
    for op in sorted((op for op in ops if not op.success), key=lambda op: op.seq):
        key = admission.admit(bounded_endpoint(op.endpoint), template_of(error_text(op)))
        known = patterns.get(key.id)
        if known is None or op.seq > known.last_seq:
            folds.setdefault(key.id, (key, []))[1].append(op)
    return {key.id: _folded(patterns.get(key.id), key, failures) for key, failures in folds.values()}


def pattern_id(endpoint: str, template: str) -> str:
    """Give the id of a pattern: 16 hex digits, the same for ever."""
    return stable_id("pattern", endpoint, template)


def stable_id(*parts: str) -> str:
    """Hash the parts into 16 hex digits (BLAKE2b, 64 bits): of 1,000 ids two are the same once in 10^13."""
    return hashlib.blake2b(msgspec.json.encode(parts), digest_size=8).hexdigest()


def error_text(op: Op) -> str:
    """Give what an op says about its failure."""
    return op.error or op.output_summary


def bounded_endpoint(endpoint: str) -> str:
    """Give the endpoint in at most `ENDPOINT_CHARS_MAX` characters; a hash keeps two long ones apart."""
    if len(endpoint) <= ENDPOINT_CHARS_MAX:
        return endpoint
    mark = "…" + stable_id("endpoint", endpoint)
    return endpoint[: ENDPOINT_CHARS_MAX - len(mark)] + mark


class _Key(msgspec.Struct, frozen=True):
    id: str
    scope: Scope
    endpoint: str
    template: str


class _Admission:
    """Finds the pattern of a failure while there is room for one, and an "other" afterwards."""

    def __init__(self, patterns: Mapping[str, Pattern]) -> None:
        self._ids = set(patterns)
        self._by_scope = Counter(pattern.scope for pattern in patterns.values())
        self._by_endpoint = Counter(
            pattern.endpoint for pattern in patterns.values() if pattern.scope is Scope.TEMPLATE
        )

    def admit(self, endpoint: str, template: str) -> _Key:
        own = _Key(pattern_id(endpoint, template), Scope.TEMPLATE, endpoint, template)
        if own.id in self._ids:
            return own
        if self._by_scope[own.scope] < PATTERNS_MAX and self._by_endpoint[endpoint] < PATTERNS_PER_ENDPOINT_MAX:
            self._by_endpoint[endpoint] += 1
            return self._admitted(own)
        other = _Key(stable_id("other", endpoint), Scope.ENDPOINT_OTHER, endpoint, _OTHER_TEMPLATE)
        if other.id in self._ids:
            return other
        if self._by_scope[other.scope] < OTHERS_MAX:
            return self._admitted(other)
        return _Key(stable_id("other"), Scope.OTHER, _EVERYWHERE, _OTHER_TEMPLATE)

    def _admitted(self, key: _Key) -> _Key:
        self._ids.add(key.id)
        self._by_scope[key.scope] += 1
        return key


def _folded(known: Pattern | None, key: _Key, failures: Sequence[Op]) -> Pattern:
    """Take failures, ascending and all newer than the pattern, into it."""
    new = [Example(op.seq, _line(op)) for op in failures[-EXAMPLES_MAX:]]
    sources = Counter(op.source for op in failures)
    first, last = failures[0], failures[-1]
    if known is None:
        return Pattern(
            id=key.id,
            version=ALGORITHM_VERSION,
            endpoint=key.endpoint,
            template=key.template,
            scope=key.scope,
            first_seq=first.seq,
            last_seq=last.seq,
            first_seen=first.recorded_at,
            last_seen=last.recorded_at,
            count=len(failures),
            examples=tuple(new),
            sources=dict(sources),
            back_seq=_back_seq(first.recorded_at, first.recorded_at, 1, failures[1:]),
        )
    return msgspec.structs.replace(
        known,
        last_seq=last.seq,
        last_seen=last.recorded_at,
        count=known.count + len(failures),
        examples=(*known.examples, *new)[-EXAMPLES_MAX:],
        sources=dict(Counter(known.sources) + sources),
        back_seq=_back_seq(known.first_seen, known.last_seen, known.count, failures) or known.back_seq,
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


def _line(op: Op) -> str:
    """Give ``[endpoint] input_summary: error`` as one line: an error cannot forge the line of another."""
    # Cut before and after: a field may hold 256 KiB, and joining its words may not.
    parts = (op.endpoint, op.input_summary, error_text(op))
    endpoint, given, error = (" ".join(part[: 2 * EXAMPLE_CHARS_MAX].split()) for part in parts)
    return f"[{endpoint}] {given}: {error}"[:EXAMPLE_CHARS_MAX]
