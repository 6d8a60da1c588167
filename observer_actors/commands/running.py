"""`observer-actors exec`: any command, with a witness."""

from __future__ import annotations

import errno
import mmap
import os
import select
import shlex
import shutil
import signal
import stat
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Final, NoReturn
from uuid import uuid4

import msgspec
from cyclopts import Parameter

from observer_actors.commands._aside import told
from observer_actors.commands._options import ApiOptions, AttributeFlags
from observer_actors.commands._signals import EXIT_SIGNALLED, PASSED_ON, taken
from observer_actors.errors import ObserverError, UsageInvalid
from observer_actors.labels import cut_between_words
from observer_actors.op import EXIT_STATUS
from observer_actors.trace import trace_attributes

EXIT_NOT_EXECUTABLE: Final = 126
EXIT_NOT_FOUND: Final = 127
"""Both as in a shell."""
COMMAND_CHARS_MAX: Final = 500
KEPT_BYTES: Final = 8_192
"""The end of standard error that is looked at for what went wrong: of a longer line nothing is reported, as of a
password there would be no knowing what has been cut off before it."""
STDIN, STDOUT, STDERR = 0, 1, 2
DRAINED_S: Final = 1.0
REPORT_S: Final = 5.0
"""How long an answer is waited for, and the report sent again while the daemon is full: our caller waits, too."""
_SIGNALS_AT_ONCE: Final = 4_096
_HEAD_BYTES: Final = 128


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended."""

    status: int
    seconds: float
    said: str
    """The last line of its standard error, or of both outputs where they are one; "" when that was a terminal's, or
    the line is too long."""


def exec_(
    *command: Annotated[str, Parameter(allow_leading_hyphen=True)],
    endpoint: Annotated[str, Parameter(allow_leading_hyphen=True)],
    source: Annotated[str, Parameter(allow_leading_hyphen=True)] = "bot",
    description: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    beside: AttributeFlags = AttributeFlags(),
    api: ApiOptions = ApiOptions(),
) -> int:
    """Run a command, report how it ended and how long it took, and exit as it did.

    Its input and outputs are its own; but where standard error is no terminal, the command sees a pipe there, which is
    passed on for as long as anything writes to it, so that on a failure the last line is reported, too. Where both
    outputs go to one place, both go through that pipe, and keep their order. A trace that TRACEPARENT names is carried
    on. That the report cannot be delivered within a few seconds is said on standard error, and changes nothing else.

    Example: observer-actors exec --endpoint backup -- tar -cf /tmp/etc.tar /etc/hostname

    Parameters
    ----------
    command
        The command and its arguments, behind `--`.
    endpoint
        The name that it is reported under.
    source
        Who ran it: mcp, scenario, auditor, bot, or a label of your own.
    description
        What it was for; unless given, the command line.
    """
    if not command:
        raise UsageInvalid("no command given", hint="observer-actors exec --endpoint NAME -- COMMAND…")
    if command[0].startswith("-"):  # a mistyped flag, which would be reported as a command that is not there
        raise UsageInvalid(
            f"{command[0]} is no option of exec", hint="a command of that name: ./NAME, or its whole path"
        )
    event: dict[str, Any] = {
        "endpoint": _text(endpoint),
        "source": _text(source),
        "input_summary": cut_between_words(_text(description or shlex.join(command)), COMMAND_CHARS_MAX),
        "attrs": {
            **trace_attributes(os.environ.get("TRACEPARENT", "")),
            **{_text(name): _text(value) for name, value in beside.read().items()},
            "command": cut_between_words(_text(command[0]), COMMAND_CHARS_MAX),
        },
        "id": uuid4().hex,
    }
    outcome = _run(command)
    _put(outcome, event)
    try:
        from observer_actors.commands._answers import EventAnswer  # noqa: PLC0415 - half a second, spent at the end
        from observer_actors.commands._api import Api  # noqa: PLC0415 - as above

        with Api(api.address(), REPORT_S) as daemon:
            answer = daemon.decoded(EventAnswer, daemon.post("/event", msgspec.json.encode(event)))
        for note in answer.notes[:1]:
            told(f"observer-actors: {note}")
    except ObserverError as trouble:
        told(f"observer-actors: not reported: {trouble}")
        if trouble.hint:
            told(f"  {trouble.hint}")
    return outcome.status


def _text(given: str) -> str:
    """Give an argument as a text; one that is no UTF-8 has other characters in it then."""
    return os.fsencode(given).decode(errors="replace")


def _put(outcome: Outcome, event: dict[str, Any]) -> None:
    event["success"] = outcome.status == 0
    event["duration_ms"] = round(outcome.seconds * 1e3, 3)
    event["output_summary"] = f"exit status {outcome.status}"
    event["attrs"][EXIT_STATUS] = outcome.status
    if outcome.status != 0:
        said = f": {outcome.said}" if outcome.said else ""
        event["error"] = f"exit status {outcome.status}{said}"


def _run(command: tuple[str, ...]) -> Outcome:
    began = time.monotonic()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # were it ignored, nobody would learn how the command ended
    signals = Signals()
    with taken(signal.SIGINT, *PASSED_ON, by=signals.take):
        tee = None if os.isatty(STDERR) else _Tee()
        try:
            process = _started(command, tee)
        except OSError as error:
            told(f"observer-actors: {command[0]}: {error.strerror}")
            if tee is not None:
                tee.last_line()  # it has ended, and is waited for
            status = EXIT_NOT_FOUND if isinstance(error, FileNotFoundError) else EXIT_NOT_EXECUTABLE
            return Outcome(status, time.monotonic() - began, error.strerror or "")
        signals.go_to(process)
        status = _wait(process)
        seconds = time.monotonic() - began
    said = tee.last_line() if tee is not None else ""
    return Outcome(status if status >= 0 else EXIT_SIGNALLED - status, seconds, said)


def _started(command: tuple[str, ...], tee: _Tee | None) -> subprocess.Popen[bytes]:
    """Start it with our descriptors. Outputs that go to one place go through one pipe, or their order would change."""
    if tee is None:
        return _opened(command, None, None)
    is_one = os.path.sameopenfile(STDOUT, STDERR) and not stat.S_ISCHR(os.fstat(STDERR).st_mode)  # as /dev/null
    try:
        return _opened(command, tee.entry if is_one else None, tee.entry)
    finally:
        os.close(tee.entry)


def _opened(command: tuple[str, ...], out: int | None, err: int | None) -> subprocess.Popen[bytes]:
    """Start it; what is no program, but a text, is sh's to read, as it is where a shell, `env` or `nice` starts it."""
    if not command[0]:  # which Popen would look up as each folder of PATH
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    try:
        return subprocess.Popen(command, stdout=out, stderr=err, close_fds=False)  # noqa: S603 - to run what one is given is the point
    except OSError as error:
        script = shutil.which(command[0]) if error.errno == errno.ENOEXEC else None
        if script is None or not _is_text(script):
            raise
        return subprocess.Popen(("/bin/sh", script, *command[1:]), stdout=out, stderr=err, close_fds=False)  # noqa: S603


def _is_text(path: str) -> bool:
    """Tell a script from a program for another machine: none of a script's first bytes is 0."""
    with Path(path).open("rb") as file:
        return b"\0" not in file.read(_HEAD_BYTES)


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Wait until a process has ended; a signal that comes meanwhile is handled at once.

    In `Popen.wait` one may come when Python has looked for signals for the last time, and waitpid does not block yet:
    its handler would run when the process has ended. Here a byte then lies in a pipe, and to read it does not block.
    """
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    ended = threading.Event()
    before = signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)  # a pipe that is full wakes too
    watching = threading.Thread(target=_watch, args=(process.pid, ended, wakes), daemon=True)
    try:
        watching.start()
        while not ended.is_set():
            os.read(woken, _SIGNALS_AT_ONCE)
        watching.join()
    finally:
        signal.set_wakeup_fd(before)
        os.close(wakes)
        os.close(woken)
    return process.wait()


def _watch(pid: int, ended: threading.Event, wakes: int) -> None:
    """Say that a process has ended, and leave it to be waited for: until then its number is no other process's."""
    with suppress(ChildProcessError):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    ended.set()
    with suppress(BlockingIOError):
        os.write(wakes, b"\0")


class Signals:
    """Passes signals on, and leaves Ctrl-C to the command, which gets it from the terminal as we do: we outlive it.

    In force before the command is started: a signal that comes in between is passed on then.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []

    def go_to(self, process: subprocess.Popen[bytes]) -> None:
        """Say who gets them."""
        self._process = process
        for number in self._early:
            process.send_signal(number)

    def take(self, number: int, _frame: FrameType | None) -> None:
        """Pass one on."""
        if number == signal.SIGINT:
            return
        if self._process is None:
            self._early.append(number)
        else:
            self._process.send_signal(number)


class _Tee:
    """Passes on what comes into a pipe to our standard error, and keeps the end of it.

    A process of its own: what the command leaves in the background writes there for longer than we live.
    """

    def __init__(self) -> None:
        self._kept = mmap.mmap(-1, KEPT_BYTES)  # shared with the process
        out, self.entry = os.pipe()
        self._process = os.fork()
        if self._process == 0:
            _pass_on(out, self._kept)
        os.close(out)

    def last_line(self) -> str:
        """Give the last line that is not blank. What something left in the background says later is not waited for."""
        ending = threading.Thread(target=os.waitpid, args=(self._process, 0), daemon=True)
        ending.start()
        ending.join(DRAINED_S)
        said = self._kept[:].lstrip(b"\0")
        lines = said.decode(errors="replace").splitlines()
        if len(said) == KEPT_BYTES:  # the first of them has begun before
            lines = lines[1:]
        lines = [line for line in lines if line.strip()]
        return lines[-1].strip() if lines else ""


def _pass_on(out: int, kept: mmap.mmap) -> NoReturn:
    """Be the process: hold nothing open but the pipe and where it leads, and end with the last who writes or reads."""
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        os.dup2(out, STDIN)
        os.dup2(STDERR, STDOUT)
        os.closerange(STDERR, os.sysconf("SC_OPEN_MAX"))
        end = b""
        while chunk := os.read(STDIN, 65_536):
            end = (end + chunk)[-KEPT_BYTES:]
            kept[:] = end.rjust(KEPT_BYTES, b"\0")
            while chunk:
                chunk = chunk[_written(chunk) :]
    finally:
        os._exit(0)


def _written(chunk: bytes) -> int:
    """Write what is taken; give how much of it is done with. What a disk or a terminal refuses is lost: nobody's fault.

    :raises BrokenPipeError: whoever read it has gone.
    """
    try:
        return os.write(STDOUT, chunk)
    except BrokenPipeError:
        raise
    except BlockingIOError:
        _wait_for_room()
        return 0
    except OSError:
        return len(chunk)


def _wait_for_room() -> None:
    room = select.poll()
    room.register(STDOUT, select.POLLOUT)
    room.poll()
