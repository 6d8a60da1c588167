"""Which commit this is: as it was built, or as the checkout stands."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from observer_actors import __version__

_PACKAGE: Final = Path(__file__).parent
DESCRIBE: Final = ("git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
"""As in hatch_build.py, which writes `commit.txt`."""


def version_line() -> str:
    """Give e.g. ``0.1.0 (commit 0928b05a1c2d)``."""
    known = commit(_PACKAGE)
    return f"{__version__} (commit {known})" if known else f"{__version__} (commit unknown)"


def commit(package: Path) -> str:
    """Give the commit of an installed package or a checkout, ``-dirty`` with changed files; "" when nobody knows."""
    try:
        return (package / "commit.txt").read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        pass
    if not (package.parent / ".git").exists():
        return ""
    try:
        ended = subprocess.run(DESCRIBE, cwd=package, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError:
        return ""
    return ended.stdout.strip() if ended.returncode == 0 else ""
