"""Answers that are long."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import msgspec
import trio

from observer_actors.http.exchange import ITEMS_AT_ONCE, list_reply
from observer_actors.http.replies import json_reply

LENGTH = 100 * ITEMS_AT_ONCE


def made_one_by_one(made: list[int]) -> Iterator[int]:
    for number in range(LENGTH):
        made.append(number)
        yield number


async def test_others_have_their_turn_while_a_long_list_is_made_and_encoded() -> None:
    turns: list[int] = []
    made: list[int] = []

    async def others() -> None:
        while True:
            turns.append(len(made))
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        reply = await list_reply("items", made_one_by_one(made))
        nursery.cancel_scope.cancel()
    assert max(later - before for before, later in pairwise(turns)) <= 2 * ITEMS_AT_ONCE
    assert msgspec.json.decode(reply.body) == {"items": [*range(LENGTH)]}


async def test_a_list_is_answered_as_any_other_content_is() -> None:
    items = [{"a": "\u202e"}, {"a": "b"}]
    for few in ([], items[:1], items):
        beside = {"total": 3, "doubt": {"x\u009b": None}}
        assert await list_reply("items", few, **beside) == json_reply({"items": few, **beside})
