"""Daemons without the second of a processor that Python takes to import one; a gate starts hundreds.

A fork server of the standard library's has imported it once. Each daemon is a process forked from that, which goes on
as ``python -m`` does once it has imported: with its own environment and standard error. What only a process of its own
program shows is started as one (see `may_fork`): how it begins and how the interpreter is taken down, for a forked one
ends by `os._exit` before that; and whether anything depends on the hashes of texts, which are alike in all of a worker.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import trio

_SERVER: Final = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["observer_actors.process", "observer_actors.commands.serve", __name__])
_AT_START: Final = ("PYTHON", "LD_", "LC_", "LANG", "MALLOC_", "GLIBC_", "LISTEN_")
"""Begin the names of variables that are read as a program begins, or that name its process id."""


def may_fork(module: str, variables: Mapping[str, str]) -> bool:
    """Say whether a module may run forked: one of ours, of whose variables none is read before it is imported."""
    is_ours = module.split(".", maxsplit=1)[0] in {"observer_actors", "tests"}
    return is_ours and not any(name.startswith(_AT_START) for name in variables)


class Forked:
    """A module that runs in a process forked for it, as `subprocess.Popen` has one; its standard error is a pipe."""

    def __init__(self, module: str, arguments: list[str], environment: Mapping[str, str]) -> None:
        reader, writer = _SERVER.Pipe(duplex=False)
        self._process = _SERVER.Process(target=_run, args=(module, arguments, environment, Path.cwd(), writer))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid
        with reader, writer:
            self.stderr = os.fdopen(os.dup(reader.fileno()), "rb")

    @property
    def sentinel(self) -> int:
        """Can be read from once it has ended."""
        return self._process.sentinel

    @property
    def returncode(self) -> int | None:
        """Its exit status, or minus the signal that ended it; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        status = self.returncode
        if status is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        return status

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class ForkedForTrio:
    """The same, as `trio.Process` has one."""

    def __init__(self, module: str, arguments: list[str], environment: Mapping[str, str]) -> None:
        self._process = Forked(module, arguments, environment)
        self.pid = self._process.pid
        self.send_signal = self._process.send_signal
        self.terminate = self._process.terminate
        self.kill = self._process.kill
        with self._process.stderr as stderr:
            self.stderr = trio.lowlevel.FdStream(os.dup(stderr.fileno()))

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    async def wait(self) -> int:
        if self.returncode is None:
            await trio.lowlevel.wait_readable(self._process.sentinel)
        return self._process.wait()


def _run(module: str, arguments: list[str], environment: Mapping[str, str], folder: Path, stderr: Connection) -> None:
    """Go on as ``python -m`` does; in the forked process."""
    with stderr:
        os.dup2(stderr.fileno(), sys.stderr.fileno())
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
