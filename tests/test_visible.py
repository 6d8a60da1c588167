"""Texts as they are shown: what a terminal would obey is written as an escape, and says the same."""

from __future__ import annotations

import json

from hypothesis import example, given
from hypothesis import strategies as st

from observer_actors.visible import FEW_LETTERS, visible_json

HIDDEN = "\x7f\x85\xad\u061c\u200b\u202e\u2066\ufeff" + "".join(map(chr, range(0xE0000, 0xE0000 + 4 * FEW_LETTERS)))


@given(st.lists(st.sampled_from([*HIDDEN, "a", "ü", "€", "😀", '"', "\n"])).map("".join))
@example(HIDDEN)
@example("\x7f" * 100)
def test_json_says_the_same_and_hides_nothing(text: str) -> None:
    shown = visible_json(json.dumps({"text": text}, ensure_ascii=False).encode())
    assert json.loads(shown) == {"text": text}
    assert not set(HIDDEN) & set(shown.decode())
    assert visible_json(shown) == shown
