"""`/failures` of a real daemon: found, looked at, acted on, told; also across a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from tests.fakes.http_peer import Status, http_peer
from tests.harness import Daemon, running_daemon, seen


async def fail(daemon: Daemon, *errors: str, endpoint: str = "sql:run", **more: object) -> None:
    for error in errors:
        await daemon.event(endpoint=endpoint, success=False, error=error, **more)


async def failures(daemon: Daemon, count: int = 1, **parameters: Any) -> list[dict[str, Any]]:
    """Wait until so many failures in all are grouped, and give the patterns."""
    await seen(
        lambda: daemon.json("/failures"),
        lambda answer: sum(found["count"] for found in answer["failures"]) >= count,
    )
    found: list[dict[str, Any]] = (await daemon.json("/failures", **parameters))["failures"]
    return found


async def test_what_costs_most_comes_first_and_filters_choose(tmp_path: Path) -> None:
    async with running_daemon(tmp_path) as daemon:
        await fail(daemon, "row 1 gone", "row 2 gone", duration_ms=10)
        await fail(daemon, "the disk is slow", endpoint="disk", duration_ms=60_000, source="bot")
        found = await failures(daemon, 3)
        assert [(f["template"], f["count"], f["impact_ms"]) for f in found] == [
            ("the disk is slow", 1, 61_000),
            ("row <num> gone", 2, 2_020),
        ]
        assert all(f["state"] == "new" and sum(f["spark"]) == f["count"] for f in found)
        for parameters, templates in (
            ({"sort": "count"}, ["row <num> gone", "the disk is slow"]),
            ({"endpoint": "disk"}, ["the disk is slow"]),
            ({"source": "bot"}, ["the disk is slow"]),
            ({"text": "ROW"}, ["row <num> gone"]),
            ({"cause": "timeout"}, ["the disk is slow"]),
            ({"state": "escalating"}, []),
            ({"state": "open", "sort": "last_seen"}, ["the disk is slow", "row <num> gone"]),
            ({"limit": 1, "sort": "last_seen"}, ["the disk is slow"]),
            ({"until": "2020-01-01T00:00:00Z"}, []),
        ):
            assert [f["template"] for f in await failures(daemon, 3, **parameters)] == templates, parameters
        for name, wrong in (("sort", "x"), ("stat", "new"), ("limit", "0")):
            answer = await daemon.get("/failures", params={name: wrong})
            assert (answer.status_code, answer.json()["field"]) == (400, name)


async def test_a_long_endpoint_is_asked_for_by_its_whole_name(tmp_path: Path) -> None:
    async with running_daemon(tmp_path) as daemon:
        await fail(daemon, "row 1 gone", endpoint="x" * 300 + "y")
        await fail(daemon, "row 2 gone", endpoint="x" * 300 + "z")
        assert [found["count"] for found in await failures(daemon, 1, endpoint="x" * 300 + "y")] == [1]


async def test_one_is_shown_with_its_ops_and_its_history(tmp_path: Path) -> None:
    async with running_daemon(tmp_path) as daemon:
        await fail(daemon, "row 1 gone", "row 2 gone")
        [found] = await failures(daemon, 2)
        detail = await daemon.json(f"/failures/{found['id']}")
        assert [op["error"] for op in detail["ops"]] == ["row 2 gone", "row 1 gone"]
        assert [sum(detail["history"][name]) for name in ("minutes", "hours", "days")] == [2, 2, 2]
        assert [len(detail["history"][name]) for name in ("minutes", "hours", "days")] == [60, 48, 30]
        absent = await daemon.get("/failures/0000")
        assert (absent.status_code, absent.json()["detail"]) == (404, "there is no pattern '0000'")


@pytest.mark.parametrize("endpoint", ["sql:run", "x" * 300])
async def test_what_sets_the_failures_apart_is_shown(tmp_path: Path, endpoint: str) -> None:
    async with running_daemon(tmp_path) as daemon:
        events = [{"endpoint": endpoint, "ok": True, "attrs": {"version": "1.0"}} for _ in range(40)]
        events += [
            {"endpoint": endpoint, "ok": False, "error": f"row {n} gone", "attrs": {"version": "2.0"}}
            for n in range(10)
        ]
        events += [{"endpoint": endpoint, "ok": False, "error": "another one", "attrs": {"version": "1.0"}}] * 3
        assert (await daemon.post("/events", events)).status_code == 200
        found = {pattern["template"]: pattern["id"] for pattern in await failures(daemon, 13)}
        [contrast] = (await daemon.json(f"/failures/{found['row <num> gone']}"))["contrast"]
        assert (contrast["feature"], contrast["value"]) == ("attrs.version", "2.0")
        assert [contrast[name] for name in ("failing_with", "failing", "succeeding_with", "succeeding")] == [
            10,
            10,
            0,
            40,
        ]
        assert (await daemon.json(f"/failures/{found['another one']}"))["contrast"] == []
        shown = (await daemon.json(f"/failures/{found['another one']}"))["endpoint"]
        assert len((await daemon.json("/ops", endpoint=shown, success="false"))["ops"]) == 13


async def test_a_pattern_is_found_by_the_id_that_it_had_before_it_became_part_of_another(tmp_path: Path) -> None:
    async with running_daemon(tmp_path) as daemon:
        await fail(daemon, "Invalid user alice here", "Invalid user bob here")
        first, second = sorted(await failures(daemon, 2), key=lambda found: found["first_seq"])
        await fail(daemon, "Invalid user carol here", "Invalid user dave here")
        [found] = await failures(daemon, 4)
        assert (found["id"], found["template"]) == (first["id"], "Invalid user <any> here")
        assert (await daemon.json(f"/failures/{second['id']}"))["id"] == first["id"]


async def test_what_a_person_decides_stays_across_a_kill(tmp_path: Path) -> None:
    async with running_daemon(tmp_path) as daemon:
        await fail(daemon, "row 1 gone")
        await fail(daemon, "no route", endpoint="net")
        ids = {found["endpoint"]: found["id"] for found in await failures(daemon, 2)}
        muted = await daemon.post(f"/failures/{ids['net']}", {"action": "mute", "note": "known since May"})
        assert (muted.status_code, muted.json()["state"]) == (200, "muted")
        resolved = await daemon.post(f"/failures/{ids['sql:run']}", {"action": "resolve"})
        assert resolved.json()["state"] == "resolved"
        daemon.process.kill()
        await daemon.process.wait()
    async with running_daemon(tmp_path) as daemon:
        states = {found["endpoint"]: found["state"] for found in await failures(daemon, 2)}
        assert states == {"net": "muted", "sql:run": "resolved"}
        detail = await daemon.json(f"/failures/{ids['net']}")
        assert [note["text"] for note in detail["notes"]] == ["known since May"]
        await fail(daemon, "row 2 gone")
        states = {found["endpoint"]: found["state"] for found in await failures(daemon, 3)}
        assert states == {"net": "muted", "sql:run": "regressed"}


async def test_a_decision_is_not_acknowledged_when_its_file_was_taken_away(tmp_path: Path) -> None:
    async with running_daemon(tmp_path) as daemon:
        await fail(daemon, "no route", endpoint="net")
        [found] = await failures(daemon)
        path = f"/failures/{found['id']}"
        for file in (tmp_path / "_observer").glob("learned.sqlite3*"):
            file.unlink()
        refused = await daemon.post(path, {"action": "mute"})
        assert (refused.status_code, refused.json()["title"]) == (503, "store replaced")
        await daemon.logged("store_taken_away")
        # Until the analyzer has learned anew.
        await seen(lambda: daemon.post(path, {"action": "mute"}), lambda answer: answer.status_code == 200)
        assert await daemon.stop() == 0
    async with running_daemon(tmp_path) as daemon:
        assert [found["state"] for found in await failures(daemon)] == ["muted"]


async def test_what_was_acknowledged_before_is_seen_and_undoes_no_resolve(tmp_path: Path) -> None:
    async with running_daemon(tmp_path) as daemon:
        await fail(daemon, "row 1 gone")
        [found] = await failures(daemon)
        for count in range(2, 22):
            await fail(daemon, f"row {count} gone")
            assert (await daemon.json(f"/failures/{found['id']}"))["count"] == count
        for count in range(22, 42):
            await fail(daemon, f"row {count} gone")
            await daemon.post(f"/failures/{found['id']}", {"action": "resolve"})
            [now] = await failures(daemon)
            assert (now["count"], now["state"]) == (count, "resolved")


async def test_an_act_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    async with running_daemon(tmp_path) as daemon:
        await fail(daemon, "row 1 gone")
        [found] = await failures(daemon)
        for body in (b"", b"[]", b'{"action":"delete"}', b'{"action":"note"}', b'{"action":"mute","x":1}'):
            answer = await daemon.post(f"/failures/{found['id']}", body)
            assert (answer.status_code, bool(answer.json()["hint"])) == (400, True), body
        assert (await daemon.post("/failures/none", {"action": "mute"})).status_code == 404


def files_with(text: bytes, directory: Path) -> list[Path]:
    return [file for file in directory.rglob("*") if file.is_file() and text in file.read_bytes()]


async def test_a_change_of_state_is_logged_counted_streamed_and_sent(tmp_path: Path) -> None:
    async with http_peer() as peer:
        peer.on("/hook", Status(503), Status(204))
        config = tmp_path / "observer.toml"
        config.write_text(f'[failures]\nwebhook_url = "{peer.url}/hook?token=hunter2"\n')
        async with running_daemon(tmp_path / "data", "--config", str(config)) as daemon:
            async with daemon.client.stream("GET", daemon.url + "/tail") as tail:
                lines = tail.aiter_lines()
                await anext(lines)  # it listens
                await fail(daemon, "row 1 gone")
                seen = [line async for line in _until(lines, "event: pattern")]
                change = msgspec.json.decode((await anext(lines)).removeprefix("data: "))
                assert not any(line.startswith("id:") for line in seen[-1:])
            assert (change["was"], change["state"], change["template"]) == (None, "new", "row <num> gone")
            logged = await daemon.logged("pattern_state")
            assert logged["pattern"] == change["pattern"]
            metrics = (await daemon.get("/metrics")).text
            assert 'observer_patterns{state="new"} 1.0' in metrics
            assert 'observer_pattern_changes_total{state="new"} 1.0' in metrics
            with trio.fail_after(20):
                await peer.wait_requests(2, "/hook")
            assert "hunter2" not in str(daemon.log)
            assert not files_with(b"hunter2", tmp_path / "data")
            first, again = peer.received("/hook")
            assert first.json() == again.json() == change
            assert first.headers["idempotency-key"] == again.headers["idempotency-key"]


async def test_claims_of_success_are_doubted_where_there_is_reason(tmp_path: Path) -> None:
    async with running_daemon(tmp_path) as daemon:
        await daemon.event(endpoint="tool", ok=True, output_summary='{"isError": true}', run="r1")
        await daemon.event(endpoint="tool", ok=True, output_summary="fine", run="r1")
        await daemon.event(source="auditor", ok=False, one_liner="not done", run="r1")
        await failures(daemon, 1)
        ops = (await daemon.json("/ops", order="oldest"))["ops"]
        assert [op.get("suspect") for op in ops] == ["the output is an object with an error", None, None]
        assert "suspect" not in (await daemon.json("/ops/2"))
        assert all("suspect" not in line for line in (tmp_path / "_observer" / "ops.jsonl").read_text().splitlines())
        for path in ("/stats", "/failures"):
            doubt = (await daemon.json(path))["doubt"]
            assert doubt["runs"] == {"judged": 1, "failed": 1, "silent": 1, "silent_share": 1.0}
            claims = {"claimed": 2, "suspect": 1, "judged": 2, "refuted": 2, "suspect_share": 0.5, "refuted_share": 1.0}
            assert doubt["by_endpoint"] == {"tool": claims}
        assert (
            'observer_endpoint_claims_total{doubt="suspect",endpoint="tool"} 1.0' in (await daemon.get("/metrics")).text
        )
        daemon.process.kill()
        await daemon.process.wait()
    async with running_daemon(tmp_path) as daemon:
        await failures(daemon, 1)
        assert (await daemon.json("/stats"))["doubt"]["runs"]["silent"] == 1


async def _until(lines: Any, wanted: str) -> Any:
    async for line in lines:
        yield line
        if line == wanted:
            return
