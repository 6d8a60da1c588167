"""`Observer`: for programs without an event loop, or with any: what it has to send is sent by a thread of its own."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

from observer_actors.client._advice import Advice, read_advice
from observer_actors.client._delivery import Answer
from observer_actors.client._forks import IMPORTING
from observer_actors.client._guest import attempt, attempt_of_host, monotonic_s
from observer_actors.client._limits import bounded_seconds
from observer_actors.client._places import observer_base
from observer_actors.client._plain import exchange
from observer_actors.client._recorder import CLOSE_SECONDS, NO_ATTRS, Recorder
from observer_actors.client._sender import Sender

if TYPE_CHECKING:
    import os

    from observer_actors.client._observed import Observed
    from observer_actors.client._verdict import Verdict, VerdictReport


class Observer(Recorder):
    """Reports what a program does, and asks for advice. One for a whole program; any thread may use it.

    It never hurts its host: what it is told waits in a bounded queue (the oldest goes first, and is counted) until a
    daemon thread has sent it, again and again with the same id while the daemon is away. None of its methods raises,
    but for `report_verdict`, nor waits longer than is said.

    At the end of the interpreter, or of a worker of `multiprocessing`, what is left is sent within ``close_seconds``. A
    process that ends otherwise (`os._exit`, `os.exec*`, or a signal, by which the end of a `multiprocessing.Pool`'s
    block ends its workers) calls `close` itself.

    :param url: the daemon: ``http://…`` or ``unix:///PATH``; by default OBSERVER_URL, else 127.0.0.1 at OBSERVER_PORT
        or 3800. A token is taken from OBSERVER_TOKEN. Both are read anew for each request.
    :param source: who reports: mcp, scenario, auditor, bot, or a label that the daemon knows (`sources.extra`).
    :param queue_events_max: events that wait at most.
    :param linger_seconds: how long an event waits for others to go with it.
    :param close_seconds: how long the end of the program may take longer for what is left.
    :param advice_seconds: how long `advice` may take.
    :raises ConfigInvalid: one of the last four is no number. Of numbers, seconds are 0 to a day: what is beyond is
        clamped.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def advice(
        self,
        endpoint: str = "",
        *,
        input: object = "",  # noqa: A002 - as the parameter of the request is called
        role: str = "",
        run: str = "",
        task: str = "",
        attrs: Mapping[str, object] = NO_ATTRS,
        source: str = "",
        limit: int = 1,
    ) -> Advice:
        """Ask what is known about an operation that is about to be done.

        The operations at this endpoint that follow carry its ``advice_id``, so that the outcome comes back by itself:
        those of the same run, or, outside of any, those of this task or thread until it asks again (not those of who
        awaits `asyncio.to_thread` or `asyncio.gather` around this: they name a run, or the ``advice_id``). Without
        an endpoint, it is the next operation alone.

        :param run: by default that of the `run` block around it. Whether advice is given or held back is drawn by run.
        :param attrs: those that the operation will have: some advice is for operations with certain ones.
        :param source: where the operation is reported under another one than the observer's, that one: else its
            outcome is taken for somebody else's.
        :returns: an empty one when there is nothing to say, and when no answer came within ``advice_seconds``.
        """
        question = self._question(
            endpoint, input, role=role, run=run, task=task, attrs=attrs, source=source, limit=limit
        )
        if question is None:
            return Advice()
        began = monotonic_s()
        advice = attempt(None, _ask, self._url, question.target, self._advice_s)
        return self._advised_by(question, advice, took_s=monotonic_s() - began)

    def observed(
        self, endpoint: str, body: object, description: str, *, gateway_url: str | None = None, run: str = ""
    ) -> Observed:
        """POST ``body`` to the gateway, and report the outcome, as `observer_actors.client.observed` does; blocks.

        What it reports waits in the queue, so that the ``seq`` of its op is 0.
        Its source is ``mcp``, as it is there, whatever that of the observer is.
        """
        with IMPORTING:
            from observer_actors.client._blocking import to_end  # noqa: PLC0415 - for those who call a gateway
            from observer_actors.client._observed import called  # noqa: PLC0415 - likewise: httpx

        observed = to_end(partial(called, endpoint, body, description, gateway_url=gateway_url))
        self._report_op(observed.op, run)
        return observed

    def report_verdict(self, verdict: Verdict, *, data_dir: str | os.PathLike[str] | None = None) -> VerdictReport:
        """Write a verdict, tell the daemon, and add a row to the knowledge base; blocks until that is done.

        :raises DiskFailed: the verdict is not on disk, which an auditor has to know.
        :raises EventInvalid: its signature or its overall holds a secret; nothing was done.
        """
        with IMPORTING:
            from observer_actors.client._blocking import to_end  # noqa: PLC0415 - as above
            from observer_actors.client._verdict import report_verdict  # noqa: PLC0415 - as above

        return to_end(partial(report_verdict, verdict, data_dir=data_dir, observer_url=self._url))

    def flush(self, seconds: float = CLOSE_SECONDS) -> bool:
        """Send what is there; say whether all of it is accepted or refused within the limit.

        :param seconds: 2 unless given, whatever ``close_seconds`` is; what is no number is taken for that, too.
        """
        return self._sender.flush(attempt_of_host(CLOSE_SECONDS, bounded_seconds, "seconds", seconds))

    def close(self) -> None:
        """Send what is left, within ``close_seconds``, and end the thread.

        What was on its way before, to a daemon that hangs, counts as waiting until that request is over: 10 s at most.
        """
        self._sender.close()

    def _begin(self) -> None:
        self._sender = Sender(self._outbox, partial(_send, self._url), linger_s=self._linger_s, close_s=self._close_s)
        weakref.finalize(self, self._sender.end).atexit = False

    def _queued(self) -> None:
        self._sender.start()


def _send(url: str | None, content: bytes, seconds: float) -> Answer:
    return exchange(observer_base(url), "POST", "/events", content=content, seconds=seconds)


def _ask(url: str | None, target: str, seconds: float) -> Advice | None:
    return read_advice(exchange(observer_base(url), "GET", target, seconds=seconds))
