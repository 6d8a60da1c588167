"""The playbook made anew from a data directory's journal, beside the one that is stored there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from observer_actors.commands._directory import NOT_HERE, may_look_into
from observer_actors.errors import ConfigInvalid
from observer_actors.journal import JournalReader, PosixDisk, look
from observer_actors.op import Op
from observer_actors.playbook import Playbook, Row
from observer_actors.playbook.fold import VERSION
from observer_actors.store import LEARNED_PATH, read_playbook

READ_OPS: Final = 5_000
SHOWN_MAX: Final = 20


class Rebuilt(msgspec.Struct, frozen=True, kw_only=True):
    """How the two compare."""

    is_same: bool
    first_seq: int
    last_seq: int
    entries: int
    parts: int
    bytes: int
    problem: str = ""
    """Why they cannot be compared; "" when they can."""
    different: tuple[str, ...] = ()
    """Parts that are not the same, the first `SHOWN_MAX`."""


def rebuilt(data_dir: Path, progress: Callable[[int, int], None]) -> Rebuilt:
    """Make the playbook anew, up to the op that the stored one has come to.

    :param progress: is told how many ops are done, and of how many.
    :raises ConfigInvalid: there is no stored playbook.
    :raises StoreFailed: it is not what it should be.
    """
    path = data_dir / LEARNED_PATH
    if not (may_look_into(data_dir) and path.exists()):
        raise ConfigInvalid(f"{data_dir} holds no playbook, or none that this user may look into", hint=NOT_HERE)
    rows, stored = read_playbook(path)
    last_seq = stored.cursor
    reader = JournalReader(PosixDisk(), data_dir, look(PosixDisk(), data_dir))
    problem = _problem(stored, reader.first_seq)
    anew = Playbook(stored.meta.corroboration, stored.meta.revocations)
    if not problem:
        for op in _ops(reader, last_seq, progress):
            anew.take(op)
    is_compared = bool(rows) and not problem  # nothing is stored before there was something to take in
    different = _different(sorted(rows, key=lambda row: (row.section, row.key)), anew.rows()) if is_compared else []
    return Rebuilt(
        is_same=not problem and not different,
        first_seq=stored.meta.first_seq,
        last_seq=last_seq,
        entries=len(stored.entries),
        parts=len(rows),
        bytes=sum(len(row.record) for row in rows),
        problem=problem,
        different=tuple(different[:SHOWN_MAX]),
    )


def _problem(stored: Playbook, first_seq: int) -> str:
    if stored.meta.version != VERSION:
        return f"it was made by rules {stored.meta.version} and not by {VERSION}: a start of the daemon makes it anew"
    if stored.outdated:
        return "evidence was revoked, and the daemon has not made the playbook anew yet"
    if stored.meta.first_seq and first_seq > stored.meta.first_seq:
        return f"the journal begins at seq {first_seq:,}, the playbook was begun at {stored.meta.first_seq:,}"
    if stored.meta.inherited:
        return f"{stored.meta.inherited:,} decisions stand in ops that retention has deleted"
    return ""


def _ops(reader: JournalReader, last_seq: int, progress: Callable[[int, int], None]) -> Iterator[Op]:
    at = 0
    while at < last_seq and (ops := reader.read(at, min(READ_OPS, last_seq - at))):
        at = ops[-1].seq
        yield from (op for op in ops if op.seq <= last_seq)
        progress(at, last_seq)


def _different(stored: Sequence[Row], anew: Sequence[Row]) -> list[str]:
    before, after = ({(row.section, row.key): row for row in rows} for rows in (stored, anew))
    parts = sorted({*before, *after})
    return [
        f"{section} {key}".strip() for section, key in parts if before.get((section, key)) != after.get((section, key))
    ]
