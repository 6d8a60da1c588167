"""Settings that name a file which holds a secret."""

from __future__ import annotations

import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

SECRET_FILES: Final = frozenset({"auth.tokens_file", "diagnosis.api_key_file", "listen.tls_cert", "listen.tls_key"})
"""A credential of such a name is the file itself."""


def is_for_all(file: Path) -> bool:
    """Say whether every user of the machine may read a file; False when it is not there."""
    with suppress(OSError):
        return bool(file.stat().st_mode & stat.S_IROTH)
    return False
