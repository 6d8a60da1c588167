"""Ops, and a journal of them in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import trio

from observer_actors.journal import Stretch
from observer_actors.op import Op, Seq

BLOCK_OPS: Final = 50


def op(seq: int) -> Op:
    return Op(
        timestamp="",
        endpoint="/x",
        input_summary="",
        success=True,
        duration_ms=1,
        output_summary="",
        source="mcp",
        seq=seq,
    )


def ops(first: int, last: int) -> list[Op]:
    return [op(seq) for seq in range(first, last + 1)]


def seqs(of: Sequence[Op]) -> list[int]:
    return [each.seq for each in of]


class Journal:
    """What is committed; ``deleted`` seqs are gone by retention."""

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self.deleted: set[int] = set()
        self.reads = 0

    def append(self, count: int) -> list[Op]:
        fresh = ops(len(self.ops) + 1, len(self.ops) + count)
        self.ops += fresh
        return fresh

    async def read(self, after_seq: int, most: int) -> Sequence[Op]:
        self.reads += 1
        await trio.lowlevel.checkpoint()
        return [each for each in self.ops[after_seq:] if each.seq not in self.deleted][:most]

    async def following(self, after_seq: int) -> Stretch:
        """Read as `read` does, but no further than to the end of the block that holds the first op."""
        found = await self.read(after_seq, BLOCK_OPS)
        block = [each for each in found if (each.seq - 1) // BLOCK_OPS == (found[0].seq - 1) // BLOCK_OPS]
        return Stretch(block, Seq(block[-1].seq if block else max(after_seq, len(self.ops))))
