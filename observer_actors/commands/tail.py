"""`observer-actors tail`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Final

from cyclopts import Parameter, validators

from observer_actors.commands._answers import HealthAnswer
from observer_actors.commands._api import Api, Refused
from observer_actors.commands._aside import told
from observer_actors.commands._filters import PAGE_OPS, Wanted, pages, raw_ops
from observer_actors.commands._options import ApiOptions, JsonFlag
from observer_actors.commands._screen import console, op_line, print_bytes
from observer_actors.commands._sse import messages
from observer_actors.errors import Unreachable
from observer_actors.op import Op, decode_op

OVERLOADED: Final = 503

AGAIN_S: Final = (0.5, 1.0, 2.0, 5.0)
"""Waits before the daemon is tried again; the last one from then on."""


def tail(
    wanted: Wanted = Wanted(),
    api: ApiOptions = ApiOptions(),
    *,
    lines: Annotated[int, Parameter(validator=validators.Number(gte=0, lte=PAGE_OPS))] = 10,
    count: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None,
    json: JsonFlag = False,
) -> None:
    """Follow operations as they are committed, until interrupted.

    Shows operations alone, not how patterns of failures change: `observer-actors failures` does.
    Goes on where it was when the daemon is restarted. With `--json`, an operation a line.

    Example: observer-actors tail --failed

    Parameters
    ----------
    lines
        Begin with so many of the newest operations.
    count
        End after so many, those at the beginning too.
    """
    screen = console()
    shown = 0
    with api.open() as daemon:
        for raw, op in _follow(daemon, wanted, lines):
            if json:
                print_bytes(raw + b"\n")
            else:
                screen.print(op_line(op), soft_wrap=True)
            sys.stdout.flush()
            shown += 1
            if shown == count:
                return


def _newest(daemon: Api, wanted: Wanted, upto_seq: int, lines: int) -> Iterator[tuple[bytes, Op]]:
    """Give the newest ops that are wanted, oldest first."""
    before = asdict(wanted) | {"before_seq": upto_seq + 1}
    found = [bytes(raw) for body, _ in pages(daemon, before, limit=lines) for raw in raw_ops(body)]
    return ((raw, decode_op(raw)) for raw in reversed(found))


def _follow(daemon: Api, wanted: Wanted, lines: int) -> Iterator[tuple[bytes, Op]]:
    """Give the newest ops and then each one that comes, once and in order, over any number of connections."""
    last_seq = daemon.read(HealthAnswer, "/health").last_seq
    yield from _newest(daemon, wanted, last_seq, lines)
    tries = 0
    while True:
        try:
            last_seq = _still_there(daemon, last_seq)
            for data in _stream(daemon, last_seq):
                tries = 0
                op = decode_op(data)
                last_seq = op.seq
                if wanted.fits(op):
                    yield data, op
            why = "the daemon is stopping or has reloaded its settings, or we were too slow"
        except (Unreachable, Refused) as trouble:
            if isinstance(trouble, Refused) and trouble.answered != OVERLOADED:
                raise
            why = str(trouble)
        if tries == 0:
            told(f"observer-actors: {why}; trying again")
        time.sleep(AGAIN_S[min(tries, len(AGAIN_S) - 1)])
        tries += 1


def _still_there(daemon: Api, last_seq: int) -> int:
    """Give the seq to go on behind: ours, or the daemon's last one where its journal ends before that."""
    end = daemon.read(HealthAnswer, "/health").last_seq
    if end < last_seq:
        told(f"observer-actors: the journal ends at {end} now, and we were at {last_seq}: was an older copy restored?")
    return min(end, last_seq)


def _stream(daemon: Api, after_seq: int) -> Iterator[bytes]:
    with daemon.lines("/tail", {"Last-Event-ID": str(after_seq)}) as lines:
        for message in messages(lines):
            if message.event == "op":
                yield message.data.encode()
