"""docs/loop.md: pure. Every number comes from the results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from observer_actors.playbook import State
from tests.loop.campaign import LATER_OFF, LATER_ON, Comparison, Results, compared
from tests.loop.world import TOOLS

HEAD: Final = """# The closed loop, measured

Written by `make loop` (see `tests/loop/`), not by hand. {date}, seed {seed}.

A simulated fleet works on {tasks} tasks with {tools} tools, in {roles} roles, and reports to the real daemon over
HTTP: every call, and an outside checker's verdict on each run. Four of the tools fail for reasons that can be known
(a form of dates, the right key, a unit, a step that has to come before); three for reasons that cannot (a partner that
is down, scans that cannot be read, drafts that look well and are not). Agents know nothing but what they first think
of, which is the same with and without advice. An agent that asks reads the Markdown that `GET /advice` answers, as it
would stand in a prompt, and takes from its words what to do (`tests/loop/reading.py`); no other way leads from the
playbook to it.
"""
COMPARISONS: Final = (
    ("first time", "off 1", "on 1"),
    ("second time", "off 2", "on 2"),
    ("unseen tasks", "unseen, off", "unseen, on"),
    ("unseen tasks, empty playbook", "unseen, off", "unseen, empty playbook"),
)


def report(results: Results, *, date: str, facts: Mapping[str, str]) -> str:
    """Write the whole page."""
    roles = {role for tool in TOOLS.values() for role in tool.roles}
    head = HEAD.format(
        date=date,
        seed=results.plan.seed,
        tasks=2 * results.plan.per_tool * len(TOOLS),
        tools=len(TOOLS),
        roles=len(roles),
    )
    parts = [
        head,
        _compared(results),
        _by_tool(results),
        _entries(results.entries),
        *_changed(results),
        _first_help(results),
        _poison(results),
        "## Machine and versions\n\n" + "\n".join(f"* {name}: {fact}" for name, fact in facts.items()),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _compared(results: Results) -> str:
    rows = [
        _row(kind, compared(results, name, without, with_it, curable=curable))
        for kind, curable in (("can be known", True), ("cannot", False))
        for name, without, with_it in COMPARISONS
    ]
    return "\n".join(
        [
            "## With advice and without",
            "",
            "Task by task: *fixed* failed without and succeeded with advice, *broken* the other way round. P is",
            "McNemar's exact test, two-sided. With advice on, the control is in: half of the runs of a candidate, and",
            "a tenth of those of an active entry. The first time the playbook is new, and its entries are candidates.",
            "",
            "| failures that | compared | runs | failed without | failed with | fall | fixed | broken | P |",
            "|---|---|---:|---:|---:|---:|---:|---:|---:|",
            *rows,
        ]
    )


def _row(kind: str, found: Comparison) -> str:
    fall = f"{found.fall:.0%}" if found.failed_without else ""
    return (
        f"| {kind} | {found.name} | {found.tasks:,} | {found.failed_without:,} | {found.failed_with:,} | {fall} "
        f"| {found.fixed:,} | {found.broken:,} | {found.p:.2g} |"
    )


def _by_tool(results: Results) -> str:
    lines = ["## By tool", "", "Failed runs of all.", "", f"| tool | what goes wrong | {' | '.join(results.arms)} |"]
    lines.append(f"|---|---|{'---:|' * len(results.arms)}")
    for tool in TOOLS.values():
        cells = []
        for arm in results.arms.values():
            of_tool = [episode for episode in arm.episodes if episode.task.tool == tool.name]
            cells.append(f"{sum(not episode.done for episode in of_tool):,} of {len(of_tool):,}")
        lines.append(f"| `{tool.name}` | {tool.failure} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _entries(entries: Iterable[Mapping[str, Any]]) -> str:
    entries = list(entries)
    tried = [entry for entry in entries if _runs_of(entry)]
    states = Counter(entry["state"] for entry in entries if entry["corroborated"])
    alone = sum(not entry["corroborated"] for entry in entries)
    stand = ", ".join(f"{states[state]:,} {state}" for state in State)
    lines = [
        "## Entries",
        "",
        f"{len(entries):,} entries: {stand}, and {alone:,} for which no second source or run speaks: nobody is told",
        f"of them. {len(tried):,} were tried; these are all of them, the most used first. What one became active by",
        "is beside its state: after that a new trial has begun, with a tenth of the runs as control.",
        "",
        "| entry | state | with it | without | lift, 95 % | fixed | broken |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for entry in sorted(tried, key=_runs_of, reverse=True):
        trial = entry["trial"]
        lines.append(
            f"| {entry['kind']}: {_cell(entry['text'])} | {entry['state']}{_decided(entry)} | {_rate(trial['exposed'])}"
            f" | {_rate(trial['control'])} | {_lift(entry['lift'])} | {trial['fixed']:,} | {trial['broken']:,} |"
        )
    return "\n".join(lines)


def _runs_of(entry: Mapping[str, Any]) -> int:
    """Give the runs of its present trial, and of the one that has led there."""
    return sum(_total(entry[trial][arm]) for trial in ("trial", "decided_by") for arm in ("exposed", "control"))


def _decided(entry: Mapping[str, Any]) -> str:
    """Say by which runs its trial has come to its state; the others are of the trial that began then."""
    by = entry["decided_by"]
    rates = [_rate(by[arm]) for arm in ("exposed", "control")]
    return f" by {rates[0]} with it, {rates[1]} without" if any(map(_total, by.values())) else ""


def _total(arm: Mapping[str, int]) -> int:
    return arm["succeeded"] + arm["failed"]


def _rate(arm: Mapping[str, int]) -> str:
    return f"{arm['succeeded']:,} of {_total(arm):,}"


def _lift(found: Mapping[str, Any]) -> str:
    if found["estimate"] is None:
        return ""
    return f"{found['estimate']:+.2f} ({found['low']:+.2f} to {found['high']:+.2f})"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _changed(results: Results) -> list[str]:
    """Say what comes of advice that was true once."""
    if LATER_ON not in results.arms:
        return []
    without, with_it = (results.arms[name].episodes for name in (LATER_OFF, LATER_ON))
    lines = [
        "## When the world changes",
        "",
        "The rule of `geo:route` turns into its opposite: the unit that worked fails, and one that failed works.",
        f"Without advice {sum(not one.done for one in without):,} of {len(without):,} runs fail. With it, in the order",
        "in which they came:",
        "",
        "| runs | failed | that did what they had read |",
        "|---|---:|---:|",
    ]
    for at in range(0, len(with_it), 100):
        part = with_it[at : at + 100]
        failed, followed = sum(not one.done for one in part), sum(one.followed for one in part)
        lines.append(f"| {at + 1:,} to {at + len(part):,} | {failed:,} of {len(part):,} | {followed:,} |")
    return ["\n".join(lines)]


def _first_help(results: Results) -> str:
    lines = [
        "## From the first failure to help",
        "",
        "On a fresh daemon, with agents that ask from their first run on: from a tool's first failure to the first run",
        "that did what advice said and succeeded at once.",
        "",
        "| tool | runs of the tool | seconds |",
        "|---|---:|---:|",
    ]
    for tool, found in results.first_help.items():
        lines.append(f"| `{tool}` | {found[0]:,} | {found[1]:.1f} |" if found else f"| `{tool}` | none came | |")
    return "\n".join(lines)


def _poison(results: Results) -> str:
    asked = sum(bool(episode.advice) for arm in results.arms.values() for episode in arm.episodes)
    return (
        "## Poison\n\n"
        f"One source reported {results.poisoned:,} events that never were: successes of its own input at every tool,"
        " orders hidden in errors, a tool that it invented, and the opposite of what is true in the tools' own words,"
        " two thirds of them under the names of the fleet's own runs, as they were or are to come."
        f" Of {asked:,} answers with advice {len(results.reached):,} hold a word of it."
    )
