"""The settings put together from their layers, each value with the place that it came from."""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from msgspec import inspect as types

from observer_actors.addresses import AddressInvalid, host_name, is_host
from observer_actors.config.layers import Given, Places, layers
from observer_actors.config.schema import LEAVES, Leaf, convert, leaves_of, settings_from
from observer_actors.config.secret_files import SECRET_FILES
from observer_actors.errors import UNEXPANDED, WHOLE_PATH, ConfigInvalid
from observer_actors.event import OWN_SOURCE
from observer_actors.secrets import RuleInvalid, compiled_secrets
from observer_actors.settings import HTTP_ORIGIN, DiagnosisSettings, ListenSettings, Settings

DEFAULT_ORIGIN: Final = "default"
UNIX_BYTES_MAX: Final = 107
"""Of the path of a Unix socket: `sun_path`, without the NUL behind it (unix(7))."""

PATHS: Final = SECRET_FILES | {"data_dir", "listen.unix"}
"""Settings that are paths, whatever else is set."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, and for each by its dotted name the place that it came from."""

    settings: Settings
    origins: Mapping[str, str]


def read_settings(places: Places) -> Loaded:
    """Put the settings together.

    :raises ConfigInvalid: names the setting, where it came from, and what is wrong.
    """
    values: dict[str, Any] = {}
    origins = dict.fromkeys(LEAVES, DEFAULT_ORIGIN)
    for given in layers(places):
        values[given.name] = _value(given)
        origins[given.name] = given.origin
    settings = settings_from({name: msgspec.to_builtins(value, enc_hook=str) for name, value in values.items()})
    for trouble in _troubles(settings):
        origin = origins[trouble.name]
        told = trouble.detail if origin == DEFAULT_ORIGIN else f"{origin}: {trouble.detail}"
        raise ConfigInvalid(told, hint=trouble.hint)
    return Loaded(settings, origins)


_PATH: Final = re.compile(r"^(?P<detail>.*?) - at `\$(?P<path>[^`]*)`$", re.DOTALL)


def _value(given: Given) -> Any:  # noqa: ANN401 - the setting's own type
    leaf = LEAVES[given.name]
    if isinstance(given.value, str) and not _is_utf8(given.value):  # neither SQLite nor the log could write it down
        hint = "write it in UTF-8; reach what has another name through a link"
        raise ConfigInvalid(f"{given.origin}: {given.name} is no UTF-8", hint=hint)
    value = _from_text(leaf, given) if given.is_text else given.value
    if isinstance(value, str) and "\0" in value:  # no path, address or name
        raise ConfigInvalid(f"{given.origin}: {given.name} holds a NUL character")
    try:
        return convert(leaf, value, strict=not given.is_text)
    except msgspec.ValidationError as error:
        if given.is_text and isinstance(leaf.kind, types.IntType | types.FloatType) and not _is_number(given.value):
            raise ConfigInvalid(f"{given.origin}={given.value!r} is not a number") from error
        found = _PATH.match(str(error))
        where, detail = (found["path"], found["detail"]) if found else ("", str(error))
        if " matching regex " in detail:  # the hint says it in words
            detail = "no such value"
        raise ConfigInvalid(f"{given.origin}: {given.name}{where}: {detail}", hint=_allowed(leaf)) from error


def _allowed(leaf: Leaf) -> str:
    allowed = leaf.bounds() or leaf.choices()
    return f"it may be {allowed}" if allowed else ""


def _from_text(leaf: Leaf, given: Given) -> object:
    """Read a text as `config show` writes it; also a list with commas, and a word without quotes.

    What is blank around it is none of it: a secret of Kubernetes that `echo` made ends with a newline.
    """
    text = given.value.strip()
    if not isinstance(leaf.kind, types.VarTupleType | types.ListType | types.DictType):
        value = _toml(text)
        is_number = isinstance(leaf.kind, types.IntType | types.FloatType)
        return value if type(value) in ((int, float) if is_number else (str,)) else text
    if not text.startswith(("[", "{")):
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError) as error:
        raise ConfigInvalid(f"{given.origin}: {given.name}: {text!r} is not TOML: {error}") from error


def _toml(text: str) -> object:
    """Read one scalar; None for what is none."""
    if "\n" in text or text.startswith(("[", "{")):
        return None
    with suppress(ValueError):  # also a number of thousands of digits
        return tomllib.loads(f"value = {text}")["value"]
    return None


def _is_utf8(text: str) -> bool:
    """Tell whether a text of the command line or the environment was one: other bytes are surrogates in it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class _Trouble:
    name: str
    detail: str
    hint: str = ""


_ORIGIN: Final = re.compile(HTTP_ORIGIN)


def _troubles(settings: Settings) -> Iterator[_Trouble]:
    """Find what no single field can know."""
    yield from _troubles_of_paths(settings)
    yield from _of_listening(settings.listen, has_tokens=bool(settings.auth.tokens_file))
    yield from _troubles_of_hosts(settings)
    if settings.gateway.required and not settings.gateway.url:
        yield _Trouble("gateway.required", "gateway.required is set, but gateway.url is not")
    yield from _troubles_of_diagnosis(settings.diagnosis)
    yield from _troubles_with_extras(settings)


def _troubles_of_paths(settings: Settings) -> Iterator[_Trouble]:
    """Find paths that a shell was to expand: here ~ would be a folder of that name, or the home of whoever looks."""
    values = leaves_of(settings)
    names = PATHS | ({"diagnosis.model"} if settings.diagnosis.backend == "llama.cpp" else set())
    for name in sorted(names):
        if values[name].startswith("~"):
            yield _Trouble(name, f"{name}: {UNEXPANDED}", WHOLE_PATH)


def _troubles_of_hosts(settings: Settings) -> Iterator[_Trouble]:
    """Find addresses to send to that name no host: nobody could ever be reached there."""
    for name, url in (
        ("gateway.url", settings.gateway.url),
        ("model.lakehouse_url", settings.model.lakehouse_url),
        ("diagnosis.url", settings.diagnosis.url),
        ("failures.webhook_url", settings.failures.webhook_url),
    ):
        found = _ORIGIN.match(url)
        host = found[2] if found else ""
        if url and not is_host(host):
            yield _Trouble(name, f"{name}: {host[:80]!a} is no host name", "e.g. http://127.0.0.1:3700")


def _troubles_with_extras(settings: Settings) -> Iterator[_Trouble]:
    try:
        compiled_secrets(settings.secrets.extra)
    except RuleInvalid as error:
        yield _Trouble("secrets.extra", f"secrets.extra: {error.detail}", error.hint)
    if OWN_SOURCE in settings.sources.extra:
        yield _Trouble("sources.extra", f"sources.extra: {OWN_SOURCE} is what the daemon itself writes", "name another")


def _troubles_of_diagnosis(diagnosis: DiagnosisSettings) -> Iterator[_Trouble]:
    if diagnosis.backend in ("openai", "ollama") and not diagnosis.url:
        yield _Trouble("diagnosis.backend", f"diagnosis.backend is {diagnosis.backend}, but diagnosis.url is not set")
    if diagnosis.backend and not diagnosis.model:
        yield _Trouble("diagnosis.backend", f"diagnosis.backend is {diagnosis.backend}, but diagnosis.model is not set")


def _of_listening(listen: ListenSettings, *, has_tokens: bool) -> Iterator[_Trouble]:
    if listen.host and not is_host(f"[{listen.host}]" if ":" in listen.host else listen.host):
        hint = "e.g. 127.0.0.1, ::1 or a name of this machine; the port is listen.port"
        yield _Trouble("listen.host", f"listen.host: {listen.host[:80]!a} is no host name", hint)
    if len(listen.unix.encode()) > UNIX_BYTES_MAX:
        yield _Trouble(
            "listen.unix",
            f"listen.unix: a path of {len(listen.unix.encode())} bytes is too long for a Unix socket",
            f"{UNIX_BYTES_MAX} bytes at most, e.g. /run/observer-actors/http.sock",
        )
    is_guarded = has_tokens or listen.insecure_no_auth
    if listen.tcp and not is_guarded and not _is_loopback(listen.host):
        yield _Trouble(
            "listen.host",
            f"listen.host: {listen.host!a} can be reached from other machines, and no tokens are set",
            "listen on 127.0.0.1, or set auth.tokens_file; --insecure-no-auth does without when the network is trusted",
        )
    for name in listen.hosts:
        try:
            host_name(name)
        except AddressInvalid as error:
            yield _Trouble("listen.hosts", f"listen.hosts: {error}", error.hint)
    if bool(listen.tls_key) > bool(listen.tls_cert):
        yield _Trouble("listen.tls_key", "listen.tls_key is set, but listen.tls_cert is not")
    if listen.body_bytes_max > listen.bodies_bytes_max:
        yield _Trouble(
            "listen.body_bytes_max",
            "listen.body_bytes_max is above listen.bodies_bytes_max: no such body could ever pass",
        )


def _is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches an address. A name says nothing about that, whatever it begins with."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
