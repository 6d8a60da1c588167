"""What the end of a journal file means: pure. Chunks of lines go in, a `Scan` comes out, and `plan` decides.

The rules are those of `format`: a line that is cut short or has holes, in, directly before or behind the last commit,
begins a torn tail; any other bad line is damage of acknowledged data, which stays. `places` says what its seq makes of
a line. `surveying` feeds this module, `opening` does what it says.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable

from msgspec import Struct, field

from observer_actors.journal.lines import Head, decode_head, decode_heads, event_times, is_whole, split_lines
from observer_actors.journal.places import Place, Places, first_seq_of
from observer_actors.journal.times import Times


class Mark(Struct, frozen=True):
    """From this byte on, lines hold this seq and later ones."""

    offset: int
    first_seq: int
    times: Times = ()
    """When the ops up to the next mark happened, where known."""


class Flaw(Struct, frozen=True):
    """A place where a file does not say what it should."""

    offset: int
    reason: str
    good_before: int
    """Good lines before it: what decides whether it lies before the last commit."""
    due: int
    """Seq of the first op behind it; 0 where it is not known."""
    is_whole: bool = False
    """The line ends with a newline and has no holes, so that no torn write explains it; so a gap between two such."""


class Scan(Struct):
    """What a file holds."""

    size: int = 0
    """Bytes scanned."""
    good: int = 0
    """Lines that are records in their place."""
    first_seq: int = 0
    """Of the first line, also when that has rotted; 0 when nothing tells."""
    last_seq: int = 0
    """Of the last good line."""
    first_recorded_at: str = ""
    last_recorded_at: str = ""
    good_before_last_commit: int = 0
    marks: list[Mark] = field(default_factory=list)
    """Where each chunk of the file begins, and its first seq."""
    flaws: list[Flaw] = field(default_factory=list)
    ids: deque[tuple[int, str]] = field(default_factory=deque)
    """Seq and id of the newest ops that carry one."""
    beyond_at: int | None = None
    """Offset of the first line at or beyond the bound, if one was given and reached."""


class Plan(Struct, frozen=True):
    """What to do about a file."""

    keep_bytes: int
    torn: Flaw | None
    """Why everything from `keep_bytes` on is to be set aside."""
    torn_bytes: int
    unacknowledged_bytes: int
    """Bytes from `keep_bytes` on that are cut because they will be written anew."""
    damage: tuple[Flaw, ...]
    """Stays where it is."""


class _Before(Struct, frozen=True):
    """The scan as it was before the newest commit: restored if that turns out to be one line whose time has rotted."""

    recorded_at: str = ""
    good_before_last_commit: int = 0


class _Doubt(Struct, frozen=True):
    """A line of which the one after it tells whether it is right: its seq is too far on, or its time too early."""

    offset: int
    head: Head


def scanned(
    chunks: Iterable[tuple[int, bytes]], expected: int | None, bound: int | None = None, ids_max: int = 0
) -> Scan:
    """Say what a file holds.

    :param chunks: whole lines, with their offset, in order; only as many are taken as are needed.
    :param expected: seq of the first line; None when it is not known.
    :param bound: lines of this seq and later do not count; the scan ends at the first of them.
    :param ids_max: how many ids are wanted. A file may hold millions; of the newest it is one more than that, for one
        may turn out to be none.
    """
    scanner = _Scanner(expected, bound, ids_max)
    for offset, chunk in chunks:
        scanner.feed(offset, chunk)
        if scanner.scan.beyond_at is not None:
            break
    return scanner.scan


class _Scanner:
    """Takes the chunks of one file in order; see `scanned`.

    When `recorded_at` goes backwards, one of two lines is wrong, and the line after them decides which: if it follows
    the second, the first has rotted to a later time. So with a seq that is too far on (`places`). Else one changed byte
    would make all behind it a torn tail, or what comes again.
    """

    def __init__(self, expected: int | None, bound: int | None, ids_max: int) -> None:
        self.scan = Scan() if expected is None else Scan(first_seq=expected, last_seq=expected - 1)
        self.scan.ids = deque(maxlen=ids_max + 1)
        self._places = Places(expected)
        self._bound = bound
        self._before = _Before()
        self._last_at = 0
        """Where the last good line begins."""
        self._jump: _Doubt | None = None
        self._early: _Doubt | None = None

    def feed(self, offset: int, chunk: bytes) -> None:
        if self._is_beyond(self._places.expected):
            self.scan.beyond_at = offset
            return
        heads = decode_heads(chunk)
        if heads is not None and self._fits(heads):
            self.scan.marks.append(Mark(offset, heads[0].seq, event_times(heads)))
            self._places.advance(heads[-1].seq)
            self._jump = self._early = None
            self._absorb(heads, offset + chunk.rfind(b"\n", 0, -1) + 1)
        else:
            self._feed_lines(offset, chunk)
        self.scan.size = offset + len(chunk) if self.scan.beyond_at is None else self.scan.beyond_at

    def _is_beyond(self, seq: int | None) -> bool:
        return self._bound is not None and seq is not None and seq >= self._bound

    def _fits(self, heads: list[Head]) -> bool:
        first, due = heads[0].seq, self._places.due
        return (
            (first > 0 if due is None else first == due)
            and not self._is_beyond(heads[-1].seq)
            and heads[0].recorded_at >= self.scan.last_recorded_at
            and [head.seq for head in heads] == list(range(first, first + len(heads)))
        )

    def _absorb(self, heads: list[Head], last_at: int) -> None:
        scan = self.scan
        self._last_at = last_at
        last = heads[-1]
        if not scan.good:
            scan.first_seq, scan.first_recorded_at = scan.first_seq or heads[0].seq, heads[0].recorded_at
        if last.recorded_at != scan.last_recorded_at:
            begins = _begin_of(last.recorded_at, heads)
            before = heads[begins - 1].recorded_at if begins else scan.last_recorded_at
            if before != scan.last_recorded_at:
                scan.good_before_last_commit = scan.good + _begin_of(before, heads)
            self._before = _Before(before, scan.good_before_last_commit)
            scan.good_before_last_commit = scan.good + begins
        scan.good += len(heads)
        scan.last_seq, scan.last_recorded_at = last.seq, last.recorded_at
        scan.ids += [(head.seq, head.id) for head in heads if head.id]

    def _feed_lines(self, offset: int, chunk: bytes) -> None:
        if not self.scan.marks or self._places.expected is None:
            self._begin(offset, chunk)
        expected = self._places.expected or 0
        for start, line in split_lines(chunk):
            self._feed_line(offset + start, line)
            if self.scan.beyond_at is not None:
                break
        if self.scan.beyond_at != offset:
            self.scan.marks.append(Mark(offset, expected))

    def _begin(self, offset: int, chunk: bytes) -> None:
        """Find out which seq comes first."""
        expected = self._places.expected
        first = first_seq_of(decode_head, chunk, expected)
        if first is None or first == expected:
            return
        self._places = Places(first)
        self.scan.first_seq, self.scan.last_seq = first, first - 1
        if expected is not None and not self._is_beyond(first):
            self._note_flaw(offset, f"gap: seq goes from {expected - 1} to {first}")

    def _feed_line(self, offset: int, line: bytes) -> None:
        scan, expected = self.scan, self._places.expected
        if self._is_beyond(expected):
            scan.beyond_at = offset
            return
        head = decode_head(line)
        place = self._places.take(line, head)
        if isinstance(head, str):
            self._note_flaw(offset, head, is_whole=is_whole(line))
            return
        if place is Place.EARLY:
            self._note_flaw(offset, f"seq {head.seq} comes again or too late, expected {expected}")
        elif place is Place.DOUBTED:
            self._note_flaw(offset, f"seq {head.seq} is too far on, expected {expected}")
            self._jump = _Doubt(offset, head)
        else:
            if place is Place.CONFIRMING and self._jump is not None:
                self._take_gap(self._jump)
            if scan.beyond_at is None:
                self._take_record(offset, head)

    def _note_flaw(self, offset: int, reason: str, *, is_whole: bool = True) -> None:
        self._jump = self._early = None
        self.scan.flaws.append(Flaw(offset, reason, self.scan.good, self._places.due or 0, is_whole=is_whole))

    def _take_gap(self, doubt: _Doubt) -> None:
        """The ops before a doubted line are gone, and it is good."""
        scan, seq = self.scan, doubt.head.seq
        scan.flaws.pop()
        if self._is_beyond(seq):
            scan.beyond_at = doubt.offset
            return
        self._note_flaw(doubt.offset, f"gap: seq goes from {scan.last_seq} to {seq}")
        self._take_record(doubt.offset, doubt.head)

    def _take_record(self, offset: int, head: Head) -> None:
        """Take a line whose seq is right."""
        early = self._early
        if self._is_beyond(head.seq):
            self.scan.beyond_at = offset
        elif early is not None and self._confirms(early.head, head):
            self._take_back_the_last(early)
            self._absorb([head], offset)
        elif head.recorded_at < self.scan.last_recorded_at:
            self._note_flaw(offset, "recorded_at goes backwards")
            self._early = _Doubt(offset, head)
            self.scan.ids += [(head.seq, head.id)] if head.id else []  # whoever is right, it was acknowledged as that
        else:
            self._absorb([head], offset)
            self._jump = self._early = None

    def _confirms(self, doubted: Head, head: Head) -> bool:
        """Tell whether this line follows one that went backwards, and both follow all but the last good line."""
        is_one_line = self.scan.good - self.scan.good_before_last_commit == 1
        return (
            is_one_line
            and head.seq == doubted.seq + 1
            and self._before.recorded_at <= doubted.recorded_at <= head.recorded_at < self.scan.last_recorded_at
        )

    def _take_back_the_last(self, doubt: _Doubt) -> None:
        """The last good line is the one that is wrong, and the doubted one is good."""
        scan = self.scan
        scan.good -= 1
        scan.good_before_last_commit = self._before.good_before_last_commit
        scan.last_recorded_at = self._before.recorded_at
        reason = f"recorded_at of seq {scan.last_seq} is later than that of the lines after it"
        scan.flaws[-1] = Flaw(self._last_at, reason, scan.good, scan.last_seq + 1, is_whole=True)
        if doubt.head.id:
            scan.ids.pop()
        self._absorb([doubt.head], doubt.offset)
        self._early = None


def _begin_of(recorded_at: str, heads: list[Head]) -> int:
    return bisect_left(heads, recorded_at, key=lambda head: head.recorded_at)


def plan(scan: Scan, size: int) -> Plan:
    """Decide what stays of a file.

    :param size: of the whole file in bytes; the scan may have ended before, at its bound.
    """
    if scan.beyond_at is not None:
        # All below the bound is acknowledged, so that no flaw there can be a torn write.
        return Plan(scan.beyond_at, None, 0, size - scan.beyond_at, tuple(scan.flaws))
    torn = next((flaw for flaw in scan.flaws if _is_torn(scan, flaw)), None)
    if torn is None:
        return Plan(size, None, 0, 0, tuple(scan.flaws))
    damage = [flaw for flaw in scan.flaws if flaw.offset < torn.offset]
    return Plan(torn.offset, torn, size - torn.offset, 0, tuple(damage))


def _is_torn(scan: Scan, flaw: Flaw) -> bool:
    """Tell whether it is what a crash left of a write, or stands in a file of which no seq is known at all."""
    return flaw.good_before >= scan.good_before_last_commit and not (flaw.is_whole and scan.first_seq)


def last_kept(scan: Scan) -> int:
    """Give the last seq of what stays: those of rotten lines behind the last good one are not given out again."""
    flaws = scan.flaws
    return flaws[-1].due - 1 if flaws and flaws[-1].good_before == scan.good else scan.last_seq
