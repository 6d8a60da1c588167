"""The log: one line an event, which nobody can forge; JSON in a file, short and coloured on a terminal."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from observer_actors.errors import DiskFailed
from observer_actors.http.intake import LABELS_LOGGED_MAX
from observer_actors.logs import TRACEBACK_CHARS_MAX, _Unfailing, configure_logs, log_lifecycle, logger, set_level
from observer_actors.supervision import (
    ActorFailed,
    ActorParked,
    ActorStarted,
    ActorStopped,
    MessageQuarantined,
    RestartsExhausted,
)
from tests.daemon.served import served
from tests.harness import own_environment

HOSTILE: Final = 'a\n{"event":"forged"}\r\x1b[31m\x9b\u202e\u2028\ud800\x00'
LEVELS: Final = {"debug", "info", "warning", "error"}


def lines(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capfd.readouterr().err.splitlines()]


def test_a_line_has_its_event_its_actor_its_level_and_its_time(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logs("info")
    logger("ring").info("taken", ops=3, ratio=0.5, path=Path("/x"))
    (line,) = lines(capfd)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line.pop("timestamp"))
    assert line == {"event": "taken", "actor": "ring", "level": "info", "ops": 3, "ratio": 0.5, "path": "/x"}


@pytest.mark.parametrize("value", [HOSTILE, [HOSTILE], {"k": HOSTILE}, {HOSTILE: ({"k": [HOSTILE]},)}])
def test_hostile_text_stays_within_its_line_and_is_shown_as_it_is(
    capfd: pytest.CaptureFixture[str], value: object
) -> None:
    configure_logs("info")
    logger("ingest").warning("seen", value=value)
    logging.getLogger("some.library").warning("said %s", HOSTILE)
    text = capfd.readouterr().err
    assert len(text.splitlines()) == 2
    assert all(line.isprintable() for line in text.splitlines())
    own, foreign = map(json.loads, text.splitlines())
    assert (own["event"], foreign["actor"], foreign["level"]) == ("seen", "some.library", "warning")
    assert "\\x1b[31m" in foreign["event"]


def test_a_traceback_is_one_line_of_json(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logs("info")
    try:
        raise ValueError(HOSTILE.replace("\ud800", ""))
    except ValueError:
        logger("stats").exception("failed")
        logging.getLogger("lib").exception("failed too")
    first, second = lines(capfd)
    assert first["event"] == "failed"
    assert "ValueError: a" in first["exception"]
    assert "ValueError: a" in second["exception"]
    assert "\x1b" not in first["exception"]
    assert all(line.startswith("    ") for line in first["exception"].split("\n"))


def test_lines_of_libraries_come_at_any_level_and_one_that_makes_no_text_ends_nobody(
    capfd: pytest.CaptureFixture[str],
) -> None:
    configure_logs("error")
    logging.getLogger("lib").warning("%d", "x")
    assert "Logging error" in capfd.readouterr().err
    logging.getLogger("lib").info("no")
    logging.getLogger("lib").warning("yes")
    (line,) = lines(capfd)
    assert (line["event"], line["actor"], line["level"]) == ("yes", "lib", "warning")


@pytest.mark.parametrize(("number", "level"), [(30, "warning"), (35, "warning"), (49, "error"), (60, "critical")])
def test_a_line_of_a_library_at_a_level_without_a_name_has_the_next_one_below(
    capfd: pytest.CaptureFixture[str], number: int, level: str
) -> None:
    configure_logs("info")
    logging.getLogger("lib").log(number, "said")
    assert [line["level"] for line in lines(capfd)] == [level]


def test_levels_are_held_and_can_be_changed(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logs("warning")
    log = logger("daemon")
    log.info("no")
    log.warning("yes")
    set_level("debug")
    log.debug("now")
    set_level("error")
    log.warning("no more")
    assert [line["event"] for line in lines(capfd)] == ["yes", "now"]


def test_lifecycle_events_are_logged_under_their_own_names(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logs("info")
    log_lifecycle(ActorStarted(actor="a", incarnation=2))
    log_lifecycle(ActorFailed(actor="a", error=HOSTILE, step="s"))
    log_lifecycle(ActorParked(actor="a", retry_s=60))
    log_lifecycle(RestartsExhausted(actor="root", failed="a"))
    log_lifecycle(MessageQuarantined(actor="a", crashes=3, message="m"))
    assert [(line["level"], line["event"], line["actor"]) for line in lines(capfd)] == [
        ("info", "actor_started", "a"),
        ("warning", "actor_failed", "a"),
        ("warning", "actor_parked", "a"),
        ("error", "restarts_exhausted", "root"),
        ("error", "message_quarantined", "a"),
    ]


def test_of_a_crash_that_nobody_has_reckoned_with_the_log_has_the_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logs("info")
    disk, group = DiskFailed("input/output error"), ExceptionGroup("", [DiskFailed("x"), DiskFailed("y")])
    for error in (raised(KeyError("seq")), disk, group, ExceptionGroup("", [disk, raised(KeyError("seq"))])):
        log_lifecycle(ActorFailed(actor="a", error="", step="s"), error)
    log_lifecycle(ActorStopped(actor="a", error=""), raised(KeyError("x" * 1_000_000)))
    said = [line.get("exception", "") for line in lines(capfd)]
    assert ["in raised" in text for text in said] == [True, False, False, True, True]
    assert [0 < len(text) < 2 * TRACEBACK_CHARS_MAX for text in said] == [True, False, False, True, True]


def raised(error: Exception) -> Exception:
    try:
        raise error
    except KeyError as caught:
        return caught


# ------------------------------------------------------------------------------------------- of a whole daemon


def test_every_line_of_a_daemon_has_event_actor_and_level(tmp_path: Path) -> None:
    with served(tmp_path, OBSERVER_CYCLE="0.2") as daemon:
        daemon.event(source=HOSTILE.encode("utf-8", "replace").decode(), error="x")
        daemon.log.wait("cycle", total_ops=1)
    assert daemon.process.returncode == 0
    for line in daemon.log.lines:
        assert line["event"].replace("_", "").isalnum(), line
        assert line["actor"], line
        assert line["level"] in LEVELS, line
    (unknown,) = daemon.log.find("source_unknown")
    assert unknown["note"].isprintable()
    assert not daemon.log.find("forged")


def test_on_a_terminal_it_is_coloured_and_short(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "observer_actors", "serve", "--port=0", f"--data-dir={tmp_path}"],
        stderr=theirs,
        stdin=subprocess.DEVNULL,
        env={name: value for name, value in own_environment().items() if name != "NO_COLOR"},
    )
    os.close(theirs)
    text = b""
    try:
        while b"ready" not in text:
            text += os.read(ours, 65_536)
    finally:
        process.terminate()
        while process.poll() is None:
            try:
                text += os.read(ours, 65_536)
            except OSError:  # the other end is gone
                process.wait(20)
        os.close(ours)
    shown = text.decode().splitlines()
    assert "\x1b[" in shown[0]
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in shown]
    assert re.match(r"\d\d:\d\d:\d\d \[info *\] listening +actor=daemon", plain[0]), plain[0]
    assert all(line.isprintable() for line in plain)


def test_a_hangup_reloads_level_and_sources_and_names_what_waits(tmp_path: Path) -> None:
    with served(tmp_path) as daemon:
        assert daemon.event(source="gateway")["notes"]
        config = tmp_path / "observer.toml"
        config.write_text('[sources]\nextra = ["gateway"]\n[log]\nlevel = "debug"\n[ring]\ncapacity_ops = 5\n')
        daemon.process.send_signal(signal.SIGHUP)
        line = daemon.log.wait("reloaded")
        assert sorted(line["changed"]) == ["log.level", "sources.extra"]
        assert line["needs_restart"] == ["ring.capacity_ops"]
        assert "notes" not in daemon.event(source="gateway")
        assert daemon.json("/ops", source="gateway")["ops"][0]["seq"] == 2

        config.write_text("[lisen]\n")
        daemon.process.send_signal(signal.SIGHUP)
        failed = daemon.log.wait("reload_failed")
        assert failed["level"] == "error"
        assert "lisen is no setting" in failed["error"]
        assert "notes" not in daemon.event(source="gateway")

        config.write_text('[log]\nlevel = "error"\n')
        daemon.process.send_signal(signal.SIGHUP)
        while "notes" not in daemon.event(source="gateway"):
            pass
        daemon.event(source="quiet")
    assert not daemon.log.find("source_unknown", note='source: "quiet" is not a known source; kept as scenario')


def test_an_unknown_source_is_logged_once_a_label_and_counted_each_time(tmp_path: Path) -> None:
    labels = LABELS_LOGGED_MAX + 50
    with served(tmp_path) as daemon:
        for _ in range(2):
            daemon.event(source="a")
            daemon.events({"source": "b"}, {"source": "b"}, {"source": "b"})
            daemon.events(*({"source": f"s{number}"} for number in range(labels)))
        text = daemon.client.get("/metrics").text
        assert f"observer_sources_unknown_total {2.0 * (labels + 4)}" in text
    logged = [line["note"] for line in daemon.log.find("source_unknown")]
    assert len(logged) == len(set(logged)) == LABELS_LOGGED_MAX
    assert logged[:3] == [f'source: "{label}" is not a known source; kept as scenario' for label in ("a", "b", "s0")]


UNREAD: Final = """
import sys
from observer_actors.logs import configure_logs, logger
configure_logs("info")
for number in range(2_000):
    logger("a").info("said", number=number, text="x" * 1_000)
print("all said", flush=True)
sys.stdin.readline()
logger("a").info("last")
"""


def test_whoever_does_not_read_the_log_holds_nobody_up_and_is_told_what_is_lost() -> None:
    command = [sys.executable, "-c", UNREAD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"all said\n"
        _, said = process.communicate(b"\n", timeout=30)
    told = [json.loads(line) for line in said.splitlines()]
    numbers = [line["number"] for line in told if line["event"] == "said"]
    assert numbers == list(range(len(numbers)))
    assert 900 < len(numbers) < 1_100
    assert [(line["event"], line.get("lines")) for line in told[len(numbers) :]] == [
        ("last", None),
        ("log_lines_lost", 2_000 - len(numbers)),
    ]


FULL: Final = """
import resource, sys
from observer_actors.logs import configure_logs, logger
configure_logs("info")
logger("a").info("first")
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (150, hard))
for number in range(int(sys.argv[1])):
    logger("a").info("refused", number=number, text="x" * 1_000)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
logger("a").info("last")
"""


@pytest.mark.parametrize(("lines", "lost"), [(3, 0), (2_000, 1_000)])
def test_what_a_full_disk_does_not_take_is_written_once_it_has_room_line_by_line(
    tmp_path: Path, lines: int, lost: int
) -> None:
    with (tmp_path / "log").open("wb") as log:
        subprocess.run([sys.executable, "-c", FULL, str(lines)], stderr=log, check=True, timeout=30)
    said = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    numbers = [line["number"] for line in said if line["event"] == "refused"]
    assert numbers == list(range(len(numbers)))
    told = sum(line["lines"] for line in said if line["event"] == "log_lines_lost")
    assert (said[0]["event"], len(numbers) + told) == ("first", lines)
    assert lost <= told <= lost * 1.1


def test_a_reader_of_the_log_that_has_gone_holds_nobody_up() -> None:
    reader, writer = os.pipe()
    sink = _Unfailing(writer)
    os.close(reader)
    sink.write("nobody there\n")
    sink.finish()
    os.close(writer)


def test_a_daemon_whose_log_nobody_reads_serves_and_ends(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4_096)
    os.write(writer, b"x" * 4_000)
    command = [sys.executable, "-m", "observer_actors", "serve", "--port", "0", "--data-dir", str(tmp_path / "data")]
    unix = tmp_path / "socket"
    with subprocess.Popen([*command, "--set", f"listen.unix={unix}"], stderr=writer) as process:
        transport = httpx.HTTPTransport(uds=str(unix), retries=0)
        with httpx.Client(transport=transport, base_url="http://localhost", trust_env=False) as client:
            until = time.monotonic() + 60
            while not unix.exists():
                assert time.monotonic() < until
                time.sleep(0.05)
            for number in range(200):
                answer = client.post("/event", json={"source": f"nobody-{number}", "endpoint": "a"})
                assert answer.status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    os.close(writer)
    os.close(reader)
