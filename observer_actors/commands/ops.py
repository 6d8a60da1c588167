"""`observer-actors ops`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal

import msgspec
from cyclopts import Parameter, validators

from observer_actors.commands._filters import Filters, pages, raw_ops
from observer_actors.commands._options import ApiOptions, JsonFlag
from observer_actors.commands._screen import console, op_line, print_json


def ops(
    filters: Filters = Filters(),
    api: ApiOptions = ApiOptions(),
    *,
    limit: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 20,
    order: Literal["newest", "oldest"] = "newest",
    json: JsonFlag = False,
) -> None:
    """Find operations, newest first unless told otherwise.

    With `--json`, an array of them as the daemon keeps them.

    Example: observer-actors ops --failed --since 1h

    Parameters
    ----------
    limit
        Most operations to show.
    order
        Which of them first.
    """
    parameters = asdict(filters) | {"order": order}
    screen = console()
    found: list[msgspec.Raw] = []
    with api.open() as daemon:
        for body, page in pages(daemon, parameters, limit=limit):
            if json:
                found += raw_ops(body)
                continue
            for op in page.ops:
                screen.print(op_line(op), soft_wrap=True)
    if json:
        print_json(msgspec.json.encode(found))
