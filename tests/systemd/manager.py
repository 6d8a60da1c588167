"""A service manager and a journal of our own: systemd's user instance and journald.

They run in a mount namespace where the machine looks as if it had been booted with systemd. Needs root, and systemd's
programs.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

PROGRAMS: Final = (Path("/lib/systemd/systemd"), Path("/lib/systemd/systemd-journald"))
START_S: Final = 20.0
COMMAND_S: Final = 60.0
BOOTED: Final = """
mount -t tmpfs tmpfs /run/systemd && mkdir -p /run/systemd/system /run/systemd/journald.conf.d
mkdir -p /run/log && mount -t tmpfs tmpfs /run/log
cd /run/systemd/journald.conf.d
printf '[Journal]\\nStorage=volatile\\nReadKMsg=no\\nAudit=no\\nRateLimitBurst=0\\n' >test.conf
/lib/systemd/systemd-journald &
exec /lib/systemd/systemd --user --log-target=console
"""


def missing() -> str:
    """Say what keeps a manager from being started here; "" when nothing does."""
    if os.geteuid():
        return "needs root"
    if not all(program.is_file() for program in PROGRAMS):
        return "systemd is not installed (Debian: systemd)"
    Path("/run/systemd").mkdir(exist_ok=True)
    tried = subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True)
    return "mount namespaces are not allowed here" if tried.returncode else ""


class Manager:
    """What is asked of it, by the programs that a person would use."""

    def __init__(self, process: subprocess.Popen[bytes], environment: dict[str, str]) -> None:
        self.process = process
        self.environment = environment
        self.units = Path(environment["XDG_CONFIG_HOME"]) / "systemd" / "user"

    def systemctl(self, *arguments: str, check: bool = True) -> str:
        """Run `systemctl --user`."""
        return self._within("systemctl", "--user", *arguments, check=check)

    def shown(self, unit: str, name: str) -> str:
        """Give a property of a unit."""
        return self.systemctl("show", "--property", name, "--value", unit).strip()

    def journal(self, *matches: str) -> list[dict[str, Any]]:
        """Give the entries that `journalctl` finds."""
        found = self._within("journalctl", "--directory=/run/log/journal", "--output=json", "--no-pager", *matches)
        return [json.loads(line) for line in found.splitlines()]

    def drop_in(self, unit: str, name: str, text: str) -> None:
        """Change a unit as `systemctl edit` does."""
        folder = self.units / f"{unit}.d"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.conf").write_text(text)
        self.systemctl("daemon-reload")

    def _within(self, *command: str, check: bool = True) -> str:
        inside = ["nsenter", "--mount", f"--target={self.process.pid}", *command]
        ended = subprocess.run(
            inside, env=self.environment, check=False, capture_output=True, text=True, timeout=COMMAND_S
        )
        assert not check or ended.returncode == 0, (command, ended.stderr)
        return ended.stdout


@contextmanager
def running_manager(home: Path) -> Iterator[Manager | None]:
    """Start one; None where it does not come up. What it runs is stopped with it."""
    runtime = Path(tempfile.mkdtemp(prefix="run"))  # short: sockets lie in it
    runtime.chmod(0o700)
    environment = os.environ | {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_RUNTIME_DIR": str(runtime),
    }
    for name in ("NOTIFY_SOCKET", "LISTEN_FDS", "DBUS_SESSION_BUS_ADDRESS", "CREDENTIALS_DIRECTORY"):
        environment.pop(name, None)
    with (home / "manager.log").open("wb") as log:
        process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", BOOTED], env=environment, stdout=log, stderr=log, start_new_session=True
        )
    manager = Manager(process, environment)
    try:
        yield manager if _comes_up(manager, runtime) else None
    finally:
        if process.poll() is None and (runtime / "systemd/private").exists():
            manager.systemctl("exit", check=False)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(runtime, ignore_errors=True)


def _comes_up(manager: Manager, runtime: Path) -> bool:
    until = time.monotonic() + START_S
    while manager.process.poll() is None and time.monotonic() < until:
        if (runtime / "systemd/private").exists():
            state = manager.systemctl("is-system-running", check=False).strip()
            if state in ("running", "starting", "degraded"):
                return True
        time.sleep(0.05)
    return False
