"""Every Python file of a tree, and what becomes of it: ``.py``, and scripts whose first line names Python. Pure.

Each file is of one kind, the first of these that holds:

* *tests*: its name or folder says so;
* *production*: reached by imports from an entry point: scripts and entry points of ``pyproject.toml``, ``setup.cfg``
  and ``setup.py``, the commands of systemd's units, containers, Procfiles, crontabs and supervisord, and
  ``__main__.py`` of a package that no Makefile or CI runs;
* *manual*: has an ``if __name__ == "__main__"``, begins with ``#!`` and a Python, is run by a Makefile, by CI or by a
  tool that knows its name or folder, or is reached from such a file or a notebook;
* *documented*: named in the README or below ``docs``;
* *tests* again: only tests reach it;
* *dead*: nothing reaches it.

Besides ``import``, a string is a way to a module: ``"a.b"``, ``"a/b.py"``, and ``f"a.b.{name}"`` to all that lies
directly in ``a.b``; in a command ``-m a``, ``-A a`` and ``a:app`` are too. What is put together otherwise at run time
is not seen: such a file looks dead, and is worth a word in the docs.
"""

from __future__ import annotations

import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Final

import msgspec

from observer_actors.audit.facts import NAME_CHARS_MAX, Facts, guessed_imports, imports_of_notebook
from observer_actors.audit.scripts import Settings, settings_of

PAGE: Final = "PYTHON_INVENTORY.md"
"""The page that is made of all this names every file: it is no document."""
_TEST_FOLDERS: Final = frozenset({"tests", "test", "testsuite"})
_TEST_FILES: Final = frozenset({"conftest.py", "tests.py"})
_DATA_FOLDERS: Final = frozenset({
    "data", "fixture", "fixtures", "cases", "resources", "samples", "snippets", "input", "inputs", "output", "outputs",
    "expected",
})  # fmt: skip
_TEST_DATA_FOLDERS: Final = frozenset({"testdata", "test_data", "test-data"})
_BY_TOOLS: Final = {
    "setup.py": "pip", "hatch_build.py": "hatchling", "noxfile.py": "nox", "conf.py": "sphinx", "manage.py": "django",
    "wsgi.py": "a web server", "asgi.py": "a web server", "fabfile.py": "fabric", "tasks.py": "invoke",
    "admin.py": "django", "apps.py": "django", "gunicorn.conf.py": "gunicorn", "locustfile.py": "locust",
    "pre_gen_project.py": "cookiecutter", "post_gen_project.py": "cookiecutter",
}  # fmt: skip
_BY_PLACE: Final = (
    (re.compile(r"(?:.*/)?(?:migrations|alembic)/.+"), "django or alembic"),
    (re.compile(r"(?:.*/)?dags/.+"), "airflow"),
    (re.compile(r"(?:.*/)?(?:management/commands|templatetags)/[^/]+"), "django"),
)
"""Loaded from its folder, whatever its name."""
_NOTEBOOK: Final = ".ipynb"
_BUILD: Final = re.compile(
    r"(?:.*/)?(?:GNUmakefile|[Mm]akefile|[Jj]ustfile|(?:[^/]+\.)?(?:Docker|Container)file[^/]*|tox\.ini|package\.json"
    r"|[^/]+\.(?:mk|sh|ya?ml))"
    r"|\.(?:ci|github|circleci)/.*|Jenkinsfile"
)
_SETTINGS: Final = re.compile(r"(?:.*/)?(?:pyproject\.toml|setup\.cfg)")
_SERVED: Final = tuple((re.compile(files), re.compile(commands, re.MULTILINE)) for files, commands in (
    (r".*\.service(?:\.in|\.j2|\.d/[^/]+\.conf)?", r"^[ \t]*(?:Exec[A-Z]\w*|Environment)[ \t]*=[ \t]*[-@:+!|]*(.*)"),
    (r"(?:.*/)?(?:[^/]+\.)?(?:Docker|Container)file[^/]*", r"^[ \t]*(?i:CMD|ENTRYPOINT|ENV)[ \t](.*)"),
    (r"(?:.*/)?(?:Procfile[^/]*|crontab|cron\.d/[^/]+|[^/]+\.cron(?:tab)?)", r"(?s)(.+)"),
    (r"(?:.*/)?(?:(?:docker-)?compose[^/]*\.ya?ml|[^/]*supervisor[^/]*\.(?:conf|ini))", r"(?s)(.+)"),
))  # fmt: skip
"""What keeps programs running, or runs them at their time -> the commands in it, once continued lines are joined."""
_DOCUMENT: Final = re.compile(r"(?:README|CONTRIBUTING)[^/]*|(?:.*/)?docs?/.*\.(?:md|rst|txt)")
# From the beginning of a word: from each place in it, a long one would take hours.
_PATH: Final = re.compile(r"(?<![\w./-])[\w./-]*\w\.py\b")
_PROGRAM: Final = re.compile(r"(?<![\w./-])[\w.-]*/[\w./-]*\w")
_RUN_MODULE: Final = re.compile(r"(?<![\w-])-[A-Za-z]*?m[ \t]*([A-Za-z_][\w.]*)")
_APP: Final = re.compile(r"(?<![\w-])(?:-A|--app)[ \t=]+([A-Za-z_][\w.]*)|(?<![\w./:@-])([A-Za-z_]\w*):[A-Za-z_]")
"""As celery and flask name it, and ``module:app`` of web servers; where the module has a dot, `_DOTTED` finds it."""
_CODE: Final = re.compile(r"""(?<![\w-])-c["',\s]{0,9}("(?:[^"\\]|\\.){0,9999}"|'[^']{0,9999}')""", re.DOTALL)
_COMMENT: Final = re.compile(r"^[ \t]*[#;].*\n", re.MULTILINE)
_CONTINUED: Final = re.compile(r"\\\r?\n")
_WORDS_APART: Final = re.compile(r"""["',\[\]]|\n[ \t]*-[ \t]|(?:%[A-Za-z]|\$\{?\w+\}?)(?=/)""")
"""What stands between words, and before a path: quotes, lists of JSON and YAML; ``%h`` of systemd, variables."""
_DOTTED: Final = re.compile(r"\b[A-Za-z_]\w*(?:\.\w+)+\b")


class Kind(StrEnum):
    """What becomes of a file."""

    PRODUCTION = "production"
    MANUAL = "manual"
    DOCUMENTED = "documented"
    TESTS = "tests"
    DEAD = "dead"


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One file. ``why``: what makes it what it is; "" when others import it. ``documented``: where it is named."""

    path: str
    kind: Kind
    summary: str = ""
    why: str = ""
    documented: str = ""
    error: str = ""


class Inventory(msgspec.Struct, frozen=True):
    """All of them, by path. ``settings``: what the project's own say, by path."""

    items: Mapping[str, Item]
    settings: Mapping[str, Settings]


def is_read(path: str) -> bool:
    """Say whether a file that is no Python has a say in this."""
    patterns = (_BUILD, _SETTINGS, _DOCUMENT, *(files for files, _ in _SERVED))
    is_named = path.endswith(_NOTEBOOK) or any(pattern.fullmatch(path) for pattern in patterns)
    return is_named and not path.endswith(PAGE)


def is_test(path: str) -> bool:
    """Say whether name or folder make it a test."""
    pure = PurePosixPath(path)
    named = pure.name.startswith("test_") or pure.name.endswith("_test.py") or pure.name in _TEST_FILES
    return named or not _TEST_FOLDERS.isdisjoint(pure.parts[:-1])


def is_data(path: str) -> bool:
    """Say whether a file is there for tests to read, or a template of a project: it need not be Python."""
    folders = path.split("/")[:-1]
    within = next((number for number, folder in enumerate(folders) if folder in _TEST_FOLDERS), len(folders))
    is_read_by_tests = not (_TEST_DATA_FOLDERS.isdisjoint(folders) and _DATA_FOLDERS.isdisjoint(folders[within:]))
    return is_read_by_tests or "{{" in path


class Modules:
    """Which file a module's name means, given all files of the tree."""

    def __init__(self, paths: Iterable[str]) -> None:
        every = frozenset(paths)
        self._paths = frozenset(path for path in every if path.endswith(".py"))
        self._files: dict[str, set[str]] = {}
        self._packages = {_folder(path) for path in self._paths if PurePosixPath(path).name == "__init__.py"}
        self._folders: set[str] = set()
        self._holders: dict[str, set[str]] = {}
        """What a name begins with -> the folders that hold such a module or folder."""
        self._names: dict[str, set[str]] = {}
        self._inside: dict[str, set[str]] = {}
        """``a.b.`` -> what lies directly in it."""
        self._called: dict[str, list[str]] = {}
        for path in sorted(every):
            self._called.setdefault(PurePosixPath(path).name, []).append(path)
        for path in sorted(self._paths):
            self._hold(path)
            self._names[path] = _names_of(path, self._packages)
            for name in self._names[path]:
                self._files.setdefault(name, set()).add(path)
                self._inside.setdefault(name.rpartition(".")[0] + ".", set()).add(path)

    def _hold(self, path: str) -> None:
        folder, _, name = path.removesuffix(".py").rpartition("/")
        self._holders.setdefault(name, set()).add(folder)
        while folder and folder not in self._folders:
            self._folders.add(folder)
            folder, _, name = folder.rpartition("/")
            self._holders.setdefault(name, set()).add(folder)

    def imported(self, name: str, by: str) -> Iterator[str]:
        """Give the files that importing a name may run: each package on the way, and the module if it is one."""
        found = self.resolved(name, by)
        if found or name.startswith(".") or len(name) > NAME_CHARS_MAX:
            yield from found
            return
        # Somebody may have put another folder on the path.
        parts = name.split(".")
        above = self._holders.get(parts[0], set()) & _folders_above(_folder(by))
        found.update(self._along(max(above, key=len), parts) if above else ())
        # `import json` is the standard library's, `import json.ours` is not.
        if parts[0] not in sys.stdlib_module_names or (len(parts) > 1 and ".".join(parts[:2]) in self._files):
            found.update(*(self._files.get(".".join(parts[:end]), ()) for end in range(1, len(parts) + 1)))
        yield from found

    def resolved(self, name: str, by: str) -> set[str]:
        """Give those of them that Python itself finds: from the importer's own package or folder, the root, or ``src``.

        As there, the first module or package of that name is the one, and folders without an ``__init__.py`` are one.
        """
        if len(name) > NAME_CHARS_MAX:
            return set()
        if name.startswith("."):
            return set(self._relative(name, by))
        parts = name.split(".")
        places = (self._home(by), "", "src")
        whole = (place for place in places if any(self._along(place, parts[:1])))
        place = next(whole, None)
        return {file for one in (places if place is None else (place,)) for file in self._along(one, parts)}

    def is_namespace(self, folder: str) -> bool:
        """Say whether a folder is a package because there are modules in it, without an ``__init__.py``."""
        return folder in self._folders and folder not in self._packages

    def named(self, name: str, by: str = "") -> Iterator[str]:
        """Give the files that a string means: a path, or a module with at least one dot."""
        if name.endswith(".py"):
            yield from self.at(name)
        elif not name.endswith("."):
            found = [*self.imported(name, by)]
            if any(self._files.get(name.rsplit(".", back)[0]) for back in range(min(2, name.count(".")))):
                yield from found

    @staticmethod
    def absolute(package: str, by: str) -> str:
        """Give a package's name, which ends in a dot, as it is from the root on: ``.`` is the importer's own."""
        bare = package.lstrip(".")
        parts = by.split("/")[: -(len(package) - len(bare))]
        return ".".join([*parts, bare]) if package.startswith(".") else package

    def inside(self, package: str) -> Iterable[str]:
        """Give what lies directly in a package, whose name ends in a dot."""
        return self._inside.get(package, ())

    def has_another(self, path: str, before: Modules) -> bool:
        """Say whether a module that was at this path lies elsewhere now."""
        return any(name in self._files for name in before._names.get(path, ()))

    def at(self, path: str) -> Iterator[str]:
        """Give the files that a path means that may lack its beginning; a bare name must be the only one of it.

        An absolute path may have more of a beginning: where the tree lies when it is in use.
        """
        ends = f"/{path.removeprefix('./').lstrip('/')}"
        called = self._called.get(PurePosixPath(path).name, ())
        found = [file for file in called if f"/{file}".endswith(ends)]
        if path.startswith("/") and not found:
            found = [file for file in called if ends.endswith(f"/{file}")]
        if ends.count("/") > 1 or len(found) == 1:
            yield from found
        elif ends[1:] in found:
            yield ends[1:]

    def run(self, module: str) -> Iterator[str]:
        """Give the files that ``python -m`` runs."""
        yield from self.imported(module, "")
        yield from self._files.get(f"{module}.__main__", ())

    def app(self, module: str) -> Iterator[str]:
        """Give the files that ``celery -A`` and the like load."""
        yield from self.imported(module, "")
        yield from self._files.get(f"{module}.celery", ())

    def _relative(self, name: str, by: str) -> Iterator[str]:
        bare = name.lstrip(".")
        folder = PurePosixPath(_folder(by))
        for _ in range(len(name) - len(bare) - 1):
            folder = folder.parent
        yield from {str(folder / "__init__.py")} & self._paths
        yield from self._along(str(folder), bare.split(".")) if bare else ()

    def _along(self, place: str, parts: Sequence[str]) -> Iterator[str]:
        """Give the files on the way of a name, from a folder on."""
        for part in parts:
            place = part if place in ("", ".") else f"{place}/{part}"
            yield from {f"{place}.py", f"{place}/__init__.py"} & self._paths
            if place not in self._folders:
                return

    def _home(self, by: str) -> str:
        """Give the folder that is on the path when a file runs: its own, or the one that its package lies in."""
        folder = _folder(by)
        while folder and folder in self._packages:
            folder = _folder(folder)
        return folder


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


@lru_cache(maxsize=1)  # one file asks many times, and some paths are deep
def _folders_above(folder: str) -> frozenset[str]:
    """Give a folder, and all that it lies in."""
    return frozenset(map(str, PurePosixPath(folder, "file").parents))


def _names_of(path: str, packages: set[str]) -> set[str]:
    parts = path.removesuffix(".py").split("/")
    if parts[-1] == "__init__":
        parts.pop()
    top = _folder(path)
    while top and top in packages:
        top = _folder(top)
    below = len(top.split("/")) if top else 0
    starts = {0, below} | ({1} if parts[:1] == ["src"] else set())
    return {".".join(parts[start:]) for start in starts} - {""}


def take_inventory(files: Mapping[str, Facts], texts: Mapping[str, str]) -> Inventory:
    """Say of each file what becomes of it.

    :param files: path -> facts, of every Python file.
    :param texts: path -> text, of the others for which `is_read` holds.
    """
    modules = Modules(files)
    documented = _documented(texts, modules)
    settings = {path: settings_of(path, text) for path, text in texts.items() if _SETTINGS.fullmatch(path)}
    settings |= {path: facts.settings for path, facts in files.items() if PurePosixPath(path).name == "setup.py"}
    tests = dict.fromkeys(filter(is_test, files), "")
    by_hand = {path: why for path, why in _by_hand(files, texts, modules) if path not in tests}
    entries = {path: why for path, why in _entries(settings, texts, modules) if path not in tests}
    entries = dict.fromkeys(_mains(files.keys() - tests.keys(), entries, by_hand), "python -m") | entries
    roots = {Kind.PRODUCTION: entries, Kind.MANUAL: by_hand, Kind.DOCUMENTED: documented, Kind.TESTS: tests}
    kinds = _kinds(files, roots, modules)
    items = {
        path: Item(
            path=path,
            kind=kinds[path],
            summary=facts.summary,
            why=entries.get(path) or by_hand.get(path) or _why(path, kinds[path], tests),
            documented=documented.get(path, ""),
            error=facts.error,
        )
        for path, facts in sorted(files.items())
    }
    return Inventory(items, settings)


def reached_from(roots: Iterable[str], files: Mapping[str, Facts]) -> set[str]:
    """Give what some files reach by imports, and they themselves."""
    modules = Modules(files)
    return _reach(roots, {path: _reached_by(path, facts, modules) for path, facts in files.items()}, modules)


def _reached_by(path: str, facts: Facts, modules: Modules) -> set[str]:
    found = {file for name in facts.imports for file in modules.imported(name, path)}
    # Of a whole package there are too many to be written out here.
    found |= {modules.absolute(name, path) for name in facts.names if name.endswith(".")}
    return found | {file for name in facts.names for file in modules.named(name, path)}


def _reach(roots: Iterable[str], reaches: Mapping[str, set[str]], modules: Modules) -> set[str]:
    found = set(roots)
    waiting = deque(found)
    while waiting:
        place = waiting.popleft()
        new = set(modules.inside(place) if place.endswith(".") else reaches.get(place, ())) - found
        found |= new
        waiting.extend(new)
    return found


def _kinds(files: Mapping[str, Facts], roots: Mapping[Kind, Mapping[str, str]], modules: Modules) -> Mapping[str, Kind]:
    """Give each file the first kind from whose roots it is reached."""
    reaches = {path: _reached_by(path, facts, modules) - {path} for path, facts in files.items()}
    reached = {kind: _reach(paths, reaches, modules) for kind, paths in roots.items()}
    kinds = {path: next((kind for kind in reached if path in reached[kind]), Kind.DEAD) for path in files}
    kinds |= dict.fromkeys(roots[Kind.TESTS], Kind.TESTS)  # also those that something else imports
    return kinds | {path: _of_package(path, kinds) for path, kind in kinds.items() if kind is Kind.DEAD}


def _mains(files: Iterable[str], entries: Mapping[str, str], by_hand: Mapping[str, str]) -> Iterator[str]:
    """Give the ``__main__.py`` that are entry points: of what is in production, or of what nothing runs by hand."""
    served = {path.partition("/")[0] for path in entries}
    for path in files:
        is_served = path.partition("/")[0] in served
        if PurePosixPath(path).name == "__main__.py" and (is_served or not by_hand.get(path, "").startswith("run by")):
            yield path


def _of_package(path: str, kinds: Mapping[str, Kind]) -> Kind:
    """Give an ``__init__.py`` the kind of what lies below it: whoever runs that by its path does not import this."""
    if PurePosixPath(path).name != "__init__.py":
        return Kind.DEAD
    below = {kind for file, kind in kinds.items() if file.startswith(_folder(path) + "/")}
    return next((kind for kind in Kind if kind in below), Kind.DEAD)


def _why(path: str, kind: Kind, tests: Mapping[str, str]) -> str:
    return "only tests reach it" if kind is Kind.TESTS and path not in tests else ""


def _documented(texts: Mapping[str, str], modules: Modules) -> dict[str, str]:
    found: dict[str, str] = {}
    for page, text in sorted(texts.items()):
        if _DOCUMENT.fullmatch(page):
            files = {file for name in set(_PATH.findall(text)) for file in modules.at(name)}
            files |= {file for name in set(_DOTTED.findall(text)) for file in modules.named(name)
                      if PurePosixPath(file).name != "__init__.py"}  # fmt: skip
            for file in files:
                found.setdefault(file, page)
    return found


def _entries(settings: Mapping[str, Settings], texts: Mapping[str, str], modules: Modules) -> Iterator[tuple[str, str]]:
    for path, entry in ((path, entry) for path, said in settings.items() for entry in said.entries):
        why = f"script {entry.name}" if entry.name else f"installed by {path}"
        if entry.is_path:
            found = modules.at(f"./{PurePosixPath(path).parent / entry.target}")
        else:
            found = modules.imported(entry.target.partition(":")[0].strip(), path)
        yield from ((file, why) for file in found if PurePosixPath(file).name != "__init__.py")
    for path, text in texts.items():
        why = f"unit {path}" if ".service" in path else f"started by {path}"
        for commands in (commands for files, commands in _SERVED if files.fullmatch(path)):
            for command in commands.findall(_CONTINUED.sub(" ", _COMMENT.sub("", text))):
                yield from ((file, why) for file in _run_by(command, modules))


def _by_hand(files: Mapping[str, Facts], texts: Mapping[str, str], modules: Modules) -> Iterator[tuple[str, str]]:
    yield from ((path, "names Python in its first line") for path, facts in files.items() if facts.is_program)
    yield from ((path, "has a __main__ guard") for path, facts in files.items() if facts.is_script)
    named = ((path, _tool_of(path, files)) for path in files)
    yield from ((path, f"run by {tool}") for path, tool in named if tool)
    for path, text in sorted(texts.items()):
        if path.endswith(_NOTEBOOK):
            used = (file for name in imports_of_notebook(text) for file in modules.imported(name, path))
            yield from ((file, f"used by {path}") for file in used)
        if _BUILD.fullmatch(path):
            yield from ((file, f"run by {path}") for file in _run_by(text, modules))


def _tool_of(path: str, files: Mapping[str, Facts]) -> str:
    folder, _, name = path.rpartition("/")
    if name == "models.py" and f"{folder}/apps.py" in files:
        return "django"
    return _BY_TOOLS.get(name) or next((tool for place, tool in _BY_PLACE if place.fullmatch(path)), "")


def _run_by(text: str, modules: Modules) -> Iterator[str]:
    finders: tuple[tuple[re.Pattern[str], Callable[[str], Iterator[str]]], ...] = (
        (_PATH, modules.at), (_PROGRAM, modules.at), (_RUN_MODULE, modules.run), (_APP, modules.app),
        (_DOTTED, modules.named),
    )  # fmt: skip
    joined = _CONTINUED.sub(" ", text)
    bare = _WORDS_APART.sub(" ", joined)
    for pattern, find in finders:
        for name in {found[found.lastindex or 0] for found in pattern.finditer(bare)}:
            yield from find(name)
    code = "\n".join(quoted[1:-1] for quoted in _CODE.findall(joined)).replace(";", "\n")
    yield from (file for name in guessed_imports(code.encode()) for file in modules.imported(name, ""))
