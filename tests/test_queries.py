"""Parameters of `/ops`: each read, each mistake named."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from observer_actors.errors import QueryInvalid, RequestInvalid
from observer_actors.http.queries import cursor_after, parse_body, parse_ops_query, parse_seq
from observer_actors.journal import Query


class Known(msgspec.Struct, forbid_unknown_fields=True):
    name: str = ""


def refusal(*parameters: tuple[str, str]) -> QueryInvalid:
    with pytest.raises(QueryInvalid) as caught:
        parse_ops_query(parameters)
    return caught.value


def test_a_field_that_is_not_known_is_told_in_short_and_visibly() -> None:
    for name in ("\x1b[2J\u202e\u009b", "x" * 1_000_000):
        with pytest.raises(RequestInvalid) as caught:
            parse_body(msgspec.json.encode({name: 1}), Known, "the example")
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 250


def test_nothing_given_asks_for_the_newest_hundred() -> None:
    assert parse_ops_query([]) == Query(newest_first=True, limit=100)


def test_every_parameter_has_its_place_in_the_query() -> None:
    given = {
        "source": "mcp",
        "endpoint": "a b",
        "success": "false",
        "since": "2026-01-01T00:00:00Z",
        "until": "2026-01-01T00:00:01Z",
        "after_seq": "5",
        "before_seq": "9",
        "limit": "7",
        "order": "oldest",
    }
    assert parse_ops_query(given.items()) == Query(
        source="mcp",
        endpoint="a b",
        success=False,
        since_us=1_767_225_600_000_000,
        until_us=1_767_225_601_000_000,
        after_seq=5,
        before_seq=9,
        limit=7,
        newest_first=False,
    )


@pytest.mark.parametrize(("text", "success"), [("true", True), ("1", True), ("TRUE", True), ("0", False)])
def test_success_is_a_boolean(text: str, *, success: bool) -> None:
    assert parse_ops_query([("success", text)]).success is success


def test_after_seq_alone_asks_for_the_oldest_first() -> None:
    assert not parse_ops_query([("after_seq", "5")]).newest_first
    assert parse_ops_query([("after_seq", "5"), ("order", "newest")]).newest_first


@pytest.mark.parametrize("text", ["2026-01-01T01:00:00+01:00", "2026-01-01T01:00:00 01:00", "2026-01-01 00:00:00"])
def test_a_time_may_have_a_zone_also_when_its_plus_became_a_blank(text: str) -> None:
    assert parse_ops_query([("since", text)]).since_us == 1_767_225_600_000_000


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("success", "yes"),
        ("success", ""),
        ("since", "yesterday"),
        ("since", ""),
        ("until", "10000-01-01"),
        ("after_seq", "-1"),
        ("after_seq", "1.5"),
        ("after_seq", "٣"),
        ("after_seq", "²"),
        ("before_seq", "9" * 19),
        ("before_seq", "9" * 5_000),
        ("limit", "0"),
        ("limit", "1001"),
        ("limit", "9" * 5_000),
        ("limit", "ten"),
        ("order", "random"),
        ("cursor", "newest"),
        ("cursor", "newest-x"),
        ("cursor", "newest-٣"),
        ("cursor", "sideways-3"),
    ],
)
def test_a_value_that_cannot_be_read_is_an_error_that_names_its_parameter(name: str, text: str) -> None:
    error = refusal((name, text))
    assert error.field == name
    assert len(str(error)) < 200


@pytest.mark.parametrize(
    ("name", "nearest"), [("sourse", "source"), ("after", "after_seq"), ("Limit", "limit"), ("succes", "success")]
)
def test_an_unknown_parameter_is_named_with_the_nearest_known_one(name: str, nearest: str) -> None:
    error = refusal((name, "1"))
    assert (error.field, error.hint) == (name, f"did you mean {nearest}?")


def test_an_unknown_parameter_that_is_near_none_is_named_with_all() -> None:
    error = refusal(("\x1b[31mzzz" + "z" * 100, "1"))
    assert error.field.isprintable()
    assert len(error.field) <= 60
    assert error.hint.startswith("known are source, endpoint")


def test_a_parameter_given_twice_is_an_error() -> None:
    assert refusal(("limit", "1"), ("limit", "1")).field == "limit"
    assert refusal(("source", "mcp"), ("source", "bot")).field == "source"


@given(st.booleans(), st.integers(0, 10**18 - 1))
def test_a_cursor_goes_on_behind_its_seq_in_its_order(newest_first: bool, seq: int) -> None:  # noqa: FBT001
    cursor = cursor_after(Query(newest_first=newest_first), seq)
    bound = {"before_seq": seq} if newest_first else {"after_seq": seq}
    assert parse_ops_query([("cursor", cursor)]) == msgspec.structs.replace(Query(newest_first=newest_first), **bound)


def test_a_cursor_narrows_and_never_widens_the_bounds_given() -> None:
    assert parse_ops_query([("cursor", "newest-9"), ("before_seq", "5")]).before_seq == 5
    assert parse_ops_query([("cursor", "newest-3"), ("before_seq", "5")]).before_seq == 3
    assert parse_ops_query([("cursor", "oldest-3"), ("after_seq", "5")]).after_seq == 5
    assert parse_ops_query([("cursor", "oldest-9"), ("after_seq", "5"), ("order", "oldest")]).after_seq == 9


def test_a_cursor_of_the_other_order_is_an_error() -> None:
    assert refusal(("cursor", "newest-9"), ("order", "oldest")).field == "order"
    assert parse_ops_query([("cursor", "newest-9"), ("order", "newest")]).before_seq == 9


NAMES = st.sampled_from(["limit", "before_seq", "after_seq", "cursor", "order", "success", "since", "until", "source"])
VALUES = st.sampled_from(["0", "1", "1000", "1001", "newest", "oldest-7", "newest-", "true", "2026-11-22T10:00:00Z"])


@given(st.lists(st.tuples(NAMES | st.text(max_size=12), VALUES | st.text(max_size=30)), max_size=4))
@example([("limit", "7"), ("order", "oldest"), ("cursor", "oldest-7"), ("success", "true")])
def test_any_parameters_give_a_query_or_an_error_of_ours(parameters: list[tuple[str, str]]) -> None:
    try:
        query = parse_ops_query(parameters)
    except QueryInvalid:
        return
    assert 1 <= query.limit <= 1_000


@given(st.text(max_size=30) | st.text("0123456789٣², +-_", max_size=20))
@example("0" * 18)
@example("0" * 19)
def test_a_seq_is_a_plain_whole_number(text: str) -> None:
    try:
        seq = parse_seq(text, "seq")
    except QueryInvalid:
        assert not (text.isascii() and text.isdecimal()) or len(text) > 18
    else:
        assert 0 <= seq < 10**18
