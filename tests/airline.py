"""`python -m tests.airline DATA`: the table of `docs/airline.md`, the playbook of real events held against their file.

DATA is the folder that holds `taubench_airline_ops.jsonl`. Only one source reports there, so one is enough. What an
entry says is counted once more, from the lines of the file, by code that has nothing of the playbook's.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from observer_actors.event import EventDecoder
from observer_actors.playbook import Corroboration, Entry, Kind
from tests.playbook_ops import fold, numbered

PAGE: Final = Path(__file__).parents[1] / "docs" / "airline.md"
TABLE: Final = re.compile(r"^\| entry \|.*?\n(?=\n)", re.DOTALL | re.MULTILINE)
FILE: Final = "taubench_airline_ops.jsonl"
ONE_SOURCE: Final = Corroboration(runs_min=2, sources_min=1)
_HOLE: Final = re.compile(r"<\w+>")


@dataclass(frozen=True)
class Recount:
    """What the file says of what an entry is about."""

    succeeded: int
    """Calls of its endpoint in runs that were not judged failed."""
    doubtful: int
    """The others."""
    failed: int
    """For a `do` all failed calls; for an `avoid` those with its error."""


def entries(data: Path) -> list[Entry]:
    """Give the entries that may be handed out."""
    lines = (data / FILE).read_bytes()
    ops = EventDecoder().many(lines, now="2026-11-22T10:00:00.000Z", lines_max=10_000).ops
    return [entry for entry in fold(numbered(ops), corroboration=ONE_SOURCE).entries.values() if entry.available]


def told(data: Path) -> list[dict[str, Any]]:
    """Give the events of the file."""
    return [json.loads(line) for line in (data / FILE).read_bytes().splitlines()]


def recounted(entry: Entry, events: Sequence[Mapping[str, Any]]) -> Recount:
    """Count from the events what an entry is about."""
    bad_runs = {one["run"] for one in events if one["source"] == "auditor" and not one["ok"]}
    calls = [one for one in events if one["source"] != "auditor" and one["endpoint"] == entry.endpoint]
    good = [one for one in calls if one["success"]]
    doubtful = sum(one.get("run") in bad_runs for one in good)
    bad = [one for one in calls if not one["success"]]
    if entry.kind is Kind.AVOID:
        parts = _HOLE.split(entry.about)
        like = re.compile(".{1,60}?".join(map(re.escape, parts)))
        bad = [one for one in bad if like.fullmatch(one["error"].strip())]
    return Recount(len(good) - doubtful, doubtful, len(bad))


def page(data: Path) -> str:
    """Give the page, with the table as it is now."""
    events = told(data)
    lines = ["| entry | the file: succeeded | in failed runs | failed |", "|---|---:|---:|---:|"]
    for entry in entries(data):
        found = recounted(entry, events)
        text = entry.text.replace("|", "\\|").replace("<", "&lt;")
        lines.append(f"| {entry.kind}: {text} | {found.succeeded} | {found.doubtful} | {found.failed} |")
    table = "\n".join(lines) + "\n"
    return TABLE.sub(lambda _: table, PAGE.read_text(), count=1)


if __name__ == "__main__":
    PAGE.write_text(page(Path(sys.argv[1])))
