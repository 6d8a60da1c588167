"""The real daemon and entries that do harm, help, or do nothing: over HTTP, from the evidence to the state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.commands.typed import typed
from tests.daemon.served import Served, served

RUNS_MAX = 400


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("data")) as one:
        yield one


def taught(daemon: Served, endpoint: str) -> str:
    """Have two sources report what becomes the one entry of an endpoint; give its id."""
    daemon.events(
        *(
            {
                "endpoint": endpoint,
                "source": ("mcp", "bot")[n % 2],
                "success": True,
                "attrs": {"run": f"{endpoint}-{n}"},
            }
            for n in range(6)
        )
    )
    while True:
        entries = daemon.json("/playbook", endpoint=endpoint, handed_out="true")["entries"]
        if entries:
            assert len(entries) == 1
            return str(entries[0]["id"])


def standing(daemon: Served, entry: str) -> Any:
    return daemon.json(f"/playbook/{entry}")


def used(daemon: Served, endpoint: str, entry: str, is_good: Callable[[bool, int], bool]) -> tuple[int, Any]:
    """Use an entry run by run, each judged, until it is a candidate no more; give the runs that took."""
    for number in range(RUNS_MAX):
        run = f"use-{endpoint}-{number}"
        got = daemon.json("/advice", endpoint=endpoint, run=run)["entries"]
        verdict = {"endpoint": "checker:verdict", "source": "auditor", "attrs": {"run": run}}
        seq = daemon.event(**verdict, success=is_good(bool(got), number))["seq"]
        while daemon.json("/playbook", limit=1)["last_seq"] < seq:
            pass
        found = standing(daemon, entry)
        if found["state"] != "candidate":
            return number + 1, found
    return RUNS_MAX, standing(daemon, entry)


@pytest.mark.timeout(180)
def test_an_entry_that_does_harm_is_withheld_and_handed_out_no_more(daemon: Served) -> None:
    entry = taught(daemon, "harm:call")
    runs, found = used(daemon, "harm:call", entry, lambda exposed, _number: not exposed)
    assert (found["state"], found["reason"], found["handed_out"]) == ("withheld", "it does harm", False)
    assert found["lift"]["estimate"] == -1
    assert runs <= 60
    assert daemon.json("/advice", endpoint="harm:call", run="after")["entries"] == []
    assert 'observer_playbook_entries{state="withheld"}' in daemon.client.get("/metrics").text


@pytest.mark.timeout(180)
def test_an_entry_that_helps_becomes_active(daemon: Served) -> None:
    entry = taught(daemon, "help:call")
    runs, found = used(daemon, "help:call", entry, lambda exposed, number: exposed or number % 4 == 0)
    assert (found["state"], found["reason"]) == ("active", "it helps")
    by = found["decided_by"]
    assert sum(sum(arm.values()) for arm in by.values()) == runs
    assert (found["lift"]["low"], found["trial"]["exposed"]) == (-1, {"succeeded": 0, "failed": 0}), "a new trial"
    said = typed("playbook", "show", entry, "--url", daemon.url).stdout
    rates = [f"{arm['succeeded']} of {arm['succeeded'] + arm['failed']}" for arm in (by["exposed"], by["control"])]
    assert f"it became active (it helps) by {rates[0]} runs with it, {rates[1]} without" in said
    assert runs <= 120
