"""Requests made from /openapi.json, right ones and wrong ones: each answer is one that the description has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import negative_data_rejection

from observer_actors.event import OWN_SOURCE
from tests.daemon.served import Served, served
from tests.fuzz.examples import EXAMPLES

ENDLESS: Final = "/tail"
EXAMPLES_BOUNDED: Final = 12
MANIFOLD: Final = ("POST /event", "POST /events", "GET /ops")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("data")) as one:
        one.event(endpoint="tool:a", success=False, error="timeout")
        yield one


@pytest.fixture(scope="module")
def described(daemon: Served) -> dict[str, Any]:
    """Give each operation of the description by its name."""
    schema = schemathesis.openapi.from_url(f"{daemon.url}/openapi.json").exclude(path=ENDLESS)
    found = list(schema.get_all_operations())
    operations = [one.ok() for one in found if isinstance(one, Ok)]
    assert len(operations) == len(found), "an operation is not described as it should be"
    return {operation.label: operation for operation in operations}


def test_a_wrong_request_is_refused_as_described(described: dict[str, Any]) -> None:
    with_input = [one for one in described.values() if list(one.iter_parameters()) or list(one.body)]
    assert {"POST /event", "POST /events", "GET /ops", "GET /ops/{seq}"} <= {one.label for one in with_input}
    for operation in with_input:
        with suppress(Unsatisfiable):  # nothing that is wrong by the description can be made for it
            # Of a batch each event is judged by itself: one that is wrong, among right ones, is no wrong request.
            in_parts = operation.label == "POST /events"
            _try(operation, GenerationMode.NEGATIVE, leave_out=[negative_data_rejection] if in_parts else [])


def test_a_request_that_the_description_allows_is_accepted_and_answered_as_described(described: dict[str, Any]) -> None:
    for name, operation in described.items():
        examples = 60 if name in MANIFOLD else EXAMPLES_BOUNDED
        _try(operation, GenerationMode.POSITIVE, leave_out=[], examples=examples)


def _is_wrong_all_the_same(case: Any) -> bool:
    """Tell what the description says in words: advice wants an endpoint or an input, and attributes as JSON, say."""
    query, body = case.query or {}, case.body if isinstance(case.body, dict) else {}
    return (
        (case.path == "/advice" and ("attrs" in query or not (query.get("endpoint") or query.get("input"))))
        or (case.path == "/playbook/revoke" and body["name"] == OWN_SOURCE)
        or (body.get("action") == "note" and not str(body.get("note", "")).strip())
    )


def _try(operation: Any, mode: GenerationMode, *, leave_out: list[Any], examples: int = EXAMPLES_BOUNDED) -> None:
    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES or examples,
        derandomize=not EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def run(case: Any) -> None:
        # A cursor goes one way, and says so itself: no schema can say that an order must agree with it.
        assume(not {"cursor", "order"} <= (case.query or {}).keys())
        assume(mode is GenerationMode.NEGATIVE or not _is_wrong_all_the_same(case))
        case.call_and_validate(excluded_checks=leave_out)

    run()
