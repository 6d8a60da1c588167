"""Where things are: a data directory, before anything in it is read, and a user's own folders."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

NOT_HERE: Final = "name the one that `serve` was given with --data-dir; under systemd, look as root"


def may_look_into(data_dir: Path) -> bool:
    """Tell whether this is a data directory, and one that this user may look into."""
    observer = data_dir / "_observer"
    with suppress(OSError):
        return observer.is_dir() and os.access(observer, os.R_OK | os.X_OK)
    return False


def users_folder(variable: str, default: str) -> Path:
    """Give a folder of the XDG standard, which has a path that is not absolute count as none."""
    given = Path(os.environ.get(variable, ""))
    return given if given.is_absolute() else Path.home() / default
