"""The daemon's HTTP API, as the tools use it: over a socket, or within the daemon.

What it says goes straight into the context of a model, and may quote what agents have reported: here, and nowhere else,
all texts of answers and refusals are made `harmless`.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar
from uuid import uuid4

import httpx
import msgspec

from observer_actors.errors import ObserverError, Unreachable, said_by
from observer_actors.mcp.tools import Arguments, Call
from observer_actors.problems import UNREADABLE, read_problem
from observer_actors.quoting import harmless

SECONDS: Final = 10.0
UNANSWERED_MAX: Final = 1_000
UNANSWERED_S: Final = 600.0
"""For an agent that repeats itself; what is reported word for word after that is another operation."""
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


class Unanswered:
    """Ids of reports that may be stored, although no good answer said so: the same report, made again, has the same id.

    :param clock: seconds, never going back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: deque[tuple[float, bytes, str]] = deque(maxlen=UNANSWERED_MAX)

    @contextmanager
    def id_of(self, report: bytes) -> Iterator[str]:
        """Give the id of a report that is made in this block, and is answered if that raises nothing."""
        digest, now = hashlib.sha256(report).digest(), self._clock()
        known = next((one for one in self._known if one[1] == digest and now - one[0] < UNANSWERED_S), None)
        if known is not None:
            self._known.remove(known)  # who reports the same meanwhile means another operation
        key = uuid4().hex if known is None else known[2]
        is_answered = False
        try:
            yield key
            is_answered = True
        finally:
            if not is_answered:
                self._known.append((self._clock(), digest, key))


class Api:
    """Carries calls out; used within ``async with``."""

    def __init__(self, client: httpx.AsyncClient, unanswered: Unanswered) -> None:
        self._client = client
        self._unanswered = unanswered

    async def carry_out(self, call: Call) -> Any:  # noqa: ANN401 - JSON
        """Give what a good answer says, its texts made harmless.

        :raises Refused: it is not one, or this makes no request.
        :raises Unreachable: there is none, or none of a daemon.
        """
        if not call.event:
            return await self._answer(call, b"")
        with self._unanswered.id_of(msgspec.json.encode(call.event)) as key:
            return await self._answer(call, msgspec.json.encode(call.event | {"id": key}))

    async def _answer(self, call: Call, content: bytes) -> Any:  # noqa: ANN401 - as above
        try:
            answer = await self._client.request(call.method, call.path, params=call.parameters, content=content or None)
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
