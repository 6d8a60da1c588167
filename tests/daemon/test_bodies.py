"""Bodies without a length share their room so that all come to an end."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio

from observer_actors.http.bodies import BodyRoom, Growth, Held
from tests.daemon.test_doors import CHUNKED
from tests.daemon.test_front_door import connected_to
from tests.harness import running_daemon


@pytest.mark.parametrize("seed", range(60))
def test_one_of_the_bodies_that_grow_can_always_go_on_and_the_others_leave_it_room(seed: int) -> None:
    rng = random.Random(seed)
    whole = rng.randint(1, 40)
    bytes_max = rng.choice((0, rng.randint(0, 100)))
    growth, room = Growth(bytes_max), BodyRoom(1, wait_s=1)
    wishes = {Held(room): [rng.randint(1, whole) for _ in range(rng.randint(1, 4))] for _ in range(20)}
    inside: dict[Held, int] = {}
    waiting: dict[Held, int] = {}

    def let_in(body: Held) -> None:
        inside[body] = waiting.pop(body)

    while wishes:
        body = rng.choice([body for body in wishes if body not in waiting])
        if wishes[body] and rng.random() < 0.9:
            waiting[body] = max(wishes[body].pop(), inside.get(body, 0))
            if growth.ask(body, waiting[body]):
                let_in(body)
        else:
            given_up = rng.choice([body, *waiting])  # it is over, or another one has waited too long
            del wishes[given_up]
            inside.pop(given_up, None)
            waiting.pop(given_up, None)
            for other in growth.leave(given_up):
                let_in(other)
        assert growth.waiting == len(waiting)
        sizes = sorted(inside.values())
        assert sum(sizes[:-1]) <= bytes_max
        assert sum(sizes) <= bytes_max + whole, "not more than the room as a whole"
        assert not waiting or inside.keys() - waiting.keys(), "all wait for each other"
    assert (growth.waiting, inside, waiting) == (0, {}, {})


def test_who_holds_something_goes_on_before_who_holds_nothing() -> None:
    growth, room = Growth(10), BodyRoom(1, wait_s=1)
    one, another, third, new = (Held(room) for _ in range(4))
    assert [growth.ask(body, 5) for body in (one, another, third, new)] == [True, True, True, False]
    assert not growth.ask(one, 8)
    assert growth.leave(third) == [one, new]
    assert not growth.ask(another, 9)
    assert growth.leave(one) == [another]


async def test_many_bodies_without_a_length_are_all_taken(tmp_path: Path) -> None:
    """Each becomes twice as large as what there would be room for if all did so at once."""
    body = b"{}\n" + b"\n" * 264_000
    sent = CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    statuses: list[int] = []

    async def report(url: str) -> None:
        async with connected_to(url, "web") as client:
            await client.send(sent)
            statuses.append((await client.answer()).status)

    async with running_daemon(tmp_path) as daemon, trio.open_nursery() as nursery:
        for _ in range(48):
            nursery.start_soon(report, daemon.url)
    assert statuses == [200] * 48
