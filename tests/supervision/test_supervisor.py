from __future__ import annotations

import gc

import pytest
import trio
import trio.testing

from observer_actors.supervision import (
    ActorFailed,
    ActorParked,
    ActorStarted,
    ActorStopped,
    ChildSpec,
    Exhausted,
    GivenUp,
    Life,
    RestartPolicy,
    RestartScheduled,
    RestartsExhausted,
    ShutdownForced,
    Strategy,
)
from tests.supervision.injected_time import injected_time
from tests.supervision.scripted import Tree, crashes, drain, serve


def slow(ready_after_s: float) -> ChildSpec:
    async def run(life: Life) -> None:
        await trio.sleep(ready_after_s)
        await serve(life)

    return ChildSpec("slow", run)


@injected_time
async def test_children_start_in_order_each_after_the_one_before_is_ready() -> None:
    tree = Tree(slow(3), ChildSpec("b", serve), ChildSpec("c", serve))
    async with tree.running():
        assert tree.at() == [(3, "slow"), (3, "b"), (3, "c")]
        assert tree.states() == ["running"] * 3


@injected_time
async def test_children_stop_in_reverse_each_after_the_one_before_is_gone() -> None:
    async def lingers(life: Life) -> None:
        await drain(life)
        await trio.sleep(2)

    tree = Tree(*(ChildSpec(name, lingers, drains=True, stop_s=5) for name in "abc"))
    async with tree.running():
        await tree.stop()
        assert tree.at(ActorStopped) == [(2, "c"), (4, "b"), (6, "a")]
        assert tree.states() == ["stopped"] * 3
        assert tree.error is None


@injected_time
async def test_a_crash_restarts_only_that_child_with_growing_delays() -> None:
    tree = Tree(ChildSpec("a", serve), ChildSpec("b", crashes(times=3)))
    async with tree.running():
        await trio.sleep(20)
        assert tree.at(ActorStarted) == [(0, "a"), (0, "b"), (1, "b"), (3, "b"), (7, "b")]
        assert tree.told(ActorFailed)[0] == ActorFailed(actor="b", error="ValueError: crashed")


@injected_time
async def test_progress_resets_the_delay() -> None:
    tree = Tree(ChildSpec("a", crashes(times=3, progress=True)))
    async with tree.running():
        await trio.sleep(20)
        assert tree.at(ActorStarted) == [(0, "a"), (1, "a"), (2, "a"), (3, "a")]


@injected_time
async def test_progress_of_a_child_is_progress_of_its_supervisor() -> None:
    async def works(life: Life) -> None:
        life.progress()
        await serve(life)

    tree = Tree(ChildSpec("a", works))
    async with tree.running():
        assert tree.progress == 1


@injected_time
async def test_one_crash_too_many_stops_the_others_in_reverse_and_escalates() -> None:
    tree = Tree(ChildSpec("a", serve), ChildSpec("b", crashes()), ChildSpec("c", serve))
    async with tree.running():
        await tree.over.wait()
        assert isinstance(tree.error, GivenUp), "the error itself, not a group"
        assert isinstance(tree.error.__cause__, ValueError)
        assert str(tree.error) == "b failed 4 times in 100 s: ValueError: crashed"
        assert tree.told()[-3:] == [
            RestartsExhausted(actor="top", failed="b"),
            ActorStopped(actor="c"),
            ActorStopped(actor="a"),
        ]
        assert tree.states() == ["stopped"] * 3


@injected_time
async def test_rest_for_one_stops_those_after_in_reverse_and_starts_them_in_order() -> None:
    tree = Tree(
        *(ChildSpec(name, crashes(5, times=1) if name == "b" else serve) for name in "abcd"),
        strategy=Strategy.REST_FOR_ONE,
    )
    async with tree.running():
        await trio.sleep(20)
        assert [(when, type(event).__name__, event.actor) for when, event in tree.log[4:]] == [
            (5, "ActorFailed", "b"),
            (5, "ActorStopped", "d"),
            (5, "ActorStopped", "c"),
            *[(5, "RestartScheduled", name) for name in "bcd"],
            *[(6, "ActorStarted", name) for name in "bcd"],
        ]
        assert tree.told(RestartScheduled)[1] == RestartScheduled(actor="c", delay_s=1, because_of="b")


@injected_time
async def test_a_second_crash_while_the_group_starts_again_is_dealt_with_at_once() -> None:
    async def waits_for_a(life: Life) -> None:
        if life.incarnation == 2:
            await trio.sleep_forever()
        await serve(life)

    tree = Tree(
        ChildSpec("a", crashes(3, times=2)),
        ChildSpec("b", waits_for_a, start_s=50),
        strategy=Strategy.REST_FOR_ONE,
    )
    async with tree.running():
        await trio.sleep(30)
        assert tree.at(ActorFailed) == [(3, "a"), (7, "a")], "not after the 50 s that b may take to start"
        assert tree.at(ActorStarted) == [(0, "a"), (0, "b"), (4, "a"), (9, "a"), (9, "b")]


@injected_time
async def test_two_that_crash_together_are_both_told_and_restarted_once() -> None:
    tree = Tree(
        ChildSpec("a", crashes(5, times=1)), ChildSpec("b", crashes(5, times=1)), strategy=Strategy.REST_FOR_ONE
    )
    async with tree.running():
        await trio.sleep(20)
        assert tree.at(ActorFailed) == [(5, "a"), (5, "b")]
        assert tree.at(ActorStarted)[2:] == [(6, "a"), (6, "b")]


@injected_time
async def test_a_slow_starter_does_not_keep_another_ones_failure_waiting() -> None:
    tree = Tree(ChildSpec("a", crashes(1, times=1)), slow(9))
    async with tree.running():
        assert tree.at(ActorFailed, ActorStarted) == [(0, "a"), (1, "a"), (2, "a"), (9, "slow")]


@pytest.mark.parametrize("says_ready", [True, False])
@injected_time
async def test_returning_unasked_is_a_failure(*, says_ready: bool) -> None:
    async def returns(life: Life) -> None:
        if life.incarnation > 1:
            await serve(life)
        if says_ready:
            life.ready()

    tree = Tree(ChildSpec("a", returns), ChildSpec("b", serve))
    async with tree.running():
        await trio.sleep(5)
        assert tree.told(ActorFailed) == [ActorFailed(actor="a", error="NotServing: a returned without being told to")]
        assert [when for when, name in tree.at(ActorStarted) if name == "a"][-1] == 1


@injected_time
async def test_a_child_that_never_gets_ready_is_given_up_on_and_tried_again() -> None:
    async def mute(life: Life) -> None:
        if life.incarnation > 1:
            life.ready()
        try:
            await trio.sleep_forever()
        finally:
            if life.incarnation == 1:
                raise ValueError("and dirty")

    tree = Tree(ChildSpec("a", mute, start_s=7), ChildSpec("b", serve))
    async with tree.running():
        await trio.sleep(20)
        assert tree.told(ActorFailed) == [
            ActorFailed(
                actor="a",
                error="NotServing: a was not ready within 7 s; while it was stopped: ValueError: and dirty",
            )
        ]
        assert tree.at(ActorStarted) == [(7, "b"), (8, "a")]


@injected_time
async def test_one_that_does_not_start_and_ignores_being_cancelled_holds_up_no_sibling_that_runs() -> None:
    async def stubborn(life: Life) -> None:
        if life.incarnation > 1:
            life.ready()
        with trio.CancelScope(shield=life.incarnation == 1):
            await trio.sleep(100)

    tree = Tree(ChildSpec("a", crashes(20, times=1)), ChildSpec("b", stubborn, start_s=5))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tree.run)
        await trio.sleep(50)
        assert tree.at(ActorStarted) == [(0, "a"), (21, "a")]
        nursery.cancel_scope.cancel()


@injected_time
async def test_one_that_gets_ready_on_its_way_out_was_not_ready_in_time() -> None:
    async def late(life: Life) -> None:
        try:
            if life.incarnation == 1:
                await trio.sleep_forever()
        finally:
            life.ready()
        await serve(life)

    tree = Tree(ChildSpec("a", late, start_s=7))
    async with tree.running():
        await trio.sleep(20)
        assert tree.told(ActorFailed) == [ActorFailed(actor="a", error="NotServing: a was not ready within 7 s")]
        assert tree.at(ActorStarted) == [(8, "a")]


@injected_time
async def test_stop_while_starting_does_not_wait_for_ready() -> None:
    tree = Tree(slow(9), ChildSpec("b", serve))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tree.run)
        await trio.sleep(2)
        await tree.stop()
        assert tree.at() == [(2, "slow")]
        assert tree.told() == [ActorStopped(actor="slow")]
        assert tree.states() == ["stopped"] * 2


@injected_time
async def test_told_to_stop_before_it_began_it_starts_nothing_for_long() -> None:
    tree = Tree(ChildSpec("a", serve))
    tree.life.stopping.set()
    await tree.run()
    assert tree.states() == ["stopped"]
    assert tree.error is None


@injected_time
async def test_stop_during_backoff_starts_nothing_more() -> None:
    tree = Tree(ChildSpec("a", crashes()), ChildSpec("b", serve))
    async with tree.running():
        await trio.sleep(0.5)
        await tree.stop()
        assert tree.at(ActorStarted) == [(0, "a"), (0, "b")]
        assert tree.at(ActorStopped) == [(0.5, "b")]
        assert tree.states() == ["stopped"] * 2


@injected_time
async def test_stop_while_a_group_is_being_stopped_restarts_nothing() -> None:
    async def lingers(life: Life) -> None:
        await drain(life)
        await trio.sleep(4)

    tree = Tree(
        ChildSpec("a", crashes(5)),
        ChildSpec("b", lingers, drains=True, stop_s=5),
        strategy=Strategy.REST_FOR_ONE,
    )
    async with tree.running():
        await trio.sleep(6)
        await tree.stop()
        assert tree.told(RestartScheduled) == []
        assert tree.log[-1] == (9, ActorStopped(actor="b"))


@injected_time
async def test_a_child_over_its_stop_budget_is_cancelled_and_that_is_told() -> None:
    async def deaf(life: Life) -> None:
        life.at("dreaming")
        await serve(life)

    tree = Tree(ChildSpec("a", deaf, drains=True, stop_s=3))
    async with tree.running():
        await tree.stop()
        assert tree.log[1:] == [
            (3, ShutdownForced(actor="a", budget_s=3, step="dreaming")),
            (3, ActorStopped(actor="a")),
        ]


@injected_time
async def test_a_shielded_clean_up_beyond_the_budget_is_waited_for_and_told() -> None:
    async def tidy(life: Life) -> None:
        try:
            await serve(life)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(8)

    tree = Tree(ChildSpec("a", tidy, stop_s=3))
    async with tree.running():
        await tree.stop()
        assert tree.log[1:] == [(3, ShutdownForced(actor="a", budget_s=3)), (8, ActorStopped(actor="a"))]


@pytest.mark.parametrize("in_nursery", [False, True])
@injected_time
async def test_an_error_while_stopping_is_recorded_beside_the_stop_and_is_no_crash(*, in_nursery: bool) -> None:
    async def dirty(life: Life) -> None:
        try:
            await serve(life)
        finally:
            raise ValueError("left a mess")

    async def with_nursery(life: Life) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await dirty(life)

    tree = Tree(ChildSpec("a", with_nursery if in_nursery else dirty))
    async with tree.running():
        await tree.stop()
        assert tree.told()[1:] == [ActorStopped(actor="a", error="ValueError: left a mess")]
        assert tree.supervisor.statistics()[0].last_error == "ValueError: left a mess"
        assert tree.error is None


@injected_time
async def test_the_leaves_of_a_group_of_errors_are_named() -> None:
    async def fail(text: str) -> None:
        raise ValueError(text)

    async def run(life: Life) -> None:
        life.ready()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail, "one")
            nursery.start_soon(fail, "two\nwith a second line")

    tree = Tree(ChildSpec("a", run))
    async with tree.running():
        await trio.sleep(0.5)
        (failed,) = tree.told(ActorFailed)
        assert isinstance(failed, ActorFailed)
        assert sorted(failed.error.split("; ")) == ["ValueError: one", "ValueError: two"]


@injected_time
async def test_an_exhausted_child_is_parked_retried_slowly_and_unparked_by_progress() -> None:
    async def run(life: Life) -> None:
        life.ready()
        if life.incarnation == 6:
            life.progress()
        if life.incarnation < 8:
            raise ValueError("crashed")
        await trio.sleep_forever()

    tree = Tree(
        ChildSpec("a", run),
        policy=RestartPolicy(intensity=3, window_s=50.0, backoff_first_s=1.0, backoff_max_s=4.0),
        exhausted=Exhausted.PARK,
        park_s=60.0,
    )
    async with tree.running():
        await trio.sleep(10)
        assert tree.states() == ["parked"]
        await trio.sleep(200)
        assert tree.at(ActorParked) == [(7, "a"), (67, "a")]
        assert [when for when, _ in tree.at(ActorStarted)] == [0, 1, 3, 7, 67, 127, 128, 130]
        assert tree.states() == ["running"]


@injected_time
async def test_a_supervisor_that_escalates_is_restarted_with_a_clean_history() -> None:
    inner = Tree(ChildSpec("a", crashes(times=6)), name="inner", policy=RestartPolicy(2, 100.0, 1.0, 4.0))
    outer = Tree(inner.supervisor.as_child(), ChildSpec("b", serve))
    async with outer.running():
        await trio.sleep(60)
        assert inner.at(ActorStarted) == [(when, "a") for when in (0, 1, 3, 4, 5, 7, 9)]
        assert inner.at(RestartsExhausted) == [(3, "inner"), (7, "inner")]
        (failed, _) = outer.told(ActorFailed)
        assert isinstance(failed, ActorFailed)
        assert failed.error == "GivenUp: a failed 3 times in 100 s: ValueError: crashed"
        (shown, _) = outer.supervisor.statistics()
        assert (shown.state, shown.restarts, shown.children[0].restarts) == ("running", 2, 6)


@injected_time
async def test_a_supervisor_cut_short_tells_what_became_of_its_children() -> None:
    inner = Tree(ChildSpec("a", serve), ChildSpec("b", drain, drains=True), name="inner")
    async with inner.running():
        pass
    assert inner.told(ActorStopped) == [ActorStopped(actor="b"), ActorStopped(actor="a")]
    assert inner.states() == ["stopped"] * 2


@injected_time
async def test_only_errors_are_caught_cancellation_and_interrupts_go_through() -> None:
    async def interrupted(life: Life) -> None:
        life.ready()
        raise KeyboardInterrupt

    tree = Tree(ChildSpec("a", interrupted), ChildSpec("b", serve))
    with pytest.raises(BaseExceptionGroup) as caught:
        await tree.run()
    assert caught.group_contains(KeyboardInterrupt)
    assert tree.states() == ["stopped"] * 2


@injected_time
async def test_a_step_hook_makes_an_actor_crash_at_its_step() -> None:
    def on_step(name: str, step: str) -> None:
        raise ValueError(f"{name} at {step}")

    async def run(life: Life) -> None:
        life.ready()
        life.at("writing")

    tree = Tree(ChildSpec("a", run), on_step=on_step)
    async with tree.running():
        assert tree.told(ActorFailed) == [ActorFailed(actor="a", error="ValueError: a at writing", step="writing")]


@injected_time
async def test_statistics_show_since_when() -> None:
    tree = Tree(ChildSpec("a", crashes(2, times=1)))
    async with tree.running():
        await trio.sleep(2.5)
        (shown,) = tree.supervisor.statistics()
        assert (shown.state, shown.since_s, shown.last_error) == ("backing_off", 0.5, "ValueError: crashed")
        await trio.sleep(10)
        (shown,) = tree.supervisor.statistics()
        assert (shown.state, shown.since_s, shown.incarnation, shown.restarts) == ("running", 9.5, 2, 1)


@injected_time
async def test_a_thousand_restarts_leave_nothing_behind() -> None:
    policy = RestartPolicy(2_000, 1.0, 1.0, 1.0)
    tree = Tree(ChildSpec("a", crashes(progress=True)), policy=policy)
    async with tree.running():
        await trio.sleep(1_000.5)
        gc.collect()
        lives = sum(isinstance(thing, Life) and thing.name == "a" for thing in gc.get_objects())
        assert tree.supervisor.statistics()[0].restarts == 1_000
        assert lives <= 2


@injected_time
async def test_an_actor_that_fails_because_its_supervisor_was_cancelled_is_recorded_and_nothing_else_is_let_out() -> (
    None
):
    async def fails_on_its_way_out(life: Life) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            life.ready()
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("late")

    inner = Tree(ChildSpec("a", fails_on_its_way_out), name="inner")
    tree = Tree(inner.supervisor.as_child())
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tree.supervisor.run, tree.life)
            await tree.life.wait_ready()
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert inner.told(ActorStopped) == [ActorStopped(actor="a", error="ValueError: late")]
    assert tree.told(ActorStopped) == [ActorStopped(actor="inner")]
