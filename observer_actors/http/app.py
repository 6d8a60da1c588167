"""The web application: routes, each a few lines over `Views` and `Intake`."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import AsyncGenerator, Sequence
from functools import cache, partial
from typing import Annotated, Final, Literal, cast

import msgspec
import structlog
from msgspec import UNSET, UnsetType
from prometheus_client.exposition import choose_encoder
from quart import Response, request
from quart.typing import ResponseReturnValue
from quart_schema import (
    HttpSecurityScheme,
    Info,
    QuartSchema,
    document_headers,
    document_querystring,
    document_request,
    document_response,
    hide,
    tag,
)
from quart_schema.openapi import OpenAPIProvider
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from observer_actors import __version__
from observer_actors.errors import NotFound, ObserverError
from observer_actors.event import Event
from observer_actors.http.advice import register_advice
from observer_actors.http.description import Description, document_problems, document_text
from observer_actors.http.doubt import DoubtAnswer, DoubtfulOp, doubt_answer, marked_op
from observer_actors.http.exchange import request_body, send, turns_of_long_answers
from observer_actors.http.failures import register_failures
from observer_actors.http.gate import ENDLESS
from observer_actors.http.intake import BatchAnswer, EventAnswer
from observer_actors.http.kb import register_kb
from observer_actors.http.metrics import DaemonCollector
from observer_actors.http.playbook import register_playbook
from observer_actors.http.queries import (
    CURSOR,
    LIMIT_DEFAULT,
    LIMIT_MAX,
    Seq,
    Time,
    cursor_after,
    parse_ops_query,
    parse_parameters,
    parse_seq,
)
from observer_actors.http.replies import json_reply, problem_reply
from observer_actors.http.sse import stream
from observer_actors.http.views import Readiness, Views
from observer_actors.ring import RecentOp, RingStatistics
from observer_actors.stats import EndpointTally
from observer_actors.supervision import (
    ActorFailed,
    ActorParked,
    ActorStarted,
    ActorStatistics,
    ActorStopped,
    MessageQuarantined,
    MessageRedelivered,
    RestartScheduled,
    RestartsExhausted,
    ShutdownForced,
)
from observer_actors.threads import in_thread

PATH_SHOWN_MAX: Final = 200
_ODD_VERSION: Final = re.compile(r"\bversion=(?!\d{1,4}(\.\d{1,4}){0,4}\s*([;,]|$))", re.ASCII)
"""What `choose_encoder` would fail over, or give back as it came."""


class Health(msgspec.Struct, frozen=True):
    """`GET /health`: the process lives, and what an acknowledgement of it means."""

    status: str
    ops_in_ring: int
    version: str
    durability: str
    last_seq: int


class EndpointStats(msgspec.Struct, frozen=True):
    """One endpoint, over everything ever committed.

    A quantile is within 1 % of the duration at its rank. Up to 0.001 ms counts as 0, and above 1e10 ms as that.
    """

    total: int
    failures: int
    p50_ms: float
    p90_ms: float
    p99_ms: float


class LifetimeStats(msgspec.Struct, frozen=True):
    """Everything ever committed, up to `last_seq`.

    What the daemon itself has written (source `observer`) is in `by_source` and `per_second_1m` alone.
    """

    last_seq: int
    total: int
    successes: int
    failures: int
    by_source: dict[str, int]
    per_second_1m: float
    endpoints: dict[str, EndpointStats]


class StatsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /stats`: the seed's keys, over the ring, and `lifetime` beside them."""

    total: int
    successes: int
    failures: int
    by_source: dict[str, int]
    recent_scenario_ops: list[RecentOp]
    lifetime: LifetimeStats
    doubt: DoubtAnswer


class OpsAnswer(msgspec.Struct, frozen=True):
    """`GET /ops`.

    ``next``: the cursor of the following page, null at the end. ``complete``: false when the search stopped at its
    limit of ops looked at before the page was full; ``next`` goes on from there.
    """

    ops: list[DoubtfulOp]
    next: str | None
    complete: bool


class OpsParameters(msgspec.Struct, frozen=True):
    """The parameters of `GET /ops`: what happened from `since` on, and before `until`."""

    source: str | UnsetType = UNSET
    endpoint: str | UnsetType = UNSET
    success: bool | UnsetType = UNSET
    since: Time | UnsetType = UNSET
    until: Time | UnsetType = UNSET
    after_seq: Seq | UnsetType = UNSET
    before_seq: Seq | UnsetType = UNSET
    limit: Annotated[int, msgspec.Meta(ge=1, le=LIMIT_MAX)] = LIMIT_DEFAULT
    order: Literal["newest", "oldest"] | UnsetType = UNSET
    cursor: Annotated[str, msgspec.Meta(pattern=CURSOR.pattern)] | UnsetType = UNSET


class TailHeaders(msgspec.Struct, frozen=True):
    """The header of `GET /tail`: the seq of the last op that was read, as browsers send it."""

    last_event_id: Seq | UnsetType = msgspec.field(default=UNSET, name="Last-Event-ID")


AnyLifecycleEvent = (
    ActorStarted
    | ActorStopped
    | ActorFailed
    | RestartScheduled
    | RestartsExhausted
    | ActorParked
    | MessageRedelivered
    | MessageQuarantined
    | ShutdownForced
)


class TreeAnswer(msgspec.Struct, frozen=True):
    """`GET /actors`: the tree as it stands, and the newest lifecycle events."""

    actors: Sequence[ActorStatistics]
    events: Sequence[AnyLifecycleEvent]


class _Application(QuartTrio):
    """Quart, with our own line for a request that failed through a fault of ours."""

    def log_exception(self, *context_and_exception: object) -> None:
        """Log a failed request: what it was stands in fields, never in the name of the event.

        Quart 0.23 gives the context too, before the exception; 0.22 gives the exception alone.
        """
        fields = {"method": request.method, "path": request.path[:PATH_SHOWN_MAX]}
        structlog.get_logger(actor="ingest").error("request_failed", **fields, exc_info=context_and_exception[-1])


def create_app(views: Views) -> QuartTrio:
    """Make the application over the given views."""
    app = _Application("observer_actors", static_folder=None)
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False  # a method that we do not know is 404, as with the seed
    app.config["MAX_CONTENT_LENGTH"] = None  # the gate has looked
    app.config["BODY_TIMEOUT"] = None  # the gate has its own limit,
    app.config["RESPONSE_TIMEOUT"] = None  # and so has `web`
    app.url_map.merge_slashes = False  # it would redirect, with a page of its own, to a host that nobody has looked at
    app.logger = logging.getLogger("observer_actors.http")  # quart's would print by itself
    schema = QuartSchema(
        app,
        info=Info(title="observer_actors", version=__version__, description="The third-party witness for AI agents."),
        conversion_preference="msgspec",
        openapi_provider_class=Description,
        security_schemes={"token": HttpSecurityScheme(scheme="bearer")},
        security=[{}, {"token": []}],  # where `auth.tokens_file` is set, each route but /health and /ready takes one
        openapi_path=None,  # it would build the document anew for each request
    )
    _register_errors(app)
    _register_ingest(app, views)
    _register_status(app, views)
    _register_ops(app, views)
    register_failures(app, views)
    register_playbook(app, views)
    register_advice(app, views)
    register_kb(app, views)
    _register_description(app, schema.openapi_provider)
    return app


def _register_description(app: QuartTrio, provider: OpenAPIProvider) -> None:
    described = cache(lambda: json_reply(provider.schema()))

    @app.get("/openapi.json")
    @hide
    async def openapi() -> ResponseReturnValue:
        return send(described())


def _register_errors(app: QuartTrio) -> None:
    @app.errorhandler(ObserverError)
    async def observer_error(error: ObserverError) -> ResponseReturnValue:
        return send(problem_reply(error))

    @app.errorhandler(HTTPException)
    async def http_error(error: HTTPException) -> ResponseReturnValue:
        request.routing_exception = None  # which leads back to the request: only a search for garbage would find them
        return send(problem_reply(_of_ours(app, error)))


def _of_ours(app: QuartTrio, error: HTTPException) -> ObserverError:
    """Say werkzeug's errors as ours. A known path with another method is 404 too: the seed knows no 405."""
    if isinstance(error, MethodNotAllowed):
        return NotFound("not found", hint=f"{request.path} takes {', '.join(sorted(error.valid_methods or ()))}")
    if error.code != NotFound.status:
        return ObserverError("internal error; see the log")
    paths = [str(rule.rule) for rule in app.url_map.iter_rules() if "<" not in str(rule.rule)]
    nearest = difflib.get_close_matches(request.path, paths, 1)
    hint = f"did you mean {nearest[0]}?" if nearest else "GET /openapi.json says what there is"
    return NotFound("not found", hint=hint)


def _about_body() -> tuple[str, str]:
    return request.headers.get("Content-Encoding", ""), request.headers.get("traceparent", "")


def _register_ingest(app: QuartTrio, views: Views) -> None:
    @app.post("/event")
    @tag(["ingest"])
    @document_request(Event)
    @document_response(EventAnswer, 200)
    @document_problems(400, 408, 413, 415, 422, 431, 503, 507)
    async def post_event() -> ResponseReturnValue:
        """Report one operation; answered once it is on disk."""
        return send(await views.intake.event(await request_body(), *_about_body()))

    @app.post("/events")
    @tag(["ingest"])
    @document_request(Annotated[list[Event], msgspec.Meta(min_length=1)])
    @document_response(BatchAnswer, 200)
    @document_problems(400, 408, 413, 415, 422, 431, 503, 507)
    async def post_events() -> ResponseReturnValue:
        """Report many: NDJSON or a JSON array, each line judged by itself.

        A batch of which nothing is taken because of what it is (4xx) is a problem with the fields of the answer, too.
        One above `listen.body_bytes_max` is not read, and is a problem alone.
        Where 0 are accepted and 0 rejected, it is refused as a whole: nothing is said of any single event in it.
        """
        return send(await views.intake.batch(await request_body(), *_about_body()))


def _register_status(app: QuartTrio, views: Views) -> None:
    counting = turns_of_long_answers()
    encoding = turns_of_long_answers()

    @app.get("/health")
    @tag(["status"])
    @document_response(Health, 200)
    @document_problems(503)
    async def health() -> ResponseReturnValue:
        """Say that the process lives; at once, whoever is behind."""
        last_seq = views.commits.last_seq
        return send(json_reply(Health("ok", views.ring.size(), __version__, "fdatasync", last_seq)))

    @app.get("/ready")
    @tag(["status"])
    @document_response(Readiness, 200)
    @document_response(Readiness, 503)
    async def ready() -> ResponseReturnValue:
        """Say whether events are taken now."""
        readiness = views.readiness()
        return send(json_reply(readiness, 200 if readiness.ready else 503))

    @app.get("/stats")
    @tag(["status"])
    @document_response(StatsAnswer, 200)
    @document_problems(503)
    async def stats() -> ResponseReturnValue:
        """Count the ring, and everything ever committed."""
        await views.own_writes("ring_keeper")
        await views.own_writes("stats")
        async with counting:  # or all others would wait for all of them
            return send(json_reply(_stats_answer(views.ring.ring.statistics(), views)))

    @app.get("/metrics")
    @tag(["status"])
    @document_text("text/plain", "application/openmetrics-text")
    @document_problems(503)
    async def metrics() -> ResponseReturnValue:
        """Everything that is counted, for Prometheus."""
        accept = request.headers.get("Accept", "")
        encode, content_type = choose_encoder("" if _ODD_VERSION.search(accept) else accept)
        async with encoding:  # from the reading of the counters on: with 200 endpoints it takes 20 ms, and 700 KB
            encoded = await in_thread(partial(encode, DaemonCollector(views)))  # which takes up to some 50 ms
        return Response(encoded, content_type=content_type)

    @app.get("/actors")
    @tag(["status"])
    @document_response(TreeAnswer, 200)
    @document_problems(503)
    async def actors() -> ResponseReturnValue:
        """Show the tree: state, restarts, last error, mailbox, and since when."""
        return send(json_reply(TreeAnswer(views.tree(), cast("Sequence[AnyLifecycleEvent]", views.events.recent()))))


def _register_ops(app: QuartTrio, views: Views) -> None:
    @app.get("/ops")
    @tag(["ops"])
    @document_querystring(OpsParameters)
    @document_response(OpsAnswer, 200)
    @document_problems(400, 503)
    async def ops() -> ResponseReturnValue:
        """Find operations, newest first unless told otherwise.

        With the `cursor` of an answer repeat the filters: it says where to go on, and not what was asked for.
        """
        query = parse_ops_query(request.args.items(multi=True))
        page = await views.query(query)
        following = None if page.cursor is None else cursor_after(query, page.cursor)
        # In one go: pages that wait for their next turn beside each other would take more memory than the answers.
        return send(json_reply(OpsAnswer([marked_op(op) for op in page.ops], following, page.complete)))

    @app.get("/ops/<seq>")
    @tag(["ops"])
    @document_response(DoubtfulOp, 200)
    @document_problems(400, 404, 503)
    async def one_op(seq: str) -> ResponseReturnValue:
        """Give one operation by its seq."""
        found = await views.get(parse_seq(seq, "seq"))
        if found is None:
            raise NotFound(f"there is no op {int(seq)}", hint=f"the last is {views.commits.last_seq}")
        return send(json_reply(marked_op(found)))

    @app.get("/tail")
    @tag(["ops"])
    @document_headers(TailHeaders)
    @document_text("text/event-stream")
    @document_problems(400, 503)
    async def tail() -> ResponseReturnValue:
        """Follow operations as server-sent events; goes on behind `Last-Event-ID`.

        The events are `op` (an operation, with its seq as the id), `pattern` (a pattern of failures has changed its
        state; without an id, and not repeated) and `end` (nothing more comes; come back). None is called `message`: in
        a browser listen to each by its name, for `onmessage` is never called. At the beginning stands the seq that it
        goes on behind, as an id alone: who comes back before any operation came misses none.
        It ends when the client closes its side of the connection, so that whoever comes back finds a place.
        When the settings are reloaded it ends, too: who comes back is judged by the tokens that are in force then.
        """
        parse_parameters(request.args.items(multi=True), {}, "/tail")
        after = request.headers.get("Last-Event-ID")
        after_seq = parse_seq(after, "Last-Event-ID") if after else None
        views.tail.check_room()
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        body: bytes | AsyncGenerator[bytes] = b""
        if request.method != "HEAD":
            body = stream(views.tail, after_seq)
            request.scope["state"][ENDLESS]()
        return Response(body, content_type="text/event-stream", headers=headers)


def _shown_ms(duration_ms: float) -> float:
    return float(f"{duration_ms:.6g}")


def _stats_answer(ring: RingStatistics, views: Views) -> StatsAnswer:
    stats = views.stats.stats
    lifetime = LifetimeStats(
        last_seq=stats.last_seq,
        total=stats.all.successes + stats.all.failures,
        successes=stats.all.successes,
        failures=stats.all.failures,
        by_source={source: tally.successes + tally.failures for source, tally in stats.sources.items()},
        per_second_1m=round(views.stats.rate_per_second(), 3),
        endpoints={endpoint: _endpoint_stats(tally) for endpoint, tally in stats.endpoints.items()},
    )
    return StatsAnswer(
        total=ring.total,
        successes=ring.successes,
        failures=ring.failures,
        by_source=ring.by_source,
        recent_scenario_ops=ring.recent_scenario_ops,
        lifetime=lifetime,
        doubt=doubt_answer(views.analyzer.doubts),
    )


def _endpoint_stats(tally: EndpointTally) -> EndpointStats:
    p50, p90, p99 = map(_shown_ms, tally.latency.quantiles(0.5, 0.9, 0.99))
    return EndpointStats(
        total=tally.successes + tally.failures, failures=tally.failures, p50_ms=p50, p90_ms=p90, p99_ms=p99
    )
