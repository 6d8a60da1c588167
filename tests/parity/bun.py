"""Bun, from the npm registry, in a folder that Git ignores.

npm brings the binary in a package of its own (`@oven/bun-linux-x64` and so on), so its scripts need not run and
nothing else is downloaded.
"""

import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio

VERSION: Final = "1.4.5"
"""From 1.4 on, one x64 binary serves processors with and without AVX2: the -baseline package holds the same."""

INSTALL_SECONDS_MAX: Final = 300.0
"""About 35 MB over the network."""


class Unavailable(Exception):
    """Something that this check needs is not on this machine; the text says what."""


async def installed_bun(folder: Path) -> Path:
    """Return a Bun that runs here, installed below ``folder`` unless an earlier run did that.

    :raises Unavailable: there is no npm, npm could not install it, or no binary runs here.
    """
    home = folder / f"bun-{VERSION}"
    if not home.is_dir():
        await _install(home)
    for binary in sorted(home.glob("node_modules/@oven/bun-*/bin/bun")):
        if await _runs(binary):
            return binary
    raise Unavailable(f"bun {VERSION} is installed in {home}, but none of its binaries runs on this machine")


async def _install(home: Path) -> None:
    """Install beside ``home`` and move it there whole, so that no run meets a half of it."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        raise Unavailable("Node and npm are absent: they bring Bun, which runs the program to compare with")
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent, prefix="installing-") as made:
        target = trio.Path(made) / "bun"
        await target.mkdir()
        await (target / "package.json").write_text('{"private": true}\n', encoding="utf-8")
        await _npm_install(npm, Path(target))
        # A lost race is a success: another run has put its own copy there, and the rename meets a full folder.
        with suppress(OSError):
            await target.rename(home)


async def _npm_install(npm: str, target: Path) -> None:
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]
    with trio.move_on_after(INSTALL_SECONDS_MAX) as limit:
        done = await trio.run_process(
            [npm, "install", *options, f"bun@{VERSION}"],
            cwd=target,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
        if done.returncode == 0:
            return
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise Unavailable(f"npm could not install bun@{VERSION}: {lines[0] if lines else done.returncode}")
    assert limit.cancelled_caught
    raise Unavailable(f"npm did not install bun@{VERSION} within {INSTALL_SECONDS_MAX:.0f} s")


async def _runs(binary: Path) -> bool:
    """Tell whether this machine can run it: another C library or processor makes it fail at once."""
    if not os.access(binary, os.X_OK):
        return False
    try:
        done = await trio.run_process(
            [binary, "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
        )
    except OSError:
        return False
    return done.returncode == 0
