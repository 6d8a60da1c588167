"""The configuration file that `observer-actors config default` prints: every setting, with its default and its text."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from observer_actors.config.layers import SYSTEM_FILE
from observer_actors.config.schema import LEAVES, Leaf, section_doc

WIDTH: Final = 100
GROUPED_FROM: Final = 10_000
"""Smaller whole numbers, such as ports, are written without underscores."""
_HEAD: Final = f"""\
# observer-actors: every setting, with its default. Uncomment what you want to change.
# Read from {SYSTEM_FILE}, and from the file that --config names.
# `observer-actors config check` looks for mistakes; `observer-actors config show` says where each value comes from.
# (reload): takes effect on SIGHUP, or `systemctl reload observer-actors`; any other needs a restart.
"""


def default_file() -> str:
    """Give the file as text. As it stands it changes nothing."""
    return "\n".join(_lines())


def toml_value(value: Any) -> str:  # noqa: ANN401 - a setting's value
    """Give a value as TOML writes it: as JSON does, for the types that settings have."""
    if isinstance(value, int) and value >= GROUPED_FROM:
        return f"{value:_}"
    if value == math.inf:  # which JSON cannot say
        return "inf"
    return msgspec.json.encode(value).decode()


def _lines() -> Iterator[str]:
    yield _HEAD
    section = ""
    for leaf in LEAVES.values():
        if leaf.section != section:
            section = leaf.section
            yield f"[{section}]"
            yield from _comment(section_doc(section))
            yield ""
        yield from _comment(_text(leaf))
        yield f"# {leaf.name.rpartition('.')[2]} = {toml_value(leaf.default)}"
        yield ""


def _text(leaf: Leaf) -> str:
    bounds = leaf.bounds()
    return f"{leaf.doc()} {bounds.capitalize()}." if bounds else leaf.doc()


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="# ", subsequent_indent="# ")
