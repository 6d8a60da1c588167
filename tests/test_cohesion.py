"""The page of the wires: every file and every test that it names exists, and each wire has both."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from tests.conftest import ROOT

PAGE: Final = (ROOT / "docs" / "COHESION_INTEGRATION_PLAN.md").read_text(encoding="utf-8")
WIRES: Final = dict(re.findall(r"^## ([A-F])\. (.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
NAMED: Final = re.compile(r"`((?:observer_actors|tests|docs)/[^`:]*)(?:::(\w+))?`")


@cache
def functions_of(path: Path) -> frozenset[str]:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.parse(path.read_bytes()).body if isinstance(node, functions))


def test_there_are_six_wires() -> None:
    assert list(WIRES) == list("ABCDEF")


@pytest.mark.parametrize("wire", WIRES)
def test_each_file_and_each_test_of_a_wire_exists(wire: str) -> None:
    found = NAMED.findall(WIRES[wire])
    assert [path for path, _ in found if not (ROOT / path).exists()] == []
    tests = [(path, name) for path, name in found if name]
    assert [name for path, name in tests if name not in functions_of(ROOT / path)] == []
    assert tests
    assert len(tests) < len(found), "code too"


@pytest.mark.parametrize("wire", WIRES)
def test_each_row_of_a_wire_names_code_and_a_test(wire: str) -> None:
    rows = re.findall(r"^\| [^|-].*\|$", WIRES[wire], re.MULTILINE)
    assert rows
    for row in rows:
        _, what, code, test, _ = row.split("|")
        assert what.strip()
        assert [name for _, name in NAMED.findall(code)] == [""] * len(NAMED.findall(code)) != [], row
        assert all(name.startswith("test_") for _, name in NAMED.findall(test)), row
        assert NAMED.findall(test), row
