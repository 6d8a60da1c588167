"""How an answer becomes an op's words: the seed's `summarize`, and where we differ from it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observer_actors.client._texts import TEXT_CHARS_MAX
from observer_actors.client._wording import compact, summarize, text_of
from observer_actors.ecmascript import truthy

# What the seed's function gives under JavaScript, and ours must give.
SAME_AS_THE_SEED = [
    ({"sql_matches": 3, "vector_reranked": 2}, "hybrid: 3 sql → 2 results"),
    ({"sql_matches": 0, "vector_reranked": 0, "rows": [1]}, "hybrid: 0 sql → 0 results"),
    ({"sql_matches": None, "vector_reranked": "7"}, "hybrid: null sql → 7 results"),
    ({"sql_matches": 3}, "hybrid: 3 sql → undefined results"),
    ({"rows": [1, 2], "row_count": 40}, "40 rows"),
    ({"rows": [1, 2], "row_count": 0}, "2 rows"),
    ({"rows": [1, 2], "row_count": "many"}, "many rows"),
    ({"rows": [1, 2], "row_count": 2.0}, "2 rows"),
    ({"rows": []}, "0 rows"),
    ({"rows": "abc"}, "3 rows"),
    ({"rows": 5}, "undefined rows"),
    ({"rows": {"length": 9}}, "9 rows"),
    ({"rows": None, "answer": "yes"}, "answer: yes..."),
    ({"rows": 0, "answer": "x" * 81}, "answer: " + "x" * 80 + "..."),
    ({"answer": "", "sources": [1, 2, 3]}, "3 sources"),
    ({"sources": []}, "0 sources"),
    ({"sources": "😀"}, "2 sources"),
    ({}, "{}"),
    ({"ok": True, "n": None, "x": [1, {"y": "é"}]}, '{"ok":true,"n":null,"x":[1,{"y":"é"}]}'),
    ({"text": "a" * 200}, '{"text":"' + "a" * 91),
    ({"text": 'tab\t"quote"\u0001'}, '{"text":"tab\\t\\"quote\\"\\u0001"}'),
    ([1, "two", None], '[1,"two",null]'),
    ("plain", '"plain"'),
    (42, "42"),
    (False, "false"),
]


@pytest.mark.parametrize(("data", "summary"), SAME_AS_THE_SEED)
def test_a_summary_reads_as_the_seed_wrote_it(data: object, summary: str) -> None:
    assert summarize(data) == summary


@pytest.mark.parametrize(
    ("data", "summary"),
    [
        (None, "null"),  # the seed raised
        ({"answer": ["a", 1]}, 'answer: ["a",1]...'),  # the seed raised for what has no slice
        ({"answer": {"text": "hi"}}, 'answer: {"text":"hi"}...'),
        ({"sql_matches": {"n": 1}, "vector_reranked": [2]}, 'hybrid: {"n":1} sql → [2] results'),
        ({"n": 12345678901234567890}, '{"n":12345678901234567890}'),  # JavaScript rounds it
        ({"answer": "x" * 79 + "😀"}, "answer: " + "x" * 79 + "..."),  # JavaScript leaves half a character
        ({"answer": "\ud83d\ude00 \ud83d"}, "answer: 😀 \ufffd..."),
    ],
)
def test_a_summary_differs_from_the_seed_on_purpose(data: object, summary: str) -> None:
    assert summarize(data) == summary


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (2.0, "2"),
        (-0.0, "0"),
        (0.1, "0.1"),
        (1e-6, "0.000001"),
        (1.5e-5, "0.000015"),
        (1e-7, "1e-7"),
        (-1.25e-9, "-1.25e-9"),
        (1e16, "10000000000000000"),
        (1e21, "1e+21"),
        (1.5e300, "1.5e+300"),
        (123456.789, "123456.789"),
        (float("inf"), "null"),
    ],
)
def test_numbers_print_as_in_javascript(number: float, text: str) -> None:
    assert text_of(number) == text


@pytest.mark.parametrize(
    ("value", "truth"),
    [
        (None, False),
        (False, False),
        (0, False),
        (0.0, False),
        ("", False),
        ("0", True),
        ([], True),
        ({}, True),
        (1, True),
    ],
)
def test_truth_is_javascripts(value: object, truth: object) -> None:
    assert truthy(value) is truth


def test_nesting_deeper_than_the_stack_is_shown_from_its_beginning() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert summarize(deep) == "[" * 100
    assert len(summarize({"sql_matches": deep})) == TEXT_CHARS_MAX
    while deep:  # freeing it level by level keeps the interpreter's own stack short
        deep = deep.pop()


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
summarised = st.dictionaries(
    st.sampled_from(["sql_matches", "vector_reranked", "rows", "row_count", "answer", "sources", "x"]), any_json
)


@given(any_json | summarised)
def test_a_summary_of_anything_is_a_bounded_text_that_utf8_holds(data: object) -> None:
    summary = summarize(data)
    assert len(summary) <= TEXT_CHARS_MAX
    assert summary.encode().decode() == summary


plain_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(plain_json, st.integers(min_value=0, max_value=60))
def test_compact_json_is_the_beginning_of_the_whole(value: object, units_max: int) -> None:
    whole = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    head = compact(value, units_max)
    assert whole.startswith(head)
    assert len(head.encode("utf-16-le")) <= 2 * units_max
    assert head == whole or len(head.encode("utf-16-le")) >= 2 * (units_max - 1)
