"""The window in which an id that comes again is recognised: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Final

from msgspec import UNSET, Struct

from observer_actors.op import Op, Seq

SWEEPS: Final = 64
"""Times that ids are let go of while a whole window of ops comes."""
SWEPT_OPS_MIN: Final = 1_000


class Sifted(Struct, frozen=True):
    """A batch, without the ops that the journal already holds or that come twice in it.

    Positions count from 0. Each position of the batch is a key of `known`, or of `twins`, or stands for the next op
    of `fresh`; so once `fresh` is committed, every op that was given has a seq.
    """

    fresh: list[Op]
    """To be stamped and committed, in the order given."""
    known: dict[int, Seq]
    """Position in the batch -> the seq under which that id was committed before."""
    twins: dict[int, Op]
    """Position in the batch -> the op of `fresh` that carries the same id."""


class IdWindow:
    """Ids of the newest ops.

    :param window_ops: how many newest ops count, whether or not they carry an id; 0 recognises nothing.
    """

    def __init__(self, window_ops: int) -> None:
        self._window_ops = window_ops
        self._seqs: dict[str, int] = {}
        """Id -> seq, in the order of the seqs. The oldest are let go of many at a time, so some count no more."""
        self._end = 0
        """Ops up to this seq count no more."""
        self._swept = 0
        """None of them is held up to this one."""

    def copy(self) -> IdWindow:
        """Give a window that goes its own way from here on."""
        other = IdWindow(self._window_ops)
        other._seqs, other._end, other._swept = self._seqs.copy(), self._end, self._swept
        return other

    def __len__(self) -> int:
        """Ids that are held, some of which count no more."""
        return len(self._seqs)

    def known(self, id_: str) -> Seq | None:
        """Give the seq of the newest op within the window that carries this id."""
        seq = self._seqs.get(id_, 0)
        return Seq(seq) if seq > self._end else None

    def sift(self, ops: Sequence[Op]) -> Sifted:
        """Separate what is new in a batch. Changes nothing: the window moves with `add` alone."""
        ids = [op.id for op in ops if op.id is not UNSET] if self._window_ops else []
        if len(set(ids)) == len(ids) and self._seqs.keys().isdisjoint(ids):
            return Sifted(list(ops), {}, {})
        sifted = Sifted([], {}, {})
        own: dict[str, Op] = {}
        for position, op in enumerate(ops):
            if op.id is not UNSET:
                seq = self.known(op.id)
                if seq is not None:
                    sifted.known[position] = seq
                    continue
                twin = own.setdefault(op.id, op)
                if twin is not op:
                    sifted.twins[position] = twin
                    continue
            sifted.fresh.append(op)
        return sifted

    def add(self, ids: Mapping[str, int], last_seq: int) -> None:
        """Take in the ids of ops that are durable now, in the order of their seq, and let the oldest go.

        :param ids: id -> seq.
        :param last_seq: newest durable op, with an id or without.
        """
        if not self._seqs.keys().isdisjoint(ids):
            for id_ in ids:
                self._seqs.pop(id_, None)  # else it would keep its place
        self._seqs.update(ids)
        self._end = max(self._end, last_seq - self._window_ops)
        if self._end - self._swept >= max(SWEPT_OPS_MIN, self._window_ops // SWEEPS):
            self._sweep()

    def _sweep(self) -> None:
        """Let go of what counts no more. To find where it begins takes time, so this is not done for each op."""
        old = [id_ for id_, _ in takewhile(lambda held: held[1] <= self._end, self._seqs.items())]
        for id_ in old:
            del self._seqs[id_]
        self._swept = self._end
