"""Tokens: who may do what. The file holds them or, better, their hashes; the process keeps only hashes. Pure.

A line of the file: a name, the scopes with commas between, and the token (ASCII) or ``sha256:`` and its hash in hex.
``#`` begins a comment: at the start of a line, behind a blank, or behind a hash. A token with ``#`` in it is refused:
nobody could tell whether a comment was meant. Several lines may be in force, also of one name: to rotate a token, add
the new one, let callers change, remove the old.

    # name     scopes         token
    gateway    ingest         sha256:6ca13d52ca70c883e0f0bb101e425a89e8624de51db2d2392593af6a84118090
    grafana    read           sha256:…
    me         admin          sha256:…

``admin`` may do everything.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Iterable
from enum import StrEnum
from hashlib import sha256
from typing import Final

from msgspec import Struct

from observer_actors.errors import ObserverError

TOKEN_CHARS_MIN: Final = 20
"""A shorter token can be guessed: the hash is a fast one, as tokens are random and not words."""
PREFIX: Final = "sha256:"
_COMMENT: Final = re.compile(r"(?:^|\s|(?<=\ssha256:[0-9a-f]{64}))#")
_HASH: Final = re.compile(r"sha256:[0-9a-f]{64}")
_MEANT_AS_HASH: Final = re.compile(r"sha-?256[:=]", re.IGNORECASE)
"""Also where it is none: taken for a token, a hash that was to be kept would be what lets in who has read it."""


class Scope(StrEnum):
    """What a caller may do."""

    INGEST = "ingest"
    READ = "read"
    ADMIN = "admin"


ALL_SCOPES: Final = frozenset(Scope)


class TokensInvalid(ObserverError):
    """A file of tokens that cannot be read; it says which line, and nothing of a token."""

    title = "invalid tokens"
    exit_code = 78


class Token(Struct, frozen=True):
    """One line of the file."""

    name: str
    scopes: frozenset[Scope]
    digest: bytes


class Tokens:
    """All tokens in force."""

    def __init__(self, tokens: Iterable[Token]) -> None:
        self._tokens = tuple(tokens)

    @classmethod
    def read(cls, text: str) -> Tokens:
        """Read the content of a file.

        :raises TokensInvalid: a line is none, or there is no token at all.
        """
        lines = [(number, _COMMENT.split(line, 1)[0].split()) for number, line in enumerate(text.splitlines(), 1)]
        tokens = [_token(number, words) for number, words in lines if words]
        if not tokens:
            raise TokensInvalid(
                "holds no token", hint="a line each: NAME SCOPES TOKEN; `observer-actors token` makes one"
            )
        return cls(tokens)

    def find(self, presented: str) -> Token | None:
        """Give the token that was presented, if it is one. Takes the same time whichever it is, and if it is none."""
        digest = sha256(presented.encode("utf-8", "surrogateescape")).digest()
        found = None
        for token in self._tokens:
            if hmac.compare_digest(token.digest, digest):
                found = token
        return found


def new_token() -> str:
    """Make a token: 256 random bits."""
    return "oa_" + secrets.token_urlsafe(32)


def hash_of(token: str) -> str:
    """Give what stands for a token in the file."""
    return PREFIX + sha256(token.encode()).hexdigest()


def _token(number: int, words: list[str]) -> Token:
    if any("#" in secret for secret in words[2:3]):
        hint = "a comment begins behind a blank; a token that has a # needs a new one in its place, or its hash"
        raise TokensInvalid(f"line {number}: there is a # in the token, or just behind it", hint=hint)
    try:
        name, scopes, secret = words
    except ValueError:
        raise TokensInvalid(f"line {number}: wants NAME SCOPES TOKEN, has {len(words)} words") from None
    try:
        granted = frozenset(map(Scope, scopes.split(",")))
    except ValueError:
        raise TokensInvalid(f"line {number}: scopes are {', '.join(Scope)}, with commas between") from None
    if _MEANT_AS_HASH.match(secret):
        if not _HASH.fullmatch(secret):
            raise TokensInvalid(f"line {number}: after {PREFIX} come 64 hexadecimal digits, in lower case")
        return Token(name, granted, bytes.fromhex(secret.removeprefix(PREFIX)))
    if not (secret.isascii() and secret.isprintable()):
        raise TokensInvalid(f"line {number}: a token is ASCII: nothing else could be sent")
    if len(secret) < TOKEN_CHARS_MIN:
        raise TokensInvalid(f"line {number}: a token has at least {TOKEN_CHARS_MIN} characters")
    return Token(name, granted, sha256(secret.encode()).digest())
