"""Texts as they are shown: what a terminal would obey is written as an escape, and says the same."""

from __future__ import annotations

import json

from hypothesis import example, given
from hypothesis import strategies as st

from observer_actors.visible import FEW_LETTERS, visible_json, without_escapes

HIDDEN = "\x7f\x85\xad\u061c\u200b\u202e\u2066\ufeff" + "".join(map(chr, range(0xE0000, 0xE0000 + 4 * FEW_LETTERS)))


def test_what_a_terminal_would_obey_is_no_part_of_what_it_shows() -> None:
    assert without_escapes("\x1b[1;31mred\x1b[0m [31m \x1b]0;title\x07\x1b[2K\x1b(Bplain") == "red [31m plain"
    for odd in ("\x1b]0;a title without an end", "cut\x1b[3", "\x1b", "no escape"):
        assert without_escapes(odd) == odd


@given(st.lists(st.sampled_from([*HIDDEN, "a", "ü", "€", "😀", '"', "\n"])).map("".join))
@example(HIDDEN)
@example("\x7f" * 100)
def test_json_says_the_same_and_hides_nothing(text: str) -> None:
    shown = visible_json(json.dumps({"text": text}, ensure_ascii=False).encode())
    assert json.loads(shown) == {"text": text}
    assert not set(HIDDEN) & set(shown.decode())
    assert visible_json(shown) == shown
