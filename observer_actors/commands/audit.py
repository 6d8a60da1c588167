"""`observer-actors audit`: an auditor that remembers, of Python repositories."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Final

import msgspec
import trio
from cyclopts import Parameter

from observer_actors.audit import Audit, Audited, audit, inventory_of, inventory_page, judge
from observer_actors.client import Receipt, record_external_op
from observer_actors.client._places import data_directory
from observer_actors.client._verdict import reported
from observer_actors.commands._aside import told
from observer_actors.commands._options import ApiOptions, Folder, JsonFlag
from observer_actors.commands._screen import print_json
from observer_actors.errors import DiskFailed, ObserverError
from observer_actors.kb import AuditHistory, OutcomesIndex
from observer_actors.visible import visible_json

EXITS: Final = {"approve": 0, "request_changes": 1, "block": 2}


HISTORY_ROWS: Final = 5


class DataUnusable(ObserverError):
    """The data directory cannot be read or written."""

    exit_code: ClassVar[int] = 74


def audit_(
    path: Path = Path(),
    api: ApiOptions = ApiOptions(),
    *,
    base: str = "",
    signature: str = "",
    data_dir: Folder | None = None,
    dry_run: Annotated[bool, Parameter(negative=())] = False,
    inventory: Annotated[bool, Parameter(negative=())] = False,
    json: JsonFlag = False,
) -> int:
    """Audit a Python repository, and remember the verdict.

    Takes an inventory of every Python file, checks what has changed since BASE against it, committed or not, and says
    what earlier audits of the same, or of other commits of the same branch, came to. Nothing of the repository is
    run. The verdict is written below the data directory, told to the daemon, and added to the knowledge base.

    Exits 0 for approve, 1 for request_changes, 2 for block; 64 when the signature cannot be used, 66 when there is
    nothing that can be audited, 74 when the data directory cannot be used.

    Example: observer-actors audit --base origin/main --dry-run

    Parameters
    ----------
    path
        The folder; only what lies in it is looked at.
    base
        What to compare with: a branch, a tag, a commit; else what CI names, else the main branch.
    signature
        What the audit is filed under, such as pr6-7fe47bab; else made of what CI or git say.
    data_dir
        Where the verdict is kept, and the history when the daemon is away; else OBSERVER_DATA_DIR, else ./data. A
        configuration file says where the daemon keeps what is its own: that is not looked at.
    dry_run
        Write nothing and tell nobody.
    inventory
        Give the inventory alone, as a page of Markdown: no verdict.
    """
    if inventory:
        sys.stdout.write(inventory_page(inventory_of(path)))
        return 0
    data_dir = data_directory(data_dir)
    audited = audit(path, base=base, signature=signature)
    outcome = judge(audited, _history(api, audited, data_dir))
    if not dry_run:
        _report(outcome, api, data_dir)
    if json:
        print_json(visible_json(msgspec.json.encode(outcome.as_json())))
    else:
        sys.stdout.write(outcome.markdown)
    return EXITS[outcome.verdict.overall]


def _history(api: ApiOptions, audited: Audited, data_dir: Path) -> AuditHistory:
    """Ask the daemon; when it is away, read the file."""
    parameters = {"sig": audited.signature}
    try:
        with api.open() as daemon:
            return daemon.read(AuditHistory, "/kb/history", parameters)
    except ObserverError:
        index = OutcomesIndex(data_dir)
    try:
        return index.history(audited.signature, newest=HISTORY_ROWS)
    except DiskFailed as error:
        raise DataUnusable(f"the history cannot be read: {error}", hint=error.hint) from error


def _report(outcome: Audit, api: ApiOptions, data_dir: Path) -> None:
    async def post(event: Mapping[str, object]) -> Receipt:
        return await record_external_op(event, observer_url=api.address())  # also that may fail, and alone

    async def report() -> tuple[str, ...]:
        return (await reported(outcome.verdict, post, data_dir)).troubles

    try:
        troubles = trio.run(report)
    except DiskFailed as error:
        raise DataUnusable(f"the verdict is not on disk: {error}", hint=error.hint) from error
    for trouble in troubles:
        told(trouble)
