"""`observer-actors doctor`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
from rich.text import Text

from observer_actors.addresses import AddressInvalid, TokenInvalid
from observer_actors.commands._api import Api
from observer_actors.commands._checks import (
    Finding,
    check_configuration,
    check_daemon,
    check_directory,
    check_unit,
)
from observer_actors.commands._directory import may_look_into, users_folder
from observer_actors.commands._options import ApiOptions, ConfigOptions, JsonFlag
from observer_actors.commands._screen import console, print_json
from observer_actors.commands.service import NAME
from observer_actors.config import DEFAULT_ORIGIN, Loaded
from observer_actors.errors import ConfigInvalid, Unreachable
from observer_actors.visible import visible

EXIT_PROBLEM: Final = 1
SERVICE_DATA: Final = Path("/var/lib/observer-actors")
_MARKS: Final = {
    "ok": ("ok     ", "green"),
    "unknown": ("unknown", "dim"),
    "warning": ("warning", "yellow"),
    "problem": ("PROBLEM", "bold red"),
}


def doctor(
    options: ConfigOptions = ConfigOptions(),
    api: ApiOptions = ApiOptions(),
    *,
    json: JsonFlag = False,
) -> int:
    """Look at an installation, running or stopped: what is wrong, and what to do.

    Changes nothing. Takes the flags of `serve`, so that it looks where `serve` would. Exits 1 when there is a problem.

    Example: observer-actors doctor --data-dir ./data
    """
    findings = list(_findings(options, api))
    if json:
        print_json(msgspec.json.encode(findings))
    else:
        screen = console()
        for finding in findings:
            screen.print(_line(finding), soft_wrap=True)
    return EXIT_PROBLEM if any(finding.level == "problem" for finding in findings) else 0


def _findings(options: ConfigOptions, api: ApiOptions) -> Iterator[Finding]:
    loaded = None
    try:
        loaded = options.load()
    except ConfigInvalid as error:
        yield Finding("problem", "configuration", str(error), error.hint or "correct it: `serve` refuses it too")
    else:
        yield from check_configuration(loaded)
    data_dir = _data_dir(loaded) if loaded is not None else options.data_dir
    if data_dir is not None:
        yield from check_directory(data_dir)
    try:
        address = api.address(options)
    except ConfigInvalid as error:
        if loaded is not None:
            yield Finding("unknown", "daemon", str(error), error.hint or "give --url")
    else:
        yield from _of_daemon(address, data_dir or SERVICE_DATA, is_named=_names_directory(options, loaded))
    yield from check_unit()


def _names_directory(options: ConfigOptions, loaded: Loaded | None) -> bool:
    if loaded is None:
        return options.data_dir is not None
    return loaded.origins["data_dir"] != DEFAULT_ORIGIN


def _of_daemon(address: str, data_dir: Path, *, is_named: bool) -> Iterator[Finding]:
    try:
        daemon = Api(address)
    except (AddressInvalid, TokenInvalid, Unreachable) as trouble:
        yield Finding("problem", "daemon", str(trouble), trouble.hint)
        return
    with daemon:
        yield from check_daemon(daemon, data_dir, is_named=is_named)


def _data_dir(loaded: Loaded) -> Path:
    """Give the directory to look at: without another word, the service's or the user's, if any, and none here."""
    given = loaded.settings.data_dir
    if loaded.origins["data_dir"] != DEFAULT_ORIGIN or os.access(given, os.F_OK):
        return given
    if os.access(SERVICE_DATA, os.F_OK):
        return SERVICE_DATA
    return next(filter(may_look_into, _of_user()), given)


def _of_user() -> Iterator[Path]:
    """Give where `install-service --user` has the data: from systemd 254 on, and before."""
    with suppress(RuntimeError):  # a user without a home
        yield users_folder("XDG_STATE_HOME", ".local/state") / NAME
        yield users_folder("XDG_CONFIG_HOME", ".config") / NAME


def _line(finding: Finding) -> Text:
    mark = _MARKS[finding.level]
    line = Text.assemble(mark, "  ", (finding.about, "bold"), f": {visible(finding.what)}")
    if finding.advice:
        line.append(f"\n         {visible(finding.advice)}", "dim")
    return line
