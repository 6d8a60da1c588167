"""Successes become entries. Pure: the recent ops and the entries in, deltas out.

The rules:

* The seed's: with 5 successes or more among the ops, each endpoint with 3 or more of them gets an entry.
* An entry is created once. From then on each further success of its endpoint is added to it, once: by
  ``seq``, so that the same ops again give no delta. An op that was never among the ops handed in is in no
  count.
* The gateway gets a copy when an entry is created, and again when its evidence has grown by half since the
  last copy: n successes make about log1.5(n) copies, not one every 5 cycles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

import msgspec

from observer_actors.op import Op
from observer_actors.patterns import LogEntry, Outgoing, bounded_endpoint, log_message, stable_id
from observer_actors.playbook.entries import Kind

__all__ = [
    "ENDPOINT_SUCCESSES_MIN",
    "ENTRIES_MAX",
    "EXAMPLES_MAX",
    "INPUTS_MAX",
    "SUCCESSES_MIN",
    "Created",
    "Delta",
    "Entry",
    "Updated",
    "consolidate",
    "endpoints_left_out",
]

SUCCESSES_MIN: Final = 5
ENDPOINT_SUCCESSES_MIN: Final = 3
INPUTS_MAX: Final = 3
PATTERN_CHARS_MAX: Final = 200
"""These four are the seed's."""
EXAMPLES_MAX: Final = 10
ENTRIES_MAX: Final = 1_000
"""Endpoints that get an entry, first come, first served: about 2 MB. Those beyond are counted, not kept."""
DURATION_MS_MAX: Final = 1e15
"""A longer duration (30,000 years) is a caller's mistake, and must not make the sum infinite."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of advice, with its evidence."""

    id: str
    kind: Kind
    endpoint: str
    text: str
    version: int
    """From 1; each update adds one."""
    successes: int
    """Successes taken in so far, each once, also those that have left the ring since."""
    duration_ms_total: float
    """The sum of their durations."""
    first_seq: int
    last_seq: int
    """The newest op that is in the counts: only newer ones are added."""
    example_seqs: tuple[int, ...]
    """The newest `consolidation.EXAMPLES_MAX`, oldest first."""
    inputs: tuple[str, ...]
    """Input summaries of the newest `consolidation.INPUTS_MAX` successes, oldest first, each cut."""
    sent_successes: int = 0
    """``successes`` as the gateway was last told; 0: never."""

    @property
    def avg_duration_ms(self) -> float:
        """The mean of the durations."""
        return self.duration_ms_total / self.successes


class Created(msgspec.Struct, frozen=True):
    """A new entry, and the message that tells the gateway."""

    entry: Entry
    message: Outgoing | None = None


class Updated(msgspec.Struct, frozen=True):
    """An entry as its evidence has it now; a message when the gateway's copy has become stale."""

    entry: Entry
    message: Outgoing | None = None


Delta = Created | Updated


def consolidate(ops: Sequence[Op], entries: Mapping[str, Entry]) -> list[Delta]:
    """Decide which entries to make or change.

    :param ops: the recent ops, in any order; what failed among them is passed over.
    :param entries: id -> entry, all there are; left as they are.
    """
    deltas: list[Delta] = []
    room = ENTRIES_MAX - len(entries)
    successes = _by_entry(ops)
    qualified = _qualified(successes)
    for entry_key, group in successes.items():
        known = entries.get(entry_key)
        if known is not None:
            new = [op for op in group if op.seq > known.last_seq]
            if new:
                deltas.append(_updated(known, new))
        elif entry_key in qualified and room > 0:
            room -= 1
            deltas.append(_created(entry_key, group))
    return deltas


def endpoints_left_out(ops: Sequence[Op], entries: Mapping[str, Entry]) -> int:
    """Count the endpoints among the ops that would get an entry if there were not `ENTRIES_MAX` already."""
    wanted = len(_qualified(_by_entry(ops)) - entries.keys())
    return max(0, len(entries) + wanted - ENTRIES_MAX)


def _by_entry(ops: Sequence[Op]) -> dict[str, list[Op]]:
    """Entry id -> the successes that belong to it, ascending; by each endpoint's first success."""
    groups: dict[str, list[Op]] = {}
    ids: dict[str, str] = {}
    for op in sorted((op for op in ops if op.success), key=lambda op: op.seq):
        if op.endpoint not in ids:
            ids[op.endpoint] = stable_id("entry", "do", bounded_endpoint(op.endpoint))
        groups.setdefault(ids[op.endpoint], []).append(op)
    return groups


def _qualified(successes: Mapping[str, Sequence[Op]]) -> set[str]:
    if sum(map(len, successes.values())) < SUCCESSES_MIN:
        return set()
    return {entry_key for entry_key, group in successes.items() if len(group) >= ENDPOINT_SUCCESSES_MIN}


def _created(entry_key: str, ops: Sequence[Op]) -> Created:
    nothing = Entry(
        id=entry_key,
        kind=Kind.DO,
        endpoint=bounded_endpoint(ops[0].endpoint),
        text="",
        version=0,
        successes=0,
        duration_ms_total=0.0,
        first_seq=ops[0].seq,
        last_seq=0,
        example_seqs=(),
        inputs=(),
    )
    entry = _sent(_grown(nothing, ops))
    return Created(entry, _message(entry))


def _updated(known: Entry, ops: Sequence[Op]) -> Updated:
    entry = _grown(known, ops)
    if 2 * entry.successes < 3 * entry.sent_successes:
        return Updated(entry)
    entry = _sent(entry)
    return Updated(entry, _message(entry))


def _sent(entry: Entry) -> Entry:
    return msgspec.structs.replace(entry, sent_successes=entry.successes)


def _grown(entry: Entry, ops: Sequence[Op]) -> Entry:
    """Add successes, ascending and all newer than the entry."""
    inputs = (*entry.inputs, *(op.input_summary[:PATTERN_CHARS_MAX] for op in ops[-INPUTS_MAX:]))[-INPUTS_MAX:]
    total = entry.duration_ms_total
    for op in ops:  # one by one: the sum is then the same however the ops are divided into calls
        total += float(min(max(op.duration_ms, -DURATION_MS_MAX), DURATION_MS_MAX))
    grown = msgspec.structs.replace(
        entry,
        version=entry.version + 1,
        successes=entry.successes + len(ops),
        duration_ms_total=total,
        last_seq=ops[-1].seq,
        example_seqs=(*entry.example_seqs, *(op.seq for op in ops))[-EXAMPLES_MAX:],
        inputs=inputs,
    )
    return msgspec.structs.replace(grown, text=_text(grown))


def _text(entry: Entry) -> str:
    calls = f"{entry.successes} calls succeeded, {_to_fixed_0(entry.avg_duration_ms)} ms on average"
    return f"{entry.endpoint} works with inputs like: {_pattern(entry)} ({calls})"


def _pattern(entry: Entry) -> str:
    return "; ".join(entry.inputs)[:PATTERN_CHARS_MAX]


def _message(entry: Entry) -> Outgoing:
    """Give the gateway's copy, in the seed's words.

    Its newest op makes the key: evidence that was told once is not told again, and an entry that is made anew, after
    the store was lost, is not taken for what it was before.
    """
    return log_message(
        f"entry:{entry.id}:{entry.last_seq}",
        LogEntry(
            operation=f"consolidated: {entry.successes} successful {entry.endpoint} calls",
            approach=f"common pattern: {_pattern(entry)}",
            result=f"avg_duration={_to_fixed_0(entry.avg_duration_ms)}ms, {entry.successes} successes",
            context=f"endpoint={entry.endpoint}",
        ),
    )


def _to_fixed_0(value: float) -> str:
    """JavaScript's ``value.toFixed(0)`` below 1e21 (ECMA-262, 21.1.3.3): halves away from zero."""
    return str(Decimal(value).quantize(Decimal(1), ROUND_HALF_UP))
