"""The answer of `/playbook`, which is made a few entries at a time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import msgspec
import trio
import trio.testing

from observer_actors.http.playbook import _answer
from observer_actors.http.views import Views
from observer_actors.playbook import Entry, Kind, Playbook


async def test_an_answer_is_of_one_playbook_though_another_takes_its_place_while_it_is_made() -> None:
    keys = [f"e{number}" for number in range(30)]
    entries = {key: Entry(id=key, kind=Kind.DO, endpoint="sql:run", about="", text="it works") for key in keys}
    playbook = SimpleNamespace(entries=entries, cursor=9, outdated=True, meta=Playbook().meta)
    is_revoked = [True]

    async def replace() -> None:
        await trio.lowlevel.checkpoint()
        is_revoked[0] = False

    async with trio.open_nursery() as nursery:

        def hands_out(_entry: Entry) -> bool:
            if not nursery.child_tasks:  # at the first question
                nursery.start_soon(replace)
            return not is_revoked[0]

        consolidator = SimpleNamespace(
            playbook=playbook,
            as_decided=lambda entry: entry,
            hands_out=hands_out,
            is_taken_back=lambda _entry: is_revoked[0],
        )
        reply = await _answer(cast("Views", SimpleNamespace(consolidator=consolidator)), {}, None)
        await trio.testing.wait_all_tasks_blocked()
    found = msgspec.json.decode(reply.body)["entries"]
    assert len(found) == len(keys)
    assert {(entry["handed_out"], entry["suspended"]) for entry in found} == {(False, True)}
    assert not is_revoked[0]
