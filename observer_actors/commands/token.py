"""`observer-actors token`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
from cyclopts import Parameter, Token

from observer_actors.commands._options import JsonFlag
from observer_actors.commands._screen import print_json
from observer_actors.errors import UsageInvalid
from observer_actors.tokens import Scope, hash_of, new_token


def _scopes(_type: object, tokens: Sequence[Token]) -> tuple[Scope, ...]:
    """Read them as the file has them, with commas, and as flags that are given again."""
    given = dict.fromkeys(part for one in tokens for part in one.value.split(","))
    if unknown := given.keys() - set(Scope):
        raise ValueError(f"{min(unknown)!a} is none of {', '.join(Scope)}")
    return tuple(map(Scope, given))


def token(
    name: str,
    *,
    scopes: Annotated[tuple[Scope, ...], Parameter(negative=(), n_tokens=1, converter=_scopes)] = (Scope.INGEST,),
    json: JsonFlag = False,
) -> None:
    """Make a token: shown once, and the line for `auth.tokens_file` that holds its hash alone.

    Example: observer-actors token gateway --scopes ingest,read

    Parameters
    ----------
    name
        Whose it is; what it may not do is refused in this name.
    scopes
        What it may do: ingest, read, admin; several with commas, or given again.
    """
    if name.partition("#")[0].split() != [name] or not name.isprintable():
        raise UsageInvalid(f"NAME: {name!a} is none", hint="a word without blanks and #, e.g. gateway")
    made = new_token()
    line = f"{name} {','.join(scopes)} {hash_of(made)}"
    if json:
        print_json(msgspec.json.encode({"token": made, "line": line}))
    else:
        print(f"token (give it to {name}, and keep it nowhere else):\n  {made}\nline for auth.tokens_file:\n  {line}")
