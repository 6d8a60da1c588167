"""The data directory, as a daemon takes it, before its tree is started: no restart of an actor would mend it."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from pathlib import Path

from observer_actors.errors import ConfigInvalid, DiskFailed
from observer_actors.journal import (
    DirectoryLock,
    PosixDisk,
    close_to_others,
    linked_elsewhere,
    refuse_foreign,
    refuse_seeds_file,
)
from observer_actors.journal.format import UNREADABLE, Paths, refuse_newer_manifest
from observer_actors.kb import outcomes_path
from observer_actors.logs import logger
from observer_actors.settings import Settings
from observer_actors.store import LEARNED_PATH, refuse_newer


def take_directory(stack: ExitStack, settings: Settings) -> DirectoryLock:
    """Look it over, lock it, and look into it.

    :param stack: holds the lock from then on.
    :raises ConfigInvalid: it cannot be used.
    :raises DataDirectoryLocked: another daemon has it.
    :raises FormatUnknown: a newer version wrote it, or observer.ts.
    """
    data_dir = settings.data_dir
    try:
        refuse_foreign(data_dir, outcomes_path(data_dir), socket=settings.listen.unix)
        refuse_seeds_file(PosixDisk(), data_dir)  # before the lock, which would be a file beside it
        lock = stack.enter_context(DirectoryLock(data_dir))
        _refuse_newer_format(data_dir)
        refuse_newer(data_dir / LEARNED_PATH)
        _close_to_others(data_dir)
        if linked := linked_elsewhere(data_dir):
            hint = "what is written to them changes them under the other name too: back up by copies"
            logger("daemon").warning("shared_by_hard_link", paths=len(linked), first=linked[0], hint=hint)
    except DiskFailed as error:
        raise ConfigInvalid(f"data_dir: {data_dir} cannot be used: {error}", hint=error.hint) from error
    return lock


def _refuse_newer_format(data_dir: Path) -> None:
    """Refuse what a newer version wrote. Damage is the recovery's business, and a disk that refuses the persister's."""
    with suppress(OSError, *UNREADABLE):
        refuse_newer_manifest(Paths(data_dir).manifest.read_bytes())


def _close_to_others(data_dir: Path) -> None:
    """See that no other user may look into what is ours, and say what had to be done, or could not be."""
    log, found = logger("daemon"), close_to_others(data_dir)
    if found.closed:
        hint = "other users may have read them"
        log.warning("modes_tightened", paths=len(found.closed), first=found.closed[0], hint=hint)
    if found.open:
        hint = "other users may look into them: chmod go= them, as their owner"
        log.warning("modes_open", paths=len(found.open), first=found.open[0], hint=hint)
    if found.is_directory_open:
        log.warning("data_dir_open", hint=f"if other users have no business there: chmod go= {data_dir.absolute()}")
