"""`observer-actors failures`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from cyclopts import Parameter, validators
from rich.table import Table

from observer_actors.commands._answers import FailureAnswer, FailuresAnswer
from observer_actors.commands._options import ApiOptions, JsonFlag
from observer_actors.commands._screen import console, print_json, table


def failures(
    api: ApiOptions = ApiOptions(),  # noqa: B008 - frozen
    *,
    limit: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=1_000))] = 100,
    json: JsonFlag = False,
) -> None:
    """Show what fails in the same way, what costs most first.

    Example: observer-actors failures

    Parameters
    ----------
    limit
        Most patterns to show.
    """
    with api.open() as daemon:
        body = daemon.get("/failures", {"limit": limit})
        answer = daemon.decoded(FailuresAnswer, body)
    if json:
        print_json(body)
    elif answer.failures:
        console().print(table_of(answer.failures))
        if answer.total > len(answer.failures):
            print(f"{answer.total - len(answer.failures):,} more; --limit shows them")
    else:
        print("nothing has failed")


def table_of(found: Iterable[FailureAnswer]) -> Table:
    """Lay patterns out, one a line."""
    columns = ("count", "last seen", "endpoint", "pattern", "id")
    rows = [(f"{one.count:,}", one.last_seen[:19], one.endpoint, one.template, one.id) for one in found]
    return table(columns, rows, numbers=("count",))
