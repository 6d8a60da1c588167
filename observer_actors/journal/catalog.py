"""What the journal consists of just now: an immutable `Snapshot`, swapped as a whole.

The writer swaps it after each commit and each seal, compaction and retention when they are done; readers take it and
work without a lock. A rename and the swap that tells of it happen under one lock, so a reader that finds a file gone
or changed takes a new snapshot and finds out why.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from threading import Lock
from typing import Final

import msgspec
from msgspec import Struct

from observer_actors.journal.format import Manifest, SegmentEntry
from observer_actors.journal.recovery import Mark

_FIRST_SEQ: Final = attrgetter("first_seq")


class Segment(Struct, frozen=True, kw_only=True):
    """A sealed file. Without an entry it is raw: not in the manifest yet."""

    path: Path
    first_seq: int
    last_seq: int
    bytes: int
    """Plain bytes that count; residue of a failed commit may follow them."""
    entry: SegmentEntry | None = None
    marks: tuple[Mark, ...] | None = None
    """Sparse index of a raw segment; None when nobody has scanned it yet."""

    @property
    def stored_bytes(self) -> int:
        """What it takes on disk."""
        return self.bytes if self.entry is None else self.entry.stored_bytes


class Active(Struct, frozen=True, kw_only=True):
    """The file that is being written."""

    path: Path
    first_seq: int
    """Of its first line, also when there is none yet."""
    last_seq: int
    """Last durable op of the whole journal; ``first_seq - 1`` while the file is empty."""
    durable_bytes: int = 0
    first_recorded_at: str = ""
    last_recorded_at: str = ""
    """Of the whole journal."""
    marks: list[Mark] = msgspec.field(default_factory=list)
    """Appended to by the writer only; those at or beyond `durable_bytes` do not count."""


class Snapshot(Struct, frozen=True, kw_only=True):
    """One consistent view."""

    generation: int
    """Changes whenever a file is renamed, replaced or removed; not with a commit."""
    segments: tuple[Segment, ...]
    active: Active
    manifest: Manifest

    @property
    def first_seq(self) -> int:
        """Oldest seq that is kept; one beyond `last_seq` when the journal is empty."""
        return self.segments[0].first_seq if self.segments else self.active.first_seq

    @property
    def last_seq(self) -> int:
        """Newest durable seq; 0 for none."""
        return self.active.last_seq

    @property
    def missing_ops(self) -> int:
        """Seqs above those that retention removed of which no file holds a line, as far as the catalog tells.

        It tells of files that are lost; what a raw file lacks before its end shows once that is compacted. Two losses
        stay unseen: the newest segment, not compacted yet, while the active file is empty (nothing else says that it
        was there, and its seqs are given out again); and a raw segment after one that ends with residue of a failed
        commit, as far as the residue has the same seqs: it is read in its place.
        """
        active = self.active.last_seq - self.active.first_seq + 1
        return self.last_seq - self.manifest.removed_through - active - sum(map(_lines, self.segments))


class Catalog:
    """Holder of the snapshot; safe to use from any thread.

    :param reload: for a directory that another process writes: builds a new snapshot from disk.
    """

    def __init__(self, snapshot: Snapshot, reload: Callable[[], Snapshot] | None = None) -> None:
        self._lock = Lock()
        self._snapshot = snapshot
        self._reload = reload

    def snapshot(self) -> Snapshot:
        """The present view; waits while a file is being renamed."""
        with self._lock:
            return self._snapshot

    @property
    def figures(self) -> Snapshot:
        """The same, at once, for who opens no file by it: a disk that hangs may keep a rename for minutes."""
        return self._snapshot

    def refresh(self) -> None:
        """Look again at a directory that another process writes. Nothing to do for a writer's own catalog."""
        if self._reload is None:
            return
        fresh = self._reload()
        with self._lock:
            held = self._snapshot
            generation = held.generation + (_files(fresh) != _files(held))
            self._snapshot = msgspec.structs.replace(fresh, generation=generation)

    def newer(self, seen: Snapshot) -> bool:
        """Tell whether files were renamed, replaced or removed since a snapshot was taken."""
        self.refresh()
        return self.snapshot().generation != seen.generation

    def commit(self, active: Active) -> None:
        """More of the active file is durable."""
        with self._lock:
            held = self._snapshot
            self._snapshot = Snapshot(
                generation=held.generation, segments=held.segments, active=active, manifest=held.manifest
            )

    def seal(self, rename: Callable[[], None], segment: Segment, active: Active) -> None:
        """Rename the active file and tell of it, in one step for readers. Nothing changes if the rename fails."""
        with self._lock:
            rename()
            held = self._snapshot
            self._snapshot = msgspec.structs.replace(
                held, generation=held.generation + 1, segments=(*held.segments, segment), active=active
            )

    def replace(self, old: tuple[Segment, ...], new: tuple[Segment, ...], manifest: Manifest) -> None:
        """Put new segments in the place of old ones (which stand together), with a new manifest."""
        with self._lock:
            held = self._snapshot
            at = bisect_left(held.segments, old[0].first_seq, key=_FIRST_SEQ)
            assert held.segments[at : at + len(old)] == old
            segments = held.segments[:at] + new + held.segments[at + len(old) :]
            self._snapshot = msgspec.structs.replace(
                held, generation=held.generation + 1, segments=segments, manifest=manifest
            )


def _lines(segment: Segment) -> int:
    seqs = segment.last_seq - segment.first_seq + 1
    return seqs if segment.entry is None else min(seqs, segment.entry.ops + segment.entry.damaged)


def _files(snapshot: Snapshot) -> tuple[object, ...]:
    return (tuple((s.path, s.last_seq) for s in snapshot.segments), snapshot.active.first_seq)
