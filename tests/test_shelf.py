"""What is found on the shelf, and in which order."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from observer_actors.playbook.entries import Entry, Kind, Mark, State
from observer_actors.playbook.lift import Arm, Sides, Trial
from observer_actors.playbook.ranking import ranked
from observer_actors.store.shelf import CONSIDERED_MAX, Shelf


def entry(name: str, text: str = "", *, endpoint: str = "sql:run", **fields: Any) -> Entry:
    plain = Entry(
        id=name, kind=Kind.DO, endpoint=endpoint, about="", text=text, corroborated=True, succeeded=10, first_seq=1
    )
    return msgspec.structs.replace(plain, **fields)


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


def found(shelf: Shelf, endpoint: str = "sql:run", text: str = "", limit: int = 3, **given: str) -> list[str]:
    return [one.id for one in ranked(shelf.find(endpoint, text), given, limit)]


def test_the_entry_whose_words_match_goes_first(shelf: Shelf) -> None:
    shelf.put(entry("dates", "give dates as 2026-11-22"))
    shelf.put(entry("names", "put table names in quotation marks"))
    assert found(shelf, text="SELECT 1 FROM table") == ["names", "dates"]
    assert found(shelf, text="dates between 2026 and 2027") == ["dates", "names"]


def test_what_we_count_is_no_word_that_an_input_has_in_common_with_an_entry(shelf: Shelf) -> None:
    shelf.put(entry("older", "fails with “no seats left” on port 8080 (12 of 97 calls)"))
    shelf.put(entry("newer", "fails with “timeout” (1,130 of 2,383 calls)", first_seq=2))
    assert found(shelf, text='{"n":1,"date":"2024-05-12","m":130}') == ["older", "newer"]
    assert found(shelf, text='{"port":1130,"at":383,"kind":"timeout"}') == ["newer", "older"]
    assert shelf.find("sql:run", '{"n":1,"m":130}')[0].text == 0
    assert found(shelf, text='{"to":8080}') == ["older", "newer"]


@pytest.mark.parametrize("word", ["Straße", "Größe", "ΟΔΟΣ", "οδός", "naïve", "東京都", "ﬁle"])
def test_words_are_found_whose_letters_have_more_than_one_form(shelf: Shelf, word: str) -> None:
    shelf.put(entry("older", "something else"))
    shelf.put(entry("e", f"put {word} in quotation marks", first_seq=2))
    assert found(shelf, text=word) == ["e", "older"]
    assert found(shelf, text=word.lower()) == ["e", "older"]


def test_nothing_of_another_endpoint_is_given(shelf: Shelf) -> None:
    shelf.put(entry("other", "put table names in quotation marks", endpoint="csv:load"))
    assert found(shelf, text="table names") == []
    assert found(shelf, endpoint="", text="table names") == ["other"]
    assert found(shelf, endpoint="", text="a refund for order 17") == []


def test_what_contradicts_the_scope_is_not_given_and_what_agrees_goes_first(shelf: Shelf) -> None:
    shelf.put(entry("any", first_seq=1))
    shelf.put(entry("welder", scope={"role": "welder"}, first_seq=2))
    shelf.put(entry("cook", scope={"role": "cook"}, first_seq=3))
    assert found(shelf, role="welder") == ["welder", "any"]
    assert found(shelf) == ["any", "welder", "cook"]


def test_that_it_works_goes_behind_what_an_agent_can_do_otherwise(shelf: Shelf) -> None:
    shelf.put(entry("works", "it works, with the input {host, scheme}", succeeded=1_000, state=State.ACTIVE))
    shelf.put(entry("why", "plain http is refused", kind=Kind.AVOID, about="403"))
    shelf.put(entry("how", "call it with https", about="https", scope={"role": "welder"}))
    assert found(shelf, text="host a.com") == ["why", "how", "works"]


def test_evidence_the_interval_and_a_person_speak_for_an_entry(shelf: Shelf) -> None:
    helps, harms = Trial(Arm(90, 10), Arm(50, 50)), Trial(Arm(10, 90), Arm(90, 10))
    shelf.put(entry("little", succeeded=1))
    shelf.put(entry("much", succeeded=100))
    assert found(shelf) == ["much", "little"]
    shelf.put(entry("harms", succeeded=100, trial=harms))
    shelf.put(entry("helps", succeeded=100, trial=helps, state=State.ACTIVE))
    assert found(shelf, limit=4) == ["helps", "much", "little", "harms"]
    shelf.put(entry("little", succeeded=1, mark=Mark.PINNED))
    assert found(shelf, limit=2) == ["helps", "little"]


def test_what_was_tried_less_goes_before_what_has_shown_no_use_so_far_and_behind_what_helps(shelf: Shelf) -> None:
    shelf.put(entry("no use so far", succeeded=1_000, trial=Trial(Arm(100, 50), Arm(100, 50))))
    shelf.put(entry("untried", succeeded=900))
    shelf.put(entry("helps", succeeded=900, decided_by=Sides(Arm(100, 20), Arm(60, 60)), state=State.ACTIVE))
    assert found(shelf) == ["helps", "untried", "no use so far"]


@pytest.mark.parametrize(
    "not_available",
    [
        {"corroborated": False},
        {"supported": False},
        {"state": State.WITHHELD},
        {"state": State.RETIRED},
        {"mark": Mark.WITHHELD},
        {"mark": Mark.PINNED, "corroborated": False},
    ],
)
def test_what_may_not_be_handed_out_is_not_on_the_shelf(shelf: Shelf, not_available: dict[str, Any]) -> None:
    shelf.put(entry("e", "words of it"))
    assert found(shelf, text="words") == ["e"]
    shelf.put(entry("e", "words of it", **not_available))
    assert found(shelf, text="words") == []
    assert shelf.ids() == set()


def test_new_words_of_an_entry_take_the_place_of_the_old_ones(shelf: Shelf) -> None:
    shelf.put(entry("e", "old words"))
    shelf.put(entry("f", "other sentence"))
    shelf.put(entry("e", "new sentence"))
    assert [match.text > 0 for match in shelf.find("sql:run", "words")] == [False, False]
    assert [match.text > 0 for match in shelf.find("sql:run", "new")] == [True, False]
    shelf.drop("e")
    shelf.drop("e")
    assert found(shelf, text="new") == ["f"]


@given(st.text(max_size=200))
def test_nothing_in_a_query_is_read_as_syntax(text: str) -> None:
    shelf = Shelf()
    shelf.put(entry("e", "near and or not body place words column"))
    for query in (text, f'"{text}', f"body : {text}*", f"NEAR({text}, 2) AND NOT words"):
        assert found(shelf, text=query) == ["e"]


@given(st.text(alphabet=st.characters(), max_size=50), st.text(alphabet=st.characters(), max_size=50))
def test_any_text_of_an_entry_can_be_kept_found_and_dropped(words: str, endpoint: str) -> None:
    shelf = Shelf()
    one = entry("e", words, endpoint=endpoint, about=words)
    shelf.put(one)
    assert [match.entry for match in shelf.find(endpoint, words)] == [one]
    shelf.drop("e")
    assert shelf.find(endpoint, words) == []


def test_what_is_ranked_for_one_answer_is_bounded_and_the_best_is_among_it(shelf: Shelf) -> None:
    chance = random.Random(3)
    for number in range(2_500):
        text = f"common word{number % 50} " + " ".join(f"w{chance.randrange(900)}" for _ in range(5))
        shelf.put(entry(f"e{number}", text, succeeded=number))
    shelf.put(entry("needle", "common haystack", succeeded=1))
    matches = shelf.find("sql:run", "common haystack")
    many = shelf.find("sql:run", " ".join(f"w{number}" for number in range(200)))
    assert max(len(matches), len(many)) <= 2 * CONSIDERED_MAX
    assert ranked(matches, {}, 1)[0].id == "needle"
    assert ranked(shelf.find("sql:run", ""), {}, 1)[0].id == "e2499"
