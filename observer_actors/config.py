"""Where settings come from: flag, then environment, then the file given with ``--config``, then the default."""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from observer_actors.errors import ConfigInvalid
from observer_actors.settings import Settings

__all__ = ["ENVIRONMENT", "load_settings", "reload_settings"]

ENVIRONMENT: Final[Mapping[str, tuple[str, type]]] = {
    "OBSERVER_PORT": ("listen.port", int),
    "OBSERVER_HOST": ("listen.host", str),
    "OBSERVER_DATA_DIR": ("data_dir", str),
    "OBSERVER_CYCLE": ("cycle.seconds", float),
    "GATEWAY_URL": ("gateway.url", str),
    "LAKEHOUSE_URL": ("model.lakehouse_url", str),
}
"""The seed's variables, and those that a container needs."""

_HTTP_URL: Final = re.compile(r"https?://[^\s/?#]+(/[^\s?#]*)?")
RELOADABLE: Final = (
    "cycle.seconds",
    "journal.retained_bytes_max",
    "journal.retained_seconds_max",
    "log.level",
    "sources.extra",
)


def load_settings(
    file: Path | None, flags: Mapping[str, object], environment: Mapping[str, str] = os.environ
) -> Settings:
    """Put the settings together.

    :param flags: dotted name -> value; None counts as not given.
    :raises ConfigInvalid: names the setting, where it came from, and what is wrong.
    """
    tree = _read_file(file) if file else {}
    for variable, (name, kind) in ENVIRONMENT.items():
        if environment.get(variable, "") != "":
            _put(tree, name, _from_environment(variable, environment[variable], kind))
    for name, value in flags.items():
        if value is not None:
            _put(tree, name, value)
    settings = _convert(tree, lambda name: _origin(name, file, flags, environment))
    _check(settings)
    return settings


def reload_settings(old: Settings, new: Settings) -> tuple[Settings, list[str], list[str]]:
    """Take over what can change while the daemon runs.

    :return: the settings then in force, the names of those that changed, and of those that wait for a restart.
    """
    before, after = (
        dict(_leaves(msgspec.to_builtins(old, enc_hook=str))),
        dict(_leaves(msgspec.to_builtins(new, enc_hook=str))),
    )
    changed = [name for name in after if before.get(name) != after[name]]
    now = [name for name in changed if name in RELOADABLE]
    tree: dict[str, Any] = msgspec.to_builtins(old, enc_hook=str)
    for name in now:
        _put(tree, name, after[name])
    return _convert(tree, lambda _name: "the settings"), now, [name for name in changed if name not in RELOADABLE]


def _read_file(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigInvalid(f"cannot read {file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigInvalid(f"{file} is not TOML: {error}") from error


def _from_environment(variable: str, text: str, kind: type) -> object:
    try:
        return kind(text)
    except ValueError as error:
        raise ConfigInvalid(f"{variable}={text!r} is not a number") from error


def _origin(name: str, file: Path | None, flags: Mapping[str, object], environment: Mapping[str, str]) -> str:
    """Say where a setting was given, as the one who gave it would call it."""
    if flags.get(name) is not None:
        return "--" + name.rpartition(".")[2].replace("_", "-")
    given = (variable for variable, (target, _) in ENVIRONMENT.items() if target == name and environment.get(variable))
    return next(given, str(file) if file else "the settings")


def _put(tree: dict[str, Any], name: str, value: object) -> None:
    *sections, leaf = name.split(".")
    for section in sections:
        branch = tree.setdefault(section, {})
        if not isinstance(branch, dict):
            raise ConfigInvalid(f"{section} is a section, not a value")
        tree = branch
    tree[leaf] = value


_UNKNOWN: Final = re.compile(r"unknown field `(?P<name>[^`]*)`(?: - at `\$\.?(?P<path>[^`]*)`)?")
_PATH: Final = re.compile(r"^(?P<detail>.*?) - at `\$\.(?P<path>[^`]*)`$", re.DOTALL)


def _convert(tree: dict[str, Any], origin: Callable[[str], str]) -> Settings:
    try:
        return msgspec.convert(tree, Settings, dec_hook=_to_path)
    except msgspec.ValidationError as error:
        unknown = _UNKNOWN.search(str(error))
        if unknown:
            raise _unknown_name(unknown["path"] or "", unknown["name"], origin("")) from error
        found = _PATH.match(str(error))
        detail = f"{found['path']}: {found['detail']}" if found else str(error)
        raise ConfigInvalid(f"{origin(found['path'] if found else '')}: {detail}") from error


def _unknown_name(path: str, name: str, origin: str) -> ConfigInvalid:
    known = [leaf for leaf, _ in _leaves(msgspec.to_builtins(Settings(), enc_hook=str))]
    sections = [leaf.rpartition(".")[0] for leaf in known]
    full = f"{path}.{name}" if path else name
    nearest = difflib.get_close_matches(full, [*known, *filter(None, sections)], 1)
    return ConfigInvalid(f"{origin}: {full} is no setting", hint=f"did you mean {nearest[0]}?" if nearest else "")


def _to_path(kind: type, value: object) -> object:
    assert kind is Path, "the only type of a setting that msgspec does not know"
    if not isinstance(value, str):
        raise TypeError(f"Expected `str`, got `{type(value).__name__}`")
    return Path(value)


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _check(settings: Settings) -> None:
    """Refuse what no single field can know."""
    listen = settings.listen
    if not listen.insecure_no_auth and not _is_loopback(listen.host):
        raise ConfigInvalid(
            f"listen.host: {listen.host} can be reached from other machines, and there is no authentication",
            hint="listen on 127.0.0.1, or say --insecure-no-auth when the network is trusted",
        )
    for name, url in (("gateway.url", settings.gateway.url), ("model.lakehouse_url", settings.model.lakehouse_url)):
        if url and not _HTTP_URL.fullmatch(url):
            raise ConfigInvalid(f"{name}: {url!a} is no http or https URL", hint="e.g. http://127.0.0.1:3700")
    if settings.gateway.required and not settings.gateway.url:
        raise ConfigInvalid("gateway.required is set, but gateway.url is not")
    if settings.listen.body_bytes_max > settings.listen.bodies_bytes_max:
        raise ConfigInvalid("listen.body_bytes_max is above listen.bodies_bytes_max: no such body could ever pass")


def _is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches an address. A name says nothing about that, whatever it begins with."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
