"""Texts as they are shown: what a terminal would obey is written as an escape, and says the same."""

from __future__ import annotations

import json

from hypothesis import example, given
from hypothesis import strategies as st

from observer_actors.visible import FEW_LETTERS, visible, visible_json, without_escapes

BLANK = (
    "\u034f\u115f\u1160\u17b4\u180b\u180e\u3164\ufe00\ufe0e\uffa0\ufff9\ufffb\U00013430\U0001bca0\U0001d173\U0001d17a"
)
HIDDEN = (
    BLANK + "\x7f\x85\xad\u061c\u200b\u202e\u2066\ufeff" + "".join(map(chr, range(0xE0000, 0xE0000 + 4 * FEW_LETTERS)))
)


def test_what_a_terminal_would_obey_is_no_part_of_what_it_shows() -> None:
    assert without_escapes("\x1b[1;31mred\x1b[0m [31m \x1b]0;title\x07\x1b[2K\x1b(Bplain") == "red [31m plain"
    for odd in ("\x1b]0;a title without an end", "cut\x1b[3", "\x1b", "no escape"):
        assert without_escapes(odd) == odd


def test_what_has_no_width_is_shown_as_an_escape_but_for_the_sign_that_makes_an_emoji() -> None:
    assert visible(HIDDEN).isascii()
    assert visible("❤\ufe0f ü") == "❤\ufe0f ü"
    assert visible_json("❤\ufe0f ü".encode()) == "❤\ufe0f ü".encode()


@given(st.lists(st.sampled_from([*HIDDEN, "a", "ü", "€", "😀", '"', "\n"])).map("".join))
@example(HIDDEN)
@example("\x7f" * 100)
def test_json_says_the_same_and_hides_nothing(text: str) -> None:
    shown = visible_json(json.dumps({"text": text}, ensure_ascii=False).encode())
    assert json.loads(shown) == {"text": text}
    assert not set(HIDDEN) & set(shown.decode())
    assert visible_json(shown) == shown
