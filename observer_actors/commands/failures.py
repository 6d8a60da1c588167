"""`observer-actors failures`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Annotated, Literal

from cyclopts import Parameter, validators
from rich.table import Table

from observer_actors.commands._answers import FailureAnswer, FailuresAnswer
from observer_actors.commands._filters import Time
from observer_actors.commands._options import ApiOptions, JsonFlag
from observer_actors.commands._screen import LISTED_MAX, console, print_json, say_more, shown_time, table


@Parameter(name="*", allow_leading_hyphen=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class FailureFilters:
    """Each one given must fit. The daemon, which may be of another version, says what it knows of states and causes."""

    endpoint: Annotated[str | None, Parameter(help="Only of this endpoint.")] = None
    source: Annotated[str | None, Parameter(help="Only what this source has seen.")] = None
    state: Annotated[
        str | None, Parameter(help="Only in this state: new, ongoing, escalating, resolved, regressed, muted.")
    ] = None
    cause: Annotated[str | None, Parameter(help="Only with this likely cause, such as timeout.")] = None
    text: Annotated[str | None, Parameter(help="Only with this in the pattern.")] = None
    since: Annotated[
        Time | None, Parameter(help="Failed last not before: an ISO 8601 time, or how long ago: 90s, 15m, 2h, 7d.")
    ] = None
    until: Annotated[Time | None, Parameter(help="Failed last before: likewise.")] = None


def failures(
    filters: FailureFilters = FailureFilters(),
    api: ApiOptions = ApiOptions(),
    *,
    sort: Literal["impact", "count", "wasted", "last_seen", "first_seen"] = "impact",
    limit: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=LISTED_MAX))] = 100,
    json: JsonFlag = False,
) -> None:
    """Show what fails in the same way, what costs most first.

    Example: observer-actors failures --since 1d

    Parameters
    ----------
    sort
        What is first: what costs most (impact), has failed most often, wasted most time, failed last, or begun last.
    limit
        Most patterns to show.
    """
    with api.open() as daemon:
        body = daemon.get("/failures", asdict(filters) | {"sort": sort, "limit": limit})
        answer = daemon.decoded(FailuresAnswer, body)
    if json:
        print_json(body)
    elif answer.failures:
        console().print(table_of(answer.failures))
        say_more(answer.total, len(answer.failures), "--endpoint and the other filters")
    else:
        print("nothing that has failed fits" if filters != FailureFilters() else "nothing has failed")


def table_of(found: Iterable[FailureAnswer]) -> Table:
    """Lay patterns out, one a line."""
    columns = ("count", "state", "last seen", "endpoint", "pattern", "id")
    rows = [
        (f"{one.count:,}", one.state, shown_time(one.last_seen), one.endpoint, one.template, one.id) for one in found
    ]
    return table(columns, rows, numbers=("count",))
