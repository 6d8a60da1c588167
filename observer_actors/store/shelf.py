"""The entries that may be handed out, and an index of their words: in memory, made anew at each start.

The index is SQLite's FTS5, whose ``bm25`` ranks (Robertson & Zaragoza 2009, "The Probabilistic Relevance Framework:
BM25 and Beyond"). What is searched for is a list of quoted words, so that nothing in a query is read as syntax; and so
few of them, the rarest, that a search looks at `ROWS_MAX` entries at most: a word that is in every entry tells nothing.

A search takes some 0.2 ms with 10,000 entries, so it is made where it is needed, without a thread.
"""

from __future__ import annotations

import re
import sqlite3
import weakref
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterator
from typing import Final

import msgspec

from observer_actors.labels import stable_id
from observer_actors.playbook.entries import Entry
from observer_actors.playbook.ranking import Match, worth

CONSIDERED_MAX: Final = 30
"""Entries that are ranked for one answer: so many of the best matches, and so many of those worth most."""
WORDS_MAX: Final = 12
ROWS_MAX: Final = 500
INPUT_CHARS_MAX: Final = 4_096
WORD_CHARS_MAX: Final = 64
_WORD: Final = re.compile(r"[^\W_]+")
_COUNT: Final = re.compile(r"\d{1,3}")
"""No word: the numbers that we count by stand in each text, in groups of three digits, and so in inputs by chance."""
_TABLE: Final = "CREATE VIRTUAL TABLE words USING fts5(place, body, tokenize = 'unicode61')"
_RANK: Final = "INSERT INTO words (words, rank) VALUES ('rank', 'bm25(0.0, 1.0)')"
_SEARCH: Final = "SELECT rowid, -rank FROM words WHERE words MATCH ? ORDER BY rank LIMIT ?"

_Rank = tuple[float, int, str]
"""Less worth, then age, then id: ascending is best first."""


class _Kept(msgspec.Struct, frozen=True):
    entry: Entry
    row: int
    rank: _Rank


class Shelf:
    """The entries that may be handed out, to be found by endpoint and by words."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}
        self._by_row: dict[int, str] = {}
        self._by_endpoint: dict[str, list[_Rank]] = {}
        self._frequency: Counter[str] = Counter()
        """Word -> entries that have it."""
        self._rows = 0
        # Used in one thread, but the garbage collector may close it in another.
        self._database = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        weakref.finalize(self, self._database.close)
        self._database.execute(_TABLE)
        self._database.execute(_RANK)

    def ids(self) -> set[str]:
        """Give the ids of what is there."""
        return set(self._kept)

    def put(self, entry: Entry) -> None:
        """Take an entry in as it is now; one that may not be handed out is taken away."""
        known = self._kept.get(entry.id)
        if known is not None and known.entry.available == entry.available and _body(known.entry) == _body(entry):
            self._unrank(known)
            self._rank(msgspec.structs.replace(known, entry=entry, rank=_rank(entry)))
            return
        self.drop(entry.id)
        if entry.available:
            self._rows += 1
            self._by_row[self._rows] = entry.id
            self._rank(_Kept(entry, self._rows, _rank(entry)))
            self._frequency.update(_words(_body(entry)))
            self._database.execute(
                "INSERT INTO words (rowid, place, body) VALUES (?, ?, ?)",
                (self._rows, _place(entry.endpoint), _body(entry)),
            )

    def drop(self, entry_id: str) -> None:
        """Take an entry away, if it is there."""
        known = self._kept.pop(entry_id, None)
        if known is None:
            return
        self._unrank(known)
        del self._by_row[known.row]
        self._database.execute("DELETE FROM words WHERE rowid = ?", (known.row,))
        self._frequency -= Counter(_words(_body(known.entry)))

    def find(self, endpoint: str, text: str) -> list[Match]:
        """Give the entries that are worth ranking.

        :param endpoint: of which they are; empty: of any, as far as they have a word in common with the text.
        :param text: whose words theirs are compared with; the first `INPUT_CHARS_MAX` characters count.
        """
        scores = dict(self._search(endpoint, text[:INPUT_CHARS_MAX]))
        ranks = self._by_endpoint.get(endpoint, [])
        ids = dict.fromkeys([*scores, *(entry_id for _, _, entry_id in ranks[:CONSIDERED_MAX])])
        kept = [self._kept[entry_id] for entry_id in ids]
        return [Match(one.entry, scores.get(one.entry.id, 0.0), -one.rank[0]) for one in kept]

    def _search(self, endpoint: str, text: str) -> Iterator[tuple[str, float]]:
        words = self._rarest(_words(text))
        if not words:
            return
        any_of = " OR ".join(f'"{word}"' for word in words)
        query = f"body : ({any_of})"
        if endpoint:
            query = f'place : "{_place(endpoint)}" AND {query}'
        for row, score in self._database.execute(_SEARCH, (query, CONSIDERED_MAX)):
            yield self._by_row[row], max(score, 0.0)

    def _rarest(self, words: set[str]) -> list[str]:
        chosen: list[str] = []
        rows = 0
        for frequency, word in sorted((self._frequency[word], word) for word in words if word in self._frequency):
            rows += frequency
            if rows > ROWS_MAX or len(chosen) == WORDS_MAX:
                break
            chosen.append(word)
        return chosen

    def _rank(self, kept: _Kept) -> None:
        self._kept[kept.entry.id] = kept
        insort(self._by_endpoint.setdefault(kept.entry.endpoint, []), kept.rank)

    def _unrank(self, kept: _Kept) -> None:
        ranks = self._by_endpoint[kept.entry.endpoint]
        del ranks[bisect_left(ranks, kept.rank)]
        if not ranks:
            del self._by_endpoint[kept.entry.endpoint]


def _rank(entry: Entry) -> _Rank:
    return -worth(entry), entry.first_seq, entry.id


def _place(endpoint: str) -> str:
    """Give one word that stands for an endpoint."""
    return f"e{stable_id('place', _encodable(endpoint))}"


def _body(entry: Entry) -> str:
    return _encodable(" ".join((entry.endpoint, entry.about, entry.text, *entry.scope.values())))


def _encodable(text: str) -> str:
    """Give a text without halves of characters, which neither SQLite nor a hash takes."""
    return text.encode("utf-8", "replace").decode()


def _words(text: str) -> set[str]:
    return {word[:WORD_CHARS_MAX].lower() for word in _WORD.findall(text) if not _COUNT.fullmatch(word)}
