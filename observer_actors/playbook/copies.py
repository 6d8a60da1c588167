"""What the gateway is told of successes: the seed's consolidation. Pure.

With 5 successes or more in all, each endpoint with 3 or more of them is told, and again when they have grown by half
since: n successes make about log1.5(n) copies. Who has been told how much is no part of the playbook: it is saved with
the copies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

import msgspec

from observer_actors.patterns import LogEntry, Outgoing, log_message
from observer_actors.playbook.entries import Kind, entry_id
from observer_actors.playbook.evidence import Endpoint

SUCCESSES_MIN: Final = 5
ENDPOINT_SUCCESSES_MIN: Final = 3
PATTERN_CHARS_MAX: Final = 200
"""These three are the seed's."""


class Copy(msgspec.Struct, frozen=True):
    """What is to be told of one endpoint."""

    endpoint: str
    successes: int
    message: Outgoing


def copies(endpoints: Iterable[Endpoint], successes: int, told: Mapping[str, int]) -> list[Copy]:
    """Give what the gateway has to be told now, by each endpoint's first op.

    :param successes: of all endpoints together.
    :param told: endpoint -> its successes as they were told last.
    """
    if successes < SUCCESSES_MIN:
        return []
    enough = (one for one in endpoints if one.successes >= ENDPOINT_SUCCESSES_MIN)
    due = sorted((one for one in enough if _has_grown(one, told.get(one.name, 0))), key=lambda one: one.first_seq)
    return [Copy(one.name, one.successes, _message(one)) for one in due]


def _has_grown(endpoint: Endpoint, told: int) -> bool:
    return endpoint.successes > told and 2 * endpoint.successes >= 3 * told


def _message(endpoint: Endpoint) -> Outgoing:
    """Give the copy, in the seed's words.

    Its newest op makes the key: evidence that was told once is not told again, and what is counted anew, after the
    store was lost, is not taken for what it was before.
    """
    average = _to_fixed_0(endpoint.duration_ms_total / endpoint.successes)
    return log_message(
        f"entry:{entry_id(Kind.DO, endpoint.name)}:{endpoint.success_seq}",
        LogEntry(
            operation=f"consolidated: {endpoint.successes} successful {endpoint.name} calls",
            approach=f"common pattern: {'; '.join(endpoint.inputs)[:PATTERN_CHARS_MAX]}",
            result=f"avg_duration={average}ms, {endpoint.successes} successes",
            context=f"endpoint={endpoint.name}",
        ),
    )


def _to_fixed_0(value: float) -> str:
    """JavaScript's ``value.toFixed(0)`` below 1e21 (ECMA-262, 21.1.3.3): halves away from zero."""
    return str(Decimal(value).quantize(Decimal(1), ROUND_HALF_UP))
