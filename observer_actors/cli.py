"""The command line: which commands there are, and how each of them ends.

Exit statuses are 0, 1, those of sysexits.h, and a shell's for who was interrupted: docs/guide/operate.md has them in a
table. `exec` passes on the status of what it ran.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Mapping
from io import TextIOWrapper
from pathlib import Path
from typing import Final

import cyclopts
from cyclopts import CycloptsError

from observer_actors.commands._aside import told
from observer_actors.commit import version_line
from observer_actors.errors import ObserverError, first_of

EXIT_USAGE: Final = 64
EXIT_INPUT: Final = 66
EXIT_OUTPUT: Final = 74
EXIT_CONFIG: Final = 78
EXIT_INTERRUPTED: Final = 130
_OUTPUT_LOST: Final = frozenset({errno.ENOSPC, errno.EBADF, errno.EIO, errno.EFBIG, errno.EDQUOT})
EXIT_READER_GONE: Final = 141
"""What a shell shows for a program that SIGPIPE ended."""

COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "serve": (
        "serve:serve",
        "Run the daemon in the foreground until SIGTERM or SIGINT; SIGHUP reads the configuration again.",
    ),
    "config": ("config:app", "Check, show or begin a configuration."),
    "stats": ("stats:stats", "Count the recent operations, and everything ever committed."),
    "ops": ("ops:ops", "Find operations, newest first unless told otherwise."),
    "tail": ("tail:tail", "Follow operations as they are committed, until interrupted."),
    "failures": ("failures:app", "Show what fails in the same way, mute it, resolve it, or note something."),
    "playbook": ("playbook:app", "Show what is known to work and to fail, and decide what is handed out."),
    "revoke": ("revoke:revoke", "Take back all that the playbook has from a source, a run or a staffer."),
    "advice": (
        "advice:advice",
        "Get what helps with an operation, as Markdown for a prompt; nothing when there is nothing to say.",
    ),
    "audits": (
        "audits:audits",
        "Show what auditors found, newest first; or what is known of one signature and of similar ones.",
    ),
    "actors": ("actors:actors", "Show the tree of actors: state, restarts, queues, last error."),
    "top": ("top:top", "Show rates, sources, failing patterns, the tree and its queues, live on the whole screen."),
    "send": ("send:send", "Report one operation, from flags or from standard input (a JSON object)."),
    "exec": ("running:exec_", "Run a command, report how it ended and how long it took, and exit as it did."),
    "mcp": (
        "mcp:mcp",
        "Speak the Model Context Protocol over standard input and output, for a program that runs agents.",
    ),
    "import": (
        "importing:import_",
        "Bring files of operations in: JSONL of any size, also compressed (.gz), also the seed's ops.jsonl.",
    ),
    "export": ("export:export", "Write operations out, oldest first: all of them, or those that fit the filters."),
    "patterns": ("patterns:app", "Group failures as the daemon does."),
    "audit": ("audit:audit_", "Audit a Python repository, and remember the verdict."),
    "token": (
        "token:token",
        "Make a token: shown once, and the line for `auth.tokens_file` that holds its hash alone.",
    ),
    "verify": ("verify:verify", "Check a data directory: gaps, duplicates, checksums, torn tails."),
    "install-service": ("service:install_service", "Print the systemd units with the right paths, or install them."),
    "doctor": ("doctor:doctor", "Look at an installation, running or stopped: what is wrong, and what to do."),
}
"""Name -> what it is below `observer_actors.commands`, and what `--help` says of it; in the order of `--help`."""

app = cyclopts.App(
    name="observer-actors",
    help="The third-party witness for AI agents: a durable log of every outcome, and what can be learned from it.",
    version=version_line,
    suppress_keyboard_interrupt=False,
    result_action="return_int_as_exit_code_else_zero",
)
for _position, (_name, (_path, _help)) in enumerate(COMMANDS.items()):
    # By path: a command's module is imported when the command is asked for. `exec` must not pay for `serve`.
    app.command(f"observer_actors.commands.{_path}", name=_name, help=_help, sort_key=_position)
app.register_install_completion_command()


def main() -> None:
    """Run the command line; errors are one line and a hint, and an exit status that says their kind."""
    _open_what_is_closed()
    _escape_what_cannot_be_written()
    try:
        status = _run()
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output has seen enough: `observer-actors ops | head`
        status = _let_go_of_output(EXIT_READER_GONE)
    except SystemExit as end:
        if not isinstance(end.__context__, BrokenPipeError):
            raise
        status = _let_go_of_output(EXIT_READER_GONE)  # rich made 1 of it, also where the help is cyclopts' to print
    except OSError as error:
        if error.errno in _OUTPUT_LOST:
            _say(f"cannot write the output: {error.strerror}")
            status = _let_go_of_output(EXIT_OUTPUT)
        elif _is_somewhere():
            raise
        else:
            _say("the working directory has been removed")
            status = EXIT_INPUT
    except RuntimeError:  # what `Path.home` raises, in the libraries too
        if os.path.expanduser("~") != "~":  # noqa: PTH111 - Path's would raise again
            raise
        _say("there is no home directory: set HOME")
        status = EXIT_CONFIG
    sys.exit(status)


def _open_what_is_closed() -> None:
    """Open what is closed of the three standard streams: what is printed there is for nobody, and no error.

    In their order, so that each gets its own number, which no file or socket must have, in no child either: libraries
    print there.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = Path(os.devnull).open(mode, encoding="utf-8")  # noqa: SIM115 - for as long as we run
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)


def _escape_what_cannot_be_written() -> None:
    """Have a character that the locale's encoding lacks written as an escape, as Python does on standard error."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _is_somewhere() -> bool:
    try:
        return bool(Path.cwd())
    except FileNotFoundError:
        return False


def _let_go_of_output(status: int) -> int:
    """Have nothing more written at the exit, which would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


def _run() -> int:
    try:
        _say_all_of(sys.argv[1:2])
        status: int = app(sys.argv[1:], exit_on_error=False, print_error=False)
    except* ObserverError as errors:
        error = first_of(errors)
        _say(error, error.hint)
        status = error.exit_code
    except* CycloptsError as errors:
        _say(first_of(errors), _USAGE)
        status = EXIT_USAGE
    except* UnicodeEncodeError as errors:
        _say(f"an argument or a variable is no UTF-8: {first_of(errors)}")
        status = EXIT_USAGE
    except* KeyboardInterrupt:
        status = EXIT_INTERRUPTED
    return status


_USAGE: Final = "`observer-actors --help` lists the commands, `observer-actors COMMAND --help` what one takes"


def _say_all_of(names: list[str]) -> None:
    """Have the help of a command be its docstring; in the list of commands a line has to do."""
    for name in names:
        if name in COMMANDS and app[name].default_command is not None:
            app[name].help = None


def _say(what: object, hint: str = "") -> None:
    """Say in a line what is wrong, and in another what to do; what was typed, or a file's name, moves no cursor."""
    told(f"observer-actors: {what}")
    if hint:
        told(f"  {hint}")
