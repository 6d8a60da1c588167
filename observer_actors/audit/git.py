"""Git, asked about a repository that nobody trusts.

Only commands that read objects and names are used: none that compares the working tree, for that runs the filters
which a repository's own configuration names. What else such a configuration could start is switched off, and so is the
network. Each command has a time limit and a bound on what it may say.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Final

import msgspec

from observer_actors.errors import ObserverError
from observer_actors.visible import cut

COMMAND_SECONDS_MAX: Final = 30.0
OUTPUT_BYTES_MAX: Final = 256 * 1024 * 1024
_SAFE: Final = (
    "--no-pager", "--no-replace-objects", "--no-optional-locks", "--literal-pathspecs",
    "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "core.untrackedCache=false",
    "-c", "log.showSignature=false",
)  # fmt: skip
_ALONE: Final = {"GIT_ALLOW_PROTOCOL": "", "GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0"}
"""No protocol is allowed: unlike ``protocol.allow``, the variable stands above what a repository allows (git(1)). Older
gits do not know the second."""
_SAID_CHARS_MAX: Final = 300
OWN_FOLDERS: Final = ("_auditor", "_kb", "_observer")
"""Of a data directory. It may lie in the tree, and an audit is not part of what the next one looks at."""


class AuditFailed(ObserverError):
    """There is nothing that can be audited: no such folder, no such revision, or far too much."""

    title = "cannot be audited"
    exit_code: ClassVar[int] = 66


class Blob(msgspec.Struct, frozen=True):
    """A file of a commit."""

    name: str
    """Hash of its contents, SHA-1 or SHA-256."""
    size: int


class Git:
    """One folder of a repository; all paths are relative to it, and nothing outside of it is looked at."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        self._environment = {**kept, **_ALONE, "LC_ALL": "C"}

    def commit(self, revision: str) -> str:
        """Give the hash of a commit; "" when there is none of that name."""
        wanted = f"{revision}^{{commit}}"
        return self._line("rev-parse", "--verify", "--quiet", "--end-of-options", wanted, may_fail=True)

    def branch(self) -> str:
        """Give the branch that is checked out; "" when none is."""
        return self._line("symbolic-ref", "--short", "--quiet", "HEAD", may_fail=True)

    def merge_base(self, one: str, other: str) -> str:
        """Give the commit at which two parted; "" when they have none in common that is here."""
        return self._line("merge-base", one, other, may_fail=True)

    def is_shallow(self) -> bool:
        """Say whether the history was cut when it was fetched."""
        return self._line("rev-parse", "--is-shallow-repository") == "true"

    def files(self) -> dict[str, bool]:
        """Give the paths of what is tracked, and of what is neither tracked, nor ignored, nor ours.

        Of each, whether it should lie there: not where only a part of the tree was checked out.
        """
        ours = (f"--exclude={name}/" for name in OWN_FOLDERS)
        said = self._run("ls-files", "-z", "-t", "--cached", "--others", "--exclude-standard", *ours)
        return {os.fsdecode(entry[2:]): entry[:1] != b"S" for entry in sorted(said.split(b"\0")) if entry}

    def tree(self, commit: str) -> dict[str, Blob]:
        """Give the plain files of a commit."""
        said = self._run("ls-tree", "-r", "-z", "-l", commit)
        return dict(_blobs(said))

    def contents(self, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Give the contents of blobs."""
        said = self._run("cat-file", "--batch", given="".join(f"{name}\n" for name in names).encode())
        place = 0
        while place < len(said):
            end = said.index(b"\n", place)
            name, _, size = said[place:end].decode("ascii", "replace").rpartition(" ")
            if not size.isdecimal():  # "… missing"
                place = end + 1
                continue
            yield name.partition(" ")[0], said[end + 1 : end + 1 + int(size)]
            place = end + int(size) + 2

    def _line(self, *arguments: str, may_fail: bool = False) -> str:
        return self._run(*arguments, may_fail=may_fail).decode("utf-8", "replace").strip()

    def _run(self, *arguments: str, given: bytes = b"", may_fail: bool = False) -> bytes:
        with tempfile.TemporaryFile() as questions, tempfile.TemporaryFile() as complaints:
            questions.write(given)
            questions.seek(0)
            try:
                process = subprocess.Popen(  # noqa: S603 - see `_SAFE`
                    ["git", *_SAFE, "-C", str(self._folder), *arguments],  # noqa: S607 - the one that people use
                    stdin=questions, stdout=subprocess.PIPE, stderr=complaints, env=self._environment,
                    start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                raise AuditFailed(f"git cannot be started: {error.strerror}", hint="install git") from error
            said = _bounded(process, arguments[0])
            complaints.seek(0)
            complaint = complaints.read(_SAID_CHARS_MAX).decode("utf-8", "replace").strip()
        if process.returncode and not (may_fail and not complaint.startswith("fatal: detected dubious")):
            raise AuditFailed(f"git {arguments[0]}: {cut(complaint, _SAID_CHARS_MAX)}")
        return said if not process.returncode else b""


def _bounded(process: subprocess.Popen[bytes], command: str) -> bytes:
    assert process.stdout is not None
    timer = threading.Timer(COMMAND_SECONDS_MAX, _kill, (process,))
    timer.start()
    try:
        with process.stdout as output:
            said = output.read(OUTPUT_BYTES_MAX + 1)
            if len(said) > OUTPUT_BYTES_MAX:
                raise AuditFailed(f"git {command} says more than {OUTPUT_BYTES_MAX:,} bytes")
            process.wait()
    finally:
        timer.cancel()
        _kill(process)
        process.wait()
    if process.returncode < 0:
        raise AuditFailed(f"git {command} has been stopped after {COMMAND_SECONDS_MAX:g} s")
    return said


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a command and what it has started, unless it has ended and been waited for."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _blobs(said: bytes) -> Iterator[tuple[str, Blob]]:
    for entry in filter(None, said.split(b"\0")):
        about, _, path = entry.partition(b"\t")
        mode, kind, name, size = about.decode("ascii").split()
        if kind == "blob" and mode in ("100644", "100755"):
            yield os.fsdecode(path), Blob(name, int(size) if size.isdecimal() else 0)
