"""What both sides did with one body, side by side, field by field. Pure: `side_by_side` talks, this compares."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Final

from tests.parity.bodies import Body

RING_OPS: Final = 2_000
"""What both rings hold; ours by its default."""


class _Absent:
    """Stands where one side has nothing: not the same as null."""

    def __repr__(self) -> str:
        return "absent"


ABSENT: Final = _Absent()


@dataclass(frozen=True)
class Side:
    """What one side answered, and the lines that it wrote meanwhile."""

    status: int
    answer: Any
    """Its JSON; the text when it is none."""
    lines: tuple[bytes, ...] = ()
    kept: int = 0
    """Lines in its file, these among them."""
    prompt: bool = True
    """Whether the lines were in the file when the answer came."""


@dataclass(frozen=True)
class Exchange:
    """One body, posted to both."""

    body: Body
    seed: Side
    ours: Side
    began: datetime
    ended: datetime
    ids_before: frozenset[str] = field(default=frozenset(), repr=False)
    """Each `id` that an earlier body carried."""

    @cached_property
    def given(self) -> Any:
        """The value that was posted, as Python reads it; `ABSENT` when that is no JSON."""
        try:
            return json.loads(self.body.content.decode("utf-8-sig", errors="replace"))
        except (ValueError, RecursionError):
            return ABSENT

    @property
    def event(self) -> Mapping[str, Any]:
        """What was posted, if it is an object; else an empty one."""
        return self.given if isinstance(self.given, dict) else {}


@dataclass(frozen=True)
class Pair:
    """A field, as the one has it and as the other has it."""

    field: str
    seed: Any
    ours: Any

    @property
    def equal(self) -> bool:
        """Whether they are the same; numbers by value, but a number is never a boolean."""
        if isinstance(self.seed, bool) or isinstance(self.ours, bool):
            return self.seed is self.ours
        if isinstance(self.seed, int | float) and isinstance(self.ours, int | float):
            return _same_number(self.seed, self.ours)
        return type(self.seed) is type(self.ours) and bool(self.seed == self.ours)


@dataclass(frozen=True)
class Difference:
    """A field in which they differ, and in answer to what."""

    pair: Pair
    exchange: Exchange | None = None
    """None when it is not about one body."""


def differences(pairs: list[Pair], exchange: Exchange | None = None) -> list[Difference]:
    """Return the unequal ones."""
    return [Difference(pair, exchange) for pair in pairs if not pair.equal]


def exchange_pairs(exchange: Exchange) -> list[Pair]:
    """Return all that is to be compared about one body."""
    return list(_exchange_pairs(exchange))


def look_pairs(name: str, seed: Side, ours: Side, *, began: datetime, ended: datetime) -> list[Pair]:
    """Compare what both answered to the same request other than a posted event.

    :param began: times of ops that both made themselves lie between this and ``ended``.
    """
    status = Pair(f"{name} status", seed.status, ours.status)
    if not status.equal or not isinstance(seed.answer, dict):
        return [status]
    answers = (_without_times(side.answer, began, ended) for side in (seed, ours))
    return [status, *_leaves(name, *answers)]


def made_within(text: object, began: datetime, ended: datetime, *, digits: int = 3) -> bool:
    """Tell whether this is a time as both write it (ISO 8601, ``digits`` of a second, Z), of that span."""
    if not isinstance(text, str) or not re.fullmatch(rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{{digits}}}Z", text):
        return False
    unit = timedelta(seconds=10.0**-digits)  # both cut what is smaller
    return began - unit <= datetime.fromisoformat(text) <= ended


def _same_number(seed: float, ours: float) -> bool:
    """Compare by value. The seed has doubles only, and writes a big one as digits that are not quite its value."""
    if isinstance(seed, int) and isinstance(ours, int):
        return seed == ours
    try:
        return float(seed) == float(ours)
    except OverflowError:
        return False


def _exchange_pairs(exchange: Exchange) -> Iterator[Pair]:
    seed, ours = exchange.seed, exchange.ours
    yield Pair("status", seed.status, ours.status)
    if seed.status != ours.status:
        return
    yield from _leaves("answer", _said(seed), _said(ours))
    yield Pair("lines", len(seed.lines), len(ours.lines))
    if len(seed.lines) == len(ours.lines) == 1:
        yield Pair("line is there when the answer comes", seed.prompt, ours.prompt)
        yield from _line_pairs(exchange, seed.lines[0], ours.lines[0])


def _said(side: Side) -> Any:
    """Return the answer with what rightly differs replaced: the words of an error, and how much is in the ring."""
    if not isinstance(side.answer, dict):
        return side.answer
    said = dict(side.answer)
    if isinstance(said.get("error"), str) and said["error"]:
        said["error"] = "some words"
    if said.get("ring_size") == min(side.kept, RING_OPS):
        said["ring_size"] = "all that it has kept"
    return said


def _line_pairs(exchange: Exchange, seed_line: bytes, ours_line: bytes) -> Iterator[Pair]:
    seed, ours = (_record(line, exchange) for line in (seed_line, ours_line))
    yield from _leaves("line", seed, ours)
    yield Pair("line's keys in order", list(seed), list(ours)[: len(seed)])
    yield Pair("line's form", _form(seed_line), _form(ours_line))


def _record(line: bytes, exchange: Exchange) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(line)
    made_here = exchange.event.get("timestamp") is None
    if made_here and made_within(record.get("timestamp"), exchange.began, exchange.ended):
        record["timestamp"] = "the time of arrival"
    return record


_STRINGS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"')
_NEEDLESS_ESCAPE: Final = re.compile(
    rb"(?<!\\)(?:\\\\)*\\(u(?!00[01]|007f|00[89]|00ad|061c|200[b-f]|202[89a-e]|206|feff|db40|d[cd])|/)"
)
"""Ours escapes what a terminal obeys, or nobody sees, too: a difference that is wanted, and the same text for whoever
reads JSON."""


def _form(line: bytes) -> str:
    """Name what the contract wants of a line: raw UTF-8, no blanks between tokens."""
    blanks = "blanks" if re.search(rb"\s", _STRINGS.sub(b"", line)) else "no blanks"
    return f"{'escapes' if _NEEDLESS_ESCAPE.search(line) else 'raw UTF-8'}, {blanks}"


def _leaves(path: str, seed: Any, ours: Any) -> Iterator[Pair]:
    """Walk through both at once. A list of which the seed has nothing is compared element by element."""
    if isinstance(seed, dict) and isinstance(ours, dict):
        for name in {**seed, **ours}:
            yield from _leaves(f"{path}.{name}", seed.get(name, ABSENT), ours.get(name, ABSENT))
    elif isinstance(seed, list) and isinstance(ours, list):
        yield Pair(f"{path} length", len(seed), len(ours))
        for number, (one, other) in enumerate(zip(seed, ours, strict=False)):
            yield from _leaves(f"{path}[{number}]", one, other)
    elif seed is ABSENT and isinstance(ours, list):
        yield from (Pair(path, ABSENT, item) for item in ours)
    else:
        yield Pair(path, seed, ours)


def _without_times(answer: Any, began: datetime, ended: datetime) -> Any:
    if isinstance(answer, list):
        return [_without_times(item, began, ended) for item in answer]
    if isinstance(answer, dict):
        return {name: _without_times(value, began, ended) for name, value in answer.items()}
    return "a time of this run" if made_within(answer, began.astimezone(UTC), ended) else answer
