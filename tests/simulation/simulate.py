"""Running a seed so that nothing but the seed decides anything.

One `trio.run` for each seed, on a virtual clock. Trio's own choice of who runs next comes from the seed too; blocking
calls take turns (`turns`). Nothing in a run may depend on a real clock, the address of an object, or the order of a set
of texts: two runs of a seed give the same trace, to the byte.

Some of the daemon's own bounds are set so low that a run of some hundred ops reaches them (`SMALL_BOUNDS`).
"""

from __future__ import annotations

import gc
import logging
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Final

import structlog
import trio
from structlog.typing import EventDict, Processor, WrappedLogger
from trio._core import _run as scheduler

from observer_actors import daemon as daemon_module
from observer_actors.actors import commits as commits_module
from observer_actors.actors import open_journal as open_journal_module
from observer_actors.journal import catalog as catalog_module
from tests.simulation.disk import SimulatedDisk
from tests.simulation.plan import Plan, plan_of
from tests.simulation.run import Broken, Run
from tests.simulation.turns import locks_that_take_turns
from tests.simulation.world import World

SMALL_BOUNDS: Final[Mapping[ModuleType, Mapping[str, int]]] = {
    commits_module: {"COMMITS_WAITING_MAX": 4, "OPS_WAITING_MAX": 30, "GATHERED_OPS": 12, "OPS_AT_ONCE_MAX": 7},
    daemon_module: {"SUBMISSIONS_MAX": 6},
}
STUCK_S: Final = 1_000.0
"""Virtual seconds after which a run is ended: something waits for ever."""
MEMORY: Final = Path("/dev/shm")  # noqa: S108 - SQLite's file lies there, for speed


def simulate(seed: int, disk_kind: type[SimulatedDisk] = SimulatedDisk) -> Run:
    """Run a seed.

    :raises Broken: something that was promised did not hold; the message says how to run it again.
    """
    folder = Path(tempfile.mkdtemp(prefix="simulation-", dir=MEMORY if MEMORY.is_dir() else None))
    run = Run(seed)
    try:
        with _determined(seed, partial(_log_into, run, str(folder))):
            trio.run(_main, plan_of(seed, folder), run, disk_kind(seed, run.count), clock=run.clock)
    except* AssertionError as broken:
        raise Broken(f"{_leaf(broken)}\nagain: python -m tests.simulation --seed {seed}", run) from broken
    finally:
        shutil.rmtree(folder)
    return run


async def _main(plan: Plan, run: Run, disk: SimulatedDisk) -> None:
    # Nobody connects: callers go through the intake. But what listens must have something to listen on.
    with trio.fail_after(STUCK_S), socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(plan.settings.data_dir / "socket"))
        listener.listen()
        await World(plan, run, disk, listener).take_its_course()


def _leaf(error: BaseException) -> BaseException:
    return _leaf(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


@contextmanager
def _determined(seed: int, log: Processor) -> Iterator[None]:
    """Let nothing decide but the seed."""
    held = scheduler._ALLOW_DETERMINISTIC_SCHEDULING  # noqa: SLF001 - trio has no public way
    state = scheduler._r.getstate()  # noqa: SLF001
    with locks_that_take_turns(catalog_module, open_journal_module), _small_bounds(), _without_garbage():
        scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]  # noqa: SLF001
        scheduler._r.seed(seed)  # noqa: SLF001
        structlog.configure(processors=[log], wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
        try:
            yield
        finally:
            structlog.reset_defaults()
            scheduler._ALLOW_DETERMINISTIC_SCHEDULING = held  # type: ignore[misc]  # noqa: SLF001
            scheduler._r.setstate(state)  # noqa: SLF001


def _log_into(run: Run, folder: str, _logger: WrappedLogger, level: str, fields: EventDict) -> EventDict:
    """Put a line of the daemon's log into the trace."""
    run.take_log(str(fields["event"]), str(fields.get("actor", "")))
    run.note(f"{level} {sorted(fields.items())}".replace(folder, "DATA"))
    raise structlog.DropEvent


@contextmanager
def _small_bounds() -> Iterator[None]:
    held = {module: {name: vars(module)[name] for name in names} for module, names in SMALL_BOUNDS.items()}
    _set(SMALL_BOUNDS)
    try:
        yield
    finally:
        _set(held)


def _set(values: Mapping[ModuleType, Mapping[str, int]]) -> None:
    for module, names in values.items():
        for name, value in names.items():
            setattr(module, name, value)


@contextmanager
def _without_garbage() -> Iterator[None]:
    """Collect none meanwhile: when that happens depends on what ran before, and it closes generators."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
