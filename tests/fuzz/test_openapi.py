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
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from tests.daemon.served import Served, served
from tests.fuzz.examples import EXAMPLES

ENDLESS: Final = "/tail"
EXAMPLES_BOUNDED: Final = 12


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


def test_a_right_request_gets_an_answer_that_is_described(described: dict[str, Any]) -> None:
    for operation in described.values():
        _try(operation, GenerationMode.POSITIVE, leave_out=[positive_data_acceptance])


def test_a_wrong_request_is_refused_as_described(described: dict[str, Any]) -> None:
    with_input = [one for one in described.values() if list(one.iter_parameters()) or list(one.body)]
    assert {"POST /event", "POST /events", "GET /ops", "GET /ops/{seq}"} <= {one.label for one in with_input}
    for operation in with_input:
        with suppress(Unsatisfiable):  # nothing that is wrong by the description can be made for it
            # Of a batch each event is judged by itself: one that is wrong, among right ones, is no wrong request.
            in_parts = operation.label == "POST /events"
            _try(operation, GenerationMode.NEGATIVE, leave_out=[negative_data_rejection] if in_parts else [])


@pytest.mark.parametrize("name", ["POST /event", "POST /events", "GET /ops"])
def test_a_request_that_the_description_allows_is_accepted(name: str, described: dict[str, Any]) -> None:
    _try(described[name], GenerationMode.POSITIVE, leave_out=[], examples=60)


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
        case.call_and_validate(excluded_checks=leave_out)

    run()
