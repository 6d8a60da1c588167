"""The journal: the durable log of every op, and the source of truth. `format` is its specification."""

from observer_actors.journal.catalog import Catalog, Snapshot
from observer_actors.journal.deduplication import Sifted
from observer_actors.journal.directory import Closed, close_to_others, refuse_foreign
from observer_actors.journal.files import Disk, PosixDisk
from observer_actors.journal.format import SegmentEntry
from observer_actors.journal.lock import DirectoryLock, directory_in_use
from observer_actors.journal.opening import DamagedLine, RecoveryReport, TornTail
from observer_actors.journal.reader import JournalReader, Page, Query, ReaderStatistics
from observer_actors.journal.sealing import Compacted, Removed, compact, retain
from observer_actors.journal.surveying import look
from observer_actors.journal.verify import Finding, VerifyReport, verify
from observer_actors.journal.writer import Handed, JournalStatistics, JournalWriter

__all__ = [
    "Catalog",
    "Closed",
    "Compacted",
    "DamagedLine",
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
    "ReaderStatistics",
    "RecoveryReport",
    "Removed",
    "SegmentEntry",
    "Sifted",
    "Snapshot",
    "TornTail",
    "VerifyReport",
    "close_to_others",
    "compact",
    "directory_in_use",
    "look",
    "refuse_foreign",
    "retain",
    "verify",
]
