"""What a person reads: the page of the inventory, and the summary of an audit, both Markdown. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

from observer_actors.audit.facts import PARSER
from observer_actors.audit.inventory import Inventory, Item, Kind
from observer_actors.kb.rows import Finding
from observer_actors.visible import visible

_HEAD: Final = """\
# Python inventory

Every Python file, and what becomes of it. Made by `observer-actors audit --inventory`; do not edit.

| kind | files | what it means |
|---|---|---|
"""
_MEANINGS: Final = {
    Kind.PRODUCTION: "reached by imports from an entry point: a script, a service unit, `python -m`",
    Kind.MANUAL: "run by hand, by make, by CI or by a tool, or reached from what is",
    Kind.DOCUMENTED: "reached by nothing, but named in the documents",
    Kind.TESTS: "a test, or reached by tests alone",
    Kind.DEAD: "reached by nothing",
}


def inventory_page(inventory: Inventory) -> str:
    """Give the page: grouped by kind, then by folder, a line each."""
    items = inventory.items.values()
    counts = [f"| {_linked(kind)} | {sum(item.kind is kind for item in items)} | {_MEANINGS[kind]} |" for kind in Kind]
    broken = [_code(item.path) for item in items if item.error]
    told = f"\n{PARSER} cannot read {len(broken)} of them: {', '.join(broken)}.\n" if broken else ""
    return _HEAD + "\n".join(counts) + "\n" + told + "".join(_section(kind, inventory) for kind in Kind)


def _linked(kind: Kind) -> str:
    return f"[{kind}](#{kind})"


def _section(kind: Kind, inventory: Inventory) -> str:
    items = sorted((item for item in inventory.items.values() if item.kind is kind), key=_folder)
    tables = "".join(_table(folder, list(group)) for folder, group in groupby(items, _folder))
    return f"\n## {kind}\n{tables or chr(10) + 'None.' + chr(10)}"


def _folder(item: Item) -> str:
    return item.path.rpartition("/")[0]


def _table(folder: str, items: Sequence[Item]) -> str:
    rows = "".join(map(_row, items))
    return f"\n### {_code(folder or '.')}\n\n| file | what it says of itself | |\n|---|---|---|\n{rows}"


def _row(item: Item) -> str:
    return f"| {_code(item.path.rpartition('/')[2])} | {_cell(item.summary)} | {_cell(_note(item))} |\n"


def _note(item: Item) -> str:
    documented = f"named in {item.documented}" if item.documented else ""
    return "; ".join(filter(None, (f"not parsed: {item.error}" if item.error else "", item.why, documented)))


def summary_page(title: str, verdict: str, about: Sequence[str], findings: Sequence[Finding]) -> str:
    """Give the summary of an audit.

    :param about: sentences, a line each.
    """
    lines = "".join(f"- {_cell(line)}\n" for line in about)
    rows = "".join(_finding(findings)) or "\nNo findings.\n"
    return f"# {visible(title)}: {verdict}\n\n{lines}{rows}"


def _finding(findings: Sequence[Finding]) -> Iterator[str]:
    if findings:
        yield "\n| severity | where | what |\n|---|---|---|\n"
    for finding in findings:
        place = f"{finding.file}:{finding.line}" if finding.line else finding.file
        yield f"| {finding.severity} | {_code(place) if place else ''} | {_cell(finding.title)} |\n"


def _code(text: str) -> str:
    return f"`{visible(text).replace('`', chr(39)).replace('|', chr(92) + '|')}`"


def _cell(text: str) -> str:
    return visible(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
