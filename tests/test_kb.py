"""The knowledge base: which verdicts give rows, what is similar, and an index that reads only what is new."""

from __future__ import annotations

import errno
import itertools
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from observer_actors.errors import DiskFailed
from observer_actors.journal import PosixDisk
from observer_actors.kb import (
    AuditRow,
    FindingCounts,
    OutcomeFilter,
    OutcomeRow,
    OutcomesIndex,
    outcomes_path,
    verdict_row,
)
from observer_actors.kb import index as index_module
from observer_actors.kb.files import append_row, append_rows, read_audit_rows
from observer_actors.kb.history import history_of, stem_of, told
from observer_actors.op import Op, time_us
from observer_actors.secrets import compiled_secrets
from tests.fakes.disk import FakeDisk

ALL = OutcomeFilter(limit=1_000)


def row(number: int, **fields: Any) -> AuditRow:
    given = {"id": f"id-{number}", "signature": "pr6-7fe47bab", "overall": "approve", "ok": True}
    return AuditRow(kind="audit", **{**given, "timestamp": f"2026-11-22T10:{number % 60:02}:00.000Z", **fields})


def verdict(**fields: Any) -> Op:
    given = {
        "timestamp": "2026-11-22T10:00:00.000Z",
        "endpoint": "auditor:verdict",
        "input_summary": "?",
        "success": False,
        "duration_ms": 1200,
        "output_summary": "two tests are missing",
        "source": "auditor",
        "sig_hash": "pr6-7fe47bab",
        "seq": 7,
        "recorded_at": "2026-11-22T10:00:01.000000Z",
        "id": "audit-1",
    }
    return Op(**{**given, **fields})


def found(index: OutcomesIndex, **filters: Any) -> list[str]:
    return [each.id for each in index.find(OutcomeFilter(**filters)).rows if isinstance(each, AuditRow)]


def test_a_verdict_gives_the_row_that_its_auditor_would_write() -> None:
    attrs = {"overall": "request_changes", "findings_info": 1, "findings_warn": 2, "findings_block": 0}
    assert verdict_row(verdict(attrs=attrs)) == AuditRow(
        kind="audit",
        signature="pr6-7fe47bab",
        overall="request_changes",
        ok=False,
        findings=FindingCounts(1, 2, 0),
        one_liner="two tests are missing",
        duration_ms=1200,
        timestamp="2026-11-22T10:00:00.000Z",
        id="audit-1",
    )


def test_a_verdict_of_the_seeds_gives_what_is_known() -> None:
    refused = verdict_row(verdict(id=msgspec.UNSET))
    approved = verdict_row(verdict(id=msgspec.UNSET, success=True, seq=8))
    assert refused is not None
    assert approved is not None
    assert (refused.overall, refused.ok, refused.findings) == ("not_approved", False, FindingCounts())
    assert (approved.overall, approved.ok) == ("approve", True)
    assert refused == verdict_row(verdict(id=msgspec.UNSET)), "the same at each reading"
    assert len({refused.id, approved.id}) == 2
    assert all(each.id.startswith("op-") for each in (refused, approved))


@pytest.mark.parametrize(
    "fields",
    [
        {"source": "mcp"},
        {"sig_hash": None},
        {"sig_hash": ""},
        {"sig_hash": msgspec.UNSET},
        {"endpoint": "llm:call"},
        {"endpoint": "llm:call", "attrs": {"overall": 7}},
    ],
)
def test_what_is_no_verdict_gives_none(fields: dict[str, Any]) -> None:
    assert verdict_row(verdict(**fields)) is None


def test_what_a_caller_makes_up_stays_within_bounds() -> None:
    attrs: dict[str, Any] = {"overall": "o" * 999, "findings_info": True, "findings_warn": -1, "findings_block": 1.5}
    made = verdict_row(verdict(sig_hash="s" * 9_999, output_summary="x" * 99_999, attrs=attrs))
    assert made is not None
    assert made.findings == FindingCounts()
    assert [len(each) for each in (made.signature, made.overall, made.one_liner)] == [200, 64, 1_000]


@pytest.mark.parametrize(
    ("signature", "stem"),
    [
        ("pr6-7fe47bab", "pr6"),
        ("PR#6", "pr6"),
        ("pr-6@fix", "pr6"),
        ("pr66-7fe47bab", "pr66"),
        ("print-7fe47bab", "print"),
        ("pr6x-7fe47bab", "pr6x"),
        ("feature/x-7fe47bab", "feature/x"),
        ("main@7fe47bab0011223344556677889900aabbccddee", "main"),
        ("main-7fe47bab-dirty", "main"),
        ("nightly", "nightly"),
        ("release-1.2", "release-1.2"),
        ("7fe47bab", "7fe47bab"),
        ("-7fe47bab", "-7fe47bab"),
        ("", ""),
    ],
)
def test_the_stem_is_what_stands_before_the_commit(signature: str, stem: str) -> None:
    assert stem_of(signature) == stem


@given(st.text(max_size=40), st.text("0123456789abcdef", min_size=7, max_size=40))
def test_signatures_of_one_branch_are_similar(branch: str, commit: str) -> None:
    assert stem_of(f"x{branch}-{commit}") == stem_of(f"x{branch}-{commit[::-1]}")


def test_history_sums_up_the_same_and_the_similar() -> None:
    rows = [
        row(1, signature="pr6-1111111", overall="block", ok=False, findings=FindingCounts(1, 2, 3), one_liner="a key"),
        row(2),
        row(3, overall="request_changes", ok=False, findings=FindingCounts(0, 1, 0), one_liner="no test"),
        row(4, signature="pr7-7fe47bab"),
    ]
    history = history_of(rows, "pr6-7fe47bab", newest=2, complete=True)
    assert (history.stem, history.newest) == ("pr6", [rows[2], rows[1]])
    same, similar = history.same, history.similar
    assert (same.audits, same.refused, same.overall) == (2, 1, {"approve": 1, "request_changes": 1})
    assert (same.first, same.last) == (rows[1].timestamp, rows[2].timestamp)
    assert (similar.audits, similar.refused, similar.findings) == (1, 1, FindingCounts(1, 2, 3))
    assert told(history) == (
        "pr6-7fe47bab was refused once in 2 earlier audits; pr6 (other commits) was refused once in 1 earlier audit;"
        " last for: no test"
    )
    assert told(history_of(rows, "pr8-7fe47bab", newest=5, complete=True)) == ""


def test_counts_that_no_audit_can_have_are_not_added_up() -> None:
    """Two of 4,300 digits come to a number that is no JSON."""
    most = 10**4_300 - 1
    rows = [row(n, findings=FindingCounts(most, n, -most)) for n in (1, 2)]
    same = history_of(rows, "pr6-7fe47bab", newest=5, complete=True).same
    assert msgspec.json.decode(msgspec.json.encode(same.findings)) == {"info": 0, "warn": 3, "block": 0}


def test_many_verdicts_by_name_are_bounded() -> None:
    rows = [row(n, overall=f"o{n}") for n in range(50)]
    overall = history_of(rows, "pr6-7fe47bab", newest=5, complete=True).same.overall
    assert (len(overall), overall["other"], sum(overall.values())) == (21, 30, 50)


def test_rows_are_found_newest_first_by_each_filter_and_page_by_page(tmp_path: Path) -> None:
    index = OutcomesIndex(tmp_path)
    assert index.find(ALL).rows == []
    append_rows(tmp_path, [row(n, signature=f"s{n % 2}", overall=f"o{n % 3}") for n in range(10)])
    assert found(index) == [f"id-{n}" for n in range(9, -1, -1)]
    assert found(index, signature="s1", overall="o0") == ["id-9", "id-3"]
    assert found(index, kind="audit", limit=1) == ["id-9"]
    assert found(index, kind="other") == []
    pages, before = [], None
    while True:
        page = index.find(OutcomeFilter(limit=4, before=before))
        pages.append([each.id for each in page.rows if isinstance(each, AuditRow)])
        before = page.before
        if before is None:
            break
        append_row(tmp_path, row(100 + len(pages)))  # what is new does not move the pages
    assert pages == [[f"id-{n}" for n in range(a, b, -1)] for a, b in ((9, 5), (5, 1), (1, -1))]


def test_since_asks_for_the_rows_own_time(tmp_path: Path) -> None:
    append_rows(tmp_path, [row(1), row(2), row(3, timestamp=""), row(4, timestamp="yesterday")])
    assert found(OutcomesIndex(tmp_path), since_us=time_us(row(2).timestamp)) == ["id-2"]


def test_other_programs_rows_are_found_by_their_kind(tmp_path: Path) -> None:
    append_row(tmp_path, row(1))
    with outcomes_path(tmp_path).open("ab") as file:
        file.write(b'{"kind":"playbook","signature":"s","x":[1]}\n\n{"x":1}\n[]\n{"kind":"audit"}\n{"kind":"playb')
    index = OutcomesIndex(tmp_path)
    page = index.find(ALL)
    assert list(page.rows) == [OutcomeRow(kind="playbook", signature="s"), row(1)]
    assert page.damaged == 1, "the audit without a signature; the last line is not yet ended"
    append_row(tmp_path, row(2))
    assert found(index) == ["id-2", "id-1"]
    assert index.find(ALL).damaged == 2


class CountingDisk(PosixDisk):
    """Counts the bytes that are read."""

    def __init__(self) -> None:
        super().__init__(shared=True)
        self.bytes_read = 0

    def read(self, path: Path, offset: int, length: int) -> bytes:
        data = super().read(path, offset, length)
        self.bytes_read += len(data)
        return data


def test_only_what_is_new_is_read(tmp_path: Path) -> None:
    append_rows(tmp_path, [row(n) for n in range(2_000)])
    disk = CountingDisk()
    index = OutcomesIndex(tmp_path, disk)
    index.find(ALL)
    before = disk.bytes_read
    assert before >= outcomes_path(tmp_path).stat().st_size
    append_row(tmp_path, row(9_999))
    assert found(index, limit=1) == ["id-9999"]
    assert index.history("pr6-7fe47bab", newest=1).same.audits == 2_001
    assert disk.bytes_read - before < 1_000


def test_of_a_long_file_the_end_is_held_and_the_answer_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "READ_BYTES_MAX", 4_000)
    append_rows(tmp_path, [row(n) for n in range(100)])
    index = OutcomesIndex(tmp_path)
    page = index.find(ALL)
    assert not page.complete
    assert page.damaged == 0, "the row that is cut by the bound is none"
    assert found(index)[0] == "id-99"
    assert 5 < len(page.rows) < 30
    monkeypatch.setattr(index_module, "ROWS_MAX", 3)
    append_row(tmp_path, row(100))
    assert found(index) == ["id-100", "id-99", "id-98"]


def test_of_long_rows_as_many_are_held_as_there_is_room_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "HELD_BYTES_MAX", 10_000)
    append_rows(tmp_path, [row(n, one_liner="x" * 900) for n in range(50)])
    page = OutcomesIndex(tmp_path).find(ALL)
    assert (8 <= len(page.rows) <= 10, page.complete) == (True, False)


@pytest.mark.parametrize(("bound", "most"), [("IDS_MAX", 2), ("TWINS_MAX", 1), ("TWINS_OF_ONE_MAX", 1)])
def test_what_is_remembered_so_that_no_outcome_counts_twice_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str, most: int
) -> None:
    monkeypatch.setattr(index_module, bound, most)
    index = OutcomesIndex(tmp_path)
    if bound == "IDS_MAX":
        told = [row(1, id=one) for one in "abc"]
        append_rows(tmp_path, told)
    else:  # an auditor's own rows, which have no id, and the daemon's of the same outcomes
        other = {"ok": False} if bound == "TWINS_OF_ONE_MAX" else {"signature": "other"}
        append_rows(tmp_path, [row(1, id=""), row(1, id="", **other)])
        told = [row(1, id="op-1"), row(1, id="op-2", **other)]
    assert [index.add([one]) for one in reversed(told)] == [0] * (len(told) - 1) + [1], "the oldest is forgotten"


def test_a_line_without_end_is_damage_and_costs_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "CHUNK_BYTES", 1_000)
    append_row(tmp_path, row(1))
    with outcomes_path(tmp_path).open("ab") as file:
        file.write(b"x" * 12_345 + b"\n")
    append_row(tmp_path, row(2))
    index = OutcomesIndex(tmp_path)
    assert found(index) == ["id-2", "id-1"]
    assert index.find(ALL).damaged == 1


def test_a_file_that_was_moved_away_cut_or_replaced_is_read_anew(tmp_path: Path) -> None:
    index, path = OutcomesIndex(tmp_path), outcomes_path(tmp_path)
    append_rows(tmp_path, [row(1), row(2)])
    assert found(index) == ["id-2", "id-1"]
    path.rename(tmp_path / "old.jsonl")
    assert found(index) == []
    assert index.add([row(3)]) == 1
    assert found(index) == ["id-3"]
    path.write_bytes((tmp_path / "old.jsonl").read_bytes() * 2)
    assert found(index) == ["id-2", "id-1"], "an id that comes again is the same outcome"


def test_the_daemon_adds_what_is_missing_once(tmp_path: Path) -> None:
    append_row(tmp_path, row(1))
    index = OutcomesIndex(tmp_path)
    assert index.add([row(1), row(2), row(2)]) == 1
    assert index.add([row(1), row(2)]) == 0
    assert OutcomesIndex(tmp_path).add([row(2)]) == 0
    assert read_audit_rows(tmp_path) == ([row(1), row(2)], 0)
    assert outcomes_path(tmp_path).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("order", list(itertools.permutations(["told", "written"])))
def test_an_outcome_without_an_id_that_is_told_and_written_is_one(tmp_path: Path, order: tuple[str, str]) -> None:
    index = OutcomesIndex(tmp_path)
    made = row(1, id="op-1", overall="not_approved", ok=False)
    own = row(1, id="", overall="request_changes", ok=False, findings=FindingCounts(0, 2, 0))
    for each in order:
        if each == "written":
            append_row(tmp_path, own)
        else:
            index.add([made])
    assert list(index.find(ALL).rows) == [own], "the auditor's own says more"
    append_row(tmp_path, own)  # the next audit of the same, whose event has been lost
    assert len(index.find(ALL).rows) == 2
    other = row(9, id="op-2", overall="not_approved", ok=False)
    assert index.add([other]) == 1, "minutes later it is another"


def test_a_row_whose_sync_has_failed_is_written_anew(tmp_path: Path) -> None:
    """The system may have thrown away what it did not store, and says of the next sync that all went well."""
    disk = FakeDisk()
    index = OutcomesIndex(tmp_path, disk)
    for failing in ("sync_directory", "datasync"):
        row = AuditRow(kind="audit", signature="a", overall="approve", id=failing)
        disk.fail(failing)
        with pytest.raises(DiskFailed):
            index.add([row])
        assert index.add([row]) == 1
        assert index.add([row]) == 0
    found = OutcomesIndex(tmp_path, disk.durable()).find(OutcomeFilter())
    assert [getattr(row, "id", None) for row in found.rows] == ["datasync", "sync_directory"]


def test_a_disk_that_refuses_is_told_and_what_is_missing_is_added_later(tmp_path: Path) -> None:
    disk = FakeDisk(1)
    index = OutcomesIndex(tmp_path, disk)
    index.add([row(1)])
    disk.fail("write", code=errno.ENOSPC)
    with pytest.raises(DiskFailed):
        index.add([row(2), row(3)])
    assert index.add([row(2), row(3)]) == 2
    assert found(index) == ["id-3", "id-2", "id-1"]


@given(st.lists(st.one_of(st.binary(max_size=40), st.integers(0, 5)), max_size=20), st.integers(40, 600))
def test_reading_piece_by_piece_finds_what_reading_at_once_does(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes | int], step: int
) -> None:
    folder = tmp_path_factory.mktemp("kb")
    path = outcomes_path(folder)
    path.parent.mkdir()
    lines = [part if isinstance(part, bytes) else msgspec.json.encode(row(part)) for part in parts]
    data = b"".join(line + b"\n" for line in lines)
    index = OutcomesIndex(folder)
    for end in range(0, len(data) + step, step):
        path.write_bytes(data[:end])
        index.find(ALL)
    whole = OutcomesIndex(folder).find(ALL)
    assert index.find(ALL) == whole
    audits = [each for each in whole.rows if isinstance(each, AuditRow)]
    assert audits[::-1] == read_audit_rows(folder).rows


KEY = "AKIA" + "Q3EGRIWXF5ZCT7LM"


def test_what_another_program_appended_is_held_without_its_secrets(tmp_path: Path) -> None:
    append_row(
        tmp_path, row(1, overall="block", ok=False, one_liner=f"the key {KEY} in .env", signature="pr6-7fe47bab")
    )
    append_row(tmp_path, row(2, id=f"id-{KEY}"))
    append_row(tmp_path, row(3, id=f"id-{KEY}"))
    with outcomes_path(tmp_path).open("ab") as file:
        file.write(msgspec.json.encode({"kind": "deploy", "signature": f"x-{KEY}"}) + b"\n")
        file.write(msgspec.json.encode(row(4, one_liner=f"{KEY} " * 2_001)) + b"\n")
    index = OutcomesIndex(tmp_path)
    page = index.find(ALL)
    assert KEY not in repr(page) + repr(index.history("pr6-7fe47bab", newest=9))
    assert page.rows[3].one_liner == "the key [redacted:api_key] in .env"  # type: ignore[attr-defined]
    assert page.rows[0] == OutcomeRow(kind="deploy", signature="x-[redacted:api_key]")
    assert [row.id for row in page.rows[1:3]] == ["", ""], "a marker would make the two one"  # type: ignore[attr-defined]
    assert page.damaged == 1, "nobody's row holds so many"


def test_the_rules_of_the_operator_hold_for_the_index_too(tmp_path: Path) -> None:
    append_row(tmp_path, row(1, one_liner="badge ZZ-1234"))
    extra: list[str] = []
    index = OutcomesIndex(tmp_path, secrets=lambda: compiled_secrets(tuple(extra)))
    assert "ZZ-1234" in repr(index.find(ALL).rows)
    extra.append(r"badge=ZZ-\d+")
    (held,) = index.find(ALL).rows
    assert "ZZ-1234" not in repr(held), "also after a reload"


def test_what_a_terminal_would_obey_is_escaped_in_the_file(tmp_path: Path) -> None:
    hostile = "\x1b[31m\x7f\x9b\u202e\u2028 end"
    append_row(tmp_path, row(1, one_liner=hostile))
    assert outcomes_path(tmp_path).read_bytes().isascii()
    assert read_audit_rows(tmp_path).rows == [row(1, one_liner=hostile)]
