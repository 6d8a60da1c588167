"""The doors of the real daemon: who is let in, how much one caller may take, and that both ways in agree on it."""

from __future__ import annotations

import gzip
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Final

import httpx
import pytest
import trio
import trio.testing
from msgspec.structs import replace

from observer_actors import daemon as module
from observer_actors import in_force
from observer_actors.actors.admission import Room
from observer_actors.client._daemon import async_client
from observer_actors.daemon import open_daemon
from observer_actors.errors import ConfigInvalid, Overloaded, RequestTimedOut, Unreachable
from observer_actors.http import web
from observer_actors.http.bodies import BYTES_A_SECOND_MIN, STALL_S, UNANNOUNCED_BYTES, Arrival, BodyRoom, Held
from observer_actors.http.front_door import _Connection
from observer_actors.http.gate import READ_S, Sends, _Answering, _Arriving, _by_path
from observer_actors.http.guard import Peer
from observer_actors.settings import (
    AdmissionSettings,
    AuthSettings,
    CycleSettings,
    DiagnosisSettings,
    ListenSettings,
    Settings,
)
from observer_actors.tokens import hash_of
from tests.commands.typed import typed
from tests.daemon.inside import Crashes, daemon_inside, eventually, leaves
from tests.daemon.served import Served, served
from tests.daemon.test_front_door import WAYS, Way, connected_to, get, post
from tests.daemon.test_http_tail import Reader, port_of
from tests.harness import Daemon, first_told, running_daemon, seen
from tests.supervision.injected_time import injected_time

INGEST: Final = "a-token-that-may-only-report-things"
READ: Final = "a-token-that-may-only-look-at-things"
ADMIN: Final = "a-token-that-may-do-just-everything"
EVERYWHERE: Final = "0.0.0.0"  # noqa: S104 - that is what is tested
GOOD: Final = b'{"endpoint":"a","success":true}'


@asynccontextmanager
async def guarded(folder: Path, *arguments: str, tokens: str = "") -> AsyncIterator[Daemon]:
    file = folder / "tokens"
    file.write_text(tokens or f"i ingest {hash_of(INGEST)}\nr read {READ}\na admin {ADMIN}\n")
    file.chmod(0o600)
    async with running_daemon(folder / "data", "--set", f"auth.tokens_file={file}", *arguments) as daemon:
        yield daemon


async def answers(daemon: Daemon | Served, request: bytes) -> list[int]:
    """Give the statuses of the same request both ways in."""
    statuses = []
    for way in WAYS:
        async with connected_to(daemon.url, way) as client:
            await client.send(request)
            statuses.append((await client.answer()).status)
    return statuses


async def test_a_token_with_the_scope_is_needed_both_ways_in(tmp_path: Path) -> None:
    async with guarded(tmp_path) as daemon:
        for token, reports, looks in (
            (INGEST, 200, 403),
            (READ, 403, 200),
            (ADMIN, 200, 200),
            ("no such token", 401, 401),
        ):
            bearer = f"Authorization: Bearer {token}"
            assert await answers(daemon, post("/event", GOOD, bearer)) == [reports] * 2
            assert await answers(daemon, post("/events", GOOD, bearer)) == [reports] * 2
            assert await answers(daemon, get("/advice?endpoint=a", bearer)) == [looks] * 2
            seen = await daemon.get("/stats", headers={"Authorization": f"Bearer {token}"})
            assert seen.status_code == looks
        assert await answers(daemon, post("/event", GOOD)) == [401, 401]
        assert await answers(daemon, post("/event", GOOD, f"Authorization: Basic {INGEST}")) == [401, 401]
        assert (await daemon.get("/health")).status_code == 200
        metrics = (await daemon.get("/metrics", headers={"Authorization": f"Bearer {READ}"})).text
        for status, times in (("401", 11), ("403", 7), ("421", 0)):
            assert f'observer_requests_denied_total{{status="{status}"}} {times}.0\n' in metrics
    assert len(daemon.ops()) == 8
    assert INGEST not in "".join(daemon.raw_log)


async def test_a_file_of_tokens_that_everybody_may_read_is_told_of(tmp_path: Path) -> None:
    async with guarded(tmp_path) as daemon:
        (tmp_path / "tokens").chmod(0o604)
        daemon.process.send_signal(signal.SIGHUP)
        assert (await daemon.logged("tokens_exposed"))["file"] == str(tmp_path / "tokens")
        named = str(tmp_path / "tokens")
        told = typed("doctor", "--data-dir", str(tmp_path / "data"), OBSERVER_AUTH__TOKENS_FILE=named).stdout
        assert "every user may read" in told


async def test_a_token_that_is_gone_lets_nothing_in_on_a_connection_that_it_has_opened(tmp_path: Path) -> None:
    async with guarded(tmp_path) as daemon, connected_to(daemon.url, "front") as client:
        request = post("/event", GOOD, f"Authorization: Bearer {INGEST}")
        for _ in range(2):
            await client.send(request)
            assert (await client.answer()).status == 200
        (tmp_path / "tokens").write_text(f"new ingest {READ}x\n")
        daemon.process.send_signal(signal.SIGHUP)
        await daemon.logged("reloaded")
        await client.send(request)
        answer = await client.answer()
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert len(daemon.ops()) == 2


async def test_a_token_that_is_gone_is_told_nothing_more_by_a_stream_that_it_has_opened(tmp_path: Path) -> None:
    async with guarded(tmp_path) as daemon, await trio.open_tcp_stream("127.0.0.1", port_of(daemon)) as connection:
        await connection.send_all(get("/tail", f"Authorization: Bearer {READ}").replace(b"HTTP/1.1", b"HTTP/1.0"))
        reader = Reader(connection)
        assert (await reader.until(b"\r\n\r\n") or "").startswith("HTTP/1.1 200 ")
        assert (await reader.message()).keys() == {"retry", "id"}
        (tmp_path / "tokens").write_text(f"i ingest {INGEST}\n")
        daemon.process.send_signal(signal.SIGHUP)
        await daemon.logged("reloaded")
        assert await answers(daemon, post("/event", GOOD, f"Authorization: Bearer {INGEST}")) == [200, 200]
        assert await reader.message() == {"event": "end", "data": "{}"}
        assert await reader.message() == {"closed": ""}


async def test_tokens_are_rotated_without_a_restart(tmp_path: Path) -> None:
    async with guarded(tmp_path) as daemon:
        (tmp_path / "tokens").write_text(f"new ingest {READ}x\nold ingest {INGEST}\n")
        daemon.process.send_signal(signal.SIGHUP)
        await daemon.logged("reloaded")
        for token in (f"{READ}x", INGEST):
            assert await answers(daemon, post("/event", GOOD, f"Authorization: Bearer {token}")) == [200, 200]
        (tmp_path / "tokens").write_text(f"new ingest {READ}x\n")
        daemon.process.send_signal(signal.SIGHUP)
        old = post("/event", GOOD, f"Authorization: Bearer {INGEST}")
        await seen(lambda: answers(daemon, old), lambda statuses: statuses == [401, 401])
        (tmp_path / "tokens").write_text("nonsense\n")
        daemon.process.send_signal(signal.SIGHUP)
        await daemon.logged("reload_failed")
        assert await answers(daemon, post("/event", GOOD, f"Authorization: Bearer {READ}x")) == [200, 200]


async def test_a_reload_tells_a_file_that_is_read_anew_from_one_that_takes_a_restart(tmp_path: Path) -> None:
    tokens, key = tmp_path / "tokens", tmp_path / "key"
    tokens.write_text(f"reader read {READ}\n")
    key.write_text("first")
    cert, tls_key = certificate(tmp_path)
    settings = Settings(
        data_dir=tmp_path / "data",
        listen=ListenSettings(port=0, tls_cert=str(cert), tls_key=str(tls_key)),
        auth=AuthSettings(tokens_file=str(tokens)),
        diagnosis=DiagnosisSettings(api_key_file=str(key)),
    )
    async with daemon_inside(settings) as daemon:
        assert await daemon.reload(lambda: settings) == ([], [])
        tokens.write_text(f"reader read {READ}x\n")
        key.write_text("second")
        assert await daemon.reload(lambda: settings) == (["auth.tokens_file"], ["diagnosis.api_key_file"])
        certificate(tmp_path)  # another one, under the same names
        waiting = ["diagnosis.api_key_file"]
        assert await daemon.reload(lambda: settings) == (["listen.tls_cert", "listen.tls_key"], waiting)
        assert await daemon.reload(lambda: settings) == ([], waiting), "what waits for a restart goes on waiting"
        key.unlink()
        assert await daemon.reload(lambda: settings) == ([], waiting), "named once, though it cannot be used either"


async def test_a_renewed_certificate_is_that_of_connections_after_a_reload_and_a_broken_one_is_told_of(
    tmp_path: Path,
) -> None:
    cert, key = certificate(tmp_path)
    tls = ("--set", f"listen.tls_cert={cert}", "--set", f"listen.tls_key={key}")
    async with running_daemon(tmp_path / "data", *tls, wait_ready=False) as daemon:
        address = ("127.0.0.1", int((await daemon.logged("listening"))["url"].rpartition(":")[2]))
        await daemon.logged("ready")

        async def shown() -> str:
            return await trio.to_thread.run_sync(ssl.get_server_certificate, address)

        first = cert.read_text()
        assert await shown() == first
        trust = ssl.create_default_context(cafile=str(cert))
        async with await trio.open_ssl_over_tcp_stream(*address, ssl_context=trust, https_compatible=True) as old:
            await old.do_handshake()
            certificate(tmp_path)
            second = cert.read_text()
            daemon.process.send_signal(signal.SIGHUP)
            line = await daemon.logged("reloaded")
            assert (line["changed"], line["needs_restart"]) == (["listen.tls_cert", "listen.tls_key"], [])
            assert await shown() == second != first
            await old.send_all(post("/event", GOOD))
            assert (await old.receive_some()).startswith(b"HTTP/1.1 200 "), "who had shaken hands before is served on"
        cert.write_text(first)  # to which the key does not belong
        daemon.process.send_signal(signal.SIGHUP)
        line = await daemon.logged("reload_incomplete")
        assert (line["setting"], "the one in force stays" in line["hint"]) == ("listen.tls_cert", True)
        assert "cannot be used" in line["error"]
        await eventually(lambda: sum(line["event"] == "reloaded" for line in daemon.log) == 2)
        assert (daemon.log[-1]["changed"], daemon.log[-1]["needs_restart"]) == ([], [])
        assert await shown() == second


async def test_ingest_is_restarted_also_while_its_certificate_is_being_replaced(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    trust = ssl.create_default_context(cafile=str(cert))
    settings = Settings(data_dir=tmp_path / "data", listen=ListenSettings(port=0, tls_cert=str(cert), tls_key=str(key)))
    crashes = Crashes({("ingest", "serving"): (1,)})

    def replace_and_crash(name: str, step: str) -> None:
        if (name, step) == ("ingest", "serving"):
            key.write_text("half of")
        crashes(name, step)

    async with daemon_inside(settings, on_step=replace_and_crash) as daemon:
        await eventually(lambda: leaves(daemon)["ingest"].restarts == 1)
        port = int(daemon.addresses[0].rpartition(":")[2])
        stream = await trio.open_ssl_over_tcp_stream("localhost", port, ssl_context=trust)
        await stream.aclose()


async def test_sighup_says_that_another_file_of_tokens_could_not_be_used_by_a_start(tmp_path: Path) -> None:
    tokens, config = tmp_path / "tokens", tmp_path / "observer.toml"
    tokens.write_text(f"reader read {READ}x\n")
    config.write_text(f'[auth]\ntokens_file = "{tokens}"\n')
    async with running_daemon(tmp_path / "data", "--config", str(config)) as daemon:
        config.write_text(f'[auth]\ntokens_file = "{tmp_path / "none"}"\n')
        daemon.process.send_signal(signal.SIGHUP)
        line = await daemon.logged("reloaded")
        assert (line["changed"], line["needs_restart"]) == ([], ["auth.tokens_file"])
        line = await daemon.logged("reload_incomplete")
        assert line["setting"] == "auth.tokens_file"
        assert "No such file" in line["error"]


async def test_a_token_is_revoked_also_while_a_file_that_only_a_start_reads_cannot_be_used(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("a-key")
    async with guarded(tmp_path, "--set", f"diagnosis.api_key_file={key}") as daemon:
        request = post("/event", GOOD, f"Authorization: Bearer {INGEST}")
        assert await answers(daemon, request) == [200, 200]
        key.unlink()
        (tmp_path / "tokens").write_text(f"new ingest {READ}x\n")
        daemon.process.send_signal(signal.SIGHUP)
        line = await daemon.logged("reloaded")
        assert (line["changed"], line["needs_restart"]) == (["auth.tokens_file"], ["diagnosis.api_key_file"])
        assert await answers(daemon, request) == [401, 401]
        line = await daemon.logged("reload_incomplete")
        assert line["setting"] == "diagnosis.api_key_file"
        assert str(key) in line["error"]


async def test_a_reload_that_could_not_use_a_file_counts_as_failed_until_one_can(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    good, secret = cert.read_text(), tmp_path / "key"
    secret.write_text("a-key")
    settings = Settings(
        data_dir=tmp_path / "data",
        listen=ListenSettings(port=0, tls_cert=str(cert), tls_key=str(key)),
        diagnosis=DiagnosisSettings(api_key_file=str(secret)),
    )
    async with daemon_inside(settings) as daemon:
        await daemon.reload(lambda: settings)
        assert daemon.views.reloads_failed() == 0
        cert.write_text("half of one")
        await daemon.reload(lambda: settings)
        assert daemon.views.reloads_failed() == 1
        cert.write_text(good)
        secret.unlink()
        await daemon.reload(lambda: settings)
        assert daemon.views.reloads_failed() == 2
        secret.write_text("a-key")
        await daemon.reload(lambda: settings)
        assert daemon.views.reloads_failed() == 0


async def test_a_reload_shortens_the_cycle_and_has_retention_look_at_once(tmp_path: Path) -> None:
    config, journal = tmp_path / "observer.toml", "[journal]\nsegment_bytes_max = 1000\n"
    config.write_text(f"{journal}[cycle]\nseconds = 3600\n")
    async with running_daemon(tmp_path / "data", "--config", str(config)) as daemon:
        for _ in range(3):
            assert (await daemon.post("/event", {"endpoint": "a", "input_summary": "x" * 900})).status_code == 200
        await daemon.logged("segment_compacted")
        config.write_text(f"{journal}retained_bytes_max = 1\n[cycle]\nseconds = 0.1\n")
        daemon.process.send_signal(signal.SIGHUP)
        await daemon.logged("reloaded")
        await daemon.logged("cycle")
        await daemon.logged("segment_removed")


async def test_a_reload_without_its_tokens_changes_nothing_else(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    good = f"reader read {READ}\n"
    tokens.write_text(good)
    auth = AuthSettings(tokens_file=str(tokens))
    settings = Settings(data_dir=tmp_path / "data", listen=ListenSettings(port=0), auth=auth)
    new = replace(settings, cycle=CycleSettings(seconds=77))
    async with daemon_inside(settings) as daemon:
        tokens.write_text("nonsense\n")
        with pytest.raises(ConfigInvalid):
            await daemon.reload(lambda: new)
        assert daemon.settings.cycle == settings.cycle
        tokens.write_text(good)
        await daemon.reload(lambda: new)
        assert daemon.settings.cycle == new.cycle


async def test_a_reload_that_hangs_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RELOAD_S", 0.2)
    go_on = threading.Event()

    def load() -> Settings:
        go_on.wait(10)
        return replace(settings, cycle=CycleSettings(seconds=77))

    settings = Settings(data_dir=tmp_path / "data", listen=ListenSettings(port=0))
    async with daemon_inside(settings) as daemon:
        with pytest.raises(ConfigInvalid, match="not read within"):
            await daemon.reload(load)
        go_on.set()
        assert daemon.settings.cycle == settings.cycle


async def test_a_file_that_hangs_and_that_only_a_start_reads_keeps_no_reload_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RELOAD_S", 0.5)
    key = tmp_path / "key"
    key.write_text("a-key")
    diagnosis = DiagnosisSettings(api_key_file=str(key))
    settings = Settings(data_dir=tmp_path / "data", listen=ListenSettings(port=0), diagnosis=diagnosis)
    go_on = threading.Event()
    async with daemon_inside(settings) as daemon:
        monkeypatch.setattr(in_force, "api_key", lambda _file: go_on.wait(10))
        for cycle in (CycleSettings(seconds=77), CycleSettings(seconds=78)):
            found = await daemon.reload(partial(replace, settings, cycle=cycle))
            assert found == (["cycle.seconds"], ["diagnosis.api_key_file"])
            assert daemon.settings.cycle == cycle
        go_on.set()


async def test_a_pipe_in_a_files_place_is_refused_by_a_reload_and_the_next_one_reads_the_file(tmp_path: Path) -> None:
    tokens, key = tmp_path / "tokens", tmp_path / "key"
    settings = Settings(
        data_dir=tmp_path / "data",
        listen=ListenSettings(port=0),
        auth=AuthSettings(tokens_file=str(tokens)),
        diagnosis=DiagnosisSettings(api_key_file=str(key)),
    )
    tokens.write_text(f"reader read {READ}\n")
    key.write_text("a-key")
    async with daemon_inside(settings) as daemon:
        for file in (tokens, key):
            file.unlink()
            os.mkfifo(file)
        with pytest.raises(ConfigInvalid, match=r"auth.tokens_file: .* is no plain file"):
            await daemon.reload(lambda: settings)
        tokens.unlink()
        tokens.write_text(f"other read {READ}x\n")
        assert await daemon.reload(lambda: settings) == (["auth.tokens_file"], ["diagnosis.api_key_file"])
        key.unlink()
        key.write_text("a-key")
        assert await daemon.reload(lambda: settings) == ([], [])


async def test_a_reload_that_hangs_keeps_no_stop_waiting(tmp_path: Path) -> None:
    config = tmp_path / "observer.toml"
    config.touch()
    async with guarded(tmp_path, "--config", str(config)) as daemon:
        config.unlink()
        os.mkfifo(config)
        daemon.process.send_signal(signal.SIGHUP)
        assert await daemon.stop() == 0
    said = [line["event"] for line in daemon.log]
    assert "stopped" in said
    assert not {"reloaded", "reload_failed"} & set(said)


async def test_another_address_than_loopback_may_be_listened_on_with_tokens(tmp_path: Path) -> None:
    async with guarded(tmp_path, "--host", EVERYWHERE) as daemon:
        port = daemon.url.rpartition(":")[2]
        assert (await daemon.client.get(f"http://127.0.0.1:{port}/health")).status_code == 200
        assert (await daemon.client.get(f"http://127.0.0.1:{port}/stats")).status_code == 401


async def test_a_browser_is_no_client(tmp_path: Path) -> None:
    async with running_daemon(tmp_path, "--set", 'listen.hosts=["observer.example"]') as daemon:
        for headers, status in (
            ("Host: evil.example", 421),
            ("Host: localhost\r\nOrigin: http://evil.example", 403),
            ("Host: localhost\r\nSec-Fetch-Site: cross-site", 403),
            ("Host: observer.example:3800", 200),
        ):
            body = f"Content-Length: {len(GOOD)}\r\n\r\n".encode() + GOOD
            reported = f"POST /event HTTP/1.1\r\n{headers}\r\n".encode() + body
            assert await answers(daemon, reported) == [status] * 2, headers
            for path in ("/advice?endpoint=a", "/ops"):
                assert await answers(daemon, f"GET {path} HTTP/1.1\r\n{headers}\r\n\r\n".encode()) == [status] * 2
        assert len(daemon.ops()) == 2


async def test_a_target_that_names_a_host_is_for_that_host(tmp_path: Path) -> None:
    async with guarded(tmp_path) as daemon:
        for target, host, status in (
            ("http://localhost:3800/event", "localhost", 200),
            ("HTTP://127.0.0.1/event?x=1", "127.0.0.1", 200),
            ("http://localhost/event", "evil.example", 200),  # RFC 9112, 3.2.2: what the target names counts
            ("http://evil.example/event", "localhost", 421),
            ("http://localhost@evil.example/event", "localhost", 421),
            ("http://evil.example?/event", "localhost", 421),
            ("http:///event", "localhost", 421),
            ("http://localhost", "localhost", 404),
            ("ftp://localhost/event", "localhost", 400),
            ("event", "localhost", 400),
        ):
            head = f"POST {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(GOOD)}\r\n"
            bearer = ADMIN if status == 404 else INGEST
            request = f"{head}Authorization: Bearer {bearer}\r\n\r\n".encode() + GOOD
            assert await answers(daemon, request) == [status] * 2, target
        assert len(daemon.ops()) == 6


@pytest.mark.parametrize("path", ["/kb//outcomes", "/kb/outcomes//", "/ops//1", "/advice//?endpoint=a"])
def test_a_path_with_two_slashes_is_another_path_and_leads_nowhere(limited: Served, path: str) -> None:
    response = limited.client.get(path, headers={"Host": "localhost"})
    assert (response.status_code, response.headers["Content-Type"]) == (404, "application/problem+json")
    assert "Location" not in response.headers


def test_the_host_that_was_judged_is_the_one_that_the_application_sees() -> None:
    headers = [(b"host", b"localhost"), (b"accept", b"*/*")]
    scope = {"raw_path": b"http://127.0.0.1/stats", "path": "http://127.0.0.1/stats", "headers": headers}
    named = {"host": "localhost"}
    seen = _by_path(scope, named)
    assert (seen["raw_path"], seen["path"], named["host"]) == (b"/stats", "/stats", "127.0.0.1")
    assert seen["headers"] == [(b"host", b"localhost"), (b"accept", b"*/*")]  # only the guard asks for another


@pytest.mark.parametrize("path", ["/advice", "//advice", "/%2Fadvice", "/%61dvice", "http://localhost//advice"])
async def test_no_link_on_a_foreign_page_leaves_a_trace(limited: Served, path: str) -> None:
    link = ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document")
    assert await answers(limited, get(f"{path}?endpoint=a", *link)) == [403, 403]
    assert await answers(limited, get(f"{path}?endpoint=a", "Referer: http://evil.example/")) == [403, 403]
    assert await answers(limited, get(f"{path}?endpoint=a")) == [200, 200]
    assert await answers(limited, get("/stats", *link)) == [200, 200]


async def test_what_the_guard_asks_for_is_said_once(tmp_path: Path) -> None:
    names = ("Host", "Origin", "Referer", "Authorization", "Sec-Fetch-Dest", "Sec-Fetch-Mode", "Sec-Fetch-Site")
    async with guarded(tmp_path) as daemon:
        for name in names:
            twice = [f"{name}: none"] * 2
            assert await answers(daemon, post("/event", GOOD, *twice)) == [400, 400]
            assert await answers(daemon, get("/advice?endpoint=a", *twice)) == [400, 400]
        assert daemon.ops() == []


async def test_every_answer_tells_a_browser_to_take_it_for_what_it_is_and_not_to_frame_it(limited: Served) -> None:
    for request_ in (
        get("/stats"),
        get("/openapi.json"),
        get("/nothing"),
        get("/advice?endpoint=a"),
        get("/tail", "Connection: close").replace(b"GET", b"HEAD").replace(b"HTTP/1.1", b"HTTP/1.0"),
        get("/stats", "Sec-Fetch-Site: cross-site"),
        post("/event", GOOD),
        post("/events", GOOD),
        b"nothing\r\n\r\n",
    ):
        for way in WAYS:
            async with connected_to(limited.url, way) as client:
                await client.send(request_)
                headers = (await client.answer()).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["x-frame-options"] == "DENY"


def certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate of our own with the openssl that the machine has."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*command, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    return cert, key


async def test_with_a_certificate_the_whole_port_speaks_tls(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    tls = ("--set", f"listen.tls_cert={cert}", "--set", f"listen.tls_key={key}")
    trust = ssl.create_default_context(cafile=str(cert))
    async with running_daemon(tmp_path / "data", *tls, wait_ready=False) as daemon:
        url = (await daemon.logged("listening"))["url"]
        assert url.startswith("https://")
        await daemon.logged("ready")
        async with httpx.AsyncClient(verify=trust, trust_env=False) as client:
            assert (await client.post(f"{url}/event", content=GOOD)).json()["seq"] == 1
            assert (await client.post(f"{url}/events", content=GOOD)).json()["last_seq"] == 2
            assert (await client.get(f"{url}/health")).json()["last_seq"] == 2
        async with await trio.open_tcp_stream("127.0.0.1", int(url.rpartition(":")[2])) as plain:
            await plain.send_all(post("/event", GOOD))
            with trio.fail_after(15):
                assert b"accepted" not in await _rest(plain)
        assert len(daemon.ops()) == 2
        assert await daemon.stop() == 0
        await daemon.log_ended()
        assert not [line for line in daemon.log if line.get("error")]


async def test_the_commands_and_mcp_trust_what_ssl_cert_file_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cert, key = certificate(tmp_path)
    tls = ("--set", f"listen.tls_cert={cert}", "--set", f"listen.tls_key={key}")
    async with running_daemon(tmp_path / "data", *tls, wait_ready=False) as daemon:
        url = (await daemon.logged("listening"))["url"]
        await daemon.logged("ready")
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
        said = {
            "OBSERVER_LISTEN__TLS_CERT": str(cert),
            "OBSERVER_LISTEN__TLS_KEY": str(key),
            "OBSERVER_PORT": url.rpartition(":")[2],
        }
        for where in (("--url", url), ("--url", url.replace("https", "HTTPS")), ()):
            asked = partial(typed, "stats", *where, **said)
            ended = await trio.to_thread.run_sync(asked)
            assert (ended.returncode, ended.stderr) == (0, "")
        async with async_client(url, 10) as client:
            assert (await client.get("/health")).status_code == 200
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
        ended = await trio.to_thread.run_sync(lambda: typed("stats", "--url", url))
        assert (ended.returncode, "SSL_CERT_FILE" in ended.stderr) == (69, True)
        with pytest.raises(Unreachable):
            async_client(url, 10)


async def test_the_watchdog_is_fed_whatever_name_the_certificate_is_for(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)  # which nobody on this machine trusts
    tls = ("--set", f"listen.tls_cert={cert}", "--set", f"listen.tls_key={key}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as plain:
        plain.bind(str(tmp_path / "notify"))
        notified = trio.socket.from_stdlib_socket(plain)
        variables = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "600000"}
        async with running_daemon(tmp_path / "data", *tls, wait_ready=False, environment=variables):
            with trio.fail_after(20):
                while b"WATCHDOG=1" not in await notified.recv(4_096):
                    pass


async def _rest(stream: trio.SocketStream) -> bytes:
    received = b""
    try:
        async for part in stream:
            received += bytes(part)
    except trio.BrokenResourceError:
        pass
    return received


async def test_over_a_unix_socket_the_daemons_own_user_needs_no_token(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    async with guarded(tmp_path, "--set", f"listen.unix={path}") as daemon:
        for way in WAYS:
            async with connected_to(f"unix://{path}", way) as client:
                await client.send(post("/event", GOOD))
                assert (await client.answer()).status == 200
        assert len(daemon.ops()) == 2


async def test_over_a_unix_socket_any_host_will_do(tmp_path: Path) -> None:
    """Which one it is means nothing there; one that is none in DNS was too much for Quart."""
    path = tmp_path / "socket"
    async with running_daemon(tmp_path / "data", "--set", f"listen.unix={path}") as daemon:
        for host, way in product(("", "a..b", ".", "a" * 64, "[", "ä"), WAYS):
            async with connected_to(f"unix://{path}", way) as client:
                for request_ in (post("/event", GOOD), get("/stats"), get("/advice?endpoint=a")):
                    await client.send(request_.replace(b"Host: localhost", f"Host: {host}".encode()))
                    assert (await client.answer()).status == 200, host
        assert [line for line in daemon.log if line["level"] == "error"] == []


LIMITS: Final = """
[listen]
requests_per_connection_max = 2
head_bytes_max = 2048
body_bytes_max = 5000
decompressed_bytes_max = 6000
batch_events_max = 3
fields_max = 10
depth_max = 3
head_seconds_max = 1
request_seconds_max = 1
"""


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("limited"), LIMITS) as daemon:
        yield daemon


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"a":{"b":{"c":1}},"f":1}', 200),
        (b'{"attrs":{"b":{"c":{"d":1}}}}', 422),
        (b"{" + b",".join(b'"f%d":1' % n for n in range(10)) + b"}", 200),
        (b'{"error":"' + b"x" * 5_000 + b'"}', 413),
    ],
)
async def test_what_an_event_may_be(limited: Served, body: bytes, status: int) -> None:
    assert await answers(limited, post("/event", body)) == [status] * 2


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("request_", "status", "limit"),
    [
        (post("/event", GOOD, "X: " + "x" * 2_100), 431, "head_bytes_max"),
        (post("/event", b"x" * 5_001), 413, "body_bytes_max"),
        (post("/event", gzip.compress(b" " * 6_001), "Content-Encoding: gzip"), 413, "decompressed_bytes_max"),
        (post("/event", b'{"a":{"b":{"c":{"d":1}}}}'), 422, "depth_max"),
        (post("/event", b"{" + b",".join(b'"f%d":1' % n for n in range(11)) + b"}"), 422, "fields_max"),
        (post("/events", b"{}\n" * 4), 400, "batch_events_max"),
        (b"POST /event HTTP/1.1\r\nHost: localhost\r\nX:", 408, "head_seconds_max"),
        (b"POST /event HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{", 408, "request_seconds_max"),
    ],
)
async def test_each_limit_says_which_it_is(limited: Served, way: Way, request_: bytes, status: int, limit: str) -> None:
    async with connected_to(limited.url, way) as client:
        await client.send(request_)
        answer = await client.answer()
        assert (answer.status, answer.json["limit"]) == (status, f"listen.{limit}")
        assert status != 408 or await client.ended()


@pytest.mark.parametrize("way", WAYS)
async def test_the_last_request_that_a_connection_may_make_closes_it(limited: Served, way: Way) -> None:
    async with connected_to(limited.url, way) as client:
        for left in (2, 1):
            await client.send(post("/event", GOOD))
            answer = await client.answer()
            assert answer.status == 200
            assert (answer.headers.get("connection") == "close") == (left == 1)
        assert await client.ended()


async def test_the_requests_that_a_connection_has_made_are_counted_whichever_way_each_took(limited: Served) -> None:
    async with connected_to(limited.url, "front") as client:
        await client.send(post("/event", GOOD) + get("/health") * 3)
        assert (await client.answer()).headers.get("connection") is None
        assert (await client.answer()).headers["connection"] == "close"
        assert await client.ended()


async def test_one_address_has_only_so_many_connections(tmp_path: Path) -> None:
    most = ("--set", "listen.connections_per_address_max=3")
    async with running_daemon(tmp_path, *most) as daemon, AsyncExitStack() as stack:
        port = port_of(daemon)
        opened = [await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", port)) for _ in range(6)]
        refused = await first_told(opened)
        assert b" 429 " in refused
        assert b'"limit":"listen.connections_per_address_max"' in refused
        assert b"127.0.0.1" in refused


async def test_a_body_that_stands_still_gives_its_room_back(tmp_path: Path) -> None:
    """Both ask for all the room of their way in; the second has it when the first is no longer waited for."""
    announced = b"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8388000\r\n\r\n"

    async def stand_still(url: str, way: Way) -> None:
        async with connected_to(url, way) as stalled, connected_to(url, way) as other:
            await stalled.send(announced + b"\n" * 9_000)
            await trio.sleep(0.2)
            await other.send(announced + b'{"endpoint":"a"}' + b"\n" * (8_388_000 - 16))
            late = await stalled.answer()
            assert (late.status, late.json.get("limit")) == (408, None)
            assert late.json["hint"] == "it may stand still for 2 s in all, and comes at 64 KiB a second besides"
            assert (await other.answer()).status == 200

    async with (
        running_daemon(tmp_path, "--set", "listen.bodies_bytes_max=8388608") as daemon,
        trio.open_nursery() as nursery,
    ):
        for way in WAYS:
            nursery.start_soon(stand_still, daemon.url, way)


async def test_a_report_for_whose_body_there_is_no_room_is_counted_as_refused(tmp_path: Path) -> None:
    sizes = ("listen.body_bytes_max=100000", "listen.bodies_bytes_max=100000", "admission.wait_seconds_max=0.5")
    settings = [word for size in sizes for word in ("--set", size)]
    async with running_daemon(tmp_path, *settings) as daemon:
        for way, path in product(WAYS, ("/event", "/events")):
            async with connected_to(daemon.url, way) as first, connected_to(daemon.url, way) as second:
                await first.send(post(path, b" " * 90_000)[:-90_000])
                await daemon.get("/health")  # another look at the sockets: the first has its room
                await second.send(post(path, b" " * 20_000))
                assert (await second.answer()).status == 503, (way, path)
        assert await daemon.metric("observer_ingest_refused_total") == 4


async def test_a_report_for_more_of_whose_body_there_is_no_room_is_counted_as_refused(tmp_path: Path) -> None:
    sizes = ("listen.body_bytes_max=400000", "listen.bodies_bytes_max=400000", "admission.wait_seconds_max=0.5")
    settings = [word for size in sizes for word in ("--set", size)]
    async with (
        running_daemon(tmp_path, *settings) as daemon,
        connected_to(daemon.url, "web") as first,
        connected_to(daemon.url, "web") as second,
    ):
        await first.send(post("/events", b" " * 200_000)[:-200_000])
        await daemon.get("/health")
        head = b"POST /events HTTP/1.1\r\nHost: localhost\r\nX-Padding: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
        await second.send(head + b"18000\r\n" + b" " * 0x18000 + b"\r\n")
        assert (await second.answer()).status == 503
        assert await daemon.metric("observer_ingest_refused_total") == 1


async def test_a_report_for_whose_answer_there_is_no_room_is_counted_as_accepted_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def enter(_self: _Answering, _size: int) -> None:
        raise Overloaded("too many answers", limit="listen.answers_bytes_max")

    monkeypatch.setattr(_Answering, "_enter", enter)
    settings = Settings(data_dir=tmp_path, listen=ListenSettings(port=0))
    async with daemon_inside(settings) as inside, connected_to(inside.addresses[0], "web") as client:
        await client.send(post("/events", GOOD))
        assert (await client.answer()).json["limit"] == "listen.answers_bytes_max"
        assert (inside.intake.statistics.accepted, inside.intake.statistics.refused) == (1, 0)


@pytest.mark.parametrize("target", ["/event", "/events?x", "/stats"])
async def test_a_report_that_finds_hypercorn_full_is_counted_as_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    monkeypatch.setattr(web, "REQUESTS_MAX", 0)
    settings = Settings(
        data_dir=tmp_path, listen=ListenSettings(port=0), admission=AdmissionSettings(wait_seconds_max=0.1)
    )
    async with daemon_inside(settings) as inside, connected_to(inside.addresses[0], "web") as client:
        await client.send(post(target, GOOD))
        assert (await client.answer()).status == 503
        assert inside.intake.statistics.refused == (target != "/stats")


async def test_a_few_wait_for_hypercorn_and_the_next_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "REQUESTS_MAX", 1)
    monkeypatch.setattr(web, "WAITING_MAX", 1)
    answered: list[int] = []

    async def ask(address: str) -> None:
        async with connected_to(address, "web") as client:
            await client.send(get("/stats"))
            answered.append((await client.answer()).status)

    async with daemon_inside(Settings(data_dir=tmp_path, listen=ListenSettings(port=0))) as inside:
        [address] = inside.addresses
        async with (
            trio.open_nursery() as nursery,
            await trio.open_tcp_stream("127.0.0.1", int(address.rpartition(":")[2])) as served,
        ):
            await served.send_all(get("/tail"))
            await Reader(served).until(b"200")
            for _ in range(2):
                nursery.start_soon(ask, address)
            await eventually(lambda: answered == [503])
    assert answered == [503, 200]


@injected_time
async def test_what_comes_of_a_body_puts_off_when_the_next_of_it_must_be_there() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        async with trio.open_nursery() as nursery:
            connection = _Connection(None, ours, Peer(""))  # type: ignore[arg-type]  # no door is needed to receive
            began = trio.current_time()
            nursery.start_soon(connection._receive, 40_000, Arrival(60.0))  # noqa: SLF001
            await trio.testing.wait_all_tasks_blocked()
            assert connection.until - began == STALL_S
            theirs.sendall(b"x" * 32_768)
            await trio.testing.wait_all_tasks_blocked()
            assert connection.until - began == STALL_S + 32_768 / BYTES_A_SECOND_MIN
            nursery.cancel_scope.cancel()


@injected_time
async def test_a_body_that_was_there_when_we_were_late_to_look_is_taken() -> None:
    async def receive() -> dict[str, object]:
        await trio.lowlevel.checkpoint()
        return {"type": "http.request", "body": b"{}", "more_body": False}

    arriving = _Arriving(receive, Held(BodyRoom(1, wait_s=1)), 10, 60.0, trio.current_time)
    await trio.sleep(2 * STALL_S)
    assert (await arriving())["body"] == b"{}"


@injected_time
async def test_only_while_there_is_nothing_to_read_is_a_body_late() -> None:
    read_at = 10 * STALL_S

    async def receive() -> dict[str, object]:
        await trio.sleep_until(began + (60.0 if came else read_at))
        came.append(b"{}")
        return {"type": "http.request", "body": b"{}", "more_body": True}

    def idle() -> float:
        return max(0.0, trio.current_time() - began - read_at)

    came: list[bytes] = []
    began = trio.current_time()
    arriving = _Arriving(receive, Held(BodyRoom(1, wait_s=1)), 10, 60.0, idle)
    assert (await arriving())["body"] == b"{}"
    with pytest.raises(RequestTimedOut):
        await arriving()
    assert trio.current_time() - began == pytest.approx(read_at + STALL_S, abs=0.01)


@injected_time
async def test_a_body_has_no_more_than_its_time_however_long_we_take() -> None:
    arriving = _Arriving(trio.sleep_forever, Held(BodyRoom(1, wait_s=1)), 10, 30.0, lambda: 0.0)
    began = trio.current_time()
    with pytest.raises(RequestTimedOut) as late:
        await arriving()
    assert (trio.current_time() - began, late.value.limit) == (30.0, "listen.request_seconds_max")


@injected_time
@pytest.mark.parametrize("piece", [b"", bytes(11)], ids=["late", "too large"])
async def test_a_body_that_is_no_good_does_not_break_off_the_answer_that_has_begun(piece: bytes) -> None:
    """Quart reads it while it answers; a second answer behind the first would be an error of ASGI."""
    ends = trio.Event()
    coming = [{"type": "http.request", "body": b"{}", "more_body": True}]
    coming += [{"type": "http.request", "body": piece, "more_body": True}] if piece else []

    async def receive() -> dict[str, object]:
        if coming:
            return coming.pop(0)
        await ends.wait()
        return {"type": "http.disconnect"}

    async def send(_message: dict[str, object]) -> None:
        """Take it."""

    arriving = _Arriving(receive, Held(BodyRoom(1, wait_s=1)), 10, 30.0, trio.current_time)
    assert (await arriving())["body"] == b"{}"
    answering = _Answering(send, Room(1, 100), Sends(), arriving)
    await answering({"type": "http.response.start", "status": 200, "headers": []})
    await answering({"type": "http.response.body", "body": b"[", "more_body": True})
    with trio.move_on_after(60.0) as waited:
        await arriving()
    assert waited.cancelled_caught
    ends.set()
    assert await arriving() == {"type": "http.disconnect"}


async def test_a_body_that_was_sent_at_once_is_not_late_however_small_its_chunks(tmp_path: Path) -> None:
    body = b"{}\n" + b"\n" * 40_000
    async with running_daemon(tmp_path) as daemon, connected_to(daemon.url, "web") as client:
        await client.send(CHUNKED + b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n")
        assert (await client.answer()).status == 200


async def test_a_body_whose_time_is_over_as_its_end_comes_is_not_taken() -> None:
    """Else its caller hears 408, and it is stored."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    scope = trio.CancelScope()

    class Over(Arrival):
        def came(self, count: int) -> None:  # noqa: ARG002 - as its parent's
            scope.cancel()

    with ours, theirs:
        connection = _Connection(None, ours, Peer(""))  # type: ignore[arg-type]  # no door is needed to receive
        theirs.sendall(b"x" * 10)
        is_whole = None
        with scope:
            is_whole = await connection._receive(10, Over(60.0))  # noqa: SLF001
        assert (is_whole, scope.cancelled_caught) == (None, True)


async def test_the_front_door_gives_time_to_read_an_answer_as_it_is_long() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    door = SimpleNamespace(settings=ListenSettings(answer_seconds_max=1.0))
    answer = bytes(60 * BYTES_A_SECOND_MIN)
    with ours, theirs:
        connection = _Connection(door, ours, Peer(""))  # type: ignore[arg-type]  # all that it needs of a door to send
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection._send_all, answer)  # noqa: SLF001
            await trio.testing.wait_all_tasks_blocked()
            assert 55 < connection.until - trio.current_time() <= 61
            nursery.cancel_scope.cancel()


@injected_time
async def test_while_a_body_waits_for_room_its_sender_is_not_late() -> None:
    messages: list[dict[str, object]] = [{"body": b"x" * UNANNOUNCED_BYTES, "more_body": True}, {"body": b"x"}]

    async def receive() -> dict[str, object]:
        await trio.sleep(1)
        return messages.pop(0)

    room = BodyRoom(2 * UNANNOUNCED_BYTES, wait_s=10)
    async with trio.open_nursery() as nursery, room.hold(UNANNOUNCED_BYTES) as held:
        await nursery.start(_holds_for, room, 2 * STALL_S + 2)
        arriving = _Arriving(receive, held, 2 * UNANNOUNCED_BYTES, 60.0, trio.current_time)
        assert [len((await arriving())["body"]) for _ in range(2)] == [UNANNOUNCED_BYTES, 1]
    assert trio.current_time() >= 2 * STALL_S + 2, "it did wait"


async def _holds_for(room: BodyRoom, seconds: float, task_status: trio.TaskStatus[None]) -> None:
    async with room.hold(1):
        task_status.started()
        await trio.sleep(seconds)


async def test_readers_that_do_not_read_cost_a_bounded_amount_of_memory(tmp_path: Path) -> None:
    async with (
        running_daemon(tmp_path, "--set", "listen.answers_bytes_max=5000000") as daemon,
        AsyncExitStack() as stack,
    ):
        for number in range(30):
            await daemon.event(endpoint="long", input_summary=f"{number:200000}", success=True)
        page = await daemon.json("/ops", limit=1000)
        assert 2_000_000 < sum(len(op["input_summary"]) for op in page["ops"]) < 2_500_000
        rest = await daemon.json("/ops", limit=1000, cursor=page["next"])
        for _ in range(4):
            client = await stack.enter_async_context(connected_to(daemon.url, "web"))
            await client.send(b"GET /ops?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        # Whoever has had his time makes room, so others are served meanwhile.
        await seen(lambda: daemon.get("/ops", params={"limit": 1000}), lambda page: page.status_code == 200)
        assert (await daemon.get("/health")).status_code == 200
    assert len({op["seq"] for op in page["ops"] + rest["ops"]}) == len(page["ops"]) + len(rest["ops"])


async def test_an_answer_for_which_there_is_no_room_takes_that_of_whoever_has_had_his_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    sends, room = Sends(), Room(10, 100)
    ended = []

    async def send(message: dict[str, object]) -> None:
        with sends.sending(30.0) as scope:
            await trio.sleep(60 if message.get("body") == bytes(60) else 0)
        if scope.cancelled_caught:
            ended.append(autojump_clock.current_time() - began)

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def answer(size: int) -> None:
        arriving = _Arriving(receive, Held(BodyRoom(1, wait_s=1)), 0, 1.0, trio.current_time)
        await arriving()
        answering = _Answering(send, room, sends, arriving)
        await answering({"type": "http.response.start", "status": 200, "headers": []})
        await answering({"type": "http.response.body", "body": bytes(size)})

    began = autojump_clock.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer, 60)
        await trio.sleep(READ_S / 2)
        with pytest.raises(Overloaded):
            await answer(50)
        await trio.sleep(READ_S / 2)
        await answer(50)
    assert ended == [READ_S]


async def test_an_answer_for_which_there_is_room_does_not_wait_behind_a_stream_for_which_there_is_none(
    autojump_clock: trio.testing.MockClock,
) -> None:
    room = Room(10, 100)

    async def send(_message: dict[str, object]) -> None:
        pass

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def answer(*sizes: int) -> float:
        arriving = _Arriving(receive, Held(BodyRoom(1, wait_s=1)), 0, 1.0, trio.current_time)
        await arriving()
        answering = _Answering(send, room, Sends(), arriving)
        await answering({"type": "http.response.start", "status": 200, "headers": []})
        for size in sizes:
            await answering({"type": "http.response.body", "body": bytes(size), "more_body": True})
        return autojump_clock.current_time() - began

    began = autojump_clock.current_time()
    room.take(1, 60)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer, 10, 50)
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(5):
            assert await answer(10) == 0
        room.leave(1, 60)
    assert (room.count, room.bytes) == (0, 0)


async def test_empty_lines_hold_a_connection_no_longer_than_a_head(tmp_path: Path) -> None:
    async def send_empty_lines(url: str, before: bytes) -> None:
        async with connected_to(url, "front") as client:
            if before:
                await client.send(before)
                assert (await client.answer()).status == 200
            with trio.fail_after(20), suppress(trio.BrokenResourceError):
                for _ in range(40):  # they stand before a head that never comes
                    await client.send(b"\r\n")
                    await trio.sleep(0.25)
                raise AssertionError("it is open still")

    seconds = ("--set", "listen.head_seconds_max=1", "--set", "listen.idle_seconds_max=2")
    async with running_daemon(tmp_path, *seconds) as daemon, trio.open_nursery() as nursery:
        for before in (b"", post("/event", GOOD), get("/health")):
            nursery.start_soon(send_empty_lines, daemon.url, before)


async def test_an_answer_says_once_that_it_is_the_last_one(tmp_path: Path) -> None:
    async with running_daemon(tmp_path, "--set", "listen.requests_per_connection_max=1") as daemon:
        for request in (
            b"POST /event HTTP/1.1\r\nHost: evil.com\r\nTE: trailers\r\nContent-Length: 2\r\n\r\n",
            get("/stats").replace(b"localhost", b"evil.com"),
            get("/stats"),
        ):
            received = b""
            async with await trio.open_tcp_stream("127.0.0.1", port_of(daemon)) as stream:
                await stream.send_all(request)
                with trio.fail_after(10):
                    while b"\r\n\r\n" not in received:
                        received += await stream.receive_some()
            assert received.lower().count(b"\r\nconnection: close\r\n") == 1, request


PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"


@pytest.mark.parametrize("way", WAYS)
async def test_whoever_begins_http_2_is_told_not_to_and_let_go_of(limited: Served, way: Way) -> None:
    async with connected_to(limited.url, way) as client:
        await client.send(PREFACE)
        assert (await client.answer()).status == 505
        assert await client.ended()


UPGRADES: Final = {
    "h2c": ("Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"),
    "websocket": ("Connection: Upgrade", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13"),
}


async def test_an_offer_of_another_protocol_is_passed_over(tmp_path: Path) -> None:
    """The request is answered as if there were none, and the connection is as good as any other, and ends like one."""
    async with running_daemon(tmp_path, "--set", "listen.head_seconds_max=1") as daemon:
        for way, (protocol, headers) in product(WAYS, UPGRADES.items()):
            asked = get("/health", f"Upgrade: {protocol}", *headers)
            reported = post("/event", GOOD, f"Upgrade: {protocol}", *headers)
            for _ in range(3):
                async with connected_to(daemon.url, way) as client:
                    await client.send(asked + reported)
                    assert [(await client.answer()).status for _ in range(2)] == [200, 200]
                    await client.send(asked.replace(b"localhost", b"evil") + PREFACE)
                    assert (await client.answer()).status == 421
            async with connected_to(daemon.url, way) as client:
                await client.send(asked + PREFACE)
                assert [(await client.answer()).status for _ in range(2)] == [200, 505]
                assert await client.ended()
        await seen(lambda: daemon.metric("observer_connections"), lambda connections: connections == 1)


async def test_what_comes_behind_the_last_request_is_not_kept(tmp_path: Path) -> None:
    async with running_daemon(tmp_path) as daemon:
        for line in ("GET /tail HTTP/1.0", "GET /tail HTTP/1.1\r\nHost: localhost\r\nConnection: close"):
            async with await trio.open_tcp_stream("127.0.0.1", port_of(daemon)) as stream:
                await stream.send_all(f"{line}\r\n\r\n".encode())
                with trio.fail_after(30):
                    assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")
                    before = daemon.resident_bytes()
                    for _ in range(256):
                        await stream.send_all(b"x" * 262_144)
                    assert daemon.resident_bytes() < before + 16 * 1024 * 1024
                    await daemon.event(endpoint=f"told of {line}")
                    received = b""
                    while b"told of" not in received:
                        received += await stream.receive_some()


CHUNKED: Final = b"POST /events HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_who_is_refused_and_still_drips_is_let_go_of(tmp_path: Path) -> None:
    async with running_daemon(tmp_path, "--set", "listen.bodies_bytes_max=8388608") as daemon:
        for head in (CHUNKED, CHUNKED.replace(b"Transfer-Encoding: chunked", b"Content-Length: 8388608")):
            async with AsyncExitStack() as stack:
                clients = [await stack.enter_async_context(connected_to(daemon.url, "web")) for _ in range(3)]
                for client in clients:
                    await client.send(head)
                with trio.fail_after(20), suppress(trio.BrokenResourceError):
                    while True:
                        await clients[-1].send(b"1\r\n \r\n")
                        await trio.sleep(0.1)


async def test_bodies_without_a_length_take_room_for_what_has_come(tmp_path: Path) -> None:
    """Behind all of them one would wait for a minute: each stands still for 2 s."""
    patient = ("--set", "admission.wait_seconds_max=100")
    async with running_daemon(tmp_path, *patient) as daemon, AsyncExitStack() as stack:
        for _ in range(30):
            client = await stack.enter_async_context(connected_to(daemon.url, "web"))
            await client.send(CHUNKED + b"3\r\n{}\n\r\n")
        async with connected_to(daemon.url, "web") as client:
            await client.send(CHUNKED + b"3\r\n{}\n\r\n0\r\n\r\n")
            with trio.fail_after(20):
                assert (await client.answer()).status == 200


async def test_bodies_that_announce_their_length_do_not_wait_for_each_other_half_read(tmp_path: Path) -> None:
    body = b"{}\n" + b"\n" * 3_000_000
    head = b"POST /events?x=1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    settings = ("listen.bodies_bytes_max=8388608", "admission.wait_seconds_max=60")
    async with (
        running_daemon(tmp_path, *(part for one in settings for part in ("--set", one))) as daemon,
        connected_to(daemon.url, "web") as one,
        connected_to(daemon.url, "web") as other,
    ):
        with trio.fail_after(40):
            for at in range(0, len(body), 300_000):
                for client in (one, other):
                    await client.send((head if not at else b"") + body[at : at + 300_000])
            statuses = [(await client.answer()).status for client in (one, other)]
    assert statuses == [200, 200]


@pytest.mark.parametrize("body", [b"Content-Length: 2\r\n\r\n{}", b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"])
async def test_a_body_where_none_means_anything_is_refused(limited: Served, body: bytes) -> None:
    assert await answers(limited, b"GET /tail HTTP/1.1\r\nHost: localhost\r\n" + body) == [400] * 2


async def test_bodies_without_a_length_that_wait_for_each_other_do_so_for_a_while(tmp_path: Path) -> None:
    sizes = ("listen.bodies_bytes_max=1048576", "listen.body_bytes_max=1048576")
    settings = (*sizes, "admission.wait_seconds_max=0.5", "listen.request_seconds_max=2")
    more = b"30000\r\n" + b"{}\n" * 65_536 + b"\r\n"
    async with running_daemon(tmp_path, *(part for one in settings for part in ("--set", one))) as daemon:
        async with connected_to(daemon.url, "web") as one, connected_to(daemon.url, "web") as other:
            for client in (one, other):
                await client.send(CHUNKED + more)
            for client in (one, other):
                with suppress(trio.BrokenResourceError):
                    await client.send(more * 2)
            with trio.fail_after(10):
                statuses = {(await client.answer()).status for client in (one, other)}
        assert 503 in statuses
        assert statuses <= {503, 408}
        assert (await daemon.post("/events", b'{"city":"a"}')).status_code == 200


async def test_http_2_is_not_spoken(limited: Served) -> None:
    assert await answers(limited, b"GET /ops HTTP/2.0\r\nHost: localhost\r\n\r\n") == [505] * 2


@pytest.mark.parametrize(
    ("request_", "status"), [(b"GET /ops HTTP/1.1\r\nHost : x\r\n\r\n", 400), (b"GET /" + b"x" * 40_000, 431)]
)
async def test_what_is_no_request_is_told_so(limited: Served, request_: bytes, status: int) -> None:
    async with connected_to(limited.url, "web") as client:
        await client.send(request_)
        answer = await client.answer()
        assert (answer.status, answer.json["status"]) == (status, status)
        assert answer.json["error"]


async def test_idle_time_ends(tmp_path: Path) -> None:
    async with running_daemon(tmp_path, "--set", "listen.idle_seconds_max=0.5") as daemon:
        for way in WAYS:
            async with connected_to(daemon.url, way) as client:
                assert await client.ended()


async def test_files_and_folders_are_the_owners_alone(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with running_daemon(data, environment={"OBSERVER_CYCLE": "0.1"}) as daemon:
        await daemon.event(success=False, error="timeout")
        await daemon.logged("cycle")
    found = [data, *data.rglob("*")]
    assert len(found) > 4
    for path in found:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


async def test_what_others_could_read_of_an_existing_directory_is_closed_to_them(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with running_daemon(data) as daemon:
        assert "modes_tightened" not in [line["event"] for line in daemon.log]
        await daemon.event(endpoint="a")
        assert await daemon.stop() == 0
    data.chmod(0o750)
    open_to_others = {data / "_observer": 0o2775, data / "_observer" / "segments": 0o755}
    open_to_others |= {data / "_observer" / name: 0o644 for name in ("ops.jsonl", "learned.sqlite3", "own-notes")}
    open_to_others[data / "_observer" / "segments" / "kept-read-only"] = 0o444
    for path, mode in open_to_others.items():
        path.touch()
        path.chmod(mode)
    async with running_daemon(data) as daemon:
        said = await daemon.logged("modes_tightened", level="warning")
        assert (said["paths"], said["first"]) == (len(open_to_others), str(data / "_observer"))
        assert str(data) in (await daemon.logged("data_dir_open", level="warning"))["hint"]
        assert (await daemon.event(endpoint="a"))["seq"] == 2
        assert await daemon.stop() == 0
    modes = {path: path.stat().st_mode & 0o777 for path in open_to_others}
    assert modes == {path: mode & 0o700 for path, mode in open_to_others.items()}
    assert data.stat().st_mode & 0o777 == 0o750, "an operator may share it on purpose"


async def test_a_snapshot_by_hard_links_is_told_of_and_refuses_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with running_daemon(data) as daemon:
        await daemon.event(endpoint="a")
        assert "shared_by_hard_link" not in [line["event"] for line in daemon.log]
        assert await daemon.stop() == 0
    shutil.copytree(data, tmp_path / "snapshot", copy_function=os.link)
    async with running_daemon(data) as daemon:
        said = await daemon.logged("shared_by_hard_link", level="warning")
        assert Path(said["first"]).parent == data / "_observer"
        assert (await daemon.event(endpoint="a"))["seq"] == 2


async def test_what_cannot_be_closed_to_others_is_told_of_and_refuses_nothing(tmp_path: Path) -> None:
    """A file of another user in the daemon's directory: only that user may change its mode."""
    if os.geteuid() != 0:
        pytest.skip("giving a file to another user takes root")
    data = tmp_path / "data"
    (data / "_observer").mkdir(parents=True, mode=0o700)
    foreign = data / "_observer" / "foreign"
    foreign.touch(0o644)
    os.chown(foreign, 65_534, 65_534)
    async with running_daemon(data) as daemon:
        said = await daemon.logged("modes_open", level="warning")
        assert (said["paths"], said["first"]) == (1, str(foreign))
        assert (await daemon.event(endpoint="a"))["seq"] == 1
    assert foreign.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    "name", ["_observer/ops.jsonl", "_observer/lock", "_observer/segments/manifest.json", "_kb/outcomes.jsonl"]
)
def test_no_file_leads_out_of_the_data_directory(tmp_path: Path, name: str) -> None:
    outside, link = tmp_path / "outside", tmp_path / "data" / name
    outside.write_bytes(b"somebody else's\n")
    outside.chmod(0o644)
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)
    _is_refused(tmp_path / "data", f"{link} is a symbolic link")
    assert (outside.read_bytes(), outside.stat().st_mode & 0o777) == (b"somebody else's\n", 0o644)


@pytest.mark.parametrize("name", ["_observer/learned.sqlite3", "_observer/lock"])
def test_nothing_is_made_outside_the_data_directory(tmp_path: Path, name: str) -> None:
    outside, link = tmp_path / "outside", tmp_path / "data" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)
    _is_refused(tmp_path / "data", f"{link} is a symbolic link")
    assert not outside.exists()


@pytest.mark.parametrize("name", ["_observer", "_observer/segments", "_kb"])
def test_no_folder_leads_out_of_the_data_directory(tmp_path: Path, name: str) -> None:
    outside, link = tmp_path / "outside", tmp_path / "data" / name
    outside.mkdir()
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)
    _is_refused(tmp_path / "data", f"{link} is a symbolic link")
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("name", ["_observer", "_observer/stats.json", "_observer/ops.jsonl"])
def test_nothing_in_the_data_directory_hangs_who_opens_it(tmp_path: Path, name: str) -> None:
    fifo = tmp_path / "data" / name
    fifo.parent.mkdir(parents=True)
    os.mkfifo(fifo)
    _is_refused(tmp_path / "data", f"{fifo} is a FIFO")


@pytest.mark.parametrize("name", ["_observer", "_observer/segments"])
def test_a_file_in_the_place_of_a_folder_is_told_in_words(tmp_path: Path, name: str) -> None:
    file = tmp_path / "data" / name
    file.parent.mkdir(parents=True)
    file.write_bytes(b"in the way")
    _is_refused(tmp_path / "data", f"{file} is a file, and must be a folder")
    assert file.read_bytes() == b"in the way"


def test_a_socket_is_refused_but_the_one_that_a_killed_daemon_left(tmp_path: Path) -> None:
    place = tmp_path / "data" / "_observer" / "socket"
    place.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(place))
    _is_refused(tmp_path / "data", f"{place} is a socket")
    with served(tmp_path / "data", f'[listen]\nunix = "{place}"\n') as daemon:
        assert daemon.event(endpoint="a")["seq"] == 1


async def test_the_data_directory_itself_may_be_reached_through_links(tmp_path: Path) -> None:
    (tmp_path / "disk" / "data").mkdir(parents=True)
    (tmp_path / "volume").symlink_to("disk")
    (tmp_path / "link").symlink_to("volume/data")
    for seq in (1, 2):
        async with running_daemon(tmp_path / "link") as daemon:
            assert (await daemon.event(endpoint="a"))["seq"] == seq
            assert await daemon.stop() == 0
    assert (tmp_path / "disk" / "data" / "_observer" / "ops.jsonl").stat().st_size > 0


def _is_refused(data_dir: Path, why: str) -> None:
    settings = Settings(data_dir=data_dir, listen=ListenSettings(port=0))
    with pytest.raises(ConfigInvalid) as refused, open_daemon(settings):
        pass
    assert str(refused.value) == f"data_dir: {why}"
    assert "move it away" in refused.value.hint
