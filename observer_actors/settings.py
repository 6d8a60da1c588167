"""Every setting, with its default, its unit and its bounds: one frozen tree, of which each actor gets its part.

The types only; `config` fills them from flags, environment and file. A setting marked ``reload`` below takes
effect on SIGHUP; any other needs a restart.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

__all__ = [
    "AdmissionSettings",
    "CycleSettings",
    "DiagnosisSettings",
    "FailuresSettings",
    "GatewaySettings",
    "JournalSettings",
    "ListenSettings",
    "LogSettings",
    "ModelSettings",
    "RingSettings",
    "Settings",
    "SourcesSettings",
    "SupervisionSettings",
    "TailSettings",
]

Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Count = Annotated[int, Meta(ge=1)]
Bytes = Annotated[int, Meta(ge=1)]


class Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Root of the sections: immutable once read, and strict about names."""


class ListenSettings(Section, frozen=True):
    """Where the daemon listens, and what one request may cost."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535)] = 3800
    """0 takes a free port; the first log line says which."""
    insecure_no_auth: bool = False
    """Allow an address that other machines reach, although there is no authentication yet."""
    connections_max: Count = 10_000
    """Fewer, if the process may not open as many files."""
    body_bytes_max: Bytes = 8 * 1024 * 1024
    """Largest body of a request, before decompression."""
    decompressed_bytes_max: Bytes = 32 * 1024 * 1024
    """Largest body after decompression."""
    bodies_bytes_max: Bytes = 12 * 1024 * 1024
    """All request bodies held in memory at once. Decoded they take about five times as much."""
    batch_events_max: Count = 50_000
    """Events in one `POST /events`."""
    request_seconds_max: Seconds = 30.0
    """Time a client may take to send a body."""


class JournalSettings(Section, frozen=True):
    """How ops are kept on disk."""

    segment_bytes_max: Bytes = 64 * 1024 * 1024
    """Size at which the active file is sealed. Also what a start has to read, at most: about 0.2 s."""
    segment_seconds_max: Annotated[float, Meta(gt=0)] = 24 * 3600.0
    """Age at which the active file is sealed."""
    compress: bool = True
    retained_bytes_max: Annotated[int, Meta(ge=0)] = 0
    """Sealed segments beyond this size are deleted, oldest first; 0 keeps all. (reload)"""
    retained_seconds_max: Annotated[float, Meta(ge=0)] = 0.0
    """Sealed segments whose last op was recorded longer ago than this are deleted; 0 keeps all. (reload)"""
    dedup_window_ops: Annotated[int, Meta(ge=0, le=5_000_000)] = 100_000
    """An `id` is recognised when it was given to one of this many newest ops; 0 turns it off."""
    batch_ops_max: Count = 10_000
    """Ops written with one fdatasync."""
    batch_bytes_max: Bytes = 2 * 1024 * 1024


class AdmissionSettings(Section, frozen=True):
    """How much may wait for the disk, and for how long."""

    waiting_ops_max: Count = 50_000
    waiting_bytes_max: Bytes = 12 * 1024 * 1024
    """As they came in; decoded they take about five times as much."""
    wait_seconds_max: Seconds = 5.0
    """A caller waits at most this long for room and for its commit, then it is refused with 503."""


class RingSettings(Section, frozen=True):
    """The recent ops, held in memory."""

    capacity_ops: Annotated[int, Meta(ge=1, le=1_000_000)] = 2_000


class TailSettings(Section, frozen=True):
    """`GET /tail`."""

    readers_max: Count = 64
    buffer_ops_max: Count = 5_000
    """A reader that is further behind than this is dropped, and may come back with Last-Event-ID."""


class CycleSettings(Section, frozen=True):
    """The learning cycle."""

    seconds: Seconds = 30.0
    consolidate_every: Count = 5
    """Cycles from one consolidation to the next."""


class GatewaySettings(Section, frozen=True):
    """The program that gets a copy of what is learned; none is needed."""

    url: str = ""
    required: bool = False
    """Exit at the start when the gateway's `GET /health` does not answer, as the seed did."""
    timeout_seconds: Seconds = 10.0
    outbox_max: Count = 10_000
    """Undelivered messages kept; beyond it the oldest is dropped, counted and logged."""
    retry_seconds_max: Seconds = 300.0


class ModelSettings(Section, frozen=True):
    """The language model that comments on failures; none is needed."""

    lakehouse_url: str = ""
    """Base of the seed's `/ai/generate`."""
    name: str = "qwen2.5"
    timeout_seconds: Seconds = 60.0


class DiagnosisSettings(Section, frozen=True):
    """The language model that is asked about one pattern at a time, for its evidence; none is needed."""

    backend: Annotated[str, Meta(pattern="^(openai|ollama)?$")] = ""
    """"openai" is any server with that API, also llama.cpp's; "" asks none."""
    url: Annotated[str, Meta(pattern=r"^(https?://[^\s/?#]+(/[^\s?#]*)?)?$")] = ""
    """The base: for "openai" mostly ending in /v1."""
    model: str = ""
    api_key_file: str = ""
    """A file that holds the key, and nothing else."""
    timeout_seconds: Seconds = 60.0
    answer_tokens_max: Count = 400
    concurrency_max: Annotated[int, Meta(ge=1, le=16)] = 2
    retries_max: Annotated[int, Meta(ge=0, le=5)] = 1
    """Within one question; a pattern that got no answer stays due."""
    calls_per_hour_max: Annotated[int, Meta(ge=1, le=10_000)] = 60
    tokens_per_hour_max: Count = 200_000


class FailuresSettings(Section, frozen=True):
    """What is done about failure patterns."""

    webhook_url: Annotated[str, Meta(pattern=r"^(https?://[^\s/?#]+([/?#]\S*)?)?$")] = ""
    """Is sent a JSON object (`StateChanged`) by POST for each change of a pattern's state."""
    webhook_states: tuple[str, ...] = ("new", "escalating", "regressed")
    """The states that are worth a message."""


class SourcesSettings(Section, frozen=True):
    """Labels beside `mcp`, `scenario`, `auditor` and `bot` that an event may carry as its source."""

    extra: tuple[str, ...] = ()
    """(reload)"""


class LogSettings(Section, frozen=True):
    """What goes to standard error."""

    level: Annotated[str, Meta(pattern="^(debug|info|warning|error)$")] = "info"
    """(reload)"""


class SupervisionSettings(Section, frozen=True):
    """How failing actors are restarted."""

    intensity: Count = 5
    """Restarts allowed within ``window_seconds``; one more exhausts the supervisor's patience."""
    window_seconds: Seconds = 30.0
    backoff_seconds_first: Seconds = 0.5
    backoff_seconds_max: Seconds = 30.0
    park_seconds: Seconds = 60.0
    """A parked actor is tried again this often."""
    crashes_before_quarantine: Count = 3


class Settings(Section, frozen=True):
    """The whole tree."""

    data_dir: Path = Path("data")
    listen: ListenSettings = ListenSettings()
    journal: JournalSettings = JournalSettings()
    admission: AdmissionSettings = AdmissionSettings()
    ring: RingSettings = RingSettings()
    tail: TailSettings = TailSettings()
    cycle: CycleSettings = CycleSettings()
    gateway: GatewaySettings = GatewaySettings()
    model: ModelSettings = ModelSettings()
    failures: FailuresSettings = FailuresSettings()
    diagnosis: DiagnosisSettings = DiagnosisSettings()
    sources: SourcesSettings = SourcesSettings()
    log: LogSettings = LogSettings()
    supervision: SupervisionSettings = SupervisionSettings()
