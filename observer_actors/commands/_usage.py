"""Mistakes of whoever types a command, beside those that can be seen in the command line's form."""

from __future__ import annotations

import os
from typing import ClassVar

from observer_actors.errors import ObserverError

__all__ = ["UsageInvalid", "token_given"]


class UsageInvalid(ObserverError):
    """A command line whose parts can be read, and make no sense."""

    exit_code: ClassVar[int] = 64


def token_given() -> str:
    """Give the token of OBSERVER_TOKEN; "" when there is none.

    :raises UsageInvalid: it is none that can be sent; does not tell it.
    """
    token = os.environ.get("OBSERVER_TOKEN", "")
    if not (token.isascii() and token.isprintable() and " " not in token):
        hint = "a token is ASCII, without blanks and ends of lines, as `observer-actors token NAME` makes it"
        raise UsageInvalid("OBSERVER_TOKEN holds what no token has", hint=hint)
    return token
