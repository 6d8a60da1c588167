"""The recent operations, held in memory, with the counts that `/stats` gives over them. Pure."""

from __future__ import annotations

from collections import Counter, deque
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
    """The newest ``capacity`` ops, oldest first. Pushing one costs the same however many there are."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.last_seq = 0
        self._ops: deque[Op] = deque()
        self._successes = 0
        self._by_source: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._ops)

    def __iter__(self) -> Iterator[Op]:
        return iter(self._ops)

    def push(self, ops: Iterable[Op]) -> None:
        """Take ops in, in the order of their seq, and let go of the oldest."""
        for op in ops:
            if len(self._ops) >= self.capacity:
                self._count(self._ops.popleft(), -1)
            self._ops.append(op)
            self._count(op, 1)
            self.last_seq = op.seq

    def newest_first(self) -> Iterator[Op]:
        """Give the ops, newest first."""
        return reversed(self._ops)

    @property
    def oldest_seq(self) -> int:
        """The seq of the oldest op held; one after the last when the ring is empty."""
        return self._ops[0].seq if self._ops else self.last_seq + 1

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
        return self._by_source["scenario"]

    def _count(self, op: Op, change: int) -> None:
        self._by_source[op.source] += change
        if op.success:
            self._successes += change

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
