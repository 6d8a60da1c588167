"""The quarantine: messages that made an actor crash again and again, kept in a file for a person to look at."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import trio
from structlog.typing import FilteringBoundLogger

from observer_actors.actors.admission import Submission
from observer_actors.actors.surroundings import Surroundings, now_text
from observer_actors.errors import DiskFailed, Quarantined
from observer_actors.journal import Disk
from observer_actors.journal.files import translated, write_all
from observer_actors.op import Op
from observer_actors.supervision import Events, MessageQuarantined
from observer_actors.visible import visible_json

LINE_LOGGED_BYTES_MAX: Final = 4_096
SHOWN_MAX: Final = 3


class QuarantinedMessage(msgspec.Struct, frozen=True):
    """One line of `_observer/quarantine.jsonl`."""

    actor: str
    at: str
    crashes: int
    ops: Sequence[Op]


class Quarantine:
    """Sets messages aside; the file is only ever appended to.

    A disk that refuses does not keep a message in its actor's way: it is set aside all the same, and the log has it.
    """

    def __init__(
        self, data_dir: Path, events: Events, *, disk: Disk, log: FilteringBoundLogger, around: Surroundings
    ) -> None:
        self._path = data_dir / "_observer" / "quarantine.jsonl"
        self._events = events
        self._disk = disk
        self._log = log
        self._around = around
        self._one_at_a_time = trio.CapacityLimiter(1)

    async def submission(self, submission: Submission, crashes: int) -> None:
        """Set aside what the persister could not write, and tell its caller; what is on disk is just answered."""
        if submission.committed:
            submission.accept()
            return
        # A seq that they were given on the way is free again: others get it.
        ops = [msgspec.structs.replace(op, seq=0, recorded_at="") for op in submission.ops]
        await self._keep("persister", ops, crashes)
        submission.refuse(Quarantined("the event made the persister crash again and again; it has been set aside"))

    async def op(self, consumer: str, op: Op, crashes: int) -> None:
        """Set aside an op that a consumer cannot take in; it stays in the journal."""
        await self._keep(consumer, (op,), crashes)

    async def _keep(self, actor: str, ops: Sequence[Op], crashes: int) -> None:
        message = QuarantinedMessage(actor, now_text(self._around.time_ns), crashes, ops)
        line = visible_json(msgspec.json.encode(message))
        try:
            append = partial(append_line, self._disk, self._path, line)
            await self._around.in_thread(append, limiter=self._one_at_a_time)
        except DiskFailed as error:
            shown = line[:LINE_LOGGED_BYTES_MAX].decode(errors="replace")
            self._log.error("quarantine_not_written", error=str(error), line=shown)
        self._events.emit(MessageQuarantined(actor=actor, crashes=crashes, message=_describe(ops)))


def append_line(disk: Disk, path: Path, line: bytes) -> None:
    """Append a line, durably and whole, or not at all. One that a crash has torn before it costs that one alone."""
    with translated("writing the quarantine"):
        with closing(disk.open_append(path, create=True)) as file:
            size = file.size()
            is_torn = bool(size) and disk.read(path, size - 1, 1) != b"\n"
            try:
                write_all(file, b"\n" * is_torn + line + b"\n")
                file.datasync()
            except OSError:
                file.truncate(size)
                raise
        disk.sync_directory(path.parent)


def _describe(ops: Sequence[Op]) -> str:
    if ops and ops[0].seq:
        return f"op {ops[0].seq}"
    ids = ", ".join(str(op.id) for op in ops[:SHOWN_MAX] if isinstance(op.id, str))
    return f"{len(ops)} ops{f', id {ids}' if ids else ''}"
