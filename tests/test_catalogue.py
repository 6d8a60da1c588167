"""Which failures belong together: what makes two shapes one, in whatever order they come, and what keeps them apart."""

import itertools
import json
import sys
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from random import Random
from types import FrameType

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.scores import adjusted_rand, grouping_scores
from observer_actors.op import Op
from observer_actors.patterns import Catalogue, Pattern, Scope, apply, catalogue_of
from observer_actors.patterns.catalogue import NAMES_KEPT_MAX, pattern_id
from observer_actors.patterns.masking import ALGORITHM_VERSION
from observer_actors.patterns.shapes import is_name, shape_of, shape_of_template
from tests.folding import onto

LOGHUB = ("Apache", "HPC", "Linux", "OpenSSH", "Spark")
FIVE = ("alice", "bob", "carol", "dave", "erin")


def failure(seq: int, error: str, endpoint: str = "sql:run") -> Op:
    return Op(
        timestamp="",
        endpoint=endpoint,
        input_summary="",
        success=False,
        duration_ms=1,
        output_summary="failed",
        error=error,
        source="mcp",
        seq=seq,
        recorded_at=f"2026-11-22T10:{seq // 60 % 60:02}:{seq % 60:02}.000000Z",
    )


def templates(*texts: str) -> list[str]:
    """Give the template of each text, once all of them are known."""
    catalogue = Catalogue()
    groups = [catalogue.place("", text) for text in texts]
    return [group.last().template for group in groups]


def is_one(*texts: str) -> bool:
    return len(set(templates(*texts))) == 1


def in_every_order(texts: Sequence[str]) -> list[frozenset[frozenset[str]]]:
    """Give the groups of the texts, for each order in which they may come."""
    found = []
    for order in itertools.permutations(texts):
        groups: dict[str, set[str]] = {}
        for text, template in zip(order, templates(*order), strict=True):
            groups.setdefault(template, set()).add(text)
        found.append(frozenset(frozenset(group) for group in groups.values()))
    return found


def test_names_in_one_place_become_one_pattern_with_the_fourth() -> None:
    texts = [f"Invalid user {name} from host" for name in FIVE]
    assert len(set(templates(*texts[:3]))) == 3
    assert set(templates(*texts)) == {"Invalid user <any> from host"}


def test_words_that_programs_say_of_themselves_stay_apart() -> None:
    states = ("started", "stopped", "paused", "resumed", "failed", "rejected")
    assert len(set(templates(*(f"the machine was {state} by its owner" for state in states)))) == len(states)


def test_states_in_capitals_are_values() -> None:
    assert is_one(*(f"peer state is {state} since then" for state in ("LOOKING", "LEADING", "FOLLOWING")))
    assert not is_one("GET is not allowed here", "POST is not allowed here", "PUT is not allowed here")


def test_a_mask_opposite_a_word_is_the_same_place() -> None:
    assert set(templates("bind to port 8080 failed", "bind to port any failed")) == {"bind to port <any> failed"}


def test_names_known_from_elsewhere_are_names() -> None:
    learned = [f"session closed for user {name}" for name in FIVE]
    pair = ["session opened for alice again", "session opened for bob again"]
    assert len(set(templates(*pair))) == 2
    assert templates(*learned, *pair)[-2:] == ["session opened for <any> again"] * 2
    assert templates(*pair, *learned)[:2] == ["session opened for <any> again"] * 2


def test_two_places_that_vary_together_are_found() -> None:
    pairs = [f"class {name} was bound to handler {name}Handler" for name in FIVE]
    assert set(templates(*pairs)) == {"class <any> was bound to handler <any>"}


def test_a_mask_opposite_a_word_is_no_difference_beside_names() -> None:
    texts = [f"lock of {name} was given to port 80" for name in FIVE[:3]] + ["lock of dave was given to port any"]
    for order in itertools.permutations(texts):
        assert set(templates(*order)) == {"lock of <any> was given to port <any>"}


def test_up_to_four_places_may_differ_where_one_of_two_is_masked() -> None:
    assert is_one("lock of 'q' was given to erin at carol then", "lock of table was given to 17 at 17 then")


def test_of_two_places_that_vary_together_what_differs_in_one_of_them_alone_counts_too() -> None:
    assert is_one(
        "lock of 'q' was given to LEADING at bob then",
        "lock of alice was given to carol at alice then",
        "lock of bob was given to 'q' at carol then",
        "lock of dave was given to 'q' at dave then",
    )


def test_what_says_too_little_without_the_word_stays_apart() -> None:
    assert len(set(templates("link up", "link ok", "link slow", "link lost", "link idle"))) == 5
    assert len(set(templates(*(f"{name} startup succeeded" for name in FIVE)))) == 5, "the first word is never masked"


def test_the_order_does_not_decide_what_belongs_together() -> None:
    texts = [*(f"no such table {name} here" for name in FIVE[:4]), "no such table 17 here", "no such view alice here"]
    assert len(set(in_every_order(texts))) == 1


WHOLE = "could not write the snapshot of table orders to the archive: no space left on device /dev/sda1"


@pytest.mark.parametrize(
    "cut",
    [
        WHOLE[:70] + "...",
        WHOLE[:66] + " [truncated]",
        WHOLE[:60] + "... (truncated)",
        WHOLE[:61] + "...<truncated>",
        WHOLE[:62] + " ...[output truncated]",
        WHOLE[:63] + "... (truncated 400 chars)",
        WHOLE[:64] + "... [400 more chars]",
        WHOLE[:65] + "[...]",
        WHOLE[:60] + "... [+400 chars]",
        WHOLE[:61] + "… +12 lines",
        WHOLE[:62] + "... truncated 400 characters",
        WHOLE[:63] + "...(123 chars total)",
        WHOLE[:64] + "... more",
        WHOLE[:66] + " (more)",
        WHOLE[:67] + " --truncated--",
        WHOLE[:72],
    ],
)
def test_a_cut_text_belongs_to_the_whole_one_whichever_comes_first(cut: str) -> None:
    assert set(templates(cut, WHOLE)) == set(templates(WHOLE, cut)) == set(templates(WHOLE))


@pytest.mark.parametrize(
    "whole",
    [
        'failed to parse "select 1" at line 3 of the input file',
        'failed to parse "select 1" at offset 3',
        'failed to parse "select 1", "select 2" at line 3 of the input file, from the second statement on',
    ],
)
def test_a_cut_text_says_nothing_of_what_the_whole_one_has_behind_its_end(whole: str) -> None:
    cut = 'failed to parse "select name, address from customers where...'
    other = 'failed to parse "17" in line 3 of the config block'
    assert templates(cut, whole, other) == templates(whole, cut, other)[:1] * 2 + templates(other)
    assert set(templates(WHOLE[:-2] + "...", WHOLE)) == set(templates(WHOLE))


def test_a_long_text_that_begins_like_a_longer_one_was_cut() -> None:
    trace = "TypeError: cannot read it " + " ".join(f"at module.{name}.call" for name in FIVE * 4)
    for length in (200, 255, 300):
        assert is_one(trace, trace[:length]), length


@pytest.mark.parametrize(("length", "is_cut"), [(99, False), (100, True), (101, False)])
def test_a_text_of_a_length_at_which_programs_cut_belongs_to_a_whole_one_that_has_come(
    length: int, *, is_cut: bool
) -> None:
    text = f"the copy of {'x' * (length - 37)} ended with no space left"
    assert len(text) == length
    whole = text + " on the device"
    assert is_one(whole, text) == is_cut
    assert not is_one(text, whole, text), "it may be whole, and of that length by chance"


def test_two_words_and_an_ellipsis_are_enough() -> None:
    for cut in ("Got ass...", "Connection closed..."):
        assert is_one("Got assigned task 7" if cut[0] == "G" else "Connection closed by 10.1.2.3 [preauth]", cut)
    assert not is_one("Got assigned task 7", "Got asked..."), "another word"
    assert not is_one("Got assigned task 7", "Got..."), "one word could be anything"


def test_an_open_quotation_or_bracket_shows_a_cut() -> None:
    body = 'request refused by the server {"error": "no table orders in schema", "hint": "create it", "code": 17}'
    assert is_one(body, body[:60])


def test_a_text_may_be_cut_within_a_value_of_several_words() -> None:
    assert is_one(
        "connection from 84.102.20.2 refused at Sun Jul 24 02:38:22 2005",
        "connection from 84.102.20.2 refused at Sun Jul 24 0...",
    )


def test_a_short_text_that_begins_like_a_longer_one_is_another() -> None:
    assert not is_one("link error", "link error on broadcast tree")
    one = "authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=203.0.113.7"
    assert not is_one(one, one + " user=root")


def test_what_begins_like_two_belongs_to_the_one_it_has_most_in_common_with_and_then_to_the_oldest() -> None:
    begun = "the transfer of the whole archive was stopped because of..."
    texts = [begun[:-3] + " a full disk", begun[:-3] + " the network", begun]
    assert templates(*texts) == [texts[0], texts[1], texts[0]]
    users = [f"no password for {name} from the outside at port 7" for name in FIVE]
    invalid = [f"no password for invalid user {name} from the outside at port 7" for name in FIVE]
    found = templates(*users, *invalid, "no password for invalid user amber from the out...")
    assert found[-1] == found[-2] != found[0]


def test_a_text_that_is_torn_within_a_word_is_no_pattern_of_its_own_in_whatever_order_two_come_that_begin_so() -> None:
    torn = "could not write the snapshot of table orders because of a full dis"
    groups = in_every_order([torn, f"{torn}k on the device", f"{torn}agreement in the house"])
    assert {len(found) for found in groups} == {2}


def test_a_long_text_is_no_beginning_of_a_short_one_that_says_something_else_behind_a_value() -> None:
    trace = "Error: /srv/app.py raised an exception while the order was handled: " + "nothing was booked for it, " * 6
    assert len(trace) > 200
    assert not is_one("Error: /srv/b.py not found", trace)


# ------------------------------------------------------------------------------------------ stability

some_texts = st.lists(
    st.builds(
        lambda head, name, tail: f"{head} user {name} {tail}",
        st.sampled_from(["unknown", "blocked", "reset for"]),
        st.sampled_from([*FIVE, "7", "admin"]),
        st.sampled_from(["at port 7", "at port any", "again"]),
    ),
    min_size=1,
    max_size=30,
)


@given(some_texts, st.integers(0, 30))
def test_a_restart_changes_nothing(texts: list[str], cut: int) -> None:
    """What was learned is in the records: a catalogue made from them goes on as the first would have."""
    ops = [failure(seq, text) for seq, text in enumerate(texts, start=1)]
    whole = apply({}, ops).patterns
    before = apply({}, ops[:cut]).patterns
    stored = msgspec.json.decode(msgspec.json.encode(before), type=dict[str, Pattern])
    assert onto(stored, apply(stored, ops[cut:])) == whole


@given(some_texts, st.lists(st.booleans(), max_size=30))
def test_where_it_is_enough_changes_nothing(texts: list[str], enough: list[bool]) -> None:
    ops = [failure(seq, text) for seq, text in enumerate(texts, start=1)]
    patterns: dict[str, Pattern] = {}
    catalogue, left, answers = Catalogue(), tuple(ops), iter(enough)
    asked: list[bool] = []

    def is_enough() -> bool:
        asked.append(next(answers, False))
        return asked[-1]

    while left:
        asked.clear()
        changes = apply(patterns, left, catalogue, is_enough)
        assert len(changes.left) == len(left) - len(asked), "asked behind each, and the rest is left"
        assert not any(asked[:-1])
        patterns, left = onto(patterns, changes), tuple(changes.left)
    assert patterns == apply({}, ops).patterns


@given(some_texts)
def test_ids_stay_when_more_comes(texts: list[str]) -> None:
    """An id is never taken from a pattern: it is still there, or an alias of the one that it has become part of."""
    patterns: dict[str, Pattern] = {}
    known: set[str] = set()
    for seq, text in enumerate(texts, start=1):
        patterns = onto(patterns, apply(patterns, [failure(seq, text)]))
        known |= patterns.keys()
        answering = set(patterns).union(*(pattern.aliases for pattern in patterns.values()))
        assert known <= answering


@given(some_texts)
def test_nothing_is_lost_when_patterns_become_one(texts: list[str]) -> None:
    ops = [failure(seq, text) for seq, text in enumerate(texts, start=1)]
    patterns: dict[str, Pattern] = {}
    catalogue = Catalogue()
    for op in ops:
        patterns = onto(patterns, apply(patterns, [op], catalogue))
    assert sum(pattern.count for pattern in patterns.values()) == len(ops)
    assert patterns == apply({}, ops).patterns or {p.template for p in patterns.values()} == {
        p.template for p in apply({}, ops).patterns.values()
    }


def test_patterns_become_one_without_an_op_of_theirs() -> None:
    """Two wait for a name to be known; it becomes known elsewhere, and they are joined then."""
    waiting = [failure(1, "session opened for alice again"), failure(2, "session opened for bob again")]
    patterns = apply({}, waiting).patterns
    assert len(patterns) == 2
    more = [failure(seq, f"session closed for user {name}") for seq, name in enumerate(FIVE, start=3)]
    changes = apply(patterns, more)
    first, second = patterns
    assert changes.absorbed == {second: first}
    joined = onto(patterns, changes)[first]
    assert (joined.count, joined.aliases, joined.last_seq) == (2, (second,), 2)


def founded(seq: int, template: str, version: int) -> Pattern:
    """Give the pattern that an older algorithm has founded with this template."""
    [pattern] = apply({}, [failure(seq, "x y")]).patterns.values()
    return msgspec.structs.replace(pattern, id=pattern_id("sql:run", template), version=version, template=template)


@pytest.mark.parametrize(
    ("version", "template", "text"),
    [
        (1, "block blk_-<num> at <ip>:<num>, <num>", "block blk_-17 at 10.0.0.1:80, 5"),
        (
            2,
            "no user <any> in src/app.py within <num> minutes",
            "no user mallory in lib/other.py within 7 hours",
        ),
    ],
)
def test_a_pattern_of_an_older_algorithm_goes_on_with_its_id_and_is_written_as_today(
    version: int, template: str, text: str
) -> None:
    """It was founded with a template that would be written otherwise today."""
    old = founded(1, template, version)
    for seq in (2, 3):  # the second as after a restart
        [pattern] = apply({old.id: old}, [failure(seq, text)]).patterns.values()
        assert (pattern.id, pattern.version, pattern.count) == (old.id, ALGORITHM_VERSION, seq)
        old = pattern


def test_a_name_that_was_learned_in_a_pattern_of_an_older_algorithm_stays_learned() -> None:
    old = founded(1, "no user alice was found", 1)
    ops = [failure(seq, f"no user {name} was found") for seq, name in enumerate(FIVE, start=2)]
    patterns = onto({old.id: old}, apply({old.id: old}, ops))
    assert [p.template for p in patterns.values()] == ["no user <any> was found"]
    [pattern] = onto(patterns, apply(patterns, [failure(9, "no user mallory was found")])).values()
    assert (pattern.id, pattern.count) == (old.id, 7)


def test_patterns_that_a_new_algorithm_tells_apart_no_more_become_one() -> None:
    """The older lives on, and the other's id leads to it."""
    olds = [founded(1, "open src/app.py failed badly", 2), founded(2, "open <path> failed badly", 2)]
    known = {old.id: old for old in olds}
    [pattern] = onto(known, apply(known, [failure(3, "open lib/other.py failed badly")])).values()
    assert (pattern.id, pattern.aliases, pattern.count) == (olds[0].id, (olds[1].id,), 3)


def test_a_new_id_depends_on_endpoint_and_template_alone() -> None:
    [pattern] = apply({}, [failure(1, "row 7 gone")]).patterns.values()
    assert (pattern.id, pattern.version) == (pattern_id("sql:run", "row <num> gone"), ALGORITHM_VERSION)


@given(st.text(alphabet="ab 1.:/-_=,(){}[]'\"<>Z", max_size=80))
def test_a_template_is_read_as_the_shape_that_it_was_written_from(text: str) -> None:
    shape = shape_of(text)
    assert shape_of_template(shape.template).words == shape.words


@given(st.lists(st.sampled_from(["<", "\\", "num", "path", "<any>", "<\\num>", ">", "5", "/etc/x", " ", "word"])))
def test_what_a_text_calls_by_a_masks_name_is_no_mask(parts: list[str]) -> None:
    shape = shape_of("".join(parts))
    assert shape_of_template(shape.template) == shape


def test_a_literal_mask_and_a_masked_value_have_two_ids() -> None:
    texts = [f"cannot load {what} for {name} now" for name in FIVE for what in ("<path>", "/etc/x")]
    assert templates(*texts) == ["cannot load <\\path> for <any> now", "cannot load <path> for <any> now"] * len(FIVE)
    assert len(set(ids(texts))) == 2


def test_a_literal_mask_is_none_after_a_restart_either() -> None:
    before = apply({}, [failure(seq, f"bad tag {tag} in body") for seq, tag in enumerate(("<time>", "<num>", "5"), 1)])
    [found] = apply(before.patterns, [failure(4, "bad tag 5 in body")]).patterns.values()
    assert (found.template, found.count) == ("bad tag <num> in body", 2)


cut_texts = st.lists(
    st.builds(
        lambda tail, length: f"could not write the snapshot of all tables to the dis{tail}"[:length],
        st.sampled_from(["k of the house", "tant archive", "k that alice has", "k that bob has", "k of carol"]),
        st.integers(40, 70),
    ),
    max_size=25,
)


@given(cut_texts)
def test_an_id_leads_to_one_pattern(texts: list[str]) -> None:
    patterns = apply({}, [failure(seq, text) for seq, text in enumerate(texts, start=1)]).patterns
    assert sum(pattern.count for pattern in patterns.values()) == len(texts)
    answering = [*patterns, *itertools.chain.from_iterable(pattern.aliases for pattern in patterns.values())]
    assert len(set(answering)) == len(answering)


def test_a_text_is_where_it_was_as_a_cut_one_when_it_comes_again_without_the_sign_of_it() -> None:
    """It would found a pattern with the id that it was founded with before."""
    begun = "could not write the snapshot of all tables"
    assert is_one(f"{begun}...", f"{begun} to the disk", begun)
    assert not is_one(begun, f"{begun} to the disk")


CUT_ANYWHERE = "could not write the snapshot of table orders because of a full dis"


@pytest.mark.parametrize("is_first", [True, False])
def test_a_cut_text_stays_where_it_was_when_another_whole_one_comes_that_begins_so(*, is_first: bool) -> None:
    """It would found a pattern with the id that it was founded with before."""
    one, other = f"{CUT_ANYWHERE}k on the device", f"{CUT_ANYWHERE}agreement in the house"
    texts = [CUT_ANYWHERE, one] if is_first else [CUT_ANYWHERE[:-6], CUT_ANYWHERE, one]
    ops = [failure(seq, text) for seq, text in enumerate([*texts, other, CUT_ANYWHERE], start=1)]
    at_once = apply({}, ops).patterns
    assert {(p.template, p.count) for p in at_once.values()} == {(one, len(texts) + 1), (other, 1)}
    before = apply({}, ops[:-1]).patterns
    assert onto(before, apply(before, ops[-1:])) == at_once


def test_the_private_characters_of_a_text_are_no_masks() -> None:
    """Fonts for terminals have their signs there."""
    text = "odd \ue000 text \ue005 here"
    assert templates(text) == [text]


def test_the_characters_that_no_text_has_are_no_harm() -> None:
    assert templates("odd \ufdd0 text here") == ["odd <any> text here"]


@pytest.mark.no_cover
def test_a_catalogue_takes_bounded_memory() -> None:
    """Twenty thousand texts that have nothing in common: one endpoint has room for so many, and the rest is counted."""
    random = Random(7)
    letters = "abcdefghij"
    catalogue = Catalogue()
    places = [
        catalogue.place("one", " ".join("".join(random.choices(letters, k=6)) for _ in range(8))) for _ in range(20_000)
    ]
    assert len({group.id for group in places}) == 1_001
    assert places[-1].template == "<other>"


def test_so_many_texts_are_remembered_and_so_many_names_of_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("observer_actors.patterns.catalogue.SEEN_MAX", 10)
    catalogue = Catalogue()
    names = [f"{one}{other}" for one in FIVE for other in "bcdfghjklm"]
    groups = [catalogue.place("", f"the account of user {name} is gone") for name in names]
    assert groups[-1].last().template == "the account of user <any> is gone"
    assert len(groups[-1].last().names) == NAMES_KEPT_MAX
    assert len(catalogue._seen) <= 10  # noqa: SLF001 - nothing else tells of what it remembers


def calls_of(act: Callable[[], object]) -> int:
    """Count how often a function or a generator of Python is entered."""
    found = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal found
        found += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        act()
    finally:
        sys.setprofile(before)
    return found


@pytest.mark.parametrize("words", [8, 300])
def test_a_text_that_is_like_none_costs_little_for_each_that_is_there(words: int) -> None:
    """All begin with the same words, as those of many programs do; what their other words are is not looked at."""
    random = Random(7)
    groups, calls_each_max = 200, 25
    texts = [
        "Error: " + " ".join("".join(random.choices("abcdefghij", k=6)) for _ in range(words))
        for _ in range(groups + 1)
    ]
    catalogue = Catalogue()
    assert len({catalogue.place("e", text).id for text in texts[:-1]}) == groups
    assert calls_of(lambda: catalogue.place("e", texts[-1])) < groups * calls_each_max


@pytest.mark.parametrize("end", ["jour", "jour..."])
def test_the_whole_of_many_that_were_cut_costs_little_for_each_of_them(end: str) -> None:
    states = [
        "abort",
        "access",
        "add",
        "allow",
        "block",
        "call",
        "check",
        "clear",
        "close",
        "commit",
        "connect",
        "copy",
    ]
    pairs = [f"Error: cannot {one} the {other} of what holds the {end}" for one in states for other in states]
    catalogue = Catalogue()
    assert len({catalogue.place("e", text).last().id for text in pairs}) == len(pairs)
    calls_each_max = 100
    whole = "Error: cannot 5 the 5 of what holds the journal of the day"
    assert calls_of(lambda: catalogue.place("e", whole)) < len(pairs) * calls_each_max
    assert len({catalogue.place("e", text).last().id for text in (*pairs, whole)}) == 1


def test_a_long_text_that_was_seen_is_not_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "Error: " + "a long way down " * 100
    catalogue = Catalogue()
    group = catalogue.place("e", text)
    assert catalogue.place("e", text) is group
    monkeypatch.setattr("observer_actors.patterns.catalogue.shape_of", None)
    assert catalogue.place("e", text) is catalogue.find("e", text) is group


@pytest.mark.parametrize(
    ("word", "before", "expected"),
    [
        ("root", "user", True),
        ("started", "was", False),
        ("started", "=", True),
        ("GET", "a", False),
        ("RED", "a", True),
    ],
)
def test_a_name_is_told_from_what_programs_say_of_themselves(word: str, before: str, *, expected: bool) -> None:
    assert is_name(word, before) is expected


# ---------------------------------------------------------------------------------------------- room

DAY_US = 24 * 3_600 * 1_000_000
PLACES = ("ant", "bee", "cat")


def recorded(us: int) -> str:
    return (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)).isoformat()


def room_ops(random: Random, count: int) -> list[Op]:
    """Give failures of kinds that have nothing in common, most of one endpoint, with pauses of days among them."""
    ops, now_us = [], 0
    for seq in range(1, count + 1):
        now_us += random.choice([0, 1, DAY_US // 50, DAY_US // 2, 3 * DAY_US])
        kind = f"{random.choice('abcdefghij')}word was {random.choice(['lost', 'gone'])}"
        op = failure(seq, kind, endpoint=random.choice([*PLACES, PLACES[0], PLACES[0]]))
        ops.append(msgspec.structs.replace(op, recorded_at=recorded(now_us)))
    return ops


def room_model(ops: Sequence[Op], kept: Collection[str], most: int, most_of_one: int) -> dict[tuple[str, str], int]:
    """Give the count of each kind that is known in the end, as docs/failures.md says it."""
    found: dict[tuple[str, str], list[Op]] = {}
    for op in ops:
        kind = (op.endpoint, op.error or "")
        own = [known for known in found if known[0] == op.endpoint]
        if kind not in found and len(own) >= min(most_of_one, most - len(found)):
            limit = datetime.fromisoformat(op.recorded_at) - timedelta(days=8)
            idle = [
                known
                for known, failures in found.items()
                if datetime.fromisoformat(failures[-1].recorded_at) <= limit
                and known[1] not in kept
                and (len(own) < most_of_one or known in own)
            ]
            if not idle:
                continue
            del found[min(idle, key=lambda known: (found[known][-1].recorded_at, found[known][0].seq))]
        found.setdefault(kind, []).append(op)
    return {kind: len(failures) for kind, failures in found.items()}


@pytest.mark.parametrize("seed", range(30))
def test_the_longest_idle_makes_room_however_the_ops_are_divided_and_whenever_it_restarts(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = Random(seed)
    most, most_of_one = random.randint(3, 12), random.randint(2, 8)
    monkeypatch.setattr("observer_actors.patterns.catalogue.PATTERNS_MAX", most)
    monkeypatch.setattr("observer_actors.patterns.catalogue.PATTERNS_PER_ENDPOINT_MAX", most_of_one)
    kept = {f"{letter}word was lost" for letter in random.sample("abcdefghij", 2)}
    ids_kept = {pattern_id(endpoint, kind) for endpoint in PLACES for kind in kept}
    ops = room_ops(random, 150)
    runs = []
    for _ in range(3):
        patterns: dict[str, Pattern] = {}
        catalogue = catalogue_of((), ids_kept.__contains__)
        left = list(ops)
        while left:
            size = random.randint(1, 20)
            changes = apply(patterns, left[:size], catalogue)
            patterns, left = onto(patterns, changes), [*changes.left, *left[size:]]
            if random.random() < 0.2:
                patterns = msgspec.json.decode(msgspec.json.encode(patterns), type=dict[str, Pattern])
                catalogue = catalogue_of(patterns.values(), ids_kept.__contains__)
        runs.append(patterns)
    assert runs[0] == runs[1] == runs[2]
    of_kinds = [pattern for pattern in runs[0].values() if pattern.scope is Scope.TEMPLATE]
    expected = room_model(ops, kept, most, most_of_one)
    assert {(pattern.endpoint, pattern.template): pattern.count for pattern in of_kinds} == expected
    assert all(pattern.id == pattern_id(pattern.endpoint, pattern.template) for pattern in of_kinds)


@pytest.mark.parametrize("seed", range(10))
def test_texts_that_become_one_make_room_the_same_way_whenever_it_restarts(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("observer_actors.patterns.catalogue.PATTERNS_MAX", 9)
    random = Random(seed)
    ops = [
        msgspec.structs.replace(op, error=f"session of {random.choice(FIVE)} was lost") if random.random() < 0.2 else op
        for op in room_ops(random, 200)
    ]
    runs = []
    for share in (0.0, 0.3, 1.0):
        patterns: dict[str, Pattern] = {}
        catalogue = Catalogue()
        for op in ops:
            patterns = onto(patterns, apply(patterns, [op], catalogue))
            if random.random() < share:
                catalogue = catalogue_of(patterns.values())
        runs.append(patterns)
    assert runs[0] == runs[1] == runs[2]


def test_a_pattern_that_became_one_with_another_is_as_old_as_the_younger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing fails as they do when they become one."""
    catalogue = Catalogue()
    for day, name in ((0, "alice"), (6, "bob")):
        catalogue.place("e", f"session opened for {name} again", day * DAY_US)
    for name in FIVE:
        catalogue.place("e", f"session closed for user {name}", 6 * DAY_US)
    monkeypatch.setattr("observer_actors.patterns.catalogue.PATTERNS_MAX", 2)
    assert catalogue.place("e", "the disk is full", 9 * DAY_US).scope is Scope.ENDPOINT_OTHER
    assert catalogue.place("e", "the disk is full", 14 * DAY_US).scope is Scope.TEMPLATE


def test_what_found_no_room_finds_it_an_hour_after_a_person_has_let_go_of_what_was_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("observer_actors.patterns.catalogue.PATTERNS_MAX", 2)
    kept = {pattern_id("e", "no route to host")}
    catalogue = Catalogue((), kept.__contains__)
    for day, text in ((0, "no route to host"), (30, "the disk is full")):
        catalogue.place("e", text, day * DAY_US)
    assert catalogue.place("e", "no such table", 30 * DAY_US).scope is Scope.ENDPOINT_OTHER
    kept.clear()
    assert catalogue.place("e", "no such table", 30 * DAY_US + DAY_US // 24).scope is Scope.TEMPLATE
    assert catalogue.take_forgotten() == pattern_id("e", "no route to host")


def test_what_found_no_room_finds_it_when_patterns_elsewhere_become_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("observer_actors.patterns.catalogue.PATTERNS_MAX", 7)
    catalogue = Catalogue()
    for text in ("closed for user 17", "opened for alice again", "opened for bob again"):
        catalogue.place("users", f"session {text}")
    for endpoint in "abcd":
        catalogue.place(endpoint, "it broke")
    assert catalogue.place("new", "it broke").scope is Scope.ENDPOINT_OTHER
    for name in FIVE[:2]:
        catalogue.place("users", f"session closed for user {name}")
    assert catalogue.take_absorbed()
    assert catalogue.place("new", "it broke").scope is Scope.TEMPLATE


# ------------------------------------------------------------------------------------------ real data


def loghub(shared_data: Path, name: str) -> tuple[list[str], list[str]]:
    lines = [json.loads(line) for line in (shared_data / "loghub2k" / f"{name}.jsonl").read_text().splitlines()]
    return [line["error"] for line in lines], [line["truth"] for line in lines]


def ids(texts: Sequence[str]) -> list[str]:
    catalogue = Catalogue()
    groups = [catalogue.place("", text) for text in texts]
    return [group.last().id for group in groups]


@pytest.mark.parametrize("name", LOGHUB)
def test_real_logs_fall_into_their_events(shared_data: Path, name: str) -> None:
    texts, truth = loghub(shared_data, name)
    accuracy, f1 = grouping_scores(truth, ids(texts))
    assert accuracy >= 0.95
    assert f1 >= 0.92


@pytest.mark.parametrize("name", LOGHUB)
def test_real_logs_fall_into_the_same_groups_in_another_order(shared_data: Path, name: str) -> None:
    texts, _ = loghub(shared_data, name)
    straight = ids(texts)
    for seed in range(3):
        order = list(range(len(texts)))
        Random(seed).shuffle(order)
        shuffled = dict(zip(order, ids([texts[place] for place in order]), strict=True))
        assert adjusted_rand(straight, [shuffled[place] for place in range(len(texts))]) >= 0.98


def test_the_airline_errors_fall_into_their_kinds_exactly(shared_data: Path) -> None:
    truth: dict[str, str] = json.loads((shared_data / "taubench_airline_truth.json").read_text())
    lines = (shared_data / "taubench_airline_ops.jsonl").read_text().splitlines()
    errors = [op["error"] for op in map(json.loads, lines) if op.get("error") in truth]
    assert len(errors) == 73
    assert grouping_scores([truth[error] for error in errors], ids(errors)) == (1.0, 1.0)


TEXTS = st.sampled_from(
    [
        *(f"Invalid user {name} from host" for name in (*FIVE, "frank")),
        *(f"no table {name} in {name}s" for name in FIVE),
        "Invalid user alice from",
        "the disk is full",
        "the disk is full: no space left on the device that holds the journal of the day",
        "the disk is full: no space left on the device that holds the jour...",
    ]
)


@given(st.lists(st.tuples(st.booleans(), TEXTS), max_size=40), st.integers(1, 4))
def test_to_look_for_a_group_changes_nothing_and_gives_what_placing_gives(
    steps: list[tuple[bool, str]], groups_max: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("observer_actors.patterns.catalogue.PATTERNS_PER_ENDPOINT_MAX", groups_max)
        looked, alone = Catalogue(), Catalogue()
        for is_placed, text in steps:
            if not is_placed:
                looked.find("e", text)
                continue
            found = looked.find("e", text)
            groups = [catalogue.place("e", text) for catalogue in (looked, alone)]
            assert len({(group.id, group.template, tuple(group.aliases), group.into is None) for group in groups}) == 1
            assert found is None or found.last() is groups[0]
            assert looked.find("e", text) is groups[0]
        assert looked.take_absorbed().keys() == alone.take_absorbed().keys()


def test_what_finds_no_room_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("observer_actors.patterns.catalogue.PATTERNS_PER_ENDPOINT_MAX", 10)
    catalogue = Catalogue()
    for number in range(500):
        catalogue.place("e", "".join(chr(97 + int(digit)) for digit in str(number)) + "word of its own")
    there = catalogue._endpoints["e"]  # noqa: SLF001 - what it holds is what this is about
    assert len(there.groups) == 10
    assert sum(len(groups) for of_first in there._alike.values() for groups in of_first.values()) == 10  # noqa: SLF001 - as above
    assert len(there._alike) <= 10  # noqa: SLF001 - as above


def test_an_endpoint_of_which_nothing_is_known_any_more_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("observer_actors.patterns.catalogue.PATTERNS_MAX", 3)
    catalogue = Catalogue()
    for day in range(0, 500, 10):
        catalogue.place(f"GET /users/{day}", "boom", day * DAY_US)
    assert len(catalogue._endpoints) == 3  # noqa: SLF001 - what it holds is what this is about


@pytest.mark.parametrize(
    "text", ["raised {} in worker", "Traceback of the job: {}: it broke", "rpc error: code = {} desc = it broke"]
)
def test_kinds_of_errors_stay_apart(text: str) -> None:
    kinds = ("TimeoutError", "KeyError", "ValueError", "MemoryError", "LookupException", "app.db.QueryError")
    codes = ("NotFound", "Unavailable", "PermissionDenied", "DeadlineExceeded", "Internal")
    for words in (kinds, codes):
        assert len(set(templates(*(text.format(word) for word in words)))) == len(words)


HTTPX_MORE = "https://developer.mozilla.org/en-US/docs/Web/HTTP/Status"


def test_statuses_as_httpx_words_them_are_told_apart() -> None:
    said = [
        f"{'Client' if status < HTTPStatus.INTERNAL_SERVER_ERROR else 'Server'} error '{status.value} {status.phrase}'"
        f" for url 'https://{host}.example/v1/users/{host}'\nFor more information check: {HTTPX_MORE}/{status.value}"
        for host in range(4)
        for status in map(HTTPStatus, (400, 401, 403, 404, 405, 409, 410, 422, 423, 429, 500, 502, 503, 504))
    ]
    assert len(set(templates(*said))) == len(said) / 4
