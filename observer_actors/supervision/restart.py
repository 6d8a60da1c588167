"""When to restart, and when to give up: a pure value with injected time.

After Erlang's supervisors (intensity within a window) and the exponential backoff with jitter that AWS's
architecture blog made common ("Exponential Backoff And Jitter", 2015). The jitter lies inside the cap: a delay is
never longer than ``backoff_max_s``. What resets the backoff is progress, not time: an actor that runs for an hour
without finishing anything is no healthier than it was. Progress does not empty the window, so that an actor
which finishes one message and crashes on the next cannot go on for ever.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from observer_actors.backoff import backoff_s


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How many restarts, how fast.

    :param intensity: restarts allowed within ``window_s``.
    :param backoff_first_s: the longest delay before the first restart; it doubles with each failure in a row.
    """

    intensity: int = 5
    window_s: float = 30.0
    backoff_first_s: float = 0.5
    backoff_max_s: float = 30.0


@dataclass(frozen=True, slots=True)
class RestartHistory:
    """What one child has done so far.

    :param failures: times of the failures inside the window, oldest first.
    :param streak: failures since the last progress.
    """

    failures: tuple[float, ...] = ()
    streak: int = 0

    def failed(self, now: float, policy: RestartPolicy, jitter: float) -> tuple[RestartHistory, float | None]:
        """Note a failure and decide.

        :param now: seconds on any clock that does not go back.
        :param jitter: from 0 to 1; 1 gives the full delay, 0 half of it.
        :return: the new history, and the delay in seconds, or None when the restarts are exhausted.
        """
        recent = tuple(time for time in self.failures if now - time < policy.window_s)
        after = RestartHistory((*recent, now), self.streak + 1)
        if len(after.failures) > policy.intensity:
            return after, None
        return after, backoff_s(after.streak, policy.backoff_first_s, policy.backoff_max_s, jitter)

    def progressed(self) -> RestartHistory:
        """Note that the child finished something: the next delay is the first again."""
        return replace(self, streak=0) if self.streak else self
