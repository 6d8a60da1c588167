"""Writes down in what is built from which commit it was made: `observer-actors --version` says it."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

COMMIT_FILE: Final = "observer_actors/commit.txt"
DESCRIBE: Final = ("git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")


class CommitHook(BuildHookInterface):  # type: ignore[type-arg]
    """Puts the commit into the wheel and the source distribution; a wheel made from the latter finds it there."""

    _folder: tempfile.TemporaryDirectory[str] | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the file, if this is a checkout."""
        root = Path(self.root)
        if version == "editable" or not (root / ".git").exists() or (root / COMMIT_FILE).exists():
            return
        ended = subprocess.run(DESCRIBE, cwd=root, capture_output=True, text=True, check=False)  # noqa: S603
        if ended.returncode != 0:
            return
        self._folder = tempfile.TemporaryDirectory()
        file = Path(self._folder.name) / "commit.txt"
        file.write_text(ended.stdout.strip() + "\n", encoding="utf-8")
        build_data["force_include"][str(file)] = COMMIT_FILE

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002 - hatchling's
        """Remove what was only needed for building."""
        if self._folder is not None:
            self._folder.cleanup()
