"""What the commands read of the daemon's answers.

Not the structs that the daemon answers with: a command may be of another version than the daemon that it asks. It reads
what it shows, passes over what it does not know, and has a default for what is not there.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

from observer_actors.op import Op


class HealthAnswer(Struct, frozen=True):
    """`GET /health`."""

    status: str
    version: str = ""
    last_seq: int = 0


class ReadyAnswer(Struct, frozen=True):
    """`GET /ready`."""

    ready: bool
    reasons: tuple[str, ...] = ()


class EndpointAnswer(Struct, frozen=True):
    """One endpoint, over everything ever committed."""

    total: int = 0
    failures: int = 0
    p50_ms: float = 0.0
    p90_ms: float = 0.0
    p99_ms: float = 0.0


class LifetimeAnswer(Struct, frozen=True):
    """Everything ever committed."""

    last_seq: int = 0
    total: int = 0
    successes: int = 0
    failures: int = 0
    by_source: dict[str, int] = field(default_factory=dict)
    per_second_1m: float = 0.0
    endpoints: dict[str, EndpointAnswer] = field(default_factory=dict)


class StatsAnswer(Struct, frozen=True):
    """`GET /stats`."""

    total: int
    successes: int
    failures: int
    lifetime: LifetimeAnswer = LifetimeAnswer()


class OpsAnswer(Struct, frozen=True):
    """`GET /ops`."""

    ops: tuple[Op, ...]
    next: str | None = None


class ActorAnswer(Struct, frozen=True):
    """One actor of the tree."""

    name: str
    state: str
    restarts: int = 0
    last_error: str = ""
    mailbox_depth: int | None = None
    mailbox_bound: int | None = None
    strategy: str = ""
    children: tuple[ActorAnswer, ...] = ()


class ActorsAnswer(Struct, frozen=True):
    """`GET /actors`."""

    actors: tuple[ActorAnswer, ...]


class FailureAnswer(Struct, frozen=True):
    """One failure pattern."""

    id: str
    endpoint: str = ""
    template: str = ""
    state: str = ""
    count: int = 0
    last_seen: str = ""


class RulingAnswer(Struct, frozen=True):
    """The likely cause by rules."""

    cause: str = ""
    confidence: float = 0.0
    advice: str = ""
    because: str = ""


class SeriesAnswer(Struct, frozen=True):
    """Failures by time."""

    minutes: tuple[int, ...] = ()
    hours: tuple[int, ...] = ()
    days: tuple[int, ...] = ()


class DiagnosisAnswer(Struct, frozen=True):
    """What a model said."""

    text: str
    model: str = ""
    created: str = ""


class ContrastAnswer(Struct, frozen=True):
    """What the failing ops have more often."""

    feature: str
    value: str
    failing_with: int = 0
    failing: int = 0
    succeeding_with: int = 0
    succeeding: int = 0


class PatternNoteAnswer(Struct, frozen=True):
    """What a person has noted with a pattern."""

    at_us: int
    text: str


class FailuresAnswer(Struct, frozen=True):
    """`GET /failures`."""

    failures: tuple[FailureAnswer, ...]
    total: int
    complete: bool = True


class ArmAnswer(Struct, frozen=True):
    """How the runs of one arm ended."""

    succeeded: int = 0
    failed: int = 0


class TrialAnswer(Struct, frozen=True):
    """What the uses of an entry have come to."""

    exposed: ArmAnswer = ArmAnswer()
    control: ArmAnswer = ArmAnswer()
    fixed: int = 0
    broken: int = 0


class SidesAnswer(Struct, frozen=True):
    """Runs in both arms."""

    exposed: ArmAnswer = ArmAnswer()
    control: ArmAnswer = ArmAnswer()


class LiftAnswer(Struct, frozen=True):
    """Exposed less control."""

    low: float = -1.0
    high: float = 1.0


class EntryAnswer(Struct, frozen=True):
    """One entry of the playbook."""

    id: str
    kind: str = ""
    endpoint: str = ""
    text: str = ""
    version: int = 0
    succeeded: int = 0
    failed: int = 0
    state: str = ""
    mark: str = ""
    handed_out: bool = False
    corroborated: bool = False
    supported: bool = True
    suspended: bool = False


class ChangeAnswer(Struct, frozen=True):
    """One version of an entry."""

    version: int
    seq: int
    what: str = ""
    state: str = ""


class NoteAnswer(Struct, frozen=True):
    """What a person has noted."""

    time: str = ""
    text: str = ""


class PatternReference(Struct, frozen=True):
    """A pattern of failures, and ops of an entry that belong to it."""

    id: str
    template: str = ""
    seqs: tuple[int, ...] = ()


class VerdictAnswer(Struct, frozen=True):
    """What was judged of a run."""

    run: str
    good: bool
    seq: int = 0
    seqs: tuple[int, ...] = ()


class EntryDetailAnswer(EntryAnswer, frozen=True):
    """`GET /playbook/{id}`."""

    runs: int = 0
    sources: tuple[str, ...] = ()
    reason: str = ""
    decided_by: SidesAnswer = SidesAnswer()
    trial: TrialAnswer = TrialAnswer()
    lift: LiftAnswer = LiftAnswer()
    example_seqs: tuple[int, ...] = ()
    contrary_seqs: tuple[int, ...] = ()
    history: tuple[ChangeAnswer, ...] = ()
    notes: tuple[NoteAnswer, ...] = ()
    patterns: tuple[PatternReference, ...] = ()
    verdicts: tuple[VerdictAnswer, ...] = ()


class PlaybookAnswer(Struct, frozen=True):
    """`GET /playbook`."""

    entries: tuple[EntryAnswer, ...]
    total: int = 0
    outdated: bool = False


class FailureDetailAnswer(FailureAnswer, frozen=True):
    """`GET /failures/{id}`."""

    state_since_us: int = 0
    first_seq: int = 0
    last_seq: int = 0
    first_seen: str = ""
    wasted_ms: float = 0.0
    sources: dict[str, int] = field(default_factory=dict)
    ruling: RulingAnswer = RulingAnswer()
    history: SeriesAnswer = SeriesAnswer()
    ops: tuple[Op, ...] = ()
    diagnosis: DiagnosisAnswer | None = None
    contrast: tuple[ContrastAnswer, ...] = ()
    notes: tuple[PatternNoteAnswer, ...] = ()
    lessons: tuple[EntryAnswer, ...] = ()
    aliases: tuple[str, ...] = ()


class RevokedAnswer(Struct, frozen=True):
    """`POST /playbook/revoke`."""

    seq: int
    suspended: int = 0


class FindingsAnswer(Struct, frozen=True):
    """Findings by severity."""

    info: int = 0
    warn: int = 0
    block: int = 0


class AuditAnswer(Struct, frozen=True):
    """One audit's outcome."""

    signature: str
    overall: str = ""
    one_liner: str = ""
    timestamp: str = ""
    findings: FindingsAnswer = FindingsAnswer()


class OutcomesAnswer(Struct, frozen=True):
    """`GET /kb/outcomes`."""

    outcomes: tuple[AuditAnswer, ...]


class TallyAnswer(Struct, frozen=True):
    """Audits, counted."""

    audits: int = 0
    refused: int = 0
    overall: dict[str, int] = field(default_factory=dict)
    last: str = ""


class HistoryAnswer(Struct, frozen=True):
    """`GET /kb/history`."""

    stem: str
    same: TallyAnswer
    similar: TallyAnswer
    newest: tuple[AuditAnswer, ...] = ()


class EventAnswer(Struct, frozen=True):
    """`POST /event`: it is on disk."""

    accepted: Literal[True]
    seq: int = 0
    duplicate: bool = False
    notes: tuple[str, ...] = ()


class RejectedLine(Struct, frozen=True):
    """Why a line of a batch was not taken."""

    line: int
    error: str


class BatchAnswer(Struct, frozen=True):
    """`POST /events`."""

    accepted: int = 0
    rejected: int = 0
    errors: tuple[RejectedLine, ...] = ()
    duplicates: int = 0
    last_seq: int | None = None
    notes: dict[str, int] = field(default_factory=dict)
    """How lines were taken otherwise than they said -> how many."""
