"""`python -m tests.faults`: the whole campaign, a part of it, or one round again; writes docs/reliability.md."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
import trio

from tests.conftest import ROOT
from tests.faults.campaign import EXIT_UNAVAILABLE, Result, run_rounds
from tests.faults.report import report
from tests.faults.scenario import ROUND_SECONDS_MAX, Scenario, Unavailable
from tests.faults.table import SCENARIOS
from tests.faults.trial import Trial
from tests.machine import disk_folder, machine, versions

REPORT: Final = ROOT / "docs" / "reliability.md"


def main() -> int:
    """Return the exit status: 1 when a promise was not kept."""
    arguments = _parser().parse_args()
    chosen = [scenario for scenario in SCENARIOS if not arguments.only or scenario.name in arguments.only]
    if not chosen:
        sys.exit(f"no such fault; there are: {', '.join(scenario.name for scenario in SCENARIOS)}")
    folder = disk_folder(arguments.folder)
    if arguments.repeats is not None:
        return _one_round(chosen[0], arguments.seed, arguments.repeats, folder)
    return _campaign(chosen, arguments, folder)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Inject faults into the real daemon.")
    add = parser.add_argument
    add("--only", action="append", metavar="NAME", help=f"one fault: {', '.join(one.name for one in SCENARIOS)}")
    add("--seed", type=int, default=1, metavar="N", help="decides what is chosen at random (default: %(default)s)")
    add("--share", type=float, default=1.0, metavar="X", help="of the rounds of a whole campaign (default: all)")
    add("--jobs", type=int, default=2, metavar="N", help="rounds at the same time (default: %(default)s)")
    add("--repeats", type=int, metavar="N", help="run one round of one fault with so many injections, and no more")
    add("--folder", type=Path, metavar="DIR", help="where the data directories lie: on a real disk")
    add("--keep", type=Path, metavar="FILE", help="keep results there, and run none again that has been kept")
    add(
        "--report",
        type=Path,
        metavar="FILE",
        help="where the report goes (default: docs/reliability.md)",
    )
    return parser


def _one_round(scenario: Scenario, seed: int, repeats: int, folder: Path) -> int:
    """Run a round here, and print what it has shown as JSON; its folder stays when the promise is not kept."""
    place = Path(tempfile.mkdtemp(prefix=f"{scenario.name}-", dir=folder))
    print(f"{scenario.name}, seed {seed}: in {place}")
    trial = Trial(place, seed, repeats)
    absent = ""
    try:
        trio.run(_run_in_time, scenario, trial)
    except* Unavailable as error:
        absent = str(error.exceptions[0])
    if absent:
        print(absent)
        return EXIT_UNAVAILABLE
    shutil.rmtree(place)
    print(msgspec.json.encode(trial.seen()).decode())
    return 0


async def _run_in_time(scenario: Scenario, trial: Trial) -> None:
    with trio.fail_after(ROUND_SECONDS_MAX):
        await scenario.run(trial)


def _run_all(scenario: Scenario, arguments: argparse.Namespace, folder: Path) -> Result:
    return run_rounds(
        scenario, seed=arguments.seed, share=arguments.share, jobs=arguments.jobs, folder=folder, say=print
    )


def _kept(file: Path | None) -> dict[str, Result]:
    """Give the results of a campaign that was broken off, but for what has to be run again."""
    if file is None or not file.exists():
        return {}
    results = msgspec.json.decode(file.read_bytes(), type=list[Result])
    return {result.scenario: result for result in results if not result.broken and not result.unavailable}


def _campaign(chosen: list[Scenario], arguments: argparse.Namespace, folder: Path) -> int:
    date = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    facts = {**machine(folder), **versions({})}
    earlier = _kept(arguments.keep)
    results: list[Result] = []
    for scenario in chosen:
        print(f"{scenario.name} …", flush=True)
        results.append(earlier.get(scenario.name) or _run_all(scenario, arguments, folder))
        if arguments.keep is not None:
            kept = {**earlier, **{result.scenario: result for result in results}}
            arguments.keep.write_bytes(msgspec.json.encode(list(kept.values())))
    text = report(chosen, results, date=date, seed=arguments.seed, facts=facts)
    is_whole = len(chosen) == len(SCENARIOS) and arguments.share >= 1
    target = arguments.report or (REPORT if is_whole else None)
    if target is None:
        print(text)
    else:
        target.write_text(text, encoding="utf-8")
    return int(any(result.broken for result in results))


if __name__ == "__main__":
    sys.exit(main())
