"""Which failures belong together: learned from what has come, so that the order matters as little as it can. Pure.

A group has a shape. A text belongs to the group whose shape it fits: the same words, and any word in a masked place.
One that fits none founds a group, which is then compared with those of its endpoint that have the same first word and
as many words. Groups become one, of which the oldest lives on, when

* **names**: they differ in one place, and there `NAMES_MIN` different words have been seen that might be names. Words
  that programs say of themselves ("started", "failed") are no names (`shapes.is_name`); of states in capitals
  `STATES_MIN` will do.
* **a mask opposite a word**: where they differ, one of them is masked: "port 8080" and "port any". Such places count as
  the same in the other rules.
* **known names**: they differ in one place, in words that are all known as names from other groups of the endpoint.
* **two at once**: they differ in the same two places, and each of the two has seen `NAMES_MIN` names.

A shape keeps two words that say something, three beside two masks at once, and its first word is never masked.

So which groups become one depends on the set of shapes that have been seen; their order decides little more than
whose id lives on. Nothing is taken apart again. A text that was cut off belongs to the group that begins like it, most
of all and then the oldest where several do. Where the ideas are from, and what else was tried: docs/adr/0003.

Bounds: `PATTERNS_MAX` groups, `PATTERNS_PER_ENDPOINT_MAX` of one endpoint, and no more than are left: so there is room
for endpoints to come. What finds none takes the place of a group that has been idle for `IDLE_US_MIN`. Where there is
no such, it is counted under the endpoint's "other", and where those are `OTHERS_MAX`, under the one for all.
`SEEN_MAX` texts are remembered with their group, `NAMES_KEPT_MAX` names with a group, and `ALIASES_MAX` ids of groups
that it has taken in.

One file, though a long one: the rules above decide together, over the same groups.
"""

from __future__ import annotations

from bisect import insort
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b
from math import inf
from typing import Final

import msgspec

from observer_actors.labels import stable_id
from observer_actors.op import time_us
from observer_actors.patterns.masking import ANY, digits_alike
from observer_actors.patterns.shapes import (
    CUT_CHARS_MIN,
    CUT_LENGTHS,
    READ_AS_TODAY,
    Shape,
    begins,
    constants,
    differences,
    fits,
    is_name,
    looks_cut,
    says,
    shape_of,
    shape_of_template,
    without_ellipsis,
)

PATTERNS_MAX: Final = 2_000
"""Patterns of all endpoints together, "other" ones aside: more than anyone reads, and at most about 50 MB with their
examples and histories."""
PATTERNS_PER_ENDPOINT_MAX: Final = 1_000
"""Patterns of one endpoint, so that one whose errors defy grouping leaves room for the rest."""
IDLE_US_MIN: Final = 8 * 24 * 3_600 * 1_000_000
"""What has not come for so long makes room: what comes every week stays."""
LOOK_US: Final = 3_600 * 1_000_000
"""What finds no room is looked at again after so long at the latest: a person may have let one go that was kept."""
OTHERS_MAX: Final = 100
"""Endpoints with an "other" pattern of their own."""
NAMES_MIN: Final = 4
"""Different names in one place that make it a place for names. Of 3, 4, 5 and 6 the sets at hand like 4 best, and no
other much less (docs/adr/0003)."""
STATES_MIN: Final = 3
CONSTANTS_MIN: Final = 2
PLACES_MAX: Final = 2
"""Places that may vary together."""
DIFFERENCES_MAX: Final = 4
"""Those, and as many where one of two shapes is masked."""
NAMES_KEPT_MAX: Final = 20
NAME_CHARS_MAX: Final = 64
ALIASES_MAX: Final = 100
SEEN_MAX: Final = 10_000
SEEN_CHARS_MAX: Final = 500
"""Of longer texts a digest is remembered: what is remembered then takes at most about 10 MB."""
DIGEST_BYTES: Final = 16
"""Two texts of one digest would be one: with so many nobody finds them."""

_EVERYWHERE: Final = "*"
_OTHER_TEMPLATE: Final = "<other>"


class Scope(StrEnum):
    """What a pattern counts."""

    TEMPLATE = "template"
    ENDPOINT_OTHER = "endpoint-other"
    """Failures of the endpoint that found no room for a pattern of their own."""
    OTHER = "other"
    """Those of endpoints that found no room even for an "other" of their own."""


def pattern_id(endpoint: str, template: str) -> str:
    """Give the id of the pattern that was founded with this template: 16 hex digits, the same for ever."""
    return stable_id("pattern", endpoint, template)


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What a catalogue needs of a pattern to go on from it. ``version`` names the algorithm that wrote the template."""

    id: str
    version: int
    endpoint: str
    template: str
    scope: Scope = Scope.TEMPLATE
    aliases: tuple[str, ...] = ()
    """Ids of patterns that turned out to be this one, the first hundred."""
    names: tuple[str, ...] = ()
    """Some of what has stood in the places that comparison has masked: the next incarnation knows them, too."""
    is_cut: bool = False
    """Its text looks cut, and no whole one that begins like it has come."""
    last_seen: str
    """When the witness recorded the newest failure: its time never runs backwards, a caller's may."""


@dataclass(slots=True, eq=False)
class Group:
    """Failures that belong together, as they are recognised."""

    id: str
    endpoint: str
    shape: Shape
    scope: Scope = Scope.TEMPLATE
    order: int = 0
    is_cut: bool = False
    """Its text looked cut, and no whole one has come yet."""
    seen_us: int = 0
    """When its newest failure was recorded."""
    names: set[str] = field(default_factory=set)
    """Some of what has stood in the places that were masked by comparison."""
    aliases: list[str] = field(default_factory=list)
    """Ids of groups that have become part of this one: the first `ALIASES_MAX`."""
    into: Group | None = None
    """The group that this one has become part of."""

    @property
    def template(self) -> str:
        """What its failures have in common."""
        return _OTHER_TEMPLATE if self.scope is not Scope.TEMPLATE else self.shape.template

    def last(self) -> Group:
        """Give the group that counts for this one."""
        group = self
        while group.into is not None:
            group = group.into
        return group


class Catalogue:
    """All groups.

    :param known: the patterns so far, oldest first.
    :param is_kept: tells of an id whether that pattern never makes room.
    """

    def __init__(self, known: Iterable[Known] = (), is_kept: Callable[[str], bool] = lambda _: False) -> None:
        self._is_kept = is_kept
        self._endpoints: dict[str, _Endpoint] = {}
        self._others: dict[str, Group] = {}
        self._seen: dict[tuple[str, str | bytes], tuple[Group, int, float]] = {}
        """Text -> group, how often the endpoint had changed, and when there may be room for what has found none: after
        a change, and then, it is looked at again, as it would be after a restart."""
        self._room_us: dict[_Endpoint | None, float] = {}
        """A full endpoint, or None for all -> when the group that has been idle for longest will make room."""
        self._absorbed: list[Group] = []
        self._forgotten = ""
        self._founded = 0
        for pattern in known:
            self._restore(pattern)
        for there in self._endpoints.values():
            there.settle()

    def place(self, endpoint: str, text: str, now_us: int = 0) -> Group:
        """Give the group of a failure; it may become part of another one later (`Group.last`).

        :param now_us: when it was recorded; 0 where that is not known: then nothing makes room.
        """
        group = self._place(endpoint, digits_alike(text), now_us)
        counts = group.last()
        counts.seen_us = max(counts.seen_us, now_us)
        return group

    def _place(self, endpoint: str, text: str, now_us: int) -> Group:
        key = (endpoint, _remembered_as(text))
        seen = self._seen.get(key)
        if seen is not None and seen[1] == self._changes(endpoint) and now_us < seen[2]:
            return seen[0]
        absorbed = len(self._absorbed)
        group, until_us = self._find(endpoint, text, now_us)
        if self._others and len(self._absorbed) > absorbed:
            self._note_vacancy()
        # A text that may have been cut by chance of its length is looked at again: a group of its own may have come.
        if len(text) not in CUT_LENGTHS:
            if len(self._seen) == SEEN_MAX:
                self._seen.clear()
            self._seen[key] = (group, self._changes(endpoint), until_us)
        return group

    def find(self, endpoint: str, text: str) -> Group | None:
        """Give the group that `place` would give, and change nothing; None for a failure that would found one.

        Where there is no room, the "other" one, though it may be time for another to make some.
        """
        text = digits_alike(text)
        seen = self._seen.get((endpoint, _remembered_as(text)))
        if seen is not None and seen[1] == self._changes(endpoint):
            return seen[0]
        there = self._endpoints.get(endpoint)
        group = there.match(shape_of(without_ellipsis(text)), text) if there is not None else None
        if group is None and not self._has_room(there):
            return self._others.get(endpoint) or self._others.get(_EVERYWHERE)
        return group

    def take_absorbed(self) -> dict[str, Group]:
        """Give the ids of the groups that have become part of another since the last call, and that other."""
        absorbed = {group.id: group.last() for group in self._absorbed}
        self._absorbed.clear()
        return absorbed

    def take_forgotten(self) -> str:
        """Give the id of the group that has made room since the last call; "" where none had to.

        Each is to be asked for before the next failure is placed.
        """
        forgotten, self._forgotten = self._forgotten, ""
        return forgotten

    def _changes(self, endpoint: str) -> int:
        there = self._endpoints.get(endpoint)
        return 0 if there is None else there.changes

    def _find(self, endpoint: str, text: str, now_us: int) -> tuple[Group, float]:
        """Find the group, or found it; and say until when that holds if nothing changes."""
        shape = shape_of(without_ellipsis(text))
        there = self._endpoints.get(endpoint)
        group = there.group_of(shape, text) if there is not None else None
        if group is not None:
            return group, inf
        if not self._has_room(there) and now_us < (room_us := self._make_room(there, now_us)):
            return self._other(endpoint), room_us
        there = self._endpoints.setdefault(endpoint, _Endpoint(endpoint, self._absorbed))
        return there.found(self._group(endpoint, shape, text)), inf

    def _group(self, endpoint: str, shape: Shape, text: str) -> Group:
        self._founded += 1
        is_cut = looks_cut(text, shape.words)
        return Group(pattern_id(endpoint, shape.template), endpoint, shape, order=self._founded, is_cut=is_cut)

    def _has_room(self, there: _Endpoint | None) -> bool:
        own = 0 if there is None else len(there.groups)
        left = PATTERNS_MAX - sum(len(endpoint.groups) for endpoint in self._endpoints.values())
        return own < min(PATTERNS_PER_ENDPOINT_MAX, left)

    def _make_room(self, there: _Endpoint | None, now_us: int) -> float:
        """Forget the group that has been idle for longest, if that is long enough, and say from when it may be.

        Where the endpoint is full, one of its own.
        """
        full = there if there is not None and len(there.groups) >= PATTERNS_PER_ENDPOINT_MAX else None
        room_us = self._room_us.get(full, 0.0)
        if now_us < room_us:
            return room_us
        among = self._endpoints.values() if full is None else (full,)
        groups = (group for one in among for group in one.groups.values() if not self._is_kept(group.id))
        idle = min(groups, key=lambda group: (group.seen_us, group.order), default=None)
        if idle is not None and now_us >= idle.seen_us + IDLE_US_MIN:
            self._forget(idle)
            return now_us
        room_us = now_us + LOOK_US if idle is None else min(idle.seen_us + IDLE_US_MIN, now_us + LOOK_US)
        self._room_us[full] = room_us
        return room_us

    def _forget(self, group: Group) -> None:
        there = self._endpoints[group.endpoint]
        there.forget(group)
        if not there.groups:
            del self._endpoints[group.endpoint]
        self._forgotten = group.id
        self._note_vacancy()

    def _note_vacancy(self) -> None:
        """Look again at what has found no room."""
        self._seen.clear()
        self._room_us.clear()

    def _other(self, endpoint: str) -> Group:
        if endpoint not in self._others and len(self._others) < OTHERS_MAX:
            self._others[endpoint] = _other_group(endpoint)
        return self._others.get(endpoint) or self._others.setdefault(_EVERYWHERE, _other_group(_EVERYWHERE))

    def _restore(self, known: Known) -> None:
        if known.scope is not Scope.TEMPLATE:
            self._others[known.endpoint] = _other_group(known.endpoint)
            return
        self._founded += 1
        shape = shape_of_template(known.template, known.version)
        seen_us = time_us(known.last_seen) or 0
        group = Group(known.id, known.endpoint, shape, order=self._founded, is_cut=known.is_cut, seen_us=seen_us)
        group.names.update(known.names)
        group.aliases.extend(known.aliases)
        there = self._endpoints.setdefault(known.endpoint, _Endpoint(known.endpoint, self._absorbed))
        there.restore(group, is_old=known.version < READ_AS_TODAY)


def _other_group(endpoint: str) -> Group:
    if endpoint == _EVERYWHERE:
        return Group(stable_id("other"), endpoint, Shape((), (), ()), Scope.OTHER)
    return Group(stable_id("other", endpoint), endpoint, Shape((), (), ()), Scope.ENDPOINT_OTHER)


class _Endpoint:
    """The groups of one endpoint.

    :param name: the endpoint's, as it stands in ids.
    :param absorbed: is told of each group that has become part of another.
    """

    def __init__(self, name: str, absorbed: list[Group]) -> None:
        self._name = name
        self._absorbed = absorbed
        self.groups: dict[str, Group] = {}
        self._ids: dict[str, Group] = {}
        """Id or alias -> the group that has it, or had it before it became part of another."""
        self._alike: dict[str, dict[int, list[Group]]] = {}
        """First word -> number of words -> groups, oldest first; of those words alone that a group has."""
        self._names: set[str] = set()
        self._old: list[Group] = []
        self.changes = 0
        """How often a group was founded, or became part of another."""

    def match(self, shape: Shape, text: str) -> Group | None:
        """Find the group of a text: of those that it fits the one that says most, else the one that it begins like.

        Else the one that was founded with its template, if it is like that no more: a cut text has become part of a
        whole one, and now another begins so too.
        """
        fitting = [group for group in self._same_length(shape) if _takes(group.shape.words, shape.words)]
        if fitting:
            return max(fitting, key=lambda group: (constants(group.shape.words), -group.order))
        is_cut = looks_cut(text, shape.words) or len(text) in CUT_LENGTHS
        whole = self._whole_of(shape.words, is_cut=is_cut) if len(text) >= CUT_CHARS_MIN or is_cut else None
        if whole is None and (founded := self._ids.get(pattern_id(self._name, shape.template))) is not None:
            return founded.last()
        return whole

    def group_of(self, shape: Shape, text: str) -> Group | None:
        """Find the group of a text as `match` does, and learn from one that fits; give the group that counts then."""
        group = self.match(shape, text)
        if group is not None and _takes(group.shape.words, shape.words):
            group.shape = group.shape.agreed(shape)
            group.is_cut = group.is_cut and looks_cut(text, shape.words)
            self._settle(self._learn(group, shape.words))
            return group.last()
        return group

    def found(self, group: Group) -> Group:
        """Take a new group in, and join what now belongs together; give the one that counts."""
        self._add(group)
        self._settle([group])
        return group.last()

    def restore(self, group: Group, *, is_old: bool) -> None:
        """Take a group in that was there before; an older one with the same shape goes before it.

        :param is_old: an algorithm that masked otherwise wrote it: what that told apart may be one now (`settle`).
        """
        self._names.update(group.names)
        self._add(group)
        for alias in group.aliases:
            self._ids.setdefault(alias, group)
        if is_old:
            self._old.append(group)

    def forget(self, group: Group) -> None:
        """Let a group go, with all that it was known by."""
        self._unfile(group)
        del self.groups[group.id]
        self._ids = {key: one for key, one in self._ids.items() if one.last() is not group}
        self._note_names()

    def _note_names(self) -> None:
        self._names = set().union(*(group.names for group in self.groups.values()))

    def settle(self) -> None:
        """Join what belongs together of what was restored."""
        self._settle(self._old)

    def _add(self, group: Group) -> None:
        self.changes += 1
        self.groups[group.id] = self._ids[group.id] = group
        self._file(group)

    def _file(self, group: Group) -> None:
        """Let a group be found by its words."""
        of_first = self._alike.setdefault(_first(group.shape.words), {})
        insort(of_first.setdefault(len(group.shape.words), []), group, key=_order)

    def _unfile(self, group: Group) -> None:
        first, length = _first(group.shape.words), len(group.shape.words)
        self._alike[first][length].remove(group)
        if not self._alike[first][length]:
            del self._alike[first][length]
        if not self._alike[first]:
            del self._alike[first]

    def _same_length(self, shape: Shape) -> Sequence[Group]:
        return self._alike.get(_first(shape.words), {}).get(len(shape.words), ())

    def _learn(self, group: Group, words: Sequence[str]) -> list[Group]:
        """Note the names in a text's masked places; give the groups that hold one that was not known."""
        places = [place for place, word in enumerate(group.shape.words) if word == ANY]
        new = self._noted(group, (words[place] for place in places))
        return [other for other in self.groups.values() if not new.isdisjoint(other.shape.words)] if new else []

    def _noted(self, group: Group, words: Iterable[str]) -> set[str]:
        names = {word for word in words if ANY not in word and len(word) <= NAME_CHARS_MAX and is_name(word)}
        kept = set(sorted(names - group.names)[: NAMES_KEPT_MAX - len(group.names)])
        group.names |= kept
        new = kept - self._names
        self._names |= new
        return new

    def _settle(self, work: list[Group]) -> None:
        """Join groups until none of those that have changed belongs to another."""
        while work:
            group = work.pop()
            if group.into is not None:
                continue
            if alike := self._relatives(group):
                work += self._join([group, *alike], [])
            elif torn := self._torn(group):
                work += self._join(torn[:1], torn[1:])

    def _join(self, alike: list[Group], beginnings: list[Group]) -> list[Group]:
        """Make one of several; give the groups to look at again.

        :param alike: those of one length, of which the shape is made.
        :param beginnings: what was cut off: its torn end says nothing of the whole.
        """
        groups = [*alike, *beginnings]
        oldest, *others = sorted(groups, key=_order)
        for group in groups:
            self._unfile(group)
        places = {
            place
            for place, words in enumerate(zip(*(g.shape.words for g in alike), strict=True))
            if len(set(words)) > 1
        }
        new = self._noted(oldest, (group.shape.words[place] for group in alike for place in places))
        oldest.shape = alike[0].shape.varied(places)
        for group in alike:
            oldest.shape = oldest.shape.agreed(group.shape)
        oldest.is_cut = all(group.is_cut for group in groups)
        oldest.seen_us = max(group.seen_us for group in groups)
        for group in others:
            group.into = oldest
            self._absorbed.append(group)
            taken = [group.id, *group.aliases]
            oldest.aliases = [*oldest.aliases, *taken][:ALIASES_MAX]
            for forgotten in set(taken).difference(oldest.aliases):
                if forgotten in self._ids and self._ids[forgotten].last() is oldest:
                    del self._ids[forgotten]
            self._noted(oldest, group.names)
            del self.groups[group.id]
        self._note_names()
        self.changes += 1
        self._file(oldest)
        return [oldest, *(other for other in self.groups.values() if not new.isdisjoint(other.shape.words))]

    def _relatives(self, group: Group) -> list[Group]:
        """Find the groups of its length that are one with this one."""
        words = group.shape.words
        by_place: dict[tuple[int, ...], list[Group]] = defaultdict(list)
        for other in self._same_length(group.shape):
            if other is group:
                continue
            theirs = other.shape.words
            if _takes(words, theirs) or _takes(theirs, words):
                return [other]
            places = differences(words, theirs, DIFFERENCES_MAX)
            if places is None:
                continue
            # Where one of them is masked they do not differ: what the other has there is a case of it.
            apart = tuple(place for place in places if ANY not in (words[place], theirs[place]))
            if not apart and says(words, CONSTANTS_MIN - 1 + len(places), places):
                return [other]
            if 1 <= len(apart) <= PLACES_MAX:
                by_place[apart].append(other)
        return next(self._varying(words, by_place), [])

    def _varying(self, words: Sequence[str], by_place: dict[tuple[int, ...], list[Group]]) -> Iterator[list[Group]]:
        """Give groups that differ from a shape in places where names stand."""
        for places, differing in by_place.items():
            if not says(words, CONSTANTS_MIN - 1 + len(places), places):
                continue
            others = list(differing)
            if len(places) > 1:
                others += [other for place in places for other in by_place.get((place,), ())]
            if all(
                self._is_for_names(
                    {words[place], *(other.shape.words[place] for other in others)},
                    behind=words[place - 1],
                    alone=len(places) == 1,
                )
                for place in places
            ):
                yield others

    def _is_for_names(self, values: set[str], *, behind: str, alone: bool) -> bool:
        """Tell whether what has been seen in one place makes it a place for names."""
        names = {value for value in values if is_name(value, behind)}
        if len(names) >= NAMES_MIN:
            return True
        if names != values or not alone:
            return False
        is_states = len(names) >= STATES_MIN and all(name.isupper() and name.isalpha() for name in names)
        return is_states or names <= self._names

    def _torn(self, group: Group) -> list[Group]:
        """Find the whole that a group is the cut beginning of, or the beginnings of a whole; the whole comes first."""
        whole = self._whole_of(group.shape.words, is_cut=group.is_cut, but=group) if _is_long(group) else None
        if whole is not None:
            return [whole, group]
        of_first = self._alike.get(_first(group.shape.words), {})
        beginnings = [
            other
            for others in of_first.values()
            for other in others
            if other is not group
            and begins(other.shape.words, group.shape.words, is_cut=other.is_cut)
            and _is_long(other)
        ]
        return [group, *sorted(beginnings, key=_order)] if beginnings else []

    def _whole_of(self, words: Sequence[str], *, is_cut: bool, but: Group | None = None) -> Group | None:
        """Find the group whose words begin with these.

        Where several do, the one counts that has most of the words for its own, the oldest first: which it was nobody
        can tell, and a pattern for each place at which a text was cut would help nobody.
        """
        found = (
            group
            for groups in self._alike.get(_first(words), {}).values()
            for group in groups
            if group is not but and begins(words, group.shape.words, is_cut=is_cut)
        )
        return max(found, key=lambda group: (_in_common(words, group.shape.words), -group.order), default=None)


def _remembered_as(text: str) -> str | bytes:
    if len(text) <= SEEN_CHARS_MAX:
        return text
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()


def _first(words: Sequence[str]) -> str:
    return words[0] if words else ""


def _in_common(words: Sequence[str], whole: Sequence[str]) -> int:
    return sum(word == other for word, other in zip(words, whole, strict=False))


def _order(group: Group) -> int:
    return group.order


def _takes(shape: Sequence[str], words: Sequence[str]) -> bool:
    """Tell whether a shape that says enough has these words for a case; the same words always are."""
    return fits(words, shape) and (shape == words or says(shape, CONSTANTS_MIN))


def _is_long(group: Group) -> bool:
    return group.is_cut or len(group.template) >= CUT_CHARS_MIN
