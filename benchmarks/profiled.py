"""Our daemon, and what its event loop does meanwhile: `python -m benchmarks.profiled FILE ARGUMENTS`.

Runs ``observer-actors ARGUMENTS`` with an instrument in trio's event loop, which adds up how long the steps of each
task take, by the task's name, and how long the loop waits. At SIGUSR1 the sums so far are written to FILE, as JSON.

A step is timed by the clock: what another program, or another thread of ours, has kept the processor or the
interpreter's lock for is in it. To take two times a step costs some microseconds a round.
"""

from __future__ import annotations

import signal
import sys
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import trio
from msgspec import Struct

from observer_actors.cli import main

WAITING: Final = "waiting"
"""The event loop has nothing to do."""


class Sums(Struct):
    """Seconds so far."""

    elapsed: float
    steps: dict[str, float]
    """A task's name, or `WAITING` -> seconds."""


class _Instrument(trio.abc.Instrument):
    """Adds up."""

    def __init__(self) -> None:
        self._began = self._since = time.perf_counter()
        self._steps: defaultdict[str, float] = defaultdict(float)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002 - as trio calls it
        self._since = time.perf_counter()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._steps[task.name] += time.perf_counter() - self._since

    def before_io_wait(self, timeout: float) -> None:  # noqa: ARG002 - as trio calls it
        self._since = time.perf_counter()

    def after_io_wait(self, timeout: float) -> None:
        if timeout:
            self._steps[WAITING] += time.perf_counter() - self._since

    def write(self, file: Path) -> None:
        """Write the sums so far, all at once."""
        sums = Sums(time.perf_counter() - self._began, dict(self._steps))
        made = file.with_suffix(".new")
        made.write_bytes(msgspec.json.encode(sums))
        made.replace(file)


def _main(file: Path) -> None:
    instrument = _Instrument()
    signal.signal(signal.SIGUSR1, lambda *_: instrument.write(file))
    trio.run = partial(trio.run, instruments=(instrument,))  # type: ignore[assignment] # what `serve` is to call
    main()


if __name__ == "__main__":
    _main(Path(sys.argv.pop(1)))
