"""``python -m tests.loop``: the whole campaign, into docs/loop.md."""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from observer_actors import __version__
from tests.conftest import ROOT
from tests.loop.campaign import Plan, campaign, compared
from tests.loop.report import COMPARISONS, report

PAGE = ROOT / "docs" / "loop.md"


def main() -> int:
    """Return the exit status: 1 when what is promised was not seen."""
    parser = argparse.ArgumentParser(prog="python -m tests.loop", description="Prove the closed loop.")
    parser.add_argument("--tasks", type=int, default=20, help="tasks a tool (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=10, help="rounds with advice (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--to", type=Path, default=PAGE, metavar="FILE", help="the page (default: docs/loop.md)")
    given = parser.parse_args()
    plan = Plan(per_tool=given.tasks, rounds_on=given.rounds, seed=given.seed, rounds_later=2 * given.rounds)
    with tempfile.TemporaryDirectory() as directory:
        results = campaign(plan, Path(directory), say=lambda line: print(line, flush=True))
    facts = {"Python": platform.python_version(), "observer_actors": __version__}
    given.to.write_text(report(results, date=f"{datetime.now(UTC):%Y-%m-%d}", facts=facts), encoding="utf-8")
    broken = []
    for name, without, with_it in COMPARISONS:
        cured, others = (compared(results, name, without, with_it, curable=curable) for curable in (True, False))
        print(f"{name}: failures that can be known fall by {cured.fall:.0%} (P {cured.p:.2g})")
        print(f"{name}: the others fall by {others.fall:.0%} (P {others.p:.2g})")
        if others.broken > others.fixed and others.p < 0.05:
            broken.append(f"{name}: others got worse")
    if compared(results, "", "unseen, off", "unseen, on", curable=True).fall < 0.8:
        broken.append("unseen tasks: failures that can be known fall by less than 80 %")
    if results.reached:
        broken.append("poison reached an agent")
    print("\n".join(broken) or f"as promised; see {given.to}")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
