"""Logs: structlog on standard error, JSON lines when it is no terminal, coloured and short on one; fields in journald.

Every line has an event name, the actor, and what it is about as fields. Control characters in values are escaped by
either renderer, so that no text from outside can forge a line or move a cursor.
"""

from __future__ import annotations

import atexit
import logging
import os
import select
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from time import monotonic
from typing import Any, Final, TextIO, cast

import msgspec
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from observer_actors.errors import ObserverError
from observer_actors.journald import JournalSocket, encode, is_journald
from observer_actors.supervision import (
    ActorFailed,
    ActorParked,
    LifecycleEvent,
    MessageQuarantined,
    RestartsExhausted,
    ShutdownForced,
)
from observer_actors.visible import snake, visible

WAITING_BYTES_MAX: Final = 1024 * 1024
"""Of lines that nobody reads, or the disk does not take."""
LAST_LINES_S: Final = 0.5
LINES_LOST: Final = "log_lines_lost"
TRACEBACK_CHARS_MAX: Final = 20_000
"""Twice what a crash within nurseries takes; an error may quote all of an event."""
_WARNINGS: Final = (ActorFailed, ActorParked, ShutdownForced)
_ERRORS: Final = (RestartsExhausted, MessageQuarantined)


def configure_logs(level: str) -> None:
    """Send our lines and those of the libraries to standard error in one form, or to journald when that reads it."""
    if is_journald(sys.stderr.fileno(), os.environ):
        configure_journald(level, JournalSocket())
        return
    lines = structlog.WriteLoggerFactory(cast("TextIO", _lines_to(sys.stderr.fileno())))
    if sys.stderr.isatty():
        now = structlog.processors.TimeStamper("%H:%M:%S", utc=False)
        _configure(level, lines, now, structlog.dev.ConsoleRenderer())
    else:
        now = structlog.processors.TimeStamper("iso")
        _configure(level, lines, now, structlog.processors.JSONRenderer(serializer=_to_json))


def configure_journald(level: str, journal: JournalSocket) -> None:
    """Send our lines and those of the libraries to journald, field by field."""
    _configure(level, lambda *_: _ToJournald(journal), lambda _logger, _method, fields: ((encode(fields),), {}))


def _configure(level: str, lines: Callable[..., WrappedLogger], *rendering: Processor) -> None:
    structlog.configure(
        processors=[
            structlog.stdlib.add_log_level,
            structlog.processors.format_exc_info,
            _escape_controls,
            *rendering,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_number(level)),
        logger_factory=lines,
    )
    logging.basicConfig(handlers=[_LibraryLines()], level=logging.WARNING, force=True)


class _ToJournald:
    """What structlog calls in the end: every level goes the same way, for the message says which it is."""

    def __init__(self, journal: JournalSocket) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = journal.send


class _LibraryLines(logging.Handler):
    """The libraries' lines, as ours; at any level."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one."""
        try:
            said = record.getMessage()
        except (TypeError, ValueError):  # its arguments do not fit
            self.handleError(record)
        else:
            named = min(record.levelno // 10 * 10, logging.CRITICAL)  # a level between two is the lower one
            logger_at_any_level(record.name).log(named, said, exc_info=record.exc_info)


@cache
def _lines_to(descriptor: int) -> _Unfailing:
    lines = _Unfailing(descriptor)
    atexit.register(lines.finish)
    return lines


class _Unfailing:
    """Where lines go. A full disk, and a reader that has gone or does not read, stop no actor.

    What cannot be written yet waits here, for the next line to try again; what is beyond `WAITING_BYTES_MAX` is lost,
    and counted.

    No class of `io`: their finalizer flushes once more, when at the end of the process nothing is there any longer.

    :param descriptor: of the file, pipe or terminal.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = self._lost = 0
        self._lock = threading.RLock()

    def write(self, text: str, /) -> int:
        """Write whole lines, as soon as there is room for them.

        It logs nothing itself: whoever logs has the logger's lock.
        """
        with self._lock:
            self._add(text.encode("utf-8", "backslashreplace"))
            self._pass_on(0.0)
        return len(text)

    def flush(self) -> None:
        """Do nothing: nothing waits that could go."""

    def finish(self) -> None:
        """Write what waits, if somebody reads it within `LAST_LINES_S`."""
        with self._lock:
            self._pass_on(LAST_LINES_S)

    def _add(self, line: bytes) -> None:
        if self._waiting_bytes + len(line) > WAITING_BYTES_MAX:
            self._lost += 1
            return
        self._waiting.append(line)
        self._waiting_bytes += len(line)

    def _pass_on(self, seconds: float) -> None:
        until = monotonic() + seconds
        while self._waiting and self._poll.poll(max(0.0, until - monotonic()) * 1_000):
            line = self._waiting.popleft()
            try:
                written = os.write(self._descriptor, line[: select.PIPE_BUF])  # for so much there is room
            except OSError:  # somebody else has taken it, the disk is full, or nobody is there any more
                self._waiting.appendleft(line)
                return
            self._waiting_bytes -= written
            if written < len(line):
                self._waiting.appendleft(line[written:])
        if self._lost and not self._waiting:
            lost, self._lost = self._lost, 0
            self._add(_told_lost(lost))
            self._pass_on(0.0)


def _told_lost(lines: int) -> bytes:
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    told = {"event": LINES_LOST, "actor": "logs", "level": "warning", "timestamp": now, "lines": lines}
    return msgspec.json.encode(told) + b"\n"


def set_level(level: str) -> None:
    """Change the level of our own lines."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(_number(level)))


def logger_at_any_level(actor: str) -> FilteringBoundLogger:
    """Give the logger of what nobody could find out otherwise: what it says at level info comes at any level."""
    wrapper = structlog.make_filtering_bound_logger(logging.INFO)
    bound: FilteringBoundLogger = structlog.wrap_logger(None, wrapper_class=wrapper, actor=actor)
    return bound


def logger(actor: str) -> FilteringBoundLogger:
    """Give the logger of an actor."""
    bound: FilteringBoundLogger = structlog.get_logger(actor=actor)
    return bound


def log_lifecycle(event: LifecycleEvent, error: Exception | None = None) -> None:
    """Write a lifecycle event; the field names are the event's.

    :param error: what it is about: its traceback is written, too, unless it says by itself what to do.
    """
    fields = msgspec.to_builtins(event)
    if error is not None and not _is_ours(error):
        # As text: a program that has us inside it may show a traceback with all that its frames hold.
        fields["exception"] = "".join(traceback.format_exception(error)).rstrip()[:TRACEBACK_CHARS_MAX]
    name = snake(fields.pop("type"))
    log = logger(fields.pop("actor"))
    if isinstance(event, _ERRORS):
        log.error(name, **fields)
    elif isinstance(event, _WARNINGS):
        log.warning(name, **fields)
    else:
        log.info(name, **fields)


def _is_ours(error: Exception) -> bool:
    """Tell an error with a hint, or a group of such, from what nobody has reckoned with."""
    if isinstance(error, ExceptionGroup):
        return all(map(_is_ours, error.exceptions))
    return isinstance(error, ObserverError)


def _number(level: str) -> int:
    return logging.getLevelNamesMapping()[level.upper()]


def _to_json(content: EventDict, **_options: Any) -> str:  # noqa: ANN401 - structlog's signature
    return msgspec.json.encode(content, enc_hook=str).decode()


def _escape_controls(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
    """Make C0 and C1 controls, and marks that turn the direction of text, visible.

    A traceback keeps its newlines, and is indented: no line of it looks like one of ours.
    """
    for name, value in fields.items():
        if name == "exception" and isinstance(value, str):
            fields[name] = "\n".join("    " + visible(line) for line in value.split("\n"))
        else:
            fields[name] = _escaped(value)
    return fields


def _escaped(value: Any) -> Any:  # noqa: ANN401 - whatever a field holds
    match value:
        case str():
            return visible(value)
        case list() | tuple():
            return [_escaped(inner) for inner in value]
        case dict():
            return {_escaped(name): _escaped(inner) for name, inner in value.items()}
        case _:
            return value
