"""Entries as Markdown for a prompt. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from observer_actors.playbook.entries import Entry
from observer_actors.playbook.witnesses import WITNESSES_MAX
from observer_actors.quoting import INTRODUCTION, line


def as_markdown(entries: Sequence[Entry]) -> str:
    """Write entries for a prompt; nothing at all when there is none."""
    if not entries:
        return ""
    lines = [f"{line(one.kind, one.endpoint, one.text)} ({_evidence(one)})" for one in entries]
    return "\n".join(["## Advice", "", INTRODUCTION, "", *lines, ""])


def _evidence(entry: Entry) -> str:
    seen = f"{entry.succeeded:,} succeeded, {entry.failed:,} failed"
    return f"{seen}; {counted(entry.runs)} runs, {counted(len(entry.sources))} sources"


def counted(witnesses: int) -> str:
    """Write how many runs, or sources, speak for an entry: no more are counted than `WITNESSES_MAX`."""
    return f"{witnesses} or more" if witnesses >= WITNESSES_MAX else f"{witnesses}"
