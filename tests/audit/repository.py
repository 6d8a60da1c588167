"""A real git repository for a test."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

PROJECT: Final = {
    "pyproject.toml": '[project]\nrequires-python = ">=3.8"\n\n[project.scripts]\nshop = "shop.cli:main"\n',
    "shop/__init__.py": '"""The shop."""\n',
    "shop/cli.py": '"""The command line."""\n\nfrom shop import orders\n\n\ndef main():\n    orders.place()\n',
    "shop/orders.py": '"""Orders."""\n\n\ndef place():\n    pass\n',
    "tests/test_orders.py": "from shop import orders\n\n\ndef test_it():\n    orders.place()\n",
}
"""A small project without a fault."""


class Repository:
    """One below a folder, with a first commit on ``main``."""

    def __init__(self, root: Path, files: dict[str, str] | None = None) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self.git("init", "-q", "-b", "main")
        self.commit(PROJECT if files is None else files)

    def git(self, *arguments: str) -> str:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        who = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
        command = ["git", "-c", "user.name=n", "-c", "user.email=e@example.org", *arguments]
        ended = subprocess.run(command, cwd=self.root, env=kept | who, capture_output=True, text=True, check=True)
        return ended.stdout.strip()

    def write(self, files: dict[str, str]) -> None:
        for path, text in files.items():
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            (self.root / path).write_text(text, encoding="utf-8")

    def commit(self, files: dict[str, str] | None = None, *, without: tuple[str, ...] = ()) -> str:
        """Write files, remove others, and commit all; give the commit."""
        self.write(files or {})
        for path in without:
            (self.root / path).unlink()
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "m")
        return self.git("rev-parse", "HEAD")

    def branch(self, name: str = "work") -> None:
        self.git("switch", "-q", "-c", name)
