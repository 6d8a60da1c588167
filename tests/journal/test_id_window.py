"""The window of ids against a list of all ops that were ever added."""

from __future__ import annotations

import random

import pytest
from msgspec import UNSET

from observer_actors.journal import deduplication
from observer_actors.journal.deduplication import IdWindow
from observer_actors.op import Op
from tests.actors.ops import ops


def batch(rng: random.Random, after_seq: int) -> list[Op]:
    made = list(ops(after_seq + 1, after_seq + rng.randint(1, 12)))
    for op in made:
        if rng.random() < 2 / 3:
            op.id = rng.choice([f"a{rng.randint(1, 60)}", f"b{op.seq}"])
    return made


@pytest.mark.parametrize("seed", range(40))
def test_an_id_is_known_within_the_window_and_not_beyond(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)
    monkeypatch.setattr(deduplication, "SWEPT_OPS_MIN", rng.choice([1, 5, 1_000]))
    window_ops = rng.choice([0, 1, 10, 40])
    window, stored = IdWindow(window_ops), [""]
    for _ in range(150):
        came = batch(rng, len(stored) - 1)
        newest = {id_: seq for seq, id_ in enumerate(stored) if id_ and seq >= len(stored) - window_ops}
        sifted = window.sift(came)
        assert {op.id: window.known(op.id) for op in came if op.id is not UNSET} == {
            op.id: newest.get(op.id) for op in came if op.id is not UNSET
        }
        ids: dict[str, Op] = {}
        for position, op in enumerate(came):
            assert sifted.known.get(position) == (newest.get(op.id) if op.id is not UNSET else None)
            is_twin = op.id is not UNSET and window_ops > 0 and op.id in ids and op.id not in newest
            assert sifted.twins.get(position) is (ids[op.id] if is_twin and op.id is not UNSET else None)
            if op.id is not UNSET:
                ids.setdefault(op.id, op)
        others = [op for at, op in enumerate(came) if at not in sifted.known and at not in sifted.twins]
        assert sifted.fresh == others
        for op in sifted.fresh:
            op.seq = len(stored)
            stored.append(op.id or "")
        window.add({op.id: op.seq for op in sifted.fresh if op.id is not UNSET}, len(stored) - 1)
        window = rng.choice([window, window.copy()])


def test_what_is_beyond_the_window_is_let_go_of() -> None:
    window = IdWindow(2_000)
    for seq in range(1, 20_001):
        window.add({f"id-{seq}": seq}, seq)
        assert len(window) <= 2_000 + deduplication.SWEPT_OPS_MIN
    for seq in range(20_001, 24_001):
        window.add({}, seq)
    assert len(window) == 0


def test_an_id_that_comes_again_and_again_keeps_no_other_that_is_beyond_the_window() -> None:
    window = IdWindow(2_000)
    for seq in range(1, 30_001):
        window.add({"again" if seq % 2_100 == 0 else f"id-{seq}": seq}, seq)
        assert len(window) <= 2_000 + deduplication.SWEPT_OPS_MIN
    assert window.known("again") == 29_400
