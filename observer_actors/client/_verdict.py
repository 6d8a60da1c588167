"""The auditor's wire: a verdict goes to disk, to the daemon, and into the knowledge base, in this order.

Secrets are taken out of all three first, by the daemon's own rules.

Verdict files are never replaced. The first verdict on a signature is ``pr6-7fe47bab.json``, the next ones
``pr6-7fe47bab~2.json`` and so on; the same verdict again is recognised by its bytes and written once. Its id, made
from its contents, keeps the event and the row from counting twice as well, so a report that was cut short may
simply be made again.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, get_args
from uuid import uuid4

import anyio.to_thread
import msgspec

from observer_actors.client._events import EVENT_SECONDS, Receipt, record_external_op
from observer_actors.client._guest import kind_of
from observer_actors.client._ledger import LEDGER, warn
from observer_actors.client._limits import bounded_seconds
from observer_actors.client._places import data_directory
from observer_actors.client._texts import text
from observer_actors.errors import DiskFailed, EventInvalid, ObserverError
from observer_actors.journal.files import FILE_MODE, PosixDisk, translated
from observer_actors.kb.files import append_row, read_audit_rows, recently_told
from observer_actors.kb.rows import OVERALL_CHARS_MAX, SIGNATURE_CHARS_MAX, AuditRow, Finding, FindingCounts, Severity
from observer_actors.op import iso_milliseconds
from observer_actors.secrets import compiled_secrets
from observer_actors.visible import visible_json

VERSIONS_MAX: Final = 10_000
"""Different verdicts on one signature; more is a loop somewhere, not an audit."""
_DISK: Final = PosixDisk(shared=True)


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one audit. Two verdicts with equal contents are the same verdict.

    :raises EventInvalid: an empty, long or unprintable signature or overall, a duration below 0, a text that UTF-8
        cannot hold, or a field that is of another type than stands here.
    """

    signature: str
    """What was audited, such as ``pr6-7fe47bab``: 1 to 200 printable characters."""
    overall: str
    """``approve``, ``request_changes`` …: 1 to 64 printable characters."""
    one_liner: str
    findings: tuple[Finding, ...] = ()
    duration_ms: int | float = 0
    timestamp: str = msgspec.field(default_factory=lambda: iso_milliseconds(datetime.now(UTC)))

    def __post_init__(self) -> None:
        for field in ("signature", "overall", "one_liner", "timestamp"):
            _check_type(getattr(self, field), field, str, "a text")
        _check_type(self.findings, "findings", (tuple, list), "findings")
        for finding in self.findings:
            _check_type(finding, "findings", Finding, "findings")
        _check_type(self.duration_ms, "duration_ms", (int, float), "a number")
        _check_name(self.signature, "signature", SIGNATURE_CHARS_MAX)
        _check_name(self.overall, "overall", OVERALL_CHARS_MAX)
        if not (math.isfinite(self.duration_ms) and self.duration_ms >= 0):
            raise EventInvalid(f"wants milliseconds from 0 on, got {self.duration_ms}", field="duration_ms")
        try:
            msgspec.json.encode(self)
        except (TypeError, ValueError) as error:
            raise EventInvalid(f"cannot be written as JSON: {error}") from error

    @property
    def ok(self) -> bool:
        """Whether the audit approved."""
        return self.overall == "approve"

    @property
    def counts(self) -> FindingCounts:
        """Findings by severity."""
        severities = [finding.severity for finding in self.findings]
        return FindingCounts(**{severity: severities.count(severity) for severity in get_args(Severity)})

    @property
    def id(self) -> str:
        """The same for equal verdicts: of the event, and of the row."""
        return "audit-" + hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:32]


def _check_type(value: object, field: str, kind: type | tuple[type, ...], wanted: str) -> None:
    if not isinstance(value, kind):
        raise EventInvalid(f"wants {wanted}, got {kind_of(value)}", field=field)


def _check_name(name: str, field: str, chars_max: int) -> None:
    if not (0 < len(name) <= chars_max and name.isprintable()):
        raise EventInvalid(f"wants 1 to {chars_max} printable characters, got {name!r:.60}", field=field)


class VerdictReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a verdict. It is on disk, whatever else stands here."""

    path: Path
    repeated: bool
    """The same verdict was on disk before."""
    receipt: Receipt | None
    """The daemon's answer; None when there was trouble."""
    recorded: bool
    """The row is in the knowledge base."""
    troubles: tuple[str, ...] = ()
    """Why not, for each of the two that was dropped."""


async def report_verdict(
    verdict: Verdict,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    observer_url: str | None = None,
    timeout_seconds: float = EVENT_SECONDS,
) -> VerdictReport:
    """Write the verdict, tell the daemon, and add a row to the knowledge base. On trio and on asyncio.

    Trouble with the daemon or the row is logged, counted and told in the report. Calling it again with the same
    verdict is harmless, and does what was left.

    :param data_dir: by default OBSERVER_DATA_DIR, else ``data``.
    :param observer_url: as of `record_external_op`.
    :param timeout_seconds: for the daemon's answer; files take what they take.
    :raises DiskFailed: the verdict is not on disk (`DiskFull`: there is no room); nothing else was done.
    :raises ConfigInvalid: the time limit is no number, or the directory's path begins with ~; nothing was done.
    :raises EventInvalid: the signature or the overall holds a secret: a marker in its place would be another's name.
    """
    limit_s = bounded_seconds("timeout_seconds", timeout_seconds)
    post = partial(record_external_op, observer_url=observer_url, timeout_seconds=limit_s)
    return await reported(verdict, post, data_dir)


async def reported(
    verdict: Verdict,
    post: Callable[[Mapping[str, object]], Awaitable[Receipt]],
    data_dir: str | os.PathLike[str] | None = None,
) -> VerdictReport:
    """Do what `report_verdict` does, with another way to the daemon, whose errors are troubles too."""
    directory = data_directory(data_dir)
    verdict = await anyio.to_thread.run_sync(_without_secrets, verdict)
    path, repeated = await anyio.to_thread.run_sync(_write, directory, verdict)
    troubles: list[str] = []
    receipt = None
    try:
        receipt = await post(_event(verdict))
    except ObserverError as trouble:
        warn("verdict_not_posted", signature=verdict.signature, error=str(trouble), hint=trouble.hint)
        troubles.append(f"not posted: {trouble}")
    recorded = False
    try:
        await anyio.to_thread.run_sync(_record, directory, verdict, repeated)
        recorded = True
    except DiskFailed as trouble:
        LEDGER.row_lost(trouble)
        warn("verdict_not_recorded", signature=verdict.signature, error=str(trouble), hint=trouble.hint)
        troubles.append(f"not recorded: {trouble}")
    return VerdictReport(path=path, repeated=repeated, receipt=receipt, recorded=recorded, troubles=tuple(troubles))


def audit_history(data_dir: str | os.PathLike[str] | None = None, signature: str | None = None) -> list[AuditRow]:
    """Read what earlier audits found, oldest first. Blocks: in async code, call it in a thread.

    :param data_dir: by default OBSERVER_DATA_DIR, else ``data``.
    :param signature: only the audits of this one.
    :returns: each audit once. Rows of other kinds and torn lines are passed over; the latter are logged.
    :raises ConfigInvalid: the directory's path begins with ~.
    :raises DiskFailed: the file is there and cannot be read.
    """
    rows, damaged = read_audit_rows(data_directory(data_dir), signature)
    if damaged:
        warn("knowledge_base_damaged", lines=damaged)
    return rows


def _without_secrets(verdict: Verdict) -> Verdict:
    found: Counter[str] = Counter()
    clean = partial(compiled_secrets().text, found=found)
    for field in ("signature", "overall"):
        clean(getattr(verdict, field))
        if found:
            raise EventInvalid("holds a secret", field=field)
    findings = tuple(
        msgspec.structs.replace(finding, title=clean(finding.title), file=clean(finding.file))
        for finding in verdict.findings
    )
    one_liner, timestamp = clean(verdict.one_liner), clean(verdict.timestamp)
    return msgspec.structs.replace(verdict, one_liner=one_liner, findings=findings, timestamp=timestamp)


def _event(verdict: Verdict) -> dict[str, object]:
    counts = verdict.counts
    return {
        "timestamp": verdict.timestamp,
        "source": "auditor",
        "ok": verdict.ok,
        "one_liner": text(verdict.one_liner),
        "audit_duration_ms": verdict.duration_ms,
        "sig_hash": verdict.signature,
        "id": verdict.id,
        # Kept by the daemon as attributes, which is all that it needs to write the row by itself.
        "overall": verdict.overall,
        "findings_info": counts.info,
        "findings_warn": counts.warn,
        "findings_block": counts.block,
    }


def _row(verdict: Verdict) -> AuditRow:
    return AuditRow(
        kind="audit",
        signature=verdict.signature,
        overall=verdict.overall,
        ok=verdict.ok,
        findings=verdict.counts,
        one_liner=text(verdict.one_liner),
        duration_ms=verdict.duration_ms,
        timestamp=verdict.timestamp,
        id=verdict.id,
    )


def _record(data_dir: Path, verdict: Verdict, repeated: bool) -> None:  # noqa: FBT001 - called through to_thread
    """Append the row, unless a report of the same verdict has done so, or the daemon on this machine just has."""
    if recently_told(data_dir, verdict.id):
        return
    if repeated and any(row.id == verdict.id for row in read_audit_rows(data_dir, verdict.signature).rows):
        return
    append_row(data_dir, _row(verdict))


def _write(data_dir: Path, verdict: Verdict) -> tuple[Path, bool]:
    """Write the verdict's file, and say where it lies and whether it was there before."""
    data = _encoded(verdict)
    directory = data_dir / "_auditor" / "verdicts"
    temporary = directory / f".{uuid4().hex}.tmp"
    with translated("writing a verdict"):
        _DISK.make_directories(directory)
        _write_new(temporary, data)
        try:
            return _publish(temporary, directory / _stem(verdict.signature), data)
        finally:
            temporary.unlink()
            _DISK.sync_directory(directory)


def _encoded(verdict: Verdict) -> bytes:
    contents: dict[str, Any] = {
        "id": verdict.id,
        "signature": verdict.signature,
        "overall": verdict.overall,
        "ok": verdict.ok,
        "one_liner": verdict.one_liner,
        "counts": verdict.counts,
        "findings": verdict.findings,
        "duration_ms": verdict.duration_ms,
        "timestamp": verdict.timestamp,
    }
    return visible_json(msgspec.json.format(msgspec.json.encode(contents), indent=2)) + b"\n"


def _write_new(path: Path, data: bytes) -> None:
    """Make a file that is on disk as a whole, or is not there."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
    except OSError:
        path.unlink()
        raise


def _publish(temporary: Path, stem: Path, data: bytes) -> tuple[Path, bool]:
    """Give the file its name. A link, unlike a rename, never replaces what another auditor has just written."""
    for version in range(1, VERSIONS_MAX + 1):
        path = stem.with_name(stem.name + (f"~{version}.json" if version > 1 else ".json"))
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            if path.read_bytes() == data:
                return path, True
        else:
            return path, False
    raise DiskFailed(f"{stem.name} has {VERSIONS_MAX:,} verdicts already", hint="move old verdicts away")


_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]")
_STEM_CHARS_MAX: Final = 100


def _stem(signature: str) -> str:
    """Make a file name of a signature; one that had to be changed gets a hash, so that no two become one."""
    stem = _UNSAFE.sub("_", signature)[:_STEM_CHARS_MAX]
    if stem == signature and not stem.startswith("."):
        return stem
    return f"{stem.lstrip('.')}-{hashlib.sha256(signature.encode()).hexdigest()[:8]}"
