"""`observer-actors advice`, and the whole way to it: what two sources report becomes an entry, and is handed out."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import trio

from tests.commands.typed import answered, typed
from tests.daemon.served import Served
from tests.fakes.http_peer import Bytes, http_peer


def test_what_two_sources_have_seen_is_told_in_markdown_or_json(daemon: Served) -> None:
    last_seq = daemon.events(
        *(
            {
                "endpoint": "advice:dates",
                "source": ("mcp", "bot")[number % 2],
                "input_summary": f'{{"date":"2026-05-{10 + number}"}}' if number < 10 else f'{{"date":"May {number}"}}',
                "success": number < 10,
                **({} if number < 10 else {"error": "unknown form of date"}),
                "attrs": {"run": f"before-{number}"},
            }
            for number in range(20)
        )
    )["last_seq"]
    while daemon.json("/playbook", limit=1)["last_seq"] < last_seq:
        pass
    entries: list[dict[str, Any]] = daemon.json("/playbook", endpoint="advice:dates", handed_out="true")["entries"]
    ids = [str(one["id"]) for one in entries]
    given = {"endpoint": "advice:dates", "input": '{"date":"May 3"}', "limit": 3}
    run = next(
        run for run in map(str, range(999)) if len(daemon.json("/advice", run=run, **given)["entries"]) == len(ids)
    )

    about = ("advice:dates", "--input", '{"date":"May 3"}', "--run", run, "--source", "mcp")
    asked: tuple[str, ...] = ("advice", *about, "--url", daemon.url, "--limit", "3")
    said = typed(*asked)
    assert said.returncode == 0
    assert said.stdout.startswith("## Advice\n")
    assert "`date` being a date (YYYY-MM-DD)" in said.stdout
    told = answered(*asked)
    assert {one["id"] for one in told["entries"]} <= set(ids)
    advice_id = said.stderr.split()[2]
    assert said.stderr == f"advice id: {advice_id} (`send` and `exec` take it as --advice-id)\n"
    typed("send", "--endpoint", "advice:dates", "--source", "mcp", "--advice-id", advice_id, "--url", daemon.url)

    while not any(one["trial"]["exposed"]["succeeded"] for one in entries):
        entries = daemon.json("/playbook", endpoint="advice:dates")["entries"]
    metrics = daemon.client.get("/metrics").text
    assert 'observer_advice_runs{arm="exposed",outcome="success",state="candidate"}' in metrics


def test_what_is_sent_under_the_run_that_asked_is_its_outcome(daemon: Served) -> None:
    """As the guide shows it: no source is named, and no advice id."""
    for name, outcome in (("good", ()), ("bad", ("--error", "no"))):
        about = ("advice:dates", "--run", f"by-name-{name}", "--url", daemon.url)
        assert typed("advice", *about).returncode == 0
        assert typed("send", "--endpoint", *about, *outcome).returncode == 0
    arms = {"succeeded": 0, "failed": 0}
    while list(arms.values()) != [1, 1]:
        for entry in daemon.json("/playbook", endpoint="advice:dates")["entries"]:
            of_source = entry["trial"]["by_source"].get("scenario", {})
            arms = {name: sum(arm[name] for arm in of_source.values()) for name in arms}
            if any(arms.values()):
                break


def test_nothing_to_say_is_nothing_for_the_prompt_and_an_id_beside_it(daemon: Served) -> None:
    said = typed("advice", "no:such", "--url", daemon.url)
    assert (said.returncode, said.stdout, said.stderr.startswith("advice id: ")) == (0, "", True)


async def test_it_is_asked_for_an_operation_with_these_attributes() -> None:
    async with http_peer(Bytes()) as peer:
        asked = partial(typed, "advice", "x", "--attr", "tenant=t=1", "--attr", "city=-", "--url", peer.url)
        said = await trio.to_thread.run_sync(asked)
        assert (said.returncode, said.stdout, said.stderr) == (0, "", ""), "an older daemon gives no id"
        (request,) = peer.received("/advice")
    assert json.loads(request.query["attrs"][0]) == {"tenant": "t=1", "city": "-"}


def test_an_attribute_without_a_value_is_refused_before_anybody_is_asked() -> None:
    refused = typed("advice", "x", "--attr", "tenant", "--url", "http://127.0.0.1:9")
    assert (refused.returncode, "--attr tenant: wants NAME=VALUE" in refused.stderr) == (64, True)


def test_more_than_three_is_refused_before_anybody_is_asked() -> None:
    assert typed("advice", "x", "--limit", "4", "--url", "http://127.0.0.1:9").returncode == 64


def test_of_a_long_input_the_beginning_is_asked_with(daemon: Served) -> None:
    said = typed("advice", "sql:run", "--input", "é " * 60_000, "--url", daemon.url)
    assert (said.returncode, said.stdout, said.stderr[:10]) == (0, "", "advice id:"), said.stderr
