"""The units under a real manager: started by a connection, restarted under load, reloaded, killed, starved, stopped."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.commands.typed import typed
from tests.harness import free_port
from tests.systemd.manager import Manager, missing, running_manager

SERVICE: Final = "observer-actors.service"
SOCKET: Final = "observer-actors.socket"
WAIT_S: Final = 60.0


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    if reason := missing():
        pytest.skip(reason)
    home = tmp_path_factory.mktemp("home")
    with running_manager(home) as one:
        if one is None:
            pytest.xfail(f"systemd's user instance does not come up here: {(home / 'manager.log').read_text()[-500:]}")
        yield one


@pytest.fixture
def url(manager: Manager) -> Iterator[str]:
    """The address of the service, installed anew; only its socket has been started."""
    typed("install-service", "--user", "--install", XDG_CONFIG_HOME=manager.environment["XDG_CONFIG_HOME"])
    port = free_port()
    manager.drop_in(SOCKET, "port", f"[Socket]\nListenStream=\nListenStream=127.0.0.1:{port}\n")
    manager.drop_in(SERVICE, "quick", "[Service]\nRestartSec=0.1\nWatchdogSec=2\nTimeoutAbortSec=1\n")
    manager.systemctl("start", SOCKET)
    yield f"http://127.0.0.1:{port}"
    manager.systemctl("stop", SERVICE, SOCKET)
    manager.systemctl("reset-failed", SERVICE, SOCKET, check=False)


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def stored(url: str) -> int:
    return int(httpx.get(url + "/health", timeout=WAIT_S, trust_env=False).json()["last_seq"])


def report(url: str) -> None:
    """Report over a connection of its own."""
    assert httpx.post(
        url + "/event", json={"endpoint": "a", "success": True}, timeout=WAIT_S, trust_env=False
    ).is_success


def test_a_connection_starts_the_service_and_a_stop_ends_it_well(manager: Manager, url: str) -> None:
    assert manager.shown(SERVICE, "ActiveState") == "inactive"
    before = stored(url)
    report(url)
    assert manager.shown(SERVICE, "ActiveState") == "active"
    until(lambda: "taking events" in manager.shown(SERVICE, "StatusText"))
    manager.systemctl("stop", SERVICE)
    assert manager.shown(SERVICE, "ActiveState") == "inactive"
    assert manager.shown(SERVICE, "Result") == "success"
    assert manager.shown(SERVICE, "ExecMainStatus") == "0"
    assert stored(url) == before + 1, "the socket has started it again"


def test_a_restart_loses_no_connection(manager: Manager, url: str) -> None:
    before = stored(url)
    reported, ended = [0], threading.Event()

    def agent() -> None:
        while not ended.is_set():
            report(url)
            reported[0] += 1

    thread = threading.Thread(target=agent)
    thread.start()
    try:
        for _ in range(2):
            count = reported[0]
            until(lambda: reported[0] > count + 20)  # noqa: B023 - called at once
            manager.systemctl("restart", SERVICE)
    finally:
        ended.set()
        thread.join()
    assert stored(url) == before + reported[0]


def test_a_reload_reads_the_configuration_and_keeps_the_process(manager: Manager, url: str) -> None:
    report(url)
    process = manager.shown(SERVICE, "MainPID")
    manager.systemctl("reload", SERVICE)
    until(lambda: bool(manager.journal("EVENT=reloaded")))
    assert manager.shown(SERVICE, "MainPID") == process


def test_the_journal_holds_each_line_with_its_fields(manager: Manager, url: str) -> None:
    report(url)
    until(lambda: bool(manager.journal("ACTOR=persister")))
    entries = manager.journal("ACTOR=persister")
    assert {"_PID", "PRIORITY", "MESSAGE"} <= entries[-1].keys()
    assert all(entry["ACTOR"] == "persister" for entry in entries)


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
def test_who_is_killed_or_hangs_is_started_again_and_has_lost_nothing(
    manager: Manager, url: str, fault: signal.Signals
) -> None:
    report(url)
    before = stored(url)
    process = manager.shown(SERVICE, "MainPID")
    os.kill(int(process), fault)
    until(lambda: manager.shown(SERVICE, "NRestarts") != "0")
    assert stored(url) == before
    assert manager.shown(SERVICE, "MainPID") != process


@pytest.mark.usefixtures("url")
def test_a_bad_configuration_is_not_tried_again(manager: Manager) -> None:
    manager.drop_in(SERVICE, "bad", "[Service]\nEnvironment=OBSERVER_RING__CAPACITY_OPS=none\n")
    try:
        manager.systemctl("start", SERVICE, check=False)
        until(lambda: manager.shown(SERVICE, "ActiveState") == "failed")
        assert (manager.shown(SERVICE, "ExecMainStatus"), manager.shown(SERVICE, "NRestarts")) == ("78", "0")
    finally:
        (manager.units / f"{SERVICE}.d" / "bad.conf").unlink()
        manager.systemctl("daemon-reload")


def test_what_connections_have_started_in_vain_is_started_again_as_the_doctor_says(
    manager: Manager, url: str, tmp_path: Path
) -> None:
    bad = tmp_path / "bad"
    bad.touch()
    serve = f'exec "{sys.executable}" -m observer_actors serve --data-dir ${{STATE_DIRECTORY}}'
    command = f"/bin/sh -c 'test -e {bad} && exit 78; {serve}'"
    manager.drop_in(SERVICE, "bad", f"[Service]\nExecStart=\nExecStart={command}\n")
    try:
        while manager.shown(SOCKET, "ActiveState") != "failed":
            with suppress(httpx.HTTPError):
                httpx.get(url + "/health", timeout=0.1, trust_env=False)
        assert manager.shown(SOCKET, "Result") == "service-start-limit-hit"
        bad.unlink()
        manager.systemctl("restart", SERVICE, check=False)
        assert manager.shown(SERVICE, "ActiveState") == "failed"
        manager.systemctl("reset-failed", SERVICE)
        manager.systemctl("restart", SERVICE)
        report(url)
    finally:
        (manager.units / f"{SERVICE}.d" / "bad.conf").unlink()
        manager.systemctl("daemon-reload")
