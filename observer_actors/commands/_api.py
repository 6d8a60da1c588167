"""The daemon as the commands see it, over HTTP."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final, Self, TypeVar

import httpx
import msgspec

from observer_actors.addresses import UNIX, without_password
from observer_actors.client._daemon import blocking_client
from observer_actors.commands._answers import ReadyAnswer
from observer_actors.commands._aside import PROGRESS_S, told
from observer_actors.errors import ObserverError, Unreachable, UsageInvalid
from observer_actors.problems import UNREADABLE, read_problem, retry_after_s

T = TypeVar("T")
PATIENCE_S: Final = 60.0
"""How long a request that was refused for the moment is sent again, by a command that is there to send it."""
TIMEOUT_S: Final = 30.0
"""How long an answer is waited for, or anything more of one."""


_EXITS: Final = {
    **dict.fromkeys((400, 413, 422, 431), 65),  # EX_DATAERR
    **dict.fromkeys((408, 429, 503, 507), 75),  # EX_TEMPFAIL
    **dict.fromkeys((401, 403), 77),  # EX_NOPERM
}


class Refused(ObserverError):
    """The daemon's own answer: it did not do it, and says why."""

    def __init__(self, detail: str, *, hint: str, status: int, body: bytes) -> None:
        super().__init__(detail, hint=hint)
        self.answered = status
        self.body = body

    @property
    def exit_code(self) -> int:  # type: ignore[override]
        """What a script should know: mend what was sent, wait, or get a token."""
        return _EXITS.get(self.answered, super().exit_code)


class Api:
    """A connection to one daemon. A refusal is raised as `Refused`, no answer as `Unreachable`."""

    def __init__(self, address: str, patience_s: float = PATIENCE_S) -> None:
        """Say how long a request is sent again; no longer than that is an answer waited for either.

        :raises AddressInvalid: this is no address.
        :raises TokenInvalid: OBSERVER_TOKEN holds what cannot be sent.
        :raises Unreachable: the certificates that are trusted cannot be loaded.
        """
        self.address = address
        self._patience_s = patience_s
        self._is_told = False
        self._client = blocking_client(address, min(TIMEOUT_S, patience_s))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._client.close()

    def get(self, path: str, parameters: Mapping[str, Any] | None = None) -> bytes:
        """Give the body of an answer. Parameters that are None are left out."""
        return self.answer(path, parameters).content

    def answer(self, path: str, parameters: Mapping[str, Any] | None = None) -> httpx.Response:
        """Give an answer with its headers."""
        given = {name: value for name, value in (parameters or {}).items() if value is not None}
        with self._told():
            response = self._client.get(path, params=given)
        return _judged(response)

    def read(self, kind: type[T], path: str, parameters: Mapping[str, Any] | None = None) -> T:
        """Give an answer as a value."""
        return self.decoded(kind, self.get(path, parameters))

    def decoded(self, kind: type[T], body: bytes) -> T:
        """Read a body.

        :raises Unreachable: it is not what a daemon says.
        """
        try:
            return msgspec.json.decode(body, type=kind)
        except UNREADABLE as error:
            hint = "is this address a daemon's, of about this version?"
            raise Unreachable(f"{self.shown}: not an observer's answer: {error}", hint=hint) from error

    def readiness(self) -> ReadyAnswer:
        """Say whether it takes events; that it does not is an answer too."""
        try:
            return self.read(ReadyAnswer, "/ready")
        except Refused as refusal:
            with suppress(*UNREADABLE):
                return msgspec.json.decode(refusal.body, type=ReadyAnswer)
            raise

    def post(self, path: str, content: bytes) -> bytes:
        """Send a body, again for a while when there is no room for the moment, and give the answer's.

        That this takes longer than a moment is said once.
        """
        began = time.monotonic()
        until = began + self._patience_s
        while True:
            with self._told():
                response = self._client.post(path, content=content)
            wait_s = retry_after_s(response.headers.get("Retry-After"))
            if wait_s is None or response.status_code < 500 or time.monotonic() + wait_s > until:  # noqa: PLR2004
                return _judged(response).content
            if not self._is_told and time.monotonic() + wait_s > began + PROGRESS_S:
                self._is_told = True
                told(f"{_refusal(response)}; sent again for up to {self._patience_s:g} s")
            time.sleep(wait_s)

    @contextmanager
    def lines(self, path: str, headers: Mapping[str, str]) -> Iterator[Iterator[str]]:
        """Give the lines of an answer that does not end, as they come."""
        with self._told(), self._client.stream("GET", path, headers=headers) as response:
            if response.is_error:
                response.read()
                _judged(response)
            yield response.iter_lines()

    @property
    def shown(self) -> str:
        """The address for use in a message."""
        return without_password(self.address)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except httpx.InvalidURL as error:  # a parameter of 64 KiB
            raise UsageInvalid(f"the arguments make no request: {error}", hint="they may be too long") from error
        except (httpx.HTTPError, ValueError) as error:
            why = str(error) or type(error).__name__
            refused = isinstance(error, httpx.ConnectError)
            hints = _HINTS_OF_SOCKETS if self.address.startswith(UNIX) else _HINTS
            hint = next((hint for part, hint in hints.items() if part in why), NOBODY if refused else "")
            raise Unreachable(f"{self.shown}: {why}", hint=hint, broke=not refused) from error


NOBODY: Final = "is the daemon running? --url says where; `observer-actors doctor` looks"
UNAUTHORIZED: Final = 401
NOT_LET_IN: Final = (UNAUTHORIZED, 403)
_NO_ENTRY: Final = "OBSERVER_TOKEN holds it; `observer-actors token NAME` makes one"
_HINTS: Final = {
    "certificate is not valid for": "ask by a name that the certificate has: --url, or OBSERVER_URL",
    "certificate has expired": "renew it; the daemon takes the new one at a reload (SIGHUP), or a restart",
    "CERTIFICATE_VERIFY_FAILED": "SSL_CERT_FILE names the certificate, or whose it is signed by",
    "WRONG_VERSION_NUMBER": "it does not speak TLS: http:// rather than https://?",
    "Server disconnected": "perhaps it speaks TLS: https:// rather than http://?",
}
"""What the words of OpenSSL, httpx and the system are about; the first that fits counts."""
_HINTS_OF_SOCKETS: Final = {
    "Permission denied": "the socket's mode says who may connect; the service's lets in the group observer-agents",
    "No such file": "no daemon has made a socket there: is it running, and is that its listen.unix, from / on?",
    "too long": "the path of a socket has 107 bytes at most",
    "Server disconnected": "is that socket a daemon's?",
}
"""The same of Unix sockets, over which no TLS is spoken."""


def _judged(response: httpx.Response) -> httpx.Response:
    if response.is_success:
        return response
    raise _refusal(response)


def _refusal(response: httpx.Response) -> Refused:
    problem = read_problem(response.content)
    detail = problem.detail or problem.error or f"{without_password(str(response.url))} answered {response.status_code}"
    hint = problem.hint or (_NO_ENTRY if response.status_code == UNAUTHORIZED else "")
    return Refused(detail, hint=hint, status=response.status_code, body=response.content)
