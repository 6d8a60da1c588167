"""The playbook in a real daemon: whence its entries come, decisions, revocation, and the same bytes again."""

from __future__ import annotations

import re
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

from observer_actors.commands._rebuild import rebuilt
from observer_actors.store import LEARNED_PATH
from tests.commands.typed import answered, typed
from tests.daemon.served import Served, served

WAIT_S: Final = 20.0
ERROR: Final = "payment amount does not add up, total is {}"


def an_episode(number: int, source: str) -> Iterator[dict[str, Any]]:
    """Give what an agent reports of one run in which it books, and how an auditor judges it."""
    run = f"{source}-{number}"
    about = {"source": source, "run": run, "staffer_id": f"agent-{source}", "duration_ms": 20}
    yield {**about, "endpoint": "book", "success": False, "error": ERROR.format(number), "input_summary": '{"n":1}'}
    yield {**about, "endpoint": "calculate", "success": True, "input_summary": '{"sum":"1 + 2"}'}
    yield {**about, "endpoint": "book", "success": True, "input_summary": '{"n":1}'}
    yield {"source": "auditor", "run": run, "ok": True, "one_liner": "as expected"}


def report(daemon: Served, *, episodes: int, sources: tuple[str, ...] = ("scenario", "mcp")) -> None:
    """Report so many episodes, of the sources in turn."""
    of_all = (an_episode(number, sources[number % len(sources)]) for number in range(episodes))
    daemon.events(*(event for episode in of_all for event in episode))


def until(condition: Callable[[], object]) -> None:
    limit = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.05)


def caught_up(daemon: Served) -> Any:
    """Give the playbook, once it holds all that was acknowledged."""
    last_seq = daemon.json("/health")["last_seq"]
    until(lambda: daemon.json("/playbook")["last_seq"] >= last_seq)
    return daemon.json("/playbook")


def by_kind(answer: Any, kind: str, endpoint: str = "book") -> dict[str, Any]:
    [entry] = [entry for entry in answer["entries"] if (entry["kind"], entry["endpoint"]) == (kind, endpoint)]
    return dict(entry)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("playbook")) as started:
        report(started, episodes=6)
        caught_up(started)
        yield started


def test_entries_are_drawn_from_what_was_reported_and_judged(daemon: Served) -> None:
    answer = caught_up(daemon)
    avoid, recipe = by_kind(answer, "avoid"), by_kind(answer, "recipe")
    assert avoid["text"].startswith("`book` fails with “payment amount does not add up, total is <num>” (")
    assert recipe["text"].startswith("When `book` fails with “payment amount does not add up, total is <num>”, call")
    assert avoid["sources"] == recipe["sources"] == ["mcp", "scenario"]
    assert avoid["handed_out"]
    assert (avoid["lift"]["low"], avoid["lift"]["high"]) == (-1.0, 1.0)
    assert answer["total"] == len(answer["entries"])


def test_the_filters_let_through_what_they_say(daemon: Served) -> None:
    def kinds(**asked: object) -> set[str]:
        return {entry["kind"] for entry in daemon.json("/playbook", **asked)["entries"]}

    assert kinds(kind="avoid") == {"avoid"}
    assert kinds(endpoint="calculate") == {"do"}
    assert kinds(text="DOES NOT ADD UP") == {"avoid", "recipe"}
    assert kinds(handed_out="false") == set()
    assert kinds(handed_out="1") == kinds(handed_out="TRUE") == kinds() != set(), "as `success` of `/ops`"
    assert len(daemon.json("/playbook", limit=1)["entries"]) == 1
    for name, wrong in (("kind", "cure"), ("handed_out", "perhaps"), ("seq", "x"), ("limit", "0")):
        assert daemon.client.get("/playbook", params={name: wrong}).status_code == 400


def test_log_pattern_entry_and_verdict_lead_to_each_other(daemon: Served) -> None:
    avoid = by_kind(caught_up(daemon), "avoid")
    detail = daemon.json(f"/playbook/{avoid['id']}")
    assert [op["seq"] for op in detail["ops"]] == detail["example_seqs"] + detail["contrary_seqs"]
    [pattern] = detail["patterns"]
    assert pattern["seqs"] == detail["example_seqs"]
    for verdict in detail["verdicts"]:
        judged = daemon.json(f"/ops/{verdict['seq']}")
        assert (judged["source"], judged["attrs"]["run"], judged["success"]) == ("auditor", verdict["run"], True)
        assert avoid["id"] in ids(daemon.json("/playbook", seq=verdict["seq"]))
    assert {seq for verdict in detail["verdicts"] for seq in verdict["seqs"]} == {op["seq"] for op in detail["ops"]}
    assert detail["history"][0]["what"] == "created"
    assert all(daemon.json(f"/ops/{change['seq']}")["attrs"]["run"] for change in detail["history"])
    # And back.
    lessons = daemon.json(f"/failures/{pattern['id']}")["lessons"]
    assert lessons[0]["id"] == avoid["id"]
    assert avoid["id"] in ids(daemon.json("/playbook", seq=detail["example_seqs"][-1]))
    assert ids(daemon.json("/playbook", seq=10**9)) == []


def ids(answer: Any) -> list[str]:
    return [entry["id"] for entry in answer["entries"]]


def test_what_a_person_decides_is_in_the_journal_and_is_done(daemon: Served) -> None:
    recipe = by_kind(caught_up(daemon), "recipe")
    url = ("--url", daemon.url)
    for action, standing in (
        ("withhold", "no: withheld"),
        ("release", "candidate"),
        ("retire", "no: retired"),
        ("release", "candidate"),
        ("pin", "pinned"),
        ("unpin", "candidate"),
    ):
        said = typed("playbook", action, recipe["id"], "--note", f"{action}: password=hunter2secret", *url)
        assert (said.stdout, said.stderr) == (f"{recipe['id']}: {standing}\n", "")
    assert typed("playbook", "note", recipe["id"], "look again", *url).returncode == 0
    detail = answered("playbook", "show", recipe["id"], *url)
    assert [note["text"] for note in detail["notes"]][-1] == "look again"
    assert "hunter2secret" not in str(detail["notes"])
    marks = [(change["seq"], change["state"]) for change in detail["history"] if change["what"] == "mark"]
    assert [state for _, state in marks] == ["withheld", "", "retired", "", "pinned", ""]
    op = daemon.json(f"/ops/{marks[0][0]}")
    assert (op["source"], op["endpoint"], op["attrs"]["action"]) == ("observer", "observer:playbook", "withhold")
    words = typed("playbook", "show", recipe["id"], *url).stdout
    assert "shown by ops: " in words
    assert re.search(r"^run scenario-\d: judged good by op \d+", words, re.MULTILINE)
    assert re.search(r"^note of .*: look again$", words, re.MULTILINE)


def test_runs_and_sources_are_shown_as_far_as_they_are_counted(tmp_path: Path) -> None:
    with served(tmp_path, '[sources]\nextra = ["a", "b", "c", "d", "e", "f", "g", "h", "i"]\n') as daemon:
        for endpoint, sources, runs in (("few", "ab", 4), ("many", "abcdefghi", 20)):
            for number in range(runs):
                source = sources[number % len(sources)]
                daemon.event(endpoint=endpoint, source=source, success=True, run=f"r{number}")
        entries = {endpoint: by_kind(caught_up(daemon), "do", endpoint)["id"] for endpoint in ("few", "many")}
        words = {endpoint: typed("playbook", "show", key, "--url", daemon.url) for endpoint, key in entries.items()}
    assert "evidence: 4 succeeded, 0 failed; 4 runs, 2 sources: a, b\n" in words["few"].stdout
    assert "; 8 or more runs, 8 or more sources: a, b, c, d, e, f, g, h\n" in words["many"].stdout


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/playbook/0123456789abcdef", '{"action": "pin"}', 404),
        ("/playbook/ENTRY", '{"action": "burn"}', 400),
        ("/playbook/ENTRY", '{"action": "note"}', 400),
        ("/playbook/ENTRY", "no JSON", 400),
        ("/playbook/revoke", '{"of": "planet", "name": "x"}', 400),
        ("/playbook/revoke", '{"of": "source", "name": ""}', 400),
        ("/playbook/revoke", '{"of": "source", "name": "observer"}', 400),
        ("/playbook/revoke", '{"of": "source", "name": "x", "since": "yesterday"}', 400),
    ],
)
def test_what_cannot_be_done_is_refused_in_words(daemon: Served, path: str, body: str, status: int) -> None:
    entry = by_kind(caught_up(daemon), "avoid")["id"]
    answer = daemon.client.post(path.replace("ENTRY", entry), content=body)
    assert answer.status_code == status
    assert answer.json()["hint"]


def test_the_stored_playbook_is_what_the_journal_gives_to_the_byte_also_after_a_kill(tmp_path: Path) -> None:
    with served(tmp_path, PYTHONHASHSEED="1") as daemon:
        report(daemon, episodes=20)
        before = caught_up(daemon)["entries"]
        time.sleep(2.5)  # it is saved every two seconds
        daemon.process.send_signal(signal.SIGKILL)
        daemon.process.wait()
    with served(tmp_path, PYTHONHASHSEED="2") as daemon:  # each start has other hashes, and so sets in another order
        assert caught_up(daemon)["entries"] == before
        report(daemon, episodes=3, sources=("bot",))
        after = caught_up(daemon)
    report_ = rebuilt(tmp_path, lambda _done, _total: None)
    assert (report_.is_same, report_.problem, report_.different) == (True, "", ())
    assert (report_.entries, report_.last_seq) == (after["total"], after["last_seq"])
    said = typed("playbook", "check", "--data-dir", str(tmp_path))
    assert (said.returncode, "the same to the byte" in said.stdout) == (0, True)


def test_where_nothing_is_compared_no_part_is_called_different(tmp_path: Path) -> None:
    journal = "[journal]\nsegment_bytes_max = 5_000\n"
    with served(tmp_path, journal) as daemon:
        report(daemon, episodes=20)
        caught_up(daemon)
    with served(tmp_path, journal + "retained_bytes_max = 1\n") as daemon:
        report(daemon, episodes=20)
        daemon.log.wait("segment_removed")
        caught_up(daemon)
    report_ = rebuilt(tmp_path, lambda _done, _total: None)
    assert report_.problem.startswith("the journal begins at seq ")
    assert (report_.is_same, report_.different) == (False, ())


def test_a_playbook_that_another_version_has_made_is_not_compared(tmp_path: Path) -> None:
    with served(tmp_path) as daemon:
        report(daemon, episodes=6)
        caught_up(daemon)
    with closing(sqlite3.connect(tmp_path / LEARNED_PATH)) as store, store:
        store.execute("UPDATE playbook SET record = json_set(record, '$.version', 1) WHERE section = 'meta'")
    report_ = rebuilt(tmp_path, lambda _done, _total: None)
    assert report_.problem.startswith("it was made by rules 1 and not by ")
    assert (report_.is_same, report_.different) == (False, ())
    with served(tmp_path) as daemon:
        daemon.log.wait("playbook_made_anew")
        caught_up(daemon)
    assert rebuilt(tmp_path, lambda _done, _total: None).is_same


def test_a_stored_playbook_that_is_damaged_is_said_to_be(tmp_path: Path) -> None:
    with served(tmp_path) as daemon:
        report(daemon, episodes=6)
        caught_up(daemon)
    with closing(sqlite3.connect(tmp_path / LEARNED_PATH)) as store, store:
        store.execute("UPDATE playbook SET record = '{}' WHERE section = 'endpoint'")
    said = typed("playbook", "check", "--data-dir", str(tmp_path))
    assert (said.returncode, said.stdout) == (1, "")
    assert said.stderr.startswith("observer-actors: a part of the playbook is not what it should be")


def test_a_revocation_that_touches_nothing_asks_for_the_name(daemon: Served) -> None:
    ended = typed("revoke", "--source", "bto", "--url", daemon.url)
    assert (ended.returncode, "comes from the source bto: is that the name?" in ended.stderr) == (0, True)


def test_what_is_revoked_is_gone_from_the_playbook_and_stays_gone(tmp_path: Path) -> None:
    with served(tmp_path) as daemon:
        report(daemon, episodes=6)
        report(daemon, episodes=6, sources=("bot",))
        daemon.events(*({"endpoint": "poisoned", "source": "bot", "success": True, "run": f"p{n}"} for n in range(9)))
        assert by_kind(caught_up(daemon), "do", "poisoned")["handed_out"] is False, "one source alone says so"
        said = typed("revoke", "--source", "bot", "--note", "its key was stolen", "--url", daemon.url)
        assert (said.returncode, said.stderr) == (0, "")
        assert re.fullmatch(r"revoked by op \d+; \d+ entries are held back until .*\n", said.stdout)
        made = daemon.log.wait("playbook_made_anew")
        assert made["ops_passed_over"] == 6 * 3 + 9
        answer = caught_up(daemon)
        assert not answer["outdated"]
        assert "poisoned" not in {entry["endpoint"] for entry in answer["entries"]}
        assert all("bot" not in entry["sources"] for entry in answer["entries"])
        assert by_kind(answer, "avoid")["handed_out"]
        assert by_kind(answer, "avoid")["failed"] <= 6
    with served(tmp_path) as daemon:
        assert [entry["id"] for entry in caught_up(daemon)["entries"]] == [entry["id"] for entry in answer["entries"]]
    report_ = rebuilt(tmp_path, lambda _done, _total: None)
    assert (report_.is_same, report_.problem, report_.different) == (True, "", ())


def test_a_revocation_holds_however_far_the_playbook_is_behind_it(tmp_path: Path) -> None:
    with served(tmp_path) as daemon:
        report(daemon, episodes=6)
        report(daemon, episodes=6, sources=("bot",))
        assert by_kind(caught_up(daemon), "avoid")["handed_out"]
        time.sleep(2.5)  # saved
        line = {"endpoint": "filler", "source": "scenario", "success": True}
        for _ in range(10):
            daemon.events(*([line] * 4_000))
        revoked = daemon.client.post("/playbook/revoke", json={"of": "source", "name": "bot"}).json()
        assert revoked["suspended"] >= 2
        assert daemon.json("/advice", endpoint="book")["entries"] == []
        daemon.process.send_signal(signal.SIGKILL)
        daemon.process.wait()
    with served(tmp_path) as daemon:
        assert daemon.json("/advice", endpoint="book")["entries"] == []
        until(
            lambda: daemon.json("/playbook")["last_seq"] >= revoked["seq"] and not daemon.json("/playbook")["outdated"]
        )
        assert all("bot" not in entry["sources"] for entry in daemon.json("/playbook")["entries"])
    for file in (tmp_path / "_observer").glob("*.sqlite3*"):
        file.unlink()  # and where the store is lost, what was revoked before is not learned again for a moment
    with served(tmp_path) as daemon:
        while (answer := daemon.json("/playbook"))["last_seq"] < revoked["seq"] or answer["outdated"]:
            assert not any(entry["handed_out"] for entry in answer["entries"] if "bot" in entry["sources"])
        assert by_kind(caught_up(daemon), "avoid")["handed_out"]


def got(daemon: Served, what: str) -> set[str]:
    """Give what some runs get: each is control by one in a hundred."""
    runs = (f"{what} {number}" for number in range(5))
    return {key for run in runs for key in ids(daemon.json("/advice", endpoint="calculate", run=run))}


def test_what_a_person_decides_of_an_entry_holds_however_far_the_playbook_is_behind_it(tmp_path: Path) -> None:
    with served(tmp_path, "[advice]\ncontrol_share = 0.01\n") as daemon:
        report(daemon, episodes=6)
        key = by_kind(caught_up(daemon), "do", "calculate")["id"]
        url = ("--url", daemon.url)
        assert typed("playbook", "pin", key, *url).stdout == f"{key}: pinned\n"
        assert got(daemon, "first") == {key}
        line = {"endpoint": "filler", "source": "scenario", "success": True}
        for _ in range(15):
            daemon.events(*([line] * 4_000))
        for action, stands, is_handed_out in (
            ("withhold", "no: withheld", False),
            ("pin", "pinned", True),
            ("retire", "no: retired", False),
        ):
            assert typed("playbook", action, key, *url).stdout == f"{key}: {stands}\n"
            assert got(daemon, f"after {action}") == ({key} if is_handed_out else set())
            assert daemon.json(f"/playbook/{key}")["handed_out"] is is_handed_out
            assert ids(daemon.json("/playbook", endpoint="calculate", handed_out="true")) == [key] * is_handed_out
        assert by_kind(caught_up(daemon), "do", "calculate")["mark"] == "retired"


@pytest.mark.parametrize("arguments", [(), ("--source", "a", "--run", "b")])
def test_a_revocation_names_one_thing(arguments: tuple[str, ...]) -> None:
    ended = typed("revoke", *arguments, "--url", "http://127.0.0.1:1")
    assert (ended.returncode, ended.stderr.splitlines()[0]) == (
        64,
        "observer-actors: wants one of --source, --run and --staffer",
    )


def test_other_rules_make_the_playbook_anew(tmp_path: Path) -> None:
    with served(tmp_path) as daemon:
        report(daemon, episodes=6)
        assert by_kind(caught_up(daemon), "avoid")["handed_out"]
    with served(tmp_path, "[playbook]\nsources_min = 3\n") as daemon:
        daemon.log.wait("playbook_made_anew")
        assert not any(entry["handed_out"] for entry in caught_up(daemon)["entries"])
