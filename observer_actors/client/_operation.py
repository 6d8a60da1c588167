"""One operation under way: a block whose time, outcome and error are taken by themselves."""

from __future__ import annotations

from time import perf_counter
from types import TracebackType
from typing import Protocol, Self


class Reporter(Protocol):
    """Who is told about an operation."""

    def begun(self, operation: Operation) -> None:
        """It begins."""

    def ended(self, operation: Operation, seconds: float, error: BaseException | None) -> None:
        """It is over."""


class Operation:
    """What `Observer.operation` gives: use it in a ``with`` block, once.

    An exception that leaves the block makes it a failure, and goes on its way. Cancellation and interruption (whatever
    is no `Exception`) say nothing about the operation: it is not reported, only counted.
    """

    __slots__ = (
        "_began",
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

    def __enter__(self) -> Self:
        self._reporter.begun(self)
        self._began = perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._reporter.ended(self, perf_counter() - self._began, error)
        except Exception:  # noqa: BLE001 - the stack may be so full that even counting it is too much
            return
