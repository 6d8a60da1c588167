"""Answers that are long."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import cast

import msgspec
import trio

from observer_actors.http.app import create_app
from observer_actors.http.exchange import ITEMS_AT_ONCE, list_reply
from observer_actors.http.replies import json_reply
from observer_actors.http.views import Views
from observer_actors.playbook import Entry, Kind, Left

LENGTH = 100 * ITEMS_AT_ONCE


class Items(msgspec.Struct):
    """An answer with a list, and another one behind it."""

    items: list[dict[str, str]]
    beside: dict[str, list[str]] = msgspec.field(default_factory=lambda: {"x\u009b": []})


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
        reply = await list_reply(Items([]), made_one_by_one(made))
        nursery.cancel_scope.cancel()
    assert max(later - before for before, later in pairwise(turns)) <= 2 * ITEMS_AT_ONCE
    assert msgspec.json.decode(reply.body)["items"] == [*range(LENGTH)]


async def test_others_have_their_turn_while_a_long_playbook_is_answered() -> None:
    turns = [0]
    entries = {f"e{n}": Entry(id=f"e{n}", kind=Kind.DO, endpoint="a", about="", text="b") for n in range(LENGTH)}
    playbook = SimpleNamespace(entries=entries, meta=SimpleNamespace(left=Left()), cursor=5, outdated=False)
    told = {"as_decided": lambda entry: entry, "hands_out": lambda _: True, "is_taken_back": lambda _: False}
    consolidator = SimpleNamespace(playbook=playbook, **told)
    client = create_app(cast("Views", SimpleNamespace(consolidator=consolidator))).test_client()

    async def others() -> None:
        while True:
            await trio.lowlevel.checkpoint()
            turns[0] += 1

    answers, waited = [], []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        for limit in (1, LENGTH):
            before = turns[0]
            answers.append(await (await client.get(f"/playbook?limit={limit}")).get_json())
            waited.append(turns[0] - before)
        nursery.cancel_scope.cancel()
    beside = {"total": LENGTH, "last_seq": 5, "outdated": False, "left": msgspec.to_builtins(Left())}
    assert [(len(answer.pop("entries")), answer) for answer in answers] == [(1, beside), (LENGTH, beside)]
    assert waited[1] - waited[0] >= LENGTH // ITEMS_AT_ONCE - 5


async def test_a_list_is_answered_as_any_other_content_is() -> None:
    items = [{"a": "\u202e"}, {"a": "b"}]
    for few in ([], items[:1], items):
        assert await list_reply(Items([]), few) == json_reply(Items(few))
