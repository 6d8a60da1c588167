"""One operation under way: a block whose time, outcome and error are taken by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from types import TracebackType
from typing import Protocol, Self

from observer_actors.client._guest import attempt_of_host


class Reporter(Protocol):
    """Who is told about an operation."""

    def begun(self, operation: Operation) -> Mapping[str, object]:
        """It begins. Gives what was not said of it, and is taken to be so."""

    def ended(
        self, operation: Operation, seconds: float, error: BaseException | None, inferred: Mapping[str, object]
    ) -> None:
        """It is over."""


class Operation:
    """What `Observer.operation` gives: use it in a ``with`` block, once.

    An exception that leaves the block makes it a failure, and goes on its way. Cancellation and interruption (whatever
    is no `Exception`) say nothing about the operation: it is not reported, only counted.

    What is set under another name than those below is kept as an attribute, as the daemon keeps a field that it does
    not know: a name that is none must not raise into the host.
    """

    __slots__ = (
        "__dict__",
        "_began",
        "_inferred",
        "_reporter",
        "advice_id",
        "attrs",
        "endpoint",
        "failure",
        "input_summary",
        "output_summary",
        "role",
        "run",
        "source",
    )

    def __init__(self, reporter: Reporter, endpoint: str, input_summary: object, source: str) -> None:
        self._reporter = reporter
        self._began = 0.0
        self._inferred: Mapping[str, object] = {}
        self.endpoint = endpoint
        self.input_summary = input_summary
        self.source = source
        self.output_summary: object = None
        """What came out; as all summaries, a text, or what is shown as JSON."""
        self.failure: object = None
        self.role = ""
        self.run = ""
        """The run that it belongs to; by default that of the block that `Observer.run` has opened."""
        self.advice_id = ""
        """The advice that it followed; by default what was advised on its endpoint, in its run."""
        self.attrs: dict[str, object] = {}
        """Scalars to be kept with it."""

    def fail(self, error: object) -> None:
        """Make it a failure without raising: an answer that says no, a check that does not hold, an error in hand."""
        self.failure = "failed" if error is None else error

    @property
    def success(self) -> object:
        """Whether it went well so far; False makes it a failure as `fail` does, True takes that back.

        An exception that leaves the block is a failure whatever stands here.
        """
        return self.failure is None

    @success.setter
    def success(self, value: object) -> None:
        if attempt_of_host(False, bool, value):
            self.failure = None
        elif self.failure is None:
            self.failure = "failed"

    ok = success
    """By its other name in an event."""

    @property
    def error(self) -> object:
        """What went wrong, by its name in an event; the same as `failure`. An empty text says nothing."""
        return self.failure

    @error.setter
    def error(self, value: object) -> None:
        if type(value) is not str or value:
            self.failure = value

    def __enter__(self) -> Self:
        self._inferred = self._reporter.begun(self)
        self._began = perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._reporter.ended(self, perf_counter() - self._began, error, self._inferred)
        except Exception:  # noqa: BLE001 - the stack may be so full that even counting it is too much
            return
