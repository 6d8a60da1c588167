"""`observer-actors mcp`."""

from __future__ import annotations

import importlib
import signal
from typing import Final

import trio

from observer_actors.commands._options import ApiOptions
from observer_actors.commands._signals import taken
from observer_actors.errors import INSTALL_EXTRA, UsageInvalid, first_of
from observer_actors.event import AUDITOR, OWN_SOURCE
from observer_actors.mcp import McpAbsent

_NO_AGENTS: Final = ("", AUDITOR, OWN_SOURCE)
"""Who judges what agents do is none of them."""


def mcp(*, source: str = "mcp", api: ApiOptions = ApiOptions()) -> None:
    """Speak the Model Context Protocol over standard input and output, for a program that runs agents.

    Its tools ask for advice, report outcomes, list failures and look earlier audits up. It needs the extra: in the
    project's folder, pipx install --global --force '.[mcp]'.

    Example: observer-actors mcp --url http://127.0.0.1:3800 </dev/null

    Parameters
    ----------
    source
        Who reports: mcp, scenario, bot, or a label that the daemon knows (`sources.extra`).
    """
    if source in _NO_AGENTS:
        raise UsageInvalid(f"--source: {source!a} is no agent", hint="mcp, scenario, bot, or a label of sources.extra")
    address = api.address()
    # Whoever waits for a line of standard input cannot be told to stop; there is nothing to save either.
    with taken(signal.SIGINT, by=signal.SIG_DFL):
        trio.run(_serve, address, source)


async def _serve(address: str, source: str) -> None:
    from observer_actors.client._daemon import async_client  # noqa: PLC0415 - half a second
    from observer_actors.mcp.api import SECONDS, Api  # noqa: PLC0415 - as above

    try:
        serving = importlib.import_module("observer_actors.mcp.serving")
    except ImportError as error:
        told = "the Model Context Protocol needs an extra that is not installed"
        raise McpAbsent(told, hint=INSTALL_EXTRA.format("mcp")) from error
    lost: OSError | None = None
    try:
        async with async_client(address, SECONDS) as client:
            await serving.serve_stdio(Api(client), source)
    except* OSError as errors:  # of the output: nobody reads it any more, or it takes no more
        lost = first_of(errors)
    if lost is not None:
        raise lost
