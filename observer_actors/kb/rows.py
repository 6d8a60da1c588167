"""The rows of the knowledge base, and the one that a verdict's op gives. Pure."""

from __future__ import annotations

import hashlib
from typing import Final, Literal, NamedTuple, get_args

import msgspec

from observer_actors.errors import EventInvalid
from observer_actors.event import AUDITOR
from observer_actors.op import Op
from observer_actors.problems import UNREADABLE

Severity = Literal["info", "warn", "block"]
SIGNATURE_CHARS_MAX: Final = 200
OVERALL_CHARS_MAX: Final = 64
ONE_LINER_CHARS_MAX: Final = 1_000
"""Of a row that the daemon writes: what an auditor sends may be longer, and is whole in the journal."""
FINDINGS_MAX: Final = 1_000_000
MADE_ID: Final = "op-"
"""What the id of a row begins with that was made from a verdict without one."""
_VERDICT: Final = "auditor:verdict"


class FindingCounts(msgspec.Struct, frozen=True):
    """Findings by severity."""

    info: int = 0
    warn: int = 0
    block: int = 0


class Finding(msgspec.Struct, frozen=True):
    """One thing that an audit found.

    :raises EventInvalid: an unknown severity.
    """

    severity: Severity
    title: str
    file: str = ""
    line: int | None = None
    """From 1; None when it is about the whole file, or about none."""

    def __post_init__(self) -> None:
        if self.severity not in get_args(Severity):
            raise EventInvalid(f"wants info, warn or block, got {self.severity!r:.40}", field="severity")


class OutcomeRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of any kind: what is read of it, as far as it has that. Of an audit, all that `AuditRow` has."""

    kind: str
    signature: str = ""
    overall: str = ""
    timestamp: str = ""


class AuditRow(OutcomeRow, frozen=True, kw_only=True):
    """One audit's outcome. The first three fields are always there; a foreign auditor may lack the others."""

    kind: Literal["audit"]
    signature: str
    """What was audited: ``pr6-7fe47bab``."""
    overall: str
    """``approve``, ``request_changes`` …"""
    ok: bool = False
    findings: FindingCounts = FindingCounts()
    one_liner: str = ""
    duration_ms: int | float = 0
    timestamp: str = ""
    id: str = ""
    """The same as of the event that tells the daemon; "" is never compared."""


class AuditRows(NamedTuple):
    """What a reading found."""

    rows: list[AuditRow]
    """In the order of the file, each ``id`` once."""
    damaged: int
    """Lines that are torn, or that claim to be audits and cannot be read as such."""


def verdict_row(op: Op) -> AuditRow | None:
    """Give the row of an op that is a verdict, with what is known; None for any other op.

    A verdict is of source ``auditor``, has a ``sig_hash``, and is at ``auditor:verdict`` or says its ``overall``.
    One that does not say it (the seed's) is ``approve`` when it is a success, which is what that means, else
    ``not_approved``. One without an ``id`` gets one of its place in the journal, the same at each reading.
    """
    signature, attrs = op.sig_hash, op.attrs if isinstance(op.attrs, dict) else {}
    said = attrs.get("overall")
    if op.source != AUDITOR or not (isinstance(signature, str) and signature):
        return None
    overall = said[:OVERALL_CHARS_MAX] if isinstance(said, str) else ""
    if op.endpoint != _VERDICT and not overall:
        return None
    return AuditRow(
        kind="audit",
        signature=signature[:SIGNATURE_CHARS_MAX],
        overall=overall or ("approve" if op.success else "not_approved"),
        ok=op.success,
        findings=FindingCounts(**{severity: _count(attrs.get(f"findings_{severity}")) for severity in _SEVERITIES}),
        one_liner=op.output_summary[:ONE_LINER_CHARS_MAX],
        duration_ms=op.duration_ms,
        timestamp=op.timestamp,
        id=op.id if isinstance(op.id, str) else _made_id(op),
    )


_SEVERITIES: Final[tuple[Severity, ...]] = get_args(Severity)


def _count(value: object) -> int:
    return value if type(value) is int and 0 <= value <= FINDINGS_MAX else 0


def _made_id(op: Op) -> str:
    """Make an id of when and as which op it was committed: another journal's op of that seq is another verdict."""
    return MADE_ID + hashlib.sha256(f"{op.recorded_at} {op.seq}".encode()).hexdigest()[:32]


_audit_decoder: Final = msgspec.json.Decoder(AuditRow)
_any_decoder: Final = msgspec.json.Decoder()


def decode_row(line: bytes) -> OutcomeRow | Literal["damaged"] | None:
    """Read a line: None when it is blank, or an object without a kind."""
    if not line.strip():
        return None
    try:
        return _audit_decoder.decode(line)
    except msgspec.ValidationError:
        return _other_row(line)
    except UNREADABLE:
        return "damaged"


def _other_row(line: bytes) -> OutcomeRow | Literal["damaged"] | None:
    """Tell a broken audit from another program's row; what is no JSON after all is broken too."""
    try:
        value = _any_decoder.decode(line)
    except UNREADABLE:
        return "damaged"
    kind = value.get("kind") if isinstance(value, dict) else None
    if kind == "audit":
        return "damaged"
    if not isinstance(kind, str):
        return None
    texts = {name: value[name] for name in ("signature", "overall", "timestamp") if isinstance(value.get(name), str)}
    return OutcomeRow(kind=kind, **texts)
