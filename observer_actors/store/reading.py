"""The playbook's state as a file has it, for who only looks: nothing is opened for writing, mended or made."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Final

from observer_actors.playbook import Playbook, Row, Section
from observer_actors.problems import UNREADABLE
from observer_actors.store.files import StoreDamaged, for_reading, translated

CONSOLIDATOR: Final = "consolidator"
"""The consumer that makes the playbook."""
PLAYBOOK: Final = "SELECT section, key, seq, record FROM playbook"


def read_playbook(path: Path) -> tuple[list[Row], Playbook]:
    """Give the rows, and the playbook that they are; also while a daemon writes the file.

    :raises StoreFailed: there is no such file, or it is not what it should be.
    """
    with translated(), closing(for_reading(path)) as file:
        file.execute("BEGIN")  # both are of the same moment
        rows = playbook_rows(file.execute(PLAYBOOK).fetchall())
        found = file.execute("SELECT seq FROM cursors WHERE consumer = ?", (CONSOLIDATOR,)).fetchone()
    return rows, restored(rows, found[0] if found else 0)


def playbook_rows(rows: Iterable[tuple[str, str, int, str]]) -> list[Row]:
    """Read the rows of the playbook's table.

    :raises StoreDamaged: one is of a kind that nobody knows.
    """
    try:
        return [Row(Section(section), key, seq, record.encode()) for section, key, seq, record in rows]
    except ValueError as error:
        raise StoreDamaged(f"a part of the playbook is unknown: {error}") from error


def restored(rows: Iterable[Row], seq: int = 0) -> Playbook:
    """Make the playbook of its rows.

    :param seq: the last op that is in it.
    :raises StoreDamaged: a row does not say what it should.
    """
    try:
        return Playbook.restored(rows, seq)
    except UNREADABLE as error:
        raise StoreDamaged(f"a part of the playbook is not what it should be: {error}") from error
