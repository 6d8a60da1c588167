"""`observer-actors patterns`: what the daemon does with failures, for a file of them. No daemon is asked."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Annotated, Final

import cyclopts
import msgspec
from cyclopts import Parameter

from observer_actors.commands._log_file import STDIN, opened
from observer_actors.errors import EventInvalid, ObserverError
from observer_actors.event import EventDecoder
from observer_actors.labels import bounded_endpoint
from observer_actors.op import Op, decode_op
from observer_actors.patterns import Catalogue, Group, error_text
from observer_actors.problems import UNREADABLE
from observer_actors.visible import visible_json

app = cyclopts.App(name="patterns", help="Group failures as the daemon does.")


class InputInvalid(ObserverError):
    """A line that is no event."""

    exit_code = 65  # EX_DATAERR


class GroupedLine(msgspec.Struct, frozen=True):
    """What is written for a line."""

    pattern: str | None
    template: str | None


_NO_TIME: Final = "1970-01-01T00:00:00.000Z"
"""For events without one: no time groups anything."""
_NO_FAILURE: Final = msgspec.json.encode(GroupedLine(None, None)) + b"\n"


@app.command
def group(file: Annotated[Path, Parameter(allow_leading_hyphen=True, show_default=False)] = STDIN, /) -> None:
    """Print one JSON object a line of input: `pattern`, the id, and `template`.

    The input is JSONL: events as they are sent to the daemon, or its journal, also compressed (.gz). Events are judged
    as the daemon judges them; rules of yours for secrets are not known here. All of it is read before anything is
    written: what comes later may show that two patterns are one. A success and a blank line have null for both. So has
    what the daemon would reject; the exit status is then 65, and the first is named. It is 66 when the file cannot be
    read.

    Example: observer-actors patterns group data/_observer/ops.jsonl

    Parameters
    ----------
    file
        The file to read; standard input when it is - or absent.
    """
    invalid: list[InputInvalid] = []
    with opened(file) as source:
        written = grouped(chain.from_iterable(source.batches(0)), invalid)
    sys.stdout.buffer.writelines(written)
    sys.stdout.buffer.flush()
    if invalid:
        others = f" (and {len(invalid) - 1:,} more)" if len(invalid) > 1 else ""
        raise InputInvalid(f"{invalid[0]}{others}", hint="one event a line, as the daemon takes them")


def grouped(lines: Iterable[bytes], invalid: list[InputInvalid]) -> Iterator[bytes]:
    """Group the failures of a file and give what is written for each line.

    :param invalid: takes what is wrong with lines that the daemon would reject.
    """
    catalogue = Catalogue()
    groups = [
        None if op is None or op.success else catalogue.place(bounded_endpoint(op.endpoint), error_text(op))
        for op in _read(lines, invalid)
    ]
    found = {group_of: _written(group_of.last()) for group_of in dict.fromkeys(groups) if group_of is not None}
    return (_NO_FAILURE if group_of is None else found[group_of] for group_of in groups)


def _written(group_of: Group) -> bytes:
    return visible_json(msgspec.json.encode(GroupedLine(group_of.id, group_of.template))) + b"\n"


def _read(lines: Iterable[bytes], invalid: list[InputInvalid]) -> Iterator[Op | None]:
    decoder = EventDecoder()
    for number, line in enumerate(lines, start=1):
        try:
            yield (_journalled(line) or decoder.one(line, now=_NO_TIME).op) if line.strip() else None
        except EventInvalid as error:
            invalid.append(InputInvalid(f"line {number}: {error}"))
            yield None


def _journalled(line: bytes) -> Op | None:
    """Give the op of a line of the journal, which was judged when it came; None for any other line."""
    try:
        op = decode_op(line)
    except UNREADABLE:
        return None
    return op if op.seq > 0 and op.recorded_at else None
