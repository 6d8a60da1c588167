"""What the settings of a project say: what its installation lets people run, and which Python it wants. Pure.

They are ``pyproject.toml``, ``setup.cfg`` and, as far as it is written out there, the ``setup()`` of a ``setup.py``.
"""

from __future__ import annotations

import ast
import configparser
import re
import tomllib
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

_CLAUSE: Final = re.compile(r"(>=|<=|==|!=|~=|>|<|\^)?\s*(\d{1,4})(?:\.(\d{1,4}))?(?:\.[\d*]+)*")


class Entry(msgspec.Struct, frozen=True):
    """One thing that can be run or imported once the project is installed."""

    target: str
    """``module:function``, or the path of a file."""
    name: str = ""
    """Of the command; "" for what is installed as it is."""
    is_path: bool = False


class Settings(msgspec.Struct, frozen=True):
    """Of one file. ``requires_python``: "" when it says nothing."""

    entries: tuple[Entry, ...] = ()
    requires_python: str = ""


def settings_of(path: str, text: str) -> Settings:
    """Read a file's text; one that cannot be read says nothing."""
    try:
        return _of_setup_cfg(text) if path.endswith(".cfg") else _of_toml(tomllib.loads(text))
    except (configparser.Error, ValueError, RecursionError):  # of TOML also a number of too many digits
        return Settings()


def settings_in(setup: ast.Call) -> Settings:
    """Read a call of ``setup()``: the strings that stand in it."""
    said = {
        keyword.arg: [node.value for node in ast.walk(keyword.value)
                      if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        for keyword in setup.keywords
    }  # fmt: skip
    entries = (
        *_commands("\n".join(said.get("entry_points", ()))),
        *(Entry(path, is_path=True) for path in said.get("scripts", ())),
        *(Entry(module) for module in said.get("py_modules", ())),
    )
    return Settings(entries, ",".join(said.get("python_requires", ())))


def includes(wanted: str, running: tuple[int, int]) -> bool | None:
    """Say whether a ``requires-python`` includes a Python; None when that cannot be told."""
    clauses = [_CLAUSE.fullmatch(clause.strip()) for clause in wanted.split(",")]
    met = [_is_met(clause, running) if clause else None for clause in clauses]
    return False if False in met else None if None in met else True


def _is_met(clause: re.Match[str], running: tuple[int, int]) -> bool:
    named = (int(clause[2]), int(clause[3] or 0))
    match clause[1]:
        case ">=" | ">" | "~=" | "^":  # the upper ends of the last two lie above every Python 3
            return named <= running
        case "<=":
            return running <= named
        case "<":
            return running < named
        case "!=":
            return running != named
    return running == named


def _of_toml(settings: dict[str, Any]) -> Settings:
    project, tool = _table(settings, "project"), _table(settings, "tool")
    poetry, setuptools = _table(tool, "poetry"), _table(tool, "setuptools")
    groups = (*_table(project, "entry-points").values(), *_table(poetry, "plugins").values())
    tables = [_table(project, "scripts"), _table(project, "gui-scripts"), _table(poetry, "scripts")]
    entries = (
        *(Entry(target, name) for table in (*tables, *(_table(group, "") for group in groups))
          for name, target in table.items() if isinstance(target, str)),
        *(Entry(path, is_path=True) for path in _texts(setuptools.get("script-files"))),
        *(Entry(module) for module in _texts(setuptools.get("py-modules"))),
        *(Entry(path, is_path=True) for path in _texts([_table(_table(tool, "hatch"), "version").get("path")])),
        *(Entry(name) for name in _texts([_table(_table(setuptools, "dynamic"), "version").get("attr")])),
    )  # fmt: skip
    wanted = project.get("requires-python") or _table(poetry, "dependencies").get("python")
    return Settings(entries, wanted if isinstance(wanted, str) else "")


def _of_setup_cfg(text: str) -> Settings:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.read_string(text)
    points = parser["options.entry_points"].values() if parser.has_section("options.entry_points") else ()
    options = parser["options"] if parser.has_section("options") else {}
    entries = (
        *_commands("\n".join(points)),
        *(Entry(path, is_path=True) for path in options.get("scripts", "").replace(",", "\n").split()),
        *(Entry(module) for module in options.get("py_modules", "").replace(",", "\n").split()),
    )
    return Settings(entries, options.get("python_requires", ""))


def _commands(text: str) -> Iterator[Entry]:
    """Read lines ``name = module:function``."""
    pairs = (line.partition("=") for line in text.splitlines())
    yield from (Entry(target.strip(), name.strip()) for name, is_there, target in pairs if is_there)


def _texts(value: object) -> Iterable[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def _table(holder: Any, name: str) -> dict[str, Any]:  # noqa: ANN401 - whatever TOML holds
    value = holder.get(name) if name and isinstance(holder, dict) else holder
    return value if isinstance(value, dict) else {}
