"""The run: every body by itself, then those that both took once more in step, with `/stats` and `/health`."""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import cycle, islice
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import trio

from tests.parity.bodies import Body, written
from tests.parity.bun import installed_bun
from tests.parity.compare import RING_OPS, Difference, Pair, differences, exchange_pairs, look_pairs
from tests.parity.daemon import COMMAND, running_daemon
from tests.parity.gateway import running_gateway
from tests.parity.made import made
from tests.parity.named import name_of, unpaid
from tests.parity.program import Program
from tests.parity.seed import exit_code_without_gateway, running_seed
from tests.parity.side_by_side import SideBySide, side_by_side

LOOKS: Final = (("GET", "/health"), ("GET", "/stats"))
ELSEWHERE: Final = (
    ("GET", "/nowhere"),
    ("GET", "/event"),
    ("PUT", "/event"),
    ("POST", "/event/"),
    ("POST", "/health"),
    ("POST", "/stats"),
    ("DELETE", "/stats"),
    ("GET", "/health/"),
    ("GET", "/health?verbose=1"),
)
"""Other requests: the contract answers 404 to all but the last."""

LOOK_EVERY: Final = 100
LOOK_AT_FIRST: Final = 12
"""One look after each of the first posts: `recent_scenario_ops` fills up to 10."""


@dataclass(frozen=True)
class Options:
    """What to run, and how much of it."""

    program: Path
    bun_folder: Path
    command: Sequence[str] = COMMAND
    examples: int = 300
    random_seed: int = 1


@dataclass
class Report:
    """What came of a run."""

    bodies: int = 0
    in_step: int = 0
    looks: int = 0
    fields: int = 0
    named: Counter[str] = field(default_factory=Counter)
    unnamed: list[Difference] = field(default_factory=list)

    def take(self, pairs: list[Pair], found: list[Difference]) -> set[str | None]:
        """Count what was compared, and file each difference; return the names that applied."""
        self.fields += len(pairs)
        names: set[str | None] = set()
        for difference in found:
            name = name_of(difference)
            names.add(name)
            if name is None:
                self.unnamed.append(difference)
            else:
                self.named[name] += 1
        return names


async def check(options: Options) -> Report:
    """Run both programs and compare them.

    :raises Unavailable: Bun cannot be had on this machine.
    :raises ProgramFailed: one of the two does not run.
    """
    bun = await installed_bun(options.bun_folder)
    report = Report()
    bodies = [*written(), *made(options.examples, seed=options.random_seed)]
    async with _pair(bun, options) as (seed, ours):
        await _compare_starts(report, await exit_code_without_gateway(bun, options.program), seed, ours)
        async with side_by_side(seed, ours) as both:
            taken = await _compare_each(report, both, bodies)
    async with _pair(bun, options) as (seed, ours), side_by_side(seed, ours) as both:
        await _compare_in_step(report, both, taken)
    return report


@asynccontextmanager
async def _pair(bun: Path, options: Options) -> AsyncIterator[tuple[Program, Program]]:
    with running_gateway() as gateway:
        async with (
            running_seed(bun, options.program, gateway_url=gateway.url) as seed,
            running_daemon(options.command) as ours,
        ):
            yield seed, ours


async def _compare_starts(report: Report, exit_code: int, seed: Program, ours: Program) -> None:
    log = await trio.Path(seed.log).read_text(encoding="utf-8")
    bound = log.partition("bound to ")[2].partition(":")[0]
    pairs = [
        Pair("address", bound, urlsplit(ours.base_url).hostname),
        Pair("without a gateway", f"exits with {exit_code}", "runs"),  # ours has none in this whole run
    ]
    report.take(pairs, differences(pairs))


async def _compare_each(report: Report, both: SideBySide, bodies: list[Body]) -> list[Body]:
    """Compare body by body, and return those of which each side made one line."""
    taken: list[Body] = []
    for body in bodies:
        exchange = await both.post(body)
        pairs = exchange_pairs(exchange)
        names = report.take(pairs, differences(pairs, exchange))
        report.unnamed.extend(unpaid(exchange, names))
        report.bodies += 1
        if len(exchange.seed.lines) == len(exchange.ours.lines) == 1 and "id" not in exchange.event:
            taken.append(body)
    return taken


async def _compare_in_step(report: Report, both: SideBySide, bodies: list[Body]) -> None:
    """Post the same ops to both, until both rings have overflowed; look at them again and again."""
    began = datetime.now(UTC)
    await _look(report, both, began)
    for number, body in enumerate(islice(cycle(bodies), RING_OPS + LOOK_EVERY), start=1):
        sides = await both.post_only(body)
        sizes = [side.answer.get("ring_size") if isinstance(side.answer, dict) else side for side in sides]
        pair = Pair("answer.ring_size, in step", *sizes)
        report.take([pair], differences([pair]))
        report.in_step += 1
        if number <= LOOK_AT_FIRST or number % LOOK_EVERY == 0:
            await _look(report, both, began)
    pair = Pair("lines of the file", *await both.lines(report.in_step))
    report.take([pair], differences([pair]))


async def _look(report: Report, both: SideBySide, began: datetime) -> None:
    for method, path in (*LOOKS, *(ELSEWHERE if not report.looks else ())):
        seed, ours = await both.look(method, path)
        name = path if method == "GET" else f"{method} {path}"
        pairs = look_pairs(name, seed, ours, began=began, ended=datetime.now(UTC))
        report.take(pairs, differences(pairs))
        report.looks += 1
