"""A real daemon that the tests of a module share, spoken to without trio, and over bare sockets where it matters."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec

from tests.forked import Forked, may_fork
from tests.harness import READY_S, STOP_S, own_environment
from tests.processes import refuse_crash

SOCKET_S: Final = 10.0


class Served:
    """A daemon that runs. ``ingest`` never asks for anything but ingest, so that it stays at the front door."""

    def __init__(self, process: subprocess.Popen[bytes] | Forked, data_dir: Path, url: str, log: Log) -> None:
        self.process = process
        self.url = url
        self.data_dir = data_dir
        self.port = int(url.rpartition(":")[2])
        self.log = log
        self.client = httpx.Client(base_url=url, trust_env=False, timeout=30)
        self.ingest = httpx.Client(base_url=url, trust_env=False, timeout=30)

    def json(self, path: str, **params: Any) -> Any:
        response = self.client.get(path, params=params)
        assert response.status_code == 200, response.text
        return response.json()

    def event(self, **fields: object) -> Any:
        response = self.ingest.post("/event", content=msgspec.json.encode(fields))
        assert response.status_code == 200, response.text
        return response.json()

    def events(self, *events: Mapping[str, object]) -> Any:
        response = self.ingest.post("/events", content=b"\n".join(map(msgspec.json.encode, events)))
        assert response.status_code == 200, response.text
        return response.json()

    def resident_mb_max(self) -> float:
        """Give the most memory that the process has had so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=SOCKET_S)

    def exchange(self, data: bytes) -> bytes:
        """Send bytes as they are, and read until the daemon closes the connection."""
        with self.connect() as connection:
            connection.sendall(data)
            return b"".join(iter(lambda: connection.recv(65_536), b""))


class Log:
    """The lines of the log so far, and a way to wait for one."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.raw: list[bytes] = []
        self._more = threading.Condition()

    def read(self, pipe: Any) -> None:
        for line in pipe:
            with self._more:
                self.raw.append(line)
                self.lines.append(_fields(line))
                self._more.notify_all()

    def wait(self, event: str, **fields: object) -> dict[str, Any]:
        with self._more:
            assert self._more.wait_for(lambda: self.find(event, **fields), READY_S), self.raw
            return self.find(event, **fields)[0]

    def find(self, event: str, **fields: object) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == event and fields.items() <= line.items()]


def _fields(line: bytes) -> dict[str, Any]:
    """Read a line; what is none of the daemon's (a loader's complaint, say) is an error of its own."""
    try:
        fields: dict[str, Any] = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return {"event": "no line of the log", "level": "error", "text": line.decode(errors="replace")}
    return fields


@contextmanager
def served(
    data_dir: Path, config: str = "", *, port: int = 0, before: Sequence[str] = (), **environment: str
) -> Iterator[Served]:
    """Start the daemon on a free port, and make sure that it is gone at the end.

    :param config: content of the configuration file.
    :param before: a command that becomes the daemon.
    """
    file = data_dir / "observer.toml"
    data_dir.mkdir(mode=0o700, exist_ok=True)
    file.write_text(config)
    module, given = "observer_actors", ["serve", f"--port={port}", f"--data-dir={data_dir}", f"--config={file}"]
    process: subprocess.Popen[bytes] | Forked
    if may_fork(module, environment) and not before:
        process = Forked(module, given, own_environment(**environment))
    else:
        process = subprocess.Popen(
            [*before, sys.executable, "-m", module, *given],
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            env=own_environment(**environment),
        )
    log = Log()
    reader = threading.Thread(target=log.read, args=[process.stderr])
    reader.start()
    try:
        url = log.wait("listening")["url"]
        log.wait("ready")
        daemon = Served(process, data_dir, url, log)
        with daemon.client, daemon.ingest:
            yield daemon
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        finally:
            process.kill()
            process.wait()
            reader.join()
            assert process.stderr is not None
            process.stderr.close()
            refuse_crash(process.returncode)
