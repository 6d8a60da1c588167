"""The window in which an id that comes again is recognised: pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from msgspec import UNSET, Struct

from observer_actors.op import Op, Seq


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
        self._order: deque[tuple[int, str]] = deque()

    def copy(self) -> IdWindow:
        """Give a window that goes its own way from here on."""
        other = IdWindow(self._window_ops)
        other._seqs, other._order = self._seqs.copy(), self._order.copy()
        return other

    def known(self, id_: str) -> Seq | None:
        """Give the seq of the newest op within the window that carries this id."""
        seq = self._seqs.get(id_)
        return None if seq is None else Seq(seq)

    def sift(self, ops: Sequence[Op]) -> Sifted:
        """Separate what is new in a batch. Changes nothing: the window moves with `add` alone."""
        if not self._window_ops or all(op.id is UNSET for op in ops):
            return Sifted(list(ops), {}, {})
        sifted = Sifted([], {}, {})
        own: dict[str, Op] = {}
        seqs, fresh = self._seqs, sifted.fresh
        for position, op in enumerate(ops):
            id_ = op.id
            if isinstance(id_, str):
                seq = seqs.get(id_)
                if seq is not None:
                    sifted.known[position] = Seq(seq)
                    continue
                twin = own.setdefault(id_, op)
                if twin is not op:
                    sifted.twins[position] = twin
                    continue
            fresh.append(op)
        return sifted

    def add(self, ids: Iterable[tuple[int, str]], last_seq: int) -> None:
        """Take in the ids of ops that are durable now, in the order of their seq, and let the oldest go.

        :param last_seq: newest durable op, with an id or without.
        """
        if not self._window_ops:
            return
        for seq, id_ in ids:
            self._seqs[id_] = seq
            self._order.append((seq, id_))
        end = last_seq - self._window_ops
        while self._order and self._order[0][0] <= end:
            seq, id_ = self._order.popleft()
            if self._seqs.get(id_) == seq:
                del self._seqs[id_]
