"""journald's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): each field of a line is a field of its own.

So `journalctl ACTOR=persister` shows one actor, and `journalctl EVENT=actor_failed -o json` every failure. Used when
standard error is journald's, which ``JOURNAL_STREAM`` says (systemd.exec(5)).
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

SOCKET: Final = Path("/run/systemd/journal/socket")
IDENTIFIER: Final = "observer-actors"
_PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
_OURS: Final = frozenset({"MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER"})
_NO_NAME: Final = re.compile(r"[^A-Z0-9_]")
NAME_CHARS_MAX: Final = 64
_NOT_SHOWN: Final = frozenset({"event", "actor", "level"})


def is_journald(descriptor: int, environment: Mapping[str, str]) -> bool:
    """Tell whether a descriptor leads to journald: the device and inode that systemd gave are still its own."""
    device, colon, inode = environment.get("JOURNAL_STREAM", "").partition(":")
    if not (colon and device.isdecimal() and inode.isdecimal()):
        return False
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return (status.st_dev, status.st_ino) == (int(device), int(inode))


def encode(fields: Mapping[str, Any]) -> bytes:
    """Give a line of the log as a message: MESSAGE for people, and every field under its own name in capitals."""
    level = str(fields.get("level", "info"))
    pairs = {
        "MESSAGE": _message(fields),
        "PRIORITY": str(_PRIORITIES.get(level, 6)),
        "SYSLOG_IDENTIFIER": IDENTIFIER,
    }
    for name, value in fields.items():
        if name != "level":
            pairs[_name(name)] = _text(value)
    return b"".join(_pair(name, value) for name, value in pairs.items())


class JournalSocket:
    """Where messages go; one that is not taken is lost, and stops no actor."""

    def __init__(self, path: Path = SOCKET) -> None:
        self._path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    def send(self, message: bytes) -> None:
        """Send one message; a large one as a sealed file in memory, as the protocol wants it."""
        try:
            self._socket.sendto(message, self._path)
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                self._send_file(message)

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def _send_file(self, message: bytes) -> None:
        seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        try:
            with os.fdopen(os.memfd_create("journal", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC), "wb") as file:
                file.write(message)
                file.flush()
                fcntl.fcntl(file.fileno(), fcntl.F_ADD_SEALS, seals)
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [file.fileno()]))
                self._socket.sendmsg([b""], [rights], 0, self._path)  # send_fds() leaves the address out
        except OSError:
            return


def _message(fields: Mapping[str, Any]) -> str:
    shown = " ".join(f"{name}={_text(value)}" for name, value in fields.items() if name not in _NOT_SHOWN)
    return f"{fields.get('actor', '')}: {fields.get('event', '')} {shown}".rstrip()


def _name(name: str) -> str:
    """Give a field's name: capitals, digits, underscores, a letter first, and none of those that we set ourselves."""
    made = _NO_NAME.sub("_", name.upper())[:NAME_CHARS_MAX]
    return f"OBSERVER_{made}"[:NAME_CHARS_MAX] if made in _OURS or not made[:1].isalpha() else made


def _text(value: Any) -> str:  # noqa: ANN401 - whatever a field holds
    return value if isinstance(value, str) else msgspec.json.encode(value, enc_hook=str).decode()


def _pair(name: str, value: str) -> bytes:
    data = value.encode("utf-8", "backslashreplace")
    if b"\n" in data:
        return b"%b\n%b%b\n" % (name.encode(), len(data).to_bytes(8, "little"), data)
    return b"%b=%b\n" % (name.encode(), data)
