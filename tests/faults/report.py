"""docs/reliability.md: pure. Every number comes from the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from tests.faults.campaign import Result, replay_command
from tests.faults.scenario import Scenario, Seen, summed

HEAD: Final = """# Reliability

Written by `make faults` (see `tests/faults/`), not by hand. {date}, seed {seed}.

The real daemon runs as a process; six callers send single events and batches as fast as they are answered, half of them
send again, with the same ids, what was not acknowledged. Segments are sealed and compacted about every fifty ops.
Meanwhile the system does to it what stands in the first column. Afterwards the journal is read from its files, and held
against everything that any caller was ever told. A round that fails prints the command that runs it again.
SIGKILL leaves what was written in the system's cache: what a power failure leaves is tried on a simulated disk
(`tests/journal/test_model.py`).
"""


def report(
    scenarios: Sequence[Scenario], results: Sequence[Result], *, date: str, seed: int, facts: Mapping[str, str]
) -> str:
    """Write the whole page."""
    pairs = list(zip(scenarios, results, strict=True))
    total = summed([seen for result in results for seen in result.kept])
    parts = [
        HEAD.format(date=date, seed=seed),
        _verdict(results, total),
        "\n".join(_summary(pairs)),
        *(_section(scenario, result) for scenario, result in pairs),
        "## Machine and versions\n\n" + "\n".join(f"* {name}: {fact}" for name, fact in facts.items()),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _verdict(results: Sequence[Result], total: Seen) -> str:
    broken = sum(len(result.broken) for result in results)
    rounds = sum(len(result.kept) + len(result.broken) for result in results)
    kept = "every promise was kept" if not broken else f"**in {broken} of them a promise was not kept**"
    return (
        f"{rounds:,} rounds, {total.faults:,} faults, {total.starts:,} starts, {total.acknowledged:,} ops acknowledged:"
        f" {kept}. The longest start took {total.ready_s_max:.1f} s."
    )


def _summary(pairs: Sequence[tuple[Scenario, Result]]) -> list[str]:
    lines = ["| fault | rounds | injected | ops acknowledged | kept? |", "| --- | ---: | ---: | ---: | --- |"]
    for scenario, result in pairs:
        seen = summed(result.kept)
        lines.append(
            f"| [{scenario.fault}](#{scenario.name}) | {len(result.kept) + len(result.broken)} | {seen.faults:,} "
            f"| {seen.acknowledged:,} | {_kept(result)} |"
        )
    return lines


def _kept(result: Result) -> str:
    if result.unavailable:
        return "not run"
    return f"**not in {len(result.broken)} rounds**" if result.broken else "yes"


def _section(scenario: Scenario, result: Result) -> str:
    lines = [
        f"## {scenario.name}",
        "",
        f"* The fault: {scenario.fault}.",
        f"* Injected by: {scenario.injected_by}.",
        f"* Promised: {scenario.promised}.",
        f"* Seen: {_seen(result)}",
    ]
    remarks = summed(result.kept).remarks
    lines += [f"    * {remark}: {count:,}" for remark, count in sorted(remarks.items())]
    lines += [f"* Not kept: `{replay_command(round_)}`" for round_ in result.broken]
    return "\n".join(lines)


def _seen(result: Result) -> str:
    if result.unavailable:
        return f"nothing, for it was not run: {result.unavailable}"
    seen = summed(result.kept)
    refused = {status: count for status, count in sorted(seen.answers.items()) if status != 200}
    said = [
        f"{seen.faults:,} faults in {len(result.kept)} rounds ({result.seconds:,.0f} s)",
        f"{seen.starts:,} starts, the longest {seen.ready_s_max:.1f} s",
        f"{seen.acknowledged:,} ops acknowledged",
        f"{seen.unanswered:,} ops without an answer",
    ]
    said += [f"{count:,} answers of {status}" for status, count in refused.items()]
    if seen.recovered_s_max:
        said.append(f"acknowledged again {seen.recovered_s_max:.2f} s after the fault, at most")
    return "; ".join(said) + "."
