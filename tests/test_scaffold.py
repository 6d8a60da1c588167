"""The project's own files hold together: packaging, lock, import contracts, the rule about skips."""

import ast
import re
import tomllib
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import pytest
from packaging.requirements import Requirement

from observer_actors import __version__
from observer_actors.client import _advice as client_advice
from observer_actors.commands import advice as advice_command
from observer_actors.mcp.tools import GetAdvice
from observer_actors.patterns import State
from observer_actors.playbook import ranking
from observer_actors.settings import PatternState
from tests.conftest import NO_SKIP_VARIABLE, ROOT
from tests.harness import own_environment

pytest_plugins = ["pytester"]

PYTHONS = ("3.11", "3.12", "3.13")


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def locked() -> Iterator[Requirement]:
    for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines():
        if line and not line.lstrip().startswith("#"):
            yield Requirement(line)


def test_the_version_is_a_release_number() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_pins_each_dependency_once_within_its_range(python: str) -> None:
    here = {"python_version": python, "python_full_version": f"{python}.0"}
    pins = [pin for pin in locked() if pin.marker is None or pin.marker.evaluate(here)]
    versions = {pin.name: str(pin.specifier).removeprefix("==") for pin in pins}
    assert len(versions) == len(pins)
    project = pyproject()["project"]
    wanted = map(Requirement, [*project["dependencies"], *project["optional-dependencies"]["dev"]])
    assert [str(want) for want in wanted if not want.specifier.contains(versions.get(want.name, "0"))] == []


def test_the_lock_names_no_place_to_load_from() -> None:
    assert [str(pin) for pin in locked() if pin.url] == []
    assert "://" not in (ROOT / "requirements.lock").read_text(encoding="utf-8")


def test_each_module_that_calls_itself_pure_stands_under_the_pure_contract() -> None:
    contracts = {contract["id"]: contract for contract in pyproject()["tool"]["importlinter"]["contracts"]}
    held = {name.replace(".", "/") for name in contracts["pure"]["source_modules"]}
    loose = []
    for path in sorted((ROOT / "observer_actors").rglob("*.py")):
        says = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        module = path.relative_to(ROOT).with_suffix("")
        if re.search(r"\bpure\b", says, re.IGNORECASE) and not held & {str(one) for one in (module, *module.parents)}:
            loose.append(str(module))
    assert loose == []


def test_no_actor_measures_by_a_clock_that_the_simulation_does_not_hold() -> None:
    paths = [
        path for name in ("actors", "supervision") for path in sorted((ROOT / "observer_actors" / name).rglob("*.py"))
    ]
    real = re.compile(r"\btime\.(perf_counter|monotonic|process_time)|\bfrom time import|\btime\.time\(")
    assert len(paths) > 30
    assert [path.name for path in paths if real.search(path.read_text(encoding="utf-8"))] == ["surroundings.py"]


def test_what_several_layers_say_by_themselves_is_the_same() -> None:
    """They do not import each other: an agent shall not load the playbook, nor the settings the patterns."""
    wanted = {constraint.le for constraint in get_type_hints(GetAdvice, include_extras=True)["limit"].__metadata__}
    assert {ranking.LIMIT_MAX, client_advice.LIMIT_MAX, advice_command.LIMIT_MAX, *wanted} == {3}
    assert get_args(PatternState) == tuple(State)


def test_the_layers_are_drawn_as_they_are_held() -> None:
    layers = pyproject()["tool"]["importlinter"]["contracts"][0]["layers"]
    page = (ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rows = page.partition("## Layers")[2].partition("\n## ")[0].split("|---|---|\n")[1].splitlines()
    names = [re.findall(r"`(\w+)`", row.split("|")[1]) for row in rows if row]
    assert names == [layer.split(" | ") for layer in reversed(layers)]


def test_what_a_shell_says_of_a_daemon_reaches_none_that_a_test_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    there = own_environment()
    for name in ("OBSERVER_LOG__LEVEL", "OBSERVER_PORT", "OBSERVER_URL", "GATEWAY_URL"):
        monkeypatch.setenv(name, "of the shell")
    assert own_environment(OBSERVER_PORT="1") == {**there, "OBSERVER_PORT": "1"}


SKIPPING = """
    import pytest

    def test_needs_what_is_absent():
        pytest.skip("no such tool")

    @pytest.mark.xfail
    def test_known_to_fail():
        assert False
"""


def run(pytester: pytest.Pytester, patch: pytest.MonkeyPatch, *, no_skip: str) -> pytest.RunResult:
    patch.setenv(NO_SKIP_VARIABLE, no_skip)
    pytester.makeconftest((ROOT / "tests" / "conftest.py").read_text(encoding="utf-8"))
    return pytester.runpytest_inprocess("-p", "no:cov", "-p", "no:cacheprovider")


def test_a_skip_is_a_skip_where_tools_may_be_missing(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(SKIPPING)
    run(pytester, monkeypatch, no_skip="").assert_outcomes(skipped=1, xfailed=1)


def test_a_skip_is_a_failure_where_nothing_may_be_missing(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(SKIPPING)
    result = run(pytester, monkeypatch, no_skip="1")
    result.assert_outcomes(failed=1, xfailed=1)
    result.stdout.fnmatch_lines(["*no such tool (refused: OBSERVER_TEST_NO_SKIP is set)*"])


def test_a_file_that_skips_as_a_whole_is_an_error_where_nothing_may_be_missing(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile("import pytest; pytest.importorskip('a_module_that_nobody_has')")
    run(pytester, monkeypatch, no_skip="1").assert_outcomes(errors=1)
