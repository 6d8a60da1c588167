"""``python -m tests.simulation``: run many seeds, or one again."""

from __future__ import annotations

import argparse
import faulthandler
import sys
import time
from collections import Counter
from pathlib import Path

from tests.simulation.run import Broken, Run
from tests.simulation.simulate import simulate

RUN_S_MAX = 60.0
"""Real seconds after which a run shows where it stands, and ends: it has no end. One takes a second, or a few
on a busy machine."""
PROGRESS_S = 10.0


def main() -> int:
    """Return the exit status: 1 when a promise was not kept."""
    arguments = _parser().parse_args()
    if arguments.seed is not None:
        return _one(arguments.seed, arguments.trace)
    return _many(range(arguments.first, arguments.first + arguments.seeds))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="Simulate the daemon in trouble.")
    add = parser.add_argument
    add("--seeds", type=int, default=1_000, metavar="N", help="how many seeds (default: %(default)s)")
    add("--first", type=int, default=1, metavar="K", help="the first of them (default: %(default)s)")
    add("--seed", type=int, metavar="K", help="run this one, and no other")
    add("--trace", type=Path, metavar="FILE", help="with --seed: write down all that happened")
    return parser


def _one(seed: int, trace: Path | None) -> int:
    faulthandler.dump_traceback_later(RUN_S_MAX, exit=True)
    status = 0
    try:
        run = simulate(seed)
    except Broken as broken:
        run, status = broken.run, 1
        print(f"seed {seed}: {broken}")
    if trace is not None:
        trace.write_text("\n".join(run.trace) + "\n", encoding="utf-8")
    print(f"seed {seed}: {len(run.trace)} lines, digest {run.digest}, {dict(sorted(run.counts.items()))}")
    return status


def _many(seeds: range) -> int:
    total: Counter[str] = Counter()
    broken: list[int] = []
    slowest = Run(0)
    began = told = time.monotonic()
    for seed in seeds:
        if time.monotonic() - told >= PROGRESS_S:
            told = time.monotonic()
            print(f"seed {seed} of {seeds.stop - 1}, {len(broken)} broken", file=sys.stderr, flush=True)
        faulthandler.dump_traceback_later(RUN_S_MAX, exit=True)
        try:
            run = simulate(seed)
        except Broken as error:
            print(f"seed {seed}: {error}", flush=True)
            broken.append(seed)
            continue
        total.update(run.counts)
        slowest = max(slowest, run, key=lambda one: one.seconds)
    seconds = time.monotonic() - began
    print(f"{len(seeds)} seeds in {seconds:.0f} s, {len(broken)} broken: {broken}")
    print(f"the longest recovery took {slowest.seconds:.1f} virtual seconds (seed {slowest.seed})")
    print(", ".join(f"{name}: {count:,}" for name, count in sorted(total.items())))
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
