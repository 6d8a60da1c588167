"""Flags that several commands have."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

from cyclopts import Parameter, Token

from observer_actors.addresses import UNIX
from observer_actors.config import Loaded, Places, read_settings
from observer_actors.errors import UNEXPANDED, WHOLE_PATH, ConfigInvalid, UsageInvalid
from observer_actors.settings import ListenSettings

if TYPE_CHECKING:
    from observer_actors.commands._api import Api

T = TypeVar("T")

_ANY_HOST: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - not bound to; spoken to

JsonFlag = Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON, for programs.")]


def _folder(_type: object, tokens: Sequence[Token]) -> Path:
    """Read a path.

    An empty one, from a variable of a script that is not set, say, would be the working directory, and of
    ``--data-dir=~/x`` no shell makes a home.
    """
    if not tokens[0].value:
        raise ValueError("an empty path; the working directory is .")
    if tokens[0].value.startswith("~"):
        raise ValueError(f"{UNEXPANDED}; {WHOLE_PATH}")
    return Path(tokens[0].value)


Folder = Annotated[Path, Parameter(converter=_folder)]


def _check_id(_type: object, given: str) -> None:
    """Refuse what would lead to another place of the API: a client resolves ``..``, quoted or not."""
    if not (given.isascii() and given.isalnum()):
        raise ValueError("an id is of letters and digits, as the list shows it")


Id = Annotated[str, Parameter(help="Its id, as the list shows it.", validator=_check_id)]
Note = Annotated[str, Parameter(help="Why; kept with it.", allow_leading_hyphen=True)]
NoteText = Annotated[str, Parameter(help="What to note.", allow_leading_hyphen=True)]


Attributes = Annotated[
    tuple[str, ...],
    Parameter(name="--attr", negative=(), n_tokens=1, help="Anything else, as NAME=VALUE; may be given again."),
]


def attributes_of(given: Iterable[str]) -> dict[str, str]:
    """Read what `--attr` was given.

    :raises UsageInvalid: one that is no NAME=VALUE.
    """
    return dict(_pair(text) for text in given)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise UsageInvalid(f"--attr {text}: wants NAME=VALUE")
    return name, value


@Parameter(name="*", allow_leading_hyphen=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeFlags:
    """What is said of an operation beside its outcome."""

    run: Annotated[str | None, Parameter(help="The episode that it belongs to.")] = None
    advice_id: Annotated[str | None, Parameter(help="The advice that it follows: it is told whether it helped.")] = None
    attributes: Attributes = ()

    def read(self) -> dict[str, str]:
        """Give them by name.

        :raises UsageInvalid: an attribute that is no NAME=VALUE.
        """
        named = {"run": self.run, "advice_id": self.advice_id}
        return attributes_of(self.attributes) | {name: value for name, value in named.items() if value is not None}


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigOptions:
    """What says how a daemon is configured: the same for the one that runs and for those that look at it."""

    config: Annotated[
        Path | None, Parameter(help="A TOML file with settings; above /etc/observer-actors/config.toml.")
    ] = None
    data_dir: Annotated[Folder | None, Parameter(help="Where everything is kept; ./data unless set.")] = None
    host: Annotated[str | None, Parameter(help="Address to listen on; 127.0.0.1 unless set.")] = None
    port: Annotated[int | None, Parameter(help="Port to listen on; 3800 unless set, and 0 takes a free one.")] = None
    insecure_no_auth: Annotated[
        bool | None, Parameter(negative=(), help="Allow an address that other machines can reach.")
    ] = None
    assignments: Annotated[
        tuple[str, ...],
        Parameter(name="--set", negative=(), n_tokens=1, help="Any setting, as NAME=VALUE; may be given again."),
    ] = ()

    def load(self, environment: Mapping[str, str] = os.environ, *, is_strict: bool = True) -> Loaded:
        """Read the settings anew, from all places.

        :param is_strict: see `Places`.
        :raises ConfigInvalid: one cannot be used.
        """
        flags = {
            "data_dir": str(self.data_dir) if self.data_dir is not None else None,
            "listen.host": self.host,
            "listen.port": self.port,
            "listen.insecure_no_auth": self.insecure_no_auth,
        }
        return read_settings(Places(flags, self.assignments, environment, self.config, is_strict=is_strict))


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class ApiOptions:
    """Which daemon is asked."""

    url: Annotated[
        str | None,
        Parameter(help="The daemon: http://… or unix:///PATH; else OBSERVER_URL, else what is configured here."),
    ] = None

    def address(self, options: ConfigOptions = ConfigOptions()) -> str:
        """Give the address.

        :raises ConfigInvalid: it is not given, and the configuration cannot be used or does not say.
        """
        if given := self.url or os.environ.get("OBSERVER_URL", "").strip():
            return given
        # A unit's credentials are its program's, and who asks may be run by an agent's.
        environment = {name: text for name, text in os.environ.items() if name != "CREDENTIALS_DIRECTORY"}
        return configured_address(options.load(environment, is_strict=False).settings.listen)

    def get(self, kind: type[T], path: str, parameters: Mapping[str, object] | None = None) -> tuple[bytes, T]:
        """Ask for something, and give the answer as it came and as a value; see `Api.get`."""
        with self.open() as daemon:
            body = daemon.get(path, parameters)
            return body, daemon.decoded(kind, body)

    def post(self, kind: type[T], path: str, content: bytes) -> tuple[bytes, T]:
        """Send something, likewise; see `Api.post`."""
        with self.open() as daemon:
            body = daemon.post(path, content)
            return body, daemon.decoded(kind, body)

    def open(self) -> Api:
        """Give the daemon, ready to be asked."""
        from observer_actors.commands._api import Api  # noqa: PLC0415 - half a second that `exec` spends only at its end

        return Api(self.address())


def configured_address(listen: ListenSettings) -> str:
    """Give the address at which a daemon with these settings is reached from this machine.

    :raises ConfigInvalid: the port is left to the system.
    """
    if listen.unix and not listen.tcp:
        return f"{UNIX}{listen.unix}"
    if listen.port == 0:
        raise ConfigInvalid("listen.port is 0: only the daemon's log says which it is", hint="give --url")
    host = _ANY_HOST.get(listen.host, listen.host)
    scheme = "https" if listen.tls_cert else "http"
    return f"{scheme}://[{host}]:{listen.port}" if ":" in host else f"{scheme}://{host}:{listen.port}"
