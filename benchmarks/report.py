"""What is written. Pure: every number comes from the results, and every sentence about them from a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from benchmarks.contest import Contest, Figure
from benchmarks.results import Results, Spread
from benchmarks.targets import TARGETS, judge

_ABSENT = "—"
_TO = "\u2013"
_NO_NOTES = (
    "What was tried for each missed target, and where the time goes, stands in `benchmarks/notes.md`: it was written"
    " about whole runs, and this is none."
)


def report(results: Results, contests: Sequence[Contest], notes: str) -> str:
    """Write the whole page.

    :param notes: written by hand about whole runs: into the report of one they are taken over as they are, and for any
        other they are "".
    """
    is_whole = bool(notes)
    parts = [
        _head(results, is_whole=is_whole),
        _targets(results),
        notes.strip() if is_whole else _NO_NOTES,
        _surroundings(results),
        *(_contest(contest, results) for contest in contests if contest.name in results.measured),
        _commands(results),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(results: Results, *, is_whole: bool) -> str:
    rounds = "one round" if results.rounds == 1 else f"{results.rounds} rounds"
    how = (
        f"{results.date}. Contestants in turn, {rounds}; a load is sent for about {results.seconds:g} s, after a"
        " warm-up by the same, with `wrk -t1`; unless a table says otherwise. Each server is started afresh, with an"
        " empty data directory or a copy of the full journal's; everything is on one machine, the load generator"
        " included, over the loopback interface. Shown is the median over the rounds, and where it matters"
        f" (lowest{_TO}highest). A ratio is the median of the same rounds' quotients. Only 2xx answers count."
    )
    if results.is_quick:
        how += " **This was a quick run: it shows that the benchmark runs, and its figures mean little.**"
    by_hand = "; by hand only what follows the first table, in `benchmarks/notes.md`" if is_whole else ""
    command = f"\n\nBy `{results.command}`." if results.command else ""
    return f"# Benchmarks\n\nWritten by `make bench` (see `benchmarks/`){by_hand}.{command}\n\n{how}"


def _targets(results: Results) -> str:
    judged = [judge(target, results) for target in TARGETS]
    rows = [[one.target.what, one.target.wanted, one.measured, one.verdict] for one in judged]
    return "## Targets\n\n" + _table(["what", "target", "measured", "met?"], rows)


def _surroundings(results: Results) -> str:
    lines = ["## Machine, versions, and who is absent", "", *_list(results.machine), "", *_list(results.versions)]
    absent = [f"* {name}: {why}" for name, why in results.absent.items()]
    remarks = [f"* {remark}" for remark in results.remarks]
    failed = "; ".join(results.failed())
    lacking = [f"Without figures, in one round or more (why stands below): {failed}."] if failed else []
    lines += ["", "Absent:", "", *absent, "", *lacking] if absent else ["", " ".join(["Absent: no one.", *lacking])]
    lines += ["", "What else must be known:", "", *remarks] if remarks else []
    return "\n".join(lines)


def _contest(contest: Contest, results: Results) -> str:
    measured = results.measured[contest.name]
    figures = [figure for figure in contest.figures if _is_there(results, contest, figure)]
    head = [contest.name, *(figure.label for figure in figures)]
    rows = [[name, *(_cell(results.spread(contest.name, name, f.name), f) for f in figures)] for name in measured]
    if contest.against in measured:
        head.insert(2, f"× {contest.against}")
        for row, name in zip(rows, measured, strict=True):
            row.insert(2, _ratio_cell(results.ratio(contest.name, name, (contest.against,), contest.main.name)))
    return f"## {contest.title}\n\n{contest.text}\n\n{_table(head, rows)}"


def _is_there(results: Results, contest: Contest, figure: Figure) -> bool:
    """Leave out a column in which nobody has anything, but never the first."""
    return figure is contest.main or any(
        results.spread(contest.name, contestant, figure.name) for contestant in results.measured[contest.name]
    )


def _cell(found: Spread | None, figure: Figure) -> str:
    if found is None:
        return _ABSENT
    middle = figure.form.format(found.median)
    if not figure.ranged or found.count == 1:
        return middle
    return f"{middle} ({figure.form.format(found.low)}{_TO}{figure.form.format(found.high)})"


def _ratio_cell(found: Spread | None) -> str:
    if found is None:
        return _ABSENT
    if found.count == 1:
        return f"{found.median:.2f}"
    return f"{found.median:.2f} ({found.low:.2f}{_TO}{found.high:.2f})"


def _commands(results: Results) -> str:
    lines = [f"{name}:\n\n    {command}\n" for name, command in results.commands.items()]
    text = "DIR is a fresh folder on the disk named above; ports, counts and rates are those of the first use."
    return f"## Commands\n\n{text}\n\n" + "\n".join(lines).rstrip() if lines else ""


def _list(facts: Mapping[str, str]) -> Iterator[str]:
    return (f"* {name}: {fact}" for name, fact in facts.items())


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
