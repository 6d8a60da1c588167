"""`observer-actors advice`."""

from __future__ import annotations

from dataclasses import dataclass
from json import dumps
from typing import Annotated, Final

from cyclopts import Parameter, validators

from observer_actors.client._texts import advice_query
from observer_actors.commands._aside import told
from observer_actors.commands._options import ApiOptions, Attributes, JsonFlag, attributes_of
from observer_actors.commands._screen import print_json
from observer_actors.event import FALLBACK_SOURCE

LIMIT_MAX: Final = 3
ADVICE_ID_HEADER: Final = "Advice-Id"


@Parameter(name="*", allow_leading_hyphen=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class AskFlags:
    """What it is asked for."""

    input: Annotated[str | None, Parameter(help="What it is to be called with.")] = None
    role: Annotated[str | None, Parameter(help="Of the agent.")] = None
    run: Annotated[
        str | None, Parameter(help="The episode that the call belongs to: all of it gets an entry, or none of it.")
    ] = None
    task: Annotated[
        str | None, Parameter(help="What the episode is about: outcomes of the same task are compared.")
    ] = None
    source: Annotated[
        str | None, Parameter(help="The source under which the run reports; unless given, with --run, that of `send`.")
    ] = None
    attributes: Attributes = ()
    limit: Annotated[int, Parameter(help="Most entries.", validator=validators.Number(gte=1, lte=LIMIT_MAX))] = 1


def advice(
    endpoint: str,
    flags: AskFlags = AskFlags(),
    api: ApiOptions = ApiOptions(),
    *,
    json: JsonFlag = False,
) -> None:
    """Get what helps with an operation, as Markdown for a prompt; nothing when there is nothing to say.

    A part of the runs gets nothing on purpose, so that it can be measured whether advice helps. So report what came of
    it also then: with the same `--run` and `--source`, or with the id of the advice, which is told on standard error.
    Without a source `send` reports as scenario, `exec` as bot.

    Of an input only the beginning is looked at, so a long one is cut.

    Example: observer-actors advice sql:run --input "SELECT 1" --run "$RUN"

    Parameters
    ----------
    endpoint
        What is about to be called.
    """
    attributes = attributes_of(flags.attributes)
    given = {
        "endpoint": endpoint,
        "input": flags.input or "",
        "role": flags.role or "",
        "run": flags.run or "",
        "task": flags.task or "",
        "source": flags.source or (FALLBACK_SOURCE if flags.run else ""),
        "attrs": dumps(attributes) if attributes else "",
        "limit": str(flags.limit),
        "format": "json" if json else "markdown",
    }
    with api.open() as daemon:
        answer = daemon.answer("/advice", advice_query(given))
    if json:
        print_json(answer.content)
        return
    print(answer.text, end="", flush=True)
    if advice_id := answer.headers.get(ADVICE_ID_HEADER):
        told(f"advice id: {advice_id} (`send` and `exec` take it as --advice-id)")
