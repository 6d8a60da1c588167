"""Texts that a terminal, an editor or a spreadsheet would obey: whatever the daemon writes or answers holds none."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from observer_actors.op import decode_op
from tests.commands.typed import typed
from tests.daemon.served import Served, served
from tests.harness import running_daemon

HOSTILE: Final = "\x1b[2J\x9b31m\x7f\u202e\u2066\u200f\u2028\x85\r\n\x00é\u2019×"
UNSEEN: Final = "\u200b\u3164\u115f\ufe00"
"""Of which Python takes all but the first for printable."""
FORBIDDEN: Final = [bytes([code]) for code in (*range(10), *range(11, 32), 127)] + [
    text.encode()
    for text in (
        *map(chr, range(0x80, 0xA0)),
        *"\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",
        *UNSEEN,
    )
]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("data")) as one:
        event = {
            "endpoint": HOSTILE,
            "input_summary": "=" + HOSTILE,
            "success": False,
            "error": "failed " + HOSTILE,
            "own": HOSTILE,
        }
        one.event(**event)
        one.event(**{**event, "endpoint": "\\x1b[2J", "success": True})
        one.event(endpoint=f"pay{UNSEEN[1:]}", input_summary="=1", success=False, error=UNSEEN)
        yield one


def is_harmless(data: bytes) -> bool:
    return not [one for one in FORBIDDEN if one in data]


def test_the_journal_holds_none_and_gives_the_text_back(daemon: Served) -> None:
    (file,) = Path(daemon.data_dir).rglob("ops.jsonl")
    data = file.read_bytes()
    assert is_harmless(data)
    assert "é\u2019×" in data.decode()
    assert decode_op(data.splitlines()[0]).endpoint == HOSTILE


async def test_no_file_of_json_holds_any_and_the_counters_give_the_text_back(tmp_path: Path) -> None:
    (tmp_path / "observer.toml").write_text("[journal]\nsegment_bytes_max = 2000\n")
    started = partial(running_daemon, tmp_path / "data", "--config", str(tmp_path / "observer.toml"))
    async with started() as daemon:
        for number in range(10):
            await daemon.event(endpoint=HOSTILE, success=False, error=HOSTILE, source=HOSTILE, id=f"{HOSTILE}{number}")
        await daemon.event(source="auditor", sig_hash=HOSTILE, one_liner=HOSTILE, overall="approve")
        await daemon.json("/kb/outcomes")  # has waited for the row
        await daemon.logged("segment_compacted")
        assert await daemon.stop() == 0
    files = {path.name: path.read_bytes() for path in (tmp_path / "data").rglob("*.json*")}
    assert files.keys() >= {"ops.jsonl", "manifest.json", "stats.json", "librarian.json", "outcomes.jsonl"}
    contents = {name: gzip.decompress(data) if name.endswith(".gz") else data for name, data in files.items()}
    assert [name for name, data in contents.items() if not is_harmless(data)] == []
    async with started() as daemon:
        assert HOSTILE in (await daemon.json("/stats"))["lifetime"]["endpoints"]
        assert not [line for line in daemon.log if line["event"] == "snapshot_unreadable"]


@pytest.mark.parametrize("path", ["/ops", "/ops/1", "/failures", "/stats", "/metrics", "/playbook"])
def test_no_answer_holds_any(daemon: Served, path: str) -> None:
    answer = daemon.client.get(path)
    assert answer.status_code == 200
    assert is_harmless(answer.content)
    if path == "/ops/1":
        assert answer.json()["input_summary"] == "=" + HOSTILE


def test_labels_that_look_alike_are_not_the_same(daemon: Served) -> None:
    daemon.json("/stats")  # has waited until all is counted
    series = [line.rpartition(" ")[0] for line in daemon.client.get("/metrics").text.splitlines()]
    series = [line for line in series if line.startswith("observer_endpoint_operations_total")]
    assert len(series) == len(set(series)) == 6


@pytest.mark.parametrize(
    "command",
    [("ops",), ("ops", "--json"), ("failures",), ("failures", "--json"), ("export",), ("export", "--format", "csv")],
)
def test_no_command_prints_any(daemon: Served, command: tuple[str, ...]) -> None:
    ended = typed(*command, "--url", daemon.url)
    assert ended.returncode == 0
    assert is_harmless(ended.stdout.encode().replace(b"\r\n", b"\n"))


def test_no_cell_is_a_formula(daemon: Served) -> None:
    ended = typed("export", "--format", "csv", "--url", daemon.url)
    rows = list(csv.DictReader(io.StringIO(ended.stdout)))
    assert [row["input_summary"][:2] for row in rows] == ["'="] * 3
    assert json.loads(rows[0]["attrs"]) == {"own": HOSTILE}
