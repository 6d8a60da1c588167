"""`docs/metrics.md`, made from what a daemon says of itself: ``python -m tests.metrics_page``, or ``make docs``."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import ROOT
from tests.daemon.served import Served, served

PAGE: Final = ROOT / "docs" / "metrics.md"
CAUGHT_UP_S: Final = 10.0
UNSEEN: Final[dict[str, tuple[str, ...]]] = {"observer_advice_lift": ("bound", "entry")}
"""The labels of what is there only once an entry of the playbook has had a trial."""
RECEIVERS: Final = '[gateway]\nurl = "http://127.0.0.1:9"\n[failures]\nwebhook_url = "http://127.0.0.1:9"\n'
"""The configuration of a daemon that has all there may be to count. Nobody is there to take anything."""
_HEAD: Final = """\
# Metrics

What `GET /metrics` gives, in Prometheus's text format, or in OpenMetrics for those who ask for it (then the failures
of an endpoint carry an exemplar: the seq of the newest one, and its `trace_id` if the caller gave one). This page is
made by `make docs` from a daemon that runs; a test holds that it is complete.

Labels are bounded: 200 endpoints and 50 sources, the rest is counted under `other` (`other…`, where one of
those is called `other`). Rules and a dashboard that use these names lie in [`monitoring/`](monitoring/). Counts of ops
go on over a restart; those of what the process did itself, such as `observer_model_questions_total`, begin at 0 with
each, which Prometheus takes for the reset that it is.

| metric | kind | labels | meaning |
|---|---|---|---|
"""


def families(daemon: Served) -> list[Metric]:
    """Give everything that the daemon counts, after an event of each outcome, and one with a secret, are taken in."""
    daemon.event(endpoint="e", success=True)
    daemon.event(endpoint="e", success=False, error="x")
    daemon.event(endpoint="e", success=False, error="password=hunter2hunter2")
    until = time.monotonic() + CAUGHT_UP_S
    while True:
        found = list(text_string_to_metric_families(daemon.client.get("/metrics").text))
        (behind,) = (family for family in found if family.name == "observer_consumer_behind_ops")
        if not any(sample.value for sample in behind.samples):
            return found
        assert time.monotonic() < until
        time.sleep(0.02)


def page(found: Iterable[Metric]) -> str:
    """Give the page."""
    return _HEAD + "".join(_row(family) for family in sorted(found, key=lambda family: family.name))


def _row(family: Metric) -> str:
    suffix = "_total" if family.type == "counter" else ""
    labels = sorted({label for sample in family.samples for label in sample.labels}) or UNSEEN.get(family.name, ())
    shown = ", ".join(f"`{label}`" for label in labels)
    return f"| `{family.name}{suffix}` | {family.type} | {shown} | {family.documentation} |\n"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, served(Path(folder) / "data", RECEIVERS) as daemon:
        PAGE.write_text(page(families(daemon)), encoding="utf-8")


if __name__ == "__main__":
    main()
