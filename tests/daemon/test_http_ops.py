"""`/ops` and `/ops/{seq}` over the ring, sealed and compressed segments alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from tests.daemon.served import Served, served

OPS: Final = 1_500
START: Final = datetime(2026, 1, 1, tzinfo=UTC)
CONFIG: Final = """
[journal]
segment_bytes_max = 30000
[ring]
capacity_ops = 100
"""
Op = dict[str, Any]


def event(number: int) -> dict[str, object]:
    return {
        "timestamp": (START + timedelta(seconds=number)).isoformat().replace("+00:00", "Z"),
        "source": ("mcp", "bot", "scenario")[number % 3],
        "endpoint": f"e{number % 7}" if number != 700 else "rare one & only",
        "ok": number % 5 != 0,
    }


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("ops"), CONFIG) as running:
        for first in range(0, OPS, 100):
            running.events(*(event(number) for number in range(first, first + 100)))
        segments = running.data_dir / "_observer" / "segments"
        while len(list(segments.glob("*.jsonl.gz"))) < 5 or list(segments.glob("*.jsonl")):
            running.json("/ready")
        yield running


@pytest.fixture(scope="module")
def whole(daemon: Served) -> list[Op]:
    first: list[Op] = daemon.json("/ops", limit=1_000, order="oldest")["ops"]
    rest: list[Op] = daemon.json("/ops", limit=1_000, after_seq=1_000)["ops"]
    return first + rest


def paged(daemon: Served, **params: Any) -> list[Op]:
    """Follow the cursors to the end."""
    found: list[Op] = []
    page = daemon.json("/ops", **params)
    while True:
        assert len(page["ops"]) <= params.get("limit", 100)
        assert page["complete"] is True
        found += page["ops"]
        if page["next"] is None:
            return found
        page = daemon.json("/ops", **params, cursor=page["next"])


def test_all_ops_are_there_once_in_order_also_from_compressed_segments(whole: list[Op]) -> None:
    assert [op["seq"] for op in whole] == list(range(1, OPS + 1))
    assert [op["timestamp"] for op in whole] == [event(number)["timestamp"] for number in range(OPS)]
    assert all(op["recorded_at"] for op in whole)


def test_the_newest_hundred_come_first_unless_told_otherwise(daemon: Served, whole: list[Op]) -> None:
    page = daemon.json("/ops")
    assert page["ops"] == whole[:-101:-1]
    assert page["next"] == f"newest-{OPS - 99}"
    assert page["complete"] is True


@pytest.mark.parametrize("order", ["newest", "oldest"])
@pytest.mark.parametrize("limit", [7, 100, 333, 1_000])
def test_paging_through_everything_gives_the_whole(daemon: Served, whole: list[Op], order: str, limit: int) -> None:
    expected = whole if order == "oldest" else whole[::-1]
    if limit < 100:  # one request each; a part of it will do
        params = {"after_seq": 600, "before_seq": 900}
        assert paged(daemon, order=order, limit=limit, **params) == [op for op in expected if 600 < op["seq"] < 900]
    else:
        assert paged(daemon, order=order, limit=limit) == expected


@pytest.mark.parametrize("order", ["newest", "oldest"])
@pytest.mark.parametrize(
    ("params", "fits"),
    [
        ({"source": "bot"}, lambda op: op["source"] == "bot"),
        ({"source": "nobody"}, lambda _: False),
        ({"endpoint": "e3"}, lambda op: op["endpoint"] == "e3"),
        ({"endpoint": "rare one & only"}, lambda op: op["seq"] == 701),
        ({"success": "false"}, lambda op: not op["success"]),
        (
            {"success": "1", "source": "mcp", "endpoint": "e1"},
            lambda op: (op["success"], op["source"], op["endpoint"]) == (True, "mcp", "e1"),
        ),
        ({"since": "2026-01-01T00:10:00Z"}, lambda op: op["seq"] > 600),
        ({"until": "2026-01-01T00:10:00Z"}, lambda op: op["seq"] <= 600),
        (
            {"since": "2026-01-01T01:05:00+01:00", "until": "2026-01-01T00:05:09"},
            lambda op: 301 <= op["seq"] <= 309,
        ),
        ({"after_seq": 1_490}, lambda op: op["seq"] > 1_490),
        ({"before_seq": 10}, lambda op: op["seq"] < 10),
        ({"after_seq": 5, "before_seq": 5}, lambda _: False),
        ({"after_seq": 10**17}, lambda _: False),
        ({"since": "2027-01-01"}, lambda _: False),
    ],
)
def test_a_filter_gives_what_fits_it_in_either_order(
    daemon: Served, whole: list[Op], params: dict[str, Any], fits: Callable[[Op], bool], order: str
) -> None:
    expected = [op for op in whole if fits(op)]
    found = paged(daemon, **params, order=order, limit=200)
    assert found == (expected if order == "oldest" else expected[::-1])


def test_after_seq_alone_reads_on_from_there(daemon: Served, whole: list[Op]) -> None:
    assert daemon.json("/ops", after_seq=50, limit=10)["ops"] == whole[50:60]


def test_a_page_stays_the_same_while_new_ops_come(daemon: Served, whole: list[Op]) -> None:
    page = daemon.json("/ops", source="bot", limit=10, before_seq=OPS + 1)
    assert page["next"] is not None
    assert (
        daemon.json("/ops", source="bot", limit=10, cursor=page["next"])["ops"]
        == [op for op in whole[::-1] if op["source"] == "bot"][10:20]
    )


def test_one_op_is_found_wherever_it_lies(daemon: Served, whole: list[Op]) -> None:
    for seq in (1, 2, 300, 701, 1_399, OPS):
        assert daemon.json(f"/ops/{seq}") == whole[seq - 1]


@pytest.mark.parametrize("seq", ["0", str(OPS + 1), "999999999999999999"])
def test_an_op_that_is_not_there_is_404_and_the_last_is_named(daemon: Served, seq: str) -> None:
    response = daemon.client.get(f"/ops/{seq}")
    assert response.status_code == 404
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["error"] == f"there is no op {seq}"
    assert response.json()["hint"] == f"the last is {OPS}"


@pytest.mark.parametrize("seq", ["x", "-1", "1.0", "٣", "9" * 19, "9" * 5_000])
def test_a_seq_that_is_no_number_is_400(daemon: Served, seq: str) -> None:
    response = daemon.client.get(f"/ops/{seq}")
    assert (response.status_code, response.json()["field"]) == (400, "seq")


@pytest.mark.parametrize(
    ("query", "field", "hint"),
    [
        ("sourse=mcp", "sourse", "did you mean source?"),
        ("limit=5&limit=6", "limit", ""),
        ("limit=0", "limit", ""),
        ("limit=" + "9" * 5_000, "limit", ""),
        ("since=now", "since", "e.g. 2026-11-22T10:00:00Z"),
        ("success=maybe", "success", ""),
        ("order=up", "order", ""),
        ("cursor=x", "cursor", "give the `next` of an earlier answer back"),
        ("cursor=newest-5&order=oldest", "order", "keep the order that the cursor was given for"),
    ],
)
def test_a_mistake_in_the_query_is_named(daemon: Served, query: str, field: str, hint: str) -> None:
    response = daemon.client.get(f"/ops?{query}")
    assert response.status_code == 400
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = response.json()
    assert (problem["field"], problem.get("hint", "")) == (field, hint)
    assert problem["error"].startswith(f"{field}: ")


def test_a_filter_that_matches_rarely_pages_on_behind_an_incomplete_page(tmp_path: Path) -> None:
    with served(tmp_path, "[journal]\nsegment_bytes_max = 8000000\n") as daemon:
        daemon.event(source="bot")
        for _ in range(5):
            assert daemon.ingest.post("/events", content=b"{}\n" * 42_000).json()["accepted"] == 42_000
        daemon.event(source="bot")
        last = 5 * 42_000 + 2
        first = daemon.json("/ops", source="bot")
        assert ([op["seq"] for op in first["ops"]], first["complete"]) == ([last], False)
        second = daemon.json("/ops", source="bot", cursor=first["next"])
        assert ([op["seq"] for op in second["ops"]], second["next"], second["complete"]) == ([1], None, True)
        upward = daemon.json("/ops", source="auditor", order="oldest")
        assert (upward["ops"], upward["complete"]) == ([], False)
        rest = daemon.json("/ops", source="auditor", cursor=upward["next"])
        assert (rest["ops"], rest["next"], rest["complete"]) == ([], None, True)
