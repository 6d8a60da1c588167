"""The schemas of the description: structs of one name are told apart, and each schema comes with what it refers to."""

from __future__ import annotations

import msgspec
import pytest

from observer_actors.http.schemas import Schemas


def struct(name: str, module: str, **fields: type) -> type[msgspec.Struct]:
    return msgspec.defstruct(name, list(fields.items()), module=module)


def test_a_schema_comes_with_all_that_it_refers_to_and_nothing_else() -> None:
    leaf = struct("Leaf", "observer_actors.op", n=int)
    branch = struct("Branch", "observer_actors.op", leaf=leaf)
    other = struct("Other", "observer_actors.op", s=str)
    schemas = Schemas([branch, other, list[branch]])  # type: ignore[valid-type]
    schema, components = schemas.of(list[branch])  # type: ignore[valid-type]
    assert schema == {"type": "array", "items": {"$ref": "#/components/schemas/Branch"}}
    assert sorted(components) == ["Branch", "Leaf"]
    assert schemas.component(other)["properties"] == {"s": {"type": "string"}}


def test_two_of_one_name_are_called_after_their_packages() -> None:
    first = struct("State", "observer_actors.patterns.states", n=int)
    second = struct("State", "observer_actors.playbook.entries", s=str)
    schemas = Schemas([first, second])
    assert schemas.of(first)[0] == {"$ref": "#/components/schemas/PatternsState"}
    assert schemas.of(second)[0] == {"$ref": "#/components/schemas/PlaybookState"}


def test_two_of_one_name_and_one_package_keep_their_long_names() -> None:
    first = struct("State", "observer_actors.patterns.states", n=int)
    second = struct("State", "observer_actors.patterns.history", s=str)
    (name,) = Schemas([first, second]).of(first)[1]
    assert name == "observer_actors.patterns.states.State"


def test_what_was_not_given_is_not_described() -> None:
    with pytest.raises(ValueError, match="is not in list"):
        Schemas([]).of(int)
