"""`observer-actors token`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from cyclopts import Parameter

from observer_actors.commands._options import JsonFlag
from observer_actors.commands._screen import print_json
from observer_actors.commands._usage import UsageInvalid
from observer_actors.tokens import Scope, hash_of, new_token


def token(
    name: str,
    *,
    scopes: Annotated[tuple[Scope, ...], Parameter(negative=())] = (Scope.INGEST,),
    json: JsonFlag = False,
) -> None:
    """Make a token: shown once, and the line for `auth.tokens_file` that holds its hash alone.

    Example: observer-actors token gateway --scopes ingest --scopes read

    Parameters
    ----------
    name
        Whose it is; the log calls it so.
    scopes
        What it may do: ingest, read, admin; may be given again.
    """
    if name.partition("#")[0].split() != [name] or not name.isprintable():
        raise UsageInvalid(f"NAME: {name!a} is none", hint="a word without blanks and #, e.g. gateway")
    made = new_token()
    line = f"{name} {','.join(scopes)} {hash_of(made)}"
    if json:
        print_json(msgspec.json.encode({"token": made, "line": line}))
    else:
        print(f"token (give it to {name}, and keep it nowhere else):\n  {made}\nline for auth.tokens_file:\n  {line}")
