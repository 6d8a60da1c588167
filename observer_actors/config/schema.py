"""What settings there are, read from their types: names, defaults, bounds, and the text below each of them."""

from __future__ import annotations

import ast
import difflib
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, cast

import msgspec
from msgspec import inspect as types

from observer_actors import settings as declared
from observer_actors.settings import INT_MAX, Section, Settings


@dataclass(frozen=True, slots=True)
class Leaf:
    """One setting. ``name`` is dotted; ``default`` is as TOML would say it (a path is a text, a tuple a list)."""

    name: str
    type: Any
    default: Any

    @property
    def section(self) -> str:
        """The dotted name of its section; "" at the top."""
        return self.name.rpartition(".")[0]

    @property
    def is_secret(self) -> bool:
        """Whether nobody should read its value over a shoulder or in a ticket."""
        return any(word in self.name.rpartition(".")[2] for word in ("token", "secret", "password"))

    @property
    def kind(self) -> types.Type:
        """What msgspec knows about its type."""
        return types.type_info(self.type)

    def doc(self) -> str:
        """Give the text below it, in one line."""
        return _docs().get(self.name, "")

    def bounds(self) -> str:
        """Say what its value may be, e.g. ``0 to 65535``; "" when anything of its type may."""
        kind = self.kind
        if not isinstance(kind, types.IntType | types.FloatType):
            return ""
        most = None if kind.le == INT_MAX else kind.le
        if kind.ge is not None and most is not None:
            return f"{kind.ge:,} to {most:,}"
        told = (("at least", kind.ge), ("above", kind.gt), ("at most", most), ("below", kind.lt))
        return ", ".join(f"{word} {bound:,}" for word, bound in told if bound is not None)

    def choices(self) -> str:
        """Say which texts, or lists of texts, its value may be; "" when any of its type may."""
        kind = self.kind
        if isinstance(kind, types.VarTupleType) and isinstance(kind.item_type, types.LiteralType):
            *others, last = map(str, kind.item_type.values)
            return f"any of {', '.join(others)} and {last}"
        return "true or false" if isinstance(kind, types.BoolType) else _CHOICES.get(self.name, "")


_BASE_URL: Final = "empty, or an http or https URL without query and fragment, e.g. http://127.0.0.1:3700"
_CHOICES: Final[Mapping[str, str]] = {
    "listen.unix_mode": "three octal digits, e.g. 0660",
    "diagnosis.backend": "openai, ollama, llama.cpp or empty",
    "gateway.url": _BASE_URL,
    "model.lakehouse_url": _BASE_URL,
    "diagnosis.url": _BASE_URL,
    "failures.webhook_url": "empty, or an http or https URL",
    "log.level": "debug, info, warning or error",
}
"""What the patterns of settings say, in words."""


def _walk(section: type[Section], prefix: str = "") -> Iterator[tuple[str, type[Section], msgspec.structs.FieldInfo]]:
    for field in msgspec.structs.fields(section):
        if isinstance(field.type, type) and issubclass(field.type, Section):
            yield from _walk(field.type, f"{prefix}{field.name}.")
        else:
            yield prefix, section, field


LEAVES: Final[Mapping[str, Leaf]] = {
    prefix + field.name: Leaf(prefix + field.name, field.type, msgspec.to_builtins(field.default, enc_hook=str))
    for prefix, _, field in _walk(Settings)
}
"""Every setting by its dotted name, in the order of the file."""
SECTIONS: Final = frozenset(leaf.section for leaf in LEAVES.values())


def leaves_of(settings: Settings) -> dict[str, Any]:
    """Give the values by dotted name, as TOML would say them."""
    tree = msgspec.to_builtins(settings, enc_hook=str)
    return {name: _at(tree, name) for name in LEAVES}


def settings_from(values: Mapping[str, Any]) -> Settings:
    """Put values by dotted name together; what is not given has its default."""
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *sections, last = name.split(".")
        branch = tree
        for section in sections:
            branch = branch.setdefault(section, {})
        branch[last] = value
    return msgspec.convert(tree, Settings, dec_hook=_to_path)


def convert(leaf: Leaf, value: object, *, strict: bool) -> Any:  # noqa: ANN401 - the leaf's own type
    """Make a value of the setting's type.

    :param strict: false for what came as text.
    :raises msgspec.ValidationError: it is none.
    """
    return msgspec.convert(value, leaf.type, strict=strict, dec_hook=_to_path)


def nearest_name(name: str) -> str:
    """Give the setting or section whose name looks most like this one, or ""."""
    known = [*LEAVES, *filter(None, SECTIONS)]
    close = difflib.get_close_matches(name, known, 1)
    if close:
        return close[0]
    # The right name in the wrong section, or in none: as different as it looks, it is what was meant.
    same = [leaf for leaf in LEAVES if leaf.rpartition(".")[2] == name.rpartition(".")[2]]
    return same[0] if len(same) == 1 else ""


def _at(tree: Any, name: str) -> Any:  # noqa: ANN401 - builtins
    for part in name.split("."):
        tree = tree[part]
    return tree


def _to_path(kind: type, value: object) -> object:
    assert kind is Path, "the only type of a setting that msgspec does not know"
    if not isinstance(value, str):
        raise TypeError(f"Expected `str`, got `{type(value).__name__}`")
    if not value:
        raise ValueError("an empty path; the working directory is .")
    return Path(value)


@cache
def section_doc(name: str) -> str:
    """Give the text of a section."""
    kind: Any = Settings
    for part in name.split("."):
        kind = next(field.type for field in msgspec.structs.fields(kind) if field.name == part)
    return inspect.getdoc(kind) or ""


@cache
def _docs() -> Mapping[str, str]:
    """Read the texts below the settings from the module's source: Python itself throws them away."""
    module = ast.parse(inspect.getsource(declared))
    found = {
        node.name: dict(_texts_below(node.body)) for node in module.body if isinstance(node, ast.ClassDef) and node.body
    }
    return {
        prefix + field.name: found[section.__name__].get(field.name, "") for prefix, section, field in _walk(Settings)
    }


def _texts_below(body: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    for field, below in pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
        ):
            yield field.target.id, " ".join(cast("str", below.value.value).split())
