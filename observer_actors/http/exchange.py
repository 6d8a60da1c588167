"""What Quart gives and takes of a request: its body, and the answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import trio
from msgspec import Struct
from quart import Response, request

from observer_actors.actors.admission import Turns
from observer_actors.http.replies import Reply, json_reply

ITEMS_AT_ONCE: Final = 10
"""Of a list that is encoded: one may take half a millisecond, where it is full of letters that nobody would see."""


async def request_body() -> bytes:
    """Give the body of the request that is being served."""
    body = await request.get_data(cache=False, as_text=False)
    assert isinstance(body, bytes)
    return body


def send(reply: Reply) -> Response:
    """Give an answer as Quart sends it."""
    return Response(reply.body, reply.status, dict(reply.headers), content_type=reply.content_type)


def turns_of_long_answers() -> Turns:
    """Give what a route makes its long answers in, one after the other.

    Those that are made have their bounds (`listen.answers_bytes_max`); hundreds that are made beside each other would
    have none.
    """
    return Turns(1, "too many ask for long answers; not made")


async def list_reply(answer: Struct, items: Iterable[object]) -> Reply:
    """Answer with a long list: others have their turn while it is made.

    :param answer: its first field is the list, with nothing in it yet.
    :param items: asked for and encoded a few at a time.
    """
    parts = []
    for number, item in enumerate(items):
        if number % ITEMS_AT_ONCE == 0:
            await trio.lowlevel.checkpoint()
        parts.append(json_reply(item).body)
    return Reply(200, json_reply(answer).body.replace(b"[]", b"[%b]" % b",".join(parts), 1))
