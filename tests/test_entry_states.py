"""States of entries: the rules as a table, and what they do to entries that help, do nothing, or do harm."""

from __future__ import annotations

import msgspec
import pytest

from observer_actors.playbook.deltas import Merged, apply
from observer_actors.playbook.entries import Entry, Kind, Mark, State
from observer_actors.playbook.lift import Arm, Sides, Trial, lift
from observer_actors.playbook.states import (
    ALPHA,
    ALPHA_HARM,
    RUNS_WITHOUT_USE_MAX,
    TRIES_MAX,
    USE_MIN,
    Standing,
    judged,
    share_of,
)
from tests.lift import DRIFTS, Life, Phase, withheld

HELPS = Trial(Arm(95, 5), Arm(50, 50))
HARMS = Trial(Arm(50, 50), Arm(95, 5))
NOTHING = Trial(Arm(30, 20), Arm(30, 20))
SPENT = Trial(Arm(4_000, 2_000), Arm(4_000, 2_000))
USELESS = Trial(Arm(300, 200), Arm(301, 199))
HEEDED = Trial(Arm(60, 40), Arm(601, 399))
CANDIDATE, ACTIVE, WITHHELD, RETIRED = (Standing(state) for state in State)


@pytest.mark.parametrize(
    ("standing", "trial", "state"),
    [
        (CANDIDATE, Trial(), State.CANDIDATE),
        (CANDIDATE, NOTHING, State.CANDIDATE),
        (CANDIDATE, HELPS, State.ACTIVE),
        (CANDIDATE, HARMS, State.WITHHELD),
        (CANDIDATE, USELESS, State.WITHHELD),
        (CANDIDATE, HEEDED, State.CANDIDATE),
        (ACTIVE, HELPS, State.ACTIVE),
        (ACTIVE, Trial(), State.ACTIVE),
        (ACTIVE, NOTHING, State.ACTIVE),
        (ACTIVE, SPENT, State.CANDIDATE),
        (ACTIVE, HARMS, State.WITHHELD),
        (WITHHELD, HELPS, State.WITHHELD),
        (RETIRED, HELPS, State.RETIRED),
    ],
)
def test_where_a_trial_leads(standing: Standing, trial: Trial, state: State) -> None:
    standing = Standing(standing.state, evidence_then=10)
    assert judged(standing, trial, 10).state is state


def test_nothing_moves_between_the_two_bars() -> None:
    weak = Trial(Arm(200, 100), Arm(195, 105))
    assert lift(weak, ALPHA).low < 0 < USE_MIN < lift(weak, ALPHA_HARM).high
    assert judged(ACTIVE, weak, 1) is ACTIVE
    small = Trial(Arm(10, 10), Arm(12, 8))
    assert judged(CANDIDATE, small, 1) is CANDIDATE


def test_a_change_says_why() -> None:
    harm = Standing(State.WITHHELD, "it does harm", evidence_then=12, decided_by=Sides(HARMS.exposed, HARMS.control))
    assert judged(CANDIDATE, HARMS, 12) == harm
    helps = Standing(State.ACTIVE, "it helps", decided_by=Sides(HELPS.exposed, HELPS.control))
    assert judged(CANDIDATE, HELPS, 12) == helps
    spent = Standing(State.CANDIDATE, "it may no longer help", decided_by=Sides(SPENT.exposed, SPENT.control))
    assert judged(ACTIVE, SPENT, 12) == spent
    assert judged(CANDIDATE, USELESS, 12).reason == f"no use shown in {RUNS_WITHOUT_USE_MAX:,} runs"


def test_a_withheld_entry_is_tried_again_when_its_evidence_has_grown_by_half_and_retired_at_the_last_try() -> None:
    standing, evidence = CANDIDATE, 8
    for number in range(1, TRIES_MAX + 1):
        assert standing.tries == number
        standing = judged(standing, HARMS, evidence)
        if number < TRIES_MAX:
            assert standing.state is State.WITHHELD
            assert judged(standing, Trial(), evidence * 3 // 2 - 1) is standing
            evidence = evidence * 3 // 2
            standing = judged(standing, HARMS, evidence)
            assert standing.state is State.CANDIDATE
    assert standing.state is State.RETIRED
    assert judged(standing, Trial(), 10**6) is standing


def test_an_active_entry_that_does_harm_of_late_is_withheld_whatever_it_did_before() -> None:
    now = Sides(Arm(10, 80), Arm(12, 1))
    late = msgspec.structs.replace(Trial(Arm(900, 90), Arm(60, 50)), recent={"mcp": now})
    assert judged(ACTIVE, late, 7) == Standing(State.WITHHELD, "it does harm now", evidence_then=7, decided_by=now)
    mixed = msgspec.structs.replace(Trial(Arm(250, 245), Arm(245, 250)), recent={"mcp": now})
    assert judged(CANDIDATE, mixed, 7) is CANDIDATE, "of one that is on trial all its runs decide"


def test_where_several_sources_use_an_entry_none_alone_decides() -> None:
    good, bad, none = Sides(Arm(40, 10), Arm(30, 20)), Sides(Arm(0, 90), Arm(90, 0)), Sides(Arm(0, 0), Arm(0, 0))
    for others, state in (({}, State.WITHHELD), ({"mcp": good}, State.CANDIDATE), ({"mcp": bad}, State.WITHHELD)):
        by_source = {"bot": bad, **others}
        total = sum(by_source.values(), none)
        assert judged(CANDIDATE, Trial(total.exposed, total.control, by_source=by_source), 1).state is state
    hang = {"bot": Sides(Arm(0, 0), Arm(150, 0)), "unknown": Sides(Arm(0, 90), Arm(0, 0))}
    assert judged(CANDIDATE, Trial(Arm(0, 90), Arm(150, 0), by_source=hang), 1).state is State.WITHHELD
    by_source = {"bot": Sides(Arm(90, 0), Arm(0, 90)), "mcp": Sides(Arm(10, 20), Arm(12, 18))}
    total = sum(by_source.values(), none)
    assert judged(CANDIDATE, Trial(total.exposed, total.control, by_source=by_source), 1) is CANDIDATE


def test_one_source_alone_does_not_make_an_active_entry_a_candidate() -> None:
    lies, seen = Sides(Arm(0, 90), Arm(10, 0)), Sides(Arm(60, 0), Arm(4, 3))
    spent = Sides(Arm(2_010, 1_000), Arm(1_995, 1_000))
    for one, other, expected in ((lies, seen, State.ACTIVE), (spent, spent, State.CANDIDATE)):
        total = one + other
        trial = Trial(total.exposed, total.control, by_source={"mcp": one, "bot": other})
        assert judged(ACTIVE, trial, 1).state is expected


def test_a_source_that_has_hardly_used_an_entry_keeps_nothing_harmful_handed_out() -> None:
    def of(*sides: Sides) -> Trial:
        by_source = dict(zip(("mcp", "bot"), sides, strict=True))
        total = sum(sides, Sides())
        return Trial(total.exposed, total.control, by_source=by_source, recent=by_source)

    harm = Sides(Arm(1_500, 3_500), Arm(4_000, 1_000))
    for one in (Sides(exposed=Arm(1, 0)), Sides(Arm(19, 0), Arm(900, 1))):
        assert judged(CANDIDATE, of(harm, one), 1).reason == "it does harm"
        assert judged(ACTIVE, of(harm, one), 1).reason == "it does harm"
    assert judged(CANDIDATE, of(harm, Sides(Arm(20, 0), Arm(19, 1))), 1) is CANDIDATE
    lies = Sides(Arm(0, 120), Arm(120, 0))
    assert judged(CANDIDATE, of(lies, Sides(Arm(4, 0), Arm(2, 0))), 1) is CANDIDATE  # others have hardly begun
    assert judged(CANDIDATE, of(lies, Sides(Arm(2, 2), Arm(4, 0))), 1).reason == "it does harm"
    lies, seen = Sides(Arm(0, 400), Arm(44, 0)), Sides(Arm(150, 0), Arm(9, 6))
    assert judged(ACTIVE, of(lies, seen), 1).state is not State.WITHHELD  # a tenth is control
    useless = Sides(USELESS.exposed, USELESS.control)
    assert judged(CANDIDATE, of(useless, Sides(Arm(10, 0), Arm(9, 1))), 1).state is State.WITHHELD
    assert judged(CANDIDATE, of(useless, Sides(Arm(20, 5), Arm(20, 5))), 1) is CANDIDATE
    good = Sides(Arm(90, 0), Arm(0, 90))
    assert judged(CANDIDATE, of(good, Sides(exposed=Arm(1, 0))), 1) is CANDIDATE  # nobody else says that it helps


def test_a_source_that_has_hardly_used_an_entry_keeps_what_helps_from_nobody() -> None:
    helps = Sides(Arm(190, 10), Arm(100, 100))
    for one, state in (
        (Sides(exposed=Arm(1, 0)), State.ACTIVE),
        (Sides(Arm(2, 3), Arm(4, 1)), State.ACTIVE),
        (Sides(Arm(10, 10), Arm(12, 8)), State.CANDIDATE),  # it has seen something else
    ):
        total = helps + one
        trial = Trial(total.exposed, total.control, by_source={"mcp": helps, "bot": one})
        assert (lift(trial, ALPHA).low > 0, judged(CANDIDATE, trial, 1).state) == (True, state)


def test_half_of_a_candidates_runs_are_control_and_of_an_active_or_pinned_ones_as_many_as_is_set() -> None:
    entry = Entry(id="e", kind=Kind.DO, endpoint="sql:run", about="", text="")
    assert share_of(entry, 0.1) == 0.5
    assert share_of(entry, 0.7) == 0.7
    assert share_of(msgspec.structs.replace(entry, state=State.ACTIVE), 0.1) == 0.1
    assert share_of(msgspec.structs.replace(entry, mark=Mark.PINNED), 0.1) == 0.1


def life(with_it: float, without_it: float, seed: int, runs: int) -> tuple[Standing, int]:
    """Use one entry until it is out of use: its last standing, and the runs that were drawn until then."""
    found = Life(seed)
    for number in range(1, runs + 1):
        found.use(with_it, without_it)
        if found.is_over:
            return found.standing, number
    return found.standing, runs


@pytest.mark.no_cover
@pytest.mark.parametrize(("phases", "is_pinned"), DRIFTS)
def test_tools_that_become_harder_make_nothing_look_harmful(phases: tuple[Phase, Phase], *, is_pinned: bool) -> None:
    reasons = withheld(phases, streams=15, is_pinned=is_pinned)
    assert sum(count for reason, count in reasons.items() if reason.startswith("it does harm")) <= 15 * ALPHA_HARM
    assert is_pinned or reasons[""] >= 12  # the others had not shown by then that they help


@pytest.mark.no_cover
@pytest.mark.parametrize(("cost", "runs_max"), [(0.3, 300), (0.2, 900)])
def test_a_harmful_entry_is_withheld_within_so_many_runs(cost: float, runs_max: int) -> None:
    ends = [life(0.8 - cost, 0.8, seed, 2 * runs_max) for seed in range(20)]
    assert all(standing.reason == "it does harm" for standing, _ in ends)
    assert sum(runs <= runs_max for _, runs in ends) >= 19


@pytest.mark.no_cover
def test_a_useless_entry_is_not_kept_as_helpful() -> None:
    ends = [life(0.7, 0.7, seed, RUNS_WITHOUT_USE_MAX) for seed in range(20)]
    assert all(standing.state is State.WITHHELD for standing, _ in ends)


@pytest.mark.no_cover
def test_an_entry_that_cures_is_active_soon_and_stays_so() -> None:
    ends = [(life(0.95, 0.5, seed, 200), life(0.95, 0.5, seed, 400)) for seed in range(10)]
    assert all(standing.state is State.ACTIVE for end in ends for standing, _ in end)


def test_an_entry_that_takes_the_same_one_in_again_names_it_once() -> None:
    one = Entry(id="e", kind=Kind.AVOID, endpoint="sql:run", about="", text="", also=("f", "g"))
    entries = {"e": one, "f": msgspec.structs.replace(one, id="f", also=("g",))}
    apply(entries, Merged("e", 1, "f"))
    assert entries["e"].also == ("f", "g")
