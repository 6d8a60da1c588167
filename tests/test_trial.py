"""Trials, as scripts: exposures, reports and verdicts in, counts out."""

from __future__ import annotations

import itertools
import random

import msgspec
import pytest

from observer_actors.event import OWN_SOURCE
from observer_actors.op import Op, Scalar
from observer_actors.playbook import trial as module
from observer_actors.playbook.entries import State
from observer_actors.playbook.keeping import Kept
from observer_actors.playbook.lift import Arm, Sides, Trial
from observer_actors.playbook.states import Standing, judged
from observer_actors.playbook.trial import (
    ADVICE_ENDPOINT,
    Exposure,
    Trials,
    exposure_attrs,
    in_control,
)

SEQ = itertools.count(1)


def op(success: bool = True, *, source: str = "mcp", own: dict[str, Scalar] | None = None, **attrs: Scalar) -> Op:  # noqa: FBT001, FBT002
    return Op(
        timestamp="2026-11-22T10:00:00.000Z",
        endpoint="sql:run" if own is None else ADVICE_ENDPOINT,
        input_summary="",
        success=success,
        duration_ms=1,
        output_summary="",
        source=source if own is None else OWN_SOURCE,
        seq=next(SEQ),
        attrs=attrs if own is None else own,
    )


def exposure(advice_id: str, *exposed: str, control: tuple[str, ...] = (), run: str = "", task: str = "") -> Op:
    given = Exposure(advice_id=advice_id, run=run, task=task, exposed=exposed, control=control, trusted=())
    return op(own=exposure_attrs(given))


def verdict(success: bool, **names: str) -> Op:  # noqa: FBT001
    return op(success, source="auditor", own=None, **names)


def nobody(_run: str) -> str:
    return ""


def after(*ops: Op) -> Trials:
    trials = Trials(Kept(), nobody)
    for one in ops:
        trials.add(one)
    return trials


def test_an_event_with_the_advice_id_is_the_outcome() -> None:
    trials = after(exposure("a1", "e"), op(success=False, advice_id="a1"))
    assert trials.trial("e") == Trial(
        exposed=Arm(0, 1), by_source={"mcp": Sides(exposed=Arm(0, 1))}, recent={"mcp": Sides(exposed=Arm(0, 1))}
    )


def test_what_was_held_back_counts_for_the_control() -> None:
    trials = after(exposure("a1", control=("e",)), op(advice_id="a1"))
    assert trials.trial("e") == Trial(
        control=Arm(1, 0), by_source={"mcp": Sides(control=Arm(1, 0))}, recent={"mcp": Sides(control=Arm(1, 0))}
    )


@pytest.mark.parametrize("name", ["run", "run_id", "trace_id"])
def test_the_verdict_on_the_run_stands_above_the_reports_whichever_comes_first(name: str) -> None:
    shown, report, judged = exposure("a1", "e", run="r"), op(advice_id="a1"), verdict(success=False, **{name: "r"})
    for order in ((shown, report, judged), (shown, judged, report)):
        assert after(*order).trial("e").exposed == Arm(0, 1)


def test_a_run_counts_once_and_is_corrected_by_what_comes_later() -> None:
    ops = [exposure("a1", "e", run="r"), exposure("a2", "e", run="r")]
    trials = after(*ops, op(advice_id="a1"), op(success=False, advice_id="a2"))
    assert trials.trial("e").exposed == Arm(0, 1)
    trials.add(verdict(success=True, run="r"))
    assert trials.trial("e").exposed == Arm(1, 0)
    assert trials.add(verdict(success=False, run="r")) == ["e"]
    assert trials.add(verdict(success=False, run="r")) == []
    assert trials.trial("e") == Trial(
        exposed=Arm(0, 1), by_source={"mcp": Sides(exposed=Arm(0, 1))}, recent={"mcp": Sides(exposed=Arm(0, 1))}
    )


def test_what_comes_after_the_third_report_or_verdict_of_a_run_changes_nothing() -> None:
    trials = after(exposure("a1", "e", run="r"), *(op(good, advice_id="a1") for good in (False, False, True)))
    assert (trials.add(op(False, advice_id="a1")), trials.trial("e").exposed) == ([], Arm(1, 0))
    trials.add(exposure("a2", "f", run="r"))  # of another entry they are the first ones
    assert trials.add(op(False, advice_id="a2")) == ["f"]
    for good in (True, True, False, True):
        trials.add(verdict(good, run="r"))
    assert (trials.trial("e").exposed, trials.trial("f").exposed) == (Arm(0, 1), Arm(0, 1))


def test_who_does_not_own_a_run_uses_up_none_of_its_reports() -> None:
    asks, steals = (
        op(own=exposure_attrs(Exposure(advice_id=source, run="r", asked_by=source, exposed=("e",))))
        for source in ("mcp", "bot")
    )
    lies = [op(False, source="bot", run="r") for _ in range(9)]
    assert after(asks, steals, *lies, op(run="r"), *lies).trial("e").exposed == Arm(1, 0)


@pytest.mark.no_cover
@pytest.mark.parametrize("runs", [10, 20])
def test_a_few_runs_that_report_for_ever_show_nothing_by_chance(runs: int) -> None:
    moved = [state for seed in range(60) if (state := _null(seed, runs)) is not State.CANDIDATE]
    assert len(moved) <= 6


def _null(seed: int, runs: int) -> State:
    """Have runs ask and report 40 times each, with the same chances in both arms; look at each change."""
    chance, trials, standing = random.Random(seed), Trials(Kept(), nobody), Standing()
    for number in range(40 * runs):
        run = f"r{seed}-{number % runs}"
        held = in_control("e", run, 0.5)
        trials.add(exposure(f"a{number}", *(() if held else ("e",)), control=("e",) if held else (), run=run))
        if trials.add(op(chance.random() < 0.7, advice_id=f"a{number}")):
            standing = judged(standing, trials.trial("e"), 1)
            if standing.state is not State.CANDIDATE:
                break
    return standing.state


def test_nobody_reports_how_another_ones_run_went() -> None:
    asked = op(own=exposure_attrs(Exposure(advice_id="a1", run="r", asked_by="mcp", exposed=("e",))))
    again = op(own=exposure_attrs(Exposure(advice_id="a2", run="r", asked_by="bot", exposed=("e",))))
    bots = op(success=False, source="bot", run="r", advice_id="a2")
    mcps = op(run="r")
    assert after(asked, again, bots).trial("e").exposed == Arm(0, 1)
    for ops in ([bots, mcps], [mcps, bots], [bots, op(advice_id="a1"), bots]):  # whose the run is who asked first
        assert after(asked, again, *ops).trial("e").exposed == Arm(1, 0)
    assert after(asked, bots).trial("e") == Trial()  # it has not asked
    other = op(own=exposure_attrs(Exposure(advice_id="b", run="q", asked_by="bot", exposed=("e",))))
    lie = op(False, source="bot", run="r", advice_id="b")  # its own advice, and another one's run
    assert after(asked, other, lie).trial("e") == Trial()
    assert after(asked, other, lie, mcps).trial("e").by_source == {"mcp": Sides(exposed=Arm(1, 0))}
    first = op(source="bot", run="q")  # whoever names a run first does not own it
    trials = after(exposure("a3", "e", run="q"), first, op(advice_id="a3"), op(False, source="bot", advice_id="a3"))
    assert trials.trial("e").by_source == {"mcp": Sides(exposed=Arm(1, 0))}


def test_the_outcome_comes_by_the_run_alone_where_the_request_has_named_its_source() -> None:
    def asking(advice: str, source: str, endpoint: str = "") -> Op:
        return op(
            own=exposure_attrs(
                Exposure(advice_id=advice, run="r", asked_by=source, endpoint=endpoint, exposed=(f"e{advice}",))
            )
        )

    both = after(asking("1", "mcp", "sql:run"), asking("2", "mcp"), op(run="r"))
    assert (both.trial("e1").exposed, both.trial("e2").exposed) == (Arm(1, 0), Arm(1, 0))
    elsewhere = msgspec.structs.replace(op(False, run="r"), endpoint="log:write")
    assert both.add(elsewhere) == ["e2"]
    assert both.add(op(advice_id="2")) == ["e2"]
    assert after(asking("1", ""), op(run="r")).trial("e1") == Trial()  # anybody may know the name
    assert after(asking("1", "mcp"), op(source="bot", run="r")).trial("e1") == Trial()
    assert after(asking("1", "mcp"), op(source="bot", advice_id="1")).trial("e1") == Trial(), "nor for another source"


def test_who_has_only_asked_owns_no_run() -> None:
    steals = op(own=exposure_attrs(Exposure(advice_id="a0", run="r", asked_by="bot", exposed=("e",))))
    asks = op(own=exposure_attrs(Exposure(advice_id="a1", run="r", asked_by="mcp", exposed=("e",))))
    trials = after(steals, asks, op(run="r", advice_id="a1"))
    assert trials.trial("e").by_source == {"mcp": Sides(exposed=Arm(1, 0))}


def test_a_report_counts_from_the_endpoint_that_was_asked_about() -> None:
    about = op(own=exposure_attrs(Exposure(advice_id="a1", endpoint="sql:run", exposed=("e",))))
    elsewhere = msgspec.structs.replace(op(advice_id="a1"), endpoint="log:write")
    assert after(about, op(False, advice_id="a1"), elsewhere).trial("e").exposed == Arm(0, 1)
    assert after(exposure("a1", "e"), elsewhere).trial("e").exposed == Arm(1, 0)


def test_a_success_whose_own_output_says_otherwise_is_a_failure() -> None:
    doubtful = msgspec.structs.replace(op(advice_id="a1"), output_summary="Error: no such row")
    trials = after(exposure("a1", "e", run="r"), doubtful)
    assert trials.trial("e").exposed == Arm(0, 1)
    trials.add(verdict(success=True, run="r"))
    assert trials.trial("e").exposed == Arm(1, 0)


def begun(run: str, *, control: bool = False) -> list[Op]:
    """Give a run that has asked for other advice, reported from elsewhere, and then asked."""
    exposed, held = ((), ("e",)) if control else (("e",), ())
    asked = Exposure(advice_id=f"a-{run}", run=run, asked_by="mcp", endpoint="sql:run", exposed=exposed, control=held)
    return [exposure(f"before-{run}", "other", run=run), elsewhere(run), op(own=exposure_attrs(asked))]


def elsewhere(run: str) -> Op:
    return msgspec.structs.replace(op(run=run), endpoint="log:write")


def test_a_run_without_an_outcome_is_lost_until_one_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OVERTAKEN_MAX", 3)
    trials = after(exposure("s", "e", run="s"), *begun("r0"), *begun("r1"), *begun("r2", control=True))
    later = [exposure(f"b{n}", "e", run=f"q{n}") for n in range(7)]
    for one in later:
        trials.add(one)
    for n in range(2):
        assert trials.add(verdict(success=True, run=f"q{n}")) == ["e"]
    assert trials.trial("e").lost == (0, 0)
    assert trials.add(verdict(success=True, run="q2")) == ["e"]
    assert (trials.trial("e").exposed, trials.trial("e").control) == (Arm(3, 2), Arm(0, 1))
    assert trials.trial("e").lost == (2, 1)  # who only asks is nobody
    trials.add(op(advice_id="a-r0"))
    assert (trials.trial("e").exposed, trials.trial("e").lost) == (Arm(4, 1), (1, 1))
    assert trials.add(op(False, advice_id="a-r1")) == ["e"]
    assert (trials.trial("e").exposed, trials.trial("e").lost) == (Arm(4, 1), (0, 1))
    assert trials.add(op(False, advice_id="a-r1")) == []


def test_a_lost_run_is_no_outcome_of_its_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OVERTAKEN_MAX", 1)
    named = [exposure("s", "other", run="hangs"), op(run="hangs")]
    asked = [exposure("a", "e", run="hangs", task="t"), exposure("b", control=("e",), run="q", task="t")]
    trial = after(*named, *asked, verdict(success=True, run="q")).trial("e")
    assert (trial.exposed, trial.control, trial.lost) == (Arm(0, 1), Arm(1, 0), (1, 0))
    assert (trial.fixed, trial.broken) == (0, 0)


def test_a_run_that_is_heard_of_since_it_asked_is_not_lost_whoever_has_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OVERTAKEN_MAX", 1)

    def asked(run: str) -> Op:
        return op(own=exposure_attrs(Exposure(advice_id=f"a-{run}", run=run, endpoint="sql:run", exposed=("e",))))

    later = [asked("q"), verdict(success=True, run="q")]
    trials = after(asked("named"), op(run="named"), *begun("others"), op(run="others", source="bot"), *later)
    assert (trials.trial("e").exposed, trials.trial("e").lost) == (Arm(1, 0), (0, 0))
    trials = after(asked("late"), *begun("hangs"), *later)
    assert (trials.trial("e").exposed, trials.trial("e").lost) == (Arm(1, 1), (1, 0))
    assert trials.add(op(run="hangs", source="bot")) == ["e"]
    assert trials.trial("e") == after(*later).trial("e")
    trials.add(op(False, run="hangs"))
    assert trials.trial("e").exposed == Arm(1, 1)


@pytest.mark.parametrize("is_control", [True, False])
def test_a_run_that_goes_another_way_as_it_was_advised_is_not_lost(
    monkeypatch: pytest.MonkeyPatch, *, is_control: bool
) -> None:
    monkeypatch.setattr(module, "OVERTAKEN_MAX", 1)
    later = [*begun("q"), verdict(success=True, run="q")]
    heeds, hangs = ([*begun(run, control=is_control)] for run in ("heeds", "hangs"))
    trials = after(*heeds, elsewhere("heeds"), *hangs, *later)
    assert trials.trial("e").lost == ((0, 1) if is_control else (1, 0))
    trials.add(elsewhere("hangs"))
    assert trials.trial("e") == after(*later).trial("e")


def test_runs_that_are_on_their_way_make_none_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OVERTAKEN_MAX", 3)
    monkeypatch.setattr(module, "WAITING_MAX", 20)
    fast = [begun(f"c{n}", control=True) for n in range(9)]
    trials = after(*begun("slow"), *(one for run in fast for one in run))
    for n in range(2):
        trials.add(op(run=f"c{n}"))
    assert trials.trial("e") == Trial(
        control=Arm(2, 0), by_source={"mcp": Sides(control=Arm(2, 0))}, recent={"mcp": Sides(control=Arm(2, 0))}
    )
    for n in range(14):  # of more than are waited for the oldest is lost
        for one in begun(f"d{n}"):
            trials.add(one)
    assert (trials.trial("e").lost, len(trials.entries["e"].unsettled)) == ((1, 1), 20)


@pytest.mark.parametrize(("slower", "at_once"), [(1.1, 150), (1.1, 300), (1.3, 110), (0.8, 300)])
def test_advice_that_only_takes_longer_is_not_harmful(slower: float, at_once: int) -> None:
    chance, trials, ends, now = random.Random(1), Trials(Kept(), nobody), [], 0.0
    for number in range(900):
        now += 1 / at_once
        held = chance.random() < 0.5
        ends.append((now + chance.uniform(0.7, 1.3) * (1 if held else slower), f"r{number}"))
        for one in begun(f"r{number}", control=held):
            trials.add(one)
        ends.sort()
        while ends[0][0] < now:
            trials.add(op(run=ends.pop(0)[1]))
    assert max(trials.trial("e").lost) <= 5


def test_a_report_counts_for_the_entries_of_its_own_answer_alone() -> None:
    trials = after(
        exposure("a1", "e", run="r"),
        exposure("a2", "f", run="r"),
        op(success=False, advice_id="a1"),
        op(advice_id="a2"),
    )
    assert (trials.trial("e").exposed, trials.trial("f").exposed) == (Arm(0, 1), Arm(1, 0))


def test_a_run_that_was_drawn_stays_where_it_is() -> None:
    trials = after(
        exposure("a1", "e", run="r"), exposure("a2", control=("e",), run="r"), verdict(success=True, run="r")
    )
    assert trials.drawn("r", "e") is True
    assert trials.drawn("r", "f") is None
    sides = Sides(exposed=Arm(1, 0))
    assert trials.trial("e") == Trial(exposed=Arm(1, 0), by_source={"unknown": sides}, recent={"unknown": sides})


def test_fixed_and_broken_compare_the_last_outcomes_of_a_task_in_both_arms() -> None:
    ops = []
    for number, (task, exposed, outcome) in enumerate(
        [
            ("cured", False, False),
            ("cured", True, True),
            ("spoilt", True, False),
            ("spoilt", False, True),
            ("same", True, True),
            ("same", False, True),
            ("once", True, True),
            ("again", False, True),
            ("again", True, True),
            ("again", False, False),
        ]
    ):
        entries = ("e",) if exposed else ()
        held = () if exposed else ("e",)
        ops += [exposure(f"a{number}", *entries, control=held, task=task), op(outcome, advice_id=f"a{number}")]
    trial = after(*ops).trial("e")
    assert (trial.fixed, trial.broken) == (2, 1)


def test_a_new_trial_starts_from_nothing_and_runs_of_the_old_one_stay_out() -> None:
    trials = after(exposure("a1", "e", run="old"), exposure("a2", "e", run="older"), verdict(success=True, run="old"))
    trials.restart("e", next(SEQ))
    trials.add(verdict(success=True, run="older"))
    trials.add(verdict(success=False, run="old"))
    assert trials.trial("e") == Trial()
    trials.add(exposure("a3", "e", run="new"))
    trials.add(verdict(success=False, run="new"))
    assert trials.trial("e").exposed == Arm(0, 1)


def test_a_run_that_was_drawn_with_another_share_stays_out() -> None:
    def drawn(run: str, *trusted: str) -> list[Op]:
        given = Exposure(advice_id=f"a-{run}", run=run, exposed=("e", "f"), trusted=trusted)
        return [op(own=exposure_attrs(given)), verdict(success=True, run=run)]

    trials = Trials(Kept(), nobody)
    trials.restart("e", next(SEQ), trusted=True)
    for one in (*drawn("r1", "e"), *drawn("r2"), *drawn("r3", "e", "f"), *drawn("r4", "f")):
        trials.add(one)
    assert (trials.trial("e").exposed, trials.trial("f").exposed) == (Arm(2, 0), Arm(2, 0))
    assert trials.entries["e"].drawn == 2


def test_ops_of_no_run_that_was_drawn_change_nothing() -> None:
    trials = after(exposure("a1", "e", run="r"))
    for other in (op(), op(run="q"), op(advice_id="a9"), verdict(success=True, run="q"), op(advice_id=7)):
        assert not trials.add(other)
    assert trials.trial("e") == trials.trial("unknown") == Trial()


def test_an_entry_that_is_forgotten_counts_no_more() -> None:
    trials = after(exposure("a1", "e", run="r"))
    trials.forget("e")
    assert trials.add(verdict(success=True, run="r")) == []
    assert trials.trial("e") == Trial()


def test_runs_from_before_it_was_forgotten_stay_out_of_what_it_comes_to_when_it_is_back() -> None:
    trials = after(exposure("a1", "e", run="old"), verdict(success=True, run="old"))
    trials.forget("e")
    trials.add(exposure("a2", "e", run="new"))
    trials.add(verdict(success=False, run="old"))
    assert trials.trial("e") == Trial()
    trials.add(verdict(success=True, run="new"))
    assert trials.trial("e").exposed == Arm(1, 0)


def test_the_verdict_on_a_run_counts_for_what_is_drawn_later_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OVERTAKEN_MAX", 1)
    trials = after(exposure("a1", "other", run="r", task="t"), op(run="r"), verdict(success=True, run="r"))
    assert trials.add(exposure("a2", "e", run="r")) == ["e"]
    for number in range(2):
        trials.add(exposure(f"b{number}", "e", run=f"s{number}"))
    assert (trials.trial("e").exposed, trials.trial("e").lost) == (Arm(1, 0), (0, 0))
    assert trials.entries["e"].tasks == {"t": (None, True)}


def test_by_source_is_the_source_of_the_request_or_of_the_runs_first_op() -> None:
    asked = Exposure(advice_id="a1", run="r", asked_by="bot", exposed=("e",))
    trials = after(
        op(own=exposure_attrs(asked)),
        exposure("a2", "e", run="q"),
        op(source="scenario", run="q"),
        exposure("a3", "e", run="p"),
        *(verdict(success=True, run=run) for run in "rqp"),
    )
    assert set(trials.trial("e").by_source) == {"bot", "scenario", "unknown"}


def test_a_run_that_nobody_names_counts_for_the_source_in_whose_name_it_asked_first() -> None:
    asks = [op(own=exposure_attrs(Exposure(advice_id=f"a{by}", run="r", asked_by=by))) for by in ("", "bot", "mcp")]
    trials = after(*asks, exposure("a", "e", run="r"), verdict(success=True, run="r"))
    assert set(trials.trial("e").by_source) == {"bot"}


def test_the_recent_counts_begin_anew_and_a_correction_finds_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOW_RUNS", 3)
    ops = [exposure(f"a{number}", "e", run=f"r{number}") for number in range(5)]
    trials = after(*ops, *(verdict(success=True, run=f"r{number}") for number in range(5)))
    assert trials.trial("e").recent == {"unknown": Sides(exposed=Arm(2, 0))}
    trials.add(verdict(success=False, run="r0"))
    assert (trials.trial("e").exposed, trials.trial("e").recent["unknown"]) == (Arm(4, 1), Sides(exposed=Arm(2, 1)))
    trials.add(verdict(success=False, run="r4"))
    assert (trials.trial("e").exposed, trials.trial("e").recent["unknown"]) == (Arm(3, 2), Sides(exposed=Arm(1, 2)))


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, most in {"RUNS_MAX": 3, "ADVICES_MAX": 4, "DRAWS_MAX": 2, "TASKS_MAX": 2, "SOURCES_MAX": 1}.items():
        monkeypatch.setattr(module, name, most)
    trials = Trials(Kept(), nobody)
    for number in range(10):
        trials.add(exposure(f"a{number}", "e", "f", "g", run=f"r{number}", task=f"t{number}"))
        trials.add(op(source=f"s{number}", run=f"r{number}", advice_id=f"a{number}"))
    assert list(trials.runs) == ["r7", "r8", "r9"]
    assert list(trials.advices) == ["a6", "a7", "a8", "a9"]
    assert list(trials.runs["r9"].draws) == ["e", "f"]
    assert list(trials.entries["e"].tasks) == ["t8", "t9"]
    assert set(trials.trial("e").by_source) == {"s0", "other"}
    assert trials.trial("e").exposed == Arm(10, 0)


def test_what_a_run_reports_without_an_advice_id_is_for_the_newest_of_its_advice() -> None:
    asked = [Exposure(advice_id=f"a{n}", run="r", asked_by="mcp", exposed=(f"e{n}",)) for n in range(30)]
    trials = after(*(op(own=exposure_attrs(one)) for one in asked), op(run="r"))
    counted = [n for n in range(30) if trials.trial(f"e{n}").exposed == Arm(1, 0)]
    assert counted == list(range(30 - module.ADVICES_OF_RUN_MAX, 30))


def test_the_counts_are_those_of_the_draws() -> None:
    chance = random.Random(7)
    ops: list[Op] = []
    for number in range(300):
        run = f"r{chance.randrange(40)}"
        held = in_control("e", run, 0.5)
        ops.append(
            exposure(f"a{number}", *(() if held else ("e",)), control=("e",) if held else (), run=run, task=run[:2])
        )
        ops.append(op(chance.random() < 0.5, advice_id=f"a{chance.randrange(number + 1)}"))
        ops.append(verdict(chance.random() < 0.5, run=f"r{chance.randrange(80)}"))
    trials = after(*ops)
    draws = [run.draws["e"] for run in trials.runs.values()]
    arms = [[draw.counted for draw in draws if draw.exposed is exposed] for exposed in (True, False)]
    with_it, without_it = (Arm(arm.count(True), arm.count(False)) for arm in arms)
    assert (trials.trial("e").exposed, trials.trial("e").control) == (with_it, without_it)


def test_the_draw_is_even_and_independent_between_entries() -> None:
    runs = [f"run-{number}" for number in range(20_000)]
    one, other = ([in_control(entry, run, 0.3) for run in runs] for entry in ("one", "other"))
    assert sum(one) == pytest.approx(6_000, abs=250)
    assert sum(a and b for a, b in zip(one, other, strict=True)) == pytest.approx(1_800, abs=150)
    assert not any(in_control("one", run, 0.0) for run in runs)
    assert all(in_control("one", run, 1.0) for run in runs)
