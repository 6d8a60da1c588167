"""`import`: every line once, whatever cuts it short."""

from __future__ import annotations

import gzip
import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest
import trio

from observer_actors.commands import importing
from observer_actors.commands._exported import sift
from observer_actors.commands._log_file import LINE_BYTES_MAX, opened
from observer_actors.commands._options import ApiOptions
from observer_actors.commands._resume import PLACES_MAX, Progressed
from observer_actors.commands._screen import LongWork
from tests.commands.typed import COMMAND, answered, environment, typed
from tests.daemon.served import Served, served
from tests.daemon.test_http_status import no_file_may_grow
from tests.fakes.http_peer import Close, Hang, Json, http_peer

SEEDS_LINE: Final = (
    '{"timestamp":"2026-11-22T10:00:00.123Z","endpoint":"scenario:fill","input_summary":"fill Welder×3 in Ada, OK",'
    '"success":true,"duration_ms":5,"output_summary":"ok","source":"scenario","rescue_attempted":false,'
    '"rescue_succeeded":false}'
)


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path / "data") as daemon:
        yield daemon


@dataclass(frozen=True)
class Used:
    """A daemon that others have imported into, and how many ops it held before."""

    url: str
    data_dir: Path
    ops: int


@pytest.fixture
def used(daemon: Served) -> Used:
    return Used(daemon.url, daemon.data_dir, len(stored(daemon)))


def events(count: int, **fields: object) -> list[str]:
    return [
        json.dumps({"endpoint": "i", "input_summary": str(number), "success": True, **fields})
        for number in range(count)
    ]


def stored(daemon: Served | Used) -> list[dict[str, Any]]:
    """Give what was stored in the test."""
    lines = (daemon.data_dir / "_observer" / "ops.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines[daemon.ops if isinstance(daemon, Used) else 0 :]]


def imported(daemon: Served | Used, *arguments: str, stdin: str = "", cwd: Path | None = None) -> Any:
    return answered("import", *arguments, "--url", daemon.url, stdin=stdin, cwd=cwd)


def counted(**counts: int) -> dict[str, object]:
    nothing = dict.fromkeys(("lines", "accepted", "duplicates", "rejected", "resumed_lines", "left_out"), 0)
    return {**nothing, "notes": {}, **counts}


def imported_with(daemon: Served | Used, state: Path, *arguments: str) -> Any:
    return answered("import", *arguments, "--url", daemon.url, XDG_STATE_HOME=str(state))


def test_lines_come_in_order_with_their_own_times_and_once(used: Used, tmp_path: Path) -> None:
    file = tmp_path / "ops.jsonl"
    file.write_text("\n".join([SEEDS_LINE, "", *events(11_000)]) + "\n")
    result = imported(used, str(file))
    assert result == counted(lines=11_002, accepted=11_001)
    ops = stored(used)
    assert [op["input_summary"] for op in ops[1:]] == [str(number) for number in range(11_000)]
    kept = {name: value for name, value in ops[0].items() if name not in ("seq", "recorded_at", "id")}
    assert kept == json.loads(SEEDS_LINE)

    again = imported(used, str(file))
    assert again == counted(resumed_lines=11_002)
    known = imported(used, str(file), "--from-start")
    assert (known["accepted"], known["duplicates"]) == (11_001, 11_001), "they have the ids that they had"
    assert len(stored(used)) == 11_001


def test_what_the_daemon_itself_has_put_into_its_journal_is_left_out_of_an_export(used: Used, tmp_path: Path) -> None:
    file = tmp_path / "export.jsonl"
    with served(tmp_path / "old") as old:
        old.events(*map(json.loads, events(3)))
        for name in "ab":
            assert old.client.post("/playbook/revoke", json={"of": "source", "name": name}).is_success
        old.event(endpoint="i", source="observer", input_summary="3", success=True)
        assert typed("export", "--output", str(file), "--url", old.url).returncode == 0
    file.write_text(file.read_text() + "no json\n" + json.dumps({"endpoint": "i", "source": "observer"}))
    ended = typed("import", str(file), "--url", used.url)
    said = "5 ops are in, 1 lines were rejected, 2 lines were left out: the daemon's own ops (decisions, revocations, "
    assert (ended.returncode, ended.stdout.startswith(said)) == (1, True), ended
    assert ended.stderr.startswith(f"{file}:7: ")
    assert [op["source"] for op in stored(used)] == ["scenario"] * 5


def test_of_an_export_a_daemon_that_lost_its_journals_end_gets_what_it_lacks(tmp_path: Path) -> None:
    data, file, config = tmp_path / "data", tmp_path / "export.jsonl", "[journal]\ndedup_window_ops = 1\n"
    with served(data, config) as daemon:
        daemon.events(*map(json.loads, events(4)), {"endpoint": "i", "input_summary": "4", "id": "its own"})
        daemon.client.post("/playbook/revoke", json={"of": "source", "name": "x"})
        assert typed("export", "--output", str(file), "--url", daemon.url).returncode == 0
        known = imported(daemon, str(file))
        assert known == counted(lines=6, accepted=6, duplicates=6), "what was revoked is there, too"
    journal = data / "_observer" / "ops.jsonl"
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:3]))
    with served(data, config, port=daemon.port) as daemon:
        daemon.events(*({"endpoint": "live"} for _ in range(2)))
        ended = typed("import", str(file), "--from-start", "--url", daemon.url)
        said = "5 ops are in, 3 of them were there already, 1 lines were left out"
        assert (ended.returncode, ended.stdout.startswith(said)) == (0, True), ended
        assert [op["input_summary"] for op in stored(daemon) if op["endpoint"] == "i"] == ["0", "1", "2", "3", "4"]
        assert imported(daemon, str(file))["resumed_lines"] == 6


def test_what_the_daemon_does_not_take_at_once_comes_in_parts(tmp_path: Path) -> None:
    file = tmp_path / "ops.jsonl"
    secrets = " ".join(f"sk-{place:08}abcdefghijklmnopqrstuvwx" for place in range(150))
    file.write_text("\n".join([*events(350), "no json", *events(90, error=secrets)]))
    with served(tmp_path / "data", "[listen]\nbatch_events_max = 100\n") as daemon:
        ended = typed("import", str(file), "--url", daemon.url)
        assert (ended.returncode, ended.stdout) == (1, "440 ops are in, 1 lines were rejected\n"), ended
        assert ended.stderr.startswith(f"{file}:351: ")
        assert [op["input_summary"] for op in stored(daemon)] == [*map(str, range(350)), *map(str, range(90))]


def test_how_lines_were_taken_otherwise_than_they_said_is_summed_up(used: Used, tmp_path: Path) -> None:
    file = tmp_path / "ops.jsonl"
    lines = [*events(5_999, source="mcp-fs"), *events(2, source="bot"), *events(2, source="cron")]
    file.write_text("\n".join(lines))
    notes = {
        f'source: "{name}" is not a known source; kept as scenario': n for name, n in (("mcp-fs", 5_999), ("cron", 2))
    }
    assert imported(used, str(file))["notes"] == notes
    said = typed("import", str(file), "--from-start", "--url", used.url).stderr.splitlines()
    assert said == [f"{note} ({count:,} lines)" for note, count in notes.items()]
    names = "\n".join(line for n in range(30) for line in events(1, source=f"s{n}"))
    assert imported(used, "-", stdin=names)["notes"]["further notes"] == 30 - importing.NOTES_MAX


def test_a_torn_last_line_of_standard_input_is_rejected_for_there_is_no_next_import(used: Used) -> None:
    lines = events(3)
    ended = typed("import", "-", "--url", used.url, stdin="\n".join(lines)[:-20])
    assert (ended.returncode, ended.stdout) == (1, "2 ops are in, 1 lines were rejected\n")
    assert ended.stderr.startswith("-:3: ")
    assert imported(used, "-", stdin="\n".join(lines))["accepted"] == 3


def test_a_file_that_grew_is_gone_on_with_and_one_that_was_replaced_is_begun_anew(used: Used, tmp_path: Path) -> None:
    file = tmp_path / "ops.jsonl"
    lines = events(5)
    file.write_text("\n".join(lines[:3]) + "\n" + lines[3][:20])
    first = typed("import", str(file), "--url", used.url)
    assert (first.returncode, first.stdout) == (0, "3 ops are in\n")
    assert "the last line is not complete" in first.stderr
    file.write_text("\n".join(lines))
    assert imported(used, str(file))["resumed_lines"] == 3
    assert [op["input_summary"] for op in stored(used)] == ["0", "1", "2", "3", "4"]
    file.write_text("\n".join(events(5, endpoint="another")) + "\n")
    assert imported(used, str(file)) == counted(lines=5, accepted=5)


def test_a_line_whose_end_is_written_during_the_import_comes_as_a_whole_with_the_next(
    used: Used, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ops.jsonl"
    lines = events(5)
    file.write_text("\n".join(lines[:3]) + "\n" + lines[3][:20])

    def sift_while_somebody_writes(*arguments: Any) -> Any:
        if file.stat().st_size < len("\n".join(lines)):
            with file.open("a") as log:
                log.write(lines[3][20:] + "\n" + lines[4] + "\n")
        return sift(*arguments)

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(importing, "sift", sift_while_somebody_writes)
    assert importing.import_(file, api=ApiOptions(url=used.url)) == 0
    assert [op["input_summary"] for op in stored(used)] == ["0", "1", "2"]
    assert imported_with(used, tmp_path / "state", str(file)) == counted(lines=2, accepted=2, resumed_lines=3)
    assert [op["input_summary"] for op in stored(used)] == ["0", "1", "2", "3", "4"]


def test_an_empty_journal_at_the_same_address_gets_the_file_from_its_beginning(tmp_path: Path) -> None:
    file = tmp_path / "ops.jsonl"
    file.write_text("\n".join(events(5)) + "\n")
    with served(tmp_path / "drill") as drill:
        imported(drill, str(file))
    file.write_text("\n".join(events(6)) + "\n")
    with served(tmp_path / "empty", port=drill.port) as daemon:
        ended = typed("import", str(file), "--url", daemon.url)
        assert (ended.returncode, ended.stdout) == (0, "6 ops are in\n")
        assert f"{file}: what was imported before is not in this daemon's journal" in ended.stderr
        assert imported(daemon, str(file))["resumed_lines"] == 6


@pytest.mark.parametrize("again", [(), ("--from-start",)], ids=["new", "known"])
def test_another_journal_that_is_in_use_gets_the_file_only_when_told_so(tmp_path: Path, again: tuple[str, ...]) -> None:
    file = tmp_path / "ops.jsonl"
    file.write_text("\n".join(events(5)) + "\n")
    with served(tmp_path / "drill") as drill:
        imported(drill, str(file))
        assert imported(drill, str(file), *again)["duplicates"] == 5 * len(again)
    for name, before in (("short", 2), ("long", 9)):  # the second has an op of that seq, and it is another's
        with served(tmp_path / name, port=drill.port) as daemon:
            for _ in range(before):
                daemon.event(endpoint="live")
            ended = typed("import", str(file), "--url", daemon.url)
            assert (ended.returncode, ended.stdout, "--from-start" in ended.stderr) == (65, "", True), ended
            assert len(stored(daemon)) == before
            assert imported(daemon, str(file), "--from-start")["accepted"] == 5
            assert imported(daemon, str(file))["resumed_lines"] == 5


def test_an_older_copy_of_the_journal_gets_what_it_has_not(tmp_path: Path) -> None:
    data, file, config = tmp_path / "data", tmp_path / "ops.jsonl", "[journal]\ndedup_window_ops = 1_000\n"
    file.write_text("\n".join(events(11_000)) + "\n")
    with served(data, config) as daemon:
        imported(daemon, str(file))
    shutil.copytree(data / "_observer", tmp_path / "copy")
    file.write_text("\n".join(events(12_500)) + "\n")
    with served(data, config, port=daemon.port) as daemon:
        assert imported(daemon, str(file))["resumed_lines"] == 11_000
    shutil.rmtree(data / "_observer")
    shutil.copytree(tmp_path / "copy", data / "_observer")
    with served(data, config, port=daemon.port) as daemon:
        daemon.event(endpoint="live")
        ended = typed("import", str(file), "--url", daemon.url)
        assert (ended.returncode, ended.stdout) == (0, "1,500 ops are in, 11,000 lines had been imported before\n")
        assert "the daemon's journal is an older copy; on from line 11,001" in ended.stderr
        ops = [op["input_summary"] for op in stored(daemon) if op["endpoint"] == "i"]
        assert ops == [str(number) for number in range(12_500)]


def test_a_note_without_earlier_places_is_gone_on_with(used: Used, tmp_path: Path) -> None:
    file, state = tmp_path / "ops.jsonl", tmp_path / "state"
    file.write_text("\n".join(events(5)) + "\n")
    assert imported_with(used, state, str(file))["accepted"] == 5
    (note,) = state.rglob("*.json")
    noted = json.loads(note.read_text())
    del noted["earlier"]
    note.write_text(json.dumps(noted))
    assert imported_with(used, state, str(file))["resumed_lines"] == 5


def test_of_many_places_some_are_kept_the_closer_the_newer() -> None:
    noted = Progressed()
    for seq in [5, 5, *range(10, 20_001, 10)]:
        noted = Progressed(seq, checksum="c", last_seq=seq).behind(noted)
    kept = [place.last_seq for place in noted.places()]
    assert (len(kept), kept[:3], kept[-1]) == (PLACES_MAX, [20_000, 19_990, 19_980], 5)
    assert all(newer - older <= (20_000 - older) / 2 for newer, older in pairwise(kept[1:]))
    assert [len(place.earlier) for place in noted.places()] == list(reversed(range(PLACES_MAX)))


def test_who_may_only_report_can_go_on_with_an_import_too(tmp_path: Path) -> None:
    tokens, file = tmp_path / "tokens", tmp_path / "ops.jsonl"
    made = typed("token", "writer").stdout.splitlines()
    tokens.write_text(made[-1])
    tokens.chmod(0o600)
    file.write_text("\n".join(events(5)) + "\n")
    with served(tmp_path / "data", f'[auth]\ntokens_file = "{tokens}"\n') as daemon:
        for resumed in (0, 5):
            result = answered("import", str(file), "--url", daemon.url, OBSERVER_TOKEN=made[1].strip())
            assert result["resumed_lines"] == resumed


def test_a_line_that_is_bad_is_named_and_the_others_come_in(used: Used, tmp_path: Path) -> None:
    file = tmp_path / "ops.jsonl"
    good = events(3)
    bad = ["no json", '{"city": 5}', "[]", "{}", '{"id":null,"endpoint":"n"}', '{"a":{"id":1}}']
    file.write_text("\n".join([good[0], *bad, *good[1:]]) + "\n")
    ended = typed("import", str(file), "--url", used.url)
    assert (ended.returncode, ended.stdout) == (1, "6 ops are in, 3 lines were rejected\n")
    *named, note = ended.stderr.splitlines()
    assert [line.partition(": ")[0] for line in named] == [f"{file}:{n}" for n in (2, 3, 4)]
    assert note.endswith(" (1 lines)"), "of an attribute that is an object"
    assert ended.stderr.count("city: ") == 1
    only_bad = tmp_path / "bad.jsonl"
    only_bad.write_text("x\n" * 50)
    ended = typed("import", str(only_bad), "--url", used.url)
    assert (ended.returncode, ended.stdout) == (1, "0 ops are in, 50 lines were rejected\n")
    assert len(ended.stderr.splitlines()) == importing.SHOWN_ERRORS_MAX + 1


def test_an_id_that_is_null_is_none(used: Used, tmp_path: Path) -> None:
    file = tmp_path / "ops.jsonl"
    file.write_text('{"id":null,"endpoint":"a"}\n {"endpoint":"b", "id" : null } \r\n{"id":"x","id":null}\n')
    assert imported(used, str(file))["accepted"] == 3
    assert imported(used, str(file), "--from-start")["duplicates"] == 3
    assert ["id" in op for op in stored(used)] == [True] * 3


def test_a_line_with_half_a_character_has_an_id_as_any_other(used: Used, tmp_path: Path) -> None:
    """As the seed's file has it, of a text that was cut within a pair."""
    file = tmp_path / "ops.jsonl"
    file.write_text(r'{"endpoint":"a","error":"cut \ud83d"}' + "\n" + r'{"endpoint":"b","error":"\ude00"}')
    assert imported(used, str(file))["accepted"] == 2
    assert imported(used, str(file), "--from-start")["duplicates"] == 2
    assert [op["error"] for op in stored(used)] == ["cut \ufffd", "\ufffd"]


@pytest.mark.parametrize(
    "text",
    [
        '{"endpoint":"a"}\r\n{"endpoint":"b"}\r\n',
        '{"endpoint":"a"}\n{"endpoint":"b"}',
        '[{"endpoint":"a"},{"endpoint":"b"}]',
    ],
)
def test_a_file_that_begins_with_a_byte_order_mark_comes_as_any_other(used: Used, tmp_path: Path, text: str) -> None:
    file = tmp_path / "ops.jsonl"
    file.write_text(text, encoding="utf-8-sig", newline="")
    assert imported(used, str(file))["accepted"] == 2
    assert imported(used, str(file))["accepted"] == 0
    assert imported(used, str(file), "--from-start")["duplicates"] == 2
    assert [op["endpoint"] for op in stored(used)] == ["a", "b"]


def test_a_compressed_file_and_standard_input(used: Used, tmp_path: Path) -> None:
    file = tmp_path / "ops.jsonl.gz"
    whole = "".join(line + "\n" for line in events(20))
    file.write_bytes(gzip.compress(whole.encode()))
    assert imported(used, str(file))["accepted"] == 20
    assert imported(used, str(file))["resumed_lines"] == 20
    assert imported(used, "-", stdin=whole)["accepted"] == 20
    assert imported(used, "-", stdin=whole)["accepted"] == 20
    assert len(stored(used)) == 60, "what comes from standard input is new each time"
    file.write_bytes(gzip.compress(whole.encode())[:-20])
    ended = typed("import", str(file), "--from-start", "--url", used.url)
    assert (ended.returncode, "cannot read" in ended.stderr) == (66, True)
    file.write_bytes(gzip.compress(whole.encode())[:10] + b"\xff" * 50)
    for flags in ((), ("--from-start",)):  # where it was, and what stands before that, lie in the same stream
        ended = typed("import", str(file), *flags, "--url", used.url)
        assert (ended.returncode, "cannot read" in ended.stderr) == (66, True)
    (tmp_path / "loop").symlink_to("loop")
    for unreadable in ("none", "loop", "."):
        assert typed("import", str(tmp_path / unreadable), "--url", used.url).returncode == 66
    assert typed("import", "--url", used.url).returncode == 64


@pytest.mark.parametrize("begins", ["", '{"endpoint":"a"}\n'])
def test_a_file_without_ends_of_lines_is_no_log_and_does_not_fill_the_memory(
    used: Used, tmp_path: Path, begins: str
) -> None:
    file = tmp_path / "ops.jsonl.gz"
    file.write_bytes(gzip.compress(begins.encode() + b"x" * LINE_BYTES_MAX, compresslevel=1))
    ended = typed("import", str(file), "--url", used.url)
    assert (ended.returncode, "one JSON object a line" in ended.stderr) == (66, True), ended.stderr


@pytest.mark.parametrize(
    ("damage", "given", "count"),
    [
        ("cut", "ops.jsonl.gz", 9),
        ("cut", "-", 3_000),
        ("garbage", "ops.jsonl.gz", 3_000),
        ("garbage", "-", 9),
        ("line", "ops.jsonl.gz", 3_000),
    ],
)
def test_what_stands_before_the_place_where_a_file_cannot_be_read_comes_in(
    used: Used, tmp_path: Path, damage: str, given: str, count: int
) -> None:
    file = tmp_path / "ops.jsonl.gz"
    whole = gzip.compress("".join(line + "\n" for line in events(count)).encode())
    behind = {"cut": b"", "garbage": b"garbage", "line": gzip.compress(b"x" * LINE_BYTES_MAX, 1)}[damage]
    # what is cut off is the checksum: what is compressed is there as a whole
    file.write_bytes((whole[:-8] if damage == "cut" else whole) + behind)
    with file.open("rb") as stdin:
        command = [*COMMAND, "import", given, "--url", used.url]
        ended = subprocess.run(
            command, env=environment(), cwd=tmp_path, stdin=stdin, capture_output=True, text=True, check=False
        )
    assert ended.returncode == 66
    assert f"{given}: {count:,} lines are in; " in ended.stderr
    assert f"cannot read {given}: " in ended.stderr
    assert len(stored(used)) == count
    file.write_bytes(whole + gzip.compress(events(1)[0].encode()))
    if given != "-":
        assert imported(used, str(file)) == counted(lines=1, accepted=1, resumed_lines=count)


def test_of_an_array_that_was_cut_with_its_file_both_are_told(used: Used, tmp_path: Path) -> None:
    file = tmp_path / "ops.json.gz"
    file.write_bytes(gzip.compress(("[\n" + ",\n".join(events(9))).encode())[:-8])
    ended = typed("import", str(file), "--url", used.url)
    assert (ended.returncode, stored(used)) == (65, [])
    assert f"cannot read {file}: Compressed file ended" in ended.stderr


def test_a_log_is_known_again_wherever_it_lies_and_is_told_from_one_that_begins_alike(
    used: Used, tmp_path: Path
) -> None:
    folder, moved = tmp_path / "logs", tmp_path / "logs" / "a.jsonl.1"
    folder.mkdir()
    file = folder / "a.jsonl"
    lines = events(3, timestamp="2026-11-22T10:00:00.123Z", output_summary="x" * 2_000)
    file.write_text("\n".join(lines))
    assert imported(used, str(file))["accepted"] == 3
    lines += events(1, timestamp="2026-11-22T10:00:01Z")
    file.write_text("\n".join(lines) + "\n")
    again = imported(used, "logs/../logs/a.jsonl", "--from-start", cwd=tmp_path)
    assert (again["accepted"], again["duplicates"]) == (4, 3), "also one that had no newline yet"
    packed = folder / "a.old"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    file.rename(moved)
    for given in (moved, packed):
        assert imported(used, str(given))["duplicates"] == 4
    assert imported(used, "-", stdin=moved.read_text())["duplicates"] == 4
    file.write_text("\n".join([lines[0], lines[2], lines[1]]) + "\n")
    assert imported(used, str(file))["duplicates"] == 0
    assert [op["input_summary"] for op in stored(used)] == ["0", "1", "2", "0", "0", "2", "1"]


def test_two_short_logs_that_begin_with_the_same_lines_both_come_in(used: Used, tmp_path: Path) -> None:
    for ending in ("jsonl", "json"):
        for name in ("a", "b"):
            file, lines = tmp_path / f"{name}.{ending}", events(3, timestamp="2026-11-22T10:00:00Z", source=name)
            lines[:2] = events(2, timestamp="2026-11-22T10:00:00Z")
            file.write_text("".join(f"{line}\n" for line in lines) if ending == "jsonl" else f"[{','.join(lines)}]")
            assert imported(used, str(file))["duplicates"] == 0
            assert imported(used, str(file), "--from-start")["duplicates"] == 3


def test_two_long_arrays_are_told_from_each_other_by_how_they_begin(used: Used, tmp_path: Path) -> None:
    first = events(1, timestamp="2026-11-22T11:00:00Z")
    for name, text, known in (("a", "a", 0), ("b", "b", 0), ("moved", "b", 3)):
        lines = [*first, *events(2, timestamp="2026-11-22T11:00:00Z", output_summary=text * 2_500)]
        (tmp_path / name).write_text(f"[{','.join(lines)}]")
        assert imported(used, str(tmp_path / name))["duplicates"] == known


def test_lines_without_a_time_are_known_by_their_file(used: Used, tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text("\n".join(events(2)) + "\n")
        assert imported(used, str(tmp_path / name))["duplicates"] == 0, "two agents did the same"
    (tmp_path / "link.jsonl").symlink_to("a.jsonl")
    assert imported(used, "link.jsonl", "--from-start", cwd=tmp_path)["duplicates"] == 2


def test_the_items_of_an_array_are_known_again(used: Used, tmp_path: Path) -> None:
    file = tmp_path / "ops.json"
    lines = events(3, timestamp="2026-11-22T10:00:00.123Z")
    file.write_text(f"[{lines[0]},\n{lines[1]}]\n")
    assert imported(used, str(file))["accepted"] == 2
    file.write_text(f"[{','.join(lines)}]")
    again = imported(used, str(file))
    assert (again["accepted"], again["duplicates"]) == (3, 2)
    file.write_text("[1, {}]")
    ended = typed("import", str(file), "--url", used.url)
    assert (ended.returncode, ended.stdout) == (1, "1 ops are in, 1 lines were rejected\n")


def test_an_array_that_ends_without_a_newline_is_whole_and_one_that_is_being_written_is_not(
    used: Used, tmp_path: Path
) -> None:
    file = tmp_path / "ops.json"
    file.write_text(json.dumps([json.loads(line) for line in events(3)]).removesuffix("]"))
    ended = typed("import", str(file), "--url", used.url)
    assert (ended.returncode, ended.stdout) == (0, "0 ops are in\n")
    assert "the last line is not complete; left for the next import" in ended.stderr
    file.write_text(json.dumps([json.loads(line) for line in events(3)], indent=1))
    ended = typed("import", str(file), "--url", used.url)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "3 ops are in\n", "")


def test_a_log_that_is_rotated_or_removed_while_it_is_read_is_read_to_its_end(tmp_path: Path) -> None:
    file = tmp_path / "ops.jsonl"
    file.write_text("\n".join(events(10_000)) + "\n")
    with opened(file) as log:
        size = log.size
        batches = log.batches(0)
        first = next(batches)
        file.rename(tmp_path / "ops.jsonl.1")
        assert (len(first) + sum(map(len, batches)), log.size) == (10_000, size)


def test_a_compressed_file_is_known_by_what_is_in_it(used: Used, tmp_path: Path) -> None:
    whole = gzip.compress("".join(line + "\n" for line in events(20)).encode())
    (tmp_path / "ops").write_bytes(whole)
    assert imported(used, str(tmp_path / "ops"))["accepted"] == 20
    (tmp_path / "plain.gz").write_text("\n".join(events(2)) + "\n")
    assert imported(used, str(tmp_path / "plain.gz"))["accepted"] == 2
    command = [*COMMAND, "import", "-", "--url", used.url]
    ended = subprocess.run(command, input=whole, env=environment(), capture_output=True, timeout=60, check=True)
    assert ended.stdout == b"20 ops are in\n"


def test_a_pipe_that_is_given_as_a_file_is_read_as_standard_input_is(used: Used, tmp_path: Path, state: Path) -> None:
    (tmp_path / "ops.gz").write_bytes(gzip.compress(b'{"ok":true}\n{"error":"torn'))
    script = f"{' '.join(COMMAND)} import <(cat {tmp_path / 'ops.gz'}) --url {used.url}"
    ended = subprocess.run(
        ["bash", "-c", script], env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout) == (1, "1 ops are in, 1 lines were rejected\n"), ended
    assert not state.exists()


@pytest.mark.parametrize(
    ("given", "said"), [("-", "| tail -n +10001 | observer-actors import -"), ("file", "the same command goes on from")]
)
async def test_an_import_that_fails_says_how_to_go_on(tmp_path: Path, given: str, said: str) -> None:
    lines = "".join(line + "\n" for line in events(15_000))
    (tmp_path / "file").write_text(lines)
    async with http_peer() as daemon:
        taken = Json({"accepted": 5_000, "last_seq": 1})
        daemon.on("/events", taken, taken, Close())
        importing = partial(typed, "import", given, "--url", daemon.url, stdin=lines, cwd=tmp_path)
        ended = await trio.to_thread.run_sync(importing)
    assert ended.returncode == 69, ended
    assert f"{given}: 10,000 lines are in; " in ended.stderr
    assert said in ended.stderr


@pytest.mark.parametrize(
    ("file", "given", "said"),
    [
        ("file", "-", "… | tail -n +5001 | observer-actors import -"),
        ("file.gz", "-", "… | gunzip | tail -n +5001 | observer-actors import -"),
        ("file", "file", "the same command goes on from"),
    ],
)
async def test_an_import_that_is_interrupted_says_how_to_go_on(
    tmp_path: Path, file: str, given: str, said: str
) -> None:
    lines = "".join(line + "\n" for line in events(10_000)).encode()
    (tmp_path / file).write_bytes(gzip.compress(lines) if file.endswith(".gz") else lines)
    async with http_peer() as daemon:
        daemon.on("/events", Json({"accepted": 5_000, "last_seq": 1}), Hang())
        with (tmp_path / file).open("rb") as stdin:
            command = [*COMMAND, "import", given, "--url", daemon.url]
            to = subprocess.PIPE
            running = await trio.lowlevel.open_process(command, env=environment(), cwd=tmp_path, stdin=stdin, stderr=to)
        await daemon.wait_requests(2, "/events")
        running.send_signal(signal.SIGINT)
        assert running.stderr is not None
        stderr = b"".join([part async for part in running.stderr]).decode()
        await running.wait()
    assert running.returncode == 130
    assert f"{given}: 5,000 lines are in; " in stderr
    assert said in stderr


def test_a_daemon_that_takes_less_at_once_gets_less_at_once(tmp_path: Path) -> None:
    config = "[listen]\nbody_bytes_max = 4_000\n"
    with served(tmp_path / "data", config) as daemon:
        file = tmp_path / "ops.jsonl"
        long = json.dumps({"endpoint": "i", "input_summary": "x" * 5_000})
        file.write_text("\n".join([*events(200), long, *events(1)]) + "\n")
        ended = typed("import", str(file), "--url", daemon.url)
        assert (ended.returncode, ended.stdout) == (1, "201 ops are in, 1 lines were rejected\n")
        assert f"{file}:201: " in ended.stderr
        assert len(stored(daemon)) == 201


@pytest.mark.parametrize("round_", range(3))
def test_an_import_that_is_killed_goes_on_and_stores_nothing_twice(fresh: Served, tmp_path: Path, round_: int) -> None:
    file = tmp_path / "ops.jsonl"
    count = 60_000
    file.write_text("\n".join(events(count)) + "\n")
    command = [*COMMAND, "import", str(file), "--url", fresh.url]
    importer = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL)
    while fresh.json("/health")["last_seq"] < 5_000 * (1 + 2 * round_):
        pass
    importer.send_signal(signal.SIGKILL)
    importer.wait()
    imported(fresh, str(file))
    assert [op["input_summary"] for op in stored(fresh)] == [str(number) for number in range(count)]


def test_a_disk_that_is_full_is_told_of_once_while_it_is_tried_again(
    fresh: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept = [0.0]
    clock = SimpleNamespace(monotonic=lambda: sum(slept), sleep=slept.append)
    monkeypatch.setattr("observer_actors.commands._api.time", clock)
    file = tmp_path / "ops.jsonl"
    file.write_text("\n".join(events(5)) + "\n")
    with no_file_may_grow(fresh.process.pid):
        ended = typed("import", str(file), "--url", fresh.url)
    assert (ended.returncode, ended.stderr.count("; sent again for up to 60 s\n")) == (75, 1), ended.stderr
    assert sum(slept) > 50


def test_progress_is_told_when_it_takes_long(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([0.0, 1.0, 2.5, 2.6, 5.0])
    monkeypatch.setattr("observer_actors.commands._screen.time", SimpleNamespace(monotonic=lambda: next(times)))
    with LongWork("importing", "bytes") as progress:
        progress(1, 10)
        progress(5, 10)
        progress(6, 10)
        progress(7, 0)
    assert capfd.readouterr().err.splitlines() == ["importing:  50% of 10 bytes", "importing: 7 bytes"]


async def test_of_an_export_with_gaps_a_daemon_is_asked_for_what_lies_together() -> None:
    seqs = (300_000, 5, 7)
    lines = [json.dumps({"seq": seq, "recorded_at": "2026-11-22T10:00:00.000Z", "id": str(seq)}) for seq in seqs]
    async with http_peer() as daemon:
        daemon.on("/ops", Json({"ops": [], "next": None, "complete": True}))
        daemon.on("/events", Json({"accepted": 3, "rejected": 0, "last_seq": 3}))
        given = ("import", "-", "--url", daemon.url)
        ended = await trio.to_thread.run_sync(partial(typed, *given, stdin="\n".join(lines) + "\n"))
        assert ended.returncode == 0, ended.stderr
        asked = [(request.query["after_seq"], request.query["before_seq"]) for request in daemon.received("/ops")]
    assert asked == [(["4"], ["8"]), (["299999"], ["300001"])]
