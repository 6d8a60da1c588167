"""Lines of the log as journald takes them: each field by its own name, and none that is forged by another."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from observer_actors.journald import JournalSocket, encode, is_journald
from observer_actors.logs import configure_journald, log_lifecycle, logger
from observer_actors.supervision import ActorFailed, MessageQuarantined

MESSAGE_BYTES_MAX: Final = 4_000_000


def parsed(message: bytes) -> dict[str, str]:
    """Read a message as journald does (JOURNAL_NATIVE_PROTOCOL)."""
    fields: dict[str, str] = {}
    while message:
        head, _, message = message.partition(b"\n")
        name, equals, value = head.partition(b"=")
        if not equals:
            size = int.from_bytes(message[:8], "little")
            value, message = message[8 : 8 + size], message[8 + size :]
            assert message[:1] == b"\n"
            message = message[1:]
        assert name.decode() not in fields
        fields[name.decode()] = value.decode()
    return fields


class Journald:
    """The other end of the socket."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(5)

    def message(self) -> dict[str, str]:
        data, descriptors, _, _ = socket.recv_fds(self._socket, MESSAGE_BYTES_MAX, 1)
        if not descriptors:
            return parsed(data)
        with os.fdopen(descriptors[0], "rb") as file:
            file.seek(0)
            return parsed(file.read())

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[Journald]:
    there = Journald(tmp_path / "socket")
    journal = JournalSocket(there.path)
    configure_journald("info", journal)
    yield there
    journal.close()
    there.close()


def test_each_field_has_its_own_name(journald: Journald) -> None:
    logger("persister").warning("disk_refused", errno=28, path=Path("/x"), hint="make room")
    assert journald.message() == {
        "MESSAGE": 'persister: disk_refused errno=28 path="/x" hint=make room',
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "observer-actors",
        "ACTOR": "persister",
        "EVENT": "disk_refused",
        "ERRNO": "28",
        "PATH": '"/x"',
        "HINT": "make room",
    }


def test_lifecycle_events_and_the_lines_of_libraries(journald: Journald) -> None:
    log_lifecycle(ActorFailed(actor="courier", error="a\nPRIORITY=0", step="s"))
    failed = journald.message()
    assert (failed["ACTOR"], failed["EVENT"], failed["PRIORITY"]) == ("courier", "actor_failed", "4")
    assert failed["ERROR"] == "a\\nPRIORITY=0", "no field forges another"
    log_lifecycle(MessageQuarantined(actor="a", crashes=3, message="m"))
    quarantined = journald.message()
    assert (quarantined["OBSERVER_MESSAGE"], quarantined["PRIORITY"]) == ("m", "3")
    logging.getLogger("hypercorn").warning("said %s", "x")
    library = journald.message()
    assert (library["ACTOR"], library["EVENT"], library["PRIORITY"]) == ("hypercorn", "said x", "4")


def test_a_traceback_keeps_its_lines_and_a_large_line_arrives_whole(journald: Journald) -> None:
    text = "x" * 1_000_000
    try:
        raise ValueError(text)
    except ValueError:
        logger("stats").exception("failed")
    message = journald.message()
    assert message["EXCEPTION"].count("\n") > 2
    assert text in message["EXCEPTION"]


def test_levels_hold_and_a_journald_that_is_gone_stops_nobody(journald: Journald) -> None:
    logger("a").debug("not shown")
    logger("a").info("shown")
    assert journald.message()["EVENT"] == "shown"
    journald.close()
    logger("a").info("lost")
    logger("a").info("lost", text="x" * 1_000_000)


@pytest.mark.parametrize(
    ("name", "field"),
    [("a", "A"), ("a-b.c", "A_B_C"), ("_x", "OBSERVER__X"), ("1x", "OBSERVER_1X"), ("priority", "OBSERVER_PRIORITY")],
)
def test_names_are_such_as_journald_takes(name: str, field: str) -> None:
    assert parsed(encode({"event": "e", "actor": "a", name: "v"} if name != "a" else {"a": "v"}))[field] == "v"


def test_standard_error_is_journalds_only_if_it_is_the_one_that_systemd_gave(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        status = os.fstat(file.fileno())
        stream = f"{status.st_dev}:{status.st_ino}"
        assert is_journald(file.fileno(), {"JOURNAL_STREAM": stream})
        for other in ("", "1", "a:b", f"{status.st_dev}:{status.st_ino + 1}"):
            assert not is_journald(file.fileno(), {"JOURNAL_STREAM": other})
    assert not is_journald(file.fileno() if not file.closed else 9_999, {"JOURNAL_STREAM": stream})
