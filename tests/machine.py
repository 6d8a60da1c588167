"""The machine and the programs, as the report names them."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
_MEMORY_SYSTEMS: Final = frozenset({"tmpfs", "ramfs", "devtmpfs"})
_PACKAGES: Final = ("observer-actors", "trio", "httptools", "msgspec", "hypercorn", "quart", "quart-trio")
_COMMAND_SECONDS_MAX: Final = 10.0


def machine(folder: Path) -> dict[str, str]:
    """Describe this machine; ``folder`` is where everything was written."""
    mount, kind, options, device = _mount(folder)
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "system": _system(),
        "file system": f"{kind} on {device} at {mount} ({options}), {free_bytes(folder) / 1e9:.0f} GB free",
        "disk": _disk(device),
        "load of the machine before the run": "{:.2f} {:.2f} {:.2f}".format(*os.getloadavg()),
    }


def versions(tools: Mapping[str, Path]) -> dict[str, str]:
    """Give the versions of what takes part.

    :param tools: name -> program.
    """
    ours = {name: version(name) for name in _PACKAGES}
    commit = _said("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD")
    changed = _said("git", "-C", str(ROOT), "status", "--porcelain")
    state = f"commit {commit}{' with changes' if changed else ''}" if commit else "not committed"
    ours["observer-actors"] += f" ({state})"
    options = {"wrk": "-v", "redis-server": "--version", "bun": "--version"}
    there = {name: _said(str(tools[name]), options[name]) for name in options if name in tools}
    return {"python": sys.version.split()[0], **ours, **there}


def disk_folder(given: Path | None) -> Path:
    """Give a folder for temporary files in which fdatasync means something: never one in memory, unless it is given."""
    if given is not None:
        return given.resolve()
    usual = Path(tempfile.gettempdir())
    return ROOT if file_system(usual) in _MEMORY_SYSTEMS else usual


def file_system(folder: Path) -> str:
    """Give the kind of file system that a folder is on."""
    return _mount(folder)[1]


def free_bytes(folder: Path) -> int:
    """Give what is left for an ordinary user."""
    return shutil.disk_usage(folder).free


def _mount(folder: Path) -> tuple[str, str, str, str]:
    """Find mount point, kind, options and device: the longest mount point above the folder, the last of equals."""
    best = ("/", "unknown", "", "unknown")
    resolved = folder.resolve()
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        left, _, right = line.partition(" - ")
        point, options = left.split()[4:6]
        kind, device = right.split()[:2]
        if resolved.is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, kind, options, device)
    return best


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return "unknown"


def _disk(device: str) -> str:
    """Say what the kernel knows of the block device: enough to tell a laptop's disk from a virtual one."""
    queue = Path("/sys/class/block") / Path(device).name / "queue"
    facts = {name: queue / name for name in ("rotational", "write_cache", "scheduler")}
    known = [f"{name} {path.read_text(encoding='utf-8').strip()}" for name, path in facts.items() if path.is_file()]
    return f"{device}: {', '.join(known)}" if known else f"{device}: the kernel says nothing about it"


def _said(*command: str) -> str:
    """Give the first line of what a program says; "" when it does not run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_SECONDS_MAX, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0].strip() if lines and not lines[0].startswith("fatal") else ""
