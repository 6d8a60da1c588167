"""What both observers have: operations become events in the outbox. No I/O, and nothing of it raises into the host."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final, ParamSpec, TypeVar, cast
from uuid import uuid4

from msgspec import UNSET

from observer_actors.client._advice import Advice, Patience, Question, ask
from observer_actors.client._decorated import decorated
from observer_actors.client._guest import attempt_of_host, kind_of
from observer_actors.client._ledger import warn_once
from observer_actors.client._limits import bounded_events, bounded_seconds
from observer_actors.client._operation import Operation
from observer_actors.client._outbox import ObserverStatistics, Outbox, OutgoingEvent, new_id
from observer_actors.client._runs import Advised, current_run, run_block
from observer_actors.client._texts import error_text, scalars, text
from observer_actors.op import Op, Scalar, iso_milliseconds

P = ParamSpec("P")
T = TypeVar("T")

QUEUE_EVENTS_MAX: Final = 10_000
"""A quarter of an hour of an agent that does ten things a second."""
LINGER_SECONDS: Final = 0.5
CLOSE_SECONDS: Final = 2.0
ADVICE_SECONDS: Final = 0.25
"""Fifty times what the daemon takes at its slowest; beyond it, an agent does better without."""
SLOW_S: Final = 0.05
"""An answer about advice, or none, that took longer is one that the host has waited for."""
NO_ATTRS: Final[Mapping[str, object]] = {}


class Recorder:
    """Makes events of operations; what is given to it is said in `Observer`."""

    def __init__(
        self,
        url: str | None = None,
        *,
        source: str = "bot",
        queue_events_max: int = QUEUE_EVENTS_MAX,
        linger_seconds: float = LINGER_SECONDS,
        close_seconds: float = CLOSE_SECONDS,
        advice_seconds: float = ADVICE_SECONDS,
    ) -> None:
        self._url = url
        self._source = text(source)
        self._linger_s = bounded_seconds("linger_seconds", linger_seconds)
        self._close_s = bounded_seconds("close_seconds", close_seconds)
        self._advice_s = bounded_seconds("advice_seconds", advice_seconds)
        self._outbox = Outbox(bounded_events("queue_events_max", queue_events_max))
        self._advised = Advised()
        self._patience = Patience()
        self._begin()

    def operation(
        self,
        endpoint: str,
        *,
        input_summary: object = "",
        run: str = "",
        role: str = "",
        advice_id: str = "",
        source: str = "",
        attrs: Mapping[str, object] = NO_ATTRS,
    ) -> Operation:
        """Report what is done in a ``with`` block: how long it took, whether it went well, and what went wrong.

        :param endpoint: what is called, such as ``sql:run``.
        :param input_summary: what goes in, as it is when the block begins: a text, or what is shown as JSON; 10,000
            characters are kept.
        :param run: of which it is a step; by default that of the `run` block around it.
        :param advice_id: the advice that it follows; by default what was advised on its endpoint, in its run.
        :param attrs: 32 scalars at most; what is none is made a text. A ``run`` or an ``advice_id`` among them counts
            as if it were given by name, unless one is.
        """
        operation = Operation(self, endpoint, input_summary, source)
        operation.run = run
        operation.role = role
        operation.advice_id = advice_id
        if attrs is not NO_ATTRS:
            attempt_of_host(None, operation.attrs.update, attrs)
        return operation

    @contextmanager
    def run(self, name: str = "") -> Iterator[str]:
        """Let what this task or thread does in the block belong to one run: operations, and the advice for them.

        A thread that is started within it is another one: hand it a copy of the context (`contextvars.copy_context`).
        In a generator it is the run of whoever goes on with that, too, until it is closed, and there is none in a step
        that another thread goes on with: give its operations the ``run`` by name.

        :param name: of the run; one is made unless it is given.
        """
        name = text(name) or uuid4().hex
        with run_block(name):
            yield name

    def observed_as(
        self,
        endpoint: str,
        *,
        input_summary: Callable[..., object] | str = "",
        output_summary: Callable[[Any], object] | str | None = None,
    ) -> Callable[[Callable[P, T]], Callable[P, T]]:
        """Decorate what can be called: each call of it is an operation.

        What a coroutine function, a generator or an asynchronous generator does is an operation from its first step to
        its last: until it is exhausted or closed, or raises.

        :param endpoint: what is called, such as ``sql:run``. Where it was forgotten, with the parentheses, it is the
            function's own name.
        :param input_summary: made of the call's arguments, if it is a function.
        :param output_summary: made of what the call returns, if it is a function; an async generator gives None.
        """
        bare: Any = endpoint
        if (own_name := attempt_of_host(None, getattr, bare, "__qualname__", None)) is not None:
            return self.observed_as(own_name)(bare)

        def begin(*arguments: Any, **named: Any) -> Operation:  # noqa: ANN401 - whatever the function takes
            summary = (
                attempt_of_host("", input_summary, *arguments, **named) if callable(input_summary) else input_summary
            )
            return self.operation(endpoint, input_summary=summary)

        def end(operation: Operation, result: object) -> None:
            said = attempt_of_host(None, output_summary, result) if callable(output_summary) else output_summary
            operation.output_summary = said

        def decorate(function: Callable[P, T]) -> Callable[P, T]:
            return cast("Callable[P, T]", decorated(function, begin, end))

        return decorate

    def statistics(self) -> ObserverStatistics:
        """Give the counts: what became of everything that this observer was told."""
        return self._outbox.statistics()

    def begun(self, operation: Operation) -> Mapping[str, object]:
        """See what run an operation belongs to, what was advised on it, and what goes in. Called by `Operation`."""
        return attempt_of_host({}, self._place, operation)

    def ended(
        self, operation: Operation, seconds: float, error: BaseException | None, inferred: Mapping[str, object]
    ) -> None:
        """Report an operation. Called by `Operation`."""
        if error is not None and not isinstance(error, Exception):
            self._outbox.count(cancelled=1)
            return
        self._report(attempt_of_host(None, self._event, operation, seconds, error, inferred))

    def _report(self, event: OutgoingEvent | None) -> None:
        if event is None:
            self._outbox.count(unusable=1)
            warn_once("event_unusable", kind_of(self), "what an operation was given cannot be read")
            return
        self._outbox.put(event)
        self._queued()

    def _report_op(self, op: Op, run: str) -> None:
        """Queue what `observed` has made of a call."""
        operation = self.operation(op.endpoint, input_summary=op.input_summary, run=run, source=op.source)
        operation.output_summary = op.output_summary
        operation.failure = None if op.success else op.error
        if op.attrs is not UNSET:
            operation.attrs.update(op.attrs)
        event = attempt_of_host(None, self._event, operation, op.duration_ms / 1e3, None, self.begun(operation))
        if event is not None and op.id is not UNSET:
            event.id, event.timestamp = op.id, op.timestamp
        self._report(event)

    def _begin(self) -> None:
        """Make what sends."""

    def _queued(self) -> None:
        """See to it that somebody sends it."""

    def _place(self, operation: Operation) -> Mapping[str, object]:
        attrs = _attributes(operation)
        inferred: dict[str, object] = {}
        if not text(operation.run):
            operation.run = inferred["run"] = text(attrs.get("run")) or current_run()
        if not text(operation.advice_id):
            operation.advice_id = inferred["advice_id"] = text(attrs.get("advice_id")) or self._advised.advice_id(
                text(operation.run), text(operation.endpoint)
            )
        if type(operation.input_summary) is not str:  # a list of messages, say, to which the block adds the answer
            operation.input_summary = text(operation.input_summary)
        return inferred

    def _event(
        self, operation: Operation, seconds: float, error: BaseException | None, inferred: Mapping[str, object]
    ) -> OutgoingEvent:
        failure = operation.failure if error is None else error
        if issubclass(type(failure), BaseException):  # `isinstance` would ask the host's own `__class__`
            failure = error_text(cast("BaseException", failure))
        said = operation.output_summary
        attrs = _attributes(operation)
        known: dict[str, Scalar] = {}
        for name, value in (("run", operation.run), ("advice_id", operation.advice_id)):
            # What the block has set among the attributes was said, and so counts before what was taken to be so.
            given = text(attrs.get(name)) if value is inferred.get(name) else ""
            if said_so := given or text(value):
                known[name] = said_so
        return OutgoingEvent(
            new_id(),
            iso_milliseconds(datetime.now(UTC)),
            text(operation.source) or self._source,
            text(operation.endpoint),
            text(operation.input_summary),
            failure is None,
            round(seconds * 1e3, 3),
            None if said is None else text(said),
            UNSET if failure is None else text(failure) or "failed",
            text(operation.role) or UNSET,
            scalars(attrs, known) if known or attrs else UNSET,
        )

    def _question(self, endpoint: str, given: object, *, source: str, **more: Any) -> Question | None:  # noqa: ANN401 - as `ask` has them
        """Put the question; None when it is not to be asked now, or cannot be."""
        question = attempt_of_host(None, ask, endpoint, given, source=text(source) or self._source, **more)
        if question is None:
            warn_once("question_unusable", kind_of(self), "what advice was asked for cannot be read")
        elif not question.run:
            self._advised.forget(question.endpoint)
        return None if self._patience.is_over() else question

    def _advised_by(self, question: Question, advice: Advice | None, *, took_s: float) -> Advice:
        """Count an answer about advice, and keep what it was for."""
        if advice is None:
            if took_s > SLOW_S:  # who refuses at once costs nothing to be asked again
                self._patience.failed()
            self._outbox.count(advice_asked=1, advice_failed=1)
            return Advice()
        self._patience.answered()
        self._outbox.count(advice_asked=1)
        if advice.advice_id:
            self._advised.note(question.run, question.endpoint, advice.advice_id)
        return advice


def _attributes(operation: Operation) -> Mapping[str, object]:
    """Give what was set among the attributes, and by names that an operation does not know."""
    attrs: Any = operation.attrs
    if type(attrs) is not dict:  # a kind of the host's: what cannot be read costs the attributes, and not the event
        attrs = attempt_of_host(None, _copied, attrs)
        if attrs is None:
            kind = kind_of(operation.attrs)
            warn_once("attributes_unusable", kind, "attributes are a mapping; the event goes without them")
            attrs = {}
    return {**attrs, **others} if (others := vars(operation)) else attrs


def _copied(attrs: object) -> dict[Any, object] | None:
    return {**attrs} if isinstance(attrs, Mapping) else None
