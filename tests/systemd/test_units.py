"""The units: what systemd's own tools say of them, and that the daemon does all its work within their sandbox."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Final

import httpx
import pytest

from observer_actors.commands import service
from observer_actors.errors import ConfigInvalid
from observer_actors.settings import ListenSettings
from tests.commands.typed import typed
from tests.conftest import ROOT
from tests.daemon.served import served
from tests.systemd.sandbox import Unit, may_make_namespaces

EXPOSURE_MAX: Final = 1.2
UNITS: Final = ("observer-actors.service", "observer-actors.socket")


@pytest.fixture(scope="module")
def analyze() -> str:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is not installed (Debian: systemd)")
    return tool


def below(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


def installed_for(name: str, tmp_path: Path) -> Path:
    """Install the units below a folder, for a program of this name that is there."""
    program = tmp_path / name
    for place in (program, below(tmp_path / "root", program)):  # here too, where systemd-analyze looks for it
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("#!/bin/sh\n")
        place.chmod(0o755)
    ended = typed("install-service", "--install", "--executable", str(program), "--root", str(tmp_path / "root"))
    assert ended.returncode == 0, ended.stderr
    return tmp_path / "root"


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    return installed_for("observer-actors", tmp_path)


@pytest.mark.parametrize("name", ["observer-actors", "with space%", "a$b", "a;b"])
def test_systemd_verifies_the_units_without_a_word_whatever_the_programs_path(
    analyze: str, tmp_path: Path, name: str
) -> None:
    root = installed_for(name, tmp_path)
    files = [str(root / "etc/systemd/system" / unit) for unit in UNITS]
    ended = subprocess.run([analyze, "verify", *files], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@pytest.mark.parametrize("name", ["it's", 'a"b', "a\\b", "a\tb"])
def test_a_program_whose_path_systemd_refuses_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch(mode=0o755)
    with pytest.raises(ConfigInvalid, match="systemd runs no program with such a path"):
        service.install_service(executable=tmp_path / name)


@pytest.mark.parametrize("folder", ["systemd", "systemd/user"])
def test_systemd_verifies_the_units_as_they_are_without_a_word(analyze: str, folder: str, tmp_path: Path) -> None:
    files = [str(ROOT / folder / name) for name in UNITS]
    environment = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)}
    mode = ["--user"] if folder.endswith("user") else []
    command = [analyze, *mode, "verify", *files]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_systemd_verifies_the_units_of_a_user_without_a_word(
    analyze: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert typed("install-service", "--user", "--install", "--executable", "/bin/true").returncode == 0
    files = [str(tmp_path / "config/systemd/user" / name) for name in UNITS]
    ended = subprocess.run([analyze, "--user", "verify", *files], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_systemd_finds_the_service_hardly_exposed(analyze: str, installed: Path) -> None:
    file = installed / "etc/systemd/system/observer-actors.service"
    command = [analyze, "security", "--offline=true", "--no-pager", str(file)]
    last = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
    exposure = float(last.partition("service: ")[2].split()[0])
    assert exposure <= EXPOSURE_MAX, last


def test_the_units_fit_the_daemon(installed: Path) -> None:
    unit = Unit(ROOT / "systemd" / "observer-actors.service")
    assert unit.one("RestartPreventExitStatus").split() == ["75", "78"]
    listens = [
        line for line in (ROOT / "systemd" / UNITS[1]).read_text().splitlines() if line.startswith("ListenStream=")
    ]
    defaults = ListenSettings()
    assert listens[0] == f"ListenStream={defaults.host}:{defaults.port}"
    group = (installed / "etc/sysusers.d/observer-actors.conf").read_text().split("\ng ")[1].split()[0]
    assert f"SocketGroup={group}" in (ROOT / "systemd" / UNITS[1]).read_text()


def test_units_are_printed_unless_they_are_to_be_installed(tmp_path: Path) -> None:
    ended = typed("install-service", "--executable", "/bin/true", cwd=tmp_path)
    assert ended.returncode == 0
    assert "ExecStart=/bin/true serve --data-dir ${STATE_DIRECTORY}" in ended.stdout
    assert [line for line in ended.stdout.splitlines() if line.startswith("# /")] == [
        "# /etc/sysusers.d/observer-actors.conf",
        "# /etc/systemd/system/observer-actors.service",
        "# /etc/systemd/system/observer-actors.socket",
    ]
    assert list(tmp_path.iterdir()) == []


def test_what_is_hidden_is_a_home_and_not_what_is_called_nearly_so() -> None:
    hidden = ["/home/me/bin/x", "/home", "/root/x", "/run/user/1000/x"]
    paths = [*hidden, "/homes/x", "/home2/x", "/rootfs/x", "/run/users/x"]
    assert [path for path in paths if service.is_in_a_home(Path(path))] == hidden


def test_a_program_that_the_sandbox_hides_or_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="is no program"):
        service.install_service(executable=tmp_path / "none")
    too_long = Path("/" + 300 * "x")
    for given, root in ((too_long, Path("/")), (Path("/bin/true"), too_long)):
        with pytest.raises(ConfigInvalid, match="is no program"):
            service.install_service(executable=given, root=root)
    program = tmp_path / "with space%"
    program.write_text("")
    program.chmod(0o755)
    text = dict(service.unit_files(program, user=False))[Path("/etc/systemd/system/observer-actors.service")]
    assert f'ExecStart="{tmp_path}/with space%%" serve' in text
    (tmp_path / "etc").write_text("no folder")
    (tmp_path / "opt").symlink_to("/bin/true")
    ended = typed("install-service", "--install", "--executable", "/opt", "--root", str(tmp_path))
    assert (ended.returncode, "cannot write" in ended.stderr) == (77, True)


@pytest.mark.parametrize("kind", ["a program", "a link"])
def test_below_another_root_the_program_is_looked_for_there(tmp_path: Path, kind: str) -> None:
    given = ("install-service", "--install", "--root", str(tmp_path), "--executable")
    ended = typed(*given, "/bin/true")
    assert (ended.returncode, f"{tmp_path}/bin/true is no program" in ended.stderr) == (78, True), "it is there here"
    program = tmp_path / "opt" / "only-there"
    program.parent.mkdir()
    if kind == "a link":
        program.symlink_to("/opt/elsewhere/only-there")
    else:
        program.touch(mode=0o755)
    assert typed(*given, "/opt/only-there").returncode == 0
    unit = (tmp_path / "etc/systemd/system/observer-actors.service").read_text()
    assert "ExecStart=/opt/only-there serve" in unit


# -------------------------------------------------------------------------------------------------- the sandbox


@pytest.fixture
def sandbox(analyze: str, tmp_path: Path) -> list[str]:
    """What comes before a command that shall run as the service does."""
    assert analyze
    try:
        ctypes.CDLL("libseccomp.so.2")
    except OSError:
        pytest.skip("libseccomp is not installed (Debian: libseccomp2)")
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    unit = ROOT / "systemd" / "observer-actors.service"
    return [sys.executable, "-m", "tests.systemd.sandbox", str(unit), str(state)]


def test_the_sandbox_holds(sandbox: list[str], tmp_path: Path) -> None:
    """Each of these works outside it."""
    script = """
import ctypes, errno, mmap, os, resource, socket, sys
from pathlib import Path
def refused(numbers, act):
    try:
        act()
    except OSError as error:
        assert error.errno in numbers, error
    else:
        raise AssertionError(act)
state = Path(os.environ["STATE_DIRECTORY"])
(state / "mine").write_text("")
if "protected" in sys.argv:
    refused([errno.EROFS], lambda: (state.parent / "not-mine").write_text(""))
    refused([errno.EROFS], lambda: Path("/etc/observer").write_text(""))
refused([errno.EAFNOSUPPORT], lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))
refused([errno.EPERM], lambda: os.nice(-1))
before = os.nice(0)
assert os.nice(1) == min(19, before + 1)
refused([errno.EPERM], lambda: os.chroot("/"))
refused([errno.EPERM], lambda: os.sched_setaffinity(0, {0}))
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
print(soft == hard, oct(os.umask(0)))
"""
    ended = subprocess.run(
        [*sandbox, sys.executable, "-c", script, *(["protected"] if may_make_namespaces() else [])],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert (ended.returncode, ended.stdout) == (0, "True 0o77\n"), ended.stderr
    assert stat.S_IMODE((tmp_path / "state" / "mine").stat().st_mode) == 0o600


def test_the_daemon_does_all_its_work_in_it(sandbox: list[str], tmp_path: Path) -> None:
    """Commits, big batches, sealing and compression, learning, queries, following, a reload, and a clean end."""
    config = "[journal]\nsegment_bytes_max = 200_000\n"
    state = tmp_path / "state"
    with served(state, config, before=sandbox, OBSERVER_CYCLE="0.1", PYTHONDONTWRITEBYTECODE="1") as daemon:
        daemon.event(endpoint="one", success=False, error="timeout after 30 s")
        daemon.events(*({"endpoint": "many", "success": True, "input_summary": "x" * 100} for _ in range(3_000)))
        daemon.log.wait("segment_compacted")
        daemon.log.wait("cycle", cycle=20)
        assert daemon.json("/ops", order="oldest", limit=1)["ops"][0]["endpoint"] == "one"
        assert [one["endpoint"] for one in daemon.json("/failures")["failures"]] == ["one"]
        assert daemon.json("/playbook")["entries"]
        assert daemon.client.get("/metrics").status_code == 200
        with httpx.stream("GET", daemon.url + "/tail", headers={"Last-Event-ID": "3000"}) as following:
            assert any("3001" in line for line in following.iter_lines() if line.startswith("id:"))
            following.close()
        daemon.process.send_signal(signal.SIGHUP)
        daemon.log.wait("reloaded")
    assert daemon.process.returncode == 0
    assert [line for line in daemon.log.lines if line["level"] not in ("debug", "info")] == []
