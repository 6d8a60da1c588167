"""What is in force: the settings, and what was made of them and of the files that they name.

A reload puts another in its place, as a whole or not at all.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from observer_actors.addresses import TokenInvalid, check_token
from observer_actors.config import changed_files, digests_of, is_for_all, read_secret, reload_settings
from observer_actors.errors import ConfigInvalid
from observer_actors.event import EventDecoder
from observer_actors.http.guard import Guard
from observer_actors.http.listeners import tls_context
from observer_actors.logs import logger
from observer_actors.secrets import compiled_secrets
from observer_actors.settings import Settings
from observer_actors.tokens import Tokens, TokensInvalid


@dataclass(frozen=True, slots=True)
class InForce:
    """The settings in force, and what is asked by them at every request.

    ``tls`` is None without it; ``digests`` are those of the files in use, each under its setting's name.
    """

    settings: Settings
    decoder: EventDecoder
    guard: Guard
    tls: ssl.SSLContext | None
    digests: Mapping[str, bytes]

    @classmethod
    def of(cls, settings: Settings) -> InForce:
        """Read what the settings name.

        :raises ConfigInvalid: the tokens, or the certificate, cannot be used.
        """
        return cls._made(settings, tls_context(settings.listen), digests_of(settings))

    @classmethod
    def _made(cls, settings: Settings, tls: ssl.SSLContext | None, digests: Mapping[str, bytes]) -> InForce:
        found = cls(settings, _decoder(settings), _guard(settings), tls, digests)
        tokens = settings.auth.tokens_file
        if tokens and is_for_all(Path(tokens)):
            logger("daemon").warning("tokens_exposed", file=tokens, hint="every user may read it: chmod o= it")
        return found

    def renewed(self, wanted: Settings) -> tuple[InForce, list[str], list[str], ConfigInvalid | None]:
        """Take over what can change while the daemon runs.

        :return: what is to be in force, the names of the settings that changed, and of those that wait for a restart.
            A setting that names a file is among them too when the file is another than the one in use. Last, why the
            certificate cannot be used, if so: the one in force stays, for it must not keep a revoked token valid.
        :raises ConfigInvalid: the tokens cannot be used.
        """
        settings, now, later = reload_settings(self.settings, wanted)
        tls, digests, trouble = self.tls, digests_of(settings), None
        try:
            tls = tls_context(settings.listen)
        except ConfigInvalid as error:
            hint = f"{error.hint or 'mend it'}; until a reload can use it, the one in force stays"
            trouble = ConfigInvalid(str(error), hint=hint)
            digests = {name: digest for name, digest in digests.items() if not name.startswith("listen.tls_")}
        reread, waiting = changed_files(self.digests, digests)
        in_use = {**self.digests, **{name: digests[name] for name in reread}}
        return self._made(settings, tls, in_use), [*now, *reread], list(dict.fromkeys([*later, *waiting])), trouble


def check_files(settings: Settings) -> None:
    """Read each file that the settings name.

    :raises ConfigInvalid: one cannot be used.
    """
    for read in readings(settings).values():
        read()


def readings(settings: Settings) -> Mapping[str, Callable[[], object]]:
    """Give the reading of each file that the settings name, by its setting; one raises ConfigInvalid."""
    found: dict[str, Callable[[], object]] = {"auth.tokens_file": lambda: _guard(settings)}
    if settings.diagnosis.api_key_file:
        found["diagnosis.api_key_file"] = lambda: api_key(settings.diagnosis.api_key_file)
    if settings.listen.tls_cert:
        found["listen.tls_cert"] = lambda: tls_context(settings.listen)
    return found


def api_key(file: str) -> str:
    """Read the model's key; "" where no file is named.

    :raises ConfigInvalid: it cannot be read, or sent; does not tell it.
    """
    if not file:
        return ""
    try:
        key = read_secret(file).strip()
        check_token(key, file)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigInvalid(f"diagnosis.api_key_file: cannot read {file}: {error}") from error
    except TokenInvalid as error:
        hint = "one line with the key, and nothing else: ASCII, without blanks"
        raise ConfigInvalid(f"diagnosis.api_key_file: {file} holds what no key has", hint=hint) from error
    return key


def _decoder(settings: Settings) -> EventDecoder:
    return EventDecoder(
        settings.sources.extra,
        compiled_secrets(settings.secrets.extra),
        fields_max=settings.listen.fields_max,
        depth_max=settings.listen.depth_max,
    )


def _guard(settings: Settings) -> Guard:
    return Guard(settings.listen.hosts, _tokens(settings.auth.tokens_file) if settings.auth.tokens_file else None)


def _tokens(path: str) -> Tokens:
    try:
        return Tokens.read(read_secret(path))
    except OSError as error:
        said = f"auth.tokens_file: {path}: {error.strerror or error}"
        raise ConfigInvalid(said, hint="name a file that the daemon's user may read") from error
    except (UnicodeError, TokensInvalid) as error:
        hint = error.hint if isinstance(error, TokensInvalid) else "one line each: NAME SCOPES TOKEN"
        raise ConfigInvalid(f"auth.tokens_file: {path}: {error}", hint=hint) from error
