"""Processor time and memory of other processes, from /proc; their children's is theirs."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import trio

LOOK_SECONDS: Final = 0.1
MEMORY_LOOK_SECONDS: Final = 1.0

_TICKS: Final = os.sysconf("SC_CLK_TCK")
TICK_SECONDS: Final = 1 / _TICKS
"""The kernel counts processor time in such steps."""
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_USER, _SYSTEM, _USER_OF_ENDED, _SYSTEM_OF_ENDED = 11, 12, 13, 14
"""Fields of /proc/<pid>/stat behind the name, which may hold anything (proc(5)); the latter are of children that have
ended and were waited for."""


CRASHES: Final = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE)


def refuse_crash(returncode: int | None) -> None:
    """Fail where a process has ended by what no test sends; all that its test has seen is a closed connection."""
    for crash in CRASHES:
        assert returncode != -crash, f"the process ended by {crash.name}"


def children(pid: int) -> set[int]:
    """Give the processes that a process has started, and that have not been waited for."""
    with suppress(OSError):  # it ends meanwhile
        listed = [(task / "children").read_text(encoding="ascii") for task in Path(f"/proc/{pid}/task").iterdir()]
        return {int(child) for text in listed for child in text.split()}
    return set()


def cpu_seconds(pid: int) -> float:
    """Give the processor time that a process has used, all its threads together, and its children, also ended ones."""
    return _cpu_seconds(pid) + sum(map(_cpu_seconds_if_there, children(pid)))


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return sum(int(fields[field]) for field in (_USER, _SYSTEM, _USER_OF_ENDED, _SYSTEM_OF_ENDED)) / _TICKS


def _cpu_seconds_if_there(pid: int) -> float:
    with suppress(OSError):  # it ends meanwhile, and is then its parent's
        return _cpu_seconds(pid)
    return 0.0


def resident_bytes(pid: int) -> int:
    """Give the resident memory of a process and its children.

    A child that has not begun its own program has its parent's memory, not as much again: it is passed over.
    """
    own = _command_line(pid)
    begun = (child for child in children(pid) if _command_line(child) != own)
    return _resident_bytes(pid) + sum(map(_resident_bytes, begun))


def _resident_bytes(pid: int) -> int:
    with suppress(OSError):  # it ends meanwhile
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1]) * _PAGE
    return 0


def _command_line(pid: int) -> bytes:
    with suppress(OSError):  # it ends meanwhile
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


@asynccontextmanager
async def note_cpu(pid: int) -> AsyncIterator[Callable[[], float]]:
    """Look at a process until the block ends; what is given gives the processor time at the last look."""
    seen = 0.0

    async def look() -> None:
        nonlocal seen
        with suppress(OSError):  # it has ended
            while True:
                seen = cpu_seconds(pid)
                await trio.sleep(LOOK_SECONDS)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        yield lambda: seen
        nursery.cancel_scope.cancel()


async def sample_memory(pid: int, samples: list[int]) -> None:
    """Add the resident memory of a process to the samples every second, until cancelled."""
    while True:
        samples.append(resident_bytes(pid))
        await trio.sleep(MEMORY_LOOK_SECONDS)
