"""`observer-actors config check | show | default`."""

from __future__ import annotations

import re
from typing import Any, Final

import cyclopts
import msgspec

from observer_actors.addresses import without_password
from observer_actors.commands._aside import told
from observer_actors.commands._options import ConfigOptions, JsonFlag
from observer_actors.commands._screen import print_json
from observer_actors.config import LEAVES, Loaded, default_file, exposed_files, leaves_of, toml_value
from observer_actors.visible import visible

app = cyclopts.App(name="config", help="Check, show or begin a configuration.")

_WEBHOOK: Final = "failures.webhook_url"
_BEHIND_THE_HOST: Final = re.compile(r"(?<=[^/:])[/?#].+")
HIDDEN: Final = "•••"


class ShownSetting(msgspec.Struct, frozen=True):
    """One setting as it is in force; a secret's value is hidden."""

    name: str
    value: Any
    origin: str
    default: Any


@app.command
def check(options: ConfigOptions = ConfigOptions()) -> None:
    """Look for mistakes; exits 78 when there is one, and says where it is and what was probably meant.

    Takes the flags of `serve`, and reads what `serve` would read.

    Example: observer-actors config check --config observer.toml
    """
    loaded = options.load()
    from observer_actors.in_force import check_files  # noqa: PLC0415 - with all that it needs: for this command alone

    check_files(loaded.settings)
    for name, path in exposed_files(loaded.settings):
        told(f"{name}: every user may read {path}: chmod o= it")
    given = sum(origin != "default" for origin in loaded.origins.values())
    listen = loaded.settings.listen
    if not (listen.tcp or listen.unix):
        print("listen.tcp is off, and listen.unix is not set: it listens only where systemd hands it a socket")
    if loaded.settings.diagnosis.url and not loaded.settings.diagnosis.backend:
        print("diagnosis.url is set, and diagnosis.backend is not: no model is asked")
    print(f"the configuration is good: {given} of {len(LEAVES)} settings are given, the others have their defaults")


@app.command
def show(options: ConfigOptions = ConfigOptions(), *, json: JsonFlag = False) -> None:
    """Show each setting that `serve` would use, and where its value comes from.

    Example: observer-actors config show --config observer.toml
    """
    settings = _shown(options.load())
    if json:
        print_json(msgspec.json.encode(settings))
    else:
        print(_in_words(settings))


@app.command
def default() -> None:
    """Print a commented file with every setting and its default.

    Example: observer-actors config default > observer.toml
    """
    print(default_file(), end="")


def _shown(loaded: Loaded) -> list[ShownSetting]:
    values = leaves_of(loaded.settings)
    return [
        ShownSetting(name, _public(name, values[name], secret=leaf.is_secret), loaded.origins[name], leaf.default)
        for name, leaf in LEAVES.items()
    ]


def _public(name: str, value: Any, *, secret: bool) -> Any:  # noqa: ANN401 - a setting's value
    if not isinstance(value, str):
        return value
    if secret and value:
        return HIDDEN
    shown = without_password(value) if "://" in value else value
    # Of a webhook's URL any part may be what lets one post there: a query, or a path as Slack's.
    return _BEHIND_THE_HOST.sub(f"/{HIDDEN}", shown) if name == _WEBHOOK else shown


def _in_words(settings: list[ShownSetting]) -> str:
    rows = [(f"{setting.name} = {toml_value(setting.value)}", setting.origin) for setting in settings]
    width = max(len(left) for left, _ in rows)
    return "\n".join(f"{left:<{width}}  # {visible(origin)}" for left, origin in rows)
