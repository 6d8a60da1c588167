"""The root of all errors that reach a caller, and those of several modules: leaves that carry facts and a hint.

What one module alone raises stands there, under the same root. What is caught within the package, and says nothing to
a caller, is none of them.

A leaf answers three questions for whoever catches it: what is wrong (``str(error)``), what to do about it
(``hint``), and whether trying the same thing again can help (``retryable``). ``status`` is the HTTP status
that says the same to a caller; 4xx means the caller's fault, 5xx ours. Foreign exceptions are turned into one
of these once, at the boundary, with ``from``.
"""

from __future__ import annotations

import errno
from typing import ClassVar, Final, TypeVar

_Error = TypeVar("_Error", bound=BaseException)
SAID_CHARS_MAX: Final = 500
INSTALL_EXTRA: Final = "in the project's folder: pipx install --global --force '.[{}]'"
"""What to do where an extra is missing."""
UNEXPANDED: Final = "a path that begins with ~, which nobody expands here"
WHOLE_PATH: Final = "write the whole path, from / on"
"""What is wrong with such a path, and what to do: it would be that of a folder called so."""


class ObserverError(Exception):
    """Root of all errors of this package; ``limit`` names the setting of the limit that was met, if one was."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "internal error"
    retryable: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1

    def __init__(self, detail: str, *, hint: str = "", limit: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint
        self.limit = limit


class EventInvalid(ObserverError):
    """An event that cannot be taken; ``field`` names what is wrong ("" when the whole body is)."""

    status = 400
    title = "invalid event"
    exit_code = 65  # EX_DATAERR

    def __init__(self, detail: str, *, field: str = "", hint: str = "", limit: str = "") -> None:
        super().__init__(f"{field}: {detail}" if field else detail, hint=hint, limit=limit)
        self.field = field


class EventUnreadable(EventInvalid):
    """What is no JSON."""


class EventTooLarge(EventInvalid):
    """One event above its limit."""

    status = 413
    title = "too large"


class EventTooComplex(EventInvalid):
    """An event with more fields, deeper nesting or more secrets than is taken, or a batch with more secrets."""

    status = 422
    title = "too complex"


class RequestInvalid(ObserverError):
    """A request whose framing, encoding or body as a whole cannot be read."""

    status = 400
    title = "invalid request"


class QueryInvalid(ObserverError):
    """A query parameter that cannot be read; ``field`` names it."""

    status = 400
    title = "invalid query"

    def __init__(self, detail: str, *, field: str, hint: str = "") -> None:
        super().__init__(f"{field}: {detail}", hint=hint)
        self.field = field


class NotFound(ObserverError):
    """There is nothing of that name or number, or not any more."""

    status = 404
    title = "not found"


class RequestTooLarge(ObserverError):
    """A body, or a decompressed body, above its limit."""

    status = 413
    title = "too large"


class RequestTimedOut(ObserverError):
    """A request that did not arrive in the time it may take."""

    status = 408
    title = "request timeout"
    retryable = True


class Overloaded(ObserverError):
    """No room came free, or no answer from the disk, within the caller's time limit.

    ``retry_after_s`` is a whole number of seconds of at least 1.
    """

    status = 503
    title = "overloaded"
    retryable = True

    def __init__(self, detail: str, *, retry_after_s: int = 1, limit: str = "") -> None:
        super().__init__(detail, hint=f"send it again after {retry_after_s} s; an event, with the same id", limit=limit)
        self.retry_after_s = retry_after_s


class DiskFailed(ObserverError):
    """The disk refused a call. A write that failed has been undone, or the error says that it may still succeed."""

    status = 503
    title = "disk failed"
    retryable = True
    retry_after_s = 1


class DiskFull(DiskFailed):
    """ENOSPC or EDQUOT: nothing can be written until someone makes room."""

    status = 507
    title = "disk full"
    retry_after_s = 5


class Quarantined(ObserverError):
    """The message made its actor crash again and again, and has been set aside in a file."""

    status = 500
    title = "quarantined"


class UsageInvalid(ObserverError):
    """A command line whose parts can be read, and make no sense."""

    exit_code = 64


class ConfigInvalid(ObserverError):
    """A setting that cannot be used; the process exits with 78 (EX_CONFIG), which systemd does not retry."""

    exit_code = 78


class FormatUnknown(ObserverError):
    """The data directory was written by a newer version than this one, or by the program that it replaces."""

    exit_code = 78


class DataDirectoryLocked(ObserverError):
    """Another daemon owns the data directory."""

    exit_code = 75


class DataDirectoryHeld(DataDirectoryLocked):
    """Its daemon is dead, and a child of it still waits for the disk. That may end, so that systemd tries again."""

    exit_code = 71  # EX_OSERR


class AddressUnavailable(ObserverError):
    """The address to listen on is taken or not ours."""

    exit_code = 75


class GatewayRequired(ObserverError):
    """``gateway.required`` is set and the gateway does not answer: the seed's behaviour."""

    exit_code = 69


class Unreachable(ObserverError):
    """Nobody there, no answer in time, or none that can be used."""

    status = 502
    title = "unreachable"
    retryable = True
    exit_code = 69

    def __init__(self, detail: str, *, hint: str = "", broke: bool = False) -> None:
        super().__init__(detail, hint=hint)
        self.broke = broke
        """The connection was made and broke: the request may have been carried out."""


DISK_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_HINTS: Final = {
    **dict.fromkeys(DISK_FULL, "make room on the data directory's file system (`df`, `df -i`), or set a retention"),
    errno.ENOENT: "was the data directory, or a file in it, removed?",
    errno.ESTALE: "was the data directory, or a file in it, removed, renamed or replaced? Put it back, or restart",
    errno.EMFILE: "allow the process more open files (LimitNOFILE=), or lower listen.connections_max",
    errno.ENFILE: "the system has no room for more open files (`sysctl fs.file-max`)",
    errno.EACCES: "the data directory, and all in it, must belong to the user that the daemon runs as",
    errno.EISDIR: "a folder stands where a file belongs: move it away",
    errno.EFBIG: "no file may be as large here (LimitFSIZE=, or the file system): lower journal.segment_bytes_max",
    errno.EROFS: "the data directory lies on a read-only file system",
    errno.EXDEV: "a folder in the data directory is mounted by itself: link or mount the whole directory",
    errno.ELOOP: "no file in the data directory may be a symbolic link",
    errno.ENOTDIR: "the data directory's path leads through something that is no directory",
    errno.ENAMETOOLONG: "the data directory's path is too long: give it a shorter one",
    errno.EPERM: "the file system itself does not allow it: is it the kernel's own, or made immutable (`lsattr -d`)?",
}


def disk_hint(error: OSError) -> str:
    """Say what to do about a call, on something in the data directory, that the system has refused."""
    return _HINTS.get(error.errno or 0, "look for errors of the disk in the kernel log")


def said_by(error: BaseException) -> str:
    """Give the text of an error; where it has none, that of the first that has one of those it was raised from or in.

    httpx gives none where TLS fails, and raises from None what says why: a certificate that is not trusted, or no TLS.
    `SAID_CHARS_MAX` of it at most: of an answer that is no HTTP it quotes all that came.
    """
    met: BaseException | None = error
    while met is not None and not str(met):
        met = met.__cause__ or met.__context__
    return "" if met is None else str(met)[:SAID_CHARS_MAX]


def first_of(errors: BaseExceptionGroup[_Error]) -> _Error:
    """Give the first error of a group, or of the group that comes first in it."""
    first = errors.exceptions[0]
    return first_of(first) if isinstance(first, BaseExceptionGroup) else first
