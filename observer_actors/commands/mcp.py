"""`observer-actors mcp`."""

from __future__ import annotations

import importlib
import signal

import trio

from observer_actors.commands._options import ApiOptions
from observer_actors.mcp import McpAbsent

__all__ = ["mcp"]


def mcp(api: ApiOptions = ApiOptions()) -> None:  # noqa: B008 - frozen
    """Speak the Model Context Protocol over standard input and output, for a program that runs agents.

    Its tools ask for advice, report outcomes, list failures and look earlier audits up. It needs the extra:
    pip install 'observer-actors[mcp]'.

    Example: observer-actors mcp --url http://127.0.0.1:3800 </dev/null
    """
    address = api.address()
    # Whoever waits for a line of standard input cannot be told to stop; there is nothing to save either.
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        trio.run(_serve, address)
    finally:
        signal.signal(signal.SIGINT, before)


async def _serve(address: str) -> None:
    from observer_actors.mcp.api import Api, outside  # noqa: PLC0415 - half a second

    try:
        serving = importlib.import_module("observer_actors.mcp.serving")
    except ImportError as error:
        hint = "pip install 'observer-actors[mcp]'"
        raise McpAbsent("the Model Context Protocol needs an extra that is not installed", hint=hint) from error
    async with outside(address) as client:
        await serving.serve_stdio(Api(client))
