"""What an installation of a project puts on the path, by ``pyproject.toml`` or ``setup.cfg``. Pure."""

from __future__ import annotations

import configparser
import tomllib
from collections.abc import Iterator
from typing import Any

__all__ = ["scripts_of"]


def scripts_of(path: str, text: str) -> Iterator[tuple[str, str]]:
    """Give name and ``module:function`` of each; a file that cannot be read has none."""
    if path.endswith(".cfg"):
        yield from _of_setup_cfg(text)
        return
    try:
        settings = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError):
        return
    project = _table(settings, "project")
    poetry = _table(_table(_table(settings, "tool"), "poetry"), "scripts")
    groups = [_table(group, "") for group in _table(project, "entry-points").values()]
    for table in (_table(project, "scripts"), _table(project, "gui-scripts"), poetry, *groups):
        yield from ((name, target) for name, target in table.items() if isinstance(target, str))


def _of_setup_cfg(text: str) -> Iterator[tuple[str, str]]:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(text)
    except configparser.Error:
        return
    section = "options.entry_points"
    for lines in dict(parser[section]).values() if parser.has_section(section) else ():
        pairs = (line.partition("=") for line in lines.splitlines())
        yield from ((name.strip(), target.strip()) for name, is_there, target in pairs if is_there)


def _table(holder: Any, name: str) -> dict[str, Any]:  # noqa: ANN401 - whatever TOML holds
    value = holder.get(name) if name and isinstance(holder, dict) else holder
    return value if isinstance(value, dict) else {}
