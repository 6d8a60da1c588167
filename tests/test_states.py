"""In which state a pattern is, told as a script: failures at times, then a look at the clock."""

from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from observer_actors.op import Op
from observer_actors.patterns import Absence, Action, Pattern, Standing, State, acted, apply, judged, merged, series
from observer_actors.patterns.history import DAYS_KEPT, HOURS_KEPT, MINUTES_KEPT, History, added, event_time_us, joined
from tests.folding import onto

START_US = 1_795_341_600_000_000  # 2026-11-22T10:00:00Z
SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US


def iso(time_us: int) -> str:
    from datetime import UTC, datetime, timedelta  # noqa: PLC0415 - only here

    time = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_us)
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")


def failure(seq: int, at_us: int, **more: object) -> Op:
    op = Op(
        timestamp=iso(at_us),
        endpoint="sql:run",
        input_summary="",
        success=False,
        duration_ms=100,
        output_summary="failed",
        error="boom again",
        source="mcp",
        seq=seq,
        recorded_at=iso(at_us),
    )
    return msgspec.structs.replace(op, **more)


def pattern_of(times_us: Iterable[int], before: Pattern | None = None) -> Pattern:
    """Give the pattern that has failed at these times, counted from the start."""
    known = {before.id: before} if before is not None else {}
    first = before.last_seq + 1 if before is not None else 1
    ops = [failure(seq, START_US + time_us) for seq, time_us in enumerate(times_us, start=first)]
    [pattern] = onto(known, apply(known, ops)).values()
    return pattern


def state_of(pattern: Pattern, after_us: int) -> State:
    return judged(pattern, None, START_US + after_us).state


def every(period_us: int, until_us: int, since_us: int = 0) -> list[int]:
    return list(range(since_us, until_us, period_us))


def test_a_pattern_is_new_for_a_day_and_ongoing_after_that() -> None:
    pattern = pattern_of(every(HOUR_US // 2, 2 * DAY_US))
    assert state_of(pattern_of([0]), 1) is State.NEW
    young = pattern_of(every(HOUR_US // 2, DAY_US))
    assert state_of(young, DAY_US - 1) is State.NEW
    assert state_of(pattern, 2 * DAY_US) is State.ONGOING


def test_a_spike_lasts_until_the_rate_falls_or_an_hour_is_over() -> None:
    times = [*every(MINUTE_US, HOUR_US), *every(6 * SECOND_US, 3 * HOUR_US, HOUR_US)]
    pattern = pattern_of(times[:1])
    standing = judged(pattern, None, START_US)
    seen = []
    for minute in range(180):
        at_us = (minute + 1) * MINUTE_US
        pattern = pattern_of([time for time in times[1:] if at_us - MINUTE_US <= time < at_us] or [at_us - 1], pattern)
        standing = judged(pattern, standing, START_US + at_us - 1)
        seen.append(standing.state)
    assert [state for one, state in zip(["", *seen], seen, strict=False) if one is not state] == [
        State.NEW,
        State.ESCALATING,
        State.NEW,
    ]
    assert 60 <= seen.count(State.ESCALATING) <= 62
    assert seen.index(State.ESCALATING) <= 62
    fallen = judged(pattern, msgspec.structs.replace(standing, state=State.ESCALATING, usual=30), standing.since_us)
    assert fallen.state is State.NEW


def test_resolving_leaves_what_is_muted_muted() -> None:
    pattern = pattern_of([0])
    muted = acted(pattern, judged(pattern, None, START_US), Action.MUTE, "", START_US)
    resolved = acted(pattern, muted, Action.RESOLVE, "", START_US + 1)
    assert (resolved.state, resolved.resolved_seq) == (State.MUTED, 1)
    assert acted(pattern, resolved, Action.UNMUTE, "", START_US + 2).state is State.RESOLVED


@pytest.mark.parametrize(("quiet_us", "state"), [(HOUR_US - 1, State.NEW), (HOUR_US, State.RESOLVED)])
def test_an_hour_of_quiet_resolves_it(quiet_us: int, state: State) -> None:
    assert state_of(pattern_of([0, SECOND_US]), SECOND_US + quiet_us) is state


def test_time_without_a_witness_is_no_quiet() -> None:
    pattern = pattern_of(every(MINUTE_US, HOUR_US))
    standing = judged(pattern, None, START_US + HOUR_US)
    absence = Absence(START_US + HOUR_US, START_US + 9 * HOUR_US)
    last_us = START_US + HOUR_US - MINUTE_US
    resolved_us = last_us + 8 * HOUR_US + HOUR_US
    assert judged(pattern, standing, resolved_us - 1, absence) is standing
    assert acted(pattern, standing, Action.NOTE, "up again", resolved_us - 1, absence=absence).state is State.NEW
    assert judged(pattern, standing, resolved_us, absence).state is State.RESOLVED
    assert judged(pattern, standing, resolved_us - 8 * HOUR_US).state is State.RESOLVED
    again = pattern_of([10 * HOUR_US], pattern)  # after it
    assert judged(again, standing, START_US + 11 * HOUR_US - 1, absence).state is State.NEW
    assert judged(again, standing, START_US + 11 * HOUR_US, absence).state is State.RESOLVED


def test_what_fails_every_two_hours_is_not_resolved_in_between() -> None:
    pattern = pattern_of(every(2 * HOUR_US, 20 * HOUR_US))
    assert state_of(pattern, 18 * HOUR_US + 7 * HOUR_US) is State.ONGOING
    assert state_of(pattern, 18 * HOUR_US + 8 * HOUR_US) is State.RESOLVED


def test_a_resolved_pattern_that_fails_again_is_regressed_for_a_day() -> None:
    pattern = pattern_of([0, SECOND_US])
    resolved = judged(pattern, judged(pattern, None, START_US), START_US + 2 * HOUR_US)
    assert resolved.state is State.RESOLVED
    assert judged(pattern, resolved, START_US + 3 * HOUR_US) is resolved
    again = pattern_of(every(HOUR_US // 2, 30 * HOUR_US, 4 * HOUR_US), pattern)
    back = judged(again, resolved, START_US + 4 * HOUR_US)
    assert (back.state, back.regressed_us) == (State.REGRESSED, START_US + 4 * HOUR_US)
    assert judged(again, back, START_US + 28 * HOUR_US).state is State.ONGOING


def test_a_failure_that_nobody_looked_at_until_it_was_over_is_resolved_once() -> None:
    """The daemon was down meanwhile."""
    pattern = pattern_of([0, SECOND_US])
    resolved = judged(pattern, judged(pattern, None, START_US), START_US + 2 * HOUR_US)
    again = pattern_of([3 * HOUR_US], pattern)
    looked = judged(again, resolved, START_US + 60 * HOUR_US)
    assert looked == msgspec.structs.replace(resolved, resolved_seq=3)
    assert judged(again, looked, START_US + 61 * HOUR_US) is looked
    later = judged(pattern_of([62 * HOUR_US], again), looked, START_US + 62 * HOUR_US)
    assert (later.state, later.regressed_us) == (State.REGRESSED, START_US + 62 * HOUR_US)


def test_a_spike_is_seen_within_minutes_and_is_over_with_the_rate() -> None:
    steady = pattern_of(every(5 * MINUTE_US, 3 * HOUR_US))
    assert state_of(steady, 3 * HOUR_US) is State.NEW
    spike_at = 3 * HOUR_US
    nine = pattern_of(every(SECOND_US, spike_at + 9 * SECOND_US, spike_at), steady)
    ten = pattern_of([spike_at + 9 * SECOND_US], nine)
    assert state_of(nine, spike_at + 9 * SECOND_US) is State.NEW
    assert state_of(ten, spike_at + 9 * SECOND_US) is State.ESCALATING, "the tenth failure in ten seconds"
    assert state_of(ten, spike_at + 5 * MINUTE_US) is State.NEW


@pytest.mark.parametrize(("per_minute", "state"), [(7, State.NEW), (8, State.ESCALATING)])
def test_a_spike_is_four_times_what_is_usual(per_minute: int, state: State) -> None:
    """Two a minute are usual; the newest five minutes have so many."""
    steady = pattern_of(every(MINUTE_US // 2, HOUR_US))
    more = pattern_of(every(MINUTE_US // per_minute, HOUR_US + 5 * MINUTE_US - SECOND_US, HOUR_US), steady)
    assert state_of(more, HOUR_US + 5 * MINUTE_US - SECOND_US) is state


@pytest.mark.parametrize("minutes", [15, 20, 30, 45, 59, 61])
def test_a_steady_rate_is_usual_however_young_the_pattern_is(minutes: int) -> None:
    """Two a minute: the newest five minutes hold ten, enough for a spike."""
    steady = pattern_of(every(MINUTE_US // 2, (minutes + 1) * MINUTE_US))
    assert state_of(steady, (minutes + 1) * MINUTE_US - 1) is State.NEW


def test_what_was_usual_in_the_hours_before_is_so_over_the_age_of_the_pattern() -> None:
    busy, quiet = every(30 * SECOND_US, 5 * HOUR_US), 6 * HOUR_US + MINUTE_US
    spike = every(10 * SECOND_US, quiet + 3 * MINUTE_US, quiet)
    assert state_of(pattern_of([*busy, *spike]), quiet + 3 * MINUTE_US) is State.NEW


@pytest.mark.parametrize(("recent", "state"), [(5, State.ESCALATING), (4, State.NEW)])
def test_a_spike_of_what_never_failed_before_is_over_below_half_of_the_least_there_is(
    recent: int, state: State
) -> None:
    pattern = pattern_of([0, *range(HOUR_US, HOUR_US + recent)])
    standing = Standing(state=State.ESCALATING, since_us=START_US + HOUR_US)
    assert judged(pattern, standing, START_US + HOUR_US + MINUTE_US).state is state


def test_a_rate_that_lasts_for_an_hour_is_usual() -> None:
    steady = pattern_of(every(5 * MINUTE_US, 3 * HOUR_US))
    risen = pattern_of(every(6 * SECOND_US, 4 * HOUR_US + 6 * MINUTE_US, 3 * HOUR_US), steady)
    assert state_of(risen, 4 * HOUR_US + 6 * MINUTE_US) is State.NEW


def test_a_pattern_of_some_minutes_is_new_however_often_it_fails() -> None:
    assert state_of(pattern_of(every(SECOND_US, 10 * MINUTE_US)), 10 * MINUTE_US) is State.NEW


def test_a_muted_pattern_stays_muted_and_is_judged_when_that_is_taken_back() -> None:
    pattern = pattern_of([0])
    muted = acted(pattern, judged(pattern, None, START_US), Action.MUTE, "known", START_US + 1)
    assert (muted.state, muted.since_us, [note.text for note in muted.notes]) == (State.MUTED, START_US + 1, ["known"])
    more = pattern_of(every(SECOND_US, HOUR_US, MINUTE_US), pattern)
    assert judged(more, muted, START_US + HOUR_US) is muted
    assert acted(more, muted, Action.UNMUTE, "", START_US + HOUR_US).state is State.NEW


def test_a_person_resolves_and_the_next_failure_regresses() -> None:
    pattern = pattern_of([0])
    resolved = acted(pattern, judged(pattern, None, START_US), Action.RESOLVE, "", START_US + 1)
    assert resolved.state is State.RESOLVED
    assert judged(pattern, resolved, START_US + 2) is resolved
    assert judged(pattern_of([3], pattern), resolved, START_US + 3).state is State.REGRESSED


def test_what_was_acknowledged_before_a_person_resolved_it_does_not_undo_that() -> None:
    pattern = pattern_of([0])
    resolved = acted(pattern, judged(pattern, None, START_US), Action.RESOLVE, "", START_US + 1, acknowledged_seq=3)
    late = pattern_of([2, 3], pattern)
    assert judged(late, resolved, START_US + 3) is resolved
    assert judged(pattern_of([4], late), resolved, START_US + 4).state is State.REGRESSED


def test_what_failed_again_after_it_was_resolved_is_regressed_also_when_it_was_muted_meanwhile() -> None:
    pattern = pattern_of([0])
    new = judged(pattern, None, START_US)
    for actions in ([Action.RESOLVE, Action.MUTE], [Action.MUTE, Action.RESOLVE]):
        standing = new
        for action in actions:
            standing = acted(pattern, standing, action, "", START_US + 1)
        again = pattern_of([MINUTE_US], pattern)
        standing = judged(again, standing, START_US + MINUTE_US)
        assert (standing.state, standing.regressed_us) == (State.MUTED, START_US + MINUTE_US)
        assert judged(pattern_of([2 * MINUTE_US], again), standing, START_US + 2 * MINUTE_US) is standing, "once"
        unmuted = acted(again, standing, Action.UNMUTE, "", START_US + HOUR_US)
        assert unmuted.state is State.REGRESSED
        resolved = acted(again, unmuted, Action.RESOLVE, "", START_US + HOUR_US)
        more = pattern_of([2 * HOUR_US], again)
        assert judged(more, resolved, START_US + 2 * HOUR_US).regressed_us == START_US + 2 * HOUR_US


def test_the_newest_notes_are_kept() -> None:
    pattern = pattern_of([0])
    standing = judged(pattern, None, START_US)
    for number in range(25):
        standing = acted(pattern, standing, Action.NOTE, f"note {number}", START_US + number)
    assert [note.text for note in standing.notes] == [f"note {number}" for number in range(5, 25)]
    assert merged(Standing(), standing).notes == standing.notes


@pytest.mark.parametrize(("one", "other"), [(True, True), (True, False), (False, True), (False, False)])
def test_two_that_turn_out_to_be_one_are_muted_only_if_both_were(*, one: bool, other: bool) -> None:
    assert merged(Standing(muted=one), Standing(muted=other)).muted is (one and other)


def test_the_time_is_the_callers_unless_it_cannot_be() -> None:
    assert event_time_us(failure(1, START_US, timestamp=iso(START_US - HOUR_US))) == START_US - HOUR_US
    assert event_time_us(failure(1, START_US, timestamp=iso(START_US + HOUR_US))) == START_US
    assert event_time_us(failure(1, START_US, timestamp="yesterday")) == START_US
    assert event_time_us(failure(1, START_US, timestamp="", recorded_at="")) is None


@given(st.lists(st.integers(0, 90 * DAY_US), max_size=200))
def test_a_history_is_bounded_and_counts_what_it_keeps(times_us: list[int]) -> None:
    history = added(History(), [failure(1, START_US + time_us) for time_us in times_us])
    for windows, kept, size_us in (
        (history.minutes, MINUTES_KEPT, MINUTE_US),
        (history.hours, HOURS_KEPT, HOUR_US),
        (history.days, DAYS_KEPT, DAY_US),
    ):
        assert len(windows) <= kept
        if times_us:
            newest = (START_US + max(times_us)) // size_us
            held = [time_us for time_us in times_us if (START_US + time_us) // size_us > newest - kept]
            assert sum(windows.values()) == len(held)


@given(st.lists(st.integers(0, 3 * DAY_US), max_size=50), st.integers(0, 50))
def test_two_histories_joined_are_the_history_of_both(times_us: list[int], cut: int) -> None:
    ops = [failure(1, START_US + time_us) for time_us in sorted(times_us)]
    assert joined(added(History(), ops[:cut]), added(History(), ops[cut:])) == added(History(), ops)


def test_a_series_has_a_zero_where_nothing_failed() -> None:
    assert series({5: 2, 7: 1}, 8, 4) == [2, 0, 1, 0]


def test_the_time_that_failures_took_is_added_up() -> None:
    assert pattern_of([0, 1, 2]).wasted_ms == 300
    [pattern] = apply(
        {}, [failure(1, START_US, duration_ms=-5), failure(2, START_US, duration_ms=0.5)]
    ).patterns.values()
    assert pattern.wasted_ms == 0.5
