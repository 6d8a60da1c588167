"""The service's sandbox without PID 1: ``python -m tests.systemd.sandbox UNIT STATE_DIRECTORY COMMAND…``.

Applies to itself what a unit asks for and a process can do alone, then becomes the command: the file system read-only
but for the state directory (ProtectSystem=strict), no capability (CapabilityBoundingSet=), NoNewPrivileges, the system
call filter, the address families, no memory that can be written and run, LimitNOFILE, UMask. Not applied, as only the
manager can: DynamicUser, PrivateUsers, the address filter of the control group, and ProtectHome where Python lies in
a home directory; and where mount namespaces are not allowed, the read-only file system. Needs libseccomp and
systemd-analyze.
"""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PR_SET_NO_NEW_PRIVS: Final = 38
PR_CAPBSET_DROP: Final = 24
PR_SET_MDWE: Final = 65
PR_MDWE_REFUSE_EXEC_GAIN: Final = 1
CLONE_NEWNS: Final = 0x00020000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
EPERM: Final = 1
EAFNOSUPPORT: Final = 97
SCMP_ACT_ALLOW: Final = 0x7FFF0000
SCMP_CMP_EQ: Final = 4
FAMILIES: Final = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10}
FAMILIES_ALL: Final = 46
CAPABILITIES_ALL: Final = 64

libc: Final = ctypes.CDLL(None, use_errno=True)


class Comparison(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


class Unit:
    """The [Service] section; a setting that comes several times has several values."""

    def __init__(self, path: Path) -> None:
        lines = path.read_text(encoding="utf-8").partition("[Service]")[2].partition("[Install]")[0].splitlines()
        pairs = [line.partition("=") for line in lines if "=" in line and not line.startswith("#")]
        self._values = [(name, value) for name, _, value in pairs]

    def all(self, name: str) -> list[str]:
        return [value for found, value in self._values if found == name]

    def one(self, name: str) -> str:
        (value,) = self.all(name)
        return value


def main() -> None:
    unit, state = Unit(Path(sys.argv[1])), Path(sys.argv[2])
    assert unit.one("ProtectSystem") == "strict"
    if may_make_namespaces():
        _protect_files(state)
    files = min(int(unit.one("LimitNOFILE")), resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    os.umask(int(unit.one("UMask"), 8))
    assert unit.one("CapabilityBoundingSet") == ""
    _drop_capabilities()
    assert unit.one("NoNewPrivileges") == "yes"
    _checked(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    if unit.one("MemoryDenyWriteExecute") == "yes":
        libc.prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0)  # before Linux 6.3: not applied
    # The system calls last: to load a filter is not among those allowed.
    for load in (_families(unit.one("RestrictAddressFamilies").split()), _system_calls(unit.all("SystemCallFilter"))):
        load()
    os.environ["STATE_DIRECTORY"] = str(state)
    os.environ.pop("COVERAGE_PROCESS_CONFIG", None)  # its file would lie where nothing can be written
    os.execv(sys.argv[3], sys.argv[3:])  # noqa: S606 - to become the command is the point


def may_make_namespaces() -> bool:
    """Tell whether this process may see the file system in a way of its own; in many containers it may not."""
    return subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode == 0


def _protect_files(state: Path) -> None:
    _checked(libc.unshare(CLONE_NEWNS))
    _mount(None, b"/", MS_REC | MS_PRIVATE)
    _mount(os.fsencode(state), os.fsencode(state), MS_BIND)
    _mount(b"/", b"/", MS_REMOUNT | MS_BIND | MS_RDONLY)


def _mount(source: bytes | None, target: bytes, flags: int) -> None:
    _checked(libc.mount(source, target, None, ctypes.c_ulong(flags), None))


def _drop_capabilities() -> None:
    for capability in range(CAPABILITIES_ALL):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)  # those beyond the last are refused
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    _checked(libc.capset(header, (ctypes.c_uint32 * 6)()))


def _system_calls(filters: list[str]) -> Load:
    names: set[str] = set()
    for value in filters:
        expanded = set(_expanded(value.removeprefix("~").split()))
        names = names - expanded if value.startswith("~") else names | expanded
    load = Load(_errno(EPERM))
    for name in sorted(names):
        load.allow(name)
    return load


def _families(allowed: list[str]) -> Load:
    numbers = {FAMILIES[name] for name in allowed}
    load = Load(SCMP_ACT_ALLOW)
    for family in range(FAMILIES_ALL):
        if family not in numbers:
            load.refuse_socket(family)
    return load


class Load:
    """A seccomp filter; called, it is in force."""

    def __init__(self, otherwise: int) -> None:
        self._library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
        self._library.seccomp_init.restype = ctypes.c_void_p
        self._context = ctypes.c_void_p(self._library.seccomp_init(ctypes.c_uint32(otherwise)))

    def allow(self, name: str) -> None:
        """Allow a system call; one that this machine does not know is passed over."""
        number = self._library.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:
            action = ctypes.c_uint32(SCMP_ACT_ALLOW)
            _checked(self._library.seccomp_rule_add_array(self._context, action, number, 0, None))

    def refuse_socket(self, family: int) -> None:
        number = self._library.seccomp_syscall_resolve_name(b"socket")
        comparison = Comparison(0, SCMP_CMP_EQ, family, 0)
        action = ctypes.c_uint32(_errno(EAFNOSUPPORT))
        added = self._library.seccomp_rule_add_array(self._context, action, number, 1, ctypes.byref(comparison))
        _checked(added)

    def __call__(self) -> None:
        _checked(self._library.seccomp_load(self._context))


def _expanded(names: list[str]) -> Iterator[str]:
    """Give the system calls of groups, and of the groups in them, as systemd itself lists them."""
    for name in names:
        if not name.startswith("@"):
            yield name
            continue
        command = ["systemd-analyze", "syscall-filter", "--no-pager", name]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[1:]
        inside = [line.strip() for line in listed if line.strip() and not line.strip().startswith("#")]
        yield from _expanded(inside)


def _errno(number: int) -> int:
    return 0x00050000 | number


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno() or -result
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    main()
