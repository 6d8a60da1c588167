"""``/mcp`` on the daemon's own port, beside the web application and behind the same gate.

What a tool does is a request to the web application, made within the process with the caller's own token: the guard is
asked about it as if the caller had made it. The SDK is loaded by the first request, in a thread: a daemon that is never
asked does not have it in memory, and one without the extra says so.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import httpx
import trio

from observer_actors.errors import INSTALL_EXTRA, NotFound, ObserverError, RequestTimedOut
from observer_actors.http.gate import Application
from observer_actors.http.guard import PEER, Guard, Peer
from observer_actors.mcp.api import Api
from observer_actors.threads import in_thread

MCP_PATH: Final = "/mcp"
_SERVING: Final = "observer_actors.mcp.serving"


class McpAbsent(NotFound):
    """The SDK is not installed."""

    exit_code = 69


class OnlyPost(ObserverError):
    """No stream is kept open for a client to listen to."""

    status = 405
    title = "method not allowed"


class Mount:
    """An ASGI application around the web application.

    :param seconds_max: for a request as a whole.
    """

    def __init__(self, application: Application, guard: Callable[[], Guard], *, seconds_max: float) -> None:
        self._application = application
        self._guard = guard
        self._seconds_max = seconds_max
        self._loading = trio.Lock()
        self._serving: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI has no common type
        """Serve one request."""
        if scope["path"] != MCP_PATH:
            await self._application(scope, receive, send)
            return
        serving = await self._loaded()
        if scope["method"] != "POST":
            raise OnlyPost("/mcp takes POST alone", hint="no session is kept: each request is answered by itself")
        answering = False

        async def sent(message: Any) -> None:  # noqa: ANN401 - as above
            nonlocal answering
            answering = True
            await send(message)

        with trio.move_on_after(self._seconds_max) as limit:
            async with self._inside(scope) as client:
                await serving.serve_request(Api(client), scope, receive, sent)
        if limit.cancelled_caught and not answering:
            raise RequestTimedOut("the request took too long")

    async def _loaded(self) -> Any:  # noqa: ANN401 - a module
        async with self._loading:
            if self._serving is None:
                try:
                    self._serving = await in_thread(partial(importlib.import_module, _SERVING))
                except ImportError as error:
                    hint = INSTALL_EXTRA.format("mcp") + ", and restart the daemon"
                    raise McpAbsent("this daemon does not speak MCP: the extra is not installed", hint=hint) from error
            return self._serving

    def _inside(self, scope: Any) -> httpx.AsyncClient:  # noqa: ANN401 - as above
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        guarded = _Guarded(self._application, self._guard(), PEER.get(), headers.get("authorization", ""))
        return httpx.AsyncClient(transport=httpx.ASGITransport(guarded), base_url="http://localhost")


class _Guarded:
    """The web application, as one caller may use it."""

    def __init__(self, application: Application, guard: Guard, peer: Peer, authorization: str) -> None:
        self._application = application
        self._guard = guard
        self._peer = peer
        self._authorization = authorization

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - as above
        refusal = self._guard.refusal(self._peer, scope["method"], scope["path"], "localhost", self._authorization)
        if refusal is not None:
            raise refusal
        await self._application(scope, receive, send)
