"""`observer-actors audits`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter, validators

from observer_actors.commands._answers import AuditAnswer, HistoryAnswer, OutcomesAnswer, TallyAnswer
from observer_actors.commands._filters import Time
from observer_actors.commands._options import ApiOptions, JsonFlag
from observer_actors.commands._screen import console, print_json, shown_time, table
from observer_actors.errors import UsageInvalid
from observer_actors.visible import visible


def audits(
    signature: str | None = None,
    api: ApiOptions = ApiOptions(),
    *,
    overall: str | None = None,
    since: Time | None = None,
    limit: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=100))] = 20,
    json: JsonFlag = False,
) -> None:
    """Show what auditors found, newest first; or what is known of one signature and of similar ones.

    Example: observer-actors audits pr6-7fe47bab

    Parameters
    ----------
    signature
        What was audited. Similar are other commits of the same pull request or branch.
    overall
        Only these verdicts: approve, request_changes … Not with a signature.
    since
        Not before: an ISO 8601 time, or how long ago: 90s, 15m, 2h, 7d. Not with a signature.
    limit
        Most audits to show.
    """
    given = [flag for flag, value in (("--overall", overall), ("--since", since)) if value is not None]
    if signature is not None and given:
        hint = "leave it out, or the signature"
        raise UsageInvalid(f"{' and '.join(given)}: not with a signature", hint=hint)
    if signature is None:
        wanted = {"kind": "audit", "overall": overall, "since": since, "limit": limit}
        body, found = api.get(OutcomesAnswer, "/kb/outcomes", wanted)
        lines, rows = [], found.outcomes
    else:
        body, history = api.get(HistoryAnswer, "/kb/history", {"sig": signature, "limit": limit})
        similar = f"similar ones ({visible(history.stem)})"
        lines = [_summed_up("the same signature", history.same), _summed_up(similar, history.similar)]
        rows = history.newest
    if json:
        print_json(body)
        return
    for line in lines:
        print(line)
    _show(rows)


def _summed_up(who: str, tally: TallyAnswer) -> str:
    if not tally.audits:
        return f"{who}: no audits"
    verdicts = ", ".join(f"{count} {visible(overall)}" for overall, count in tally.overall.items())
    return f"{who}: {tally.audits} audits, {tally.refused} refused ({verdicts}), last {shown_time(tally.last)}"


def _show(rows: Sequence[AuditAnswer]) -> None:
    if not rows:
        print("no audits")
        return
    columns = ("when", "signature", "verdict", "info", "warn", "block", "why")
    lines = [
        (shown_time(row.timestamp), row.signature, row.overall, *map(str, _counts(row)), row.one_liner) for row in rows
    ]
    console().print(table(columns, lines, numbers=("info", "warn", "block")))


def _counts(row: AuditAnswer) -> tuple[int, int, int]:
    return row.findings.info, row.findings.warn, row.findings.block
