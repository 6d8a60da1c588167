"""A change against the inventory: what an auditor says of it. Pure.

| finding | severity |
|---|---|
| a changed file is no Python; a merge conflict was left; a deleted file is still imported | block |
| a secret in an added line (keys, tokens, passwords in URLs); in a test or a document | block; warn |
| what may be a password or a token, quoted, in an added line; in a test or a document | warn; nothing |
| a new file that nothing imports, or one that the change has left without an importer | warn |
| production code was changed, and no test | warn |
| files that nothing imports, that are no Python or were not looked at, and what earlier audits said | info |

One ``block`` makes the verdict ``block``, else one ``warn`` makes it ``request_changes``, else it is ``approve``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import PurePosixPath
from typing import Final, Literal

import msgspec

from observer_actors.audit.facts import Facts, facts_of
from observer_actors.audit.inventory import Inventory, Item, Kind, Modules, is_test
from observer_actors.kb.rows import Finding
from observer_actors.secrets import Secrets
from observer_actors.visible import cut

__all__ = ["Change", "Overall", "check", "overall_of", "shown"]

Overall = Literal["approve", "request_changes", "block"]
PATH_CHARS_MAX: Final = 200
NAMED_MAX: Final = 5
FINDINGS_OF_A_KIND_MAX: Final = 50
"""More of the same say nothing more."""
_CERTAIN: Final = frozenset({"private_key", "jwt", "api_key", "url_password"})
"""Secrets that are known by what they look like. The other kinds are what code and tests are full of."""
_PROSE: Final = (".md", ".rst", ".txt")
_QUOTED: Final = re.compile(r"[\"'][^\"']*\[redacted:(?:password|bearer)\][\"']")


class Change(msgspec.Struct, frozen=True):
    """One file of a change. ``added``: its new lines, with their numbers."""

    path: str
    what: Literal["added", "modified", "deleted"]
    before: bytes = b""
    added: tuple[tuple[int, str], ...] = ()


def overall_of(findings: Sequence[Finding]) -> Overall:
    """Give the verdict."""
    severities = {finding.severity for finding in findings}
    return "block" if "block" in severities else "request_changes" if "warn" in severities else "approve"


def shown(path: str) -> str:
    """Give a path as it may be shown: on one line, and short."""
    return cut(path, PATH_CHARS_MAX)


def check(
    inventory: Inventory, files: Mapping[str, Facts], changes: Sequence[Change], left_out: Sequence[str] = ()
) -> list[Finding]:
    """Say what is to be said, the gravest first.

    :param files: of the tree as it is now.
    :param changes: empty where there is nothing to compare with.
    :param left_out: what could not be looked at.
    """
    found: list[Finding] = []
    for part in (
        _no_python(inventory, changes),
        _conflicts(changes),
        _still_imported(files, changes),
        _secrets(changes),
        _dead(inventory, changes),
        _orphaned(inventory, changes, files),
        _untested(inventory, changes),
        _summed_up(inventory, changes, left_out),
    ):
        found += islice(part, FINDINGS_OF_A_KIND_MAX)
    grave = ("block", "warn", "info")
    return sorted(found, key=lambda finding: grave.index(finding.severity))


def _no_python(inventory: Inventory, changes: Sequence[Change]) -> Iterator[Finding]:
    for change in changes:
        item = inventory.items.get(change.path)
        if item is not None and item.error:
            yield Finding("block", f"no Python: {item.error}", shown(change.path), item.line)


def _conflicts(changes: Sequence[Change]) -> Iterator[Finding]:
    for change in changes:
        begins = [number for number, line in change.added if line.startswith("<<<<<<< ")]
        if begins and any(line.startswith(">>>>>>> ") for _, line in change.added):
            yield Finding("block", "a merge conflict was left", shown(change.path), begins[0])


def _still_imported(files: Mapping[str, Facts], changes: Sequence[Change]) -> Iterator[Finding]:
    gone = [change.path for change in changes if change.what == "deleted" and change.path.endswith(".py")]
    if not gone:
        return
    now, before = Modules(files), Modules([*files, *gone])
    lost = {path for path in gone if not now.has_another(path, before)}
    for path, facts in files.items():
        for name in sorted(facts.imports - facts.optional):
            missing = lost.intersection(before.imported(name, path))
            if missing and _is_defined(now, name, path, files):
                # `from a import b` may want a name of a package; what stands before the last dot must be a module.
                missing &= set(before.imported(name.rpartition(".")[0], path))
            yield from (Finding("block", f"{shown(path)} still imports it", shown(file)) for file in sorted(missing))


def _is_defined(now: Modules, name: str, by: str, files: Mapping[str, Facts]) -> bool:
    """Say whether a package on the way to a name defines it, or may, so that no module has to."""
    holders = [file for file in now.imported(name, by) if PurePosixPath(file).name == "__init__.py"]
    return any({name.rpartition(".")[2], "*"} & files[file].binds for file in holders)


def _secrets(changes: Sequence[Change]) -> Iterator[Finding]:
    secrets = Secrets()
    for change in changes:
        made_up = is_test(change.path) or change.path.endswith(_PROSE)
        for number, line in change.added:
            kinds: Counter[str] = Counter()
            clean = secrets.text(line, kinds)
            certain = sorted(_CERTAIN & kinds.keys())
            if certain:
                yield Finding(
                    "warn" if made_up else "block", f"a secret: {', '.join(certain)}", shown(change.path), number
                )
            elif not made_up and _QUOTED.search(clean):
                yield Finding("warn", "what may be a password or a token", shown(change.path), number)


def _dead(inventory: Inventory, changes: Sequence[Change]) -> Iterator[Finding]:
    for change in changes:
        item = inventory.items.get(change.path)
        if change.what == "added" and item is not None and item.kind is Kind.DEAD:
            yield Finding("warn", "a new file that nothing imports", shown(change.path))


def _orphaned(inventory: Inventory, changes: Sequence[Change], files: Mapping[str, Facts]) -> Iterator[Finding]:
    """Look for dead files that a changed file named before."""
    dead = {path for path, item in inventory.items.items() if item.kind is Kind.DEAD}
    if not dead:
        return
    new = {change.path for change in changes if change.what == "added"}
    modules = Modules([*files, *(change.path for change in changes)])
    for change in changes:
        if change.what != "added" and change.path.endswith(".py"):
            facts = facts_of(change.before)
            named = {file for name in facts.imports for file in modules.imported(name, change.path)}
            for name in facts.names:
                named.update(modules.named(name, change.path), modules.inside(name))
            for path in sorted((named & dead) - new - {change.path}):
                yield Finding("warn", f"nothing imports it any more: {shown(change.path)} did", shown(path))


def _untested(inventory: Inventory, changes: Sequence[Change]) -> Iterator[Finding]:
    items = [inventory.items[change.path] for change in changes if change.path in inventory.items]
    production = [item.path for item in items if item.kind is Kind.PRODUCTION]
    tests = any(is_test(change.path) for change in changes)
    has_tests = any(item.kind is Kind.TESTS for item in inventory.items.values())
    if production and not tests and has_tests:
        yield Finding("warn", f"production code was changed, and no test: {_named(production)}")


def _summed_up(inventory: Inventory, changes: Sequence[Change], left_out: Sequence[str]) -> Iterator[Finding]:
    new = {change.path for change in changes}
    others = [item for item in inventory.items.values() if item.path not in new]
    yield from _told("nothing imports", [item for item in others if item.kind is Kind.DEAD])
    yield from _told("no Python, and not of this change", [item for item in others if item.error])
    python = [path for path in left_out if path.endswith((".py", "/"))]
    if python:
        what = "a link, no plain file, a submodule, or too large"
        yield Finding("info", f"not looked at ({what}): {_named(python)}")


def _told(what: str, items: Sequence[Item]) -> Iterator[Finding]:
    if items:
        yield Finding("info", f"{what}: {_named([item.path for item in items])}")


def _named(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - NAMED_MAX} more" if len(paths) > NAMED_MAX else ""
    return ", ".join(map(shown, paths[:NAMED_MAX])) + more
