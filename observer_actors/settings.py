"""Every setting, with its default, its unit and its bounds: one frozen tree, of which each actor gets its part.

The types only; `config` fills them from flags, environment, credentials and files. A setting marked ``reload`` below
takes effect on SIGHUP; any other needs a restart. The text below a setting is its documentation: it stands in the file
that `observer-actors config default` prints.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

HTTP_ORIGIN: Final = r"https?://([^\s/?#]*@)?(\[[^\s\[\]]+\]|[^\s/?#@:\[\]]+)(:PORT)?".replace(
    "PORT", "(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[0-9]{1,4})"
)
"""What an http or https URL begins with, as a regular expression; no port is above 65,535."""
BaseUrl = Annotated[str, Meta(pattern=rf"^({HTTP_ORIGIN}(/[^\s?#]*)?)?\Z")]
"""Paths can be added to it."""
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
INT_MAX: Final = 2**63 - 1
"""The largest number that SQLite takes, and the system."""
Count = Annotated[int, Meta(ge=1, le=INT_MAX)]
Bytes = Annotated[int, Meta(ge=1, le=INT_MAX)]


class Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Root of the sections: immutable once read, and strict about names."""


class ListenSettings(Section, frozen=True):
    """Where the daemon listens, and what one request may cost."""

    host: str = "127.0.0.1"
    """Address or name; all addresses of a name are listened on."""
    port: Annotated[int, Meta(ge=0, le=65_535)] = 3800
    """0 takes a free port; the log says which, with `listening`."""
    tcp: bool = True
    """Listen on host and port; without, on the Unix socket alone."""
    unix: str = ""
    """Path of a Unix socket to listen on too; empty: none."""
    unix_mode: Annotated[str, Meta(pattern=r"^0?[0-7]{3}\Z")] = "0660"
    """Who may connect to the Unix socket: 0600 its owner alone, 0660 its group too."""
    unix_scopes: tuple[Literal["ingest", "read", "admin"], ...] = ("ingest", "read")
    """What users of the Unix socket may do without a token; root and the daemon's own user may do everything."""
    hosts: tuple[str, ...] = ()
    """Names, beside addresses, `localhost` and this machine's, that a request's `Host` may say. (reload)"""
    tls_cert: str = ""
    """File with the certificate chain (PEM): with it, the port speaks TLS alone; read again on SIGHUP."""
    tls_key: str = ""
    """File with the key (PEM); empty: it is in `tls_cert`. Read again on SIGHUP."""
    insecure_no_auth: bool = False
    """Allow an address that other machines reach without tokens."""
    connections_max: Count = 10_000
    """Connections open at once, else 503; fewer, if the process may not open as many files."""
    connections_per_address_max: Count = 10_000
    """Connections open at once from one address, else 429."""
    requests_per_connection_max: Count = 1_000_000
    """The answer to the last one closes the connection."""
    head_bytes_max: Annotated[int, Meta(ge=1_024, le=65_536)] = 16_384
    """Largest head of a request, else 431."""
    fields_max: Count = 256
    """Most fields in an event, those in its values too, else 422."""
    depth_max: Annotated[int, Meta(ge=1, le=200)] = 32
    """Deepest nesting in an event, else 422."""
    body_bytes_max: Bytes = 8 * 1024 * 1024
    """Largest body of a request, before decompression."""
    decompressed_bytes_max: Bytes = 16 * 1024 * 1024
    """Largest body after decompression."""
    bodies_bytes_max: Bytes = 12 * 1024 * 1024
    """All request bodies held in memory at once; those without a length share what is more of it than `body_bytes_max`,
    and one goes beyond that. Decoded they take about five times as much."""
    answers_bytes_max: Bytes = 16 * 1024 * 1024
    """All answers that are being sent at once, but those to events; beyond it 503."""
    batch_events_max: Count = 50_000
    """Most events in one `POST /events`."""
    idle_seconds_max: Seconds = 75.0
    """Time a connection may be silent between two requests."""
    head_seconds_max: Seconds = 10.0
    """Time a client may take to send the head of a request."""
    request_seconds_max: Seconds = 30.0
    """Time a client may take to send a body, else 408; after 2 s it must also come at 64 KiB a second."""
    answer_seconds_max: Seconds = 30.0
    """Time a client may take to read an answer, and a second more for each 64 KiB; then it is let go. So is
    one over TCP that reads nothing for so many seconds, 30 at least, however long the answer is."""


class AuthSettings(Section, frozen=True):
    """Who may use the port."""

    tokens_file: str = ""
    """File of tokens, a line each: `NAME SCOPES TOKEN`; read again on SIGHUP. Empty: whoever reaches the port."""


class JournalSettings(Section, frozen=True):
    """How ops are kept on disk."""

    segment_bytes_max: Bytes = 64 * 1024 * 1024
    """Size at which the active file is sealed. A start reads that file, and what `dedup_window_ops` asks for."""
    segment_seconds_max: Annotated[float, Meta(gt=0)] = 24 * 3600.0
    """Age at which the active file is sealed."""
    compress: bool = True
    """Compress what is sealed (gzip: about a tenth of the size)."""
    retained_bytes_max: Annotated[int, Meta(ge=0, le=INT_MAX)] = 0
    """Sealed segments beyond this size are deleted, oldest first; 0 keeps all. (reload)"""
    retained_seconds_max: Annotated[float, Meta(ge=0)] = 0.0
    """Sealed segments whose last op was recorded longer ago than this are deleted, where the time of day has not been
    set for ten minutes; 0 keeps all. (reload)"""
    dedup_window_ops: Annotated[int, Meta(ge=0, le=5_000_000)] = 100_000
    """An `id` is recognised when it was given to one of this many newest ops, which a start reads; 0 turns it off. One
    whose op retention has deleted is recognised until the next start: it is answered with the seq that it had, and not
    stored anew."""
    batch_ops_max: Count = 10_000
    """Requests (a batch is one, and so are single events that came at the same moment) written with one fdatasync."""
    batch_bytes_max: Bytes = 2 * 1024 * 1024
    """What is written with one fdatasync is added to until it has so many bytes, as they came in."""


class AdmissionSettings(Section, frozen=True):
    """How much may wait for the disk, and for how long."""

    waiting_ops_max: Count = 50_000
    """Ops that may wait for the disk; beyond it callers wait, and are then refused with 503."""
    waiting_bytes_max: Bytes = 12 * 1024 * 1024
    """As they came in; decoded they take about five times as much. Fewer where the disk takes less than four times as
    much in `wait_seconds_max`."""
    wait_seconds_max: Seconds = 5.0
    """A caller waits at most this long for its commit, and half as long for room, then it is refused with 503."""


class RingSettings(Section, frozen=True):
    """The recent ops, held in memory."""

    capacity_ops: Annotated[int, Meta(ge=1, le=1_000_000)] = 2_000
    """Ops held; fewer if their texts together take more than 16 MiB."""


class TailSettings(Section, frozen=True):
    """`GET /tail`."""

    readers_max: Count = 64
    """One more is refused with 503. Each is one of the 500 requests, beside events and advice, served at once."""
    buffer_ops_max: Count = 5_000
    """A reader that is further behind than this is dropped, and may come back with Last-Event-ID."""


class CycleSettings(Section, frozen=True):
    """The learning cycle."""

    seconds: Seconds = 30.0
    """From one cycle to the next. (reload)"""
    consolidate_every: Count = 5
    """Cycles from one consolidation to the next."""


class GatewaySettings(Section, frozen=True):
    """The program that gets a copy of what is learned; none is needed."""

    url: BaseUrl = ""
    """Base URL, e.g. http://127.0.0.1:3700; empty: there is none."""
    required: bool = False
    """Exit at the start when the gateway's `GET /health` does not answer, as the seed did."""
    timeout_seconds: Seconds = 10.0
    """For one delivery."""
    outbox_max: Count = 10_000
    """Undelivered messages kept, and as many for the webhook; beyond it the oldest is dropped, counted and logged."""
    retry_seconds_max: Seconds = 300.0
    """Longest wait between two tries to deliver a message."""


class ModelSettings(Section, frozen=True):
    """The language model that comments on failures; none is needed."""

    lakehouse_url: BaseUrl = ""
    """Base URL of the seed's `/ai/generate`; empty: there is none."""
    name: str = "qwen2.5"
    """The model that is asked for."""
    timeout_seconds: Seconds = 60.0
    """For one answer."""


class DiagnosisSettings(Section, frozen=True):
    """The language model that is asked about one pattern at a time, for its evidence; none is needed."""

    backend: Annotated[str, Meta(pattern=r"^(openai|ollama|llama\.cpp)?\Z")] = ""
    """"openai" is any server with that API, "llama.cpp" a child process of ours; "" asks none."""
    url: BaseUrl = ""
    """The base: for "openai" mostly ending in /v1."""
    model: str = ""
    """The model's name; for "llama.cpp" the path of a GGUF file."""
    api_key_file: str = ""
    """A file that holds the key, and nothing else."""
    timeout_seconds: Seconds = 60.0
    """Time for one answer."""
    answer_tokens_max: Count = 400
    """Longest answer that is asked for."""
    concurrency_max: Annotated[int, Meta(ge=1, le=16)] = 2
    """Questions under way at once."""
    retries_max: Annotated[int, Meta(ge=0, le=5)] = 1
    """Within one question; a pattern that got no answer stays due."""
    calls_per_hour_max: Annotated[int, Meta(ge=1, le=10_000)] = 60
    """Most questions in an hour."""
    tokens_per_hour_max: Count = 200_000
    """Most tokens in an hour, those of questions and answers together."""


class AdviceSettings(Section, frozen=True):
    """What agents are told that ask (`GET /advice`)."""

    control_share: Annotated[float, Meta(ge=0.01, le=0.9)] = 0.1
    """Share of runs that go without an entry, to be compared with; 0.5 or more while it is a candidate. (reload)"""


PatternState = Literal["new", "ongoing", "escalating", "resolved", "regressed", "muted"]
"""How a failure pattern stands (docs/failures.md)."""


class FailuresSettings(Section, frozen=True):
    """What is done about failure patterns."""

    webhook_url: Annotated[str, Meta(pattern=rf"^({HTTP_ORIGIN}([/?#]\S*)?)?\Z")] = ""
    """Is sent a JSON object (`StateChanged`) by POST for each change of a pattern's state."""
    webhook_states: tuple[PatternState, ...] = ("new", "escalating", "regressed")
    """The states that are worth a message."""


class PlaybookSettings(Section, frozen=True):
    """What it takes until an entry of the playbook may be handed out."""

    runs_min: Annotated[int, Meta(ge=1, le=8)] = 2
    """Different runs that its evidence comes from; ops of one source that name no run are one run."""
    sources_min: Annotated[int, Meta(ge=1, le=8)] = 2
    """Sources that have reported it; a verdict is no source. 1 trusts what one source says alone."""


class SourcesSettings(Section, frozen=True):
    """Labels beside `mcp`, `scenario`, `auditor` and `bot` that an event may carry as its source."""

    extra: tuple[str, ...] = ()
    """Any other label is kept as `scenario`, and the answer says so. (reload)"""


class SecretsSettings(Section, frozen=True):
    """What is taken out of events before they are stored, beside keys, passwords, PEM blocks and card numbers."""

    extra: tuple[str, ...] = ()
    """`KIND=EXPRESSION` each (RE2): what its last group matches, or all of it, becomes `[redacted:KIND]`. (reload)"""


class LogSettings(Section, frozen=True):
    """What goes to standard error."""

    level: Annotated[str, Meta(pattern=r"^(debug|info|warning|error)\Z")] = "info"
    """debug, info, warning or error; nothing is said that is below info. (reload)"""


class SupervisionSettings(Section, frozen=True):
    """How failing actors are restarted."""

    intensity: Count = 5
    """Restarts allowed within ``window_seconds``; one more exhausts the supervisor's patience."""
    window_seconds: Seconds = 30.0
    """The time over which restarts are counted."""
    backoff_seconds_first: Seconds = 0.5
    """Wait before the first restart; doubled for each further one."""
    backoff_seconds_max: Seconds = 30.0
    """Longest wait before a restart."""
    park_seconds: Seconds = 60.0
    """A parked actor is tried again this often."""
    crashes_before_quarantine: Count = 3
    """A message that was alone in hand at so many crashes is set aside."""


class Settings(Section, frozen=True):
    """The whole tree."""

    data_dir: Path = Path("data")
    """Where everything is kept; relative to where the daemon is started."""
    listen: ListenSettings = ListenSettings()
    auth: AuthSettings = AuthSettings()
    journal: JournalSettings = JournalSettings()
    admission: AdmissionSettings = AdmissionSettings()
    ring: RingSettings = RingSettings()
    tail: TailSettings = TailSettings()
    cycle: CycleSettings = CycleSettings()
    advice: AdviceSettings = AdviceSettings()
    gateway: GatewaySettings = GatewaySettings()
    model: ModelSettings = ModelSettings()
    failures: FailuresSettings = FailuresSettings()
    diagnosis: DiagnosisSettings = DiagnosisSettings()
    playbook: PlaybookSettings = PlaybookSettings()
    sources: SourcesSettings = SourcesSettings()
    secrets: SecretsSettings = SecretsSettings()
    log: LogSettings = LogSettings()
    supervision: SupervisionSettings = SupervisionSettings()
