"""`doctor`: what is wrong with an installation, and what to do; and `verify`, which looks deeper at the journal."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
import trio

from observer_actors import __version__
from observer_actors.commands import _checks
from observer_actors.commands._answers import ActorAnswer
from tests.commands.typed import Ended, as_ordinary_user, typed, typed_for_real
from tests.daemon.served import Served, served
from tests.daemon.test_doors import certificate
from tests.fakes.http_peer import Close, Json, http_peer

INGEST: Final = "a-token-that-may-only-report-things"


def findings(*arguments: str) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    """Give the exit status, and the findings by level."""
    ended = typed("doctor", "--json", *arguments)
    found: dict[str, list[dict[str, Any]]] = {"ok": [], "unknown": [], "warning": [], "problem": []}
    for finding in msgspec.json.decode(ended.stdout):
        found[finding["level"]].append(finding)
        assert bool(finding["advice"]) == (finding["level"] != "ok"), "what to do, for all that is not well"
    return ended.returncode, found


def where(daemon: Served) -> tuple[str, ...]:
    return "--data-dir", str(daemon.data_dir), "--url", daemon.url


def test_of_a_daemon_that_is_well_it_finds_nothing(tmp_path: Path) -> None:
    with served(tmp_path) as daemon:
        status, found = findings(*where(daemon))
        assert (status, found["warning"], found["problem"]) == (0, [], [])
        assert "daemon: takes events" in typed("doctor", *where(daemon)).stdout


def test_what_it_says_of_a_daemon_holds_no_password(tmp_path: Path) -> None:
    with served(tmp_path) as daemon:
        address = daemon.url.replace("//", "//me:hunter2@")
        ended = typed("doctor", "--data-dir", str(daemon.data_dir), "--url", address)
    assert (ended.returncode, "answers at http" in ended.stdout) == (0, True), ended.stderr
    assert "hunter2" not in ended.stdout + ended.stderr


@pytest.mark.parametrize("token", ["", INGEST])
def test_a_token_that_may_not_read_is_a_finding_beside_the_others(tmp_path: Path, token: str) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"i ingest {INGEST}\n")
    tokens.chmod(0o600)
    with served(tmp_path / "data", f'[auth]\ntokens_file = "{tokens}"\n') as daemon:
        ended = typed("doctor", *where(daemon), OBSERVER_TOKEN=token)
    assert (ended.returncode, ended.stderr) == (1, "")
    assert "daemon: takes events" in ended.stdout
    assert "OBSERVER_TOKEN" in ended.stdout


async def test_a_daemon_that_breaks_off_is_a_finding_beside_the_others(tmp_path: Path) -> None:
    (tmp_path / "_observer").mkdir(mode=0o700)
    async with http_peer() as daemon:
        daemon.on("/health", Json({"status": "ok", "version": __version__}))
        daemon.on("/ready", Close())
        looking = partial(findings, "--data-dir", str(tmp_path), "--url", daemon.url)
        status, found = await trio.to_thread.run_sync(looking)
    assert status == 1
    assert [finding["about"] for finding in found["ok"]] == ["configuration", "data directory", "disk", "daemon"]
    assert found["problem"][-1]["what"].startswith("hangs, or went away while it was asked: ")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"ready": False, "reasons": ["the disk refuses"]}, "takes no events: the disk refuses"),
        ({"title": "too many requests", "detail": "500 are served"}, "does not say how it is: 500 are served"),
    ],
)
async def test_a_daemon_that_takes_no_events_is_told_from_one_that_is_too_busy_to_say(
    tmp_path: Path, answer: dict[str, object], said: str
) -> None:
    (tmp_path / "_observer").mkdir(mode=0o700)
    async with http_peer() as daemon:
        daemon.on("/health", Json({"status": "ok", "version": __version__}))
        daemon.on("/ready", Json(answer, status=503))
        daemon.on("/actors", Json({"actors": []}))
        _, found = await trio.to_thread.run_sync(partial(findings, "--data-dir", str(tmp_path), "--url", daemon.url))
    assert said in [finding["what"] for finding in found["problem"]]


def test_certificates_that_cannot_be_loaded_are_a_finding_beside_the_others(tmp_path: Path) -> None:
    (tmp_path / "_observer").mkdir(mode=0o700)
    ended = typed(
        "doctor", "--data-dir", str(tmp_path), "--url", "https://127.0.0.1:9", SSL_CERT_FILE=str(tmp_path / "none")
    )
    assert (ended.returncode, ended.stderr) == (1, "")
    assert "disk: " in ended.stdout
    assert "SSL_CERT_FILE" in ended.stdout


def test_it_tells_a_stopped_daemon_from_one_that_is_elsewhere(tmp_path: Path) -> None:
    with served(tmp_path) as daemon:
        _, elsewhere = findings("--data-dir", str(tmp_path), "--port", "9")
    status, stopped = findings("--data-dir", str(tmp_path), "--port", "9")
    assert status == 1
    assert "a daemon runs on this directory, and does not answer" in elsewhere["problem"][0]["what"]
    assert "none runs" in stopped["problem"][0]["what"]
    assert "systemctl start" in stopped["problem"][0]["advice"]
    assert daemon.process.returncode == 0


def test_of_a_daemon_whose_certificate_has_another_name_it_does_not_say_that_none_runs(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    config = f'[listen]\nhost = "127.0.0.2"\ntls_cert = "{cert}"\ntls_key = "{key}"\n'
    with served(tmp_path / "data", config) as daemon:
        ended = typed("doctor", "--url", daemon.url, cwd=tmp_path / "data" / "_observer", SSL_CERT_FILE=str(cert))
    assert "daemon: whether one runs cannot be seen: " in ended.stdout, ended
    assert "ask by a name that the certificate has" in ended.stdout


def test_a_certificate_in_force_that_is_about_to_expire_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cert, key = certificate(tmp_path)  # for two days
    with served(tmp_path / "data", f'[listen]\ntls_cert = "{cert}"\ntls_key = "{key}"\n') as daemon:
        new = typed("doctor", *where(daemon), SSL_CERT_FILE=str(cert))
        monkeypatch.setattr(_checks, "EXPIRES_SHARE", 1.1)
        old = typed("doctor", *where(daemon), SSL_CERT_FILE=str(cert))
    assert (new.returncode, "expires on" in new.stdout) == (0, False), new
    assert (old.returncode, "its certificate expires on " in old.stdout) == (0, True), old
    assert "a reload (SIGHUP) takes the new one" in old.stdout


@pytest.mark.parametrize(
    ("whole_days", "left_days", "is_told"), [(90, 15, False), (90, 13, True), (6, 2, False), (6, 1, True)]
)
def test_a_certificate_of_a_few_days_is_not_about_to_expire_from_the_first(
    whole_days: int, left_days: int, *, is_told: bool
) -> None:
    day = 86_400.0
    assert bool([*_checks.check_certificate((left_days - whole_days) * day, left_days * day, now=0.0)]) == is_told


def test_of_a_daemon_whose_certificate_has_expired_it_does_not_advise_to_trust_it(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    signed = ["openssl", "x509", "-in", str(cert), "-signkey", str(key), "-days", "-1", "-out", str(cert)]
    subprocess.run(signed, check=True, capture_output=True)
    with served(tmp_path / "data", f'[listen]\ntls_cert = "{cert}"\ntls_key = "{key}"\n') as daemon:
        ended = typed("doctor", *where(daemon), SSL_CERT_FILE=str(cert))
    assert (ended.returncode, "renew it" in ended.stdout, "SSL_CERT_FILE" in ended.stdout) == (1, True, False), ended


def test_of_a_daemon_whose_socket_is_for_others_it_does_not_say_that_none_runs(tmp_path: Path) -> None:
    socket = tmp_path / "socket"
    ordinary = as_ordinary_user()
    with served(tmp_path / "data", f'[listen]\nunix = "{socket}"\nunix_mode = "0000"\n'):
        given = ("--data-dir", str(tmp_path / "none"), "--url", f"unix://{socket}")
        ended = typed_for_real("doctor", *given, before=ordinary)
    assert "daemon: whether one runs cannot be seen: " in ended.stdout, ended
    assert "the group observer-agents" in ended.stdout


def test_a_daemon_that_uses_another_directory_than_the_one_that_is_named_is_a_problem(tmp_path: Path) -> None:
    with served(tmp_path / "stopped"):
        pass
    with served(tmp_path / "other") as other:
        config = tmp_path / "config.toml"
        config.write_text(f'data_dir = "{tmp_path / "stopped"}"\n')
        for named in (("--data-dir", str(tmp_path / "stopped")), ("--config", str(config))):
            status, found = findings(*named, "--url", other.url)
            assert status == 1
            assert [finding["what"] for finding in found["problem"]] == [
                f"the daemon at {other.url} does not use {tmp_path / 'stopped'}, and no other does"
            ]
        ended = typed("doctor", "--url", other.url, cwd=tmp_path / "stopped")
        assert "does not use" not in ended.stdout, "nobody has said where"


@pytest.mark.parametrize(
    ("arguments", "variables", "says"),
    [
        (("--url", "127.0.0.1"), {}, "'127.0.0.1' is no address"),
        ((), {"OBSERVER_URL": "127.0.0.1"}, "'127.0.0.1' is no address"),
        (("--url", "http://127.0.0.1:9"), {"OBSERVER_TOKEN": "two words"}, "OBSERVER_TOKEN holds what no token has"),
    ],
)
def test_an_address_or_a_token_that_is_none_is_a_finding_beside_the_others(
    tmp_path: Path, arguments: tuple[str, ...], variables: dict[str, Any], says: str
) -> None:
    (tmp_path / "_observer").mkdir(mode=0o700)
    ended = typed("doctor", "--data-dir", str(tmp_path), *arguments, **variables)
    assert (ended.returncode, ended.stderr) == (1, "")
    assert "ok       data directory: " in ended.stdout
    assert f"PROBLEM  daemon: {says}" in ended.stdout


def test_a_daemon_whose_port_is_known_to_its_log_alone_is_not_looked_at(tmp_path: Path) -> None:
    with served(tmp_path / "data"):
        config = tmp_path / "config.toml"
        config.write_text("[listen]\nport = 0\n")
        status, found = findings("--data-dir", str(tmp_path / "data"), "--config", str(config))
    assert (status, found["problem"]) == (0, [])
    assert found["unknown"] == [
        {
            "level": "unknown",
            "about": "daemon",
            "what": "listen.port is 0: only the daemon's log says which it is",
            "advice": "give --url",
        }
    ]


@pytest.mark.parametrize(
    ("place", "variables"),
    [
        (".local/state", {"XDG_STATE_HOME": ""}),
        (".config", {}),  # where systemd before 254 has it
        ("elsewhere", {"XDG_STATE_HOME": "elsewhere"}),
    ],
)
def test_it_finds_an_installation_for_one_user(tmp_path: Path, place: str, variables: dict[str, str]) -> None:
    data_dir = tmp_path / place / "observer-actors"
    (data_dir / "_observer").mkdir(parents=True, mode=0o700)
    variables = {name: value and str(tmp_path / value) for name, value in variables.items()}
    ended = typed("doctor", "--port", "9", cwd=tmp_path, HOME=str(tmp_path), **variables)
    assert f"data directory: {data_dir}\n" in ended.stdout, ended


@pytest.mark.parametrize("scope", [[], ["--user"]])
def test_it_asks_systemd_of_the_machine_and_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scope: list[str]
) -> None:
    told = "LoadState=loaded\nActiveState=failed\nResult=exit-code\nExecMainStatus=78\n"
    asked = " ".join([*scope, "show"])
    script = f'#!/bin/sh\ncase "$*" in "{asked} "*) printf "{told}" ;; esac\n'
    (tmp_path / "systemctl").write_text(script)
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(_checks, "SYSTEMD", tmp_path)
    (found,) = _checks.check_unit()
    assert (found.level, found.what) == ("problem", "observer-actors.service failed: exit-code, exit status 78")
    for command in ("reset-failed", "restart"):
        assert " ".join(["systemctl", *scope, command, "observer-actors.service"]) in found.advice


def test_damage_that_it_does_not_look_for_it_does_not_deny(tmp_path: Path) -> None:
    with served(tmp_path) as daemon:
        daemon.event(endpoint="a")
        _, running = findings(*where(daemon))
    journal = tmp_path / "_observer" / "ops.jsonl"
    journal.write_bytes(b"x" * 10 + journal.read_bytes()[10:])
    _, stopped = findings("--data-dir", str(tmp_path), "--port", "9")
    assert running["unknown"] == []
    assert [(finding["about"], finding["advice"]) for finding in stopped["unknown"]] == [
        ("journal", "run `observer-actors verify`")
    ]
    assert [finding["about"] for finding in stopped["ok"]] == ["configuration", "data directory", "disk"]


def test_a_bad_configuration_and_a_missing_directory(tmp_path: Path) -> None:
    status, bad = findings("--set", "listen.prot=1")
    assert (status, bad["problem"][0]["advice"]) == (1, "did you mean listen.port?")
    status, none = findings("--data-dir", str(tmp_path / "none"), "--port", "9")
    assert status == 1
    assert "is no data directory" in none["problem"][0]["what"]


def test_each_file_that_cannot_be_used_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("no tokens")
    names = ("auth.tokens_file", "diagnosis.api_key_file", "listen.tls_cert")
    files = ("tokens", "none", "none")
    given = [part for name, file in zip(names, files, strict=True) for part in ("--set", f"{name}={tmp_path / file}")]
    _, found = findings("--data-dir", str(tmp_path), "--url", "http://127.0.0.1:9", *given)
    problems = [finding["what"] for finding in found["problem"] if finding["about"] == "configuration"]
    assert [what.partition(":")[0] for what in problems] == [*names]
    assert "configuration" not in {finding["about"] for finding in found["ok"]}


def test_whether_a_file_can_be_used_that_this_user_may_not_read_is_unknown(tmp_path: Path) -> None:
    ordinary = as_ordinary_user()
    (tmp_path / "tokens").touch(mode=0)
    given = ("--data-dir", str(tmp_path), "--set", f"auth.tokens_file={tmp_path / 'tokens'}", "--json")
    said = msgspec.json.decode(typed_for_real("doctor", *given, before=ordinary, OBSERVER_PORT="9").stdout)
    assert [finding["level"] for finding in said if finding["about"] == "configuration"] == ["unknown"]


@pytest.mark.parametrize("closed", ["data", "data/_observer"])
@pytest.mark.parametrize(("command", "status"), [(("doctor",), 1), (("verify",), 78), (("playbook", "check"), 78)])
def test_a_directory_that_this_user_may_not_look_into_is_told(
    tmp_path: Path, closed: str, command: tuple[str, ...], status: int
) -> None:
    ordinary = as_ordinary_user()
    (tmp_path / "data" / "_observer").mkdir(parents=True)
    (tmp_path / closed).chmod(0)
    ended = typed_for_real(*command, "--data-dir", str(tmp_path / "data"), before=ordinary, OBSERVER_PORT="9")
    (tmp_path / closed).chmod(0o700)
    ended_with(ended, status, "or none that this user may look into")
    assert "as root" in ended.stdout + ended.stderr


@pytest.mark.parametrize(("command", "status"), [(("doctor",), 1), (("verify",), 1)])
def test_a_lock_that_this_user_may_not_look_at_is_told(tmp_path: Path, command: tuple[str, ...], status: int) -> None:
    ordinary = as_ordinary_user()
    lock = tmp_path / "data" / "_observer" / "lock"
    lock.parent.mkdir(parents=True)
    lock.touch(mode=0)
    ended = typed_for_real(*command, "--data-dir", str(tmp_path / "data"), before=ordinary, OBSERVER_PORT="9")
    ended_with(ended, status, "EACCES while looking at the lock file: Permission denied (lock)")
    assert "Traceback" not in ended.stderr


def test_with_a_bad_configuration_the_rest_is_looked_at_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[")
    with served(tmp_path / "data") as daemon:
        status, found = findings(*where(daemon), "--config", str(tmp_path / "bad.toml"))
    assert status == 1
    assert [finding["about"] for finding in found["problem"]] == ["configuration"]
    assert {"data directory", "daemon"} <= {finding["about"] for level in found.values() for finding in level}


def test_what_has_been_left_lying_and_who_may_read(tmp_path: Path) -> None:
    with served(tmp_path) as daemon:
        observer = tmp_path / "_observer"
        (observer / "ops.jsonl.torn-1").write_text("x")
        (observer / "learned.sqlite3.corrupt-1").write_text("x")
        (observer / "stats.json.unreadable-1").write_text("x")
        (observer / "quarantine.jsonl").write_text("{}\n")
        observer.chmod(0o755)
        daemon.event(source="odd")
        status, found = findings(*where(daemon), "--insecure-no-auth")
    assert (status, found["problem"]) == (0, [])
    told = "\n".join(finding["what"] for finding in found["warning"])
    for part in (
        "torn-1",
        "corrupt-1",
        "unreadable",
        "quarantine",
        "other users",
        "insecure_no_auth",
        "1 events had a",
    ):
        assert part in told


def test_a_disk_that_is_filling_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "_observer").mkdir(mode=0o700)
    free = shutil.disk_usage(tmp_path).free
    monkeypatch.setattr(_checks, "FREE_BYTES_WANTED", free * 2)
    assert [finding.level for finding in _checks.check_directory(tmp_path)] == ["ok", "warning", "unknown"]
    monkeypatch.setattr(_checks, "FREE_BYTES_MIN", free * 2)
    assert [finding.level for finding in _checks.check_directory(tmp_path)] == ["ok", "problem", "unknown"]


@pytest.mark.parametrize(
    ("free_files", "flag", "what"), [(5, os.ST_RDONLY, "mounted read-only"), (0, 0, "no inodes are left"), (5, 0, "")]
)
def test_a_disk_with_room_on_which_no_file_can_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_files: int, flag: int, what: str
) -> None:
    (tmp_path / "_observer").mkdir(mode=0o700)
    looked_at = os.statvfs_result((4096, 4096, 10**9, 10**9, 10**9, 10, 10, free_files, flag, 255))
    monkeypatch.setattr(os, "statvfs", lambda _path: looked_at)
    problems = [finding for finding in _checks.check_directory(tmp_path) if finding.level == "problem"]
    assert [(finding.about, what in finding.what) for finding in problems] == ([("disk", True)] if what else [])


def test_actors_that_fail_are_named_and_not_those_that_were_restarted_with_them() -> None:
    tree = msgspec.convert(
        [{"name": "root", "state": "running", "children": [
            {"name": "courier", "state": "parked", "last_error": "no\x1bway", "restarts": 6},
            {"name": "persister", "state": "running", "last_error": "once", "restarts": 1},
            {"name": "ring_keeper", "state": "running", "last_error": "", "restarts": 1},
            {"name": "stats", "state": "backing_off", "last_error": "", "restarts": 1}]}],
        tuple[ActorAnswer, ...],
    )  # fmt: skip
    found = [(finding.level, finding.what) for finding in _checks.check_actors(tree)]
    assert found == [("problem", "courier is parked: no\\x1bway"), ("warning", "persister was restarted 1 times: once")]


def test_messages_that_were_lost_are_told_by_receiver() -> None:
    metrics = """\
# TYPE observer_outbox_dropped_total counter
observer_outbox_dropped_total{receiver="gateway"} 0.0
observer_outbox_dropped_total{receiver="webhook"} 1200.0
# TYPE observer_outbox_refused_total counter
observer_outbox_refused_total{receiver="gateway"} 3.0
observer_outbox_refused_total{receiver="webhook"} 0.0
# TYPE observer_webhook_dropped_total counter
observer_webhook_dropped_total 7.0
"""
    assert [(found.level, found.what) for found in _checks.check_counters(metrics)] == [
        ("warning", "1,200 messages for the webhook were dropped, because too many waited"),
        ("warning", "3 messages were refused for good by the gateway"),
        ("warning", "7 messages for the webhook were let go before they were saved since the start"),
    ]


def ended_with(ended: Ended, status: int, said: str) -> None:
    assert (ended.returncode, said in ended.stdout + ended.stderr) == (status, True), ended


@pytest.mark.parametrize(("window", "notices"), [(2, 0), (100, 1)])
def test_verify_knows_how_long_an_id_is_known(tmp_path: Path, window: int, notices: int) -> None:
    config = tmp_path / "observer.toml"
    config.write_text("[journal]\ndedup_window_ops = 2\n")
    data_dir = tmp_path / "data"
    with served(data_dir, config.read_text()) as daemon:
        for name in ("a", "b", "c", "a"):
            daemon.event(id=name)
    config.write_text(f"[journal]\ndedup_window_ops = {window}\n")
    ended = typed("verify", "--config", str(config), "--data-dir", str(data_dir))
    ended_with(ended, 0, "no damage; 4 ops")
    assert ended.stdout.count("the id of seq 4 was given to seq 1 already") == notices


def test_verify_says_good_or_exits_1_on_damage(tmp_path: Path) -> None:
    with served(tmp_path) as daemon:
        daemon.events(*({"endpoint": str(number)} for number in range(5)))
        daemon.event(endpoint="last")
        ended_with(typed("verify", str(tmp_path)), 0, "no damage; 6 ops")
    file = tmp_path / "_observer" / "ops.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([lines[0], b"x" * 10 + b"\n", *lines[2:]]))
    ended_with(typed("verify", "--data-dir", str(tmp_path)), 1, "damaged")
    ended_with(typed("verify", "--data-dir", str(tmp_path / "none")), 78, "is no data directory")
