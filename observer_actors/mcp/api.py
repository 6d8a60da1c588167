"""The daemon's HTTP API, as the tools use it: over a socket, or within the daemon.

What it says goes straight into the context of a model, and may quote what agents have reported: here, and nowhere else,
all texts of answers and refusals are made `harmless`.
"""

from __future__ import annotations

from typing import Any, Final

import httpx
import msgspec

from observer_actors.errors import ObserverError, Unreachable
from observer_actors.mcp.tools import Call
from observer_actors.problems import UNREADABLE, read_problem
from observer_actors.quoting import harmless

SECONDS: Final = 10.0
_ABOUT_ARGUMENTS: Final = (400, 404, 413, 422)


class Refused(ObserverError):
    """It was not done, and here is why: the daemon's own answer, mostly.

    ``is_for_its_arguments`` says that what was asked for is wrong, and not who asked, or when.
    """

    def __init__(self, detail: str, *, hint: str, is_for_its_arguments: bool) -> None:
        super().__init__(detail, hint=hint)
        self.is_for_its_arguments = is_for_its_arguments


class Api:
    """Carries calls out; used within ``async with``."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def carry_out(self, call: Call) -> Any:  # noqa: ANN401 - JSON
        """Give what a good answer says, its texts made harmless.

        :raises Refused: it is not one, or this makes no request.
        :raises Unreachable: there is none, or none of a daemon.
        """
        try:
            answer = await self._client.request(
                call.method, call.path, params=call.parameters, content=call.content or None
            )
        except httpx.InvalidURL as error:
            hint = "they may be too long"
            raise Refused(f"the arguments make no request: {error}", hint=hint, is_for_its_arguments=True) from error
        except httpx.HTTPError as error:
            raise Unreachable(
                f"the daemon does not answer: {str(error) or type(error).__name__}", hint="is it running?"
            ) from error
        if answer.is_success:
            return _harmless(_read(answer.content))
        problem = read_problem(answer.content)
        detail = harmless(problem.detail) or f"the daemon answered {answer.status_code}"
        is_for_its_arguments = answer.status_code in _ABOUT_ARGUMENTS
        raise Refused(detail, hint=harmless(problem.hint), is_for_its_arguments=is_for_its_arguments)


def _read(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except UNREADABLE as error:
        raise Unreachable("this is no observer's answer", hint="is the address a daemon's?") from error


def _harmless(said: Any) -> Any:  # noqa: ANN401 - JSON
    """Make all texts of an answer harmless, names of fields too: those of attributes are an agent's."""
    match said:
        case str():
            return harmless(said)
        case list():
            return [_harmless(one) for one in said]
        case dict():
            return {harmless(name): _harmless(one) for name, one in said.items()}
    return said
