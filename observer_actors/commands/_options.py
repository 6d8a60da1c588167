"""Flags that several commands have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from observer_actors.config import Loaded, Places, read_settings

__all__ = ["ConfigOptions", "JsonFlag"]

JsonFlag = Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON, for programs.")]


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigOptions:
    """What says how a daemon is configured: the same for the one that runs and for those that look at it."""

    config: Annotated[
        Path | None, Parameter(help="A TOML file with settings; above /etc/observer-actors/config.toml.")
    ] = None
    data_dir: Annotated[Path | None, Parameter(help="Where everything is kept; ./data unless set.")] = None
    host: Annotated[str | None, Parameter(help="Address to listen on; 127.0.0.1 unless set.")] = None
    port: Annotated[int | None, Parameter(help="Port to listen on; 3800 unless set, and 0 takes a free one.")] = None
    insecure_no_auth: Annotated[
        bool | None, Parameter(negative=(), help="Allow an address that other machines can reach.")
    ] = None
    assignments: Annotated[
        tuple[str, ...],
        Parameter(name="--set", negative=(), n_tokens=1, help="Any setting, as NAME=VALUE; may be given again."),
    ] = ()

    def load(self) -> Loaded:
        """Read the settings anew, from all places.

        :raises ConfigInvalid: one cannot be used.
        """
        flags = {
            "data_dir": str(self.data_dir) if self.data_dir is not None else None,
            "listen.host": self.host,
            "listen.port": self.port,
            "listen.insecure_no_auth": self.insecure_no_auth,
        }
        return read_settings(Places(flags=flags, assignments=self.assignments, file=self.config))
