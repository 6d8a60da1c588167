"""The thread that sends what is in an outbox, and what happens to it when the process forks or ends.

It is started by the first event, and is a daemon thread: it keeps no process alive. At the end of the interpreter each
sender has a time limit to send what is left, and what is reported even later; so it is at the end of a worker of
`multiprocessing`, once the threads that it waits for have ended, and when nobody has the observer any more. A child
process begins with an empty outbox and without a thread.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from typing import Final

from observer_actors.client._delivery import OVER, Answer, Deliveries, Delivery
from observer_actors.client._forks import renewed_after_fork
from observer_actors.client._guest import monotonic_s, tried
from observer_actors.client._outbox import Outbox, OutgoingEvent

Exchange = Callable[[bytes, float], Answer]
"""Sends a batch, within so many seconds; raises `Unreachable`."""

REQUEST_SECONDS: Final = 10.0
"""Twice what the daemon itself takes before it refuses."""
FLUSH_PAUSE_S: Final = 0.2
CLOSING_PAUSE_S: Final = 0.1
"""Between two tries while somebody waits for us."""
COUNTING_S: Final = 0.1
"""When the time is over, the thread has this long to count what it gives up. A name that is looked up may hold it for
longer, and so may a request that was on its way when closing began, for `REQUEST_SECONDS` at most: its events count as
waiting until then."""


class Sender:
    """Sends batches in the background, one after the other.

    :param linger_s: how long an event waits for others to go with it.
    :param close_s: how long closing may take.
    """

    def __init__(self, outbox: Outbox, exchange: Exchange, *, linger_s: float, close_s: float) -> None:
        self._outbox = outbox
        self._exchange = exchange
        self._linger_s = linger_s
        self._close_s = close_s
        self._deliveries = Deliveries(outbox)
        self.renew()
        renewed_after_fork(self)
        _living.add(self)

    def renew(self) -> None:
        """Begin anew, in a child process."""
        self._lock = threading.RLock()  # as in `Outbox`
        self._thread: threading.Thread | None = None
        self._runs = False
        self._deadline: float | None = None
        """None unless it is being closed."""
        self._closing = 0
        """Who closes it, and is not done."""

    def start(self) -> None:
        """Make sure that somebody sends."""
        if self._runs:
            return
        if _ended.is_set():
            self._send_here()
        else:
            self._start()

    def flush(self, seconds: float) -> bool:
        """Send what is there, and try more often; say whether all of it is accepted or refused within the limit."""
        deadline = monotonic_s() + seconds
        then = self._outbox.statistics()
        while (left_s := deadline - monotonic_s()) > 0:
            self._outbox.hurry()
            if self._outbox.wait_settled(then, min(FLUSH_PAUSE_S, left_s)):
                break
        return self._outbox.is_taken(then)

    def close(self) -> None:
        """Send what is left within the limit, and end. With what comes later it begins anew."""
        self.end()
        try:
            self.wait_ended()
        finally:
            with self._lock:
                self._closing -= 1
                self._begin_anew()

    def end(self) -> None:
        """Begin to close, for good; the limit is that of who began first."""
        with self._lock:
            self._closing += 1
            if self._deadline is None:
                self._deadline = monotonic_s() + self._close_s
        self._outbox.hurry(close=True)

    def wait_ended(self) -> None:
        """Wait until it is closed, or its time is over."""
        with self._lock:
            thread = self._thread if self._runs else None
        if thread is None:  # nothing was ever sent, or the interpreter starts no thread any more
            self._send_all()
        elif thread is not threading.current_thread():
            thread.join(max(0.0, self._left_s() + COUNTING_S))
            if thread.is_alive():
                self._deliveries.warn(OVER)

    def _start(self) -> None:
        with self._lock:
            if self._runs or self._deadline is not None:
                return
            thread = threading.Thread(target=self._run, name="observer-actors", daemon=True)
            self._runs = True
            try:
                thread.start()
            except RuntimeError:  # no thread to be had, or the interpreter ends: closing sends it
                self._runs = False
                return
            self._thread = thread
            _close_with_worker()

    def _begin_anew(self) -> None:
        """Begin anew once all who closed it are done, and its thread, too: a name that is looked up may hold that."""
        if self._closing or self._runs or self._deadline is None:
            return
        self._deadline = None
        self._outbox.reopen()
        if self._outbox.statistics().waiting:  # it came when nobody was there any more
            self._start()

    def _send_here(self) -> None:
        """Send what a late handler of the host's reports, in its thread; its limit is that of the end, begun before."""
        if self._deadline is None:
            self.end()
        self._send_all()

    def _send_all(self) -> None:
        while batch := self._outbox.wait(self._linger_s):
            self._deliver(batch)

    def _run(self) -> None:
        try:
            self._send_all()
        finally:
            with self._lock:
                self._runs = False
                self._begin_anew()

    def _deliver(self, batch: list[OutgoingEvent]) -> None:
        delivery = self._deliveries.begin(batch)
        while delivery.left:
            left_s = self._left_s()
            if left_s <= 0:
                self._deliveries.given_up(delivery.left, delivery.trouble)
                return
            answer = tried(self._send, delivery, min(REQUEST_SECONDS, left_s))
            if pause_s := self._deliveries.answered(delivery, answer):
                self._pause(pause_s)

    def _send(self, delivery: Delivery, seconds: float) -> Answer:
        return self._exchange(delivery.content(), seconds)

    def _pause(self, seconds: float) -> None:
        self._outbox.pause(seconds)
        if self._deadline is not None:
            time.sleep(min(CLOSING_PAUSE_S, max(0.0, self._left_s())))

    def _left_s(self) -> float:
        return float("inf") if self._deadline is None else self._deadline - monotonic_s()


_ended: Final = threading.Event()
"""All are closed: handlers of the host's that were registered before ours are called after it."""
_closes_with: Final[set[tuple[int, bool]]] = set()
"""The processes in which `_close_all` is seen to, and whether each was a worker by then."""
_living: Final[weakref.WeakSet[Sender]] = weakref.WeakSet()


def _close_all(living: Iterable[Sender] = _living) -> None:
    """Let all end at the same time, so that their limits do not add up.

    :param living: those of the module as it was when this was made, and registered: one that is reloaded has others.
    """
    senders = list(living)
    for sender in senders:
        sender.end()
    for sender in senders:
        sender.wait_ended()
    _ended.set()


def _close_with_worker() -> None:
    """Have all closed at the end of a worker of `multiprocessing`, which calls its own finalizers and no `atexit`.

    They are registered in the worker once it has begun: it forgets those of its parent, and those from before, when it
    loads its main module.
    """
    process, util = map(sys.modules.get, ("multiprocessing.process", "multiprocessing.util"))
    if process is None or util is None:
        return
    me = (os.getpid(), process.parent_process() is not None)
    if me in _closes_with:
        return
    _closes_with.add(me)
    if not me[1]:  # no worker, or none yet
        util.register_after_fork(_close_all, lambda _: _close_with_worker())
    elif util.is_exiting():  # a thread that it waits for is the first to report
        _close_later()
    else:
        util.Finalize(None, _close_at_end, exitpriority=0)


def _close_at_end() -> None:
    """Have all closed when its threads have ended, too: the worker waits for them after its finalizers.

    From Python 3.13 on it has done so before.
    """
    if threading.main_thread().is_alive():
        _close_later()
    else:
        _close_all()


def _close_later() -> None:
    """Have all closed by a thread for which the worker waits, as it does for others."""
    try:
        threading.Thread(target=_close_after_others, name="observer-actors-end", daemon=False).start()
    except RuntimeError:  # no thread to be had
        _close_all()


def _close_after_others() -> None:
    while others := [one for one in _others() if one is not threading.current_thread()]:
        for other in others:
            other.join()
    _close_all()


def _others() -> list[threading.Thread]:
    """Give the threads that a process waits for at its end."""
    return [
        one for one in threading.enumerate() if one.is_alive() and not (one.daemon or one is threading.main_thread())
    ]


atexit.register(_close_all)
