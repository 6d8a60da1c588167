"""A disk in memory that fails on demand and crashes as real ones do; deterministic by its seed.

What it knows about:

* **Pages and disk.** A write reaches memory at once and the disk with `datasync`; renames, creations and removals reach
  the disk with `sync_directory`. A rename from one directory to another is whole or not there, and is sure to be there
  once both were synced: some file systems need no more than one of them, and none says which.
* **Failures** (`fail`): the n-th call of a kind from now on raises an `OSError`, once or from then on. `quota_bytes`
  gives ENOSPC after a short write of what still fits; `short_writes` makes writes take a part only.
* **A failed fdatasync** loses what was waiting, as on Linux: it can still be read, later ones report success, and it
  never reaches the disk unless it is written anew.
* **Crashes** (`crash`): a new disk that holds what was synced, and of the rest whatever the seed says: any length of an
  unsynced tail, with any of its 4 KiB blocks as holes of zeros or in their earlier state; any unsynced entry of a
  directory kept or lost.
"""

from __future__ import annotations

import errno
import os
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Kind = Literal["write", "datasync", "truncate", "rename", "remove", "sync_directory", "open_append", "read", "list"]
"""What `fail` can be told about, and what `calls` counts."""

BLOCK = 4_096


@dataclass
class Inode:
    """A file's bytes, in memory and on disk."""

    memory: bytearray = field(default_factory=bytearray)
    disk: bytes = b""
    states: list[bytes] = field(default_factory=list)
    """What memory held before it was cut, since the last sync: writeback may have stored that."""
    lost: tuple[int, int] | None = None
    """Bytes that were waiting when a datasync failed: the system took them for stored."""

    def lose(self) -> None:
        """Forget that what is not on disk has to go there."""
        pairs = enumerate(zip(self.disk, self.memory, strict=False))
        same = next((at for at, (old, new) in pairs if old != new), min(len(self.disk), len(self.memory)))
        start = same if self.lost is None else min(same, self.lost[0])
        self.lost = (start, len(self.memory)) if start < len(self.memory) else None

    def store(self) -> None:
        """Bring to disk what waits for it: not what was lost."""
        stored = bytes(self.memory)
        if self.lost is not None:
            start, end = self.lost
            stored = stored[:start] + bytes(end - start) + stored[end:]
        self.disk = stored
        self.states.clear()

    def keep_lost_below(self, size: int) -> None:
        """Bytes that were cut are not lost; and what is written in their place waits anew."""
        if self.lost is not None:
            start, end = self.lost
            self.lost = (start, min(end, size)) if start < size else None


@dataclass
class Failure:
    """Calls to fail."""

    after: int
    code: int
    times: int


@dataclass
class Change:
    """Unsynced change of names: name -> inode, or None where the name is gone."""

    entries: dict[Path, Inode | None]
    unsynced: set[Path]
    """Directories that have to be synced before it is on disk."""


class FakeFile:
    """An open file of a `FakeDisk`."""

    def __init__(self, disk: FakeDisk, inode: Inode) -> None:
        self._disk = disk
        self._inode = inode

    def write(self, data: bytes | memoryview) -> int:
        self._disk.step("write")
        taken = self._disk.room_for(len(data))
        self._inode.memory += data[:taken]
        return taken

    def datasync(self) -> None:
        try:
            self._disk.step("datasync")
        except OSError:
            self._inode.lose()
            raise
        self._inode.store()

    def truncate(self, size: int) -> None:
        self._disk.step("truncate")
        if size < len(self._inode.memory):
            self._inode.states.append(bytes(self._inode.memory))
        del self._inode.memory[size:]
        self._inode.keep_lost_below(size)

    def size(self) -> int:
        return len(self._inode.memory)

    def close(self) -> None:
        self._disk.open.discard(self)


class FakeDisk:
    """See the module.

    :param seed: decides lengths of short writes, and what survives a crash.
    """

    def __init__(self, seed: int = 0, *, short_writes: bool = False, quota_bytes: int | None = None) -> None:
        self.calls: Counter[str] = Counter()
        """Calls so far, by kind."""
        self.open: set[FakeFile] = set()
        """Files that nobody has closed yet."""
        self.short_writes = short_writes
        self.modified: dict[Path, int] = {}
        """When files were last written, in microseconds since 1970, where a test says so; the others will be."""
        self.quota_bytes = quota_bytes
        """Bytes that all files may hold together."""
        self._random = random.Random(seed)
        self._names: dict[Path, Inode] = {}
        self._names_on_disk: dict[Path, Inode] = {}
        self._directories: set[Path] = set()
        self._changes: list[Change] = []
        self._failures: dict[str, Failure] = {}

    # ------------------------------------------------------------------------------------ what tests do

    def fail(self, kind: Kind | Literal["any"], *, after: int = 0, code: int = errno.EIO, times: int = 1) -> None:
        """Let the call after the next `after` ones of this kind fail, and so many calls from there on."""
        self._failures[kind] = Failure(after, code, times)

    def heal(self) -> None:
        """Fail no more."""
        self._failures.clear()

    def crash(self, seed: int | None = None) -> FakeDisk:
        """Lose power: give the disk that comes up again."""
        chance = random.Random(self._random.random() if seed is None else seed)
        after = FakeDisk(chance.randrange(2**32), short_writes=self.short_writes, quota_bytes=self.quota_bytes)
        names = dict(self._names_on_disk)
        for change in self._changes:
            if chance.random() < 0.5:
                _apply(names, change)
        copies = {
            id(inode): Inode(bytearray(held), held) for inode in names.values() for held in [_torn(inode, chance)]
        }
        after._names = {path: copies[id(inode)] for path, inode in names.items()}
        after._names_on_disk = dict(after._names)
        after._directories = set(self._directories)
        return after

    def durable(self) -> FakeDisk:
        """Lose power at the worst: only what was synced is there."""
        after = FakeDisk(0, quota_bytes=self.quota_bytes)
        after._names = {path: Inode(bytearray(i.disk), i.disk) for path, i in self._names_on_disk.items()}
        after._names_on_disk = dict(after._names)
        after._directories = set(self._directories)
        return after

    def contents(self, path: Path) -> bytes:
        """All bytes of a file, as in memory."""
        return bytes(self._names[path].memory)

    def plant(self, path: Path, data: bytes) -> None:
        """Put a durable file there."""
        self._names[path] = self._names_on_disk[path] = Inode(bytearray(data), data)

    def used_bytes(self) -> int:
        """Bytes that all files hold together."""
        return sum(len(inode.memory) for inode in self._names.values())

    def names(self) -> list[str]:
        """All files, sorted."""
        return sorted(str(path) for path in self._names)

    # ----------------------------------------------------------------------------- what files call

    def step(self, kind: Kind) -> None:
        """Count a call, and fail if it is due."""
        self.calls[kind] += 1
        for key in (kind, "any"):
            failure = self._failures.get(key)
            if failure is None:
                continue
            if failure.after > 0:
                failure.after -= 1
            elif failure.times > 0:
                failure.times -= 1
                raise OSError(failure.code, f"{os.strerror(failure.code)} (injected into {kind})")

    def room_for(self, length: int) -> int:
        """Give how many bytes a write takes.

        :raises OSError: ENOSPC when it takes none.
        """
        if self.quota_bytes is not None:
            room = self.quota_bytes - self.used_bytes()
            if room <= 0 < length:
                raise OSError(errno.ENOSPC, "no space left on device (quota)")
            length = min(length, room)
        return self._random.randint(1, length) if self.short_writes and length > 1 else length

    # -------------------------------------------------------------------------------- the `Disk` protocol

    def open_append(self, path: Path, *, create: bool) -> FakeFile:
        self.step("open_append")
        if path not in self._names:
            if not create:
                raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
            self._directory(path.parent)
            self._change({path: Inode()})
        file = FakeFile(self, self._names[path])
        self.open.add(file)
        return file

    def read(self, path: Path, offset: int, length: int) -> bytes:
        self.step("read")
        return bytes(self._inode(path).memory[offset : offset + length])

    def size(self, path: Path) -> int:
        return len(self._inode(path).memory)

    def modified_us(self, path: Path) -> int:
        return self.modified.get(path, 2**62)

    def list(self, path: Path) -> list[str]:
        self.step("list")
        inside = {held.relative_to(path).parts[0] for held in self._names if path in held.parents}
        return sorted(inside | {held.name for held in self._directories if held.parent == path})

    def rename(self, source: Path, target: Path) -> None:
        self.step("rename")
        self._directory(target.parent)
        self._change({source: None, target: self._inode(source)})

    def remove(self, path: Path, *, later: bool = False) -> None:  # noqa: ARG002 - nobody waits for this disk
        self.step("remove")
        self._inode(path)
        self._change({path: None})

    def free(self, *, slowly: bool) -> None:
        pass

    def sync_directory(self, path: Path) -> None:
        self.step("sync_directory")
        self._directory(path)
        waiting: list[Change] = []
        for change in self._changes:
            change.unsynced.discard(path)
            if change.unsynced:
                waiting.append(change)
            else:
                _apply(self._names_on_disk, change)
        self._changes = waiting

    def make_directories(self, path: Path) -> None:
        self._directories |= {path, *path.parents}

    def _inode(self, path: Path) -> Inode:
        if path not in self._names:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        return self._names[path]

    def _directory(self, path: Path) -> None:
        if path not in self._directories:
            raise FileNotFoundError(errno.ENOENT, "no such directory", str(path))

    def _change(self, entries: dict[Path, Inode | None]) -> None:
        change = Change(entries, {name.parent for name in entries})
        self._changes.append(change)
        _apply(self._names, change)


def _apply(names: dict[Path, Inode], change: Change) -> None:
    for path, inode in change.entries.items():
        if inode is None:
            names.pop(path, None)
        else:
            names[path] = inode


def _torn(inode: Inode, chance: random.Random) -> bytes:
    """Mix what was synced with any of the states that memory has been in since."""
    state = chance.choice([*inode.states, bytes(inode.memory), inode.disk])
    if state == inode.disk:
        return state
    size = chance.choice([len(state), chance.randint(min(len(inode.disk), len(state)), len(state))])
    mixed = bytearray(size)
    for start in range(0, size, BLOCK):
        end = min(start + BLOCK, size)
        older = inode.disk[start:end].ljust(end - start, b"\0")
        is_new = chance.random() < 0.7
        mixed[start:end] = state[start:end] if is_new else older
    return bytes(mixed)
