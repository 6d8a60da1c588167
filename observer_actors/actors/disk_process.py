"""The disk's process: what is committed is appended and synced there, and nobody waits for the interpreter meanwhile.

In a thread of ours each of a commit's system calls gives the interpreter's lock away, and waits for it again behind
whatever runs by then; with the event loop busy, that costs more than the disk (docs/adr/0011). So the usual commit, on
a file that is whole, goes to a process that does nothing else (`journal/appending.py`). Whatever is not usual stays
with the thread (`disk_thread`): opening, sealing, and mending after a failure.

The process lives as long as an incarnation of the persister. When it dies, nobody knows what it has written of the
batch: the persister fails, and its next incarnation cuts the journal back to what was acknowledged, as after any crash.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Final

import trio

from observer_actors.journal import Handed, appending
from observer_actors.journal.files import lost

START_S: Final = 10.0
"""How long it may take until it can be asked: a fiftieth of a second, if nothing is wrong."""
PIPE_BYTES: Final = 1024 * 1024
"""What Linux allows everybody."""
END_S: Final = 2.0
"""How long it may take to end after its last request. Then it is killed; one that hangs in the disk is left there."""


class DiskProcessEnded(Exception):
    """The disk's process has ended, with a batch in its hand or not."""


class DiskProcess:
    """Made by `started`; for one task at a time."""

    def __init__(self, process: trio.Process, requests: int, answers: int, files: socket.socket) -> None:
        self._process = process
        self._requests = requests
        self._answers = answers
        self._files = files
        self._file: object = None
        """The file that it knows."""

    @classmethod
    @asynccontextmanager
    async def started(cls, keeps: Sequence[int] = ()) -> AsyncIterator[DiskProcess]:
        """Start the process, and end it after the block.

        :param keeps: descriptors that it holds open: the lock of the directory stays taken while it may still write.
        :raises OSError: it cannot be started, or does not say that it can be asked.
        """
        if not sys.executable:  # a program of another kind, with Python in it
            raise FileNotFoundError(errno.ENOENT, "no Python to be started is known")
        with ExitStack() as ours, ExitStack() as theirs:
            answers, their_answers = _pipe(ours, theirs)
            their_requests, requests = _pipe(theirs, ours)
            files, their_files = socket.socketpair()
            ours.enter_context(files)
            theirs.enter_context(their_files)
            os.set_blocking(requests, False)
            os.set_blocking(answers, False)
            with suppress(OSError):  # a large batch goes through a pipe of any size, in more pieces
                fcntl.fcntl(requests, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            given = (their_requests, their_answers, their_files.fileno())
            process = await trio.lowlevel.open_process(
                [sys.executable, "-I", "-S", appending.__file__, *map(str, given)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(*given, *keeps),
                start_new_session=True,  # what a terminal sends to the daemon is not meant for it
            )
            theirs.close()
            try:
                disk = cls(process, requests, answers, files)
                await disk._greet()
                yield disk
            finally:
                ours.close()
                await _ended(process)

    async def _greet(self) -> None:
        with trio.move_on_after(START_S):
            await self._receive()
            return
        raise TimeoutError(errno.ETIMEDOUT, "it does not say that it can be asked")

    async def ended(self) -> None:
        """Wait until it has ended.

        :raises DiskProcessEnded: it has.
        """
        status = await self._process.wait()
        raise DiskProcessEnded(f"the disk's process has ended with status {status}")

    async def let_go(self) -> None:
        """Have it close the file that it knows.

        :raises DiskProcessEnded: it has ended.
        """
        self._file = None
        with trio.CancelScope(shield=True):
            try:
                os.write(self._requests, appending.REQUEST.pack(appending.LET_GO, 0, 0))
                await self._receive()
            except OSError as error:
                raise DiskProcessEnded(f"the disk's process has ended: {error}") from error

    async def append(self, handed: Handed) -> OSError | None:
        """Append and sync, to the end whatever happens meanwhile; give what the system refused, None when nothing.

        :raises DiskProcessEnded: nobody knows how far it came.
        """
        with trio.CancelScope(shield=True):
            try:
                await self._send(handed)
                answer = await self._receive()
            except OSError as error:
                raise DiskProcessEnded(f"the disk's process has ended: {error}") from error
        reached, code, handed.sync_us = appending.ANSWER.unpack(answer)
        handed.is_written = reached != appending.NOT_WRITTEN
        if reached == appending.SYNCED:
            return None
        return lost() if code == errno.ESTALE else OSError(code, os.strerror(code))

    async def _send(self, handed: Handed) -> None:
        is_other = handed.file is not self._file
        if is_other:
            socket.send_fds(self._files, [os.fsencode(handed.file.path)], [handed.file.fileno()])
            self._file = handed.file
        what = appending.APPEND_TO_ANOTHER if is_other else appending.APPEND
        head = appending.REQUEST.pack(what, handed.held, len(handed.data))
        sent = os.writev(self._requests, [head, handed.data])  # there is room: all before was taken
        rest = memoryview(handed.data)[sent - len(head) :]
        while rest:
            await trio.lowlevel.wait_writable(self._requests)
            rest = rest[os.write(self._requests, rest) :]

    async def _receive(self) -> bytes:
        await trio.lowlevel.wait_readable(self._answers)
        answer = os.read(self._answers, appending.ANSWER.size)  # written in one piece, so read in one
        if not answer:
            raise BrokenPipeError("it says nothing more")
        return answer


async def _ended(process: trio.Process) -> None:
    """Wait for the end of a process that nothing more will be asked of."""
    with trio.CancelScope(shield=True):
        with trio.move_on_after(END_S):
            await process.wait()
            return
        process.kill()
        with trio.move_on_after(END_S):
            await process.wait()


def _pipe(reader: ExitStack, writer: ExitStack) -> tuple[int, int]:
    """Make a pipe, whose ends are closed with the one and with the other."""
    read, write = os.pipe2(os.O_CLOEXEC)
    reader.callback(os.close, read)
    writer.callback(os.close, write)
    return read, write
