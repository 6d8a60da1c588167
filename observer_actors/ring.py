"""The recent operations, held in memory, with the counts that `/stats` gives over them. Pure.

What the daemon itself has put into the journal (`event.OWN_SOURCE`) is not held: nobody has reported it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from observer_actors.event import OWN_SOURCE
from observer_actors.op import MaybeText, Op, text_bytes

SCENARIO_OPS_SHOWN: Final = 10
PART_OPS_MAX: Final = 50
"""Ops that are let go of together when texts are long: of the largest kind, they are 12 MiB."""


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
    """The newest ``capacity`` ops, oldest first. Pushing is cheap, and counts are made when they are asked for.

    :param text_bytes_max: fewer are held when their texts together take more memory than this; only ops of 8 KiB on
        average ever meet it.
    """

    def __init__(self, capacity: int, text_bytes_max: int = 16 * 1024 * 1024) -> None:
        self.capacity = capacity
        self.last_seq = 0
        self._text_bytes_max = text_bytes_max
        self._ops: deque[Op] = deque(maxlen=capacity)
        self._parts: deque[tuple[int, int]] = deque()
        """Ops, and bytes of their texts, of each part that was pushed and of which something is still held."""
        self._pushed = 0
        """Ops in those parts; the oldest of them may be gone."""
        self._text_bytes = 0

    def __len__(self) -> int:
        return len(self._ops)

    def __iter__(self) -> Iterator[Op]:
        return iter(self._ops)

    def push(self, ops: Sequence[Op]) -> None:
        """Take ops in, in the order of their seq, and let go of the oldest."""
        reported = [op for op in ops if op.source != OWN_SOURCE]
        for at in range(0, len(reported), PART_OPS_MAX):
            self._push(reported[at : at + PART_OPS_MAX])
        if ops:
            self.last_seq = ops[-1].seq

    def _push(self, part: Sequence[Op]) -> None:
        texts = text_bytes(part)
        self._ops.extend(part)
        self._parts.append((len(part), texts))
        self._pushed += len(part)
        self._text_bytes += texts
        while self._pushed - self._parts[0][0] >= self.capacity:
            self._forget_part()
        while self._text_bytes > self._text_bytes_max and len(self._parts) > 1:
            self._forget_part()
            while len(self._ops) > self._pushed:
                self._ops.popleft()

    def _forget_part(self) -> None:
        count, texts = self._parts.popleft()
        self._pushed -= count
        self._text_bytes -= texts

    def newest_first(self) -> Iterator[Op]:
        """Give the ops, newest first."""
        return reversed(self._ops)

    def statistics(self) -> RingStatistics:
        """Give the counts as of now."""
        successes = sum(op.success for op in self._ops)
        return RingStatistics(
            total=len(self._ops),
            successes=successes,
            failures=len(self._ops) - successes,
            by_source=dict(Counter(op.source for op in self._ops)),
            recent_scenario_ops=self._recent_scenario_ops(),
        )

    def scenario_ops(self) -> int:
        """Give how many of the ops are of source scenario."""
        return sum(op.source == "scenario" for op in self._ops)

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
