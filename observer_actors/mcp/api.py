"""The daemon's HTTP API, as the tools use it: over a socket, or within the daemon.

What it says goes straight into the context of a model, and may quote what agents have reported: here, and nowhere else,
all texts of answers and refusals are made `harmless`.
"""

from __future__ import annotations

import re
from typing import Any, Final, TypeVar

import httpx
import msgspec

from observer_actors.errors import ObserverError, Unreachable, said_by
from observer_actors.mcp.tools import Arguments, Call
from observer_actors.problems import UNREADABLE, read_problem
from observer_actors.quoting import harmless

SECONDS: Final = 10.0
_ABOUT_ARGUMENTS: Final = (400, 404, 413, 422)
_BROKEN_UP: Final = re.compile(r"(?<=[<\u2039\uff1c\[]) ")
"""What `harmless` puts in."""

T = TypeVar("T", bound=Arguments)


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
        content = msgspec.json.encode(call.event) if call.event else None
        try:
            answer = await self._client.request(call.method, call.path, params=call.parameters, content=content)
        except httpx.InvalidURL as error:
            hint = "they may be too long"
            raise Refused(f"the arguments make no request: {error}", hint=hint, is_for_its_arguments=True) from error
        except httpx.HTTPError as error:
            raise Unreachable(
                f"the daemon does not answer: {said_by(error) or type(error).__name__}", hint="is it running?"
            ) from error
        if answer.is_success:
            return _harmless(msgspec.to_builtins(_read(answer.content, call.answer)))
        problem = read_problem(answer.content)
        detail = harmless(problem.detail) or f"the daemon answered {answer.status_code}"
        is_for_its_arguments = answer.status_code in _ABOUT_ARGUMENTS
        raise Refused(detail, hint=harmless(problem.hint), is_for_its_arguments=is_for_its_arguments)

    async def as_meant(self, given: T) -> T:
        """Give a tool's arguments with the endpoint as agents report it.

        Who has read of it here has read it broken up: where nothing is known of that name, and something is known of
        the one that it was made of, the latter is meant.

        :raises Unreachable: there is no answer, or none of a daemon.
        """
        read: str = getattr(given, "endpoint", "")
        reported = _BROKEN_UP.sub("", read)
        if reported == read or harmless(reported) != read:
            return given
        is_other = not await self._is_known(read) and await self._is_known(reported)
        return msgspec.structs.replace(given, endpoint=reported) if is_other else given

    async def _is_known(self, endpoint: str) -> bool:
        """Say whether there is a failure or an entry of an endpoint; no, where the caller may not read that."""
        try:
            for path in ("/failures", "/playbook"):
                if (await self.carry_out(Call("GET", path, {"endpoint": endpoint, "limit": "1"}))).get("total"):
                    return True
        except Refused:
            return False
        return False


def _read(body: bytes, kind: Any) -> Any:  # noqa: ANN401 - as `Call.answer`
    try:
        return msgspec.json.decode(body, type=kind)
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
