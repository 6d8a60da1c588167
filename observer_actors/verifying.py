"""`observer-actors verify`, as a person or a program reads it."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Final

import msgspec

from observer_actors.errors import ConfigInvalid
from observer_actors.journal import Finding, VerifyReport, verify

__all__ = ["verify_and_print"]

EXIT_DAMAGE: Final = 1
PROGRESS_S: Final = 2.0
"""Nothing is said of progress before this; then a line in this time."""


def verify_and_print(data_dir: Path, *, as_json: bool) -> int:
    """Check the directory, print what was found, and give the exit status: 0, or 1 on damage.

    :raises ConfigInvalid: there is no such directory, or nothing of ours in it.
    """
    if not (data_dir / "_observer").is_dir():
        raise ConfigInvalid(f"{data_dir} is no data directory", hint="--data-dir names the one that `serve` was given")
    report = verify(data_dir, progress=_Progress())
    print(msgspec.json.encode(report).decode() if as_json else _in_words(data_dir, report))
    return EXIT_DAMAGE if report.is_damaged else 0


class _Progress:
    """Says how far it is, once it takes longer than a moment; on standard error, so that output stays parsable."""

    def __init__(self) -> None:
        self._next = time.monotonic() + PROGRESS_S

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + PROGRESS_S
        share = f"{done / total:4.0%}" if total else ""
        print(f"verifying: {share} of {total / 1e6:,.0f} MB", file=sys.stderr)


def _in_words(data_dir: Path, report: VerifyReport) -> str:
    lines = [_finding_in_words(finding) for finding in report.findings]
    omitted = report.damage + report.notices - len(report.findings)
    if omitted > 0:
        lines.append(f"… and {omitted:,} findings more")
    verdict = f"{report.damage:,} damaged" if report.is_damaged else "no damage"
    range_ = f"seq {report.first_seq:,} to {report.last_seq:,}" if report.ops else "empty"
    lines.append(
        f"{data_dir}: {verdict}; {report.ops:,} ops, {range_}, {report.segments:,} sealed segments, "
        f"{report.stored_bytes / 1e6:,.1f} MB{', in use' if report.in_use else ''}"
    )
    return "\n".join(lines)


def _finding_in_words(finding: Finding) -> str:
    where = "" if finding.line is None else f" line {finding.line}"
    where += "" if finding.offset is None else f" byte {finding.offset}"
    return f"{finding.severity}: {finding.file}{where}: {finding.what}"
