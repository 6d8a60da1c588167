"""Counters, rates and latency over everything ever committed, in constant memory. Pure.

Latency is kept in a sketch with logarithmic buckets after DDSketch (Masson, Rim, Lee: "DDSketch: a fast and
fully-mergeable quantile sketch with relative-error guarantees", VLDB 2019): a quantile read from it is within 1 % of
a true one.
"""

from __future__ import annotations

import math
import zlib
from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Final

import msgspec

from observer_actors.event import OWN_SOURCE
from observer_actors.labels import bounded_endpoint, counted_under
from observer_actors.op import Op
from observer_actors.visible import visible_json

ENDPOINTS_MAX: Final = 200
"""Endpoints counted by name, of 200 characters at most; those that come later are counted together (`counted_under`).
Labels that grow with what callers send would grow the memory of this process and of any Prometheus that reads them."""
SOURCES_MAX: Final = 50

RELATIVE_ERROR: Final = 0.01
_GAMMA: Final = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_LOG_GAMMA: Final = math.log(_GAMMA)
SMALLEST_MS: Final = 0.001
"""Shorter durations, negative ones too (a caller's clock may jump), count as zero."""
LARGEST_MS: Final = 1e10
"""About four months; longer ones count as this. Bounds a sketch to about 1,500 buckets."""
RATE_SECONDS: Final = 60
"""The window of a rate, `per_second_1m`."""


@lru_cache(8_192)
def _bucket(duration_ms: float) -> int | None:
    """Give the bucket of a duration, None for zero. Whole milliseconds are common, and come again and again."""
    if not duration_ms > SMALLEST_MS:
        return None
    return math.ceil(math.log(min(duration_ms, LARGEST_MS)) / _LOG_GAMMA)


def _middle_ms(bucket: int) -> float:
    return 2 * _GAMMA**bucket / (_GAMMA + 1)


class LatencySketch(msgspec.Struct):
    """How long things took, in milliseconds."""

    count: int = 0
    sum_ms: float = 0.0
    zeros: int = 0
    buckets: dict[int, int] = msgspec.field(default_factory=dict)

    def add(self, durations_ms: Sequence[float]) -> None:
        """Take durations in, at least one."""
        self.count += len(durations_ms)
        if not SMALLEST_MS < min(durations_ms) <= max(durations_ms) <= LARGEST_MS:
            self.sum_ms += sum(min(duration, LARGEST_MS) for duration in durations_ms if duration > SMALLEST_MS)
        else:
            self.sum_ms += sum(durations_ms)
        buckets = self.buckets
        for bucket in map(_bucket, durations_ms):
            if bucket is None:
                self.zeros += 1
            else:
                buckets[bucket] = buckets.get(bucket, 0) + 1

    def quantiles(self, *shares: float) -> list[float]:
        """Give the durations at ranks ``share * (count - 1)`` (shares: 0 to 1, rising; rounded down), within 1 %.

        0 when there is none; what is not above `SMALLEST_MS` counts as 0, and what is above `LARGEST_MS` as that.
        """
        if self.count == 0:
            return [0.0 for _ in shares]
        buckets = sorted(self.buckets)
        if buckets != list(self.buckets):  # the next time they are, but for a few, and quickly sorted
            self.buckets = {bucket: self.buckets[bucket] for bucket in buckets}
        seen = list(accumulate(self.buckets.values(), initial=self.zeros))
        places = [bisect_right(seen, share * (self.count - 1)) for share in shares]
        return [_middle_ms(buckets[place - 1]) if place else 0.0 for place in places]


class Tally(msgspec.Struct):
    """Outcomes under one label."""

    successes: int = 0
    failures: int = 0

    def add(self, times: int, *, success: bool) -> None:
        """Count an outcome that came up so many times."""
        if success:
            self.successes += times
        else:
            self.failures += times


class EndpointTally(Tally):
    """Outcomes and latency of one endpoint."""

    latency: LatencySketch = msgspec.field(default_factory=LatencySketch)


class Stats(msgspec.Struct):
    """Everything counted so far, up to the op ``last_seq``.

    What the daemon itself has put into the journal (`event.OWN_SOURCE`) is counted under its source alone.
    """

    last_seq: int = 0
    all: Tally = msgspec.field(default_factory=Tally)
    sources: dict[str, Tally] = msgspec.field(default_factory=dict)
    endpoints: dict[str, EndpointTally] = msgspec.field(default_factory=dict)

    def add(self, ops: Sequence[Op]) -> None:
        """Count ops, in the order of their seq. Those with the same labels and outcome are counted at once."""
        alike = defaultdict[tuple[str, str, bool], list[float]](list)
        for op in ops:
            alike[op.source, op.endpoint, op.success].append(op.duration_ms)
        for (source, endpoint, success), durations_ms in alike.items():
            times = len(durations_ms)
            by_source = counted_under(self.sources, source, SOURCES_MAX, Tally)
            by_source.add(times, success=success)
            if source == OWN_SOURCE:
                continue
            label = bounded_endpoint(endpoint)
            by_endpoint = counted_under(self.endpoints, label, ENDPOINTS_MAX, EndpointTally)
            self.all.add(times, success=success)
            by_endpoint.add(times, success=success)
            by_endpoint.latency.add(durations_ms)
        if ops:
            self.last_seq = ops[-1].seq


class _Snapshot(msgspec.Struct, frozen=True):
    """The counters as they are saved, and what they must add up to."""

    stats: msgspec.Raw
    crc32: int


_snapshots: Final = msgspec.json.Decoder(_Snapshot)
_stats: Final = msgspec.json.Decoder(Stats)


def encode_snapshot(stats: Stats) -> bytes:
    """Give what is saved of the counters."""
    content = visible_json(msgspec.json.encode(stats))
    return msgspec.json.encode(_Snapshot(msgspec.Raw(content), zlib.crc32(content)))


def decode_snapshot(content: bytes) -> Stats:
    """Read saved counters; earlier versions wrote them alone, without a checksum.

    :raises problems.UNREADABLE: they are none, or not what was written.
    """
    try:
        snapshot = _snapshots.decode(content)
    except msgspec.ValidationError:
        return _stats.decode(content)
    if zlib.crc32(bytes(snapshot.stats)) != snapshot.crc32:
        raise msgspec.ValidationError("its checksum is another")
    return _stats.decode(snapshot.stats)


class RateWindow:
    """Events a second, over the last `RATE_SECONDS`.

    Time is given from outside, in seconds on a clock that does not go back.
    """

    def __init__(self) -> None:
        self._counts = deque[tuple[int, int]](maxlen=RATE_SECONDS)
        """Seconds in which there were events, and how many: as many as a window has."""

    def add(self, now: float, count: int) -> None:
        """Note ``count`` events at ``now``."""
        second = int(now)
        if self._counts and self._counts[-1][0] == second:
            count += self._counts.pop()[1]
        self._counts.append((second, count))

    def per_second(self, now: float) -> float:
        """Give the mean rate over the window that ends at ``now``."""
        return sum(count for second, count in self._counts if second > now - RATE_SECONDS) / RATE_SECONDS
