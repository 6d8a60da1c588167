from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from observer_actors.supervision import RestartPolicy
from observer_actors.supervision.restart import RestartHistory

policies = st.builds(
    RestartPolicy,
    intensity=st.integers(1, 6),
    window_s=st.floats(0.1, 100),
    backoff_first_s=st.floats(0.01, 50),
    backoff_max_s=st.floats(0.01, 50),
)
moments = st.lists(st.tuples(st.floats(0, 30), st.floats(0, 1), st.booleans()), max_size=40)


@given(policies, moments)
def test_delays_stay_inside_the_cap_and_the_window_decides(
    policy: RestartPolicy, steps: list[tuple[float, float, bool]]
) -> None:
    history, now, times, streak = RestartHistory(), 0.0, list[float](), 0
    for pause, jitter, progressed in steps:
        now += pause
        if progressed:
            history, streak = history.progressed(), 0
        history, delay_s = history.failed(now, policy, jitter)
        times.append(now)
        recent = [time for time in times if now - time < policy.window_s]
        full = min(policy.backoff_max_s, policy.backoff_first_s * 2**streak)
        streak += 1
        assert history == RestartHistory(tuple(recent), streak)
        if len(recent) > policy.intensity:
            assert delay_s is None
        else:
            assert delay_s is not None
            assert full / 2 <= delay_s <= full <= policy.backoff_max_s


def test_delays_double_up_to_the_cap() -> None:
    policy = RestartPolicy(intensity=100, backoff_first_s=0.5, backoff_max_s=30.0)
    history, delays = RestartHistory(), list[float | None]()
    for _ in range(8):
        history, delay_s = history.failed(0.0, policy, 1.0)
        delays.append(delay_s)
    assert delays == [0.5, 1, 2, 4, 8, 16, 30, 30]


def test_progress_resets_the_delay_but_not_the_window() -> None:
    policy = RestartPolicy(intensity=2, backoff_first_s=1.0)
    history, first = RestartHistory().failed(0.0, policy, 1.0)
    history, second = history.progressed().failed(1.0, policy, 1.0)
    _, third = history.progressed().failed(2.0, policy, 1.0)
    assert (first, second, third) == (1.0, 1.0, None)


def test_a_long_streak_does_not_overflow() -> None:
    _, delay_s = RestartHistory(streak=10**6).failed(0.0, RestartPolicy(), 1.0)
    assert delay_s == 30.0
