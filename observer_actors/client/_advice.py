"""Advice: what the daemon has to say before an operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple
from urllib.parse import urlencode

import msgspec

from observer_actors.backoff import backoff_s
from observer_actors.client._delivery import Answer
from observer_actors.client._guest import monotonic_s
from observer_actors.client._ledger import warn_once
from observer_actors.client._runs import current_run
from observer_actors.client._texts import advice_query, run_name, scalars, text
from observer_actors.labels import bounded_label
from observer_actors.problems import UNREADABLE, read_problem
from observer_actors.quoting import INTRODUCTION, line

INPUT_CHARS_MAX: Final = 2_000
"""Of an input, in a URL: enough to match words by."""
LIMIT_MAX: Final = 3
"""Entries that the daemon gives at most."""
_OK: Final = 200
_REFUSED: Final = frozenset(range(400, 500)) - {408, 425, 429}
"""Asking again changes nothing: no entry, another name of the daemon's, a question that is too long for a proxy."""
_SCOPE_HINT: Final = "advice takes a token with the scope read: a token for reporting has none"
_HINTS: Final[Mapping[int, str]] = {401: _SCOPE_HINT, 403: _SCOPE_HINT, 404: "is OBSERVER_URL right?"}
PAUSE_S_MIN: Final = 1.0
PAUSE_S_MAX: Final = 30.0


class AdviceEntry(msgspec.Struct, frozen=True):
    """One entry of the playbook."""

    id: str
    kind: str = ""
    """``do``, ``avoid`` or ``recipe``."""
    text: str = ""
    endpoint: str = ""


class Advice(msgspec.Struct, frozen=True):
    """What there is to say; false, and "" as a text, when that is nothing.

    The ``advice_id`` is there also when there are no entries: then this run is the control, and its outcome counts.
    """

    advice_id: str = ""
    entries: tuple[AdviceEntry, ...] = ()

    def __bool__(self) -> bool:
        """Say whether there is anything to tell."""
        return bool(self.entries)

    def __str__(self) -> str:
        """Give the entries as Markdown for a prompt, one a line, quoted as the daemon quotes them."""
        if not self.entries:
            return ""
        lines = [line(entry.kind, entry.endpoint, entry.text) for entry in self.entries]
        return "\n".join([INTRODUCTION, "", *lines])


_advices: Final = msgspec.json.Decoder(Advice)  # here, as in `journal.format`: a host may ask in several threads


class Question(NamedTuple):
    """What is asked, and about what."""

    target: str
    """Path and query."""
    endpoint: str
    run: str
    """By its whole name."""


def ask(
    endpoint: object,
    given: object,
    *,
    role: object,
    run: object,
    task: object,
    attrs: Mapping[str, object],
    source: str,
    limit: int,
) -> Question:
    """Put a question in the words of the request.

    :param run: "" for the run of the block around us; it is sent as `run_name` has it, as in an event.
    :param task: any text; of a long one the beginning and a hash are sent.
    """
    run = text(run) or current_run()
    asked = {
        "endpoint": text(endpoint),
        "input": text(given)[:INPUT_CHARS_MAX],
        "role": text(role),
        "run": run_name(run),
        "task": bounded_label(text(task), "task"),
        "attrs": msgspec.json.encode(scalars(attrs, {})).decode() if attrs else "",
        "source": source,
    }
    query = urlencode(advice_query({**asked, "limit": str(min(max(limit, 1), LIMIT_MAX))}))
    return Question(f"/advice?{query}", asked["endpoint"], run)


def read_advice(answer: Answer) -> Advice | None:
    """Read the answer; None when it is none. What the daemon has against the question is logged, once."""
    if answer.status in _REFUSED:
        problem = read_problem(answer.body)
        hint = problem.hint or _HINTS.get(answer.status, "")
        warn_once("advice_refused", problem.detail or f"answered {answer.status}", hint)
    if answer.status != _OK:
        return None
    try:
        return _advices.decode(answer.body)
    except UNREADABLE:
        return None


class Patience:
    """Whether to ask at all: a daemon that did not answer in time is left alone for a while, longer each time.

    Else each operation of a host would wait out the whole limit for as long as the daemon hangs.

    :param clock: seconds, never going back.
    """

    def __init__(self, clock: Callable[[], float] = monotonic_s) -> None:
        self._clock = clock
        self._failures = 0
        self._until = float("-inf")

    def is_over(self) -> bool:
        """Say whether it is not to be asked now."""
        return self._clock() < self._until

    def answered(self) -> None:
        """Note that it answers."""
        self._failures = 0

    def failed(self) -> None:
        """Note that it does not. What was asked at the same time as the first is one failure with that."""
        if self.is_over():
            return
        self._failures += 1
        self._until = self._clock() + backoff_s(self._failures, PAUSE_S_MIN, PAUSE_S_MAX)
