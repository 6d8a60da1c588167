"""The commands that report: `send`, and `exec`, which is as if the command had been run without it."""

from __future__ import annotations

import ctypes
import json
import operator
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from observer_actors.commands._signals import PASSED_ON, taken
from observer_actors.commands.running import COMMAND_CHARS_MAX, Signals, _wait
from observer_actors.trace import trace_attributes
from tests.commands.typed import COMMAND, Ended, answered, environment, typed, typed_for_real
from tests.daemon.served import Served, served
from tests.fakes.http_peer import Json, http_peer

SIGNALLED_S: Final = 20.0
WITHOUT_A_REPORT_S: Final = 15.0
"""Half of how long an answer is waited for elsewhere."""
SECRET: Final = "hunter2SecretPW9XXXXXXXXXXXXXXXXXXXXXXXX"
ADDRESS: Final = f"postgres://user:{SECRET}@db/x"
NOBODY: Final = "http://127.0.0.1:9"


def newest(daemon: Served, endpoint: str) -> dict[str, Any]:
    op: dict[str, Any] = daemon.json("/ops", endpoint=endpoint, limit=1)["ops"][0]
    return op


def test_send_takes_flags(daemon: Served) -> None:
    flags = ["--endpoint", "s:flags", "--source", "mcp", "--duration-ms", "12.5", "--input", "in", "--output", "out",
             "--id", "mine", "--attr", "tenant=t=1", "--attr", "n=2"]  # fmt: skip
    first = answered("send", *flags, "--url", daemon.url)
    op = newest(daemon, "s:flags")
    assert first["seq"] == op["seq"]
    assert (op["success"], op["source"], op["duration_ms"], op["id"]) == (True, "mcp", 12.5, "mine")
    assert (op["input_summary"], op["output_summary"], op["attrs"]) == ("in", "out", {"tenant": "t=1", "n": "2"})
    again = typed("send", *flags, "--url", daemon.url)
    assert again.stdout == f"known already as op {op['seq']}\n"


@pytest.mark.parametrize(
    ("flags", "success"),
    [(["--error", "x"], False), (["--failed"], False), ([], True), (["--error", "x", "--success"], True)],
)
def test_send_counts_an_error_as_a_failure_unless_told_otherwise(
    daemon: Served,
    flags: list[str],
    success: bool,  # noqa: FBT001 - a table's column
) -> None:
    ended = typed("send", "--endpoint", "s:outcome", *flags, "--url", daemon.url)
    assert ended.returncode == 0, ended.stderr
    assert newest(daemon, "s:outcome")["success"] is success


def test_a_text_may_begin_with_a_hyphen(daemon: Served) -> None:
    flags = ["--endpoint", "-h:1", "--error", "- build failed", "--input", "--x", "--output", "-", "--attr", "-a=-b"]
    sent = typed("send", *flags, "--run", "-r", "--url", daemon.url)
    assert sent.returncode == 0, sent.stderr
    op = newest(daemon, "-h:1")
    assert (op["error"], op["input_summary"], op["output_summary"]) == ("- build failed", "--x", "-")
    assert op["attrs"] == {"-a": "-b", "run": "-r"}
    ended = typed_for_real(
        "exec", "--endpoint", "-h:2", "--description", "-d", "--source", "-s", "--url", daemon.url, "--", "true"
    )
    assert (ended.returncode, newest(daemon, "-h:2")["input_summary"]) == (0, "-d")
    asked = typed("advice", "h:3", "--input", "-1 day", "--task", "--t", "--url", daemon.url)
    assert asked.returncode == 0, asked.stderr
    assert typed("ops", "--endpoint", "-h:1", "--url", daemon.url).stdout.count("- build failed") == 1


@pytest.mark.parametrize("command", ["send", "exec"])
def test_what_is_reported_names_its_run_the_advice_it_follows_and_attributes(daemon: Served, command: str) -> None:
    flags = ["--run", "r-1", "--advice-id", "a-1", "--attr", "tenant=t=1", "--attr", "n=2"]
    what = ("--", "true") if command == "exec" else ()
    ended = typed_for_real(command, "--endpoint", f"n:{command}", *flags, "--url", daemon.url, *what)
    assert ended.returncode == 0, ended.stderr
    known = {"run": "r-1", "advice_id": "a-1", "tenant": "t=1", "n": "2"}
    assert known.items() <= newest(daemon, f"n:{command}")["attrs"].items()


@pytest.mark.parametrize("command", [("send",), ("exec", "--", "touch", "ran")])
def test_an_attribute_without_a_value_is_refused_before_anything_is_done(
    daemon: Served, tmp_path: Path, command: tuple[str, ...]
) -> None:
    flags = ("--endpoint", "n:none", "--attr", "x", "--url", daemon.url)
    ended = typed(command[0], *flags, *command[1:], cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (64, "observer-actors: --attr x: wants NAME=VALUE\n")
    assert (daemon.json("/ops", endpoint="n:none")["ops"], list(tmp_path.iterdir())) == ([], [])


def test_a_mistyped_flag_of_exec_is_refused_and_is_no_command_that_failed(daemon: Served, tmp_path: Path) -> None:
    flags = ("--endpoint", "n:flag", "--url", daemon.url, "--sorce", "bot")
    ended = typed("exec", *flags, "--", "touch", "ran", cwd=tmp_path)
    assert (ended.returncode, "--sorce is no option of exec" in ended.stderr) == (64, True), ended.stderr
    assert (daemon.json("/ops", endpoint="n:flag")["ops"], list(tmp_path.iterdir())) == ([], [])


def test_send_makes_an_id_where_it_is_null(daemon: Served) -> None:
    ended = typed("send", "--url", daemon.url, stdin='{"id":null,"endpoint":"s:null"}')
    assert ended.returncode == 0, ended.stderr
    assert newest(daemon, "s:null").get("id")


def test_send_takes_an_object_from_standard_input_as_it_is(daemon: Served) -> None:
    ended = typed("send", "--url", daemon.url, stdin='{"endpoint":"s:stdin","ok":true,"source":"odd\\u001b","k":1}')
    assert ended.returncode == 0
    assert ended.stdout.startswith("stored as op ")
    assert 'source: "odd\\x1b" is not a known source' in ended.stderr
    op = newest(daemon, "s:stdin")
    assert (op["success"], op["attrs"], len(op["id"])) == (True, {"k": 1}, 32)


def test_what_flags_say_beside_an_operation_is_added_to_the_one_on_standard_input(daemon: Served) -> None:
    given = '{"endpoint":"s:both","success":false,"error":"no","source":"mcp","attrs":{"n":1,"run":"old"}}'
    flags = ("--run", "r-1", "--attr", "tenant=t", "--source", "bot", "--id", "s-both")
    ended = typed("send", *flags, "--url", daemon.url, stdin=given)
    assert ended.returncode == 0, ended.stderr
    op = newest(daemon, "s:both")
    assert (op["success"], op["error"], op["source"], op["id"]) == (False, "no", "bot", "s-both")
    assert op["attrs"] == {"n": 1, "run": "r-1", "tenant": "t"}
    ended = typed("send", "--run", "r-1", "--url", daemon.url, stdin='{"endpoint":"s:both","attrs":[1]}')
    assert (ended.returncode, ended.stdout) == (65, "")
    assert "attrs: is no JSON object" in ended.stderr


@pytest.mark.parametrize("flags", [(), ("--run", "r-1"), ("--source", "bot", "--id", "s-none")])
def test_flags_that_say_nothing_of_an_operation_are_none_at_a_terminal(daemon: Served, flags: tuple[str, ...]) -> None:
    before = daemon.json("/health")["last_seq"]
    ours, its = pty.openpty()
    ended = subprocess.run(
        [*COMMAND, "send", *flags, "--url", daemon.url], stdin=its, capture_output=True, check=False, env=environment()
    )
    os.close(ours)
    os.close(its)
    assert (ended.returncode, ended.stdout) == (64, b"")
    assert b"no event given" in ended.stderr
    assert daemon.json("/health")["last_seq"] == before


def test_send_takes_a_text_that_was_cut_within_a_character(daemon: Served) -> None:
    ended = typed("send", "--url", daemon.url, stdin=r'{"endpoint":"s:half","error":"\ud800 cut"} ')
    assert (ended.returncode, "half" in ended.stderr) == (0, True), ended
    assert newest(daemon, "s:half")["error"] == "\ufffd cut"


def test_send_takes_what_begins_with_a_byte_order_mark_as_the_daemon_does(daemon: Served) -> None:
    ended = typed("send", "--run", "r1", "--url", daemon.url, stdin='\ufeff{"endpoint":"s:mark","success":true}\r\n')
    assert ended.returncode == 0, ended
    assert newest(daemon, "s:mark")["attrs"] == {"run": "r1"}


@pytest.mark.parametrize(
    ("arguments", "stdin", "said"),
    [
        ([], "", "standard input is not JSON"),
        ([], r'{"id":"\ud800"}', "half of a character"),
        (["--endpoint", "x", "--attr", "x=" + "y" * 300_000], "", "an event holds at most"),
        ([], "[1]", "standard input is no JSON object"),
        ([], '{"duration_ms": "soon"}', "duration_ms: "),
        (["--duration-ms", "nan"], "", "duration_ms: "),
        (["--duration-ms", "-inf"], "", "duration_ms: "),
        (["--duration-ms", "1e999"], "", "duration_ms: "),
    ],
)
def test_an_event_that_cannot_be_taken_is_told_and_exits_65(
    daemon: Served, arguments: list[str], stdin: str, said: str
) -> None:
    ended = typed("send", *arguments, "--url", daemon.url, stdin=stdin)
    assert (ended.returncode, ended.stdout) == (65, "")
    assert said in ended.stderr
    assert len(ended.stderr.splitlines()) <= 2


TRACE: Final = {"trace_id": "0af7651916cd43dd8448eb211c80319c", "span_id": "b7ad6b7169203331"}


@pytest.mark.parametrize(
    ("traceparent", "attributes"),
    [
        (f"00-{TRACE['trace_id']}-{TRACE['span_id']}-01", TRACE),
        (f"cc-{TRACE['trace_id']}-{TRACE['span_id']}-01-more", TRACE),
        (f"00-{'0' * 32}-{TRACE['span_id']}-01", {}),
        (f"00-{TRACE['trace_id']}-{'0' * 16}-01", {}),
        (f"00-{TRACE['trace_id'].upper()}-{TRACE['span_id']}-01", {}),
        ("none", {}),
        ("", {}),
    ],
)
def test_a_trace_of_the_caller_is_carried_on(traceparent: str, attributes: dict[str, str]) -> None:
    assert trace_attributes(traceparent) == attributes


def test_send_and_exec_carry_the_trace_of_their_environment(daemon: Served) -> None:
    traceparent = f"00-{TRACE['trace_id']}-{TRACE['span_id']}-01"
    typed("send", "--endpoint", "t:send", "--url", daemon.url, TRACEPARENT=traceparent)
    assert newest(daemon, "t:send")["attrs"] == TRACE
    typed_for_real("exec", "--endpoint", "t:exec", "--url", daemon.url, "--", "true", TRACEPARENT=traceparent)
    assert newest(daemon, "t:exec")["attrs"] == TRACE | {"exit_status": 0, "command": "true"}


# ------------------------------------------------------------------------------------------------------- exec


def executed(daemon: Served, endpoint: str, *command: str, stdin: str = "", flags: tuple[str, ...] = ()) -> Ended:
    return typed_for_real("exec", "--endpoint", endpoint, *flags, "--url", daemon.url, "--", *command, stdin=stdin)


def test_exec_passes_everything_on_and_reports_a_success(daemon: Served) -> None:
    ended = executed(daemon, "x:ok", "sh", "-c", "cat; echo aside >&2", stdin="through\n")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "through\n", "aside\n")
    op = newest(daemon, "x:ok")
    assert (op["success"], op["source"], op["output_summary"]) == (True, "bot", "exit status 0")
    assert op["input_summary"] == "sh -c 'cat; echo aside >&2'"
    assert op["attrs"] == {"exit_status": 0, "command": "sh"}
    assert "error" not in op


def test_exec_reports_a_failure_with_its_last_words_and_exits_as_the_command_did(daemon: Served) -> None:
    ended = executed(daemon, "x:bad", "sh", "-c", "echo first >&2; echo; echo 'the disk is gone' >&2; exit 7",
                     flags=("--source", "mcp", "--description", "the nightly one"))  # fmt: skip
    assert (ended.returncode, ended.stderr) == (7, "first\nthe disk is gone\n")
    op = newest(daemon, "x:bad")
    assert (op["success"], op["error"], op["source"]) == (False, "exit status 7: the disk is gone", "mcp")
    assert op["input_summary"] == "the nightly one"


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("x" * 430 + " ADDRESS", ": " + "x" * 430 + " postgres://user:[redacted:url_password]@db/x"),
        ("password=SECRET" + "x" * 8_180, ""),
        ("first\npassword=SECRET " + "x" * 8_180, ""),
        ("x" * 10_000 + "\nthe last", ": the last"),
    ],
    ids=["up to the end", "without its name", "without its beginning", "before the last line"],
)
def test_exec_reports_no_part_of_a_password(daemon: Served, said: str, error: str) -> None:
    script = "import os, sys; sys.stderr.write(os.environ['SAID']); sys.exit(3)"
    command = ("exec", "--endpoint", "x:cut", "--url", daemon.url, "--", sys.executable, "-c", script)
    typed_for_real(*command, SAID=said.replace("ADDRESS", ADDRESS).replace("SECRET", SECRET))
    assert newest(daemon, "x:cut")["error"] == f"exit status 3{error}"


def test_exec_cuts_a_long_command_line_between_two_words(daemon: Served) -> None:
    for before in range(COMMAND_CHARS_MAX - len(ADDRESS) - 4, COMMAND_CHARS_MAX - 4, 7):
        executed(daemon, "x:long", "true", flags=("--description", f"{before} {'x' * before} {ADDRESS}"))
        said = newest(daemon, "x:long")["input_summary"]
        assert said.startswith(f"{before} ")
        assert "hunter2" not in said


def test_exec_says_on_standard_error_how_a_report_was_taken_otherwise_than_it_said(daemon: Served) -> None:
    ended = executed(daemon, "x:foreign", "true", flags=("--source", "cron"))
    note = 'observer-actors: source: "cron" is not a known source; kept as scenario\n'
    assert (ended.returncode, ended.stderr) == (0, note)


def test_exec_says_how_long_it_took(daemon: Served) -> None:
    executed(daemon, "x:slow", "sleep", "0.3")
    assert 300 <= newest(daemon, "x:slow")["duration_ms"] < 3_000


@pytest.mark.parametrize(
    ("command", "status"),
    [(["no-such-command-anywhere", "--flag"], 127), ([""], 127), (["/etc/passwd"], 126), (["/etc"], 126)],
)
def test_exec_reports_a_command_that_cannot_be_run_with_a_shells_status(
    daemon: Served, command: list[str], status: int
) -> None:
    ended = executed(daemon, "x:none", *command)
    assert ended.returncode == status
    assert command[0] in ended.stderr
    assert newest(daemon, "x:none")["attrs"]["exit_status"] == status


def test_exec_has_sh_run_a_script_that_names_no_interpreter_as_a_shell_does(daemon: Served, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text('printf "%s|" "$@"; echo aside >&2; exit 7\n')
    script.chmod(0o755)
    ended = executed(daemon, "x:script", str(script), "a b", "-c")
    assert (ended.returncode, ended.stdout, ended.stderr) == (7, "a b|-c|", "aside\n")
    assert newest(daemon, "x:script")["error"] == "exit status 7: aside"


def test_exec_hands_no_program_for_another_machine_to_sh(daemon: Served, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF\x02\x01\x01\0\0\n")
    program.chmod(0o755)
    ended = executed(daemon, "x:foreign-program", str(program))
    assert (ended.returncode, ended.stderr) == (126, f"observer-actors: {program}: Exec format error\n")


def test_exec_reports_a_command_that_a_signal_ended(daemon: Served) -> None:
    assert executed(daemon, "x:killed", "sh", "-c", "kill -9 $$").returncode == 137
    assert newest(daemon, "x:killed")["error"] == "exit status 137"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1])
def test_exec_passes_a_signal_on_that_comes_before_the_command_has_started(number: int) -> None:
    signals = Signals()
    with taken(*PASSED_ON, by=signals.take):
        os.kill(os.getpid(), number)
        signals.go_to(sleeping := subprocess.Popen(["sleep", "60"]))
        assert sleeping.wait(20) == -number


def too_late_for_its_handler(number: int, blocking: Callable[..., Any]) -> Callable[..., Any]:
    """Give a call before which a signal comes to us, as late as can be: Python looks for none in between."""
    kill = ctypes.CDLL(None).kill  # `os.kill` runs the handler

    def call(*arguments: object) -> Any:
        if threading.current_thread() is not threading.main_thread():
            return blocking(*arguments)
        _, answer = map(operator.call, (partial(kill, os.getpid(), int(number)), partial(blocking, *arguments)))
        return answer

    return call


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_exec_passes_a_signal_on_that_comes_just_before_it_waits(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    signals = Signals()
    with taken(*PASSED_ON, by=signals.take):
        signals.go_to(sleeping := subprocess.Popen(["sleep", "60"]))
        given_up = threading.Timer(SIGNALLED_S, sleeping.kill)
        given_up.start()
        for name in ("read", "waitpid"):
            monkeypatch.setattr(os, name, too_late_for_its_handler(number, getattr(os, name)))
        status = _wait(sleeping)
        given_up.cancel()
    assert status == -number


def test_waiting_gives_the_status_and_leaves_nothing_behind() -> None:
    before = set(Path("/proc/self/fd").iterdir())
    with subprocess.Popen(["sh", "-c", "exit 3"]) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        assert _wait(ended) == 3
    with subprocess.Popen(["sh", "-c", "sleep 0.1; exit 4"]) as running:
        assert _wait(running) == 4
    assert set(Path("/proc/self/fd").iterdir()) <= before
    assert signal.set_wakeup_fd(-1) == -1


@contextmanager
def killed_unless_it_ends(*command: str, stderr: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command; it and what it has started are killed when the test fails, or takes too long."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=stderr, env=environment(), start_new_session=True
    ) as running:
        given_up = threading.Timer(SIGNALLED_S, os.killpg, (running.pid, signal.SIGKILL))
        given_up.start()
        try:
            yield running
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
            raise
        finally:
            given_up.cancel()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_that_exec_was_to_ignore_is_ignored_by_the_command_too(daemon: Served, number: int) -> None:
    ignoring = ["sh", "-c", f'trap "" {int(number)}; exec "$@"', "sh"]
    told = [sys.executable, "-c", f"import signal; print(signal.getsignal({int(number)}) == signal.SIG_IGN)"]
    command = [*ignoring, *COMMAND, "exec", "--endpoint", "x:nohup", "--url", daemon.url, "--", *told]
    assert subprocess.check_output(command, env=environment(), timeout=SIGNALLED_S) == b"True\n"


def test_the_status_is_known_also_where_ends_of_children_were_to_be_ignored(daemon: Served) -> None:
    command = [*COMMAND, "exec", "--endpoint", "x:chld", "--url", daemon.url, "--", "sh", "-c", "exit 3"]
    ignoring = ["bash", "-c", 'trap "" CHLD; exec "$@"', "bash"]
    ended = subprocess.run([*ignoring, *command], env=environment(), capture_output=True, check=False)
    assert (ended.returncode, ended.stderr) == (3, b"")
    assert newest(daemon, "x:chld")["attrs"]["exit_status"] == 3


@pytest.mark.parametrize("name", ["TERM", "HUP", "QUIT", "USR1", "USR2", "ALRM", "ABRT", "XCPU", "RTMIN"])
def test_exec_passes_signals_on_and_outlives_the_command(daemon: Served, name: str) -> None:
    number = signal.Signals[f"SIG{name}"]
    script = f"trap 'echo told; exit 5' {int(number)}; echo ready; while :; do sleep 0.05; done"
    command = [*COMMAND, "exec", "--endpoint", "x:told", "--url", daemon.url, "--", "sh", "-c", script]
    with killed_unless_it_ends(*command) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"ready\n"
        running.send_signal(number)
        assert running.stdout.readline() == b"told\n"
        assert running.wait(20) == 5
    assert newest(daemon, "x:told")["attrs"]["exit_status"] == 5


def test_what_a_command_leaves_in_the_background_keeps_its_standard_error(daemon: Served, tmp_path: Path) -> None:
    go, went = tmp_path / "go", tmp_path / "went"
    os.mkfifo(go)
    gate = os.open(go, os.O_RDWR)
    script = f"(trap '' HUP; read line <{go}; echo late >&2; echo went >{went}) >/dev/null & echo soon >&2; exit 3"
    command = [*COMMAND, "exec", "--endpoint", "x:left", "--url", daemon.url, "--", "sh", "-c", script]
    with killed_unless_it_ends(*command, stderr=subprocess.PIPE) as running:
        assert running.wait(SIGNALLED_S) == 3
        os.killpg(running.pid, signal.SIGHUP)
        os.write(gate, b"\n")
        assert running.stderr is not None
        assert running.stderr.read() == b"soon\nlate\n"
    os.close(gate)
    assert went.read_text() == "went\n"
    assert newest(daemon, "x:left")["error"] == "exit status 3: soon"


@pytest.mark.parametrize("where", ["a pipe", "a file"])
def test_outputs_that_go_to_one_place_keep_their_order(daemon: Served, tmp_path: Path, where: str) -> None:
    script = "for n in 1 2 3 4 5 6 7 8 9; do echo out $n; echo aside $n >&2; done; exit 3"
    command = [*COMMAND, "exec", "--endpoint", "x:order", "--url", daemon.url, "--", "sh", "-c", script]
    shell = '"$@" 2>&1 | cat' if where == "a pipe" else f'"$@" >{tmp_path}/out 2>&1; cat {tmp_path}/out'
    said = subprocess.check_output(["sh", "-c", shell, "sh", *command], env=environment(), text=True)
    assert said == "".join(f"out {number}\naside {number}\n" for number in range(1, 10))
    assert newest(daemon, "x:order")["error"] == "exit status 3: aside 9"


def test_a_reader_of_standard_error_that_has_gone_ends_the_command(daemon: Served) -> None:
    command = [*COMMAND, "exec", "--endpoint", "x:gone", "--url", daemon.url, "--", "sh", "-c", "yes >&2"]
    with killed_unless_it_ends(*command, stderr=subprocess.PIPE) as running:
        assert running.stderr is not None
        running.stderr.readline()
        running.stderr.close()
        assert running.wait(SIGNALLED_S) == 141


def test_what_standard_error_cannot_take_ends_no_command(daemon: Served, tmp_path: Path) -> None:
    script = f"echo a >&2; sleep .2; echo b >&2; sleep .2; touch {tmp_path}/done; exit 5"
    command = [*COMMAND, "exec", "--endpoint", "x:full-disk", "--url", daemon.url, "--", "sh", "-c", script]
    ended = subprocess.run(["sh", "-c", '"$@" 2>/dev/full', "sh", *command], env=environment(), check=False)
    assert (ended.returncode, (tmp_path / "done").exists()) == (5, True)
    assert newest(daemon, "x:full-disk")["error"] == "exit status 5: b"


def test_standard_error_that_does_not_block_is_waited_for(daemon: Served) -> None:
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    script = "head -c 300000 /dev/zero >&2; exit 5"
    command = [*COMMAND, "exec", "--endpoint", "x:eagain", "--url", daemon.url, "--", "sh", "-c", script]
    with killed_unless_it_ends(*command, stderr=theirs) as running, open(ours, "rb") as reader:  # noqa: PTH123
        os.close(theirs)
        time.sleep(1.0)  # it is full by now
        assert len(reader.read()) == 300_000
        assert running.wait(SIGNALLED_S) == 5


def test_a_command_has_the_descriptors_that_it_was_given(daemon: Served, tmp_path: Path) -> None:
    command = [*COMMAND, "exec", "--endpoint", "x:third", "--url", daemon.url, "--", "sh", "-c", "echo third >&3"]
    shell = f'"$@" 3>{tmp_path}/third'
    subprocess.run(["sh", "-c", shell, "sh", *command], env=environment(), check=True)
    assert (tmp_path / "third").read_text() == "third\n"


def test_exec_leaves_a_terminal_to_the_command(daemon: Served) -> None:
    ours, theirs = pty.openpty()
    script = "test -t 2 && echo yes; echo words >&2; exit 3"
    command = [*COMMAND, "exec", "--endpoint", "x:tty", "--url", daemon.url, "--", "sh", "-c", script]
    ended = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=theirs, stdin=subprocess.DEVNULL, check=False, env=environment()
    )
    os.close(theirs)
    assert (ended.returncode, ended.stdout) == (3, b"yes\n")
    assert os.read(ours, 100) == b"words\r\n"
    os.close(ours)
    assert newest(daemon, "x:tty")["error"] == "exit status 3"


def test_exec_does_not_depend_on_the_daemon(tmp_path: Path) -> None:
    ended = typed_for_real(
        "exec", "--endpoint", "x", "--url", NOBODY, "--", sys.executable, "-c", "print(5); exit(4)", cwd=tmp_path
    )
    assert (ended.returncode, ended.stdout) == (4, "5\n")
    assert ended.stderr.startswith(f"observer-actors: not reported: {NOBODY}")
    assert ended.stderr.splitlines()[1].startswith("  is the daemon running?")
    for lost in ("2>/dev/full", "2>&1 | true"):  # and so nobody learns that it was not reported
        command = [*COMMAND, "exec", "--endpoint", "x", "--url", NOBODY, "--", "sh", "-c", "exit 4"]
        shell = ["bash", "-c", f'"$@" {lost}; exit ${{PIPESTATUS[0]}}', "bash", *command]
        assert subprocess.run(shell, env=environment(), check=False).returncode == 4
    nothing = typed_for_real("exec", "--endpoint", "x", "--url", NOBODY)
    assert (nothing.returncode, "no command given" in nothing.stderr) == (64, True)


@pytest.mark.parametrize("command", [["exec", "--endpoint", "x:agent", "--", "true"], ["stats"]])
def test_who_asks_a_daemon_does_not_mind_credentials_of_an_agents_unit(
    daemon: Served, tmp_path: Path, command: list[str]
) -> None:
    (tmp_path / "model.key").write_text("k")
    (tmp_path / "gateway.url").write_bytes(b"\xff")
    ended = typed_for_real(*command, OBSERVER_PORT=str(daemon.port), CREDENTIALS_DIRECTORY=str(tmp_path))
    assert (ended.returncode, ended.stderr) == (0, "")


def test_exec_holds_nobody_up_for_a_daemon_that_hangs(tmp_path: Path) -> None:
    with served(tmp_path) as hanging:
        hanging.process.send_signal(signal.SIGSTOP)
        try:
            began = time.monotonic()
            ended = executed(hanging, "x:hung", "sh", "-c", "exit 3")
            seconds = time.monotonic() - began
        finally:
            hanging.process.send_signal(signal.SIGCONT)
    assert (ended.returncode, "observer-actors: not reported: " in ended.stderr) == (3, True), ended.stderr
    assert seconds < WITHOUT_A_REPORT_S


async def test_exec_holds_nobody_up_for_a_daemon_that_is_full() -> None:
    async with http_peer(Json({"error": "overloaded"}, 503, {"Retry-After": "1"})) as full:
        command = ("exec", "--endpoint", "x:full", "--url", full.url, "--", "sh", "-c", "exit 3")
        began = time.monotonic()
        ended = await trio.to_thread.run_sync(partial(typed_for_real, *command))
        seconds = time.monotonic() - began
        assert len(full.received("/event")) > 1
    assert (ended.returncode, "observer-actors: not reported: overloaded" in ended.stderr) == (3, True), ended.stderr
    assert seconds < WITHOUT_A_REPORT_S


def test_exec_takes_options_of_the_command_as_its_own(daemon: Served) -> None:
    ended = executed(daemon, "x:flags", "printf", "%s|", "--endpoint", "--url", "-x", "--", "--help")
    assert ended.stdout == "--endpoint|--url|-x|--|--help|"
    assert json.loads(json.dumps(newest(daemon, "x:flags")))["success"]
