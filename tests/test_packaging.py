"""What is built holds all that it needs, and says from which commit it is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path
from typing import Final

import pytest

from observer_actors import __version__
from observer_actors.commit import commit, version_line
from tests.conftest import ROOT

BUILD_S: Final = 100


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution, and the wheel that is made from it, as an installer does."""
    folder = tmp_path_factory.mktemp("dist")
    build(ROOT, folder, "sdist")
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "source", filter="data")
    (source,) = (folder / "source").iterdir()
    build(source, folder, "wheel")
    return folder


def build(source: Path, folder: Path, target: str) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=BUILD_S)


def test_the_wheel_holds_the_whole_package_and_the_units_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = {str(path.relative_to(ROOT)) for path in (ROOT / "observer_actors").rglob("*.py")}
    units = {f"observer_actors/{path.relative_to(ROOT)}" for path in (ROOT / "systemd").rglob("*.*") if path.is_file()}
    others = {"observer_actors/py.typed", "observer_actors/commit.txt"}
    assert held - others == package | units
    assert "observer_actors/py.typed" in held


def test_a_checkout_is_made_into_the_same_wheel(built: Path, tmp_path: Path) -> None:
    """As `pipx install .` does it."""
    build(ROOT, tmp_path, "wheel")
    (made,), (wheel,) = tmp_path.glob("*.whl"), built.glob("*.whl")
    assert set(zipfile.ZipFile(made).namelist()) == set(zipfile.ZipFile(wheel).namelist())


def test_the_source_distribution_can_be_worked_with(built: Path) -> None:
    (source,) = (built / "source").iterdir()
    for name in ("Makefile", "pyproject.toml", "requirements.lock", "README.md", "CHANGELOG.md", "LICENSE"):
        assert (source / name).is_file(), name
    for folder in ("tests", "docs/guide", "docs/monitoring", "systemd/user", "benchmarks"):
        assert any((source / folder).iterdir()), folder


def test_what_is_installed_works_and_says_its_commit(built: Path, tmp_path: Path) -> None:
    """In an environment of its own, with our dependencies lent to it; the installer itself fetches nothing."""
    (wheel,) = built.glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, str(wheel)], check=True, timeout=BUILD_S, cwd=tmp_path)
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    program = tmp_path / "venv" / "bin" / "observer-actors"
    said = run(program, tmp_path, "--version")
    assert re.fullmatch(rf"{re.escape(__version__)} \(commit ([0-9a-f]{{12}}(-dirty)?|unknown)\)", said.strip()), said
    if (ROOT / ".git").exists():
        assert "unknown" not in said
    units = run(program, tmp_path, "install-service", "--user")
    assert f"ExecStart={program} serve" in units
    assert "[journal]" in run(program, tmp_path, "config", "default")
    where = run(python, tmp_path, "-c", "import observer_actors; print(observer_actors.__file__)")
    assert where.startswith(str(tmp_path)), "it was the installed one"


def run(program: Path, folder: Path, *arguments: str) -> str:
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ended = subprocess.run(
        [str(program), *arguments], cwd=folder, env=clean, capture_output=True, text=True, check=True, timeout=60
    )
    return ended.stdout


def test_the_commit_of_a_checkout_of_a_package_and_of_neither(tmp_path: Path) -> None:
    package = tmp_path / "observer_actors"
    package.mkdir()
    assert commit(package) == ""
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@x", "-c", "commit.gpgsign=false", "-C", str(tmp_path)]
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    (package / "a").write_text("1")
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "x"], check=True)
    assert re.fullmatch("[0-9a-f]{12}", commit(package))
    (package / "a").write_text("2")
    assert re.fullmatch("[0-9a-f]{12}-dirty", commit(package))
    (package / "commit.txt").write_text("0123456789ab\n")
    assert commit(package) == "0123456789ab"
    assert version_line().startswith(f"{__version__} (commit ")
