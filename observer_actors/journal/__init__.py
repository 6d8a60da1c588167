"""The journal: the durable log of every op, and the source of truth. `format` is its specification."""

from observer_actors.journal.deduplication import Sifted
from observer_actors.journal.directory import close_to_others, linked_elsewhere, refuse_foreign
from observer_actors.journal.files import Disk, PosixDisk
from observer_actors.journal.judging import Finding
from observer_actors.journal.lock import DirectoryLock, directory_in_use
from observer_actors.journal.opening import refuse_seeds_file
from observer_actors.journal.reader import JournalReader, Page, Query, Stretch
from observer_actors.journal.sealing import ClockWatch, compact, forget_lost, retain
from observer_actors.journal.surveying import look
from observer_actors.journal.verify import VerifyReport, verify
from observer_actors.journal.writer import Handed, JournalStatistics, JournalWriter

__all__ = [
    "ClockWatch",
    "DirectoryLock",
    "Disk",
    "Finding",
    "Handed",
    "JournalReader",
    "JournalStatistics",
    "JournalWriter",
    "Page",
    "PosixDisk",
    "Query",
    "Sifted",
    "Stretch",
    "VerifyReport",
    "close_to_others",
    "compact",
    "directory_in_use",
    "forget_lost",
    "linked_elsewhere",
    "look",
    "refuse_foreign",
    "refuse_seeds_file",
    "retain",
    "verify",
]
