"""The files of a tree, read without trust: no link is followed, nothing but plain files is opened, all is bounded."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec

from observer_actors.audit.checks import Change
from observer_actors.audit.git import OWN_FOLDERS, AuditFailed, Blob, Git
from observer_actors.visible import cut

FILE_BYTES_MAX: Final = 1024 * 1024
"""A larger file is no source that a person wrote. It is left out, and counted."""
TREE_BYTES_MAX: Final = 256 * 1024 * 1024
FILES_MAX: Final = 50_000
_NOT_WALKED: Final = frozenset({"node_modules", "__pycache__", "build", "dist", "site-packages", *OWN_FOLDERS})


class Tree(msgspec.Struct, frozen=True):
    """What was read.

    ``left_out``: links, files that are no plain ones, what is too large, and what was not checked out; with a slash at
    the end a submodule, or another repository that lies in the tree.
    """

    files: dict[str, bytes]
    left_out: frozenset[str]


def find_git(root: Path) -> Git | None:
    """Give the repository that a folder lies in; None when it lies in none.

    :raises AuditFailed: it is no folder.
    """
    try:
        is_there, here = root.is_dir(), root.resolve()
        if not is_there:
            raise AuditFailed(f"{root} is no folder")
        return Git(root) if any((folder / ".git").exists() for folder in (here, *here.parents)) else None
    except (OSError, RuntimeError) as error:  # not ours to enter; a loop of links
        raise AuditFailed(f"{cut(str(root), 100)} cannot be read: {getattr(error, 'strerror', error)}") from error


def read_tree(root: Path, git: Git | None) -> Tree:
    """Read a tree.

    :raises AuditFailed: it is more than anybody could audit.
    """
    paths = git.files() if git else dict.fromkeys(_walked(root), True)
    if len(paths) > FILES_MAX:
        raise AuditFailed(f"more than {FILES_MAX:,} files", hint="name a folder of it")
    files: dict[str, bytes] = {}
    left_out: set[str] = set()
    read = 0
    inside: dict[str, bool] = {}
    for path in sorted(paths, key=lambda path: (not path.endswith(".py"), path)):
        folder = os.path.dirname(path)  # noqa: PTH120 - thousands of times
        if folder not in inside:
            inside[folder] = _lies_inside(root / folder, root)
        data = _read(root / path) if inside[folder] and read <= TREE_BYTES_MAX else None
        if data is not None:
            files[path] = data
            read += len(data)
        elif not paths[path] or os.path.lexists(root / path):
            left_out.add(f"{path.rstrip('/')}/" if _is_folder(root / path) else path)
    return Tree(files, frozenset(left_out))


def _walked(root: Path) -> Iterator[str]:
    for folder, folders, names in os.walk(root):
        here = Path(folder)
        kept = (name for name in folders if name not in _NOT_WALKED and not (name[0] == "." and name not in _KEPT))
        folders[:] = sorted(name for name in kept if not (here / name / "pyvenv.cfg").exists())
        yield from (str((here / name).relative_to(root)) for name in sorted(names))


_KEPT: Final = frozenset({".ci", ".github", ".circleci"})


def _lies_inside(folder: Path, root: Path) -> bool:
    """Say whether no link leads out of the tree on the way to a folder."""
    return os.path.realpath(folder) == os.path.normpath(os.path.join(os.path.realpath(root), folder.relative_to(root)))  # noqa: PTH118


def _is_folder(path: Path) -> bool:
    """Git names a folder as if it were a file when it is a submodule, or another repository."""
    return path.is_dir() and not path.is_symlink()


def _read(path: Path) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    try:
        about = os.fstat(fd)
        if not stat.S_ISREG(about.st_mode) or about.st_size > FILE_BYTES_MAX:
            return None
        with open(fd, "rb", closefd=False) as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError:
        return None
    finally:
        os.close(fd)
    return data if len(data) <= FILE_BYTES_MAX else None


def changes(tree: Tree, git: Git, base: str) -> list[Change]:
    """Compare the tree as it lies there, committed or not, with a commit."""
    before = {path: blob for path, blob in git.tree(base).items() if not _is_left_out(path, tree.left_out)}
    changed = [path for path, data in tree.files.items() if not _is_same(data, before.get(path))]
    deleted = [path for path in before if path not in tree.files]
    wanted = {before[path].name for path in (*changed, *deleted) if path in before and _is_small(before[path])}
    contents = dict(git.contents(sorted(wanted)))
    old = {path: contents.get(blob.name, b"") for path, blob in before.items()}
    found = [
        *(Change(path, "deleted", old[path]) for path in deleted),
        *(_new(path, tree.files[path], old.get(path)) for path in changed),
    ]
    return sorted(found, key=lambda change: change.path)


def _is_left_out(path: str, left_out: frozenset[str]) -> bool:
    """Say whether nobody looked at it: also what lay where a submodule or a link is now may still be there."""
    above = [str(folder) for folder in PurePosixPath(path).parents]
    return path in left_out or any(folder in left_out or f"{folder}/" in left_out for folder in above)


def _is_small(blob: Blob) -> bool:
    return blob.size <= FILE_BYTES_MAX


def _is_same(data: bytes, blob: Blob | None) -> bool:
    """Compare by git's name of contents."""
    if blob is None or blob.size != len(data):
        return False
    digest = hashlib.sha1 if len(blob.name) == 40 else hashlib.sha256  # noqa: PLR2004 - hexadecimal digits of SHA-1
    return digest(b"blob %d\0" % len(data) + data).hexdigest() == blob.name


def _new(path: str, new: bytes, old: bytes | None) -> Change:
    """Give what is there now; of a file that is no text, no lines."""
    lines = [] if b"\0" in new else new.splitlines()
    added = tuple(_added(lines, old or b""))
    text = "\n".join(line.decode("utf-8", "replace") for line in lines) if added else ""
    return Change(path, "added" if old is None else "modified", old or b"", added, text)


def _added(lines: Iterable[bytes], old: bytes) -> Iterator[tuple[int, str]]:
    """Give the lines that were not there before, wherever they stand."""
    left = Counter(old.splitlines())
    for number, line in enumerate(lines, 1):
        if left[line] > 0:
            left[line] -= 1
        else:
            yield number, line.decode("utf-8", "replace")
