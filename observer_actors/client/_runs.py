"""Which run is at work, and what was advised on what: so that outcomes name their advice without being told to."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from types import MappingProxyType
from typing import Final

from observer_actors.client._forks import renewed_after_fork

RUNS_MAX: Final = 1_000
"""Runs whose advice is remembered; beyond, the one that was advised longest ago is forgotten."""
ENDPOINTS_MAX: Final = 50
"""Of a run, or of what was asked outside of any."""


class _Block:
    """A block of `Observer.run`, and the one around it."""

    __slots__ = ("around", "name")

    def __init__(self, name: str, around: _Block | None) -> None:
        self.name = name
        self.around = around


_BLOCK: Final[ContextVar[_Block | None]] = ContextVar("observer_run", default=None)
"""The innermost of this task or thread. What outlives it, such as a task that was started within, stays in it."""


def current_run() -> str:
    """Give the run of this task or thread, as `Observer.run` says it; "" for none."""
    block = _BLOCK.get()
    return "" if block is None else block.name


@contextmanager
def run_block(name: str) -> Iterator[None]:
    """Let a run be the current one in a block."""
    block = _Block(name, _BLOCK.get())
    _BLOCK.set(block)
    try:
        yield
    finally:
        _leave(block)


def _leave(block: _Block) -> None:
    """Go back to the block around. Generators that take turns may leave the outer one first, or in another context."""
    inner = _BLOCK.get()
    if inner is block:
        _BLOCK.set(block.around)
    while inner is not None and inner is not block:
        if inner.around is block:
            inner.around = block.around
        inner = inner.around
    block.around = None  # whoever stays in it has nowhere to go back to


_ALONE: Final[ContextVar[Mapping[tuple[object, str], list[str]]]] = ContextVar(
    "observer_advised", default=MappingProxyType({})
)
"""What was advised outside of any run, by observer and endpoint. It is never changed, only replaced: what a task asks
is its own, and that of the tasks that it starts from then on."""


class Advised:
    """Which advice an operation follows, by run and endpoint; and, for what was asked outside of a run, by context.

    Advice for no endpoint (by the input alone) is that of the next operation, whatever its endpoint, and of no other:
    the list that holds an id is empty then. Every method may be called from any thread.
    """

    def __init__(self) -> None:
        self._runs: OrderedDict[str, OrderedDict[str, list[str]]] = OrderedDict()
        self._me = object()
        self.renew()
        renewed_after_fork(self)

    def renew(self) -> None:
        """Begin with a lock of our own, in a child process; what is known stays."""
        self._lock = threading.RLock()  # as in `Outbox`

    def note(self, run: str, endpoint: str, advice_id: str) -> None:
        """Remember what was advised on an endpoint: to a run, or "" in this context."""
        if not run:
            self.forget(endpoint)
            kept = list(_ALONE.get().items())[1 - ENDPOINTS_MAX :]
            _ALONE.set(dict([*kept, ((self._me, endpoint), [advice_id])]))
            return
        with self._lock:
            given = self._runs.setdefault(run, OrderedDict())
            given[endpoint] = [advice_id]
            given.move_to_end(endpoint)
            self._runs.move_to_end(run)
            if len(given) > ENDPOINTS_MAX:
                given.popitem(last=False)
            if len(self._runs) > RUNS_MAX:
                self._runs.popitem(last=False)

    def forget(self, endpoint: str) -> None:
        """Forget what was advised on an endpoint in this context: each request outside of a run is one of its own."""
        alone = _ALONE.get()
        if (self._me, endpoint) in alone:
            _ALONE.set({about: given for about, given in alone.items() if about != (self._me, endpoint)})

    def advice_id(self, run: str, endpoint: str) -> str:
        """Give what an operation follows that begins now: what was advised on its endpoint; "" for nothing."""
        if not run:
            alone = _ALONE.get()
            return _taken(alone.get((self._me, "")), alone.get((self._me, endpoint))) if alone else ""
        if not self._runs:
            return ""
        with self._lock:
            given = self._runs.get(run)
            return "" if given is None else _taken(given.get(""), given.get(endpoint))


def _taken(once: list[str] | None, ever: list[str] | None) -> str:
    if once:
        with suppress(IndexError):  # another task has begun the next operation
            return once.pop()
    return ever[0] if ever else ""
