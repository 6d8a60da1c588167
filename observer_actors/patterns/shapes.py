"""The shape of an error text: its words in order, some of them masked, and what can be said of it alone. Pure.

Two shapes of the same length may be two cases of one. What decides it between several is in `catalogue`; here is only
how two compare, and whether a text looks as if it had been cut off.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import compress, count, islice
from operator import ne
from typing import Final

from observer_actors.patterns.masking import (
    ALGORITHM_VERSION,
    ANY,
    MARKS,
    marked,
    read_template,
    text_like,
    write_template,
)

_TOKEN: Final = re.compile(r"(\s*)([^\s=:,;()\[\]{}\"'|<>/\\]+|\S)")
_ANY_FOR_EACH: Final = {ord(mark): ANY for mark in MARKS}
_LETTERS: Final = re.compile(r"[^\W\d_]{2,}")
_WORD: Final = re.compile(f"[\\w{min(MARKS)}-{max(MARKS)}]")

_STATUS_ENDS: Final = (
    "ed",
    "ing",
    "tion",
    "sion",
    "able",
    "ible",
    "ful",
    "less",
    "ment",
    "ness",
    "ity",
    "ance",
    "ence",
    "ly",
    "ure",
)
_STATUS: Final = frozenset(
    """
    a abort access active add after all allow already an and any are as at bad be been before begin block both bound
    bring but by call can cannot change check clear close closing code command commit complete configure connect
    connection copy corrected create critical current data dead debug default delete deny denied destroy did disable
    do does done down drop due each empty enable end error exceed exist exit expire fail failure fatal file finish
    first for found free from full get give good got had halt has have high hold idle if ignore in info init input
    insert into invalid is it join kill last late launch leave left less link list load local lock lost low make many
    match max memory message min miss missing mode more mount move name net network new next no node none normal not
    nothing null of off ok old on one only open or other out over own page parse part pass path peer pending process
    queue quit quota read ready receive refuse reject release remote remove rename replace reply request reset resolve
    response restart result resume retry run save send sent server service session set shut shutdown sign size skip
    slow socket start startup state status step stop stream submit succeed success such suspend switch sync system
    table take task than the then there this thread time timeout to too token try two type unable unknown unlock until
    up update upload use user valid value wait warn warning was were when while with without write wrong yes you
    GET HEAD POST PUT PATCH DELETE OPTIONS
    """.split()  # noqa: SIM905 - a list of 250 quoted words is harder to read
)
"""Words that programs say of themselves: they tell events apart, so they are no evidence for a value."""
_KIND_ENDS: Final = ("Error", "Exception")
_CODES: Final = frozenset(
    """
    Aborted AlreadyExists Canceled DataLoss DeadlineExceeded FailedPrecondition Internal InvalidArgument NotFound
    OutOfRange PermissionDenied ResourceExhausted Unauthenticated Unavailable Unimplemented Unknown
    """.split()  # noqa: SIM905 - as above
)
"""Kinds of errors, and gRPC's codes (``code = NotFound``): they tell errors apart wherever they stand."""

CUT_CHARS_MIN: Final = 40
"""Below that nobody cuts; a short text that begins like a longer one is another event."""
CUT_CHARS_SURE: Final = 200
"""A text of this length that begins word for word like a longer one has been cut."""
CUT_LENGTHS: Final = frozenset({80, 100, 120, 127, 128, 140, 150, 160})
"""Where programs like to cut shorter ones. A whole text may have such a length by chance: it counts for that one
alone."""
_ELLIPSIS: Final = re.compile(
    r"""(?:
      [\[(<](?:[^\[\]()<>]{0,40}\s)?(?:\.\.\.|…|(?:truncated|omitted|clipped|snip|more)\b)[^\[\]()<>]{0,40}[\])>]
    | (?:\.\.\.|…)\s*+(?:[\[(<]?\s*+\+?[\d,]{0,12}\s?(?:(?:output|total|chars?|characters|bytes|lines|words|more
        |truncated|omitted|clipped)\b[\s\d,]{0,12}){1,4}[\])>]?)?
    | (?<!-)-{2,}+\s*+truncated\s*+-{2,}+
    )\s*+$""",
    re.VERBOSE | re.IGNORECASE,
)
"""``...``, ``[truncated]``, ``... (truncated 400 chars)``, ``…[400 more bytes]``."""
_OPEN_ENDS: Final = tuple("-/([{,#\\_&+@<")
"""No text ends so."""
CUT_WORDS_MIN: Final = 3
"""Words of a beginning, two of which say something; one less where it is seen to be cut."""
CUT_TAIL_WORDS_MAX: Final = 12
"""Words that the torn end of a masked text may have been taken apart into."""
_CLOSED_BY: Final = {"(": ")", "[": "]", "{": "}"}


_WITHOUT_ANY: Final = 1
"""The version that had masks only for what its own words say; ``<any>`` is none of them."""
READ_AS_TODAY: Final = 4
"""The first version whose templates are read as they stand: it masked as we do, but for terminal colours and texts that
say ``<num>`` themselves. Templates of those are not found again: the same errors found new groups, with other ids."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A text as it is compared (``words``: every mask alike) and as it is shown (``shown``: masks of several kinds)."""

    words: tuple[str, ...]
    shown: tuple[str, ...]
    blanks: tuple[str, ...]
    """What stands before each word: "" or a blank."""

    @property
    def template(self) -> str:
        """The text as a person reads it."""
        return write_template("".join(blank + word for blank, word in zip(self.blanks, self.shown, strict=True)))

    def varied(self, places: Collection[int]) -> Shape:
        """Give the shape with a mask in those places."""
        words = tuple(ANY if place in places else word for place, word in enumerate(self.words))
        shown = tuple(ANY if place in places else word for place, word in enumerate(self.shown))
        return Shape(words, shown, self.blanks)

    def agreed(self, other: Shape) -> Shape:
        """Give the shape of both, of which this one takes the other: where they show different things, any mask."""
        if self.shown == other.shown:
            return self
        pairs = zip(self.words, self.shown, other.shown, strict=True)
        return Shape(self.words, tuple(one if one == two else word for word, one, two in pairs), self.blanks)


def shape_of(text: str) -> Shape:
    """Give the shape of an error text."""
    return _shape(marked(text))


def shape_of_template(template: str, version: int = ALGORITHM_VERSION) -> Shape:
    """Give the shape that has this template; what an older algorithm wrote is masked as we would."""
    if version >= READ_AS_TODAY:
        return _shape(read_template(template))
    text = text_like(template)
    return _shape(marked(text if version == _WITHOUT_ANY else read_template(text)))


def _shape(text: str) -> Shape:
    found = _TOKEN.findall(text)
    shown = tuple(word for _, word in found)
    return Shape(tuple(word.translate(_ANY_FOR_EACH) for word in shown), shown, tuple(blank for blank, _ in found))


def is_word(word: str) -> bool:
    """Tell a word or a mask from a sign."""
    return bool(_WORD.search(word))


def constants(words: Sequence[str]) -> int:
    """Count the words that say something: two letters or more, not masked."""
    return sum(1 for word in words if _LETTERS.search(word))


def says(words: Sequence[str], least: int, but: Collection[int] = ()) -> bool:
    """Tell whether so many words say something: as `constants` counts them, and no further than that."""
    found = (True for place, word in enumerate(words) if place not in but and _LETTERS.search(word))
    return sum(islice(found, least)) >= least


def is_name(word: str, before: str = "") -> bool:
    """Tell whether a word might be a value: a name, an id, a state in capitals; what stands behind ``=`` mostly is."""
    if word.endswith(_KIND_ENDS) or word in _CODES:
        return False
    if before == "=" or not word.isalpha():
        return True
    if word in _STATUS or word.lower() in _STATUS:
        return False
    return word.isupper() or not word.endswith(_STATUS_ENDS)


def differences(words: Sequence[str], others: Sequence[str], most: int) -> list[int] | None:
    """Give the places where two sequences of one length differ; None when more than so many do, or a sign does."""
    if sum(map(ne, words, others)) > most:
        return None
    found: list[int] = []
    for place, (word, other) in enumerate(zip(words, others, strict=True)):
        if word != other:
            if not (is_word(word) and is_word(other)):
                return None
            found.append(place)
    return found


def fits(words: Sequence[str], into: Sequence[str]) -> bool:
    """Tell whether a text of these words is a case of a shape: the same words, and any word in a masked place."""
    if ANY not in into:
        return words == into
    return len(words) == len(into) and all(
        word == place or (place == ANY and is_word(word)) for word, place in zip(words, into, strict=True)
    )


def looks_cut(text: str, words: Sequence[str]) -> bool:
    """Tell whether a text looks cut off by itself: an ellipsis, a great length, or something opened and not closed."""
    if _ELLIPSIS.search(text):
        return True
    if len(text) < CUT_CHARS_MIN:
        return False
    return len(text) >= CUT_CHARS_SURE or text.endswith(_OPEN_ENDS) or _is_left_open(words)


def without_ellipsis(text: str) -> str:
    """Give a text without the sign that it was cut."""
    found = _ELLIPSIS.search(text)
    return text if found is None else text[: found.start()].rstrip()


def begins(words: Sequence[str], whole: Sequence[str], *, is_cut: bool) -> bool:
    """Tell whether a text of these words is the beginning of a text of the other shape.

    :param is_cut: it looks cut by itself; else only an end within a word says so.
    """
    head = whole[:CUT_WORDS_MIN]
    if len(words) > CUT_WORDS_MIN and words[:CUT_WORDS_MIN] != head and ANY not in head:
        return False  # what is found below too: it is asked of every group with the same first word, and so answered
    fewest = CUT_WORDS_MIN - 1 if is_cut else CUT_WORDS_MIN
    return (
        len(words) >= fewest
        and len(words) - len(whole) < CUT_TAIL_WORDS_MAX
        and _goes_on(words, whole, is_cut=is_cut)
        and says(words, CUT_WORDS_MIN - 1)
    )


def _goes_on(words: Sequence[str], whole: Sequence[str], *, is_cut: bool) -> bool:
    """Tell whether the other shape goes on where these words end."""
    last = len(words) - 1
    for place in compress(count(), map(ne, words, whole)):
        word, other = words[place], whole[place]
        if other == ANY and is_word(word):
            continue
        if place == last and other.startswith(word):
            return is_cut or _is_torn(word, other)
        # A quoted text, a list or an address that was cut within is no mask, and has more words than its mask.
        behind_mask = ANY in (other, whole[place - 1]) and last - place < CUT_TAIL_WORDS_MAX
        return is_cut and place >= CUT_WORDS_MIN - 1 and behind_mask
    beyond = len(words) - len(whole)
    return is_cut and (beyond < 0 or (beyond > 0 and whole[-1] == ANY))


def _is_torn(word: str, whole: str) -> bool:
    """Tell a word that was cut from one that is a part of a longer one."""
    return is_word(word) and whole.removeprefix(word)[0].isalpha()


def _is_left_open(words: Sequence[str]) -> bool:
    brackets = any(words.count(opening) > words.count(closing) for opening, closing in _CLOSED_BY.items())
    return brackets or words.count('"') % 2 == 1
