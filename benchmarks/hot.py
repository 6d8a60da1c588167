"""The hot functions, each as one pass over the same events. pytest-benchmark times them: `benchmarks/test_hot.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.payload import BATCH_EVENTS, events
from observer_actors.client import Observer
from observer_actors.event import EventDecoder
from observer_actors.http.replies import Reply
from observer_actors.http.wire import all_rendered, read_head, rendered
from observer_actors.journal import JournalWriter, PosixDisk
from observer_actors.journal.files import AppendFile
from observer_actors.op import Op, decode_op, encode_op, encode_ops
from observer_actors.patterns import Catalogue
from observer_actors.ring import Ring
from observer_actors.secrets import Secrets
from observer_actors.settings import JournalSettings
from observer_actors.stats import Stats

Pass = Callable[[], int]
"""Handles `BATCH_EVENTS` events, and says how many of them came out."""

NOW: Final = "2026-11-22T10:00:00.000Z"
BODIES: Final = (events() * (BATCH_EVENTS // len(events()) + 1))[:BATCH_EVENTS]
ERRORS: Final = (
    "HTTP 503 from https://api.example.com/flights?id=4711 after 30.2s (request 8f14e45f-ceea-467f-9575-1c0a3f2b6d11)",
    "Error: reservation 'HATHAT' of user_0042 not found at 2026-04-22T10:11:12Z",
    '{"error": "connect ECONNREFUSED 10.0.3.17:5432", "code": 5}',
    "TypeError: cannot read properties of undefined (reading 'seat') at /srv/app/src/book.ts:118:23",
)
HEAD: Final = (
    b"POST /event HTTP/1.1\r\nHost: 127.0.0.1:3800\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
)
REPLY: Final = Reply(200, b'{"accepted":true,"ring_size":2000,"seq":1234567}')

_decoder: Final = EventDecoder()
_batch: Final = b"\n".join(BODIES)
_ops: Final = [_decoder.one(body, now=NOW).op for body in BODIES]
_lines: Final = [encode_op(op) for op in _ops]
_requests: Final = [HEAD % len(body) + body for body in BODIES]
_texts: Final = [error.replace("4", str(n)) for n in range(BATCH_EVENTS // len(ERRORS)) for error in ERRORS]
_catalogue: Final = Catalogue()
_secrets: Final = Secrets()
_replies: Final = [Reply(200, REPLY.body) for _ in range(BATCH_EVENTS)]
_stay: Final = [False] * BATCH_EVENTS
_ring: Final = Ring(2_000)
_stats: Final = Stats()


def _push() -> int:
    _ring.push(_ops)
    return min(BATCH_EVENTS, len(_ring))


def _add() -> int:
    before = _stats.all.successes + _stats.all.failures
    _stats.add(_ops)
    return _stats.all.successes + _stats.all.failures - before


PASSES: Final[Mapping[str, Pass]] = {
    "read_head": lambda: sum(
        read_head(request, body_bytes_max=1_000, head_bytes_max=1_000) is not None for request in _requests
    ),
    "EventDecoder.several": lambda: sum(event is not None for event in _decoder.several(BODIES, now=NOW)),
    "EventDecoder.one": lambda: sum(bool(_decoder.one(body, now=NOW).op) for body in BODIES),
    "EventDecoder.many": lambda: len(_decoder.many(_batch, now=NOW, lines_max=BATCH_EVENTS).ops),
    "encode_ops": lambda: encode_ops(_ops).count(b"\n"),
    "decode_op": lambda: sum(bool(decode_op(line)) for line in _lines),
    "all_rendered": lambda: len(all_rendered(_replies, _stay)),
    "rendered": lambda: sum(bool(rendered(REPLY, close=False)) for _ in range(BATCH_EVENTS)),
    "Ring.push": _push,
    "Stats.add": _add,
    "Secrets.may_be_in": lambda: sum(not _secrets.may_be_in(body) for body in BODIES),
    "Catalogue.place": lambda: sum(bool(_catalogue.place("tool", text)) for text in _texts),
}

_away: Final = Observer("http://127.0.0.1:9", queue_events_max=BATCH_EVENTS, close_seconds=0)
"""Nobody is there: what is measured is what a host pays, with a full queue, and with a thread that tries in vain."""


def _operations() -> int:
    before = _away.statistics().events
    for _ in range(BATCH_EVENTS):
        with _away.operation("sql:run", input_summary="select count(*) from workers") as op:
            op.output_summary = "3 rows"
    return _away.statistics().events - before


def _operations_of_a_run() -> int:
    before = _away.statistics().events
    with _away.run("r"):
        for number in range(BATCH_EVENTS):
            given = {"query": "select count(*) from workers", "limit": 10}
            with _away.operation("sql:run", input_summary=given, attrs={"attempt": number}) as op:
                op.fail("timeout after 30 s")
    return _away.statistics().events - before


def _operations_on(rows: int) -> int:
    before = _away.statistics().events
    given = [{"id": number, "name": f"worker {number}", "city": "Bonn", "active": True} for number in range(rows)]
    for _ in range(BATCH_EVENTS):
        with _away.operation("sql:run", input_summary=given):
            pass
    return _away.statistics().events - before


HOSTS: Final[Mapping[str, Pass]] = {
    "Observer.operation": _operations,
    "Observer.operation, JSON, attributes, a run": _operations_of_a_run,
    "Observer.operation, a list of 20 objects": partial(_operations_on, 20),
    "Observer.operation, a list of 2,000 objects": partial(_operations_on, 2_000),
}
"""Each by its own pass over as many operations as there are events."""

COMMITS: Final[Mapping[str, bool]] = {"stamp and commit, no sync": False, "stamp and commit, fdatasync": True}
"""Whether the disk syncs."""


def commits(folder: Path, *, syncs: bool) -> tuple[JournalWriter, Pass]:
    """Open a journal; give its writer, to be closed, and a pass that commits to it."""
    disk = PosixDisk() if syncs else _UnsyncedDisk()
    writer = JournalWriter.open(disk, folder, JournalSettings(), now_us=lambda: 1_800_000_000_000_000)
    return writer, partial(_commit, writer, _ops)


def _commit(writer: JournalWriter, ops: list[Op]) -> int:
    before = writer.last_seq
    writer.stamp(ops)
    writer.commit(ops)
    return writer.last_seq - before


class _UnsyncedDisk(PosixDisk):
    """A disk whose fdatasync returns at once: what remains is our own work, and the write into the page cache."""

    def open_append(self, path: Path, *, create: bool) -> AppendFile:
        file = super().open_append(path, create=create)
        file.datasync = lambda: None  # type: ignore[method-assign]
        return file
