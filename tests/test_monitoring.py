"""What is said about metrics and logs is complete, and what uses them names only what there is."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics

from observer_actors.commands._checks import check_counters
from observer_actors.labels import bounded_endpoint
from observer_actors.logs import LINES_LOST
from observer_actors.store import Lane
from observer_actors.supervision.events import LifecycleEvent
from observer_actors.visible import snake
from tests.conftest import ROOT
from tests.daemon.served import Served, served
from tests.metrics_page import PAGE, RECEIVERS, UNSEEN, families, page

MONITORING: Final = ROOT / "docs" / "monitoring"
OPENMETRICS: Final = {"Accept": "application/openmetrics-text"}
TRACE_ID: Final = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("data"), RECEIVERS) as running:
        yield running


@pytest.fixture(scope="module")
def promtool() -> str:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    return tool


@pytest.fixture(scope="module")
def names(daemon: Served) -> set[str]:
    """Every name that a query may use."""
    return {sample.name for family in families(daemon) for sample in family.samples} | {"up"}


def checked(promtool: str, *arguments: str, given: str = "") -> None:
    ended = subprocess.run([promtool, "check", *arguments], input=given, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stderr == ""


def test_the_page_of_metrics_is_complete(daemon: Served) -> None:
    assert PAGE.read_text(encoding="utf-8") == page(families(daemon)), "`make docs` makes it anew"


def test_the_labels_of_each_metric_are_on_the_page(daemon: Served) -> None:
    assert {family.name for family in families(daemon) if not family.samples} == UNSEEN.keys()


def test_promtool_has_nothing_against_the_metrics(daemon: Served, promtool: str) -> None:
    families(daemon)
    checked(promtool, "metrics", given=daemon.client.get("/metrics").text)


def test_promtool_has_nothing_against_the_rules(promtool: str) -> None:
    checked(promtool, "rules", str(MONITORING / "alerts.yml"))


def queried(expression: str) -> set[str]:
    """Give the metrics that an expression names."""
    without_labels = re.sub(r"\{[^}]*\}|\[[^]]*\]|by \([^)]*\)", "", expression)
    return set(re.findall(r"\b(observer_[a-z_]+|up)\b", without_labels))


def test_each_alert_names_metrics_that_there_are_and_says_what_to_do(names: set[str]) -> None:
    text = (MONITORING / "alerts.yml").read_text(encoding="utf-8")
    alerts = re.split(r"^      - alert: ", text, flags=re.MULTILINE)[1:]
    assert len(alerts) >= 10
    for alert in alerts:
        name = alert.splitlines()[0]
        expression = alert.partition("expr:")[2].partition("labels:")[0]
        assert queried(expression), name
        assert queried(expression) <= names, name
        assert len(alert.partition("action: ")[2]) > 40, name
        assert "severity: page" in alert or "severity: ticket" in alert, name


def test_no_command_of_an_alert_holds_what_a_caller_chose() -> None:
    text = (MONITORING / "alerts.yml").read_text(encoding="utf-8")
    commands = re.findall(r"`.*?`", text)
    assert len(commands) > 10
    labels = {label for command in commands for label in re.findall(r"\$labels\.(\w+)", command)}
    assert labels == {"actor", "consumer"}, "these names are ours; that of an endpoint would be typed into a shell"


LOSSES: Final = {
    "observer_journal_damaged_lines",
    "observer_journal_missing_ops",
    "observer_outbox_dropped_total",
    "observer_outbox_refused_total",
    "observer_webhook_dropped_total",
}
"""What tells that something is gone for good. A message that is set aside is a lifecycle event, which has its alert."""


def test_whatever_is_lost_for_good_is_alerted(names: set[str]) -> None:
    text = (MONITORING / "alerts.yml").read_text(encoding="utf-8")
    assert names >= LOSSES
    assert {name for alert in re.findall(r"expr:(.*?)labels:", text, re.DOTALL) for name in queried(alert)} >= LOSSES


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_doctor_tells_whatever_is_lost_for_good(daemon: Served, name: str) -> None:
    families(daemon)
    text, series = re.subn(rf"(?m)^({name}\S*) .*$", r"\1 3", daemon.client.get("/metrics").text)
    found = [finding.what for finding in check_counters(text) if finding.what.startswith("3 ")]
    assert len(set(found)) == series > 0


TROUBLES: Final[dict[str, dict[str, str]]] = {
    "ObserverDown": {'up{job="observer-actors"}': "1x10 0x60"},
    "ObserverTakesNoEvents": {"observer_ready": "1x10 0x60"},
    "ObserverDiskRefuses": {"observer_disk_errors_total": "0x10 1+1x60"},
    "ObserverRefusesForLackOfRoom": {"observer_ingest_refused_total": "0x10 1+1x60"},
    "ObserverQueueIsFilling": {"observer_waiting_ops": "0x10 90x60", "observer_waiting_ops_max": "100x71"},
    "ObserverSyncIsSlow": {
        "observer_journal_sync_seconds": "0.01x10 0.5x60",
        "observer_journal_commits_total": "0+1x71",
    },
    "ObserverJournalDamaged": {"observer_journal_damaged_lines": "0x10 1x60"},
    "ObserverJournalOpsMissing": {"observer_journal_missing_ops": "0x10 1x60"},
    "ObserverActorParked": {'observer_actor_state{actor="courier",state="parked"}': "0x10 1x60"},
    "ObserverActorRestarts": {'observer_actor_restarts_total{actor="courier"}': "0x10 1+1x60"},
    "ObserverMessageQuarantined": {'observer_lifecycle_events_total{event="message_quarantined"}': "0x10 1x60"},
    "ObserverConsumerFallsBehind": {'observer_consumer_behind_ops{consumer="stats"}': "0x10 60000x60"},
    "ObserverReloadFailed": {"observer_reloads_failed": "0x10 1x60"},
    "ObserverOutboxIsStuck": {
        'observer_outbox_pending{receiver="gateway"}': "0x10 1x60",
        'observer_outbox_pending{receiver="webhook"}': "0x10 5x60",
        'observer_outbox_delivered_total{receiver="gateway"}': "7+1x71",
        'observer_outbox_delivered_total{receiver="webhook"}': "7x71",
    },
    "ObserverOutboxDrops": {
        'observer_outbox_dropped_total{receiver="gateway"}': "0x71",
        'observer_outbox_dropped_total{receiver="webhook"}': "0x10 1x60",
        "observer_webhook_dropped_total": "0x10 1x60",
    },
    "ObserverOutboxRefused": {
        'observer_outbox_refused_total{receiver="gateway"}': "0x71",
        'observer_outbox_refused_total{receiver="webhook"}': "0x10 1x60",
    },
    "ObserverEndpointFails": {
        'observer_endpoint_operations_total{endpoint="e",outcome="failure"}': "0x10 60+60x60",
        'observer_endpoint_operations_total{endpoint="e",outcome="success"}': "0x10 6+6x60",
    },
}
"""What each alert is for: ten minutes in which all is well, and an hour in which it is not, a value a minute."""
NO_TROUBLES: Final[dict[str, dict[str, str]]] = {
    "ObserverRefusesForLackOfRoom": {"observer_ingest_refused_total": "0x10 400x60"},
    "ObserverSyncIsSlow": {
        "observer_journal_sync_seconds": "0.01x10 0.5x60",
        "observer_journal_commits_total": "0x10 1x60",
    },
}
"""What an alert is not for, likewise: one burst, and a slow sync after which nothing is written."""


def test_each_series_that_an_alert_looks_at_is_there_before_anything_is_wrong(daemon: Served) -> None:
    """A counter that is born at 1 has not increased, for Prometheus."""
    there = [(sample.name, sample.labels) for family in families(daemon) for sample in family.samples]
    for series in {series for trouble in TROUBLES.values() for series in trouble if not series.startswith("up{")}:
        name, _, labels = series.partition("{")
        wanted = dict(re.findall(r'(\w+)="(.*?)"', labels))
        assert any(name == other and wanted.items() <= given.items() for other, given in there), series


def test_each_alert_fires_when_it_should_and_not_before(promtool: str, tmp_path: Path) -> None:
    rules = (MONITORING / "alerts.yml").read_text(encoding="utf-8")
    assert set(re.findall(r"- alert: (\w+)", rules)) == TROUBLES.keys()
    tests = [
        {
            "interval": "1m",
            "input_series": [{"series": series, "values": values} for series, values in trouble.items()],
            "promql_expr_test": [
                {
                    "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})',
                    "eval_time": minute,
                    "exp_samples": [{"labels": "{}", "value": 1}] if is_firing else [],
                }
                for minute, is_firing in (("10m", False), ("60m", True))
            ],
        }
        for alert, trouble in TROUBLES.items()
    ]
    evaluated(promtool, tmp_path, tests)


def test_no_alert_fires_for_what_is_over(promtool: str, tmp_path: Path) -> None:
    tests = [
        {
            "interval": "1m",
            "input_series": [{"series": series, "values": values} for series, values in passing.items()],
            "promql_expr_test": [
                {
                    "expr": f'count_over_time(ALERTS{{alertname="{alert}",alertstate="firing"}}[70m])',
                    "eval_time": "70m",
                    "exp_samples": [],
                }
            ],
        }
        for alert, passing in NO_TROUBLES.items()
    ]
    evaluated(promtool, tmp_path, tests)


@pytest.mark.parametrize(
    ("alert", "series", "values"),
    [
        *(("ObserverOutboxDrops", f'observer_outbox_dropped_total{{receiver="{name}"}}', "0x10 1x60") for name in Lane),
        ("ObserverOutboxDrops", "observer_webhook_dropped_total", "0x10 1x60"),
        *(
            ("ObserverOutboxRefused", f'observer_outbox_refused_total{{receiver="{name}"}}', "0x10 1x60")
            for name in Lane
        ),
        *(("ObserverOutboxIsStuck", f'observer_outbox_pending{{receiver="{name}"}}', "5x71") for name in Lane),
    ],
)
def test_an_alert_of_the_outbox_names_the_receiver(
    promtool: str, tmp_path: Path, alert: str, series: str, values: str
) -> None:
    receiver = "gateway" if "gateway" in series else "webhook"
    still = [f'observer_outbox_delivered_total{{receiver="{lane}"}}' for lane in Lane]
    fires = {
        "expr": f'count by (receiver) (ALERTS{{alertname="{alert}",alertstate="firing"}})',
        "eval_time": "65m",
        "exp_samples": [{"labels": f'{{receiver="{receiver}"}}', "value": 1}],
    }
    inputs = [{"series": series, "values": values}, *({"series": name, "values": "7x71"} for name in still)]
    evaluated(promtool, tmp_path, [{"interval": "1m", "input_series": inputs, "promql_expr_test": [fires]}])
    text = (MONITORING / "alerts.yml").read_text(encoding="utf-8")
    summary = text.partition(f"- alert: {alert}\n")[2].partition("summary: ")[2].partition("action: ")[0]
    assert "{{ $labels.receiver }}" in summary


def evaluated(promtool: str, tmp_path: Path, tests: list[dict[str, Any]]) -> None:
    given = {"rule_files": [str(MONITORING / "alerts.yml")], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "alerts_test.yml").write_text(json.dumps(given))
    command = [promtool, "test", "rules", str(tmp_path / "alerts_test.yml")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def scrapes() -> dict[str, str]:
    """Give each example of how Prometheus is told to scrape, by its page."""
    rules = (MONITORING / "alerts.yml").read_text(encoding="utf-8")
    guide = (ROOT / "docs" / "guide" / "operate.md").read_text(encoding="utf-8")
    return {
        "alerts.yml": "".join(re.findall(r"^#   (.*\n)", rules, re.MULTILINE)),
        "operate.md": "".join(re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL)),
    }


@pytest.mark.parametrize("page", scrapes())
def test_promtool_has_nothing_against_the_example_of_scraping(promtool: str, page: str, tmp_path: Path) -> None:
    token, config = tmp_path / "token", tmp_path / "prometheus.yml"
    token.write_text("x")
    text, exchanged = re.subn(r"(credentials_file: )[^ }\n]+", rf"\g<1>{token}", scrapes()[page])
    assert exchanged == 1, "with tokens it takes one"
    config.write_text(text)
    assert "job_name: observer-actors" in text
    checked(promtool, "config", str(config))


def test_with_tokens_a_scrape_takes_one_that_may_read(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("prometheus read a-token-that-may-read-things\nagents ingest a-token-that-may-report-things\n")
    tokens.chmod(0o600)
    with served(tmp_path / "data", f'[auth]\ntokens_file = "{tokens}"\n') as daemon:
        answers = [
            daemon.client.get("/metrics", headers=headers).status_code
            for headers in (
                {},
                {"Authorization": "Bearer a-token-that-may-report-things"},
                {"Authorization": "Bearer a-token-that-may-read-things"},
            )
        ]
    assert answers == [401, 403, 200]


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in board["panels"]:
        yield panel
        yield from panel.get("panels", [])


def test_each_panel_of_the_dashboard_names_metrics_that_there_are(names: set[str]) -> None:
    board = json.loads((MONITORING / "grafana.json").read_text(encoding="utf-8"))
    shown: set[str] = set()
    for panel in panels(board):
        for target in panel.get("targets", []):
            assert queried(target["expr"]), panel["title"]
            assert queried(target["expr"]) <= names, panel["title"]
            shown |= queried(target["expr"])
    assert len({panel["id"] for panel in panels(board)}) == len(list(panels(board)))
    assert len(shown) > 15


def test_a_failure_leads_to_its_op_and_to_the_callers_trace(tmp_path: Path) -> None:
    with served(tmp_path) as daemon:
        daemon.event(endpoint="a", success=False, error="x", trace_id=TRACE_ID)
        daemon.event(endpoint="b", success=False, error="x", trace_id='no"trace')
        daemon.event(endpoint="b", success=True)
        daemon.event(endpoint="c" * 300, success=False, error="x")
        daemon.json("/stats")
        text = daemon.client.get("/metrics", headers=OPENMETRICS).text
        found: list[Metric] = list(openmetrics(text))  # type: ignore[no-untyped-call]
        (endpoints,) = (family for family in found if family.name == "observer_endpoint_operations")
    exemplars = {
        (sample.labels["endpoint"], sample.labels["outcome"]): sample.exemplar.labels if sample.exemplar else None
        for sample in endpoints.samples
    }
    assert exemplars == {
        ("a", "success"): None,
        ("a", "failure"): {"seq": "1", "trace_id": TRACE_ID},
        ("b", "success"): None,
        ("b", "failure"): {"seq": "2"},
        (bounded_endpoint("c" * 300), "success"): None,
        (bounded_endpoint("c" * 300), "failure"): {"seq": "4"},
    }


# ----------------------------------------------------------------------------------------------------------- logs


def logged() -> Iterator[str]:
    """Give the name of every line that the daemon may write."""
    yield LINES_LOST  # by what writes the others
    for kind in LifecycleEvent.__subclasses__():
        yield snake(kind.__name__)
    for file in (ROOT / "observer_actors").rglob("*.py"):
        if "commands" in file.parts or "client" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("debug", "info", "warning", "error")
                and node.args
                and isinstance(node.args[0], ast.Constant)
                and isinstance(node.args[0].value, str)
            ):
                yield node.args[0].value


def test_the_page_of_logs_explains_every_line() -> None:
    text = (ROOT / "docs" / "logs.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"^\| `([a-z_]+)` \|", text, re.MULTILINE))
    assert explained == {name for name in logged() if re.fullmatch("[a-z_]+", name)}


def test_no_line_is_written_for_an_event(tmp_path: Path) -> None:
    with served(tmp_path, OBSERVER_CYCLE="3600") as daemon:
        daemon.event(endpoint="quiet", success=False)
        daemon.log.wait("pattern_state", state="new")  # a pattern that is new matters, its next event does not
        lines = len(daemon.log.lines)
        for number in range(50):
            daemon.event(endpoint="quiet", success=number % 2 == 0)
        daemon.json("/stats")
        assert len(daemon.log.lines) == lines


def test_failures_of_which_each_is_another_write_few_lines(tmp_path: Path) -> None:
    words = [
        f"{first}{second}ng" for first in "bcdfghklmnprst" for second in ("a", "e", "i", "o", "u", "ai", "ou", "ie")
    ]
    with served(tmp_path, OBSERVER_CYCLE="3600") as daemon:
        daemon.events(
            *(
                {"endpoint": f"tool:{word}", "source": word, "success": False, "error": f"{word} broke"}
                for word in words
            )
        )
        while len(daemon.json("/failures", limit=1000)["failures"]) < len(words):
            pass
        logged = [line["event"] for line in daemon.log.lines]
    assert len(words) > 100
    assert 0 < logged.count("pattern_state") <= 60, "30 a minute, and a minute may end meanwhile"
    assert logged.count("source_unknown") == 50
