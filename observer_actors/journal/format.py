"""The journal's format on disk. This header is its specification; version 1.

**Where.** Everything lies under ``<data>/_observer/``; files are 0600, directories 0700.

=============================================  ==========================================================
``ops.jsonl``                                  the active file: the newest ops
``segments/ops-<first seq, 20 digits>.jsonl``  a sealed segment, as it was when it was the active file
``segments/ops-<first seq>.jsonl.gz``          the same, compressed
``segments/ops-<first seq>.index.json``        block index of one segment; derived, may be deleted
``segments/manifest.json``                     format version, and what each compacted segment must hold
``ops.jsonl.torn-<n>``                         bytes set aside by a recovery; no part of the journal
``ops.jsonl.torn.tmp``                         the same, half copied
``lock``                                       held with flock by the daemon, as the folder is; holds its pid
=============================================  ==========================================================

**Lines.** One JSON object a line, ended by one newline, keys in the order of `observer_actors.op.Op`. No NUL byte
ever stands in a file (JSON forbids it), so a hole that a crash left is recognised. ``seq`` counts from 1 without
a gap across all files; a file's name holds the ``seq`` of its first line.

**Commits.** All ops of one write-and-fdatasync carry the same ``recorded_at`` (UTC, microseconds, ``Z``: 27
characters, so that texts sort as times), strictly later than that of the commit before: max(now, last + 1 µs), also
across restarts and when the clock is set back. So ``recorded_at`` is the witness's time, a sorted index, and the
identity of a commit. At most one commit is ever unacknowledged, and it is the last one of the journal; what a crash
leaves of it is shorter, or has holes. Hence the rule that tells a torn commit from rot:

* The first line that is incomplete or holds a NUL within the last commit, directly before it, or after it, begins a
  *torn tail*: nothing from there on was acknowledged. It is set aside in ``ops.jsonl.torn-<n>``, and the file is cut.
* Any other bad line is *damage* of acknowledged data, and so is a gap: no crash leaves a line that ends and has no
  holes. It stays where it is, is counted and reported, readers skip it, and the seq goes on behind it, also where no
  good line follows, or none is in the file. So are places that the medium does not give: an active file with one is
  sealed by the next start. A line counts for as many ops as have begun in it, or said their seq.

A line is bad when it is incomplete, is not a record, holds a NUL, its ``seq`` or ``recorded_at`` goes backwards, or its
``seq`` is further on than the bad lines before it account for. Which of two lines is wrong, the next one tells. If two
lines follow all but the one before them, the ``recorded_at`` of that one is wrong. If a line follows one whose ``seq``
is too far on, there is a gap; else that ``seq`` is wrong.

**Sealing.** The active file becomes a segment by rename; then both directories are synced; then a new active file is
made and its directory synced. After a failed fdatasync the file is first cut to its last durable byte, but that cut
may not survive a crash. Therefore: *a segment ends before the first seq of the file that follows it*; whatever it
holds beyond that is residue of an unacknowledged commit and no part of the journal. When the active file is empty
or missing, the newest uncompacted segment is treated as if it were the active file.

**Compaction** happens later, beside the writing: ``.jsonl.gz`` is made of independent gzip members ("blocks") of
about 256 KiB of lines each, so that zcat reads the whole and a reader decodes one block alone. Steps: write
``….gz.tmp``; write the index; fdatasync, rename to ``….gz``, sync the directory; replace the manifest; remove the raw
file. Without compression the raw file stays and only index and manifest are written. A raw file that the manifest
does not name is still to be compacted, whatever else lies beside it; a raw file beside the compressed one that the
manifest names is a leftover. So a crash between any two steps is repaired by the next pass.

**Retention** removes oldest segments first: the manifest is replaced, without them and with ``removed_through``
raised to their last seq, then their files are removed. A file at or below ``removed_through`` is a leftover. The
newest segment stays while the active file is empty: the journal always holds its last op, so that seq goes on.

**Event times** of a block, and of a segment, are its earliest and latest. Where some lie more than an hour from all
others, as those of a clock that is years off, ``time_ranges`` tells them apart (`times`): a query by time reads less.

**Manifest and index** are JSON with a ``checksum``: the SHA-256 of the compact encoding of the same object with an
empty ``checksum``. The manifest is replaced atomically (tmp, fdatasync, rename, sync of the directory). One that
does not parse, cannot be read, or has a wrong checksum is set aside as ``manifest.json.damaged-<n>`` and rebuilt from
the indexes and segments. A newer ``format`` than this one is refused, whatever else it says, unless the checksum holds
with this one in its place: then it has rotted.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Final, TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType

from observer_actors import problems
from observer_actors.errors import FormatUnknown
from observer_actors.journal.times import Times
from observer_actors.op import time_us

FORMAT: Final = 1
BLOCK_BYTES: Final = 256 * 1024
"""Plain bytes of a block: decoded in about 1 ms, and compressed nearly as well as the whole file would be."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class SegmentEntry(Struct, frozen=True, kw_only=True):
    """What the manifest says about one compacted segment."""

    file: str
    """Name within ``segments/``."""
    first_seq: int
    last_seq: int
    ops: int
    """Lines that are records: ``last_seq - first_seq + 1`` unless some were damaged."""
    damaged: int = 0
    """Bad lines found when it was compacted, and kept as they are."""
    bytes: int
    """Plain, before compression."""
    stored_bytes: int
    sha256: str
    """Of the stored file."""
    min_time_us: int
    """Earliest event time, microseconds since 1970; 0 with no ops."""
    max_time_us: int
    first_recorded_at: str
    last_recorded_at: str
    time_ranges: Times | UnsetType = UNSET
    """Where the event times lie far apart; left out where they do not."""

    @property
    def times(self) -> Times:
        """When its ops happened."""
        if self.time_ranges is not UNSET:
            return self.time_ranges
        return (self.min_time_us, self.max_time_us) if self.ops else ()


class Manifest(Struct, frozen=True, kw_only=True):
    """The compacted segments, oldest first."""

    format: int = FORMAT
    checksum: str = ""
    removed_through: int = 0
    """Ops up to this seq were removed by retention."""
    segments: tuple[SegmentEntry, ...] = ()


class Block(Struct, frozen=True, array_like=True):
    """One independently readable part of a stored segment: a gzip member, or as many plain lines."""

    offset: int
    stored_bytes: int
    plain_bytes: int
    first_seq: int
    last_seq: int
    ops: int
    min_time_us: int
    max_time_us: int
    crc32: int
    """Of the plain bytes."""


class SegmentIndex(Struct, frozen=True, kw_only=True):
    """The side file of one segment. It repeats the manifest's entry, so that a lost manifest is soon rebuilt."""

    format: int = FORMAT
    checksum: str = ""
    entry: SegmentEntry
    blocks: tuple[Block, ...]
    time_ranges: dict[int, Times] | UnsetType = UNSET
    """Number of a block, from 0 -> where the event times in it lie far apart; left out where there is no such block."""

    @property
    def times(self) -> Iterator[Times]:
        """When the ops of each block happened."""
        apart = {} if self.time_ranges is UNSET else self.time_ranges
        for number, block in enumerate(self.blocks):
            hull = (block.min_time_us, block.max_time_us) if block.ops else ()
            yield apart.get(number, hull)


class ChecksumWrong(ValueError):
    """The file's checksum does not fit what it says."""


UNREADABLE: Final = (*problems.UNREADABLE, ChecksumWrong)
"""What `decode_manifest` and `decode_index` raise for bytes that are none: no JSON or no such struct, no UTF-8, nested
without end, or not what was written."""


class Paths(Struct, frozen=True):
    """Where things are, below one data directory."""

    data: Path

    @property
    def observer(self) -> Path:
        """The directory of all of it."""
        return self.data / "_observer"

    @property
    def active(self) -> Path:
        """The file that is being written."""
        return self.observer / "ops.jsonl"

    @property
    def segments(self) -> Path:
        """The directory of sealed segments."""
        return self.observer / "segments"

    @property
    def manifest(self) -> Path:
        """The list of compacted segments."""
        return self.segments / "manifest.json"

    @property
    def counters(self) -> Path:
        """What has been counted, by who follows the journal; derived, may be deleted."""
        return self.observer / "stats.json"

    @property
    def lock(self) -> Path:
        """The file that the daemon holds locked."""
        return self.observer / "lock"

    def raw(self, first_seq: int) -> Path:
        """A sealed segment before compaction."""
        return self.segments / f"ops-{first_seq:020d}.jsonl"

    def compressed(self, first_seq: int) -> Path:
        """A sealed segment after compaction."""
        return self.segments / f"ops-{first_seq:020d}.jsonl.gz"

    def index(self, first_seq: int) -> Path:
        """The block index of a segment."""
        return self.segments / index_name(first_seq)


def index_name(first_seq: int) -> str:
    """Name the block index of a segment."""
    return f"ops-{first_seq:020d}.index.json"


SEGMENT_NAME: Final = re.compile(r"ops-(?P<first_seq>\d{20})(?P<kind>\.jsonl|\.jsonl\.gz|\.index\.json)")

_Sealed = TypeVar("_Sealed", Manifest, SegmentIndex)


class _Version(Struct):
    format: int


# Made here: what of a type is looked up at its first use must not be met half done by another thread, which would end
# the process (msgspec 0.22). So wherever threads read.
_versions: Final = msgspec.json.Decoder(_Version)
_manifests: Final = msgspec.json.Decoder(Manifest)
_indexes: Final = msgspec.json.Decoder(SegmentIndex)


def encode_manifest(manifest: Manifest) -> bytes:
    """Give the manifest as JSON for people and programs, its checksum filled in."""
    return msgspec.json.format(msgspec.json.encode(_with_checksum(manifest)), indent=1) + b"\n"


def decode_manifest(data: bytes) -> Manifest:
    """Read a manifest.

    :raises FormatUnknown: a newer version wrote it.
    :raises ChecksumWrong: it says something else than was written; or any other of `UNREADABLE`.
    """
    refuse_newer_manifest(data)
    return _checked(_manifests.decode(data))


def refuse_newer_manifest(data: bytes) -> None:
    """Look at a manifest's format alone.

    :raises FormatUnknown: a newer version wrote it.
    :raises UNREADABLE: it is no JSON, or says no format.
    """
    version = _versions.decode(data).format
    if version > FORMAT and not _is_ours_otherwise(data):
        raise FormatUnknown(
            f"the journal has format {version}, this version knows formats up to {FORMAT}",
            hint="run the newer version that wrote this data directory",
        )


def _is_ours_otherwise(data: bytes) -> bool:
    """Tell whether it is the format's number alone that has rotted: with ours in its place the checksum holds."""
    try:
        _checked(msgspec.structs.replace(_manifests.decode(data), format=FORMAT))
    except UNREADABLE:
        return False
    return True


def encode_index(index: SegmentIndex) -> bytes:
    """Give the index as JSON, its checksum filled in."""
    return msgspec.json.encode(_with_checksum(index))


def decode_index(data: bytes) -> SegmentIndex:
    """Read an index.

    :raises ChecksumWrong: it says something else than was written; or any other of `UNREADABLE`.
    """
    return _checked(_indexes.decode(data))


def _with_checksum(value: _Sealed) -> _Sealed:
    bare = msgspec.structs.replace(value, checksum="")
    return msgspec.structs.replace(bare, checksum=hashlib.sha256(msgspec.json.encode(bare)).hexdigest())


def _checked(value: _Sealed) -> _Sealed:
    if _with_checksum(value).checksum != value.checksum:
        raise ChecksumWrong(f"checksum is {value.checksum[:12]}…, and should be another")
    return value


def recorded_text(time: int) -> str:
    """Give microseconds since 1970 as ``recorded_at`` writes them: ``2026-11-22T10:00:00.123456Z``."""
    second, rest = divmod(time, 1_000_000)
    return f"{_second_text(second)}.{rest:06d}Z"


@lru_cache(16)
def _second_text(second: int) -> str:
    return (_EPOCH + timedelta(seconds=second)).isoformat(timespec="seconds")[:19]


def recorded_us(text: str) -> int:
    """Microseconds since 1970 of a ``recorded_at``; 0 for one that is no time."""
    return time_us(text) or 0


def event_us(timestamp: str, recorded_at: str) -> int:
    """When the event happened, in microseconds since 1970; when it was recorded, if it does not say."""
    time = time_us(timestamp)
    return recorded_us(recorded_at) if time is None else time
