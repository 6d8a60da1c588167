"""The recent operations, held in memory, with the counts that `/stats` gives over them. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import msgspec

from observer_actors.op import MaybeText, Op

__all__ = ["RecentOp", "Ring", "RingStatistics"]

SCENARIO_OPS_SHOWN = 10


class RecentOp(msgspec.Struct, frozen=True, kw_only=True):
    """One of the last scenario ops, under the names the seed gave them."""

    ts: str
    ok: bool
    staffer: MaybeText = msgspec.UNSET
    kind: MaybeText = msgspec.UNSET
    role: MaybeText = msgspec.UNSET


class RingStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """The seed's `/stats`, key by key; all of it over the ring."""

    total: int
    successes: int
    failures: int
    by_source: dict[str, int]
    recent_scenario_ops: list[RecentOp]


class Ring:
    """The newest ``capacity`` ops, oldest first. Pushing one costs the same however many there are.

    :param characters_max: fewer are held when their texts together are longer than this; only ops of 30 KiB on
        average ever meet it.
    """

    def __init__(self, capacity: int, characters_max: int = 64 * 1024 * 1024) -> None:
        self.capacity = capacity
        self._characters_max = characters_max
        self._characters = 0
        self._lengths: deque[int] = deque()
        self.last_seq = 0
        self._ops: deque[Op] = deque()
        self._successes = 0
        self._by_source: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._ops)

    def __iter__(self) -> Iterator[Op]:
        return iter(self._ops)

    def push(self, ops: Iterable[Op]) -> None:
        """Take ops in, in the order of their seq, and let go of the oldest."""
        held, lengths, by_source = self._ops, self._lengths, self._by_source
        for op in ops:
            held.append(op)
            length = _characters(op)
            lengths.append(length)
            by_source[op.source] = by_source.get(op.source, 0) + 1
            self._successes += op.success
            self._characters += length
            self.last_seq = op.seq
            while len(held) > self.capacity or (self._characters > self._characters_max and len(held) > 1):
                oldest = held.popleft()
                by_source[oldest.source] -= 1
                self._successes -= oldest.success
                self._characters -= lengths.popleft()

    def newest_first(self) -> Iterator[Op]:
        """Give the ops, newest first."""
        return reversed(self._ops)

    def statistics(self) -> RingStatistics:
        """Give the counts as of now."""
        return RingStatistics(
            total=len(self._ops),
            successes=self._successes,
            failures=len(self._ops) - self._successes,
            by_source={source: count for source, count in self._by_source.items() if count},
            recent_scenario_ops=self._recent_scenario_ops(),
        )

    def scenario_ops(self) -> int:
        """Give how many of the ops are of source scenario."""
        return self._by_source.get("scenario", 0)

    def _recent_scenario_ops(self) -> list[RecentOp]:
        newest: list[RecentOp] = []
        for op in self.newest_first():
            if op.source == "scenario":
                newest.append(
                    RecentOp(
                        ts=op.timestamp,
                        ok=op.success,
                        staffer=op.staffer_id,
                        kind=op.event_kind,
                        role=op.role,
                    )
                )
                if len(newest) == SCENARIO_OPS_SHOWN:
                    break
        return newest[::-1]


def _characters(op: Op) -> int:
    """Give the length of the texts that may be long."""
    texts = len(op.input_summary) + len(op.output_summary) + len(op.endpoint)
    if isinstance(op.error, str):
        texts += len(op.error)
    if isinstance(op.attrs, dict):
        texts += sum(len(value) for value in op.attrs.values() if isinstance(value, str))
    return texts
