"""The files of a tree, read without trust: no link is followed, nothing but plain files is opened, all is bounded."""

from __future__ import annotations

import codecs
import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Final, Literal

import msgspec

from observer_actors.audit.checks import Change
from observer_actors.audit.git import OWN_FOLDERS, AuditFailed, Blob, Git
from observer_actors.visible import cut

FILE_BYTES_MAX: Final = 1024 * 1024
"""A larger file is no source that a person wrote. It is left out, and counted."""
TREE_BYTES_MAX: Final = 256 * 1024 * 1024
FILES_MAX: Final = 50_000
_POINTER: Final = b"version https://git-lfs.github.com/spec/"
_MARKS: Final = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
"""In this order: the first begins as the third."""
_NOT_WALKED: Final = frozenset({"node_modules", "__pycache__", "build", "dist", "site-packages", *OWN_FOLDERS})


class Tree(msgspec.Struct, frozen=True):
    """What was read.

    ``left_out``: links, files that are no plain ones, what is too large, and what was not checked out; with a slash at
    the end a submodule, or another repository that lies in the tree.
    """

    files: dict[str, bytes]
    left_out: frozenset[str]
    unread: dict[str, int]
    """The plain files of ``left_out``, with their sizes in bytes."""


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
    unread: dict[str, int] = {}
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
            size = _size(root / path) if inside[folder] else None
            unread.update({} if size is None else {path: size})
    return Tree(files, frozenset(left_out), unread)


def _walked(root: Path) -> Iterator[str]:
    for folder, folders, names in os.walk(root):
        here = Path(folder)
        kept = (name for name in folders if name not in _NOT_WALKED and not (name[0] == "." and name not in _KEPT))
        folders[:] = sorted(name for name in kept if not os.path.exists(here / name / "pyvenv.cfg"))  # noqa: PTH110
        shut = [name for name in folders if not os.access(here / name, os.R_OK | os.X_OK)]
        yield from (str((here / name).relative_to(root)) for name in sorted((*names, *shut)))


_KEPT: Final = frozenset({".ci", ".github", ".circleci"})


def _lies_inside(folder: Path, root: Path) -> bool:
    """Say whether no link leads out of the tree on the way to a folder."""
    return os.path.realpath(folder) == os.path.normpath(os.path.join(os.path.realpath(root), folder.relative_to(root)))  # noqa: PTH118


def _is_folder(path: Path) -> bool:
    """Git names a folder as if it were a file when it is a submodule, or another repository."""
    return path.is_dir() and not path.is_symlink()


def _size(path: Path) -> int | None:
    """Give the size of a plain file."""
    try:
        about = path.lstat()
    except OSError:
        return None
    return about.st_size if stat.S_ISREG(about.st_mode) else None


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
    """Compare the tree as it lies there, committed or not, with a commit. Ends of lines do not count.

    Of what was too large to be read only the size is compared.
    """
    every = git.tree(base)
    before = {path: blob for path, blob in every.items() if not _is_left_out(path, tree.left_out)}
    changed = [path for path, data in tree.files.items() if not _is_same(data, before.get(path))]
    resized = [path for path, size in tree.unread.items() if path not in every or every[path].size != size]
    deleted = [path for path in before if path not in tree.files]
    wanted = {every[path].name for path in (*changed, *resized, *deleted) if path in every and _is_small(every[path])}
    contents = dict(git.contents(sorted(wanted)))
    old = {path: contents.get(blob.name, b"") for path, blob in every.items()}
    found = [
        *(Change(path, "deleted", old[path]) for path in deleted),
        *(
            _new(path, tree.files[path], old.get(path))
            for path in changed
            if not _is_kept_elsewhere(old.get(path, b""), tree.files[path])
        ),
        *(
            Change(path, "modified" if path in old else "added", is_seen=False)
            for path in resized
            if not _is_pointer(old.get(path, b""), tree.unread[path])
        ),
    ]
    return sorted(found, key=lambda change: change.path)


def _is_left_out(path: str, left_out: frozenset[str]) -> bool:
    """Say whether nobody looked at it: also what lay where a submodule or a link is now may still be there."""
    above = [str(folder) for folder in PurePosixPath(path).parents]
    return path in left_out or any(folder in left_out or f"{folder}/" in left_out for folder in above)


def _is_small(blob: Blob) -> bool:
    return blob.size <= FILE_BYTES_MAX


def _is_same(data: bytes, blob: Blob | None) -> bool:
    """Compare by git's name of contents: as they lie there, and as git keeps what it lays out in another way."""
    return blob is not None and (_is_named(data, blob) or _is_named(_kept(data).replace(b"\r\n", b"\n"), blob))


def _is_named(data: bytes, blob: Blob) -> bool:
    if blob.size != len(data):
        return False
    digest = hashlib.sha1 if len(blob.name) == 40 else hashlib.sha256  # noqa: PLR2004 - hexadecimal digits of SHA-1
    return digest(b"blob %d\0" % len(data) + data).hexdigest() == blob.name


def _kept(data: bytes) -> bytes:
    """Give a text in UTF-8 that begins with the byte order mark of another encoding; anything else as it is."""
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "")
    return data.decode(encoding, "replace").encode() if encoding else data


def _is_pointer(old: bytes, size: int) -> bool:
    """Say whether git keeps a file of that size elsewhere (git-lfs), and a pointer in its place."""
    return old.startswith(_POINTER) and b"size %d" % size in old.splitlines()


def _is_kept_elsewhere(old: bytes, data: bytes) -> bool:
    return _is_pointer(old, len(data)) and hashlib.sha256(data).hexdigest().encode() in old


def _new(path: str, new: bytes, old: bytes | None) -> Change:
    """Give what is there now; of a file that is no text, no lines."""
    what: Literal["added", "modified"] = "added" if old is None else "modified"
    text = _kept(new)
    if b"\0" in text:
        return Change(path, what, old or b"", is_seen=False)
    lines = text.splitlines()
    added = tuple(_added(lines, _kept(old or b"")))
    return Change(path, what, old or b"", added, "\n".join(map(_decoded, lines)) if added else "")


def _decoded(line: bytes) -> str:
    return line.decode("utf-8", "replace")


def _added(lines: Iterable[bytes], old: bytes) -> Iterator[tuple[int, str]]:
    """Give the lines that were not there before, wherever they stand."""
    left = Counter(old.splitlines())
    for number, line in enumerate(lines, 1):
        if left[line] > 0:
            left[line] -= 1
        else:
            yield number, _decoded(line)
