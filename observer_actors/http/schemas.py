"""The schemas of the description, made together: two structs of one name in different modules get names of their own.

msgspec tells such structs apart within one call, by their modules: ``observer_actors.patterns.states.State``. Here that
is ``PatternsState``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

__all__ = ["Schema", "Schemas"]

Schema = dict[str, Any]
PREFIX: Final = "#/components/schemas/"
_OWN: Final = re.compile(r"observer_actors\.(?P<package>\w+)\.(?:\w+\.)*(?P<name>\w+)")


class Schemas:
    """The schemas of all models that are given, and of what they consist of."""

    def __init__(self, models: Iterable[Any]) -> None:
        self._models = list(models)
        found, components = msgspec.json.schema_components(self._models, ref_template=PREFIX + "{name}")
        names = _names(components)
        self._found = [_renamed(schema, names) for schema in found]
        self._components = {names[name]: _renamed(schema, names) for name, schema in components.items()}

    def of(self, model: Any) -> tuple[Schema, Schema]:  # noqa: ANN401 - a type
        """Give a model's schema, and the components that it refers to, each with what it refers to itself."""
        schema: Schema = self._found[self._models.index(model)]
        wanted, components = list(_references(schema)), {}
        while wanted:
            name = wanted.pop()
            if name not in components:
                components[name] = self._components[name]
                wanted += _references(components[name])
        return schema, components

    def component(self, model: Any) -> Schema:  # noqa: ANN401 - a type
        """Give the schema of a struct itself."""
        schema, _ = self.of(model)
        return dict(self._components[schema["$ref"].removeprefix(PREFIX)])


def _names(components: Iterable[str]) -> dict[str, str]:
    """Give each component a short name; one that would not be the only one keeps its long name."""
    short = {name: _short(name) for name in components}
    times = Counter(short.values())
    return {name: shortened if times[shortened] == 1 else name for name, shortened in short.items()}


def _short(name: str) -> str:
    own = _OWN.fullmatch(name)
    return f"{own['package'].capitalize()}{own['name']}" if own else name


def _renamed(node: Any, names: Mapping[str, str]) -> Any:  # noqa: ANN401 - any part of a schema
    if isinstance(node, list):
        return [_renamed(part, names) for part in node]
    if not isinstance(node, dict):
        return node
    return {
        key: PREFIX + names[value.removeprefix(PREFIX)] if key == "$ref" else _renamed(value, names)
        for key, value in node.items()
    }


def _references(node: Any) -> Iterable[str]:  # noqa: ANN401 - as above
    if isinstance(node, list):
        for part in node:
            yield from _references(part)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value.removeprefix(PREFIX)
            else:
                yield from _references(value)
