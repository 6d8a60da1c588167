"""The real disk, which can be told to be slow, full or failing; for tests of the whole daemon.

`FakeDisk` knows more about what a power failure leaves; this one keeps its files where anyone can read them.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import Counter
from pathlib import Path
from typing import Final, Literal

from observer_actors.journal import PosixDisk
from observer_actors.journal.files import AppendFile

HELD_S: Final = 60.0
"""No test holds the disk for so long: a test that failed must not leave a thread behind for ever."""

Kind = Literal["write", "datasync", "truncate", "open_append", "rename", "sync_directory"]


class TroubledDisk(PosixDisk):
    """See the module. All of it may be called from any thread."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        """Calls so far, by kind, failed ones included."""
        self._errors: dict[str, int] = {}
        self._passing = threading.Event()
        self._passing.set()
        self._held = threading.Semaphore(0)

    def fail(self, *kinds: Kind, code: int = errno.EIO) -> None:
        """Let every call of these kinds fail from now on. A write fails after half of it has been taken."""
        self._errors.update(dict.fromkeys(kinds, code))

    def heal(self) -> None:
        """Fail no more."""
        self._errors = {}

    def hold(self) -> None:
        """Let no sync return from now on."""
        self._passing.clear()

    def release(self) -> None:
        """Let those that wait go on, and all that come."""
        self._passing.set()

    def wait_held(self) -> None:
        """Wait until a sync waits; blocking."""
        assert self._held.acquire(timeout=HELD_S), "nobody has synced"

    def step(self, kind: Kind) -> None:
        """Count a call, and fail if it is to."""
        self.calls[kind] += 1
        code = self._errors.get(kind)
        if code is not None:
            raise OSError(code, f"{os.strerror(code)} (injected into {kind})")

    def sync(self) -> None:
        """Wait while syncs are held."""
        if not self._passing.is_set():
            self._held.release()
            assert self._passing.wait(HELD_S), "held for too long"
        self.step("datasync")

    def open_append(self, path: Path, *, create: bool) -> AppendFile:
        self.step("open_append")
        return _TroubledFile(self, super().open_append(path, create=create))

    def rename(self, source: Path, target: Path) -> None:
        self.step("rename")
        super().rename(source, target)

    def sync_directory(self, path: Path) -> None:
        self.step("sync_directory")
        super().sync_directory(path)


class _TroubledFile:
    def __init__(self, disk: TroubledDisk, file: AppendFile) -> None:
        self._disk = disk
        self._file = file

    def write(self, data: bytes | memoryview) -> int:
        try:
            self._disk.step("write")
        except OSError:
            if len(data) > 1:
                self._file.write(data[: len(data) // 2])
            raise
        return self._file.write(data)

    def datasync(self) -> None:
        self._disk.sync()
        self._file.datasync()

    def truncate(self, size: int) -> None:
        self._disk.step("truncate")
        self._file.truncate(size)

    def size(self) -> int:
        return self._file.size()

    def close(self) -> None:
        self._file.close()
