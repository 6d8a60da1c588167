"""The world that the fleet works in: tools with rules that nobody has told the agents. Pure.

A tool answers a call as it would in reality: with a result, or with an error in its own words. Whether a task is done
is the checker's to say, who sees what the tool has really done (`Outcome.done`), not what it has answered.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

Input = Mapping[str, str | int | bool]


@dataclass(frozen=True)
class Outcome:
    """What a call has come to."""

    answer: str
    ok: bool
    """What the tool says."""
    done: bool
    """What is true."""


@dataclass(frozen=True)
class Task:
    """One thing to do: with which tool, for whom, and what is asked for."""

    name: str
    tool: str
    role: str
    number: int

    def share(self, *about: object) -> float:
        """Give a number from 0 to 1 that is the task's own for ever: what it is like, as far as the world decides."""
        return share_of(self.name, *about)


Ways = Callable[[Task], Sequence[Input]]
Rule = Callable[[Task, Input, Sequence[str], float], Outcome]
"""Task, input, tools that the run has called, chance from 0 to 1 -> what the call comes to."""


@dataclass(frozen=True, kw_only=True)
class Tool:
    """An endpoint, and how agents that know nothing use it."""

    name: str
    roles: Sequence[str]
    ways: Ways
    """Inputs that an agent may think of; without knowledge it takes one by chance."""
    weights: Sequence[int] = (1,)
    """How often each is the first thought."""
    answer: Rule
    """The tool's own rule, which nobody is told."""
    curable: bool = True
    """Knowledge helps: there is a way that works."""
    before: Sequence[str] = ()
    """Tools that an agent has at hand, and may call before this one."""
    failure: str
    """What goes wrong, for the report."""
    later: Rule | None = None
    """The rule after the world has changed; None: the same."""


def share_of(*parts: object) -> float:
    """Give a number from 0 to 1, the same for the same parts."""
    digest = hashlib.blake2b("\n".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2.0**64


def tasks(per_tool: int, tools: Sequence[Tool], *, first: int = 0) -> list[Task]:
    """Make tasks, so many for each tool, spread over the roles that use it."""
    return [
        Task(f"{tool.name} #{number}", tool.name, tool.roles[number % len(tool.roles)], number)
        for number in range(first, first + per_tool)
        for tool in tools
    ]


def _good(answer: str = "ok") -> Outcome:
    return Outcome(answer, ok=True, done=True)


def _bad(answer: str) -> Outcome:
    return Outcome(answer, ok=False, done=False)


def _day(task: Task) -> tuple[int, int]:
    return 1 + task.number % 12, 1 + task.number % 28


def _flight_ways(task: Task) -> list[Input]:
    month, day = _day(task)
    route = {
        "origin": ("SFO", "JFK", "ORD", "LAX")[task.number % 4],
        "destination": ("BOS", "SEA", "MIA")[task.number % 3],
    }
    return [
        {**route, "date": f"{month:02}/{day:02}/2026"},
        {**route, "date": f"{day} of month {month}"},
        {**route, "date": f"2026-{month:02}-{day:02}"},
    ]


def _flight(_task: Task, given: Input, _called: Sequence[str], _chance: float) -> Outcome:
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", str(given.get("date"))):
        return _bad(f"ValueError: time data {given.get('date')!r} does not match format '%Y-%m-%d'")
    return _good("3 flights")


def _user_ways(task: Task) -> list[Input]:
    name = ("Ann", "Raj", "Li", "Omar", "Eva")[task.number % 5]
    return [
        {"name": f"{name} {task.number}"},
        {"email": f"{name.lower()}{task.number}@example.org"},
        {"phone": f"+1 202 555 {1000 + task.number}"},
    ]


def _user(_task: Task, given: Input, _called: Sequence[str], _chance: float) -> Outcome:
    if "email" not in given:
        return _bad("LookupError: the customer index has no such key, several records may match")
    return _good("1 customer")


def _route_ways(task: Task) -> list[Input]:
    ends = {"start": f"stop {task.number}", "end": f"stop {task.number + 7}"}
    return [{**ends, "unit": "mi"}, {**ends, "unit": "km"}, {**ends, "unit": "m"}]


def _route(_task: Task, given: Input, _called: Sequence[str], _chance: float) -> Outcome:
    if given.get("unit") != "km":
        return _bad("RoutingError: no graph for the requested metric")
    return _good("route of 12 legs")


def _route_later(_task: Task, given: Input, _called: Sequence[str], _chance: float) -> Outcome:
    if given.get("unit") != "mi":
        return _bad("RoutingError: no graph for the requested metric")
    return _good("route of 12 legs")


def _refund_ways(task: Task) -> list[Input]:
    return [{"order": f"A-{10_000 + task.number}", "amount": 20 + task.number % 50}]


def _refund(_task: Task, _given: Input, called: Sequence[str], _chance: float) -> Outcome:
    if "orders:lock" not in called:
        return _bad("ConflictError: the order is open for editing elsewhere, version mismatch")
    return _good("refunded")


def _plain_ways(task: Task) -> list[Input]:
    return [{"subject": f"case {task.number}", "pages": 1 + task.number % 9}]


def _quote(_task: Task, _given: Input, _called: Sequence[str], chance: float) -> Outcome:
    return _bad("HTTP 502 from upstream: the partner does not answer") if chance < 0.35 else _good("quote 12.40")


def _scan(task: Task, _given: Input, _called: Sequence[str], _chance: float) -> Outcome:
    return _bad("OcrError: the scan is too faint to be read") if task.share("faint") < 0.4 else _good("text read")


def _draft(_task: Task, _given: Input, _called: Sequence[str], chance: float) -> Outcome:
    """Say that all is well, always; the checker finds that three in ten are not."""
    return Outcome("draft written", ok=True, done=chance >= 0.3)


def _lock(_task: Task, _given: Input, _called: Sequence[str], _chance: float) -> Outcome:
    return _good("locked")


def _tool(name: str, roles: Sequence[str], ways: Ways, rule: Rule, failure: str, **more: Any) -> Tool:
    return Tool(name=name, roles=roles, ways=ways, answer=rule, failure=failure, **more)


TOOLS: Final[Mapping[str, Tool]] = {
    tool.name: tool
    for tool in (
        _tool("flights:search", ("travel", "desk"), _flight_ways, _flight, "dates in another form", weights=(5, 2, 3)),
        _tool("crm:find", ("desk", "sales"), _user_ways, _user, "the wrong key", weights=(6, 3, 2)),
        _tool(
            "geo:route",
            ("travel", "fleet"),
            _route_ways,
            _route,
            "the wrong unit",
            weights=(6, 3, 1),
            later=_route_later,
        ),
        _tool(
            "orders:refund",
            ("desk", "sales"),
            _refund_ways,
            _refund,
            "a step is missing before",
            before=("orders:lock", "orders:note", "orders:show"),
        ),
        _tool("partner:quote", ("sales", "fleet"), _plain_ways, _quote, "the partner is down", curable=False),
        _tool("scan:read", ("desk", "fleet"), _plain_ways, _scan, "the scan is too faint", curable=False),
        _tool("draft:write", ("travel", "sales"), _plain_ways, _draft, "looks well, and is not", curable=False),
    )
}
HELPERS: Final[Mapping[str, Rule]] = dict.fromkeys(TOOLS["orders:refund"].before, _lock)
"""Tools that are called before another one, and never fail."""
