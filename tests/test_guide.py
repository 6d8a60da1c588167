"""Every command of the user's guide, typed in the order of its page, by bash, against a real daemon.

What a test may not do to the machine that it runs on is done below a folder of its own: the guide's paths and its port
are exchanged, and programs are stood in for. `systemctl` starts, stops, restarts and reloads a real daemon;
`journalctl` prints its log; the others do nothing, and refuse what they should not be asked.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from observer_actors.cli import COMMANDS
from tests.audit.repository import Repository
from tests.commands.typed import environment
from tests.conftest import ROOT

GUIDE: Final = ROOT / "docs" / "guide"
PAGES: Final = sorted(path.name for path in GUIDE.glob("*.md") if path.name != "README.md")
COMMAND_S: Final = 60
PYTHON: Final = shlex.quote(sys.executable)
MOVED: Final = ("/var/lib/observer-actors", "/var/backups", "/etc/observer-actors")
ENDLESS: Final = ("observer-actors serve",)
"""Started, asked, and stopped again: it does not end by itself."""

OBSERVER_ACTORS: Final = """
case "$*" in
    install-service*--install*) exec {python} -m observer_actors "$@" --root {root} --executable /bin/true ;;
    install-service*) exec {python} -m observer_actors "$@" --executable /bin/true ;;
    --install-completion) exec {python} -m observer_actors "$@" --shell bash --output {root}/completion ;;
    *) exec {python} -m observer_actors "$@" ;;
esac
"""
SYSTEMCTL: Final = """
verb=$1; shift
[ "$1" = --now ] && shift
for unit in "$@"; do
    case "$unit" in observer-actors|observer-actors.service|observer-actors.socket) ;; *) exit 5 ;; esac
done
stop() {{
    kill "$(cat {root}/pid)" && tail --pid="$(cat {root}/pid)" -f /dev/null && rm {root}/pid
}}
start() {{
    rm -rf {root}/credentials; mkdir {root}/credentials
    for name in gateway.url auth.tokens_file; do  # as the unit does
        printf '\\n' >{root}/credentials/$name
        ! [ -e {root}/etc/observer-actors/credentials/$name ] \\
            || cp {root}/etc/observer-actors/credentials/$name {root}/credentials
    done
    export CREDENTIALS_DIRECTORY={root}/credentials
    {python} -m observer_actors serve --data-dir {root}/var/lib/observer-actors --port {port} \\
        --config {root}/etc/observer-actors/config.toml 2>>{root}/log </dev/null >/dev/null &
    echo $! >{root}/pid
    until curl -sf http://127.0.0.1:{port}/ready >/dev/null; do sleep 0.1; kill -0 $! || exit 1; done
}}
case "$verb" in
    daemon-reload|status) ;;
    enable|start) [ -e {root}/pid ] || start ;;
    stop) stop ;;
    restart) stop; start ;;
    reload) kill -HUP "$(cat {root}/pid)" ;;
    *) exit 2 ;;
esac
"""
JOURNALCTL: Final = """
for argument in "$@"; do
    case "$argument" in -u|observer-actors|-n|20|50|ACTOR=persister|EVENT=actor_failed|-o|json) ;; *) exit 2 ;; esac
done
cat {root}/log
"""
AGENTS_PROGRAM: Final = """
[ "$1 $2" = "mcp add" ]; shift 2
case "$1 $2" in
    "--transport http") exec curl -sf "$4" --json '{{"jsonrpc":"2.0","id":1,"method":"tools/list"}}' -o {root}/tools ;;
    *" --") shift 2; exec "$@" </dev/null ;;
    *) exit 2 ;;
esac
"""
"""As `claude` and `codex` take it: what they are told to start is started, or asked."""
PIPX: Final = """
case "$*" in "install --global ."|"install --global --force .") ;; *) exit 2 ;; esac
grep -qx 'name = "observer-actors"' pyproject.toml
"""
"""It is in no index: what is installed is the checkout that it is typed in. `test_packaging` builds that for real."""
DOCKER: Final = """
case "$*" in "build -t observer-actors ."|"run -d "*" observer-actors") ;; *) exit 2 ;; esac
"""
SYSUSERS: Final = "test -f {root}/etc/sysusers.d/$1"


@pytest.fixture
def surroundings(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of the commands: our programs first, and a daemon that runs."""
    for tool in ("curl", "jq", "gzip", "bash", "git"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    programs = {
        "observer-actors": OBSERVER_ACTORS,
        "systemctl": SYSTEMCTL,
        "journalctl": JOURNALCTL,
        "pipx": PIPX,
        "docker": DOCKER,
        "claude": AGENTS_PROGRAM,
        "codex": AGENTS_PROGRAM,
        "systemd-sysusers": SYSUSERS,
    }
    for name, text in programs.items():
        file = tmp_path / "bin" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("#!/bin/bash\nset -e\n" + text.format(python=PYTHON, root=tmp_path, port=port))
        file.chmod(0o755)
    (tmp_path / "bin" / "true").symlink_to("/bin/true")
    for folder in ("etc/observer-actors", "etc/sysusers.d"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "etc/observer-actors/config.toml").write_text("")
    (tmp_path / "etc/sysusers.d/observer-actors.conf").write_text("")
    variables = environment(
        PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        PYTHONPATH=str(ROOT),
        OBSERVER_URL=f"http://127.0.0.1:{port}",
        XDG_STATE_HOME=str(tmp_path / "state"),
        HOME=str(tmp_path),
    )
    yield variables
    if (tmp_path / "pid").exists():
        bash("systemctl stop observer-actors", tmp_path, variables)


def shown(page: str) -> list[tuple[str, str]]:
    """Give each command of a page with the output that is shown under it."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", (GUIDE / page).read_text(encoding="utf-8"), re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append((command.strip(), output.strip()))
    return found


def bash(command: str, folder: Path, variables: dict[str, str]) -> str:
    for path in MOVED:
        command = command.replace(path, f"{folder}{path}")
    command = command.replace("http://127.0.0.1:3800", variables["OBSERVER_URL"])
    ended = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=COMMAND_S,
    )
    assert ended.returncode == 0, f"{command}\n{ended.stdout}{ended.stderr}"
    return ended.stdout.strip()


@pytest.mark.timeout(300)  # a page is some twenty programs, one after the other
@pytest.mark.parametrize("page", PAGES)
def test_every_command_can_be_typed(page: str, tmp_path: Path, surroundings: dict[str, str]) -> None:
    if page != "install.md":  # where it begins with a daemon that has been installed, and has something to show
        bash("systemctl start observer-actors", tmp_path, surroundings)
        bash("observer-actors send --endpoint a --failed --id a", tmp_path, surroundings)
        bash("observer-actors send --endpoint b --id b", tmp_path, surroundings)
    if page == "audit.md":  # a branch of a small project
        repository = Repository(tmp_path / "shop")
        repository.branch()
        repository.commit({"shop/orders.py": "def place(): ...\n", "tests/test_orders.py": "from shop import orders\n"})
    if page in ("install.md", "upgrade.md"):  # typed in a checkout
        shutil.copy(ROOT / "pyproject.toml", tmp_path)
    old = tmp_path / ("data/_observer/ops.jsonl" if page == "upgrade.md" else "old-ops.jsonl")
    old.parent.mkdir(parents=True, exist_ok=True)
    old.write_text('{"endpoint":"old","success":true}\n' * 3)
    commands = shown(page)
    assert commands
    for command, output in commands:
        if command.startswith(ENDLESS):
            check_serves(command, tmp_path, surroundings)
            continue
        said = bash(command, tmp_path, surroundings)
        if output:
            assert re.fullmatch(re.escape(output).replace("…", ".*"), said, re.DOTALL), command


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (GUIDE / page).read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("number", range(len(blocks("agents.md", "python"))))
def test_every_snippet_of_python_runs_and_what_it_reports_arrives(
    number: int, tmp_path: Path, surroundings: dict[str, str]
) -> None:
    snippet = blocks("agents.md", "python")[number]
    bash("systemctl start observer-actors", tmp_path, surroundings)
    (tmp_path / "agent.py").write_text(snippet)
    said = bash(f"{PYTHON} -W error agent.py", tmp_path, surroundings)
    ops = json.loads(bash("observer-actors ops --json", tmp_path, surroundings))
    expected = {
        "flush()": (1, "True"),
        "observed_as": (2, ""),
        "copy_context": (3, ""),
        "on_tool_start": (1, ""),
        "AsyncObserver": (1, ""),
        "nobody is there": (0, "1 …"),
    }
    (count, printed), *more = (value for sign, value in expected.items() if sign in snippet)
    assert not more
    reported = [op for op in ops if op["endpoint"] != "observer:advice"]
    assert len(reported) == count
    runs = re.findall(r'observer\.run\("(.*)"\)', snippet)
    assert [op.get("attrs", {}).get("run") for op in reported] == (runs or [None]) * count
    assert re.fullmatch(re.escape(printed).replace("…", ".*"), said), said


def test_what_programs_are_told_to_start_or_to_ask_answers(tmp_path: Path, surroundings: dict[str, str]) -> None:
    bash("systemctl start observer-actors", tmp_path, surroundings)
    found = [json.loads(block) for block in blocks("mcp.md", "json")]
    found += [tomllib.loads(block) for block in blocks("mcp.md", "toml")]
    servers = [server for file in found for section in file.values() for server in section.values()]
    assert len(servers) == 6
    for server in servers:
        if "url" in server:
            bash(f"claude mcp add --transport http x {server['url']}", tmp_path, surroundings)
            assert "get_advice" in (tmp_path / "tools").read_text()
        else:
            bash(shlex.join([server["command"], *server["args"]]), tmp_path, surroundings)


def test_what_the_container_is_told_to_run_serves(tmp_path: Path, surroundings: dict[str, str]) -> None:
    (file,) = blocks("install.md", "dockerfile")
    (run,) = (command for command, _ in shown("install.md") if command.startswith("docker run"))
    words = json.loads(file.partition("CMD ")[2])
    given = dict(word.split("=", 1) for word in shlex.split(f"{file} {run}") if word.startswith("OBSERVER_"))
    bash("observer-actors token agents | tail -n 1 > tokens", tmp_path, surroundings)
    inside = {"/data": str(tmp_path / "data"), "/etc/observer-actors/tokens": str(tmp_path / "tokens")}
    variables = {name: inside.get(value, value) for name, value in given.items()}
    check_serves(shlex.join(words), tmp_path, surroundings | variables)


def check_serves(command: str, folder: Path, variables: dict[str, str]) -> None:
    words = [*shlex.split(command), "--port", "0"]
    process = subprocess.Popen(words, cwd=folder, env=variables, stderr=subprocess.PIPE)
    assert process.stderr is not None
    while b'"ready"' not in (line := process.stderr.readline()):
        assert line, command
    process.terminate()
    process.communicate(timeout=COMMAND_S)
    assert process.returncode == 0


def test_the_guide_covers_every_command() -> None:
    text = "".join((GUIDE / page).read_text(encoding="utf-8") for page in PAGES)
    assert [name for name in COMMANDS if f"observer-actors {name}" not in text] == []


def test_every_link_of_the_documentation_leads_somewhere() -> None:
    pages = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]
    links = [
        (page, target)
        for page in pages
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
        if "://" not in target
    ]
    assert links
    assert [f"{page.name}: {target}" for page, target in links if not (page.parent / target).exists()] == []
