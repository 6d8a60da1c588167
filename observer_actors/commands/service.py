"""`observer-actors install-service`."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Final

from cyclopts import Parameter

import observer_actors
from observer_actors.commands._directory import users_folder
from observer_actors.errors import ConfigInvalid, ObserverError
from observer_actors.visible import visible

NAME: Final = "observer-actors"
PATH_IN_UNITS: Final = f"/usr/bin/env {NAME}"
"""What the units run as they are; installed, they name the program itself."""
HOMES: Final = ("/home", "/root", "/run/user")
"""What `ProtectHome=yes` hides."""
REFUSED: Final = frozenset("\"'\\")
"""Beside control characters: what systemd allows in no path of a program."""


class NotInstalled(ObserverError):
    """A unit cannot be written."""

    exit_code: ClassVar[int] = 77


def install_service(
    *,
    user: Annotated[bool, Parameter(negative=())] = False,
    install: Annotated[bool, Parameter(negative=())] = False,
    executable: Path | None = None,
    root: Path = Path("/"),
) -> None:
    """Print the systemd units with the right paths, or install them.

    Starts nothing: what remains to be typed is printed.

    Example: observer-actors install-service --install

    Parameters
    ----------
    user
        For this user alone, without root.
    install
        Write the files where systemd looks for them.
    executable
        The program that the service runs, as it is called below root; unless given, this one.
    root
        The folder that counts as `/`, for packages and images: the program is looked for in it.
    """
    program = _program(executable, root, user=user)
    files = dict(unit_files(program, user=user))
    if not install:
        for path, text in files.items():
            print(f"# {visible(str(path))}\n{text}")
        return
    for path, text in files.items():
        _write(root / path.relative_to("/"), text)
    print("\n".join(_what_remains(user=user)))


def unit_files(program: Path, *, user: bool) -> Iterator[tuple[Path, str]]:
    """Give each file with the place where it belongs.

    :param program: the absolute path that ExecStart gets.
    """
    source = _source()
    if user:
        units, source = users_folder("XDG_CONFIG_HOME", ".config") / "systemd" / "user", source / "user"
    else:
        units = Path("/etc/systemd/system")
        yield Path(f"/etc/sysusers.d/{NAME}.conf"), (source / f"{NAME}.sysusers.conf").read_text(encoding="utf-8")
    for kind in ("service", "socket"):
        text = (source / f"{NAME}.{kind}").read_text(encoding="utf-8")
        yield units / f"{NAME}.{kind}", text.replace(PATH_IN_UNITS, _quoted(program))


def _source() -> Path:
    """Give the folder of the units: in the package once it is installed, beside it in a checkout."""
    package = Path(observer_actors.__file__).parent
    inside = package / "systemd"
    return inside if inside.is_dir() else package.parent / "systemd"


def _program(given: Path | None, root: Path, *, user: bool) -> Path:
    """Find the program, and refuse one that the service could not run. Give its path below ``root``.

    :raises ConfigInvalid: there is none, or it lies where the sandbox does not look.
    """
    beside = Path(sys.executable).with_name(NAME)
    found = given or (beside if beside.is_file() else Path(shutil.which(NAME) or ""))
    program, is_here = found.absolute(), root == Path("/")
    inside = root / program.relative_to("/")
    # Where a link leads to below another root, cannot be followed from here.
    if not shutil.which(inside) and (is_here or not os.path.islink(inside)):  # noqa: PTH114 - Path's may raise
        raise ConfigInvalid(f"{inside} is no program", hint="--executable says where observer-actors is")
    if not str(program).isprintable() or REFUSED.intersection(str(program)):
        raise ConfigInvalid(
            f"systemd runs no program with such a path: {str(program)!a}",
            hint="it may have no quotes, backslashes and control characters: reach it through a link",
        )
    needed = [
        program,
        *([program.resolve()] if is_here else []),
        *([] if given else (Path(sys.prefix), Path(sys.base_prefix))),
    ]
    hidden = [path for path in needed if is_in_a_home(path)]
    if hidden and not user:
        raise ConfigInvalid(
            f"{hidden[0]} lies in a home directory, which the service's sandbox hides",
            hint="install it for all (pipx install --global), or use --user",
        )
    return program


def is_in_a_home(path: Path) -> bool:
    """Say whether `ProtectHome=yes` hides a path."""
    return any(map(path.is_relative_to, HOMES))


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        hint = "run it as root, or with --user" if isinstance(error, PermissionError) else ""
        raise NotInstalled(f"cannot write {path}: {error.strerror}", hint=hint) from error
    print(f"wrote {visible(str(path))}")


def _what_remains(*, user: bool) -> list[str]:
    lines = ["", "What remains:"]
    control = "systemctl --user" if user else "systemctl"
    if not user:
        lines.append(f"  systemd-sysusers {NAME}.conf")
    lines += [f"  {control} daemon-reload", f"  {control} enable --now {NAME}.socket {NAME}.service"]
    if user:
        lines.append("  loginctl enable-linger    # so that it runs while you are not logged in")
    return lines


def _quoted(program: Path) -> str:
    """Write a path as ExecStart= wants it (systemd.service(5)): of its first word no variable is expanded."""
    text = str(program).replace("%", "%%")
    return f'"{text}"' if " " in text else text
