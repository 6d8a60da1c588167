"""Where the daemon can be reached: every address of a name, a Unix socket, and the sockets that systemd hands over."""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, cast

import httpx
import pytest
import trio

from observer_actors.addresses import parse_address
from observer_actors.client import record_external_op
from observer_actors.errors import AddressUnavailable, ConfigInvalid
from observer_actors.http import listeners as module
from observer_actors.http.listeners import ACCEPTED_AT_ONCE, accept, address_of, open_listeners, serving_sockets
from observer_actors.settings import ListenSettings
from tests.commands.typed import answered, as_ordinary_user, environment, typed, typed_for_real
from tests.daemon.inside import eventually
from tests.harness import READY_S, journal_ops, running_daemon


@contextmanager
def listening(**settings: Any) -> Iterator[list[str]]:
    listeners = open_listeners(ListenSettings(**settings), needs_token=False)
    try:
        yield [address_of(listener) for listener in listeners]
    finally:
        for listener in listeners:
            listener.close()


class _Turns(trio.abc.Instrument):
    """Counts the turns of the event loop."""

    count = 0

    def before_io_wait(self, timeout: float) -> None:  # noqa: ARG002 - as trio calls it
        self.count += 1


async def test_those_who_wait_are_accepted_together() -> None:
    """Under load a turn of the event loop takes a millisecond: who came last of a thousand would wait for a second."""
    many = 2 * ACCEPTED_AT_ONCE + 2
    with open_listeners(ListenSettings(port=0), needs_token=False)[0] as listener, ExitStack() as stack:
        for number in range(many):
            client = stack.enter_context(socket.create_connection(listener.getsockname(), timeout=5))
            client.sendall(b"%d" % number)
        turns = _Turns()
        trio.lowlevel.add_instrument(turns)
        accepted: list[socket.socket] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept, listener.dup(), lambda given: accepted.append(stack.enter_context(given)))
            await eventually(lambda: len(accepted) == many)
            assert turns.count <= 2 * (many // ACCEPTED_AT_ONCE + 2), "not one for each"
            trio.lowlevel.remove_instrument(turns)
            assert [given.recv(10) for given in accepted] == [b"%d" % number for number in range(many)]
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("seconds", "milliseconds"), [(1, 30_000), (120, 120_000)])
def test_the_kernel_cuts_nobody_off_who_still_has_time_to_read(
    seconds: float, milliseconds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts how long nothing has been read, which may be as long as there is time for an answer."""
    settings = ListenSettings(port=0, answer_seconds_max=seconds)
    with open_listeners(settings, needs_token=False)[0] as listener:
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == milliseconds
    with socket.create_server(("127.0.0.1", 0)) as ours:
        monkeypatch.setattr(module, "_handed_over", lambda: [ours])
        (listener,) = open_listeners(settings, needs_token=False)
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == milliseconds


async def test_where_no_more_files_can_be_opened_those_who_wait_are_accepted_later(tmp_path: Path) -> None:
    """And who is connected is served meanwhile."""
    async with running_daemon(tmp_path) as daemon:
        port = int(daemon.url.rpartition(":")[2])
        event = b'POST /event HTTP/1.1\r\nHost: localhost\r\nContent-Length: 16\r\n\r\n{"endpoint":"a"}'
        async with await trio.open_tcp_stream("127.0.0.1", port) as before:
            await before.send_all(event)
            assert b" 200 " in await before.receive_some()
            limits = resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE)
            resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
            async with await trio.open_tcp_stream("127.0.0.1", port) as waiting:
                await waiting.send_all(event)
                await daemon.logged("accepting_failed")
                await before.send_all(event)
                assert b" 200 " in await before.receive_some()
                resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, limits)
                with trio.fail_after(10):
                    assert b" 200 " in await waiting.receive_some()
        assert sum(line.get("event") == "accepting_failed" for line in daemon.log) == 1, "said once"


def has_ipv6() -> bool:
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            return False
    return True


def test_ipv6_and_every_address_of_a_name() -> None:
    if has_ipv6():
        with listening(host="::1", port=0) as addresses:
            assert [address.rpartition(":")[0] for address in addresses] == ["http://[::1]"]
    else:
        with pytest.raises(AddressUnavailable, match="cannot listen on ::1"):
            open_listeners(ListenSettings(host="::1", port=0), needs_token=False)
    with listening(host="localhost", port=0) as addresses:
        assert len({address.rpartition(":")[2] for address in addresses}) == 1, "one port for all of them"
        for address in addresses:
            with socket.create_connection((httpx.URL(address).host, httpx.URL(address).port or 0), timeout=5):
                pass


def test_an_address_of_one_link_alone_has_its_zone_and_no_other_machine_is_told_that() -> None:
    loopback = socket.if_nametoindex("lo")
    link_local = SimpleNamespace(family=socket.AF_INET6, getsockname=lambda: ("fe80::1", 3800, 0, loopback))
    url = address_of(cast("socket.socket", link_local))
    assert url == "http://[fe80::1%lo]:3800"
    assert parse_address(url).headers == {"Host": "[fe80::1]:3800"}
    assert parse_address("http://user:p%40ss@[::1]:3800").headers == {}


def test_an_address_that_is_taken_or_unknown_is_told() -> None:
    with listening(port=0) as (address,), pytest.raises(AddressUnavailable, match="in use"):
        open_listeners(ListenSettings(port=httpx.URL(address).port or 0), needs_token=False)
    with pytest.raises(AddressUnavailable, match="cannot find"):
        open_listeners(ListenSettings(host="no.such.name.invalid"), needs_token=False)
    with pytest.raises(ConfigInvalid, match="nothing to listen on"):
        open_listeners(ListenSettings(tcp=False), needs_token=False)


def test_of_a_port_that_is_roots_nobody_hears_that_another_daemon_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_listener: socket.socket, _address: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(module, "_listen", refuse)
    with pytest.raises(AddressUnavailable, match="port 80: Permission denied") as told:
        open_listeners(ListenSettings(port=80), needs_token=False)
    assert "below 1024" in told.value.hint


def test_a_unix_socket_has_its_mode_from_the_first_moment(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with listening(tcp=False, unix=str(path), unix_mode="0600") as addresses:
        assert addresses == [f"unix://{path}"]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with pytest.raises(AddressUnavailable, match="in use"):
            open_listeners(ListenSettings(tcp=False, unix=str(path)), needs_token=False)
    assert path.exists(), "as a daemon that was killed leaves it"
    with listening(tcp=False, unix=str(path)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
    with pytest.raises(AddressUnavailable, match="too long"):
        open_listeners(ListenSettings(tcp=False, unix=str(tmp_path / ("x" * 120))), needs_token=False)


@pytest.mark.parametrize("what", ["file", "folder", "dangling link"])
def test_what_stands_in_the_place_of_a_unix_socket_and_is_none_is_named_and_stays(tmp_path: Path, what: str) -> None:
    path = tmp_path / "s"
    if what == "file":
        path.write_text("somebody's")
    elif what == "folder":
        path.mkdir()
    else:
        path.symlink_to("nowhere")
    found = path.lstat()
    with pytest.raises(ConfigInvalid, match=f"listen.unix: {path} is there, and is no socket") as told:
        open_listeners(ListenSettings(tcp=False, unix=str(path)), needs_token=False)
    assert "another path" in told.value.hint
    assert os.path.samestat(found, path.lstat())


def test_the_hint_about_a_unix_socket_fits_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, says in (("missing/s", "make the folder"), ("file/s", "no folder"), ("used", "another daemon")):
        with listening(tcp=False, unix=str(tmp_path / "used")), pytest.raises(AddressUnavailable) as told:
            open_listeners(ListenSettings(tcp=False, unix=str(tmp_path / path)), needs_token=False)
        assert says in told.value.hint, path


def test_a_link_in_the_place_of_a_unix_socket_that_leads_where_nobody_may_look_is_told(tmp_path: Path) -> None:
    ordinary, folder, path = as_ordinary_user(), tmp_path / "closed", tmp_path / "s"
    folder.mkdir(mode=0o000)
    path.symlink_to(folder / "s")
    given = ("--data-dir", str(tmp_path / "data"), "--set", "listen.tcp=false", "--set", f"listen.unix={path}")
    ended = typed_for_real("serve", *given, before=ordinary)
    assert (ended.returncode, f"cannot listen on {path}: Permission denied" in ended.stderr) == (75, True), ended


def test_only_a_unix_socket_that_nobody_listens_on_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "s"
    settings = ListenSettings(tcp=False, unix=str(path))

    def is_refused_and_left() -> None:
        found = path.lstat()
        with pytest.raises(AddressUnavailable, match="in use"):
            open_listeners(settings, needs_token=False)
        assert os.path.samestat(found, path.lstat())

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as of_another_kind:
        of_another_kind.bind(str(path))
        is_refused_and_left()
    path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stopped, ExitStack() as waiting:
        stopped.bind(str(path))
        stopped.listen(0)
        client = waiting.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        client.connect(str(path))  # its backlog is full now
        is_refused_and_left()
    with listening(tcp=False, unix=str(path)):
        pass


def test_a_unix_socket_that_this_user_may_not_connect_to_is_in_use(tmp_path: Path) -> None:
    ordinary, path = as_ordinary_user(), tmp_path / "s"
    given = ("--data-dir", str(tmp_path / "data"), "--set", "listen.tcp=false", "--set", f"listen.unix={path}")
    with listening(tcp=False, unix=str(path), unix_mode="0000"):
        found = path.lstat()
        ended = typed_for_real("serve", *given, before=ordinary)
        assert (ended.returncode, "in use" in ended.stderr) == (75, True), ended
        assert os.path.samestat(found, path.lstat())


@pytest.mark.parametrize("how", ["removed by somebody", "left by one that drains"])
def test_a_unix_socket_that_another_daemon_has_made_since_stays(tmp_path: Path, how: str) -> None:
    path = tmp_path / "s"
    settings = ListenSettings(tcp=False, unix=str(path))
    with ExitStack() as second:
        with serving_sockets(settings, needs_token=False) as [first]:
            if how == "removed by somebody":
                path.unlink()
            else:
                first.close()
            [listener] = second.enter_context(serving_sockets(settings, needs_token=False))
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.connect(str(path))
            listener.accept()[0].close()
    assert not path.exists()


async def test_where_the_port_is_0_the_log_says_at_any_level_which_it_is(tmp_path: Path) -> None:
    level = ("--set", "log.level=error")
    async with running_daemon(tmp_path / "data", *level, wait_ready=False) as daemon:
        line = await daemon.logged("listening")
        assert (line["level"], line["actor"], line["addresses"]) == ("info", "daemon", [line["url"]])
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.get(f"{line['url']}/health")).status_code == 200
        assert [line["event"] for line in daemon.log] == ["listening"]


async def test_everything_works_over_a_unix_socket_alone(tmp_path: Path) -> None:
    path = tmp_path / "observer.sock"
    unix = ("--set", "listen.tcp=false", "--set", f"listen.unix={path}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as plain:
        plain.bind(str(tmp_path / "notify"))
        notified = trio.socket.from_stdlib_socket(plain)
        variables = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "6000000"}
        async with running_daemon(tmp_path / "data", *unix, environment=variables) as daemon:
            assert daemon.url == f"unix://{path}"
            with trio.fail_after(READY_S):
                while b"WATCHDOG=1" not in await notified.recv(4_096):
                    pass
            receipt = await record_external_op({"endpoint": "u"}, observer_url=daemon.url)
            assert receipt.seq == 1
            sent = await trio.to_thread.run_sync(lambda: answered("send", "--endpoint", "v", "--url", daemon.url))
            assert sent["seq"] == 2
            stats = await trio.to_thread.run_sync(lambda: answered("stats", OBSERVER_URL=daemon.url))
            assert stats["total"] == 2
            variables = {"OBSERVER_LISTEN__TCP": "false", "OBSERVER_LISTEN__UNIX": str(path)}
            shown = await trio.to_thread.run_sync(lambda: typed("ops", **variables))  # type: ignore[arg-type]
            assert len(shown.stdout.splitlines()) == 2, "what is configured here says where"
            assert await daemon.stop() == 0
    assert not path.exists()


# --------------------------------------------------------------------------------------------- socket activation


def start_with(listener: socket.socket | IO[bytes], data_dir: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Start the daemon as systemd would: the socket is descriptor 3, and it is told so."""
    script = f'export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=http; exec "$@" 3<&{listener.fileno()}'
    command = [sys.executable, "-m", "observer_actors", "serve", "--data-dir", str(data_dir), *arguments]
    return subprocess.Popen(
        ["bash", "-c", script, "bash", *command],
        pass_fds=[listener.fileno()],
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        env=environment(),
    )


def bound(host: str = "127.0.0.1") -> socket.socket:
    return socket.create_server((host, 0), backlog=1_024)


def ended(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    _, error = process.communicate(timeout=READY_S)
    return process.returncode, error.decode()


def test_a_socket_of_systemd_is_served_and_no_connection_is_lost_across_a_restart(tmp_path: Path) -> None:
    with bound() as listener:
        port = listener.getsockname()[1]
        trouble: list[str] = []
        acknowledged: list[str] = []
        done = threading.Event()

        def report(sender: int) -> None:
            number = 0
            while not done.is_set():
                key = f"{sender}-{number}"
                try:  # a connection each: what is kept alive may be closed between two requests
                    answer = httpx.post(f"http://127.0.0.1:{port}/event", json={"id": key}, timeout=READY_S)
                    answer.raise_for_status()
                except httpx.HTTPError as error:
                    trouble.append(f"{key}: {error!r}")
                    return
                acknowledged.append(key)
                number += 1

        processes = [start_with(listener, tmp_path, "--port", "1")]
        senders = [threading.Thread(target=report, args=[sender]) for sender in range(4)]
        for sender in senders:
            sender.start()
        for restart in range(3):
            wait_for_more(acknowledged, trouble)
            processes[-1].send_signal(signal.SIGTERM)
            status, error = ended(processes[-1])
            assert (restart, status, trouble) == (restart, 0, []), error
            processes.append(start_with(listener, tmp_path, "--port", "1"))
        wait_for_more(acknowledged, trouble)
        done.set()
        for sender in senders:
            sender.join()
        processes[-1].send_signal(signal.SIGTERM)
        assert (ended(processes[-1])[0], trouble) == (0, [])
    assert sorted(str(op.id) for op in journal_ops(tmp_path)) == sorted(acknowledged)


def wait_for_more(acknowledged: list[str], trouble: list[str]) -> None:
    """Wait until some more have been acknowledged, or something has gone wrong."""
    wanted = len(acknowledged) + 20
    while len(acknowledged) < wanted and not trouble:
        threading.Event().wait(0.01)


def test_a_unix_socket_of_systemd_stays_where_it_is(tmp_path: Path) -> None:
    """Also when the settings name the same one: systemd's file is not ours to remove."""
    path = tmp_path / "http.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        running = start_with(listener, tmp_path / "data", "--set", f"listen.unix={path}")
        assert answered("send", "--endpoint", "a", "--url", f"unix://{path}")["seq"] == 1
        running.send_signal(signal.SIGTERM)
        assert ended(running)[0] == 0
        assert path.exists()


def test_a_handed_over_address_that_others_reach_needs_leave(tmp_path: Path) -> None:
    with bound("0.0.0.0") as listener:  # noqa: S104 - that it is refused is the point
        refused = start_with(listener, tmp_path)
        status, error = ended(refused)
        assert (status, "which other machines reach" in error, "ListenStream=" in error) == (78, True, True)


def test_a_handed_over_socket_that_is_none_to_listen_on_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        status, error = ended(start_with(datagrams, tmp_path))
    assert (status, "none to listen on" in error) == (78, True)


def test_a_handed_over_unix_socket_without_a_file_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as abstract:
        abstract.bind(f"\0{tmp_path}")
        abstract.listen()
        status, error = ended(start_with(abstract, tmp_path / "data"))
    assert (status, "abstract" in error, "ListenStream=" in error) == (78, True, True), error


def test_a_handed_over_descriptor_that_is_no_socket_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        status, error = ended(start_with(file, tmp_path))
    assert (status, "is no socket" in error, "Traceback" in error) == (78, True, False), error


def test_sockets_that_are_meant_for_another_process_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid() + 1))
    monkeypatch.setenv("LISTEN_FDS", "1")
    listeners = open_listeners(ListenSettings(port=0), needs_token=False)
    assert address_of(listeners[0]).startswith("http://127.0.0.1:")
    assert os.environ.keys().isdisjoint({"LISTEN_PID", "LISTEN_FDS"}), "no child shall take them for its own"
    for listener in listeners:
        listener.close()
