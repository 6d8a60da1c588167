"""Failures into patterns: masking, grouping, and when a pattern is shown to a model."""

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from observer_actors.event import EventDecoder
from observer_actors.labels import LABEL_CHARS_MAX, bounded_endpoint
from observer_actors.op import Op
from observer_actors.patterns import (
    Inquiry,
    Pattern,
    Reason,
    Scope,
    Standing,
    State,
    apply,
    catalogue,
    conclude,
    diagnosed_by,
    due,
    error_text,
    inquire,
    inquiry_message,
    masking,
    taxonomy,
    template_of,
    turn,
)
from observer_actors.patterns.catalogue import OTHERS_MAX, PATTERNS_MAX, PATTERNS_PER_ENDPOINT_MAX, pattern_id
from observer_actors.patterns.grouping import EXAMPLE_CHARS_MAX, EXAMPLES_MAX, Changes
from observer_actors.patterns.history import History, added
from observer_actors.patterns.masking import ALGORITHM_VERSION, ANY, TEMPLATE_CHARS_MAX, TEXT_CHARS_MAX, digits_alike
from observer_actors.patterns.shapes import without_ellipsis
from tests.folding import onto

HOUR_S = 3_600


def failure(seq: int, error: str = "boom", *, endpoint: str = "sql:run", at_s: float = 0.0, **more: str) -> Op:
    op = Op(
        timestamp="when the caller likes",
        endpoint=endpoint,
        input_summary=f"input {seq}",
        success=False,
        duration_ms=1,
        output_summary="failed",
        error=error,
        source="mcp",
        seq=seq,
        recorded_at=recorded(at_s),
    )
    return msgspec.structs.replace(op, **more) if more else op


def recorded(at_s: float) -> str:
    days, rest = divmod(at_s, 86_400)
    hours, rest = divmod(rest, 3_600)
    minutes, seconds = divmod(rest, 60)
    return f"2026-11-{int(days) + 1:02}T{int(hours):02}:{int(minutes):02}:{seconds:09.6f}Z"


def folded(*batches: Iterable[Op]) -> dict[str, Pattern]:
    patterns: dict[str, Pattern] = {}
    for batch in batches:
        patterns = onto(patterns, apply(patterns, batch))
    return patterns


def only(patterns: Mapping[str, Pattern]) -> Pattern:
    [pattern] = patterns.values()
    return pattern


# ------------------------------------------------------------------------------------------- masking


@pytest.mark.parametrize(
    ("text", "template"),
    [
        ("flight HAT030 not available on date 2024-05-13", "flight HAT<num> not available on date <time>"),
        ("not enough balance in gift_card_5094406", "not enough balance in gift_card_<num>"),
        ("total price is 1,002.50, but paid -957", "total price is <num>, but paid <num>"),
        ("took 30s of 12.5ms, then 50% of 4 GB", "took <num> of <num>, then <num> of <num>"),
        ("GET https://a.example/x?id=1 -> 503", "GET <url> -> <num>"),
        ("Client error '404 Not Found' for url 'https://a/b'", "Client error '<num> Not Found' for url <str>"),
        ('answered "503 Service Unavailable"', 'answered "<num> Service Unavailable"'),
        ("no room for '221 Baker Street' or '404'", "no room for <str> or <str>"),
        ("connect ECONNREFUSED 10.0.0.1:5432", "connect ECONNREFUSED <ip>"),
        ("no route to fe80::1 and ::1 in std::vector", "no route to <ip> and <ip> in std::vector"),
        ("user a.b+c@d.example is gone", "user <email> is gone"),
        ("row 550e8400-e29b-41d4-a716-446655440000", "row <uuid>"),
        ("at 2026-11-22T10:00:00.123Z and 10:15:30", "at <time> and <time>"),
        ("commit 9f86d081884c7d65 at 0xDEADBEEF", "commit <hex> at <hex>"),
        ("can't read /var/log/x.log:12, nor C:\\Temp\\x", "can't read <path>, nor <path>"),
        ("can't read src/app/main.py:12, nor a/b.txt.", "can't read <path>, nor <path>."),
        ("open \\\\server\\share\\f failed", "open <path> failed"),
        (
            "read/write and TCP/IP, application/json, org/apache/Foo",
            "read/write and TCP/IP, application/json, org/apache/Foo",
        ),
        ("no answer within 5 minutes, or 1 hour, but 30s", "no answer within <num>, or <num>, but <num>"),
        ("and/or TCP/IP n/a", "and/or TCP/IP n/a"),
        ("KeyError: 'user_id' in `f` and \"g h\"", "KeyError: <str> in <str> and <str>"),
        ("don't and can't", "don't and can't"),
        ('{"error": "no table users_12", "row": 42}', '{"error": "no table users_<num>", "row": <num>}'),
        ("{'message': 'slow', 'by': 'x'}", '{"message": "slow", "by": <str>}'),
        ('{"error": "it\'s 5 o\'clock"}', '{"error": "it\'s <num> o\'clock"}'),
        ("  two\n\tlines  ", "two lines"),
        ("\x1b[31mtimeout\x1b[0m after \x1b[1;38;5;9m5 s\x1b[m", "timeout after <num>"),
        ("\x1b[1mTypeError\x1b(B\x1b[m: no \x1b]8;;http://a/b\x1b\\link\x1b]8;;\x07", "TypeError: no link"),
        ("", ""),
    ],
)
def test_what_varies_gives_way_to_a_mask(text: str, template: str) -> None:
    assert template_of(text) == template


REPEATED = [
    " '",
    " 'a",
    '"',
    "'",
    "\\",
    '\\"',
    "a",
    "a.",
    "/",
    "../",
    "1",
    "1:",
    "1,",
    ":",
    "a:",
    "a-",
    "a@b.",
    "'a",
    "`",
    "1a",
    '"error":"',
    "'error':\"x",
    "::",
    "0x",
    "f",
    "'\\",
]


@pytest.mark.parametrize("unit", REPEATED)
def test_no_text_takes_long(unit: str) -> None:
    """One that a rule would try in all ways of dividing it would take until the end of the tests' patience."""
    assert template_of((unit * TEXT_CHARS_MAX)[: TEXT_CHARS_MAX - 1] + "!")


@given(st.text())
def test_a_template_is_bounded_and_always_the_same(text: str) -> None:
    template = template_of(text)
    assert template == template_of(text)
    assert len(template) <= TEMPLATE_CHARS_MAX


@given(st.text(alphabet="ab \n\t'\"5{}:,", max_size=50))
def test_white_space_makes_no_difference(text: str) -> None:
    assert template_of(text) == template_of("  " + "\n ".join(text.split(" ")) + "\n")


@given(st.integers(min_value=0), st.integers(min_value=0))
def test_numbers_make_no_difference(one: int, other: int) -> None:
    assert template_of(f"row {one} of card_{one}") == template_of(f"row {other} of card_{other}")


@given(st.text(alphabet=st.sampled_from("a9 0é5٣\ud83d\n"), max_size=40))
def test_digits_are_alike_in_texts_of_any_characters(text: str) -> None:
    """Those of ASCII: plain texts and others take different ways."""
    assert digits_alike(text) == "".join("0" if each in "0123456789" else each for each in text)


def test_only_the_head_of_a_long_text_counts() -> None:
    head = "x " * (TEXT_CHARS_MAX // 2)
    assert template_of(head + "one end") == template_of(head + "another end")


def test_the_airline_failures_are_all_grouped(shared_data: Path) -> None:
    body = (shared_data / "taubench_airline_ops.jsonl").read_bytes()
    ops = EventDecoder().many(body, now=recorded(0), lines_max=10_000).ops
    patterns = folded(numbered(ops))
    assert sum(pattern.count for pattern in patterns.values()) == sum(not op.success for op in ops) == 189
    verdicts = [pattern for pattern in patterns.values() if pattern.endpoint == "auditor:verdict"]
    assert [pattern.count for pattern in verdicts] == [116]
    assert sum(pattern.count for pattern in patterns.values() if pattern not in verdicts) == 73


def numbered(ops: Sequence[Op]) -> list[Op]:
    return [msgspec.structs.replace(op, seq=seq, recorded_at=recorded(seq)) for seq, op in enumerate(ops, start=1)]


# ------------------------------------------------------------------------------------------ grouping

some_ops = st.lists(
    st.builds(
        failure,
        seq=st.just(0),
        error=st.sampled_from(["row 1 gone", "row 2 gone", "no route", "", "slow: 3 s"]),
        endpoint=st.sampled_from(["a", "b"]),
        source=st.sampled_from(["mcp", "bot"]),
        success=st.booleans(),
    ),
    max_size=40,
).map(numbered)


def test_a_pattern_says_what_where_how_often_and_since_when() -> None:
    ops = [failure(3, "row 7 gone", at_s=1), failure(8, "row 9 gone", at_s=2, source="bot")]
    assert folded(ops) == {
        pattern_id("sql:run", "row <num> gone"): Pattern(
            id=pattern_id("sql:run", "row <num> gone"),
            version=ALGORITHM_VERSION,
            endpoint="sql:run",
            template="row <num> gone",
            first_seq=3,
            last_seq=8,
            first_seen=recorded(1),
            last_seen=recorded(2),
            count=2,
            examples=tuple(only(folded([op])).examples[0] for op in ops),
            sources={"mcp": 1, "bot": 1},
            history=added(History(), ops),
            wasted_ms=2,
        )
    }


def test_an_id_is_the_same_for_ever() -> None:
    """Ids stand in links and in a gateway's log: this one was taken when they were first made."""
    assert pattern_id("sql:run", "row <num> gone") == "93cc03aecfb642e7"
    assert pattern_id("sql:run", "x") != pattern_id("sql:runx", "")


@pytest.mark.parametrize("error", [msgspec.UNSET, None, ""])
def test_a_failure_without_an_error_is_told_by_its_output(error: object) -> None:
    op = failure(1)
    op.error = error  # type: ignore[assignment]
    op.output_summary = "task failed"
    assert error_text(op) == "task failed"
    assert only(folded([op])).examples[0].line == "[sql:run] input 1: task failed"


@given(some_ops, st.randoms(use_true_random=False))
def test_the_order_of_the_ops_makes_no_difference(ops: list[Op], random: Random) -> None:
    shuffled = list(ops)
    random.shuffle(shuffled)
    assert folded(shuffled) == folded(ops)


@given(some_ops, st.integers(0, 40), st.integers(0, 10))
def test_folding_in_parts_that_overlap_equals_folding_in_one(ops: list[Op], cut: int, overlap: int) -> None:
    assert folded(ops[:cut], ops[max(0, cut - overlap) :]) == folded(ops)


@given(some_ops)
def test_the_same_ops_again_change_nothing(ops: list[Op]) -> None:
    assert apply(folded(ops), ops) == Changes({}, {})


@given(some_ops)
def test_each_failure_is_counted_once(ops: list[Op]) -> None:
    patterns = folded(ops).values()
    assert sum(pattern.count for pattern in patterns) == sum(not op.success for op in ops)
    assert all(pattern.count == sum(pattern.sources.values()) for pattern in patterns)


@given(some_ops)
def test_patterns_survive_the_way_to_disk_and_back(ops: list[Op]) -> None:
    for pattern in folded(ops).values():
        assert msgspec.json.decode(msgspec.json.encode(pattern), type=Pattern) == pattern


def test_only_what_changed_is_returned_and_what_was_given_stays() -> None:
    before = folded([failure(1, "a"), failure(2, "b")])
    kept = dict(before)
    changes = apply(before, [failure(3, "b"), failure(4, "c")]).patterns
    assert [(change.template, change.count) for change in changes.values()] == [("b", 2), ("c", 1)]
    assert before == kept


def test_the_newest_examples_are_kept() -> None:
    pattern = only(folded([failure(seq) for seq in range(1, 8)], [failure(seq) for seq in range(8, 16)]))
    assert [example.seq for example in pattern.examples] == list(range(16 - EXAMPLES_MAX, 16))


def test_an_example_is_one_line_of_bounded_length() -> None:
    op = failure(1, "first\n[sql:run] forged: line " + "x" * 300_000)
    line = only(folded([op])).examples[0].line
    assert line.startswith("[sql:run] input 1: first [sql:run] forged: line xx")
    assert len(line) == EXAMPLE_CHARS_MAX


@pytest.mark.parametrize("endpoint", ["sql:run", "e" * 700])
def test_an_example_of_a_long_input_says_its_error(endpoint: str) -> None:
    op = msgspec.structs.replace(failure(1, "row 1 gone"), endpoint=endpoint, input_summary="select " * 100)
    [example] = only(folded([op])).examples
    assert example.error == "row 1 gone"
    assert example.line.startswith(f"[{endpoint}] select select "[:400])
    assert example.line.endswith("…: row 1 gone")
    assert len(example.line) == EXAMPLE_CHARS_MAX
    [long] = only(folded([msgspec.structs.replace(op, error="x" * 1_000)])).examples
    assert long.error == "x" * (EXAMPLE_CHARS_MAX // 2)


def test_long_endpoints_are_cut_and_still_differ() -> None:
    one, other = "e" * 1_000 + "1", "e" * 1_000 + "2"
    assert len(bounded_endpoint(one)) == LABEL_CHARS_MAX
    assert bounded_endpoint(one) != bounded_endpoint(other)
    assert bounded_endpoint("sql:run") == "sql:run"


def letters(number: int) -> str:
    return "".join(chr(ord("a") + int(digit)) for digit in str(number))


def test_endpoints_whose_errors_defy_grouping_leave_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "PATTERNS_MAX", 200)
    monkeypatch.setattr(catalogue, "PATTERNS_PER_ENDPOINT_MAX", 100)
    noisy = [(f"noisy {end}", f"error {letters(n)}") for end in range(4) for n in range(105)]
    ops = [failure(seq, error, endpoint=endpoint) for seq, (endpoint, error) in enumerate([*noisy, ("new", "boom")], 1)]
    patterns = folded(ops).values()
    of = Counter(pattern.endpoint for pattern in patterns if pattern.scope is Scope.TEMPLATE)
    assert of == {"noisy 0": 100, "noisy 1": 50, "noisy 2": 25, "noisy 3": 13, "new": 1}


@pytest.mark.no_cover
def test_what_finds_no_room_is_counted_under_other() -> None:
    """One endpoint fills its share, others the whole; then all get an "other", and the rest share one."""
    noisy = [("noisy", f"error {letters(n)}") for n in range(PATTERNS_PER_ENDPOINT_MAX + 5)]
    many = [(f"e{letters(n)}", "boom") for n in range(PATTERNS_MAX)]
    ops = [
        failure(seq, error, endpoint=endpoint)
        for seq, (endpoint, error) in enumerate([*noisy, *many, noisy[0], noisy[-1], many[-1]], start=1)
    ]
    patterns = folded(ops[: len(ops) // 2], ops[len(ops) // 2 :])
    assert Counter(pattern.scope for pattern in patterns.values()) == {
        Scope.TEMPLATE: PATTERNS_MAX,
        Scope.ENDPOINT_OTHER: OTHERS_MAX,
        Scope.OTHER: 1,
    }
    assert sum(pattern.count for pattern in patterns.values()) == len(ops)
    [other] = [pattern for pattern in patterns.values() if pattern.scope is Scope.OTHER]
    [noisy_other] = [
        pattern
        for pattern in patterns.values()
        if pattern.endpoint == "noisy" and pattern.scope is Scope.ENDPOINT_OTHER
    ]
    assert noisy_other.count == 5 + 1
    # The many had room for all but their last 250; 99 of those have an "other" of their own.
    assert other.count == PATTERNS_PER_ENDPOINT_MAX - (OTHERS_MAX - 1) + 1
    assert patterns[pattern_id("noisy", "error a")].count == 2


# ----------------------------------------------------------------------------------------- diagnosis


def diagnosed(patterns: dict[str, Pattern], inquiry: Inquiry) -> dict[str, Pattern]:
    return patterns | diagnosed_by(conclude(inquiry, "text", model="m", created=recorded(0)), patterns)


def asked(patterns: dict[str, Pattern]) -> Inquiry:
    inquiry = inquire(patterns.values())
    assert inquiry is not None
    return inquiry


def test_a_new_pattern_is_due_once() -> None:
    patterns = folded([failure(1)])
    assert due(only(patterns)) is Reason.NEW
    assert due(only(patterns), Standing(state=State.MUTED)) is None
    assert due(only(patterns), Standing(state=State.RESOLVED)) is None
    patterns = diagnosed(patterns, asked(patterns))
    assert due(only(patterns)) is None
    assert inquire(patterns.values()) is None


@pytest.mark.parametrize(
    ("at_diagnosis", "since", "expected"),
    [
        (1, 9, None),
        (1, 10, Reason.ESCALATING),
        (2, 10, Reason.ESCALATING),
        (3, 11, None),
        (3, 12, Reason.ESCALATING),
    ],
)
def test_a_pattern_escalates_by_at_least_ten_and_by_four_times(
    at_diagnosis: int, since: int, expected: Reason | None
) -> None:
    ops = [failure(seq, at_s=seq) for seq in range(1, at_diagnosis + since + 1)]
    patterns = folded(ops[:at_diagnosis])
    patterns = diagnosed(patterns, asked(patterns))
    assert due(only(onto(patterns, apply(patterns, ops[at_diagnosis:])))) is expected


def test_a_steady_pattern_is_shown_a_logarithmic_number_of_times() -> None:
    patterns: dict[str, Pattern] = {}
    shown = 0
    for seq in range(1, 5_001):
        patterns = onto(patterns, apply(patterns, [failure(seq, at_s=seq)]))
        if (inquiry := inquire(patterns.values())) is not None:
            shown += 1
            patterns = diagnosed(patterns, inquiry)
    assert shown == 5  # at 1, 11, 55, 275 and 1,375


@pytest.mark.parametrize(("quiet_s", "expected"), [(HOUR_S, Reason.BACK), (HOUR_S - 1, None)])
def test_a_pattern_is_back_after_an_hour_of_quiet(quiet_s: float, expected: Reason | None) -> None:
    patterns = folded([failure(1), failure(2, at_s=1)])
    patterns = diagnosed(patterns, asked(patterns))
    patterns = onto(patterns, apply(patterns, [failure(3, at_s=1 + quiet_s), failure(4, at_s=2 + quiet_s)]))
    assert due(only(patterns)) is expected
    if expected is not None:
        patterns = diagnosed(patterns, asked(patterns))
        assert due(only(patterns)) is None


@pytest.mark.parametrize(
    ("state", "reason"), [(State.ESCALATING, Reason.ESCALATING), (State.REGRESSED, Reason.BACK), (State.ONGOING, None)]
)
def test_a_pattern_is_due_once_for_each_time_that_its_state_says_so(state: State, reason: Reason | None) -> None:
    patterns = folded([failure(1)])
    patterns = diagnosed(patterns, asked(patterns))
    patterns = onto(patterns, apply(patterns, [failure(2)]))
    standing = Standing(state=state, since_seq=2)
    assert due(only(patterns), standing) is reason
    if reason is not None:
        inquiry = inquire(patterns.values(), lambda _pattern: standing)
        assert inquiry is not None
        assert due(only(diagnosed(patterns, inquiry)), standing) is None


def test_what_escalates_is_back_or_is_new_comes_first_and_then_what_failed_last() -> None:
    ops = [failure(seq, endpoint=state) for seq, state in enumerate([*State, "unjudged"], start=1)]
    found = sorted(folded(ops).values(), key=lambda one: turn(one, _standing_after(one.endpoint)))
    assert [one.endpoint for one in found[:4]] == ["unjudged", State.REGRESSED, State.ESCALATING, State.NEW]
    assert [one.endpoint for one in found[4:]] == [State.MUTED, State.RESOLVED, State.ONGOING]


def _standing_after(name: str) -> Standing | None:
    return Standing(state=State(name)) if name in set(State) else None


def test_what_fails_every_two_hours_is_not_back_each_time() -> None:
    patterns: dict[str, Pattern] = {}
    reasons: list[Reason] = []
    for seq in range(1, 30):
        patterns = onto(patterns, apply(patterns, [failure(seq, at_s=2 * HOUR_S * seq)]))
        if (inquiry := inquire(patterns.values())) is not None:
            reasons.extend(case.reason for case in inquiry.cases)
            patterns = diagnosed(patterns, inquiry)
    assert reasons == [Reason.NEW, Reason.BACK, Reason.ESCALATING]


def test_ops_without_a_readable_time_are_never_back() -> None:
    patterns = folded([failure(1, recorded_at="")])
    patterns = diagnosed(patterns, asked(patterns))
    assert due(only(onto(patterns, apply(patterns, [failure(2, recorded_at="")])))) is None


def test_the_prompt_is_the_seeds() -> None:
    patterns = folded([failure(1, "row 7 gone"), failure(2, "no route", endpoint="net:get")])
    assert asked(patterns).prompt == (
        "You are a system reliability observer. Analyze these recent failures and suggest fixes:\n"
        "[sql:run] input 1: row 7 gone\n"
        "[net:get] input 2: no route\n"
        "For each error:\n"
        "1. What likely caused it?\n"
        "2. How should the agent adjust its approach?\n"
        '3. Should this be added to the playbook as a "don\'t do this"?\n'
        "Be specific and actionable. Under 200 words."
    )


def test_the_prompts_words_stand_in_the_seed(shared_data: Path) -> None:
    seed = shared_data.parent / "seed" / "observer.ts"
    prompt = asked(folded([failure(1)])).prompt.replace("[sql:run] input 1: boom", "${errorSummary}")
    assert f"prompt: `{prompt}`," in seed.read_text()


def test_the_prompt_quotes_the_last_ten_failures_and_each_pattern_once_at_least() -> None:
    rare = failure(1, "rare")
    patterns = folded([rare, *(failure(seq, "often") for seq in range(2, 30))])
    inquiry = asked(patterns)
    assert len(inquiry.failures) == 10
    assert inquiry.failures[0] == "[sql:run] input 1: rare"
    assert inquiry.failures[1:] == tuple(f"[sql:run] input {seq}: often" for seq in range(21, 30))
    assert {case.pattern_id: case.seqs for case in inquiry.cases} == {
        pattern_id("sql:run", "rare"): (1,),
        pattern_id("sql:run", "often"): tuple(range(21, 30)),
    }


def test_more_patterns_than_lines_take_turns() -> None:
    patterns = folded([failure(seq, f"error {letters(seq)}") for seq in range(1, 26)])
    sizes = []
    while (inquiry := inquire(patterns.values())) is not None:
        assert len(inquiry.failures) == len(inquiry.cases)
        sizes.append(len(inquiry.cases))
        patterns = diagnosed(patterns, inquiry)
    assert sizes == [10, 10, 5]


def test_the_gateways_copy_is_the_seeds() -> None:
    patterns = folded([failure(seq, "x" * 80) for seq in range(1, 13)])
    message = inquiry_message(asked(patterns), "t" * 600)
    failures = "\n".join(f"[sql:run] input {seq}: {'x' * 80}" for seq in range(3, 13))
    assert message.path == "/log"
    assert json.loads(message.body) == {
        "operation": "error_analysis: 12 failures",
        "approach": "LLM-analyzed error patterns",
        "result": "t" * 500,
        "context": failures[:500],
    }
    assert list(json.loads(message.body)) == ["operation", "approach", "result", "context"]


def test_the_gateway_hears_of_each_failure_once() -> None:
    ops = [failure(seq, at_s=seq) for seq in range(1, 100)]
    patterns: dict[str, Pattern] = {}
    announced = 0
    for start, stop in itertools.pairwise([0, 1, 11, 55]):
        patterns = onto(patterns, apply(patterns, ops[start:stop]))
        inquiry = asked(patterns)
        announced += int(json.loads(inquiry_message(inquiry, "t").body)["operation"].split()[1])
        patterns = diagnosed(patterns, inquiry)
    assert announced == 55


@pytest.mark.parametrize("is_together", [True, False])
def test_the_gateway_hears_of_each_failure_once_also_of_patterns_that_become_one_meanwhile(
    *, is_together: bool
) -> None:
    names = ("alice", "bob", "carol", "dave", "erin")
    ops = [failure(seq, f"no such table {name} here", at_s=seq) for seq, name in enumerate(names, start=1)]
    patterns = folded(ops[:2])
    one, other = patterns
    inquiries = [asked(patterns)] if is_together else [asked({key: patterns[key]}) for key in (other, one)]
    announced = sum(int(json.loads(inquiry_message(one, "t").body)["operation"].split()[1]) for one in inquiries)
    patterns = patterns if is_together else diagnosed(patterns, inquiries.pop(0))
    patterns = onto(patterns, apply(patterns, ops[2:]))
    patterns = diagnosed(patterns, inquiries.pop())
    assert announced == 2
    assert (only(patterns).count, only(patterns).undiagnosed, only(patterns).diagnosed_seq) == (5, 3, 2)


def test_the_same_evidence_has_the_same_key_and_more_evidence_another() -> None:
    patterns = folded([failure(1)])
    more = onto(patterns, apply(patterns, [failure(2)]))
    assert asked(patterns).key == asked(dict(patterns)).key
    assert asked(patterns).key != asked(more).key
    assert inquiry_message(asked(patterns), "a").key == inquiry_message(asked(patterns), "b").key


def test_failures_that_come_while_the_model_thinks_are_not_counted_as_diagnosed() -> None:
    patterns = folded([failure(1)])
    inquiry = asked(patterns)
    patterns = onto(patterns, apply(patterns, [failure(seq, at_s=seq) for seq in range(2, 12)]))
    diagnosis = conclude(inquiry, "w" * 30_000, model="m", created=recorded(9))
    changes = diagnosed_by(diagnosis, patterns)
    assert (diagnosis.model, diagnosis.created, len(diagnosis.text)) == ("m", recorded(9), 20_000)
    assert only(changes).count == 11
    assert due(only(changes)) is Reason.ESCALATING


LONG = 200_000
"""A hundred times what is looked at: with the square of that, each of these takes minutes, and not milliseconds."""


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "text", ["a." * LONG + ANY + "{ ", "_" * LONG + ANY, "-" * LONG + ANY + "-" * LONG, f"{ANY}." + "a" * LONG]
)
def test_a_long_word_is_simplified_in_a_time_that_grows_with_it(text: str) -> None:
    assert masking._simplified(text) == text  # noqa: SLF001 - nobody else may have so long a text


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "text", ["oops..." + " " * LONG + "x", " " * LONG + "x", "-" * LONG + "x", "... " * LONG + "x"]
)
def test_the_sign_of_a_cut_is_looked_for_in_a_time_that_grows_with_the_text(text: str) -> None:
    assert without_ellipsis(text) == text


@pytest.mark.timeout(60)
def test_identifiers_are_looked_for_in_a_time_that_grows_with_the_text() -> None:
    assert taxonomy._IDENTIFIER.sub("", "a" * LONG + " b" * LONG + " _a b_ c_d") == "a" * LONG + " b" * LONG + "   "  # noqa: SLF001 - as above
