"""The places that settings come from.

What stands further up beats what stands below:

1. flags: ``--port``, and ``--set listen.port=3900`` for any setting;
2. the environment: ``OBSERVER_LISTEN__PORT`` for any setting (two underscores where the name has a dot), and the
   variables of `ENVIRONMENT`. A list is separated by commas. An empty or blank variable counts as not given;
3. credentials: a file of ``$CREDENTIALS_DIRECTORY`` that has the name of a setting (systemd's ``LoadCredential=``);
   an empty text counts as not given, and where the credential is a file, `UNITS_PLACEHOLDER` alone;
4. the file that ``--config`` names;
5. `SYSTEM_FILE`;
6. the default.

A name that is no setting is an error in each of them. The environment and the credentials are not ours alone: there, a
name is an error when it looks very much like one of ours, or begins with the name of a section; of the variables with
``OBSERVER_`` also one with two underscores, and one that is the last part of a setting's name and has several words
(``OBSERVER_TLS_KEY``), or is ``OBSERVER_TOKENS``. One word alone (``OBSERVER_NAME``) may be anybody's.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from observer_actors.addresses import SERVICE_LINKS
from observer_actors.config.schema import LEAVES, SECTIONS, nearest_name
from observer_actors.config.secret_files import SECRET_FILES
from observer_actors.errors import ConfigInvalid

SYSTEM_FILE: Final = Path("/etc/observer-actors/config.toml")
PREFIX: Final = "OBSERVER_"
ENVIRONMENT: Final[Mapping[str, str]] = {
    "OBSERVER_PORT": "listen.port",
    "OBSERVER_HOST": "listen.host",
    "OBSERVER_CYCLE": "cycle.seconds",
    "GATEWAY_URL": "gateway.url",
    "LAKEHOUSE_URL": "model.lakehouse_url",
}
"""The seed's variables, and short names that a container likes."""
OF_CLIENTS: Final = ("OBSERVER_URL", "OBSERVER_TOKEN")
"""What those who only ask a daemon go by: no settings of it."""
NEAR_MISS: Final = 0.85
"""A name that looks this much like one of ours (difflib's ratio) is a slip; any other is somebody else's."""
CREDENTIAL_BYTES_MAX: Final = 65_536
UNITS_PLACEHOLDER: Final = b"\n"
"""What the unit's ``SetCredential=`` lines put where there is no file."""


@dataclass(frozen=True, slots=True)
class Given:
    """One setting as some place gives it. ``origin`` is what its giver would call the place."""

    name: str
    value: Any
    origin: str
    is_text: bool = False
    """Whether it comes from a place that knows nothing but text."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where to look.

    :param flags: dotted name -> value; None counts as not given.
    :param assignments: ``NAME=VALUE`` each.
    """

    flags: Mapping[str, object] = field(default_factory=dict)
    assignments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    file: Path | None = None
    system_file: Path = SYSTEM_FILE
    is_strict: bool = True
    """Whether a variable that is no setting is an error; who only asks or looks does not go by it."""


def layers(places: Places) -> Iterator[Given]:
    """Give all that is given, the weakest first: what comes later wins.

    :raises ConfigInvalid: a file that cannot be read, or a name that is no setting.
    """
    try:
        places.system_file.lstat()  # of a link, whether or not it leads anywhere
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:  # a folder that this user may not enter: what holds there cannot be known
        raise ConfigInvalid(f"cannot look for {places.system_file}: {error.strerror}", hint=_NOT_ALLOWED) from error
    else:
        yield from _file(places.system_file)
    if places.file is not None:
        yield from _file(places.file)
    yield from _credentials(places.environment.get("CREDENTIALS_DIRECTORY", ""))
    yield from _environment(places.environment, is_strict=places.is_strict)
    for name, value in places.flags.items():
        if value is not None:
            yield Given(name, value, "--" + name.rpartition(".")[2].replace("_", "-"))
    for assignment in places.assignments:
        yield _assigned(assignment)


_NOT_ALLOWED: Final = (
    "let this user read it, or look as root; whoever only asks the daemon needs no configuration with --url"
)


def _file(file: Path) -> Iterator[Given]:
    try:
        text = file.read_text(encoding="utf-8-sig")  # some editors begin a text with a mark
        if not text and file.is_fifo():  # read before: a reload must not take that for the defaults
            raise ConfigInvalid(f"{file} is a pipe, and gives nothing, or nothing any more", hint="name a file")
        tree = tomllib.loads(text)
    except OSError as error:
        hint = _NOT_ALLOWED if isinstance(error, PermissionError) else ""
        raise ConfigInvalid(f"cannot read {file}: {error.strerror}", hint=hint) from error
    except (ValueError, RecursionError) as error:  # no TOML, no UTF-8, thousands of digits; nested without end
        raise ConfigInvalid(f"{file} is not TOML: {error}") from error
    yield from _flat(tree, str(file))


def _flat(tree: Mapping[str, Any], origin: str, prefix: str = "") -> Iterator[Given]:
    for key, value in tree.items():
        name = prefix + key
        if name in LEAVES:
            yield Given(name, value, origin)
        elif name not in SECTIONS:
            raise _unknown(name, origin)
        elif isinstance(value, dict):
            yield from _flat(value, origin, f"{name}.")
        else:
            raise ConfigInvalid(
                f"{origin}: {name} is a section, not a value", hint=f"write [{name}] above its settings"
            )


def _credentials(directory: str) -> Iterator[Given]:
    if not directory:
        return
    try:
        files = sorted(Path(directory).iterdir())
        for file in files:
            if file.name in LEAVES:
                yield from _credential(file)
            elif file.name.partition(".")[0] in SECTIONS or get_close_matches(file.name, LEAVES, 1, cutoff=NEAR_MISS):
                raise _unknown(file.name, str(file))
    except OSError as error:
        raise ConfigInvalid(f"cannot read the credentials in {directory}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigInvalid(f"a credential in {directory} is no text: {error}") from error


def _credential(file: Path) -> Iterator[Given]:
    with file.open("rb") as stream:
        content = stream.read(CREDENTIAL_BYTES_MAX)
    if file.name in SECRET_FILES:
        if content != UNITS_PLACEHOLDER:  # one that was emptied is given, and refused: it must not open the daemon
            yield Given(file.name, str(file), str(file), is_text=True)
    elif (text := content.decode("utf-8-sig")).strip():
        yield Given(file.name, text, str(file), is_text=True)


def _environment(environment: Mapping[str, str], *, is_strict: bool) -> Iterator[Given]:
    """The variables with a name of their own first: the systematic name says more exactly what is meant."""
    for variable, name in ENVIRONMENT.items():
        if environment.get(variable, "").strip() and not _is_of_kubernetes(variable, environment[variable]):
            yield Given(name, environment[variable], variable, is_text=True)
    for variable, text in environment.items():
        name = variable.removeprefix(PREFIX).lower().replace("__", ".")
        if not text.strip() or not variable.startswith(PREFIX) or variable in (*ENVIRONMENT, *OF_CLIENTS):
            continue
        if name in LEAVES:
            yield Given(name, text, variable, is_text=True)
        elif is_strict and not _is_of_kubernetes(variable, text) and (hint := _slip(variable, name)) is not None:
            raise ConfigInvalid(f"{variable} is no setting", hint=hint)


def _is_of_kubernetes(variable: str, text: str) -> bool:
    """Tell what Kubernetes sets in each container for a Service whose name begins with ``observer``."""
    return bool(_OF_A_SERVICE.search(variable)) or (variable.endswith("_PORT") and text.startswith(SERVICE_LINKS))


_OF_A_SERVICE: Final = re.compile(r"_SERVICE_HOST$|_SERVICE_PORT(_[A-Z0-9_]+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_[A-Z]+)?$")


def _slip(variable: str, name: str) -> str | None:
    """Give a hint which variable was meant by one that is no setting; None when it is somebody else's."""
    section = name.replace("_", ".").partition(".")[0]
    within = next((leaf for leaf in LEAVES if leaf.startswith(f"{section}.")), "")
    example = f"a setting is, e.g., {_variable(within)}"
    if within and name.rstrip(".") == section:
        return example
    last = name.rpartition(".")[2]
    meant = [
        *get_close_matches(variable, _VARIABLES, 1, cutoff=NEAR_MISS),
        *(_variable(leaf) for leaf in (get_close_matches(name, LEAVES, 1) if "." in name else ())),
        *(_variable(leaf) for leaf in LEAVES if "_" in last and leaf.rpartition(".")[2] == last),
        *((_variable("auth.tokens_file"),) if last == "tokens" else ()),
    ]
    if meant:
        return f"did you mean {meant[0]}?"
    if within:
        return example
    return "" if "." in name else None


def _variable(name: str) -> str:
    return PREFIX + name.upper().replace(".", "__")


_VARIABLES: Final = (*ENVIRONMENT, *map(_variable, LEAVES))


def _assigned(assignment: str) -> Given:
    name, equals, text = assignment.partition("=")
    if not equals:
        raise ConfigInvalid(f"--set {assignment}: wants NAME=VALUE", hint="e.g. --set listen.port=3900")
    if name not in LEAVES:
        raise _unknown(name, "--set")
    return Given(name, text, f"--set {name}", is_text=True)


def _unknown(name: str, origin: str) -> ConfigInvalid:
    within = next((leaf for leaf in LEAVES if leaf.startswith(f"{name}.")), "")
    if within:
        return ConfigInvalid(f"{origin}: {name} holds settings, and is none", hint=f"such as {within}")
    nearest = nearest_name(name)
    return ConfigInvalid(f"{origin}: {name} is no setting", hint=f"did you mean {nearest}?" if nearest else "")
