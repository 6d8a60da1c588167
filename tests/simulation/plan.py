"""What a seed decides: settings, callers, and what happens to the daemon when. Values only."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from observer_actors.settings import (
    AdmissionSettings,
    CycleSettings,
    GatewaySettings,
    JournalSettings,
    ListenSettings,
    ModelSettings,
    Settings,
    SupervisionSettings,
)
from tests.fakes.disk import Kind
from tests.simulation.callers import Habits
from tests.simulation.network import GATEWAY, MODEL, Manners

TROUBLE_S_MAX: Final = 20.0
"""Virtual seconds in which faults happen."""
KINDS: Final[tuple[Kind, ...]] = (
    "write", "datasync", "truncate", "rename", "remove", "sync_directory", "open_append", "read", "list",
)  # fmt: skip
CODES: Final = (errno.EIO, errno.EIO, errno.ENOSPC, errno.EROFS)


@dataclass(frozen=True)
class Fault:
    """Something that happens at a time, in virtual seconds."""

    at_s: float


@dataclass(frozen=True)
class DiskFault(Fault):
    """Something that happens to the disk."""


@dataclass(frozen=True)
class DiskFails(DiskFault):
    """So many calls of a kind fail, after so many that do not."""

    kind: Kind
    after: int
    times: int
    code: int


@dataclass(frozen=True)
class DiskFull(DiskFault):
    """So many bytes more fit."""

    room_bytes: int


@dataclass(frozen=True)
class DiskShort(DiskFault):
    """Writes take a part only."""


@dataclass(frozen=True)
class DiskSlow(DiskFault):
    """Each call of the disk takes so long on average."""

    mean_s: float


@dataclass(frozen=True)
class DiskHangs(DiskFault):
    """The next calls of the disk take until then, at least."""

    until_s: float


@dataclass(frozen=True)
class DiskDefect(DiskFault):
    """After so many calls of the disk one raises what no one has foreseen."""

    after: int


@dataclass(frozen=True)
class DiskHeals(DiskFault):
    """All that is wrong with the disk is over."""


@dataclass(frozen=True)
class ClockJumps(Fault):
    """The time of day, not the passing of time."""

    seconds: float


@dataclass(frozen=True)
class PeerTurns(Fault):
    """The gateway or the model changes its manners."""

    peer: str
    manners: Manners


@dataclass(frozen=True)
class Die(Fault):
    """The process is ended: ``stop`` lets it drain, ``kill`` does not, ``power`` takes the disk's memory too.

    :param after_calls: of the disk, from ``at_s`` on, so that it falls between any two of them.
    """

    how: str
    after_calls: int


@dataclass(frozen=True)
class Plan:
    """One run."""

    seed: int
    settings: Settings
    callers: tuple[Habits, ...]
    faults: tuple[Fault, ...]
    trouble_s: float
    """When all is well again."""
    crash_chance: dict[str, float] = field(default_factory=dict)
    """Actor -> the chance that a step of it crashes, until then."""
    pause_s: float = 0.001
    """The mean time that a call of a healthy disk takes."""


def plan_of(seed: int, data_dir: Path) -> Plan:
    """Decide."""
    chance = Random(f"{seed} plan")
    trouble_s = chance.uniform(5, TROUBLE_S_MAX)
    severity = chance.choice((0.0, 0.5, 1.0, 1.0, 2.0))
    count = round(severity * chance.randint(2, 12))
    faults = sorted((_fault(chance, chance.uniform(0, trouble_s)) for _ in range(count)), key=lambda fault: fault.at_s)
    return Plan(
        seed=seed,
        settings=_settings(chance, data_dir),
        callers=tuple(_habits(chance, number) for number in range(chance.randint(1, 4))),
        faults=tuple(faults),
        trouble_s=trouble_s,
        crash_chance=_crash_chance(chance, severity),
        pause_s=chance.choice((0.0, 0.0005, 0.002, 0.01)),
    )


def _settings(chance: Random, data_dir: Path) -> Settings:
    return Settings(
        data_dir=data_dir,
        listen=ListenSettings(tcp=False),
        journal=JournalSettings(
            segment_bytes_max=chance.choice((1_500, 4_000, 12_000)),
            segment_seconds_max=chance.choice((10.0, 3_600.0)),
            compress=chance.random() < 0.7,
            batch_ops_max=chance.choice((3, 20, 10_000)),
        ),
        admission=AdmissionSettings(
            waiting_ops_max=chance.choice((5, 20, 50_000)),
            waiting_bytes_max=chance.choice((1_000, 5_000, 1_000_000)),
            wait_seconds_max=chance.choice((1.0, 5.0)),
        ),
        cycle=CycleSettings(seconds=chance.choice((0.5, 2.0)), consolidate_every=chance.choice((1, 2))),
        gateway=GatewaySettings(
            url=GATEWAY, timeout_seconds=2, outbox_max=chance.choice((3, 1_000)), retry_seconds_max=4
        ),
        model=ModelSettings(lakehouse_url=MODEL, timeout_seconds=3),
        supervision=SupervisionSettings(backoff_seconds_first=0.2, backoff_seconds_max=2, park_seconds=5),
    )


def _habits(chance: Random, number: int) -> Habits:
    return Habits(
        retries=number % 2 == 0,
        pace_s=chance.choice((0.1, 0.5, 2.0)),
        impatience=chance.choice((0.0, 0.0, 0.1, 0.4)),
        poison=chance.choice((0.0, 0.0, 0.0, 0.01)),
    )


def _crash_chance(chance: Random, severity: float) -> dict[str, float]:
    """A few actors crash now and then, or many of them seldom."""
    names = (
        "persister", "ring_keeper", "stats", "archivist", "analyzer", "consolidator", "courier", "ingest",
        "librarian",
    )  # fmt: skip
    if not severity or chance.random() < 0.3:
        return {}
    return {name: chance.choice((0.002, 0.01, 0.05)) * severity for name in names if chance.random() < 0.4}


def _fault(chance: Random, at_s: float) -> Fault:
    peer = chance.choice((GATEWAY, MODEL))
    choices: list[Fault] = [
        DiskFails(
            at_s, chance.choice(KINDS), chance.randrange(6), chance.choice((1, 1, 2, 5, 100)), chance.choice(CODES)
        ),
        DiskFails(
            at_s, chance.choice(("write", "datasync")), chance.randrange(6), chance.choice((1, 2, 20)), errno.EIO
        ),
        DiskFull(at_s, chance.randrange(2_000)),
        DiskShort(at_s),
        DiskSlow(at_s, chance.choice((0.005, 0.05, 0.5))),
        DiskHangs(at_s, at_s + chance.expovariate(0.3)),
        DiskDefect(at_s, chance.randint(1, 12)),
        DiskHeals(at_s),
        DiskHeals(at_s),
        ClockJumps(at_s, chance.choice((-1, 1)) * chance.choice((0.5, 60, 86_400))),
        PeerTurns(at_s, peer, chance.choice(list(Manners))),
        Die(at_s, "stop", 0),
        Die(at_s, "kill", chance.randint(0, 12)),
        Die(at_s, "power", chance.randint(0, 12)),
        Die(at_s, "power", chance.randint(0, 12)),
    ]
    return chance.choice(choices)
