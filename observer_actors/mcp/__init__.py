"""The Model Context Protocol over the daemon's own HTTP API: the same for `observer-actors mcp` and for ``/mcp``.

Nothing here imports the SDK (`mcp`, an extra) but `serving`, which is loaded when somebody speaks the protocol.
"""

from observer_actors.mcp.mount import McpAbsent, Mount

__all__ = ["McpAbsent", "Mount"]
