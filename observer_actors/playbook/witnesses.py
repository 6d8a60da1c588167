"""Who speaks for a piece of evidence: how many ops, of which runs, by the word of which sources. Pure.

A run is known by the seq of its first op (`runs`), and all ops of a source that name no run are one run, whose number
is negative: a source that floods the journal with ops that belong nowhere is one witness.

Only who reports is a witness. A verdict says how a run ended, and nothing of the words in its ops: it speaks for none.
"""

from __future__ import annotations

from functools import reduce
from typing import Final, NamedTuple

import msgspec

WITNESSES_MAX: Final = 8
"""Runs, and sources, that are remembered of one piece of evidence: the first ones. More corroborate no further."""
OTHERS: Final = ""
"""All further sources together."""


class Corroboration(msgspec.Struct, frozen=True):
    """What it takes until evidence may reach an agent."""

    runs_min: int = 2
    sources_min: int = 2


class Tally(msgspec.Struct, array_like=True, gc=False):
    """A count of which is known how far one source leads all others together, in little memory.

    By the majority vote of Boyer & Moore (1981, "MJRTY"): the lead is never less than it is in truth, and no more when
    one source has most of the count from the beginning. So `shared` is never more than that of `Witnesses`.
    """

    count: int = 0
    lead: int = 0
    leader: str = ""

    def add(self, source: str) -> None:
        """Count one more."""
        self.count += 1
        if source == self.leader:
            self.lead += 1
        elif self.lead:
            self.lead -= 1
        else:
            self.leader, self.lead = source, 1

    def shared(self, corroboration: Corroboration) -> int:
        """Give how many count: of a source at most as many as of all others together."""
        return self.count if corroboration.sources_min < 2 else self.count - self.lead  # noqa: PLR2004 - alone

    def is_alone(self, corroboration: Corroboration) -> bool:
        """Say whether one source has counted all of it, and that is not enough: it makes room for others."""
        return self.lead == self.count and self.shared(corroboration) < corroboration.runs_min

    def joined(self, other: Tally) -> Tally:
        """Give both together."""
        if self.leader == other.leader:
            return Tally(self.count + other.count, self.lead + other.lead, self.leader)
        more, less = (self, other) if self.lead >= other.lead else (other, self)
        return Tally(self.count + other.count, more.lead - less.lead, more.leader)


class Witnesses(msgspec.Struct, array_like=True, gc=False):
    """What speaks for one thing. There are many: the garbage collector need not look at them."""

    count: int = 0
    """Ops."""
    doubtful: int = 0
    """Successes in runs that were judged failed, or whose output says otherwise: they count for nothing, and are in no
    other number."""
    runs: tuple[int, ...] = ()
    by_source: dict[str, int] = {}
    """Ops, by who reported them."""
    first_seq: int = 0
    """An op before it is not in these counts."""
    others: Tally | None = None
    """Whether one of the further sources has most of theirs, doubted since or not; None: there are none."""

    @property
    def sources(self) -> tuple[str, ...]:
        """Who speaks for it."""
        return tuple(source for source, count in self.by_source.items() if count and source != OTHERS)

    def may_come_from(self, source: str) -> bool:
        """Say whether anything in these counts may be of a source, doubtful or not."""
        return source in self.by_source or OTHERS in self.by_source

    def add(self, seq: int, run: int, source: str, *, is_doubtful: bool = False) -> None:
        """Take an op in, as a source has reported it."""
        if not self.first_seq:
            self.first_seq = seq
        if source not in self.by_source and len(self.by_source) >= WITNESSES_MAX:
            self.others = self.others or Tally()
            if not is_doubtful:
                self.others.add(source)
            source = OTHERS
        self.by_source[source] = self.by_source.get(source, 0) + (not is_doubtful)
        if is_doubtful:
            self.doubtful += 1
            return
        self.count += 1
        if run not in self.runs and len(self.runs) < WITNESSES_MAX:
            self.runs = (*self.runs, run)

    def doubt(self, seq: int, run: int, source: str) -> bool:
        """Take a success back whose run was judged failed, if it is in these counts: say whether it was.

        The run is no witness any more, unless there may be others that found no room.
        """
        source = source if source in self.by_source else OTHERS
        if self.first_seq and seq >= self.first_seq and self.by_source.get(source, 0):
            self.by_source[source] -= 1
            self.count -= 1
            self.doubtful += 1
            if len(self.runs) < WITNESSES_MAX:
                self.runs = tuple(one for one in self.runs if one != run)
            return True
        return False

    def suffice(self, corroboration: Corroboration) -> bool:
        """Say whether they are enough."""
        if not self.count or len(self.runs) < corroboration.runs_min:
            return False
        by_source = self.by_source
        has_doubted = 0 in by_source.values()  # and else `sources` need not be made
        sources = len(self.sources) if has_doubted else len(by_source) - (OTHERS in by_source)
        return sources >= corroboration.sources_min

    def shared(self, corroboration: Corroboration) -> int:
        """Give how many count beside what others say: of a source at most as many as of all others together.

        So whoever reports a thousand ops can neither outweigh two others with ten nor hide them. Where one source is
        enough, all count.
        """
        if corroboration.sources_min < 2:  # noqa: PLR2004 - one is not alone then
            return self.count
        most = max(self.by_source.values(), default=0)
        if self.others is not None:
            named = (count for source, count in self.by_source.items() if source != OTHERS)
            most = max(_most_of_others(self), *named)
        return min(self.count, 2 * (self.count - most))

    def weight(self, corroboration: Corroboration) -> int:
        """Give how many count: all while they are not enough, since nobody is told of it then; after that, `shared`."""
        return self.shared(corroboration) if self.suffice(corroboration) else self.count

    def is_alone(self, corroboration: Corroboration) -> bool:
        """Say whether no two sources speak for it, and that is not enough: it makes room for others."""
        return len(self.sources) < 2 and not self.suffice(corroboration)  # noqa: PLR2004 - alone

    def joined(self, other: Witnesses) -> Witnesses:
        """Give both together."""
        by_source: dict[str, int] = {}
        others = [one.others for one in (self, other) if one.others is not None]
        for source, count in (*self.by_source.items(), *other.by_source.items()):
            kept = source if source in by_source or len(by_source) < WITNESSES_MAX else OTHERS
            by_source[kept] = by_source.get(kept, 0) + count
            if kept != source:
                others.append(Tally(count, count, source))
        return Witnesses(
            self.count + other.count,
            self.doubtful + other.doubtful,
            tuple(dict.fromkeys((*self.runs, *other.runs)))[:WITNESSES_MAX],
            by_source,
            min(filter(None, (self.first_seq, other.first_seq)), default=0),
            reduce(Tally.joined, others) if others else None,
        )


def _most_of_others(*parts: Witnesses) -> int:
    """Give how many one of the further sources may have reported at most: about half, unless it leads the rest."""
    led = reduce(Tally.joined, [part.others for part in parts if part.others is not None], Tally())
    return min(sum(part.by_source.get(OTHERS, 0) for part in parts), (led.count + led.lead) // 2)


class Balance(NamedTuple):
    """How calls of two outcomes are weighed where one source has reported more of them than all others together.

    Each of its calls counts ``part / whole``, whatever came of it, so that they weigh as much as those of all others in
    its own proportion. Of neither outcome more of them count than all others have reported: nobody brings up a failure,
    or a success, that the others have hardly met.
    """

    source: str = OTHERS
    part: int = 1
    whole: int = 1

    @classmethod
    def of(cls, good: Witnesses, bad: Witnesses) -> Balance:
        """Find the source that has reported most of them, if it has to be weighed.

        Of the further ones nobody knows which calls are whose: all of them shrink by as much as one would.
        """
        total = good.count + bad.count
        for source in (*good.by_source, *bad.by_source):
            own = good.by_source.get(source, 0) + bad.by_source.get(source, 0)
            most = own if source != OTHERS else _most_of_others(good, bad)
            if 2 * most > total:
                return cls(source, own + total - 2 * most, own)
        return cls()

    def weight(self, witnesses: Witnesses, corroboration: Corroboration) -> int:
        """Give how many of these calls, or of some of them, count beside what others say."""
        own = witnesses.by_source.get(self.source, 0)
        most = witnesses.shared(corroboration)
        if corroboration.sources_min < 2:  # noqa: PLR2004 - one is not alone then
            return most
        return min(most, witnesses.count - own + (2 * own * self.part + self.whole) // (2 * self.whole))
