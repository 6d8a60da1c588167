"""How far files have been imported, so that an import that was cut short goes on there.

One small file for each imported file and daemon, under ``$XDG_STATE_HOME/observer-actors/imports``. It holds how far
the daemon has acknowledged, and a checksum of what stood before that place: a file that has been replaced by another is
begun anew, one that has grown is gone on with. It also holds the op that was acknowledged last: a daemon that does not
have it has another journal, or an older copy of this one. For the copy, the note keeps some of the places before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Final

import msgspec

from observer_actors.commands._directory import users_folder
from observer_actors.errors import ObserverError
from observer_actors.problems import UNREADABLE

LOOKED_BACK_BYTES: Final = 4_096
"""What a checksum covers: enough that another log with the same bytes at the same place is the same log."""

PLACES_MAX: Final = 20
"""Some 4 KiB a note. The ops between two of them are a fraction of those since, so what is sent again is not much."""


class StateUnwritable(ObserverError):
    """How far an import is cannot be noted."""

    exit_code: ClassVar[int] = 74


class Progressed(msgspec.Struct, frozen=True):
    """How far a file has been imported."""

    offset: int = 0
    """Bytes acknowledged, counted after decompression."""
    lines: int = 0
    checksum: str = ""
    last_seq: int = 1
    """The seq of the op that was acknowledged last, or of a newer one; 0 for none.

    Notes of older versions have no such field: some op.
    """
    recorded_at: str = ""
    """When that op was committed, which is never the same in two journals; "" when the daemon did not say."""
    earlier: tuple[Progressed, ...] = ()
    """Where it was before, the newest first, each with an older `last_seq`. Notes of older versions have none."""

    def places(self) -> Iterator[Progressed]:
        """Give this place and those before it, the newest first, each with what was before it."""
        places = (self, *self.earlier)
        for number, place in enumerate(places, start=1):
            yield msgspec.structs.replace(place, earlier=places[number:])

    def behind(self, before: Progressed) -> Progressed:
        """Give this place with those before it: `PLACES_MAX` in all, the closer the newer they are."""
        known = (msgspec.structs.replace(before, earlier=()), *before.earlier)
        places = [self, *(place for place in known if place.checksum and place.last_seq < self.last_seq)]
        while len(places) > PLACES_MAX:
            del places[_least_missed([place.last_seq for place in places])]
        return msgspec.structs.replace(self, earlier=tuple(places[1:]))

    def fits(self, tail: bytes) -> bool:
        """Tell whether a file is still the one that was imported, by what stands before the offset."""
        return checksum(tail) == self.checksum


def _least_missed(seqs: list[int]) -> int:
    """Tell which place, but the newest and the oldest, leaves the smallest gap for how long ago it was."""
    return min(range(1, len(seqs) - 1), key=lambda n: (seqs[n - 1] - seqs[n + 1]) / (seqs[0] - seqs[n + 1]))


def checksum(tail: bytes) -> str:
    """Give the checksum of what stands before an offset: `LOOKED_BACK_BYTES`, or all from the beginning."""
    return hashlib.sha256(tail).hexdigest()


def load(file: Path, address: str) -> Progressed:
    """Give how far a file had been imported into a daemon; nothing when that is not known."""
    try:
        return msgspec.json.decode(_path(file, address).read_bytes(), type=Progressed)
    except (OSError, *UNREADABLE):
        return Progressed()


def save(file: Path, address: str, progressed: Progressed) -> None:
    """Note how far it is; replaced as a whole.

    :raises StateUnwritable: it cannot be noted.
    """
    path = _path(file, address)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        made = path.with_suffix(".tmp")
        made.write_bytes(msgspec.json.encode(progressed))
        made.replace(path)
    except OSError as error:
        hint = "set XDG_STATE_HOME to a folder that can be written"
        raise StateUnwritable(f"cannot note how far it is in {path}: {error.strerror}", hint=hint) from error


def _path(file: Path, address: str) -> Path:
    key = hashlib.sha256(f"{file.resolve()}\0{address}".encode()).hexdigest()[:32]
    return users_folder("XDG_STATE_HOME", ".local/state") / "observer-actors" / "imports" / f"{key}.json"
