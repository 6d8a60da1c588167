"""`observer-actors patterns`: what the daemon does with failures, for a file of them. No daemon is asked."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Final

import cyclopts
import msgspec
from cyclopts import Parameter

from observer_actors.errors import ObserverError
from observer_actors.labels import bounded_endpoint
from observer_actors.patterns import Catalogue, Group
from observer_actors.problems import UNREADABLE
from observer_actors.visible import visible_json

STANDARD_INPUT: Final = "-"

app = cyclopts.App(name="patterns", help="Group failures as the daemon does.")


class InputInvalid(ObserverError):
    """A file that cannot be read, or a line of it that is no event."""

    title = "invalid input"
    exit_code = 65  # EX_DATAERR


class Line(msgspec.Struct, frozen=True):
    """What is read of a line; other keys are passed over."""

    error: str | None = None
    output_summary: str | None = None
    endpoint: str | None = None
    success: bool = False


class GroupedLine(msgspec.Struct, frozen=True):
    """What is written for a line."""

    pattern: str | None
    template: str | None


_NO_FAILURE: Final = msgspec.json.encode(GroupedLine(None, None)) + b"\n"


@app.command
def group(file: Annotated[str, Parameter(allow_leading_hyphen=True, show_default=False)] = STANDARD_INPUT, /) -> None:
    """Print one JSON object a line of input: `pattern`, the id, and `template`.

    The input is JSONL with `error`, and `endpoint` where there is one. All of it is read before anything is written:
    what comes later may show that two patterns are one. A line without an error, a blank one, and one with `success`
    true have null for both. So has one that is no JSON object; the exit status is then 65, and the first is named.

    Example: observer-actors patterns group data/_observer/ops.jsonl

    Parameters
    ----------
    file
        The file to read; standard input when it is - or absent.
    """
    invalid: list[InputInvalid] = []
    with ExitStack() as stack:
        try:
            lines = sys.stdin.buffer if file == STANDARD_INPUT else stack.enter_context(Path(file).open("rb"))
            written = grouped(lines, invalid)
        except OSError as error:
            raise InputInvalid(f"cannot read {file}: {error.strerror}") from error
    sys.stdout.buffer.writelines(written)
    sys.stdout.buffer.flush()
    if invalid:
        others = f" (and {len(invalid) - 1:,} more)" if len(invalid) > 1 else ""
        raise InputInvalid(f"{invalid[0]}{others}", hint="one JSON object a line, with a text as error")


def grouped(lines: Iterable[bytes], invalid: list[InputInvalid]) -> Iterator[bytes]:
    """Group the failures of a file and give what is written for each line.

    :param invalid: takes what is wrong with lines that are no JSON object, or have a field of another type than they
        should.
    """
    catalogue = Catalogue()
    groups = [None if line is None else _place(catalogue, line) for line in _read(lines, invalid)]
    found = {group_of: _written(group_of.last()) for group_of in dict.fromkeys(groups) if group_of is not None}
    return (_NO_FAILURE if group_of is None else found[group_of] for group_of in groups)


def _written(group_of: Group) -> bytes:
    return visible_json(msgspec.json.encode(GroupedLine(group_of.id, group_of.template))) + b"\n"


def _place(catalogue: Catalogue, line: Line) -> Group | None:
    text = line.error or line.output_summary
    if line.success or not text:
        return None
    return catalogue.place(bounded_endpoint(line.endpoint or ""), text)


def _read(lines: Iterable[bytes], invalid: list[InputInvalid]) -> Iterator[Line | None]:
    decode = msgspec.json.Decoder(Line).decode
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            yield None
            continue
        try:
            yield decode(line)
        except UNREADABLE as error:
            invalid.append(InputInvalid(f"line {number}: {error}"))
            yield None
