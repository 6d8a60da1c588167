"""`observer-actors revoke`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from cyclopts import Parameter

from observer_actors.commands._answers import RevokedAnswer
from observer_actors.commands._aside import told
from observer_actors.commands._filters import Time
from observer_actors.commands._options import ApiOptions, JsonFlag
from observer_actors.commands._screen import print_json
from observer_actors.errors import UsageInvalid


def revoke(
    api: ApiOptions = ApiOptions(),
    *,
    source: str | None = None,
    run: str | None = None,
    staffer: str | None = None,
    since: Annotated[
        Time | None, Parameter(help="Only what was recorded since: an ISO 8601 time, or 90s, 2h, 7d.")
    ] = None,
    note: Annotated[str, Parameter(help="Why; kept in the journal.", allow_leading_hyphen=True)] = "",
    json: JsonFlag = False,
) -> None:
    """Take back all that the playbook has from a source, a run or a staffer.

    Nothing is deleted: the revocation stands in the journal, and the playbook is made anew as if those ops had never
    come. Entries that they may touch are not handed out from now on until that is done. What comes later counts again.

    Example: observer-actors revoke --source bot --since 2h --note "its key was stolen"

    Parameters
    ----------
    source
        All ops of this source.
    run
        All ops, and the verdict, of this run.
    staffer
        All ops of this staffer.
    """
    given = [(of, name) for of, name in (("source", source), ("run", run), ("staffer", staffer)) if name]
    if len(given) != 1:
        raise UsageInvalid("wants one of --source, --run and --staffer", hint="observer-actors revoke --source bot")
    of, name = given[0]
    asked = {"of": of, "name": name, "since": since or "", "note": note}
    body, answer = api.post(RevokedAnswer, "/playbook/revoke", msgspec.json.encode(asked))
    if json:
        print_json(body)
    else:
        print(f"revoked by op {answer.seq}; {answer.suspended:,} entries are held back until the playbook is made anew")
        if not answer.suspended:
            told(f"nothing that was learned comes from the {of} {name}: is that the name?")
