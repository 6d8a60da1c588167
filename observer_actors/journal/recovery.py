"""What the end of a journal file means: pure. Chunks of lines go in, a `Scan` comes out, and `plan` decides.

The rules are those of `format`: a line that is cut short or has holes, in, directly before or behind the last commit,
begins a torn tail; any other bad line is damage of acknowledged data, which stays. `surveying` feeds this module,
`opening` does what it says.
"""

from __future__ import annotations

from bisect import bisect_left

from msgspec import Struct, field

from observer_actors.journal.lines import Head, decode_head, decode_heads, event_range, is_whole, split_lines

__all__ = ["Flaw", "Mark", "Plan", "Scan", "Scanner", "plan", "rotten_at_end"]


class Mark(Struct, frozen=True):
    """From this byte on, lines hold this seq and later ones."""

    offset: int
    first_seq: int
    times: tuple[int, int] | None = None
    """Earliest and latest event time (microseconds since 1970) of the lines up to the next mark, where known."""


class Flaw(Struct, frozen=True):
    """A place where a file does not say what it should."""

    offset: int
    reason: str
    good_before: int
    """Good lines before it: what decides whether it lies before the last commit."""
    is_line: bool = True
    """False for a gap between two good lines."""
    is_whole: bool = False
    """A line that no crash has torn: it ends, and has no holes."""


class Scan(Struct):
    """What a file holds."""

    size: int = 0
    """Bytes scanned."""
    good: int = 0
    """Lines that are records in their place."""
    first_seq: int = 0
    """Of the first good line; 0 without one."""
    last_seq: int = 0
    first_recorded_at: str = ""
    last_recorded_at: str = ""
    good_before_last_commit: int = 0
    marks: list[Mark] = field(default_factory=list)
    """Where each chunk of the file begins, and its first seq."""
    flaws: list[Flaw] = field(default_factory=list)
    ids: list[tuple[int, str]] = field(default_factory=list)
    """Seq and id of each op that carries one."""
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
    """How it stood before the newest commit: what it is put back to when that turns out to be one line that rotted."""

    recorded_at: str = ""
    good_before_last_commit: int = 0


class _Doubt(Struct, frozen=True):
    """A line that is in its place but for its time, which is earlier than that of the line before."""

    offset: int
    head: Head


class Scanner:
    """Takes the chunks of one file in order.

    When `recorded_at` goes backwards, one of two lines is wrong, and the line after them decides which: if it follows
    the second, the first has rotted to a later time. Else one changed byte would make all behind it a torn tail.

    :param expected: seq of the first line; None when it is not known.
    :param bound: lines of this seq and later do not count; the scan ends at the first of them.
    """

    def __init__(self, expected: int | None = None, bound: int | None = None) -> None:
        self.scan = Scan(last_seq=0 if expected is None else expected - 1)
        self._expected = expected
        self._bound = bound
        self._before = _Before()
        self._last_at = 0
        """Where the last good line begins."""
        self._doubt: _Doubt | None = None

    def feed(self, offset: int, chunk: bytes) -> bool:
        """Take a chunk; False when the rest need not be read."""
        if self._is_beyond(self._expected):
            self.scan.beyond_at = offset
            return False
        heads = decode_heads(chunk)
        if heads is not None and self._fits(heads):
            self.scan.marks.append(Mark(offset, heads[0].seq, event_range(heads)))
            self._absorb(heads, offset + chunk.rfind(b"\n", 0, -1) + 1)
        else:
            self._feed_lines(offset, chunk)
        self.scan.size = offset + len(chunk) if self.scan.beyond_at is None else self.scan.beyond_at
        return self.scan.beyond_at is None

    def _is_beyond(self, seq: int | None) -> bool:
        return self._bound is not None and seq is not None and seq >= self._bound

    def _fits(self, heads: list[Head]) -> bool:
        first = heads[0].seq
        return (
            (first > 0 if self._expected is None else first == self._expected)
            and not self._is_beyond(heads[-1].seq)
            and heads[0].recorded_at >= self.scan.last_recorded_at
            and [head.seq for head in heads] == list(range(first, first + len(heads)))
        )

    def _absorb(self, heads: list[Head], last_at: int) -> None:
        scan = self.scan
        self._last_at = last_at
        last = heads[-1]
        if not scan.good:
            scan.first_seq, scan.first_recorded_at = heads[0].seq, heads[0].recorded_at
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
        self._expected = last.seq + 1

    def _feed_lines(self, offset: int, chunk: bytes) -> None:
        expected = self._expected
        for start, line in split_lines(chunk):
            self._feed_line(offset + start, line)
            if self.scan.beyond_at is not None:
                break
        first = self.scan.first_seq if expected is None else expected
        self.scan.marks.append(Mark(offset, first))

    def _feed_line(self, offset: int, line: bytes) -> None:
        scan = self.scan
        doubt, self._doubt = self._doubt, None
        head = decode_head(line)
        if self._is_beyond(self._expected) or (isinstance(head, Head) and self._is_beyond(head.seq)):
            scan.beyond_at = offset
        elif isinstance(head, Head) and doubt is not None and self._confirms(doubt.head, head):
            self._take_back_the_last(doubt)
            self._absorb([head], offset)
        elif isinstance(head, str):
            scan.flaws.append(Flaw(offset, head, scan.good, is_whole=is_whole(line)))
        elif self._expected is not None and head.seq < self._expected:
            reason = f"seq {head.seq} comes again or too late, expected {self._expected}"
            scan.flaws.append(Flaw(offset, reason, scan.good, is_whole=True))
        elif head.recorded_at < scan.last_recorded_at:
            scan.flaws.append(Flaw(offset, "recorded_at goes backwards", scan.good, is_whole=True))
            self._doubt = _Doubt(offset, head) if head.seq == self._expected else None
        else:
            self._note_gap(offset, head)
            self._absorb([head], offset)

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
        scan.flaws[-1] = Flaw(self._last_at, reason, scan.good, is_whole=True)
        self._absorb([doubt.head], doubt.offset)

    def _note_gap(self, offset: int, head: Head) -> None:
        """Record a jump of seq that no bad line accounts for. Only one within a commit can come from a torn write."""
        scan = self.scan
        accounted = scan.flaws and scan.flaws[-1].is_line and scan.flaws[-1].good_before == scan.good
        if self._expected is None or head.seq == self._expected or accounted:
            return
        reason = f"gap: seq goes from {self._expected - 1} to {head.seq}"
        scan.flaws.append(Flaw(offset, reason, scan.good - 1, is_line=False))


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
    """Tell whether a write that a crash cut short has left it. Without a good line nothing says whose seqs they are."""
    return flaw.good_before >= scan.good_before_last_commit and not (flaw.is_whole and scan.good)


def rotten_at_end(scan: Scan, keep_bytes: int) -> int:
    """Count the lines that stay behind the last good one: each was an op, whose seq is not given out again."""
    kept = (flaw for flaw in scan.flaws if flaw.is_whole and flaw.offset < keep_bytes)
    return sum(flaw.good_before == scan.good > 0 for flaw in kept)
