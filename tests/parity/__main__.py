"""`python -m tests.parity`: compare, print what was found, and exit with 1 when a difference has no name."""

import argparse
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Final

import trio

from tests.parity.bun import VERSION, Unavailable
from tests.parity.check import Options, Report, check
from tests.parity.compare import Difference
from tests.parity.daemon import COMMAND, ROOT
from tests.parity.named import NAMED, NOT_COMPARED
from tests.parity.program import ProgramFailed
from tests.parity.seed import seed_program

NO_SKIP_VARIABLE: Final = "OBSERVER_TEST_NO_SKIP"
SHOWN_CHARS_MAX: Final = 2_000


def main() -> int:
    """Return the exit code: 0 also when there is nothing to compare with, unless that is forbidden."""
    arguments = _parser().parse_args()
    began = time.monotonic()
    try:
        options = Options(
            program=seed_program(arguments.seed),
            bun_folder=arguments.bun_folder,
            command=shlex.split(arguments.daemon),
            examples=arguments.examples,
            random_seed=arguments.random_seed,
        )
        report = trio.run(check, options)
    except Unavailable as absent:
        print(f"parity: nothing was compared: {absent}")
        return int(os.environ.get(NO_SKIP_VARIABLE) == "1")
    except ProgramFailed as failed:
        print(f"parity: {failed}", file=sys.stderr)
        return 1
    _print(report, options, time.monotonic() - began)
    return int(bool(report.unnamed))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.parity", description="Compare this daemon with the program that it replaces."
    )
    parser.add_argument("--seed", type=Path, metavar="PATH", help="that program (default: seed/observer.ts, in "
                        "OBSERVER_SHARED or in the folder `shared` beside the repository)")  # fmt: skip
    parser.add_argument("--examples", type=int, default=300, metavar="N", help="bodies to make (default: %(default)s)")
    parser.add_argument("--random-seed", type=int, default=1, metavar="N", help="for making them (default: 1)")
    parser.add_argument("--bun-folder", type=Path, default=ROOT / ".parity", help="where Bun is kept between runs")
    parser.add_argument("--daemon", default=shlex.join(COMMAND), help="our command, up to its options")
    return parser


def _print(report: Report, options: Options, seconds: float) -> None:
    print(f"parity with {options.program} under Bun {VERSION}, {seconds:.1f} s")
    print(
        f"{report.bodies:8,}  bodies by themselves, {options.examples:,} of them made from seed {options.random_seed}"
    )
    print(f"{report.in_step:8,}  events in step, with {report.looks:,} looks at /stats, /health and other paths")
    print(f"{report.fields:8,}  fields compared")
    print("\nwanted differences, by name (the contract's row):")
    for entry in NAMED:
        print(f"{report.named[entry.name]:8,}  {entry.name}\n{'':10}{entry.row}")
    print("\nnot compared here, since no cycle runs:", *NOT_COMPARED, sep=f"\n{'':10}")
    print(f"\n{len(report.unnamed):8,}  differences without a name")
    for difference in report.unnamed:
        print(shown(difference))


def shown(difference: Difference) -> str:
    """Return a difference in full, as lines of a report."""
    pair, exchange = difference.pair, difference.exchange
    lines = [f"\n{pair.field}", f"    seed  {_cut(repr(pair.seed))}", f"    ours  {_cut(repr(pair.ours))}"]
    if exchange is not None:
        lines += [
            f"    after {exchange.body.label}",
            f"    body  {_cut(repr(exchange.body.content))}",
            f"    ours answered {exchange.ours.status} {_cut(repr(exchange.ours.answer))}",
        ]
    return "\n".join(lines)


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS_MAX else f"{text[:SHOWN_CHARS_MAX]}… ({len(text):,} characters)"


if __name__ == "__main__":
    sys.exit(main())
