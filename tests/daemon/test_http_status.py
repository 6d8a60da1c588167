"""What the daemon says of itself: health, readiness, stats, actors, metrics, and the description of it all."""

from __future__ import annotations

import gzip
import re
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from observer_actors.http import app
from observer_actors.http.app import create_app
from observer_actors.http.description import Description
from observer_actors.http.kb import Outcome
from observer_actors.http.views import Views
from observer_actors.kb import AuditRow
from observer_actors.labels import LABEL_CHARS_MAX, stable_id
from observer_actors.visible import visible
from tests.daemon.served import Served, served
from tests.processes import children

OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A daemon that has seen known traffic, and sees no more."""
    with served(tmp_path_factory.mktemp("status"), "[ring]\ncapacity_ops = 20\n") as running:
        running.events(*({"source": "mcp", "endpoint": "old", "ok": True} for _ in range(10)))
        running.events(*({"source": "mcp", "endpoint": "sql", "ok": True, "duration_ms": 100} for _ in range(5)))
        running.event(source="bot", error="boom", endpoint="sql", id="k")
        running.event(source="bot", error="boom", endpoint="sql", id="k")
        running.event(source="elsewhere")
        for number in range(12):
            running.event(staffer_id=f"s{number}", event_kind="fill", role="Welder", ok=number % 2 == 0)
        assert running.ingest.post("/event", content=b'{"city":5}').status_code == 400
        assert running.ingest.post("/events", content=b"{}\nnope").status_code == 200
        while samples(families(running, {}))[key("observer_consumer_behind_ops", consumer="stats")]:
            time.sleep(0.01)  # it counts a moment later
        yield running


def families(daemon: Served, headers: Mapping[str, str]) -> list[Metric]:
    text = daemon.client.get("/metrics", headers=headers).text
    if not headers:
        return list(text_string_to_metric_families(text))
    return list(openmetrics.text_string_to_metric_families(text))  # type: ignore[no-untyped-call]


def samples(found: list[Metric]) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value for family in found for sample in family.samples
    }


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


# ------------------------------------------------------------------------------------------- health, readiness, stats


def test_health_has_the_seeds_keys_and_says_what_an_answer_means(daemon: Served) -> None:
    assert daemon.json("/health") == {
        "status": "ok",
        "ops_in_ring": 20,
        "version": daemon.log.find("listening")[0]["version"],
        "durability": "fdatasync",
        "last_seq": 30,
    }


def test_ready_says_so(daemon: Served) -> None:
    assert daemon.json("/ready") == {"ready": True, "reasons": []}


def test_stats_has_the_seeds_keys_over_the_ring(daemon: Served) -> None:
    stats = daemon.json("/stats")
    assert list(stats)[:5] == ["total", "successes", "failures", "by_source", "recent_scenario_ops"]
    assert (stats["total"], stats["successes"], stats["failures"]) == (20, 11, 9)
    assert stats["by_source"] == {"mcp": 5, "bot": 1, "scenario": 14}
    recent = stats["recent_scenario_ops"]
    assert len(recent) == 10
    assert [op.get("staffer") for op in recent] == [*(f"s{number}" for number in range(3, 12)), None]
    assert list(recent[0]) == ["ts", "ok", "staffer", "kind", "role"]
    assert (recent[0]["ok"], recent[0]["kind"], recent[0]["role"]) == (False, "fill", "Welder")


def test_stats_has_everything_ever_committed_beside_the_ring(daemon: Served) -> None:
    lifetime = daemon.json("/stats")["lifetime"]
    assert (lifetime["last_seq"], lifetime["total"], lifetime["successes"]) == (30, 30, 21)
    assert lifetime["by_source"] == {"mcp": 15, "bot": 1, "scenario": 14}
    assert lifetime["endpoints"]["sql"]["total"] == 6
    assert lifetime["endpoints"]["sql"]["failures"] == 1
    assert lifetime["endpoints"]["sql"]["p90_ms"] == pytest.approx(100, rel=0.01)


def test_what_was_acknowledged_is_in_the_next_answer(tmp_path: Path) -> None:
    with served(tmp_path) as daemon:
        for number in range(1, 31):
            assert daemon.event(ok=True)["ring_size"] == number
            assert daemon.json("/stats")["total"] == number
            assert daemon.json("/health")["ops_in_ring"] == number
            assert daemon.json("/ops", limit=1)["ops"][0]["seq"] == number


def test_while_the_disk_refuses_it_is_not_ready_and_says_why_and_is_again_later(tmp_path: Path) -> None:
    with served(tmp_path) as daemon:
        daemon.event(ok=True)
        with no_file_may_grow(daemon.process.pid):
            response = daemon.ingest.post("/event", content=b"{}")
            assert response.status_code in {503, 507}
            assert int(response.headers["Retry-After"]) >= 1
            assert response.json()["error"]
            ready = daemon.client.get("/ready")
            assert (ready.status_code, ready.json()["ready"]) == (503, False)
            assert ready.json()["reasons"][0].startswith("the disk refuses")
            assert daemon.json("/health")["status"] == "ok"
        while daemon.client.get("/ready").status_code == 503:
            daemon.ingest.post("/event", content=b"{}")
        assert daemon.event(ok=True)["accepted"] is True


@contextmanager
def no_file_may_grow(pid: int) -> Iterator[None]:
    """Make the writes of a process and its children fail as on a disk that has had enough, which takes no root."""
    limits = {one: resource.prlimit(one, resource.RLIMIT_FSIZE) for one in (pid, *children(pid))}
    for one, (_, hard) in limits.items():
        resource.prlimit(one, resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        for one, both in limits.items():
            resource.prlimit(one, resource.RLIMIT_FSIZE, both)


def test_actors_shows_the_whole_tree(daemon: Served) -> None:
    tree = daemon.json("/actors")
    names = {branch["name"]: [child["name"] for child in branch["children"]] for branch in tree["actors"]}
    assert names == {
        "pipeline": ["persister", "ring_keeper", "stats"],
        "upkeep": ["archivist"],
        "learning": ["analyzer", "consolidator", "librarian", "courier"],
        "edge": ["ingest"],
    }
    persister = tree["actors"][0]["children"][0]
    assert persister.items() >= {"state": "running", "restarts": 0, "last_error": ""}.items()
    assert (persister["mailbox_depth"], persister["mailbox_bound"]) == (0, 10_000)
    assert persister["since_s"] > 0
    assert {event["type"] for event in tree["events"]} == {"ActorStarted"}


def test_an_actor_that_has_nothing_to_do_waits(daemon: Served) -> None:
    def at_work() -> dict[str, str]:
        branches = daemon.json("/actors")["actors"]
        steps = {child["name"]: child["step"] for branch in branches for child in branch["children"]}
        return {name: step for name, step in steps.items() if step not in ("waiting", "serving", "no gateway")}

    until = time.monotonic() + 10
    while at_work() and time.monotonic() < until:
        time.sleep(0.05)
    assert at_work() == {}


def test_failures_and_playbook_are_lists(daemon: Served) -> None:
    failures = daemon.json("/failures")["failures"]
    assert {"sql", "scenario:fill"} >= {failure["endpoint"] for failure in failures}
    playbook = daemon.json("/playbook")
    assert {entry["endpoint"] for entry in playbook["entries"]} <= {"sql", "old", "scenario:fill"}
    assert (playbook["total"], playbook["outdated"]) == (len(playbook["entries"]), False)
    assert playbook["left"] == {"ops": 0, "endpoints": 0, "entries": 0, "values": 0, "runs": 0}


# ------------------------------------------------------------------------------------------- metrics


@pytest.mark.parametrize("headers", [{}, OPENMETRICS])
def test_metrics_are_right_after_known_traffic(daemon: Served, headers: Mapping[str, str]) -> None:
    response = daemon.client.get("/metrics", headers=headers)
    found = samples(families(daemon, headers))
    assert response.headers["Content-Type"].startswith("application/openmetrics-text" if headers else "text/plain")
    expected = {
        key("observer_requests_event_total"): 16,
        key("observer_requests_batch_total"): 3,
        key("observer_events_accepted_total"): 31,
        key("observer_events_rejected_total"): 2,
        key("observer_events_duplicate_total"): 1,
        key("observer_ingest_refused_total"): 0,
        key("observer_sources_unknown_total"): 1,
        key("observer_waiting_ops"): 0,
        key("observer_waiting_bytes"): 0,
        key("observer_ready"): 1,
        key("observer_journal_last_seq"): 30,
        key("observer_ring_ops"): 20,
        key("observer_operations_total", source="mcp", outcome="success"): 15,
        key("observer_operations_total", source="bot", outcome="failure"): 1,
        key("observer_operations_total", source="scenario", outcome="success"): 6,
        key("observer_endpoint_operations_total", endpoint="sql", outcome="success"): 5,
        key("observer_endpoint_duration_seconds_sum", endpoint="sql"): 0.5,
        key("observer_endpoint_duration_seconds_count", endpoint="sql"): 6,
        key("observer_consumer_behind_ops", consumer="stats"): 0,
        key("observer_tail_readers"): 0,
        key("observer_actor_state", actor="persister", state="running"): 1,
        key("observer_actor_state", actor="persister", state="parked"): 0,
        key("observer_actor_restarts_total", actor="ingest"): 0,
        key("observer_mailbox_depth", actor="persister"): 0,
    }
    assert {name: found.get(name) for name in expected} == expected


@pytest.mark.parametrize("headers", [{}, OPENMETRICS])
def test_every_metric_has_our_prefix_a_help_text_and_the_suffix_of_its_kind(
    daemon: Served, headers: Mapping[str, str]
) -> None:
    found = families(daemon, headers)
    assert len(found) > 30
    for family in found:
        assert all(sample.name.startswith("observer_") for sample in family.samples), family.name
        assert family.documentation.endswith("."), family.name
        assert family.type in {"counter", "gauge", "summary", "info"}, family.name
        if family.type == "counter":
            assert {sample.name for sample in family.samples} <= {f"{family.name.removesuffix('_total')}_total"}
    names = [family.name for family in found]
    assert len(names) == len(set(names))


def test_what_may_become_less_is_no_counter(daemon: Served) -> None:
    """Two runs with a verdict each may turn out to be one."""
    kinds = {family.name: family.type for family in families(daemon, OPENMETRICS)}
    assert {name: kind for name, kind in kinds.items() if name.startswith("observer_runs_")} == {
        "observer_runs_judged": "gauge",
        "observer_runs_failed": "gauge",
        "observer_runs_silent": "gauge",
    }


@pytest.mark.parametrize(
    "accept",
    ["text/plain;version=abc", "application/openmetrics-text;version=x.y", "application/openmetrics-text;version=٣"],
)
def test_a_version_that_is_none_is_given_the_plain_format(daemon: Served, accept: str) -> None:
    response = daemon.client.get("/metrics", headers={b"Accept": accept.encode()})
    assert (response.status_code, response.headers["Content-Type"][:10]) == (200, "text/plain")


def test_labels_from_outside_cannot_break_the_format(tmp_path: Path) -> None:
    endpoint = 'a"} 1\nobserver_forged{x="\\\u2028\x1b'
    with served(tmp_path) as daemon:
        daemon.event(endpoint=endpoint, ok=True)
        assert daemon.json("/stats")["total"] == 1
        for headers in ({}, OPENMETRICS):
            found = samples(families(daemon, headers))
            label = f"{visible(endpoint)}#{stable_id('label', endpoint)}"
            assert found[key("observer_endpoint_operations_total", endpoint=label, outcome="success")] == 1
            assert not any("forged" in name for name, _ in found)


def test_labels_of_what_cannot_be_printed_are_bounded_and_not_the_same(tmp_path: Path) -> None:
    with served(tmp_path) as daemon:
        for length in (198, 199, 200):
            daemon.event(endpoint="\u200b" * length, ok=True)
        assert daemon.json("/stats")["total"] == 3
        found = samples(families(daemon, {}))
    labels = {dict(labels)["endpoint"] for name, labels in found if name == "observer_endpoint_operations_total"}
    assert [len(label) for label in labels] == [LABEL_CHARS_MAX] * 3


def test_nobody_can_name_an_endpoint_as_the_label_of_another(tmp_path: Path) -> None:
    names = ["a\u200b", "\u200b" * LABEL_CHARS_MAX]
    with served(tmp_path) as daemon:
        for _ in range(3):
            daemon.events(*({"endpoint": name} for name in names))
            assert daemon.json("/stats")["total"] > 0
            [family] = (one for one in families(daemon, {}) if one.name == "observer_endpoint_duration_seconds")
            names = [one.labels["endpoint"] for one in family.samples if one.name.endswith("_count")]
            assert len(names) == len(set(names))


# ------------------------------------------------------------------------------------------- what is not there


@pytest.mark.parametrize(
    ("method", "path", "hint"),
    [
        ("GET", "/", ""),
        ("GET", "/helth", "did you mean /health?"),
        ("POST", "/event/", "did you mean /event?"),
        ("GET", "/nothing/like/it", "/openapi.json"),
        ("GET", "/event", "/event takes POST"),
        ("POST", "/health", "/health takes GET"),
        ("DELETE", "/ops/1", "takes GET"),
        ("OPTIONS", "/event", "/event takes POST"),
        ("GET", "/docs", ""),
        ("GET", "/static/x", ""),
        ("GET", "/%ff%00%0a", ""),
    ],
)
def test_anything_else_is_404_with_a_hint(daemon: Served, method: str, path: str, hint: str) -> None:
    response = daemon.client.request(method, path)
    assert response.status_code == 404
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = response.json()
    assert (problem["error"], problem["status"], problem["title"]) == ("not found", 404, "not found")
    assert hint in problem["hint"]


@pytest.mark.parametrize("path", ["/health", "/stats", "/metrics", "/ops", "/ops/1", "/tail", "/openapi.json"])
def test_head_answers_as_get_does_without_a_body(daemon: Served, path: str) -> None:
    response = daemon.client.head(path)
    assert (response.status_code, response.content) == (200, b"")
    assert daemon.json("/health")["status"] == "ok"


# ------------------------------------------------------------------------------------------- the description


@pytest.fixture(scope="module")
def document(daemon: Served) -> Any:
    return daemon.json("/openapi.json")


def every(node: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        yield from node.items()
        for value in node.values():
            yield from every(value)
    elif isinstance(node, list):
        for value in node:
            yield from every(value)


def test_the_description_has_nothing_that_makers_of_clients_stumble_over(document: Any) -> None:
    assert not [
        name for name, value in every(document) if name == "prefixItems" or (name == "items" and value is False)
    ]


def test_every_route_is_described_with_its_answers(document: Any) -> None:
    guards = {"401", "403", "421", "429"}
    for operation in (one for operations in document["paths"].values() for one in operations.values()):
        assert guards <= set(operation["responses"])
    described = {
        (path, method): set(operation["responses"]) - guards
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    ingest = {"200", "400", "408", "413", "415", "422", "431", "503", "507"}
    assert document["openapi"] == "3.1.0"
    assert described == {
        ("/event", "post"): ingest,
        ("/events", "post"): ingest,
        ("/health", "get"): {"200", "503"},
        ("/ready", "get"): {"200", "503"},
        ("/stats", "get"): {"200", "503"},
        ("/metrics", "get"): {"200", "503"},
        ("/actors", "get"): {"200", "503"},
        ("/ops", "get"): {"200", "400", "503"},
        ("/ops/{seq}", "get"): {"200", "400", "404", "503"},
        ("/tail", "get"): {"200", "400", "503"},
        ("/failures", "get"): {"200", "400", "503"},
        ("/failures/{pattern}", "get"): {"200", "404", "503"},
        ("/failures/{pattern}", "post"): {"200", "400", "404", "408", "413", "503", "507"},
        ("/advice", "get"): {"200", "400", "503", "507"},
        ("/playbook", "get"): {"200", "400", "503"},
        ("/playbook/{entry}", "get"): {"200", "404", "503"},
        ("/playbook/{entry}", "post"): {"200", "400", "404", "408", "413", "503", "507"},
        ("/playbook/revoke", "post"): {"200", "400", "408", "413", "503", "507"},
        ("/kb/outcomes", "get"): {"200", "400", "503"},
        ("/kb/history", "get"): {"200", "400", "503"},
    }


def test_the_description_holds_together(document: Any) -> None:
    names = set(document["components"]["schemas"])
    references = {value for name, value in every(document) if name == "$ref"}
    assert references == {f"#/components/schemas/{name}" for name in names}
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    for operation in operations:
        assert operation["summary"]
        assert all(response["description"] for response in operation["responses"].values())
        assert all(response["content"] for response in operation["responses"].values())
    for path, methods in document["paths"].items():
        named = {parameter["name"] for parameter in methods.get("get", {}).get("parameters", ())}
        assert set(re.findall(r"{(\w+)}", path)) <= named


def test_clients_can_be_generated_from_the_description(document: Any) -> None:
    operations = {
        operation["operationId"]: operation for path in document["paths"].values() for operation in path.values()
    }
    assert {"post_event", "post_events", "get_ops", "get_one_op", "get_advice"} <= operations.keys()
    assert not [name for name in operations if re.match(r"(get|post)_\1_", name)]
    assert document["components"]["securitySchemes"] == {"token": {"type": "http", "scheme": "bearer"}}
    assert document["security"] == [{}, {"token": []}]
    assert "gzip" in operations["post_events"]["requestBody"]["description"]
    assert "0 are accepted and 0 rejected, it is refused as a whole" in operations["post_events"]["description"]
    answers = operations["get_advice"]["responses"]["200"]["content"]
    assert set(answers) == {"application/json", "text/markdown"}


def test_problems_are_described_under_their_own_type(document: Any) -> None:
    answer = document["paths"]["/ops"]["get"]["responses"]["400"]["content"]
    assert answer == {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    body = document["paths"]["/events"]["post"]["requestBody"]["content"]
    assert set(body) == {"application/json", "application/x-ndjson"}
    assert "additionalProperties" not in document["components"]["schemas"]["Event"]


def test_the_parameters_described_are_those_taken(daemon: Served, document: Any) -> None:
    compared = set()
    for path, operations in document["paths"].items():
        parameters = operations.get("get", {}).get("parameters", ())
        described = {parameter["name"] for parameter in parameters if parameter["in"] == "query"}
        if described:
            known = daemon.client.get(path, params={"zzzzzz": "1"}).json()["hint"].removeprefix("known are ")
            assert described == set(known.split(", ")), path
            compared.add(path)
    assert compared == {"/ops", "/failures", "/playbook", "/advice", "/kb/outcomes", "/kb/history"}


def test_what_a_reader_goes_on_behind_is_described(document: Any) -> None:
    (header,) = document["paths"]["/tail"]["get"]["parameters"]
    assert (header["name"], header["in"], header["schema"]["type"]) == ("Last-Event-ID", "header", "integer")
    assert not header.get("required")
    for path in ("/ops", "/kb/outcomes"):
        assert "repeat the filters" in document["paths"][path]["get"]["description"]


async def test_the_description_is_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Description] = []

    def schema(self: Description) -> dict[str, str]:
        built.append(self)
        return {"openapi": "3.1.0"}

    monkeypatch.setattr(Description, "schema", schema)
    client = create_app(cast("Views", SimpleNamespace())).test_client()
    answers = [await (await client.get("/openapi.json")).get_json() for _ in range(2)]
    assert answers == [{"openapi": "3.1.0"}] * 2
    assert len(built) == 1


async def test_metrics_are_encoded_where_they_hold_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded_in: list[threading.Thread] = []

    def encode(_collector: object) -> bytes:
        encoded_in.append(threading.current_thread())
        return b"# EOF\n"

    monkeypatch.setattr(app, "choose_encoder", lambda _accept: (encode, "text/plain"))
    monkeypatch.setattr(app, "DaemonCollector", lambda _views: None)
    answer = await create_app(cast("Views", SimpleNamespace())).test_client().get("/metrics")
    assert await answer.get_data() == b"# EOF\n"
    [thread] = encoded_in
    assert thread is not threading.current_thread()


def test_a_python_without_docstrings_describes_the_same_routes(document: Any) -> None:
    script = (
        "import trio; from observer_actors.http.app import create_app; get = create_app(None).test_client().get\n"
        "async def ask(): print(await (await get('/openapi.json')).get_data(as_text=True))\n"
        "trio.run(ask)"
    )
    said = subprocess.run([sys.executable, "-OO", "-c", script], capture_output=True, check=True, timeout=60)
    assert msgspec.json.decode(said.stdout)["paths"].keys() == document["paths"].keys()


def test_what_a_caller_may_leave_out_is_described_as_such(document: Any) -> None:
    parameters = {
        (path, parameter["name"]): parameter
        for path, operations in document["paths"].items()
        for parameter in operations.get("get", {}).get("parameters", ())
        if parameter["in"] == "query"
    }
    assert [key for key, parameter in parameters.items() if parameter.get("required")] == [("/kb/history", "sig")]
    assert not [key for key, parameter in parameters.items() if "null" in str(parameter["schema"])]
    assert "(?P" not in parameters["/ops", "cursor"]["schema"]["pattern"], "ECMA-262 has no such names"


def test_only_reports_are_said_to_be_taken_compressed(daemon: Served, document: Any) -> None:
    for path, operations in document["paths"].items():
        if "post" not in operations:
            continue
        is_said = "gzip" in operations["post"]["requestBody"].get("description", "")
        url = path.replace("{pattern}", "x").replace("{entry}", "x")
        body, headers = gzip.compress(b'{"ok":true}'), {"Content-Encoding": "gzip"}
        assert (daemon.client.post(url, content=body, headers=headers).status_code == 200) == is_said, path
        assert "413" in operations["post"]["responses"]


def test_each_field_of_an_outcome_is_described() -> None:
    assert set(Outcome.__struct_fields__) == set(AuditRow.__struct_fields__)


def test_each_type_of_the_metrics_is_described(daemon: Served, document: Any) -> None:
    described = document["paths"]["/metrics"]["get"]["responses"]["200"]["content"]
    types = [daemon.client.get("/metrics", headers=accept).headers["Content-Type"] for accept in ({}, OPENMETRICS)]
    assert set(described) == {given.partition(";")[0] for given in types}


def test_no_url_of_another_place_is_in_the_description(daemon: Served) -> None:
    assert "://" not in daemon.client.get("/openapi.json").text
