"""What Quart gives and takes of a request: its body, and the answer."""

from __future__ import annotations

from quart import Response, request

from observer_actors.http.replies import Reply


async def request_body() -> bytes:
    """Give the body of the request that is being served."""
    body = await request.get_data(cache=False, as_text=False)
    assert isinstance(body, bytes)
    return body


def send(reply: Reply) -> Response:
    """Give an answer as Quart sends it."""
    response = Response(reply.body, reply.status, content_type=reply.content_type)
    for name, value in reply.headers:
        response.headers[name] = value
    return response
