"""Settings that name a file which holds a secret."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
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


def read_secret(file: str) -> str:
    """Read such a file. What is no plain one is refused: of a pipe nobody can tell how long to wait for its end.

    :raises OSError: it cannot be read, or is none.
    :raises UnicodeDecodeError: it is no UTF-8.
    """
    path = Path(file)
    if path.exists() and not path.is_file():
        raise OSError(f"{file} is no plain file")
    return path.read_text(encoding="utf-8-sig")  # some editors begin a text with a mark


def exposed_files(settings: Settings) -> Iterator[tuple[str, Path]]:
    """Give each setting and its file that every user of the machine may read.

    A certificate is for all; but where no other file is named for the key, the key is in it.
    """
    paths = leaves_of(settings)
    for name in sorted(SECRET_FILES - ({"listen.tls_cert"} if paths["listen.tls_key"] else set())):
        if paths[name] and is_for_all(Path(paths[name])):
            yield name, Path(paths[name])


def is_for_all(file: Path) -> bool:
    """Say whether every user of the machine may read a file; False when it is not there."""
    with suppress(OSError):
        return bool(file.stat().st_mode & stat.S_IROTH)
    return False
