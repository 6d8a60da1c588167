"""Real input through the real process: 1,364 events of an airline agent, and what is learned from them.

What is expected is counted from the file here, by the contract's rules, and not by the daemon's own code.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from tests.fakes.http_peer import Json, Reply, Request, Status, http_peer
from tests.harness import Daemon, running_daemon

EVENTS: Final = 1_364
LEARN_S: Final = 20.0
CYCLE: Final = {"OBSERVER_CYCLE": "0.2"}
SENT_AS_THEY_ARE: Final = ("timestamp", "endpoint", "input_summary", "event_kind", "role", "staffer_id", "sig_hash")
DIAGNOSIS_TEXT: Final = "Check the total before you pay. " * 20
PROMPT_HEAD: Final = "You are a system reliability observer. Analyze these recent failures and suggest fixes:\n"
PROMPT_TAIL: Final = """
For each error:
1. What likely caused it?
2. How should the agent adjust its approach?
3. Should this be added to the playbook as a "don't do this"?
Be specific and actionable. Under 200 words."""


@dataclass(frozen=True)
class Airline:
    """The file, and what it holds."""

    raw: bytes
    events: list[dict[str, Any]]
    kinds: dict[str, str]
    """Error text -> its kind."""

    @property
    def consolidated(self) -> dict[str, list[dict[str, Any]]]:
        """Endpoint -> what succeeded there, in order; those with 3 successes or more, as the contract has it."""
        groups = defaultdict(list)
        for event in self.events:
            if is_success(event):
                groups[event["endpoint"]].append(event)
        return {endpoint: group for endpoint, group in groups.items() if len(group) >= 3}

    @property
    def failures(self) -> list[dict[str, Any]]:
        return [event for event in self.events if not is_success(event)]

    def kind(self, event: dict[str, Any]) -> tuple[str, str]:
        """Endpoint, and the truth's kind of a tool error, or the auditor's words."""
        return event["endpoint"], self.kinds[event["error"]] if "error" in event else event["one_liner"]


def is_success(event: dict[str, Any]) -> bool:
    return bool(event.get("success", event.get("ok")))


@pytest.fixture(scope="module")
def airline(shared_data: Path) -> Airline:
    raw = (shared_data / "taubench_airline_ops.jsonl").read_bytes()
    kinds = json.loads((shared_data / "taubench_airline_truth.json").read_bytes())
    found = Airline(raw, [json.loads(line) for line in raw.splitlines()], kinds)
    assert len(found.events) == EVENTS
    return found


async def test_one_batch(airline: Airline, tmp_path: Path) -> None:
    async with http_peer() as gateway:
        gateway.on("/log", Json({"ok": True}))
        async with running_daemon(tmp_path, environment={**CYCLE, "GATEWAY_URL": gateway.url}) as daemon:
            answer = (await daemon.post("/events", airline.raw)).json()
            assert (answer["accepted"], answer["rejected"], answer["errors"]) == (EVENTS, 0, [])
            check_journal(airline, daemon)
            check_stats(airline, await daemon.json("/stats"))
            entries = len(airline.consolidated)
            with trio.fail_after(LEARN_S):
                told = [body(request) for request in await gateway.wait_requests(entries, "/log")]
            check_patterns(airline, (await daemon.json("/failures"))["failures"])
            check_entries(airline, await daemon.json("/playbook"))
            assert sorted(told, key=str) == sorted(
                (copy_of(endpoint, group) for endpoint, group in airline.consolidated.items()), key=str
            )
            await daemon.cycles(6)  # a consolidation and more, without new events
        assert len(gateway.received()) == entries


async def test_event_by_event(airline: Airline, tmp_path: Path) -> None:
    async with http_peer() as gateway:
        gateway.on("/log", Status(204))
        async with running_daemon(tmp_path, environment={**CYCLE, "GATEWAY_URL": gateway.url}) as daemon:
            for number, line in enumerate(airline.raw.splitlines(), start=1):
                response = await daemon.post("/event", line)
                assert response.json() | {"accepted": True, "ring_size": number} == response.json()
            check_journal(airline, daemon)
            check_stats(airline, await daemon.json("/stats"))
            await has_learned(airline, daemon)
            check_patterns(airline, (await daemon.json("/failures"))["failures"])
            await drained(daemon)
        told = [body(request) for request in gateway.received("/log")]
    # Each copy is the consolidation of the endpoint's first N successes; the last is at most half of N behind.
    newest: dict[str, int] = {}
    for copy in told:
        endpoint = copy["context"].removeprefix("endpoint=")
        n = int(copy["operation"].split()[1])
        assert copy == copy_of(endpoint, airline.consolidated[endpoint][:n])
        assert 2 * n >= 3 * newest.get(endpoint, 0)
        newest[endpoint] = n
    assert newest.keys() == airline.consolidated.keys()
    assert all(2 * len(group) < 3 * newest[endpoint] for endpoint, group in airline.consolidated.items())


async def test_a_model_is_shown_each_failure_pattern_once(airline: Airline, tmp_path: Path) -> None:
    prompts: list[dict[str, Any]] = []
    refused: list[Request] = []
    all_grouped = False

    def generate(request: Request) -> Reply:
        if not all_grouped:  # or what is asked first counts only as many as the first cycle has found
            refused.append(request)
            return Status(503)
        prompts.append(body(request))
        return Json({"text": DIAGNOSIS_TEXT})

    async with http_peer() as peer:
        peer.on("/log", Json({"ok": True}))
        peer.on("/ai/generate", generate)
        environment = {"OBSERVER_CYCLE": "0.2", "GATEWAY_URL": peer.url, "LAKEHOUSE_URL": peer.url}
        async with running_daemon(tmp_path, environment=environment) as daemon:
            await daemon.post("/events", airline.raw)
            with trio.fail_after(LEARN_S):
                while sum(one["count"] for one in (await daemon.json("/failures"))["failures"]) < len(airline.failures):
                    await daemon.cycles(1)
                asked = len(refused)
                while len(refused) == asked:  # a question that is on its way may have been put together before
                    await daemon.cycles(1)
                all_grouped = True
                await peer.wait_requests(2 + len(airline.consolidated), "/log")
            await daemon.cycles(6)
            analyses = [copy for copy in map(body, peer.received("/log")) if copy["operation"].startswith("error_")]
            assert len(prompts) == len(analyses) == 2  # 11 patterns, 10 in a prompt
            told = sum(int(copy["operation"].split()[1]) for copy in analyses)
            assert told == len(airline.failures)
            for prompt, copy in zip(prompts, analyses, strict=True):
                check_prompt(airline, prompt)
                quoted = prompt["prompt"].removeprefix(PROMPT_HEAD).removesuffix(PROMPT_TAIL)
                number = copy["operation"].split()[1]
                assert list(copy.items()) == [
                    ("operation", f"error_analysis: {number} failures"),
                    ("approach", "LLM-analyzed error patterns"),
                    ("result", DIAGNOSIS_TEXT[:500]),
                    ("context", quoted[:500]),
                ]
            logged = [line for line in daemon.log if line["event"] == "error_analysis"]
            assert [(line["actor"], line["text"]) for line in logged] == [("analyzer", DIAGNOSIS_TEXT)] * 2


async def test_the_line_of_a_cycle_has_the_seeds_keys(airline: Airline, tmp_path: Path) -> None:
    async with running_daemon(tmp_path, environment=CYCLE) as daemon:
        await daemon.post("/events", airline.raw)
        line = await daemon.logged("cycle", total_ops=EVENTS)
        first = next(line for line in daemon.log if line["event"] == "cycle")
        assert (first["cycle"], first["level"], first["actor"]) == (1, "info", "stats")
        del line["timestamp"], line["level"], line["actor"], line["event"]
        scenario = sum(event["source"] == "scenario" for event in airline.events)
        assert list(line.items()) == [
            ("cycle", line["cycle"]),
            ("total_ops", EVENTS),
            ("successes", EVENTS - len(airline.failures)),
            ("failures", len(airline.failures)),
            ("scenario_ops", scenario),
        ]


# ---------------------------------------------------------------------------------------- what is right


def check_journal(airline: Airline, daemon: Daemon) -> None:
    lines = (daemon.data_dir / "_observer" / "ops.jsonl").read_bytes().splitlines()
    ops = [json.loads(line) for line in lines if b'"seq"' in line]
    assert [op["seq"] for op in ops] == list(range(1, EVENTS + 1))
    for event, op in zip(airline.events, ops, strict=True):
        assert {key: op.get(key) for key in SENT_AS_THEY_ARE} == {key: event.get(key) for key in SENT_AS_THEY_ARE}
        assert (op["success"], op["source"]) == (is_success(event), event["source"])
        assert op["output_summary"] == event.get("output_summary", event.get("one_liner"))
        assert op.get("error") == event.get("error")
        assert op["attrs"] == {"run": event["run"]}


def check_stats(airline: Airline, stats: dict[str, Any]) -> None:
    failures = len(airline.failures)
    by_source = dict(Counter(event["source"] for event in airline.events))
    recent = [
        {
            "ts": event["timestamp"],
            "ok": is_success(event),
            "staffer": event["staffer_id"],
            "kind": event["event_kind"],
            "role": event["role"],
        }
        for event in airline.events
        if event["source"] == "scenario"
    ][-10:]
    assert (stats["total"], stats["successes"], stats["failures"]) == (EVENTS, EVENTS - failures, failures)
    assert stats["by_source"] == by_source
    assert stats["recent_scenario_ops"] == recent
    assert stats["lifetime"]["total"] == EVENTS


def check_patterns(airline: Airline, patterns: list[dict[str, Any]]) -> None:
    """Each pattern is one kind of error at one endpoint, and none is split."""
    truth = defaultdict(list)
    for seq, event in enumerate(airline.events, start=1):
        if not is_success(event):
            truth[airline.kind(event)].append(seq)
    assert len({kind for endpoint, kind in truth if endpoint != "auditor:verdict"}) == 8
    assert sum(len(seqs) for (endpoint, _), seqs in truth.items() if endpoint != "auditor:verdict") == 73
    expected = [(key[0], len(seqs), seqs[0], seqs[-1], seqs[-10:]) for key, seqs in truth.items()]
    found = [
        (p["endpoint"], p["count"], p["first_seq"], p["last_seq"], [example["seq"] for example in p["examples"]])
        for p in patterns
    ]
    assert sorted(found) == sorted(expected)
    assert [p["count"] for p in patterns] == sorted((p["count"] for p in patterns), reverse=True)


def check_entries(airline: Airline, answer: dict[str, Any]) -> None:
    """Compare the entries with what the file holds: which endpoints work, and which failures there are."""
    entries = answer["entries"]
    assert (answer["last_seq"], answer["outdated"], answer["total"]) == (EVENTS, False, len(entries))
    assert {entry["endpoint"] for entry in entries} <= {event["endpoint"] for event in airline.events}
    for entry in entries:
        assert entry["handed_out"] is entry["corroborated"]
        for seq in entry["example_seqs"]:
            assert is_success(airline.events[seq - 1]) is (entry["kind"] != "avoid")
    avoided = {entry["about"] for entry in entries if entry["kind"] == "avoid"}
    assert "Error: payment amount does not add up, total price is <num>, but paid <num>" in avoided
    assert len(avoided) == 8


def copy_of(endpoint: str, group: list[dict[str, Any]]) -> dict[str, str]:
    """Give the seed's consolidation of these successes."""
    pattern = "; ".join(event["input_summary"] for event in group[-3:])
    duration = sum(event.get("duration_ms", 0) for event in group) / len(group)
    return {
        "operation": f"consolidated: {len(group)} successful {endpoint} calls",
        "approach": f"common pattern: {pattern[:200]}",
        "result": f"avg_duration={duration:.0f}ms, {len(group)} successes",
        "context": f"endpoint={endpoint}",
    }


def check_prompt(airline: Airline, asked: dict[str, Any]) -> None:
    assert list(asked) == ["prompt", "model", "max_tokens", "temperature"]
    assert (asked["model"], asked["max_tokens"], asked["temperature"]) == ("qwen2.5", 400, 0.2)
    prompt = asked["prompt"]
    assert prompt.startswith(PROMPT_HEAD)
    assert prompt.endswith(PROMPT_TAIL)
    real = {line_of(event) for event in airline.failures}
    quoted = prompt.removeprefix(PROMPT_HEAD).removesuffix(PROMPT_TAIL).split("\n")
    assert 1 <= len(quoted) <= 10
    assert set(quoted) <= real


def line_of(event: dict[str, Any]) -> str:
    error = event.get("error") or event["one_liner"]
    return " ".join(f"[{event['endpoint']}] {event['input_summary']}: {error}".split())[:500]


# ------------------------------------------------------------------------------------------------- how


def body(request: Request) -> dict[str, Any]:
    content: dict[str, Any] = request.json()
    return content


async def has_learned(airline: Airline, daemon: Daemon) -> None:
    """Wait until all events are in the playbook, and the gateway's copies of them are queued."""
    with trio.fail_after(LEARN_S):
        while (answer := await daemon.json("/playbook", limit=1000))["last_seq"] < EVENTS:
            await daemon.cycles(1)
    check_entries(airline, answer)
    await daemon.cycles(6)


async def drained(daemon: Daemon) -> None:
    with trio.fail_after(LEARN_S):
        while 'observer_outbox_pending{receiver="gateway"} 0.0' not in (await daemon.get("/metrics")).text:
            await daemon.cycles(1)
