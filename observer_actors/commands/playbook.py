"""`observer-actors playbook`."""

from __future__ import annotations

from observer_actors.commands._answers import PlaybookAnswer
from observer_actors.commands._options import ApiOptions, JsonFlag
from observer_actors.commands._screen import console, print_json, table

__all__ = ["playbook"]


def playbook(api: ApiOptions = ApiOptions(), *, json: JsonFlag = False) -> None:  # noqa: B008 - frozen
    """Show what worked, and how often.

    Example: observer-actors playbook
    """
    with api.open() as daemon:
        body = daemon.get("/playbook")
        answer = daemon.decoded(PlaybookAnswer, body)
    if json:
        print_json(body)
        return
    if not answer.entries:
        print("nothing has worked often enough yet")
        return
    rows = [(f"{one.successes:,}", one.kind, one.endpoint, one.text, one.id) for one in answer.entries]
    console().print(table(("successes", "kind", "endpoint", "text", "id"), rows, numbers=("successes",)))
