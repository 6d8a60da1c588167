"""Verdicts that reach a daemon: each has its row in the knowledge base, once, and what is known of it can be asked."""

from __future__ import annotations

import errno
import itertools
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from observer_actors.client import Finding, Verdict, report_verdict
from observer_actors.kb import AuditRow, OutcomeFilter, outcomes_path
from observer_actors.kb.files import append_row, read_audit_rows
from observer_actors.settings import ListenSettings, SecretsSettings, Settings, SupervisionSettings
from observer_actors.supervision import MessageQuarantined
from observer_actors.tokens import Scope, hash_of, new_token
from tests.daemon.inside import Crashes, caught_up, daemon_inside, eventually
from tests.daemon.load import connected, stored_ops
from tests.daemon.served import Served, served
from tests.fakes.troubled_disk import TroubledDisk
from tests.harness import running_daemon


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("data")) as running:
        yield running


def event(number: int, **fields: object) -> dict[str, object]:
    """What `report_verdict` posts."""
    given = {"source": "auditor", "sig_hash": "pr6-7fe47bab", "id": f"audit-{number}", "ok": False}
    return {**given, "one_liner": f"reason {number}", "overall": "request_changes", "findings_warn": 1, **fields}


def outcomes(daemon: Served, **params: object) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = daemon.json("/kb/outcomes", **params)["outcomes"]
    return found


def test_a_verdict_is_a_row_as_soon_as_it_is_acknowledged(daemon: Served) -> None:
    daemon.event(**event(1, sig_hash="once", audit_duration_ms=1_200, timestamp="2026-11-22T10:00:00.000Z"))
    daemon.event(**event(1, sig_hash="once"))  # a client's retry
    (row,) = outcomes(daemon, signature="once")
    assert row == {
        "kind": "audit",
        "signature": "once",
        "overall": "request_changes",
        "ok": False,
        "findings": {"info": 0, "warn": 1, "block": 0},
        "one_liner": "reason 1",
        "duration_ms": 1_200,
        "timestamp": "2026-11-22T10:00:00.000Z",
        "id": "audit-1",
    }
    written = [line for line in outcomes_path(daemon.data_dir).read_bytes().splitlines() if b'"once"' in line]
    assert [msgspec.json.decode(line) for line in written] == [row]
    assert outcomes_path(daemon.data_dir).stat().st_mode & 0o777 == 0o600


def test_what_the_seeds_auditors_say_is_a_row_too(daemon: Served) -> None:
    for ok in (True, False):
        daemon.event(source="auditor", ok=ok, one_liner="as it was", sig_hash=f"seed-{ok}", audit_duration_ms="7")
    daemon.event(source="auditor", ok=True, one_liner="of nothing that has a name")
    assert [(row["overall"], row["ok"]) for row in outcomes(daemon, signature="seed-True")] == [("approve", True)]
    assert [row["overall"] for row in outcomes(daemon, signature="seed-False")] == ["not_approved"]
    assert outcomes(daemon, signature="") == []


async def test_an_auditor_on_this_machine_and_the_daemon_write_one_row(daemon: Served) -> None:
    verdicts = [
        Verdict(signature=f"both-{n:07x}", overall="block", one_liner="no", findings=(Finding("block", "a key"),))
        for n in range(8)
    ]
    for verdict in verdicts:
        report = await report_verdict(verdict, data_dir=daemon.data_dir, observer_url=daemon.url)
        assert report.recorded
    assert len(await trio.to_thread.run_sync(partial(outcomes, daemon, overall="block"))) == 8
    lines = [line for line in outcomes_path(daemon.data_dir).read_bytes().splitlines() if b'"both-' in line]
    # Mostly a line each; in the moment between a look and a write the other may write too, and readers count it once.
    assert list(dict.fromkeys(msgspec.json.decode(line)["id"] for line in lines)) == [each.id for each in verdicts]
    history = await trio.to_thread.run_sync(partial(daemon.json, "/kb/history", sig="both-0000007", limit=2))
    assert (history["stem"], history["same"]["audits"], history["similar"]["audits"]) == ("both", 1, 7)
    assert history["similar"]["overall"] == {"block": 7}
    assert history["similar"]["findings"] == {"info": 0, "warn": 0, "block": 7}
    assert [row["signature"] for row in history["newest"]] == ["both-0000007", "both-0000006"]


def test_pages_filters_and_mistakes(daemon: Served) -> None:
    for number in range(100, 105):
        at = f"2026-11-22T1{number % 10}:00:00Z"
        daemon.event(**event(number, sig_hash="paged", overall="approve" if number % 2 else "block", timestamp=at))
    assert len(outcomes(daemon, signature="paged")) == 5
    append_row(daemon.data_dir, AuditRow(kind="audit", signature="paged", overall="by hand"))
    with outcomes_path(daemon.data_dir).open("ab") as file:
        file.write(b'{"kind":"playbook","signature":"paged"}\n')
    assert [row["kind"] for row in outcomes(daemon, signature="paged", limit=2)] == ["playbook", "audit"]
    assert [row["id"] for row in outcomes(daemon, signature="paged", overall="block")] == [
        "audit-104", "audit-102", "audit-100",
    ]  # fmt: skip
    assert len(outcomes(daemon, signature="paged", kind="audit", since="2026-11-22T13:00:00Z")) == 2
    first = daemon.json("/kb/outcomes", signature="paged", limit=4)
    rest = daemon.json("/kb/outcomes", signature="paged", limit=4, cursor=first["next"])
    assert (len(first["outcomes"]), len(rest["outcomes"]), rest["next"]) == (4, 3, None)
    for query in ("limit=0", "limit=1001", "since=now", "cursor=x", "sig=x", "signature=" + "x" * 201):
        answer = daemon.client.get(f"/kb/outcomes?{query}")
        assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json"), query
    for query in ("", "sig=", "sig=x&limit=101", "signature=x"):
        assert daemon.client.get(f"/kb/history?{query}").status_code == 400, query
    for limit in (0, 101, 5_000):
        assert f"wants 1 to 100, got {limit}" in daemon.client.get(f"/kb/history?sig=x&limit={limit}").text
    assert daemon.json("/kb/history", sig="never-0000000")["same"]["audits"] == 0


def test_a_row_that_another_program_appended_is_given_without_its_secrets(daemon: Served) -> None:
    key = "AKIA" + "Q3EGRIWXF5ZCT7LM"
    append_row(daemon.data_dir, AuditRow(kind="audit", signature="foreign", overall="block", one_liner=f"found {key}"))
    with outcomes_path(daemon.data_dir).open("ab") as file:
        file.write(msgspec.json.encode({"kind": "foreign", "signature": key, "timestamp": f"at {key}"}) + b"\n")
    (row,) = outcomes(daemon, signature="foreign")
    assert row["one_liner"] == "found [redacted:api_key]"
    assert daemon.json("/kb/history", sig="foreign")["newest"] == [row]
    assert outcomes(daemon, kind="foreign") == [
        {"kind": "foreign", "signature": "[redacted:api_key]", "overall": "", "timestamp": "at [redacted:api_key]"}
    ]


async def test_a_rule_for_secrets_that_a_reload_brought_holds_for_the_knowledge_base_too(tmp_path: Path) -> None:
    append_row(tmp_path, AuditRow(kind="audit", signature="s", overall="block", one_liner="badge ZZ-1234"))
    settings = settings_for(tmp_path)
    async with daemon_inside(settings) as daemon:
        for extra, shown in (((), True), ((r"badge=ZZ-\d+",), False), ((), True)):
            await daemon.reload(partial(msgspec.structs.replace, settings, secrets=SecretsSettings(extra=extra)))
            page = await daemon.librarian.find(OutcomeFilter())
            assert ("ZZ-1234" in repr(page.rows)) is shown


def test_the_knowledge_base_takes_the_scope_to_read(tmp_path: Path) -> None:
    tokens = {scope: new_token() for scope in (Scope.INGEST, Scope.READ)}
    file = tmp_path / "tokens"
    file.write_text("".join(f"{scope} {scope} {hash_of(token)}\n" for scope, token in tokens.items()))
    with served(tmp_path / "data", f'[auth]\ntokens_file = "{file}"\n') as daemon:
        answers = [
            daemon.client.get(path, headers={"Authorization": f"Bearer {token}"}).status_code
            for token in tokens.values()
            for path in ("/kb/outcomes", "/kb/history?sig=x")
        ]
    assert answers == [403, 403, 200, 200]


async def test_what_was_acknowledged_before_a_sigkill_has_its_row_after_it(tmp_path: Path) -> None:
    for number in range(3):
        async with running_daemon(tmp_path) as daemon:
            await daemon.event(**event(number))
            await daemon.stop(signal.SIGKILL)
    async with running_daemon(tmp_path) as daemon:
        history = await daemon.json("/kb/history", sig="pr6-7fe47bab")
        await daemon.stop()
    assert history["same"]["audits"] == 3
    rows, damaged = read_audit_rows(tmp_path)
    assert ([row.id for row in rows], damaged) == (["audit-0", "audit-1", "audit-2"], 0)
    cursor = msgspec.json.decode((tmp_path / "_observer" / "librarian.json").read_bytes())
    assert cursor == {"seq": 3, "has_rows": True}
    (tmp_path / "_observer" / "librarian.json").write_bytes(b"{torn")
    with outcomes_path(tmp_path).open("ab") as file:
        file.write(b'{"kind":"au')
    async with running_daemon(tmp_path) as daemon:
        await daemon.event(**event(3))
        assert len((await daemon.json("/kb/outcomes"))["outcomes"]) == 4
    assert len(outcomes_path(tmp_path).read_bytes().splitlines()) == 5, "four rows, and the torn one"


def settings_for(data_dir: Path) -> Settings:
    quick = SupervisionSettings(backoff_seconds_first=0.01, backoff_seconds_max=0.02, park_seconds=0.05)
    return Settings(data_dir=data_dir, listen=ListenSettings(port=0), supervision=quick)


async def test_crashes_of_the_librarian_lose_no_row_and_tell_none_twice(tmp_path: Path) -> None:
    crashes = Crashes({("librarian", "filing"): (1, 2, 4, 6), ("librarian", "loading"): (2, 3)})

    async def report(url: str) -> None:
        async with connected(url) as wire:
            for number in itertools.count():
                answer = await wire.post("/event", msgspec.json.encode(event(number)))
                assert answer.status == 200

    async with daemon_inside(settings_for(tmp_path), on_step=crashes) as daemon:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(report, daemon.addresses[0])
                await crashes.wait_happened()
                nursery.cancel_scope.cancel()
        await caught_up(daemon)
        quarantined = [each for each in daemon.events.recent() if isinstance(each, MessageQuarantined)]
    assert quarantined == []
    rows, damaged = read_audit_rows(tmp_path)
    assert ([row.id for row in rows], damaged) == ([op.id for op in stored_ops(tmp_path)], 0)
    assert len(outcomes_path(tmp_path).read_bytes().splitlines()) == len(rows) > 5


async def test_a_disk_that_refuses_holds_up_nobody_and_the_row_comes_when_it_takes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("observer_actors.actors.librarian.RETRY_S_FIRST", 0.05)
    disk = TroubledDisk()
    async with daemon_inside(settings_for(tmp_path)) as daemon:
        monkeypatch.setattr(daemon.librarian._index, "_disk", disk)  # noqa: SLF001 - the journal's stays well
        disk.fail("open_append", code=errno.ENOSPC)
        async with connected(daemon.addresses[0]) as wire:
            for number in range(3):
                answer = await wire.post("/event", msgspec.json.encode(event(number)))
                assert answer.status == 200
        await eventually(lambda: disk.calls["open_append"] >= 3)
        assert read_audit_rows(tmp_path).rows == []
        disk.heal()
        await caught_up(daemon)
        assert daemon.librarian.rows_written == 3
    assert len(read_audit_rows(tmp_path).rows) == 3


async def test_a_cursor_of_another_journal_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "_observer").mkdir()
    (tmp_path / "_observer" / "librarian.json").write_bytes(b'{"seq":999}')
    async with daemon_inside(settings_for(tmp_path)) as daemon:
        async with connected(daemon.addresses[0]) as wire:
            assert (await wire.post("/event", msgspec.json.encode(event(1)))).status == 200
        await caught_up(daemon)
    assert [row.id for row in read_audit_rows(tmp_path).rows] == ["audit-1"]


async def test_a_knowledge_base_that_is_gone_is_made_again_of_the_journal(tmp_path: Path) -> None:
    cursor = tmp_path / "_observer" / "librarian.json"
    async with running_daemon(tmp_path) as daemon:
        await daemon.event(endpoint="no verdict")
        await daemon.stop()
    assert msgspec.json.decode(cursor.read_bytes()) == {"seq": 1, "has_rows": False}, "nothing to be made again"
    async with running_daemon(tmp_path) as daemon:
        for number in range(2):
            await daemon.event(**event(number))
        await daemon.stop()
    outcomes_path(tmp_path).unlink()
    async with running_daemon(tmp_path) as daemon:
        await daemon.event(**event(2))
        assert (await daemon.json("/kb/history", sig="pr6-7fe47bab"))["same"]["audits"] == 3
        await daemon.stop()
    assert [row.id for row in read_audit_rows(tmp_path).rows] == ["audit-0", "audit-1", "audit-2"]
    assert msgspec.json.decode(cursor.read_bytes()) == {"seq": 4, "has_rows": True}
