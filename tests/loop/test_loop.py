"""The bounded form of the proof: the loop closes, and poison does not get in. ``make loop`` runs the campaign."""

from __future__ import annotations

import pytest

from tests.loop.campaign import Plan, Results, campaign, compared, mcnemar
from tests.loop.reading import Understood, chosen, read
from tests.loop.report import report

ISO = "a date (YYYY-MM-DD)"
BOUNDED = Plan(per_tool=5, rounds_on=32, poison_rounds=10, rounds_unseen=5)
"""With fewer rounds some of what helps is a candidate still, and half of the runs have to do without it."""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return campaign(BOUNDED, tmp_path_factory.mktemp("loop"))


def test_failures_that_can_be_known_fall_on_tasks_that_nobody_has_seen(results: Results) -> None:
    found = compared(results, "", "unseen, off", "unseen, on", curable=True)
    assert found.failed_without >= 60
    # A tenth of the runs are without advice, by chance: a fifth of them would be rare.
    assert found.fall >= 0.8
    assert (found.broken, found.p < 0.01) == (0, True)


def test_an_empty_playbook_changes_nothing(results: Results) -> None:
    found = compared(results, "", "unseen, off", "unseen, empty playbook", curable=True)
    assert (found.fixed, found.broken) == (0, 0)


def test_other_failures_do_not_get_worse(results: Results) -> None:
    for without, with_it in (("off 1", "on 1"), ("off 2", "on 2"), ("unseen, off", "unseen, on")):
        found = compared(results, "", without, with_it, curable=False)
        assert found.broken <= found.fixed or found.p > 0.05


def test_what_one_source_alone_reports_reaches_no_agent(results: Results) -> None:
    assert results.poisoned > 500
    assert any(episode.advice for arm in results.arms.values() for episode in arm.episodes)
    assert results.reached == []
    assert any("exfil" in entry["text"] for entry in results.entries)  # it was taken in, and stays where it is
    assert not any("exfil" in entry["text"] for entry in results.entries if entry["corroborated"])


def test_the_page_says_what_was_seen(results: Results) -> None:
    page = report(results, date="2026-11-22", facts={"Python": "3"})
    assert "| can be known | unseen tasks |" in page
    assert f"{results.poisoned:,} events that never were" in page


@pytest.mark.parametrize(
    ("advice", "understood"),
    [
        (
            "Call `f` with `date` being a date (YYYY-MM-DD): 42 of 42",
            Understood(values=(("date", ISO),)),
        ),
        (
            'It works with `unit` being "km" (4 of 4), not with `unit` being "mi"',
            Understood(values=(("unit", '"km"'),)),
        ),
        ("It works with the input `{a, b}` (9 of 9).", Understood(names=(frozenset("ab"),))),
        ("Before `f`, call `g`.", Understood(before=("g",))),
        ("call `g`, and then `f` again: that succeeded", Understood(before=("g",))),
        ("`f` fails with “x”. Try again later.", Understood()),
    ],
)
def test_an_agent_takes_from_advice_what_anybody_would(advice: str, understood: Understood) -> None:
    assert read(advice, "f") == understood


def test_the_way_that_fits_is_chosen_and_none_where_none_does() -> None:
    ways = [{"date": "05/20/2026"}, {"date": "2026-05-20"}]
    assert chosen(ways, Understood(values=(("date", ISO),))) == ways[1]
    assert chosen(ways, Understood(values=(("other", '"x"'),))) is None


def test_mcnemars_exact_test() -> None:
    assert mcnemar(0, 0) == mcnemar(3, 3) == 1.0
    assert mcnemar(10, 0) == pytest.approx(2 / 2**10)
    assert mcnemar(1, 7) == mcnemar(7, 1) == pytest.approx(2 * 9 / 2**8)
