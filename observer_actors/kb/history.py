"""What earlier audits of the same thing, and of similar ones, came to. Pure.

*Similar* are signatures with the same stem. The stem of ``pr6-7fe47bab`` is ``pr6``: what stands before the commit,
which is 7 to 64 hexadecimal digits at the end, behind ``-``, ``_``, ``@``, ``:`` or ``/``, also when ``-dirty``
follows. A signature that begins with the number of a pull request (``pr6``, ``pr-6``, ``PR#6``) has that as its stem,
whatever follows. A signature without a commit is its own stem. Upper and lower case are the same.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from observer_actors.kb.rows import FINDINGS_MAX, AuditRow, FindingCounts
from observer_actors.visible import cut

OVERALLS_MAX: Final = 20
OTHER: Final = "other"
TOLD_CHARS_MAX: Final = 160
_PULL_REQUEST: Final = re.compile(r"pr[-_#/]?([0-9]+)(?![0-9a-z])", re.IGNORECASE)
_COMMIT: Final = re.compile(r"[-_@:/][0-9a-f]{7,64}")


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """Audits, counted. ``first`` and ``last`` are the times of the outermost, in the order of the file."""

    audits: int = 0
    refused: int = 0
    """Not approved."""
    overall: dict[str, int] = msgspec.field(default_factory=dict)
    """By verdict, most frequent first; beyond `OVERALLS_MAX` of them under ``other``."""
    findings: FindingCounts = FindingCounts()
    first: str = ""
    last: str = ""


class AuditHistory(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /kb/history`: what audits of this signature, and of others with its stem, came to."""

    signature: str
    stem: str
    same: Tally
    """Of exactly this signature."""
    similar: Tally
    """Of the other signatures with its stem."""
    newest: Sequence[AuditRow]
    """Of both, newest first."""
    complete: bool = True
    """Whether nothing older than what was looked at has been left out."""


def stem_of(signature: str) -> str:
    """Give what similar signatures have in common: see the module."""
    if found := _PULL_REQUEST.match(signature):
        return f"pr{found[1]}"
    stem = signature.lower().removesuffix("-dirty")
    place = max(map(stem.rfind, "-_@:/"))
    return stem[:place] if place > 0 and _COMMIT.fullmatch(stem, place) else stem


def history_of(rows: Iterable[AuditRow], signature: str, *, newest: int, complete: bool) -> AuditHistory:
    """Sum up.

    :param rows: oldest first; those of other stems are passed over.
    :param newest: how many rows are given as they are.
    :param complete: whether these are all rows that there are.
    """
    stem = stem_of(signature)
    found = [row for row in rows if stem_of(row.signature) == stem]
    return AuditHistory(
        signature=signature,
        stem=stem,
        same=_tally([row for row in found if row.signature == signature]),
        similar=_tally([row for row in found if row.signature != signature]),
        newest=found[: -newest - 1 : -1],
        complete=complete,
    )


def _tally(rows: Sequence[AuditRow]) -> Tally:
    if not rows:
        return Tally()
    counted = Counter(row.overall for row in rows).most_common()
    overall = dict(counted[:OVERALLS_MAX])
    if rest := sum(count for _, count in counted[OVERALLS_MAX:]):
        overall[OTHER] = overall.get(OTHER, 0) + rest
    return Tally(
        audits=len(rows),
        refused=sum(not row.ok for row in rows),
        overall=overall,
        findings=FindingCounts(
            info=_sum(row.findings.info for row in rows),
            warn=_sum(row.findings.warn for row in rows),
            block=_sum(row.findings.block for row in rows),
        ),
        first=rows[0].timestamp,
        last=rows[-1].timestamp,
    )


def _sum(counts: Iterable[int]) -> int:
    """Add up what can be true, as `verdict_row` has it: a file may say anything, and JSON takes no endless number."""
    return sum(count for count in counts if 0 <= count <= FINDINGS_MAX)


def told(history: AuditHistory) -> str:
    """Say in a sentence what an auditor must know; "" when there is nothing."""
    parts = []
    for tally, who in (
        (history.same, history.signature),
        (history.similar, f"{history.stem} (other commits)"),
    ):
        if tally.audits:
            times = {0: "never refused", 1: "refused once", 2: "refused twice"}.get(
                tally.refused, f"refused {tally.refused} times"
            )
            parts.append(f"{who} was {times} in {tally.audits} earlier audit{'s' * (tally.audits > 1)}")
    last = next((row for row in history.newest if not row.ok), None)
    if parts and last is not None:
        parts.append(f"last for: {cut(last.one_liner, TOLD_CHARS_MAX) or last.overall}")
    return "; ".join(parts)
