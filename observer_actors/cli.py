"""The command line."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, NoReturn

import cyclopts
import trio
from cyclopts import Parameter

from observer_actors import __version__
from observer_actors.config import load_settings
from observer_actors.errors import ObserverError
from observer_actors.logs import configure_logs
from observer_actors.pattern_commands import app as patterns_app
from observer_actors.settings import Settings

__all__ = ["app", "main"]

app = cyclopts.App(
    name="observer-actors",
    help="The third-party witness for AI agents: a durable log of every outcome, and what can be learned from it.",
    version=__version__,
)
app.command(patterns_app)


@app.command
def serve(
    *,
    host: str | None = None,
    port: int | None = None,
    data_dir: Path | None = None,
    config: Path | None = None,
    insecure_no_auth: Annotated[bool | None, Parameter(negative=())] = None,
) -> None:
    """Run the daemon in the foreground until SIGTERM or SIGINT; SIGHUP reads the configuration again.

    Example: observer-actors serve --port 3800 --data-dir ./data

    Parameters
    ----------
    host
        Address to listen on; 127.0.0.1 unless set.
    port
        Port to listen on; 3800 unless set, and 0 takes a free one. The first log line says which.
    data_dir
        Where everything is kept; ./data unless set.
    config
        A TOML file with settings.
    insecure_no_auth
        Allow an address that other machines can reach, without authentication.
    """
    from observer_actors.daemon import serve_until_signalled  # noqa: PLC0415 - 0.3 s that `--help` need not pay

    flags = {
        "listen.host": host,
        "listen.port": port,
        "listen.insecure_no_auth": insecure_no_auth,
        "data_dir": str(data_dir) if data_dir is not None else None,
    }

    def load() -> Settings:
        return load_settings(config, flags)

    settings = load()
    configure_logs(settings.log.level)
    trio.run(partial(serve_until_signalled, settings, load))


@app.command
def verify(
    data_dir: Annotated[Path | None, Parameter(name=["--data-dir"])] = None,
    *,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Check a data directory: gaps, duplicates, checksums, torn tails. Exits 1 on damage and says what and where.

    Works on a stopped and on a running daemon's directory, and changes nothing.

    Example: observer-actors verify --data-dir ./data

    Parameters
    ----------
    data_dir
        The directory to check; ./data unless set.
    json
        Print the report as one JSON object.
    """
    from observer_actors.verifying import verify_and_print  # noqa: PLC0415 - see `serve`

    flags = {"data_dir": str(data_dir) if data_dir is not None else None}
    sys.exit(verify_and_print(load_settings(None, flags).data_dir, as_json=json))


def main() -> None:
    """Run the command line; errors are one line and a hint, and an exit status that says their kind."""
    try:
        app()
    except* ObserverError as errors:
        _fail(_first(errors))
    except* KeyboardInterrupt:
        sys.exit(130)


def _first(errors: BaseExceptionGroup[ObserverError]) -> ObserverError:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, ObserverError)
    return error


def _fail(error: ObserverError) -> NoReturn:
    print(f"observer-actors: {error}", file=sys.stderr)
    if error.hint:
        print(f"  {error.hint}", file=sys.stderr)
    sys.exit(error.exit_code)
