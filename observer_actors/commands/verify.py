"""`observer-actors verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from observer_actors.commands._directory import NOT_HERE, may_look_into
from observer_actors.commands._options import ConfigOptions, Folder, JsonFlag
from observer_actors.commands._screen import LongWork, print_json
from observer_actors.errors import ConfigInvalid
from observer_actors.journal import Finding, PosixDisk, VerifyReport, refuse_seeds_file
from observer_actors.journal import verify as verify_directory
from observer_actors.visible import visible

EXIT_DAMAGE: Final = 1


def verify(
    data_dir: Folder | None = None,
    *,
    config: Path | None = None,
    json: JsonFlag = False,
) -> int:
    """Check a data directory: gaps, duplicates, checksums, torn tails.

    Exits 1 on damage, and says what and where. Works on a stopped and on a running daemon's directory; changes nothing.

    Example: observer-actors verify --data-dir ./data

    Parameters
    ----------
    data_dir
        The directory to check; unless given, the one that `serve` would take.
    config
        A TOML file with settings, as `serve` takes it.
    """
    settings = ConfigOptions(config=config, data_dir=data_dir).load(is_strict=False).settings
    folder, window = settings.data_dir, settings.journal.dedup_window_ops
    if not may_look_into(folder):
        raise ConfigInvalid(f"{folder} is no data directory, or none that this user may look into", hint=NOT_HERE)
    refuse_seeds_file(PosixDisk(), folder)
    with LongWork("verifying", "bytes") as progress:
        report = verify_directory(folder, dedup_window_ops=window, progress=progress)
    if json:
        print_json(msgspec.json.encode(report))
    else:
        print(_in_words(folder, report))
    return EXIT_DAMAGE if report.is_damaged else 0


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
    return "\n".join(map(visible, lines))


def _finding_in_words(finding: Finding) -> str:
    where = "" if finding.line is None else f" line {finding.line}"
    where += "" if finding.offset is None else f" byte {finding.offset}"
    return f"{finding.severity}: {finding.file}{where}: {finding.what}"
