"""Settings that name a file which holds a secret."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Final

from observer_actors.config.schema import leaves_of
from observer_actors.settings import Settings

SECRET_FILES: Final = frozenset({"auth.tokens_file", "diagnosis.api_key_file", "listen.tls_cert", "listen.tls_key"})
"""A credential of such a name is the file itself."""


def digests_of(settings: Settings) -> Mapping[str, bytes]:
    """Give a SHA-256 for each setting that names such a file: a file that is another one since has another.

    :return: without those that name none, or one that cannot be read.
    """
    paths = leaves_of(settings)
    found: dict[str, bytes] = {}
    for name in sorted(SECRET_FILES):
        with suppress(OSError):
            if paths[name] and Path(paths[name]).is_file():  # a pipe gives what it holds once, to who reads it for use
                found[name] = sha256(Path(paths[name]).read_bytes()).digest()
    return found


def is_for_all(file: Path) -> bool:
    """Say whether every user of the machine may read a file; False when it is not there."""
    with suppress(OSError):
        return bool(file.stat().st_mode & stat.S_IROTH)
    return False
