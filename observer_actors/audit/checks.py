"""A change against the inventory: what an auditor says of it. Pure.

| finding | severity |
|---|---|
| a changed file is no Python; a merge conflict was left; a deleted file is still imported | block |
| a changed file that the Python at hand cannot read, but another may; a deletion that may be missed | warn |
| what looks like a merge conflict: in a document, or one that is half resolved | warn |
| a secret in an added line (keys, tokens, passwords in URLs); in a test or a document | block; warn |
| what may be a password or a token, quoted, in an added line; in a test or a document | warn; nothing |
| a new file that nothing imports, or one that the change has left without an importer | warn |
| production code was changed, and no test | warn |
| files of an unchanged tree that cannot be read | warn |
| files that nothing imports, that cannot be read or were not looked at, and what earlier audits said | info |
| changed files that are too large or no text | info |

A changed file is certainly no Python when the project's ``requires-python`` includes the Python at hand, the file could
be read before, and its name is for no other Python. Test data may be no Python, or show a merge conflict.

One ``block`` makes the verdict ``block``, else one ``warn`` makes it ``request_changes``, else it is ``approve``.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import PurePosixPath
from typing import Final, Literal

import msgspec

from observer_actors.audit.facts import PARSER, Facts, Need, facts_of, is_python
from observer_actors.audit.inventory import Inventory, Item, Kind, Modules, is_data, is_test, reached_from
from observer_actors.audit.scripts import includes
from observer_actors.errors import EventTooComplex
from observer_actors.kb.rows import Finding, Severity
from observer_actors.secrets import Secrets, compiled_secrets
from observer_actors.visible import cut

Overall = Literal["approve", "request_changes", "block"]
PATH_CHARS_MAX: Final = 200
NAMED_MAX: Final = 5
FINDINGS_OF_A_KIND_MAX: Final = 50
"""More of the same say nothing more."""
_KEY: Final = "private_key"
_CERTAIN: Final = frozenset({"jwt", "api_key", "url_password"})
"""Secrets that, like private keys, are known by what they look like. The other kinds code and tests are full of."""
_BASE64: Final = re.compile(r"[A-Za-z0-9+/]{40}")
"""A key has that between BEGIN and END; code that reads keys, and an example, do not."""
_COMPILED: Final = (".so", ".pyd", ".pyx", ".c", ".cc", ".cpp", ".cxx", ".rs")
"""With the stem of a module: its source as an extension, or the extension itself."""
_SETTINGS: Final = re.compile(
    r"(?:.*/)?(?:pyproject\.toml|setup\.(?:cfg|py)|Pipfile|environment\.ya?ml|meson\.build|CMakeLists\.txt|\.gitignore"
    r"|[^/]*requirements[^/]*\.(?:txt|in)|requirements/[^/]+\.(?:txt|in))"
)
"""Where a change says that something takes a module's place: a dependency, a build, what is generated and ignored."""
_PROJECT: Final = ("pyproject.toml", "setup.cfg", "setup.py")
_OF_ANOTHER: Final = re.compile(r"py_?3\d+")
_PROSE: Final = (".md", ".rst", ".txt")
_CONFLICT: Final = ("<<<<<<< ", "=======", ">>>>>>> ")
_AROUND: Final = frozenset({_CONFLICT[0], _CONFLICT[-1]})
"""These alone may be what is left of one that was half resolved."""
_NO_PASSWORD: Final = re.compile(
    r"(?<=://)([^/\s:@\"']*):(?:\{[^{}\s\"']*\}|%\(\w+\)s|%s|\$\{?\w+\}?|<[^<>\s]*>|\*+|pass(?:word|wd)?|pwd)@"
)
"""What stands in a URL where its password belongs and is none: code and documents are full of it."""
_QUOTED: Final = re.compile(r"[\"'][^\"']*\[redacted:(?:password|bearer)\][\"']")


class Change(msgspec.Struct, frozen=True):
    """One file of a change. ``added``: its new lines, with their numbers; ``text``: all that it has now.

    ``is_seen``: not where it is too large, or no text.
    """

    path: str
    what: Literal["added", "modified", "deleted"]
    before: bytes = b""
    added: tuple[tuple[int, str], ...] = ()
    text: str = ""
    is_seen: bool = True


def overall_of(findings: Sequence[Finding]) -> Overall:
    """Give the verdict."""
    severities = {finding.severity for finding in findings}
    return "block" if "block" in severities else "request_changes" if "warn" in severities else "approve"


def shown(path: str) -> str:
    """Give a path as it may be shown: on one line, and short."""
    return cut(path, PATH_CHARS_MAX)


def check(
    inventory: Inventory,
    files: Mapping[str, Facts],
    changes: Sequence[Change],
    left_out: Sequence[str],
    paths: Iterable[str],
) -> list[Finding]:
    """Say what is to be said, the gravest first.

    :param files: of the tree as it is now.
    :param changes: empty where there is nothing to compare with.
    :param left_out: what could not be looked at.
    :param paths: of all files, Python or not.
    """
    found: list[Finding] = []
    for part in (
        _no_python(inventory, files, changes),
        _conflicts(changes),
        _still_imported(files, changes, paths, left_out),
        _secrets(changes),
        _dead(inventory, changes, files),
        _orphaned(inventory, changes, files),
        _untested(inventory, changes),
        _unseen(changes),
        _summed_up(inventory, changes, left_out),
    ):
        found += islice(part, FINDINGS_OF_A_KIND_MAX)
    grave = ("block", "warn", "info")
    return sorted(found, key=lambda finding: grave.index(finding.severity))


def _no_python(inventory: Inventory, files: Mapping[str, Facts], changes: Sequence[Change]) -> Iterator[Finding]:
    for change in changes:
        facts = files.get(change.path)
        if facts is None or not facts.error:
            continue
        place, line = shown(change.path), facts.line
        if not facts.is_read:
            yield Finding("warn", facts.error, place, line)
        elif is_data(change.path):
            yield Finding("info", f"test data, and no Python: {facts.error}", place, line)
        elif _is_for_this_python(inventory, change):
            yield Finding("block", f"no Python: {facts.error}", place, line)
        else:
            yield Finding("warn", f"not parsed by {PARSER}, with which the auditor runs: {facts.error}", place, line)


def _is_for_this_python(inventory: Inventory, change: Change) -> bool:
    """Say whether it is certain that the Python at hand must read a file; newer syntax may be meant for a newer one."""
    wanted = next(filter(None, (_required(inventory, str(one)) for one in PurePosixPath(change.path).parents)), "")
    is_ours = includes(wanted, sys.version_info[:2]) and not _OF_ANOTHER.search(change.path)
    return bool(is_ours) and not facts_of(change.before).error


def _required(inventory: Inventory, folder: str) -> str:
    places = (inventory.settings.get(str(PurePosixPath(folder, name))) for name in _PROJECT)
    return next((place.requires_python for place in places if place and place.requires_python), "")


def _conflicts(changes: Sequence[Change]) -> Iterator[Finding]:
    for change in changes:
        marks = {mark: number for number, line in reversed(change.added) for mark in _CONFLICT if _is_mark(line, mark)}
        if not marks.keys() >= _AROUND:
            continue
        is_certain = len(marks) == len(_CONFLICT) and not _is_prose(change.path)  # a document may show one
        severity: Severity = "info" if is_data(change.path) else "block" if is_certain else "warn"
        said = "a merge conflict was left" if severity == "block" else "what looks like a merge conflict"
        yield Finding(severity, said, shown(change.path), marks[_CONFLICT[0]])


def _is_mark(line: str, mark: str) -> bool:
    return line == mark if mark == "=======" else line.startswith(mark)


def _is_prose(path: str) -> bool:
    return path.endswith(_PROSE) and not _SETTINGS.fullmatch(path)


class _Gone(msgspec.Struct, frozen=True):
    """What a change has deleted, and nothing in the tree stands for."""

    now: Modules
    before: Modules
    files: frozenset[str]
    replaceable: frozenset[str]
    """Those of ``files`` for which something may stand that is not in the tree, or was not looked at."""

    def missing(self, name: str, by: str, facts: Mapping[str, Facts]) -> dict[str, bool]:
        """Give those that importing a name needs, and of each whether that is certain."""
        missing = self.files.intersection(self.before.imported(name, by))
        if not missing or self._is_of_python(name, by):
            return {}
        if _is_defined(self.now, name, by, facts):
            # `from a import b` may want a name of a package; what stands before the last dot must be a module.
            missing &= set(self.before.imported(name.rpartition(".")[0], by))
        certain = self.before.resolved(name, by) - self.replaceable
        sure = not _is_of_library(name)
        return {file: sure and file in certain for file in missing if not self._is_namespace(name, by, file)}

    def _is_of_python(self, name: str, by: str) -> bool:
        """``import json`` means the standard library's, unless the tree has one still."""
        top = name.partition(".")[0]
        return _is_of_library(name) and not any(self.now.imported(top, by)) and not self.now.is_namespace(top)

    def _is_namespace(self, name: str, by: str, file: str) -> bool:
        """Say whether a folder of that name will do: `import a`, `import a.b` with an ``a/b.py``."""
        folder = _module(file)
        if not self.now.is_namespace(folder):
            return False
        is_itself = name.rpartition(".")[2] in ("", PurePosixPath(folder).name)
        return is_itself or any(other.startswith(f"{folder}/") for other in self.now.imported(name, by))


def _still_imported(
    files: Mapping[str, Facts], changes: Sequence[Change], paths: Iterable[str], left_out: Iterable[str]
) -> Iterator[Finding]:
    gone = _gone(files, changes, paths, left_out)
    for path, facts in files.items() if gone.files else ():
        found: dict[str, bool] = {}
        may_be_none = bool(facts.error) or is_data(path)
        for name, need in facts.imports.items():
            missing = {} if need is Need.CAUGHT else gone.missing(name, path, files)
            for file, certain in missing.items():
                is_sure = certain and not may_be_none and need is Need.ALWAYS
                found[file] = found.get(file, False) or is_sure
        for file, certain in sorted(found.items()):
            said = "still imports it" if certain else "may still import it"
            yield Finding("block" if certain else "warn", f"{shown(path)} {said}", shown(file))


def _gone(
    files: Mapping[str, Facts], changes: Sequence[Change], paths: Iterable[str], left_out: Iterable[str]
) -> _Gone:
    deleted = [change.path for change in changes if change.what == "deleted" and change.path.endswith(".py")]
    now, before = Modules(files), Modules([*files, *deleted])
    compiled: set[str] = set()
    stubs = {path.rstrip("/") if path.endswith("/") else _module(path) for path in left_out}
    for path in paths if deleted else ():
        if path.endswith(_COMPILED):
            compiled.add(_stem(path))
        elif path.endswith(".pyi"):
            stubs.add(_stem(path))
    lost = frozenset(path for path in deleted if not now.has_another(path, before) and not _stems(path) & compiled)
    settings = "\n".join(line for change in changes if _SETTINGS.fullmatch(change.path) for _, line in change.added)
    replaceable = {path for path in lost if _stems(path) & stubs or _is_named(path, settings)}
    replaceable.update(_stood_in_for(lost, files, before) if lost else ())
    return _Gone(now, before, lost, frozenset(replaceable))


def _stood_in_for(lost: Iterable[str], files: Mapping[str, Facts], before: Modules) -> Iterator[str]:
    """Give those in whose place a file puts something at run time."""
    named: set[str] = set()
    packages: set[PurePosixPath] = set()
    for by, facts in files.items():
        named.update(file for name in facts.replaced - {"."} for file in before.imported(name, by))
        if "." in facts.replaced and PurePosixPath(by).name == "__init__.py":
            packages.add(PurePosixPath(by).parent)
    yield from (path for path in lost if path in named or not packages.isdisjoint(PurePosixPath(path).parents))


def _is_named(path: str, settings: str) -> bool:
    name = re.escape(PurePosixPath(_module(path)).name)
    return re.search(rf"(?i)(?:\b|_|py){name}\b", settings) is not None


def _is_of_library(name: str) -> bool:
    return name.partition(".")[0] in sys.stdlib_module_names


def _module(path: str) -> str:
    """Give the folder that a module has, or would have as a package."""
    return path.removesuffix("/__init__.py").removesuffix(".py")


def _stem(path: str) -> str:
    folder, slash, name = path.rpartition("/")
    return folder + slash + name.partition(".")[0]


def _stems(path: str) -> set[str]:
    return {_stem(path), _module(path)}


def _is_defined(now: Modules, name: str, by: str, files: Mapping[str, Facts]) -> bool:
    """Say whether a package on the way to a name defines it, or may, so that no module has to."""
    holders = [file for file in now.imported(name, by) if PurePosixPath(file).name == "__init__.py"]
    return any({name.rpartition(".")[2], "*"} & files[file].binds for file in holders)


def _secrets(changes: Sequence[Change]) -> Iterator[Finding]:
    secrets = compiled_secrets()
    for change in changes:
        made_up = is_test(change.path) or _is_prose(change.path)
        keys = frozenset(_private_keys(change, secrets))
        for number, line in change.added:
            kinds, perhaps = _in_line(line, secrets)
            certain = sorted(kinds | ({_KEY} if number in keys else set()))
            if certain:
                yield Finding(
                    "warn" if made_up else "block", f"a secret: {', '.join(certain)}", shown(change.path), number
                )
            elif perhaps and not made_up:
                yield Finding("warn", perhaps, shown(change.path), number)


def _in_line(line: str, secrets: Secrets) -> tuple[frozenset[str], str]:
    """Give the kinds of secrets that a line certainly holds, and what else is to be said of it."""
    kinds: Counter[str] = Counter()
    try:
        clean = secrets.text(_NO_PASSWORD.sub(r"\1", line), kinds)
    except EventTooComplex:
        return frozenset(), "a line holds too much that looks like a secret"
    return _CERTAIN & kinds.keys(), "what may be a password or a token" if _QUOTED.search(clean) else ""


def _private_keys(change: Change, secrets: Secrets) -> Iterator[int]:
    """Give the first new line of each private key: where one takes another's place, its beginning and end stay."""
    added = frozenset(number for number, _ in change.added)
    for start, end in secrets.places(_KEY, change.text) if added else ():
        first = 1 + change.text.count("\n", 0, start)
        lines = range(first, first + change.text.count("\n", start, end) + 1)
        is_framed = change.text.startswith("-", start)
        if not is_framed or _BASE64.search(change.text, start, end):
            yield from islice((number for number in lines if number in added), 1)


def _dead(inventory: Inventory, changes: Sequence[Change], files: Mapping[str, Facts]) -> Iterator[Finding]:
    new = {change.path for change in changes if change.what == "added"}
    dead = [path for path in sorted(new) if path in inventory.items and inventory.items[path].kind is Kind.DEAD]
    # What is dead because the older files that import it are is not the change's fault.
    reached = reached_from(files.keys() - new, files) if dead else ()
    yield from (Finding("warn", "a new file that nothing imports", shown(path)) for path in dead if path not in reached)


def _orphaned(inventory: Inventory, changes: Sequence[Change], files: Mapping[str, Facts]) -> Iterator[Finding]:
    """Look for dead files that a changed file named before."""
    dead = {path for path, item in inventory.items.items() if item.kind is Kind.DEAD}
    if not dead:
        return
    new = {change.path for change in changes if change.what == "added"}
    modules = Modules([*files, *(change.path for change in changes)])
    for change in changes:
        if change.what != "added" and is_python(change.path, change.before):
            facts = facts_of(change.before)
            named = {file for name in facts.imports for file in modules.imported(name, change.path)}
            for name in facts.names:
                named.update(modules.named(name, change.path), modules.inside(modules.absolute(name, change.path)))
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
    broken = [item for item in others if item.error and not is_data(item.path)]
    if changes:
        yield from _told(f"not parsed by {PARSER}, and not of this change", broken)
    else:  # then the tree itself is what is audited
        yield from _told(f"not parsed by {PARSER}", broken, "warn")
    python = [path for path in left_out if path.endswith((".py", "/"))]
    if python:
        what = "a link, no plain file, a submodule, not checked out, or too large"
        yield Finding("info", f"not looked at ({what}): {_named(python)}")


def _unseen(changes: Sequence[Change]) -> Iterator[Finding]:
    unseen = [change.path for change in changes if not change.is_seen]
    if unseen:
        yield Finding("info", f"changed, and not looked into (too large, or no text): {_named(unseen)}")


def _told(what: str, items: Sequence[Item], severity: Severity = "info") -> Iterator[Finding]:
    if items:
        yield Finding(severity, f"{what}: {_named([item.path for item in items])}")


def _named(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - NAMED_MAX} more" if len(paths) > NAMED_MAX else ""
    return ", ".join(map(shown, paths[:NAMED_MAX])) + more
