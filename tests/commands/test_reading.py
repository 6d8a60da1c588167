"""The commands that read: for a person in words, for a program with `--json` as the daemon says it."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import os
import signal
import socket
import stat
import subprocess
import threading
import tracemalloc
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from observer_actors.commands import export as exporting
from observer_actors.commands._filters import Filters
from observer_actors.commands._options import ApiOptions
from observer_actors.commands._output import written
from observer_actors.commands._screen import compact, say_more, shown_time
from observer_actors.commands._sse import Message, messages
from observer_actors.commands.failures import FailureFilters
from observer_actors.http.failures import FailuresParameters
from tests.commands.typed import COMMAND, answered, as_ordinary_user, environment, typed, typed_for_real
from tests.daemon.served import Served, served

HOSTILE: Final = "\x1b[31mred\n2026 forged\u202e [bold]"
READING: Final = (
    (("stats",), "/stats"),
    (("failures",), "/failures"),
    (("playbook",), "/playbook"),
)


@pytest.fixture(scope="module", autouse=True)
def _events(daemon: Served) -> None:
    for number in range(6):
        daemon.event(endpoint="read:ok", source="bot", success=True, input_summary=f"in {number}", duration_ms=2)
    daemon.event(endpoint="read:bad", source="mcp", success=False, error=HOSTILE, input_summary=HOSTILE)


@pytest.mark.parametrize(("arguments", "path"), READING)
def test_json_is_what_the_daemon_says(daemon: Served, arguments: tuple[str, ...], path: str) -> None:
    def lasting(answer: Any) -> Any:
        return {key: value for key, value in answer.items() if key != "lifetime"}

    assert lasting(answered(*arguments, "--url", daemon.url)) == lasting(daemon.json(path))

    branches = [branch["name"] for branch in answered("actors", "--url", daemon.url)["actors"]]
    assert branches == ["pipeline", "upkeep", "learning", "edge"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("stats",), ["in the ring", "a second in the last minute", "read:ok", "bot"]),
        (("failures",), ["read:bad", "[bold]"]),
        (("playbook",), ["read:ok", "do"]),
        (("actors",), ["persister", "one_for_one", "of 10,000 waiting"]),
        (("top", "--once"), ["taking events", "sources", "read:bad", "failing patterns", "ring_keeper"]),
        (("ops", "--limit", "900"), ["in 5", "FAIL", "read:bad"]),
    ],
)
def test_in_words(daemon: Served, arguments: tuple[str, ...], said: list[str]) -> None:
    for cycle in (5, 6):  # consolidation comes with every fifth
        daemon.log.wait("cycle", cycle=cycle)
    ended = typed(*arguments, "--url", daemon.url)
    assert (ended.returncode, ended.stderr) == (0, "")
    for part in said:
        assert part in ended.stdout
    assert "\x1b" not in ended.stdout, "plain where it is no terminal, whatever was reported"
    assert not any(line.startswith("2026 forged") for line in ended.stdout.splitlines())


def test_of_more_failures_than_fit_the_dearest_are_shown_and_the_others_counted(tmp_path: Path) -> None:
    with served(tmp_path) as daemon:
        for endpoint, times in (("seldom", 1), ("often", 9), ("now and then", 3)):
            for _ in range(times):
                daemon.event(endpoint=endpoint, success=False, error="gone", duration_ms=5)
        ended = typed("failures", "--limit", "1", "--url", daemon.url)
        assert "often" in ended.stdout
        assert "seldom" not in ended.stdout
        assert ended.stdout.endswith("2 more; --limit shows them\n")
        assert len(answered("failures", "--limit", "2", "--url", daemon.url)["failures"]) == 2


def test_failures_says_how_each_stands(tmp_path: Path) -> None:
    with served(tmp_path) as daemon:
        for endpoint in ("known", "fresh"):
            daemon.event(endpoint=endpoint, success=False, error="gone")
        (known,) = daemon.json("/failures", endpoint="known")["failures"]
        daemon.client.post(f"/failures/{known['id']}", json={"action": "mute"})
        lines = typed("failures", "--sort", "last_seen", "--url", daemon.url).stdout.splitlines()
        assert [line.split()[1] for line in lines] == ["state", "new", "muted"]


def test_failures_filters_as_the_api_does(tmp_path: Path) -> None:
    with served(tmp_path) as daemon:
        daemon.event(endpoint="f:1", source="mcp", success=False, error="timeout after 3 s")
        daemon.event(endpoint="f:2", source="bot", success=False, error="no such table", duration_ms=10_000)
        daemon.event(endpoint="f:2", source="bot", success=False, error="no such table")
        daemon.event(endpoint="-f:3", source="bot", success=False, error="no such user")
        first, second, third = "f:1", "f:2", "-f:3"
        (when,) = (one["first_seen"] for one in daemon.json("/failures", endpoint=second)["failures"])
        for flags, endpoints in (
            (["--endpoint", "-f:3"], [third]),
            (["--source", "mcp"], [first]),
            (["--state", "new", "--cause", "timeout"], [first]),
            (["--state", "muted"], []),
            (["--text", "NO SUCH", "--sort", "count"], [second, third]),
            (["--since", when, "--sort", "last_seen"], [third, second]),
            (["--until", when], [first]),
            (["--since", "2h", "--sort", "first_seen"], [third, second, first]),
            (["--sort", "wasted", "--limit", "1"], [second]),
        ):
            found = answered("failures", *flags, "--url", daemon.url)["failures"]
            assert [one["endpoint"] for one in found] == endpoints, flags
        none = typed("failures", "--source", "nobody", "--url", daemon.url)
        assert (none.returncode, none.stdout) == (0, "nothing that has failed fits\n")
        wrong = typed("failures", "--state", "odd", "--url", daemon.url)
        assert (wrong.returncode, "regressed" in wrong.stderr) == (65, True)
    flags_of = {field.name for field in fields(FailureFilters)} | {"sort", "limit"}
    assert flags_of == set(FailuresParameters.__struct_fields__), "each parameter is a flag"


@pytest.mark.parametrize(
    ("total", "said"),
    [
        (1, ""),
        (1_000, "999 more; --limit shows them\n"),
        (10_000, "9,999 more; --limit shows 1,000 at most: narrow with --kind\n"),
    ],
)
def test_how_many_more_there_are_comes_with_the_way_to_them(
    total: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    say_more(total, 1, "--kind")
    assert capsys.readouterr().out == said


def test_ops_filters_as_the_api_does_and_knows_how_long_ago(daemon: Served) -> None:
    found = answered("ops", "--endpoint", "read:ok", "--since", "1h", "--limit", "3", "--url", daemon.url)
    assert [op["input_summary"] for op in found] == ["in 5", "in 4", "in 3"]
    oldest = answered("ops", "--endpoint", "read:ok", "--order", "oldest", "--limit", "1", "--url", daemon.url)
    assert [op["input_summary"] for op in oldest] == ["in 0"]
    assert answered("ops", "--failed", "--source", "mcp", "--url", daemon.url)[0]["error"] == HOSTILE
    assert answered("ops", "--until", "1d", "--url", daemon.url) == []


@pytest.mark.parametrize("time", ["yesterday", "1w", "999999d", "0000-01-01", ""])
@pytest.mark.parametrize(
    ("command", "flag"),
    [
        (("ops",), "--since"),
        (("ops",), "--until"),
        (("export",), "--since"),
        (("audits",), "--since"),
        (("revoke", "--source", "nobody"), "--since"),
    ],
)
def test_a_time_that_is_none_is_refused_with_the_forms_that_there_are(
    command: tuple[str, ...], flag: str, time: str
) -> None:
    refused = typed(*command, flag, time, "--url", "http://127.0.0.1:9")
    assert (refused.returncode, refused.stdout) == (64, "")
    assert refused.stderr.startswith(f"observer-actors: {flag}: {time!a} ")
    assert "90s, 15m, 2h, 7d" in refused.stderr


@pytest.mark.parametrize(
    ("reported", "shown"),
    [
        ("2026-11-28T15:00:00.123+02:00", "2026-11-28 13:00:00"),
        ("2026-11-28T15:00:00.123Z", "2026-11-28 15:00:00"),
        ("2026-11-28 15:00", "2026-11-28 15:00:00"),
        ("0001-01-01T00:00:00+02:00", "0001-01-01 00:00:00"),
        ("yesterday\n", "yesterday\\n"),
    ],
)
def test_a_time_is_shown_as_it_is_in_utc(reported: str, shown: str) -> None:
    assert shown_time(reported) == shown


@pytest.mark.parametrize("filters", [("--overall", "block"), ("--since", "1d")])
def test_audits_of_a_signature_take_no_filter(filters: tuple[str, str]) -> None:
    refused = typed("audits", "pr6-7fe47bab", *filters, "--url", "http://127.0.0.1:9")
    assert (refused.returncode, refused.stdout) == (64, "")
    assert filters[0] in refused.stderr


def test_a_page_is_no_limit(tmp_path: Path) -> None:
    with served(tmp_path) as daemon:
        daemon.events(*({"endpoint": "many", "input_summary": str(number)} for number in range(2_300)))
        found = answered("ops", "--limit", "2200", "--url", daemon.url)
        assert [op["seq"] for op in found] == list(range(2_300, 100, -1))
        daemon.event(endpoint="a", success=True, output_summary='{"error":"odd \\"}"}')
        assert "suspect" in daemon.json("/ops", limit=1)["ops"][0]
        lines = typed("export", "--url", daemon.url).stdout
        assert lines == (tmp_path / "_observer" / "ops.jsonl").read_text(), "byte for byte the journal"


def test_an_export_of_what_came_since_is_refused_where_the_journal_ends_before(daemon: Served) -> None:
    last = daemon.json("/health")["last_seq"]
    assert typed("export", "--after-seq", str(last), "--url", daemon.url).returncode == 0
    ended = typed("export", "--after-seq", str(last + 1), "--url", daemon.url)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert f"the journal ends at {last}" in ended.stderr


SMALL_SEGMENTS: Final = "[journal]\nsegment_bytes_max = 5_000\n"


def test_an_export_says_how_many_ops_are_missing_and_keeps_the_others(tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    damaged = tmp_path / "data" / "_observer" / "segments" / "ops-00000000000000000021.jsonl.gz"
    with served(tmp_path / "data", SMALL_SEGMENTS) as daemon:
        for part in range(4):
            daemon.events(*({"endpoint": f"part {part}", "input_summary": str(number)} for number in range(20)))
        while not damaged.exists():
            daemon.json("/health")
        assert typed("export", "--output", str(file), "--url", daemon.url).returncode == 0
    content = bytearray(damaged.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 12] = b"\xff" * 12
    damaged.write_bytes(content)
    with served(tmp_path / "data", SMALL_SEGMENTS) as daemon:
        ended = typed("export", "--output", str(file), "--url", daemon.url)
        left = [json.loads(line)["seq"] for line in file.read_text().splitlines()]
        missing = 80 - len(left)
        assert 0 < missing <= 20
        assert (ended.returncode, ended.stderr.splitlines()[0]) == (1, f"{len(left)} ops in {file}")
        assert f"observer-actors: {missing} ops of the journal cannot be read" in ended.stderr
        to_stdout = typed("export", "--format", "csv", "--after-seq", "21", "--before-seq", "80", "--url", daemon.url)
        assert (to_stdout.returncode, f"{missing} ops" in to_stdout.stderr) == (1, 21 in left), "or one fewer"
        assert typed("export", "--after-seq", "41", "--url", daemon.url).returncode == 0
        assert typed("export", "--source", "mcp", "--url", daemon.url).returncode == 0, "nobody can tell"


def test_an_export_says_that_the_oldest_ops_are_missing_which_retention_has_not_deleted(tmp_path: Path) -> None:
    oldest = tmp_path / "data" / "_observer" / "segments" / "ops-00000000000000000001.jsonl.gz"
    with served(tmp_path / "data", SMALL_SEGMENTS) as daemon:
        for part in range(2):
            daemon.events(*({"endpoint": f"part {part}", "input_summary": str(number)} for number in range(20)))
        daemon.log.wait("segment_compacted")
    oldest.write_bytes(b"")
    with served(tmp_path / "data", SMALL_SEGMENTS) as daemon:
        for flags in ((), ("--after-seq", "0")):
            ended = typed("export", *flags, "--url", daemon.url)
            seqs = [json.loads(line)["seq"] for line in ended.stdout.splitlines()]
            assert seqs == list(range(seqs[0], 41))
            assert (ended.returncode, seqs[0] > 1) == (1, True)
            assert ended.stderr.startswith(f"observer-actors: {seqs[0] - 1} ops of the journal cannot be read")


class HeldWhenWritten(io.BytesIO):
    """Counts what the module that writes to it holds in memory at its last write."""

    blocks = 0

    def write(self, data: Any, /) -> int:
        snapshot = tracemalloc.take_snapshot()
        (held,) = snapshot.filter_traces([tracemalloc.Filter(True, exporting.__file__)]).statistics("filename")
        self.blocks = held.count
        return super().write(data)


def test_an_export_with_filters_holds_nothing_of_the_ops_that_do_not_fit(tmp_path: Path) -> None:
    with served(tmp_path / "data") as daemon:
        daemon.events(*({"endpoint": ("a", "b")[number % 2]} for number in range(4_000)))
        stream = HeldWhenWritten()
        tracemalloc.start()
        try:
            with contextlib.redirect_stdout(io.TextIOWrapper(stream)):
                exporting.export(Filters(endpoint="a"), ApiOptions(url=daemon.url))
                assert stream.getvalue().count(b"\n") == 2_000
        finally:
            tracemalloc.stop()
        assert 0 < stream.blocks < 500


def test_what_retention_has_deleted_is_not_missing_from_an_export(tmp_path: Path) -> None:
    with served(tmp_path / "data", SMALL_SEGMENTS + "retained_bytes_max = 1\n") as daemon:
        for _ in range(3):
            daemon.events(*({"endpoint": "many", "input_summary": str(number)} for number in range(20)))
        daemon.log.wait("segment_removed")
        for flags in ((), ("--after-seq", "2")):
            ended = typed("export", *flags, "--url", daemon.url)
            first = json.loads(ended.stdout.splitlines()[0])["seq"]
            said = f"{first - 3:,} ops behind seq 2 are not in there: retention has deleted them\n" if flags else ""
            assert (ended.returncode, first > 3, ended.stderr) == (0, True, said)
        ended = typed("export", "--after-seq", "2", "--before-seq", "5", "--failed", "--url", daemon.url)
        assert ended.stderr.startswith("2 ops behind seq 2 are not in there"), "3 and 4, whatever was in them"


def test_export_as_csv_can_be_read_by_others(daemon: Served, tmp_path: Path) -> None:
    daemon.event(
        endpoint="csv", source="bot", success=True, input_summary='a "quoted"\nline, with comma', tenant="t", n=5
    )
    file = tmp_path / "out.csv"
    ended = typed("export", "--endpoint", "csv", "--format", "csv", "--output", str(file), "--url", daemon.url)
    assert (ended.returncode, ended.stdout) == (0, "")
    assert f"1 ops in {file}" in ended.stderr
    (row,) = csv.DictReader(io.StringIO(file.read_text(), newline=""))
    assert (row["endpoint"], row["success"], row["input_summary"]) == ("csv", "true", 'a "quoted"\\nline, with comma')
    assert (row["error"], json.loads(row["attrs"])) == ("", {"tenant": "t", "n": 5})
    refused = typed("export", "--output", str(tmp_path), "--url", daemon.url)
    assert (refused.returncode, "cannot write" in refused.stderr) == (74, True)


@pytest.mark.parametrize("before", ["what was there\n", None])
def test_an_export_that_fails_leaves_the_file_as_it_was(daemon: Served, tmp_path: Path, before: str | None) -> None:
    file = tmp_path / "out.jsonl"
    if before is not None:
        file.write_text(before)
    kept = sorted(tmp_path.iterdir())
    for status, arguments in (
        (69, ("--url", "http://127.0.0.1:9")),
        (64, ("--since", "1w", "--url", daemon.url)),
        (65, ("--after-seq", "-1", "--url", daemon.url)),
    ):
        assert typed("export", "--output", str(file), *arguments).returncode == status
        assert sorted(tmp_path.iterdir()) == kept
        assert before is None or file.read_text() == before


def test_an_export_replaces_a_file_and_leaves_its_mode_and_links_to_it(daemon: Served, tmp_path: Path) -> None:
    file, link = tmp_path / "out.jsonl", tmp_path / "link"
    file.write_text("old")
    file.chmod(0o640)
    link.symlink_to(file)
    with file.open() as reader:
        assert typed("export", "--output", str(link), "--url", daemon.url).returncode == 0
        assert reader.read() == "old", "who reads it reads on in what was there"
    assert link.is_symlink()
    assert (file.read_text().count("\n") > 6, file.stat().st_mode & 0o777) == (True, 0o640)
    assert sorted(tmp_path.iterdir()) == [link, file]


def test_an_export_to_a_new_file_is_for_its_owner_alone(daemon: Served, tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    command = [*COMMAND, "export", "--output", str(file), "--url", daemon.url]
    subprocess.run(command, env=environment(), umask=0o022, check=True, stderr=subprocess.DEVNULL, timeout=60)
    assert file.stat().st_mode & 0o777 == 0o600


def test_an_export_is_done_once_its_file_and_then_its_folder_are_on_disk(
    daemon: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "out.jsonl"
    synced: list[tuple[bool, bool]] = []

    def fsync(descriptor: int) -> None:
        synced.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), file.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    assert typed("export", "--output", str(file), "--url", daemon.url).returncode == 0
    assert synced == [(False, False), (True, True)]


def test_an_export_goes_into_a_folder_that_may_be_written_and_not_read(daemon: Served, tmp_path: Path) -> None:
    ordinary = as_ordinary_user()
    folder = tmp_path / "drop"
    folder.mkdir()
    folder.chmod(0o333)
    ended = typed_for_real("export", "--output", str(folder / "out.jsonl"), "--url", daemon.url, before=ordinary)
    folder.chmod(0o700)
    assert (ended.returncode, [path.name for path in folder.iterdir()]) == (0, ["out.jsonl"]), ended


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_an_export_that_is_stopped_leaves_the_file_as_it_was(tmp_path: Path, number: int, status: int) -> None:
    file = tmp_path / "out.jsonl"
    file.write_text("old")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        command = [*COMMAND, "export", "--output", str(file), "--url", url]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment()) as exporting:
            connection, _ = silent.accept()  # it has begun, and waits for an answer
            exporting.send_signal(number)
            assert exporting.wait(20) == status
            connection.close()
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]
    assert file.read_text() == "old"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_second_signal_while_the_first_is_obeyed_leaves_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    file = tmp_path / "out.jsonl"
    file.write_text("old")
    unlink, seconds = Path.unlink, [number]

    def interrupted(path: Path, *, missing_ok: bool) -> None:
        if seconds:
            os.kill(os.getpid(), seconds.pop())
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", interrupted)
    with pytest.raises((SystemExit, KeyboardInterrupt)), written(file):
        os.kill(os.getpid(), number)
    assert not seconds
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]
    assert file.read_text() == "old"


def test_an_export_whose_folder_cannot_be_synced_says_that_the_file_is_there(
    daemon: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    file = tmp_path / "out.jsonl"
    monkeypatch.setattr(os, "fsync", fsync)
    ended = typed("export", "--output", str(file), "--url", daemon.url)
    assert (ended.returncode, "cannot write" in ended.stderr, file.exists()) == (74, False, True)
    assert ended.stderr.startswith(f"observer-actors: {file} is written, but its folder cannot be synced: "), ended


def test_what_is_no_plain_file_is_written_as_it_is(daemon: Served, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    command = [*COMMAND, "export", "--url", daemon.url, "--output"]
    with subprocess.Popen([*command, str(fifo)], stderr=subprocess.DEVNULL, env=environment()) as exporting:
        lines = fifo.read_text().splitlines()
        assert exporting.wait(20) == 0
    assert (len(lines) > 6, fifo.is_fifo()) == (True, True)
    appended = tmp_path / "appended"
    appended.write_text("before\n")
    with appended.open("a") as stdout:
        subprocess.run([*command, "/dev/stdout"], stdout=stdout, check=True, env=environment(), timeout=60)
    assert appended.read_text().splitlines()[:2] == ["before", lines[0]]


@pytest.mark.parametrize("arguments", ["stats", "ops", "failures", "actors", "top --once", "doctor", "--help"])
def test_a_reader_that_has_gone_is_told_by_the_status(daemon: Served, arguments: str) -> None:
    read, write = os.pipe()
    os.close(read)
    where = {"OBSERVER_URL": daemon.url, "OBSERVER_DATA_DIR": str(daemon.data_dir)}
    command = [*COMMAND, *arguments.split()]
    ended = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, env=environment(**where), check=False)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (141, b"")


def test_nobody_there_is_told_in_two_lines_and_exits_69() -> None:
    ended = typed("stats", "--url", "http://127.0.0.1:9")
    assert (ended.returncode, ended.stdout) == (69, "")
    assert ended.stderr.splitlines()[0].startswith("observer-actors: http://127.0.0.1:9: ")
    assert "is the daemon running?" in ended.stderr.splitlines()[1]


def test_what_is_wrong_with_a_unix_socket_has_a_hint_of_its_own(tmp_path: Path) -> None:
    def told(path: str) -> str:
        return typed_for_real("stats", "--url", f"unix://{path}").stderr.splitlines()[1]

    assert "is that its listen.unix" in told(f"{tmp_path}/none")
    assert "107 bytes" in told(f"{tmp_path}/{'x' * 107}")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(f"{tmp_path}/other")
        assert "is the daemon running?" in told(f"{tmp_path}/other")
        other.listen()

        def hang_up() -> None:
            with other.accept()[0] as caller:
                caller.recv(65_536)

        ending = threading.Thread(target=hang_up)
        ending.start()
        assert "is that socket a daemon's?" in told(f"{tmp_path}/other"), "TLS is not spoken there"
        ending.join()


def test_the_address_comes_from_the_environment_or_from_the_configuration(daemon: Served) -> None:
    total = daemon.json("/stats")["lifetime"]["total"]
    assert answered("stats", OBSERVER_URL=daemon.url)["lifetime"]["total"] >= total
    assert answered("stats", OBSERVER_PORT=str(daemon.port))["lifetime"]["total"] >= total
    unknown = typed("stats", OBSERVER_PORT="0")
    assert (unknown.returncode, "give --url" in unknown.stderr) == (78, True)


def test_a_variable_that_is_no_setting_stops_nobody_who_asks_looks_or_reports(tmp_path: Path) -> None:
    with served(tmp_path) as daemon:
        here: dict[str, Any] = {
            "OBSERVER_PORT": str(daemon.port),
            "OBSERVER_MODEL": "somebody's",
            "OBSERVER_LOG": "quiet",
        }
        assert typed("send", "--endpoint", "odd", **here).returncode == 0
        assert typed_for_real("exec", "--endpoint", "odd", "--", "true", **here).returncode == 0
        assert answered("stats", **here)["lifetime"]["total"] == 2
    assert typed("verify", "--data-dir", str(tmp_path), **here).returncode == 0
    refused = typed("config", "check", **here)
    assert (refused.returncode, "OBSERVER_MODEL is no setting" in refused.stderr) == (78, True)


# ------------------------------------------------------------------------------------------------------- tail


def test_tail_begins_with_the_newest_and_ends_after_so_many(daemon: Served) -> None:
    seqs = [daemon.event(endpoint="tailed", success=number % 2 == 0)["seq"] for number in range(4)]
    lines = typed("tail", "--lines", "3", "--count", "3", "--json", "--url", daemon.url).stdout.splitlines()
    assert [json.loads(line)["seq"] for line in lines] == seqs[1:]
    failed = typed("tail", "--lines", "4", "--count", "2", "--failed", "--url", daemon.url).stdout
    assert failed.count("FAIL") == 2


def test_tail_begins_with_the_newest_of_those_that_are_wanted(tmp_path: Path) -> None:
    with served(tmp_path) as daemon:
        for number in range(12):
            daemon.event(endpoint="tailed", source="bot" if number % 2 else "mcp", success=number > 5)
        wanted = ("--failed", "--source", "bot", "--endpoint", "tailed")
        ended = typed("tail", *wanted, "--lines", "2", "--count", "2", "--json", "--url", daemon.url)
        assert [json.loads(line)["seq"] for line in ended.stdout.splitlines()] == [4, 6]


def test_tail_follows_over_a_restart_of_the_daemon(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    with served(tmp_path) as first:
        first.event(endpoint="a")
        command = [*COMMAND, "tail", "--lines", "1", "--count", "3", "--json", "--url", first.url]
        following = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
        request.addfinalizer(partial(end, following))
        assert seq_of(following) == 1
        first.event(endpoint="b")
        assert seq_of(following) == 2
    assert following.stderr is not None
    assert b"trying again" in following.stderr.readline()
    with served(tmp_path, port=first.port) as second:
        second.event(endpoint="c")
        assert seq_of(following) == 3
        assert following.wait(20) == 0


def test_tail_goes_on_where_a_restored_journal_that_is_shorter_ends(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with served(tmp_path / "restored") as restored:
        restored.event(endpoint="a")
    with served(tmp_path / "data") as first:
        for _ in range(3):
            first.event(endpoint="a")
        command = [*COMMAND, "tail", "--lines", "1", "--count", "2", "--json", "--url", first.url]
        following = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
        request.addfinalizer(partial(end, following))
        assert seq_of(following) == 3
    assert following.stderr is not None
    assert b"trying again" in following.stderr.readline()
    with served(tmp_path / "restored", port=first.port) as second:
        assert b"the journal ends at 1 now, and we were at 3" in following.stderr.readline()
        second.event(endpoint="b")
        assert seq_of(following) == 2
        assert following.wait(20) == 0


def seq_of(following: subprocess.Popen[bytes]) -> int:
    assert following.stdout is not None
    seq: int = json.loads(following.stdout.readline())["seq"]
    return seq


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def test_tail_ends_quietly_when_interrupted(daemon: Served) -> None:
    command = [*COMMAND, "tail", "--lines", "1", "--json", "--url", daemon.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as following:
        assert following.stdout is not None
        following.stdout.readline()
        following.send_signal(signal.SIGINT)
        _, error = following.communicate(timeout=20)
    assert (following.returncode, error) == (130, b"")


def test_messages_of_an_event_stream() -> None:
    lines = ["retry: 5", "", ": comment", "", "id: 7", "event: op", "data: {", "data:}", "", "data:x", "", "data: cut"]
    assert list(messages(lines)) == [Message("op", "{\n}"), Message("message", "x")]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (0.25, "0.2"),
        (7, "7"),
        (950.4, "950"),
        (9_999, "9,999"),
        (12_345, "12.3k"),
        (4.5e6, "4.5M"),
        (2e9, "2.0G"),
    ],
)
def test_numbers_stay_short(number: float, text: str) -> None:
    assert compact(number) == text
