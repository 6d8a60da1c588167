"""What takes effect on SIGHUP, and what waits for a restart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from observer_actors.config.schema import leaves_of, settings_from
from observer_actors.settings import Settings

RELOADABLE: Final = (
    "advice.control_share",
    "cycle.seconds",
    "journal.retained_bytes_max",
    "journal.retained_seconds_max",
    "listen.hosts",
    "log.level",
    "secrets.extra",
    "sources.extra",
)

REREAD: Final = frozenset({"auth.tokens_file", "listen.tls_cert", "listen.tls_key"})
"""Of the files that settings name, those that are read again; any other is read at a start alone."""


def reload_settings(old: Settings, new: Settings) -> tuple[Settings, list[str], list[str]]:
    """Take over what can change while the daemon runs.

    :return: the settings then in force, the names of those that changed, and of those that wait for a restart.
    """
    before, after = leaves_of(old), leaves_of(new)
    changed = [name for name in after if before[name] != after[name]]
    now = [name for name in changed if name in RELOADABLE]
    in_force = settings_from(before | {name: after[name] for name in now})
    return in_force, now, [name for name in changed if name not in RELOADABLE]


def changed_files(in_use: Mapping[str, bytes], found: Mapping[str, bytes]) -> tuple[list[str], list[str]]:
    """Compare files by their digests, each under its setting's name.

    :return: those of which another content takes effect now, and those of which it waits for a restart.
    """
    others = [name for name, digest in found.items() if digest != in_use.get(name)]
    return [name for name in others if name in REREAD], [name for name in others if name not in REREAD]
