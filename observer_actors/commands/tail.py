"""`observer-actors tail`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Final

from cyclopts import Parameter, validators

from observer_actors.commands._answers import HealthAnswer
from observer_actors.commands._api import Api, Refused
from observer_actors.commands._filters import PAGE_OPS, pages, raw_ops
from observer_actors.commands._options import ApiOptions, JsonFlag
from observer_actors.commands._screen import console, op_line, told
from observer_actors.commands._sse import messages
from observer_actors.errors import Unreachable
from observer_actors.op import Op, decode_op

OVERLOADED: Final = 503

AGAIN_S: Final = (0.5, 1.0, 2.0, 5.0)
"""Waits before the daemon is tried again; the last one from then on."""


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which operations are shown."""

    source: Annotated[str | None, Parameter(help="Only of this source.")] = None
    endpoint: Annotated[str | None, Parameter(help="Only of this endpoint.")] = None
    success: Annotated[
        bool | None, Parameter(name="--success", negative="--failed", help="Only what succeeded, or only what failed.")
    ] = None

    def fits(self, op: Op) -> bool:
        """Tell whether an op is wanted."""
        pairs = ((self.source, op.source), (self.endpoint, op.endpoint), (self.success, op.success))
        return all(wanted is None or wanted == found for wanted, found in pairs)


def tail(
    wanted: Wanted = Wanted(),
    api: ApiOptions = ApiOptions(),  # noqa: B008 - frozen
    *,
    lines: Annotated[int, Parameter(validator=validators.Number(gte=0, lte=PAGE_OPS))] = 10,
    count: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None,
    json: JsonFlag = False,
) -> None:
    """Follow operations as they are committed, until interrupted.

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
        for raw, op in _follow(daemon, lines):
            if not wanted.fits(op):
                continue
            if json:
                sys.stdout.write(raw + "\n")
            else:
                screen.print(op_line(op), soft_wrap=True)
            sys.stdout.flush()
            shown += 1
            if shown == count:
                return


def _follow(daemon: Api, lines: int) -> Iterator[tuple[str, Op]]:
    """Give the newest ops and then each one that comes, once and in order, over any number of connections."""
    last_seq = daemon.read(HealthAnswer, "/health").last_seq
    before = {"after_seq": max(0, last_seq - lines), "before_seq": last_seq + 1, "order": "oldest"}
    if lines:
        for body, _ in pages(daemon, before, limit=lines):
            yield from ((bytes(raw).decode(), decode_op(bytes(raw))) for raw in raw_ops(body))
    tries = 0
    while True:
        try:
            for data in _stream(daemon, last_seq):
                tries = 0
                op = decode_op(data.encode())
                last_seq = op.seq
                yield data, op
            why = "the daemon is stopping, or we were too slow"
        except (Unreachable, Refused) as trouble:
            if isinstance(trouble, Refused) and trouble.answered != OVERLOADED:
                raise
            why = str(trouble)
        if tries == 0:
            told(f"observer-actors: {why}; trying again")
        time.sleep(AGAIN_S[min(tries, len(AGAIN_S) - 1)])
        tries += 1


def _stream(daemon: Api, after_seq: int) -> Iterator[str]:
    with daemon.lines("/tail", {"Last-Event-ID": str(after_seq)}) as lines:
        for message in messages(lines):
            if message.event == "op":
                yield message.data
